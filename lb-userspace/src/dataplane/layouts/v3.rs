//! Version 3 of the tables: the types that are others since, and what they become.

use bytemuck::{Pod, Zeroable};
use lb_common::{
    flow::Address,
    layout::{
        self, ENDPOINT_PLACES, ENDPOINTS, Far, Header, RING_SLOTS, SERVICES, SMALL_RING_SLOTS,
        SNAT_ADDRESSES, Service, Tables, VIP_PLACES, Vip, version,
    },
};

use super::TablesReader;

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
    reserved: [u8; 1],
    sampled: u16,
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

pub(super) const TABLES: TablesReader = TablesReader {
    version: 3,
    size: size_of::<OldTables>(),
    slots: [RING_SLOTS, SMALL_RING_SLOTS],
    tables,
    slot: |word| layout::Slot::new(word as u16, (word >> 16) as u16),
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
    new.fars = old.fars;
    new.services = old.services;
    new.by_address = old.by_address;
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
            sampled: old.sampled,
            ..Self::zeroed()
        }
    }
}

#[cfg(all(test, not(feature = "next-layout")))]
mod tests {
    use super::*;

    /// While this version is the present one, nothing may become anything else.
    #[test]
    fn what_is_read_is_what_was_written() {
        assert_eq!(version::TABLES, TABLES.version);
        assert_eq!(TABLES.size, size_of::<Tables>());
        // Bytes that differ from their neighbours, so that a field in the wrong place shows.
        let mut written: Box<Tables> = bytemuck::zeroed_box();
        for (at, byte) in bytemuck::bytes_of_mut(&mut *written).iter_mut().enumerate() {
            *byte = (at % 251) as u8;
        }
        written.header.version = version::TABLES;
        for endpoint in &mut written.endpoints {
            endpoint.reserved = [0];
        }
        assert!((TABLES.tables)(bytemuck::bytes_of(&*written)) == written);
        let slot = layout::Slot::new(0x1234, 0xabcd);
        assert_eq!((TABLES.slot)(bytemuck::cast(slot)), slot);
    }
}
