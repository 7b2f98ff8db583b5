//! What the data plane measured of a backend's flows: how long handshakes and responses take.
//!
//! The kernel counts by buckets, two for each power of two. What is shown is weighed by age, so
//! that it is of about the last half minute, whatever the rate.

use std::time::Duration;

use lb_common::layout::{BUCKETS, Histogram, Latencies, end_of_bucket};

/// What was measured counts for so much less after this time: by a factor of e.
const MEMORY: Duration = Duration::from_secs(30);
/// Less than this, and nothing is said of it.
const FEWEST: f64 = 0.5;

/// How long one thing takes with one backend.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// What was counted of late, weighed by age; empty before there is anything.
    recent: Vec<f64>,
    /// The sum of the logarithms of nanoseconds to base 2, weighed likewise.
    logarithms: f64,
}

impl Series {
    /// Takes what was counted since the reading before, so long ago.
    fn add(&mut self, elapsed: Duration, took: Option<&Histogram>) {
        let decay = (-elapsed.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        self.recent.iter_mut().for_each(|count| *count *= decay);
        self.logarithms *= decay;
        let Some(took) = took else { return };
        self.recent.resize(BUCKETS, 0.0);
        for (recent, count) in self.recent.iter_mut().zip(&took.buckets) {
            *recent += f64::from(*count);
        }
        self.logarithms += took.logarithms as f64 / 256.0;
    }

    /// Of the last half minute; `None` where nothing was measured.
    #[must_use]
    pub fn recent(&self) -> Option<Percentiles> {
        let samples: f64 = self.recent.iter().sum();
        (samples >= FEWEST).then(|| Percentiles {
            samples,
            mean: Duration::from_secs_f64((self.logarithms / samples).exp2() / 1e9),
            median: self.quantile(samples, 0.5),
            p90: self.quantile(samples, 0.9),
            p99: self.quantile(samples, 0.99),
        })
    }

    /// What a part of them does not exceed; within a bucket, as if they were spread evenly over the
    /// logarithm.
    fn quantile(&self, samples: f64, part: f64) -> Duration {
        let mut left = samples * part;
        for (bucket, &count) in self.recent.iter().enumerate() {
            if left <= count && count > 0.0 {
                let begin = bucket.checked_sub(1).and_then(end_of_bucket);
                let end = end_of_bucket(bucket);
                let begin = begin.map_or_else(|| end.unwrap_or(1) as f64 / 2.0, |ns| ns as f64);
                let end = end.map_or(begin * 2.0, |ns| ns as f64);
                let ns = begin * (end / begin).powf(left / count);
                return Duration::from_secs_f64(ns / 1e9);
            }
            left -= count;
        }
        Duration::ZERO
    }
}

/// How long something takes lately.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percentiles {
    /// How many were measured, each the less the older it is.
    pub samples: f64,
    /// The geometric mean.
    pub mean: Duration,
    /// Half of them take no longer.
    pub median: Duration,
    /// Nine tenths take no longer.
    pub p90: Duration,
    /// Ninety-nine hundredths take no longer.
    pub p99: Duration,
}

/// What is measured of one backend.
#[derive(Clone, Debug, Default)]
pub struct Latency {
    /// What the kernel had counted.
    before: Option<Latencies>,
    /// From a SYN to the end of the handshake.
    pub handshake: Series,
    /// From a request to the first of its response.
    pub response: Series,
    /// All that was counted since the first reading; `None` where nothing was: most backends are
    /// many and idle.
    pub total: Option<Box<Total>>,
}

/// All that was counted of one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// From a SYN to the end of the handshake.
    pub handshake: Sum,
    /// From a request to the first of its response.
    pub response: Sum,
    /// Connections whose SYN was sent again.
    pub unanswered: u64,
    /// Connections that the backend reset while it was to answer.
    pub reset: u64,
}

/// How long something took, over all times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    /// How many times, by the kernel's buckets.
    pub buckets: [u64; BUCKETS],
    /// All of them together.
    pub nanoseconds: u64,
}

impl Default for Sum {
    fn default() -> Self {
        Self {
            buckets: [0; BUCKETS],
            nanoseconds: 0,
        }
    }
}

impl Sum {
    fn add(&mut self, took: &Histogram) {
        for (all, new) in self.buckets.iter_mut().zip(took.buckets) {
            *all += u64::from(new);
        }
        self.nanoseconds += took.nanoseconds;
    }
}

impl Latency {
    /// Takes a reading of the kernel's histograms, so long after the one before it; answers what was
    /// counted since. The first says what there was already.
    pub fn read(&mut self, elapsed: Duration, now: &Latencies) -> Option<Latencies> {
        let before = self.before.replace(*now);
        let took = before
            .filter(|before| before != now)
            .map(|before| Latencies {
                handshake: since(&before.handshake, &now.handshake),
                response: since(&before.response, &now.response),
                further: since(&before.further, &now.further),
                unanswered: now.unanswered.wrapping_sub(before.unanswered),
                reset: now.reset.wrapping_sub(before.reset),
            });
        let responses = took.map(|took| both(&took.response, &took.further));
        self.handshake
            .add(elapsed, took.as_ref().map(|took| &took.handshake));
        self.response.add(elapsed, responses.as_ref());
        if let (Some(took), Some(responses)) = (&took, &responses) {
            let total = self.total.get_or_insert_default();
            total.handshake.add(&took.handshake);
            total.response.add(responses);
            total.unanswered += took.unanswered;
            total.reset += took.reset;
        }
        took
    }
}

/// What was counted from one reading to a later one.
fn since(before: &Histogram, now: &Histogram) -> Histogram {
    let count = |n: usize| now.buckets[n].wrapping_sub(before.buckets[n]);
    Histogram {
        buckets: std::array::from_fn(count),
        logarithms: now.logarithms.wrapping_sub(before.logarithms),
        nanoseconds: now.nanoseconds.wrapping_sub(before.nanoseconds),
    }
}

/// What was counted in either of two.
fn both(one: &Histogram, other: &Histogram) -> Histogram {
    let count = |n: usize| one.buckets[n].wrapping_add(other.buckets[n]);
    Histogram {
        buckets: std::array::from_fn(count),
        logarithms: one.logarithms.wrapping_add(other.logarithms),
        nanoseconds: one.nanoseconds.wrapping_add(other.nanoseconds),
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use lb_common::layout::bucket;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// What the kernel counts of so many durations.
    fn add(to: &mut Histogram, took: Duration, times: u32) {
        let (bucket, logarithm) = bucket(took.as_nanos() as u64);
        to.buckets[bucket] = to.buckets[bucket].wrapping_add(times);
        to.logarithms += u64::from(logarithm) * u64::from(times);
        to.nanoseconds += took.as_nanos() as u64 * u64::from(times);
    }

    #[test]
    fn percentiles_are_those_of_what_was_counted_to_within_a_bucket() {
        let mut latency = Latency::default();
        let mut kernel = Latencies::zeroed();
        latency.read(SECOND, &kernel);
        assert_eq!(latency.response.recent(), None);
        for ms in 1..=1000 {
            add(&mut kernel.response, Duration::from_millis(ms), 1);
        }
        latency.read(SECOND, &kernel);
        let seen = latency.response.recent().unwrap();
        assert!((seen.samples - 1000.0).abs() < 1e-6);
        for (found, exact) in [(seen.median, 0.5), (seen.p90, 0.9), (seen.p99, 0.99)] {
            let ratio = found.as_secs_f64() / exact;
            assert!((0.7..1.42).contains(&ratio), "{found:?} for {exact}");
        }
        // That of the logarithms is exact: of 1 to 1,000 it is 1,000 over e.
        let mean = seen.mean.as_secs_f64() * 1e3;
        assert!(
            (mean / (1000.0 / std::f64::consts::E) - 1.0).abs() < 0.03,
            "{mean}"
        );
        assert_eq!(latency.handshake.recent(), None);
    }

    #[test]
    fn what_is_shown_follows_what_is_measured() {
        let mut latency = Latency::default();
        let mut kernel = Latencies::zeroed();
        latency.read(SECOND, &kernel);
        for second in 0..600 {
            let took = Duration::from_millis(if second < 500 { 10 } else { 40 });
            add(&mut kernel.handshake, took, 50);
            latency.read(SECOND, &kernel);
        }
        let seen = latency.handshake.recent().unwrap();
        assert!(seen.median > Duration::from_millis(30), "{seen:?}");
        assert!((seen.samples - 1525.0).abs() < 2.0, "{seen:?}");
        for _ in 0..300 {
            latency.read(SECOND, &kernel);
        }
        assert_eq!(latency.handshake.recent(), None);
    }

    #[test]
    fn responses_are_those_of_both_halves_and_a_reading_tells_what_is_new() {
        let mut latency = Latency::default();
        let mut kernel = Latencies::zeroed();
        let took = Duration::from_millis(1);
        add(&mut kernel.further, took, 7);
        assert_eq!(latency.read(SECOND, &kernel), None);
        add(&mut kernel.response, took, 2);
        add(&mut kernel.further, took, 3);
        kernel.unanswered = 4;
        let new = latency.read(SECOND, &kernel).unwrap();
        assert_eq!((new.response.nanoseconds, new.unanswered), (2_000_000, 4));
        assert_eq!(new.further.buckets.iter().sum::<u32>(), 3);
        let samples = latency.response.recent().unwrap().samples;
        assert!((samples - 5.0).abs() < 1e-9, "{samples}");
        assert_eq!(latency.read(SECOND, &kernel), None);

        // What is over is still counted in all.
        let at = bucket(took.as_nanos() as u64).0;
        add(&mut kernel.handshake, took, 1);
        kernel.reset = 1;
        latency.read(SECOND, &kernel).unwrap();
        let total = latency.total.unwrap();
        assert_eq!(
            (total.response.buckets[at], total.response.nanoseconds),
            (5, 5_000_000)
        );
        assert_eq!(total.handshake.buckets[at], 1);
        assert_eq!((total.unanswered, total.reset), (4, 1));
    }

    #[test]
    fn counts_wrap_and_what_was_there_before_does_not_count() {
        let mut latency = Latency::default();
        let mut kernel = Latencies::zeroed();
        let took = Duration::from_millis(1);
        add(&mut kernel.response, took, u32::MAX - 1);
        latency.read(SECOND, &kernel);
        assert_eq!(latency.response.recent(), None);
        add(&mut kernel.response, took, 5);
        latency.read(SECOND, &kernel);
        let samples = latency.response.recent().unwrap().samples;
        assert!((samples - 5.0).abs() < 1e-9, "{samples}");
    }
}
