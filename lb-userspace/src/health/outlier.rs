//! Backends that answer, and are slower or fail more often than their peers.
//!
//! Pure code: time comes in as an argument, as the time since any fixed moment. One [`Monitor`]
//! watches a service. It takes what probes find (any other source of latencies and failures would
//! do), judges once a tick, and answers which part of its weight each backend should have.
//!
//! - `latency`: is a backend slower than its peers? `errors`: does it fail more often than is
//!   borne? Both are sequential tests, which act when the evidence is there and not before.
//! - `ladder`: the steps by which a backend loses its weight and gets it back.
//! - `judge`: what is found of one backend, and what becomes of it.
//! - `fleet` and `guards`: who keeps all of that from doing harm. Where all backends are bad,
//!   nobody is demoted.
//!
//! Demotion moves new flows only; those that are established stay with their backend.

mod errors;
mod fleet;
mod guards;
mod judge;
mod ladder;
mod latency;
mod settings;
mod smooth;

use std::time::Duration;

use self::{
    errors::Failures,
    fleet::Fleet,
    guards::Harm,
    ladder::Ladder,
    latency::{Compared, Host},
    settings::{ACT, SUSPECT},
    smooth::median,
};
pub use self::{guards::panics, ladder::Rung, settings::Settings};
use super::event::{Cause, Degraded, Spared, What};
use crate::model::Underperformers;

/// How long the fleet must be well before it counts as recovered.
const RECOVERED_AFTER: Duration = Duration::from_secs(30);

/// What the rest of the controller knows of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its configured weight; zero drains it.
    pub weight: u16,
    /// Whether its probes say that it is up.
    pub up: bool,
}

/// What became of a backend, by its index, or of the service.
pub type Happened = (Option<usize>, What);

/// A backend as the status shows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sight {
    /// Its rung.
    pub rung: Rung,
    /// Why it has not its whole weight, or what is held against it.
    pub cause: Option<Cause>,
    /// Why it keeps its weight nevertheless.
    pub spared: Option<Spared>,
    /// Its latency over the last seconds.
    pub latency: Option<Duration>,
    /// The median of its peers.
    pub peers: Option<Duration>,
    /// How many times as slow as its peers it is.
    pub ratio: Option<f64>,
    /// The evidence against it, as a part of what would be acted on.
    pub evidence: f64,
    /// Whether it is as good as its peers at present.
    pub is_well: bool,
    /// In how long it may get weight back, where it lacks some.
    pub next_rise: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Backend {
    failures: Failures,
    ladder: Ladder,
    cause: Option<Cause>,
    spared: Option<Spared>,
    was_up: bool,
}

/// Watches the backends of one service.
#[derive(Clone, Debug)]
pub struct Monitor {
    settings: Settings,
    hosts: Vec<Host>,
    backends: Vec<Backend>,
    fleet: Fleet,
    harm: Harm,
    degraded: Option<Degraded>,
    /// When the fleet was last bad.
    bad_at: Duration,
}

impl Monitor {
    /// Watches so many backends, of which nothing is known yet.
    #[must_use]
    pub fn new(settings: Settings, backends: usize) -> Self {
        let backend = Backend {
            failures: Failures::new(&settings),
            ladder: Ladder::new(),
            cause: None,
            spared: None,
            was_up: true,
        };
        Self {
            settings,
            hosts: vec![Host::new(); backends],
            backends: vec![backend; backends],
            fleet: Fleet::new(),
            harm: Harm::default(),
            degraded: None,
            bad_at: Duration::ZERO,
        }
    }

    /// The same for other backends: `from` says which of them each one was, if any. What is known of
    /// a backend goes on; what is known of the fleet begins anew, because it is another one.
    #[must_use]
    pub fn carried(&self, from: &[Option<usize>]) -> Self {
        let mut monitor = Self::new(self.settings, from.len());
        for (n, from) in from.iter().enumerate() {
            if let Some(from) = *from {
                monitor.hosts[n] = self.hosts[from].clone();
                monitor.backends[n] = self.backends[from].clone();
            }
        }
        monitor
    }

    /// Takes an answer of a backend.
    pub fn answered(&mut self, backend: usize, now: Duration, latency: Duration) {
        self.hosts[backend].observe(now, latency, &self.settings);
        self.backends[backend].failures.observe(now, false);
    }

    /// Takes a failure of a backend that is up.
    pub fn failed(&mut self, backend: usize, now: Duration) {
        self.backends[backend].failures.observe(now, true);
    }

    /// Which part of its weight a backend has.
    #[must_use]
    pub fn rung(&self, backend: usize) -> Rung {
        self.backends[backend].ladder.rung()
    }

    /// Why the fleet is degraded, where it is.
    #[must_use]
    pub const fn degraded(&self) -> Option<Degraded> {
        self.degraded
    }

    /// How long nobody is demoted, because a demotion did harm.
    #[must_use]
    pub fn frozen_for(&self, now: Duration) -> Option<Duration> {
        self.harm
            .frozen_until(now)
            .map(|until| until.saturating_sub(now))
    }

    /// Judges what came since the last tick; answers what happened.
    pub fn tick(&mut self, now: Duration, standing: &[Standing]) -> Vec<Happened> {
        let mut happened = Vec::new();
        if self.settings.underperformers == Underperformers::Ignore {
            return happened;
        }
        self.notice_returns(standing);
        let compared = self.compared(standing);
        let learn = !self
            .backends
            .iter()
            .any(|backend| backend.ladder.rung() < Rung::Full)
            && !self.hosts.iter().any(|host| host.evidence >= SUSPECT);
        latency::tick(&mut self.hosts, &compared, now, learn, &self.settings);
        self.watch_fleet(now, &compared, &mut happened);
        if let Some(done) = self.harm.look(&self.hosts, &compared, now, &self.settings) {
            self.revert(done, now, &mut happened);
        }
        for n in self.worst_first() {
            if compared[n].judged {
                self.judge(n, now, standing, &compared, &mut happened);
            }
        }
        happened
    }

    /// What is known of a backend.
    #[must_use]
    pub fn sight(&self, n: usize, now: Duration) -> Sight {
        let (host, backend) = (&self.hosts[n], &self.backends[n]);
        let latency = |log: Option<f64>| log.map(|log| Duration::from_secs_f64(log.exp()));
        let rung = backend.ladder.rung();
        Sight {
            rung,
            cause: backend.cause,
            spared: backend.spared,
            latency: latency(host.seen.value()),
            peers: latency(host.peers.value()),
            ratio: host.ratio(),
            evidence: self.evidence(n) / ACT,
            is_well: backend.ladder.well_since().is_some(),
            next_rise: (rung < Rung::Full)
                .then(|| backend.ladder.next_rise(now).saturating_sub(now)),
        }
    }

    /// The evidence against a backend, by whichever test has more.
    fn evidence(&self, n: usize) -> f64 {
        self.hosts[n]
            .evidence
            .max(self.backends[n].failures.evidence)
    }

    /// A backend that was down is another one when it comes back, but for its habit.
    fn notice_returns(&mut self, standing: &[Standing]) {
        for ((host, backend), standing) in
            self.hosts.iter_mut().zip(&mut self.backends).zip(standing)
        {
            if standing.up && !backend.was_up {
                host.restart();
            }
            backend.was_up = standing.up;
        }
    }

    fn compared(&self, standing: &[Standing]) -> Vec<Compared> {
        self.backends
            .iter()
            .zip(standing)
            .map(|(backend, standing)| {
                let judged = standing.up && standing.weight > 0;
                Compared {
                    judged,
                    peer: judged && backend.ladder.rung() == Rung::Full,
                }
            })
            .collect()
    }

    fn worst_first(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.hosts.len()).collect();
        let badness = |n: usize| self.hosts[n].ratio().unwrap_or(1.0) * self.evidence(n);
        order.sort_by(|&a, &b| badness(b).total_cmp(&badness(a)));
        order
    }

    /// Renews whether the fleet is bad as a whole.
    fn watch_fleet(&mut self, now: Duration, compared: &[Compared], happened: &mut Vec<Happened>) {
        let mut latest = latency::latest(&self.hosts, compared, now, &self.settings);
        let mut spreads: Vec<f64> = self.hosts.iter().map(Host::spread).collect();
        let spread = median(&mut spreads).unwrap_or_default();
        self.fleet.tick(now, &mut latest, spread, &self.settings);

        let judged = compared.iter().filter(|one| one.judged).count();
        let suspects = (0..self.hosts.len())
            .filter(|&n| compared[n].judged && self.is_suspect(n))
            .count();
        let bad = if self.fleet.slow_since().is_some() {
            self.fleet
                .latencies()
                .map(|(latency, usual)| Degraded::Slow {
                    latency: Duration::from_secs_f64(latency),
                    usual: Duration::from_secs_f64(usual),
                })
        } else if guards::fleet_is_suspect(suspects, judged) {
            Some(Degraded::Suspects {
                suspects,
                of: judged,
            })
        } else {
            None
        };
        if let Some(bad) = bad {
            self.bad_at = now;
            if self.degraded.replace(bad).is_none() {
                happened.push((None, What::FleetDegraded(bad)));
            }
        } else if self.degraded.is_some() && now.saturating_sub(self.bad_at) >= RECOVERED_AFTER {
            self.degraded = None;
            happened.push((None, What::FleetRecovered));
        }
    }

    /// Whether a backend is bad, or about to be found so.
    fn is_suspect(&self, n: usize) -> bool {
        let ladder = &self.backends[n].ladder;
        let demoted = ladder.rung() < Rung::Full && ladder.well_since().is_none();
        demoted || self.evidence(n) >= SUSPECT
    }

    fn revert(&mut self, done: guards::Done, now: Duration, happened: &mut Vec<Happened>) {
        let backend = &mut self.backends[done.backend];
        backend.ladder.undo(done.back_to, now);
        backend.failures.acquit();
        self.hosts[done.backend].acquit();
        if done.back_to == Rung::Full {
            backend.cause = None;
        }
        let what = What::Reverted {
            to: done.back_to,
            rise: done.rise,
            frozen_for: done.frozen_for,
        };
        happened.push((Some(done.backend), what));
    }
}

#[cfg(test)]
mod simulations;
