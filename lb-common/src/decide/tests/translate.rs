//! Addresses and ports rewritten, with the checksums that a whole recomputation would give.

use std::{net::SocketAddr, vec::Vec};

use proptest::prelude::*;

use super::bed::{Bed, CLIENT_MACS, INGRESS, ends, to_vip};
use crate::{
    flow::{V4, V6},
    layout::{Slot, mode},
    tables::Route,
    testing::{Plan, Transport},
    verdict::{Reason, Verdict},
};

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)))
        .sum()
}

fn folded(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum that a receiver takes over the IP header, and over the transport with its pseudo
/// header; each comes to ffff where the checksums are right (RFC 1071 §1).
fn sums(plan: &Plan, bytes: &[u8]) -> (u16, u16) {
    let (network, transport) = (plan.network(), plan.transport());
    let segment = &bytes[transport..];
    let (header, addresses, protocol) = if plan.destination.is_ipv4() {
        let header = folded(sum(&bytes[network..transport]));
        (header, &bytes[network + 12..transport], bytes[network + 9])
    } else {
        (0xffff, &bytes[network + 8..transport], bytes[network + 6])
    };
    let pseudo = sum(addresses) + segment.len() as u32 + u32::from(protocol);
    (header, folded(pseudo + sum(segment)))
}

/// Where the transport's checksum stands.
fn checksum_at(plan: &Plan) -> usize {
    plan.transport()
        + match plan.transport {
            Transport::Udp => 6,
            _ => 16,
        }
}

/// A plan's bytes with right checksums.
fn right(plan: &Plan) -> Vec<u8> {
    let mut bytes = plan.bytes();
    if plan.destination.is_ipv4() {
        let network = plan.network();
        let (header, _) = sums(plan, &bytes);
        bytes[network + 10..network + 12].copy_from_slice(&(!header).to_be_bytes());
    }
    let (_, segment) = sums(plan, &bytes);
    let checksum = if segment == 0xffff && plan.transport == Transport::Udp {
        0xffff
    } else {
        !segment
    };
    let at = checksum_at(plan);
    bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// What changes: addresses and ports.
#[derive(Debug, PartialEq)]
struct Ends {
    source: SocketAddr,
    destination: SocketAddr,
}

fn read_ends(plan: &Plan, bytes: &[u8]) -> Ends {
    let (network, transport) = (plan.network(), plan.transport());
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let address = |at: usize| -> std::net::IpAddr {
        if plan.destination.is_ipv4() {
            <[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap().into()
        } else {
            <[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap().into()
        }
    };
    let (source, destination) = if plan.destination.is_ipv4() {
        (address(network + 12), address(network + 16))
    } else {
        (address(network + 8), address(network + 24))
    };
    Ends {
        source: SocketAddr::new(source, port(transport)),
        destination: SocketAddr::new(destination, port(transport + 2)),
    }
}

fn backend(family: u8) -> std::net::IpAddr {
    if family == V4 { "10.0.0.1" } else { "fd00::1" }
        .parse()
        .unwrap()
}

/// A packet of the client's, TCP or UDP.
fn client(family: u8, udp: bool) -> Plan {
    let plan = to_vip(family);
    if udp {
        Plan::udp(plan.source, plan.destination)
    } else {
        plan
    }
}

#[test]
fn the_backend_gets_its_own_address_and_port() {
    for (family, udp) in [(V4, false), (V4, true), (V6, false), (V6, true)] {
        for (port, expected) in [(8080, 8080), (0, 80)] {
            let mut bed = Bed::new(mode::NAT, family);
            bed.nat(port);
            for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
                let plan = client(family, udp).tagged(tags);
                let frame = right(&plan);
                let (verdict, bytes) = bed.run(&frame);
                assert_eq!(verdict, Verdict::Transmit);
                assert_eq!(bytes[..4], [1, 0, 0, 0]);
                let ends = Ends {
                    source: plan.source,
                    destination: SocketAddr::new(backend(family), expected),
                };
                assert_eq!(read_ends(&plan, &bytes), ends);
                assert_eq!(sums(&plan, &bytes), (0xffff, 0xffff));
                let hops = plan.network() + if family == V4 { 8 } else { 7 };
                assert_eq!(bytes[hops], 63);
                let payload = checksum_at(&plan) + 2;
                assert_eq!(bytes[payload..], frame[payload..]);
            }
        }
    }
}

#[test]
fn the_client_gets_the_vip_back() {
    for (family, udp) in [(V4, false), (V4, true), (V6, false), (V6, true)] {
        for port in [8080, 0] {
            let mut bed = Bed::new(mode::NAT, family);
            bed.nat(port);
            if port == 0 {
                bed.tables().header.any_port_endpoints = 4;
            }
            let to = client(family, udp);
            let from = SocketAddr::new(backend(family), if port == 0 { 80 } else { port });
            let plan = Plan {
                source: from,
                destination: to.source,
                ..to.clone()
            };
            let frame = right(&plan);
            let (verdict, bytes) = bed.run(&frame);
            assert_eq!(verdict, Verdict::Transmit, "port {port}");
            let macs: Vec<u8> = CLIENT_MACS.iter().flat_map(|w| w.to_ne_bytes()).collect();
            assert_eq!(bytes[..12], macs[..]);
            let ends = Ends {
                source: to.destination,
                destination: to.source,
            };
            assert_eq!(read_ends(&plan, &bytes), ends);
            assert_eq!(sums(&plan, &bytes), (0xffff, 0xffff));
            let events = bed.host.events.borrow()[&1];
            assert_eq!(
                (events.replies, events.reply_bytes),
                (1, frame.len() as u64)
            );
        }
    }
}

#[test]
fn a_reply_goes_by_the_hosts_routes() {
    let mut bed = Bed::new(mode::NAT, V4);
    bed.nat(8080);
    let to = client(V4, false);
    let plan = Plan {
        source: SocketAddr::new(backend(V4), 8080),
        destination: to.source,
        ..to
    };
    let frame = right(&plan);
    let destination = super::bed::words(ends(V4).0);
    let macs = [9, 8, 7];
    let mut to = |route| {
        bed.host.routes.insert(destination, route);
        bed.run(&frame)
    };
    let (verdict, bytes) = to(Route::Over { interface: 5, macs });
    assert_eq!(verdict, Verdict::Redirect(5));
    assert_eq!(bytes[..4], [9, 0, 0, 0]);
    // Where the next hop is to be resolved, the stack sends what is rewritten already.
    let (verdict, passed) = to(Route::Unknown);
    assert_eq!(verdict, Verdict::Pass(Reason::NoRoute));
    assert_eq!(passed[..12], frame[..12]);
    assert_eq!(passed[12..], bytes[12..]);
    // Nor does anything leave as the backend's own where there is no way at all.
    let (verdict, passed) = to(Route::Nowhere);
    assert_eq!(verdict, Verdict::Pass(Reason::NoRoute));
    assert_eq!(passed[12..], bytes[12..]);
    // The host's own connections to the backend are its own.
    let flow = crate::flow::ipv4(&crate::host::Frame::new(&frame, INGRESS), 14).unwrap();
    bed.host.awaited.insert(flow.flow);
    let (verdict, passed) = bed.run(&frame);
    assert_eq!(verdict, Verdict::Pass(Reason::NoService));
    assert_eq!(passed, frame);
    assert_eq!(INGRESS, 1);
}

#[test]
fn what_a_backend_sends_from_another_port_is_no_reply() {
    let mut bed = Bed::new(mode::NAT, V4);
    bed.nat(8080);
    let to = client(V4, false);
    let frame = right(&Plan {
        source: SocketAddr::new(backend(V4), 22),
        destination: to.source,
        ..to
    });
    let expected = (Verdict::Pass(Reason::NoService), frame.clone());
    assert_eq!(bed.run(&frame), expected);
}

#[test]
fn a_datagram_without_a_checksum_stays_without() {
    for family in [V4, V6] {
        let mut bed = Bed::new(mode::NAT, family);
        bed.nat(8080);
        let plan = client(family, true);
        let mut frame = right(&plan);
        let at = checksum_at(&plan);
        frame[at..at + 2].fill(0);
        let (verdict, bytes) = bed.run(&frame);
        assert_eq!(verdict, Verdict::Transmit);
        assert_eq!(bytes[at..at + 2], [0, 0]);
        assert_eq!(sums(&plan, &bytes).0, 0xffff);
    }
}

#[test]
fn a_checksum_that_comes_to_zero_is_not_none() {
    // One of these payloads lets the sum come to zero, of which a datagram sends the other form.
    for family in [V4, V6] {
        let mut bed = Bed::new(mode::NAT, family);
        bed.nat(8080);
        let plan = Plan {
            payload: 2,
            ..client(family, true)
        };
        let at = checksum_at(&plan);
        let mut frame = plan.bytes();
        let mut zeroes = 0;
        for word in 0..=u16::MAX {
            frame[at + 2..at + 4].copy_from_slice(&word.to_be_bytes());
            frame[at..at + 2].fill(0);
            let (_, sum) = sums(&plan, &frame);
            let checksum = if sum == 0xffff { 0xffff } else { !sum };
            frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
            let (_, bytes) = bed.run(&frame);
            assert_ne!(bytes[at..at + 2], [0, 0], "{word:#x}");
            zeroes += u32::from(bytes[at..at + 2] == [0xff, 0xff]);
        }
        assert_eq!(zeroes, 1);
    }
}

#[test]
fn a_packet_at_its_last_hop_passes_untouched() {
    for family in [V4, V6] {
        let mut bed = Bed::new(mode::NAT, family);
        bed.nat(8080);
        for hops in [0, 1] {
            let plan = client(family, false);
            let mut frame = right(&plan);
            frame[plan.network() + if family == V4 { 8 } else { 7 }] = hops;
            let expected = (Verdict::Pass(Reason::TtlExpired), frame.clone());
            assert_eq!(bed.run(&frame), expected);
        }
    }
}

proptest! {
    #[test]
    fn every_checksum_stays_right(
        family in prop::sample::select(&[V4, V6][..]),
        udp: bool,
        source in any::<[u8; 16]>(),
        port in 1..=u16::MAX,
        backend_port in 1..=u16::MAX,
        backend in any::<[u32; 4]>(),
        payload in 0..60usize,
    ) {
        let mut bed = Bed::new(mode::NAT, family);
        bed.slots(Slot::steady(1));
        let far = &mut bed.tables().fars[1].address;
        *far = if family == V4 { [0, 0, 0, backend[3]] } else { backend };
        bed.tables().endpoints[1].port = backend_port.to_be();
        let address: std::net::IpAddr = if family == V4 {
            <[u8; 4]>::try_from(&source[..4]).unwrap().into()
        } else {
            source.into()
        };
        let plan = Plan {
            source: SocketAddr::new(address, port),
            payload,
            ..client(family, udp)
        };
        let (verdict, bytes) = bed.run(&right(&plan));
        prop_assert_eq!(verdict, Verdict::Transmit);
        prop_assert_eq!(sums(&plan, &bytes), (0xffff, 0xffff));
        let at = checksum_at(&plan);
        prop_assert!(!udp || bytes[at..at + 2] != [0, 0], "none is not the same as zero");
    }
}
