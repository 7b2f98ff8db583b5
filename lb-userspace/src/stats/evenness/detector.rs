//! The bank of tests over all backends of a service (R3).

use std::time::Duration;

use super::{Assessment, BANK, Detectable, Skew, Verdict, Why, power};
use crate::stats::{
    cusum::{Cusum, Observation, Thresholds},
    overdispersion::Overdispersion,
};

const SECONDS_A_MONTH: f64 = 2.592e6;
const FALSE_ALARMS_A_MONTH: f64 = 0.1;
/// The least time that an alarm lasts.
const HOLD: Duration = Duration::from_secs(30);
/// The odds against an alarm that take it back.
const CLEAR_ODDS: f64 = 1000.0;

/// Where φ is above this, clients come in clumps, whose sizes may have a heavy tail: then a single
/// tick adds at most the part `CLUMPED / φ` of the alarm threshold, but no less than
/// [`LEAST_AT_ONCE`] of it.
const CLUMPED: f64 = 2.0;
const LEAST_AT_ONCE: f64 = 0.2;

const WARM_UP: Duration = Duration::from_mins(1);
/// Independent comparisons, one per window and backend but one, that φ must rest on.
const WARM_UP_COMPARISONS: u64 = 60;
/// Flows that a window must let expect at the smallest share.
const WINDOW_FLOWS: f64 = 5.0;
/// A window ends after this time in any case; so long without a flow is idle.
const WINDOW_MAX: Duration = Duration::from_secs(30);
/// The time constant of the present rate.
const RATE_MEMORY_SECONDS: f64 = 30.0;

/// An even verdict must be able to see a skew of [`LARGEST_USEFUL_RATIO`] within this time.
const USEFUL_WITHIN: Duration = Duration::from_mins(1);
const LARGEST_USEFUL_RATIO: f64 = 10.0;

/// What a detector must know of its surroundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many services share the budget of false alarms; zero counts as one.
    pub services: usize,
}

/// A backend with a share, and its tests.
#[derive(Clone, Debug)]
struct Watched {
    backend: usize,
    share: f64,
    /// Flows in the window that φ is measured over.
    window: f64,
    /// The standardised count of the window before.
    last_z: f64,
    tests: [Cusum; BANK.len()],
}

impl Watched {
    fn new(backend: usize, share: f64) -> Self {
        let tests = BANK.map(|(odds, _)| Cusum::new(share, odds));
        Self {
            backend,
            share,
            window: 0.0,
            last_z: 0.0,
            tests,
        }
    }

    /// The gravest alarm there is.
    fn skew(&self) -> Option<Skew> {
        // The bank is in falling order of severity; among equals the alarm raised last is the
        // news, the other one is waiting to be taken back.
        self.tests
            .iter()
            .zip(BANK)
            .filter_map(|(test, (_, severity))| {
                Some(Skew {
                    backend: self.backend,
                    severity,
                    observed_share: test.share()?,
                    intended_share: self.share,
                    since: test.onset(),
                    found: test.raised()?,
                })
            })
            .max_by_key(|skew| (skew.severity, skew.found))
    }
}

/// The sequential test of one service's new flows against the shares of its table (R3).
///
/// Give it a [`tick`](Self::tick) every second or so. A tick costs some 50 ns a backend and
/// allocates nothing.
#[derive(Clone, Debug)]
pub struct Detector {
    settings: Settings,
    /// As given, one per backend.
    shares: Vec<f64>,
    watched: Vec<Watched>,
    thresholds: Thresholds,
    smallest_share: f64,
    overdispersion: Overdispersion,
    /// Independent comparisons that φ rests on.
    comparisons: u64,
    /// Flows and time of the window that φ is measured over.
    window: (f64, Duration),
    /// Whether there was a window before, to compare with.
    has_window_before: bool,
    started: Option<Duration>,
    /// When the warm-up was over and the tests began.
    watching_since: Option<Duration>,
    last_flow: Duration,
    assessment: Assessment,
}

impl Detector {
    /// A detector for backends with these shares of the table's slots, by any common factor (the
    /// numbers of slots will do). A backend whose share is zero is not watched.
    ///
    /// # Panics
    ///
    /// If a share is negative or not a number.
    pub fn new(shares: &[f64], settings: Settings) -> Self {
        assert!(
            shares
                .iter()
                .all(|share| share.is_finite() && *share >= 0.0),
            "shares are positive numbers"
        );
        let sum: f64 = shares.iter().sum();
        let watched: Vec<_> = (0..)
            .zip(shares)
            .filter(|(_, share)| **share > 0.0)
            .map(|(backend, share)| Watched::new(backend, share / sum))
            .collect();
        let tests = (BANK.len() * watched.len().max(1) * settings.services.max(1)) as f64;
        Self {
            settings,
            shares: shares.to_vec(),
            thresholds: Thresholds {
                alarm: (tests * SECONDS_A_MONTH / FALSE_ALARMS_A_MONTH).ln(),
                clear: CLEAR_ODDS.ln(),
                hold: HOLD,
            },
            smallest_share: watched
                .iter()
                .map(|backend| backend.share)
                .fold(1.0, f64::min),
            overdispersion: Overdispersion::default(),
            comparisons: 0,
            window: (0.0, Duration::ZERO),
            has_window_before: false,
            started: None,
            watching_since: None,
            last_flow: Duration::ZERO,
            assessment: Assessment {
                at: Duration::ZERO,
                verdict: Verdict::CannotTell(if watched.is_empty() {
                    Why::NoBackends
                } else {
                    Why::WarmingUp {
                        seen: Duration::ZERO,
                        of: WARM_UP,
                    }
                }),
                skewed: Vec::with_capacity(watched.len()),
                overdispersion: 1.0,
                rate: 0.0,
                detectable: None,
                watched: watched.len(),
                strays: 0,
            },
            watched,
        }
    }

    /// Follows a change of the table or of the number of services: everything is forgotten and the
    /// warm-up begins again. Where neither has changed, nothing is forgotten.
    ///
    /// # Panics
    ///
    /// As [`Detector::new`].
    pub fn retarget(&mut self, shares: &[f64], settings: Settings) {
        if self.shares != shares || self.settings != settings {
            *self = Self::new(shares, settings);
        }
    }

    /// What was said after the last tick.
    pub fn assessment(&self) -> &Assessment {
        &self.assessment
    }

    /// Takes the number of new flows of every backend since the last tick.
    ///
    /// The first tick only starts the clock: its flows may have followed an earlier table. Where
    /// the counters started anew, leave a tick out; [`Meter`](crate::stats::rate::Meter) tells.
    ///
    /// # Panics
    ///
    /// If there is not one count for every share.
    pub fn tick(&mut self, now: Duration, counts: &[u64]) -> &Assessment {
        assert_eq!(counts.len(), self.shares.len(), "a count for every share");
        let before = self.assessment.at;
        self.assessment.at = now;
        if self.started.is_none() {
            self.started = Some(now);
            self.last_flow = now;
            return &self.assessment;
        }
        let mut flows = 0.0;
        for (&count, &share) in counts.iter().zip(&self.shares) {
            if share > 0.0 {
                flows += count as f64;
            } else {
                self.assessment.strays = self.assessment.strays.saturating_add(count);
            }
        }
        let elapsed = now.saturating_sub(before);
        self.follow_rate(now, elapsed, flows);
        if flows > 0.0 {
            self.last_flow = now;
            if self.watching_since.is_some() {
                self.test(counts, flows, before, now);
            }
        }
        self.measure_overdispersion(counts, flows, elapsed);
        self.assess(now);
        &self.assessment
    }

    fn follow_rate(&mut self, now: Duration, elapsed: Duration, flows: f64) {
        let running = self.running(now).as_secs_f64();
        let elapsed = elapsed.as_secs_f64();
        if elapsed > 0.0 {
            // A plain mean at first, a fading one later.
            let weight = (1.0 - (-elapsed / RATE_MEMORY_SECONDS).exp()).max(elapsed / running);
            let rate = &mut self.assessment.rate;
            *rate += weight.min(1.0) * (flows / elapsed - *rate);
        }
    }

    /// Shows one tick's flows to every test.
    fn test(&mut self, counts: &[u64], flows: f64, from: Duration, to: Duration) {
        let overdispersion = self.overdispersion.factor();
        let at_once = (CLUMPED / overdispersion).max(LEAST_AT_ONCE);
        let most = if overdispersion > CLUMPED {
            at_once * self.thresholds.alarm
        } else {
            f64::INFINITY
        };
        for watched in &mut self.watched {
            let hits = counts[watched.backend] as f64;
            let seen = Observation {
                hits,
                flows,
                overdispersion,
                most,
                from,
                to,
            };
            for test in &mut watched.tests {
                test.observe(&seen, &self.thresholds);
            }
        }
    }

    /// Adds one tick to the window that φ is measured over, and closes it where it is full.
    fn measure_overdispersion(&mut self, counts: &[u64], flows: f64, elapsed: Duration) {
        for watched in &mut self.watched {
            watched.window += counts[watched.backend] as f64;
        }
        self.window.0 += flows;
        self.window.1 += elapsed;
        let flows = self.window.0;
        if flows * self.smallest_share < WINDOW_FLOWS && self.window.1 < WINDOW_MAX {
            return;
        }
        self.window = (0.0, Duration::ZERO);
        if flows <= 0.0 || self.watched.len() < 2 {
            return;
        }
        let mut sum = 0.0;
        for watched in &mut self.watched {
            let Watched { share, .. } = *watched;
            let count = std::mem::take(&mut watched.window);
            let z = (count - flows * share) / (flows * share * (1.0 - share)).sqrt();
            sum += (z - watched.last_z).powi(2) / 2.0;
            watched.last_z = z;
        }
        let comparable = std::mem::replace(&mut self.has_window_before, true);
        if comparable {
            self.overdispersion.observe(sum / self.watched.len() as f64);
            self.comparisons += self.watched.len() as u64 - 1;
        }
    }

    fn assess(&mut self, now: Duration) {
        if self.watching_since.is_none()
            && self.running(now) >= WARM_UP
            && self.comparisons >= WARM_UP_COMPARISONS
        {
            self.watching_since = Some(now);
        }
        let factor = self.overdispersion.factor();
        self.assessment.overdispersion = factor;
        self.assessment.detectable = self.watching_since.and_then(|since| {
            let within = now.saturating_sub(since).min(USEFUL_WITHIN);
            let barrier = self.thresholds.alarm * factor;
            let flows = self.assessment.rate * within.as_secs_f64();
            let ratio = power::smallest_ratio(self.smallest_share, flows, barrier)?;
            (ratio <= LARGEST_USEFUL_RATIO).then_some(Detectable { ratio, within })
        });
        let skewed = &mut self.assessment.skewed;
        skewed.clear();
        skewed.extend(self.watched.iter().filter_map(Watched::skew));
        skewed.sort_unstable_by(Skew::worst_first);
        self.assessment.verdict = self.verdict(now);
    }

    fn verdict(&self, now: Duration) -> Verdict {
        let silent = now.saturating_sub(self.last_flow);
        let why = match self.watched.len() {
            0 => Why::NoBackends,
            // All flows go to the only one there is.
            1 => return Verdict::Even,
            _ if !self.assessment.skewed.is_empty() => return Verdict::Skewed,
            _ if silent >= WINDOW_MAX => Why::Idle { silent },
            _ if self.watching_since.is_none() => {
                let seen = self.running(now);
                Why::WarmingUp {
                    seen,
                    of: self.warm_up_takes(seen),
                }
            }
            _ if self.assessment.detectable.is_none() => {
                let barrier = self.thresholds.alarm * self.overdispersion.factor();
                let flows = power::flows_to_show(self.smallest_share, 2.0, barrier);
                let rate = self.assessment.rate;
                Why::TooFewFlows {
                    rate,
                    doubling_takes: seconds(flows / rate),
                }
            }
            _ => return Verdict::Even,
        };
        Verdict::CannotTell(why)
    }

    fn running(&self, now: Duration) -> Duration {
        now.saturating_sub(self.started.unwrap_or(now))
    }

    /// How long the warm-up, `seen` of which is over, lasts at the present rate.
    fn warm_up_takes(&self, seen: Duration) -> Duration {
        let a_window = self.watched.len() as u64 - 1;
        let missing = WARM_UP_COMPARISONS
            .saturating_sub(self.comparisons)
            .div_ceil(a_window)
            + u64::from(!self.has_window_before);
        let window = WINDOW_FLOWS / self.smallest_share / self.assessment.rate;
        let window = seconds(window.ceil()).clamp(Duration::from_secs(1), WINDOW_MAX);
        (seen + window * missing as u32).max(WARM_UP)
    }
}

/// A time that may be too long to be one.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod simulations;
#[cfg(test)]
mod tests;
