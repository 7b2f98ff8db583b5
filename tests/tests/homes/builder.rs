//! Tables put together record by record, for what no configuration comes to.

use std::net::{IpAddr, SocketAddr};

use bytemuck::Zeroable as _;
use lb_common::{
    flow::{V4, V6},
    hash::{self, FlowKeys},
    layout::{
        self, Endpoint, Far, SNAT_ADDRESSES, Service, Slot, Tables, Vip, VipKey, flag, mode, state,
    },
};
use lb_userspace::balance::image::Image;

use super::network::words;

/// Protocol numbers.
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// The family of an address.
pub(crate) const fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { V4 } else { V6 }
}

/// An image in the making.
pub(crate) struct Builder {
    pub(crate) image: Image,
    /// How many endpoints there are; their numbers begin at 1.
    pub(crate) endpoints: u16,
    services: u16,
}

/// Puts a record into the first of its two places that is free.
fn put(table: &mut [Vip], places: [usize; 2], record: Vip) {
    let place = places
        .into_iter()
        .find(|&place| table[place].state == state::VACANT)
        .expect("one of two places is free");
    table[place] = record;
}

impl Builder {
    /// Tables without a service.
    pub(crate) fn new(flow_keys: FlowKeys, seed: u64) -> Self {
        let mut tables: Box<Tables> = bytemuck::zeroed_box();
        tables.header.version = layout::version::TABLES;
        tables.header.generation = 1;
        tables.header.flow_keys = flow_keys;
        tables.header.vip_keys = hash::keys(seed);
        tables.header.endpoint_keys = hash::keys(seed ^ 1);
        tables.header.gue_port = 6080u16.to_be();
        Self {
            image: Image {
                tables,
                lists: [].into(),
                rings: [].into(),
            },
            endpoints: 0,
            services: 0,
        }
    }

    /// The number that the next service gets.
    pub(crate) const fn next_service(&self) -> u16 {
        self.services
    }

    /// Adds a service with a ring of its own; port 0 takes any. What `vip` says of the key, the
    /// ring, the service and the mask is filled in.
    pub(crate) fn service(
        &mut self,
        at: SocketAddr,
        protocol: u8,
        vip: Vip,
        slots: &[Slot],
    ) -> u16 {
        let number = self.services;
        self.services += 1;
        let tables = &mut self.image.tables;
        let key = VipKey {
            address: words(at.ip()),
            port: at.port().to_be(),
            protocol,
            family: family(at.ip()),
        };
        let record = Vip {
            key,
            ring: u32::from(number) * 2,
            slot_mask: (slots.len() - 1) as u16,
            service: number,
            ..vip
        };
        put(&mut tables.vips, tables.header.places(&key), record);
        let service = &mut tables.services[usize::from(number)];
        service.address = key.address;
        (service.port, service.protocol) = (key.port, protocol);
        service.family = key.family;
        tables.header.any_port_services += u32::from(at.port() == 0);
        self.image.rings.insert(record.ring, slots.into());
        number
    }

    /// The record of a service.
    pub(crate) fn service_mut(&mut self, number: u16) -> &mut Service {
        &mut self.image.tables.services[usize::from(number)]
    }

    /// The place of a service.
    pub(crate) fn vip_mut(&mut self, number: u16) -> &mut Vip {
        let is = |vip: &&mut Vip| {
            vip.service == number
                && vip.key.protocol != 0
                && vip.state != state::POOL
                && vip.key.family != 0
        };
        self.image.tables.vips.iter_mut().find(is).expect("a place")
    }

    /// Adds an endpoint, and where it is of mode `nat` its address.
    pub(crate) fn endpoint(&mut self, endpoint: Endpoint, far: Far) -> u16 {
        self.endpoints += 1;
        let (number, tables) = (self.endpoints, &mut self.image.tables);
        tables.endpoints[usize::from(number)] = endpoint;
        tables.fars[usize::from(number)] = far;
        if endpoint.mode == mode::NAT {
            let protocol = tables.services[usize::from(endpoint.service)].protocol;
            tables.header.nat_endpoints += 1;
            tables.header.any_port_endpoints += u32::from(endpoint.port == 0);
            let key = VipKey {
                address: far.address,
                port: endpoint.port,
                protocol,
                family: endpoint.family,
            };
            self.find_by(key, number, endpoint.service);
        }
        number
    }

    /// Lets an endpoint be found by a key of the table of endpoints.
    pub(crate) fn find_by(&mut self, key: VipKey, endpoint: u16, service: u16) {
        let tables = &mut self.image.tables;
        let record = Vip {
            key,
            ring: endpoint.into(),
            service,
            state: state::ENDPOINT,
            ..Vip::zeroed()
        };
        put(
            &mut tables.by_address,
            tables.header.endpoint_places(&key),
            record,
        );
    }

    /// Lets `snat` send from these addresses, those of IPv4 first, and from ports from one on.
    pub(crate) fn pool(&mut self, addresses: &[IpAddr], first_port: u16, port_mask: u16) {
        assert!(addresses.len() <= SNAT_ADDRESSES && addresses.is_sorted());
        let tables = &mut self.image.tables;
        for (nth, &address) in addresses.iter().enumerate() {
            tables.snat[nth] = words(address);
            for protocol in [TCP, UDP] {
                let key = VipKey {
                    address: words(address),
                    port: 0,
                    protocol,
                    family: family(address),
                };
                let record = Vip {
                    key,
                    state: state::POOL,
                    ..Vip::zeroed()
                };
                put(&mut tables.vips, tables.header.places(&key), record);
            }
        }
        let v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
        let header = &mut tables.header;
        (header.snat_v4, header.snat_v6) = (v4 as u16, (addresses.len() - v4) as u16);
        header.any_port_services += addresses.len() as u32;
        (header.snat_first_port, header.snat_port_mask) = (first_port, port_mask);
    }

    /// Marks each VIP's address, so that what has no ports is found by it.
    pub(crate) fn addresses(&mut self) {
        let tables = &mut self.image.tables;
        let serving: Vec<Vip> = tables
            .vips
            .iter()
            .filter(|vip| matches!(vip.state, state::SERVING..=state::EMPTY_PASS))
            .copied()
            .collect();
        for vip in serving {
            let key = VipKey {
                port: 0,
                protocol: 0,
                ..vip.key
            };
            let places = tables.header.places(&key);
            if places.iter().all(|&place| tables.vips[place].key != key) {
                let record = Vip {
                    key,
                    service: vip.service,
                    state: state::ADDRESS,
                    flags: vip.flags & (flag::NO_FRAGMENTS | flag::PASS_REORDERED),
                    ..Vip::zeroed()
                };
                put(&mut tables.vips, places, record);
            }
        }
    }
}
