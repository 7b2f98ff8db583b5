//! What of a configuration cannot be changed while the controller runs, and what of it holds for
//! all services.

use crate::{admin::proto::change::Fixed, model::Config};

/// Ends the controller's old life and begins a new one; the kernel goes on forwarding.
const RESTART: &str = "write it to the controller's file and restart the controller: the kernel goes \
                       on forwarding meanwhile";
/// The same where that breaks flows.
const RESTART_BREAKS: &str = "write it to the controller's file and restart the controller at a \
                              quiet time: established connections break";
/// The maps have their size for as long as they are pinned.
const UNLOAD: &str = "write it to the controller's file, end the controller, take everything out \
                      of the kernel ('evenkeel unload', which ends forwarding) and start it again";

/// The keys that differ and cannot be changed while the controller runs.
#[must_use]
pub fn fixed(before: &Config, after: &Config) -> Vec<Fixed> {
    let (plane, next) = (&before.data_plane, &after.data_plane);
    let (admin, next_admin) = (&before.admin, &after.admin);
    let (state, next_state) = (&before.state, &after.state);
    let (tracking, next_tracking) = (&before.tracking, &after.tracking);
    let differing = [
        (
            "data_plane.interfaces",
            plane.interfaces != next.interfaces,
            RESTART,
        ),
        (
            "data_plane.xdp_mode",
            plane.xdp_mode != next.xdp_mode,
            RESTART,
        ),
        ("data_plane.pins", plane.pins != next.pins, RESTART),
        (
            "data_plane.hash_seed",
            plane.hash_seed != next.hash_seed,
            RESTART_BREAKS,
        ),
        (
            "data_plane.probe_mark",
            plane.probe_mark != next.probe_mark,
            RESTART,
        ),
        ("admin.socket", admin.socket != next_admin.socket, RESTART),
        ("admin.group", admin.group != next_admin.group, RESTART),
        (
            "admin.change_group",
            admin.change_group != next_admin.change_group,
            RESTART,
        ),
        (
            "state.directory",
            state.directory != next_state.directory,
            RESTART,
        ),
        (
            "state.keep_events",
            state.keep_events != next_state.keep_events,
            RESTART,
        ),
        (
            "state.max_journal",
            state.max_journal != next_state.max_journal,
            RESTART,
        ),
        (
            "state.max_history",
            state.max_history != next_state.max_history,
            RESTART,
        ),
        (
            "tracking.fresh",
            tracking.fresh != next_tracking.fresh,
            UNLOAD,
        ),
        (
            "tracking.established",
            tracking.established != next_tracking.established,
            UNLOAD,
        ),
        ("snat", !keeps_pool(before, after), RESTART_BREAKS),
    ];
    differing
        .into_iter()
        .filter(|(_, differs, _)| *differs)
        .map(|(key, _, remedy)| Fixed {
            key: key.to_owned(),
            remedy: remedy.to_owned(),
        })
        .collect()
}

/// Whether the flows that come from the pool of `snat` still do: addresses may be added to it.
fn keeps_pool(before: &Config, after: &Config) -> bool {
    let Some(pool) = &before.snat else {
        return true;
    };
    after.snat.as_ref().is_some_and(|next| {
        let family = |v4: bool| {
            let of = move |all: &[std::net::IpAddr]| -> Vec<std::net::IpAddr> {
                all.iter().copied().filter(|a| a.is_ipv4() == v4).collect()
            };
            of(&next.addresses).starts_with(&of(&pool.addresses))
        };
        next.ports == pool.ports && family(true) && family(false)
    })
}

/// The settings of all services that differ and can be changed, as keys of the file.
#[must_use]
pub fn settings(before: &Config, after: &Config) -> Vec<String> {
    // Taken apart, so that a part that is new is not overlooked here or in `fixed`.
    let Config {
        data_plane,
        admin: _,
        snat,
        tunnel,
        state: _,
        tracking,
        notify,
        audit,
        incidents,
        http,
        services: _,
    } = before;
    let next = &after.tracking;
    let differing = [
        (
            "data_plane.evenness",
            data_plane.evenness != after.data_plane.evenness,
        ),
        (
            "data_plane.on_drift",
            data_plane.on_drift != after.data_plane.on_drift,
        ),
        ("snat", *snat != after.snat),
        ("tunnel", *tunnel != after.tunnel),
        ("notify", *notify != after.notify),
        ("audit", *audit != after.audit),
        ("incidents", *incidents != after.incidents),
        ("http", *http != after.http),
        ("tracking.window", tracking.window != next.window),
        ("tracking.idle_tcp", tracking.idle_tcp != next.idle_tcp),
        ("tracking.idle_udp", tracking.idle_udp != next.idle_udp),
        ("tracking.closing", tracking.closing != next.closing),
    ];
    differing
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(key, _)| key.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn parsed(head: &str) -> Config {
        let text = format!(
            "{head}\n[[services]]\nname = \"web\"\nvip = \"198.51.100.10\"\nport = 80\n\
             [[services.backends]]\naddress = \"10.0.0.1\"\n"
        );
        config::parse("test", &text).unwrap_or_else(|findings| panic!("{findings}"))
    }

    fn keys(before: &str, after: &str) -> (Vec<String>, Vec<String>) {
        let (before, after) = (parsed(before), parsed(after));
        let fixed = fixed(&before, &after).into_iter().map(|f| f.key).collect();
        (fixed, settings(&before, &after))
    }

    const PLAIN: &str = "[data_plane]\ninterfaces = [\"eth0\"]";

    #[test]
    fn what_needs_a_restart_is_named() {
        assert_eq!(keys(PLAIN, PLAIN), (vec![], vec![]));
        let other = "[data_plane]\ninterfaces = [\"eth1\"]\nxdp_mode = \"generic\"\npins = \"/x\"\n\
                     hash_seed = 5\nprobe_mark = 0x7f0000\n[admin]\nsocket = \"/y\"\ngroup = \"ops\"\nchange_group = \"wheel\"\n[state]\n\
                     directory = \"/z\"\n[tracking]\nfresh = 131072\nestablished = 131072";
        let all = [
            "data_plane.interfaces",
            "data_plane.xdp_mode",
            "data_plane.pins",
            "data_plane.hash_seed",
            "data_plane.probe_mark",
            "admin.socket",
            "admin.group",
            "admin.change_group",
            "state.directory",
            "tracking.fresh",
            "tracking.established",
        ];
        assert_eq!(
            keys(PLAIN, other),
            (all.map(str::to_owned).to_vec(), vec![])
        );
    }

    #[test]
    fn what_holds_for_all_is_named() {
        let other = "[data_plane]\ninterfaces = [\"eth0\"]\nevenness = 0.01\non_drift = \"report\"\n[tracking]\n\
                     window = \"1m\"\n[tunnel]\ngue_port = 6081\n[audit]\nevery = \"2h\"\n[incidents]\nclose_after = \"1h\"\n[http]\nlisten = []\n\
                     [[notify]]\nname = \"ops\"\ntype = \"file\"\npath = \"/alerts\"";
        let live = [
            "data_plane.evenness",
            "data_plane.on_drift",
            "tunnel",
            "notify",
            "audit",
            "incidents",
            "http",
            "tracking.window",
        ];
        assert_eq!(
            keys(PLAIN, other),
            (vec![], live.map(str::to_owned).to_vec())
        );
    }

    #[test]
    fn a_pool_may_grow_and_nothing_else() {
        let pool = |addresses: &str| format!("{PLAIN}\n[snat]\naddresses = [{addresses}]");
        let one = pool("\"10.0.0.3\"");
        let two = pool("\"10.0.0.3\", \"10.0.0.4\"");
        let live = (vec![], vec!["snat".to_owned()]);
        assert_eq!(keys(PLAIN, &one), live);
        assert_eq!(keys(&one, &two), live);
        for next in [&one, &pool("\"10.0.0.4\", \"10.0.0.3\""), PLAIN] {
            assert_eq!(keys(&two, next).0, ["snat"], "{next}");
        }
    }
}
