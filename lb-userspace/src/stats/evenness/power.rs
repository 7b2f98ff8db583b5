//! What the bank of tests could see: the other half of an even verdict.
//!
//! A test gathers evidence at a constant mean rate per flow while a backend's true share is
//! constant, so that the number of flows it needs is, on average, the barrier `h·φ` over that rate.
//! For a test whose alternative is the true share that rate is the Kullback–Leibler divergence;
//! the tests of the bank are few, and what counts is the best of *them*.

use std::time::Duration;

use super::BANK;
use crate::stats::cusum::Alternative;

/// A skew that would be noticed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detectable {
    /// The share of a backend over its intended share. It holds for the backend with the smallest
    /// share; the others show smaller skews.
    pub ratio: f64,
    /// How long it would take on average.
    pub within: Duration,
}

/// The smallest ratio of a backend's true share over its intended `share` that brings `barrier`
/// nats of evidence within `flows` flows on average; `None` where no share does.
pub(super) fn smallest_ratio(share: f64, flows: f64, barrier: f64) -> Option<f64> {
    BANK.iter()
        .filter(|(odds, _)| *odds > 1.0)
        .map(|(odds, _)| Alternative::new(share, *odds).share_bringing(barrier / flows))
        .filter(|needed| *needed <= 1.0)
        .min_by(f64::total_cmp)
        .map(|needed| needed / share)
}

/// After how many flows, on average, `ratio` times the intended `share` brings `barrier` nats.
pub(super) fn flows_to_show(share: f64, ratio: f64, barrier: f64) -> f64 {
    let evidence = BANK
        .iter()
        .map(|(odds, _)| Alternative::new(share, *odds).evidence((share * ratio).min(1.0), 1.0))
        .fold(0.0, f64::max);
    barrier / evidence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_and_flows_are_each_others_inverse() {
        for share in [0.5, 0.1, 0.01, 1e-4] {
            for ratio in [1.06, 1.2, 1.5, 1.99] {
                let flows = flows_to_show(share, ratio, 25.0);
                let found = smallest_ratio(share, flows, 25.0).unwrap();
                assert!((found - ratio).abs() < 1e-6, "{share} {ratio}: {found}");
            }
        }
    }

    #[test]
    fn the_flows_needed_are_those_of_the_rule_of_thumb() {
        // Barrier over divergence for ten backends: 477 flows for a doubled share, about 10,000 for
        // 20 % more and 155,000 for 5 %. The bank's tests do not hit each ratio exactly.
        for (ratio, ideal) in [(2.0, 477.0), (1.2, 10_300.0), (1.05, 155_000.0)] {
            let flows = flows_to_show(0.1, ratio, 21.16);
            assert!((0.99..1.5).contains(&(flows / ideal)), "{ratio}: {flows}");
        }
    }

    #[test]
    fn nothing_shows_without_flows_nor_below_four_percent() {
        assert_eq!(smallest_ratio(0.1, 0.0, 25.0), None);
        assert_eq!(smallest_ratio(0.1, 10.0, 25.0), None);
        assert!(smallest_ratio(0.1, 1e12, 25.0).unwrap() > 1.03);
        assert!(flows_to_show(0.1, 1.01, 25.0).is_infinite());
    }
}
