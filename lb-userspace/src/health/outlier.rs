//! Backends that answer, and are slower or fail more often than their peers.
//!
//! Pure code: time comes in as an argument, as the time since any fixed moment. One [`Monitor`]
//! watches a service. It takes what probes find and what traffic took, judges once a tick, and
//! answers which part of its weight each backend should have.
//!
//! - `latency`: is a backend slower than its peers? `errors`: does it fail more often than is
//!   borne? Both are sequential tests, which act when the evidence is there and not before.
//! - `sense`: what one source of latencies tells of all backends. There are two, probes and
//!   `traffic`, each with its own habits and spreads, and everything below is theirs together.
//!   `losses`: does traffic find fewer answers than with the peers?
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
mod losses;
mod sense;
mod settings;
mod smooth;
mod traffic;

use std::time::Duration;

use lb_common::layout::Latencies;

use self::{
    errors::Failures,
    guards::Harm,
    ladder::Ladder,
    latency::{Brought, Compared, Round},
    losses::Losses,
    sense::Sense,
    settings::{ACT, SUSPECT},
    traffic::{Pace, Traffic},
};
pub use self::{
    guards::panics,
    ladder::{Demotion, Rung},
    settings::Settings,
};
use super::event::{By, Cause, Degraded, Spared, What};
use crate::model::{Ejection, Fraction, Underperformers};

/// How long the fleet must be well before it counts as recovered.
const RECOVERED_AFTER: Duration = Duration::from_secs(30);

/// What the rest of the controller knows of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its configured weight; zero drains it.
    pub weight: u16,
    /// Whether its probes say that it is up.
    pub up: bool,
    /// What part of its weight it asks for itself.
    pub asked: Fraction,
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
    /// How it compares by its probes.
    pub probes: Comparison,
    /// How it compares by traffic; `None` where that is not looked at.
    pub traffic: Option<TrafficSight>,
    /// The evidence against it, as a part of what would be acted on.
    pub evidence: f64,
    /// Whether it is as good as its peers at present.
    pub is_well: bool,
    /// In how long it may get weight back, where it lacks some.
    pub next_rise: Option<Duration>,
}

/// A backend's latency beside that of its peers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Its latency over the last seconds.
    pub latency: Option<Duration>,
    /// The median of its peers.
    pub peers: Option<Duration>,
    /// How many times as slow as its peers it is.
    pub ratio: Option<f64>,
}

/// What traffic tells of a backend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrafficSight {
    /// How it compares.
    pub compared: Comparison,
    /// The evidence that it is slow, and that clients find no answer, as parts of what would be acted
    /// on.
    pub evidence: (f64, f64),
    /// Requests that count, a second: of each connection that is measured one a minute.
    pub rate: f64,
    /// How it is judged.
    pub judged: Judged,
}

/// Whether traffic is enough to judge a backend by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Judged {
    /// It is not.
    TooFew,
    /// It is still being learned how the backend compares.
    New,
    /// One that is as slow as must be found is found in about this time.
    Within(Duration),
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
    probes: Sense,
    traffic: Option<Traffic>,
    backends: Vec<Backend>,
    harm: Harm,
    degraded: Option<Degraded>,
    /// When the fleet was last bad.
    bad_at: Duration,
}

impl Monitor {
    /// Watches so many backends, of which nothing is known yet, by their probes.
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
            probes: Sense::new(By::Probes, backends),
            traffic: None,
            backends: vec![backend; backends],
            harm: Harm::default(),
            degraded: None,
            bad_at: Duration::ZERO,
        }
    }

    /// The same, by traffic as well.
    #[must_use]
    pub fn with_traffic(self) -> Self {
        Self {
            traffic: Some(Traffic::new(self.backends.len())),
            ..self
        }
    }

    /// The same for other backends: `from` says which of them each one was, if any. What is known of
    /// a backend goes on; what is known of the fleet begins anew, because it is another one.
    #[must_use]
    pub fn carried(&self, from: &[Option<usize>]) -> Self {
        let mut monitor = Self::new(self.settings, from.len());
        monitor.traffic = self.traffic.as_ref().map(|_| Traffic::new(from.len()));
        for (n, from) in from.iter().enumerate() {
            let Some(from) = *from else { continue };
            monitor.probes.hosts[n] = self.probes.hosts[from].clone();
            monitor.backends[n] = self.backends[from].clone();
            if let (Some(traffic), Some(known)) = (&mut monitor.traffic, &self.traffic) {
                traffic.carry(n, known, from);
            }
        }
        monitor
    }

    /// Takes a probe that a backend answered.
    pub fn answered(&mut self, backend: usize, now: Duration, latency: Duration) {
        self.probes.hosts[backend].observe(now, latency, &self.settings);
        self.backends[backend].failures.observe(now, false);
    }

    /// Takes what was measured of a backend's flows since the last tick.
    pub fn took(&mut self, backend: usize, latencies: &Latencies) {
        if let Some(traffic) = &mut self.traffic {
            traffic.took(backend, latencies);
        }
    }

    /// Takes a probe that failed, of a backend that is up.
    pub fn failed(&mut self, backend: usize, now: Duration) {
        self.backends[backend].failures.observe(now, true);
    }

    /// Which part of its weight a backend has.
    #[must_use]
    pub fn rung(&self, backend: usize) -> Rung {
        self.backends[backend].ladder.rung()
    }

    /// How far a backend is demoted; `None` where it is not.
    #[must_use]
    pub fn demotion(&self, backend: usize) -> Option<Demotion> {
        let backend = &self.backends[backend];
        let demotion = backend.ladder.demotion()?;
        Some(Demotion {
            cause: backend.cause,
            ..demotion
        })
    }

    /// Has a backend go on as far demoted as it was before anybody looked. Times are of this
    /// monitor's clock, which begins at zero.
    pub fn resume(&mut self, backend: usize, demotion: &Demotion) {
        let backend = &mut self.backends[backend];
        // It was kept under another configuration, or a clock that was set since.
        let longest = self.settings.hold * Ejection::LONGEST_HOLD;
        backend.ladder = Ladder::resumed(&Demotion {
            held: demotion.held.min(longest),
            ..*demotion
        });
        backend.cause = demotion.cause;
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
        let learn = self.may_learn();
        self.tick_probes(now, &compared, learn);
        if let Some(traffic) = &mut self.traffic {
            traffic.tick(now, &compared, learn, &self.settings);
        }
        self.watch_fleet(now, &compared, &mut happened);
        let senses = self.traffic.as_ref().map(|traffic| &traffic.sense);
        let senses = std::iter::once(&self.probes).chain(senses);
        if let Some(done) = self.harm.look(&senses, &compared, now) {
            self.revert(done, now, &mut happened);
        }
        for n in self.worst_first(now) {
            if compared[n].judged {
                self.judge(n, now, standing, &compared, &mut happened);
            }
        }
        happened
    }

    /// What is known of a backend.
    #[must_use]
    pub fn sight(&self, n: usize, now: Duration) -> Sight {
        let backend = &self.backends[n];
        let rung = backend.ladder.rung();
        Sight {
            rung,
            cause: backend.cause,
            spared: backend.spared,
            probes: comparison(&self.probes, n),
            traffic: self
                .traffic
                .as_ref()
                .map(|of| self.traffic_sight(of, n, now)),
            evidence: self.evidence(n, now) / ACT,
            is_well: backend.ladder.well_since().is_some(),
            next_rise: (rung < Rung::Full)
                .then(|| backend.ladder.next_rise(now).saturating_sub(now)),
        }
    }

    fn traffic_sight(&self, traffic: &Traffic, n: usize, now: Duration) -> TrafficSight {
        let Pace { rate, found_in } = traffic.pace(n, now, &self.settings);
        let sense = &traffic.sense;
        TrafficSight {
            compared: comparison(sense, n),
            evidence: (
                sense.evidence(n, now) / ACT,
                traffic.losses[n].evidence / ACT,
            ),
            rate,
            judged: match found_in {
                Some(_) if sense.hosts[n].is_new() => Judged::New,
                Some(time) => Judged::Within(time),
                None => Judged::TooFew,
            },
        }
    }

    /// What tells of latencies.
    fn senses(&self) -> impl Iterator<Item = &Sense> {
        let traffic = self.traffic.as_ref().map(|traffic| &traffic.sense);
        std::iter::once(&self.probes).chain(traffic)
    }

    fn losses(&self, n: usize) -> Option<&Losses> {
        self.traffic.as_ref().map(|traffic| &traffic.losses[n])
    }

    /// The evidence against a backend, by whichever test has most.
    fn evidence(&self, n: usize, now: Duration) -> f64 {
        let slow = self.senses().map(|sense| sense.evidence(n, now));
        let lost = self.losses(n).map(|losses| losses.evidence);
        slow.chain(lost)
            .fold(self.backends[n].failures.evidence, f64::max)
    }

    /// Forgets the evidence that a backend is slow or leaves clients without an answer.
    fn acquit(&mut self, n: usize) {
        self.probes.hosts[n].acquit();
        if let Some(traffic) = &mut self.traffic {
            traffic.sense.hosts[n].acquit();
            traffic.losses[n].acquit();
        }
    }

    /// Whether all is well, so that habits may be learned.
    fn may_learn(&self) -> bool {
        let demoted = |backend: &Backend| backend.ladder.rung() < Rung::Full;
        let hosts = self.senses().flat_map(|sense| &sense.hosts);
        !self.backends.iter().any(demoted) && hosts.into_iter().all(|host| host.evidence < SUSPECT)
    }

    fn tick_probes(&mut self, now: Duration, compared: &[Compared], learn: bool) {
        let (sense, settings) = (&mut self.probes, &self.settings);
        let tick = Duration::from_secs(1);
        let length = settings.interval.max(tick);
        let closed = sense.hosts.iter_mut().map(|host| host.close(now));
        let brought: Vec<Brought> = closed
            .map(|samples| Brought {
                samples,
                worth: samples,
                learned: length.as_secs_f64(),
            })
            .collect();
        let round = Round {
            now,
            length,
            memory: Duration::ZERO,
            learn,
        };
        sense.tick(&round, &brought, compared, settings.stale, settings);
        let mut latest = sense.latest(compared, now, settings.stale);
        let seen = (sense.spread(), latest.len() as f64);
        let round = Round {
            length: tick,
            ..round
        };
        sense.fleet.tick(&round, &mut latest, seen, settings);
    }

    /// A backend that was down is another one when it comes back, but for its habit.
    fn notice_returns(&mut self, standing: &[Standing]) {
        for (n, (backend, standing)) in self.backends.iter_mut().zip(standing).enumerate() {
            if standing.up && !backend.was_up {
                self.probes.hosts[n].restart();
                if let Some(traffic) = &mut self.traffic {
                    traffic.sense.hosts[n].restart();
                    traffic.losses[n].acquit();
                }
            }
            backend.was_up = standing.up;
        }
    }

    fn compared(&self, standing: &[Standing]) -> Vec<Compared> {
        self.backends
            .iter()
            .zip(standing)
            .map(|(backend, standing)| {
                // Who is on its way out is no measure for the others, nor they for it.
                let judged = standing.up && standing.weight > 0 && standing.asked > Fraction::NONE;
                Compared {
                    judged,
                    peer: judged && backend.ladder.rung() == Rung::Full,
                }
            })
            .collect()
    }

    fn worst_first(&self, now: Duration) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.backends.len()).collect();
        let badness = |&n: &usize| {
            let speaking = self.senses().filter(|sense| sense.speaks(n, now));
            let ratios = speaking.filter_map(|sense| sense.hosts[n].ratio());
            ratios.reduce(f64::max).unwrap_or(1.0) * self.evidence(n, now)
        };
        order.sort_by(|a, b| badness(b).total_cmp(&badness(a)));
        order
    }

    /// Renews whether the fleet is bad as a whole.
    fn watch_fleet(&mut self, now: Duration, compared: &[Compared], happened: &mut Vec<Happened>) {
        let judged = compared.iter().filter(|one| one.judged).count();
        let suspects = (0..self.backends.len())
            .filter(|&n| compared[n].judged && self.is_suspect(n, now))
            .count();
        let slow = |sense: &Sense| {
            sense.fleet.slow_since()?;
            let (latency, usual) = sense.fleet.latencies()?;
            Some(Degraded::Slow {
                by: sense.by,
                latency: Duration::from_secs_f64(latency),
                usual: Duration::from_secs_f64(usual),
            })
        };
        let bad = if let Some(slow) = self.senses().find_map(slow) {
            Some(slow)
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
    fn is_suspect(&self, n: usize, now: Duration) -> bool {
        let ladder = &self.backends[n].ladder;
        let demoted = ladder.rung() < Rung::Full && ladder.well_since().is_none();
        demoted || self.evidence(n, now) >= SUSPECT
    }

    fn revert(&mut self, done: guards::Done, now: Duration, happened: &mut Vec<Happened>) {
        let backend = &mut self.backends[done.backend];
        backend.ladder.undo(done.back_to, now);
        backend.failures.acquit();
        if done.back_to == Rung::Full {
            backend.cause = None;
        }
        self.acquit(done.backend);
        let what = What::Reverted {
            to: done.back_to,
            rise: done.rise,
            frozen_for: done.frozen_for,
        };
        happened.push((Some(done.backend), what));
    }
}

/// How a backend compares by one sense.
fn comparison(sense: &Sense, n: usize) -> Comparison {
    let host = &sense.hosts[n];
    let latency = |log: Option<f64>| log.map(|log| Duration::from_secs_f64(log.exp()));
    Comparison {
        latency: latency(host.seen.value()),
        peers: latency(host.peers.value()),
        ratio: host.ratio(),
    }
}

#[cfg(test)]
mod simulations;
