#![expect(
    clippy::disallowed_methods,
    reason = "a test needs some instant to count from"
)]

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// A fixed sequence of numbers in `0.0..1.0`, evenly spread.
fn random(step: usize) -> f64 {
    (step as f64 * 0.618_033_988_75).fract()
}

#[test]
fn the_first_round_is_spread_evenly_over_a_second_or_the_interval() {
    let start = Instant::now();
    for (interval, spread) in [(10 * SECOND, SECOND), (SECOND / 5, SECOND / 5)] {
        let firsts: Vec<_> = (0..2_000)
            .map(|index| Schedule::new(interval, start, index, 2_000).first())
            .collect();
        assert_eq!(firsts[0], start);
        for (index, first) in firsts.iter().enumerate() {
            let even = start + spread * index as u32 / 2_000;
            let off =
                first.saturating_duration_since(even) + even.saturating_duration_since(*first);
            assert!(
                off < Duration::from_micros(1),
                "backend {index} is off by {off:?}"
            );
        }
    }
}

#[test]
fn a_state_is_on_its_way_until_enough_verdicts_in_a_row_agree() {
    use Verdict::{Fail, Pass};
    // By a rise of 2 and a fall of 3.
    let check = HealthCheck::new(crate::model::ProbeKind::Tcp, std::num::NonZeroU16::MIN);
    let mut pace = Pace::new(&check);
    for (step, (verdict, on_its_way)) in [
        (Pass, true),
        (Pass, false),
        (Pass, false),
        (Fail, true),
        (Pass, false),
        (Fail, true),
        (Fail, true),
        (Fail, false),
        (Fail, false),
        (Pass, true),
        (Fail, false),
        (Pass, true),
        (Pass, false),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(pace.on_its_way(verdict), on_its_way, "step {step}");
    }
}

#[test]
fn rounds_stand_as_far_apart_as_was_said_last() {
    let start = Instant::now();
    let mut schedule = Schedule::new(10 * SECOND, start, 0, 1);
    // As late as jitter can make it: a whole fast interval.
    let late = schedule.next(start, 1.0);
    assert_eq!(late, start + 11 * SECOND);
    schedule.set_interval(SECOND, late);
    // The probe took 600 ms; the next one does not follow at once.
    let fast = schedule.next(late + SECOND * 6 / 10, 0.0);
    assert_eq!(fast, late + SECOND);
    schedule.set_interval(SECOND, fast);
    assert_eq!(schedule.next(fast, 0.0), late + 2 * SECOND);
    schedule.set_interval(10 * SECOND, late + 2 * SECOND);
    assert_eq!(schedule.next(late + 2 * SECOND, 0.0), late + 12 * SECOND);
}

#[test]
fn a_lone_backend_is_probed_at_once() {
    let start = Instant::now();
    assert_eq!(Schedule::new(SECOND, start, 0, 1).first(), start);
}

#[test]
fn rounds_keep_to_the_grid_and_jitter_uses_its_room() {
    let start = Instant::now();
    let mut schedule = Schedule::new(SECOND, start, 3, 4);
    let phase = SECOND * 3 / 4;
    let mut last = schedule.first();
    let mut gaps = Vec::new();
    for round in 1..10_000 {
        // The probe took 40 ms.
        let due = schedule.next(last + 40 * MILLISECOND, random(round));
        let grid = start + phase + SECOND * round as u32;
        assert!(
            due >= grid && due <= grid + 100 * MILLISECOND,
            "round {round} is off the grid"
        );
        gaps.push(due - last);
        last = due;
    }
    let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
    assert!(
        *least >= 900 * MILLISECOND && *most <= 1_100 * MILLISECOND,
        "{least:?}..{most:?}"
    );
    assert!(
        *most > *least + 100 * MILLISECOND,
        "no jitter: {least:?}..{most:?}"
    );
}

#[test]
fn a_probe_as_long_as_the_interval_skips_no_round() {
    let start = Instant::now();
    let mut schedule = Schedule::new(SECOND, start, 0, 1);
    let mut due = schedule.first();
    for round in 1..1_000 {
        assert!(!schedule.missed(due));
        due = schedule.next(due + SECOND, random(round));
    }
    assert!(
        due <= start + SECOND * 999 + 100 * MILLISECOND,
        "{:?}",
        due - start
    );
}

#[test]
fn after_a_suspension_missed_rounds_are_skipped_and_phases_kept() {
    let start = Instant::now();
    let resumed = start + SECOND * 1_000 + 300 * MILLISECOND;
    let mut starts: Vec<_> = (0..100)
        .map(|index| {
            let mut schedule = Schedule::new(SECOND, start, index, 100);
            schedule.next(start + SECOND / 2, 0.5);
            assert!(schedule.missed(resumed));
            let due = schedule.next(resumed, 0.5);
            assert!(!schedule.missed(due));
            due
        })
        .collect();
    starts.sort();
    assert!(starts[0] >= resumed);
    assert!(starts[99] <= resumed + SECOND + 50 * MILLISECOND);
    // 100 backends over a second: one each 10 ms, as at the start.
    for pair in starts.windows(2) {
        assert!(
            pair[1] - pair[0] >= 9 * MILLISECOND,
            "a burst: {:?}",
            pair[1] - pair[0]
        );
    }
}

#[test]
fn a_round_is_late_up_to_half_an_interval_and_missed_after() {
    let start = Instant::now();
    let schedule = Schedule::new(SECOND, start, 0, 1);
    assert!(!schedule.missed(start + 500 * MILLISECOND));
    assert!(schedule.missed(start + 501 * MILLISECOND));
}

proptest! {
    #[test]
    fn the_next_round_is_ahead_and_never_far(
        interval_ms in 0u64..100_000,
        steps in prop::collection::vec((0u64..1_000_000, 0.0..1.0), 1..50),
    ) {
        let interval = Duration::from_millis(interval_ms.max(1));
        let mut now = Instant::now();
        let mut schedule = Schedule::new(Duration::from_millis(interval_ms), now, 0, 1);
        for (step_ms, random) in steps {
            now += Duration::from_millis(step_ms);
            let due = schedule.next(now, random);
            prop_assert!(due >= now);
            prop_assert!(due <= now.max(schedule.first()) + interval.mul_f64(1.1));
            prop_assert!(!schedule.missed(due));
            now = due;
        }
    }
}

#[test]
fn on_its_grid_an_interval_is_the_longest_gap() {
    let (interval, start) = (Duration::from_secs(1), Instant::now());
    let mut schedule = Schedule::new(grid(interval), start, 0, 1);
    let mut last = schedule.first();
    for random in [0.0, 0.999_999, 0.0, 0.5, 0.999_999] {
        let next = schedule.next(last, random);
        assert!(next - last <= interval, "{:?}", next - last);
        last = next;
    }
}
