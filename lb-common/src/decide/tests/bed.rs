//! A host with two VIPs, one of each IP version, and four backends.

use std::{boxed::Box, net::SocketAddr, vec, vec::Vec};

use bytemuck::Zeroable as _;

use crate::{
    decide::process,
    flow::{self, Address},
    host::{Frame, Host},
    layout::{self, Endpoint, Far, Service, Slot, Vip, VipKey, flag, state},
    tables::Route,
    testing::Plan,
    verdict::Verdict,
    wire::{tcp, udp},
};

/// The interface that every packet comes in by, and leaves by.
pub(super) const INGRESS: u32 = 1;
/// The clients' next hop.
pub(super) const CLIENT_MACS: [u32; 3] = [0xc1, 0xc2, 0xc3];
/// The endpoint that no longer serves.
pub(super) const DEAD: u16 = 4;
/// The flow hash's offset by which, with every other key zero, each flow's hash is
/// `1234_0005_89ab_cdef`; its slot is 5.
const FLOW_KEY: u64 = 0x8182_0c36_9149_62c5;
/// How many slots each service has.
const SLOTS: u16 = 256;
/// When it is.
pub(super) const NOW: u32 = 1_000_000;

/// The host, and how its endpoints are reached.
pub(super) struct Bed {
    pub(super) host: Host,
}

/// The words of an address.
pub(super) fn words(text: &str) -> Address {
    match text.parse().unwrap() {
        std::net::IpAddr::V4(address) => flow::v4(u32::from_ne_bytes(address.octets())),
        std::net::IpAddr::V6(address) => bytemuck::cast(address.octets()),
    }
}

/// The address of a VIP, and of a client, of a family.
pub(super) fn ends(family: u8) -> (&'static str, &'static str) {
    if family == flow::V4 {
        ("203.0.113.9", "198.51.100.10")
    } else {
        ("2001:db8:c::9", "2001:db8::10")
    }
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// A segment to a VIP.
pub(super) fn to_vip(family: u8) -> Plan {
    let (client, vip) = ends(family);
    Plan::tcp(at(client, 51_000), at(vip, 80))
}

/// Puts a record into the first of its two places that is free.
fn put(table: &mut [Vip], places: [usize; 2], record: Vip) {
    let place = places
        .into_iter()
        .find(|&place| table[place].state == state::VACANT);
    table[place.expect("a free place")] = record;
}

/// The address of a backend.
pub(super) fn backend(family: u8, number: u16) -> Address {
    if family == flow::V4 {
        flow::v4(u32::from_ne_bytes([10, 0, 0, number as u8]))
    } else {
        let mut bytes = [0; 16];
        (bytes[0], bytes[15]) = (0xfd, number as u8);
        bytemuck::cast(bytes)
    }
}

impl Bed {
    /// Endpoints 1 to 4 of a mode, reached at addresses of a family; 4 no longer serves. Every
    /// slot is endpoint 1's, steady.
    pub(super) fn new(mode: u8, family: u8) -> Self {
        let mut host = Host::default();
        let mut tables: Box<layout::Tables> = bytemuck::zeroed_box();
        tables.header.flow_keys[0] = FLOW_KEY;
        tables.header.vip_keys = crate::hash::keys(7);
        tables.header.endpoint_keys = crate::hash::keys(8);
        tables.header.gue_port = 6080u16.to_be();
        for (pair, of) in [(0, flow::V4), (1, flow::V6)] {
            for (protocol, number) in [(tcp::PROTOCOL, 2 * pair), (udp::PROTOCOL, 2 * pair + 1)] {
                let (client, vip) = ends(of);
                let key = VipKey {
                    address: words(vip),
                    port: 80u16.to_be(),
                    protocol,
                    family: of,
                };
                let place = Vip {
                    key,
                    ring: number.into(),
                    slot_mask: SLOTS - 1,
                    service: number,
                    state: state::SERVING,
                    ..Vip::zeroed()
                };
                let places = tables.header.places(&key);
                put(&mut tables.vips, places, place);
                tables.services[usize::from(number)] = Service {
                    address: key.address,
                    port: key.port,
                    protocol,
                    family: of,
                    ..Service::zeroed()
                };
                host.routes.insert(
                    words(client),
                    Route::Over {
                        interface: INGRESS,
                        macs: CLIENT_MACS,
                    },
                );
            }
        }
        for number in 1..=DEAD {
            tables.endpoints[usize::from(number)] = Endpoint {
                macs: [u32::from(number), 0x0200_0000, 0x0500_0000],
                interface: INGRESS,
                mtu: 1500,
                mode,
                family,
                serves: u8::from(number != DEAD),
                ..Endpoint::zeroed()
            };
            tables.fars[usize::from(number)] = Far {
                address: backend(family, number),
                source: backend(family, 99),
            };
        }
        host.tables = Some(tables);
        host.now.set(NOW);
        let mut bed = Self { host };
        bed.slots(Slot::steady(1));
        bed
    }

    pub(super) fn tables(&mut self) -> &mut layout::Tables {
        self.host.tables.as_mut().unwrap()
    }

    /// Makes every slot of every service this one.
    pub(super) fn slots(&mut self, slot: Slot) {
        self.host.small_rings = (0..4).map(|n| (n, vec![slot; SLOTS.into()])).collect();
    }

    /// Changes each place of the VIP table that has a ring.
    pub(super) fn services(&mut self, change: impl Fn(&mut Vip)) {
        self.tables()
            .vips
            .iter_mut()
            .filter(|vip| vip.state == state::SERVING)
            .for_each(change);
    }

    /// Gives every flow a hash of its own.
    pub(super) fn hash_flows(&mut self) {
        self.tables().header.flow_keys = crate::hash::keys(9);
    }

    /// Lets endpoints be found by their addresses, and gives them a port.
    pub(super) fn nat(&mut self, port: u16) {
        let tables = self.tables();
        tables.header.nat_endpoints = 4;
        for number in 1..=DEAD {
            let endpoint = &mut tables.endpoints[usize::from(number)];
            endpoint.port = port.to_be();
            for (nth, protocol) in (0..).zip([tcp::PROTOCOL, udp::PROTOCOL]) {
                let key = VipKey {
                    address: tables.fars[usize::from(number)].address,
                    port: port.to_be(),
                    protocol,
                    family: endpoint.family,
                };
                let place = Vip {
                    key,
                    ring: number.into(),
                    service: nth + if endpoint.family == flow::V4 { 0 } else { 2 },
                    state: state::ENDPOINT,
                    ..Vip::zeroed()
                };
                let places = tables.header.endpoint_places(&key);
                put(&mut tables.by_address, places, place);
            }
        }
    }

    /// Lets mode `snat` send from these addresses, and from ports from 1024 on.
    pub(super) fn pool(&mut self, addresses: &[&str], port_mask: u16) {
        let tables = self.tables();
        let family = tables.endpoints[1].family;
        for (nth, address) in addresses.iter().enumerate() {
            tables.snat[nth] = words(address);
            for protocol in [tcp::PROTOCOL, udp::PROTOCOL] {
                let key = VipKey {
                    address: words(address),
                    port: 0,
                    protocol,
                    family,
                };
                let place = Vip {
                    key,
                    state: state::POOL,
                    ..Vip::zeroed()
                };
                let places = tables.header.places(&key);
                put(&mut tables.vips, places, place);
            }
        }
        let header = &mut tables.header;
        let count = addresses.len() as u16;
        (header.snat_v4, header.snat_v6) = if family == flow::V4 {
            (count, 0)
        } else {
            (0, count)
        };
        header.any_port_services += u32::from(count);
        header.snat_first_port = 1024;
        header.snat_port_mask = port_mask;
        self.services(|vip| vip.flags |= flag::REMEMBER);
    }

    /// Runs a frame.
    pub(super) fn run(&self, bytes: &[u8]) -> (Verdict, Vec<u8>) {
        let mut frame = Frame::new(bytes, INGRESS);
        let verdict = process(&mut frame, &self.host);
        (verdict, frame.bytes)
    }

    /// The endpoint that a packet is sent to, in a mode that rewrites nothing but MAC addresses.
    pub(super) fn went(&self, plan: &Plan) -> u16 {
        let (verdict, bytes) = self.run(&plan.bytes());
        assert_eq!(verdict, Verdict::Transmit);
        bytes[0].into()
    }
}
