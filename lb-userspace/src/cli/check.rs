//! `evenkeel check`: is a configuration right?

use std::{fmt::Write, path::PathBuf};

use clap::Args;
use humantime::format_duration;

use super::{
    Answer, CONFIG_FILE,
    output::{self, plain},
};
use crate::{
    audit,
    config::{self, LoadError},
    model::{
        AdminConfig, Backend, Config, Ejection, Fragments, HealthCheck, Mode, OnDown, Part,
        Protocol, Senses, Service, Spread, Tunnel, UdpFlows, Via,
    },
};

/// Say everything that is wrong with a configuration, or what it means
///
/// Changes nothing, and needs neither root nor a running controller.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  evenkeel check
  evenkeel check ./evenkeel.toml
  evenkeel check --json ./evenkeel.toml | jq -r '.[].problem'

What the audit has to say of a valid configuration is shown too, and changes nothing;
'evenkeel audit --offline --file FILE' ends with exit code 1 where it is bad.

With --json, the findings are printed as a list, which is empty for a valid configuration.

Exit codes:
  0  valid
  1  not valid; the findings are on standard output
  2  the file could not be read, or wrong usage")]
pub(super) struct Arguments {
    /// The configuration
    #[arg(value_name = "FILE", default_value = CONFIG_FILE)]
    file: PathBuf,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// Checks a file.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let (text, answer) = match config::load(&arguments.file) {
        Ok(_) if arguments.json => ("[]\n".to_owned(), Answer::Yes),
        Ok(config) => {
            let name = plain(&arguments.file.to_string_lossy());
            (
                format!("{name} is valid\n\n{}{}", summary(&config), advice(&config)),
                Answer::Yes,
            )
        }
        Err(LoadError::Findings(findings)) if arguments.json => {
            (serde_json::to_string_pretty(&findings)? + "\n", Answer::No)
        }
        Err(LoadError::Findings(findings)) => {
            (format!("{}\n", findings.to_string().trim_end()), Answer::No)
        }
        Err(error) => return Err(error.into()),
    };
    output::print(&text)?;
    Ok(answer)
}

/// What the audit says of it; a file may be valid and unwise.
fn advice(config: &Config) -> String {
    let mut findings = audit::config::judge(config, &[]);
    if findings.is_empty() {
        return String::new();
    }
    super::audit::sort(&mut findings);
    format!("\nvalid, but:\n{}", super::audit::render(&findings))
}

/// Who may talk to the controller.
fn admitted(admin: &AdminConfig) -> String {
    match (&admin.group, &admin.change_group) {
        (None, None) => "root alone".to_owned(),
        (Some(group), None) => format!("root and group {}", plain(group)),
        (None, Some(change)) => format!("root and group {}, which may change", plain(change)),
        (Some(group), Some(change)) => format!(
            "root and group {}; group {} may change",
            plain(group),
            plain(change)
        ),
    }
}

/// What a person wants to see confirmed.
fn summary(config: &Config) -> String {
    let plane = &config.data_plane;
    let admin = &config.admin;
    let mut out = format!(
        "attached to   {} ({} XDP)\npinned in     {}\nanswers at    {}, for {}\n",
        plain(&plane.interfaces.join(", ")),
        plane.xdp_mode,
        plain(&plane.pins.to_string_lossy()),
        plain(&admin.socket.to_string_lossy()),
        admitted(admin),
    );
    out.push_str(&shared(config));
    for service in &config.services {
        describe(service, &mut out);
    }
    out
}

/// What services have in common, as far as one of them needs it.
fn shared(config: &Config) -> String {
    let mut out = String::new();
    let uses = |mode: fn(Mode) -> bool| config.services.iter().any(|s| mode(s.mode));
    let list = |items: Vec<String>| items.join(", ");
    // Writing to a string cannot fail.
    if let Some(snat) = &config.snat {
        let addresses = snat.addresses.iter().map(ToString::to_string).collect();
        let _ = writeln!(
            out,
            "snat from     {}, ports {}",
            list(addresses),
            snat.ports
        );
    }
    if uses(Mode::tunnels) {
        let Tunnel {
            source_ipv4: v4,
            source_ipv6: v6,
            gue_port,
        } = config.tunnel;
        let own = || "the host's own address".to_owned();
        let _ = write!(
            out,
            "tunnels from  {} (IPv4), {} (IPv6)",
            v4.map_or_else(own, |prefix| prefix.to_string()),
            v6.map_or_else(own, |prefix| prefix.to_string()),
        );
        if uses(|mode| mode == Mode::Gue) {
            let _ = write!(out, "; gue to port {gue_port}");
        }
        out.push('\n');
    }
    let tracking = config.tracking;
    let _ = writeln!(
        out,
        "remembers     up to {} new and {} established flows; for {} after a change",
        tracking.fresh,
        tracking.established,
        humantime::format_duration(tracking.window),
    );
    out
}

/// What a service asks for beyond its mode, but for what holds anyway.
fn options(service: &Service) -> Vec<String> {
    let options = &service.options;
    let mut out = Vec::new();
    match options.spread {
        Spread::Flow => {}
        Spread::Source => out.push("spread by source address".to_owned()),
        Spread::Port => out.push("spread by destination port".to_owned()),
    }
    if service.key.protocol == Protocol::Udp && options.udp == UdpFlows::Sticky {
        out.push("every flow is remembered".to_owned());
    }
    if let Some(quic) = options.quic {
        let bytes = quic.server_id_length.bytes();
        out.push(format!("QUIC server IDs of {bytes} bytes"));
    }
    if let Some(sources) = &options.sources {
        let (allow, deny) = (sources.allow.len(), sources.deny.len());
        let others = if allow == 0 { "allowed" } else { "denied" };
        out.push(format!(
            "prefixes: {allow} allowed, {deny} denied, others {others}"
        ));
    }
    if let Some(limit) = options.limit {
        out.push(format!(
            "{} new connections a second from each source, {} at once",
            limit.per_second, limit.burst
        ));
    }
    match options.fragments {
        Fragments::Follow(fate) => out.push(format!("fragments follow, {fate} those too early")),
        Fragments::Refuse(fate) => out.push(format!("{fate} fragments")),
    }
    if options.on_down == OnDown::Keep {
        out.push("flows stay with a backend that is down".to_owned());
    }
    if let Some(length) = options.slow_start {
        out.push(format!("slow start over {}", format_duration(length)));
    }
    match options.panic_below {
        Part::HALF => {}
        Part::NONE => out.push("never in panic".to_owned()),
        below => {
            let below = below.fraction() * 100.0;
            out.push(format!("all are used where fewer than {below} % are up"));
        }
    }
    if options.ejection != Ejection::default() {
        out.push(describe_ejection(&options.ejection));
    }
    if let Some(agent) = &options.agent {
        out.push(format!(
            "agents on port {} asked every {}, time-out {}; a last word counts for {}",
            agent.port,
            format_duration(agent.interval),
            format_duration(agent.timeout),
            format_duration(agent.keep),
        ));
    }
    out
}

fn describe_ejection(ejection: &Ejection) -> String {
    format!(
        "underperformers: {} by {}, from {}x and {} % failures, up to {} % of the weight, for {}",
        ejection.underperformers,
        match ejection.senses {
            Senses::Probes => "probes",
            Senses::ProbesAndTraffic => "probes and traffic",
        },
        ejection.slow.ratio(),
        ejection.errors.fraction() * 100.0,
        ejection.budget.fraction() * 100.0,
        format_duration(ejection.hold),
    )
}

/// What a backend has beside its weight.
fn particulars(backend: &Backend) -> String {
    let port = backend.port.map(|port| format!(", port {port}"));
    let id = backend.server_id.as_ref();
    let id = id.map(|id| format!(", server ID {id}"));
    port.unwrap_or_default() + &id.unwrap_or_default()
}

fn describe(service: &Service, out: &mut String) {
    let checked = service.health.as_ref().map_or_else(
        || "not checked: every backend counts as healthy".to_owned(),
        describe_check,
    );
    let mut lines = format!(
        "\n{}  {}, {}, {}, {} packets while no backend is usable\n  {}\n  {checked}\n",
        plain(&service.name),
        service.key,
        service.mode,
        service.ring_slots,
        service.on_empty,
        options(service).join("; "),
    );
    let total: u64 = service
        .backends
        .iter()
        .map(|backend| u64::from(backend.weight.number()))
        .sum();
    let width = service
        .backends
        .iter()
        .map(|backend| plain(&backend.name).chars().count())
        .max();
    for backend in &service.backends {
        let weight = backend.weight.number();
        let share = if total == 0 {
            0.0
        } else {
            f64::from(weight) / total as f64
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            lines,
            "  {:width$}  {}  weight {weight}, {:.1} % of the load{}",
            plain(&backend.name),
            backend.address,
            share * 100.0,
            particulars(backend),
            width = width.unwrap_or(0),
        );
    }
    out.push_str(&lines);
}

fn describe_check(check: &HealthCheck) -> String {
    let mut what = format!("{} check", check.kind.name());
    if let (Some(port), true) = (check.port, check.kind.has_port()) {
        // Writing to a string cannot fail.
        let _ = write!(what, " of port {port}");
    }
    match (check.via, check.client_mtu) {
        (Via::Direct, _) => {}
        (Via::Vip, 0) => what.push_str(" by way of the VIP"),
        (Via::Vip, bytes) => {
            let _ = write!(
                what,
                " by way of the VIP, with packets of up to {bytes} bytes,"
            );
        }
    }
    format!(
        "{what} every {}, time-out {}; up after {} passed, down after {} failed",
        humantime::format_duration(check.interval),
        humantime::format_duration(check.timeout),
        check.rise,
        check.fall,
    )
}

#[cfg(test)]
mod tests {
    use std::{
        num::{NonZeroU16, NonZeroU32},
        time::Duration,
    };

    use super::*;
    use crate::model::{
        AdminConfig, ConnectionLimit, DataPlaneConfig, Evenness, Fate, OnDrift, OnEmpty, Options,
        PortRange, ProbeKind, ProbeMark, RingSize, RingSlots, ServiceKey, ServicePort, Snat,
        Sources, State, Tracking, Weight, XdpMode,
    };

    #[test]
    fn the_summary_says_what_the_file_means() {
        let backend = |name: &str, address: &str, weight| Backend {
            name: name.into(),
            address: address.parse().unwrap(),
            weight: Weight::new(weight).unwrap(),
            capacity: None,
            port: (weight == 3).then(|| NonZeroU16::new(8080).unwrap()),
            server_id: None,
        };
        let config = Config {
            data_plane: DataPlaneConfig {
                interfaces: vec!["eth0".to_owned(), "eth1".to_owned()],
                xdp_mode: XdpMode::Native,
                pins: "/sys/fs/bpf/evenkeel".into(),
                hash_seed: 0,
                evenness: Evenness::DEFAULT,
                probe_mark: ProbeMark::DEFAULT,
                on_drift: OnDrift::default(),
            },
            snat: Some(Snat {
                addresses: vec!["10.0.0.100".parse().unwrap()],
                ports: PortRange::DEFAULT,
            }),
            tunnel: Tunnel::default(),
            admin: AdminConfig {
                socket: "/run/x.sock".into(),
                group: Some("ops".to_owned()),
                change_group: Some("lb".to_owned()),
            },
            tracking: Tracking::default(),
            state: State::default(),
            audit: crate::model::Audit::default(),
            incidents: crate::model::Incidents::default(),
            http: crate::model::HttpServer::default(),
            notify: Vec::new(),
            services: vec![Service {
                name: "web".into(),
                key: ServiceKey {
                    vip: "198.51.100.10".parse().unwrap(),
                    port: ServicePort::Exact(NonZeroU16::new(80).unwrap()),
                    protocol: Protocol::Tcp,
                },
                mode: Mode::Snat,
                ring_slots: RingSize::Fixed(RingSlots::new(4096).unwrap()),
                on_empty: OnEmpty::Drop,
                options: Options {
                    spread: Spread::Source,
                    sources: Some(Sources {
                        allow: vec!["192.0.2.0/24".parse().unwrap()],
                        deny: Vec::new(),
                    }),
                    limit: Some(ConnectionLimit {
                        per_second: NonZeroU32::new(10).unwrap(),
                        burst: NonZeroU32::new(20).unwrap(),
                    }),
                    fragments: Fragments::Refuse(Fate::Pass),
                    on_down: OnDown::Keep,
                    slow_start: Some(Duration::from_secs(30)),
                    panic_below: Part::NONE,
                    ejection: Ejection {
                        hold: Duration::from_mins(2),
                        ..Ejection::default()
                    },
                    ..Options::default()
                },
                health: Some(HealthCheck::new(
                    ProbeKind::Tcp,
                    NonZeroU16::new(80).unwrap(),
                )),
                backends: vec![
                    backend("b1", "10.0.0.1", 3),
                    backend("old-b2", "10.0.0.2", 1),
                ],
            }],
        };
        assert_eq!(
            summary(&config),
            "\
attached to   eth0, eth1 (native XDP)
pinned in     /sys/fs/bpf/evenkeel
answers at    /run/x.sock, for root and group ops; group lb may change
snat from     10.0.0.100, ports 1024-33791
remembers     up to 65536 new and 262144 established flows; for 10m after a change

web  tcp 198.51.100.10:80, snat, 4096 slots, drop packets while no backend is usable
  spread by source address; prefixes: 1 allowed, 0 denied, others denied; 10 new connections a second from each source, 20 at once; pass fragments; flows stay with a backend that is down; slow start over 30s; never in panic; underperformers: demote by probes and traffic, from 2x and 1 % failures, up to 34 % of the weight, for 2m
  tcp check of port 80 every 1s, time-out 500ms; up after 2 passed, down after 3 failed
  b1      10.0.0.1  weight 3, 75.0 % of the load, port 8080
  old-b2  10.0.0.2  weight 1, 25.0 % of the load
"
        );
    }
}
