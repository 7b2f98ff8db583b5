//! Live drills that strike a backend: they take the packets of their clients on the way to it and no
//! others, and are over in time though nobody is left to end them.

#![expect(clippy::print_stdout, reason = "figures for the reader of a run")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::ensure;
use evenkeel_tests::{
    clock,
    daemon::Daemon,
    rehearsal,
    server::Web,
    topology::{Spec, Topology, VIP4},
    traffic::{Load, Outcome, Record, Traffic},
    wait,
};
use serde_json::Value;

/// For what takes seconds, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_mins(2);
/// Longer than all of it takes.
const LONG: Duration = Duration::from_mins(10);
/// Of a drill of slowness, whose clients send their SYN once more after a second.
const A_SECOND_SYN: f64 = 900.0;

/// Slow enough that clients notice before the controller does.
const HEALTH: &str = "type = \"http\"\ninterval = \"1s\"\ntimeout = \"500ms\"\nrise = 2\nfall = 3\n\
                      path = \"/healthz\"";

/// As many backends as a drill needs to strike one of.
fn bed() -> Topology {
    Topology::build(&Spec {
        backends: 10,
        ..Spec::default()
    })
    .unwrap()
}

fn await_permission(daemon: &Daemon<'_>) {
    rehearsal::await_permission(daemon, "kill", "no packet is touched").unwrap();
}

/// A drill of the first backend.
fn live(
    bed: &Topology,
    daemon: &Daemon<'_>,
    drill: &str,
    clients: Option<&str>,
    lasts: &str,
) -> Command {
    let mut command = Command::new(daemon.binary());
    command.args(["drill", "run", drill, "--service", "web", "--backend", "b1"]);
    if let Some(clients) = clients {
        command.args(["--clients", clients]);
    }
    command
        .args(["--for", lasts])
        .args(["--live", "--json", "--service-name", "web"])
        .env("EVENKEEL_SOCKET", bed.socket())
        .env("EVENKEEL_STATE", bed.state())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Begins a drill, and answers who attends it.
fn begin(daemon: &Daemon<'_>, mut command: Command) -> std::process::Child {
    let attended = command.spawn().unwrap();
    wait::until("the drill to be on", PATIENCE, || {
        let status = daemon.status()?;
        let drill = &status["drill"];
        ensure!(
            drill.is_object() && drill["ended_at_ms"].is_null(),
            "{drill}"
        );
        Ok(())
    })
    .unwrap();
    attended
}

/// The requests that the first backend answered, begun within a time of the clock.
fn of_first(outcome: &Outcome, from_ms: u64, to_ms: u64) -> Vec<&Record> {
    let within = from_ms as f64..to_ms as f64;
    let all = outcome.records.iter();
    let of_first = all.filter(|of| of.backend.as_deref() == Some("b1"));
    of_first.filter(|of| within.contains(&of.at_ms)).collect()
}

/// Traffic for a while, of which no request may fail; answers how many the first backend got.
fn well(bed: &Topology) -> u64 {
    let load = Load {
        rate: 200,
        ..Load::new(VIP4, Duration::from_secs(4))
    };
    let outcome = Traffic::start(bed, load).unwrap().wait().unwrap();
    let new = outcome.report.new;
    assert_eq!(new.failed, 0, "{new:?}");
    new.by_backend.get("b1").copied().unwrap_or(0)
}

#[test]
fn a_backend_dies_for_the_clients_of_the_drill_and_for_no_others() {
    let bed = bed();
    let _servers = Web::start_all(&bed).unwrap();
    let sources = bed.more_clients(40).unwrap();
    let mut daemon = rehearsal::start(&bed, HEALTH).unwrap();
    await_permission(&daemon);

    // What makes no sense is refused, and nothing is done.
    for (drill, clients, why) in [
        ("skew", "192.0.2.0/24", "takes no packets"),
        (
            "kill",
            "2001:db8::/32",
            "no client of web has an address in",
        ),
    ] {
        let refused = live(&bed, &daemon, drill, Some(clients), "10s")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{text}");
        assert!(text.contains(why) || String::from_utf8_lossy(&refused.stdout).contains(why));
    }

    let start = |sources: &[_]| {
        let load = Load {
            rate: 100,
            sources: sources.to_vec(),
            ..Load::new(VIP4, LONG)
        };
        Traffic::start(&bed, load).unwrap()
    };
    let (inside, outside) = (start(&sources[..1]), start(&sources[1..]));
    let clients = sources[0].to_string();
    let attended = live(&bed, &daemon, "kill", Some(&clients), "20s")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&attended.stderr);
    let card: Value =
        serde_json::from_slice(&attended.stdout).unwrap_or_else(|e| panic!("{e}: {told}"));
    println!("{told}{card:#}");
    assert_eq!(card["passed"], true, "{card}");
    let found = card["found"].as_str().unwrap();
    assert!(found.contains("b1 is down: drill kill"), "{found}");

    let (inside, outside) = (inside.stop().unwrap(), outside.stop().unwrap());
    let errors = &outside.report.new.by_error;
    assert!(errors.is_empty(), "others suffer: {errors:?}");
    let errors = &inside.report.new.by_error;
    assert!(errors.get("timeout") > Some(&0), "nothing was lost");
    assert_eq!(errors.len(), 1, "{errors:?}");
    let events = daemon.ask(&["events", "--kind", "drill"]).unwrap();
    let events = String::from_utf8(events.stdout).unwrap();
    let taken = inside.report.new.failed;
    println!("{taken} connections were lost\n{events}");
    assert!(events.contains("packets were taken"), "{events}");
    assert!(well(&bed) > 0, "the backend is there again");
    daemon.check_running().unwrap();
}

#[test]
fn a_fault_ends_in_time_without_controller_and_without_whoever_began_it() {
    const LASTS: u64 = 20_000;
    let bed = bed();
    let _servers = Web::start_all(&bed).unwrap();
    let mut daemon = rehearsal::start(&bed, HEALTH).unwrap();
    await_permission(&daemon);
    let load = Load {
        rate: 200,
        ..Load::new(VIP4, LONG)
    };
    let traffic = Traffic::start(&bed, load).unwrap();

    let mut attended = begin(
        &daemon,
        live(&bed, &daemon, "slow", Some("0.0.0.0/0"), "20s"),
    );
    let begun = daemon.status().unwrap()["drill"]["since_ms"]
        .as_u64()
        .unwrap();
    attended.kill().unwrap();
    attended.wait().unwrap();
    daemon.kill();
    let killed = clock::now_ms();
    let over = begun + LASTS;
    assert!(killed + 5_000 < over, "it takes too long to begin");
    wait::until("the end of the fault, and some more", PATIENCE, || {
        ensure!(clock::now_ms() > over + 8_000, "not yet");
        Ok(())
    })
    .unwrap();
    let outcome = traffic.stop().unwrap();
    assert_eq!(
        outcome.report.new.failed, 0,
        "{:?}",
        outcome.report.new.by_error
    );
    // Nobody is there who might have ended it.
    let during = of_first(&outcome, killed, over - 2_000);
    assert!(during.len() > 20, "{}", during.len());
    for of in &during {
        assert!(of.took_ms > A_SECOND_SYN, "{of:?}");
    }
    let mut after: Vec<f64> = of_first(&outcome, over + 2_000, u64::MAX)
        .iter()
        .map(|of| of.took_ms)
        .collect();
    after.sort_by(f64::total_cmp);
    assert!(after.len() > 20, "{}", after.len());
    assert!(after[after.len() / 2] < A_SECOND_SYN, "{after:?}");
    let others = outcome.records.iter();
    let mut others: Vec<f64> = others
        .filter(|of| of.backend.as_deref() != Some("b1"))
        .map(|of| of.took_ms)
        .collect();
    others.sort_by(f64::total_cmp);
    assert!(
        others[others.len() * 9 / 10] < A_SECOND_SYN,
        "others suffer"
    );

    // The next controller tells of it, and a drill whose command is killed ends by its time.
    daemon.restart().unwrap();
    await_permission(&daemon);
    let events = daemon.ask(&["events", "--kind", "drill"]).unwrap();
    let events = String::from_utf8(events.stdout).unwrap();
    assert!(
        events.contains("was on when the controller before ended"),
        "{events}"
    );
    let mut attended = begin(
        &daemon,
        live(&bed, &daemon, "errors", Some("0.0.0.0/0"), "10s"),
    );
    attended.kill().unwrap();
    attended.wait().unwrap();
    wait::until("the end of the drill", PATIENCE, || {
        let drill = &daemon.status()?["drill"];
        ensure!(
            drill.is_null() || drill["why_ended"] == "its time is over",
            "{drill}"
        );
        Ok(())
    })
    .unwrap();
    // What is on its way is answered, or given up.
    thread::sleep(Duration::from_secs(1));
    assert!(well(&bed) > 0);
    daemon.check_running().unwrap();
}

#[test]
fn whoever_starts_next_takes_each_fault_back() {
    let bed = bed();
    let _servers = Web::start_all(&bed).unwrap();
    let mut daemon = rehearsal::start(&bed, HEALTH).unwrap();
    for (drill, clients) in [
        ("skew", None),
        ("drift", None),
        ("rollback", None),
        ("kill", Some("0.0.0.0/0")),
        ("errors", Some("0.0.0.0/0")),
    ] {
        await_permission(&daemon);
        let before = daemon.status().unwrap();
        let mut attended = begin(&daemon, live(&bed, &daemon, drill, clients, "10m"));
        attended.kill().unwrap();
        attended.wait().unwrap();
        daemon.kill();
        daemon.restart().unwrap();
        wait::until("all to be as before", PATIENCE, || {
            let status = daemon.status()?;
            ensure!(status["drill"].is_null(), "{}", status["drill"]);
            ensure!(
                status["tables"]["as_intended"] == true,
                "{}",
                status["tables"]
            );
            for backend in status["services"][0]["backends"].as_array().unwrap() {
                ensure!(backend["override"].is_null(), "{backend}");
                ensure!(backend["health"] == "up", "{backend}");
            }
            Ok(())
        })
        .unwrap();
        let after = daemon.status().unwrap();
        let shares = |status: &Value| {
            let backends = status["services"][0]["backends"].as_array().unwrap();
            let slots = backends.iter().map(|of| of["slots"].as_u64().unwrap());
            slots.collect::<Vec<_>>()
        };
        assert_eq!(shares(&before), shares(&after), "{drill}");
        // Four standard deviations of 800 connections above the tenth that it should have.
        assert!((20..115).contains(&well(&bed)), "{drill}");
    }
    daemon.check_running().unwrap();
}
