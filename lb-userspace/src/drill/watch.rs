//! When a drill is ended before its time: where clients would suffer more than it was allowed.

use crate::{
    admin::proto::{Backend, Service, drill::Limits},
    drill::sight::Scene,
};

/// How many looks in a row have to be bad: one may be chance.
const STRIKES: u32 = 3;
/// New connections without which nothing can be said of a part of them.
const FEW: u64 = 20;

/// What is looked at while a drill is on.
#[derive(Clone, Debug)]
pub struct Watch {
    limits: Limits,
    /// How slow the others were when it began, in milliseconds.
    latency_ms: Option<f64>,
    /// New connections, and packets turned away, until it began.
    flows: u64,
    turned_away: u64,
    slow: u32,
}

impl Watch {
    /// Begins, with a service as it is before the fault.
    #[must_use]
    pub fn new(limits: Limits, service: &Service, target: Option<&str>) -> Self {
        Self {
            limits,
            latency_ms: latency_ms(service, target),
            flows: flows(service),
            turned_away: turned_away(service),
            slow: 0,
        }
    }

    /// Takes the next look; answers why the drill has to end, where it has.
    pub fn look(&mut self, scene: &Scene, service: &Service) -> Option<String> {
        let target = scene.backend.as_deref();
        let flows = flows(service).saturating_sub(self.flows);
        let away = turned_away(service).saturating_sub(self.turned_away);
        // Packets, of which a connection has several: it errs on the side of an end.
        if flows >= FEW && away as f64 > self.limits.turned_away * flows as f64 {
            return Some(format!(
                "{away} packets were turned away, beside {flows} new connections"
            ));
        }
        let now_ms = latency_ms(service, target);
        let (Some(before), Some(now)) = (self.latency_ms, now_ms) else {
            // Nothing was measured before: from here on it is.
            self.latency_ms = self.latency_ms.or(now_ms);
            return None;
        };
        let is_slow = now > self.limits.slower * before;
        self.slow = if is_slow { self.slow + 1 } else { 0 };
        (self.slow >= STRIKES)
            .then(|| format!("the other backends take {now:.1} ms, and took {before:.1} ms before"))
    }
}

fn flows(service: &Service) -> u64 {
    service
        .backends
        .iter()
        .map(|backend| backend.new_flows)
        .sum()
}

fn turned_away(service: &Service) -> u64 {
    service.exits.values().sum()
}

/// How long the backends but one take, by the median of them: responses, or handshakes, or probes,
/// whichever is known of all, the former before the latter.
fn latency_ms(service: &Service, target: Option<&str>) -> Option<f64> {
    /// Differences among latencies below this hurt nobody.
    const FLOOR_MS: f64 = 5.0;
    let others = || {
        let others = service.backends.iter();
        others.filter(move |backend| Some(&*backend.name) != target)
    };
    let of =
        |which: fn(&Backend) -> Option<f64>| -> Option<Vec<f64>> { others().map(which).collect() };
    let response = of(|backend| Some(backend.response.as_ref()?.median_ms));
    let handshake = || of(|backend| Some(backend.handshake.as_ref()?.median_ms));
    let probe = || of(|backend| Some(backend.last_probe.as_ref()?.took_ms));
    let mut all = response.or_else(handshake).or_else(probe)?;
    all.sort_by(f64::total_cmp);
    let median = all.get(all.len() / 2)?;
    Some(median.max(FLOOR_MS))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{audit::testing, model::Drill};

    fn service(change: impl FnOnce(&mut Value)) -> Service {
        testing::status(|status| change(&mut status["services"][0]))
            .services
            .remove(0)
    }

    fn taking(ms: [f64; 3]) -> Service {
        service(|service| {
            for (n, ms) in ms.into_iter().enumerate() {
                service["backends"][n]["response"] = json!({
                    "samples": 9.0, "mean_ms": ms, "median_ms": ms, "p90_ms": ms, "p99_ms": ms,
                });
            }
        })
    }

    fn scene() -> Scene {
        Scene {
            drill: Drill::Slow,
            service: "web".to_owned(),
            backend: Some("10.0.0.11".to_owned()),
            since_ms: 0,
        }
    }

    #[test]
    fn a_fleet_that_gets_slow_ends_it_and_the_target_does_not() {
        let before = taking([10.0, 10.0, 10.0]);
        let mut watch = Watch::new(Limits::default(), &before, Some("10.0.0.11"));
        for _ in 0..10 {
            let slow = taking([900.0, 11.0, 12.0]);
            assert_eq!(watch.look(&scene(), &slow), None);
        }
        let slow = taking([10.0, 30.0, 31.0]);
        assert_eq!(watch.look(&scene(), &slow), None);
        assert_eq!(watch.look(&scene(), &before), None);
        let whys: Vec<_> = (0..3).filter_map(|_| watch.look(&scene(), &slow)).collect();
        assert_eq!(
            whys,
            ["the other backends take 31.0 ms, and took 10.0 ms before"]
        );
    }

    #[test]
    fn packets_that_are_turned_away_end_it() {
        let with = |flows: u64, away: u64| {
            service(|service| {
                service["backends"][0]["new_flows"] = json!(flows);
                service["exits"] = json!({ "no-backend": away });
            })
        };
        let mut watch = Watch::new(Limits::default(), &with(1000, 50), None);
        assert_eq!(
            watch.look(&scene(), &with(1010, 55)),
            None,
            "too few to say"
        );
        assert_eq!(watch.look(&scene(), &with(2000, 60)), None);
        assert!(watch.look(&scene(), &with(2000, 61)).is_some());
    }
}
