//! When requests are due, whatever becomes of those before them.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

/// A stretch of a test, whose rate goes evenly from one to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// Requests a second at its beginning.
    pub from: f64,
    /// Requests a second at its end.
    pub to: f64,
    /// How long it lasts.
    pub lasts: Duration,
}

impl Stage {
    /// A stage of one rate.
    pub fn steady(rate: f64, lasts: Duration) -> Self {
        Self {
            from: rate,
            to: rate,
            lasts,
        }
    }

    /// How many requests fall due in it.
    pub fn requests(&self) -> f64 {
        f64::midpoint(self.from, self.to) * self.lasts.as_secs_f64()
    }

    /// The highest rate in it.
    pub fn peak(&self) -> f64 {
        self.from.max(self.to)
    }

    /// When, in seconds from its beginning, so many requests have fallen due.
    fn when(&self, requests: f64) -> f64 {
        if requests <= 0.0 {
            return 0.0;
        }
        let slope = (self.to - self.from) / self.lasts.as_secs_f64();
        // The smaller root of slope/2 t² + from t = requests, in the form that also takes a slope
        // of nothing.
        let root = (self.from * self.from + 2.0 * slope * requests).max(0.0);
        2.0 * requests / (self.from + root.sqrt())
    }
}

/// How requests lie in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Arrivals {
    /// One as long after the other as the rate says.
    #[default]
    Even,
    /// As those of many clients who do not know of each other: a Poisson process.
    Random,
}

/// A request that is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Due {
    /// The stage it belongs to.
    pub stage: usize,
    /// When, from the beginning of the test.
    pub at: Duration,
}

/// One worker's part of the requests of a test, in their order.
#[derive(Debug)]
pub struct Schedule {
    stages: Vec<Stage>,
    arrivals: Arrivals,
    /// How many others, itself included, have a part.
    workers: f64,
    rng: SmallRng,
    /// How many requests, of all workers', have fallen due before the next one.
    count: f64,
    /// The stage that this falls into, how many fell due before it, and when it begins.
    stage: usize,
    before: f64,
    begins: f64,
}

impl Schedule {
    /// The part of `worker` of `workers`.
    pub fn new(stages: &[Stage], arrivals: Arrivals, worker: usize, workers: usize) -> Self {
        let workers = workers as f64;
        let mut rng = SmallRng::seed_from_u64(worker as u64);
        let count = match arrivals {
            Arrivals::Even => worker as f64,
            Arrivals::Random => workers * exponential(&mut rng),
        };
        Self {
            stages: stages.to_vec(),
            arrivals,
            workers,
            rng,
            count,
            stage: 0,
            before: 0.0,
            begins: 0.0,
        }
    }
}

impl Iterator for Schedule {
    type Item = Due;

    fn next(&mut self) -> Option<Due> {
        let stage = loop {
            let stage = self.stages.get(self.stage)?;
            if self.count < self.before + stage.requests() {
                break stage;
            }
            self.before += stage.requests();
            self.begins += stage.lasts.as_secs_f64();
            self.stage += 1;
        };
        let at = self.begins + stage.when(self.count - self.before);
        self.count += self.workers
            * match self.arrivals {
                Arrivals::Even => 1.0,
                Arrivals::Random => exponential(&mut self.rng),
            };
        Some(Due {
            stage: self.stage,
            at: Duration::from_secs_f64(at),
        })
    }
}

/// The time to the next event of a process with one a unit of time.
fn exponential(rng: &mut SmallRng) -> f64 {
    -(1.0 - rng.random::<f64>()).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn all(stages: &[Stage], arrivals: Arrivals, workers: usize) -> Vec<Due> {
        let mut all: Vec<_> = (0..workers)
            .flat_map(|worker| Schedule::new(stages, arrivals, worker, workers))
            .collect();
        all.sort_by_key(|due| due.at);
        all
    }

    #[test]
    fn even_requests_lie_as_far_apart_as_the_rate_says_whoever_sends_them() {
        for workers in [1, 2, 3] {
            let stages = [Stage::steady(10.0, secs(2.0))];
            let all = all(&stages, Arrivals::Even, workers);
            assert_eq!(all.len(), 20, "{workers}");
            for (n, due) in all.iter().enumerate() {
                let off = (due.at.as_secs_f64() - n as f64 / 10.0).abs();
                assert!(off < 1e-6, "{workers} {n}: {due:?}");
            }
        }
    }

    #[test]
    fn a_ramp_has_its_rate_everywhere_and_stages_follow_each_other() {
        let stages = [
            Stage {
                from: 0.0,
                to: 200.0,
                lasts: secs(10.0),
            },
            Stage::steady(200.0, secs(5.0)),
            Stage {
                from: 200.0,
                to: 100.0,
                lasts: secs(10.0),
            },
        ];
        for arrivals in [Arrivals::Even, Arrivals::Random] {
            let all = all(&stages, arrivals, 2);
            let between = |from: f64, to: f64| {
                let within = |due: &&Due| (secs(from)..secs(to)).contains(&due.at);
                all.iter().filter(within).count() as f64
            };
            // The integral of the rate, within five standard deviations of a Poisson process.
            for (from, to, expected) in [
                (0.0, 5.0, 250.0),
                (5.0, 10.0, 750.0),
                (10.0, 15.0, 1000.0),
                (15.0, 20.0, 875.0),
                (20.0, 25.0, 625.0),
            ] {
                let found = between(from, to);
                let tolerance = match arrivals {
                    Arrivals::Even => 2.0,
                    Arrivals::Random => 5.0 * f64::sqrt(expected),
                };
                assert!(
                    (found - expected).abs() <= tolerance,
                    "{arrivals:?} {from} to {to}: {found}, not {expected}"
                );
            }
            assert!(all.iter().all(|due| {
                let begins = [0.0, 10.0, 15.0][due.stage];
                due.at >= secs(begins) && due.at <= secs(begins) + stages[due.stage].lasts
            }));
        }
    }

    #[test]
    fn random_requests_are_a_poisson_process() {
        let stages = [Stage::steady(100.0, secs(200.0))];
        let all = all(&stages, Arrivals::Random, 2);
        let mut counts = [0_f64; 200];
        for due in &all {
            counts[due.at.as_secs() as usize] += 1.0;
        }
        let mean = counts.iter().sum::<f64>() / 200.0;
        let variance = counts.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / 199.0;
        // A Poisson process has a variance as large as its mean; of 200 samples, the ratio's
        // standard deviation is a tenth.
        assert!((0.6..1.5).contains(&(variance / mean)), "{variance} {mean}");
    }
}
