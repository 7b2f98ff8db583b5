//! What became of requests, in numbers.

use std::{collections::BTreeMap, fmt, time::Duration};

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// The target refused the connection.
    Refused,
    /// There is no way to the target.
    Unreachable,
    /// This host has no port left to connect from.
    NoPort,
    /// This host may have no more open files.
    NoFile,
    /// No answer came in time.
    TimedOut,
    /// The connection ended before the answer did.
    Closed,
    /// TLS did not come about.
    Tls,
    /// The answer was not HTTP.
    Protocol,
    /// The answer's status was none of success.
    Status(u16),
    /// As many requests as may be were waiting for an answer, so it was not sent.
    NotSent,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Unreachable => f.write_str("no way there"),
            Self::NoPort => f.write_str("no port left on this host"),
            Self::NoFile => f.write_str("no more files may be open on this host"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Closed => f.write_str("connection closed"),
            Self::Tls => f.write_str("TLS failed"),
            Self::Protocol => f.write_str("not HTTP"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::NotSent => f.write_str("not sent, too many waited"),
        }
    }
}

impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// The stage it belongs to.
    pub stage: usize,
    /// When it was due, from the beginning of the test.
    pub due: Duration,
    /// How much later it was begun.
    pub late: Duration,
    /// From when it was due to the end of its answer.
    pub took: Duration,
    /// The bytes of its answer, or why there is none.
    pub answer: Result<u64, Failure>,
}

/// What became of some requests.
#[derive(Clone, Debug)]
pub struct Tally {
    /// How many were due.
    pub due: u64,
    /// How many were answered.
    pub answered: u64,
    /// The bytes of the answers.
    pub bytes: u64,
    /// The others.
    pub failures: BTreeMap<Failure, u64>,
    /// How long the answered ones took, in microseconds.
    took: Histogram<u64>,
    /// How late requests were begun, in microseconds.
    late: Histogram<u64>,
}

/// The longest time that is told apart, in microseconds.
const LONGEST: u64 = 3_600_000_000;

impl Default for Tally {
    fn default() -> Self {
        Self::with_digits(3)
    }
}

impl Tally {
    /// Of few requests, coarsely: times are told apart to a hundredth, by default to a thousandth.
    pub fn small() -> Self {
        Self::with_digits(2)
    }

    fn with_digits(digits: u8) -> Self {
        // Grows to what it is given.
        let histogram = || Histogram::new(digits).expect("up to five digits can be told apart");
        Self {
            due: 0,
            answered: 0,
            bytes: 0,
            failures: BTreeMap::new(),
            took: histogram(),
            late: histogram(),
        }
    }

    /// Takes one more.
    pub fn add(&mut self, sample: &Sample) {
        self.due += 1;
        let _ = self.late.record(micros(sample.late));
        match sample.answer {
            Ok(bytes) => {
                self.answered += 1;
                self.bytes += bytes;
                let _ = self.took.record(micros(sample.took));
            }
            Err(failure) => *self.failures.entry(failure).or_default() += 1,
        }
    }

    /// Takes all of another one's.
    pub fn merge(&mut self, other: &Self) {
        self.due += other.due;
        self.answered += other.answered;
        self.bytes += other.bytes;
        for (failure, count) in &other.failures {
            *self.failures.entry(*failure).or_default() += count;
        }
        // They have the same bounds, or grow.
        let _ = self.took.add(&other.took);
        let _ = self.late.add(&other.late);
    }

    /// How many failed.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// The part that failed.
    pub fn failed_part(&self) -> f64 {
        if self.due == 0 {
            0.0
        } else {
            self.failed() as f64 / self.due as f64
        }
    }

    /// The time that a part of the answered ones did not exceed, in seconds; `None` where none was
    /// answered.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        (self.answered > 0).then(|| self.took.value_at_quantile(part) as f64 / 1e6)
    }

    /// The longest one took, in seconds.
    pub fn longest(&self) -> Option<f64> {
        (self.answered > 0).then(|| self.took.max() as f64 / 1e6)
    }

    /// Their mean, in seconds.
    pub fn mean(&self) -> Option<f64> {
        (self.answered > 0).then(|| self.took.mean() / 1e6)
    }

    /// How late a part of the requests were begun at most, in seconds.
    pub fn lateness(&self, part: f64) -> f64 {
        self.late.value_at_quantile(part) as f64 / 1e6
    }

    /// The distribution of times for a plot: the part of the answered ones, and the time in seconds
    /// that it did not exceed.
    pub fn distribution(&self) -> Vec<(f64, f64)> {
        let values = self.took.iter_quantiles(5);
        values
            .map(|value| (value.quantile(), value.value_iterated_to() as f64 / 1e6))
            .filter(|&(quantile, _)| quantile < 1.0)
            .collect()
    }
}

fn micros(time: Duration) -> u64 {
    (time.as_micros() as u64).clamp(1, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(took_ms: u64, answer: Result<u64, Failure>) -> Sample {
        Sample {
            stage: 0,
            due: Duration::ZERO,
            late: Duration::from_micros(20),
            took: Duration::from_millis(took_ms),
            answer,
        }
    }

    #[test]
    fn times_are_those_of_answers_alone() {
        for mut tally in [Tally::default(), Tally::small()] {
            assert_eq!(tally.quantile(0.5), None);
            for ms in 1..=100 {
                tally.add(&sample(ms, Ok(10)));
            }
            tally.add(&sample(5000, Err(Failure::TimedOut)));
            tally.add(&sample(1, Err(Failure::Status(503))));
            tally.add(&sample(1, Err(Failure::Status(503))));
            assert_eq!((tally.due, tally.answered, tally.bytes), (103, 100, 1000));
            assert_eq!(tally.failures[&Failure::Status(503)], 2);
            assert!((tally.failed_part() - 3.0 / 103.0).abs() < 1e-9);
            let near = |found: Option<f64>, expected: f64| {
                let found = found.unwrap();
                assert!((found / expected - 1.0).abs() < 0.011, "{found} {expected}");
            };
            near(tally.quantile(0.5), 0.050);
            near(tally.quantile(0.99), 0.099);
            near(tally.longest(), 0.100);
            near(tally.mean(), 0.0505);
        }
    }
}
