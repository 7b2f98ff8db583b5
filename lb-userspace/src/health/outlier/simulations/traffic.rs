//! Traffic's sense: probes stay as they are, and clients wait.
//!
//! Rates are those of connections that count: each is one sample.

use super::*;

const fn serving(serves: f64) -> Nature {
    Nature { serves, ..GOOD }
}

impl Run {
    fn serving(hosts: usize, clients: Clients, seed: u64) -> Self {
        let mut run = Self::new(hosts, 1, seed);
        run.monitor = run.monitor.with_traffic();
        run.clients = clients;
        run
    }

    fn judged(&self, n: usize) -> Judged {
        let now = Duration::from_secs(self.second);
        self.monitor.sight(n, now).traffic.unwrap().judged
    }
}

const fn busy(rate: f64) -> Clients {
    Clients { rate, ..NOBODY }
}

/// Asserts the median and the 95th percentile of the seconds to a demotion, of fifty.
#[track_caller]
fn assert_delays(clients: Clients, bad: f64, median: u64, most: u64) {
    let mut delays: Vec<u64> = (0..50)
        .map(|seed| {
            let mut run = Run::serving(10, clients, seed);
            // Time to learn habits by.
            let warm = if clients.rate < 1.0 { 900 } else { 120 };
            let before = demotions(&run.pass(warm));
            assert!(before.is_empty(), "seed {seed}: {before:?}");
            run.natures[0] = serving(bad);
            run.demotion()
        })
        .collect();
    delays.sort_unstable();
    let (half, tail) = (delays[25], delays[47]);
    assert!(
        half <= median && tail <= most,
        "{half}/{tail} s instead of {median}/{most} s"
    );
    assert!(delays[0] >= 6, "too rash: {} s", delays[0]);
}

#[test]
fn who_is_slow_for_clients_is_demoted_within_seconds() {
    assert_delays(busy(50.0), 3.0, 6, 10);
    // One that was quicker than the others has further to go.
    assert_delays(busy(50.0), 2.0, 8, 28);
    assert_delays(busy(5.0), 3.0, 12, 16);
    let clumped = Clients {
        clump: 4,
        ..busy(50.0)
    };
    assert_delays(clumped, 3.0, 8, 12);
    assert_delays(clumped, 2.0, 10, 25);
}

/// One flow in 64 of a hundred a second, over ten backends.
#[test]
fn where_little_comes_it_takes_minutes_and_is_said() {
    assert_delays(busy(0.16), 3.0, 280, 400);
    assert_delays(busy(0.16), 2.0, 620, 1500);
    let mut run = Run::serving(10, busy(0.16), 1);
    run.pass(900);
    let judged = run.judged(0);
    let Judged::Within(time) = judged else {
        panic!("{judged:?}");
    };
    assert!((200..1000).contains(&time.as_secs()), "{time:?}");
    // A request a minute of each is less than five of each in five minutes, most of the time.
    let mut run = Run::serving(10, busy(0.01), 2);
    let happened = run.pass(2 * HOUR);
    assert!(happened.is_empty(), "{happened:?}");
    assert_eq!(run.judged(0), Judged::TooFew);
    // And nobody is anybody's peer where there is nobody.
    let mut run = Run::serving(10, NOBODY, 3);
    run.pass(600);
    assert_eq!(run.judged(0), Judged::TooFew);
}

#[test]
fn habits_clumps_and_chance_demote_nobody_in_days() {
    for (hosts, rate, spread, clump, days) in [
        (10, 50.0, 0.5, 1, 1),
        (10, 50.0, 1.0, 4, 1),
        (3, 20.0, 0.7, 4, 2),
        (3, 0.5, 1.0, 1, 4),
        (10, 2.0, 0.3, 1, 3),
        (10, 0.16, 1.0, 1, 7),
    ] {
        let clients = Clients {
            rate,
            spread,
            clump,
        };
        let mut run = Run::serving(hosts, clients, 3000 + u64::from(clump));
        let happened = run.pass(days * DAY);
        assert!(
            happened.is_empty(),
            "{hosts} hosts, {rate}/s by {clump}, spread {spread}: {happened:?}"
        );
    }
}

#[test]
fn where_all_clients_wait_nobody_is_demoted() {
    for (hosts, rate) in [(3, 20.0), (10, 50.0), (10, 0.5)] {
        for seed in 0..3 {
            let mut run = Run::serving(hosts, busy(rate), 4000 + seed);
            assert!(run.pass(900).is_empty());
            run.natures.fill(serving(3.0));
            let happened = run.pass(1800);
            assert!(
                demotions(&happened).is_empty(),
                "{hosts} hosts, {rate}/s, seed {seed}: {happened:?}"
            );
            let told = happened.iter().any(|(_, _, what)| {
                matches!(
                    what,
                    What::FleetDegraded(Degraded::Slow {
                        by: By::Traffic,
                        ..
                    })
                )
            });
            assert!(told, "{hosts} hosts, {rate}/s, seed {seed}: {happened:?}");
            run.natures.fill(GOOD);
            run.pass(3600);
            assert_eq!(run.monitor.degraded(), None);
        }
    }
}

/// A probe that is quick must not undo what clients see, as long as they see anything; without
/// clients it decides, and is found wrong again, later each time.
#[test]
fn who_is_slow_for_clients_alone_is_tried_again_less_and_less() {
    let mut run = Run::serving(10, busy(20.0), 5);
    run.pass(300);
    run.natures[0] = serving(4.0);
    let happened = run.pass(3600);
    let causes: Vec<By> = happened
        .iter()
        .filter_map(|(_, n, what)| match what {
            What::Demoted { cause, .. } => {
                assert_eq!(*n, Some(0), "{happened:?}");
                Some(cause.by())
            }
            _ => None,
        })
        .collect();
    assert!(causes.iter().all(|by| *by == By::Traffic), "{happened:?}");
    let holds: Vec<u64> = happened
        .iter()
        .filter_map(|(_, _, what)| match what {
            What::Demoted {
                to: Rung::Out,
                hold,
                ..
            } => Some(hold.as_secs()),
            _ => None,
        })
        .collect();
    assert!(holds.len() >= 4 && holds.is_sorted(), "{holds:?}");
    assert_eq!(holds.last(), Some(&600), "{holds:?}");
    assert!(
        happened.iter().all(|(_, _, what)| *what != What::Restored),
        "{happened:?}"
    );
    run.natures[0] = GOOD;
    let healed = run.pass(1500);
    assert_eq!(run.monitor.rung(0), Rung::Full, "{healed:?}");
}

/// Connections stay with a backend that takes no new ones. A few of them are no measure of it, many
/// are.
#[test]
fn connections_that_stayed_count_where_they_are_enough() {
    for (kept, comes_back) in [(2, true), (2000, false)] {
        let mut run = Run::serving(10, busy(20.0), 6);
        run.pass(300);
        run.natures[0] = serving(4.0);
        run.pass(70);
        assert_eq!(run.monitor.rung(0), Rung::Out);
        // Each counts once a minute.
        let (mut due, mut happened) = (0.0, Vec::new());
        for _ in 0..120 {
            due += f64::from(kept) / 60.0;
            let mut took = Latencies::zeroed();
            while due >= 1.0 {
                note(&mut took.response, 0.24);
                due -= 1.0;
            }
            run.monitor.took(0, &took);
            happened.extend(run.second());
        }
        let back = happened
            .iter()
            .any(|(_, what)| matches!(what, What::Raised { .. }));
        assert_eq!(back, comes_back, "{kept} that are slow: {happened:?}");
    }
}

#[test]
fn who_leaves_clients_without_an_answer_is_demoted() {
    let mut run = Run::serving(10, busy(20.0), 7);
    assert!(run.pass(300).is_empty());
    run.natures[0] = Nature { loses: 0.1, ..GOOD };
    let happened = run.pass(60);
    let found = happened.iter().find_map(|(_, n, what)| match what {
        What::Demoted { cause, .. } => Some((*n, *cause)),
        _ => None,
    });
    assert!(
        matches!(
            found,
            Some((
                Some(0),
                Cause::Failing {
                    by: By::Traffic,
                    ..
                }
            ))
        ),
        "{happened:?}"
    );
    // Where the clients of all are lost on their way, it is nobody's fault.
    let mut run = Run::serving(10, busy(20.0), 8);
    run.natures.fill(Nature {
        loses: 0.05,
        ..GOOD
    });
    let happened = run.pass(DAY);
    assert!(happened.is_empty(), "{happened:?}");
}

#[test]
fn a_slow_backend_that_traffic_sees_is_told_of_with_its_requests() {
    let mut run = Run::serving(10, busy(50.0), 9);
    run.pass(120);
    run.natures[0] = serving(3.0);
    run.demotion();
    let now = Duration::from_secs(run.second);
    let sight = run.monitor.sight(0, now);
    let Some(Cause::Slow {
        by: By::Traffic,
        ratio,
        samples,
        ..
    }) = sight.cause
    else {
        panic!("{sight:?}");
    };
    assert!((2.0..4.0).contains(&ratio), "{sight:?}");
    assert!((200..600).contains(&samples), "{sight:?}");
}
