//! ICMP errors, to the end whose packet they quote.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    Icmpv4Type, Icmpv6Type,
    icmpv4::{self, DestUnreachableHeader},
    icmpv6,
};
use lb_common::{layout::mode, verdict::Reason};

use super::{
    Case, Dress, Row, Shape, as_they_are, case, is_v4, known, only_dsr, packet, rewrites, router,
    shapes::answered, untouched, with_options,
};
use crate::{
    expected::{client, pool, replied, wrapped},
    frames::{Body, Packet, SERVICE_VLAN, VLAN, icmp},
    homes::{
        bed::{BACKEND_PORT, OWN, Served},
        builder::UDP,
        cases::Fate,
        network,
    },
};

/// What a router says.
#[derive(Clone, Copy)]
enum Says {
    Unreachable,
    TooBig,
    TimeExceeded,
}

/// An error about a packet.
fn error(says: Says, from: IpAddr, to: IpAddr, about: &[u8]) -> Packet {
    let (v4, v6) = match says {
        Says::Unreachable => (
            Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Host),
            Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Address),
        ),
        Says::TooBig => (
            Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
                next_hop_mtu: 1400,
            }),
            Icmpv6Type::PacketTooBig { mtu: 1400 },
        ),
        Says::TimeExceeded => (
            Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit),
            Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded),
        ),
    };
    icmp::packet(from, to, v4, v6, about)
}

/// What an error says, how much of the packet it quotes beyond the IP header, how that packet and
/// how the error's own differs from an ordinary one.
type Told = (&'static str, Says, usize, Shape, Dress);

#[rustfmt::skip]
const ERRORS: &[Told] = &[
    ("unreachable, eight bytes", Says::Unreachable, 8, |_, p| Some(p), |e| e),
    ("unreachable, up to the checksum", Says::Unreachable, 18, |_, p| Some(p), |e| e),
    ("unreachable, all of it", Says::Unreachable, 1000, |_, p| Some(p), |e| e),
    ("too big", Says::TooBig, 8, |_, p| Some(p), |e| e),
    ("too big, all of it", Says::TooBig, 1000, |_, p| Some(p), |e| e),
    ("time exceeded", Says::TimeExceeded, 1000, |_, p| Some(p), |e| e),
    ("about an odd length", Says::Unreachable, 1000, |_, p| Some(p.payload(b"odd")), |e| e),
    ("about a packet without a checksum", Says::Unreachable, 1000, |served, p| {
        (served.protocol == UDP && is_v4(served)).then(|| p.body(Body::UdpUnchecked))
    }, |e| e),
    ("about a packet with options", Says::Unreachable, 1000, |served, p| {
        is_v4(served).then(|| with_options(p))
    }, |e| e),
    ("behind a tag", Says::Unreachable, 1000, |_, p| Some(p), |e| e.tagged(&[(VLAN, 7)])),
    ("behind two tags", Says::TooBig, 8, |_, p| Some(p), |e| e.tagged(&[(SERVICE_VLAN, 1), (VLAN, 2)])),
    ("marked", Says::Unreachable, 8, |_, p| Some(p), |e| e.class(0xbb)),
    ("with options of its own", Says::TimeExceeded, 8, |_, p| Some(p), with_options),
];

/// So many bytes of a packet behind its IP header.
fn quoted(packet: &Packet, bytes: usize) -> Vec<u8> {
    let ip = packet.ip();
    let header = ip.len() - packet.segment().len();
    ip[..ip.len().min(header + bytes)].to_vec()
}

/// An error about what a service's backend has sent to a client, and what the backend is told.
fn about_answer(served: &Served, told: &Told) -> Option<Case> {
    let &(what, says, bytes, shape, dress) = told;
    let [reply, seen] = answered(served, shape)?;
    // Quoted as it was on the way, whatever its hops.
    let seen = seen.hops(reply.hops);
    let from = router(served);
    let error_to = |to, about: &Packet| dress(error(says, from, to, &quoted(about, bytes)));
    let error = error_to(served.vip.ip(), &seen);
    let expected = match served.way.mode {
        mode::DSR => error.clone().macs(served.mac(0), OWN).bytes(),
        mode::NAT | mode::SNAT => {
            let error = error_to(served.backend(0), &reply).hop();
            error.macs(served.mac(0), OWN).bytes()
        }
        _ => wrapped(served, &error, &error.clone().hop().ip(), 0),
    };
    let fate = Fate::Related(served.number, served.endpoint);
    Some(case(
        &format!("about an answer: {what}"),
        error.bytes(),
        fate,
        expected,
    ))
}

/// An error about what a client has sent to a backend, and what the client is told.
fn about_request(served: &Served, told: &Told) -> Option<Case> {
    let &(what, says, bytes, shape, dress) = told;
    if !rewrites(served) {
        return None;
    }
    let there = if served.way.mode == mode::SNAT {
        pool(served)
    } else {
        client(served)
    };
    let backend = SocketAddr::new(served.backend(0), BACKEND_PORT);
    let first = shape(served, packet(served))?;
    let about = first.clone().from(there).to(backend);
    let from = router(served);
    let error_to = |to, about: &Packet| dress(error(says, from, to, &quoted(about, bytes)));
    let expected = error_to(client(served).ip(), &first).hop();
    let expected = expected.macs(network::mac(9), network::OWN).bytes();
    let frame = error_to(there.ip(), &about).bytes();
    let fate = Fate::RelatedBack(served.number);
    Some(case(
        &format!("about a request: {what}"),
        frame,
        fate,
        expected,
    ))
}

/// An error that `dsr` alone hands on.
fn only_dsr_error(what: &str, served: &Served, frame: Vec<u8>) -> Case {
    let expired = Fate::Passed(served.number, Reason::TtlExpired);
    let mut case = only_dsr(what, served, frame, expired);
    if served.way.mode == mode::DSR {
        case.fate = Fate::Related(served.number, served.endpoint);
    }
    case
}

/// The rows.
#[rustfmt::skip]
pub(crate) const ROWS: &[Row] = &[
    Row { tables: as_they_are, afresh: false, cases: |served| {
        let mut cases = vec![known("errors", served)];
        cases.extend(ERRORS.iter().filter_map(|told| about_answer(served, told)));
        cases.extend(ERRORS.iter().filter_map(|told| about_request(served, told)));
        cases
    } },
    Row { tables: as_they_are, afresh: false, cases: |served| {
        let mut cases = vec![known("errors that go nowhere", served)];
        let (from, row) = (router(served), served.number);
        let [_, seen] = replied(served, 0, |p| p.filled(120));
        let unrelated = Fate::Passed(row, Reason::IcmpUnrelated);
        let about = |about: &[u8]| error(Says::Unreachable, from, served.vip.ip(), about);
        let last = about(&seen.ip()).hops(1).bytes();
        cases.push(only_dsr_error("an error at its last hop", served, last));
        let ip = seen.ip();
        let header = ip.len() - seen.segment().len();
        cases.push(untouched("an error that quotes no ports", about(&ip[..header]).bytes(), unrelated));
        // What it lacks stands in the frame behind it.
        let mut frame = about(&ip[..header]).bytes();
        frame.extend_from_slice(&ip[header..header + 8]);
        cases.push(untouched("an error whose padding has the ports", frame, unrelated));
        if is_v4(served) {
            let later = &seen.fragment(48..96, 7)[14..];
            cases.push(untouched("an error about a later fragment", about(later).bytes(), unrelated));
        }
        let whole = about(&ip).bytes();
        let cut = whole[..whole.len() - 1].to_vec();
        cases.push(untouched("an error that is cut", cut, Fate::Passed(row, Reason::Truncated)));
        cases
    } },
];
