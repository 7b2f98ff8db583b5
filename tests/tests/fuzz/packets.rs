//! Packets by chance: put together for the tables at hand, from captures, answers to what was sent,
//! and noise; many of them damaged.

use std::net::{IpAddr, SocketAddr};

use lb_common::verdict::Verdict;
use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};

use super::{corpus::Corpus, tables::Drawn};
use crate::{
    frames::{Body, Packet, SERVICE_VLAN, VLAN},
    homes::network::{KNOWN, LOCAL, UNKNOWN},
};

/// The shortest frame that the kernel takes.
const SHORTEST: usize = 14;
/// How many frames that were sent are kept, to be answered.
const KEPT: usize = 64;

pub(crate) struct Packets<'a> {
    drawn: &'a Drawn,
    corpus: &'a Corpus,
    /// Frames as they left.
    sent: Vec<Vec<u8>>,
    last: Vec<u8>,
    nth: usize,
}

fn pick<T: Copy>(random: &mut StdRng, from: &[T]) -> T {
    *from.choose(random).expect("not empty")
}

/// A client: one of few, so that flows go on; now and then anybody.
fn client(random: &mut StdRng, v4: bool) -> SocketAddr {
    let text = match random.random_range(0..16) {
        0 => Some(pick(random, &UNKNOWN[..])),
        1 => Some(pick(random, &LOCAL[..])),
        2 => None,
        _ => Some(pick(random, &KNOWN[..])),
    };
    let address = text
        .map(|text| text.parse::<IpAddr>().expect("an address"))
        .filter(|address| address.is_ipv4() == v4)
        .unwrap_or_else(|| {
            if v4 {
                random.random::<[u8; 4]>().into()
            } else {
                random.random::<[u8; 16]>().into()
            }
        });
    SocketAddr::new(address, random.random_range(0..200))
}

impl<'a> Packets<'a> {
    pub(crate) fn new(drawn: &'a Drawn, corpus: &'a Corpus) -> Self {
        Self {
            drawn,
            corpus,
            sent: Vec::new(),
            last: Vec::new(),
            nth: 0,
        }
    }

    /// Keeps what was sent, to answer it.
    pub(crate) fn note(&mut self, verdict: Verdict, frame: &[u8], after: &[u8]) {
        if matches!(verdict, Verdict::Transmit | Verdict::Redirect(_)) {
            if self.sent.len() < KEPT {
                self.sent.push(after.to_vec());
            } else {
                self.sent[self.nth % KEPT] = after.to_vec();
            }
            self.nth += 1;
        }
        self.last = frame.to_vec();
    }

    /// The next frame, of at least 14 bytes.
    pub(crate) fn next(&self, random: &mut StdRng) -> Vec<u8> {
        let mut bytes = match random.random_range(0..32) {
            0 => {
                let length = random.random_range(SHORTEST..160);
                (0..length).map(|_| random.random()).collect()
            }
            1..4 => self.captured(random),
            4 if !self.last.is_empty() => self.last.clone(),
            5..9 if !self.sent.is_empty() => {
                let sent = self.sent.choose(random).expect("not empty");
                answer(random, sent)
            }
            9..11 if !self.sent.is_empty() => self.error(random),
            11 => self.reply(random).bytes(),
            12..14 => self.fragment(random),
            _ => self.packet(random).bytes(),
        };
        if random.random_range(0..4) == 0 {
            damage(random, &mut bytes);
        }
        bytes.resize(bytes.len().max(SHORTEST), 0);
        bytes
    }

    /// A packet to a service, or nearly.
    fn packet(&self, random: &mut StdRng) -> Packet {
        let service = self.drawn.services.choose(random).expect("a service");
        let v4 = service.at.is_ipv4();
        let mut to = service.at;
        match random.random_range(0..16) {
            0 => to.set_port(random.random()),
            1 => to = client(random, v4),
            _ if to.port() == 0 => to.set_port(random.random_range(0..99)),
            _ => {}
        }
        let mut packet = Packet::tcp(client(random, v4), to);
        packet.body = match service.protocol {
            _ if random.random_range(0..24) == 0 => {
                let any = random.random();
                Body::Other(pick(random, &[1, 58, 132, 47, any]))
            }
            6 => Body::Tcp(pick(
                random,
                &[0x02, 0x02, 0x10, 0x10, 0x18, 0x12, 0x11, 0x04, 0xc2],
            )),
            _ => pick_body(random),
        };
        packet.sequence = random.random_range(0..4);
        let length = match random.random_range(0..32) {
            0 => random.random_range(0..2000),
            1 => pick(
                random,
                &[1380, 1400, 1412, 1420, 1432, 1440, 1452, 1460, 1472, 456],
            ),
            _ => random.random_range(0..48),
        };
        packet = packet.filled(length);
        if matches!(packet.body, Body::Udp | Body::UdpUnchecked) && random.random() {
            packet.payload = quic(random);
        }
        dress(random, packet)
    }

    /// A packet from a backend, or to an address of the pool.
    fn reply(&self, random: &mut StdRng) -> Packet {
        let from = *self.drawn.backends.choose(random).expect("a backend");
        let of_family = |address: &&IpAddr| address.is_ipv4() == from.is_ipv4();
        let pool: Vec<IpAddr> = self.drawn.pool.iter().filter(of_family).copied().collect();
        let to = match pool.choose(random) {
            Some(&address) if random.random() => {
                SocketAddr::new(address, 1024 + random.random_range(0..300))
            }
            _ => client(random, from.is_ipv4()),
        };
        let mut packet = Packet::tcp(from, to);
        packet.body = if random.random() {
            Body::Tcp(0x10)
        } else {
            pick_body(random)
        };
        dress(random, packet)
    }

    /// A part of a packet, with one of few identifications.
    fn fragment(&self, random: &mut StdRng) -> Vec<u8> {
        let mut packet = self.packet(random);
        packet.payload.resize(packet.payload.len().max(40), 7);
        let length = packet.segment().len();
        let from = 8 * random.random_range(0..length / 8);
        let first = random.random();
        let range = if first { 0..from.max(8) } else { from..length };
        packet.fragment(range, random.random_range(0..16))
    }

    /// An ICMP error about a packet that was sent, or about one that would have been.
    fn error(&self, random: &mut StdRng) -> Vec<u8> {
        let about = match self.sent.choose(random) {
            Some(sent) if random.random() => sent.clone(),
            _ => {
                let packet = self.packet(random).bytes();
                answer(random, &packet)
            }
        };
        let Some(ip) = about.get(14..).filter(|ip| ip.len() >= 40) else {
            return about;
        };
        let v4 = ip[0] >> 4 == 4;
        let to: IpAddr = if v4 {
            <[u8; 4]>::try_from(&ip[12..16]).expect("four bytes").into()
        } else {
            <[u8; 16]>::try_from(&ip[8..24])
                .expect("sixteen bytes")
                .into()
        };
        let quoted = &ip[..ip.len().min(pick(random, &[20, 28, 40, 48, 64, 576]))];
        let (kind, code) = if v4 {
            pick(
                random,
                &[
                    (3, 4),
                    (3, 1),
                    (3, 3),
                    (11, 0),
                    (12, 0),
                    (5, 0),
                    (8, 0),
                    (0, 0),
                ],
            )
        } else {
            pick(
                random,
                &[(2, 0), (1, 4), (1, 0), (3, 0), (4, 1), (128, 0), (129, 0)],
            )
        };
        let message = [&[kind, code, 0, 0, 0, 0, 5, 0xa0], quoted].concat();
        let packet = Packet::tcp(client(random, v4), SocketAddr::new(to, 0))
            .body(Body::Other(if v4 { 1 } else { 58 }))
            .payload(&message);
        if packet.source.is_ipv4() == packet.destination.is_ipv4() {
            dress(random, packet).bytes()
        } else {
            about
        }
    }

    /// A captured frame, half of the time sent to a service.
    fn captured(&self, random: &mut StdRng) -> Vec<u8> {
        let mut bytes = self.corpus.0.choose(random).expect("a frame").clone();
        let service = self.drawn.services.choose(random).expect("a service");
        if random.random() {
            return bytes;
        }
        match (bytes.get(12..14), service.at.ip()) {
            (Some([0x08, 0x00]), IpAddr::V4(vip)) => {
                if let Some(to) = bytes.get_mut(30..34) {
                    to.copy_from_slice(&vip.octets());
                }
                if let Some(port) = bytes.get_mut(36..38) {
                    port.copy_from_slice(&service.at.port().to_be_bytes());
                }
            }
            (Some([0x86, 0xdd]), IpAddr::V6(vip)) => {
                if let Some(to) = bytes.get_mut(38..54) {
                    to.copy_from_slice(&vip.octets());
                }
                if let Some(port) = bytes.get_mut(56..58) {
                    port.copy_from_slice(&service.at.port().to_be_bytes());
                }
            }
            _ => {}
        }
        bytes
    }
}

/// Tags, classes, hops, options, extension headers and padding.
fn dress(random: &mut StdRng, mut packet: Packet) -> Packet {
    for _ in 0..random.random_range(0..9usize).saturating_sub(5) {
        packet
            .tags
            .push((pick(random, &[VLAN, SERVICE_VLAN]), random.random()));
    }
    if random.random_range(0..4) == 0 {
        packet.class = random.random();
        packet.label = random.random_range(0..1 << 20);
        packet.hops = pick(random, &[0, 1, 2, 3, 255]);
        packet.id = random.random();
        packet.whole = random.random();
    }
    if random.random_range(0..8) == 0 {
        packet.padding = random.random_range(0..24);
    }
    if random.random_range(0..12) == 0 {
        packet.options = vec![1; 4 * random.random_range(0..=10)];
        for _ in 0..random.random_range(0..5) {
            let number = pick(random, &[0, 43, 44, 51, 60]);
            let units = random.random_range(0..3u8);
            let length = if number == 44 {
                8
            } else {
                8 * (usize::from(units) + 1)
            };
            let mut header = vec![0; length];
            header[1] = if number == 44 { 0 } else { units };
            packet.extensions.push((number, header));
        }
    }
    packet
}

fn pick_body(random: &mut StdRng) -> Body {
    if random.random_range(0..4) == 0 {
        Body::UdpUnchecked
    } else {
        Body::Udp
    }
}

/// A QUIC packet whose connection ID may name a backend.
fn quic(random: &mut StdRng) -> Vec<u8> {
    let rotation = random.random_range(0..8u8) << 5;
    let id = [
        rotation,
        random.random_range(0..8),
        0,
        0,
        0,
        random.random(),
    ];
    if random.random() {
        [&[0x43], &id[..], b"payload"].concat()
    } else {
        [
            b"\xc3\0\0\0\x01",
            &[random.random_range(0..9u8)][..],
            &id,
            b"payload",
        ]
        .concat()
    }
}

/// A frame from the end that another was sent to: addresses and ports change places.
fn answer(random: &mut StdRng, sent: &[u8]) -> Vec<u8> {
    let mut bytes = sent.to_vec();
    let (at, words) = match bytes.get(12..14) {
        Some([0x08, 0x00]) if bytes.len() >= 38 => (26, 4),
        Some([0x86, 0xdd]) if bytes.len() >= 58 => (22, 16),
        _ => return bytes,
    };
    let ports = at + 2 * words;
    for nth in 0..words {
        bytes.swap(at + nth, at + words + nth);
    }
    bytes.swap(ports, ports + 2);
    bytes.swap(ports + 1, ports + 3);
    // Where it is TCP: its flags.
    if random.random()
        && let Some(flags) = bytes.get_mut(ports + 13)
    {
        *flags = pick(random, &[0x10, 0x12, 0x11, 0x04]);
    }
    bytes
}

/// Changes bytes anywhere in the headers, those that decide, or the length.
fn damage(random: &mut StdRng, bytes: &mut Vec<u8>) {
    if bytes.len() <= SHORTEST {
        return;
    }
    let network = match bytes.get(12..14) {
        Some([0x81 | 0x88, _]) => 18,
        _ => 14,
    };
    match random.random_range(0..4) {
        0 => {
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(12..bytes.len().min(120));
                bytes[at] = random.random();
            }
        }
        // Version and length, total length, fragment offset, next header, hops, data offset.
        1 | 2 => {
            let at = network + pick(random, &[0, 0, 2, 3, 4, 5, 6, 7, 8, 9, 32, 52]);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = pick(
                    random,
                    &[0, 1, 0x20, 0x40, 0x45, 0x46, 0x4f, 43, 44, 51, 60, 255],
                );
            }
        }
        _ => bytes.truncate(random.random_range(SHORTEST..=bytes.len())),
    }
}
