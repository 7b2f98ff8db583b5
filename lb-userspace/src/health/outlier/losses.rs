//! Does a backend leave more of its clients without an answer than its peers do?
//!
//! Connections fail for reasons of their clients, too, so what is borne is measured by the peers,
//! by the same test as failures of probes: evidence for ten times as many over as many.

use std::time::Duration;

use super::{
    latency::Compared,
    settings::{ACT, DOUBT, MOST, Settings},
};
use crate::stats::cusum::Alternative;

/// How long what is usual is remembered, in seconds.
const MEMORY: f64 = 300.0;
/// Who fails so many times as often as its peers may do so by chance.
const BORNE: f64 = 2.0;
/// As if so many had been seen before, of which one failed: few peers prove little.
const FEW: f64 = 100.0;
/// After so long without a connection nothing is known.
const SILENT: Duration = Duration::from_secs(30);

/// How many of some connections and requests failed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Tally {
    pub(super) failed: f64,
    pub(super) of: f64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.failed += other.failed;
        self.of += other.of;
    }
}

/// What is known of one backend.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses {
    /// Since the last tick.
    pub(super) pending: Tally,
    /// Lately, each for the less the older it is.
    usual: Tally,
    pub(super) evidence: f64,
    /// Since the evidence began to gather, and when that was.
    since: (Tally, Duration),
    last: Duration,
    /// Whether a failure brought enough evidence in the last tick.
    reached: bool,
}

impl Losses {
    /// Whether a failure brought enough evidence in the last tick.
    pub(super) const fn reached(&self) -> bool {
        self.reached
    }

    /// Failures, and how many there were at all, since the evidence began to gather, and when that
    /// was.
    pub(super) const fn counted(&self) -> (Tally, Duration) {
        self.since
    }

    /// Whether nothing is held against it.
    pub(super) fn well(&self) -> bool {
        self.evidence < DOUBT
    }

    /// Forgets the evidence.
    pub(super) fn acquit(&mut self) {
        self.evidence = 0.0;
    }

    fn judge(&mut self, now: Duration, seen: Tally, peers: Tally, settings: &Settings) {
        let (least, bad) = settings.errors;
        let usual = (peers.failed + 1.0) / (peers.of + FEW);
        let borne = (BORNE * usual).clamp(least, 0.5);
        let odds = |part: f64| part / (1.0 - part);
        let worse = Alternative::new(borne, odds(bad) / odds(least));
        if self.evidence <= 0.0 {
            self.since = (Tally::default(), now);
        }
        self.since.0.add(seen);
        let evidence = worse.evidence(seen.failed, seen.of).clamp(-MOST, MOST);
        self.evidence = (self.evidence + evidence).clamp(0.0, ACT);
        self.reached = seen.failed > 0.0 && self.evidence >= ACT;
    }
}

/// Ends a tick, so long after the one before.
pub(super) fn tick(
    all: &mut [Losses],
    standing: &[Compared],
    (now, elapsed): (Duration, Duration),
    settings: &Settings,
) {
    let left = (-elapsed.as_secs_f64() / MEMORY).exp();
    let mut peers = Tally::default();
    for (losses, standing) in all.iter_mut().zip(standing) {
        losses.usual.failed *= left;
        losses.usual.of *= left;
        losses.usual.add(losses.pending);
        losses.reached = false;
        if standing.peer {
            peers.add(losses.usual);
        }
    }
    for (losses, standing) in all.iter_mut().zip(standing) {
        let seen = std::mem::take(&mut losses.pending);
        if seen.of <= 0.0 {
            if now.saturating_sub(losses.last) >= SILENT {
                losses.acquit();
            }
            continue;
        }
        losses.last = now;
        let own = if standing.peer {
            losses.usual
        } else {
            Tally::default()
        };
        let others = Tally {
            failed: (peers.failed - own.failed).max(0.0),
            of: (peers.of - own.of).max(0.0),
        };
        if standing.judged && others.of > 0.0 {
            losses.judge(now, seen, others, settings);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::SmallRng};
    use rand_distr::{Binomial, Distribution as _};

    use super::*;
    use crate::model::Ejection;

    const PEER: Compared = Compared {
        judged: true,
        peer: true,
    };

    /// The second in which the first of some backends is found, where each second so many
    /// connections of each fail with these probabilities.
    fn found(parts: &[f64], of: u64, seconds: u64, seed: u64) -> Option<u64> {
        let settings = Settings::new(&Ejection::default(), Duration::from_secs(1));
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut all = vec![Losses::default(); parts.len()];
        let standing = vec![PEER; parts.len()];
        (1..=seconds).find(|&second| {
            for (losses, part) in all.iter_mut().zip(parts) {
                let failed = Binomial::new(of, *part).unwrap().sample(&mut rng);
                losses.pending.add(Tally {
                    failed: failed as f64,
                    of: of as f64,
                });
            }
            let now = (Duration::from_secs(second), Duration::from_secs(1));
            tick(&mut all, &standing, now, &settings);
            all.iter().any(Losses::reached)
        })
    }

    #[test]
    fn who_leaves_clients_without_an_answer_is_found() {
        for seed in 0..20 {
            for (bad, usual, of, within) in
                [(1.0, 0.0, 1, 30), (0.05, 0.0, 20, 60), (0.3, 0.02, 5, 60)]
            {
                let parts = [bad, usual, usual, usual];
                let at = found(&parts, of, 2 * within, seed);
                assert!(
                    at.is_some_and(|at| (6..=within).contains(&at)),
                    "{bad} beside {usual}, seed {seed}: {at:?}"
                );
            }
        }
    }

    #[test]
    fn what_happens_to_clients_of_all_is_nobodys() {
        for usual in [0.0005, 0.02, 0.2] {
            for (backends, of) in [(3, 1), (3, 50), (10, 5)] {
                let parts = vec![usual; backends];
                let at = found(&parts, of, 86_400, 7);
                assert_eq!(at, None, "{usual} of {of} with {backends} backends");
            }
        }
    }

    #[test]
    fn where_nobody_comes_any_more_nothing_is_held_against_it() {
        let settings = Settings::new(&Ejection::default(), Duration::from_secs(1));
        let mut all = vec![Losses::default(); 3];
        for second in 1..=60 {
            for losses in &mut all[usize::from(second > 20)..] {
                losses.pending.of += 5.0;
            }
            if second <= 20 {
                all[0].pending.failed += 3.0;
            }
            let now = (Duration::from_secs(second), Duration::from_secs(1));
            tick(&mut all, &[PEER; 3], now, &settings);
            assert_eq!(all[0].well(), !(2..50).contains(&second), "{second}");
        }
    }
}
