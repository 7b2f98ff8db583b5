//! Rules about what driver and device do for XDP, or against it.

use super::{
    super::{
        facts::{Facts, Interface},
        finding::{Finding, Level, Remedy},
    },
    link::in_place,
};
use crate::model::XdpMode;

/// `NETDEV_XDP_ACT_BASIC` of linux/netdev.h: takes a program, and its verdicts but redirection.
const BASIC: u64 = 1;

/// The driver must have native XDP.
pub(super) fn native(facts: &Facts, name: &str, interface: &Interface) -> Option<Finding> {
    if facts.plan.mode == XdpMode::Generic {
        return None;
    }
    let who = [&interface.driver, &interface.kind]
        .into_iter()
        .flatten()
        .next()
        .map_or_else(|| "its driver".to_owned(), |who| format!("driver {who}"));
    if in_place(facts, interface) {
        return Some(Finding::ok("native", name, format!("{who} runs it")));
    }
    let Some(features) = interface.xdp_features else {
        return Some(Finding::new(
            Level::Info,
            "native",
            name,
            format!("whether {who} has native XDP cannot be told"),
            "kernels before 6.3 do not say; it shows when the program is attached",
            Remedy::default(),
        ));
    };
    if features & BASIC != 0 {
        return Some(Finding::ok("native", name, format!("{who} has native XDP")));
    }
    let remedy = match (&interface.parent, interface.peer) {
        // The driver offers XDP again as soon as each queue of the other end has its counterpart.
        (_, Some(peer)) if interface.queues < peer.queues => Remedy::command(
            "receive queues must not be fewer than the other end's transmit queues: add some (or \
             make the pair anew with 'numrxqueues'), or use fewer there",
            ["ethtool", "-L", name, "rx", &peer.queues.to_string()],
        ),
        (Some(parent), _) => Remedy::words(format!(
            "set data_plane.interfaces to {parent}, which {name} is stacked on, or \
             data_plane.xdp_mode to \"generic\", which is several times slower"
        )),
        _ => Remedy::words(
            "use another interface, or set data_plane.xdp_mode = \"generic\", which is several \
             times slower",
        ),
    };
    Some(Finding::new(
        Level::Error,
        "native",
        name,
        format!("{who} offers no native XDP"),
        "a program cannot be attached in native mode",
        remedy,
    ))
}

/// Whether an offload is on, where the kernel says.
fn on(interface: &Interface, offload: &str) -> Option<bool> {
    let offloads = interface.offloads.as_ref()?;
    Some(offloads.contains(offload))
}

/// Packets that the device has merged are no packets of the wire.
fn merging(
    facts: &Facts,
    name: &str,
    interface: &Interface,
    (rule, offload, switch, what): (&'static str, &str, &str, &str),
) -> Option<Finding> {
    // For the generic hook, the kernel switches it off by itself.
    if facts.plan.mode == XdpMode::Generic {
        return None;
    }
    Some(if on(interface, offload)? {
        Finding::new(
            Level::Warning,
            rule,
            name,
            format!("{what} is on"),
            "it merges packets before XDP sees them, and many drivers refuse a program with it",
            Remedy::command(
                "switch it off, and see that it stays off after a boot",
                ["ethtool", "-K", name, switch, "off"],
            ),
        )
    } else {
        Finding::ok(rule, name, format!("{what} is off"))
    })
}

/// Large receive offload.
pub(super) fn lro(facts: &Facts, name: &str, interface: &Interface) -> Option<Finding> {
    let this = ("lro", "rx-lro", "lro", "large receive offload");
    merging(facts, name, interface, this)
}

/// Generic receive offload, by the device.
pub(super) fn gro_hw(facts: &Facts, name: &str, interface: &Interface) -> Option<Finding> {
    let what = "receive offload in hardware";
    let this = ("gro-hw", "rx-gro-hw", "rx-gro-hw", what);
    merging(facts, name, interface, this)
}

/// A tag that the device takes off is not in the frame that XDP sends on.
pub(super) fn vlan_offload(facts: &Facts, name: &str, interface: &Interface) -> Option<Finding> {
    if facts.plan.mode == XdpMode::Generic {
        return None;
    }
    if !on(interface, "rx-vlan-hw-parse")? {
        return Some(Finding::ok("vlan-offload", name, "VLAN tags are kept"));
    }
    let veth = interface.kind.as_deref() == Some("veth");
    let (level, tagged) = if interface.vlans.is_empty() {
        (Level::Info, "with tagged traffic".to_owned())
    } else {
        let vlans = interface.vlans.join(", ");
        (
            Level::Warning,
            format!("with tagged traffic, as {vlans} says there is"),
        )
    };
    Some(Finding::new(
        level,
        "vlan-offload",
        name,
        "VLAN tags are taken off before XDP sees a frame",
        format!("{tagged}, what the program sends on has lost its tag"),
        if veth {
            Remedy::words(
                "where tags are used, let the other end of the pair write them into the frame \
                 ('ethtool -K … txvlan off' there)",
            )
        } else {
            Remedy::command(
                "where tags are used, switch the offload off",
                ["ethtool", "-K", name, "rxvlan", "off"],
            )
        },
    ))
}

/// Each receive queue is one CPU's work.
#[expect(
    clippy::unnecessary_wraps,
    reason = "rules have one form, and most are silent at times"
)]
pub(super) fn queues(facts: &Facts, name: &str, interface: &Interface) -> Option<Finding> {
    let (queues, cpus) = (interface.queues, facts.host.cpus);
    let what = match queues {
        1 => format!("1 receive queue for {cpus} CPUs"),
        _ => format!("{queues} receive queues for {cpus} CPUs"),
    };
    if queues >= cpus {
        return Some(Finding::ok("queues", name, what));
    }
    let possible = interface.max_queues.unwrap_or(queues).min(cpus);
    let why = if queues == 1 {
        "one CPU does all the work".to_owned()
    } else {
        format!("at most {queues} CPUs share the work")
    };
    if possible <= queues {
        return Some(Finding::new(
            Level::Info,
            "queues",
            name,
            what,
            format!("{why}, and {name} has no more queues"),
            Remedy::default(),
        ));
    }
    Some(Finding::new(
        if queues == 1 {
            Level::Warning
        } else {
            Level::Info
        },
        "queues",
        name,
        what,
        why,
        Remedy::command(
            "use more",
            [
                "ethtool",
                "-L",
                name,
                interface.queue_kind.word(),
                &possible.to_string(),
            ],
        ),
    ))
}

/// A virtual machine's card has no queues to spare unless it was given them.
pub(super) fn send_queues(facts: &Facts, name: &str, interface: &Interface) -> Option<Finding> {
    if facts.plan.mode == XdpMode::Generic || interface.driver.as_deref() != Some("virtio_net") {
        return None;
    }
    let (max, cpus) = (interface.max_queues?, facts.host.cpus);
    let needed = interface.queues + cpus;
    Some(if max >= needed {
        Finding::ok("send-queues", name, "a queue for each CPU to send by")
    } else {
        Finding::new(
            Level::Info,
            "send-queues",
            name,
            format!("at most {max} queues to send by, where XDP would use {needed}"),
            "CPUs share queues with the stack to send, under a lock",
            Remedy::words(format!(
                "give the virtual machine's interface {needed} queues on its host, where speed \
                 matters"
            )),
        )
    })
}
