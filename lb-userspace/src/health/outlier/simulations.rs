//! The monitor over synthetic backends and their clients, with fixed seeds.
//!
//! Log-latencies are normal with a standard deviation of 0.5, around a median of 20 ms that differs
//! from host to host by 20 % (standard deviation). Ten hosts, one of them bad.

mod traffic;

use bytemuck::Zeroable as _;
use lb_common::layout::bucket;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use rand_distr::{Distribution, Poisson, StandardNormal};

use super::*;
use crate::model::Ejection;

const SPREAD: f64 = 0.5;
const HABIT: f64 = 0.18;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// What a host does beside what all do.
#[derive(Clone, Copy)]
struct Nature {
    /// How many times as slow it is as the others.
    slow: f64,
    /// How many of its answers are failures, as a part of one.
    fails: f64,
    /// How many times as slow it is for clients.
    serves: f64,
    /// How many of its clients find no answer, as a part of one.
    loses: f64,
}

const GOOD: Nature = Nature {
    slow: 1.0,
    fails: 0.0,
    serves: 1.0,
    loses: 0.0,
};

/// What clients do, as far as it is measured.
#[derive(Clone, Copy)]
struct Clients {
    /// Connections a second to a backend with its whole weight.
    rate: f64,
    /// The standard deviation of their log-latencies.
    spread: f64,
    /// How many come together to one backend, and are alike by half of the variance.
    clump: u32,
}

const NOBODY: Clients = Clients {
    rate: 0.0,
    spread: SPREAD,
    clump: 1,
};

struct Run {
    monitor: Monitor,
    rng: SmallRng,
    habits: Vec<f64>,
    natures: Vec<Nature>,
    standing: Vec<Standing>,
    samples: u32,
    spread: f64,
    clients: Clients,
    second: u64,
}

const WELL: Standing = Standing {
    weight: 1,
    up: true,
    asked: Fraction::FULL,
};

impl Run {
    fn with(ejection: &Ejection, hosts: usize, samples: u32, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let habits = (0..hosts)
            .map(|_| HABIT * normal(&mut rng).clamp(-2.0, 2.0))
            .collect();
        let settings = Settings::new(ejection, Duration::from_secs(1));
        Self {
            monitor: Monitor::new(settings, hosts),
            rng,
            habits,
            natures: vec![GOOD; hosts],
            standing: vec![WELL; hosts],
            samples,
            spread: SPREAD,
            clients: NOBODY,
            second: 0,
        }
    }

    fn new(hosts: usize, samples: u32, seed: u64) -> Self {
        Self::with(&Ejection::default(), hosts, samples, seed)
    }

    fn second(&mut self) -> Vec<Happened> {
        self.second += 1;
        let now = Duration::from_secs(self.second);
        for n in 0..self.natures.len() {
            for _ in 0..self.samples {
                let nature = self.natures[n];
                if nature.fails > 0.0 && self.rng.random::<f64>() < nature.fails {
                    self.monitor.failed(n, now);
                } else {
                    let log = self.habits[n] + self.spread * normal(&mut self.rng);
                    let latency = Duration::from_secs_f64(0.02 * nature.slow * log.exp());
                    self.monitor.answered(n, now, latency);
                }
            }
        }
        if self.clients.rate > 0.0 {
            self.serve();
        }
        self.monitor.tick(now, &self.standing)
    }

    /// What clients find within a second.
    fn serve(&mut self) {
        let Clients {
            rate,
            spread,
            clump,
        } = self.clients;
        for n in 0..self.natures.len() {
            let part = self.monitor.rung(n).fraction().number();
            let Ok(clumps) = Poisson::new(rate * part / f64::from(clump)) else {
                continue;
            };
            let mut took = Latencies::zeroed();
            for _ in 0..clumps.sample(&mut self.rng) as u64 {
                let common = normal(&mut self.rng);
                for _ in 0..clump {
                    let nature = self.natures[n];
                    if nature.loses > 0.0 && self.rng.random::<f64>() < nature.loses {
                        took.unanswered += 1;
                        continue;
                    }
                    let own = normal(&mut self.rng);
                    let alike = if clump > 1 { 0.5_f64 } else { 0.0 };
                    let spread = spread * (alike.sqrt() * common + (1.0 - alike).sqrt() * own);
                    let log = self.habits[n] + spread;
                    note(&mut took.response, 0.06 * nature.serves * log.exp());
                    took.handshake.buckets[0] += 1;
                }
            }
            self.monitor.took(n, &took);
        }
    }

    /// Lets seconds pass; answers what happened, with its times.
    fn pass(&mut self, seconds: u64) -> Vec<(u64, Option<usize>, What)> {
        let mut all = Vec::new();
        for _ in 0..seconds {
            let happened = self.second();
            let at = self.second;
            all.extend(happened.into_iter().map(|(n, what)| (at, n, what)));
        }
        all
    }

    /// Until the backend 0 is demoted.
    fn demotion(&mut self) -> u64 {
        for second in 1..20_000 {
            if self
                .second()
                .iter()
                .any(|(n, what)| *n == Some(0) && matches!(what, What::Demoted { .. }))
            {
                return second;
            }
        }
        panic!("it is never demoted");
    }
}

/// Counts a duration as the data plane does.
fn note(histogram: &mut lb_common::layout::Histogram, seconds: f64) {
    let (bucket, logarithm) = bucket((seconds * 1e9) as u64);
    histogram.buckets[bucket] += 1;
    histogram.logarithms += u64::from(logarithm);
}

fn normal(rng: &mut SmallRng) -> f64 {
    StandardNormal.sample(rng)
}

fn demotions(happened: &[(u64, Option<usize>, What)]) -> Vec<(u64, Option<usize>, Rung)> {
    let demotion = |(at, n, what): &(u64, Option<usize>, What)| match what {
        What::Demoted { to, .. } => Some((*at, *n, *to)),
        _ => None,
    };
    happened.iter().filter_map(demotion).collect()
}

const fn slow(slow: f64) -> Nature {
    Nature { slow, ..GOOD }
}

const fn failing(fails: f64) -> Nature {
    Nature { fails, ..GOOD }
}

/// Seconds until one bad host of ten is demoted, sorted, of fifty.
fn delays(samples: u32, bad: Nature) -> Vec<u64> {
    let mut delays: Vec<u64> = (0..50)
        .map(|seed| {
            let mut run = Run::new(10, samples, seed);
            // Time to learn habits by.
            let before = demotions(&run.pass(if samples == 1 { 600 } else { 120 }));
            assert!(
                before.is_empty(),
                "a false alarm with seed {seed}: {before:?}"
            );
            run.natures[0] = bad;
            run.demotion()
        })
        .collect();
    delays.sort_unstable();
    delays
}

/// Asserts the median and the 95th percentile of the seconds to a demotion.
#[track_caller]
fn assert_delays(samples: u32, bad: Nature, median: u64, most: u64) {
    let delays = delays(samples, bad);
    let (half, tail) = (delays[25], delays[47]);
    assert!(
        half <= median && tail <= most,
        "{half}/{tail} s instead of {median}/{most} s"
    );
    assert!(delays[0] >= 6, "too rash: {} s", delays[0]);
}

#[test]
fn a_slow_host_is_demoted_in_time_by_probes_alone() {
    assert_delays(1, slow(3.0), 27, 35);
    assert_delays(1, slow(2.0), 75, 150);
    assert_delays(1, slow(10.0), 10, 12);
}

#[test]
fn a_slow_host_is_demoted_sooner_by_more_probes() {
    assert_delays(20, slow(3.0), 8, 12);
    assert_delays(20, slow(2.0), 12, 25);
}

#[test]
fn failures_too_rare_for_fall_are_found() {
    assert_delays(1, failing(0.2), 45, 90);
    assert_delays(50, failing(0.01), 30, 75);
}

#[test]
fn habits_and_chance_demote_nobody_in_days() {
    for (hosts, spread, days) in [(10, SPREAD, 2), (3, SPREAD, 3), (4, 0.1, 2), (10, 1.0, 1)] {
        let mut run = Run::new(hosts, 1, 1000 + hosts as u64);
        run.spread = spread;
        let happened = run.pass(days * DAY);
        assert!(
            happened.is_empty(),
            "{hosts} hosts, spread {spread}: {happened:?}"
        );
    }
}

/// A host that became slower over a month is compared with what it has been, within bounds.
#[test]
fn a_habit_hides_nobody_who_is_three_times_as_slow() {
    let mut run = Run::new(10, 1, 5);
    run.natures[0] = slow(1.5);
    assert!(demotions(&run.pass(2 * HOUR)).is_empty());
    run.natures[0] = slow(3.3);
    assert!(run.demotion() <= 90);
}

#[test]
fn where_all_are_slow_or_fail_nobody_is_demoted() {
    for hosts in [3, 10, 30] {
        for bad in [slow(3.0), failing(0.05)] {
            for seed in 0..5 {
                let mut run = Run::new(hosts, 1, 2000 + seed);
                assert!(run.pass(300).is_empty());
                run.natures.fill(bad);
                let happened = run.pass(1800);
                let told = happened
                    .iter()
                    .find(|(_, _, what)| matches!(what, What::FleetDegraded(_)));
                assert!(
                    told.is_some(),
                    "{hosts} hosts, {}x, seed {seed}: {happened:?}",
                    bad.slow
                );
                let demoted = demotions(&happened);
                assert!(
                    demoted.is_empty(),
                    "{hosts} hosts, {}x, seed {seed}: {happened:?}",
                    bad.slow
                );
                run.natures.fill(GOOD);
                let after = run.pass(3600);
                let over = after
                    .iter()
                    .any(|(_, _, what)| *what == What::FleetRecovered);
                assert!(
                    over && run.monitor.degraded().is_none(),
                    "{hosts} hosts, {}x: {after:?}",
                    bad.slow
                );
            }
        }
    }
}

#[test]
fn half_of_the_fleet_is_no_underperformer() {
    let mut run = Run::new(10, 1, 7);
    run.pass(300);
    run.natures[..5].fill(slow(3.0));
    let happened = run.pass(600);
    // Peers are the other half in part, so that the slow ones are seen late or not at all.
    assert!(demotions(&happened).len() <= 2, "{happened:?}");
}

#[test]
fn a_host_that_heals_gets_its_weight_back_in_steps() {
    let mut run = Run::new(10, 1, 3);
    run.pass(300);
    run.natures[0] = slow(3.0);
    let bad = run.pass(180);
    let rungs: Vec<Rung> = demotions(&bad).iter().map(|step| step.2).collect();
    assert_eq!(rungs, [Rung::Half, Rung::Quarter, Rung::Out], "{bad:?}");
    let times: Vec<u64> = demotions(&bad).iter().map(|step| step.0).collect();
    assert!(
        times.windows(2).all(|pair| pair[1] - pair[0] >= 20),
        "{times:?}"
    );
    run.natures[0] = GOOD;
    let healed = run.pass(300);
    let steps: Vec<&What> = healed.iter().map(|(_, _, what)| what).collect();
    assert!(
        matches!(
            steps[..],
            [
                What::Raised {
                    to: Rung::Eighth,
                    ..
                },
                What::Raised {
                    to: Rung::Quarter,
                    ..
                },
                What::Raised { to: Rung::Half, .. },
                What::Restored,
            ]
        ),
        "{healed:?}"
    );
    assert!(healed[0].0 + 300 - run.second <= 90, "{healed:?}");
    assert_eq!(run.monitor.rung(0), Rung::Full);
}

#[test]
fn a_host_that_relapses_is_held_longer_each_time() {
    let mut run = Run::new(10, 1, 4);
    run.pass(300);
    let mut holds = Vec::new();
    for _ in 0..4 {
        run.natures[0] = slow(20.0);
        let happened = run.pass(60);
        holds.extend(happened.iter().filter_map(|(_, _, what)| match what {
            What::Demoted {
                to: Rung::Out,
                hold,
                ..
            } => Some(hold.as_secs()),
            _ => None,
        }));
        run.natures[0] = GOOD;
        for _ in 0..1000 {
            run.second();
            if run.monitor.rung(0) == Rung::Full {
                break;
            }
        }
        assert_eq!(run.monitor.rung(0), Rung::Full);
    }
    assert_eq!(holds, [60, 120, 240, 480], "longer each time");
}

#[test]
fn few_hosts_and_services_that_only_alert_are_told_of_once() {
    let alert = Ejection {
        underperformers: Underperformers::Tell,
        ..Ejection::default()
    };
    for (ejection, hosts, why) in [
        (Ejection::default(), 2, Spared::TooFew),
        (alert, 10, Spared::AlertOnly),
    ] {
        let mut run = Run::with(&ejection, hosts, 1, 11);
        run.pass(300);
        run.natures[0] = slow(4.0);
        let happened = run.pass(300);
        let [(_, Some(0), What::Spared { why: found, .. })] = happened[..] else {
            panic!("{happened:?}");
        };
        assert_eq!(found, why);
        run.natures[0] = GOOD;
        let happened = run.pass(300);
        assert!(
            matches!(happened[..], [(_, Some(0), What::Improved)]),
            "{happened:?}"
        );
    }
}

/// Four of ten miss, and one is slow; the others have to be spared.
fn assert_missing(standing: Standing) {
    let mut run = Run::new(10, 1, 12);
    run.standing[5..9].fill(standing);
    run.pass(300);
    run.natures[0] = slow(4.0);
    let happened = run.pass(200);
    assert!(
        matches!(
            happened[..],
            [(
                _,
                Some(0),
                What::Spared {
                    why: Spared::Budget,
                    ..
                }
            )]
        ),
        "{happened:?}"
    );
    // Once they are back there is room.
    run.standing.fill(WELL);
    assert!(run.demotion() < 100);
}

#[test]
fn what_is_down_already_counts_against_the_budget() {
    assert_missing(Standing { up: false, ..WELL });
}

#[test]
fn so_does_what_backends_ask_to_be_spared() {
    assert_missing(Standing {
        asked: Fraction::NONE,
        ..WELL
    });
}

/// Near saturation, latency is that of a queue: to take one host out slows the others so much that
/// the cure is worse.
#[test]
fn a_demotion_that_harms_the_others_is_undone() {
    let mut run = Run::new(4, 1, 13);
    run.spread = 0.2;
    // Each of four hosts is at 90 % of what it can do; the first one does half of that.
    let load = |run: &mut Run| {
        let parts: Vec<f64> = (0..4)
            .map(|n| run.monitor.rung(n).fraction().number())
            .collect();
        let total: f64 = parts.iter().sum();
        for (n, part) in parts.into_iter().enumerate() {
            let busy = (0.8 * 4.0 * part / total).min(0.98);
            run.natures[n] = slow((1.0 - 0.8) / (1.0 - busy) * if n == 0 { 3.0 } else { 1.0 });
        }
    };
    run.pass(300);
    let mut happened = Vec::new();
    for _ in 0..400 {
        load(&mut run);
        happened.extend(run.pass(1));
    }
    let reverted = happened.iter().find_map(|(at, _, what)| match what {
        What::Reverted { to, frozen_for, .. } => Some((*at, *to, frozen_for.as_secs())),
        _ => None,
    });
    let (at, to, frozen) = reverted.unwrap_or_else(|| panic!("{happened:?}"));
    let first = demotions(&happened)[0].0;
    assert!((10..=61).contains(&(at - first)), "{happened:?}");
    assert_eq!((to, frozen), (Rung::Full, 300));
    let again = demotions(&happened)
        .iter()
        .any(|step| step.0 > at && step.0 < at + 300);
    assert!(!again, "{happened:?}");
}

#[test]
fn nobody_looks_where_that_is_off() {
    let off = Ejection {
        underperformers: Underperformers::Ignore,
        ..Ejection::default()
    };
    let mut run = Run::with(&off, 10, 1, 14);
    run.natures[0] = slow(20.0);
    assert!(run.pass(300).is_empty());
}

#[test]
fn what_is_known_of_a_backend_goes_on_in_another_company() {
    let settings = Settings::new(&Ejection::default(), Duration::from_secs(1));
    let mut monitor = Monitor::new(settings, 4);
    let standing = [WELL; 4];
    let end = (0..600).map(Duration::from_secs).find(|&now| {
        for backend in 0..4 {
            let slow = if backend == 2 { 20 } else { 1 };
            monitor.answered(backend, now, Duration::from_millis(10 * slow));
        }
        monitor.tick(now, &standing);
        monitor.rung(2) < Rung::Full
    });
    assert!(end.is_some(), "it was never demoted");
    let carried = monitor.carried(&[Some(0), None, Some(3), Some(2)]);
    let rungs: Vec<Rung> = (0..4).map(|n| carried.rung(n)).collect();
    let demoted = monitor.rung(2);
    assert_eq!(rungs, [Rung::Full, Rung::Full, Rung::Full, demoted]);
}
