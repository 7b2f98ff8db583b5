//! Does a backend fail more often than is borne?
//!
//! `fall` takes a backend out that fails several times in a row; of one failure in a hundred it
//! sees nothing for days. This test adds up the evidence for 'as many failures as must be found'
//! over 'as many as are borne'.

use std::{collections::VecDeque, time::Duration};

use super::settings::{ACT, Settings, WELL_FOR};
use crate::stats::cusum::Alternative;

/// How many failures are remembered with their times.
const RECENT: usize = 64;
/// Who fails less than so many times as often as its peers has their trouble, not one of its own.
const OUTSTANDING: f64 = 4.0;
/// Failures that all peers together may have had more than chance let them have.
const CHANCE: f64 = 2.0;

/// What is known of one backend's failures.
#[derive(Clone, Debug)]
pub(super) struct Failures {
    alternative: Alternative,
    pub(super) evidence: f64,
    /// Failures and samples since the evidence began to gather, and when that was.
    since: (u64, u64, Duration),
    last: Option<Duration>,
    /// When it failed of late.
    recent: VecDeque<Duration>,
    /// Whether a failure brought enough evidence since the last tick.
    reached: bool,
}

impl Failures {
    pub(super) fn new(settings: &Settings) -> Self {
        let (borne, bad) = settings.errors;
        let odds = |part: f64| part / (1.0 - part);
        Self {
            alternative: Alternative::new(borne, odds(bad) / odds(borne)),
            evidence: 0.0,
            since: (0, 0, Duration::ZERO),
            last: None,
            recent: VecDeque::new(),
            reached: false,
        }
    }

    /// Takes one sample.
    pub(super) fn observe(&mut self, now: Duration, failed: bool) {
        let hits = if failed { 1.0 } else { 0.0 };
        if self.evidence <= 0.0 {
            self.since = (0, 0, now);
        }
        self.since.0 += u64::from(failed);
        self.since.1 += 1;
        if failed {
            self.last = Some(now);
            self.recent.truncate(RECENT - 1);
            self.recent.push_front(now);
        }
        self.evidence = (self.evidence + self.alternative.evidence(hits, 1.0)).clamp(0.0, ACT);
        self.reached |= self.evidence >= ACT;
    }

    /// Whether a failure brought enough evidence since this was last asked: one that is acted on
    /// is not acted on again without another failure.
    pub(super) fn take_reached(&mut self) -> bool {
        std::mem::take(&mut self.reached)
    }

    /// Failures and samples since the evidence began to gather.
    pub(super) const fn counted(&self) -> (u64, u64) {
        (self.since.0, self.since.1)
    }

    /// How many of its latest failures came at `since` or later.
    pub(super) fn failures_since(&self, since: Duration) -> usize {
        self.recent.iter().take_while(|at| **at >= since).count()
    }

    /// Whether it fails much more often than its peers: so many, that failed so often since the
    /// evidence against this one began to gather.
    pub(super) fn stands_out(&self, peers: usize, failed: usize) -> bool {
        failed as f64 * OUTSTANDING < self.since.0 as f64 * peers as f64 - OUTSTANDING * CHANCE
    }

    /// When the evidence began to gather.
    pub(super) const fn onset(&self) -> Duration {
        self.since.2
    }

    /// Whether nothing failed for a while.
    pub(super) fn well(&self, now: Duration) -> bool {
        self.last
            .is_none_or(|at| now.saturating_sub(at) >= WELL_FOR)
    }

    /// Lets it off with half of the evidence: who fails again is found sooner.
    pub(super) fn parole(&mut self) {
        self.evidence = self.evidence.min(ACT / 2.0);
    }

    /// Forgets the evidence.
    pub(super) fn acquit(&mut self) {
        self.evidence = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Ejection;

    #[test]
    fn eight_failures_in_a_row_or_among_a_few_are_enough() {
        let settings = Settings::new(&Ejection::default(), Duration::from_secs(1));
        for apart in [1, 5, 20] {
            let mut failures = Failures::new(&settings);
            let at = (1..1000)
                .find(|&second| {
                    failures.observe(Duration::from_secs(second), second % apart == 0);
                    failures.evidence >= ACT
                })
                .unwrap();
            assert_eq!(
                at.div_ceil(apart),
                if apart == 20 { 9 } else { 8 },
                "one in {apart}"
            );
            assert!(!failures.well(Duration::from_secs(at)));
            assert!(failures.well(Duration::from_secs(at + 31)));
        }
    }
}
