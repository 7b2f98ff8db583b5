//! Named packets in every mode, over both IP versions: verdict, reason, counters, and each byte of
//! what becomes of the frame. The expected frames are etherparse's.

mod expected;
mod frames;
mod homes;

use std::net::SocketAddr;

use expected::{PORT, name, packet, pool, replied, sent};
use frames::{ACK, Body, FIN, Packet, RST, SERVICE_VLAN, SYN, VLAN, at};
use homes::{
    bed::{BACKEND_PORT, Bed, OWN, POOL_PORT, Served},
    builder::{TCP, UDP},
    cases::{Cases, Fate, endpoint},
    network::{self, LOCAL, NOWHERE, REFUSED, UNKNOWN},
};
use lb_common::{flow::V4, layout::mode, verdict::Reason};

/// Runs a packet as the first of its flow, to the first backend.
fn first(cases: &mut Cases, served: &Served, what: &str, packet: &Packet) {
    cases.afresh();
    let fate = if matches!(packet.body, Body::Tcp(flags) if flags & (SYN | ACK) == SYN) {
        Fate::Opened(served.endpoint)
    } else {
        Fate::Sent(served.endpoint)
    };
    cases.check(
        &name(served, what),
        &packet.bytes(),
        fate,
        &sent(served, packet, 0),
    );
}

/// Checks every packet that a case makes of each service's.
fn each(what: &str, make: impl Fn(&Served, Packet) -> Option<Packet> + Send + Sync) -> usize {
    network::within(|| {
        let bed = Bed::new();
        let mut cases = Cases::new(&bed);
        for (port, served) in (1..).zip(&bed.services) {
            // A flow of its own, so that no SYN seems to be another's again.
            let plan = packet(served);
            let from = SocketAddr::new(plan.source.ip(), port);
            if let Some(packet) = make(served, plan.from(from)) {
                first(&mut cases, served, what, &packet);
            }
        }
        cases.checked
    })
}

#[test]
fn plain_packets() {
    assert_eq!(each("plain", |_, packet| Some(packet)), 28);
}

#[test]
fn packets_without_payload() {
    assert_eq!(each("empty", |_, packet| Some(packet.payload(&[]))), 28);
}

#[test]
fn packets_behind_tags() {
    let vlan = each("a VLAN tag", |_, packet| Some(packet.tagged(&[(VLAN, 7)])));
    let both = [(SERVICE_VLAN, 0x2007), (VLAN, 0xe008)];
    let qinq = each("two tags", move |_, packet| Some(packet.tagged(&both)));
    assert_eq!(vlan + qinq, 56);
}

#[test]
fn datagrams_without_a_checksum() {
    let unchecked = |served: &Served, packet: Packet| {
        (served.protocol == UDP).then(|| packet.body(Body::UdpUnchecked))
    };
    assert_eq!(each("no checksum", unchecked), 14);
}

#[test]
fn traffic_classes() {
    // Expedited forwarding with 'congestion experienced', and nothing but ECN.
    let marked = each("DSCP 46, CE", |_, packet| Some(packet.class(0xbb)));
    let capable = each("ECT(0)", |_, packet| Some(packet.class(0x02)));
    assert_eq!(marked + capable, 56);
}

#[test]
fn padded_frames() {
    assert_eq!(
        each("padding", |_, packet| Some(packet.payload(&[1]).padded(19))),
        28
    );
}

#[test]
fn odd_lengths() {
    assert_eq!(
        each("an odd length", |_, packet| Some(packet.filled(333))),
        28
    );
}

#[test]
fn the_last_hop_but_one_is_enough() {
    assert_eq!(each("two hops left", |_, packet| Some(packet.hops(2))), 28);
}

#[test]
fn where_the_last_hop_ends() {
    network::within(|| {
        let bed = Bed::new();
        let mut cases = Cases::new(&bed);
        for served in &bed.services {
            for hops in [0, 1] {
                let (what, packet) = (format!("{hops} hops left"), packet(served).hops(hops));
                if served.way.mode == mode::DSR {
                    // The backend is on the same segment: this is not a hop.
                    first(&mut cases, served, &what, &packet);
                } else {
                    cases.afresh();
                    let expired = Fate::Passed(served.number, Reason::TtlExpired);
                    cases.untouched(&name(served, &what), &packet.bytes(), expired);
                }
            }
        }
    });
}

#[test]
fn full_frames() {
    each("as large as the way takes", |served, packet| {
        let header = if served.vip.is_ipv4() { 20 } else { 40 };
        let transport = if served.protocol == TCP { 20 } else { 8 };
        let outer = match (served.way.outer, served.way.mode) {
            (None, _) => 0,
            (Some(V4), mode::IPIP) => 20,
            (Some(V4), _) => 28,
            (_, mode::IPIP) => 40,
            _ => 48,
        };
        Some(packet.filled(1500 - header - transport - outer))
    });
}

#[test]
fn jumbo_frames() {
    // Those that a page cannot hold are spread over several buffers.
    network::within(|| {
        let mut bed = Bed::new();
        for endpoint in &mut bed.builder.image.tables.endpoints {
            endpoint.mtu = 9000;
        }
        let mut cases = Cases::new(&bed);
        for served in bed
            .services
            .iter()
            .filter(|served| served.way.outer.is_none())
        {
            first(
                &mut cases,
                served,
                "8,000 bytes",
                &packet(served).filled(8000),
            );
        }
        assert_eq!(cases.checked, 12);
    });
}

#[test]
fn headers_that_are_cut_short() {
    network::within(|| {
        let bed = Bed::new();
        let mut cases = Cases::new(&bed);
        for served in &bed.services {
            for tags in [&[][..], &[(SERVICE_VLAN, 1), (VLAN, 2)]] {
                let frame = packet(served).tagged(tags).payload(&[]).bytes();
                for length in [14, 17, 20, 26, 33, 34, 40, frame.len() - 5, frame.len() - 1] {
                    let cut = &frame[..length];
                    let what = format!("cut to {length} bytes, {} tags", tags.len());
                    cases.untouched(&name(served, &what), cut, Fate::Host(Reason::Truncated));
                }
            }
        }
    });
}

#[test]
fn lengths_that_promise_more_than_there_is() {
    network::within(|| {
        let bed = Bed::new();
        let mut cases = Cases::new(&bed);
        for served in &bed.services {
            cases.afresh();
            let frame = packet(served).bytes();
            let cut = &frame[..frame.len() - 1];
            let truncated = Fate::Passed(served.number, Reason::Truncated);
            cases.untouched(&name(served, "a byte is missing"), cut, truncated);
        }
    });
}

/// The answer to what a service's backend was sent, and the frame that the client gets.
fn answer(served: &Served, nth: u16, make: impl Fn(Packet) -> Packet) -> (Packet, Vec<u8>) {
    let [reply, seen] = replied(served, nth, make);
    (reply, seen.bytes())
}

fn rewriting(bed: &Bed) -> impl Iterator<Item = &Served> {
    let rewrites = |served: &&Served| matches!(served.way.mode, mode::NAT | mode::SNAT);
    bed.services.iter().filter(rewrites)
}

#[test]
fn answers_come_from_the_vip() {
    network::within(|| {
        let bed = Bed::new();
        let mut cases = Cases::new(&bed);
        for served in rewriting(&bed) {
            first(&mut cases, served, "a first packet", &packet(served));
            for (what, make) in [
                ("an answer", (|p| p) as fn(Packet) -> Packet),
                ("an answer behind tags", |p| {
                    p.tagged(&[(SERVICE_VLAN, 1), (VLAN, 2)])
                }),
                ("a marked answer", |p| p.class(0x03)),
                ("a padded answer", |p| p.payload(&[7]).padded(9)),
                ("an answer of an odd length", |p| p.filled(501)),
                ("an answer with two hops left", |p| p.hops(2)),
            ] {
                let (reply, expected) = answer(served, 0, make);
                let fate = Fate::Reply(served.endpoint);
                cases.check(&name(served, what), &reply.bytes(), fate, &expected);
            }
            if served.protocol == UDP {
                let (reply, expected) = answer(served, 0, |p| p.body(Body::UdpUnchecked));
                let fate = Fate::Reply(served.endpoint);
                cases.check(
                    &name(served, "no checksum"),
                    &reply.bytes(),
                    fate,
                    &expected,
                );
            }
            let (expired, _) = answer(served, 0, |p| p.hops(1));
            let fate = Fate::Passed(served.number, Reason::TtlExpired);
            cases.untouched(
                &name(served, "an answer's last hop"),
                &expired.bytes(),
                fate,
            );
        }
    });
}

#[test]
fn answers_to_clients_without_a_way() {
    network::within(|| {
        let bed = Bed::new();
        let mut cases = Cases::new(&bed);
        for served in bed
            .services
            .iter()
            .filter(|served| served.way.mode == mode::NAT)
        {
            let v6 = usize::from(served.vip.is_ipv6());
            let (reply, _) = answer(served, 0, |p| p);
            for (what, client) in [
                ("an answer whose next hop is not resolved", UNKNOWN[v6]),
                ("an answer to where no route leads", NOWHERE[v6]),
                ("an answer to where packets are refused", REFUSED[v6]),
                // No socket of the host waits for it.
                ("an answer that the host has not asked for", LOCAL[v6]),
            ] {
                // The stack gets what the client is to see, whatever it makes of it.
                let reply = reply.clone().to(at(client, PORT));
                let seen = reply.clone().from(served.vip).hop().bytes();
                let fate = Fate::Stack(served.number, served.endpoint);
                cases.check(&name(served, what), &reply.bytes(), fate, &seen);
            }
        }
    });
}

#[test]
fn answers_to_the_host_itself() {
    network::within(|| {
        let bed = Bed::new();
        let mut cases = Cases::new(&bed);
        // Without forwarding, the kernel says of nothing more whose it is.
        for forwarding in ["1", "0"] {
            for file in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                let file = format!("/proc/sys/net/{file}");
                std::fs::write(file, forwarding).expect("forwarding is switched");
            }
            for served in bed
                .services
                .iter()
                .filter(|served| served.way.mode == mode::NAT)
            {
                let own = at(LOCAL[usize::from(served.vip.is_ipv6())], PORT);
                let (reply, _) = answer(served, 0, |p| p.to(own));
                let _socket = cases.homes.awaits(reply.source, own, served.protocol);
                let name = name(served, "an answer to a probe");
                let fate = Fate::Host(Reason::NoService);
                cases.untouched(&name, &reply.bytes(), fate);
            }
        }
    });
}

#[test]
fn what_is_no_answer() {
    network::within(|| {
        let bed = Bed::new();
        let mut cases = Cases::new(&bed);
        for served in rewriting(&bed) {
            let none = Fate::Host(if served.way.mode == mode::NAT {
                Reason::NoService
            } else {
                Reason::NoEntry
            });
            let (reply, _) = answer(served, 0, |p| p);
            let (from, to) = (reply.source, reply.destination);
            let other = SocketAddr::new(from.ip(), 22);
            cases.untouched(
                &name(served, "from another port of a backend"),
                &reply.clone().from(other).bytes(),
                none,
            );
            let stranger = SocketAddr::new(served.backend(77), BACKEND_PORT);
            cases.untouched(
                &name(served, "from no backend"),
                &reply.clone().from(stranger).bytes(),
                none,
            );
            if served.way.mode == mode::SNAT {
                let other = SocketAddr::new(to.ip(), 9);
                let frame = reply.to(other).bytes();
                cases.untouched(&name(served, "to a port of no flow"), &frame, none);
            }
        }
    });
}

#[test]
fn a_connection_in_mode_snat_from_its_first_packet_to_its_last() {
    network::within(|| {
        let bed = Bed::new();
        let mut cases = Cases::new(&bed);
        let connections =
            |served: &&Served| served.protocol == TCP && served.way.mode == mode::SNAT;
        for served in bed.services.iter().filter(connections) {
            cases.afresh();
            let syn = packet(served);
            let there = |flags| (syn.clone().flags(flags), Fate::Sent(served.endpoint));
            let to = |cases: &mut Cases, what: &str, flags| {
                let (packet, fate) = there(flags);
                let expected = sent(served, &packet, 0);
                cases.check(&name(served, what), &packet.bytes(), fate, &expected);
            };
            let back = |cases: &mut Cases, what: &str, flags| {
                let (reply, expected) = answer(served, 0, |p| p.flags(flags));
                let fate = Fate::Reply(served.endpoint);
                cases.check(&name(served, what), &reply.bytes(), fate, &expected);
            };
            for flags in [ACK, FIN | ACK, RST, SYN | ACK] {
                let packet = syn.clone().flags(flags);
                let unknown = Fate::Dropped(served.number, Reason::NoEntry);
                cases.untouched(&name(served, "before it began"), &packet.bytes(), unknown);
            }
            let fate = Fate::Opened(served.endpoint);
            let expected = sent(served, &syn, 0);
            cases.check(&name(served, "SYN"), &syn.bytes(), fate, &expected);
            back(&mut cases, "SYN-ACK", SYN | ACK);
            to(&mut cases, "ACK", ACK);
            back(&mut cases, "data", ACK);
            to(&mut cases, "FIN", FIN | ACK);
            back(&mut cases, "FIN from the other end", FIN | ACK);
            to(&mut cases, "the last ACK", ACK);
            // The same ports again: a new connection, from the next port but those of other CPUs.
            let before = cases.homes.host.ports.get();
            let (_, bytes) = cases.homes.run(&syn.clone().flags(SYN | 0x40).bytes());
            let port = POOL_PORT + before as u16;
            let from = SocketAddr::new(pool(served).ip(), port);
            let mut expected = syn.clone().flags(SYN | 0x40).from(from);
            expected.destination = SocketAddr::new(served.backend(0), BACKEND_PORT);
            let expected = expected.macs(served.mac(0), OWN).hop().bytes();
            assert_eq!(bytes, expected, "{}", name(served, "a second connection"));
            assert_eq!(endpoint(served, 0), served.endpoint);
            // What was counted by this packet is none of the next connection's.
            cases = Cases::new(&bed);
        }
    });
}
