//! The numbers by which kernel and controller name services and endpoints.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_common::{
    flow::Address,
    layout::{ENDPOINTS, SERVICES, Tables, VipKey},
};

use super::{
    address,
    places::{self, NAMED},
    vip_key, vips,
};
use crate::model::{Service, ServiceKey};

/// The numbers by which kernel and controller name services and endpoints.
///
/// A number stays with what it names for as long as that is configured, so that counters go on
/// across changes and restarts.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    pub(super) services: BTreeMap<VipKey, u16>,
    pub(super) endpoints: BTreeMap<(u16, u8, Address), u16>,
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
        if configured.iter().map(places::named).sum::<usize>() > NAMED {
            return Err(Full::Named);
        }
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
