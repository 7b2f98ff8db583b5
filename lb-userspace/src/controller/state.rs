//! The state of the controller: what is configured, what is known, what is published.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use lb_common::layout::{self, EndpointCounters, ExitCounters, Slot};
use log::{debug, error, info, log, warn};
use serde::Serialize;
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::{
    Error, Identity, Now, addresses, adopt,
    apply::Pending,
    cause,
    degrees::Keeper,
    drill::{self, Drilling},
    evenness,
    health::Watched,
    impose::Drains,
    incidents,
    load::Load,
    news::News,
    own_file::OwnFile,
    plan::Grounds,
    probes::Probes,
    status,
    sweep::Sweeper,
    trace::Watcher,
    verdicts::Verdicts,
    verify::{Repairs, Verification},
};
use crate::{
    admin::{
        proto::{
            self,
            measured::{self, Band},
            trace::Ended,
        },
        server::change::{Answer, Answerer, Refused},
    },
    balance::{
        image::{Image, Numbers, Way},
        plan::Base,
        sweep::Learned,
    },
    causes::with_causes,
    change::overrides::Overrides,
    dataplane::{
        DataPlane as _,
        kernel::{self, Attached, Kernel, Reading},
    },
    explain::mac,
    health::{
        agent::Agent,
        driver::Report,
        event::What,
        probe::{Evidence, Outcome},
        schedule::FIRST_ROUND,
        slow_start::SlowStart,
        state::{Machine, State as Health, Verdict},
    },
    history, incident,
    journal::{Condition, Event, Journal, Kind, Level, WINDOW_OVER},
    kept::{configurations::Kept, degrees, opening::Opening},
    model::{Backend, Config, Measured, Service},
    neighbours::{NextHop, NextHops, Unresolved},
    notify::{self, derive::Audited},
    web,
};

/// A backend as the controller sees it.
#[derive(Clone)]
pub(super) struct BackendState {
    /// Its health; `None` where it is not probed.
    pub(super) machine: Option<Machine>,
    /// Whether it was probed since the start.
    pub(super) probed: bool,
    pub(super) health_since_ms: u64,
    pub(super) last_probe: Option<proto::Probe>,
    pub(super) probes: measured::Probes,
    /// Whether it joins a service that is live, and has not come up yet.
    pub(super) is_new: bool,
    pub(super) start: SlowStart,
    /// Whether an override takes its flows away.
    pub(super) disabled: bool,
    /// Its agent; `None` where none is asked.
    pub(super) agent: Option<Agent>,
}

impl BackendState {
    pub(super) fn is_healthy(&self) -> bool {
        self.machine
            .as_ref()
            .is_none_or(|machine| machine.state() == Health::Up)
    }

    /// Counts a probe.
    fn note_outcome(&mut self, outcome: &Outcome, now_ms: u64) {
        match outcome.verdict() {
            Some(Verdict::Pass) => {
                self.probes.passed += 1;
                self.probes.took.add(outcome.took);
            }
            Some(Verdict::Fail) => self.probes.failed += 1,
            None => self.probes.undecided += 1,
        }
        let certificate = outcome.result.as_ref().ok().and_then(Evidence::certificate);
        if let Some(certificate) = certificate {
            let end = now_ms + certificate.left.as_millis() as u64;
            // What is left is said in seconds: a moment must not move with each probe.
            let known = self.probes.certificate_expires_at_ms;
            if known.is_none_or(|known| known.abs_diff(end) > 10_000) {
                self.probes.certificate_expires_at_ms = Some(end);
            }
        }
    }

    /// Whether anything is known of its health.
    pub(super) fn is_known(&self) -> bool {
        self.machine
            .as_ref()
            .is_none_or(|machine| machine.state() != Health::Unknown)
    }
}

/// A service as the controller sees it.
#[derive(Clone)]
pub(super) struct ServiceState {
    pub(super) base: Base,
    /// What the base ring is made from: the file's weights, or those of overrides.
    pub(super) founded: Service,
    /// Whether it has never been published, so that nobody of it comes back.
    pub(super) starting: bool,
    pub(super) backends: Vec<BackendState>,
    /// Slots of the published ring, by backend; all zero without one.
    pub(super) slots: Vec<u32>,
    /// Who owns those, for pictures.
    pub(super) band: Band,
    /// The ring that these were counted in.
    pub(super) counted: Option<Arc<[Slot]>>,
    pub(super) load: Load,
    pub(super) watched: Watched,
    /// What its published slots came from; `None` where that is not known to hold any more.
    pub(super) grounds: Option<Grounds>,
}

impl ServiceState {
    /// Slots of the ring that packets follow. At a start on live tables it may have another size than
    /// the base ring, until the first publication.
    pub(super) fn ring_size(&self) -> usize {
        let live = self.counted.as_ref().map(|ring| ring.len());
        live.unwrap_or_else(|| self.base.size().count())
    }
}

/// What a tick looks at, one turn of the controller's task each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// How long handshakes and responses take.
    Latencies,
    /// How backends perform beside their peers.
    Performance,
    /// What was forwarded, and to whom.
    Counters,
}

/// Services whose status is put together in one turn where nobody waits for it.
const SHOWN_AT_ONCE: usize = 100;

/// Everything that the controller knows.
pub(super) struct State {
    /// What the file says.
    pub(super) filed: Config,
    /// The same with the weights of overrides: what is in force.
    pub(super) config: Config,
    pub(super) overrides: Overrides,
    pub(super) identity: Identity,
    pub(super) started: Now,
    pub(super) kernel: Kernel,
    attached: Option<Vec<Attached>>,
    pub(super) numbers: Numbers,
    pub(super) services: Vec<ServiceState>,
    /// The last known way to each backend: a next hop that falls silent keeps it, because its
    /// health check is what decides.
    pub(super) ways: BTreeMap<IpAddr, Way>,
    pub(super) hops: Arc<NextHops>,
    /// What packets follow.
    pub(super) image: Option<Image>,
    published_at_ms: Option<u64>,
    pub(super) verification: Verification,
    /// The comparison that is under way.
    pub(super) comparing: Option<Reading>,
    /// The next look of the tick that is under way.
    looks: Option<Look>,
    /// The services of the status that is under way.
    pub(super) shown: Vec<proto::Service>,
    pub(super) repairs: Repairs,
    /// Whether a first probe of every backend, or the way to one, is still waited for.
    waiting: bool,
    /// What happened since the last publication that may change the tables.
    pub(super) news: News,
    journal: Journal,
    /// What is kept on disk of configurations.
    pub(super) kept: Kept,
    /// The change that waits for first answers of new backends.
    pub(super) pending: Option<Pending>,
    /// Answers that wait until the status shows what they say.
    pub(super) answers: Vec<(Answerer, Result<Answer, Refused>)>,
    /// How the controller's own file differs from what is in force.
    pub(super) own_file: OwnFile,
    /// How far drains are.
    pub(super) drains: Drains,
    /// Whether others are to be probed and followed.
    pub(super) targets_changed: bool,
    /// Why the last publication was refused, as it was told.
    refused: Option<String>,
    pub(super) now: Now,
    pub(super) sweeper: Sweeper,
    /// What the last pass of the sweeper found out.
    pub(super) learned: Option<Learned>,
    /// The ways of probes.
    pub(super) probes: Probes,
    /// What is kept of demotions and agents.
    pub(super) keeper: Keeper,
    /// Incidents, which those write into who know of alerts.
    pub(super) incidents: incident::Shared,
    /// What was told of evenness.
    verdicts: Verdicts,
    /// Who knows of alerts and of those who are told.
    pub(super) notify: Option<notify::Handle>,
    /// What the last audit found.
    pub(super) audited: Option<watch::Receiver<Audited>>,
    /// Who shows metrics and the page.
    pub(super) web: Option<web::Handle>,
    /// Who keeps history.
    pub(super) history: Option<history::Handle>,
    publications: measured::Publications,
    /// The drill that is on.
    pub(super) drilling: Option<Drilling>,
    /// Who watches decisions.
    pub(super) watcher: Option<Watcher>,
    /// Where it is told that nobody does any more, and read.
    pub(super) over: (mpsc::Sender<Ended>, mpsc::Receiver<Ended>),
}

/// Tells which maps keep another size than is configured.
fn tell_sizes(kernel: &Kernel) {
    for kept in kernel.kept() {
        warn!(
            "{} has room for {} flows, {} are configured: it keeps its size, and what it \
             remembers, until 'evenkeel unload'",
            kept.map, kept.entries, kept.configured
        );
    }
}

impl State {
    /// Takes over what is live, if anything is.
    pub(super) fn new(
        opening: Opening,
        version: String,
        mut kernel: Kernel,
        journal: Journal,
        now: Now,
    ) -> Result<Self, Error> {
        tell_sizes(&kernel);
        let Opening {
            config: filed,
            mut overrides,
            kept,
            mut told,
            ..
        } = opening;
        // A drill ends with the controller that began it.
        let interrupted = drill::take_back(&filed, &mut overrides, now, &mut told);
        let config = overrides.over(&filed);
        let image = kernel.live()?;
        let mut numbers = image
            .as_ref()
            .map(|live| Numbers::adopt(&live.tables))
            .unwrap_or_default();
        let fresh = numbers.assign(&config.services)?;
        kernel.reset(&fresh)?;
        let ways = image.as_ref().map(adopt::ways).unwrap_or_default();
        let seen = adopt::Seen {
            live: image.as_ref(),
            numbers: &numbers,
            now_ms: now.unix_ms,
        };
        let services = adopt::services(&filed, &config, &overrides, &seen)?;
        if let Some(image) = &image {
            info!("adopting generation {}", image.tables.header.generation);
        }
        let probes = Probes::new(&config);
        let incidents = incidents::known(&config.state.directory, now.unix_ms);
        let identity = Identity {
            version,
            config_file: opening.file,
            config_sha256: opening.sha256,
        };
        let mut state = Self {
            probes,
            filed,
            config,
            overrides,
            identity,
            started: now,
            kernel,
            attached: None,
            numbers,
            services,
            ways,
            hops: Arc::default(),
            image,
            published_at_ms: None,
            comparing: None,
            looks: None,
            shown: Vec::new(),
            verification: Verification {
                at_ms: now.unix_ms,
                ..Verification::default()
            },
            repairs: Repairs::default(),
            waiting: true,
            news: News::default(),
            journal,
            kept,
            pending: None,
            answers: Vec::new(),
            own_file: OwnFile::default(),
            drains: Drains::default(),
            targets_changed: false,
            refused: None,
            now,
            sweeper: Sweeper::default(),
            learned: None,
            keeper: Keeper::default(),
            incidents,
            verdicts: Verdicts::default(),
            notify: None,
            audited: None,
            web: None,
            history: None,
            publications: measured::Publications::default(),
            drilling: None,
            watcher: None,
            over: mpsc::channel(1),
        };
        state.retarget();
        state.aim_probes();
        state.news.add("a controller started");
        state.tell_start(told);
        if let Some(kept) = &interrupted {
            state.tell_interrupted(kept);
        }
        let mut damage = Vec::new();
        let directory = state.config.state.directory.clone();
        let degrees = degrees::read(&directory, now.unix_ms, &mut damage);
        for what in damage {
            state.tell(state.event(Kind::Performance, Level::Warning, what));
        }
        state.resume(degrees);
        state.watch_file();
        Ok(state)
    }

    /// Tells that the controller started, and what there was to tell of its configuration.
    fn tell_start(&self, told: Vec<(Level, String)>) {
        let message = format!("evenkeel {} started", self.identity.version);
        let start = self.event(Kind::Start, Level::Info, message).detail(json!({
            "version": self.identity.version,
            "pid": std::process::id(),
            "config_file": self.identity.config_file,
            "config_sha256": self.identity.config_sha256,
            "services": self.config.services.len(),
        }));
        self.tell(start);
        for (level, what) in told {
            self.tell(self.event(Kind::Change, level, what));
        }
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn addresses(&self) -> BTreeSet<IpAddr> {
        let mut addresses = addresses(&self.config);
        addresses.extend(super::probes::vips(&self.config));
        addresses
    }

    pub(super) fn generation(&self) -> u64 {
        self.image
            .as_ref()
            .map_or(0, |image| image.tables.header.generation)
    }

    /// Where the program is attached.
    pub(super) fn interfaces(&self) -> &[Attached] {
        self.attached.as_deref().unwrap_or_default()
    }

    pub(super) fn attached(&self) -> bool {
        self.attached.is_some()
    }

    /// The longest that a first round of probes takes.
    pub(super) fn first_round(&self) -> Duration {
        let services = &self.config.services;
        let checks = services
            .iter()
            .filter_map(|service| service.health.as_ref());
        let probes = checks.map(|check| check.interval + check.timeout);
        let agents = services
            .iter()
            .filter_map(|service| service.options.agent.as_ref());
        let questions = agents.map(|check| FIRST_ROUND + check.interval + 2 * check.timeout);
        probes.chain(questions).max().unwrap_or_default()
    }

    /// Whether every backend has been probed and the way to each is known or known to be missing,
    /// or waiting for that is over.
    ///
    /// Each way that came later would be a change of its own, with slots in transition.
    pub(super) fn knows_enough(&mut self) -> bool {
        if self.waiting {
            let unasked = |backend: &BackendState| {
                let agent = backend.agent.as_ref();
                backend.machine.is_some() && !backend.probed
                    || agent.is_some_and(|agent| !agent.is_known())
            };
            let mut backends = self.services.iter().flat_map(|s| &s.backends);
            let sought = |address| {
                let hop = self.hops.hops.get(address);
                matches!(hop, None | Some(Err(Unresolved::Waiting { .. })))
            };
            self.waiting = backends.any(unasked) || self.addresses().iter().any(sought);
        }
        !self.waiting
    }

    /// Whether a first answer of some backend is waited for.
    pub(super) const fn waiting_for_all(&self) -> bool {
        self.waiting
    }

    /// Goes on with what is known.
    pub(super) fn stop_waiting(&mut self) {
        warn!("starting without a first answer about every backend and the way to it");
        self.waiting = false;
    }

    /// Takes the outcome of a probe.
    pub(super) fn observe(&mut self, report: &Report) {
        let report = &*self.rehearsed(report);
        self.note_newcomer(report);
        let place = self.place(&report.service, &report.backend, report.address);
        let Some((service, backend)) = place else {
            return;
        };
        self.note_certificate(report);
        if report.outcome.instead.is_none() {
            self.note_performance(service, backend, report);
        }
        let name = format!("{}/{}", report.service, report.backend);
        let at_ms = self.unix_ms_of(report.at);
        let state = &mut self.services[service].backends[backend];
        state.probed = true;
        state.note_outcome(&report.outcome, self.now.unix_ms);
        let detail = report.outcome.to_string();
        let verdict = report.outcome.verdict();
        state.last_probe = Some(proto::Probe {
            at_ms,
            passed: report.outcome.result.is_ok(),
            took_ms: report.outcome.took.as_secs_f64() * 1000.0,
            detail: detail.clone(),
        });
        // A probe that could not go the way it should says enough for a first verdict, and too little
        // to change one: what is in the way of all probes is no backend's fault.
        let is_known = state.is_known();
        if report.outcome.instead.is_some() && is_known {
            debug!("{name}: {detail}");
            return;
        }
        let (Some(machine), Some(verdict)) = (&mut state.machine, verdict) else {
            warn!("{name} could not be probed: {detail}");
            return;
        };
        let Some(transition) = machine.observe(report.at, verdict) else {
            debug!("{name}: {detail}");
            return;
        };
        state.health_since_ms = at_ms;
        let why = format!("{name} is {}", transition.to);
        self.news.add_at(report.at, why);
        let what = What::Turned {
            to: transition.to,
            reason: transition.reason,
            detail,
        };
        self.turned(service, backend, (report.at, at_ms), what);
    }

    /// Where a backend of these names is, if it has this address yet.
    pub(super) fn place(
        &self,
        service: &str,
        backend: &str,
        address: IpAddr,
    ) -> Option<(usize, usize)> {
        let services = &self.config.services;
        let service = services.iter().position(|s| &*s.name == service)?;
        let named = |b: &Backend| &*b.name == backend && b.address == address;
        let backend = services[service].backends.iter().position(named)?;
        Some((service, backend))
    }

    /// When something was, for people.
    pub(super) fn unix_ms_of(&self, at: Instant) -> u64 {
        let behind = self.now.instant.saturating_duration_since(at);
        self.now.unix_ms.saturating_sub(behind.as_millis() as u64)
    }

    /// Takes the latest next hops.
    pub(super) fn follow(&mut self, hops: &Arc<NextHops>) {
        let mut backends = addresses(&self.config);
        let new = self.waiting_newcomers().flat_map(|(_, new)| new);
        backends.extend(new.map(|backend| backend.address));
        for (address, hop) in hops.hops.iter().filter(|(to, _)| backends.contains(to)) {
            let before = self.hops.hops.get(address);
            match hop {
                Ok(hop) => {
                    let way = Way {
                        interface: hop.interface,
                        source: hop.source_mac,
                        destination: hop.mac,
                        mtu: u16::try_from(hop.mtu).unwrap_or(u16::MAX),
                        address: hop.source,
                    };
                    if self.ways.insert(*address, way) != Some(way) {
                        info!(
                            "{address} is reached by {} on {}",
                            mac(hop.mac),
                            hop.interface_name
                        );
                        self.news.add(format!("the way to {address} changed"));
                    }
                }
                Err(why) if before != Some(hop) => match why {
                    Unresolved::Waiting { .. } => debug!("{why}"),
                    _ => warn!("no way to {address}: {why}"),
                },
                Err(_) => {}
            }
        }
        self.hops = Arc::clone(hops);
        self.aim_probes();
    }

    /// Publishes if the tables that follow from the present state are not those that packets
    /// follow. Answers whether anything had happened that made it look.
    ///
    /// # Errors
    /// Packets then go on following the tables before, and the next call tries again.
    pub(super) fn publish(&mut self, now: Now) -> Result<bool, Error> {
        if self.news.is_empty() {
            return Ok(false);
        }
        // What is told of it must not seem older than what it follows from.
        self.now = now;
        self.renew_force(now);
        let next = self.plan(now);
        let planned = Now::read().instant;
        let live = self.image.as_ref();
        if self.kernel.is_published() && live.is_some_and(|live| live.forwards_like(&next)) {
            self.news.take();
            self.note_grounds();
            return Ok(true);
        }
        if let Err(refusal) = self.kernel.publish(&next) {
            self.refuse(&refusal);
            return Err(refusal.into());
        }
        self.refused = None;
        let decided = self.news.since().unwrap_or(now.instant);
        let swapped = Now::read().instant;
        let took = swapped.saturating_duration_since(decided);
        debug!(
            "published {took:.1?} after what it follows from: {:.1?} until it was looked at, {:.1?} to \
             plan, {:.1?} for the kernel",
            now.instant.saturating_duration_since(decided),
            planned.saturating_duration_since(now.instant),
            swapped.saturating_duration_since(planned)
        );
        self.publications.count += 1;
        self.publications.took.add(took);
        // By the image before: what leaves serves by it.
        self.note_grounds();
        let why = self.news.take();
        let serving: Vec<String> = self
            .config
            .services
            .iter()
            .zip(&self.services)
            .map(|(service, state)| {
                let usable = (0..state.backends.len())
                    .filter(|&n| self.out_of_ring(service, state, n).is_none())
                    .count();
                format!("{} {usable}/{}", service.name, state.backends.len())
            })
            .collect();
        let message = format!(
            "generation {} published: {}",
            next.tables.header.generation,
            serving.join(", ")
        );
        self.follow_image(next);
        self.published_at_ms = Some(now.unix_ms);
        let moved = self.retarget();
        let event = self.event(Kind::Publication, Level::Info, message);
        self.tell(event.detail(json!({
            "why": why,
            "slots": moved,
            "took_ms": took.as_secs_f64() * 1000.0,
        })));
        self.compare_published(now);
        Ok(true)
    }

    /// Takes note of what packets follow now.
    pub(super) fn follow_image(&mut self, image: Image) {
        self.sweeper.published(&image);
        if let Some(learned) = &mut self.learned {
            // True of the slots before; what follows learns anew.
            for service in &mut learned.services {
                service.clean.clear();
            }
        }
        self.image = Some(image);
    }

    /// Tells that tables could not be published; not again while the reason stays the same.
    fn refuse(&mut self, refusal: &kernel::Error) {
        let why = with_causes(refusal);
        self.publications.refused += 1;
        if self.refused.as_ref() == Some(&why) {
            return;
        }
        let message = format!("tables not published, the kernel goes on with those before: {why}");
        let event = self.event(Kind::Refusal, Level::Error, message);
        self.tell(event.detail(json!({ "why": self.news.whys() })));
        self.refused = Some(why);
    }

    /// Something that happened just now.
    pub(super) fn event(&self, kind: Kind, level: Level, message: String) -> Event {
        Event {
            generation: self.generation(),
            ..Event::of_controller(self.now.unix_ms, kind, level, message)
        }
    }

    /// Logs an event and hands it to the journal.
    pub(super) fn tell(&self, event: Event) {
        let level = match event.level {
            Level::Info => log::Level::Info,
            Level::Warning => log::Level::Warn,
            Level::Error => log::Level::Error,
        };
        log!(level, "{}", event.message);
        self.journal.record(self.mark_drill(event));
    }

    /// Logs and writes down what another part of the controller has to tell.
    pub(super) fn pass_on(&self, event: Event) {
        self.tell(Event {
            generation: self.generation(),
            ..event
        });
    }

    /// Frees what publications left. That waits for the kernel's readers, which a publication need
    /// not.
    fn free_rings(&mut self) {
        if let Err(e) = self.kernel.free() {
            warn!("{}", with_causes(&e));
        }
    }

    /// Tells that the controller ends.
    pub(super) fn end(&mut self, now: Now, why: &str) {
        self.now = now;
        self.end_trace(None, now);
        self.end_drill_at_last(now);
        self.forget_unapplied();
        self.free_rings();
        self.keep_last_degrees(now);
        let message = format!(
            "ending on {why}; the kernel goes on forwarding by generation {}",
            self.generation()
        );
        self.tell(self.event(Kind::Stop, Level::Info, message));
    }

    /// Tells the detectors the shares of the live rings. Answers whose slots became how many.
    fn retarget(&mut self) -> Vec<Moved> {
        let mut moved = Vec::new();
        let mut owned = vec![0_u32; usize::from(u16::MAX) + 1];
        for (service, state) in self.config.services.iter().zip(&mut self.services) {
            let ring = self
                .numbers
                .service(&service.key)
                .and_then(|number| self.image.as_ref()?.ring_of(number));
            if state
                .counted
                .as_ref()
                .zip(ring)
                .is_some_and(|(before, ring)| Arc::ptr_eq(before, ring))
            {
                continue;
            }
            state.counted = ring.cloned();
            let ends = self.numbers.of_backends(service);
            for slot in ring.into_iter().flat_map(|ring| ring.iter()) {
                owned[usize::from(slot.owner())] += 1;
            }
            let slots: Vec<u32> = ends.iter().map(|&end| owned[usize::from(end)]).collect();
            for slot in ring.into_iter().flat_map(|ring| ring.iter()) {
                owned[usize::from(slot.owner())] = 0;
            }
            state.band = status::band(ring.map(|ring| &**ring), &ends);
            if slots != state.slots {
                state.load.retarget(&slots);
                let changes = service.backends.iter().zip(&state.slots).zip(&slots);
                moved.extend(changes.filter(|((_, before), after)| before != after).map(
                    |((backend, &before), &after)| Moved {
                        service: service.name.to_string(),
                        backend: backend.name.to_string(),
                        before,
                        after,
                    },
                ));
                state.slots = slots;
            }
        }
        moved
    }

    /// Attaches the program, once there is something to forward by.
    pub(super) fn attach(&mut self) -> Result<(), Error> {
        let attached = self.kernel.attach(&self.config.data_plane)?;
        for interface in &attached {
            let how = if interface.adopted {
                "took over"
            } else {
                "attached to"
            };
            info!(
                "{how} {} ({} XDP)",
                interface.name, self.config.data_plane.xdp_mode
            );
        }
        self.attached = Some(attached);
        Ok(())
    }

    /// Reads the counters and renews the verdicts.
    pub(super) fn tick(&mut self, now: Now) {
        self.now = now;
        self.kernel.flush_log();
        self.settle_trace(now);
        self.free_rings();
        if self.window_over(now) {
            self.news.add(WINDOW_OVER);
        }
        self.watch_drill(now);
        self.pass_overrides(now);
        self.watch_confirmation(now);
        self.begin_sweep(now);
        self.pass_agents(now);
        self.looks = Some(Look::Latencies);
        // What is shown first has the counters, and nothing waits for a turn yet.
        while !self.attached() && self.look_on(now) {}
    }

    /// Takes the next look of a tick, which takes a few milliseconds with thousands of backends; false
    /// where there is none left.
    pub(super) fn look_on(&mut self, now: Now) -> bool {
        self.now = now;
        let Some(look) = self.looks.take() else {
            return false;
        };
        self.looks = match look {
            Look::Latencies => {
                if let Err(e) = self.read_latencies(now) {
                    error!("{}", with_causes(&e));
                }
                Some(Look::Performance)
            }
            Look::Performance => {
                self.judge_performance(now);
                self.renew_force(now);
                self.keep_degrees(now);
                Some(Look::Counters)
            }
            Look::Counters => {
                match self.read_counters() {
                    Ok(counters) => self.take_counters(&counters, now),
                    Err(e) => error!("{}", with_causes(&e)),
                }
                None
            }
        };
        true
    }

    /// The counters of all that is configured, by number.
    fn read_counters(&self) -> Result<(Vec<EndpointCounters>, Vec<ExitCounters>), kernel::Error> {
        let (services, endpoints) = self.numbers.highest();
        Ok((
            self.kernel
                .endpoints(endpoints.map_or(0, |highest| usize::from(highest) + 1))?,
            // The host's own row comes before the services'.
            self.kernel
                .exit_rows(services.map_or(0, |highest| usize::from(highest) + 2))?,
        ))
    }

    /// Reads how long handshakes and responses take, where that is measured.
    fn read_latencies(&mut self, now: Now) -> Result<(), kernel::Error> {
        let measured = |service: &&Service| service.options.measured != Measured::NONE;
        let numbers = self.config.services.iter().filter(measured);
        let highest = numbers
            .flat_map(|service| self.numbers.of_backends(service))
            .max();
        let Some(highest) = highest else {
            return Ok(());
        };
        let latencies = self.kernel.latencies(usize::from(highest) + 1)?;
        let elapsed = self.elapsed(now.instant);
        let services = self.config.services.iter().zip(&mut self.services);
        for (service, state) in services.filter(|(service, _)| measured(service)) {
            let ends = self.numbers.of_backends(service);
            let of = ends.iter().map(|&end| &latencies[usize::from(end)]);
            let monitor = &mut state.watched.monitor;
            state.load.measure(elapsed, of, |n, new| {
                if let Some(monitor) = monitor.as_mut() {
                    monitor.took(n, new);
                }
            });
        }
        Ok(())
    }

    /// Takes a reading of the counters, and tells what follows from it.
    fn take_counters(
        &mut self,
        (endpoints, exits): &(Vec<EndpointCounters>, Vec<ExitCounters>),
        now: Now,
    ) {
        let elapsed = self.elapsed(now.instant);
        let mut events = Vec::new();
        for (service, state) in self.config.services.iter().zip(&mut self.services) {
            let Some(number) = self.numbers.service(&service.key) else {
                continue;
            };
            let ends = self.numbers.of_backends(service);
            let counters = ends.iter().map(|&end| endpoints[usize::from(end)]);
            let load = &mut state.load;
            load.read(
                elapsed,
                now.unix_ms,
                counters.collect(),
                exits[usize::from(number) + 1],
            );
            let kernel = (&self.numbers, &self.kernel);
            events.extend(watch_floods(service, load, kernel, (elapsed, now.unix_ms)));
        }
        self.sample();
        let generation = self.generation();
        for event in events {
            self.tell(Event {
                generation,
                ..event
            });
        }
    }

    /// Everything that `evenkeel status` shows.
    pub(super) fn status(&mut self, now: Now) -> Arc<proto::Status> {
        self.shown.clear();
        self.show_services(usize::MAX);
        self.status_of_shown(now)
    }

    /// The same in parts of a few milliseconds, where nobody waits for it; `None` before its end.
    pub(super) fn status_in_parts(&mut self, now: Now) -> Option<Arc<proto::Status>> {
        self.show_services(SHOWN_AT_ONCE);
        let all = self.shown.len() == self.services.len();
        all.then(|| self.status_of_shown(now))
    }

    /// Adds some services to those that are shown already.
    fn show_services(&mut self, most: usize) {
        let mut shown = std::mem::take(&mut self.shown);
        let services = self.config.services.iter().zip(&self.services);
        let next = services.skip(shown.len()).take(most);
        shown.extend(next.map(|(service, state)| self.service_status(service, state)));
        self.shown = shown;
    }

    /// The status, of the services that are shown.
    fn status_of_shown(&mut self, now: Now) -> Arc<proto::Status> {
        self.now = now;
        let exits = self.kernel.exits(layout::HOST_EXITS).unwrap_or_default();
        let mut services = std::mem::take(&mut self.shown);
        self.tell_verdicts(&mut services);
        let told = self.notify.as_ref().map(notify::Handle::overview);
        let told = told.unwrap_or_default();
        Arc::new(proto::Status {
            version: self.identity.version.clone(),
            pid: std::process::id(),
            started_at_ms: self.started.unix_ms,
            now_ms: now.unix_ms,
            config_file: self.identity.config_file.display().to_string(),
            config_sha256: self.identity.config_sha256.clone(),
            configuration: self.configuration(),
            waiting_overrides: self.waiting_overrides(),
            generation: self.generation(),
            published_at_ms: self.published_at_ms,
            interfaces: self
                .attached
                .iter()
                .flatten()
                .map(|interface| proto::Interface {
                    name: interface.name.clone(),
                    index: interface.index,
                    xdp_mode: self.config.data_plane.xdp_mode.to_string(),
                })
                .collect(),
            tables: self.tables_status(),
            exits: status::exits(&exits),
            tracking: self.tracking_status(),
            journal: self.journal_status(),
            refused: self.refused.clone(),
            alerts: told.alerts,
            incidents: self.open_incidents(),
            notify: told.notify,
            publications: self.publications,
            audit: self.audit_status(),
            history: measured::History {
                failure: self.history.as_ref().and_then(history::Handle::failure),
            },
            http: self
                .web
                .as_ref()
                .map(web::Handle::condition)
                .unwrap_or_default(),
            drill: self.show_drill(),
            services,
        })
    }

    /// Dates what the verdicts hold against services, and tells of those that changed.
    fn tell_verdicts(&mut self, services: &mut [proto::Service]) {
        let started_ms = self.started.unix_ms;
        let published_ms = self.published_at_ms.unwrap_or(started_ms);
        self.verdicts.date(services, published_ms.max(started_ms));
        if !self.attached() {
            return;
        }
        for event in self.verdicts.news(services, self.now.unix_ms) {
            let generation = self.generation();
            self.tell(Event {
                generation,
                ..event
            });
        }
    }

    /// What the last audit found, in numbers.
    fn audit_status(&self) -> measured::Audit {
        let audited = self.audited.as_ref().map(|latest| latest.borrow());
        audited.map_or_else(measured::Audit::default, |latest| status::audit(&latest))
    }

    /// How the journal is.
    fn journal_status(&self) -> proto::Journal {
        let Condition { failure, lost } = self.journal.condition();
        proto::Journal { failure, lost }
    }

    fn service_status(&self, service: &Service, state: &ServiceState) -> proto::Service {
        let number = self.numbers.service(&service.key);
        let drifted = number.is_some() && self.verification.differing_slots > 0;
        let backends: Vec<proto::Backend> = (0..service.backends.len())
            .map(|n| {
                let hop = self.hops.hops.get(&service.backends[n].address);
                let hop: Option<&NextHop> = hop.and_then(|hop| hop.as_ref().ok());
                let out = self.out_of_ring(service, state, n);
                let mut shown = status::backend(service, state, n, out, hop);
                self.show_performance(service, state, n, &mut shown);
                shown.overridden = self.show_override(service, n);
                shown.agent = self.show_agent(service, state, n);
                shown
            })
            .collect();
        let mut shown = status::service(
            service,
            state,
            backends,
            drifted.then_some(&self.verification),
            evenness::Start {
                at_ms: self.started.unix_ms,
            },
            self.remembered_status(service),
        );
        self.show_guards(state, &mut shown);
        let compared_s = (self.now.unix_ms.saturating_sub(self.verification.at_ms)) / 1000;
        shown.evenness.cause = cause::judge(service, &state.load, &shown, compared_s);
        shown.ring_digest = self.ring_digest(service);
        shown
    }

    /// What tells the service's ring from another one.
    fn ring_digest(&self, service: &Service) -> Option<String> {
        let image = self.image.as_ref()?;
        let ring = image.ring_of(self.numbers.service(&service.key)?)?;
        let places = (0..).zip(&service.backends).filter_map(|(place, backend)| {
            Some((self.numbers.endpoint(&service.key, backend.address)?, place))
        });
        let keys = &image.tables.header.flow_keys;
        Some(status::ring_digest(keys, ring, &places.collect()))
    }
}

/// Looks for a SYN flood; answers where one begins or ends.
fn watch_floods(
    service: &Service,
    load: &mut Load,
    (numbers, kernel): (&Numbers, &Kernel),
    (elapsed, now_ms): (Duration, u64),
) -> Option<Event> {
    let retransmitted = || {
        let ends = service
            .backends
            .iter()
            .filter_map(|backend| numbers.endpoint(&service.key, backend.address));
        ends.map(|end| Ok(kernel.events(end)?.retransmitted)).sum()
    };
    let name = &service.name;
    let event =
        |level, message| Event::of_controller(now_ms, Kind::Flood, level, message).service(name);
    match load.watch_floods::<kernel::Error>(elapsed, now_ms, retransmitted) {
        Ok(false) => None,
        Ok(true) => Some(match load.floods.flood() {
            Some(flood) => event(
                Level::Warning,
                format!(
                    "{name}: a SYN flood begins: {:.0} SYNs a second, {:.0} % of its packets",
                    flood.syn_rate,
                    flood.share * 100.0
                ),
            )
            .detail(json!({ "syn_rate": flood.syn_rate, "syn_share": flood.share })),
            None => event(Level::Info, format!("{name}: the SYN flood is over")),
        }),
        Err(e) => {
            error!("{name}: {}", with_causes(&e));
            None
        }
    }
}

/// A backend's slots before and after a publication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Moved {
    service: String,
    backend: String,
    before: u32,
    after: u32,
}
