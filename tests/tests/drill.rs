//! Incidents that are rehearsed: in a sandbox from the fault to all as before, and live, where the
//! fault does not outlive its controller.

#![expect(clippy::print_stdout, reason = "figures for the reader of a run")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::BTreeMap, fs, process::Command, thread, time::Duration};

use anyhow::ensure;
use evenkeel_tests::{
    rehearsal,
    server::Web,
    tools,
    topology::{Spec, Topology, VIP4},
    traffic::{Load, Traffic},
    wait,
};
use serde_json::Value;

/// For what takes seconds, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_mins(2);

/// Rehearses in a sandbox; answers the scorecard, and the report that is made of what was kept.
fn rehearse(drill: &str) -> (Value, Value) {
    let keep = tempfile::tempdir().unwrap();
    let output = Command::new(tools::evenkeel().unwrap())
        .args(["drill", "run", "--sandbox", drill, "--json", "--keep"])
        .arg(keep.path())
        .env("EVENKEEL_STATE", keep.path().join("nowhere"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    let card: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        let log = fs::read_to_string(keep.path().join("controller.log")).unwrap_or_default();
        panic!("{e}: {told}\n{log}")
    });
    println!("{told}{card:#}");
    assert_eq!(card["passed"], true, "{told}");
    assert!(output.status.success());
    assert!(card["requests"].as_u64() > Some(1_000), "{card}");
    let report = Command::new(tools::evenkeel().unwrap())
        .args(["report", "--json", "--since", "1h", "--state"])
        .arg(keep.path().join("state"))
        .output()
        .unwrap();
    let report = serde_json::from_slice(&report.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&report.stderr)));
    println!("{report:#}");
    (card, report)
}

/// The report names the cause, what it is not, when what was, and what ended it.
#[track_caller]
fn assert_explained(report: &Value, kind: &str, ruled_out: &[&str]) {
    let cause = &report["causes"][0];
    assert_eq!(cause["kind"], kind, "{cause:#}");
    let said = cause["ruled_out"].to_string();
    for other in ruled_out {
        assert!(said.contains(other), "{other} in {said}");
    }
    let times = report["incidents"][0]["times"].as_array().unwrap();
    let known = times.iter().filter(|of| of["at_ms"].is_u64());
    let known: Vec<&str> = known.map(|of| of["name"].as_str().unwrap()).collect();
    for moment in ["start", "detected", "notified", "mitigated"] {
        assert!(known.contains(&moment), "{known:?}");
    }
    let resolution = report["resolution"].to_string();
    assert!(resolution.contains(" is mitigated"), "{resolution}");
}

#[track_caller]
fn in_order(card: &Value, times: &[&str]) {
    let times = times.iter().map(|name| card[*name].as_f64().unwrap());
    let times: Vec<f64> = times.collect();
    assert!(times.is_sorted(), "{times:?}: {card}");
}

#[test]
fn a_wrong_weight_in_a_sandbox_is_found_told_put_right_and_even_again() {
    let (card, report) = rehearse("skew");
    in_order(&card, &["detect_s", "notify_s", "mitigate_s", "restore_s"]);
    assert_explained(&report, "config", &["drift: ", "table: "]);
    let why = report["trigger"]["why"].to_string();
    assert!(why.contains("web/b2 is given weight"), "{why}");
    let found = card["found"].as_str().unwrap();
    assert!(found.contains("b2 is weighted for"), "{found}");
    assert_eq!(card["failed"], 0, "{card}");
    assert!(
        card["happened"].as_array().unwrap().iter().any(|moment| {
            let what = moment["what"].as_str().unwrap();
            what.contains("on-call was told") && what.contains("DRILL skew")
        }),
        "{card}"
    );
}

#[test]
fn a_dead_server_is_taken_out_and_comes_back() {
    let (card, report) = rehearse("kill");
    in_order(&card, &["detect_s", "notify_s", "mitigate_s", "restore_s"]);
    assert_explained(&report, "BackendDown", &["drift: ", "fleet: ", "others: "]);
    assert_eq!(report["causes"][0]["backend"], "b2");
    assert_eq!(report["trigger"]["who"], "controller", "it started");
}

#[test]
fn a_slow_server_loses_its_weight_and_gets_it_back() {
    let (card, report) = rehearse("slow");
    in_order(&card, &["detect_s", "notify_s", "mitigate_s", "restore_s"]);
    assert_explained(
        &report,
        "BackendDemoted",
        &["drift: ", "fleet: ", "others: "],
    );
    assert_eq!(report["causes"][0]["backend"], "b2");
    // What the controller did about it is not what led to it.
    let trigger = report["trigger"]["text"].as_str().unwrap();
    assert!(trigger.starts_with("generation 1 published"), "{trigger}");
}

#[test]
fn a_table_that_is_not_the_plan_is_put_right() {
    let (card, report) = rehearse("drift");
    assert_eq!(card["failed"], 0, "{card}");
    assert_explained(&report, "drift", &[]);
}

#[test]
fn a_heavy_client_is_named_and_denied_and_the_rest_is_even() {
    let (card, report) = rehearse("heavy-client");
    in_order(&card, &["detect_s", "notify_s", "mitigate_s", "restore_s"]);
    assert_explained(
        &report,
        "heavy-clients",
        &["drift: ", "table: ", "config: "],
    );
    let resolution = report["resolution"].to_string();
    assert!(resolution.contains("one client opens half"), "{resolution}");
}

#[test]
fn nobody_is_demoted_where_all_are_slow() {
    let (card, _) = rehearse("fleet-slow");
    in_order(&card, &["detect_s", "notify_s", "mitigate_s", "restore_s"]);
    assert_eq!(card["wrong"], Value::Array(Vec::new()), "{card}");
}

#[test]
fn no_request_fails_while_the_controller_is_killed() {
    let (card, _) = rehearse("controller-crash");
    assert_eq!(card["failed"], 0, "{card}");
}

/// The part of new connections that the first backend answers, by what a client gets.
fn part_of_first(bed: &Topology) -> f64 {
    let load = Load {
        rate: 300,
        ..Load::new(VIP4, Duration::from_secs(8))
    };
    let outcome = Traffic::start(bed, load).unwrap().wait().unwrap();
    assert_eq!(outcome.report.new.failed, 0, "{:?}", outcome.report);
    let by_backend: &BTreeMap<String, u64> = &outcome.report.new.by_backend;
    let all: u64 = by_backend.values().sum();
    assert!(all > 1_500, "{by_backend:?}");
    by_backend["b1"] as f64 / all as f64
}

/// Between the third that it should have and what a drill gives it at most: 4.5 standard deviations
/// of 2,000 connections from either.
const BETWEEN: f64 = 0.384;

#[test]
fn a_fault_does_not_outlive_the_controller_that_was_killed() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let mut daemon = rehearsal::start(&bed, "").unwrap();
    rehearsal::await_permission(&daemon, "skew", "would be: web/b1 is given weight").unwrap();
    assert!(part_of_first(&bed) < BETWEEN);

    // A name that is not the service's begins nothing.
    let live = |name: &str| {
        let mut command = Command::new(daemon.binary());
        command
            .args(["drill", "run", "skew", "--service", "web", "--live"])
            .args(["--for", "10m", "--json", "--service-name", name])
            .env("EVENKEEL_SOCKET", bed.socket())
            .env("EVENKEEL_STATE", bed.state())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        command
    };
    let refused = live("www").output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(daemon.status().unwrap()["drill"].is_null());

    let attended = live("web").spawn().unwrap();
    wait::until("the drill to be on", PATIENCE, || {
        let status = daemon.status()?;
        ensure!(status["drill"]["drill"] == "skew", "{}", status["drill"]);
        Ok(())
    })
    .unwrap();
    assert!(part_of_first(&bed) > BETWEEN, "the fault is there");
    // One at a time.
    let second = live("web").output().unwrap();
    assert_eq!(second.status.code(), Some(1), "{second:?}");

    daemon.kill();
    // The kernel goes on by what was published.
    thread::sleep(Duration::from_secs(1));
    daemon.restart().unwrap();
    wait::until("the fault to be taken back", PATIENCE, || {
        let status = daemon.status()?;
        let overridden = &status["services"][0]["backends"][0]["override"];
        ensure!(overridden.is_null(), "{overridden}");
        ensure!(status["drill"].is_null(), "{}", status["drill"]);
        Ok(())
    })
    .unwrap();
    assert!(part_of_first(&bed) < BETWEEN, "the fault is gone");

    let attended = attended.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&attended.stderr);
    let card: Value =
        serde_json::from_slice(&attended.stdout).unwrap_or_else(|e| panic!("{e}: {told}"));
    println!("{told}{card:#}");
    assert!(card["restore_s"].as_f64() < Some(600.0), "{card}");

    let events = daemon
        .ask(&["events", "--json", "--kind", "drill"])
        .unwrap();
    let events: Vec<Value> = String::from_utf8(events.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let whats: Vec<&str> = events
        .iter()
        .filter_map(|event| event["detail"]["what"].as_str())
        .collect();
    assert_eq!(whats, ["begins", "interrupted", "score"], "{events:?}");
    assert!(
        events
            .iter()
            .all(|event| event["detail"]["drill"] == "skew")
    );
}
