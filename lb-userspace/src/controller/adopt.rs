//! What a start takes over from live tables.

use std::{collections::BTreeMap, net::IpAddr};

use lb_common::layout::mode;

use super::{
    Error,
    state::{BackendState, ServiceState},
};
use crate::{
    admin::proto::measured::Probes,
    balance::image::{self, Image, Numbers, Way},
    change::overrides::{Overrides, Rule},
    health::{
        agent::Agent,
        slow_start::SlowStart,
        state::{Machine, State as Health},
    },
    model::{Backend, Config, OnDown, Service},
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

/// What a start finds.
pub(super) struct Seen<'a> {
    pub(super) live: Option<&'a Image>,
    pub(super) numbers: &'a Numbers,
    pub(super) now_ms: u64,
}

/// Services as a start knows them.
///
/// # Errors
/// Where a ring is too small.
pub(super) fn services(
    filed: &Config,
    config: &Config,
    overrides: &Overrides,
    seen: &Seen<'_>,
) -> Result<Vec<ServiceState>, Error> {
    let both = filed.services.iter().zip(&config.services);
    let of = |(filed, service): (&Service, &Service)| {
        let backends = service.backends.iter();
        let backends = backends.map(|one| backend(service, one, overrides, seen));
        ServiceState::new(
            service,
            overrides.beneath(filed),
            config.data_plane.evenness.fraction(),
            backends.collect(),
            config.services.len(),
        )
    };
    both.map(of).collect()
}

fn backend(
    service: &Service,
    backend: &Backend,
    overrides: &Overrides,
    seen: &Seen<'_>,
) -> BackendState {
    let known = health(seen.live, seen.numbers, service, backend);
    let check = service.health.as_ref();
    let rule = overrides.rule(&service.name, &backend.name);
    BackendState {
        machine: check.map(|check| Machine::new(check, known)),
        probed: false,
        health_since_ms: seen.now_ms,
        last_probe: None,
        probes: Probes::default(),
        is_new: known == Health::Unknown && serves(seen.live, seen.numbers, service),
        start: SlowStart::Over,
        disabled: rule.is_some_and(Rule::cuts_flows),
        agent: service.options.agent.as_ref().map(|_| Agent::default()),
    }
}

/// A backend that is live stays so until its probes say otherwise; one that live tables left out
/// stays out.
///
/// One that serves without being in the ring is draining, unless its flows are kept while it
/// fails its probes.
fn health(live: Option<&Image>, numbers: &Numbers, service: &Service, backend: &Backend) -> Health {
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
fn serves(live: Option<&Image>, numbers: &Numbers, service: &Service) -> bool {
    live.is_some_and(|live| {
        let number = numbers.service(&service.key);
        number.is_some_and(|number| live.ring_of(number).is_some())
    })
}
