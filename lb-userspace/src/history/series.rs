//! From points on disk to an answer: one step, one row of times, and a line for each backend.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::Serialize;

use super::{
    Reader, Span,
    chunk::{ABSENT, Point, Sample},
    store::Error,
};

/// The words of verdicts, the best first, as the admin API has them.
const VERDICTS: [&str; 3] = ["even", "cannot-tell", "skewed"];

/// What is asked for. Times are in seconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The service.
    pub service: String,
    /// From then on.
    pub from_s: u64,
    /// Until just before then.
    pub until_s: u64,
    /// The present.
    pub now_s: u64,
    /// From one point to the next; `None` for as fine as there are at most `most` points.
    pub step_s: Option<u64>,
    /// Most points where the step is not given.
    pub most: u64,
}

/// History of a service. What is not known is `null`, and points that nothing is known of are left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Series {
    /// The service.
    pub service: String,
    /// From one point to the next, in seconds.
    pub step_s: u64,
    /// The beginning of each point, in milliseconds since the Unix epoch.
    pub at_ms: Vec<u64>,
    /// The worst verdict within each: `even`, `cannot-tell` or `skewed`.
    pub verdicts: Vec<&'static str>,
    /// Its backends, by name; each has as many values as there are points.
    pub backends: Vec<Line>,
}

/// History of a backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// New connections within each point.
    pub new_flows: Vec<Option<u32>>,
    /// Its part of the service's.
    pub observed_share: Vec<Option<f64>>,
    /// Its part of the slots at the end of each point.
    pub intended_share: Vec<Option<f64>>,
    /// What is in force of its weight at the end of each point.
    pub weight: Vec<Option<f64>>,
    /// The slowest of its probes that passed, in milliseconds.
    pub latency_ms: Vec<Option<f64>>,
    /// Whether it was up all the time.
    pub up: Vec<Option<bool>>,
    /// How long handshakes of its flows took, in milliseconds: the worst median of half a minute.
    pub handshake_ms: Vec<Option<f64>>,
    /// How long responses took, likewise.
    pub response_ms: Vec<Option<f64>>,
    /// What 99 of 100 responses did not exceed, likewise.
    pub response_p99_ms: Vec<Option<f64>>,
}

impl Series {
    /// Answers a question from the history of a state directory.
    ///
    /// # Errors
    /// Where that cannot be read.
    pub fn read(directory: &Path, question: &Question) -> Result<Self, Error> {
        let reader = Reader::open(directory)?;
        let length = question.until_s.saturating_sub(question.from_s);
        let wanted = question.step_s;
        let wanted = wanted.unwrap_or_else(|| length.div_ceil(question.most.max(1)));
        let back = question.now_s.saturating_sub(question.from_s);
        let span = Span::reaching(back, wanted.max(1));
        let step_s = wanted.max(1).next_multiple_of(span.step_s);
        let range = (question.from_s - question.from_s % step_s, question.until_s);
        let points = reader.points(span, &question.service, range)?;
        Ok(Self::of(&question.service, step_s, points))
    }

    /// Joins points, in order, at a step.
    #[must_use]
    pub fn of(service: &str, step_s: u64, points: Vec<(u64, Sample)>) -> Self {
        let mut joined: BTreeMap<u64, Sample> = BTreeMap::new();
        for (at_s, sample) in points {
            match joined.entry(at_s - at_s % step_s) {
                std::collections::btree_map::Entry::Vacant(free) => {
                    free.insert(sample);
                }
                std::collections::btree_map::Entry::Occupied(mut taken) => {
                    let before = taken.get_mut();
                    before.verdict = before.verdict.max(sample.verdict);
                    for (name, point) in sample.backends {
                        let known = before.backends.entry(name).or_insert(Point::NOTHING);
                        *known = known.and(point);
                    }
                }
            }
        }
        // One that is gone has a name, and nothing else.
        let named = |sample: &Sample| -> Vec<String> {
            let known = sample
                .backends
                .iter()
                .filter(|(_, of)| **of != Point::NOTHING);
            known.map(|(name, _)| name.clone()).collect()
        };
        let names: BTreeSet<String> = joined.values().flat_map(named).collect();
        let mut backends: Vec<Line> = names.into_iter().map(Line::named).collect();
        for sample in joined.values() {
            let flows = sample
                .backends
                .values()
                .filter_map(|of| known(of.new_flows));
            let all: u64 = flows.map(u64::from).sum();
            for line in &mut backends {
                let point = sample.backends.get(&line.name);
                line.push(point.copied().unwrap_or(Point::NOTHING), all);
            }
        }
        let verdict = |sample: &Sample| VERDICTS[usize::from(sample.verdict.min(2))];
        Self {
            service: service.to_owned(),
            step_s,
            at_ms: joined.keys().map(|at_s| at_s * 1000).collect(),
            verdicts: joined.values().map(verdict).collect(),
            backends,
        }
    }
}

impl Line {
    fn named(name: String) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    fn push(&mut self, point: Point, all_flows: u64) {
        let part = |value: u32, of: f64| known(value).map(|value| f64::from(value) / of);
        let flows = known(point.new_flows);
        self.new_flows.push(flows);
        let share = flows.filter(|_| all_flows > 0);
        self.observed_share
            .push(share.map(|flows| f64::from(flows) / all_flows as f64));
        self.intended_share.push(part(point.share, 1e6));
        self.weight.push(part(point.weight, 1e3));
        self.latency_ms.push(part(point.latency, 1e3));
        self.up.push(known(point.up).map(|up| up > 0));
        self.handshake_ms.push(part(point.handshake, 1e3));
        self.response_ms.push(part(point.response, 1e3));
        self.response_p99_ms.push(part(point.response_p99, 1e3));
    }
}

fn known(value: u32) -> Option<u32> {
    (value != ABSENT).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(verdict: u8, points: &[(&str, u32, u32)]) -> Sample {
        let point = |new_flows, latency| Point {
            new_flows,
            share: 500_000,
            weight: 2000,
            latency,
            up: 1,
            response: latency,
            ..Point::NOTHING
        };
        let of = |(name, flows, latency): &(&str, u32, u32)| {
            ((*name).to_owned(), point(*flows, *latency))
        };
        Sample {
            verdict,
            backends: points.iter().map(of).collect(),
        }
    }

    #[test]
    fn points_are_joined_at_the_step_and_gaps_stay() {
        let points = vec![
            (100, sample(0, &[("a", 3, 1500), ("b", 1, 100)])),
            (101, sample(2, &[("a", 3, 500), ("b", ABSENT, ABSENT)])),
            (104, sample(0, &[("b", 4, 100)])),
        ];
        let series = Series::of("web", 2, points);
        assert_eq!(series.at_ms, [100_000, 104_000]);
        assert_eq!(series.verdicts, ["skewed", "even"]);
        let [a, b] = &*series.backends else {
            panic!("{series:?}")
        };
        assert_eq!((&*a.name, &*b.name), ("a", "b"));
        assert_eq!(a.new_flows, [Some(6), None]);
        assert_eq!(b.new_flows, [Some(1), Some(4)]);
        assert_eq!(a.latency_ms, [Some(1.5), None]);
        assert_eq!(a.response_ms, [Some(1.5), None]);
        assert_eq!(a.handshake_ms, [None, None]);
        assert_eq!(a.weight, [Some(2.0), None]);
        assert_eq!(a.up, [Some(true), None]);
        assert_eq!(b.observed_share, [Some(1.0 / 7.0), Some(1.0)]);
        assert_eq!(b.intended_share, [Some(0.5), Some(0.5)]);
    }
}
