//! Rules about an interface as the stack sees it.

use super::super::{
    facts::{Facts, Hook, Interface, Owner},
    finding::{Finding, Level, Remedy},
};
use crate::model::XdpMode;

/// As long as packets may be for a program that takes them in one buffer: a page of 4 KiB less
/// what driver and stack keep beside the packet.
const ONE_BUFFER: u32 = 3_506;

/// `NETDEV_XDP_ACT_RX_SG` of linux/netdev.h: packets in several buffers.
const SEVERAL_BUFFERS: u64 = 1 << 5;

/// Whether the program already runs here as it is to run.
pub(super) fn in_place(facts: &Facts, interface: &Interface) -> bool {
    let wanted = match facts.plan.mode {
        XdpMode::Native => Hook::Native,
        XdpMode::Generic => Hook::Generic,
    };
    interface
        .program
        .as_ref()
        .is_some_and(|program| program.owner == Owner::Ours && program.hook == wanted)
}

/// The program reads Ethernet frames.
pub(super) fn ethernet(_: &Facts, name: &str, interface: &Interface) -> Option<Finding> {
    (!interface.ethernet).then(|| {
        Finding::new(
            Level::Error,
            "ethernet",
            name,
            format!("{name} is not an Ethernet interface"),
            "the program reads Ethernet frames, and the MAC address is what it rewrites",
            Remedy::words("attach to the Ethernet interface that the router sends VIP traffic to"),
        )
    })
}

/// Nothing comes in where nothing is plugged in.
#[expect(
    clippy::unnecessary_wraps,
    reason = "rules have one form, and most are silent at times"
)]
pub(super) fn up(_: &Facts, name: &str, interface: &Interface) -> Option<Finding> {
    let warn = |what: String, remedy| {
        let why = "no packet comes in by it";
        Finding::new(Level::Warning, "up", name, what, why, remedy)
    };
    Some(match (interface.up, interface.carrier) {
        (false, _) => warn(
            format!("{name} is down"),
            Remedy::command("set it up", ["ip", "link", "set", "dev", name, "up"]),
        ),
        (true, false) => warn(
            format!("{name} has no carrier"),
            Remedy::words("look at the cable, the port of the switch, or the other end"),
        ),
        (true, true) => Finding::ok("up", name, "up, with carrier"),
    })
}

/// Routes lead to a bond or bridge, not to its ports: no backend would be found by a port.
pub(super) fn port(_: &Facts, name: &str, interface: &Interface) -> Option<Finding> {
    let master = interface.master.as_ref()?;
    matches!(master.kind.as_str(), "bond" | "team" | "bridge").then(|| {
        Finding::new(
            Level::Warning,
            "port",
            name,
            format!("{name} is a port of the {} {}", master.kind, master.name),
            format!(
                "routes lead to {}, so no backend is reached by {name}, and its packets go to \
                 the host's stack",
                master.name
            ),
            Remedy::words(format!("set data_plane.interfaces to {}", master.name)),
        )
    })
}

/// A program for packets in one buffer is refused where packets may be longer.
pub(super) fn mtu(facts: &Facts, name: &str, interface: &Interface) -> Option<Finding> {
    if facts.plan.mode == XdpMode::Generic || in_place(facts, interface) {
        return None;
    }
    // Either is enough where the kernel does not say what the driver can do.
    let several = interface
        .xdp_features
        .is_none_or(|features| features & SEVERAL_BUFFERS != 0);
    // The driver of a veth pair goes by how long a packet the other end may send.
    let mtu = interface.peer.map_or(interface.mtu, |peer| peer.mtu);
    if mtu <= ONE_BUFFER {
        return Some(Finding::ok("mtu", name, format!("MTU {mtu}")));
    }
    if facts.host.frags && several {
        return Some(Finding::ok(
            "mtu",
            name,
            format!("MTU {mtu}, in several buffers"),
        ));
    }
    let certain = interface.peer.is_some() && !facts.host.frags;
    Some(Finding::new(
        if certain {
            Level::Error
        } else {
            Level::Warning
        },
        "mtu",
        name,
        format!("the MTU of {mtu} is more than fits into one buffer"),
        if certain {
            "the driver refuses the program"
        } else {
            "most drivers refuse the program above about 3,500"
        },
        Remedy::command(
            "lower it at both ends, or set data_plane.xdp_mode = \"generic\", which is several \
             times slower",
            ["ip", "link", "set", "dev", name, "mtu", "1500"],
        ),
    ))
}

/// What is sent back into a veth pair vanishes unless the other end has a program too.
pub(super) fn veth_peer(facts: &Facts, name: &str, interface: &Interface) -> Option<Finding> {
    if facts.plan.mode == XdpMode::Generic || interface.kind.as_deref() != Some("veth") {
        return None;
    }
    let why = "what the program sends back into a veth pair is lost without a trace unless an \
               XDP program, be it one that passes everything, is attached to the other end; that \
               end must compute checksums itself too ('ethtool -K … tx off')";
    let remedy = || {
        Remedy::words(
            "attach one to the other end, as 'xdp-loader load' does, or set data_plane.xdp_mode = \
             \"generic\"",
        )
    };
    Some(match interface.peer {
        Some(peer) if peer.program => Finding::ok(
            "veth-peer",
            name,
            "the other end of the pair has an XDP program",
        ),
        Some(_) => Finding::new(
            Level::Warning,
            "veth-peer",
            name,
            "the other end of the pair has no XDP program",
            why,
            remedy(),
        ),
        None => Finding::new(
            Level::Info,
            "veth-peer",
            name,
            "the other end of the pair cannot be seen from here",
            why,
            remedy(),
        ),
    })
}
