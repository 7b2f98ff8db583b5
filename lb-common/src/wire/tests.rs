//! Each parser on literal bytes, cut short at every length, and changed where it decides.

use std::vec::Vec;

use super::*;
use crate::host::Frame;

fn frame(bytes: &[u8]) -> Frame {
    Frame::new(bytes, 1)
}

fn changed(bytes: &[u8], at: usize, byte: u8) -> Frame {
    let mut frame = frame(bytes);
    frame.bytes[at] = byte;
    frame
}

/// Checks that a parser answers `Truncated` for every part of the bytes, and not for all of them.
fn cut_anywhere<T>(bytes: &[u8], parse: impl Fn(&Frame) -> Result<T, Reason>) {
    for length in 0..bytes.len() {
        assert_eq!(
            parse(&frame(&bytes[..length])).err(),
            Some(Reason::Truncated),
            "{length} bytes"
        );
    }
    assert!(parse(&frame(bytes)).is_ok());
}

const ETHERNET: &[u8] = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x88\xa8\x00\x01\x81\x00\x00\x02\x86\xdd";

#[test]
fn ethernet_looks_behind_two_tags_and_no_more() {
    cut_anywhere(ETHERNET, ethernet::payload);
    let payload = ethernet::payload(&frame(ETHERNET)).unwrap();
    assert_eq!((payload.ethertype, payload.at), (ethernet::IPV6, 22));
    let untagged = [&ETHERNET[..12], b"\x08\x00"].concat();
    cut_anywhere(&untagged, ethernet::payload);
    let payload = ethernet::payload(&frame(&untagged)).unwrap();
    assert_eq!((payload.ethertype, payload.at), (ethernet::IPV4, 14));
    let thrice: Vec<u8> = [&ETHERNET[..20], b"\x81\x00\x00\x03\x08\x00"].concat();
    let payload = ethernet::payload(&frame(&thrice)).unwrap();
    assert_eq!((payload.ethertype, payload.at), (ethernet::VLAN, 22));
}

/// TCP from 203.0.113.9 to 198.51.100.10, 'do not fragment'.
const IPV4: &[u8] =
    b"\x45\x00\x00\x28\x12\x34\x40\x00\x40\x06\x00\x00\xcb\x00\x71\x09\xc6\x33\x64\x0a";

#[test]
fn ipv4_is_read_as_it_lies_in_memory() {
    cut_anywhere(IPV4, |frame| ipv4::header(frame, 0));
    let header = ipv4::header(&frame(IPV4), 0).unwrap();
    assert_eq!(header.protocol, tcp::PROTOCOL);
    assert_eq!(header.source.to_ne_bytes(), [203, 0, 113, 9]);
    assert_eq!(header.destination.to_ne_bytes(), [198, 51, 100, 10]);
    assert_eq!(header.payload, 20);
}

#[test]
fn ipv4_of_every_version_and_length_has_its_answer() {
    for first in 0..=u8::MAX {
        let answer = ipv4::header(&changed(IPV4, 0, first), 0).err();
        let expected = match first {
            0x45 => None,
            0x46..=0x4f => Some(Reason::Extensions),
            _ => Some(Reason::Malformed),
        };
        assert_eq!(answer, expected, "{first:#x}");
    }
}

#[test]
fn ipv4_fragments_are_known_by_each_of_their_bits() {
    for bit in 0..16 {
        let mut fragment = frame(IPV4);
        fragment.bytes[6..8].copy_from_slice(&(1u16 << bit).to_be_bytes());
        let expected = (bit < 14).then_some(Reason::Fragment);
        assert_eq!(ipv4::header(&fragment, 0).err(), expected, "bit {bit}");
    }
}

/// UDP from `2001:db8::9` to `2001:db8::10`.
const IPV6: &[u8] = b"\x60\x00\x00\x00\x00\x08\x11\x40\
    \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x09\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x10";

#[test]
fn ipv6_is_read_as_it_lies_in_memory() {
    cut_anywhere(IPV6, |frame| ipv6::header(frame, 0));
    let header = ipv6::header(&frame(IPV6), 0).unwrap();
    assert_eq!(header.protocol, udp::PROTOCOL);
    assert_eq!(
        bytemuck::cast::<_, [u8; 16]>(header.source)[..],
        IPV6[8..24]
    );
    assert_eq!(
        bytemuck::cast::<_, [u8; 16]>(header.destination)[..],
        IPV6[24..40]
    );
    assert_eq!(header.payload, 40);
}

#[test]
fn ipv6_of_every_version_and_next_header_has_its_answer() {
    for first in 0..=u8::MAX {
        let expected = (first >> 4 != 6).then_some(Reason::Malformed);
        assert_eq!(
            ipv6::header(&changed(IPV6, 0, first), 0).err(),
            expected,
            "{first:#x}"
        );
    }
    for next in 0..=u8::MAX {
        let expected = match next {
            44 => Some(Reason::Fragment),
            0 | 43 | 51 | 60 => Some(Reason::Extensions),
            _ => None,
        };
        assert_eq!(
            ipv6::header(&changed(IPV6, 6, next), 0).err(),
            expected,
            "{next}"
        );
    }
}

/// A SYN from port 51000 to port 80.
const TCP: &[u8] = b"\xc7\x38\x00\x50\x01\x02\x03\x04\0\0\0\0\x50\x02\xff\xff\0\0\0\0";

#[test]
fn tcp_tells_ports_flags_and_sequence_number() {
    cut_anywhere(TCP, |frame| tcp::header(frame, 0));
    let header = tcp::header(&frame(TCP), 0).unwrap();
    assert_eq!(header.ports.to_ne_bytes(), [0xc7, 0x38, 0x00, 0x50]);
    assert_eq!(header.flags, tcp::SYN);
    assert_eq!(
        tcp::sequence(&frame(TCP), 0).unwrap().to_ne_bytes(),
        [1, 2, 3, 4]
    );
    for words in 0..16 {
        let expected = (words < 5).then_some(Reason::Malformed);
        assert_eq!(
            tcp::header(&changed(TCP, 12, words << 4), 0).err(),
            expected,
            "{words} words"
        );
    }
}

#[test]
fn udp_tells_its_ports() {
    let bytes = b"\xc7\x38\x00\x35\x00\x08\x00\x00";
    cut_anywhere(bytes, |frame| udp::ports(frame, 0));
    assert_eq!(
        udp::ports(&frame(bytes), 0).unwrap().to_ne_bytes(),
        [0xc7, 0x38, 0x00, 0x35]
    );
}
