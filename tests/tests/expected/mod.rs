//! What services get and give, in each mode: put together from etherparse's headers alone.

#![allow(
    dead_code,
    reason = "each test that includes this module uses a part of it"
)]

use std::{net::SocketAddr, ops::Range};

use lb_common::{flow::V6, layout::mode};

use crate::{
    frames::{ACK, Body, Packet, SYN, at},
    homes::{
        bed::{BACKEND_PORT, GUE_PORT, LABEL, OWN, POOL, POOL_PORT, Served, TUNNEL},
        builder::TCP,
        network,
    },
};

/// The port of every client.
pub(crate) const PORT: u16 = 51_000;

/// A service's client.
pub(crate) fn client(served: &Served) -> SocketAddr {
    let address = if served.vip.is_ipv4() {
        "203.0.113.9"
    } else {
        "2001:db8:c::9"
    };
    at(address, PORT)
}

/// A client's packet that a service may begin with.
pub(crate) fn packet(served: &Served) -> Packet {
    let mut plan = Packet::tcp(client(served), served.vip);
    // All flows have one hash here: what tells their SYNs apart is this.
    plan.sequence += u32::from(served.number);
    match served.protocol {
        TCP if served.way.mode == mode::SNAT => plan.flags(SYN),
        TCP => plan,
        _ => plan.body(Body::Udp),
    }
}

/// The pool's address and the port that a first flow is sent from.
pub(crate) fn pool(served: &Served) -> SocketAddr {
    at(POOL[usize::from(served.vip.is_ipv6())], POOL_PORT)
}

/// The packet that a service's `nth` backend gets; in a tunnel, what is inside.
pub(crate) fn inside(served: &Served, packet: &Packet, nth: u16) -> Packet {
    let packet = packet.clone().macs(served.mac(nth), OWN);
    let backend = SocketAddr::new(served.backend(nth), BACKEND_PORT);
    match served.way.mode {
        mode::DSR => packet,
        mode::NAT => packet.to(backend).hop(),
        mode::SNAT => packet.from(pool(served)).to(backend).hop(),
        _ => packet.hop(),
    }
}

/// A frame around an IP packet in a tunnel to a service's `nth` backend, of this class.
pub(crate) fn wrapped(served: &Served, packet: &Packet, inner: &[u8], nth: u16) -> Vec<u8> {
    let v6 = served.outer() == V6;
    let mut outer = Packet {
        source: at(TUNNEL[usize::from(v6)], GUE_PORT),
        destination: SocketAddr::new(served.backend(nth), 6080),
        hops: 64,
        id: 0,
        whole: true,
        options: Vec::new(),
        extensions: Vec::new(),
        label: LABEL,
        ..packet.clone().macs(served.mac(nth), OWN)
    };
    outer.body = match (served.way.mode, served.vip.is_ipv4()) {
        (mode::GUE, _) => Body::UdpUnchecked,
        (_, true) => Body::Other(4),
        (_, false) => Body::Other(41),
    };
    outer.payload(inner).bytes()
}

const fn tunnels(served: &Served) -> bool {
    matches!(served.way.mode, mode::IPIP | mode::GUE)
}

/// The frame that a service's `nth` backend gets.
pub(crate) fn sent(served: &Served, packet: &Packet, nth: u16) -> Vec<u8> {
    let inside = inside(served, packet, nth);
    if tunnels(served) {
        wrapped(served, packet, &inside.ip(), nth)
    } else {
        inside.bytes()
    }
}

/// The same of a fragment.
pub(crate) fn sent_part(served: &Served, packet: &Packet, part: Range<usize>, id: u32) -> Vec<u8> {
    sent_frame(served, packet, inside(served, packet, 0).fragment(part, id))
}

/// The frame that a service's first backend gets of one that is rewritten, or is to be wrapped.
pub(crate) fn sent_frame(served: &Served, packet: &Packet, inside: Vec<u8>) -> Vec<u8> {
    if tunnels(served) {
        wrapped(served, packet, &inside[14 + 4 * packet.tags.len()..], 0)
    } else {
        inside
    }
}

/// The answer to what a service's backend was sent, and the packet that the client gets.
pub(crate) fn replied(served: &Served, nth: u16, make: impl Fn(Packet) -> Packet) -> [Packet; 2] {
    let from = SocketAddr::new(served.backend(nth), BACKEND_PORT);
    let to = match served.way.mode {
        mode::SNAT => pool(served),
        _ => client(served),
    };
    let body = if served.protocol == TCP {
        Body::Tcp(ACK)
    } else {
        Body::Udp
    };
    let reply = make(Packet::tcp(from, to).body(body));
    let seen = reply.clone().from(served.vip).to(client(served)).hop();
    let seen = seen.macs(network::mac(9), network::OWN);
    [reply, seen]
}

/// The name of a case.
pub(crate) fn name(served: &Served, what: &str) -> String {
    let version = if served.vip.is_ipv4() { "IPv4" } else { "IPv6" };
    let protocol = if served.protocol == TCP { "TCP" } else { "UDP" };
    format!("{}, {protocol} over {version}: {what}", served.way.name)
}
