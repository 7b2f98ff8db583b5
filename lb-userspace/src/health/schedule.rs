//! When to probe one backend next.
//!
//! Rounds stand on a fixed grid, one interval apart: a probe that takes long or starts late does
//! not move those after it. Each start is a random bit after its grid point, so that several
//! load balancers, or a probe and a periodic job of the backend, do not march in step.
//!
//! The grids of different backends are shifted against each other, so that thousands of backends
//! are not probed in one instant. The shift stays below a second because the start of the
//! controller waits for the first round.

use std::time::{Duration, Instant};

use super::state::Verdict;
use crate::model::HealthCheck;

/// The first probes of all backends start within this time, or within the interval if that is
/// shorter.
pub const FIRST_ROUND: Duration = Duration::from_secs(1);

/// How far a start may lie behind its grid point, as a part of the interval.
///
/// From one start to the next it is an interval ±10 %, and any number of intervals as exactly.
const JITTER: f64 = 0.1;

/// The grid on which no two starts are further apart than `longest`, jitter included.
///
/// So a dead backend is out after interval × fall + time-out, whatever chance does.
#[must_use]
pub fn grid(longest: Duration) -> Duration {
    longest.div_f64(1.0 + JITTER)
}

/// Whether a backend's state is on its way: some verdicts contradict it, and too few to change it.
///
/// It counts as [`Machine`](super::state::Machine) does, but for the beginning: until enough
/// verdicts in a row agree, the state may be on its way to either.
#[derive(Clone, Debug)]
pub struct Pace {
    rise: u32,
    fall: u32,
    settled: Option<Verdict>,
    latest: Option<Verdict>,
    /// How often in a row `latest` was seen.
    run: u32,
}

impl Pace {
    /// Nothing is known yet.
    pub const fn new(check: &HealthCheck) -> Self {
        Self {
            rise: check.rise.get(),
            fall: check.fall.get(),
            settled: None,
            latest: None,
            run: 0,
        }
    }

    /// Takes a verdict; answers whether the state is on its way.
    pub fn on_its_way(&mut self, verdict: Verdict) -> bool {
        self.run = if self.latest == Some(verdict) {
            self.run.saturating_add(1)
        } else {
            1
        };
        self.latest = Some(verdict);
        let enough = match verdict {
            Verdict::Pass => self.rise,
            Verdict::Fail => self.fall,
        };
        if self.run >= enough {
            self.settled = Some(verdict);
        }
        self.settled != Some(verdict)
    }
}

/// The probe times of one backend.
#[derive(Clone, Debug)]
pub struct Schedule {
    interval: Duration,
    /// The grid point of the round that was handed out last.
    round: Instant,
}

impl Schedule {
    /// The schedule of backend `index` (from 0) of `count` probed backends, from `start` on.
    ///
    /// An interval below a millisecond is taken for a millisecond.
    pub fn new(interval: Duration, start: Instant, index: usize, count: usize) -> Self {
        let interval = interval.max(Duration::from_millis(1));
        let phase = index as f64 / count.max(1) as f64;
        let round = start + interval.min(FIRST_ROUND).mul_f64(phase.min(1.0));
        Self { interval, round }
    }

    /// Has the rounds behind the one that began at `last` stand so far apart.
    ///
    /// Where that is another interval than before, they are counted from that moment: from its grid
    /// point, which the jitter of a long interval lies behind, several short ones would be over at
    /// once. An interval below a millisecond is taken for a millisecond.
    pub fn set_interval(&mut self, interval: Duration, last: Instant) {
        let interval = interval.max(Duration::from_millis(1));
        if interval != self.interval {
            self.interval = interval;
            self.round = last;
        }
    }

    /// When the first round starts: the backend's phase after the start, without jitter.
    pub const fn first(&self) -> Instant {
        self.round
    }

    /// Moves on to the next round and returns when it starts, never before `now`.
    ///
    /// `random` is uniform in `0.0..1.0`. Rounds that were missed are skipped.
    pub fn next(&mut self, now: Instant, random: f64) -> Instant {
        self.round += self.interval;
        if self.missed(now) {
            let behind = now.saturating_duration_since(self.round).as_nanos();
            let rounds = behind / self.interval.as_nanos() + 1;
            self.round += self.interval * u32::try_from(rounds).unwrap_or(u32::MAX);
        }
        (self.round + self.interval.mul_f64(JITTER * random)).max(now)
    }

    /// Whether the round that was handed out last is missed: `now` is nearer to the round after.
    ///
    /// Whoever wakes for a round and finds it missed was suspended, and so were all others: they
    /// ask for the [`next`](Self::next) round instead of probing all backends in one burst. A
    /// round that is merely late, behind a slow probe or on a busy machine, is run.
    pub fn missed(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.round) > self.interval / 2
    }
}

#[cfg(test)]
mod tests;
