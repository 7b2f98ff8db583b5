//! Who gets a packet, by its slot, by what it is and by what is remembered: the whole table.

use super::bed::{Bed, DEAD, NOW, to_vip};
use crate::{
    flow::{self, Flow, V4, V6},
    host::Frame,
    layout::{FlowEntry, PINNED, Slot, entry, flag, mode},
    testing::Plan,
    wire::tcp::{ACK, FIN, RST, SYN},
};

/// New flows' endpoint; that of unremembered flows; that of the flow in question.
const OWNER: u16 = 1;
const PRIOR: u16 = 2;
const OLD: u16 = 3;

/// The slots: steady, in transition, pinned, and in transition from an endpoint that is dead.
const STEADY: Slot = Slot::steady(OWNER);
const MOVING: Slot = Slot::new(OWNER, PRIOR);
const PINNED_SLOT: Slot = Slot::new(OWNER, PINNED);
const ORPHANED: Slot = Slot::new(OWNER, DEAD);

/// What is remembered of the flow beforehand.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    Nothing,
    /// A first packet.
    Fresh(u16),
    /// More than that.
    Living(u16),
    /// The same, with FIN or RST seen.
    Closing(u16),
}
use Known::{Closing, Fresh, Living, Nothing};

fn flow(plan: &Plan) -> Flow {
    let frame = Frame::new(&plan.bytes(), 1);
    let parsed = if plan.destination.is_ipv4() {
        flow::ipv4(&frame, plan.network())
    } else {
        flow::ipv6(&frame, plan.network())
    };
    parsed.unwrap().flow
}

fn remembered(endpoint: u16, flags: u16) -> FlowEntry {
    FlowEntry {
        other: [0; 4],
        other_port: 0,
        endpoint,
        seen: NOW,
        service: 0,
        flags,
        slot: 5,
        vip_port: 80u16.to_be(),
    }
}

/// What is remembered of a flow; of both tables where it is in both.
fn known(bed: &Bed, flow: &Flow) -> [Known; 2] {
    let of = |entry: Option<&FlowEntry>| entry.map(|entry| (entry.endpoint, entry.flags));
    let fresh = match of(bed.host.fresh.borrow().get(flow)) {
        Some((endpoint, _)) => Fresh(endpoint),
        None => Nothing,
    };
    let established = match of(bed.host.established.borrow().get(flow)) {
        Some((endpoint, flags)) if flags & entry::CLOSING != 0 => Closing(endpoint),
        Some((endpoint, _)) => Living(endpoint),
        None => Nothing,
    };
    [fresh, established]
}

fn bed_with(slot: Slot, before: Known, flow: &Flow) -> Bed {
    let mut bed = Bed::new(mode::DSR, V4);
    bed.slots(slot);
    let host = &bed.host;
    match before {
        Nothing => {}
        Fresh(endpoint) => {
            host.fresh
                .borrow_mut()
                .insert(*flow, remembered(endpoint, 0));
        }
        Living(endpoint) => {
            let entry = remembered(endpoint, entry::CONFIRMED);
            host.established.borrow_mut().insert(*flow, entry);
        }
        Closing(endpoint) => {
            let entry = remembered(endpoint, entry::CONFIRMED | entry::CLOSING);
            host.established.borrow_mut().insert(*flow, entry);
        }
    }
    bed
}

#[test]
#[rustfmt::skip]
fn the_table_of_just_enough_tracking() {
    for (name, slot, flags, before, went, after) in [
        // In a steady slot nothing is looked up and nothing remembered.
        ("steady, SYN", STEADY, SYN, Nothing, OWNER, [Nothing, Nothing]),
        ("steady, ACK", STEADY, ACK, Nothing, OWNER, [Nothing, Nothing]),
        ("steady, a flow of old", STEADY, ACK, Living(OLD), OWNER, [Nothing, Living(OLD)]),
        // In transition, a first packet.
        ("moving, SYN", MOVING, SYN, Nothing, OWNER, [Fresh(OWNER), Nothing]),
        ("moving, SYN again", MOVING, SYN, Fresh(OLD), OLD, [Fresh(OLD), Nothing]),
        ("moving, SYN into a living flow", MOVING, SYN, Living(OLD), OLD, [Nothing, Living(OLD)]),
        ("moving, SYN after the end", MOVING, SYN, Closing(OLD), OWNER, [Fresh(OWNER), Nothing]),
        ("moving, SYN again, dead", MOVING, SYN, Fresh(DEAD), OWNER, [Fresh(OWNER), Nothing]),
        ("moving, SYN, flow dead", MOVING, SYN, Living(DEAD), OWNER, [Fresh(OWNER), Nothing]),
        // SYN with ACK comes from servers: no first packet.
        ("moving, SYN-ACK", MOVING, SYN | ACK, Nothing, PRIOR, [Nothing, Living(PRIOR)]),
        // In transition, another packet.
        ("moving, ACK", MOVING, ACK, Nothing, PRIOR, [Nothing, Living(PRIOR)]),
        ("moving, ACK after SYN", MOVING, ACK, Fresh(OLD), OLD, [Nothing, Living(OLD)]),
        ("moving, ACK", MOVING, ACK, Living(OLD), OLD, [Nothing, Living(OLD)]),
        ("moving, last ACK", MOVING, ACK, Closing(OLD), OLD, [Nothing, Closing(OLD)]),
        ("moving, ACK, dead", MOVING, ACK, Living(DEAD), PRIOR, [Nothing, Living(PRIOR)]),
        ("moving, ACK after SYN, dead", MOVING, ACK, Fresh(DEAD), PRIOR, [Fresh(DEAD), Living(PRIOR)]),
        ("moving, FIN", MOVING, FIN | ACK, Living(OLD), OLD, [Nothing, Closing(OLD)]),
        ("moving, RST", MOVING, RST, Living(OLD), OLD, [Nothing, Closing(OLD)]),
        ("moving, FIN after SYN", MOVING, FIN | ACK, Fresh(OLD), OLD, [Nothing, Closing(OLD)]),
        ("moving, FIN of the unknown", MOVING, FIN | ACK, Nothing, PRIOR, [Nothing, Closing(PRIOR)]),
        // In transition from a backend that has died meanwhile.
        ("orphaned, SYN", ORPHANED, SYN, Nothing, OWNER, [Fresh(OWNER), Nothing]),
        ("orphaned, ACK", ORPHANED, ACK, Nothing, OWNER, [Nothing, Living(OWNER)]),
        ("orphaned, ACK, known", ORPHANED, ACK, Living(OLD), OLD, [Nothing, Living(OLD)]),
        // The transition is over: what is remembered is followed, and nothing new is.
        ("pinned, SYN", PINNED_SLOT, SYN, Nothing, OWNER, [Nothing, Nothing]),
        ("pinned, SYN again", PINNED_SLOT, SYN, Fresh(OLD), OLD, [Fresh(OLD), Nothing]),
        ("pinned, SYN into a living flow", PINNED_SLOT, SYN, Living(OLD), OLD, [Nothing, Living(OLD)]),
        ("pinned, SYN after the end", PINNED_SLOT, SYN, Closing(OLD), OWNER, [Nothing, Nothing]),
        ("pinned, SYN, flow dead", PINNED_SLOT, SYN, Living(DEAD), OWNER, [Nothing, Nothing]),
        ("pinned, SYN again, dead", PINNED_SLOT, SYN, Fresh(DEAD), OWNER, [Nothing, Nothing]),
        ("pinned, ACK", PINNED_SLOT, ACK, Nothing, OWNER, [Nothing, Nothing]),
        ("pinned, ACK after SYN", PINNED_SLOT, ACK, Fresh(OLD), OLD, [Nothing, Living(OLD)]),
        ("pinned, ACK", PINNED_SLOT, ACK, Living(OLD), OLD, [Nothing, Living(OLD)]),
        ("pinned, last ACK", PINNED_SLOT, ACK, Closing(OLD), OLD, [Nothing, Closing(OLD)]),
        ("pinned, ACK, dead", PINNED_SLOT, ACK, Living(DEAD), OWNER, [Nothing, Living(DEAD)]),
        ("pinned, FIN", PINNED_SLOT, FIN, Living(OLD), OLD, [Nothing, Closing(OLD)]),
    ] {
        for family in [V4, V6] {
            let plan = to_vip(family).segment(flags, 1);
            let flow = flow(&plan);
            let bed = bed_with(slot, before, &flow);
            assert_eq!(bed.went(&plan), went, "{name}: who gets it, IPv{family}");
            assert_eq!(known(&bed, &flow), after, "{name}: what is remembered, IPv{family}");
        }
    }
}

#[test]
fn an_entry_says_whose_flow_it_is() {
    let mut bed = Bed::new(mode::DSR, V4);
    bed.slots(MOVING);
    let plan = to_vip(V4).segment(SYN, 1);
    bed.went(&plan);
    let expected = FlowEntry {
        flags: 0,
        ..remembered(OWNER, 0)
    };
    assert_eq!(bed.host.fresh.borrow()[&flow(&plan)], expected);
    assert_eq!(bed.host.tracking.borrow().fresh, 1);
    bed.host.now.set(NOW + 7);
    bed.went(&plan.segment(ACK, 2));
    let expected = FlowEntry {
        flags: entry::CONFIRMED,
        seen: NOW + 7,
        ..expected
    };
    assert_eq!(bed.host.established.borrow()[&flow(&to_vip(V4))], expected);
    assert_eq!(bed.host.tracking.borrow().established, 1);
}

#[test]
fn a_flow_is_seen_about_once_a_second() {
    let plan = to_vip(V4);
    let bed = bed_with(MOVING, Living(OLD), &flow(&plan));
    for (later, seen) in [(1, 0), (1023, 0), (1024, 1024), (1100, 1024), (2048, 2048)] {
        bed.host.now.set(NOW + later);
        bed.went(&plan);
        let entry = bed.host.established.borrow()[&flow(&plan)];
        assert_eq!(entry.seen, NOW + seen, "after {later} ticks");
    }
}

#[test]
fn the_clock_may_wrap() {
    let plan = to_vip(V4);
    let bed = bed_with(MOVING, Living(OLD), &flow(&plan));
    bed.host
        .established
        .borrow_mut()
        .get_mut(&flow(&plan))
        .unwrap()
        .seen = u32::MAX;
    bed.host.now.set(1022);
    bed.went(&plan);
    assert_eq!(bed.host.established.borrow()[&flow(&plan)].seen, u32::MAX);
    bed.host.now.set(1023);
    bed.went(&plan);
    assert_eq!(bed.host.established.borrow()[&flow(&plan)].seen, 1023);
}

#[test]
fn where_there_is_no_room_flows_go_to_the_prior_all_the_same() {
    let plan = to_vip(V4);
    let mut bed = bed_with(MOVING, Nothing, &flow(&plan));
    bed.host.room = 0;
    for refused in 1..3 {
        assert_eq!(bed.went(&plan), PRIOR);
        assert_eq!(bed.host.tracking.borrow().refused, refused);
    }
    // One that was seen from its start keeps its place among the first packets.
    let mut bed = bed_with(MOVING, Fresh(OLD), &flow(&plan));
    bed.host.room = 0;
    assert_eq!(bed.went(&plan), OLD);
    assert_eq!(known(&bed, &flow(&plan)), [Fresh(OLD), Nothing]);
}

#[test]
fn udp_follows_its_slot_unless_it_is_sticky() {
    for family in [V4, V6] {
        let plan = to_vip(family);
        let plan = Plan::udp(plan.source, plan.destination);
        let mut bed = bed_with(MOVING, Living(OLD), &flow(&plan));
        assert_eq!(bed.went(&plan), OWNER);
        assert_eq!(known(&bed, &flow(&plan)), [Nothing, Living(OLD)]);
        bed.services(|vip| vip.flags = flag::REMEMBER);
        assert_eq!(bed.went(&plan), OLD);
        let mut bed = bed_with(STEADY, Nothing, &flow(&plan));
        bed.services(|vip| vip.flags = flag::REMEMBER);
        assert_eq!(bed.went(&plan), OWNER);
        assert_eq!(known(&bed, &flow(&plan)), [Fresh(OWNER), Nothing]);
        bed.slots(Slot::steady(PRIOR));
        assert_eq!(bed.went(&plan), OWNER);
        assert_eq!(known(&bed, &flow(&plan)), [Nothing, Living(OWNER)]);
        // Its backend serves no more: a new one, and that is remembered.
        bed.tables().endpoints[usize::from(OWNER)].serves = 0;
        assert_eq!(bed.went(&plan), PRIOR);
        assert_eq!(bed.went(&plan), PRIOR);
        assert_eq!(known(&bed, &flow(&plan)), [Nothing, Living(PRIOR)]);
    }
}
