//! Fragments: those that follow the first one, and those that must not.

use std::{net::SocketAddr, ops::Range};

use lb_common::{
    layout::{flag, mode},
    verdict::Reason,
};

use super::{
    Case, Row, as_they_are, case, extension, goes, is_v4, known, only_dsr, packet, rewrites,
    to_backend, untouched, with_flags, with_options,
};
use crate::{
    expected::{PORT, inside, replied, sent_frame, sent_part},
    frames::{Body, Packet, SERVICE_VLAN, SYN, VLAN, at},
    homes::{
        bed::Served,
        builder::{TCP, UDP},
        cases::Fate,
        network::{NOWHERE, UNKNOWN},
    },
};

/// A fragment that does.
fn part_goes(what: &str, served: &Served, packet: &Packet, part: Range<usize>) -> Case {
    let fate = if part.start == 0 {
        to_backend(served, packet, 0)
    } else {
        Fate::Sent(served.endpoint)
    };
    let expected = sent_part(served, packet, part.clone(), 0xbeef);
    case(what, packet.fragment(part, 0xbeef), fate, expected)
}

/// The fragments of a datagram or segment whose headers begin with options that are cut up with
/// it: only the first one says what comes behind them.
fn options_in_fragments(served: &Served) -> Vec<Case> {
    if is_v4(served) {
        return Vec::new();
    }
    let packet = packet(served).filled(120);
    let cut = |packet: &Packet, part: Range<usize>| {
        let (_, mut options) = extension(60, 0);
        options[0] = served.protocol;
        let payload = [options, packet.segment()].concat();
        packet
            .clone()
            .body(Body::Other(60))
            .payload(&payload)
            .fragment(part, 0xfeed)
    };
    [
        ("options in a first fragment", 0..48),
        ("a later fragment of options", 48..96),
    ]
    .map(|(what, part)| {
        let fate = if part.start == 0 {
            to_backend(served, &packet, 0)
        } else {
            Fate::Sent(served.endpoint)
        };
        let rewritten = cut(&inside(served, &packet, 0), part.clone());
        let expected = sent_frame(served, &packet, rewritten);
        case(what, cut(&packet, part), fate, expected)
    })
    .into()
}

/// The fragments of an answer, to a client or to where the stack is to find the way.
fn answer_in_fragments(served: &Served, to: Option<&str>) -> Vec<Case> {
    let [mut reply, mut seen] = replied(served, 0, |p| p.filled(120));
    let mut whose = "";
    if let Some(to) = to {
        reply = reply.to(at(to, PORT));
        seen = reply.clone().from(served.vip).hop();
        whose = if UNKNOWN.contains(&to) {
            " whose next hop is not resolved"
        } else {
            " without a route"
        };
    }
    let length = reply.segment().len();
    [("first", 0..48), ("middle", 48..96), ("last", 96..length)]
        .into_iter()
        .map(|(which, part)| {
            let what = format!("the {which} fragment of an answer{whose}");
            let fate = if to.is_some() {
                Fate::Stack(served.number, served.endpoint)
            } else {
                Fate::Reply(served.endpoint)
            };
            let expected = seen.fragment(part.clone(), 0x77);
            case(&what, reply.fragment(part, 0x77), fate, expected)
        })
        .collect()
}

/// The rows.
#[rustfmt::skip]
pub(crate) const ROWS: &[Row] = &[
    Row { tables: |bed, served| with_flags(bed, served, flag::NO_FRAGMENTS), afresh: false, cases: |served| {
        let (long, lost) = (packet(served).filled(120), Fate::Dropped(served.number, Reason::FragmentUnknown));
        vec![
            untouched("a first fragment where none is followed", long.fragment(0..48, 9), lost),
            untouched("a later fragment where none is followed", long.fragment(48..96, 9), lost),
            goes("a whole packet where no fragment is followed", served, &packet(served)),
        ]
    } },
    Row { tables: |bed, served| with_flags(bed, served, flag::NO_FRAGMENTS | flag::PASS_REORDERED), afresh: false, cases: |served| {
        let (long, lost) = (packet(served).filled(120), Fate::Passed(served.number, Reason::FragmentUnknown));
        vec![
            untouched("a first fragment where all pass", long.fragment(0..48, 9), lost),
            untouched("a later fragment where all pass", long.fragment(48..96, 9), lost),
        ]
    } },
    Row { tables: |bed, served| {
        with_flags(bed, served, flag::NO_FRAGMENTS | flag::LIMIT);
        bed.builder.service_mut(served.number).burst = 1;
    }, afresh: false, cases: |served| {
        if served.protocol == UDP {
            return Vec::new();
        }
        let opening = packet(served).flags(SYN);
        let lost = Fate::Dropped(served.number, Reason::FragmentUnknown);
        vec![
            untouched("a refused fragment", opening.clone().filled(120).fragment(0..48, 9), lost),
            goes("a SYN after a refused fragment", served, &opening),
        ]
    } },
    Row { tables: as_they_are, afresh: false, cases: |served| {
        let tagged = packet(served).filled(120).class(0xbb).tagged(&[(SERVICE_VLAN, 1), (VLAN, 2)]);
        vec![
            part_goes("a marked first fragment behind two tags", served, &tagged, 0..48),
            part_goes("a marked later fragment behind two tags", served, &tagged, 48..96),
        ]
    } },
    Row { tables: as_they_are, afresh: false, cases: |served| {
        let long = with_options(packet(served).filled(120));
        vec![
            part_goes("a first fragment with options", served, &long, 0..48),
            part_goes("a later fragment with options", served, &long, 48..96),
        ]
    } },
    Row { tables: as_they_are, afresh: false, cases: options_in_fragments },
    Row { tables: as_they_are, afresh: false, cases: |served| {
        if served.protocol == TCP || !is_v4(served) {
            return Vec::new();
        }
        let long = packet(served).filled(120).body(Body::UdpUnchecked);
        vec![
            part_goes("a first fragment without a checksum", served, &long, 0..48),
            part_goes("a later fragment without a checksum", served, &long, 48..96),
        ]
    } },
    Row { tables: as_they_are, afresh: false, cases: |served| {
        let (long, last) = (packet(served).filled(120), packet(served).filled(120).hops(1));
        let expired = Fate::Passed(served.number, Reason::TtlExpired);
        vec![
            part_goes("a first fragment", served, &long, 0..48),
            only_dsr("a later fragment at its last hop", served, last.fragment(48..96, 0xbeef), expired),
        ]
    } },
    Row { tables: as_they_are, afresh: false, cases: |served| {
        let long = packet(served).filled(1800);
        let lost = Fate::Dropped(served.number, Reason::TooBigUntold);
        vec![
            part_goes("a first fragment that fits", served, &long, 0..48),
            only_dsr("a later fragment that does not", served, long.fragment(48..1600, 0xbeef), lost),
        ]
    } },
    Row { tables: as_they_are, afresh: false, cases: |served| {
        let to = SocketAddr::new(if is_v4(served) { "198.51.100.200" } else { "2001:db8::200" }.parse().expect("an address"), 80);
        let long = packet(served).filled(120).to(to);
        vec![
            untouched("a stranger's first fragment", long.fragment(0..48, 3), Fate::Host(Reason::NoService)),
            untouched("a stranger's later fragment", long.fragment(48..96, 3), Fate::Host(Reason::Fragment)),
        ]
    } },
    Row { tables: as_they_are, afresh: false, cases: |served| {
        if !rewrites(served) {
            return Vec::new();
        }
        let mut cases = vec![known("an answer in fragments", served)];
        cases.extend(answer_in_fragments(served, None));
        cases
    } },
    Row { tables: as_they_are, afresh: false, cases: |served| {
        if served.way.mode != mode::NAT {
            return Vec::new();
        }
        let v6 = usize::from(!is_v4(served));
        let mut cases = answer_in_fragments(served, Some(UNKNOWN[v6]));
        cases.extend(answer_in_fragments(served, Some(NOWHERE[v6])));
        cases
    } },
];
