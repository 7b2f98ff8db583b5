//! The kernel's tables as a value: built from a plan, published, read back and compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use bytemuck::Zeroable as _;
use lb_common::{
    flow::{self, Address},
    hash,
    layout::{
        self, ENDPOINTS, Endpoint, Far, SERVICES, Slot, Tables, Vip, VipKey, mode, spread, state,
    },
};

use crate::model::{Mode, OnEmpty, Service, ServiceKey, ServicePort};

/// Everything that the kernel forwards by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The tables.
    pub tables: Box<Tables>,
    /// The rings that the tables name, each as long as its service's ring.
    pub rings: BTreeMap<u32, Arc<[Slot]>>,
}

/// The layer-2 way to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The index of the interface that frames leave by.
    pub interface: u32,
    /// The MAC address of that interface.
    pub source: [u8; 6],
    /// The MAC address of the next hop.
    pub destination: [u8; 6],
}

/// What a service's part of the image is made from.
#[derive(Clone, Debug)]
pub struct ServicePlan<'a> {
    /// The service.
    pub service: &'a Service,
    /// The owner of each slot, by the index of the backend; `None` without a usable backend.
    pub owners: Option<Box<[u16]>>,
    /// The way to each backend, where it is known.
    pub ways: Vec<Option<Way>>,
}

/// The numbers by which kernel and controller name services and endpoints.
///
/// A number stays with what it names for as long as that is configured, so that counters go on
/// across changes and restarts.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    services: BTreeMap<VipKey, u16>,
    endpoints: BTreeMap<(u16, u8, Address), u16>,
}

/// Room that the configuration exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// More services than numbers.
    #[error("more than {SERVICES} services: remove some, or spread them over several hosts")]
    Services,
    /// More endpoints than numbers.
    #[error(
        "more than {ENDPOINTS} pairs of service and backend, those being replaced included: \
         remove some, or spread the services over several hosts"
    )]
    Endpoints,
}

/// Numbers that were handed out, which had named something else before or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fresh {
    /// Services.
    pub services: Vec<u16>,
    /// Endpoints.
    pub endpoints: Vec<u16>,
}

impl Numbers {
    /// Takes the numbers over that live tables use.
    #[must_use]
    pub fn adopt(tables: &Tables) -> Self {
        let services = vips(tables).map(|vip| (vip.key, vip.service)).collect();
        let endpoints = (0u16..)
            .zip(tables.endpoints.iter().zip(&tables.fars))
            .filter(|(_, (endpoint, _))| endpoint.family != 0)
            .map(|(number, (e, far))| ((e.service, e.family, far.address), number))
            .collect();
        Self {
            services,
            endpoints,
        }
    }

    /// Gives a number to each service and each of its backends, and forgets the others.
    ///
    /// A number that something else had until now is not used again yet: packets on their way
    /// may still count under it.
    ///
    /// # Errors
    /// [`Full`]; the numbers are then as they were.
    pub fn assign(&mut self, configured: &[Service]) -> Result<Fresh, Full> {
        let mut fresh = Fresh::default();
        let mut next = Self::default();
        let mut free = free(self.services.values().copied().collect(), SERVICES);
        for service in configured {
            let key = vip_key(&service.key);
            let number = match self.services.get(&key) {
                Some(&number) => number,
                None => free
                    .next()
                    .inspect(|&n| fresh.services.push(n))
                    .ok_or(Full::Services)?,
            };
            next.services.insert(key, number);
        }
        let mut free = self::free(self.endpoints.values().copied().collect(), ENDPOINTS);
        for service in configured {
            let of = next.services[&vip_key(&service.key)];
            for backend in &service.backends {
                let (address, family) = address(backend.address);
                let key = (of, family, address);
                let number = match self.endpoints.get(&key) {
                    Some(&number) => number,
                    None => free
                        .next()
                        .inspect(|&n| fresh.endpoints.push(n))
                        .ok_or(Full::Endpoints)?,
                };
                next.endpoints.insert(key, number);
            }
        }
        *self = next;
        Ok(fresh)
    }

    /// A service's number, once assigned.
    pub fn service(&self, key: &ServiceKey) -> Option<u16> {
        self.services.get(&vip_key(key)).copied()
    }

    /// An endpoint's number, once assigned.
    pub fn endpoint(&self, key: &ServiceKey, backend: IpAddr) -> Option<u16> {
        let (address, family) = address(backend);
        self.endpoints
            .get(&(self.service(key)?, family, address))
            .copied()
    }
}

/// The numbers that are not taken, lowest first.
fn free(taken: BTreeSet<u16>, room: usize) -> impl Iterator<Item = u16> {
    (0..room as u16).filter(move |number| !taken.contains(number))
}

/// The VIPs of a table, in no order.
pub fn vips(tables: &Tables) -> impl Iterator<Item = &Vip> {
    tables.vips.iter().filter(|vip| vip.key.family != 0)
}

impl Image {
    /// Builds the image that follows `live`.
    ///
    /// A ring that `live` has already keeps its number; one that differs goes to the other of
    /// its service's two, so that packets on their way still find the old one.
    ///
    /// # Panics
    /// Where a service or backend of the plan has no number.
    #[must_use]
    pub fn build(
        plans: &[ServicePlan<'_>],
        numbers: &Numbers,
        hash_seed: u64,
        live: Option<&Self>,
    ) -> Self {
        let mut tables: Box<Tables> = bytemuck::zeroed_box();
        let mut rings = BTreeMap::new();
        let mut places = Vec::with_capacity(plans.len());
        for plan in plans {
            let key = vip_key(&plan.service.key);
            let service = numbers.services[&key];
            let ends: Vec<u16> = plan
                .service
                .backends
                .iter()
                .map(|backend| {
                    let (address, family) = address(backend.address);
                    numbers.endpoints[&(service, family, address)]
                })
                .collect();
            for ((backend, way), &end) in plan.service.backends.iter().zip(&plan.ways).zip(&ends) {
                let number = usize::from(end);
                (tables.endpoints[number], tables.fars[number]) =
                    endpoint(service, backend.address, plan.service.mode, *way);
            }
            let mut vip = Vip {
                key,
                ring: 0,
                slot_mask: (plan.service.ring_slots.count() - 1) as u16,
                service,
                state: match plan.service.on_empty {
                    OnEmpty::Drop => state::EMPTY_DROP,
                    OnEmpty::Pass => state::EMPTY_PASS,
                },
                spread: spread::FLOW,
                flags: 0,
            };
            if let Some(owners) = &plan.owners {
                let slots: Arc<[Slot]> = owners
                    .iter()
                    .map(|&owner| Slot::steady(ends[usize::from(owner)]))
                    .collect();
                let (number, slots) = place(service, slots, live);
                vip.state = state::SERVING;
                vip.ring = number;
                rings.insert(number, slots);
            }
            places.push(vip);
        }
        tables.header.version = layout::VERSION;
        tables.header.any_port_services =
            places.iter().filter(|vip| vip.key.port == 0).count() as u32;
        tables.header.generation = live.map_or(0, |live| live.tables.header.generation) + 1;
        tables.header.flow_keys = hash::keys(hash_seed);
        super::vips::fill(&mut tables.header, &mut tables.vips, &places);
        Self { tables, rings }
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
    }

    /// The ring of a service, by its number; `None` where it has none.
    pub fn ring_of(&self, service: u16) -> Option<&Arc<[Slot]>> {
        let vip = vips(&self.tables).find(|vip| vip.service == service)?;
        (vip.state == state::SERVING).then(|| self.rings.get(&vip.ring))?
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

fn endpoint(service: u16, backend: IpAddr, how: Mode, way: Option<Way>) -> (Endpoint, Far) {
    let (address, family) = address(backend);
    let far = Far {
        address,
        source: Address::zeroed(),
    };
    let bare = Endpoint {
        service,
        family,
        mode: mode::UNRESOLVED,
        serves: 1,
        ..Endpoint::zeroed()
    };
    let Some(way) = way else {
        return (bare, far);
    };
    let mut macs = [0u8; 12];
    macs[..6].copy_from_slice(&way.destination);
    macs[6..].copy_from_slice(&way.source);
    let resolved = Endpoint {
        macs: bytemuck::cast(macs),
        interface: way.interface,
        mode: match how {
            Mode::Dsr => mode::DSR,
        },
        ..bare
    };
    (resolved, far)
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
