//! The table of named packets: each row is a packet to, from or about a service, with what becomes
//! of it, run through the kernel and the host for every mode, IP version and protocol that it
//! applies to. The expected frames are etherparse's.

#![expect(clippy::print_stdout, reason = "figures for the reader of a run")]

mod expected;
mod frames;
mod homes;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    ops::Range,
    sync::atomic::{AtomicU32, Ordering},
};

use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type,
    icmpv4::{self, DestUnreachableHeader},
    icmpv6,
};
use expected::{PORT, client, inside, name, pool, replied, sent, sent_frame, sent_part, wrapped};
use frames::{ACK, Body, Packet, SERVICE_VLAN, SYN, VLAN, at};
use homes::{
    bed::{BACKEND_PORT, BACKENDS, Bed, OWN, Served, WAYS, vip},
    builder::{TCP, UDP, family},
    cases::{Cases, Fate},
    network::{self, NOWHERE, UNKNOWN, words},
};
use lb_common::{
    flow::{V4, V6},
    layout::{SourceKey, VipKey, family as key_family, flag, mode, state},
    verdict::Reason,
};

/// A packet and what becomes of it.
struct Case {
    what: String,
    frame: Vec<u8>,
    fate: Fate,
    expected: Vec<u8>,
}

/// Packets to one service after the other.
struct Row {
    /// What is changed of every service beforehand.
    tables: fn(&mut Bed, &Served),
    /// Whether each packet meets an empty memory.
    afresh: bool,
    /// The packets to a service; none where the row does not apply to it.
    cases: fn(&Served) -> Vec<Case>,
}

/// A service for each way and IP version, at an address of its own.
fn bed(protocol: u8) -> Bed {
    let mut bed = Bed::empty();
    for family in [V4, V6] {
        for (nth, way) in (0..).zip(WAYS) {
            bed.serve(SocketAddr::new(vip(family, nth), 80), protocol, way);
        }
    }
    bed
}

fn case(what: &str, frame: Vec<u8>, fate: Fate, expected: Vec<u8>) -> Case {
    Case {
        what: what.to_owned(),
        frame,
        fate,
        expected,
    }
}

/// A packet of which no byte changes.
fn untouched(what: &str, frame: Vec<u8>, fate: Fate) -> Case {
    case(what, frame.clone(), fate, frame)
}

/// A client's packet that a service may begin with: no two SYNs are alike.
fn packet(served: &Served) -> Packet {
    static NTH: AtomicU32 = AtomicU32::new(1);
    let mut packet = expected::packet(served);
    packet.sequence += NTH.fetch_add(1, Ordering::Relaxed) << 8;
    packet
}

fn syn(packet: &Packet) -> bool {
    matches!(packet.body, Body::Tcp(flags) if flags & (SYN | ACK) == SYN)
}

/// The fate of what goes to a service's `nth` backend.
fn to_backend(served: &Served, packet: &Packet, nth: u16) -> Fate {
    let endpoint = served.endpoint + nth;
    if syn(packet) {
        Fate::Opened(endpoint)
    } else {
        Fate::Sent(endpoint)
    }
}

/// A packet that a service's first backend gets.
fn goes(what: &str, served: &Served, packet: &Packet) -> Case {
    let expected = sent(served, packet, 0);
    case(
        what,
        packet.bytes(),
        to_backend(served, packet, 0),
        expected,
    )
}

/// A fragment that does.
fn part_goes(what: &str, served: &Served, packet: &Packet, part: Range<usize>) -> Case {
    let fate = if part.start == 0 {
        to_backend(served, packet, 0)
    } else {
        Fate::Sent(served.endpoint)
    };
    let expected = sent_part(served, packet, part.clone(), 0xbeef);
    case(what, packet.fragment(part, 0xbeef), fate, expected)
}

/// A frame that only `dsr` sends on, which looks at nothing but where it goes.
fn only_dsr(what: &str, served: &Served, frame: Vec<u8>, otherwise: Fate) -> Case {
    if served.way.mode == mode::DSR {
        let mut expected = frame.clone();
        expected[..6].copy_from_slice(&served.mac(0));
        expected[6..12].copy_from_slice(&OWN);
        case(what, frame, Fate::Sent(served.endpoint), expected)
    } else {
        untouched(what, frame, otherwise)
    }
}

const fn is_v4(served: &Served) -> bool {
    served.vip.is_ipv4()
}

const fn rewrites(served: &Served) -> bool {
    matches!(served.way.mode, mode::NAT | mode::SNAT)
}

const fn as_they_are(_: &mut Bed, _: &Served) {}

fn with_flags(bed: &mut Bed, served: &Served, flags: u16) {
    bed.builder.vip_mut(served.number).flags |= flags;
}

/// An extension header of so many units of eight bytes beyond the first.
fn extension(number: u8, units: u8) -> (u8, Vec<u8>) {
    let mut bytes = vec![0; 8 * (usize::from(units) + 1)];
    bytes[1] = units;
    (number, bytes)
}

fn with_options(mut packet: Packet) -> Packet {
    if packet.source.is_ipv4() {
        packet.options = vec![148, 4, 0, 0];
    } else {
        packet.extensions = vec![extension(0, 0), extension(60, 1)];
    }
    packet
}

/// The same packet with a payload by which the checksum comes to zero after `rewrite`: over UDP,
/// that is written as all ones.
fn to_zero(packet: Packet, rewrite: impl Fn(&Packet) -> Packet) -> Option<Packet> {
    let all = (0..=u16::MAX).map(|word| packet.clone().payload(&word.to_be_bytes()));
    all.into_iter()
        .find(|packet| rewrite(packet).segment()[6..8] == [0xff, 0xff])
}

/// Makes a packet another one, or says that there is none.
type Shape = fn(&Served, Packet) -> Option<Packet>;

/// First packets that go to the backend, whatever the mode.
#[rustfmt::skip]
const SHAPES: &[(&str, Shape)] = &[
    ("as it comes", |_, p| Some(p)),
    ("ECT(1)", |_, p| Some(p.class(0x01))),
    ("ECT(0)", |_, p| Some(p.class(0x02))),
    ("CE", |_, p| Some(p.class(0x03))),
    ("DSCP 46", |_, p| Some(p.class(0xb8))),
    ("all of the class", |_, p| Some(p.class(0xff))),
    ("a priority tag", |_, p| Some(p.tagged(&[(VLAN, 0xe000)]))),
    ("a service tag alone", |_, p| Some(p.tagged(&[(SERVICE_VLAN, 9)]))),
    ("two customer tags", |_, p| Some(p.tagged(&[(VLAN, 1), (VLAN, 2)]))),
    ("a service tag and a customer tag", |_, p| Some(p.tagged(&[(SERVICE_VLAN, 1), (VLAN, 2)]))),
    ("CE behind a tag", |_, p| Some(p.tagged(&[(VLAN, 7)]).class(3))),
    ("two hops left behind two tags", |_, p| Some(p.tagged(&[(VLAN, 1), (VLAN, 2)]).hops(2))),
    ("255 hops", |_, p| Some(p.hops(255))),
    ("may be fragmented", |_, mut p| { p.whole = false; Some(p) }),
    ("without an identification or label", |_, mut p| { (p.id, p.label) = (0, 0); Some(p) }),
    ("the highest identification and label", |_, mut p| { (p.id, p.label) = (0xffff, 0xf_ffff); Some(p) }),
    ("a byte", |_, p| Some(p.payload(b"!"))),
    ("nothing, padded", |_, p| Some(p.payload(b"").padded(18))),
    ("from port 0", |_, mut p| { p.source.set_port(0); Some(p) }),
    ("from the last port", |_, mut p| { p.source.set_port(65_535); Some(p) }),
    ("options", |_, p| Some(with_options(p))),
    ("options behind a tag", |_, p| Some(with_options(p.tagged(&[(VLAN, 7)])))),
    ("options behind two tags", |_, p| Some(with_options(p.tagged(&[(SERVICE_VLAN, 1), (VLAN, 2)])))),
    ("options and CE", |_, p| Some(with_options(p.class(3)))),
    ("as many extension headers as are followed", |served, mut p| {
        p.extensions = vec![extension(0, 0), extension(60, 0), extension(43, 0), extension(60, 0), extension(60, 0), extension(60, 0)];
        (!is_v4(served)).then_some(p)
    }),
    ("an authentication header", |served, mut p| {
        // It counts words, less two.
        p.extensions = vec![(51, [&[0, 4][..], &[0; 22]].concat())];
        (!is_v4(served)).then_some(p)
    }),
    ("a packet in one fragment", |served, mut p| {
        p.extensions = vec![(44, vec![0; 8])];
        (!is_v4(served)).then_some(p)
    }),
    ("flags of no handshake", |served, p| {
        (served.protocol == TCP && served.way.mode != mode::SNAT).then(|| p.flags(0xf8))
    }),
    ("a SYN with ECN", |served, p| (served.protocol == TCP).then(|| p.flags(SYN | 0xc0))),
    ("no checksum", |served, p| (served.protocol == UDP && is_v4(served)).then(|| p.body(Body::UdpUnchecked))),
    ("no checksum behind two tags", |served, p| {
        let p = p.tagged(&[(SERVICE_VLAN, 1), (VLAN, 2)]).body(Body::UdpUnchecked);
        (served.protocol == UDP && is_v4(served)).then_some(p)
    }),
    ("no checksum, but options", |served, p| {
        (served.protocol == UDP && is_v4(served)).then(|| with_options(p.body(Body::UdpUnchecked)))
    }),
    ("a checksum that comes to zero", |served, p| {
        let is = served.protocol == UDP && rewrites(served);
        is.then(|| to_zero(p, |p| inside(served, p, 0)))?
    }),
];

/// What a backend answers, in the modes in which that comes by way of the load balancer.
#[rustfmt::skip]
const ANSWERS: &[(&str, Shape)] = &[
    ("an answer", |_, p| Some(p)),
    ("a marked answer", |_, p| Some(p.class(0xbb))),
    ("an answer that met congestion", |_, p| Some(p.class(0x03))),
    ("an answer behind a tag", |_, p| Some(p.tagged(&[(VLAN, 7)]))),
    ("an answer with options", |_, p| Some(with_options(p))),
    ("an answer with options behind two tags", |_, p| Some(with_options(p.tagged(&[(SERVICE_VLAN, 1), (VLAN, 2)])))),
    ("an empty answer, padded", |_, p| Some(p.payload(b"").padded(18))),
    ("an answer without a checksum", |served, p| {
        (served.protocol == UDP && is_v4(served)).then(|| p.body(Body::UdpUnchecked))
    }),
    ("an answer whose checksum comes to zero", |served, p| {
        let seen = |p: &Packet| p.clone().from(served.vip).to(client(served));
        (served.protocol == UDP).then(|| to_zero(p, seen))?
    }),
];

/// The answer to a service's first packet, and what its client gets.
fn answered(served: &Served, shape: Shape) -> Option<[Packet; 2]> {
    let [plain, _] = replied(served, 0, |p| p);
    let reply = shape(served, plain)?;
    Some(replied(served, 0, |_| reply.clone()))
}

/// What a router says.
#[derive(Clone, Copy)]
enum Says {
    Unreachable,
    TooBig,
    TimeExceeded,
}

/// An error about a packet.
fn error(says: Says, from: IpAddr, to: IpAddr, about: &[u8]) -> Packet {
    let message = match (from, to) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let kind = match says {
                Says::Unreachable => {
                    Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Address)
                }
                Says::TooBig => Icmpv6Type::PacketTooBig { mtu: 1400 },
                Says::TimeExceeded => {
                    Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded)
                }
            };
            let header = Icmpv6Header::with_checksum(kind, from.octets(), to.octets(), about);
            [&header.expect("a length").to_bytes()[..], about].concat()
        }
        _ => {
            let kind =
                match says {
                    Says::Unreachable => {
                        Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Host)
                    }
                    Says::TooBig => Icmpv4Type::DestinationUnreachable(
                        DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 },
                    ),
                    Says::TimeExceeded => {
                        Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit)
                    }
                };
            [
                &Icmpv4Header::with_checksum(kind, about).to_bytes()[..],
                about,
            ]
            .concat()
        }
    };
    icmp(from, to, &message)
}

/// A packet of ICMP between two addresses, without ports.
fn icmp(from: IpAddr, to: IpAddr, message: &[u8]) -> Packet {
    let protocol = if from.is_ipv4() { 1 } else { 58 };
    Packet::tcp(SocketAddr::new(from, 0), SocketAddr::new(to, 0))
        .body(Body::Other(protocol))
        .payload(message)
}

/// The router that an error comes from.
fn router(served: &Served) -> IpAddr {
    let address = if is_v4(served) {
        "203.0.113.77"
    } else {
        "2001:db8:c::77"
    };
    at(address, 0).ip()
}

/// What an error says, how much of the packet it quotes beyond the IP header, how that packet and
/// how the error's own differs from an ordinary one.
type Told = (&'static str, Says, usize, Shape, fn(Packet) -> Packet);

#[rustfmt::skip]
const ERRORS: &[Told] = &[
    ("unreachable, eight bytes", Says::Unreachable, 8, |_, p| Some(p), |e| e),
    ("unreachable, up to the checksum", Says::Unreachable, 18, |_, p| Some(p), |e| e),
    ("unreachable, all of it", Says::Unreachable, 1000, |_, p| Some(p), |e| e),
    ("too big", Says::TooBig, 8, |_, p| Some(p), |e| e),
    ("too big, all of it", Says::TooBig, 1000, |_, p| Some(p), |e| e),
    ("time exceeded", Says::TimeExceeded, 1000, |_, p| Some(p), |e| e),
    ("about an odd length", Says::Unreachable, 1000, |_, p| Some(p.payload(b"odd")), |e| e),
    ("about a packet without a checksum", Says::Unreachable, 1000, |served, p| {
        (served.protocol == UDP && is_v4(served)).then(|| p.body(Body::UdpUnchecked))
    }, |e| e),
    ("about a packet with options", Says::Unreachable, 1000, |served, p| {
        is_v4(served).then(|| with_options(p))
    }, |e| e),
    ("behind a tag", Says::Unreachable, 1000, |_, p| Some(p), |e| e.tagged(&[(VLAN, 7)])),
    ("behind two tags", Says::TooBig, 8, |_, p| Some(p), |e| e.tagged(&[(SERVICE_VLAN, 1), (VLAN, 2)])),
    ("marked", Says::Unreachable, 8, |_, p| Some(p), |e| e.class(0xbb)),
    ("with options of its own", Says::TimeExceeded, 8, |_, p| Some(p), with_options),
];

/// So many bytes of a packet behind its IP header.
fn quoted(packet: &Packet, bytes: usize) -> Vec<u8> {
    let ip = packet.ip();
    let header = ip.len() - packet.segment().len();
    ip[..ip.len().min(header + bytes)].to_vec()
}

/// An error about what a service's backend has sent to a client, and what the backend is told.
fn about_answer(served: &Served, told: &Told) -> Option<Case> {
    let &(what, says, bytes, shape, dress) = told;
    let [reply, seen] = answered(served, shape)?;
    // Quoted as it was on the way, whatever its hops.
    let seen = seen.hops(reply.hops);
    let from = router(served);
    let error_to = |to, about: &Packet| dress(error(says, from, to, &quoted(about, bytes)));
    let error = error_to(served.vip.ip(), &seen);
    let expected = match served.way.mode {
        mode::DSR => error.clone().macs(served.mac(0), OWN).bytes(),
        mode::NAT | mode::SNAT => {
            let error = error_to(served.backend(0), &reply).hop();
            error.macs(served.mac(0), OWN).bytes()
        }
        _ => wrapped(served, &error, &error.clone().hop().ip(), 0),
    };
    let fate = Fate::Related(served.number, served.endpoint);
    Some(case(
        &format!("about an answer: {what}"),
        error.bytes(),
        fate,
        expected,
    ))
}

/// An error about what a client has sent to a backend, and what the client is told.
fn about_request(served: &Served, told: &Told) -> Option<Case> {
    let &(what, says, bytes, shape, dress) = told;
    if !rewrites(served) {
        return None;
    }
    let there = if served.way.mode == mode::SNAT {
        pool(served)
    } else {
        client(served)
    };
    let backend = SocketAddr::new(served.backend(0), BACKEND_PORT);
    let first = shape(served, packet(served))?;
    let about = first.clone().from(there).to(backend);
    let from = router(served);
    let error_to = |to, about: &Packet| dress(error(says, from, to, &quoted(about, bytes)));
    let expected = error_to(client(served).ip(), &first).hop();
    let expected = expected.macs(network::mac(9), network::OWN).bytes();
    let frame = error_to(there.ip(), &about).bytes();
    let fate = Fate::RelatedBack(served.number);
    Some(case(
        &format!("about a request: {what}"),
        frame,
        fate,
        expected,
    ))
}

/// A frame with other bytes at an offset behind the Ethernet header.
fn with_bytes(packet: &Packet, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = packet.bytes();
    frame[14 + at..14 + at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// Frames that contradict themselves.
fn malformed(served: &Served) -> Vec<Case> {
    let packet = packet(served);
    let host = Fate::Host(Reason::Malformed);
    let dropped = Fate::Dropped(served.number, Reason::Malformed);
    let (transport, mut cases) = if is_v4(served) {
        (20, Vec::new())
    } else {
        (40, Vec::new())
    };
    if is_v4(served) {
        for (what, first) in [
            ("a header of no words", 0x40),
            ("a header of four words", 0x44),
            ("version 0", 0x05),
            ("version 5", 0x55),
            ("version 6 where 4 is announced", 0x65),
        ] {
            cases.push(untouched(what, with_bytes(&packet, 0, &[first]), host));
        }
        for (what, length) in [
            ("no length", 0),
            ("a length within the IP header", 19),
            ("a length without a transport header", 20),
            ("a length within the ports", 22),
            ("a length within the transport header", 27),
        ] {
            let frame = with_bytes(&packet, 2, &u16::to_be_bytes(length));
            // A SYN that only looks like one is counted as any other packet.
            let frame = if syn(&packet) {
                with_length(&packet, length)
            } else {
                frame
            };
            cases.push(only_dsr(what, served, frame, dropped));
        }
        let mut options = with_options(packet.clone());
        options.payload = b"more than there is room for".to_vec();
        let frame = with_bytes(&options, 2, &[0, 23]);
        cases.push(untouched("a length within the options", frame, host));
        let fragment = packet.clone().filled(120).fragment(48..96, 7);
        let mut frame = fragment;
        frame[16..18].copy_from_slice(&[0, 19]);
        cases.push(untouched(
            "a fragment's length within its header",
            frame,
            host,
        ));
    } else {
        for (what, first) in [
            ("version 0", 0x00),
            ("version 5", 0x50),
            ("version 4 where 6 is announced", 0x45),
            ("version 7", 0x70),
        ] {
            cases.push(untouched(what, with_bytes(&packet, 0, &[first]), host));
        }
        for (what, length) in [
            ("no length", 0),
            ("a length within the ports", 2),
            ("a length within the transport header", 7),
        ] {
            let frame = with_bytes(&packet, 4, &u16::to_be_bytes(length));
            cases.push(only_dsr(what, served, frame, dropped));
        }
        let mut long = packet.clone();
        long.extensions = vec![extension(60, 0); 7];
        let fate = Fate::Host(Reason::Extensions);
        cases.push(untouched(
            "more extension headers than are followed",
            long.bytes(),
            fate,
        ));
        let mut far = packet.clone();
        far.extensions = vec![extension(60, 80)];
        cases.push(untouched(
            "an extension header that reaches too far",
            far.bytes(),
            fate,
        ));
        let mut cut = packet.clone();
        cut.extensions = vec![extension(60, 3)];
        let frame = cut.bytes()[..14 + 40 + 1].to_vec();
        let fate = Fate::Host(Reason::Truncated);
        cases.push(untouched(
            "an extension header that is cut off",
            frame,
            fate,
        ));
    }
    if served.protocol == TCP {
        for (what, words) in [
            ("a TCP header of no words", 0x00),
            ("a TCP header of four words", 0x40),
        ] {
            cases.push(untouched(
                what,
                with_bytes(&packet, transport + 12, &[words]),
                host,
            ));
        }
    }
    let fate = Fate::Host(Reason::NotIp);
    let thrice = packet.tagged(&[(VLAN, 1), (VLAN, 2), (VLAN, 3)]).bytes();
    cases.push(untouched("three tags", thrice, fate));
    cases
}

/// The frame with another length in its IPv4 header.
fn with_length(packet: &Packet, length: u16) -> Vec<u8> {
    with_bytes(packet, 2, &length.to_be_bytes())
}

/// The fragments of a datagram or segment whose headers begin with options that are cut up with
/// it: only the first one says what comes behind them.
fn options_in_fragments(served: &Served) -> Vec<Case> {
    if is_v4(served) {
        return Vec::new();
    }
    let packet = packet(served).filled(120);
    let cut = |packet: &Packet, part: Range<usize>| {
        let (_, mut options) = extension(60, 0);
        options[0] = served.protocol;
        let payload = [options, packet.segment()].concat();
        packet
            .clone()
            .body(Body::Other(60))
            .payload(&payload)
            .fragment(part, 0xfeed)
    };
    [
        ("options in a first fragment", 0..48),
        ("a later fragment of options", 48..96),
    ]
    .map(|(what, part)| {
        let fate = if part.start == 0 {
            to_backend(served, &packet, 0)
        } else {
            Fate::Sent(served.endpoint)
        };
        let rewritten = cut(&inside(served, &packet, 0), part.clone());
        let expected = sent_frame(served, &packet, rewritten);
        case(what, cut(&packet, part), fate, expected)
    })
    .into()
}

/// The fragments of an answer, to a client or to where the stack is to find the way.
fn answer_in_fragments(served: &Served, to: Option<&str>) -> Vec<Case> {
    let [mut reply, mut seen] = replied(served, 0, |p| p.filled(120));
    let mut whose = "";
    if let Some(to) = to {
        reply = reply.to(at(to, PORT));
        seen = reply.clone().from(served.vip).hop();
        whose = if UNKNOWN.contains(&to) {
            " whose next hop is not resolved"
        } else {
            " without a route"
        };
    }
    let length = reply.segment().len();
    [("first", 0..48), ("middle", 48..96), ("last", 96..length)]
        .into_iter()
        .map(|(which, part)| {
            let what = format!("the {which} fragment of an answer{whose}");
            let fate = if to.is_some() {
                Fate::Stack(served.number, served.endpoint)
            } else {
                Fate::Reply(served.endpoint)
            };
            let expected = seen.fragment(part.clone(), 0x77);
            case(&what, reply.fragment(part, 0x77), fate, expected)
        })
        .collect()
}

/// QUIC packets, and to which of the backends they go.
#[rustfmt::skip]
const QUIC: &[(&str, &[u8], u16)] = &[
    ("a short header with a server's ID", b"\x40\x00\xaa\xbb\xcc\x01rest", 1),
    ("a short header with another server's ID", b"\x40\x1f\xaa\xbb\xcc\x02rest", 2),
    ("a short header with nobody's ID", b"\x40\x00\xaa\xbb\xcc\x77rest", 0),
    ("a short header with the ID of one that serves no more", b"\x40\x00\xaa\xbb\xcc\x03rest", 0),
    ("a short header that is not to be routed by", b"\x40\xe0\xaa\xbb\xcc\x01rest", 0),
    ("a short header that is cut off", b"\x40\x00\xaa\xbb\xcc", 0),
    ("a long header with a server's ID", b"\xc0\0\0\0\x01\x08\x00\xaa\xbb\xcc\x01abc\x00", 1),
    ("a long header of another version", b"\xf0\x6b\x33\x43\xcf\x05\x20\xaa\xbb\xcc\x02\x00", 2),
    ("a long header with too short an ID", b"\xc0\0\0\0\x01\x04\x00\xaa\xbb\xcc\x01abc\x00", 0),
    ("a long header without an ID", b"\xc0\0\0\0\x01\x00\x00\xaa\xbb\xcc\x01abc\x00", 0),
    ("a long header that is cut off", b"\xc0\0\0\0\x01", 0),
    ("no QUIC at all", b"", 0),
];

fn quic_tables(bed: &mut Bed, served: &Served) {
    with_flags(bed, served, flag::QUIC);
    bed.builder.service_mut(served.number).server_id = 4;
    for nth in 0..BACKENDS {
        let key = VipKey {
            address: [u32::from_ne_bytes([0xaa, 0xbb, 0xcc, nth as u8]), 0, 0, 0],
            port: served.number,
            protocol: 4,
            family: key_family::QUIC,
        };
        bed.builder
            .find_by(key, served.endpoint + nth, served.number);
    }
}

/// The list of sources that the table's services ask.
const LIST: u32 = 9;

/// Whether a source is allowed: the table's clients, and everybody else's neighbours.
fn source(address: &str, allowed: u8) -> (SourceKey, u8) {
    let address = at(address, 0).ip();
    let (words, bits) = match words(address) {
        [.., v4] if address.is_ipv4() => ([v4, 0, 0, 0], 32),
        v6 => (v6, 128),
    };
    let key = SourceKey {
        prefix: 64 + bits,
        list: LIST,
        family: family(address).into(),
        address: words,
    };
    (key, allowed)
}

/// From the client of which the list says that it is denied, allowed, or nothing.
fn from_source(served: &Served, last: u8) -> Packet {
    let address = match (is_v4(served), last) {
        (true, last) => format!("203.0.113.{last}"),
        (false, last) => format!("2001:db8:c::{last}"),
    };
    packet(served).from(at(&address, PORT))
}

fn denied(served: &Served, others: bool) -> Vec<Case> {
    let refused = |what, last| {
        let fate = Fate::Dropped(served.number, Reason::Denied);
        untouched(what, from_source(served, last).bytes(), fate)
    };
    vec![
        refused(
            if others {
                "from the denied, others too"
            } else {
                "from the denied"
            },
            10,
        ),
        goes(
            if others {
                "from the allowed alone"
            } else {
                "from the allowed"
            },
            served,
            &from_source(served, 11),
        ),
        if others {
            refused("from others", 12)
        } else {
            goes("from others", served, &from_source(served, 12))
        },
    ]
}

fn echo(request: bool, from: IpAddr, to: IpAddr) -> Packet {
    let header = IcmpEchoHeader { id: 0x1234, seq: 7 };
    let payload = b"an odd payload!";
    let message = match (from, to) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let kind = if request {
                Icmpv6Type::EchoRequest(header)
            } else {
                Icmpv6Type::EchoReply(header)
            };
            let header = Icmpv6Header::with_checksum(kind, from.octets(), to.octets(), payload);
            [&header.expect("a length").to_bytes()[..], payload].concat()
        }
        _ => {
            let kind = if request {
                Icmpv4Type::EchoRequest(header)
            } else {
                Icmpv4Type::EchoReply(header)
            };
            [
                &Icmpv4Header::with_checksum(kind, payload).to_bytes()[..],
                payload,
            ]
            .concat()
        }
    };
    icmp(from, to, &message)
}

/// Echo requests to the VIP.
fn echoes(served: &Served) -> Vec<Case> {
    let (from, to) = (client(served).ip(), served.vip.ip());
    let dresses: [(&str, fn(Packet) -> Packet); 4] = [
        ("an echo request at its last hop", |p| p),
        ("an echo request with options", with_options),
        ("a marked echo request behind two tags", |p| {
            p.class(0xbb).tagged(&[(SERVICE_VLAN, 1), (VLAN, 2)])
        }),
        ("an echo request, padded", |p| p.padded(9)),
    ];
    dresses
        .map(|(what, dress)| {
            let request = dress(echo(true, from, to)).hops(1);
            let mut reply = dress(echo(false, to, from)).hops(64);
            reply.macs.rotate_left(6);
            let fate = Fate::Answered(served.number, Reason::EchoAnswered);
            case(what, request.bytes(), fate, reply.bytes())
        })
        .into()
}

/// A packet that is too big, and what its sender is told.
fn too_big(served: &Served) -> Vec<Case> {
    if served.way.mode == mode::DSR {
        return Vec::new();
    }
    let outer = if served.outer() == V4 { 20 } else { 40 };
    let grown = match served.way.mode {
        mode::IPIP => outer,
        mode::GUE => outer + 8,
        _ => 0,
    };
    // A byte more than fits, and as much as a page may hold.
    let header = packet(served).payload(b"").ip().len();
    [
        ("a byte too much", 1501 - grown - header),
        ("far too much", 3000),
    ]
    .map(|(what, length)| {
        let packet = packet(served).filled(length);
        let (from, to) = (served.vip.ip(), client(served).ip());
        let ip = packet.ip();
        let message = match (from, to) {
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let (kind, about) = (
                    Icmpv6Type::PacketTooBig {
                        mtu: 1500 - grown as u32,
                    },
                    &ip[..1232],
                );
                let header = Icmpv6Header::with_checksum(kind, from.octets(), to.octets(), about);
                [&header.expect("a length").to_bytes()[..], about].concat()
            }
            _ => {
                let next_hop_mtu = 1500 - grown as u16;
                let kind = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu };
                let (kind, about) = (Icmpv4Type::DestinationUnreachable(kind), &ip[..548]);
                [
                    &Icmpv4Header::with_checksum(kind, about).to_bytes()[..],
                    about,
                ]
                .concat()
            }
        };
        let mut told = icmp(from, to, &message).hops(64);
        (told.id, told.whole, told.label) = (0, false, 0);
        told.macs.rotate_left(6);
        let fate = Fate::Answered(served.number, Reason::TooBig);
        case(what, packet.bytes(), fate, told.bytes())
    })
    .into()
}

/// A first packet, where the mode has to know the flow.
fn known(what: &str, served: &Served) -> Case {
    goes(&format!("{what}: first"), served, &packet(served))
}

/// Everything else.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Fragments that are not followed.
    Row { tables: |bed, served| with_flags(bed, served, flag::NO_FRAGMENTS), afresh: false, cases: |served| {
        let (long, lost) = (packet(served).filled(120), Fate::Dropped(served.number, Reason::FragmentUnknown));
        vec![
            untouched("a first fragment where none is followed", long.fragment(0..48, 9), lost),
            untouched("a later fragment where none is followed", long.fragment(48..96, 9), lost),
            goes("a whole packet where no fragment is followed", served, &packet(served)),
        ]
    } },
    Row { tables: |bed, served| with_flags(bed, served, flag::NO_FRAGMENTS | flag::PASS_REORDERED), afresh: false, cases: |served| {
        let (long, lost) = (packet(served).filled(120), Fate::Passed(served.number, Reason::FragmentUnknown));
        vec![
            untouched("a first fragment where all pass", long.fragment(0..48, 9), lost),
            untouched("a later fragment where all pass", long.fragment(48..96, 9), lost),
        ]
    } },
    Row { tables: |bed, served| {
        with_flags(bed, served, flag::NO_FRAGMENTS | flag::LIMIT);
        bed.builder.service_mut(served.number).burst = 1;
    }, afresh: false, cases: |served| {
        if served.protocol == UDP {
            return Vec::new();
        }
        let opening = packet(served).flags(SYN);
        let lost = Fate::Dropped(served.number, Reason::FragmentUnknown);
        vec![
            untouched("a refused fragment", opening.clone().filled(120).fragment(0..48, 9), lost),
            goes("a SYN after a refused fragment", served, &opening),
        ]
    } },
    // Fragments that are.
    Row { tables: as_they_are, afresh: false, cases: |served| {
        let tagged = packet(served).filled(120).class(0xbb).tagged(&[(SERVICE_VLAN, 1), (VLAN, 2)]);
        vec![
            part_goes("a marked first fragment behind two tags", served, &tagged, 0..48),
            part_goes("a marked later fragment behind two tags", served, &tagged, 48..96),
        ]
    } },
    Row { tables: as_they_are, afresh: false, cases: |served| {
        let long = with_options(packet(served).filled(120));
        vec![
            part_goes("a first fragment with options", served, &long, 0..48),
            part_goes("a later fragment with options", served, &long, 48..96),
        ]
    } },
    Row { tables: as_they_are, afresh: false, cases: options_in_fragments },
    Row { tables: as_they_are, afresh: false, cases: |served| {
        if served.protocol == TCP || !is_v4(served) {
            return Vec::new();
        }
        let long = packet(served).filled(120).body(Body::UdpUnchecked);
        vec![
            part_goes("a first fragment without a checksum", served, &long, 0..48),
            part_goes("a later fragment without a checksum", served, &long, 48..96),
        ]
    } },
    Row { tables: as_they_are, afresh: false, cases: |served| {
        let (long, last) = (packet(served).filled(120), packet(served).filled(120).hops(1));
        let expired = Fate::Passed(served.number, Reason::TtlExpired);
        vec![
            part_goes("a first fragment", served, &long, 0..48),
            only_dsr("a later fragment at its last hop", served, last.fragment(48..96, 0xbeef), expired),
        ]
    } },
    Row { tables: as_they_are, afresh: false, cases: |served| {
        let long = packet(served).filled(1800);
        let lost = Fate::Dropped(served.number, Reason::TooBigUntold);
        vec![
            part_goes("a first fragment that fits", served, &long, 0..48),
            only_dsr("a later fragment that does not", served, long.fragment(48..1600, 0xbeef), lost),
        ]
    } },
    Row { tables: as_they_are, afresh: false, cases: |served| {
        let to = SocketAddr::new(if is_v4(served) { "198.51.100.200" } else { "2001:db8::200" }.parse().expect("an address"), 80);
        let long = packet(served).filled(120).to(to);
        vec![
            untouched("a stranger's first fragment", long.fragment(0..48, 3), Fate::Host(Reason::NoService)),
            untouched("a stranger's later fragment", long.fragment(48..96, 3), Fate::Host(Reason::Fragment)),
        ]
    } },
    // Answers in fragments.
    Row { tables: as_they_are, afresh: false, cases: |served| {
        if !rewrites(served) {
            return Vec::new();
        }
        let mut cases = vec![known("an answer in fragments", served)];
        cases.extend(answer_in_fragments(served, None));
        cases
    } },
    Row { tables: as_they_are, afresh: false, cases: |served| {
        if served.way.mode != mode::NAT {
            return Vec::new();
        }
        let v6 = usize::from(!is_v4(served));
        let mut cases = answer_in_fragments(served, Some(UNKNOWN[v6]));
        cases.extend(answer_in_fragments(served, Some(NOWHERE[v6])));
        cases
    } },
    Row { tables: as_they_are, afresh: false, cases: |served| {
        if !rewrites(served) {
            return Vec::new();
        }
        let [reply, _] = replied(served, 0, |p| p.filled(120));
        let [short, _] = replied(served, 0, |p| p.payload(b""));
        let frame = reply.bytes();
        let cut = frame[..frame.len() - 1].to_vec();
        // Up to the middle of the ports.
        let (at, length): (usize, u16) = if is_v4(served) { (2, 22) } else { (4, 2) };
        let within = with_bytes(&short.padded(18), at, &length.to_be_bytes());
        let row = served.number;
        vec![
            known("an answer that is cut", served),
            untouched("an answer of which a byte is missing", cut, Fate::Passed(row, Reason::Truncated)),
            untouched("an answer that ends within its ports", within, Fate::Dropped(row, Reason::Malformed)),
        ]
    } },
    // What contradicts itself.
    Row { tables: as_they_are, afresh: true, cases: malformed },
    // Connection IDs.
    Row { tables: quic_tables, afresh: true, cases: |served| {
        if served.protocol == TCP {
            return Vec::new();
        }
        let all = QUIC.iter().map(|&(what, payload, nth)| {
            let packet = packet(served).payload(payload);
            let expected = sent(served, &packet, nth);
            case(what, packet.bytes(), to_backend(served, &packet, nth), expected)
        });
        all.collect()
    } },
    // Sources.
    Row { tables: |bed, served| {
        with_flags(bed, served, flag::SOURCES);
        bed.builder.service_mut(served.number).sources = LIST;
    }, afresh: true, cases: |served| denied(served, false) },
    Row { tables: |bed, served| {
        with_flags(bed, served, flag::SOURCES | flag::DENY_OTHERS);
        bed.builder.service_mut(served.number).sources = LIST;
    }, afresh: true, cases: |served| {
        let mut cases = denied(served, true);
        cases[2].what = "from others, where only some are allowed".to_owned();
        cases
    } },
    Row { tables: |bed, served| {
        with_flags(bed, served, flag::LIMIT);
        bed.builder.service_mut(served.number).burst = 2;
    }, afresh: false, cases: |served| {
        if served.protocol == UDP {
            return Vec::new();
        }
        let limited = Fate::Dropped(served.number, Reason::Limited);
        let again = || packet(served).flags(SYN);
        vec![
            goes("the first connection", served, &again()),
            goes("the second connection", served, &again()),
            untouched("the third connection", again().bytes(), limited),
            goes("a segment of the first", served, &packet(served).flags(ACK)),
        ]
    } },
    // Services that cannot forward.
    Row { tables: |bed, served| bed.builder.vip_mut(served.number).state = state::EMPTY_DROP, afresh: true, cases: |served| {
        vec![untouched("no backend, drops", packet(served).bytes(), Fate::Dropped(served.number, Reason::NoBackendDropped))]
    } },
    Row { tables: |bed, served| bed.builder.vip_mut(served.number).state = state::EMPTY_PASS, afresh: true, cases: |served| {
        vec![untouched("no backend, passes", packet(served).bytes(), Fate::Passed(served.number, Reason::NoBackendPassed))]
    } },
    Row { tables: |bed, served| bed.builder.vip_mut(served.number).ring = 4000, afresh: true, cases: |served| {
        vec![untouched("no ring", packet(served).bytes(), Fate::Passed(served.number, Reason::BadTables))]
    } },
    Row { tables: |bed, served| bed.builder.image.tables.endpoints[usize::from(served.endpoint)].mode = mode::UNRESOLVED, afresh: true, cases: |served| {
        vec![untouched("no next hop", packet(served).bytes(), Fate::Passed(served.number, Reason::Unresolved))]
    } },
    Row { tables: |bed, served| bed.builder.vip_mut(served.number).flags = 0, afresh: true, cases: |served| {
        if served.way.mode != mode::SNAT {
            return Vec::new();
        }
        vec![untouched("nothing says what it is sent from", packet(served).bytes(), Fate::Passed(served.number, Reason::BadTables))]
    } },
    Row { tables: |bed, _| {
        let header = &mut bed.builder.image.tables.header;
        (header.snat_v4, header.snat_v6) = (0, 0);
    }, afresh: true, cases: |served| {
        if served.way.mode != mode::SNAT {
            return Vec::new();
        }
        vec![untouched("no port to send from", packet(served).bytes(), Fate::Dropped(served.number, Reason::NoPort))]
    } },
    Row { tables: as_they_are, afresh: true, cases: |served| {
        let frame = packet(served).flags(ACK).bytes();
        if served.way.mode != mode::SNAT || served.protocol == UDP {
            return Vec::new();
        }
        vec![untouched("a segment of no flow", frame, Fate::Dropped(served.number, Reason::NoEntry))]
    } },
    // ICMP.
    Row { tables: as_they_are, afresh: true, cases: echoes },
    Row { tables: as_they_are, afresh: true, cases: too_big },
    Row { tables: as_they_are, afresh: false, cases: |served| {
        let mut cases = vec![known("errors", served)];
        cases.extend(ERRORS.iter().filter_map(|told| about_answer(served, told)));
        cases.extend(ERRORS.iter().filter_map(|told| about_request(served, told)));
        cases
    } },
    Row { tables: as_they_are, afresh: false, cases: |served| {
        let mut cases = vec![known("errors that go nowhere", served)];
        let (from, row) = (router(served), served.number);
        let [_, seen] = replied(served, 0, |p| p.filled(120));
        let unrelated = Fate::Passed(row, Reason::IcmpUnrelated);
        let about = |about: &[u8]| error(Says::Unreachable, from, served.vip.ip(), about);
        let last = about(&seen.ip()).hops(1).bytes();
        cases.push(only_dsr_error("an error at its last hop", served, last));
        let ip = seen.ip();
        let header = ip.len() - seen.segment().len();
        cases.push(untouched("an error that quotes no ports", about(&ip[..header]).bytes(), unrelated));
        // What it lacks stands in the frame behind it.
        let mut frame = about(&ip[..header]).bytes();
        frame.extend_from_slice(&ip[header..header + 8]);
        cases.push(untouched("an error whose padding has the ports", frame, unrelated));
        if is_v4(served) {
            let later = &seen.fragment(48..96, 7)[14..];
            cases.push(untouched("an error about a later fragment", about(later).bytes(), unrelated));
        }
        let whole = about(&ip).bytes();
        let cut = whole[..whole.len() - 1].to_vec();
        cases.push(untouched("an error that is cut", cut, Fate::Passed(row, Reason::Truncated)));
        cases
    } },
    // Other protocols.
    Row { tables: as_they_are, afresh: true, cases: |served| {
        vec![untouched("SCTP", packet(served).body(Body::Other(132)).bytes(), Fate::Host(Reason::NotTcpUdp))]
    } },
];

/// An error that `dsr` alone hands on.
fn only_dsr_error(what: &str, served: &Served, frame: Vec<u8>) -> Case {
    let expired = Fate::Passed(served.number, Reason::TtlExpired);
    let mut case = only_dsr(what, served, frame, expired);
    if served.way.mode == mode::DSR {
        case.fate = Fate::Related(served.number, served.endpoint);
    }
    case
}

/// The rows of the shapes and answers, as of the others.
fn rows() -> Vec<Row> {
    let shapes = Row {
        tables: as_they_are,
        afresh: true,
        cases: |served| {
            let shaped = SHAPES.iter().filter_map(|(what, shape)| {
                let packet = shape(served, packet(served))?;
                Some(goes(what, served, &packet))
            });
            shaped.collect()
        },
    };
    let answers = Row {
        tables: as_they_are,
        afresh: false,
        cases: |served| {
            if !rewrites(served) {
                return Vec::new();
            }
            let shaped = ANSWERS.iter().filter_map(|&(what, shape)| {
                let [reply, seen] = answered(served, shape)?;
                let fate = Fate::Reply(served.endpoint);
                Some(case(what, reply.bytes(), fate, seen.bytes()))
            });
            [known("answers", served)]
                .into_iter()
                .chain(shaped)
                .collect()
        },
    };
    let mut rows = vec![shapes, answers];
    rows.extend(ROWS.iter().map(|row| Row { ..*row }));
    rows
}

/// The least number of packets by name alone, and of these in all modes, versions and protocols.
const NAMES: usize = 150;
const CASES: usize = 2000;

#[test]
fn every_named_packet_becomes_what_the_table_says() {
    let mut names = BTreeSet::new();
    let mut whats = BTreeSet::new();
    let mut reasons = BTreeSet::new();
    network::within(|| {
        for protocol in [TCP, UDP] {
            let mut cases = Cases::new(&bed(protocol));
            for (key, allowed) in [
                source("203.0.113.10", 0),
                source("203.0.113.11", 1),
                source("2001:db8:c::10", 0),
                source("2001:db8:c::11", 1),
            ] {
                cases.homes.put_source(key, allowed);
            }
            for row in rows() {
                let mut bed = bed(protocol);
                for served in bed.services.clone() {
                    (row.tables)(&mut bed, &served);
                }
                bed.builder.addresses();
                cases.publish(&bed);
                for served in &bed.services {
                    cases.afresh();
                    for case in (row.cases)(served) {
                        if row.afresh {
                            cases.afresh();
                        }
                        let name = name(served, &case.what);
                        cases.check(&name, &case.frame, case.fate, &case.expected);
                        assert!(names.insert(name), "two cases are named alike");
                        whats.insert(case.what);
                    }
                }
            }
            reasons.extend(cases.homes.counts().exits.keys().map(|(_, reason)| *reason));
        }
    });
    println!("{} packets by name, {} cases", whats.len(), names.len());
    assert!(whats.len() >= NAMES, "only {} names", whats.len());
    assert!(names.len() >= CASES, "only {} cases", names.len());
    // Every way that a packet may end, but for tables that are missing and a driver without room,
    // which no packet can bring about here.
    let not_here = [Reason::NoTables, Reason::NoRoom];
    let missing = Reason::ALL
        .into_iter()
        .filter(|reason| !not_here.contains(reason) && !reasons.contains(reason));
    assert_eq!(missing.collect::<Vec<_>>(), [], "reasons without a packet");
}
