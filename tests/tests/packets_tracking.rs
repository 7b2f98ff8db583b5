//! Named packets by what is remembered of their flows, and by what else a service asks for.

mod frames;
mod homes;

use frames::{ACK, FIN, Packet, SYN, at};
use homes::{
    bed::{BACKENDS, Bed, OWN, Served, WAYS},
    builder::{TCP, UDP, family},
    cases::{Cases, Fate},
    network::{self, words},
    now,
};
use lb_common::{
    flow::Flow,
    layout::{self, FlowEntry, LimitKey, NONE, PINNED, Slot, SourceKey, entry, flag, state},
    verdict::Reason,
};

/// The endpoints of a service, counted from zero: new flows', unremembered flows', the flow's own,
/// and the one that no longer serves.
const OWNER: u16 = 0;
const PRIOR: u16 = 1;
const OLD: u16 = 2;
const DEAD: u16 = BACKENDS - 1;

fn served(bed: &mut Bed, nth: u8, v6: bool, protocol: u8) -> Served {
    let address = if v6 {
        format!("2001:db8::{nth:x}")
    } else {
        format!("198.51.100.{nth}")
    };
    bed.serve(at(&address, 80), protocol, WAYS[0])
}

fn packet(served: &Served, flags: u8) -> Packet {
    let client = if served.vip.is_ipv4() {
        "203.0.113.9"
    } else {
        "2001:db8:c::9"
    };
    let mut packet = Packet::tcp(at(client, 51_000), served.vip).flags(flags);
    packet.sequence += u32::from(served.number) << 8;
    if served.protocol == UDP {
        packet.body(frames::Body::Udp)
    } else {
        packet
    }
}

fn flow(served: &Served, packet: &Packet) -> Flow {
    Flow {
        source: words(packet.source.ip()),
        destination: words(packet.destination.ip()),
        ports: u32::from(packet.source.port().to_be())
            | u32::from(packet.destination.port().to_be()) << 16,
        protocol: served.protocol,
        family: family(served.vip.ip()),
        reserved: [0; 2],
    }
}

/// A flow's entry, as one of a service's endpoints'.
fn remembered(served: &Served, nth: u16, flags: u16) -> FlowEntry {
    FlowEntry {
        other: [0; 4],
        other_port: 0,
        endpoint: served.endpoint + nth,
        seen: now(),
        service: served.number,
        flags,
        slot: 5,
        vip_port: served.vip.port().to_be(),
    }
}

/// Where a flow is remembered beforehand.
#[derive(Clone, Copy, PartialEq)]
enum Known {
    Nowhere,
    Fresh(u16),
    Living(u16),
    Closing(u16),
}
use Known::{Closing, Fresh, Living, Nowhere};

#[test]
#[rustfmt::skip]
fn who_gets_a_packet_by_its_slot_and_what_is_remembered() {
    let table = [
        ("steady, SYN", NONE, SYN, Nowhere, OWNER),
        ("steady, ACK", NONE, ACK, Nowhere, OWNER),
        ("steady, ACK of a remembered flow", NONE, ACK, Living(OLD), OWNER),
        ("in transition, SYN", PRIOR, SYN, Nowhere, OWNER),
        ("in transition, SYN again", PRIOR, SYN, Fresh(OLD), OLD),
        ("in transition, SYN into a living flow", PRIOR, SYN, Living(OLD), OLD),
        ("in transition, SYN after the end", PRIOR, SYN, Closing(OLD), OWNER),
        ("in transition, SYN, backend gone", PRIOR, SYN, Living(DEAD), OWNER),
        ("in transition, SYN again, backend gone", PRIOR, SYN, Fresh(DEAD), OWNER),
        ("in transition, ACK", PRIOR, ACK, Nowhere, PRIOR),
        ("in transition, SYN-ACK", PRIOR, SYN | ACK, Nowhere, PRIOR),
        ("in transition, FIN", PRIOR, FIN | ACK, Nowhere, PRIOR),
        ("in transition, the handshake's ACK", PRIOR, ACK, Fresh(OLD), OLD),
        ("in transition, ACK of a living flow", PRIOR, ACK, Living(OLD), OLD),
        ("in transition, FIN of a living flow", PRIOR, FIN | ACK, Living(OLD), OLD),
        ("in transition, the last ACK", PRIOR, ACK, Closing(OLD), OLD),
        ("in transition, ACK, backend gone", PRIOR, ACK, Living(DEAD), PRIOR),
        ("the prior is gone, SYN", DEAD, SYN, Nowhere, OWNER),
        ("the prior is gone, ACK", DEAD, ACK, Nowhere, OWNER),
        ("the prior is gone, ACK of a living flow", DEAD, ACK, Living(OLD), OLD),
        ("pinned, SYN", PINNED, SYN, Nowhere, OWNER),
        ("pinned, SYN again", PINNED, SYN, Fresh(OLD), OLD),
        ("pinned, SYN into a living flow", PINNED, SYN, Living(OLD), OLD),
        ("pinned, SYN after the end", PINNED, SYN, Closing(OLD), OWNER),
        ("pinned, ACK", PINNED, ACK, Nowhere, OWNER),
        ("pinned, the handshake's ACK", PINNED, ACK, Fresh(OLD), OLD),
        ("pinned, ACK of a living flow", PINNED, ACK, Living(OLD), OLD),
        ("pinned, ACK, backend gone", PINNED, ACK, Living(DEAD), OWNER),
        ("pinned, FIN of a living flow", PINNED, FIN | ACK, Living(OLD), OLD),
    ];
    network::within(|| {
        for v6 in [false, true] {
            let mut bed = Bed::empty();
            let mut cases = None;
            for (nth, (name, prior, flags, before, went)) in (0..).zip(table) {
                let served = served(&mut bed, 10 + nth, v6, TCP);
                let prior = if prior < BACKENDS { served.endpoint + prior } else { prior };
                bed.slots(&served, Slot::new(served.endpoint + OWNER, prior));
                let cases = cases.get_or_insert_with(|| Cases::new(&bed));
                cases.homes.change(&bed.builder.image, bed.builder.endpoints + 1);
                let packet = packet(&served, flags);
                let flow = flow(&served, &packet);
                match before {
                    Nowhere => {}
                    Fresh(nth) => cases.homes.put_fresh(&flow, &remembered(&served, nth, 0)),
                    Living(nth) => {
                        let entry = remembered(&served, nth, entry::CONFIRMED);
                        cases.homes.put_established(&flow, &entry);
                    }
                    Closing(nth) => {
                        let entry = remembered(&served, nth, entry::CONFIRMED | entry::CLOSING);
                        cases.homes.put_established(&flow, &entry);
                    }
                }
                let endpoint = served.endpoint + went;
                let opens = flags & (SYN | ACK) == SYN;
                let fate = if opens { Fate::Opened(endpoint) } else { Fate::Sent(endpoint) };
                let expected = packet.clone().macs(served.mac(went), OWN).bytes();
                cases.check(name, &packet.bytes(), fate, &expected);
            }
        }
    });
}

#[test]
fn sticky_datagrams_stay_with_their_backend() {
    network::within(|| {
        for v6 in [false, true] {
            let mut bed = Bed::empty();
            let served = served(&mut bed, 10, v6, UDP);
            bed.builder.vip_mut(served.number).flags = flag::REMEMBER;
            let mut cases = Cases::new(&bed);
            let packet = packet(&served, 0);
            let mut goes = |name: &str, bed: &Bed, to: u16| {
                cases.publish(bed);
                let expected = packet.clone().macs(served.mac(to), OWN).bytes();
                let fate = Fate::Sent(served.endpoint + to);
                cases.check(name, &packet.bytes(), fate, &expected);
            };
            goes("the first", &bed, OWNER);
            bed.slots(&served, Slot::steady(served.endpoint + PRIOR));
            goes("after its slot has moved", &bed, OWNER);
            goes("and again", &bed, OWNER);
            bed.builder.image.tables.endpoints[usize::from(served.endpoint)].serves = 0;
            goes("after its backend is gone", &bed, PRIOR);
        }
    });
}

fn source(list: u32, address: &str, bits: u32) -> SourceKey {
    let address = at(address, 0).ip();
    let all = words(address);
    SourceKey {
        prefix: 64 + bits,
        list,
        family: family(address).into(),
        address: if address.is_ipv4() {
            [all[3], 0, 0, 0]
        } else {
            all
        },
    }
}

#[test]
#[rustfmt::skip]
fn sources_are_allowed_or_denied_by_the_longest_prefix() {
    network::within(|| {
        for others in [0, flag::DENY_OTHERS] {
            let mut bed = Bed::empty();
            let v4 = served(&mut bed, 10, false, TCP);
            let v6 = served(&mut bed, 10, true, TCP);
            for served in [v4, v6] {
                bed.builder.vip_mut(served.number).flags = flag::SOURCES | others;
                bed.builder.service_mut(served.number).sources = 9;
            }
            let mut cases = Cases::new(&bed);
            for (key, allowed) in [
                (source(9, "203.0.113.0", 24), 0), (source(9, "203.0.113.64", 26), 1),
                (source(9, "203.0.113.65", 32), 0), (source(8, "203.0.113.1", 32), 1),
                (source(9, "2001:db8:c::", 48), 0), (source(9, "2001:db8:c::7", 128), 1),
            ] {
                cases.homes.put_source(key, allowed);
            }
            let unlisted = others == 0;
            for (served, from, allowed) in [
                (v4, "203.0.113.1", false), (v4, "203.0.113.63", false), (v4, "203.0.113.64", true),
                (v4, "203.0.113.65", false), (v4, "203.0.113.127", true), (v4, "203.0.113.128", false),
                (v4, "203.0.112.255", unlisted), (v6, "2001:db8:c::7", true),
                (v6, "2001:db8:c::8", false), (v6, "2001:db8:b::7", unlisted),
            ] {
                let packet = packet(&served, ACK).from(at(from, 4000));
                if allowed {
                    let expected = packet.clone().macs(served.mac(OWNER), OWN).bytes();
                    cases.check(from, &packet.bytes(), Fate::Sent(served.endpoint), &expected);
                } else {
                    let denied = Fate::Dropped(served.number, Reason::Denied);
                    cases.untouched(from, &packet.bytes(), denied);
                }
            }
        }
    });
}

#[test]
fn a_source_opens_as_many_connections_as_it_may() {
    network::within(|| {
        for v6 in [false, true] {
            let mut bed = Bed::empty();
            let served = served(&mut bed, 10, v6, TCP);
            bed.builder.vip_mut(served.number).flags = flag::LIMIT;
            // Without a rate, so that no time plays a part.
            bed.builder.service_mut(served.number).burst = 2;
            let mut cases = Cases::new(&bed);
            for (nth, allowed) in [(1, true), (2, true), (3, false), (4, false)] {
                let mut syn = packet(&served, SYN);
                syn.source.set_port(nth);
                syn.sequence += u32::from(nth);
                let name = format!("connection {nth}");
                if allowed {
                    let expected = syn.clone().macs(served.mac(OWNER), OWN).bytes();
                    cases.check(
                        &name,
                        &syn.bytes(),
                        Fate::Opened(served.endpoint),
                        &expected,
                    );
                } else {
                    let limited = Fate::Dropped(served.number, Reason::Limited);
                    cases.untouched(&name, &syn.bytes(), limited);
                }
            }
            for flags in [ACK, FIN | ACK, SYN | ACK] {
                let packet = packet(&served, flags);
                let expected = packet.clone().macs(served.mac(OWNER), OWN).bytes();
                let fate = Fate::Sent(served.endpoint);
                cases.check("what opens nothing", &packet.bytes(), fate, &expected);
            }

            let host = &cases.homes.host;
            let limits = host.limits.borrow();
            let key: Vec<&LimitKey> = limits.keys().collect();
            assert_eq!(key.len(), 1);
            assert_eq!(key[0].service, u32::from(served.number));
        }
    });
}

#[test]
fn services_that_cannot_forward_say_why() {
    network::within(|| {
        for v6 in [false, true] {
            let mut bed = Bed::empty();
            let mut add = |nth: u8, change: &dyn Fn(&mut Bed, &Served)| {
                let served = served(&mut bed, nth, v6, TCP);
                change(&mut bed, &served);
                served
            };
            let vip = |change: fn(&mut layout::Vip)| {
                move |bed: &mut Bed, served: &Served| change(bed.builder.vip_mut(served.number))
            };
            let dropping = add(10, &vip(|vip| vip.state = state::EMPTY_DROP));
            let passing = add(11, &vip(|vip| vip.state = state::EMPTY_PASS));
            let damaged = add(12, &vip(|vip| vip.state = 77));
            let ringless = add(13, &vip(|vip| vip.ring = 4000));
            let unresolved = add(14, &|bed, served| {
                bed.builder.image.tables.endpoints[usize::from(served.endpoint)].mode = 0;
            });
            let nobodys = add(15, &|bed, served| bed.slots(served, Slot::steady(NONE)));
            let elsewhere = add(16, &|bed, served| {
                bed.builder.image.tables.endpoints[usize::from(served.endpoint)].interface = 9;
            });
            let mut cases = Cases::new(&bed);
            for (name, served, fate) in [
                (
                    "empty, drops",
                    dropping,
                    Fate::Dropped(dropping.number, Reason::NoBackendDropped),
                ),
                (
                    "empty, passes",
                    passing,
                    Fate::Passed(passing.number, Reason::NoBackendPassed),
                ),
                (
                    "damaged",
                    damaged,
                    Fate::Passed(damaged.number, Reason::BadTables),
                ),
                (
                    "no ring",
                    ringless,
                    Fate::Passed(ringless.number, Reason::BadTables),
                ),
                (
                    "unresolved",
                    unresolved,
                    Fate::Passed(unresolved.number, Reason::Unresolved),
                ),
                (
                    "nobody's slot",
                    nobodys,
                    Fate::Passed(nobodys.number, Reason::Unresolved),
                ),
            ] {
                cases.untouched(name, &packet(&served, ACK).bytes(), fate);
                cases.untouched(name, &packet(&served, SYN).bytes(), fate);
            }
            let packet = packet(&elsewhere, ACK);
            let expected = packet.clone().macs(elsewhere.mac(OWNER), OWN).bytes();
            let fate = Fate::Elsewhere(elsewhere.endpoint, 9);
            cases.check("another interface", &packet.bytes(), fate, &expected);
        }
    });
}
