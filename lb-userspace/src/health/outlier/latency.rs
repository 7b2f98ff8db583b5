//! Is a backend slower than its peers?
//!
//! Each tick, a backend's log-latency is compared with that of its peers: the median of its probes,
//! or the mean of what traffic took. What it is slower by, less what it is slower by habit, is
//! evidence for 'as slow as must be found' over 'as slow as is borne', added up and never below
//! zero.

use std::time::Duration;

use super::{
    settings::{ACT, DOUBT, Settings},
    smooth::{Smooth, median},
};

/// The time over which a habit is learned.
const HABIT_MEMORY: f64 = 600.0;
/// The largest habit, either way.
const LARGEST_HABIT: f64 = 1.6;
/// A backend that is slower than this is slow, whatever its habit.
const NO_HABIT: f64 = 3.0;
/// What shows and decides a return follows the present with this time constant.
pub(super) const MEMORY: Duration = Duration::from_secs(10);
/// What may be a habit follows it with this one, and with so many times the least.
const LONG_MEMORY: (Duration, u32) = (Duration::from_mins(1), 6);
/// What demotions are judged by afterwards follows it with this one.
const LEVEL_MEMORY: Duration = Duration::from_secs(15);
/// What the spread of log-latencies is taken for before any is seen, and how many samples that
/// is worth.
const FIRST_SPREAD: (f64, f64) = (0.5, 30.0);
/// Over how many samples the spread is learned.
const SPREAD_MEMORY: f64 = 300.0;
/// A difference may count for so many times the variance known so far.
const OUTLYING: f64 = 9.0;
/// Comparisons, each for a second and a sample at most, before which a backend is not judged: the
/// first time, when its habit is learned, and when it comes back.
const WARM: (f64, f64) = (30.0, 10.0);
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

/// A tick of a test.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) now: Duration,
    /// The time that it stands for.
    pub(super) length: Duration,
    /// How long averages follow what was at least, where samples are few.
    pub(super) memory: Duration,
    /// Whether all is well, so that habits may be learned.
    pub(super) learn: bool,
}

/// What a backend brought in a tick.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Brought {
    /// Samples.
    pub(super) samples: f64,
    /// How many they are worth that are compared with what is known for certain.
    pub(super) worth: f64,
    /// How many seconds count for which its habit is learned.
    pub(super) learned: f64,
}

/// The latencies of some samples that were taken together, in natural logarithms of seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    pub(super) samples: f64,
    /// Their mean.
    pub(super) mean: f64,
    /// The mean with each floored as the tests see it, and the variance around that.
    pub(super) floored: f64,
    pub(super) variance: f64,
}

/// What is known of one backend's latencies, in natural logarithms of seconds.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pending: Vec<f64>,
    last: Option<f64>,
    samples: f64,
    /// The variance of one log-latency, from differences, lest a shift count as spread.
    variance: f64,
    /// The same by how batches differ from those before, where there are any: what comes together is
    /// often alike.
    between: f64,
    /// How many samples the last batch had.
    batch: f64,
    /// The last tick's median or mean, and when that was.
    pub(super) latest: Option<(Duration, f64)>,
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
    compared: f64,
    warm: f64,
    pub(super) evidence: f64,
    since: Gathering,
}

/// What was seen since evidence began to gather.
#[derive(Clone, Copy, Debug, Default)]
struct Gathering {
    onset: Duration,
    ticks: u32,
    /// The sum of the excesses over the peers, a tick each.
    excess: f64,
    samples: f64,
}

impl Host {
    pub(super) fn new() -> Self {
        Self {
            pending: Vec::new(),
            last: None,
            samples: 0.0,
            variance: FIRST_SPREAD.0 * FIRST_SPREAD.0,
            between: 0.0,
            batch: 0.0,
            latest: None,
            level: Smooth::over(LEVEL_MEMORY),
            seen: Smooth::over(MEMORY),
            peers: Smooth::over(MEMORY),
            excess: Smooth::over(MEMORY),
            long_excess: Smooth::over(LONG_MEMORY.0),
            habit: 0.0,
            compared: 0.0,
            warm: WARM.0,
            evidence: 0.0,
            since: Gathering::default(),
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
            self.variance += self.learned(self.variance, (floored - last).powi(2) / 2.0, 1.0);
        }
        self.samples += 1.0;
        self.pending.push(floored);
    }

    /// Takes what was observed since the last tick as one; answers how many samples that were.
    pub(super) fn close(&mut self, now: Duration) -> f64 {
        let samples = self.pending.len() as f64;
        if let Some(latency) = median(&mut self.pending) {
            self.latest = Some((now, latency));
            let level = &mut self.level;
            level.add_worth(now, latency, samples, Duration::ZERO);
        }
        self.pending.clear();
        samples
    }

    /// Takes what traffic brought in a round.
    pub(super) fn take(&mut self, round: &Round, batch: &Batch) {
        let &Batch {
            samples, floored, ..
        } = batch;
        if self.evidence < DOUBT {
            if samples > 1.0 {
                self.variance += self.learned(self.variance, batch.variance, samples);
            }
            if let Some((_, before)) = self.latest {
                let expected = 1.0 / samples + 1.0 / self.batch;
                let seen = (floored - before).powi(2) / expected;
                self.between += self.learned(self.between, seen, 1.0);
            }
        }
        self.samples += samples;
        self.batch = samples;
        self.latest = Some((round.now, floored));
        let (now, memory) = (round.now, round.memory);
        self.level.add_worth(now, floored, samples, memory);
        self.seen.add_worth(now, batch.mean, samples, memory);
    }

    /// By how much a variance that was learned grows, where so many samples have another one.
    fn learned(&self, variance: f64, seen: f64, samples: f64) -> f64 {
        let memory = (self.samples + FIRST_SPREAD.1).min(SPREAD_MEMORY);
        let most = OUTLYING * variance.max(self.variance);
        (seen.min(most) - variance) * (samples / memory).min(1.0)
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
        if self.evidence > DOUBT {
            Some((self.since.excess / f64::from(self.since.ticks)).exp())
        } else {
            self.excess.value().map(f64::exp)
        }
    }

    /// When the evidence against it began to gather, and how many samples there were since.
    pub(super) const fn onset(&self) -> (Duration, f64) {
        (self.since.onset, self.since.samples)
    }

    /// What its averages are worth by now, in samples, where `memory` says how long they last at
    /// least; nothing where none came for so long.
    pub(super) fn worth(&self, now: Duration, memory: Duration) -> f64 {
        let fresh = |(at, _)| now.saturating_sub(at) <= memory.max(MEMORY);
        if self.latest.is_some_and(fresh) {
            self.excess.worth(now, memory)
        } else {
            0.0
        }
    }

    /// Whether nothing came of it for so long that averages say nothing of the present.
    pub(super) fn is_silent(&self, round: &Round) -> bool {
        let old = |(at, _)| round.now.saturating_sub(at) > round.memory.max(MEMORY);
        self.latest.is_some_and(old)
    }

    /// Whether it is still being learned how it compares.
    pub(super) fn is_new(&self) -> bool {
        self.compared <= self.warm
    }

    /// Forgets the evidence.
    pub(super) fn acquit(&mut self) {
        self.evidence = 0.0;
    }

    /// Forgets what is not of the host itself: it comes back from where nothing was known of it.
    pub(super) fn restart(&mut self) {
        if self.warm >= WARM.0 && self.compared < WARM.0 {
            *self = Self::new();
        } else {
            *self = Self {
                habit: self.habit,
                variance: self.variance,
                between: self.between,
                warm: WARM.1,
                ..Self::new()
            };
        }
    }

    /// The spread of its log-latencies.
    pub(super) fn spread(&self) -> f64 {
        self.variance.max(self.between).sqrt()
    }

    /// Compares it with its peers, by what it brought, of which each sample has this spread.
    pub(super) fn compare(
        &mut self,
        (own, reference): (f64, f64),
        brought: Brought,
        spread: f64,
        round: &Round,
        settings: &Settings,
    ) {
        let raw = own - reference;
        let (now, memory, samples) = (round.now, round.memory, brought.samples);
        self.excess.add_worth(now, raw, samples, memory);
        let long = memory * LONG_MEMORY.1;
        self.long_excess.add_worth(now, raw, samples, long);
        let seconds = round.length.as_secs_f64();
        let comparisons = seconds.min(samples).max(1.0);
        self.compared += comparisons;
        if self.is_new() {
            if self.warm >= WARM.0 {
                let mean = self.habit + (raw - self.habit) * comparisons / self.compared;
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
        let evidence = settings.evidence(raw - habit, spread, brought.worth);
        self.evidence = (before + evidence).clamp(0.0, ACT);
        if before <= 0.0 {
            self.since = Gathering {
                onset: now,
                ..Gathering::default()
            };
        }
        self.since.ticks += 1;
        self.since.excess += raw;
        self.since.samples += samples;
        // Much more than before is no habit, or it would hide a fault that comes slowly. The average
        // is a long one: to leave out what is high by chance would make the habit too small.
        let within = |excess: f64| excess - self.habit < settings.doubtful();
        if round.learn && self.evidence < DOUBT && self.long_excess.value().is_some_and(within) {
            let step = brought.learned / HABIT_MEMORY;
            let bound = LARGEST_HABIT.ln();
            self.habit = (self.habit + (raw - self.habit) * step.min(1.0)).clamp(-bound, bound);
        }
    }
}
