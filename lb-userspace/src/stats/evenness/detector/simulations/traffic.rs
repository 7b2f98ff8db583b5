//! Synthetic new flows, a second at a time.

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use rand_distr::{Distribution, Geometric, Pareto, Poisson};

/// How many flows come together and reach the same backend.
#[derive(Clone, Copy, Debug)]
pub(super) enum Clumps {
    /// Independent flows: one.
    None,
    /// Geometrically distributed, with this mean.
    Geometric(f64),
    /// Pareto distributed with a tail index of 2.5, with this mean.
    Pareto(f64),
}

impl Clumps {
    const TAIL: f64 = 2.5;

    fn mean(self) -> f64 {
        match self {
            Self::None => 1.0,
            Self::Geometric(mean) | Self::Pareto(mean) => mean,
        }
    }

    fn draw(self, rng: &mut SmallRng) -> u64 {
        match self {
            Self::None => 1,
            Self::Geometric(mean) => 1 + Geometric::new(1.0 / mean).unwrap().sample(rng),
            Self::Pareto(mean) => {
                let scale = mean * (Self::TAIL - 1.0) / Self::TAIL;
                Pareto::new(scale, Self::TAIL).unwrap().sample(rng).round() as u64
            }
        }
    }
}

/// A source of flows.
pub(super) struct Traffic {
    pub(super) clumps: Clumps,
    pub(super) rate: f64,
    /// The true shares; they sum to one.
    pub(super) shares: Vec<f64>,
    counts: Vec<u64>,
    rng: SmallRng,
}

impl Traffic {
    pub(super) fn even(backends: usize, rate: f64, clumps: Clumps, seed: u64) -> Self {
        Self {
            clumps,
            rate,
            shares: vec![1.0 / backends as f64; backends],
            counts: vec![0; backends],
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// Gives one backend `ratio` times its present share, at the expense of all others.
    pub(super) fn skew(&mut self, backend: usize, ratio: f64) {
        let before = self.shares[backend];
        let after = before * ratio;
        for share in &mut self.shares {
            *share *= (1.0 - after) / (1.0 - before);
        }
        self.shares[backend] = after;
    }

    /// The new flows of every backend in the next second.
    pub(super) fn second(&mut self) -> &[u64] {
        let clumps_a_second = self.rate / self.clumps.mean();
        for (count, share) in self.counts.iter_mut().zip(&self.shares) {
            let mean = clumps_a_second * share;
            let clumps = if mean > 0.0 {
                Poisson::new(mean).unwrap().sample(&mut self.rng) as u64
            } else {
                0
            };
            *count = match self.clumps {
                Clumps::None => clumps,
                sizes => (0..clumps).map(|_| sizes.draw(&mut self.rng)).sum(),
            };
        }
        &self.counts
    }

    /// A number within zero and one.
    pub(super) fn chance(&mut self) -> f64 {
        self.rng.random()
    }
}
