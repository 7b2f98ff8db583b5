//! Backends that answer and underperform: slow, flaky, half-dead. They lose their weight, those that
//! are well keep it, and nobody's connection breaks by it.

#![expect(clippy::print_stdout, reason = "figures for the reader of a run")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fs, path::PathBuf, time::Duration};

use anyhow::ensure;
use evenkeel_tests::{
    clock,
    daemon::Daemon,
    receivers::lines,
    server::{Mood, Moody},
    topology::{Service, Spec, Topology, VIP4},
    traffic::{Load, Traffic},
    wait,
};
use serde_json::{Value, json};

/// The file that alerts are told to.
const TOLD: &str = "told.jsonl";
/// For what takes seconds.
const PATIENCE: Duration = Duration::from_mins(1);
/// For what takes a hold and several steps of the ladder.
const LONG: Duration = Duration::from_mins(6);

const GOOD: Mood = Mood::after(Duration::from_millis(20));
const SLOW: Mood = Mood::after(Duration::from_millis(60));

/// One probe a second and the time-out that comes with it: what holds where nothing is configured.
const PROBES: &str = "type = \"http\"\npath = \"/healthz\"";
/// A check that finds sooner what is dead.
const QUICK_PROBES: &str = "type = \"http\"\ninterval = \"200ms\"\ntimeout = \"150ms\"\nrise = 2\n\
                            fall = 5\npath = \"/healthz\"";

fn config(bed: &Topology, health: &str, options: &str) -> String {
    let service = Service {
        health,
        options: options.to_owned(),
        ..Service::web("web", VIP4)
    };
    let told = bed.dir().path().join(TOLD);
    let receiver = format!(
        "\n[[notify]]\nname = \"file\"\ntype = \"file\"\npath = \"{}\"\n",
        told.display()
    );
    bed.config_head() + &receiver + &bed.service(&service)
}

/// What was told of backends and of the fleet, in order, as `BackendDemoted b2 firing`.
fn told(bed: &Topology) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("fleet").to_owned();
    let word = |line: &Value| {
        let labels = &line["labels"];
        let (name, backend) = (text(&labels["alertname"]), text(&labels["backend"]));
        format!("{name} {backend} {}", text(&line["status"]))
    };
    let told = lines(&bed.dir().path().join(TOLD)).unwrap();
    let about = |word: &String| word.starts_with("Backend") || word.starts_with("Fleet");
    told.iter().map(word).filter(about).collect()
}

fn backend(status: &Value, n: usize) -> &Value {
    &status["services"][0]["backends"][n]
}

/// Which part of its weight each backend's demotion leaves it.
fn parts(status: &Value) -> Vec<f64> {
    (0..3)
        .map(|n| backend(status, n)["performance"]["part"].as_f64().unwrap())
        .collect()
}

fn slots(status: &Value, n: usize) -> u64 {
    backend(status, n)["slots"].as_u64().unwrap()
}

/// What the controller has said of all that contains `words`.
fn said(daemon: &Daemon<'_>, words: &str) -> Vec<String> {
    let log = fs::read_to_string(daemon.log()).unwrap();
    log.lines()
        .filter(|line| line.contains(words))
        .map(str::to_owned)
        .collect()
}

/// Lets the controller compare the backends as often as it does before it judges them: 30 times,
/// once a second.
fn get_acquainted() {
    std::thread::sleep(Duration::from_secs(40));
}

#[test]
fn a_backend_that_turns_slow_is_demoted_and_gets_its_weight_back_when_it_heals() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let servers = Moody::start_all(&bed, GOOD).unwrap();
    let options = "ejection = { hold = \"20s\" }";
    let mut daemon = Daemon::start(&bed, &config(&bed, PROBES, options)).unwrap();
    let load = Load {
        rate: 50,
        kept: 12,
        ..Load::new(VIP4, Duration::from_mins(15))
    };
    let traffic = Traffic::start(&bed, load).unwrap();
    get_acquainted();
    let even = daemon.status().unwrap();
    assert_eq!(parts(&even), [1.0; 3], "{even}");

    servers[1].turn(SLOW).unwrap();
    let slow_at = clock::now_ms() as f64;
    let status = wait::until("the slow backend to be demoted", PATIENCE, || {
        let status = daemon.status()?;
        ensure!(parts(&status)[1] < 1.0, "{}", backend(&status, 1));
        Ok(status)
    })
    .unwrap();
    let took = status["published_at_ms"].as_f64().unwrap() - slow_at;
    println!(
        "demoted {took:.0} ms after it turned slow: {}",
        backend(&status, 1)["performance"]
    );
    // Promised for latencies that are spread far more than these: here it takes 6 to 15 s.
    assert!(took <= 35_000.0, "demoted after {took} ms");
    assert_eq!(backend(&status, 1)["health"], "up");
    assert!(slots(&status, 1) < slots(&even, 1), "{status}");

    let status = wait::until("it to take no new flows", LONG, || {
        let status = daemon.status()?;
        ensure!(slots(&status, 1) == 0, "{}", backend(&status, 1));
        Ok(status)
    })
    .unwrap();
    assert_eq!(parts(&status), [1.0, 0.0, 1.0]);
    let seen = &backend(&status, 1)["performance"];
    let reason = seen["reason"].as_str().unwrap();
    assert!(
        reason.contains("slow") && reason.contains("peers"),
        "{seen}"
    );
    assert!(
        seen["latency_ms"].as_f64() > seen["peers_ms"].as_f64(),
        "{seen}"
    );
    // That is how the pool should be, and no finding about its evenness.
    assert_ne!(
        status["services"][0]["evenness"]["verdict"], "skewed",
        "{status}"
    );

    // A crash gives it nothing back.
    await_kept(&bed, "out");
    daemon.restart().unwrap();
    let status = daemon.status().unwrap();
    assert_eq!((parts(&status)[1], slots(&status, 1)), (0.0, 0), "{status}");

    servers[1].turn(GOOD).unwrap();
    let status = wait::until("it to have its whole weight again", LONG, || {
        let status = daemon.status()?;
        ensure!(parts(&status)[1] >= 1.0, "{}", backend(&status, 1));
        Ok(status)
    })
    .unwrap();
    assert_eq!(slots(&status, 1), slots(&even, 1), "the slots it had");
    let log = said(&daemon, "web/b2");
    for words in [
        "from 1 to 1/2",
        "from 1/2 to 1/4",
        "from 1/4 to 0",
        "goes to 1/8",
        "has its whole weight",
    ] {
        let count = log.iter().filter(|line| line.contains(words)).count();
        assert_eq!(count, 1, "{words}: {log:#?}");
    }

    let expected = ["BackendDemoted b2 firing", "BackendDemoted b2 resolved"];
    wait::until("its demotion and its end to be told", PATIENCE, || {
        ensure!(told(&bed) == expected, "{:?}", told(&bed));
        Ok(())
    })
    .unwrap();

    // New flows were moved, and no established connection by any of the steps.
    let outcome = traffic.stop().unwrap();
    let failures: Vec<_> = outcome.failures().collect();
    assert!(failures.is_empty(), "{failures:?}");
    assert!(outcome.report.kept.ok > 1000, "{:?}", outcome.report);
}

/// What the controller keeps of a backend's demotion.
fn kept(bed: &Topology) -> PathBuf {
    bed.seat().state().join("degrees.json")
}

/// Waits until the controller has kept that a backend is on this rung of its ladder.
fn await_kept(bed: &Topology, rung: &str) {
    wait::until("the demotion to be on disk", PATIENCE, || {
        let text = fs::read_to_string(kept(bed))?;
        ensure!(text.contains(&format!("\"rung\": \"{rung}\"")), "{text}");
        Ok(())
    })
    .unwrap();
}

/// Writes down that the second backend was demoted to a quarter so long ago.
fn keep(bed: &Topology, ago: Duration) {
    let now = clock::now_ms();
    let kept_at = now - ago.as_millis() as u64;
    let text = json!({
        "at_ms": kept_at,
        "degrees": [{
            "service": "web",
            "backend": "b2",
            "address": bed.backends[1].ipv4,
            "demoted": {
                "rung": "quarter", "cause": null, "held_until_ms": now + 600_000,
                "rising": false, "relapses": 1,
            },
            "agent": null,
        }],
    });
    fs::create_dir_all(bed.seat().state()).unwrap();
    fs::write(kept(bed), text.to_string()).unwrap();
}

#[test]
fn a_demotion_outlives_a_crash_and_is_forgotten_after_minutes() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Moody::start_all(&bed, GOOD).unwrap();
    keep(&bed, Duration::from_secs(5));
    let mut daemon = Daemon::start(&bed, &config(&bed, QUICK_PROBES, "")).unwrap();
    let demoted = daemon.status().unwrap();
    assert_eq!(parts(&demoted), [1.0, 0.25, 1.0], "{demoted}");
    assert!(slots(&demoted, 1) < slots(&demoted, 0) / 3, "{demoted}");
    assert_eq!(
        said(&daemon, "web/b2 goes on with 1/4 of its weight").len(),
        1
    );
    let load = Load {
        rate: 50,
        kept: 12,
        ..Load::new(VIP4, Duration::from_mins(2))
    };
    let traffic = Traffic::start(&bed, load).unwrap();

    await_kept(&bed, "quarter");
    daemon.kill();
    daemon.restart().unwrap();
    let status = daemon.status().unwrap();
    assert_eq!(parts(&status), [1.0, 0.25, 1.0], "{status}");
    assert_eq!(slots(&status, 1), slots(&demoted, 1), "{status}");

    daemon.kill();
    keep(&bed, Duration::from_mins(6));
    daemon.restart().unwrap();
    let status = daemon.status().unwrap();
    assert_eq!(parts(&status), [1.0; 3], "{status}");

    let outcome = traffic.stop().unwrap();
    let failures: Vec<_> = outcome.failures().collect();
    assert!(failures.is_empty(), "{failures:?}");
}

#[test]
fn where_all_are_slow_nobody_is_demoted() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let servers = Moody::start_all(&bed, GOOD).unwrap();
    let daemon = Daemon::start(&bed, &config(&bed, PROBES, "")).unwrap();
    get_acquainted();
    for server in &servers {
        server.turn(SLOW).unwrap();
    }
    wait::until("the fleet to be found degraded", PATIENCE, || {
        let status = daemon.status()?;
        let service = &status["services"][0];
        ensure!(service["fleet_degraded"].is_string(), "{service}");
        Ok(())
    })
    .unwrap();
    // As long as it would take to demote a single one down to nothing.
    std::thread::sleep(Duration::from_mins(1));
    let status = daemon.status().unwrap();
    assert_eq!(parts(&status), [1.0; 3], "{status}");
    assert_eq!(said(&daemon, "web: FleetDegraded:").len(), 1);
    assert!(said(&daemon, "its weight goes").is_empty());
    for server in &servers {
        server.turn(GOOD).unwrap();
    }
    wait::until("the fleet to recover", LONG, || {
        let status = daemon.status()?;
        let service = &status["services"][0];
        ensure!(service["fleet_degraded"].is_null(), "{service}");
        Ok(())
    })
    .unwrap();
    // That, and nothing about any single backend, also a little later.
    std::thread::sleep(Duration::from_secs(15));
    let expected = ["FleetDegraded fleet firing", "FleetDegraded fleet resolved"];
    assert_eq!(told(&bed), expected);
}

#[test]
fn a_backend_that_fails_now_and_then_is_demoted() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let servers = Moody::start_all(&bed, GOOD).unwrap();
    let daemon = Daemon::start(&bed, &config(&bed, QUICK_PROBES, "")).unwrap();
    servers[2].turn(Mood { fails: 0.2, ..GOOD }).unwrap();
    let status = wait::until("the flaky backend to be demoted to nothing", LONG, || {
        let status = daemon.status()?;
        ensure!(slots(&status, 2) == 0, "{}", backend(&status, 2));
        Ok(status)
    })
    .unwrap();
    // One failure in five is far from `fall` in a row.
    let seen = &backend(&status, 2)["performance"];
    assert!(
        seen["reason"].as_str().unwrap().contains("failing"),
        "{seen}"
    );
    assert_eq!(parts(&status), [1.0, 1.0, 0.0]);
    let traffic = Traffic::start(&bed, Load::new(VIP4, Duration::from_secs(5))).unwrap();
    let outcome = traffic.wait().unwrap();
    let failures: Vec<_> = outcome.failures().collect();
    assert!(failures.is_empty(), "{failures:?}");
}

#[test]
fn a_backend_that_accepts_and_never_answers_is_out_and_starts_slowly_when_it_is_back() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let servers = Moody::start_all(&bed, GOOD).unwrap();
    let options = "slow_start = \"9s\"";
    let daemon = Daemon::start(&bed, &config(&bed, QUICK_PROBES, options)).unwrap();
    let even = daemon.status().unwrap();
    for n in 0..3 {
        assert!(
            slots(&even, n) > 0,
            "no slow start where all of them start: {even}"
        );
        assert_eq!(backend(&even, n)["weight_in_force"], 1.0, "{even}");
    }
    servers[0].turn(Mood { mute: true, ..GOOD }).unwrap();
    wait::until("the half-dead backend to be out", PATIENCE, || {
        let status = daemon.status()?;
        ensure!(slots(&status, 0) == 0, "{}", backend(&status, 0));
        Ok(())
    })
    .unwrap();
    servers[0].turn(GOOD).unwrap();
    let mut shares = Vec::new();
    wait::until("it to have its slots again", PATIENCE, || {
        let status = daemon.status()?;
        let now = slots(&status, 0);
        if shares.last() != Some(&now) {
            shares.push(now);
        }
        ensure!(now == slots(&even, 0), "{}", backend(&status, 0));
        Ok(())
    })
    .unwrap();
    // Nothing, an eighth, a quarter, a half, all; a busy machine may not see each of them.
    assert!(
        (4..=5).contains(&shares.len()) && shares.is_sorted(),
        "{shares:?}"
    );
    assert_eq!(said(&daemon, "starts slowly").len(), 1);
}

#[test]
fn where_too_few_are_up_all_are_used() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let servers = Moody::start_all(&bed, GOOD).unwrap();
    let daemon = Daemon::start(&bed, &config(&bed, QUICK_PROBES, "")).unwrap();
    let even = daemon.status().unwrap();
    // Their health pages are wrong: they serve.
    for server in &servers[..2] {
        server.turn(Mood { fails: 1.0, ..GOOD }).unwrap();
    }
    let status = wait::until("panic", PATIENCE, || {
        let status = daemon.status()?;
        let service = &status["services"][0];
        ensure!(service["panic"].is_string(), "{service}");
        ensure!(slots(&status, 0) == slots(&even, 0), "{service}");
        Ok(status)
    })
    .unwrap();
    assert_eq!(backend(&status, 0)["health"], "down");
    assert_eq!(slots(&status, 2), slots(&even, 2));
    servers[0].turn(GOOD).unwrap();
    wait::until("panic to end", PATIENCE, || {
        let status = daemon.status()?;
        let service = &status["services"][0];
        ensure!(service["panic"].is_null(), "{service}");
        ensure!(slots(&status, 1) == 0, "{service}");
        Ok(())
    })
    .unwrap();
    assert_eq!(said(&daemon, "Panic: 1 of 3").len(), 1);
    assert_eq!(said(&daemon, "panic is over: 2 of 3").len(), 1);
}
