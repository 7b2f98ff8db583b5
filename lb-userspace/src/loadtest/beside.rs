//! What the controller that balances the target saw of a load test.

use std::time::Duration;

use serde::Serialize;

use super::target::Target;
use crate::admin::proto::{self, Status};

/// The target's service at a moment of the test.
#[derive(Clone, Debug)]
pub struct Look {
    /// When, from the beginning of the test; before it in the first.
    pub at: Duration,
    /// The service.
    pub service: proto::Service,
}

/// The service that a target is, where it is one.
pub fn service_of<'a>(status: &'a Status, target: &Target) -> Option<&'a proto::Service> {
    let (vip, port) = (target.address.ip(), target.address.port());
    let is_it = |service: &&proto::Service| {
        service.vip == vip
            && service.protocol == target.scheme.protocol()
            && service.port.is_none_or(|of| of == port)
    };
    // One with this port is looked up before one with all.
    let mut found: Vec<_> = status.services.iter().filter(is_it).collect();
    found.sort_by_key(|service| service.port.is_none());
    found.first().copied()
}

/// What the backends took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The service.
    pub service: String,
    /// `connections`, or `packets` where the service is no TCP.
    pub unit: &'static str,
    /// Each backend.
    pub backends: Vec<Taken>,
    /// What the controller says at the end: even, skewed, or that it cannot tell.
    pub verdict: proto::Verdict,
    /// The same in words.
    pub message: String,
    /// Whether the others would have held the load without the backend that takes most.
    pub without_one: Vec<WithoutOne>,
}

/// What a backend took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Taken {
    /// The backend.
    pub name: String,
    /// The part of the ring that it had at the end.
    pub intended_share: f64,
    /// How much it took.
    pub took: u64,
    /// Its part of what all took.
    pub share: Option<f64>,
    /// How much it took a second, in each stage.
    pub rates: Vec<Option<f64>>,
    /// How much it took in each second: a moment in seconds, and the rate.
    pub over_time: Vec<(f64, f64)>,
}

/// A stage of the test, and the same load on all backends but the one that takes most.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WithoutOne {
    /// The stage, from one.
    pub stage: usize,
    /// The backend that is thought away.
    pub backend: String,
    /// The one of the others that would have to take the most beyond what it is known to hold.
    pub busiest: String,
    /// How much that would take a second.
    pub would_take: f64,
    /// The most a second that it took in a stage that held.
    pub known_to_hold: Option<f64>,
    /// `yes`, `no`, or `unknown`: no stage drove it so far.
    pub holds: Holds,
}

/// Whether something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Holds {
    /// Every backend was seen to hold as much.
    Yes,
    /// A backend was seen not to.
    No,
    /// No stage drove the backends so far.
    Unknown,
}

/// A stage, as what the backends took is held against it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StageSpan {
    /// When it began, from the beginning of the test.
    pub from: Duration,
    /// When it ended.
    pub to: Duration,
    /// Whether it held.
    pub holds: bool,
}

/// What the looks say; `None` where there are not two, or the service was changed between them.
pub fn spread(looks: &[Look], stages: &[StageSpan]) -> Option<Spread> {
    let (first, last) = (looks.first()?, looks.last()?);
    let (service, others) = (&last.service, looks);
    let names = |look: &Look| -> Vec<String> {
        let backends = look.service.backends.iter();
        backends.map(|backend| backend.name.clone()).collect()
    };
    if looks.len() < 2 || others.iter().any(|look| names(look) != names(last)) {
        return None;
    }
    let is_tcp = service.protocol == "tcp";
    let count = |look: &Look, n: usize| {
        let backend = &look.service.backends[n];
        if is_tcp {
            backend.new_flows
        } else {
            backend.packets
        }
    };
    // Counters begin anew where the program was replaced by one that counts otherwise.
    let between = |a: &Look, b: &Look, n: usize| count(b, n).saturating_sub(count(a, n));
    let all: u64 = (0..service.backends.len())
        .map(|n| between(first, last, n))
        .sum();
    let backends: Vec<_> = service
        .backends
        .iter()
        .enumerate()
        .map(|(n, backend)| {
            let took = between(first, last, n);
            Taken {
                name: backend.name.clone(),
                intended_share: backend.intended_share,
                took,
                share: (all > 0).then(|| took as f64 / all as f64),
                rates: stages
                    .iter()
                    .map(|stage| rate_within(looks, *stage, |a, b| between(a, b, n)))
                    .collect(),
                over_time: looks
                    .windows(2)
                    .filter_map(|pair| {
                        let seconds = (pair[1].at.checked_sub(pair[0].at)?).as_secs_f64();
                        let middle = (pair[0].at + pair[1].at).as_secs_f64() / 2.0;
                        let taken = between(&pair[0], &pair[1], n) as f64;
                        (seconds > 0.0).then(|| (middle, taken / seconds))
                    })
                    .collect(),
            }
        })
        .collect();
    Some(Spread {
        service: service.name.clone(),
        unit: if is_tcp { "connections" } else { "packets" },
        verdict: service.evenness.verdict,
        message: service.evenness.message.clone(),
        without_one: without_one(&backends, stages),
        backends,
    })
}

/// How much was taken a second between the looks that lie in a stage.
fn rate_within(
    looks: &[Look],
    stage: StageSpan,
    between: impl Fn(&Look, &Look) -> u64,
) -> Option<f64> {
    let mut within = looks
        .iter()
        .filter(|look| look.at >= stage.from && look.at <= stage.to);
    let first = within.next()?;
    let last = within.next_back()?;
    let seconds = last.at.saturating_sub(first.at).as_secs_f64();
    (seconds > 0.0).then(|| between(first, last) as f64 / seconds)
}

fn without_one(backends: &[Taken], stages: &[StageSpan]) -> Vec<WithoutOne> {
    // By backend: the most it is known to hold, and the least it is known not to.
    let known: Vec<(Option<f64>, Option<f64>)> = backends
        .iter()
        .map(|backend| {
            let of = |holds| {
                let rates = stages.iter().zip(&backend.rates);
                let rates = rates.filter(move |(stage, _)| stage.holds == holds);
                rates.filter_map(|(_, rate)| *rate)
            };
            (of(true).reduce(f64::max), of(false).reduce(f64::min))
        })
        .collect();
    let mut answers = Vec::new();
    for stage in 0..stages.len() {
        let rates: Option<Vec<f64>> = backends.iter().map(|b| b.rates[stage]).collect();
        let Some(rates) = rates else { continue };
        let all: f64 = rates.iter().sum();
        let Some(away) = (0..rates.len()).max_by(|&a, &b| rates[a].total_cmp(&rates[b])) else {
            continue;
        };
        let rest = all - rates[away];
        if rest <= 0.0 {
            continue;
        }
        // What it took goes to the others as they share the rest.
        let would_take = |n: usize| rates[n] * all / rest;
        let beyond = |n: usize| would_take(n) / known[n].0.unwrap_or(f64::MIN_POSITIVE);
        let others: Vec<_> = (0..rates.len()).filter(|&n| n != away).collect();
        let Some(&busiest) = others
            .iter()
            .max_by(|&&a, &&b| beyond(a).total_cmp(&beyond(b)))
        else {
            continue;
        };
        let too_much = |n: usize| known[n].1.is_some_and(|broken| would_take(n) >= broken);
        let holds = if others.iter().any(|&n| too_much(n)) {
            Holds::No
        } else if beyond(busiest) <= 1.0 {
            Holds::Yes
        } else {
            Holds::Unknown
        };
        answers.push(WithoutOne {
            stage: stage + 1,
            backend: backends[away].name.clone(),
            busiest: backends[busiest].name.clone(),
            would_take: would_take(busiest),
            known_to_hold: known[busiest].0,
            holds,
        });
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: u64, to: u64, holds: bool) -> StageSpan {
        StageSpan {
            from: Duration::from_secs(from),
            to: Duration::from_secs(to),
            holds,
        }
    }

    fn taken(name: &str, rates: &[f64]) -> Taken {
        Taken {
            name: name.into(),
            intended_share: 0.0,
            took: 0,
            share: None,
            rates: rates.iter().copied().map(Some).collect(),
            over_time: Vec::new(),
        }
    }

    #[test]
    fn whether_all_but_one_would_hold_is_what_was_seen_of_each() {
        let backends = [
            taken("a", &[40.0, 80.0, 160.0, 200.0]),
            taken("b", &[30.0, 60.0, 120.0, 150.0]),
            taken("c", &[30.0, 60.0, 120.0, 150.0]),
        ];
        let stages = [
            span(0, 10, true),
            span(10, 20, true),
            span(20, 30, true),
            span(30, 40, false),
        ];
        let answers = without_one(&backends, &stages);
        let found: Vec<_> = answers
            .iter()
            .map(|of| (of.stage, of.backend.as_str(), of.would_take, of.holds))
            .collect();
        // Without a, b and c take 1/0.6 of what they took; both are known to hold 120 and not 150.
        assert_eq!(
            found,
            [
                (1, "a", 50.0, Holds::Yes),
                (2, "a", 100.0, Holds::Yes),
                (3, "a", 200.0, Holds::No),
                (4, "a", 250.0, Holds::No),
            ]
        );
        let answers = without_one(&backends, &[stages[0], stages[1], stages[2]]);
        assert!(answers.len() == 3 && answers[2].holds == Holds::Unknown);
        assert_eq!(answers[2].known_to_hold, Some(120.0));
        let alone = [taken("a", &[40.0])];
        assert_eq!(without_one(&alone, &stages[..1]), []);
    }
}
