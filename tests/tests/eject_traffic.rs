//! Backends whose probes are quick and whose clients wait: traffic tells, where replies pass by and
//! where they do not.

#![expect(clippy::print_stdout, reason = "figures for the reader of a run")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ways;

use std::{fmt::Write as _, thread, time::Duration};

use anyhow::{Result, ensure};
use evenkeel_tests::{
    clock,
    daemon::Daemon,
    server::{Mood, Moody},
    topology::{Service, VIP4},
    traffic::{Load, Traffic},
    wait,
};
use serde_json::Value;
use ways::{Bed, Way};

/// For what takes seconds.
const PATIENCE: Duration = Duration::from_mins(2);
/// For what takes a hold and several steps of the ladder.
const LONG: Duration = Duration::from_mins(6);

const GOOD: Mood = serving(20);
const SLOW: Mood = serving(80);

/// Clients wait for so many milliseconds, and probes do not.
const fn serving(ms: u64) -> Mood {
    Mood {
        static_health: true,
        ..Mood::after(Duration::from_millis(ms))
    }
}

/// The check of a service.
const PROBES: &str = "type = \"http\"\npath = \"/healthz\"";

fn config(bed: &Bed, health: &str) -> String {
    let mut service = Service {
        health,
        ..bed.web("web", VIP4)
    };
    let options = "measure_one_in = 1\nejection = { hold = \"20s\" }";
    writeln!(service.options, "{options}").unwrap();
    bed.head() + &bed.topology.service(&service)
}

fn backend(status: &Value, n: usize) -> &Value {
    &status["services"][0]["backends"][n]
}

/// How a backend performs.
fn seen(status: &Value, n: usize) -> &Value {
    &backend(status, n)["performance"]
}

/// Which part of its weight each backend's demotion leaves it.
fn parts(status: &Value) -> Vec<f64> {
    (0..3)
        .map(|n| seen(status, n)["part"].as_f64().unwrap())
        .collect()
}

/// Waits for a status.
fn await_status(
    daemon: &Daemon<'_>,
    what: &str,
    patience: Duration,
    is: impl Fn(&Value) -> Result<()>,
) -> Value {
    wait::until(what, patience, || {
        let status = daemon.status()?;
        is(&status)?;
        Ok(status)
    })
    .unwrap()
}

/// Servers that are well, a controller that has got to know them, and clients.
fn start(bed: &Bed, health: &str) -> (Vec<Moody<'static>>, Daemon<'static>, Traffic<'static>) {
    let servers = Moody::start_all(bed.topology, GOOD).unwrap();
    let daemon = Daemon::start(bed.topology, &config(bed, health)).unwrap();
    let load = Load {
        rate: 60,
        kept: 6,
        ..Load::new(VIP4, Duration::from_mins(15))
    };
    let traffic = Traffic::start(bed.topology, load).unwrap();
    await_status(&daemon, "traffic to be judged", PATIENCE, |status| {
        for n in 0..3 {
            let of = &seen(status, n)["traffic"];
            ensure!(of["state"] == "judged", "{of}");
        }
        Ok(())
    });
    (servers, daemon, traffic)
}

/// Waits until the second backend has a part of its weight because its clients wait; answers the
/// status then.
fn await_demotion(daemon: &Daemon<'_>, way: Way, part: f64) -> Value {
    let slow_at = clock::now_ms() as f64;
    let what = format!("the second backend to have {part} of its weight");
    let status = await_status(daemon, &what, LONG, |status| {
        ensure!(parts(status)[1] <= part, "{}", backend(status, 1));
        Ok(())
    });
    let took = status["now_ms"].as_f64().unwrap() - slow_at;
    let performance = seen(&status, 1);
    println!("{way:?}: {part} of its weight after {took:.0} ms: {performance}");
    let [first, _, third] = parts(&status)[..] else {
        panic!("{status}");
    };
    assert_eq!((first, third), (1.0, 1.0), "{status}");
    assert_eq!(
        (&performance["cause"], &performance["by"]),
        (&"slow".into(), &"traffic".into()),
        "{performance}"
    );
    let reason = performance["reason"].as_str().unwrap();
    assert!(
        reason.contains("by its traffic") && reason.contains("requests"),
        "{reason}"
    );
    let traffic = &performance["traffic"];
    assert!(traffic["ratio"].as_f64() > Some(1.4), "{performance}");
    // Whatever probes compare, they are below the floor.
    assert_eq!(backend(&status, 1)["health"], "up");
    assert!(
        performance["latency_ms"].as_f64() < Some(10.0),
        "{performance}"
    );
    status
}

fn await_return(daemon: &Daemon<'_>) {
    await_status(
        daemon,
        "it to have its whole weight again",
        LONG,
        |status| {
            ensure!(parts(status)[1] >= 1.0, "{}", backend(status, 1));
            Ok(())
        },
    );
}

fn assert_nobody_failed(traffic: Traffic<'_>) {
    let outcome = traffic.stop().unwrap();
    let failures: Vec<_> = outcome.failures().collect();
    assert!(failures.is_empty(), "{failures:?}");
    assert!(outcome.report.kept.ok > 100, "{:?}", outcome.report);
}

#[test]
fn with_replies_who_makes_clients_wait_loses_its_weight_and_gets_it_back() {
    let bed = Way::Nat.bed(3);
    let (servers, daemon, traffic) = start(&bed, PROBES);
    servers[1].turn(SLOW).unwrap();
    await_demotion(&daemon, Way::Nat, 0.5);
    let status = await_demotion(&daemon, Way::Nat, 0.0);
    assert_eq!(backend(&status, 1)["slots"], 0);
    servers[1].turn(GOOD).unwrap();
    await_return(&daemon);
    assert_nobody_failed(traffic);
}

#[test]
fn without_replies_who_makes_clients_wait_loses_weight_and_gets_it_back() {
    let bed = Way::Dsr.bed(3);
    let (servers, daemon, traffic) = start(&bed, PROBES);
    servers[1].turn(SLOW).unwrap();
    await_demotion(&daemon, Way::Dsr, 0.5);
    servers[1].turn(GOOD).unwrap();
    await_return(&daemon);
    assert_nobody_failed(traffic);
}

#[test]
fn where_all_make_clients_wait_nobody_loses_weight() {
    for way in [Way::Dsr, Way::Nat] {
        let bed = way.bed(3);
        let (servers, daemon, traffic) = start(&bed, PROBES);
        for server in &servers {
            server.turn(SLOW).unwrap();
        }
        let status = await_status(&daemon, "the fleet to be degraded", PATIENCE, |status| {
            let why = &status["services"][0]["fleet_degraded"];
            ensure!(
                why.as_str().is_some_and(|why| why.contains("traffic")),
                "{why}"
            );
            Ok(())
        });
        println!("{way:?}: {}", status["services"][0]["fleet_degraded"]);
        // As long as it would take to demote a single one down to nothing.
        thread::sleep(Duration::from_secs(45));
        let status = daemon.status().unwrap();
        assert_eq!(parts(&status), [1.0; 3], "{way:?}: {status}");
        assert_nobody_failed(traffic);
    }
}

/// Its probes go to its own address, as they do where nothing else is possible.
#[test]
fn who_does_not_answer_for_the_vip_is_found_by_its_clients() {
    let bed = Way::Dsr.bed(3);
    let (_servers, daemon, traffic) = start(&bed, &format!("{PROBES}\nvia = \"direct\""));
    let host = &bed.topology.backends[1].namespace;
    host.ip(&format!("address del {VIP4}/32 dev lo")).unwrap();
    let status = await_status(&daemon, "it to take no new flows", LONG, |status| {
        ensure!(parts(status)[1] <= 0.0, "{}", backend(status, 1));
        Ok(())
    });
    let performance = seen(&status, 1);
    println!("{performance}");
    assert_eq!(backend(&status, 1)["health"], "up");
    assert_eq!(
        (&performance["cause"], &performance["by"]),
        (&"failing".into(), &"traffic".into()),
        "{performance}"
    );
    drop(traffic);
    host.ip(&format!("address add {VIP4}/32 dev lo")).unwrap();
    await_return(&daemon);
}
