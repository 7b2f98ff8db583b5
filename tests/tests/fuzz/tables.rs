//! Tables by chance: services of every mode and kind, some of them damaged.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use bytemuck::Zeroable as _;
use etherparse::{IpNumber, LaxNetSlice, LaxSlicedPacket, TransportSlice};
use lb_common::{
    flow::{V4, V6},
    hash,
    layout::{
        Endpoint, Far, NONE, PINNED, Slot, SourceKey, Vip, VipKey, family, flag, mode, spread,
        state,
    },
    verdict::Verdict,
};
use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::homes::{
    INGRESS,
    builder::{Builder, TCP, UDP},
    network::words,
};

/// A service that was drawn.
pub(crate) struct Service {
    pub(crate) at: SocketAddr,
    pub(crate) protocol: u8,
}

/// Tables and what is in them.
pub(crate) struct Drawn {
    pub(crate) builder: Builder,
    pub(crate) services: Vec<Service>,
    /// Backends, with the ports that they are sent to.
    pub(crate) backends: Vec<SocketAddr>,
    pub(crate) pool: Vec<IpAddr>,
    pub(crate) sources: Vec<(SourceKey, u8)>,
    /// Addresses whose packets may be changed: by their destination, by their source.
    to: BTreeSet<IpAddr>,
    from: BTreeSet<IpAddr>,
}

fn pick<T: Copy>(random: &mut StdRng, from: &[T]) -> T {
    *from.choose(random).expect("not empty")
}

/// Draws the slots of a service with these endpoints.
fn ring(random: &mut StdRng, first: u16, backends: u16) -> Vec<Slot> {
    (0..pick(random, &[256, 4096, 65_536]))
        .map(|_| {
            let one = |random: &mut StdRng| first + random.random_range(0..backends);
            match random.random_range(0..4) {
                0 => Slot::new(one(random), one(random)),
                1 => Slot::new(one(random), PINNED),
                2 if random.random_range(0..64) == 0 => Slot::steady(NONE),
                _ => Slot::steady(one(random)),
            }
        })
        .collect()
}

impl Drawn {
    pub(crate) fn new(random: &mut StdRng) -> Self {
        let mut drawn = Self {
            builder: Builder::new(hash::keys(random.random()), random.random()),
            services: Vec::new(),
            backends: Vec::new(),
            pool: Vec::new(),
            sources: Vec::new(),
            to: BTreeSet::new(),
            from: BTreeSet::new(),
        };
        drawn
            .pool
            .extend((1..=random.random_range(0..3)).map(|n| IpAddr::from([192, 0, 2, n])));
        drawn.pool.extend(
            (1..=random.random_range(0..3))
                .map(|n| IpAddr::from(Ipv6Addr::new(0x2001, 0x0db8, 5, 0, 0, 0, 0, n))),
        );
        let mask = pick(random, &[0x7, 0xff, 0x3fff]);
        drawn.builder.pool(&drawn.pool, 1024, mask);
        for number in 0..random.random_range(1..24) {
            drawn.service(random, number);
        }
        drawn.to = drawn
            .services
            .iter()
            .map(|service| service.at.ip())
            .collect();
        drawn.to.extend(&drawn.pool);
        if random.random() {
            drawn.builder.addresses();
        }
        drawn
    }

    fn service(&mut self, random: &mut StdRng, number: u16) {
        let v4: bool = random.random();
        // Now and then two services share a VIP.
        let host = number / 2 + 1;
        let vip: IpAddr = if v4 {
            Ipv4Addr::new(198, 51, 100, host as u8).into()
        } else {
            Ipv6Addr::new(0x2001, 0x0db8, 0, 0, 0, 0, 0, host).into()
        };
        let at = SocketAddr::new(vip, pick(random, &[80, 80, 443, 53, 0]));
        let protocol = pick(random, &[TCP, UDP]);
        let known = |service: &Service| service.at == at && service.protocol == protocol;
        if self.services.iter().any(known) {
            return;
        }
        let way = pick(
            random,
            &[mode::DSR, mode::IPIP, mode::GUE, mode::NAT, mode::SNAT],
        );
        let mut flags = 0;
        for (bit, one_in) in [
            (flag::SOURCES, 4),
            (flag::DENY_OTHERS, 2),
            (flag::LIMIT, 4),
            (flag::PASS_REORDERED, 2),
            (flag::NO_FRAGMENTS, 8),
        ] {
            if random.random_range(0..one_in) == 0 {
                flags |= bit;
            }
        }
        if protocol == UDP && random.random_range(0..3) == 0 {
            flags |= flag::QUIC;
        }
        if way == mode::SNAT || protocol == UDP && random.random() {
            flags |= flag::REMEMBER;
        }
        let place = Vip {
            state: match random.random_range(0..20) {
                0 => state::EMPTY_DROP,
                1 => state::EMPTY_PASS,
                2 => random.random(),
                _ => state::SERVING,
            },
            spread: pick(
                random,
                &[spread::FLOW, spread::FLOW, spread::SOURCE, spread::PORT],
            ),
            flags,
            ..Vip::zeroed()
        };
        let first = self.builder.endpoints + 1;
        let backends = random.random_range(1..6);
        let slots = ring(random, first, backends);
        let service = self.builder.service(at, protocol, place, &slots);
        if random.random_range(0..24) == 0 {
            self.builder.vip_mut(service).ring = 4000;
        }
        let record = self.builder.service_mut(service);
        // No rate: the two homes read their clocks one after the other.
        record.burst = random.random_range(0..4);
        record.sources = u32::from(service) + 1;
        record.server_id = if flags & flag::QUIC != 0 {
            random.random_range(1..4)
        } else {
            0
        };
        let server_id = record.server_id;
        for _ in 0..backends {
            self.endpoint(random, service, way, v4);
        }
        if server_id > 0 {
            for nth in 0..backends {
                let key = VipKey {
                    address: [u32::from(nth as u8), 0, 0, 0],
                    port: service,
                    protocol: server_id,
                    family: family::QUIC,
                };
                self.builder.find_by(key, first + nth, service);
            }
        }
        self.lists(random, service);
        self.services.push(Service { at, protocol });
    }

    /// Draws the list of sources of a service.
    fn lists(&mut self, random: &mut StdRng, service: u16) {
        let lists: [(IpAddr, u32, bool); 5] = [
            (IpAddr::from([203, 0, 113, 8]), 30, random.random()),
            (IpAddr::from([203, 0, 113, 9]), 32, random.random()),
            (IpAddr::from([0, 0, 0, 0]), 1, random.random()),
            (
                "2001:db8:c::".parse().expect("an address"),
                64,
                random.random(),
            ),
            (
                "2001:db8:c::9".parse().expect("an address"),
                128,
                random.random(),
            ),
        ];
        for (address, bits, allowed) in lists {
            let words = words(address);
            let address_of = if address.is_ipv4() {
                [words[3], 0, 0, 0]
            } else {
                words
            };
            let key = SourceKey {
                prefix: 64 + bits,
                list: u32::from(service) + 1,
                family: if address.is_ipv4() { V4 } else { V6 }.into(),
                address: address_of,
            };
            self.sources.push((key, u8::from(allowed)));
        }
    }

    fn endpoint(&mut self, random: &mut StdRng, service: u16, way: u8, v4: bool) {
        let tunnel = matches!(way, mode::IPIP | mode::GUE);
        let outer_v4 = if tunnel { random.random() } else { v4 };
        let last = self.builder.endpoints + 1;
        let address: IpAddr = if outer_v4 {
            Ipv4Addr::new(10, 0, (last >> 8) as u8, last as u8).into()
        } else {
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).into()
        };
        let own = if outer_v4 { "10.9.9.9" } else { "fd09::9" };
        let port = if tunnel || way == mode::DSR {
            0
        } else {
            pick(random, &[8080, 0])
        };
        let endpoint = Endpoint {
            macs: [
                0x0000_0006 | u32::from(last) << 16,
                0x0002_0000,
                0x0100_0000,
            ],
            interface: if random.random_range(0..8) == 0 {
                9
            } else {
                INGRESS
            },
            entropy: pick(random, &[0, 0xff00_0000, u32::MAX]),
            service,
            port: u16::to_be(port),
            mtu: pick(random, &[1500, 1500, 576, 9000]),
            mode: if random.random_range(0..16) == 0 {
                mode::UNRESOLVED
            } else {
                way
            },
            family: if outer_v4 { V4 } else { V6 },
            serves: u8::from(random.random_range(0..6) != 0),
            ..Endpoint::zeroed()
        };
        let far = Far {
            address: words(address),
            source: words(own.parse().expect("an address")),
        };
        self.builder.endpoint(endpoint, far);
        self.backends
            .push(SocketAddr::new(address, if port == 0 { 80 } else { port }));
        if endpoint.mode == mode::NAT {
            self.from.insert(address);
        }
    }

    /// Checks what must be so whatever the tables are, as far as another parser understands the
    /// frame: what is none of ours passes untouched, and nothing is cut short but by an answer.
    pub(crate) fn check(&self, frame: &[u8], verdict: Verdict, after: &[u8]) {
        let parsed = LaxSlicedPacket::from_ethernet(frame).ok();
        let ends = parsed
            .as_ref()
            .and_then(|packet| match packet.net.as_ref()? {
                LaxNetSlice::Ipv4(ip) => Some((
                    IpAddr::from(ip.header().source()),
                    IpAddr::from(ip.header().destination()),
                    ip.payload().ip_number,
                )),
                LaxNetSlice::Ipv6(ip) => Some((
                    IpAddr::from(ip.header().source()),
                    IpAddr::from(ip.header().destination()),
                    ip.payload().ip_number,
                )),
                LaxNetSlice::Arp(_) => None,
            });
        // A header that is cut within its options, or damaged: by what stands in its place.
        let named = || {
            [14, 18, 22].into_iter().any(|at| {
                let stands = |at: usize, length| frame.get(at..at + length);
                self.to.iter().any(|address| match address {
                    IpAddr::V4(vip) => stands(at + 16, 4) == Some(&vip.octets()),
                    IpAddr::V6(vip) => stands(at + 24, 16) == Some(&vip.octets()),
                })
            })
        };
        let ours = ends.map_or_else(named, |(source, destination, protocol)| {
            // An error from a router on the way to a backend is addressed to the client.
            // The other parser may not find it behind extension headers.
            let error = matches!(protocol, IpNumber::ICMP | IpNumber::IPV6_ICMP)
                || destination.is_ipv6() && !matches!(protocol, IpNumber::TCP | IpNumber::UDP);
            self.to.contains(&destination) || self.from.contains(&source) || error
        });
        if !ours {
            assert!(
                matches!(verdict, Verdict::Pass(_)),
                "{verdict:?}: {frame:02x?}"
            );
            assert_eq!(after, frame, "a packet that is none of ours: {verdict:?}");
        }
        if after.len() < frame.len() {
            let answer = LaxSlicedPacket::from_ethernet(after).expect("a frame");
            let icmp = matches!(
                answer.transport,
                Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_))
            );
            assert!(
                icmp && verdict == Verdict::Transmit,
                "{verdict:?}: {frame:02x?} became shorter"
            );
        }
        if matches!(verdict, Verdict::Drop(_)) {
            assert_eq!(
                after, frame,
                "a packet that is dropped need not be written to"
            );
        }
    }
}
