//! The kernel's tables as a value: built from a plan, published, read back and compared.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use bytemuck::Zeroable as _;
use lb_common::{
    flow::{self, Address},
    hash,
    layout::{self, Endpoint, Far, SERVICES, Slot, Tables, Vip, VipKey, mode, spread, state},
};

pub use super::numbers::{Fresh, Full, Numbers};
use super::transition::Live;
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
    /// What leaves keeps the records that `live` has of it.
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
            let service = numbers
                .service(&plan.service.key)
                .expect("a service of the plan has a number");
            let ends = numbers.of_backends(plan.service);
            let ways = plan.ways.iter().zip(&plan.serves);
            for ((backend, (way, serves)), &end) in
                plan.service.backends.iter().zip(ways).zip(&ends)
            {
                let number = usize::from(end);
                (tables.endpoints[number], tables.fars[number]) =
                    endpoint(service, backend.address, plan.service.mode, *way);
                tables.endpoints[number].serves = u8::from(*serves);
            }
            tables.services[usize::from(service)] = layout::Service {
                address: key.address,
                port: key.port,
                protocol: key.protocol,
                family: key.family,
                changed: plan.changed,
                ..layout::Service::zeroed()
            };
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
            if let Some(slots) = &plan.slots {
                let (number, slots) = place(service, Arc::clone(slots), live);
                vip.state = state::SERVING;
                vip.ring = number;
                vip.slot_mask = (slots.len() - 1) as u16;
                rings.insert(number, slots);
            }
            places.push(vip);
        }
        if let Some(live) = live {
            keep_leaving(&mut tables, &live.tables, numbers);
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

    /// The ring of a service, by its number; `None` where it has none.
    pub fn ring_of(&self, service: u16) -> Option<&Arc<[Slot]>> {
        let vip = vips(&self.tables).find(|vip| vip.service == service)?;
        (vip.state == state::SERVING).then(|| self.rings.get(&vip.ring))?
    }
}

/// Copies the records of what is not configured any more, and may still have flows.
fn keep_leaving(tables: &mut Tables, live: &Tables, numbers: &Numbers) {
    for number in numbers.leaving().map(usize::from) {
        tables.endpoints[number] = live.endpoints[number];
        tables.fars[number] = live.fars[number];
    }
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
