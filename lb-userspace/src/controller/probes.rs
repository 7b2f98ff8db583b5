//! The ways of probes that go along those of traffic.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use lb_common::{decide::probe::Target, layout::mode, wire};
use tokio::sync::watch;

use super::state::State;
use crate::{
    balance::image::{self, Numbers},
    causes::with_causes,
    dataplane::steering::Steering,
    health::{
        driver::Report,
        probe::path::{Large, Path, Paths, Steered},
    },
    journal::{Event, Kind, Level},
    model::{Backend, Config, HealthCheck, Service, Tunnel, Via},
    neighbours::NextHop,
};

/// What is known of the ways of probes.
pub(super) struct Probes {
    /// The programs that steer them; `None` where no probe asks for it.
    steering: Option<Result<Steering, Arc<str>>>,
    paths: watch::Sender<Arc<Paths>>,
    /// The services of which was told that their probes go another way than they should, and why.
    told: BTreeMap<Arc<str>, Arc<str>>,
    /// The backends of whose certificates was told that they expire soon.
    expiring: BTreeSet<(Arc<str>, Arc<str>)>,
}

impl Probes {
    /// Loads what it takes. Where that fails nothing else does: the probes go straight to the
    /// backends, and say so.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            steering: steering(config),
            paths: watch::channel(Arc::default()).0,
            told: BTreeMap::new(),
            expiring: BTreeSet::new(),
        }
    }
}

/// The programs, where a check asks for them.
fn steering(config: &Config) -> Option<Result<Steering, Arc<str>>> {
    let mut checks = config.services.iter().filter_map(|s| s.health.as_ref());
    let asked = checks.any(|check| check.via == Via::Vip);
    let load =
        || Steering::load(config.data_plane.probe_mark).map_err(|e| Arc::from(with_causes(&e)));
    asked.then(load)
}

/// The VIPs to which the kernel is to know a way: those whose probes cannot be addressed to the
/// backend, because it is of the other family.
pub(super) fn vips(config: &Config) -> BTreeSet<IpAddr> {
    let steered = config.services.iter().filter(|service| {
        let check = service.health.as_ref();
        check.is_some_and(|check| check.via == Via::Vip)
    });
    let across = steered.filter(|service| {
        let family = service.key.vip.is_ipv4();
        let mut backends = service.backends.iter();
        backends.any(|backend| backend.address.is_ipv4() != family)
    });
    across.map(|service| service.key.vip).collect()
}

/// What steers the probes of some backends, beside what is known of their next hops.
#[derive(Clone, Copy)]
pub(super) struct Ways<'a> {
    pub(super) numbers: &'a Numbers,
    pub(super) tunnel: &'a Tunnel,
}

impl State {
    fn footing_ways(&self) -> Ways<'_> {
        Ways {
            numbers: &self.numbers,
            tunnel: &self.config.tunnel,
        }
    }

    /// The ways of probes, as they change.
    pub(super) fn probe_paths(&self) -> watch::Receiver<Arc<Paths>> {
        self.probes.paths.subscribe()
    }

    /// Tells the kernel and the probes by which ways they go, from what is known of next hops.
    pub(super) fn aim_probes(&mut self) {
        // A change of the configuration may be the first to ask.
        let loaded = self.probes.steering.take();
        let Some(mut steering) = loaded.or_else(|| steering(&self.config)) else {
            return;
        };
        let mut paths = Paths::new();
        let mut hindered: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
        let in_force = self.config.services.iter();
        let in_force = in_force.map(|service| (service, &service.backends, self.footing_ways()));
        let expected = self.expected().into_iter().flat_map(|(new, ways)| {
            let of = move |(service, backends)| (service, backends, ways);
            new.iter()
                .map(|(service, backends)| (service, backends))
                .map(of)
        });
        for (service, backends, ways) in in_force.chain(expected) {
            let Some(check) = service.health.as_ref().filter(|c| c.via == Via::Vip) else {
                continue;
            };
            for backend in backends {
                let path = self.probe_path(&mut steering, ways, service, check, backend);
                let Some(path) = path else {
                    continue;
                };
                if let Path::Instead(why) = &path {
                    hindered
                        .entry(service.name.clone())
                        .or_insert_with(|| why.clone());
                }
                paths.insert((service.name.clone(), backend.name.clone()), path);
            }
        }
        self.probes.steering = Some(steering);
        self.probes.paths.send_if_modified(|before| {
            let differs = **before != paths;
            if differs {
                *before = Arc::new(paths);
            }
            differs
        });
        self.tell_of_probes(hindered);
    }

    /// The way of a backend's probes; `None` while it is not known yet.
    fn probe_path(
        &self,
        steering: &mut Result<Steering, Arc<str>>,
        Ways { numbers, tunnel }: Ways<'_>,
        service: &Service,
        check: &HealthCheck,
        backend: &Backend,
    ) -> Option<Path> {
        let steering = match steering {
            Ok(steering) => steering,
            Err(why) => return Some(Path::Instead(why.clone())),
        };
        let number = numbers.endpoint(&service.key, backend.address)?;
        let of = numbers.service(&service.key)?;
        let way = self.ways.get(&backend.address).copied();
        let (endpoint, far) = image::records(of, service, backend, way, tunnel);
        if endpoint.mode == mode::UNRESOLVED {
            return None;
        }
        let vip = service.key.vip;
        let to = if vip.is_ipv4() == backend.address.is_ipv4() {
            backend.address
        } else {
            vip
        };
        let hop: &NextHop = match self.hops.hops.get(&to)? {
            Ok(hop) => hop,
            // The last known way to the backend goes on; the interface is that of before.
            Err(_) if to == backend.address => return self.probe_path_before(service, backend),
            Err(why) => {
                let why = format!(
                    "the backend is of another family than {vip}, and the kernel has no way out \
                     to the VIP: {why}; give it one, or set via = \"direct\""
                );
                return Some(Path::Instead(why.into()));
            }
        };
        let (vip, family) = image::address(vip);
        let largest = match check.client_mtu {
            0 => 0,
            bytes => Target::largest(&endpoint, bytes),
        };
        let target = Target {
            endpoint,
            far,
            vip,
            largest,
            gue_port: tunnel.gue_port.get().to_be(),
            family,
            ..Target::NONE
        };
        let done = steering
            .attach(hop.interface, &hop.interface_name)
            .and_then(|()| steering.aim(number, target));
        if let Err(e) = done {
            return Some(Path::Instead(with_causes(&e).into()));
        }
        let mark = self.config.data_plane.probe_mark.number() | u32::from(number);
        let headers = if to.is_ipv4() {
            wire::ipv4::HEADER
        } else {
            wire::ipv6::HEADER
        } + wire::tcp::HEADER;
        let fits = Target::largest(&endpoint, u16::MAX).saturating_sub(headers as u16);
        Some(Path::Steered(Steered {
            to,
            mark,
            large: (largest > 0).then_some(Large {
                mark: mark | lb_common::decide::probe::LARGE,
                bytes: largest,
            }),
            segment: service.mode.tunnels().then_some(fits),
        }))
    }

    /// The way that was last published.
    fn probe_path_before(&self, service: &Service, backend: &Backend) -> Option<Path> {
        let key = (service.name.clone(), backend.name.clone());
        self.probes.paths.borrow().get(&key).cloned()
    }

    /// Tells once of a certificate that expires soon.
    pub(super) fn note_certificate(&mut self, report: &Report) {
        let Ok(evidence) = &report.outcome.result else {
            return;
        };
        let key = (report.service.clone(), report.backend.clone());
        let Some(left) = evidence.expires_in() else {
            self.probes.expiring.remove(&key);
            return;
        };
        if !self.probes.expiring.insert(key) {
            return;
        }
        let (service, backend) = (&report.service, &report.backend);
        let days = left.as_secs() / 86_400;
        let message = format!("{service}/{backend}: its certificate expires in {days} days");
        let event = self.event(Kind::Health, Level::Warning, message);
        self.tell(Event {
            backend: Some(backend.to_string()),
            ..event.service(service)
        });
    }

    /// Tells of services whose probes cannot go the way of traffic, and of those whose can again.
    fn tell_of_probes(&mut self, hindered: BTreeMap<Arc<str>, Arc<str>>) {
        if self.probes.told == hindered {
            return;
        }
        let before = std::mem::replace(&mut self.probes.told, hindered);
        let after = &self.probes.told;
        for (service, why) in after.iter().filter(|(s, why)| before.get(*s) != Some(*why)) {
            let message = format!(
                "{service}: probes do not go the way of traffic but straight to the backends, and \
                 change no backend's state: {why}"
            );
            let event = self.event(Kind::Health, Level::Error, message);
            self.tell(event.service(service));
        }
        for service in before.keys().filter(|s| !after.contains_key(*s)) {
            let message = format!("{service}: probes go the way of traffic again");
            let event = self.event(Kind::Health, Level::Info, message);
            self.tell(event.service(service));
        }
    }
}
