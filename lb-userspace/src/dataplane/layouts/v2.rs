//! Version 2 of tables and flows: the types that are others since, and what they become.

use bytemuck::{Pod, Zeroable};
use lb_common::{
    flow::Address,
    layout::{
        self, Far, Header, RING_SLOTS, SERVICES, SMALL_RING_SLOTS, SNAT_ADDRESSES, Service, Tables,
        VIP_PLACES, Vip, version,
    },
};

use super::TablesReader;
#[cfg(feature = "next-layout")]
use super::{FlowsReader, entries};
use crate::balance::image;

const ENDPOINTS: usize = 1 << 14;
const ENDPOINT_PLACES: usize = 1 << 15;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Endpoint {
    macs: [u32; 3],
    interface: u32,
    entropy: u32,
    service: u16,
    port: u16,
    mtu: u16,
    mode: u8,
    family: u8,
    serves: u8,
    reserved: [u8; 3],
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct OldTables {
    header: Header,
    vips: [Vip; VIP_PLACES],
    endpoints: [Endpoint; ENDPOINTS],
    fars: [Far; ENDPOINTS],
    services: [Service; SERVICES],
    by_address: [Vip; ENDPOINT_PLACES],
    snat: [Address; SNAT_ADDRESSES],
}

#[cfg(any(test, feature = "next-layout"))]
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(8))]
struct FlowEntry {
    other: Address,
    other_port: u16,
    endpoint: u16,
    seen: u32,
    service: u16,
    flags: u16,
    slot: u16,
    vip_port: u16,
}

pub(super) const TABLES: TablesReader = TablesReader {
    version: 2,
    size: size_of::<OldTables>(),
    slots: [RING_SLOTS, SMALL_RING_SLOTS],
    tables,
    slot: |word| layout::Slot::new(word as u16, (word >> 16) as u16),
};

#[cfg(feature = "next-layout")]
pub(super) const FLOWS: FlowsReader = FlowsReader {
    version: 2,
    entries: entries::<FlowEntry>,
};

fn tables(bytes: &[u8]) -> Box<Tables> {
    let mut old: Box<OldTables> = bytemuck::zeroed_box();
    bytemuck::bytes_of_mut(&mut *old).copy_from_slice(bytes);
    let mut new: Box<Tables> = bytemuck::zeroed_box();
    new.header = Header {
        version: version::TABLES,
        ..old.header
    };
    new.vips = old.vips;
    for (new, old) in new.endpoints.iter_mut().zip(old.endpoints) {
        *new = old.into();
    }
    new.fars[..ENDPOINTS].copy_from_slice(&old.fars);
    new.services = old.services;
    // There are more places since, so every key has others.
    let records: Vec<Vip> = image::occupied(&old.by_address).copied().collect();
    image::place_endpoints(&mut new.header, &mut new.by_address, &records);
    new.snat = old.snat;
    new
}

impl From<Endpoint> for layout::Endpoint {
    fn from(old: Endpoint) -> Self {
        Self {
            macs: old.macs,
            interface: old.interface,
            entropy: old.entropy,
            service: old.service,
            port: old.port,
            mtu: old.mtu,
            mode: old.mode,
            family: old.family,
            serves: old.serves,
            ..Self::zeroed()
        }
    }
}

#[cfg(any(test, feature = "next-layout"))]
impl From<FlowEntry> for layout::FlowEntry {
    fn from(old: FlowEntry) -> Self {
        Self {
            other: old.other,
            other_port: old.other_port,
            endpoint: old.endpoint,
            seen: old.seen,
            service: old.service,
            flags: old.flags,
            slot: old.slot,
            vip_port: old.vip_port,
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{
        flow,
        layout::{VipKey, mode, state},
    };

    use super::*;

    #[test]
    fn records_and_the_places_of_endpoints_are_carried_over() {
        let mut old: Box<OldTables> = bytemuck::zeroed_box();
        old.header.version = 2;
        old.header.generation = 7;
        let keys: Vec<VipKey> = (0..3_000)
            .map(|n| VipKey {
                address: [0, 0, 0, n],
                port: 80,
                protocol: 6,
                family: flow::V4,
            })
            .collect();
        for (n, key) in (0..).zip(&keys) {
            // In no order: what was hashed to a place then is not by now.
            old.by_address[n * 7] = Vip {
                key: *key,
                ring: n as u32,
                state: state::ENDPOINT,
                ..Vip::zeroed()
            };
            old.endpoints[n] = Endpoint {
                interface: n as u32,
                mode: mode::NAT,
                family: flow::V4,
                serves: 1,
                ..Endpoint::zeroed()
            };
            old.fars[n].address = key.address;
        }
        let new = (TABLES.tables)(bytemuck::bytes_of(&*old));
        assert_eq!(
            (new.header.version, new.header.generation),
            (version::TABLES, 7)
        );
        for (n, key) in keys.iter().enumerate() {
            let places = new.header.endpoint_places(key).map(|at| new.by_address[at]);
            let found = places.iter().find(|place| place.key == *key);
            assert_eq!(found.map(|place| place.ring), Some(n as u32));
            let endpoint = &new.endpoints[n];
            assert_eq!((endpoint.interface, endpoint.serves), (n as u32, 1));
            assert_eq!((endpoint.sampled, new.fars[n].address), (0, key.address));
        }
    }

    /// While this version of the flows is the present one, nothing may become anything else.
    #[cfg(not(feature = "next-layout"))]
    #[test]
    fn flows_are_read_as_they_were_written() {
        assert_eq!(version::FLOWS, 2);
        let bytes: [u8; 32] = std::array::from_fn(|at| at as u8 + 1);
        let entry: FlowEntry = bytemuck::cast(bytes);
        assert_eq!(
            layout::FlowEntry::from(entry),
            bytemuck::cast::<_, layout::FlowEntry>(bytes)
        );
    }
}
