//! What is answered in the VIP's name.

use etherparse::{Icmpv4Type, Icmpv6Type, icmpv4::DestUnreachableHeader};
use lb_common::{flow::V4, layout::mode, verdict::Reason};

use super::{Case, Dress, Row, as_they_are, case, packet, with_options};
use crate::{
    expected::client,
    frames::{SERVICE_VLAN, VLAN, icmp},
    homes::{bed::Served, cases::Fate},
};

/// Echo requests to the VIP.
fn echoes(served: &Served) -> Vec<Case> {
    let (from, to) = (client(served).ip(), served.vip.ip());
    let payload = b"an odd payload!";
    let dresses: [(&str, Dress); 4] = [
        ("an echo request at its last hop", |p| p),
        ("an echo request with options", with_options),
        ("a marked echo request behind two tags", |p| {
            p.class(0xbb).tagged(&[(SERVICE_VLAN, 1), (VLAN, 2)])
        }),
        ("an echo request, padded", |p| p.padded(9)),
    ];
    dresses
        .map(|(what, dress)| {
            let request = dress(icmp::echo(true, from, to, payload)).hops(1);
            let mut reply = dress(icmp::echo(false, to, from, payload)).hops(64);
            reply.macs.rotate_left(6);
            let fate = Fate::Answered(served.number, Reason::EchoAnswered);
            case(what, request.bytes(), fate, reply.bytes())
        })
        .into()
}

/// A packet that is too big, and what its sender is told.
fn too_big(served: &Served) -> Vec<Case> {
    if served.way.mode == mode::DSR {
        return Vec::new();
    }
    let outer = if served.outer() == V4 { 20 } else { 40 };
    let grown = match served.way.mode {
        mode::IPIP => outer,
        mode::GUE => outer + 8,
        _ => 0,
    };
    // A byte more than fits, and as much as a page may hold.
    let header = packet(served).payload(b"").ip().len();
    [
        ("a byte too much", 1501 - grown - header),
        ("far too much", 3000),
    ]
    .map(|(what, length)| {
        let packet = packet(served).filled(length);
        let (from, to) = (served.vip.ip(), client(served).ip());
        let ip = packet.ip();
        let mtu = 1500 - grown as u16;
        let v4 = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
        let v4 = Icmpv4Type::DestinationUnreachable(v4);
        let v6 = Icmpv6Type::PacketTooBig { mtu: mtu.into() };
        // As much as an answer of 576 or of 1,280 bytes holds.
        let quoted = if from.is_ipv4() { 548 } else { 1232 };
        let mut told = icmp::packet(from, to, v4, v6, &ip[..quoted]).hops(64);
        (told.id, told.whole, told.label) = (0, false, 0);
        told.macs.rotate_left(6);
        let fate = Fate::Answered(served.number, Reason::TooBig);
        case(what, packet.bytes(), fate, told.bytes())
    })
    .into()
}

/// The rows.
#[rustfmt::skip]
pub(crate) const ROWS: &[Row] = &[
    Row { tables: as_they_are, afresh: true, cases: echoes },
    Row { tables: as_they_are, afresh: true, cases: too_big },
];
