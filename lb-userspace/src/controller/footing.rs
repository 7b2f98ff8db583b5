//! What the controller stands on, so that it can be replaced as a whole.
//!
//! A footing is built beside the one in force, from copies of what is known, and takes its place
//! with one publication. Where the kernel refuses that, the old one comes back untouched.

use std::{collections::BTreeSet, mem, net::IpAddr, sync::Arc};

use super::{
    Error, Now,
    health::Watched,
    load::Load,
    state::{BackendState, ServiceState, State},
};
use crate::{
    admin::proto::measured::{Band, Probes},
    balance::{
        image::{Fresh, Numbers, Way},
        plan::Base,
    },
    change::{
        overrides::{Overrides, Rule},
        plan::Snapshot,
    },
    health::{
        driver::Report,
        slow_start::SlowStart,
        state::{Machine, State as Health},
    },
    model::{Backend, Config, HealthCheck, Service},
};

/// What is configured, and what is known of it.
pub(super) struct Footing {
    pub(super) filed: Config,
    pub(super) config: Config,
    pub(super) overrides: Overrides,
    pub(super) numbers: Numbers,
    pub(super) services: Vec<ServiceState>,
    fresh: Fresh,
}

/// What is taken for true of backends that nothing is known of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Newcomers {
    /// Nothing.
    Unknown,
    /// They are up and can be reached.
    Up,
}

/// A backend by the names in a report, and its address.
pub(super) type Newcomer = (Arc<str>, Arc<str>, IpAddr);

impl ServiceState {
    /// A service that has not been there before.
    pub(super) fn new(
        service: &Service,
        founded: Service,
        evenness: f64,
        backends: Vec<BackendState>,
        services: usize,
    ) -> Result<Self, Error> {
        let count = backends.len();
        Ok(Self {
            base: base(&founded, evenness)?,
            founded,
            starting: false,
            backends,
            slots: vec![0; count],
            band: Band::default(),
            counted: None,
            load: Load::new(count, services),
            watched: Watched::new(service),
            grounds: None,
        })
    }
}

fn base(founded: &Service, evenness: f64) -> Result<Base, Error> {
    Base::new(founded, evenness).map_err(|source| Error::Ring {
        service: founded.name.to_string(),
        source,
    })
}

/// The machine of a backend whose check may be another now. What is known of it goes on.
fn machine(
    seen: &BackendState,
    before: Option<&HealthCheck>,
    after: Option<&HealthCheck>,
) -> Option<Machine> {
    let check = after?;
    match &seen.machine {
        Some(machine) if before == after => Some(machine.clone()),
        Some(machine) => Some(Machine::new(check, machine.state())),
        // It took traffic unasked.
        None => Some(Machine::new(check, Health::Up)),
    }
}

impl State {
    /// What a configuration and overrides would be to stand on.
    ///
    /// # Errors
    /// Where they are more than fits.
    pub(super) fn footing(
        &self,
        filed: &Config,
        overrides: &Overrides,
        newcomers: Newcomers,
    ) -> Result<Footing, Error> {
        let config = overrides.over(filed);
        let mut numbers = self.numbers.clone();
        let fresh = numbers.assign(&config.services)?;
        let services = filed
            .services
            .iter()
            .zip(&config.services)
            .map(|(filed_service, service)| {
                let founded = overrides.beneath(filed_service);
                self.service_footing(&config, service, founded, overrides, newcomers)
            })
            .collect::<Result<_, Error>>()?;
        Ok(Footing {
            filed: filed.clone(),
            config,
            overrides: overrides.clone(),
            numbers,
            services,
            fresh,
        })
    }

    fn service_footing(
        &self,
        config: &Config,
        service: &Service,
        founded: Service,
        overrides: &Overrides,
        newcomers: Newcomers,
    ) -> Result<ServiceState, Error> {
        let old = self
            .config
            .services
            .iter()
            .position(|s| s.key == service.key);
        let old = old.map(|n| (&self.config.services[n], &self.services[n]));
        let serves = old.is_some_and(|(_, state)| state.slots.iter().any(|&slots| slots > 0));
        let from: Vec<Option<usize>> = service
            .backends
            .iter()
            .map(|backend| old.and_then(|(before, _)| position(before, backend)))
            .collect();
        let backends: Vec<BackendState> = service
            .backends
            .iter()
            .zip(&from)
            .map(|(backend, from)| {
                let known = old.zip(*from);
                let mut state = match known {
                    Some(((before, state), n)) => BackendState {
                        machine: machine(
                            &state.backends[n],
                            before.health.as_ref(),
                            service.health.as_ref(),
                        ),
                        ..state.backends[n].clone()
                    },
                    None => self.newcomer(service.health.as_ref(), newcomers, serves),
                };
                let asks = service.options.agent.is_some();
                state.agent = asks.then(|| state.agent.take().unwrap_or_default());
                let rule = overrides.rule(&service.name, &backend.name);
                state.disabled = rule.is_some_and(Rule::cuts_flows);
                state
            })
            .collect();
        let evenness = config.data_plane.evenness.fraction();
        let count = config.services.len();
        let Some((before, state)) = old else {
            let mut new = ServiceState::new(service, founded, evenness, backends, count)?;
            new.starting = true;
            return Ok(new);
        };
        let same_ring = founded == state.founded
            && config.data_plane.evenness == self.config.data_plane.evenness;
        let base = if same_ring {
            state.base.clone()
        } else {
            base(&founded, evenness)?
        };
        let slots: Vec<u32> = from
            .iter()
            .map(|n| n.map_or(0, |n| state.slots[n]))
            .collect();
        let in_place = from.len() == before.backends.len()
            && from.iter().enumerate().all(|(n, from)| *from == Some(n));
        let mut load = if in_place {
            state.load.clone()
        } else {
            Load::new(from.len(), count)
        };
        load.among(count);
        if !in_place {
            load.retarget(&slots);
        } else if !service.options.admits_as(&before.options) {
            load.begin_anew(&slots);
        }
        Ok(ServiceState {
            base,
            founded,
            starting: false,
            backends,
            slots,
            band: Band::default(),
            // Its backends may be others, or stand in another order.
            counted: None,
            load,
            grounds: state.grounds.clone().filter(|_| same_ring),
            watched: state.watched.carried(before, service, &from),
        })
    }

    fn newcomer(
        &self,
        check: Option<&HealthCheck>,
        newcomers: Newcomers,
        joins: bool,
    ) -> BackendState {
        let health = match newcomers {
            Newcomers::Unknown => Health::Unknown,
            Newcomers::Up => Health::Up,
        };
        BackendState {
            machine: check.map(|check| Machine::new(check, health)),
            probed: false,
            health_since_ms: self.now.unix_ms,
            last_probe: None,
            probes: Probes::default(),
            is_new: joins,
            start: SlowStart::Over,
            disabled: false,
            agent: None,
        }
    }

    /// The backends of a configuration that nothing is known of yet.
    pub(super) fn newcomers(&self, filed: &Config) -> Vec<(Service, Vec<Backend>)> {
        let of = |service: &Service| {
            let old = self.config.services.iter().find(|s| s.key == service.key);
            let new = |backend: &&Backend| old.is_none_or(|old| position(old, backend).is_none());
            let backends: Vec<_> = service.backends.iter().filter(new).cloned().collect();
            (service.clone(), backends)
        };
        let all = filed.services.iter().map(of);
        all.filter(|(_, backends)| !backends.is_empty()).collect()
    }

    /// Changes places with a footing.
    pub(super) fn swap(&mut self, other: &mut Footing) {
        mem::swap(&mut self.filed, &mut other.filed);
        mem::swap(&mut self.config, &mut other.config);
        mem::swap(&mut self.overrides, &mut other.overrides);
        mem::swap(&mut self.numbers, &mut other.numbers);
        mem::swap(&mut self.services, &mut other.services);
        // Half a status of the one is none of the other.
        self.shown.clear();
    }

    /// Puts a footing in force with one publication, with what is known of newcomers by now.
    ///
    /// # Errors
    /// Everything is then as it was.
    pub(super) fn stand_on(
        &mut self,
        mut footing: Footing,
        reports: &[Report],
        why: String,
        now: Now,
    ) -> Result<(), Error> {
        // Their numbers are nobody's yet.
        self.kernel.reset(&footing.fresh)?;
        // What led to it already belongs to what is published next.
        let before = mem::take(&mut self.news);
        self.swap(&mut footing);
        self.now = now;
        for report in reports {
            self.observe(report);
        }
        self.news.add(why);
        self.news.append(&before);
        if let Err(refusal) = self.publish(now) {
            self.swap(&mut footing);
            self.news = before;
            return Err(refusal);
        }
        for service in &mut self.services {
            service.starting = false;
        }
        let wanted = self.addresses();
        self.ways.retain(|address, _| wanted.contains(address));
        // What it is about to learn would be of the footing before.
        self.sweeper.begin_anew();
        self.targets_changed = true;
        self.aim_probes();
        Ok(())
    }

    /// What packets follow.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.config.services, &self.numbers, self.image.as_ref())
    }

    /// What packets would follow on a footing, were all newcomers well. Nothing changes.
    pub(super) fn foresee(&mut self, mut footing: Footing, now: Now) -> Snapshot {
        let mut ways = self.ways.clone();
        for backend in footing.config.services.iter().flat_map(|s| &s.backends) {
            if !self.hops.hops.contains_key(&backend.address) {
                // Only whether there is one counts here.
                ways.entry(backend.address).or_insert(Way {
                    interface: 0,
                    source: [0; 6],
                    destination: [0; 6],
                    mtu: u16::MAX,
                    address: Some(backend.address),
                });
            }
        }
        mem::swap(&mut self.ways, &mut ways);
        self.swap(&mut footing);
        for n in 0..self.services.len() {
            self.services[n].watched.force = self.force_of(n, now).1;
        }
        let image = self.plan(now);
        let seen = Snapshot::of(&self.config.services, &self.numbers, Some(&image));
        self.swap(&mut footing);
        mem::swap(&mut self.ways, &mut ways);
        seen
    }

    /// The services whose backends are probed: those in force, and newcomers of a change that waits
    /// for a first answer of theirs.
    pub(super) fn probed(&self) -> Vec<Service> {
        let mut services = self.config.services.clone();
        services.extend(self.waiting_newcomers().map(|(service, backends)| Service {
            backends: backends.clone(),
            ..service.clone()
        }));
        services
    }

    /// The addresses to which the way is followed.
    pub(super) fn followed(&self) -> BTreeSet<IpAddr> {
        let mut addresses = self.addresses();
        let new = self.waiting_newcomers().flat_map(|(_, backends)| backends);
        addresses.extend(new.map(|backend| backend.address));
        addresses
    }
}

/// Where in a service a backend is that may have another name.
fn position(service: &Service, backend: &Backend) -> Option<usize> {
    let found = |other: &Backend| other.address == backend.address;
    service.backends.iter().position(found)
}
