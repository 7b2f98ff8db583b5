//! Named packets: what goes to, comes from or is said about a service, with what becomes of it.

pub(crate) mod choice;
pub(crate) mod errors;
pub(crate) mod fragments;
pub(crate) mod icmp;
pub(crate) mod malformed;
pub(crate) mod shapes;

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU32, Ordering},
};

use lb_common::layout::mode;

use crate::{
    expected::{self, sent},
    frames::{ACK, Body, Packet, SYN, at},
    homes::{
        bed::{Bed, OWN, Served},
        cases::Fate,
    },
};

/// A packet and what becomes of it.
pub(crate) struct Case {
    pub(crate) what: String,
    pub(crate) frame: Vec<u8>,
    pub(crate) fate: Fate,
    pub(crate) expected: Vec<u8>,
}

/// Packets to one service after the other.
pub(crate) struct Row {
    /// What is changed of every service beforehand.
    pub(crate) tables: fn(&mut Bed, &Served),
    /// Whether each packet meets an empty memory.
    pub(crate) afresh: bool,
    /// The packets to a service; none where the row does not apply to it.
    pub(crate) cases: fn(&Served) -> Vec<Case>,
}

pub(crate) fn case(what: &str, frame: Vec<u8>, fate: Fate, expected: Vec<u8>) -> Case {
    Case {
        what: what.to_owned(),
        frame,
        fate,
        expected,
    }
}

/// A packet of which no byte changes.
pub(crate) fn untouched(what: &str, frame: Vec<u8>, fate: Fate) -> Case {
    case(what, frame.clone(), fate, frame)
}

/// A client's packet that a service may begin with: no two SYNs are alike.
pub(crate) fn packet(served: &Served) -> Packet {
    static NTH: AtomicU32 = AtomicU32::new(1);
    let mut packet = expected::packet(served);
    packet.sequence += NTH.fetch_add(1, Ordering::Relaxed) << 8;
    packet
}

pub(crate) fn syn(packet: &Packet) -> bool {
    matches!(packet.body, Body::Tcp(flags) if flags & (SYN | ACK) == SYN)
}

/// The fate of what goes to a service's `nth` backend.
pub(crate) fn to_backend(served: &Served, packet: &Packet, nth: u16) -> Fate {
    let endpoint = served.endpoint + nth;
    if syn(packet) {
        Fate::Opened(endpoint)
    } else {
        Fate::Sent(endpoint)
    }
}

/// A packet that a service's first backend gets.
pub(crate) fn goes(what: &str, served: &Served, packet: &Packet) -> Case {
    let expected = sent(served, packet, 0);
    case(
        what,
        packet.bytes(),
        to_backend(served, packet, 0),
        expected,
    )
}

/// A frame that only `dsr` sends on, which looks at nothing but where it goes.
pub(crate) fn only_dsr(what: &str, served: &Served, frame: Vec<u8>, otherwise: Fate) -> Case {
    if served.way.mode == mode::DSR {
        let mut expected = frame.clone();
        expected[..6].copy_from_slice(&served.mac(0));
        expected[6..12].copy_from_slice(&OWN);
        case(what, frame, Fate::Sent(served.endpoint), expected)
    } else {
        untouched(what, frame, otherwise)
    }
}

pub(crate) const fn is_v4(served: &Served) -> bool {
    served.vip.is_ipv4()
}

pub(crate) const fn rewrites(served: &Served) -> bool {
    matches!(served.way.mode, mode::NAT | mode::SNAT)
}

pub(crate) const fn as_they_are(_: &mut Bed, _: &Served) {}

pub(crate) fn with_flags(bed: &mut Bed, served: &Served, flags: u16) {
    bed.builder.vip_mut(served.number).flags |= flags;
}

/// An extension header of so many units of eight bytes beyond the first.
pub(crate) fn extension(number: u8, units: u8) -> (u8, Vec<u8>) {
    let mut bytes = vec![0; 8 * (usize::from(units) + 1)];
    bytes[1] = units;
    (number, bytes)
}

pub(crate) fn with_options(mut packet: Packet) -> Packet {
    if packet.source.is_ipv4() {
        packet.options = vec![148, 4, 0, 0];
    } else {
        packet.extensions = vec![extension(0, 0), extension(60, 1)];
    }
    packet
}

/// Makes a packet another one.
pub(crate) type Dress = fn(Packet) -> Packet;

/// Makes a packet another one, or says that there is none.
pub(crate) type Shape = fn(&Served, Packet) -> Option<Packet>;

/// A frame with other bytes at an offset behind the Ethernet header.
pub(crate) fn with_bytes(packet: &Packet, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = packet.bytes();
    frame[14 + at..14 + at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// A first packet, where the mode has to know the flow.
pub(crate) fn known(what: &str, served: &Served) -> Case {
    goes(&format!("{what}: first"), served, &packet(served))
}

/// The router that an error comes from.
pub(crate) fn router(served: &Served) -> IpAddr {
    let address = if is_v4(served) {
        "203.0.113.77"
    } else {
        "2001:db8:c::77"
    };
    at(address, 0).ip()
}
