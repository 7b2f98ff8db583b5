//! Packets of every shape that reach the backend, and answers that reach the client.

use lb_common::layout::mode;

use super::{
    Case, Row, Shape, as_they_are, case, extension, goes, is_v4, known, packet, rewrites,
    with_options,
};
use crate::{
    expected::{client, inside, replied},
    frames::{Body, Packet, SERVICE_VLAN, SYN, VLAN},
    homes::{
        bed::Served,
        builder::{TCP, UDP},
        cases::Fate,
    },
};

/// The same packet with a payload by which the checksum comes to zero after `rewrite`: over UDP,
/// that is written as all ones.
fn to_zero(packet: &Packet, rewrite: impl Fn(&Packet) -> Packet) -> Option<Packet> {
    let all = (0..=u16::MAX).map(|word| packet.clone().payload(&word.to_be_bytes()));
    all.into_iter()
        .find(|packet| rewrite(packet).segment()[6..8] == [0xff, 0xff])
}

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
        is.then(|| to_zero(&p, |p| inside(served, p, 0)))?
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
        (served.protocol == UDP).then(|| to_zero(&p, seen))?
    }),
];

/// The answer to a service's first packet, and what its client gets.
pub(crate) fn answered(served: &Served, shape: Shape) -> Option<[Packet; 2]> {
    let [plain, _] = replied(served, 0, |p| p);
    let reply = shape(served, plain)?;
    Some(replied(served, 0, |_| reply.clone()))
}

/// The first packets.
fn shaped(served: &Served) -> Vec<Case> {
    let shaped = SHAPES.iter().filter_map(|(what, shape)| {
        let packet = shape(served, packet(served))?;
        Some(goes(what, served, &packet))
    });
    shaped.collect()
}

/// The answers, behind a packet that they answer.
fn answers(served: &Served) -> Vec<Case> {
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
}

/// The rows.
#[rustfmt::skip]
pub(crate) const ROWS: &[Row] = &[
    Row { tables: as_they_are, afresh: true, cases: shaped },
    Row { tables: as_they_are, afresh: false, cases: answers },
];
