//! How much less even than chance the arrivals are: clients that come in clumps.
//!
//! A client that opens ten connections whose hashes meet, a retry storm, a batch: all let the
//! counts of perfectly even backends vary more than independent flows would. The factor by which
//! the variance grows, φ, is measured here; evidence is divided by it.
//!
//! It is measured on *differences* between successive windows, so that a steady skew, which the
//! evenness verdict must find, does not hide itself by inflating it.

/// A running estimate of φ.
#[derive(Clone, Copy, Debug)]
pub struct Overdispersion {
    mean: f64,
    samples: u32,
}

impl Default for Overdispersion {
    fn default() -> Self {
        Self {
            mean: 1.0,
            samples: 0,
        }
    }
}

impl Overdispersion {
    /// The memory of the estimate, in samples.
    const MEMORY: u32 = 300;
    /// The estimate is noisy, and too small a φ costs false alarms where one too large costs a
    /// little time.
    const MARGIN: f64 = 1.25;
    /// A sample counts for at most so many φ: one freak window must not blind the verdict.
    const WINSOR: f64 = 25.0;

    /// φ: at least one.
    pub fn factor(&self) -> f64 {
        (Self::MARGIN * self.mean).max(1.0)
    }

    /// Takes one window's mean of `Δz²/2` over the backends, where `z` is a backend's standardised
    /// count and `Δz` its change since the window before. Its expectation is φ.
    pub fn observe(&mut self, sample: f64) {
        // The plain mean of all samples until there are as many as the memory is long: what the
        // estimate started from is then forgotten with the very first one.
        self.samples = (self.samples + 1).min(Self::MEMORY);
        let sample = sample.min(Self::WINSOR * self.factor());
        self.mean += (sample - self.mean) / f64::from(self.samples);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_mean_with_its_margin_and_never_falls_below_one() {
        let mut phi = Overdispersion::default();
        assert!((phi.factor() - 1.25).abs() < 1e-9);
        phi.observe(4.0);
        assert!((phi.factor() - 5.0).abs() < 1e-9);
        phi.observe(8.0);
        assert!((phi.factor() - 7.5).abs() < 1e-9);
        for _ in 0..3000 {
            phi.observe(0.1);
        }
        assert!((phi.factor() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn one_freak_window_counts_little() {
        let mut phi = Overdispersion::default();
        for _ in 0..300 {
            phi.observe(1.0);
        }
        phi.observe(1e9);
        // At most 25 φ / 300 more.
        assert!(
            phi.factor() < 1.25 * (1.0 + 25.0 * 1.25 / 300.0) + 1e-9,
            "{}",
            phi.factor()
        );
    }
}
