//! What stands in front of a packet in a tunnel, byte by byte.

use std::{vec, vec::Vec};

use super::bed::{Bed, to_vip};
use crate::{
    flow::{V4, V6},
    layout::mode,
    testing::Plan,
    verdict::{Reason, Verdict},
};

/// The MAC addresses of endpoint 1's frames.
const MACS: &[u8] = &[1, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 5];
/// Every flow's hash ends with 89abcdef: the ports of GUE from c000 on, a flow label of 20 bits.
const GUE_PORT: [u8; 2] = [0xcd, 0xef];

/// A packet of a family with these hops, this traffic class and 48 bytes behind its header, as it
/// comes in and as it is in the tunnel: with one hop less.
fn inner(family: u8, hops: u8, class: u8) -> (Vec<u8>, Vec<u8>) {
    let plan = Plan {
        payload: 28,
        ..to_vip(family)
    };
    let mut bytes = plan.bytes();
    let before = |bytes: &mut [u8], hops: u8| {
        if family == V4 {
            bytes[15] = class;
            bytes[22] = hops;
            bytes[24..26].fill(0);
            let sum: u32 = bytes[14..34]
                .chunks(2)
                .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
                .sum();
            let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
            bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
        } else {
            bytes[14..16].copy_from_slice(&[0x60 | class >> 4, class << 4]);
            bytes[21] = hops;
        }
    };
    before(&mut bytes, hops);
    let frame = bytes.clone();
    before(&mut bytes, hops - 1);
    (frame, bytes[14..].to_vec())
}

/// Checks a frame against what it is in a tunnel to endpoint 1: its outer header and its payload.
fn check(bed: &Bed, name: &str, frame: &[u8], ethertype: &[u8], outer: &[u8], inside: &[u8]) {
    let (verdict, bytes) = bed.run(frame);
    assert_eq!(verdict, Verdict::Transmit, "{name}");
    assert_eq!(bytes[..12], *MACS, "{name}");
    assert_eq!(bytes[12..14], *ethertype, "{name}");
    assert_eq!(
        bytes[14..14 + outer.len()],
        *outer,
        "{name}: the outer header"
    );
    assert_eq!(
        bytes[14 + outer.len()..],
        *inside,
        "{name}: the inner packet"
    );
}

/// 10.0.0.99 to 10.0.0.1.
const FROM_TO_4: &[u8] = &[10, 0, 0, 99, 10, 0, 0, 1];
/// `fd00::63` to `fd00::1`.
const FROM_TO_6: &[u8] =
    b"\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x63\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01";

#[test]
fn each_family_in_each_family() {
    // Lengths: 68 bytes of IPv4 or 88 of IPv6 in 20 or 40 bytes; checksums by hand.
    let in_v4 = Bed::new(mode::IPIP, V4);
    let (frame, inside) = inner(V4, 64, 0);
    let header = [
        b"\x45\x00\x00\x58\x00\x00\x40\x00\x40\x04\x26\x3f",
        FROM_TO_4,
    ]
    .concat();
    check(&in_v4, "4 in 4", &frame, b"\x08\x00", &header, &inside);
    let (frame, inside) = inner(V6, 64, 0);
    let header = [
        b"\x45\x00\x00\x6c\x00\x00\x40\x00\x40\x29\x26\x06",
        FROM_TO_4,
    ]
    .concat();
    check(&in_v4, "6 in 4", &frame, b"\x08\x00", &header, &inside);
    let in_v6 = Bed::new(mode::IPIP, V6);
    let (frame, inside) = inner(V4, 64, 0);
    let header = [b"\x60\x0b\xcd\xef\x00\x44\x04\x40", FROM_TO_6].concat();
    check(&in_v6, "4 in 6", &frame, b"\x86\xdd", &header, &inside);
    let (frame, inside) = inner(V6, 64, 0);
    let header = [b"\x60\x0b\xcd\xef\x00\x58\x29\x40", FROM_TO_6].concat();
    check(&in_v6, "6 in 6", &frame, b"\x86\xdd", &header, &inside);
}

#[test]
fn each_family_in_udp_over_each_family() {
    let in_v4 = Bed::new(mode::GUE, V4);
    let udp = |length: u8| [&GUE_PORT[..], b"\x17\xc0\x00", &[length], b"\0\0"].concat();
    let (frame, inside) = inner(V4, 64, 0);
    let header = [
        b"\x45\x00\x00\x60\x00\x00\x40\x00\x40\x11\x26\x2a",
        FROM_TO_4,
        &udp(76),
    ]
    .concat();
    check(&in_v4, "4 in 4", &frame, b"\x08\x00", &header, &inside);
    let (frame, inside) = inner(V6, 64, 0);
    let header = [
        b"\x45\x00\x00\x74\x00\x00\x40\x00\x40\x11\x26\x16",
        FROM_TO_4,
        &udp(96),
    ]
    .concat();
    check(&in_v4, "6 in 4", &frame, b"\x08\x00", &header, &inside);
    let in_v6 = Bed::new(mode::GUE, V6);
    let (frame, inside) = inner(V4, 64, 0);
    let header = [b"\x60\x0b\xcd\xef\x00\x4c\x11\x40", FROM_TO_6, &udp(76)].concat();
    check(&in_v6, "4 in 6", &frame, b"\x86\xdd", &header, &inside);
    let (frame, inside) = inner(V6, 64, 0);
    let header = [b"\x60\x0b\xcd\xef\x00\x60\x11\x40", FROM_TO_6, &udp(96)].concat();
    check(&in_v6, "6 in 6", &frame, b"\x86\xdd", &header, &inside);
}

#[test]
fn tags_stay_in_front() {
    for (mode, outer) in [
        (mode::IPIP, V4),
        (mode::IPIP, V6),
        (mode::GUE, V4),
        (mode::GUE, V6),
    ] {
        let bed = Bed::new(mode, outer);
        for family in [V4, V6] {
            let (frame, _) = inner(family, 64, 0);
            let (_, untagged) = bed.run(&frame);
            for tags in [
                &b"\x81\x00\x00\x07"[..],
                b"\x88\xa8\x00\x07\x81\x00\x00\x08",
            ] {
                let tagged = [&frame[..12], tags, &frame[12..]].concat();
                let (verdict, bytes) = bed.run(&tagged);
                assert_eq!(verdict, Verdict::Transmit);
                let expected = [&untagged[..12], tags, &untagged[12..]].concat();
                assert_eq!(
                    bytes, expected,
                    "mode {mode}, {family} in {outer}, {tags:02x?}"
                );
            }
        }
    }
}

#[test]
fn the_class_is_that_of_the_inner_packet() {
    for class in [0, 1, 2, 3, 0xb8, 0xff] {
        for family in [V4, V6] {
            let (frame, inside) = inner(family, 64, class);
            let (_, bytes) = Bed::new(mode::IPIP, V4).run(&frame);
            assert_eq!(bytes[15], class, "{family} in 4");
            assert_eq!(bytes[34..], inside);
            let (_, bytes) = Bed::new(mode::GUE, V6).run(&frame);
            assert_eq!(
                bytes[14..16],
                [0x60 | class >> 4, class << 4 | 0x0b],
                "{family} in 6"
            );
            assert_eq!(bytes[62..], inside);
        }
    }
}

#[test]
fn a_packet_at_its_last_hop_passes_untouched() {
    for family in [V4, V6] {
        for (hops, verdict) in [
            (1, Verdict::Pass(Reason::TtlExpired)),
            (2, Verdict::Transmit),
        ] {
            let (frame, inside) = inner(family, hops, 0);
            let (answer, bytes) = Bed::new(mode::IPIP, V4).run(&frame);
            assert_eq!(answer, verdict, "{hops} hops");
            if verdict == Verdict::Transmit {
                assert_eq!(bytes[34..], inside);
            } else {
                assert_eq!(bytes, frame);
            }
        }
        let (mut frame, _) = inner(family, 2, 0);
        frame[if family == V4 { 22 } else { 21 }] = 0;
        let expected = (Verdict::Pass(Reason::TtlExpired), frame.clone());
        assert_eq!(Bed::new(mode::GUE, V6).run(&frame), expected);
    }
}

#[test]
fn only_a_packet_that_fits_the_way_is_wrapped() {
    for (mode, outer, grown) in [
        (mode::IPIP, V4, 20),
        (mode::IPIP, V6, 40),
        (mode::GUE, V4, 28),
        (mode::GUE, V6, 48),
    ] {
        let bed = Bed::new(mode, outer);
        for family in [V4, V6] {
            let headers = if family == V4 { 40 } else { 60 };
            let fits = 1500 - grown - headers;
            let plan = |payload| Plan {
                payload,
                ..to_vip(family)
            };
            let (verdict, bytes) = bed.run(&plan(fits).bytes());
            assert_eq!((verdict, bytes.len()), (Verdict::Transmit, 1514));
            // Its sender is told what would fit, with the packet's beginning.
            let (verdict, bytes) = bed.run(&plan(fits + 1).bytes());
            let (protocol, told, quoted, length) = if family == V4 {
                (bytes[23], [bytes[40], bytes[41]], 28, 576)
            } else {
                (bytes[20], [bytes[60], bytes[61]], 48, 1280)
            };
            assert_eq!((verdict, bytes.len()), (Verdict::Transmit, 14 + length));
            assert_eq!(protocol, if family == V4 { 1 } else { 58 });
            assert_eq!(u16::from_be_bytes(told), 1500 - grown as u16);
            assert_eq!(
                bytes[14 + quoted..],
                plan(fits + 1).bytes()[14..bytes.len() - quoted]
            );
            // Padding is not wrapped, and does not count.
            let padded = [plan(fits).bytes(), vec![0; 8]].concat();
            assert_eq!(bed.run(&padded).0, Verdict::Transmit);
        }
    }
}

#[test]
fn on_a_way_that_takes_hardly_anything_less_is_quoted() {
    for (family, mtu, ordinary, quoted) in [(V4, 300, 548, 28), (V6, 400, 1232, 48)] {
        let mut bed = Bed::new(mode::IPIP, V4);
        bed.tables().endpoints[1].mtu = mtu;
        let headers = if family == V4 { 40 } else { 60 };
        for (length, bytes) in [
            (ordinary, ordinary),
            (ordinary - 1, if family == V4 { 68 } else { 128 }),
        ] {
            let plan = Plan {
                payload: length - headers,
                ..to_vip(family)
            };
            let (verdict, told) = bed.run(&plan.bytes());
            assert_eq!(verdict, Verdict::Transmit);
            assert_eq!(told[14 + quoted..], plan.bytes()[14..14 + bytes]);
        }
    }
}

#[test]
fn a_driver_without_room_is_told_of() {
    let bed = Bed::new(mode::IPIP, V6);
    for (headroom, verdict) in [(40, Verdict::Transmit), (39, Verdict::Drop(Reason::NoRoom))] {
        let mut frame = crate::host::Frame::new(&to_vip(V4).bytes(), 1);
        frame.headroom = headroom;
        assert_eq!(crate::decide::process(&mut frame, &bed.host), verdict);
    }
}

#[test]
fn the_outer_source_tells_flows_apart_where_it_may() {
    let mut bed = Bed::new(mode::IPIP, V4);
    // The last byte of the address; the hash's lowest word is 89abcdef, its first byte last.
    bed.tables().endpoints[1].entropy = u32::from_ne_bytes([0, 0, 0, 0xff]);
    let (_, bytes) = bed.run(&to_vip(V4).bytes());
    assert_eq!(bytes[26..30], [10, 0, 0, 0x63 ^ 0x89]);
    bed.tables().endpoints[1].entropy = u32::MAX;
    let (_, bytes) = bed.run(&to_vip(V4).bytes());
    assert_eq!(bytes[26..30], [0x0a ^ 0xef, 0xcd, 0xab, 0x63 ^ 0x89]);
    let mut bed = Bed::new(mode::IPIP, V6);
    bed.tables().endpoints[1].entropy = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
    let (_, bytes) = bed.run(&to_vip(V4).bytes());
    assert_eq!(bytes[22..38], *b"\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\xab\xea");
}
