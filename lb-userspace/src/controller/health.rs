//! From what probes find to what is in force of each backend's weight, and what there is to tell.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Now,
    state::{BackendState, ServiceState, State},
};
use crate::{
    admin::proto,
    health::{
        agent::Wish,
        driver::Report,
        event::{Cause, Event as Happened, Severity, What},
        force::{Force, Overruled, View},
        outlier::{Judged, Monitor, Rung, Settings, Sight, Standing, TrafficSight},
        slow_start::SlowStart,
        state::{State as Health, Verdict},
    },
    journal::{Event, Kind, Level},
    model::{Fraction, Senses, Service, Underperformers},
};

/// What is watched and in force of one service.
#[derive(Clone)]
pub(super) struct Watched {
    /// Looks for underperformers; `None` where nobody does.
    pub(super) monitor: Option<Monitor>,
    pub(super) force: Force,
}

impl Watched {
    pub(super) fn new(service: &Service) -> Self {
        let ejection = &service.options.ejection;
        let looks = ejection.underperformers != Underperformers::Ignore;
        let check = service.health.as_ref().filter(|_| looks);
        Self {
            monitor: check.map(|check| {
                let settings = Settings::new(ejection, check.interval);
                let monitor = Monitor::new(settings, service.backends.len());
                if looks_at_traffic(service) {
                    monitor.with_traffic()
                } else {
                    monitor
                }
            }),
            force: Force::default(),
        }
    }

    /// What is known goes on with a changed service; `from` says which backend each one was.
    pub(super) fn carried(
        &self,
        before: &Service,
        after: &Service,
        from: &[Option<usize>],
    ) -> Self {
        let interval = |service: &Service| service.health.as_ref().map(|check| check.interval);
        let looks_alike = before.options.ejection == after.options.ejection
            && looks_at_traffic(before) == looks_at_traffic(after)
            && interval(before) == interval(after);
        let in_place = from.len() == before.backends.len()
            && from.iter().enumerate().all(|(n, from)| *from == Some(n));
        let monitor = match &self.monitor {
            Some(monitor) if looks_alike && in_place => Some(monitor.clone()),
            Some(monitor) if looks_alike => Some(monitor.carried(from)),
            _ => Self::new(after).monitor,
        };
        let fraction = |n: &Option<usize>| n.map_or(Fraction::NONE, |n| self.fraction(n));
        Self {
            monitor,
            force: Force {
                fractions: from.iter().map(fraction).collect(),
                overruled: self.force.overruled,
            },
        }
    }

    /// What is in force of a backend's weight.
    pub(super) fn fraction(&self, backend: usize) -> Fraction {
        let fractions = &self.force.fractions;
        fractions.get(backend).copied().unwrap_or(Fraction::NONE)
    }

    pub(super) fn panics(&self) -> bool {
        self.force.overruled == Overruled::Probes
    }

    fn rung(&self, backend: usize) -> Rung {
        let monitor = self.monitor.as_ref();
        monitor.map_or(Rung::Full, |monitor| monitor.rung(backend))
    }
}

impl State {
    /// The time since the start, which the pure parts count by.
    pub(super) fn elapsed(&self, now: std::time::Instant) -> Duration {
        now.saturating_duration_since(self.started.instant)
    }

    /// Tells what happened to a service or a backend.
    pub(super) fn announce(&self, service: usize, backend: Option<usize>, at_ms: u64, what: What) {
        let service = &self.config.services[service];
        let happened = Happened {
            at_ms,
            service: service.name.clone(),
            backend: backend.map(|n| service.backends[n].name.clone()),
            what,
        };
        let level = match happened.severity() {
            Severity::Info => Level::Info,
            Severity::Warning => Level::Warning,
            Severity::Page => Level::Error,
        };
        let kind = match happened.what {
            What::Turned { .. } => Kind::Health,
            What::Asked { .. }
            | What::Forgotten { .. }
            | What::AgentsOverruled
            | What::AgentsCount => Kind::Agent,
            _ => Kind::Performance,
        };
        let event = self
            .event(kind, level, happened.to_string())
            .service(&happened.service)
            .detail(detail(&happened.what));
        self.tell(Event {
            at_ms,
            backend: happened.backend.map(|name| name.to_string()),
            ..event
        });
    }

    /// Hands what a probe found to the monitor.
    pub(super) fn note_performance(&mut self, service: usize, backend: usize, report: &Report) {
        let at = self.elapsed(report.at);
        let state = &mut self.services[service];
        let up = state.backends[backend].is_healthy();
        let Some(monitor) = &mut state.watched.monitor else {
            return;
        };
        match report.outcome.verdict() {
            Some(Verdict::Pass) => monitor.answered(backend, at, report.outcome.took),
            // Of one that is down it is known that it fails.
            Some(Verdict::Fail) if up => monitor.failed(backend, at),
            Some(Verdict::Fail) | None => {}
        }
    }

    /// Takes note of a backend whose probes changed its state.
    pub(super) fn turned(
        &mut self,
        service: usize,
        backend: usize,
        (at, at_ms): (std::time::Instant, u64),
        what: What,
    ) {
        let began = self.elapsed(at);
        let length = self.config.services[service].options.slow_start;
        let joins = !self.waiting_for_all() && !self.services[service].starting;
        let seen = &mut self.services[service].backends[backend];
        let came_back = matches!(what, What::Turned { to: Health::Up, .. });
        let is_new = std::mem::take(&mut seen.is_new);
        // At a start all of them come up; that is no return.
        let starts = came_back && (joins || is_new);
        seen.start = if starts && length.is_some() {
            SlowStart::Since(began)
        } else {
            SlowStart::Over
        };
        self.announce(service, Some(backend), at_ms, what);
        if let (true, Some(length)) = (starts, length) {
            let (part, _) = SlowStart::Since(began).part(began, length);
            let what = What::StartedSlowly {
                part,
                full_in: length,
            };
            self.announce(service, Some(backend), at_ms, what);
        }
    }

    /// Judges the backends' performance.
    pub(super) fn judge_performance(&mut self, now: Now) {
        let elapsed = self.elapsed(now.instant);
        let mut happened = Vec::new();
        for n in 0..self.services.len() {
            let standing = self.standing(n);
            if let Some(monitor) = &mut self.services[n].watched.monitor {
                let found = monitor.tick(elapsed, &standing);
                happened.extend(found.into_iter().map(|one| (n, one)));
            }
        }
        for (service, (backend, what)) in happened {
            self.announce(service, backend, now.unix_ms, what);
        }
    }

    /// What else the monitor has to know of a service's backends.
    fn standing(&self, n: usize) -> Vec<Standing> {
        let (service, state) = (&self.config.services[n], &self.services[n]);
        // What they ask for and do not get is not missing.
        let counts = state.watched.force.overruled == Overruled::Nobody;
        let of = |n: usize| Standing {
            weight: service.backends[n].weight.number(),
            up: state.backends[n].is_healthy(),
            asked: if counts {
                self.asked(service, state, n)
            } else {
                Fraction::FULL
            },
        };
        (0..state.backends.len()).map(of).collect()
    }

    /// Renews what is in force of each backend's weight.
    pub(super) fn renew_force(&mut self, now: Now) {
        // Backends that were not asked yet are not down.
        if self.waiting_for_all() {
            return;
        }
        for n in 0..self.services.len() {
            let (views, force) = self.force_of(n, now);
            let service = &self.config.services[n];
            let before = std::mem::replace(&mut self.services[n].watched.force, force);
            let after = &self.services[n].watched.force;
            if before == *after {
                continue;
            }
            for (n, backend) in service.backends.iter().enumerate() {
                let name = format!("{}/{}", service.name, backend.name);
                let (had, has) = (before.fractions.get(n), after.fractions[n]);
                if had != Some(&has) && !self.news.tells_of(&name) {
                    self.news.add(format!("{name} has {has} of its weight"));
                }
            }
            let (was, is) = (before.overruled, after.overruled);
            let pool = || views.iter().filter(|view| view.weight > 0);
            let (up, of) = (pool().filter(|view| view.up).count(), pool().count());
            let ended = match (was, is) {
                _ if was == is => None,
                (Overruled::Probes, _) => Some(What::PanicEnded { up, of }),
                (Overruled::Degrees, Overruled::Nobody | Overruled::Agents) => {
                    Some(What::DegreesCount)
                }
                (Overruled::Agents, Overruled::Nobody) => Some(What::AgentsCount),
                _ => None,
            };
            let began = match is {
                _ if was == is => None,
                Overruled::Probes => Some(What::PanicBegan { up, of }),
                Overruled::Degrees => Some(What::DegreesOverruled),
                Overruled::Agents => Some(What::AgentsOverruled),
                Overruled::Nobody => None,
            };
            for what in ended.into_iter().chain(began) {
                self.announce(n, None, now.unix_ms, what);
            }
        }
    }

    /// What follows for a service from what is known of its backends.
    pub(super) fn force_of(&self, n: usize, now: Now) -> (Vec<View>, Force) {
        let elapsed = self.elapsed(now.instant);
        let (service, state) = (&self.config.services[n], &self.services[n]);
        let views: Vec<View> = (0..state.backends.len())
            .map(|backend| self.view(service, state, backend, elapsed))
            .collect();
        let force = Force::of(&views, service.options.panic_below);
        (views, force)
    }

    fn view(
        &self,
        service: &Service,
        state: &ServiceState,
        backend: usize,
        elapsed: Duration,
    ) -> View {
        let configured = &service.backends[backend];
        let (start, _) = starting(service, &state.backends[backend], elapsed);
        View {
            weight: configured.weight.number(),
            up: state.backends[backend].is_healthy(),
            reachable: self.unreachable(service, configured).is_none(),
            part: state.watched.rung(backend).fraction().min(start),
            asked: self.asked(service, state, backend),
        }
    }

    /// A backend's weight and performance, for the status.
    pub(super) fn show_performance(
        &self,
        service: &Service,
        state: &ServiceState,
        n: usize,
        shown: &mut proto::Backend,
    ) {
        let elapsed = self.elapsed(self.now.instant);
        let fraction = state.watched.fraction(n);
        shown.weight_in_force = Some(f64::from(shown.weight) * fraction.number());
        let (_, left) = starting(service, &state.backends[n], elapsed);
        shown.full_in_s = left.map(|left| left.as_secs_f64());
        shown.performance = state
            .watched
            .monitor
            .as_ref()
            .map(|monitor| performance(&monitor.sight(n, elapsed)));
    }

    /// What a service's status says of panic, the fleet, and a freeze.
    pub(super) fn show_guards(&self, state: &ServiceState, shown: &mut proto::Service) {
        let elapsed = self.elapsed(self.now.instant);
        if state.watched.panics() {
            let pool = || shown.backends.iter().filter(|backend| backend.weight > 0);
            let up = pool().filter(|backend| backend.health == "up").count();
            shown.panic = Some(format!("{up} of {} backends are up", pool().count()));
        }
        if let Some(monitor) = &state.watched.monitor {
            shown.fleet_degraded = monitor.degraded().map(|why| why.to_string());
            let frozen = monitor.frozen_for(elapsed);
            shown.demotions_frozen_s = frozen.map(|left| left.as_secs_f64());
        }
    }
}

/// Whether a service's backends are judged by traffic as well.
fn looks_at_traffic(service: &Service) -> bool {
    service.options.ejection.senses == Senses::ProbesAndTraffic && service.is_measured()
}

/// Which part of its weight a slow start leaves a backend, and in how long it has all of it.
fn starting(
    service: &Service,
    seen: &BackendState,
    elapsed: Duration,
) -> (Fraction, Option<Duration>) {
    match service.options.slow_start {
        Some(length) => seen.start.part(elapsed, length),
        None => (Fraction::FULL, None),
    }
}

fn performance(sight: &Sight) -> proto::Performance {
    let state = if sight.rung < Rung::Full {
        if sight.is_well {
            "returning"
        } else {
            "demoted"
        }
    } else if sight.spared.is_some() {
        "spared"
    } else if sight.evidence >= 0.5 {
        "suspect"
    } else {
        "well"
    };
    proto::Performance {
        state: state.to_owned(),
        part: sight.rung.fraction().number(),
        cause: sight.cause.map(|cause| cause.name().to_owned()),
        by: sight.cause.map(|cause| cause.by().name().to_owned()),
        reason: sight.cause.map(|cause| cause.to_string()),
        spared: sight.spared.map(|why| why.to_string()),
        latency_ms: millis(sight.probes.latency),
        peers_ms: millis(sight.probes.peers),
        ratio: sight.probes.ratio,
        traffic: sight.traffic.as_ref().map(by_traffic),
        evidence: sight.evidence,
        next_rise_s: sight.next_rise.map(|left| left.as_secs_f64()),
    }
}

fn millis(latency: Option<Duration>) -> Option<f64> {
    latency.map(|latency| latency.as_secs_f64() * 1e3)
}

fn by_traffic(sight: &TrafficSight) -> proto::ByTraffic {
    let (state, within) = match sight.judged {
        Judged::TooFew => ("too-few", None),
        Judged::New => ("new", None),
        Judged::Within(time) => ("judged", Some(time.as_secs_f64())),
    };
    proto::ByTraffic {
        state: state.to_owned(),
        latency_ms: millis(sight.compared.latency),
        peers_ms: millis(sight.compared.peers),
        ratio: sight.compared.ratio,
        evidence: sight.evidence.0,
        failing_evidence: sight.evidence.1,
        per_minute: sight.rate * 60.0,
        found_within_s: within,
    }
}

/// What happened, for programs.
fn detail(what: &What) -> Value {
    match what {
        What::Turned { to, reason, detail } => json!({
            "to": to.to_string(), "reason": reason.to_string(), "probe": detail,
        }),
        What::Demoted {
            from,
            to,
            cause,
            hold,
        } => json!({
            "what": "demoted", "from": from.fraction().number(), "to": to.fraction().number(),
            "cause": of_cause(cause), "hold_s": hold.as_secs(),
        }),
        What::Spared { cause, why } => json!({
            "what": "spared", "cause": of_cause(cause), "why": why.to_string(),
        }),
        What::Improved => json!({ "what": "improved" }),
        What::Raised { to, next } => json!({
            "what": "raised", "to": to.fraction().number(), "next_s": next.as_secs(),
        }),
        What::Restored => json!({ "what": "restored" }),
        What::Reverted {
            to,
            rise,
            frozen_for,
        } => json!({
            "what": "reverted", "to": to.fraction().number(), "rise": rise,
            "frozen_for_s": frozen_for.as_secs(),
        }),
        What::FleetDegraded(why) => json!({ "what": "fleet-degraded", "why": why.to_string() }),
        What::FleetRecovered => json!({ "what": "fleet-recovered" }),
        What::PanicBegan { up, of } => json!({ "what": "panic-began", "up": up, "of": of }),
        What::PanicEnded { up, of } => json!({ "what": "panic-ended", "up": up, "of": of }),
        What::DegreesOverruled => json!({ "what": "degrees-overruled" }),
        What::DegreesCount => json!({ "what": "degrees-count" }),
        What::AgentsOverruled => json!({ "what": "agents-overruled" }),
        What::AgentsCount => json!({ "what": "agents-count" }),
        What::Asked { wish, overridden } => json!({
            "what": "asked", "wish": of_wish(wish), "overridden": overridden,
        }),
        What::Forgotten { word, silent, why } => json!({
            "what": "forgotten", "wish": of_wish(word), "silent_s": silent.as_secs(), "why": why,
        }),
        What::StartedSlowly { part, full_in } => json!({
            "what": "started-slowly", "part": part.number(), "full_in_s": full_in.as_secs(),
        }),
    }
}

fn of_wish(wish: &Wish) -> Value {
    json!({ "state": wish.word(), "percent": wish.percent, "note": wish.note })
}

fn of_cause(cause: &Cause) -> Value {
    let ms = |latency: &Duration| latency.as_secs_f64() * 1e3;
    match cause {
        Cause::Slow {
            by,
            latency,
            peers,
            ratio,
            samples,
            over,
        } => json!({
            "name": cause.name(), "by": by, "latency_ms": ms(latency), "peers_ms": ms(peers),
            "ratio": ratio, "samples": samples, "over_s": over.as_secs(),
        }),
        Cause::Failing {
            by,
            failed,
            of,
            over,
        } => json!({
            "name": cause.name(), "by": by, "failed": failed, "of": of, "over_s": over.as_secs(),
        }),
    }
}
