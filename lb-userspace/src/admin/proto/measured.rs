//! What the status says in numbers, for those who collect them.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

/// Durations, counted by how long they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Durations {
    /// How many were as long as each of [`Durations::BOUNDS`] at most and longer than the one
    /// before, and how many were longer than all.
    pub counts: [u64; 11],
    /// All of them together, in seconds.
    pub sum_s: f64,
}

impl Durations {
    /// The bounds, in seconds.
    pub const BOUNDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

    /// Counts one.
    pub fn add(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        let longer = Self::BOUNDS.iter().take_while(|&&bound| took > bound);
        self.counts[longer.count()] += 1;
        self.sum_s += took;
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The probes of a backend since the controller started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Probes {
    /// Those that passed.
    pub passed: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that could not be made, for want of something on this host.
    pub undecided: u64,
    /// How long those took that passed.
    pub took: Durations,
    /// When the backend's certificate expires; absent where it was never seen.
    #[serde(default)]
    pub certificate_expires_at_ms: Option<u64>,
}

/// How long a backend's flows waited, of those that are measured, since the controller started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Flows {
    /// From a client's SYN to the end of the handshake.
    pub handshake: Waits,
    /// From a request to the first of its response.
    pub response: Waits,
    /// Connections whose SYN was sent again.
    pub unanswered: u64,
    /// Connections that the backend reset while it was to answer, where replies pass by.
    pub reset: u64,
}

/// How long clients waited for something, counted by how long that was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Waits {
    /// How many were shorter than each of [`Waits::BOUNDS`] and not than the one before, and how
    /// many were longer than all.
    pub counts: [u64; 18],
    /// All of them together, in seconds.
    pub sum_s: f64,
}

impl Waits {
    /// The first bound, as a power of two of nanoseconds.
    const FIRST: u32 = 17;

    /// The bounds, in seconds: powers of two of nanoseconds, from 131 microseconds to 8.6 seconds,
    /// since the kernel counts by these.
    pub const BOUNDS: [f64; 17] = {
        let mut bounds = [0.0; 17];
        let mut n = 0;
        while n < bounds.len() {
            bounds[n] = (1_u64 << (Self::FIRST + n as u32)) as f64 / 1e9;
            n += 1;
        }
        bounds
    };

    /// From counts of durations that are shorter than so many nanoseconds; `None` for no end.
    #[must_use]
    pub fn of(counted: impl IntoIterator<Item = (Option<u64>, u64)>, nanoseconds: u64) -> Self {
        let mut counts = [0; 18];
        for (end, count) in counted {
            let longer = |bound: &&f64| end.is_none_or(|end| end as f64 / 1e9 > **bound);
            counts[Self::BOUNDS.iter().take_while(longer).count()] += count;
        }
        Self {
            counts,
            sum_s: nanoseconds as f64 / 1e9,
        }
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Publications since the controller started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Publications {
    /// Those that the kernel took.
    pub count: u64,
    /// Tries that it refused.
    pub refused: u64,
    /// From what made one necessary to the moment that packets followed it.
    pub took: Durations,
}

/// The last audit that the controller made by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// When; absent before the first.
    pub at_ms: Option<u64>,
    /// How many findings there were, by level: `info`, `warning`, `error`, `critical`.
    pub findings: BTreeMap<String, u64>,
    /// Why the configuration on disk would be refused; absent where it is valid.
    pub rejected: Option<String>,
}

/// Where metrics and the page are to be had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Http {
    /// The addresses that are listened at.
    pub listening: Vec<SocketAddr>,
    /// Why others that are configured are not, one reason for each.
    pub failures: Vec<String>,
}

/// How history is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Why it is not written; absent where it is.
    pub failure: Option<String>,
}

/// The owners of a ring's slots, in order, by their place among the service's backends: of every slot,
/// or of one in so many where there are more than [`Band::LONGEST`]. It is for pictures, and stands in
/// no JSON of the admin API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Band(pub Arc<[u16]>);

impl Band {
    /// Most owners that a band shows.
    pub const LONGEST: usize = 512;
    /// Stands for an owner that is not among the backends any more.
    pub const NOBODY: u16 = u16::MAX;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_once_and_a_bound_belongs_to_what_is_below() {
        let mut durations = Durations::default();
        for micros in [0, 1_000, 1_001, 1_000_000, 1_000_001] {
            durations.add(Duration::from_micros(micros));
        }
        assert_eq!(durations.counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(durations.count(), 5);
        assert!((durations.sum_s - 2.002_002).abs() < 1e-9);
    }

    #[test]
    fn waits_are_below_the_least_bound_that_their_bucket_ends_at() {
        let counted = [
            (Some(6_000), 1),
            (Some(1 << 17), 2),
            (Some(3 << 16), 4),
            (Some(1 << 18), 8),
            (Some(1 << 34), 16),
            (None, 32),
        ];
        let waits = Waits::of(counted, 2_500_000_000);
        assert_eq!(waits.counts[..3], [3, 12, 0]);
        assert_eq!(waits.counts[17], 48);
        assert_eq!(waits.count(), 63);
        assert!((waits.sum_s - 2.5).abs() < 1e-9);
        assert!((Waits::BOUNDS[0] - 0.000_131_072).abs() < 1e-12);
    }
}
