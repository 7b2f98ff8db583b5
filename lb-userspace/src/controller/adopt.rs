//! What a start takes over from live tables.

use std::{collections::BTreeMap, net::IpAddr};

use lb_common::{flow, layout::mode};

use crate::{
    balance::image::{Image, Numbers, Way},
    health::state::State as Health,
    model::{Backend, OnDown, Service},
};

/// The ways that live tables send packets by.
pub(super) fn ways(live: &Image) -> BTreeMap<IpAddr, Way> {
    let endpoints = live
        .tables
        .endpoints
        .iter()
        .zip(&live.tables.fars)
        .filter(|(e, _)| e.mode != mode::UNRESOLVED);
    endpoints
        .map(|(endpoint, far)| {
            let macs: [u8; 12] = bytemuck::cast(endpoint.macs);
            let mut way = Way {
                interface: endpoint.interface,
                source: [0; 6],
                destination: [0; 6],
            };
            way.destination.copy_from_slice(&macs[..6]);
            way.source.copy_from_slice(&macs[6..]);
            (ip(endpoint.family, far.address), way)
        })
        .collect()
}

fn ip(family: u8, address: flow::Address) -> IpAddr {
    if family == flow::V4 {
        IpAddr::from(address[3].to_ne_bytes())
    } else {
        IpAddr::from(bytemuck::cast::<_, [u8; 16]>(address))
    }
}

/// A backend that is live stays so until its probes say otherwise; one that live tables left out
/// stays out.
///
/// One that serves without being in the ring is draining, unless its flows are kept while it
/// fails its probes.
pub(super) fn health(
    live: Option<&Image>,
    numbers: &Numbers,
    service: &Service,
    backend: &Backend,
) -> Health {
    let known = live.and_then(|live| {
        let number = numbers.endpoint(&service.key, backend.address)?;
        let record = live.tables.endpoints[usize::from(number)];
        if record.family == 0 {
            return None;
        }
        let ring = live.ring_of(numbers.service(&service.key)?);
        let owns = ring.is_some_and(|ring| ring.iter().any(|slot| slot.owner() == number));
        let drains = backend.weight.number() == 0 || service.on_down == OnDown::Rehash;
        Some(owns || record.serves != 0 && record.mode != mode::UNRESOLVED && drains)
    });
    match known {
        Some(true) => Health::Up,
        Some(false) => Health::Down,
        None => Health::Unknown,
    }
}
