//! Named packets that are none of Evenkeel's: every one of them passes, and no byte of it changes.

mod frames;
mod homes;

use std::net::{IpAddr, SocketAddr};

use frames::{ACK, Body, Packet, SYN, VLAN, at};
use homes::{
    bed::{BACKEND_PORT, Bed},
    cases::Cases,
    network,
};
use lb_common::{flow::V4, layout::mode, verdict::Verdict};

/// Addresses that no service, no backend of mode `nat` and no pool has.
const FROM: [&str; 2] = ["203.0.113.9", "2001:db8:c::9"];
const TO: [&str; 2] = ["198.51.100.200", "2001:db8::200"];

/// A packet from a stranger to a stranger.
fn foreign(v6: usize) -> Packet {
    Packet::tcp(at(FROM[v6], 51_000), at(TO[v6], 80))
}

fn icmp(v6: usize, kind: u8, code: u8) -> Packet {
    let message = [&[kind, code, 0, 0, 0, 1, 0, 1], &b"payload"[..]].concat();
    let protocol = if v6 == 0 { 1 } else { 58 };
    foreign(v6).body(Body::Other(protocol)).payload(&message)
}

/// Names and frames.
#[expect(clippy::too_many_lines, reason = "a table")]
fn packets() -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    for v6 in [0, 1] {
        let mut add = |name: &str, frame: Vec<u8>| {
            all.push((format!("{name}, IPv{}", if v6 == 0 { 4 } else { 6 }), frame));
        };
        let plain = foreign(v6);
        add("TCP", plain.bytes());
        add("SYN", plain.clone().flags(SYN).bytes());
        add("SYN-ACK", plain.clone().flags(SYN | ACK).bytes());
        add("every flag", plain.clone().flags(0xff).bytes());
        add("no flag", plain.clone().flags(0).bytes());
        add("UDP", plain.clone().body(Body::Udp).bytes());
        add(
            "UDP without a checksum",
            plain.clone().body(Body::UdpUnchecked).bytes(),
        );
        add("behind a tag", plain.clone().tagged(&[(VLAN, 9)]).bytes());
        add(
            "behind three tags",
            plain.clone().tagged(&[(VLAN, 9); 3]).bytes(),
        );
        add("at its last hop", plain.clone().hops(1).bytes());
        add("beyond its last hop", plain.clone().hops(0).bytes());
        add("marked", plain.clone().class(0xff).bytes());
        add("padded", plain.clone().payload(&[]).padded(22).bytes());
        add("a large one", plain.clone().filled(1460).bytes());
        for (name, kind, code) in if v6 == 0 {
            [
                ("an echo request", 8, 0),
                ("an echo reply", 0, 0),
                ("unreachable", 3, 1),
                ("fragmentation needed", 3, 4),
                ("time exceeded", 11, 0),
            ]
        } else {
            [
                ("an echo request", 128, 0),
                ("an echo reply", 129, 0),
                ("unreachable", 1, 0),
                ("packet too big", 2, 0),
                ("time exceeded", 3, 0),
            ]
        } {
            add(name, icmp(v6, kind, code).bytes());
        }
        for (name, protocol) in [
            ("GRE", 47),
            ("ESP", 50),
            ("SCTP", 132),
            ("OSPF", 89),
            ("255", 255),
        ] {
            add(name, plain.clone().body(Body::Other(protocol)).bytes());
        }
        let long = plain.clone().body(Body::Udp).filled(64);
        add("a first fragment", long.fragment(0..32, 7));
        add("a middle fragment", long.fragment(32..48, 7));
        add("a last fragment", long.fragment(48..72, 7));
    }
    let mut options = foreign(0);
    for (name, bytes) in [
        ("a router alert", &[148, 4, 0, 0][..]),
        ("record route", &[7, 7, 4, 0, 0, 0, 0, 0]),
        ("the most options", &[1; 40]),
    ] {
        options.options = bytes.to_vec();
        all.push((name.to_owned(), options.bytes()));
    }
    for (name, headers) in [
        ("hop-by-hop options", &[(0, 8)][..]),
        ("routing", &[(43, 24)]),
        ("an atomic fragment", &[(44, 8)]),
        ("authentication", &[(51, 8)]),
        ("destination options", &[(60, 8)]),
        ("a chain", &[(0, 8), (60, 16), (43, 24), (44, 8), (60, 8)]),
    ] {
        let mut packet = foreign(1);
        packet.extensions = headers
            .iter()
            .map(|&(number, length): &(u8, usize)| {
                let mut bytes = vec![0; length];
                // In units of eight bytes beyond the first; a fragment header has no length, that
                // of authentication counts words.
                bytes[1] = if number == 44 {
                    0
                } else {
                    (length / 8 - 1) as u8
                };
                (number, bytes)
            })
            .collect();
        all.push((name.to_owned(), packet.bytes()));
    }
    let mac = foreign(0).macs;
    for (name, ethertype, body) in [
        ("ARP", 0x0806, &b"\0\x01\x08\0\x06\x04\0\x01\x02\0\0\0\0\xfd\xcb\0\x71\x09\0\0\0\0\0\0\xc6\x33\x64\x0a"[..]),
        ("LLDP", 0x88cc, b"\x02\x07\x04\x02\0\0\0\0\xfd\0\0"),
        ("a spanning tree's", 0x0026, b"\x42\x42\x03\0\0\0\0\0"),
        ("MPLS", 0x8847, b"\0\x01\x01\x40\x45\0\0\x14"),
        ("PPPoE", 0x8864, b"\x11\0\0\x01\0\0\0\x21"),
        ("an empty IPv4 packet", 0x0800, b""),
        ("an empty IPv6 packet", 0x86dd, b""),
        ("IPv4 of version 6", 0x0800, b"\x65\0\0\x14\0\0\0\0\x40\x06\0\0\xcb\0\x71\x09\xc6\x33\x64\x0a"),
        ("an IPv4 header of four words", 0x0800, b"\x44\0\0\x14\0\0\0\0\x40\x06\0\0\xcb\0\x71\x09\xc6\x33\x64\x0a"),
    ] {
        let ethertype: u16 = ethertype;
        all.push((name.to_owned(), [&mac[..], &ethertype.to_be_bytes(), body].concat()));
    }
    all
}

#[test]
fn what_is_none_of_ours_passes_untouched() {
    network::within(|| {
        let bed = Bed::new();
        let mut cases = Cases::new(&bed);
        let packets = packets();
        for (name, frame) in &packets {
            let (verdict, bytes) = cases.homes.run(frame);
            assert!(matches!(verdict, Verdict::Pass(_)), "{name}: {verdict:?}");
            assert_eq!(&bytes, frame, "{name}");
            // And so does every beginning of it.
            for length in 14..frame.len() {
                let (verdict, bytes) = cases.homes.run(&frame[..length]);
                assert!(
                    matches!(verdict, Verdict::Pass(_)),
                    "{name}, {length} bytes: {verdict:?}"
                );
                assert_eq!(bytes, frame[..length], "{name}, {length} bytes");
            }
        }
        assert!(packets.len() >= 70, "only {} packets", packets.len());
        let counted = cases.homes.counts();
        assert!(counted.endpoints.is_empty(), "{counted:?}");
        assert!(
            counted.exits.keys().all(|(row, _)| *row == 0),
            "{counted:?}"
        );
        cases.homes.compare_memory();
    });
}

#[test]
fn what_only_resembles_a_services_packet_passes_untouched() {
    network::within(|| {
        let bed = Bed::new();
        let mut cases = Cases::new(&bed);
        for served in &bed.services {
            let v6 = usize::from(served.vip.is_ipv6());
            let client = at(FROM[v6], 51_000);
            let body = |protocol| {
                if protocol == 6 {
                    Body::Tcp(SYN)
                } else {
                    Body::Udp
                }
            };
            let other_port = SocketAddr::new(served.vip.ip(), served.vip.port() + 1);
            let other = if served.protocol == 6 { 17 } else { 6 };
            let mapped: IpAddr = match served.vip.ip() {
                IpAddr::V4(vip) => vip.to_ipv6_mapped().into(),
                IpAddr::V6(_) => FROM[1].parse().expect("an address"),
            };
            let ours = Packet::tcp(client, served.vip).body(body(served.protocol));
            let backend = SocketAddr::new(served.backend(0), BACKEND_PORT);
            let mut packets = vec![
                ("another port", ours.clone().to(other_port)),
                ("the other protocol", ours.clone().body(body(other))),
                ("from the VIP", ours.clone().from(served.vip).to(client)),
                (
                    "to a mapped address",
                    ours.clone()
                        .from(at(FROM[1], 1))
                        .to(SocketAddr::new(mapped, 80)),
                ),
            ];
            if served.backend(0).is_ipv4() == served.vip.is_ipv4() {
                packets.push(("to the backend itself", ours.clone().to(backend)));
            }
            if served.way.mode != mode::NAT && served.outer() == V4 {
                let answer = ours.from(backend).to(at(FROM[0], 51_000));
                packets.push(("from a backend that answers by itself", answer));
            }
            for (what, packet) in packets {
                let frame = packet.bytes();
                let (verdict, bytes) = cases.homes.run(&frame);
                let name = format!("{}, {}: {what}", served.way.name, served.vip);
                assert!(matches!(verdict, Verdict::Pass(_)), "{name}: {verdict:?}");
                assert_eq!(bytes, frame, "{name}");
            }
        }
        assert!(cases.homes.counts().endpoints.is_empty());
    });
}
