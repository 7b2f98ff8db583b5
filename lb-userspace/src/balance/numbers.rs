//! The numbers by which kernel and controller name services and endpoints.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_common::{
    flow::Address,
    layout::{ENDPOINTS, SERVICES, Tables, VipKey},
};

use super::image::{NAMED, address, places, vip_key};
use crate::model::{Service, ServiceKey};

/// Who an endpoint is: its service's number, the family of its address, its address.
type Who = (u16, u8, Address);

/// Numbers of services and endpoints.
///
/// A number stays with what it names for as long as that is configured, so that counters go on
/// across changes and restarts. What is not configured any more leaves: it keeps its number until
/// it is [released](Numbers::release), because flows may still be remembered by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    services: BTreeMap<VipKey, u16>,
    endpoints: BTreeMap<Who, u16>,
    leaving_services: BTreeMap<VipKey, u16>,
    leaving: BTreeMap<Who, u16>,
    /// Released since numbers were last handed out.
    released_services: BTreeSet<u16>,
    released: BTreeSet<u16>,
}

/// Room that the configuration exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// More services than numbers.
    #[error(
        "more than {SERVICES} services, those that were removed and still have flows included: \
         remove some, or spread them over several hosts"
    )]
    Services,
    /// More endpoints than numbers.
    #[error(
        "more than {ENDPOINTS} pairs of service and backend, those that were removed and still \
         have flows included: remove some, or spread the services over several hosts"
    )]
    Endpoints,
    /// More backends to be found by their own address or server ID than places.
    #[error(
        "more than {NAMED} backends of mode nat and QUIC server IDs: remove some, or spread the \
         services over several hosts"
    )]
    Named,
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
        let services = (0u16..)
            .zip(&tables.services)
            .filter(|(_, service)| service.family != 0)
            .map(|(number, service)| {
                let key = VipKey {
                    address: service.address,
                    port: service.port,
                    protocol: service.protocol,
                    family: service.family,
                };
                (key, number)
            })
            .collect();
        let endpoints = (0u16..)
            .zip(tables.endpoints.iter().zip(&tables.fars))
            .filter(|(_, (endpoint, _))| endpoint.family != 0)
            .map(|(number, (e, far))| ((e.service, e.family, far.address), number))
            .collect();
        Self {
            services,
            endpoints,
            ..Self::default()
        }
    }

    /// Gives a number to each service and each of its backends. The others begin to leave.
    ///
    /// A number that was released since this was last called is not used again yet: packets on
    /// their way may still count under it.
    ///
    /// # Errors
    /// [`Full`]; the numbers are then as they were.
    pub fn assign(&mut self, configured: &[Service]) -> Result<Fresh, Full> {
        if configured.iter().map(places::named).sum::<usize>() > NAMED {
            return Err(Full::Named);
        }
        let mut fresh = Fresh::default();
        let mut leaving_services = self.leaving_services.clone();
        leaving_services.append(&mut self.services.clone());
        let mut leaving = self.leaving.clone();
        leaving.append(&mut self.endpoints.clone());

        let taken = leaving_services.values().chain(&self.released_services);
        let mut free = free(taken.copied().collect(), SERVICES);
        let mut services = BTreeMap::new();
        for service in configured {
            let key = vip_key(&service.key);
            let number = match leaving_services.remove(&key) {
                Some(number) => number,
                None => free
                    .next()
                    .inspect(|&n| fresh.services.push(n))
                    .ok_or(Full::Services)?,
            };
            services.insert(key, number);
        }
        let taken = leaving.values().chain(&self.released);
        let mut free = self::free(taken.copied().collect(), ENDPOINTS);
        let mut endpoints = BTreeMap::new();
        for service in configured {
            let of = services[&vip_key(&service.key)];
            for backend in &service.backends {
                let (address, family) = address(backend.address);
                let who = (of, family, address);
                let number = match leaving.remove(&who) {
                    Some(number) => number,
                    None => free
                        .next()
                        .inspect(|&n| fresh.endpoints.push(n))
                        .ok_or(Full::Endpoints)?,
                };
                endpoints.insert(who, number);
            }
        }
        *self = Self {
            services,
            endpoints,
            leaving_services,
            leaving,
            released_services: BTreeSet::new(),
            released: BTreeSet::new(),
        };
        Ok(fresh)
    }

    /// A configured service's number.
    pub fn service(&self, key: &ServiceKey) -> Option<u16> {
        self.services.get(&vip_key(key)).copied()
    }

    /// A configured endpoint's number.
    pub fn endpoint(&self, key: &ServiceKey, backend: IpAddr) -> Option<u16> {
        let (address, family) = address(backend);
        self.endpoints
            .get(&(self.service(key)?, family, address))
            .copied()
    }

    /// The numbers of a configured service's backends, in their order.
    ///
    /// # Panics
    /// Where the service or a backend has no number.
    pub fn of_backends(&self, service: &Service) -> Vec<u16> {
        let of = self.services[&vip_key(&service.key)];
        let number = |backend| {
            let (address, family) = address(backend);
            self.endpoints[&(of, family, address)]
        };
        service.backends.iter().map(|b| number(b.address)).collect()
    }

    /// The highest numbers of configured services and endpoints, where there are any.
    pub fn highest(&self) -> (Option<u16>, Option<u16>) {
        let highest = |numbers: &mut dyn Iterator<Item = &u16>| numbers.max().copied();
        (
            highest(&mut self.services.values()),
            highest(&mut self.endpoints.values()),
        )
    }

    /// The numbers of backends that leave a service.
    pub fn leaving_from(&self, service: u16) -> impl Iterator<Item = u16> {
        self.leaving
            .range((service, 0, Address::default())..)
            .take_while(move |((of, ..), _)| *of == service)
            .map(|(_, &number)| number)
    }

    /// All endpoints that leave.
    pub fn leaving(&self) -> impl Iterator<Item = u16> {
        self.leaving.values().copied()
    }

    /// All services that leave.
    pub fn leaving_services(&self) -> impl Iterator<Item = u16> {
        self.leaving_services.values().copied()
    }

    /// Lets those that leave go whose numbers no slot and no remembered flow names any more, and a
    /// service once its last endpoint is gone. Answers whether there were any.
    ///
    /// `named` must have been found out after they began to leave.
    pub fn release(&mut self, named: impl Fn(u16) -> bool) -> bool {
        let (released, services) = (&mut self.released, &mut self.released_services);
        let before = released.len() + services.len();
        self.leaving.retain(|_, number| {
            let stays = named(*number);
            if !stays {
                released.insert(*number);
            }
            stays
        });
        let leaving = &self.leaving;
        self.leaving_services.retain(|_, number| {
            let stays = leaving.keys().any(|(of, ..)| of == number);
            if !stays {
                services.insert(*number);
            }
            stays
        });
        self.released.len() + self.released_services.len() > before
    }
}

/// The numbers that are not taken, lowest first.
fn free(taken: BTreeSet<u16>, room: usize) -> impl Iterator<Item = u16> {
    (0..room as u16).filter(move |number| !taken.contains(number))
}
