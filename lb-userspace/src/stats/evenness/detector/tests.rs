use super::*;

const SECOND: Duration = Duration::from_secs(1);
const ALONE: Settings = Settings { services: 1 };

/// Ticks at every whole second in `seconds` with the same counts.
fn feed(detector: &mut Detector, seconds: std::ops::RangeInclusive<u32>, counts: &[u64]) {
    for second in seconds {
        detector.tick(SECOND * second, counts);
    }
}

fn why(detector: &Detector) -> Why {
    match detector.assessment().verdict {
        Verdict::CannotTell(why) => why,
        verdict => panic!("{verdict:?}"),
    }
}

#[test]
fn thresholds_keep_false_alarms_to_a_tenth_a_month() {
    for (backends, services, threshold) in [
        (3, 1, 19.96),
        (10, 1, 21.16),
        (100, 1, 23.47),
        (10, 10, 23.47),
        (10, 0, 21.16),
    ] {
        let detector = Detector::new(&vec![1.0; backends], Settings { services });
        assert!(
            (detector.thresholds.alarm - threshold).abs() < 0.01,
            "{backends} {services}"
        );
    }
}

#[test]
fn the_warm_up_takes_sixty_seconds_and_says_how_far_it_is() {
    let mut detector = Detector::new(&[1.0; 3], ALONE);
    assert_eq!(
        why(&detector),
        Why::WarmingUp {
            seen: Duration::ZERO,
            of: WARM_UP
        }
    );
    feed(&mut detector, 1..=4, &[100, 100, 100]);
    assert_eq!(
        why(&detector),
        Why::WarmingUp {
            seen: 3 * SECOND,
            of: WARM_UP
        }
    );
    feed(&mut detector, 5..=60, &[100, 100, 100]);
    assert_eq!(
        why(&detector),
        Why::WarmingUp {
            seen: 59 * SECOND,
            of: WARM_UP
        }
    );
    // A skew that is there from the beginning is no reason to end it sooner.
    assert!(detector.assessment().skewed.is_empty());
    feed(&mut detector, 61..=62, &[100, 100, 100]);
    assert_eq!(detector.assessment().verdict, Verdict::Even);
}

#[test]
fn an_even_verdict_claims_only_what_it_could_have_seen() {
    let mut detector = Detector::new(&[1.0; 10], ALONE);
    feed(&mut detector, 1..=66, &[10; 10]);
    let early = detector.assessment().detectable.unwrap();
    assert_eq!(early.within, 5 * SECOND);
    feed(&mut detector, 67..=200, &[10; 10]);
    let later = detector.assessment().detectable.unwrap();
    assert_eq!(later.within, 60 * SECOND);
    assert!(
        early.ratio > later.ratio && later.ratio < 1.5,
        "{early:?} {later:?}"
    );
}

#[test]
fn a_quiet_service_warms_up_for_longer() {
    let mut detector = Detector::new(&[1.0; 3], ALONE);
    // A flow to each every ten seconds: windows of 30 s.
    for second in 1..=100 {
        detector.tick(
            SECOND * second,
            if second % 10 == 0 {
                &[1, 1, 1]
            } else {
                &[0; 3]
            },
        );
    }
    let Why::WarmingUp { seen, of } = why(&detector) else {
        panic!("{:?}", why(&detector))
    };
    assert_eq!(seen, 99 * SECOND);
    assert!((800..1100).contains(&of.as_secs()), "{of:?}");
    for second in 101..=1000 {
        detector.tick(
            SECOND * second,
            if second % 10 == 0 {
                &[1, 1, 1]
            } else {
                &[0; 3]
            },
        );
    }
    let Why::TooFewFlows {
        rate,
        doubling_takes,
    } = why(&detector)
    else {
        panic!("{:?}", why(&detector))
    };
    assert!((rate - 0.3).abs() < 0.06, "{rate}");
    assert!(
        (200..1000).contains(&doubling_takes.as_secs()),
        "{doubling_takes:?}"
    );
}

#[test]
fn the_first_tick_may_belong_to_another_table() {
    let mut detector = Detector::new(&[1.0, 0.0], ALONE);
    assert_eq!(detector.tick(SECOND, &[0, 1_000_000]).strays, 0);
    assert!(detector.tick(2 * SECOND, &[10, 0]).rate < 11.0);
}

#[test]
fn an_idle_service_cannot_be_judged() {
    let mut detector = Detector::new(&[1.0; 3], ALONE);
    feed(&mut detector, 1..=45, &[0; 3]);
    assert_eq!(
        why(&detector),
        Why::Idle {
            silent: 44 * SECOND
        }
    );
    feed(&mut detector, 46..=200, &[50; 3]);
    assert_eq!(detector.assessment().verdict, Verdict::Even);
    feed(&mut detector, 201..=300, &[0; 3]);
    assert_eq!(
        why(&detector),
        Why::Idle {
            silent: 100 * SECOND
        }
    );
}

#[test]
fn backends_without_a_share_are_left_out_and_their_flows_counted() {
    let mut detector = Detector::new(&[0.0, 30.0, 0.0, 30.0], ALONE);
    feed(&mut detector, 1..=100, &[1, 100, 0, 100]);
    let found = detector.assessment();
    assert_eq!((found.watched, found.strays), (2, 99));
    assert_eq!(found.verdict, Verdict::Even);
    feed(&mut detector, 101..=110, &[0, 0, 0, 100]);
    // Both are off; with two of them it is the one that gets nothing.
    let worst = detector.assessment().worst().unwrap();
    assert_eq!(
        (worst.intended_share, detector.assessment().skewed.len()),
        (0.5, 2)
    );
}

#[test]
fn one_backend_cannot_be_skewed_and_none_cannot_be_judged() {
    let mut one = Detector::new(&[0.0, 1.0], ALONE);
    feed(&mut one, 1..=200, &[3, 5]);
    assert_eq!(one.assessment().verdict, Verdict::Even);
    assert_eq!(one.assessment().detectable, None);
    let mut none = Detector::new(&[0.0, 0.0], ALONE);
    feed(&mut none, 1..=200, &[3, 5]);
    assert_eq!(why(&none), Why::NoBackends);
    assert_eq!(none.assessment().strays, 199 * 8);
    assert_eq!(why(&Detector::new(&[], ALONE)), Why::NoBackends);
}

#[test]
fn another_table_starts_anew_and_the_same_one_does_not() {
    let mut detector = Detector::new(&[1.0; 10], ALONE);
    feed(&mut detector, 1..=100, &[10; 10]);
    feed(&mut detector, 101..=120, &[100, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(detector.assessment().verdict, Verdict::Skewed);
    detector.retarget(&[1.0; 10], ALONE);
    assert_eq!(detector.assessment().verdict, Verdict::Skewed);
    detector.retarget(&[10.0, 1.0], ALONE);
    assert!(matches!(why(&detector), Why::WarmingUp { .. }));
    feed(&mut detector, 121..=250, &[1000, 100]);
    assert_eq!(detector.assessment().verdict, Verdict::Even);
    detector.retarget(&[10.0, 1.0], Settings { services: 2 });
    assert!(matches!(why(&detector), Why::WarmingUp { .. }));
}

#[test]
fn absurd_counts_and_clocks_stay_finite() {
    let mut detector = Detector::new(&[1.0, 1.0, 0.0], ALONE);
    feed(&mut detector, 1..=100, &[10, 10, 0]);
    detector.tick(101 * SECOND, &[u64::MAX, u64::MAX, u64::MAX]);
    // The clock stands, then goes back.
    detector.tick(101 * SECOND, &[10, 10, 0]);
    detector.tick(50 * SECOND, &[10, 10, 0]);
    feed(&mut detector, 51..=400, &[10, 10, 0]);
    let found = detector.assessment();
    assert!(
        found.rate.is_finite() && found.overdispersion.is_finite(),
        "{found:?}"
    );
    assert!(found.skewed.is_empty(), "{found:?}");
}

#[test]
fn late_ticks_cost_time_and_nothing_else() {
    let mut detector = Detector::new(&[1.0; 10], ALONE);
    for tick in 1..=40 {
        detector.tick(5 * SECOND * tick, &[50; 10]);
    }
    assert_eq!(detector.assessment().verdict, Verdict::Even);
    assert!((detector.assessment().rate - 100.0).abs() < 1e-6);
    let skewed = [100, 44, 44, 44, 44, 44, 45, 45, 45, 45];
    detector.tick(5 * SECOND * 41, &skewed);
    detector.tick(5 * SECOND * 42, &skewed);
    let worst = detector.assessment().worst().unwrap();
    assert_eq!((worst.backend, worst.since), (0, 5 * SECOND * 40));
}

#[test]
fn thousands_of_backends_need_no_more_memory_as_time_passes() {
    let mut detector = Detector::new(&vec![1.0; 4096], ALONE);
    let room = detector.assessment.skewed.capacity();
    feed(&mut detector, 1..=100, &vec![20; 4096]);
    assert_eq!(detector.assessment().verdict, Verdict::Even);
    let mut counts = vec![20; 4096];
    counts[1000..3000].fill(60);
    feed(&mut detector, 101..=150, &counts);
    assert_eq!(detector.assessment().skewed.len(), 4096);
    assert_eq!(detector.assessment.skewed.capacity(), room);
}

#[test]
#[should_panic(expected = "a count for every share")]
fn counts_of_another_table_are_refused() {
    Detector::new(&[1.0; 3], ALONE).tick(SECOND, &[1; 4]);
}
