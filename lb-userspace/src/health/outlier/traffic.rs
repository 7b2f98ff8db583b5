//! What clients' traffic tells of backends: how long they took to answer, and whom they did not.
//!
//! The data plane times some flows in passing. Each of them counts once a minute, however often it
//! asks: a connection that is kept for hours, of a client that wants what takes long, is no
//! measure of its backend. What comes is gathered until it is enough to compare with, of all
//! backends over the same time: where all become slow at once, nobody was slower at any time.

use std::{sync::LazyLock, time::Duration};

use lb_common::layout::{BUCKETS, Histogram, Latencies, end_of_bucket};

use super::{
    latency::{Batch, Brought, Compared, Round},
    losses::{self, Losses},
    sense::{ENOUGH, Sense},
    settings::Settings,
    smooth::{Smooth, lower_median},
};
use crate::health::event::By;

/// The longest that is gathered for: of what is older, half may be of another day's backend.
const LONGEST: Duration = Duration::from_mins(5);
/// How fast traffic comes is told of about this time.
const PACE_MEMORY: Duration = Duration::from_mins(1);

/// What traffic told of a backend since the last round.
#[derive(Clone, Debug, Default)]
struct Gathered {
    /// Nothing, where nobody asked: of thousands of backends few are busy.
    took: Option<Box<Histogram>>,
    flows: f64,
}

impl Gathered {
    fn add(&mut self, took: &Histogram) {
        let sum = self.took.get_or_insert_with(|| Box::new(*took));
        if self.flows > 0.0 {
            for (sum, more) in sum.buckets.iter_mut().zip(&took.buckets) {
                *sum = sum.wrapping_add(*more);
            }
            sum.logarithms = sum.logarithms.wrapping_add(took.logarithms);
        }
        self.flows += flows(took);
    }

    /// All of it, as the tests see it; `None` of nothing.
    fn batch(&self, settings: &Settings) -> Option<Batch> {
        let took = self.took.as_ref()?;
        let samples = self.flows;
        let mean = seconds(took.logarithms as f64 / 256.0 / samples);
        let values = || {
            let counts = took.buckets.iter().map(|&count| f64::from(count));
            counts.zip(MIDDLES.iter())
        };
        // The sum is exact; how it is spread is known to half of a bucket.
        let rough = values().map(|(n, at)| n * at).sum::<f64>() / samples;
        let floored = |at: &f64| (at + mean - rough).max(settings.floor);
        let mean_floored = values().map(|(n, at)| n * floored(at)).sum::<f64>() / samples;
        let squares: f64 = values()
            .map(|(n, at)| n * (floored(at) - mean_floored).powi(2))
            .sum();
        Some(Batch {
            samples,
            mean,
            floored: mean_floored,
            variance: squares / (samples - 1.0).max(1.0),
        })
    }
}

/// How many durations there are.
fn flows(took: &Histogram) -> f64 {
    took.buckets.iter().map(|&count| f64::from(count)).sum()
}

/// The natural logarithm of seconds, of which that of nanoseconds to base 2 is given.
fn seconds(power: f64) -> f64 {
    power * std::f64::consts::LN_2 - 1e9_f64.ln()
}

/// The middle of each bucket, as the natural logarithm of seconds.
static MIDDLES: LazyLock<[f64; BUCKETS]> = LazyLock::new(|| {
    let log = |bucket| end_of_bucket(bucket).map(|ns| (ns as f64).log2());
    std::array::from_fn(|bucket| {
        let begin = bucket.checked_sub(1).and_then(log);
        seconds(match (begin, log(bucket)) {
            (Some(begin), Some(end)) => f64::midpoint(begin, end),
            // The outermost have one end.
            (Some(begin), None) => begin + 0.5,
            (None, end) => end.unwrap_or_default() - 0.5,
        })
    })
});

/// What traffic tells of one backend, for people.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    /// Samples that count, a second.
    pub(super) rate: f64,
    /// How long it takes to find a backend that is as slow as must be found; `None` where too
    /// little comes to judge by.
    pub(super) found_in: Option<Duration>,
}

/// What traffic tells of all backends of a service.
#[derive(Clone, Debug)]
pub(super) struct Traffic {
    pub(super) sense: Sense,
    pub(super) losses: Vec<Losses>,
    gathered: Vec<Gathered>,
    /// Samples since the last tick, and how many come a second.
    arrived: Vec<f64>,
    rates: Vec<Smooth>,
    /// When what is gathered began; `None` before the first tick.
    since: Option<Duration>,
    ticked: Duration,
    /// How long the last round was; `None` where there was too little for one.
    length: Option<Duration>,
}

impl Traffic {
    pub(super) fn new(backends: usize) -> Self {
        Self {
            sense: Sense::new(By::Traffic, backends),
            losses: vec![Losses::default(); backends],
            gathered: vec![Gathered::default(); backends],
            arrived: vec![0.0; backends],
            rates: vec![Smooth::over(PACE_MEMORY); backends],
            since: None,
            ticked: Duration::ZERO,
            length: None,
        }
    }

    /// What is known of a backend goes on as that of another number.
    pub(super) fn carry(&mut self, n: usize, from: &Self, m: usize) {
        self.sense.hosts[n] = from.sense.hosts[m].clone();
        self.losses[n] = from.losses[m].clone();
        self.rates[n] = from.rates[m];
    }

    /// Takes what a backend's flows took since the last tick.
    pub(super) fn took(&mut self, n: usize, took: &Latencies) {
        let first = flows(&took.response);
        if first > 0.0 {
            self.gathered[n].add(&took.response);
            self.arrived[n] += first;
        }
        let failed = took.unanswered.wrapping_add(took.reset) as f64;
        let pending = &mut self.losses[n].pending;
        pending.failed += failed;
        pending.of += flows(&took.handshake) + first + failed;
    }

    /// Ends a tick.
    pub(super) fn tick(
        &mut self,
        now: Duration,
        standing: &[Compared],
        learn: bool,
        settings: &Settings,
    ) {
        let Some(since) = self.since else {
            (self.since, self.ticked) = (Some(now), now);
            self.begin_anew();
            return;
        };
        let elapsed = now.saturating_sub(std::mem::replace(&mut self.ticked, now));
        losses::tick(&mut self.losses, standing, (now, elapsed), settings);
        self.note_rates(now, elapsed);
        let length = now.saturating_sub(since);
        if self.is_enough(standing) {
            let round = Round {
                now,
                length,
                memory: length * 2,
                learn,
            };
            self.end_round(&round, standing, settings);
            self.length = Some(length);
        } else if length >= LONGEST {
            self.length = None;
        } else {
            return;
        }
        self.begin_anew();
        self.since = Some(now);
    }

    fn begin_anew(&mut self) {
        self.gathered.fill(Gathered::default());
    }

    /// Takes note of how much came in a tick.
    fn note_rates(&mut self, now: Duration, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        if seconds > 0.0 {
            for (rate, arrived) in self.rates.iter_mut().zip(&self.arrived) {
                rate.add_worth(now, arrived / seconds, seconds, Duration::ZERO);
            }
        }
        self.arrived.fill(0.0);
    }

    /// Whether enough is gathered to compare with: of half of the peers, and two at least.
    fn is_enough(&self, standing: &[Compared]) -> bool {
        let peers = self.gathered.iter().zip(standing);
        let peers = peers.filter(|(_, standing)| standing.peer);
        let mut flows: Vec<f64> = peers.map(|(gathered, _)| gathered.flows).collect();
        let median = lower_median(&mut flows);
        let some = flows.iter().filter(|&&flows| flows >= ENOUGH).count();
        some >= 2 && median.is_some_and(|median| median >= ENOUGH)
    }

    fn end_round(&mut self, round: &Round, standing: &[Compared], settings: &Settings) {
        self.sense.memory = round.memory;
        for (host, gathered) in self.sense.hosts.iter_mut().zip(&self.gathered) {
            match gathered.batch(settings) {
                Some(batch) => host.take(round, &batch),
                // What it was is not what it will be when somebody asks it again.
                None if host.is_silent(round) => host.restart(),
                None => {}
            }
        }
        let brought = self.brought(standing, round.length);
        let sense = &mut self.sense;
        sense.tick(round, &brought, standing, Duration::ZERO, settings);
        let mut latest = sense.latest(standing, round.now, Duration::ZERO);
        let samples = self.gathered.iter().zip(standing);
        let samples = samples.filter(|(_, standing)| standing.peer);
        let samples: f64 = samples.map(|(gathered, _)| gathered.flows).sum();
        let spread = sense.spread();
        let fleet = &mut sense.fleet;
        fleet.tick(round, &mut latest, (spread, samples), settings);
    }

    /// What each backend's samples are worth: what they are compared with is uncertain as well.
    fn brought(&self, standing: &[Compared], length: Duration) -> Vec<Brought> {
        let gathered = self.gathered.iter().zip(standing);
        let peer = |(gathered, standing): (&Gathered, &Compared)| {
            let is = standing.peer && gathered.flows > 0.0;
            if is {
                (1.0, 1.0 / gathered.flows)
            } else {
                (0.0, 0.0)
            }
        };
        let own: Vec<(f64, f64)> = gathered.map(peer).collect();
        let (count, variance) = own
            .iter()
            .fold((0.0, 0.0), |sum, own| (sum.0 + own.0, sum.1 + own.1));
        let of = |(gathered, own): (&Gathered, &(f64, f64))| {
            let (count, variance) = (count - own.0, (variance - own.1).max(0.0));
            let samples = gathered.flows;
            let worth = if samples > 0.0 && count > 0.0 {
                1.0 / (1.0 / samples + variance / (count * count))
            } else {
                0.0
            };
            Brought {
                samples,
                worth,
                // Few of them say little, however long they took to come.
                learned: samples.min(length.as_secs_f64()),
            }
        };
        self.gathered.iter().zip(&own).map(of).collect()
    }

    /// How fast samples of a backend come, and what follows.
    pub(super) fn pace(&self, n: usize, now: Duration, settings: &Settings) -> Pace {
        let rate = self.rates[n].value().unwrap_or_default();
        let speaks = self.sense.speaks(n, now);
        let spread = self.sense.spread().max(self.sense.hosts[n].spread());
        let found_in = self.length.filter(|_| speaks && rate > 0.0);
        Pace {
            rate,
            found_in: found_in.map(|length| settings.time_to_act(spread, rate, length)),
        }
    }
}
