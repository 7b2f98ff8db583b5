//! What the detector says: verdict, reasons, skewed backends.

use std::{cmp::Ordering, time::Duration};

use super::Detectable;

/// How urgent a skew is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// To be looked at some day: 8 % off.
    Ticket,
    /// To be looked at today: 30 % off.
    Warning,
    /// To be looked at now: half or twice the intended share.
    Page,
}

impl Severity {
    /// The word for it in the API and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ticket => "ticket",
            Self::Warning => "warning",
            Self::Page => "page",
        }
    }
}

/// What the new flows of a service say about its evenness.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// The flows follow the shares, as far as chance lets one see.
    Even,
    /// At least one backend gets another share than intended.
    Skewed,
    /// Too little has been seen.
    CannotTell(Why),
}

/// Why evenness cannot be told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Why {
    /// No backend has a share.
    NoBackends,
    /// The detector still learns what chance looks like here.
    WarmingUp {
        /// For how long it has been learning.
        seen: Duration,
        /// How long that will have taken at the present rate.
        of: Duration,
    },
    /// No new flow has arrived for a while.
    Idle {
        /// For how long.
        silent: Duration,
    },
    /// Flows arrive too slowly to show even a tenfold share within a minute.
    TooFewFlows {
        /// New flows a second.
        rate: f64,
        /// How long a doubled share would take to show.
        doubling_takes: Duration,
    },
}

/// A backend that gets another share than intended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Skew {
    /// Its index among the detector's shares.
    pub backend: usize,
    /// How urgent that is.
    pub severity: Severity,
    /// Its part of the new flows since it began, of the last minute or so where that is longer.
    pub observed_share: f64,
    /// Its part of the slots.
    pub intended_share: f64,
    /// When it began, as far as can be told.
    pub since: Duration,
    /// When it was found.
    pub found: Duration,
}

impl Skew {
    /// The observed over the intended share.
    pub fn ratio(&self) -> f64 {
        self.observed_share / self.intended_share
    }

    /// How strongly each flow speaks against the intended share, in nats: the Kullback–Leibler
    /// divergence. It tells a culprit from those who only make up for it.
    fn strength(&self) -> f64 {
        let term = |q: f64, p: f64| if q > 0.0 { q * (q / p).ln() } else { 0.0 };
        term(self.observed_share, self.intended_share)
            + term(1.0 - self.observed_share, 1.0 - self.intended_share)
    }

    /// Orders skews, the worst first.
    pub(super) fn worst_first(a: &Self, b: &Self) -> Ordering {
        // Where two backends trade load, the one that gets more is named.
        b.severity
            .cmp(&a.severity)
            .then_with(|| b.strength().total_cmp(&a.strength()))
            .then_with(|| b.observed_share.total_cmp(&a.observed_share))
    }
}

/// What a detector says after a tick.
#[derive(Clone, Debug, PartialEq)]
pub struct Assessment {
    /// When this was said.
    pub at: Duration,
    /// The verdict.
    pub verdict: Verdict,
    /// All backends that deviate, the worst first.
    pub skewed: Vec<Skew>,
    /// φ: how many flows are worth one independent flow; at least one.
    pub overdispersion: f64,
    /// New flows a second, lately.
    pub rate: f64,
    /// The smallest skew of one backend that would be noticed at the present rate; `None` where
    /// even a tenfold share would not, within a minute.
    pub detectable: Option<Detectable>,
    /// Backends that have a share, and so can be skewed.
    pub watched: usize,
    /// New flows to backends without a share, since the table changed.
    pub strays: u64,
}

impl Assessment {
    /// The backend that deviates most.
    pub fn worst(&self) -> Option<&Skew> {
        self.skewed.first()
    }
}
