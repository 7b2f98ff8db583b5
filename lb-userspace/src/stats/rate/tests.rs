use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn increase(counts: &[u64]) -> Increase<'_> {
    Increase {
        counts,
        over: SECOND,
    }
}

#[test]
fn a_meter_tells_increases_and_rates() {
    let mut meter = Meter::new(2);
    assert_eq!(meter.read(SECOND, &[100, 7]), None);
    assert_eq!(meter.rate(0), None);
    let over = Duration::from_millis(500);
    assert_eq!(
        meter.read(SECOND + over, &[130, 7]),
        Some(Increase {
            counts: &[30, 0],
            over
        })
    );
    assert_eq!(meter.rate(0), Some(60.0));
    assert_eq!(meter.rate(1), Some(0.0));
}

#[test]
fn counters_that_start_anew_tell_nothing_for_one_reading() {
    let mut meter = Meter::new(2);
    meter.read(SECOND, &[1000, 1000]);
    meter.read(2 * SECOND, &[1100, 1100]);
    // The second one has already grown past its old value.
    assert_eq!(meter.read(3 * SECOND, &[5, 5000]), None);
    assert_eq!((meter.rate(0), meter.increase()), (None, None));
    assert_eq!(
        meter.read(4 * SECOND, &[25, 5001]),
        Some(increase(&[20, 1]))
    );
    assert_eq!(meter.rate(0), Some(20.0));
}

#[test]
fn a_clock_that_stands_or_goes_back_tells_nothing() {
    let mut meter = Meter::new(1);
    meter.read(2 * SECOND, &[10]);
    assert_eq!(meter.read(2 * SECOND, &[20]), None);
    assert_eq!(meter.read(SECOND, &[30]), None);
    assert_eq!(meter.read(2 * SECOND, &[31]), Some(increase(&[1])));
}

#[test]
fn shares_slide() {
    let mut window = ShareWindow::new(2, 3 * SECOND);
    assert_eq!(window.share(0), None);
    window.push(increase(&[0, 0]));
    assert_eq!((window.share(0), window.covered()), (None, SECOND));
    for counts in [[10, 0], [10, 0], [0, 20]] {
        window.push(increase(&counts));
    }
    assert_eq!((window.share(0), window.covered()), (Some(0.5), 3 * SECOND));
    for _ in 0..3 {
        window.push(increase(&[3, 1]));
    }
    assert_eq!((window.share(0), window.share(1)), (Some(0.75), Some(0.25)));
    window.clear();
    assert_eq!((window.share(0), window.covered()), (None, Duration::ZERO));
    window.push(increase(&[1, 3]));
    assert_eq!((window.share(0), window.covered()), (Some(0.25), SECOND));
}

#[test]
fn a_late_tick_pushes_out_as_much_as_it_covers() {
    let mut window = ShareWindow::new(1, 4 * SECOND);
    for _ in 0..4 {
        window.push(increase(&[1]));
    }
    window.push(Increase {
        counts: &[5],
        over: 3 * SECOND,
    });
    assert_eq!((window.sums[0], window.covered()), (6, 4 * SECOND));
    // Even one that covers more than the whole window.
    window.push(Increase {
        counts: &[9],
        over: 10 * SECOND,
    });
    assert_eq!((window.sums[0], window.covered()), (9, 10 * SECOND));
}

#[test]
fn ticks_that_come_too_often_shorten_the_window() {
    let mut window = ShareWindow::new(1, 3 * SECOND);
    for count in 0..10 {
        window.push(Increase {
            counts: &[count],
            over: SECOND / 2,
        });
    }
    assert_eq!(
        (window.sums[0], window.covered()),
        (7 + 8 + 9, 3 * SECOND / 2)
    );
}
