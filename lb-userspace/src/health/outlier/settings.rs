//! The constants of the tests, and what the configuration makes of them.

use std::time::Duration;

use crate::model::{Ejection, Underperformers};

/// Evidence at which a backend is acted on, in nats: by chance it is reached once in e¹⁸ climbs.
pub(super) const ACT: f64 = 18.0;
/// Evidence from which a backend is doubtful: nothing is learned from it.
pub(super) const DOUBT: f64 = ACT / 4.0;
/// Evidence from which it counts as a suspect when the fleet is looked at. Of a fleet that is bad
/// as a whole the first to be acted on is not alone with this much.
pub(super) const SUSPECT: f64 = ACT / 2.0;
/// The most evidence that one tick brings, so that nothing is done within six.
pub(super) const MOST: f64 = 3.0;
/// The least standard deviation that log-latencies are taken to have in a tick.
const LEAST_SIGMA: f64 = 0.10;
/// The standard deviation of a median over that of a mean.
const MEDIAN: f64 = 1.2533;
/// Which part of the way to `slow`, in logarithms, is borne: 1.25 of 2.
const TOLERATED: f64 = 0.322;
/// A backend that is so many times as slow as its peers leaves at once.
pub(super) const HARD: f64 = 8.0;
/// A backend slower than this is not well.
const WELL: f64 = 1.4;
/// How long a backend must be well before it gets more weight.
pub(super) const WELL_FOR: Duration = Duration::from_secs(30);
/// From one step of the ladder to the next.
pub(super) const STEP: Duration = Duration::from_secs(20);

/// How one service's backends are judged.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub(super) underperformers: Underperformers,
    /// ln(slow).
    slow: f64,
    /// Failures that are borne and that must be found, as parts of one.
    pub(super) errors: (f64, f64),
    /// ln of the latency, in seconds, below which all are alike.
    pub(super) floor: f64,
    pub(super) budget: f64,
    pub(super) hold: Duration,
    /// How old a latency may be to be compared with.
    pub(super) stale: Duration,
    pub(super) interval: Duration,
}

impl Settings {
    /// What `ejection` asks for, where each backend is seen once in `interval`.
    #[must_use]
    pub fn new(ejection: &Ejection, interval: Duration) -> Self {
        let errors = ejection.errors.fraction();
        Self {
            underperformers: ejection.underperformers,
            slow: ejection.slow.ratio().ln(),
            errors: (errors / 10.0, errors),
            floor: ejection.floor.as_secs_f64().max(1e-6).ln(),
            budget: ejection.budget.fraction(),
            hold: ejection.hold,
            stale: (interval * 3).max(Duration::from_secs(10)),
            interval,
        }
    }

    /// The excess of log-latency that is borne.
    pub(super) fn borne(&self) -> f64 {
        self.slow * TOLERATED
    }

    /// The excess of log-latency beyond which it may be a fault: half-way between what is borne and
    /// what is evidence.
    pub(super) fn doubtful(&self) -> f64 {
        f64::midpoint(self.borne(), self.middle())
    }

    /// The excess of log-latency that is no evidence either way.
    fn middle(&self) -> f64 {
        self.slow * f64::midpoint(1.0, TOLERATED)
    }

    /// The excess of log-latency that a backend which is well does not have.
    pub(super) fn well(&self) -> f64 {
        WELL.ln().min(self.slow)
    }

    /// The evidence that an excess of log-latency brings, with `samples` of this spread.
    ///
    /// It is the log-likelihood ratio of 'as slow as must be found' over 'as slow as is borne'.
    pub(super) fn evidence(&self, excess: f64, spread: f64, samples: f64) -> f64 {
        let sigma = (MEDIAN * spread / samples.sqrt()).max(LEAST_SIGMA);
        let between = self.slow * (1.0 - TOLERATED);
        (between / (sigma * sigma) * (excess - self.middle())).clamp(-MOST, MOST)
    }

    /// How long it takes to act on a backend that is just as slow as must be found, where so many
    /// samples of this spread come each second, a tick of this length at a time.
    pub(super) fn time_to_act(&self, spread: f64, rate: f64, tick: Duration) -> Duration {
        let samples = (rate * tick.as_secs_f64()).max(1e-9);
        let evidence = self.evidence(self.slow, spread, samples);
        tick.mul_f64((ACT / evidence).ceil())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_that_were_simulated() {
        let settings = Settings::new(&Ejection::default(), Duration::from_secs(1));
        // Half of a standard deviation of 0.5: (0.47 / σ²)(ln 3 − 0.458).
        let sigma: f64 = MEDIAN * 0.5;
        let expected = 0.47 / (sigma * sigma) * (3.0_f64.ln() - 0.458);
        let found = settings.evidence(3.0_f64.ln(), 0.5, 1.0);
        assert!(
            (found - expected).abs() < 0.01,
            "{found} instead of {expected}"
        );
        let tight = settings.evidence(3.0_f64.ln(), 0.01, 1.0);
        assert!((tight - MOST).abs() < 1e-9, "{tight}");
        let slow = settings.slow;
        assert!(
            (slow * TOLERATED - 1.25_f64.ln()).abs() < 0.001,
            "1.25 is borne"
        );
    }
}
