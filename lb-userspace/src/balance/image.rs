//! The kernel's tables as a value: built from a plan, published, read back and compared.

mod endpoints;
pub(super) mod places;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use lb_common::{
    flow::{self, Address},
    hash,
    layout::{self, Header, SERVICES, Slot, SourceKey, Tables, Vip, VipKey, state},
};

pub use self::{
    endpoints::{has_source, ip, records, way},
    places::NAMED,
};
pub use super::numbers::{Fresh, Full, Numbers};
use super::{cuckoo, transition::Live};
use crate::model::{Config, Service, ServiceKey, ServicePort, Snat, Sources, Tunnel};

/// Everything that the kernel forwards by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The tables.
    pub tables: Box<Tables>,
    /// The rings that the tables name, each as long as its service's ring.
    pub rings: BTreeMap<u32, Arc<[Slot]>>,
    /// The lists of sources that the tables name.
    pub lists: BTreeMap<u32, Arc<List>>,
}

/// A list of sources: its prefixes, and 1 where they are allowed.
pub type List = BTreeMap<SourceKey, u8>;

/// The layer-2 way to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The index of the interface that frames leave by.
    pub interface: u32,
    /// The MAC address of that interface.
    pub source: [u8; 6],
    /// The MAC address of the next hop.
    pub destination: [u8; 6],
    /// The largest IP packet that the interface sends, in bytes.
    pub mtu: u16,
    /// The host's own address on this way, which tunnels come from where no other is configured.
    pub address: Option<IpAddr>,
}

/// What all services have in common.
#[derive(Clone, Copy, Debug)]
pub struct Common<'a> {
    /// Seeds the flow hash.
    pub hash_seed: u64,
    /// Where mode `snat` sends from.
    pub snat: Option<&'a Snat>,
    /// How packets travel in a tunnel.
    pub tunnel: Tunnel,
}

impl<'a> Common<'a> {
    /// Nothing but the seed of the flow hash.
    #[must_use]
    pub fn seeded(hash_seed: u64) -> Self {
        Self {
            hash_seed,
            snat: None,
            tunnel: Tunnel::default(),
        }
    }

    /// What a configuration says.
    #[must_use]
    pub fn of(config: &'a Config) -> Self {
        Self {
            hash_seed: config.data_plane.hash_seed,
            snat: config.snat.as_ref(),
            tunnel: config.tunnel,
        }
    }
}

/// What a service's part of the image is made from.
#[derive(Clone, Debug)]
pub struct ServicePlan<'a> {
    /// The service.
    pub service: &'a Service,
    /// The slots, with the numbers of endpoints; `None` where nobody serves.
    pub slots: Option<Arc<[Slot]>>,
    /// When a slot last began a transition, in seconds since the epoch; zero where none is in one.
    pub changed: u64,
    /// Whether flows that are a backend's may go on, for each backend.
    pub serves: Vec<bool>,
    /// The way to each backend, where it is known.
    pub ways: Vec<Option<Way>>,
}

impl<'a> ServicePlan<'a> {
    /// A plan in which nothing is in transition and every backend serves. Owners are indices of
    /// backends.
    #[must_use]
    pub fn steady(
        service: &'a Service,
        numbers: &Numbers,
        owners: Option<&[u16]>,
        ways: Vec<Option<Way>>,
    ) -> Self {
        let ends = numbers.of_backends(service);
        let slots = owners.map(|owners| {
            let slot = |&owner: &u16| Slot::steady(ends[usize::from(owner)]);
            owners.iter().map(slot).collect()
        });
        Self {
            service,
            slots,
            changed: 0,
            serves: vec![true; service.backends.len()],
            ways,
        }
    }
}

/// The places of a table of VIPs that are services', in no order.
pub fn vips(tables: &Tables) -> impl Iterator<Item = &Vip> {
    occupied(&tables.vips).filter(|vip| !matches!(vip.state, state::ADDRESS | state::POOL))
}

/// The places of a table that hold anything.
pub fn occupied(places: &[Vip]) -> impl Iterator<Item = &Vip> {
    places.iter().filter(|place| place.key.family != 0)
}

/// Puts records of endpoints into the places of their keys, and the hash keys that allow it into
/// the header.
pub fn place_endpoints(header: &mut layout::Header, places: &mut [Vip], records: &[Vip]) {
    cuckoo::ENDPOINTS.fill(header, places, records);
}

impl Image {
    /// Builds the image that follows `live`.
    ///
    /// A ring or list that `live` has already keeps its number; one that differs goes to the other
    /// of its service's two, so that packets on their way still find the old one.
    ///
    /// What leaves keeps the records that `live` has of it.
    ///
    /// # Panics
    /// Where a service or backend of the plan has no number.
    #[must_use]
    pub fn build(
        plans: &[ServicePlan<'_>],
        numbers: &Numbers,
        common: Common<'_>,
        live: Option<&Self>,
    ) -> Self {
        let mut tables: Box<Tables> = bytemuck::zeroed_box();
        let mut rings = BTreeMap::new();
        let mut lists = BTreeMap::new();
        let mut vips = Vec::with_capacity(plans.len());
        let mut named = Vec::new();
        for plan in plans {
            let configured = plan.service;
            let service = numbers
                .service(&configured.key)
                .expect("a service of the plan has a number");
            let ends = numbers.of_backends(configured);
            let ways = plan.ways.iter().zip(&plan.serves);
            for ((backend, (way, serves)), &end) in configured.backends.iter().zip(ways).zip(&ends)
            {
                let number = usize::from(end);
                (tables.endpoints[number], tables.fars[number]) =
                    endpoints::records(service, configured, backend, *way, &common.tunnel);
                tables.endpoints[number].serves = u8::from(*serves);
                named.extend(places::endpoint(service, configured, backend, end));
            }
            let list = configured.options.sources.as_ref().map_or(0, |sources| {
                let (number, list) = listed(service, sources, live);
                lists.insert(number, list);
                number
            });
            tables.services[usize::from(service)] = layout::Service {
                changed: plan.changed,
                ..places::service(configured, list)
            };
            let mut vip = places::vip(service, configured);
            if let Some(slots) = &plan.slots {
                let (number, slots) = place(service, Arc::clone(slots), live);
                vip.state = state::SERVING;
                vip.slot_mask = (slots.len() - 1) as u16;
                vip.ring = number;
                rings.insert(number, slots);
            }
            vips.push(vip);
        }
        if let Some(live) = live {
            keep_leaving(&mut tables, &mut named, &live.tables, numbers);
        }
        fill_header(&mut tables.header, common, live);
        let header = &mut tables.header;
        let pool: Vec<Vip> = places::pool(common.snat).collect();
        let any_port = |places: &[Vip]| places.iter().filter(|vip| vip.key.port == 0).count();
        header.any_port_services =
            (any_port(&vips) + common.snat.map_or(0, |snat| snat.addresses.len())) as u32;
        let of_nat = |place: &&Vip| place.key.family != layout::family::QUIC;
        header.nat_endpoints = named.iter().filter(of_nat).count() as u32;
        header.any_port_endpoints = named
            .iter()
            .filter(of_nat)
            .filter(|place| place.key.port == 0)
            .count() as u32;
        let addresses: Vec<Vip> = places::addresses(&vips).collect();
        vips.extend(addresses.into_iter().chain(pool));
        cuckoo::VIPS.fill(header, &mut tables.vips, &vips);
        place_endpoints(header, &mut tables.by_address, &named);
        for (place, own) in tables.snat.iter_mut().zip(pool_addresses(common.snat)) {
            *place = own;
        }
        Self {
            tables,
            rings,
            lists,
        }
    }

    /// Whether both forward alike: everything but the generation agrees.
    pub fn forwards_like(&self, other: &Self) -> bool {
        let (own, others) = (&self.tables, &other.tables);
        let header = layout::Header {
            generation: others.header.generation,
            ..own.header
        };
        header == others.header
            && own.vips == others.vips
            && own.endpoints == others.endpoints
            && own.fars == others.fars
            && own.services == others.services
            && own.by_address == others.by_address
            && own.snat == others.snat
            && self.rings == other.rings
            && self.lists == other.lists
    }

    /// What packets of a service follow, by its number.
    pub fn live(&self, service: u16) -> Live<'_> {
        let record = &self.tables.services[usize::from(service)];
        match self.ring_of(service) {
            Some(slots) => Live::Ring {
                slots,
                changed: record.changed,
            },
            None if record.family == 0 => Live::Nothing,
            None => Live::Empty,
        }
    }

    /// The same with another ring of a service, under the number of the present one, and what else is
    /// answered of it; `None` where the service has none.
    ///
    /// That is no way to publish anything: packets would follow it slot by slot. It is how somebody
    /// looks who writes to the kernel's tables.
    #[must_use]
    pub fn drifted<T>(
        &self,
        service: u16,
        change: impl FnOnce(&[Slot]) -> (Vec<Slot>, T),
    ) -> Option<(Self, T)> {
        let ring = self.vip_of(service)?.ring;
        let (slots, told) = change(self.rings.get(&ring)?);
        let mut drifted = self.clone();
        drifted.rings.insert(ring, slots.into());
        Some((drifted, told))
    }

    /// The ring of a service, by its number; `None` where it has none.
    pub fn ring_of(&self, service: u16) -> Option<&Arc<[Slot]>> {
        self.rings.get(&self.vip_of(service)?.ring)
    }

    /// The record by which packets find a service that has a ring, by its number.
    fn vip_of(&self, service: u16) -> Option<&Vip> {
        let record = &self.tables.services[usize::from(service)];
        let key = VipKey {
            address: record.address,
            port: record.port,
            protocol: record.protocol,
            family: record.family,
        };
        // By its key, as packets do: a walk over all places would be one for each service.
        let places = self.tables.header.places(&key);
        let mut vips = places.iter().map(|&place| &self.tables.vips[place]);
        let vip = vips.find(|vip| vip.key == key && vip.service == service)?;
        (vip.state == state::SERVING).then_some(vip)
    }
}

/// Copies the records of what is not configured any more, and may still have flows, and the places
/// by which its replies are recognised, unless somebody else has them now.
fn keep_leaving(tables: &mut Tables, named: &mut Vec<Vip>, live: &Tables, numbers: &Numbers) {
    let leaving: BTreeSet<u16> = numbers.leaving().collect();
    for number in leaving.iter().copied().map(usize::from) {
        tables.endpoints[number] = live.endpoints[number];
        tables.fars[number] = live.fars[number];
    }
    let taken: BTreeSet<VipKey> = named.iter().map(|place| place.key).collect();
    let of_leaving = |place: &&Vip| {
        leaving.contains(&(place.ring as u16))
            && place.key.family != layout::family::QUIC
            && !taken.contains(&place.key)
    };
    named.extend(occupied(&live.by_address).filter(of_leaving).copied());
    for number in numbers.leaving_services().map(usize::from) {
        tables.services[number] = live.services[number];
        tables.services[number].changed = 0;
    }
}

/// Picks one of a service's two ring numbers.
fn place(service: u16, slots: Arc<[Slot]>, live: Option<&Image>) -> (u32, Arc<[Slot]>) {
    let first = u32::from(service) * 2;
    for number in [first, first + 1] {
        match live.and_then(|live| live.rings.get(&number)) {
            Some(same) if *same == slots => return (number, Arc::clone(same)),
            Some(_) => return (first + (number + 1) % 2, slots),
            None => {}
        }
    }
    (first, slots)
}

/// Picks one of a service's two numbers for its list of sources. Zero is no list's.
fn listed(service: u16, sources: &Sources, live: Option<&Image>) -> (u32, Arc<List>) {
    let first = u32::from(service) * 2 + 1;
    let of = |number| Arc::new(places::list(number, sources));
    for (number, other) in [(first, first + 1), (first + 1, first)] {
        if let Some(live) = live.and_then(|live| live.lists.get(&number)) {
            let list = of(number);
            return if *live == list {
                (number, Arc::clone(live))
            } else {
                (other, of(other))
            };
        }
    }
    (first, of(first))
}

/// What the header says but for counts and the keys of the tables.
fn fill_header(header: &mut Header, common: Common<'_>, live: Option<&Image>) {
    header.version = layout::version::TABLES;
    header.generation = live.map_or(0, |live| live.tables.header.generation) + 1;
    header.flow_keys = hash::keys(common.hash_seed);
    header.gue_port = common.tunnel.gue_port.get().to_be();
    if let Some(snat) = common.snat {
        let v4 = snat.addresses.iter().filter(|own| own.is_ipv4()).count();
        header.snat_v4 = v4 as u16;
        header.snat_v6 = (snat.addresses.len() - v4) as u16;
        header.snat_first_port = snat.ports.first();
        header.snat_port_mask = snat.ports.count() - 1;
    }
}

/// The addresses that `snat` sends from, those of IPv4 first.
fn pool_addresses(snat: Option<&Snat>) -> impl Iterator<Item = Address> {
    let of = move |v4: bool| {
        let addresses = snat.into_iter().flat_map(|snat| &snat.addresses);
        addresses.filter(move |own| own.is_ipv4() == v4)
    };
    of(true).chain(of(false)).map(|&own| address(own).0)
}

/// An address as the tables hold it, with its family.
#[must_use]
pub fn address(address: IpAddr) -> (Address, u8) {
    match address {
        IpAddr::V4(v4) => (flow::v4(u32::from_ne_bytes(v4.octets())), flow::V4),
        IpAddr::V6(v6) => (bytemuck::cast(v6.octets()), flow::V6),
    }
}

/// A service's key as the tables hold it.
#[must_use]
pub fn vip_key(key: &ServiceKey) -> VipKey {
    let (address, family) = address(key.vip);
    let port = match key.port {
        ServicePort::Any => 0,
        ServicePort::Exact(port) => port.get().to_be(),
    };
    VipKey {
        address,
        port,
        protocol: key.protocol.number(),
        family,
    }
}

const _: () = assert!(
    2 * SERVICES <= layout::RINGS,
    "each service needs two ring numbers"
);

#[cfg(test)]
mod tests;
