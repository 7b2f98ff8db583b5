//! Is a backend slower than its peers?
//!
//! Each tick, the median of a backend's log-latencies is compared with that of its peers. What it
//! is slower by, less what it is slower by habit, is evidence for 'as slow as must be found' over
//! 'as slow as is borne', added up and never below zero.

use std::time::Duration;

use super::{
    settings::{ACT, DOUBT, Settings},
    smooth::{Smooth, Sorted, median},
};

/// The time over which a habit is learned.
const HABIT_MEMORY: f64 = 600.0;
/// The largest habit, either way.
const LARGEST_HABIT: f64 = 1.6;
/// A backend that is slower than this is slow, whatever its habit.
const NO_HABIT: f64 = 3.0;
/// What shows and decides a return follows the present with this time constant.
const MEMORY: Duration = Duration::from_secs(10);
/// What may be a habit follows it with this one.
const LONG_MEMORY: Duration = Duration::from_mins(1);
/// What demotions are judged by afterwards follows it with this one.
pub(super) const LEVEL_MEMORY: Duration = Duration::from_secs(15);
/// What the spread of log-latencies is taken for before any is seen, and how many samples that
/// is worth.
const FIRST_SPREAD: (f64, f64) = (0.5, 30.0);
/// Over how many samples the spread is learned.
const SPREAD_MEMORY: f64 = 300.0;
/// A difference may count for so many times the variance known so far.
const OUTLYING: f64 = 9.0;
/// Comparisons before which a backend is not judged: the first time, when its habit is learned, and
/// when it comes back.
const WARM: (u32, u32) = (30, 10);
/// The largest slowness that is learned so fast. More than this, and a host that is bad from the
/// start would be taken for one that has always been so.
const LARGEST_FIRST_HABIT: f64 = 1.25;

/// How one backend stands in a tick.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compared {
    /// Whether it is judged: it is up and has a weight.
    pub(super) judged: bool,
    /// Whether others are compared with it.
    pub(super) peer: bool,
}

/// What is known of one backend's latencies, in natural logarithms of seconds.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pending: Vec<f64>,
    last: Option<f64>,
    samples: u32,
    /// The variance of one log-latency, from differences, lest a shift count as spread.
    variance: f64,
    /// The last tick's median, and when that was.
    latest: Option<(Duration, f64)>,
    /// The average latency, floored as the tests see it.
    pub(super) level: Smooth,
    /// The average latency as it is, and that of the peers.
    pub(super) seen: Smooth,
    pub(super) peers: Smooth,
    /// The average excess over the peers.
    excess: Smooth,
    /// The same over a longer time.
    long_excess: Smooth,
    /// What it exceeds its peers by as a habit.
    habit: f64,
    /// Comparisons so far, and how many there are before it is judged.
    compared: u32,
    warm: u32,
    pub(super) evidence: f64,
    /// Sum and number of the excesses since the evidence began to gather, and when that was.
    since: (f64, u32, Duration),
}

impl Host {
    pub(super) fn new() -> Self {
        Self {
            pending: Vec::new(),
            last: None,
            samples: 0,
            variance: FIRST_SPREAD.0 * FIRST_SPREAD.0,
            latest: None,
            level: Smooth::over(LEVEL_MEMORY),
            seen: Smooth::over(MEMORY),
            peers: Smooth::over(MEMORY),
            excess: Smooth::over(MEMORY),
            long_excess: Smooth::over(LONG_MEMORY),
            habit: 0.0,
            compared: 0,
            warm: WARM.0,
            evidence: 0.0,
            since: (0.0, 0, Duration::ZERO),
        }
    }

    /// Takes one latency.
    pub(super) fn observe(&mut self, now: Duration, latency: Duration, settings: &Settings) {
        let seen = latency.as_secs_f64().max(1e-6).ln();
        self.seen.add(now, seen);
        let floored = seen.max(settings.floor);
        if let Some(last) = self.last.replace(floored)
            && self.evidence < DOUBT
        {
            let difference = ((floored - last).powi(2) / 2.0).min(OUTLYING * self.variance);
            let memory = (f64::from(self.samples) + FIRST_SPREAD.1).min(SPREAD_MEMORY);
            self.variance += (difference - self.variance) / memory;
        }
        self.samples = self.samples.saturating_add(1);
        self.pending.push(floored);
    }

    /// Whether it has been slower than its peers lately, by more than is borne, and by more than it
    /// is by habit.
    pub(super) fn is_slower(&self, settings: &Settings) -> bool {
        self.excess
            .value()
            .is_some_and(|raw| raw >= settings.borne() && raw - self.habit >= settings.well())
    }

    /// How many times as slow as its peers it is: since evidence against it gathers where it does,
    /// over the last seconds otherwise.
    pub(super) fn ratio(&self) -> Option<f64> {
        match self.since {
            (sum, ticks, _) if self.evidence > DOUBT => Some((sum / f64::from(ticks)).exp()),
            _ => self.excess.value().map(f64::exp),
        }
    }

    /// When the evidence against it began to gather.
    pub(super) fn onset(&self) -> Duration {
        self.since.2
    }

    /// Forgets the evidence.
    pub(super) fn acquit(&mut self) {
        self.evidence = 0.0;
    }

    /// Forgets what is not of the host itself: it comes back from where nothing was known of it.
    pub(super) fn restart(&mut self) {
        if self.compared < self.warm {
            *self = Self::new();
        } else {
            *self = Self {
                habit: self.habit,
                variance: self.variance,
                warm: WARM.1,
                ..Self::new()
            };
        }
    }

    /// The spread of its log-latencies.
    pub(super) fn spread(&self) -> f64 {
        self.variance.sqrt()
    }

    fn compare(
        &mut self,
        now: Duration,
        own: f64,
        reference: f64,
        seen: (f64, usize),
        learn: bool,
        settings: &Settings,
    ) {
        let raw = own - reference;
        self.excess.add(now, raw);
        self.long_excess.add(now, raw);
        let (spread, samples) = seen;
        self.compared = self.compared.saturating_add(1);
        if self.compared <= self.warm {
            if self.warm == WARM.0 {
                let mean = self.habit + (raw - self.habit) / f64::from(self.compared);
                self.habit = mean.clamp(-LARGEST_HABIT.ln(), LARGEST_FIRST_HABIT.ln());
            }
            return;
        }
        let slow = self
            .excess
            .value()
            .is_some_and(|excess| excess > NO_HABIT.ln());
        let habit = if slow { 0.0 } else { self.habit };
        let before = self.evidence;
        let evidence = settings.evidence(raw - habit, spread, samples);
        self.evidence = (before + evidence).clamp(0.0, ACT);
        if before <= 0.0 {
            self.since = (0.0, 0, now);
        }
        self.since.0 += raw;
        self.since.1 += 1;
        // Much more than before is no habit, or it would hide a fault that comes slowly. The average
        // is a long one: to leave out what is high by chance would make the habit too small.
        let within = |excess: f64| excess - self.habit < settings.doubtful();
        if learn && self.evidence < DOUBT && self.long_excess.value().is_some_and(within) {
            let step = settings.interval.as_secs_f64().max(1.0) / HABIT_MEMORY;
            let bound = LARGEST_HABIT.ln();
            self.habit = (self.habit + (raw - self.habit) * step.min(1.0)).clamp(-bound, bound);
        }
    }
}

/// Ends a tick: compares the backends that were seen in it with their peers.
///
/// Habits are learned only where `learn` says that all is well.
pub(super) fn tick(
    hosts: &mut [Host],
    standing: &[Compared],
    now: Duration,
    learn: bool,
    settings: &Settings,
) {
    let mut seen = vec![0; hosts.len()];
    for (host, seen) in hosts.iter_mut().zip(&mut seen) {
        *seen = host.pending.len();
        if let Some(latency) = median(&mut host.pending) {
            host.latest = Some((now, latency));
            host.level.add(now, latency);
        }
        host.pending.clear();
    }
    let common = median(&mut hosts.iter().map(Host::spread).collect::<Vec<_>>());
    let fresh = |host: &Host| {
        let (at, latency) = host.latest?;
        (now.saturating_sub(at) <= settings.stale).then_some((latency, host.seen.value()?))
    };
    let peers: Vec<Option<(f64, f64)>> = hosts
        .iter()
        .zip(standing)
        .map(|(host, standing)| fresh(host).filter(|_| standing.peer))
        .collect();
    let latencies = Sorted::new(peers.iter().flatten().map(|peer| peer.0).collect());
    let shown = Sorted::new(peers.iter().flatten().map(|peer| peer.1).collect());
    for (n, host) in hosts.iter_mut().enumerate() {
        let (Some((_, own)), true) = (host.latest, standing[n].judged && seen[n] > 0) else {
            continue;
        };
        let Some(reference) = latencies.median_without(peers[n].map(|peer| peer.0)) else {
            continue;
        };
        if let Some(shown) = shown.median_without(peers[n].map(|peer| peer.1)) {
            host.peers.add(now, shown);
        }
        // Its own spread where that is larger: a noisy host is not a slow one.
        let spread = host.spread().max(common.unwrap_or_default());
        host.compare(now, own, reference, (spread, seen[n]), learn, settings);
    }
}

/// The latest latencies of the peers, in their order.
pub(super) fn latest(
    hosts: &[Host],
    standing: &[Compared],
    now: Duration,
    settings: &Settings,
) -> Vec<f64> {
    hosts
        .iter()
        .zip(standing)
        .filter(|(_, standing)| standing.peer)
        .filter_map(|(host, _)| host.latest)
        .filter(|(at, _)| now.saturating_sub(*at) <= settings.stale)
        .map(|(_, latency)| latency)
        .collect()
}
