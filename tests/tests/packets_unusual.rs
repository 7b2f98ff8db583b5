//! Named packets with options, extension headers, in fragments, of ICMP, and too big: to services
//! of every mode. The expected frames are etherparse's.

mod expected;
mod frames;
mod homes;

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    Icmpv4Type, Icmpv6Type, icmpv4::DestUnreachableHeader, icmpv6::DestUnreachableCode,
};
use expected::{client, name, packet, pool, replied, sent, sent_part, wrapped};
use frames::{
    ACK, Body, Packet, SERVICE_VLAN, SYN, VLAN, at,
    icmp::{self, echo},
};
use homes::{
    bed::{BACKEND_PORT, Bed, OWN, Served, WAYS, vip},
    builder::{TCP, UDP},
    cases::{Cases, Fate},
    network,
};
use lb_common::{
    flow::{V4, V6},
    layout::{flag, mode},
    verdict::Reason,
};

/// A service for each way and IP version, at an address of its own.
fn bed(protocol: u8) -> Bed {
    let mut bed = Bed::empty();
    for family in [V4, V6] {
        for (nth, way) in (0..).zip(WAYS) {
            bed.serve(SocketAddr::new(vip(family, nth), 80), protocol, way);
        }
    }
    bed.builder.addresses();
    bed
}

/// Runs cases over both protocols.
fn run(cases: impl Fn(&mut Cases, &Served) + Send + Sync) {
    network::within(|| {
        let mut home = None;
        for protocol in [TCP, UDP] {
            let bed = bed(protocol);
            let home = home.get_or_insert_with(|| Cases::new(&bed));
            home.homes
                .change(&bed.builder.image, bed.builder.endpoints + 1);
            for served in &bed.services {
                home.afresh();
                cases(home, served);
            }
        }
    });
}

/// The fate of a service's first packet.
fn taken(served: &Served, packet: &Packet) -> Fate {
    if matches!(packet.body, Body::Tcp(flags) if flags & (SYN | ACK) == SYN) {
        Fate::Opened(served.endpoint)
    } else {
        Fate::Sent(served.endpoint)
    }
}

#[test]
fn options_stay_where_they_are() {
    for (what, options) in [
        ("a router alert", &[148, 4, 0, 0][..]),
        ("record route", &[7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("the most options", &[1; 40]),
    ] {
        run(|cases, served| {
            if served.vip.is_ipv4() {
                let mut packet = packet(served);
                packet.options = options.to_vec();
                let (fate, expected) = (taken(served, &packet), sent(served, &packet, 0));
                cases.check(&name(served, what), &packet.bytes(), fate, &expected);
            }
        });
    }
}

#[test]
fn extension_headers_stay_where_they_are() {
    let header = |number: u8, units: u8| {
        let mut bytes = vec![0; 8 * (usize::from(units) + 1)];
        bytes[1] = units;
        (number, bytes)
    };
    for (what, extensions) in [
        ("hop-by-hop options", vec![header(0, 0)]),
        ("destination options", vec![header(60, 2)]),
        ("a routing header", vec![header(43, 2)]),
        (
            "three headers",
            vec![header(0, 0), header(43, 0), header(60, 1)],
        ),
    ] {
        run(|cases, served| {
            if served.vip.is_ipv6() {
                let mut packet = packet(served);
                packet.extensions.clone_from(&extensions);
                let (fate, expected) = (taken(served, &packet), sent(served, &packet, 0));
                cases.check(&name(served, what), &packet.bytes(), fate, &expected);
            }
        });
    }
}

#[test]
fn later_fragments_follow_the_first() {
    run(|cases, served| {
        let packet = packet(served).filled(120);
        let length = packet.segment().len();
        for (what, part) in [
            ("a first fragment", 0..48),
            ("the one behind it", 48..96),
            ("the last", 96..length),
            ("the one behind the first again", 48..96),
        ] {
            let fate = if part.start == 0 {
                taken(served, &packet)
            } else {
                Fate::Sent(served.endpoint)
            };
            let frame = packet.fragment(part.clone(), 0xbeef);
            let expected = sent_part(served, &packet, part, 0xbeef);
            cases.check(&name(served, what), &frame, fate, &expected);
        }
        // Another packet's, whose first was not seen.
        let frame = packet.fragment(48..96, 0xbee5);
        let unknown = Fate::Dropped(served.number, Reason::FragmentUnknown);
        cases.untouched(&name(served, "of another packet"), &frame, unknown);
    });
}

#[test]
fn fragments_that_are_not_to_be_followed() {
    network::within(|| {
        for pass in [false, true] {
            let mut bed = bed(UDP);
            for number in 0..bed.services.len() as u16 {
                let vip = bed.builder.vip_mut(number);
                vip.flags |= if pass { flag::PASS_REORDERED } else { 0 };
            }
            // The address's record says it for fragments without ports.
            let services = bed.services.clone();
            for place in &mut bed.builder.image.tables.vips {
                if place.state == lb_common::layout::state::ADDRESS && pass {
                    place.flags |= flag::PASS_REORDERED;
                }
            }
            let mut cases = Cases::new(&bed);
            for served in &services {
                cases.afresh();
                let frame = packet(served).filled(120).fragment(48..96, 3);
                let fate = if pass {
                    Fate::Passed(served.number, Reason::FragmentUnknown)
                } else {
                    Fate::Dropped(served.number, Reason::FragmentUnknown)
                };
                cases.untouched(&name(served, "before the first"), &frame, fate);
            }
        }
    });
}

#[test]
fn echo_requests_to_vips_are_answered() {
    run(|cases, served| {
        let (from, to) = (client(served).ip(), served.vip.ip());
        for (what, tags, payload, padding) in [
            ("an echo request", &[][..], &b"an odd payload!"[..], 0),
            ("without a payload", &[], b"", 18),
            ("behind a tag", &[(VLAN, 5)], b"payload.", 0),
            (
                "behind two tags",
                &[(SERVICE_VLAN, 5), (VLAN, 6)],
                b"payload.",
                0,
            ),
        ] {
            let dress = |packet: Packet| packet.tagged(tags).padded(padding);
            let request = dress(echo(true, from, to, payload)).hops(3);
            let mut reply = dress(echo(false, to, from, payload)).hops(64);
            reply.macs.copy_from_slice(&request.macs);
            reply.macs.rotate_left(6);
            let fate = Fate::Answered(served.number, Reason::EchoAnswered);
            cases.check(&name(served, what), &request.bytes(), fate, &reply.bytes());
        }
        // A reply is none of a VIP's business; nor is a request to somebody else.
        let reply = echo(false, from, to, b"payload.").bytes();
        let fate = Fate::Passed(served.number, Reason::NotTcpUdp);
        cases.untouched(&name(served, "an echo reply"), &reply, fate);
        let foreign = echo(
            true,
            from,
            network::LOCAL[usize::from(to.is_ipv6())]
                .parse()
                .expect("an address"),
            b"x",
        );
        let fate = Fate::Host(Reason::NotTcpUdp);
        cases.untouched(&name(served, "to another"), &foreign.bytes(), fate);
    });
}

/// The router that an error comes from.
fn router(served: &Served) -> IpAddr {
    at(
        if served.vip.is_ipv4() {
            "203.0.113.77"
        } else {
            "2001:db8:c::77"
        },
        0,
    )
    .ip()
}

/// An error about a packet, quoting so many of its bytes.
fn unreachable(from: IpAddr, to: IpAddr, about: &[u8], quoted: usize) -> Packet {
    let about = &about[..about.len().min(quoted)];
    let v4 = Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Host);
    let v6 = Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Address);
    icmp::packet(from, to, v4, v6, about)
}

/// A whole packet, and no more than the eight bytes behind its header.
fn quotes(served: &Served) -> [(&'static str, usize); 2] {
    let eight = if served.vip.is_ipv4() { 28 } else { 48 };
    [("all of it", 1500), ("eight bytes", eight)]
}

#[test]
fn errors_about_packets_to_clients_go_to_the_backend() {
    run(|cases, served| {
        // In mode `snat`, the flow has to be there.
        let first = packet(served);
        cases.check(
            &name(served, "a first packet"),
            &first.bytes(),
            taken(served, &first),
            &sent(served, &first, 0),
        );
        let from = router(served);
        let [reply, _] = replied(served, 0, |packet| packet);
        for (what, quoted) in quotes(served) {
            let seen = reply.clone().from(served.vip).to(client(served));
            let error = unreachable(from, served.vip.ip(), &seen.ip(), quoted);
            let expected = match served.way.mode {
                mode::DSR => error.clone().macs(served.mac(0), OWN).bytes(),
                mode::NAT | mode::SNAT => {
                    let error = unreachable(from, served.backend(0), &reply.ip(), quoted);
                    error.hop().macs(served.mac(0), OWN).bytes()
                }
                _ => wrapped(served, &error, &error.clone().hop().ip(), 0),
            };
            let fate = Fate::Related(served.number, served.endpoint);
            let name = name(served, &format!("an error that quotes {what}"));
            cases.check(&name, &error.bytes(), fate, &expected);
        }
        // What quotes no flow of a service is not handed on.
        let stranger = reply
            .clone()
            .from(SocketAddr::new(served.vip.ip(), 9))
            .to(client(served));
        let error = unreachable(from, served.vip.ip(), &stranger.ip(), 1500).bytes();
        let fate = Fate::Passed(served.number, Reason::IcmpUnrelated);
        cases.untouched(&name(served, "an error about nothing"), &error, fate);
        let liar = reply.from(at("192.0.2.99", 80)).to(at("203.0.113.9", 1));
        if served.vip.is_ipv4() {
            let error = unreachable(from, served.vip.ip(), &liar.ip(), 1500).bytes();
            cases.untouched(&name(served, "about another's packet"), &error, fate);
        }
    });
}

#[test]
fn errors_about_packets_to_backends_go_to_the_client() {
    run(|cases, served| {
        if !matches!(served.way.mode, mode::NAT | mode::SNAT) {
            return;
        }
        let first = packet(served);
        cases.check(
            &name(served, "a first packet"),
            &first.bytes(),
            taken(served, &first),
            &sent(served, &first, 0),
        );
        let backend = SocketAddr::new(served.backend(0), BACKEND_PORT);
        let there = if served.way.mode == mode::SNAT {
            pool(served)
        } else {
            client(served)
        };
        let about = first.clone().from(there).to(backend);
        for (who, from, seen) in [
            ("a router", router(served), router(served)),
            ("the backend itself", backend.ip(), served.vip.ip()),
        ] {
            for (what, quoted) in quotes(served) {
                let error = unreachable(from, there.ip(), &about.ip(), quoted);
                let told = unreachable(seen, client(served).ip(), &first.ip(), quoted);
                let told = told.hop().macs(network::mac(9), network::OWN);
                let name = name(served, &format!("{who} quotes {what}"));
                let fate = Fate::RelatedBack(served.number);
                cases.check(&name, &error.bytes(), fate, &told.bytes());
            }
        }
    });
}

#[test]
fn packets_too_big_for_their_way_are_answered() {
    run(|cases, served| {
        // Where the backend is on the same segment, its MTU is the clients' too.
        if served.way.mode == mode::DSR {
            return;
        }
        let quoted = if served.vip.is_ipv4() { 548 } else { 1232 };
        let outer = if served.outer() == V4 { 20 } else { 40 };
        let grown = match served.way.mode {
            mode::IPIP => outer,
            mode::GUE => outer + 8,
            _ => 0,
        };
        for tags in [&[][..], &[(VLAN, 5)], &[(SERVICE_VLAN, 5), (VLAN, 6)]] {
            let packet = packet(served).filled(1490).tagged(tags);
            let ip = packet.ip();
            // As much is quoted as an answer of 576 bytes holds, or one of 1,280.
            let (from, to) = (served.vip.ip(), client(served).ip());
            let kind = DestUnreachableHeader::FragmentationNeeded {
                next_hop_mtu: 1500 - grown,
            };
            let (v4, v6) = (
                Icmpv4Type::DestinationUnreachable(kind),
                Icmpv6Type::PacketTooBig {
                    mtu: u32::from(1500 - grown),
                },
            );
            let mut told = icmp::packet(from, to, v4, v6, &ip[..quoted]);
            told = told.tagged(tags).hops(64);
            (told.id, told.whole, told.label) = (0, false, 0);
            told.macs.rotate_left(6);
            let name = name(served, &format!("too big, {} tags", tags.len()));
            let fate = Fate::Answered(served.number, Reason::TooBig);
            cases.check(&name, &packet.bytes(), fate, &told.bytes());
        }
    });
}

#[test]
fn what_is_neither_tcp_nor_udp_passes() {
    run(|cases, served| {
        for protocol in [47, 50, 89, 132, 255] {
            let packet = packet(served).body(Body::Other(protocol));
            let fate = Fate::Host(Reason::NotTcpUdp);
            let name = name(served, &format!("protocol {protocol}"));
            cases.untouched(&name, &packet.bytes(), fate);
        }
    });
}
