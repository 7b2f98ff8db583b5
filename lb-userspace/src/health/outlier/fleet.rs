//! Are all backends slow?
//!
//! Peers tell nothing then, and to take weight from some would load the others more. The median of
//! the fleet is compared with what it has been, by the same test as a backend with its peers.

use std::time::Duration;

use super::{
    latency::Round,
    settings::{ACT, DOUBT, Settings},
    smooth::{Smooth, lower_median},
};

/// The time over which the usual latency is learned, in seconds.
const MEMORY: f64 = 600.0;
/// The same while the fleet is slow: what does not heal becomes the usual in the end.
const MEMORY_WHILE_SLOW: f64 = 3600.0;
/// Ticks, of a second or of a sample, before which the fleet is not judged.
const WARM: f64 = 30.0;
/// How long the fleet counts as slow at least.
const LEAST: Duration = Duration::from_secs(30);

/// The latency of a whole service, in natural logarithms of seconds.
#[derive(Clone, Debug)]
pub(super) struct Fleet {
    usual: f64,
    ticks: f64,
    now: Smooth,
    evidence: f64,
    slow_since: Option<Duration>,
}

impl Fleet {
    pub(super) fn new() -> Self {
        Self {
            usual: 0.0,
            ticks: 0.0,
            now: Smooth::over(Duration::from_secs(10)),
            evidence: 0.0,
            slow_since: None,
        }
    }

    /// Takes the latest latencies of the backends that are in the ring with their whole weight:
    /// of so many samples, whose log-latencies have this spread.
    pub(super) fn tick(
        &mut self,
        round: &Round,
        latest: &mut [f64],
        (spread, samples): (f64, f64),
        settings: &Settings,
    ) {
        let Some(median) = lower_median(latest) else {
            return;
        };
        let now = round.now;
        self.now.add_worth(now, median, 1.0, round.memory);
        let seconds = round.length.as_secs_f64();
        let ticks = seconds.min(samples).max(1.0);
        self.ticks += ticks;
        if self.ticks <= WARM {
            self.usual += (median - self.usual) * ticks / self.ticks;
            return;
        }
        let excess = median - self.usual;
        let evidence = settings.evidence(excess, spread, samples);
        self.evidence = (self.evidence + evidence).clamp(0.0, ACT);
        match self.slow_since {
            None if self.evidence >= ACT => self.slow_since = Some(now),
            Some(since) if self.evidence < DOUBT && now.saturating_sub(since) >= LEAST => {
                self.slow_since = None;
            }
            _ => {}
        }
        let memory = match self.slow_since {
            Some(_) => MEMORY_WHILE_SLOW,
            None if self.evidence < DOUBT => MEMORY,
            None => return,
        };
        self.usual += excess * (seconds / memory).min(1.0);
    }

    /// Since when the fleet is slow.
    pub(super) const fn slow_since(&self) -> Option<Duration> {
        self.slow_since
    }

    /// The latency now and the usual one, in seconds.
    pub(super) fn latencies(&self) -> Option<(f64, f64)> {
        Some((self.now.value()?.exp(), self.usual.exp()))
    }
}
