//! The detector under synthetic traffic, with fixed seeds.
//!
//! Delays in seconds, median/95 % of 100 trials (in brackets those of the plain method):
//!
//! | backends | flows/s | share of one backend | arrivals | delay |
//! |---|---|---|---|---|
//! | 10 | 100 | 2× | independent | 6/9 (7/9) |
//! | 10 | 10,000 | 2× | independent | 1/1 (1/1) |
//! | 10 | 10,000 | 1.2× | independent | 2/3 (2/3) |
//! | 10 | 10,000 | 1.05× | independent | 21/46 (22/40) |
//! | 10 | 100 | ½ | independent | 16/22 |
//! | 10 | 100 | 0 | independent | 6/6 |
//! | 3 | 100 | 0 | independent | 2/2 |
//! | 100 | 1,000 | 0 | independent | 6/7 |
//! | 3 | 100 | 2× | independent | 2/3 |
//! | 3 | 100 | 1.3× | independent | 14/20 |
//! | 100 | 1,000 | 2× | independent | 8/12 |
//! | 10 | 100 | 2× | geometric clumps, mean 8 | 80/130 |
//! | 10 | 100 | 2× | Pareto clumps, mean 8 | 68/106 |
//! | 10 | 100 | 0 | geometric clumps, mean 8 | 71/80 |

use super::*;
use crate::stats::evenness::Severity;

mod traffic;
use traffic::{Clumps, Traffic};

const SECOND: Duration = Duration::from_secs(1);

/// A detector and the traffic that it watches.
struct Run {
    detector: Detector,
    traffic: Traffic,
    now: Duration,
}

impl Run {
    fn even(backends: usize, rate: f64, clumps: Clumps, seed: u64) -> Self {
        let detector = Detector::new(&vec![1.0; backends], Settings { services: 1 });
        Self {
            detector,
            traffic: Traffic::even(backends, rate, clumps, seed),
            now: SECOND,
        }
    }

    fn second(&mut self) -> &Assessment {
        self.now += SECOND;
        self.detector.tick(self.now, self.traffic.second())
    }

    /// How often the verdict turned to skewed.
    fn alarms(&mut self, seconds: u64) -> usize {
        let mut alarms = 0;
        let mut skewed = false;
        for _ in 0..seconds {
            let now = self.second().verdict == Verdict::Skewed;
            alarms += usize::from(now && !skewed);
            skewed = now;
        }
        alarms
    }
}

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// Until the backend that turns skewed is found: seconds, sorted.
fn delays(backends: usize, rate: f64, clumps: Clumps, ratio: f64) -> Vec<u64> {
    let mut delays: Vec<u64> = (0..100)
        .map(|seed| {
            let mut run = Run::even(backends, rate, clumps, seed);
            assert_eq!(run.alarms(200), 0, "a false alarm");
            run.traffic.skew(0, ratio);
            (1..10_000)
                .find(|_| run.second().skewed.iter().any(|skew| skew.backend == 0))
                .expect("the skew is found")
        })
        .collect();
    delays.sort_unstable();
    delays
}

#[track_caller]
fn assert_delays(delays: &[u64], median: u64, most: u64) {
    let found = (delays[delays.len() / 2], delays[delays.len() * 95 / 100]);
    assert!(
        found.0 <= median && found.1 <= most,
        "median and 95 % after {found:?} s"
    );
}

#[test]
fn even_traffic_raises_no_alarm() {
    for (backends, rate, seconds) in [
        (2, 20.0, 4 * DAY),
        (3, 1.0, 4 * DAY),
        (3, 100.0, 4 * DAY),
        (3, 10_000.0, 4 * DAY),
        (10, 10.0, DAY),
        (10, 1000.0, DAY),
        (100, 100.0, 4 * HOUR),
        (100, 5000.0, 4 * HOUR),
    ] {
        let mut run = Run::even(backends, rate, Clumps::None, 11);
        assert_eq!(run.alarms(seconds), 0, "{backends} backends at {rate}/s");
    }
}

#[test]
fn even_clumped_traffic_raises_no_alarm() {
    for clumps in [
        Clumps::Geometric(8.0),
        Clumps::Pareto(5.0),
        Clumps::Pareto(10.0),
    ] {
        for (backends, rate) in [(2, 5.0), (3, 100.0), (10, 30.0), (10, 300.0)] {
            let mut run = Run::even(backends, rate, clumps, 12);
            assert_eq!(
                run.alarms(DAY),
                0,
                "{clumps:?}, {backends} backends at {rate}/s"
            );
        }
    }
}

/// 1,440 simulated days, four clumpings, two to ten backends, 1 to 300 flows/s: no alarm. It takes
/// 80 s in the development profile.
#[test]
#[ignore = "takes 80 s; `even_clumped_traffic_raises_no_alarm` is the short one"]
fn four_years_of_even_traffic_raise_no_alarm() {
    let mut days = 0;
    for clumps in [
        Clumps::None,
        Clumps::Geometric(8.0),
        Clumps::Pareto(5.0),
        Clumps::Pareto(10.0),
    ] {
        for backends in [2, 3, 10] {
            for rate in [1.0, 10.0, 100.0, 300.0] {
                let mut run = Run::even(backends, rate, clumps, 13);
                assert_eq!(
                    run.alarms(30 * DAY),
                    0,
                    "{clumps:?}, {backends} at {rate}/s"
                );
                days += 30;
            }
        }
    }
    assert_eq!(days, 1440, "four years");
}

#[test]
fn a_restart_every_half_hour_raises_no_alarm() {
    // Few flows in large clumps are where a short warm-up would know too little of them.
    for backends in [2, 3, 10] {
        let alarms: usize = (0..200)
            .map(|seed| Run::even(backends, 1.0, Clumps::Geometric(8.0), seed).alarms(1800))
            .sum();
        assert_eq!(alarms, 0, "{backends} backends");
    }
}

#[test]
fn without_overdispersion_clumps_raise_alarms_all_day() {
    let mut traffic = Traffic::even(10, 100.0, Clumps::Geometric(8.0), 14);
    let thresholds = Detector::new(&[1.0; 10], Settings { services: 1 }).thresholds;
    let mut tests = [Cusum::new(0.1, 2.0); 10];
    let mut alarms = 0;
    for second in 0..HOUR {
        let counts = traffic.second();
        let flows = counts.iter().sum::<u64>() as f64;
        for (test, &count) in tests.iter_mut().zip(counts) {
            let seen = Observation {
                hits: count as f64,
                flows,
                overdispersion: 1.0,
                most: f64::INFINITY,
                from: Duration::from_secs(second),
                to: Duration::from_secs(second + 1),
            };
            let before = test.raised();
            test.observe(&seen, &thresholds);
            alarms += usize::from(before.is_none() && test.raised().is_some());
        }
    }
    assert!(alarms > 100, "{alarms} false alarms in an hour");
}

#[test]
fn a_doubled_share_is_found_in_seconds() {
    assert_delays(&delays(10, 100.0, Clumps::None, 2.0), 7, 10);
    assert_delays(&delays(10, 10_000.0, Clumps::None, 2.0), 1, 1);
}

#[test]
fn small_skews_are_found_where_many_flows_arrive() {
    assert_delays(&delays(10, 10_000.0, Clumps::None, 1.2), 3, 4);
    assert_delays(&delays(10, 10_000.0, Clumps::None, 1.05), 26, 60);
}

#[test]
fn a_halved_share_is_found() {
    assert_delays(&delays(10, 100.0, Clumps::None, 0.5), 18, 28);
}

#[test]
fn a_dead_backend_is_found_as_fast_as_its_flows_are_missed() {
    assert_delays(&delays(3, 100.0, Clumps::None, 0.0), 2, 3);
    assert_delays(&delays(10, 100.0, Clumps::None, 0.0), 6, 8);
    assert_delays(&delays(10, 10_000.0, Clumps::None, 0.0), 1, 1);
    assert_delays(&delays(100, 1000.0, Clumps::None, 0.0), 7, 9);
}

#[test]
fn clumped_clients_delay_the_verdict_but_do_not_prevent_it() {
    assert_delays(&delays(10, 100.0, Clumps::Geometric(8.0), 2.0), 95, 180);
    assert_delays(&delays(10, 100.0, Clumps::Geometric(8.0), 0.0), 80, 100);
}

#[test]
fn the_worst_is_the_culprit_with_its_ratio() {
    for (backends, ratio) in [
        (3, 2.0),
        (3, 0.0),
        (10, 2.0),
        (10, 0.0),
        (10, 0.5),
        (10, 5.0),
    ] {
        let mut run = Run::even(backends, 500.0, Clumps::None, 15);
        run.alarms(100);
        run.traffic.skew(1, ratio);
        run.alarms(120);
        let worst = run.detector.assessment().worst().unwrap();
        assert_eq!(
            (worst.backend, worst.severity),
            (1, Severity::Page),
            "{backends} {ratio}"
        );
        assert!(
            (worst.ratio() - ratio).abs() <= 0.05 * ratio,
            "{ratio}: {worst:?}"
        );
        let began = Duration::from_secs(101);
        assert!(
            worst.since.abs_diff(began) < 3 * SECOND,
            "{ratio}: {worst:?}"
        );
    }
}

#[test]
fn severity_follows_the_ratio() {
    for (ratio, severity) in [
        (1.09, Severity::Ticket),
        (1.3, Severity::Warning),
        (2.0, Severity::Page),
        (0.92, Severity::Ticket),
        (0.82, Severity::Warning),
        (0.5, Severity::Page),
    ] {
        let mut run = Run::even(10, 5000.0, Clumps::None, 16);
        run.alarms(100);
        run.traffic.skew(3, ratio);
        run.alarms(300);
        let worst = run.detector.assessment().worst().unwrap();
        assert_eq!((worst.backend, worst.severity), (3, severity), "{ratio}");
    }
}

#[test]
fn a_skew_alarms_once_and_clears_once() {
    for ratio in [2.0, 0.0, 1.3] {
        let mut run = Run::even(10, 500.0, Clumps::None, 17);
        run.alarms(100);
        let even = run.traffic.shares.clone();
        run.traffic.skew(0, ratio);
        assert_eq!(run.alarms(HOUR), 1, "{ratio}: flapping");
        assert_eq!(run.detector.assessment().verdict, Verdict::Skewed);
        run.traffic.shares = even;
        // The small side effects on the other nine are the last to clear.
        let clears = (1..HOUR).find(|_| run.second().verdict == Verdict::Even);
        assert!(
            clears.is_some_and(|after| after < 600),
            "{ratio}: clear after {clears:?} s"
        );
        assert_eq!(run.alarms(HOUR), 0, "{ratio}: the alarm comes back");
    }
}

#[test]
fn the_page_clears_soon_after_the_skew() {
    let mut run = Run::even(10, 500.0, Clumps::None, 18);
    run.alarms(100);
    let even = run.traffic.shares.clone();
    run.traffic.skew(0, 2.0);
    run.alarms(300);
    run.traffic.shares = even;
    let pages = |found: &Assessment| found.skewed.iter().any(|at| at.severity == Severity::Page);
    let after = (1..HOUR).find(|_| !pages(run.second())).unwrap();
    assert!(after < 15, "after {after} s");
}

#[test]
fn a_skew_between_two_tests_does_not_flap() {
    // A share 4 % too high is a toss-up for the test of 8 %.
    for ratio in [1.04, 1.14, 1.41] {
        let mut run = Run::even(10, 5000.0, Clumps::None, 19);
        run.alarms(100);
        run.traffic.skew(0, ratio);
        assert_eq!(run.alarms(3 * HOUR), 1, "{ratio}");
    }
}

#[test]
fn a_wavering_skew_is_found_and_not_taken_for_chance() {
    let mut run = Run::even(10, 200.0, Clumps::None, 20);
    run.alarms(100);
    let even = run.traffic.shares.clone();
    for _ in 0..30 {
        run.traffic.skew(0, 2.0);
        run.alarms(10);
        run.traffic.shares.clone_from(&even);
        run.alarms(10);
    }
    let found = run.detector.assessment();
    assert!(
        found.worst().is_some_and(|worst| worst.backend == 0),
        "{found:?}"
    );
}

#[test]
fn clumps_that_begin_raise_no_lasting_alarm() {
    for rate in [100.0, 1000.0] {
        for seed in 0..3 {
            let mut run = Run::even(10, rate, Clumps::None, seed);
            assert_eq!(run.alarms(1000), 0);
            run.traffic.clumps = Clumps::Geometric(4.0);
            assert!(run.alarms(HOUR) <= 3, "{rate}/s: the alarm keeps coming");
            assert_eq!(run.alarms(2 * HOUR), 0, "{rate}/s: chance is not learned");
            assert_eq!(run.detector.assessment().verdict, Verdict::Even, "{rate}/s");
        }
    }
}

#[test]
fn days_and_nights_and_rushes_raise_no_alarm() {
    for clumps in [Clumps::None, Clumps::Geometric(4.0)] {
        let mut run = Run::even(5, 0.0, clumps, 21);
        let mut drift: f64 = 1.0;
        for second in 0..2 * DAY {
            let day = 1.0 + 0.98 * (second as f64 / DAY as f64 * std::f64::consts::TAU).sin();
            drift = (drift * (1.0 + 0.02 * (run.traffic.chance() - 0.5))).clamp(0.2, 5.0);
            let rush = if second % 5000 < 60 { 20.0 } else { 1.0 };
            run.traffic.rate = 100.0 * day * drift * rush;
            assert!(run.second().skewed.is_empty(), "{clumps:?} at {second} s");
        }
    }
}

#[test]
fn what_is_said_to_be_detectable_is_detected_in_that_time() {
    for (backends, rate) in [(3, 20.0), (10, 100.0), (100, 1000.0)] {
        let mut run = Run::even(backends, rate, Clumps::None, 22);
        run.alarms(600);
        let detectable = run.detector.assessment().detectable.unwrap();
        assert_eq!(detectable.within, Duration::from_mins(1));
        let delays = delays(backends, rate, Clumps::None, detectable.ratio);
        let median = delays[delays.len() / 2];
        assert!(
            (35..=75).contains(&median),
            "{backends} at {rate}/s: {median} s"
        );
    }
}

#[test]
fn a_backend_with_a_small_share_does_not_delay_the_others() {
    // Windows long enough for five flows at the smallest share would be 30 s long here: with the
    // tests waiting for them, 28/42 s; without, 6/9 s.
    let weights = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.01];
    let mut delays: Vec<u64> = (0..50)
        .map(|seed| {
            let mut run = Run::even(10, 100.0, Clumps::None, seed);
            run.detector = Detector::new(&weights, Settings { services: 1 });
            run.traffic.shares = weights.iter().map(|weight| weight / 9.01).collect();
            assert_eq!(run.alarms(400), 0);
            run.traffic.skew(0, 2.0);
            (1..HOUR)
                .find(|_| run.second().skewed.iter().any(|skew| skew.backend == 0))
                .unwrap()
        })
        .collect();
    delays.sort_unstable();
    assert_delays(&delays, 8, 12);
}
