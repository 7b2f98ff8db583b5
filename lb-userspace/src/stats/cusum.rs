//! A sequential test of a share: does a backend get `p` of the flows, or another share?
//!
//! Each flow either goes to the backend (a hit) or elsewhere (a miss). The evidence for the other
//! share is the log-likelihood ratio of what was seen. A CUSUM adds it up, never below zero, so
//! that it forgets a good past at once, and raises an alarm at a threshold. As long as the flows do
//! follow `p`, a climb from zero reaches `h` with a probability of at most `e^-h`, which turns a
//! number of false alarms that one is ready to bear into a threshold, with nothing to tune.

use std::time::Duration;

/// Another share than the intended one, named by its odds ratio ρ: `q = ρp / (1 + (ρ − 1)p)`.
#[derive(Clone, Copy, Debug)]
pub struct Alternative {
    /// `ln ρ`: what a hit adds over a miss.
    hit: f64,
    /// `ln(1 + (ρ − 1)p)`: what every flow costs.
    flow: f64,
}

impl Alternative {
    /// The alternative to `share`, within zero and one, whose odds are `odds_ratio` times as high.
    pub fn new(share: f64, odds_ratio: f64) -> Self {
        // ln(q/p) = ln ρ − ln(1 + (ρ − 1)p) and ln((1−q)/(1−p)) = −ln(1 + (ρ − 1)p).
        Self {
            hit: odds_ratio.ln(),
            flow: ((odds_ratio - 1.0) * share).ln_1p(),
        }
    }

    /// How much better the alternative explains `hits` out of `flows`, in nats; negative where it
    /// explains them worse.
    #[inline]
    pub fn evidence(&self, hits: f64, flows: f64) -> f64 {
        hits * self.hit - flows * self.flow
    }

    /// The true share at which each flow brings `evidence` on average.
    pub fn share_bringing(&self, evidence: f64) -> f64 {
        (evidence + self.flow) / self.hit
    }
}

/// When an alarm is raised and when it is taken back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Evidence for the alternative that raises an alarm, in nats.
    pub alarm: f64,
    /// Evidence against it that takes the alarm back, in nats.
    pub clear: f64,
    /// The least time that an alarm lasts.
    pub hold: Duration,
}

/// What a share's test was told in one tick.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// Flows to the backend.
    pub hits: f64,
    /// Flows to all backends.
    pub flows: f64,
    /// How many of these flows are worth one independent flow.
    pub overdispersion: f64,
    /// The most evidence that this tick may add, in nats.
    pub most: f64,
    /// When the tick began.
    pub from: Duration,
    /// When it ended.
    pub to: Duration,
}

impl Observation {
    #[inline]
    fn evidence_for(&self, alternative: &Alternative) -> f64 {
        (alternative.evidence(self.hits, self.flows) / self.overdispersion).min(self.most)
    }
}

/// One test of one share: its running sum and its alarm.
///
/// While there is an alarm the sum runs the other way: it gathers evidence for the intended share,
/// until that is enough to take the alarm back. That evidence is held against a milder alternative,
/// of odds √ρ: a share halfway between, for which the alarm is a toss-up, would otherwise raise it
/// and take it back over and over.
#[derive(Clone, Copy, Debug)]
pub struct Cusum {
    alternative: Alternative,
    milder: Alternative,
    sum: Sum,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    level: f64,
    onset: Duration,
    hits: f64,
    flows: f64,
    raised: Option<Duration>,
}

impl Cusum {
    /// The share estimate of an alarm that lasts follows the present with this time constant.
    const MEMORY_SECONDS: f64 = 60.0;

    /// A test of whether a backend gets `share` of the flows, within zero and one, or has odds
    /// `odds_ratio` times as high.
    pub fn new(share: f64, odds_ratio: f64) -> Self {
        Self {
            alternative: Alternative::new(share, odds_ratio),
            milder: Alternative::new(share, odds_ratio.sqrt()),
            sum: Sum::default(),
        }
    }

    /// Adds what was seen in one tick.
    #[inline]
    pub fn observe(&mut self, seen: &Observation, thresholds: &Thresholds) {
        match self.sum.raised {
            None => self.watch(seen, thresholds),
            Some(raised) => self.watch_alarm(seen, thresholds, raised),
        }
    }

    #[inline]
    fn watch(&mut self, seen: &Observation, thresholds: &Thresholds) {
        let evidence = seen.evidence_for(&self.alternative);
        let sum = &mut self.sum;
        if sum.level <= 0.0 {
            if evidence <= 0.0 {
                return;
            }
            *sum = Sum {
                onset: seen.from,
                ..Sum::default()
            };
        }
        sum.hits += seen.hits;
        sum.flows += seen.flows;
        sum.level = (sum.level + evidence).max(0.0);
        if sum.level > thresholds.alarm {
            sum.raised = Some(seen.to);
            sum.level = 0.0;
        }
    }

    fn watch_alarm(&mut self, seen: &Observation, thresholds: &Thresholds, raised: Duration) {
        let evidence = seen.evidence_for(&self.milder);
        let sum = &mut self.sum;
        let elapsed = seen.to.saturating_sub(seen.from).as_secs_f64();
        let kept = (-elapsed / Self::MEMORY_SECONDS).exp();
        sum.hits = sum.hits * kept + seen.hits;
        sum.flows = sum.flows * kept + seen.flows;
        sum.level = (sum.level - evidence).clamp(0.0, thresholds.clear);
        if sum.level >= thresholds.clear && seen.to.saturating_sub(raised) >= thresholds.hold {
            *sum = Sum::default();
        }
    }

    /// When the alarm was raised, while there is one.
    pub fn raised(&self) -> Option<Duration> {
        self.sum.raised
    }

    /// When the evidence began to gather: the likeliest moment of the change.
    pub fn onset(&self) -> Duration {
        self.sum.onset
    }

    /// The backend's share of the flows since [`Cusum::onset`], the older ones fading out once the
    /// alarm is raised; `None` before the first flow.
    pub fn share(&self) -> Option<f64> {
        (self.sum.flows > 0.0).then(|| self.sum.hits / self.sum.flows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds {
        alarm: 20.0,
        clear: 6.9,
        hold: Duration::from_secs(30),
    };

    fn second(at: u64, hits: f64, flows: f64) -> Observation {
        Observation {
            hits,
            flows,
            overdispersion: 1.0,
            most: f64::INFINITY,
            from: Duration::from_secs(at),
            to: Duration::from_secs(at + 1),
        }
    }

    #[test]
    fn evidence_is_the_log_likelihood_ratio() {
        for (p, odds_ratio) in [(0.1, 2.0), (0.5, 1.08), (0.9, 0.5), (1e-4, 1.0 / 1.3)] {
            let q = odds_ratio * p / (1.0 + (odds_ratio - 1.0) * p);
            let alternative = Alternative::new(p, odds_ratio);
            let expected = 7.0 * f64::ln(q / p) + 93.0 * f64::ln((1.0 - q) / (1.0 - p));
            assert!((alternative.evidence(7.0, 100.0) - expected).abs() < 1e-9);
            // Per flow, q against p yields the Kullback–Leibler divergence at a true share of q.
            let divergence = q * f64::ln(q / p) + (1.0 - q) * f64::ln((1.0 - q) / (1.0 - p));
            assert!((alternative.share_bringing(divergence) - q).abs() < 1e-9);
        }
    }

    #[test]
    fn an_alarm_is_raised_held_and_taken_back() {
        let mut cusum = Cusum::new(0.1, 2.0);
        let mut see = |at: u64, hits: f64| {
            cusum.observe(&second(at, hits, 100.0), &THRESHOLDS);
            cusum
        };
        for at in 0..100 {
            assert!(see(at, 10.0).raised().is_none(), "an even share at {at} s");
        }
        // 4.33 nats a second.
        for at in 100..104 {
            assert!(see(at, 20.0).raised().is_none(), "too early at {at} s");
        }
        let alarm = see(104, 20.0);
        assert_eq!(alarm.raised(), Some(Duration::from_secs(105)));
        assert_eq!(alarm.onset(), Duration::from_secs(100));
        assert!((alarm.share().unwrap() - 0.2).abs() < 1e-9);
        // The evidence against it is there after 3 s; the hold keeps the alarm.
        for at in 105..134 {
            assert!(
                see(at, 10.0).raised().is_some(),
                "within the hold at {at} s"
            );
        }
        assert!(see(134, 10.0).raised().is_none());
        assert!(see(135, 10.0).share().is_none());
    }

    #[test]
    fn evidence_that_comes_back_keeps_the_alarm() {
        let mut cusum = Cusum::new(0.1, 2.0);
        for at in 0..300 {
            // Four bad seconds, then one good one, over and over.
            let hits = if at % 5 == 4 { 10.0 } else { 20.0 };
            cusum.observe(&second(at, hits, 100.0), &THRESHOLDS);
            assert_eq!(cusum.raised().is_some(), at >= 6, "at {at} s");
        }
    }

    #[test]
    fn overdispersion_divides_the_evidence_and_one_tick_adds_only_so_much() {
        let seconds_to_alarm = |overdispersion, most| {
            let mut cusum = Cusum::new(0.1, 2.0);
            (0..1000)
                .find(|&at| {
                    let seen = Observation {
                        overdispersion,
                        most,
                        ..second(at, 20.0, 100.0)
                    };
                    cusum.observe(&seen, &THRESHOLDS);
                    cusum.raised().is_some()
                })
                .unwrap()
        };
        assert_eq!(seconds_to_alarm(1.0, f64::INFINITY), 4);
        assert_eq!(seconds_to_alarm(4.0, f64::INFINITY), 18);
        assert_eq!(seconds_to_alarm(1.0, 2.1), 9);
    }
}
