//! Mode `snat`: two entries and a port for each flow.

use std::{collections::BTreeSet, net::SocketAddr, vec::Vec};

use bytemuck::Zeroable as _;

use super::bed::{Bed, NOW, ends, to_vip, words};
use crate::{
    flow::{self, Flow, V4, V6},
    host::Frame,
    layout::{self, Slot, Vip, VipKey, entry, flag, mode, state},
    testing::Plan,
    verdict::{Reason, Verdict},
    wire::tcp::{ACK, FIN, RST, SYN},
};

const POOL: &str = "192.0.2.1";
const POOL6: &str = "2001:db8:5::1";

fn bed(family: u8, addresses: &[&str], ports: u16) -> Bed {
    let mut bed = Bed::new(mode::SNAT, family);
    for number in 1..4 {
        bed.tables().endpoints[number].port = 8080u16.to_be();
    }
    bed.pool(addresses, ports);
    bed
}

/// A packet's flow as it is sent to its backend.
fn sent(bed: &Bed, plan: &Plan) -> Result<Flow, Verdict> {
    let (verdict, bytes) = bed.run(&plan.bytes());
    if verdict != Verdict::Transmit {
        return Err(verdict);
    }
    Ok(flow_of(plan, &bytes))
}

fn flow_of(plan: &Plan, bytes: &[u8]) -> Flow {
    let frame = Frame::new(bytes, 1);
    let parsed = if plan.destination.is_ipv4() {
        flow::ipv4(&frame, plan.network())
    } else {
        flow::ipv6(&frame, plan.network())
    };
    parsed.unwrap().flow
}

fn from_port(family: u8, port: u16) -> Plan {
    let plan = to_vip(family).segment(SYN, 1);
    Plan {
        source: SocketAddr::new(plan.source.ip(), port),
        ..plan
    }
}

/// The answer of the backend that a flow was sent to.
fn answer(to: &Flow, family: u8, flags: u8) -> Plan {
    let at = |address: [u32; 4], port: u16| {
        let ip: std::net::IpAddr = if family == V4 {
            address[3].to_ne_bytes().into()
        } else {
            bytemuck::cast::<_, [u8; 16]>(address).into()
        };
        SocketAddr::new(ip, u16::from_be(port))
    };
    Plan::tcp(
        at(to.destination, to.destination_port()),
        at(to.source, to.source_port()),
    )
    .segment(flags, 1)
}

#[test]
fn a_flow_has_two_entries_that_move_at_its_second_packet() {
    for (family, pool) in [(V4, POOL), (V6, POOL6)] {
        let bed = bed(family, &[pool], 0xff);
        let syn = to_vip(family).segment(SYN, 1);
        let there = sent(&bed, &syn).unwrap();
        assert_eq!(there.source, words(pool));
        assert_eq!(there.destination, super::bed::backend(family, 1));
        assert_eq!(u16::from_be(there.destination_port()), 8080);
        assert_eq!(u16::from_be(there.source_port()), 1024);
        assert_eq!(bed.host.fresh.borrow().len(), 2);
        assert!(bed.host.established.borrow().is_empty());
        // The same SYN again, and the rest of the flow, are sent from the same port.
        assert_eq!(sent(&bed, &syn), Ok(there));
        assert_eq!(sent(&bed, &syn.clone().segment(ACK, 2)), Ok(there));
        assert!(bed.host.fresh.borrow().is_empty());
        assert_eq!(bed.host.established.borrow().len(), 2);
        assert_eq!(sent(&bed, &syn.segment(SYN, 1)), Ok(there));
        let established = bed.host.established.borrow();
        let back = established[&there.reversed()];
        assert_eq!(back.other, words(ends(family).0));
        assert_eq!(u16::from_be(back.other_port), 51_000);
        assert_eq!(back.flags, entry::REPLY | entry::CONFIRMED);
        assert_eq!((back.endpoint, back.slot, back.seen), (1, 5, NOW));
    }
}

#[test]
fn replies_go_back_to_the_client_from_the_vip() {
    for (family, pool) in [(V4, POOL), (V6, POOL6)] {
        let bed = bed(family, &[pool], 0xff);
        let syn = to_vip(family).segment(SYN, 1);
        let there = sent(&bed, &syn).unwrap();
        let client_sees = flow_of(&syn, &syn.bytes()).reversed();
        // Both before and after the entries have moved.
        assert_eq!(
            sent(&bed, &answer(&there, family, SYN | ACK)),
            Ok(client_sees)
        );
        sent(&bed, &syn.segment(ACK, 2)).unwrap();
        assert_eq!(sent(&bed, &answer(&there, family, ACK)), Ok(client_sees));
        assert_eq!(bed.host.events.borrow()[&1].replies, 2);
        sent(&bed, &answer(&there, family, RST)).unwrap();
        assert_eq!(bed.host.events.borrow()[&1].resets, 1);
    }
}

#[test]
fn what_belongs_to_no_flow_goes_nowhere() {
    let bed = bed(V4, &[POOL], 0xff);
    for flags in [ACK, SYN | ACK, FIN, RST, 0] {
        let plan = to_vip(V4).segment(flags, 1);
        let frame = plan.bytes();
        let dropped = (Verdict::Drop(Reason::NoEntry), frame.clone());
        assert_eq!(bed.run(&frame), dropped, "flags {flags:#x}");
    }
    // Something of the host's own may be sent from an address of the pool.
    let there = sent(&bed, &to_vip(V4).segment(SYN, 1)).unwrap();
    let other = Flow {
        ports: there.ports ^ 0x0100,
        ..there
    };
    let plan = answer(&other, V4, ACK);
    let passed = (Verdict::Pass(Reason::NoEntry), plan.bytes());
    assert_eq!(bed.run(&plan.bytes()), passed);
}

#[test]
fn replies_of_flows_not_carried_over_yet_do_not_reach_the_host() {
    let mut bed = bed(V4, &[POOL], 0xff);
    let there = sent(&bed, &to_vip(V4).segment(SYN, 1)).unwrap();
    bed.tables().header.takes_over = 1;
    let known = answer(&there, V4, SYN | ACK);
    assert!(sent(&bed, &known).is_ok());
    let other = Flow {
        ports: there.ports ^ 0x0100,
        ..there
    };
    let frame = answer(&other, V4, SYN | ACK).bytes();
    let dropped = (Verdict::Drop(Reason::NoEntry), frame.clone());
    assert_eq!(bed.run(&frame), dropped);
}

#[test]
fn a_datagram_opens_a_flow() {
    let bed = bed(V4, &[POOL], 0xff);
    let plan = Plan::udp(to_vip(V4).source, to_vip(V4).destination);
    let there = sent(&bed, &plan).unwrap();
    assert_eq!(sent(&bed, &plan), Ok(there));
    assert_eq!(bed.host.established.borrow().len(), 2);
}

#[test]
fn no_two_flows_to_a_backend_have_one_port() {
    let bed = bed(V4, &[POOL, "192.0.2.2"], 0x0fff);
    let mut seen = BTreeSet::new();
    for port in 1..=4096 {
        let there = sent(&bed, &from_port(V4, port)).unwrap();
        let source = u16::from_be(there.source_port());
        assert!((1024..1024 + 4096).contains(&source));
        assert!(seen.insert(there), "{there:?} for a second flow");
    }
    assert_eq!(bed.host.tracking.borrow().collisions, 0);
    // The count goes round, all ports are taken.
    let verdict = sent(&bed, &from_port(V4, 5000)).unwrap_err();
    assert_eq!(verdict, Verdict::Drop(Reason::NoPort));
    assert_eq!(bed.host.tracking.borrow().collisions, 8);
}

#[test]
fn after_all_ports_of_an_address_comes_the_next_address() {
    let bed = bed(V4, &[POOL, "192.0.2.2"], 0x0fff);
    bed.host.ports.set(0xffff);
    let before = sent(&bed, &from_port(V4, 1)).unwrap();
    let after = sent(&bed, &from_port(V4, 2)).unwrap();
    assert_eq!(before.source, words(POOL));
    assert_eq!(u16::from_be(before.source_port()), 1024 + 0xfff);
    assert_eq!(after.source, words("192.0.2.2"));
    assert_eq!(u16::from_be(after.source_port()), 1024);
}

#[test]
fn another_backend_may_have_the_same_port() {
    let mut bed = bed(V4, &[POOL], 0x07);
    let first: Vec<Flow> = (1..=8)
        .map(|n| sent(&bed, &from_port(V4, n)).unwrap())
        .collect();
    bed.slots(Slot::steady(2));
    for (port, first) in (11..=18).zip(&first) {
        let second = sent(&bed, &from_port(V4, port)).unwrap();
        assert_eq!(second.source_port(), first.source_port());
        assert_ne!(second.destination, first.destination);
    }
}

#[test]
fn a_port_that_is_taken_is_left_to_its_flow() {
    // Whether that flow has only begun or is established.
    for promoted in [false, true] {
        let bed = bed(V4, &[POOL], 0x07);
        let first = sent(&bed, &from_port(V4, 1)).unwrap();
        if promoted {
            sent(&bed, &from_port(V4, 1).segment(ACK, 2)).unwrap();
        }
        bed.host.ports.set(0);
        let second = sent(&bed, &from_port(V4, 2)).unwrap();
        assert_eq!(u16::from_be(first.source_port()), 1024);
        assert_eq!(u16::from_be(second.source_port()), 1025);
        assert_eq!(bed.host.tracking.borrow().collisions, 1);
        // The claim that failed left nothing behind: the second flow's two entries, and the
        // first's where it has only begun.
        let fresh = bed.host.fresh.borrow().len();
        assert_eq!(fresh, if promoted { 2 } else { 4 });
    }
}

#[test]
fn a_new_connection_after_the_end_has_a_port_of_its_own() {
    for last in [FIN | ACK, RST] {
        let bed = bed(V4, &[POOL], 0xff);
        let syn = from_port(V4, 1);
        let first = sent(&bed, &syn).unwrap();
        sent(&bed, &syn.clone().segment(ACK, 2)).unwrap();
        sent(&bed, &syn.clone().segment(last, 3)).unwrap();
        let entry = bed.host.established.borrow()[&flow_of(&syn, &syn.bytes())];
        assert_ne!(entry.flags & entry::CLOSING, 0);
        // What still comes of it goes on its way.
        assert_eq!(sent(&bed, &syn.clone().segment(ACK, 4)), Ok(first));
        let second = sent(&bed, &syn).unwrap();
        assert_ne!(second.source_port(), first.source_port());
        // The old port stays taken until the sweeper comes.
        assert!(
            bed.host
                .established
                .borrow()
                .contains_key(&first.reversed())
        );
    }
}

#[test]
fn a_flow_stays_with_its_backend_and_leaves_it_when_that_is_gone() {
    let mut bed = bed(V4, &[POOL], 0xff);
    let syn = from_port(V4, 1);
    let first = sent(&bed, &syn).unwrap();
    sent(&bed, &syn.clone().segment(ACK, 2)).unwrap();
    bed.slots(Slot::steady(2));
    assert_eq!(sent(&bed, &syn.clone().segment(ACK, 3)), Ok(first));
    bed.tables().endpoints[1].serves = 0;
    let gone = sent(&bed, &syn.clone().segment(ACK, 4)).unwrap_err();
    assert_eq!(gone, Verdict::Drop(Reason::NoEntry));
    let second = sent(&bed, &syn).unwrap();
    assert_eq!(second.destination, super::bed::backend(V4, 2));
}

#[test]
fn where_there_is_no_room_a_flow_goes_on_as_it_began() {
    // No room at all, and room for one of the two entries.
    for room in [0, 1] {
        let mut bed = bed(V4, &[POOL], 0xff);
        bed.host.room = room;
        let syn = from_port(V4, 1);
        let there = sent(&bed, &syn).unwrap();
        for sequence in 2..5 {
            assert_eq!(sent(&bed, &syn.clone().segment(ACK, sequence)), Ok(there));
        }
        assert_eq!(bed.host.fresh.borrow().len(), 2, "room for {room}");
        assert_eq!(bed.host.established.borrow().len(), 0, "room for {room}");
        assert_eq!(bed.host.tracking.borrow().refused, 3);
    }
}

#[test]
fn without_a_pool_nothing_is_sent() {
    let mut bed = bed(V4, &[], 0xff);
    let syn = to_vip(V4).segment(SYN, 1);
    assert_eq!(sent(&bed, &syn), Err(Verdict::Drop(Reason::NoPort)));
    bed.tables().header.snat_v6 = 1;
    assert_eq!(sent(&bed, &syn), Err(Verdict::Drop(Reason::NoPort)));
}

#[test]
fn a_flow_goes_on_from_its_port_while_the_next_hop_of_its_slots_owner_is_not_known() {
    for udp in [false, true] {
        let mut bed = bed(V4, &[POOL], 0xff);
        let first = from_port(V4, 1);
        let first = if udp {
            Plan::udp(first.source, first.destination)
        } else {
            first
        };
        let there = sent(&bed, &first).unwrap();
        bed.slots(Slot::steady(2));
        bed.tables().endpoints[2].mode = mode::UNRESOLVED;
        // Another flow in between, whose port is not to stick.
        let other = Plan {
            source: from_port(V4, 2).source,
            ..first.clone()
        };
        assert_eq!(sent(&bed, &other), Err(Verdict::Pass(Reason::Unresolved)));
        let next = if udp {
            first.clone()
        } else {
            first.segment(ACK, 2)
        };
        assert_eq!(sent(&bed, &next), Ok(there));
        // Once the next hop is known, the other flow has a port like any.
        bed.tables().endpoints[2].mode = mode::SNAT;
        let later = sent(&bed, &other).unwrap();
        assert_eq!(later.source, words(POOL));
        assert_ne!(later.source_port(), 0);
    }
}

#[test]
fn a_quic_connection_is_sent_from_a_port_of_its_own() {
    let mut bed = bed(V4, &[POOL], 0xff);
    bed.services(|vip| vip.flags |= flag::QUIC);
    let tables = bed.tables();
    tables.services[1].server_id = 1;
    let key = VipKey {
        address: [0x0a, 0, 0, 0],
        port: 1,
        protocol: 1,
        family: layout::family::QUIC,
    };
    let [place, _] = tables.header.endpoint_places(&key);
    tables.by_address[place] = Vip {
        key,
        ring: 2,
        service: 1,
        state: state::ENDPOINT,
        ..Vip::zeroed()
    };
    let plan = Plan::udp(to_vip(V4).source, to_vip(V4).destination);
    let mut bytes = plan.bytes();
    let quic = plan.transport() + 8;
    bytes[quic..quic + 3].copy_from_slice(b"\x43\x00\x0a");
    let (verdict, bytes) = bed.run(&bytes);
    assert_eq!(verdict, Verdict::Transmit);
    let there = flow_of(&plan, &bytes);
    assert_eq!(there.destination, super::bed::backend(V4, 2));
    assert_eq!(there.source, words(POOL));
    assert_eq!(u16::from_be(there.source_port()), 1024);
    assert_eq!(bed.host.fresh.borrow().len(), 2);
}

#[test]
fn a_flow_from_before_the_mode_was_snat_is_given_a_port_like_any() {
    // What another mode has remembered names the endpoint and no port.
    let entry = layout::FlowEntry {
        endpoint: 1,
        service: 0,
        seen: NOW,
        flags: entry::CONFIRMED,
        ..layout::FlowEntry::zeroed()
    };
    let first = from_port(V4, 1);
    let udp = Plan::udp(first.source, first.destination);
    for fresh in [false, true] {
        for plan in [&first, &udp, &first.clone().segment(ACK, 2)] {
            let bed = bed(V4, &[POOL], 0xff);
            let flow = flow_of(plan, &plan.bytes());
            let memory = if fresh {
                &bed.host.fresh
            } else {
                &bed.host.established
            };
            memory.borrow_mut().insert(flow, entry);
            match sent(&bed, plan) {
                Ok(there) => {
                    assert_eq!(there.source, words(POOL));
                    assert_ne!(there.source_port(), 0);
                }
                // In the middle of a connection nobody knows what it was sent from.
                Err(verdict) => {
                    assert_eq!(verdict, Verdict::Drop(Reason::NoEntry));
                    assert!(plan.bytes()[plan.transport() + 13] & ACK != 0);
                }
            }
        }
    }
}
