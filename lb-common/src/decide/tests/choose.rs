//! What else decides who gets a packet, and whether anybody does.

use std::{collections::BTreeSet, net::SocketAddr, vec::Vec};

use super::bed::{Bed, NOW, ends, to_vip, words};
use crate::{
    flow::{V4, V6},
    layout::{self, Slot, SourceKey, Vip, VipKey, flag, mode, spread, state},
    testing::Plan,
    verdict::{Reason, Verdict},
    wire::{
        tcp::{ACK, SYN},
        udp,
    },
};
use bytemuck::Zeroable as _;

/// Packets of a family from an address.
fn from(family: u8, address: &str, port: u16) -> Plan {
    Plan {
        source: SocketAddr::new(address.parse().unwrap(), port),
        ..to_vip(family)
    }
}

/// An entry of a list: an address and how many of its bits count.
fn entry(list: u32, family: u8, address: &str, bits: u32) -> SourceKey {
    let address = words(address);
    SourceKey {
        prefix: 64 + bits,
        list,
        family: family.into(),
        address: if family == V4 {
            [address[3], 0, 0, 0]
        } else {
            address
        },
    }
}

#[test]
fn the_longest_prefix_of_the_services_own_list_decides() {
    for others in [0, flag::DENY_OTHERS] {
        let mut bed = Bed::new(mode::DSR, V4);
        bed.services(|vip| vip.flags = flag::SOURCES | others);
        for service in 0..4 {
            bed.tables().services[service].sources = 7;
        }
        bed.host.sources = [
            (entry(7, V4, "203.0.113.0", 24), 0),
            (entry(7, V4, "203.0.113.64", 26), 1),
            (entry(7, V4, "203.0.113.65", 32), 0),
            (entry(8, V4, "203.0.113.0", 32), 1),
            (entry(7, V6, "2001:db8:c::", 48), 0),
            (entry(7, V6, "2001:db8:c::7", 128), 1),
            // An entry of the other family, whose bits would fit.
            (entry(7, V6, "cb00:7140::", 26), 0),
        ]
        .into();
        let unlisted = others == 0;
        for (family, source, allowed) in [
            (V4, "203.0.113.0", false),
            (V4, "203.0.113.63", false),
            (V4, "203.0.113.64", true),
            (V4, "203.0.113.65", false),
            (V4, "203.0.113.66", true),
            (V4, "203.0.113.127", true),
            (V4, "203.0.113.128", false),
            (V4, "203.0.114.1", unlisted),
            (V6, "2001:db8:c::7", true),
            (V6, "2001:db8:c::8", false),
            (V6, "2001:db8:d::7", unlisted),
        ] {
            for flags in [SYN, ACK] {
                let frame = from(family, source, 4000).segment(flags, 1).bytes();
                let (verdict, bytes) = bed.run(&frame);
                if allowed {
                    assert_eq!(verdict, Verdict::Transmit, "{source}");
                } else {
                    assert_eq!(verdict, Verdict::Drop(Reason::Denied), "{source}");
                    assert_eq!(bytes, frame);
                }
            }
        }
        // The row is the service's.
        assert!(bed.host.exits.borrow().contains_key(&(1, Reason::Denied)));
        assert!(bed.host.exits.borrow().contains_key(&(3, Reason::Denied)));
    }
}

/// A bed whose services let a source open three connections, and ten a second after that.
fn limited() -> Bed {
    let mut bed = Bed::new(mode::DSR, V4);
    bed.services(|vip| vip.flags = flag::LIMIT);
    for service in 0..4 {
        bed.tables().services[service].burst = 3;
        bed.tables().services[service].rate = 10;
    }
    bed
}

/// How many connections, of twenty, a source may open at once.
fn opened(bed: &Bed, family: u8, source: &str) -> usize {
    let open = |port| {
        bed.run(&from(family, source, port).segment(SYN, 1).bytes())
            .0
    };
    let verdicts: Vec<Verdict> = (1..=20).map(open).collect();
    let passed = verdicts
        .iter()
        .take_while(|&&v| v == Verdict::Transmit)
        .count();
    let refused = Verdict::Drop(Reason::Limited);
    assert!(verdicts[passed..].iter().all(|&verdict| verdict == refused));
    passed
}

#[test]
fn a_source_may_open_a_burst_and_then_its_rate() {
    let bed = limited();
    assert_eq!(opened(&bed, V4, "203.0.113.1"), 3);
    assert_eq!(opened(&bed, V4, "203.0.113.1"), 0);
    // Others are not concerned, nor are packets that open nothing, nor datagrams.
    assert_eq!(opened(&bed, V4, "203.0.113.2"), 3);
    assert_eq!(bed.went(&from(V4, "203.0.113.1", 1)), 1);
    let udp = Plan::udp(from(V4, "203.0.113.1", 1).source, to_vip(V4).destination);
    assert_eq!(bed.went(&udp), 1);
    // 96 ticks are 100.7 ms: one connection. A second brings no more than the burst.
    bed.host.now.set(NOW + 96);
    assert_eq!(opened(&bed, V4, "203.0.113.1"), 1);
    bed.host.now.set(NOW + 96 + 90);
    assert_eq!(opened(&bed, V4, "203.0.113.1"), 0);
    bed.host.now.set(NOW + 10_000);
    assert_eq!(opened(&bed, V4, "203.0.113.1"), 3);
}

#[test]
fn a_source_over_ipv6_is_its_network() {
    let bed = limited();
    assert_eq!(opened(&bed, V6, "2001:db8:c::1"), 3);
    assert_eq!(opened(&bed, V6, "2001:db8:c::2"), 0);
    assert_eq!(opened(&bed, V6, "2001:db8:c:0:ffff::"), 0);
    assert_eq!(opened(&bed, V6, "2001:db8:c:1::1"), 3);
}

/// A bed whose slots are endpoints 1 to 3 in turn, and whose flows have different hashes.
fn mixed(by: u8) -> Bed {
    let mut bed = Bed::new(mode::DSR, V4);
    bed.hash_flows();
    bed.services(|vip| vip.spread = by);
    for ring in bed.host.small_rings.values_mut() {
        for (slot, owner) in ring.iter_mut().zip((1..=3).cycle()) {
            *slot = Slot::steady(owner);
        }
    }
    bed
}

#[test]
fn what_picks_the_slot_is_as_configured() {
    for (by, a_client_stays, clients_meet) in [
        (spread::FLOW, false, false),
        (spread::SOURCE, true, false),
        (spread::PORT, true, true),
    ] {
        let bed = mixed(by);
        let of_one: BTreeSet<u16> = (1000..1040)
            .map(|port| bed.went(&from(V4, "203.0.113.1", port)))
            .collect();
        assert_eq!(of_one.len() == 1, a_client_stays, "spread {by}: {of_one:?}");
        let of_many: BTreeSet<u16> = (1..40)
            .map(|n| bed.went(&from(V4, &std::format!("203.0.113.{n}"), 1000)))
            .collect();
        assert_eq!(of_many.len() == 1, clients_meet, "spread {by}: {of_many:?}");
        let over_v6: BTreeSet<u16> = (1..40)
            .map(|n| bed.went(&from(V6, &std::format!("2001:db8:c::{n}"), 1000)))
            .collect();
        assert_eq!(over_v6.len() == 1, clients_meet, "spread {by}: {over_v6:?}");
    }
}

#[test]
fn spread_by_port_tells_ports_apart() {
    let mut bed = mixed(spread::PORT);
    // The service takes any port.
    let tables = bed.tables();
    tables.header.any_port_services = 1;
    let key = VipKey {
        address: words(ends(V4).1),
        port: 0,
        protocol: 6,
        family: V4,
    };
    let places = tables.header.places(&key);
    let place = places
        .into_iter()
        .find(|&p| tables.vips[p].state == state::VACANT);
    tables.vips[place.unwrap()] = Vip {
        key,
        slot_mask: 255,
        spread: spread::PORT,
        state: state::SERVING,
        ..Vip::zeroed()
    };
    let ends: BTreeSet<u16> = (1000..1040)
        .map(|port| {
            let mut plan = from(V4, "203.0.113.1", 7);
            plan.destination.set_port(port);
            bed.went(&plan)
        })
        .collect();
    assert_eq!(ends.len(), 3);
}

#[test]
fn a_quic_connection_goes_where_its_id_says() {
    let mut bed = Bed::new(mode::DSR, V4);
    bed.services(|vip| vip.flags = flag::QUIC);
    let tables = bed.tables();
    tables.services[1].server_id = 2;
    for (id, endpoint) in [(0x0a01u16, 2), (0x0a02, 3), (0x0a04, super::bed::DEAD)] {
        let key = VipKey {
            address: [u32::from(id.to_be()), 0, 0, 0],
            port: 1,
            protocol: 2,
            family: layout::family::QUIC,
        };
        let [place, _] = tables.header.endpoint_places(&key);
        tables.by_address[place] = Vip {
            key,
            ring: u32::from(endpoint),
            service: 1,
            state: state::ENDPOINT,
            ..Vip::zeroed()
        };
    }
    let plan = Plan::udp(to_vip(V4).source, to_vip(V4).destination);
    let went = |quic: &[u8]| {
        let plan = Plan {
            payload: quic.len(),
            ..plan.clone()
        };
        let mut bytes = plan.bytes();
        let at = plan.transport() + udp::HEADER;
        bytes[at..].copy_from_slice(quic);
        let (verdict, bytes) = bed.run(&bytes);
        assert_eq!(verdict, Verdict::Transmit);
        bytes[0]
    };
    assert_eq!(went(b"\x43\x00\x0a\x01rest"), 2);
    assert_eq!(went(b"\x43\x00\x0a\x02rest"), 3);
    assert_eq!(went(b"\xc3\0\0\0\x01\x08\x00\x0a\x01......."), 2);
    // By the flow: an ID that nobody has, one whose backend is gone, one that is not to be routed
    // by, and what is no QUIC at all.
    assert_eq!(went(b"\x43\x00\x0a\x03rest"), 1);
    assert_eq!(went(b"\x43\x00\x0a\x04rest"), 1);
    assert_eq!(went(b"\x43\xe0\x0a\x01rest"), 1);
    assert_eq!(went(b"\x43"), 1);
    assert_eq!(went(b""), 1);
}
