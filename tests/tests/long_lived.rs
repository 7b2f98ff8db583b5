//! Long-lived connections through every change: those to backends that serve are never broken.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ways;

use std::{thread, time::Duration};

use evenkeel_tests::{
    clock::now_ms,
    daemon::Daemon,
    server::Web,
    topology::VIP4,
    traffic::{Kind, Load, Traffic},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use ways::{Bed, Way};

const CONNECTIONS: u32 = 1_000;
/// How long changes go on.
const CHANGES: Duration = Duration::from_mins(2);
/// From one change to the next.
const PAUSE: Duration = Duration::from_secs(5);
/// How long after a backend's death new connections may still be sent to it: interval, time-out
/// and publication of the check, and the client's own time-out.
const NOTICED: Duration = Duration::from_secs(3);

/// What can be changed of four backends.
struct Plan {
    weights: [u32; 4],
    /// Whether the fourth is configured at all.
    fourth: bool,
}

impl Plan {
    fn config(&self, bed: &Bed) -> String {
        let mut service = bed.web("web", VIP4);
        let configured = if self.fourth { 4 } else { 3 };
        service.backends = (0..configured)
            .map(|n| (n, format!("weight = {}", self.weights[n])))
            .collect();
        bed.head() + &bed.topology.service(&service)
    }
}

/// When a backend was dead, in milliseconds since the epoch.
struct Death {
    backend: String,
    from: f64,
    until: f64,
}

fn now() -> f64 {
    now_ms() as f64
}

fn change(
    random: &mut StdRng,
    bed: &Bed,
    plan: &mut Plan,
    daemon: &mut Daemon<'_>,
    servers: &mut [Web<'_>],
    deaths: &mut Vec<Death>,
) -> String {
    let what = random.random_range(0..5);
    if what == 4 {
        let victim = random.random_range(0..3);
        let from = now();
        servers[victim].kill();
        thread::sleep(NOTICED);
        servers[victim].start_again().unwrap();
        let backend = servers[victim].name().to_owned();
        let said = format!("{backend} died and came back");
        deaths.push(Death {
            backend,
            from,
            until: now() + 1000.0,
        });
        return said;
    }
    let said = match what {
        0 => {
            plan.fourth = !plan.fourth;
            format!("the fourth backend is there: {}", plan.fourth)
        }
        1 => {
            // Drained, or taken back.
            let backend = random.random_range(0..3);
            let others = (0..3).filter(|n| *n != backend);
            if plan.weights[backend] == 0 {
                plan.weights[backend] = 1;
            } else if others.into_iter().any(|n| plan.weights[n] > 0) {
                plan.weights[backend] = 0;
            }
            format!("weights {:?}", plan.weights)
        }
        _ => {
            let backend = random.random_range(0..4);
            plan.weights[backend] = random.random_range(1..5);
            format!("weights {:?}", plan.weights)
        }
    };
    daemon.reconfigure(&plan.config(bed)).unwrap();
    said
}

fn connections_survive_every_change(way: Way) {
    let seed = 0x10_96;
    let mut random = StdRng::seed_from_u64(seed);
    let bed = way.bed(4);
    let _tunnels = bed.tunnels();
    let mut servers = bed.servers();
    let mut plan = Plan {
        weights: [1; 4],
        fourth: false,
    };
    let mut daemon = Daemon::start(bed.topology, &plan.config(&bed)).unwrap();
    let load = Load {
        rate: 20,
        kept: CONNECTIONS,
        kept_every: Duration::from_secs(1),
        ..Load::new(VIP4, CHANGES + Duration::from_mins(1))
    };
    let traffic = Traffic::start(bed.topology, load).unwrap();
    thread::sleep(Duration::from_secs(5));
    let mut deaths = Vec::new();
    let mut history = Vec::new();
    let end = now() + CHANGES.as_secs_f64() * 1000.0;
    while now() < end {
        let said = change(
            &mut random,
            &bed,
            &mut plan,
            &mut daemon,
            &mut servers,
            &mut deaths,
        );
        history.push(said);
        thread::sleep(PAUSE);
    }
    let outcome = traffic.stop().unwrap();
    assert!(history.len() >= 8, "{history:?}");
    assert!(outcome.report.kept.ok > 60_000, "{:?}", outcome.report.kept);
    let unexcused: Vec<_> = outcome
        .failures()
        .filter(|failure| {
            let excuse = deaths.iter().any(|death| {
                let then = (death.from..death.until).contains(&(failure.at_ms + failure.took_ms));
                let of = match (&failure.backend, failure.kind) {
                    (Some(backend), Kind::Kept) => *backend == death.backend,
                    // A connection that was being opened may have met the dead one.
                    _ => true,
                };
                then && of
            });
            !excuse
        })
        .collect();
    assert!(
        unexcused.is_empty(),
        "{} of {} requests failed without a death of their backend (seed {seed:#x}): {:?}\n\
         after {history:#?}",
        unexcused.len(),
        outcome.records.len(),
        &unexcused[..unexcused.len().min(5)],
    );
}

/// Two at a time, each with a network of its own: most of the time they wait.
fn connections_survive_every_change_in(ways: &[Way]) {
    thread::scope(|scope| {
        for &way in ways {
            scope.spawn(move || connections_survive_every_change(way));
        }
    });
}

#[test]
fn connections_survive_every_change_in_modes_dsr_and_ipip() {
    connections_survive_every_change_in(&[Way::Dsr, Way::Ipip]);
}

#[test]
fn connections_survive_every_change_in_modes_gue_and_nat() {
    connections_survive_every_change_in(&[Way::Gue, Way::Nat]);
}

#[test]
fn connections_survive_every_change_in_mode_snat() {
    connections_survive_every_change(Way::Snat);
}
