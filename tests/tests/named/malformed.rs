//! Frames that contradict themselves.

use lb_common::verdict::Reason;

use super::{
    Case, Row, as_they_are, extension, is_v4, known, only_dsr, packet, rewrites, untouched,
    with_bytes, with_options,
};
use crate::{
    expected::replied,
    frames::VLAN,
    homes::{bed::Served, builder::TCP, cases::Fate},
};

/// A first packet with other bytes at an offset behind the Ethernet header.
fn changed(served: &Served, at: usize, bytes: &[u8]) -> Vec<u8> {
    with_bytes(&packet(served), at, bytes)
}

/// Frames of IPv4 that contradict themselves.
fn of_ipv4(served: &Served) -> Vec<Case> {
    let host = Fate::Host(Reason::Malformed);
    let dropped = Fate::Dropped(served.number, Reason::Malformed);
    let versions = [
        ("a header of no words", 0x40),
        ("a header of four words", 0x44),
        ("version 0", 0x05),
        ("version 5", 0x55),
        ("version 6 where 4 is announced", 0x65),
    ];
    let lengths: [(&str, u16); 5] = [
        ("no length", 0),
        ("a length within the IP header", 19),
        ("a length without a transport header", 20),
        ("a length within the ports", 22),
        ("a length within the transport header", 27),
    ];
    let options = with_options(packet(served));
    let mut fragment = packet(served).filled(120).fragment(48..96, 7);
    fragment[16..18].copy_from_slice(&[0, 19]);
    versions
        .map(|(what, first)| untouched(what, changed(served, 0, &[first]), host))
        .into_iter()
        .chain(lengths.map(|(what, length)| {
            let frame = changed(served, 2, &length.to_be_bytes());
            only_dsr(what, served, frame, dropped)
        }))
        .chain([
            untouched(
                "a length within the options",
                with_bytes(&options, 2, &[0, 23]),
                host,
            ),
            untouched("a fragment's length within its header", fragment, host),
        ])
        .collect()
}

/// Frames of IPv6 that contradict themselves, or whose headers reach too far.
fn of_ipv6(served: &Served) -> Vec<Case> {
    let host = Fate::Host(Reason::Malformed);
    let dropped = Fate::Dropped(served.number, Reason::Malformed);
    let versions = [
        ("version 0", 0x00),
        ("version 5", 0x50),
        ("version 4 where 6 is announced", 0x45),
        ("version 7", 0x70),
    ];
    let lengths: [(&str, u16); 3] = [
        ("no length", 0),
        ("a length within the ports", 2),
        ("a length within the transport header", 7),
    ];
    let behind = |extensions: Vec<(u8, Vec<u8>)>| {
        let mut packet = packet(served);
        packet.extensions = extensions;
        packet.bytes()
    };
    let far = Fate::Host(Reason::Extensions);
    versions
        .map(|(what, first)| untouched(what, changed(served, 0, &[first]), host))
        .into_iter()
        .chain(lengths.map(|(what, length)| {
            let frame = changed(served, 4, &length.to_be_bytes());
            only_dsr(what, served, frame, dropped)
        }))
        .chain([
            untouched(
                "more extension headers than are followed",
                behind(vec![extension(60, 0); 7]),
                far,
            ),
            untouched(
                "an extension header that reaches too far",
                behind(vec![extension(60, 80)]),
                far,
            ),
            untouched(
                "an extension header that is cut off",
                behind(vec![extension(60, 3)])[..=14 + 40].to_vec(),
                Fate::Host(Reason::Truncated),
            ),
        ])
        .collect()
}

/// What either may carry.
fn malformed(served: &Served) -> Vec<Case> {
    let (mut cases, transport) = if is_v4(served) {
        (of_ipv4(served), 20)
    } else {
        (of_ipv6(served), 40)
    };
    if served.protocol == TCP {
        for (what, words) in [
            ("a TCP header of no words", 0x00),
            ("a TCP header of four words", 0x40),
        ] {
            let frame = changed(served, transport + 12, &[words]);
            cases.push(untouched(what, frame, Fate::Host(Reason::Malformed)));
        }
    }
    let thrice = packet(served).tagged(&[(VLAN, 1), (VLAN, 2), (VLAN, 3)]);
    cases.push(untouched(
        "three tags",
        thrice.bytes(),
        Fate::Host(Reason::NotIp),
    ));
    cases
}

/// The rows.
#[rustfmt::skip]
pub(crate) const ROWS: &[Row] = &[
    Row { tables: as_they_are, afresh: true, cases: malformed },
    Row { tables: as_they_are, afresh: false, cases: |served| {
        if !rewrites(served) {
            return Vec::new();
        }
        let [reply, _] = replied(served, 0, |p| p.filled(120));
        let [short, _] = replied(served, 0, |p| p.payload(b""));
        let frame = reply.bytes();
        let cut = frame[..frame.len() - 1].to_vec();
        // Up to the middle of the ports.
        let (at, length): (usize, u16) = if is_v4(served) { (2, 22) } else { (4, 2) };
        let within = with_bytes(&short.padded(18), at, &length.to_be_bytes());
        let row = served.number;
        vec![
            known("an answer that is cut", served),
            untouched("an answer of which a byte is missing", cut, Fate::Passed(row, Reason::Truncated)),
            untouched("an answer that ends within its ports", within, Fate::Dropped(row, Reason::Malformed)),
        ]
    } },
];
