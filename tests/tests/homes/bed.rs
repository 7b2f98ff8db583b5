//! The tables that the named packets meet: a service for each mode, IP version and protocol, whose
//! first backend has every slot.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use bytemuck::Zeroable as _;
use lb_common::{
    flow::{V4, V6},
    layout::{Endpoint, Far, Slot, Vip, flag, mode, state},
};

use super::{
    INGRESS,
    builder::{Builder, TCP, UDP, family},
    network::words,
};

/// The offset of the flow hash by which, with its other keys zero, every flow has one hash:
/// `1234_0005_89ab_cdef`.
const FLOW_KEY: u64 = 0x8182_0c36_9149_62c5;
/// What that hash makes of an outer IPv6 header's flow label.
pub(crate) const LABEL: u32 = 0xbcdef;
/// What it makes of the source port of GUE.
pub(crate) const GUE_PORT: u16 = 0xcdef;
/// The MAC address of the interface that frames to backends leave by.
pub(crate) const OWN: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// Where `nat` and `snat` send to.
pub(crate) const BACKEND_PORT: u16 = 8080;
/// What `snat` sends from.
pub(crate) const POOL: [&str; 2] = ["192.0.2.1", "2001:db8:5::1"];
pub(crate) const POOL_PORT: u16 = 1024;
/// Where tunnels begin.
pub(crate) const TUNNEL: [&str; 2] = ["10.9.9.9", "fd09::9"];
/// The backends of each service: all but the last serve.
pub(crate) const BACKENDS: u16 = 4;
const MTU: u16 = 1500;

/// How a service's backends are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) mode: u8,
    /// Of a tunnel, the outer IP version; otherwise that of the VIP.
    pub(crate) outer: Option<u8>,
}

const fn way(name: &'static str, mode: u8, outer: Option<u8>) -> Way {
    Way { name, mode, outer }
}

/// Every way there is.
pub(crate) const WAYS: [Way; 7] = [
    way("dsr", mode::DSR, None),
    way("ipip in IPv4", mode::IPIP, Some(V4)),
    way("ipip in IPv6", mode::IPIP, Some(V6)),
    way("gue in IPv4", mode::GUE, Some(V4)),
    way("gue in IPv6", mode::GUE, Some(V6)),
    way("nat", mode::NAT, None),
    way("snat", mode::SNAT, None),
];

/// A service of the bed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    pub(crate) number: u16,
    pub(crate) vip: SocketAddr,
    pub(crate) protocol: u8,
    pub(crate) way: Way,
    /// Its first endpoint.
    pub(crate) endpoint: u16,
}

impl Served {
    /// The IP version by which its backends are reached.
    pub(crate) fn outer(&self) -> u8 {
        self.way.outer.unwrap_or(family(self.vip.ip()))
    }

    /// The address of a backend, counted from zero.
    pub(crate) fn backend(&self, nth: u16) -> IpAddr {
        let last = nth + 1;
        if self.outer() == V4 {
            [10, 0, self.number as u8, last as u8].into()
        } else {
            Ipv6Addr::new(0xfd00, 0, self.number, 0, 0, 0, 0, last).into()
        }
    }

    /// Its next hop.
    pub(crate) fn mac(&self, nth: u16) -> [u8; 6] {
        [0x06, 0, 0, 0, self.number as u8, nth as u8 + 1]
    }
}

/// The tables and what is in them.
pub(crate) struct Bed {
    pub(crate) builder: Builder,
    pub(crate) services: Vec<Served>,
}

/// The address of a VIP, by its place among those of its IP version.
pub(crate) fn vip(family: u8, nth: u16) -> IpAddr {
    if family == V4 {
        [198, 51, 100, 10 + nth as u8].into()
    } else {
        Ipv6Addr::new(0x2001, 0x0db8, 0, 0, 0, 0, 0, 0x10 + nth).into()
    }
}

impl Bed {
    /// A service for each way, IP version and protocol.
    pub(crate) fn new() -> Self {
        let mut bed = Self::empty();
        for family in [V4, V6] {
            for (nth, way) in (0..).zip(WAYS) {
                for (protocol, port) in [(TCP, 80), (UDP, 53)] {
                    bed.serve(SocketAddr::new(vip(family, nth), port), protocol, way);
                }
            }
        }
        bed
    }

    /// No service, but addresses for `snat`.
    pub(crate) fn empty() -> Self {
        let mut flow_keys = [0; 10];
        flow_keys[0] = FLOW_KEY;
        let mut builder = Builder::new(flow_keys, 7);
        builder.pool(
            &POOL.map(|address| address.parse().expect("an address")),
            POOL_PORT,
            0x3fff,
        );
        Self {
            builder,
            services: Vec::new(),
        }
    }

    /// Adds a service with its backends.
    pub(crate) fn serve(&mut self, vip: SocketAddr, protocol: u8, way: Way) -> Served {
        let served = Served {
            number: self.builder.next_service(),
            vip,
            protocol,
            way,
            endpoint: self.builder.endpoints + 1,
        };
        let remember = if way.mode == mode::SNAT {
            flag::REMEMBER
        } else {
            0
        };
        let place = Vip {
            state: state::SERVING,
            flags: remember,
            ..Vip::zeroed()
        };
        let slots = [Slot::steady(served.endpoint); 256];
        self.builder.service(vip, protocol, place, &slots);
        let rewrites = matches!(way.mode, mode::NAT | mode::SNAT);
        let source = TUNNEL[usize::from(served.outer() == V6)];
        for nth in 0..BACKENDS {
            let mut macs = [0; 12];
            macs[..6].copy_from_slice(&served.mac(nth));
            macs[6..].copy_from_slice(&OWN);
            let endpoint = Endpoint {
                macs: bytemuck::pod_read_unaligned(&macs),
                interface: INGRESS,
                service: served.number,
                port: if rewrites { BACKEND_PORT.to_be() } else { 0 },
                mtu: MTU,
                mode: way.mode,
                family: served.outer(),
                serves: u8::from(nth + 1 < BACKENDS),
                ..Endpoint::zeroed()
            };
            let far = Far {
                address: words(served.backend(nth)),
                source: words(source.parse().expect("an address")),
            };
            self.builder.endpoint(endpoint, far);
        }
        self.services.push(served);
        served
    }

    /// Makes every slot of a service this one.
    pub(crate) fn slots(&mut self, served: &Served, slot: Slot) {
        let ring = u32::from(served.number) * 2;
        self.builder.image.rings.insert(ring, [slot; 256].into());
    }
}
