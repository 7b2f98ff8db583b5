//! What a start takes over from live tables.

use std::{collections::BTreeMap, net::IpAddr};

use lb_common::layout::mode;

use crate::{
    balance::image::{self, Image, Numbers, Way},
    health::state::State as Health,
    model::{Backend, OnDown, Service},
};

/// The ways that live tables send packets by.
pub(super) fn ways(live: &Image) -> BTreeMap<IpAddr, Way> {
    let mut ways: BTreeMap<IpAddr, Way> = BTreeMap::new();
    for (endpoint, far) in live.tables.endpoints.iter().zip(&live.tables.fars) {
        let Some(way) = image::way(endpoint, far) else {
            continue;
        };
        let known = ways.entry(image::ip(endpoint.family, far.address));
        // Only in a tunnel do they say the host's own address.
        let known = known.or_insert(way);
        known.address = known.address.or(way.address);
    }
    ways
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
        let drains = backend.weight.number() == 0 || service.options.on_down == OnDown::Rehash;
        Some(owns || record.serves != 0 && record.mode != mode::UNRESOLVED && drains)
    });
    match known {
        Some(true) => Health::Up,
        Some(false) => Health::Down,
        None => Health::Unknown,
    }
}

/// Whether packets of a service go to anybody.
pub(super) fn serves(live: Option<&Image>, numbers: &Numbers, service: &Service) -> bool {
    live.is_some_and(|live| {
        let number = numbers.service(&service.key);
        number.is_some_and(|number| live.ring_of(number).is_some())
    })
}
