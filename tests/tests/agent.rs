//! Backends that say by an agent what they want: they get it, as far as the service can spare it, and
//! nobody's connection breaks by it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fs, time::Duration};

use anyhow::{Result, ensure};
use evenkeel_tests::{
    daemon::Daemon,
    server::{Agent, Web},
    topology::{Service, Spec, Topology, VIP4},
    traffic::{Load, Traffic},
    wait,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

fn config(bed: &Topology) -> String {
    let port = Agent::PORT;
    let service = Service {
        options: format!("agent = {{ port = {port}, interval = \"300ms\", keep = \"5s\" }}"),
        ..Service::web("web", VIP4)
    };
    bed.config_head() + &bed.service(&service)
}

fn backend(status: &Value, n: usize) -> &Value {
    &status["services"][0]["backends"][n]
}

fn slots(status: &Value) -> Vec<u64> {
    (0..3)
        .map(|n| backend(status, n)["slots"].as_u64().unwrap())
        .collect()
}

/// Waits until a backend has so many slots, and answers the status that shows it.
fn await_slots(daemon: &Daemon<'_>, n: usize, wanted: u64) -> Value {
    let what = format!("backend {} to have {wanted} slots", n + 1);
    wait::until(what, PATIENCE, || {
        let status = daemon.status()?;
        let (slots, seen) = (slots(&status), backend(&status, n));
        // What rounding does with the last slot is not this test's business.
        ensure!(slots[n].abs_diff(wanted) <= 1, "{slots:?}: {seen}");
        Ok(status)
    })
    .unwrap()
}

/// Waits until what a backend's agent is shown to say is `wanted`.
fn await_agent(daemon: &Daemon<'_>, n: usize, key: &str, wanted: &Value) -> Value {
    let what = format!("the agent's {key} to be {wanted}");
    wait::until(what, PATIENCE, || {
        let status = daemon.status()?;
        let agent = &backend(&status, n)["agent"];
        ensure!(agent[key] == *wanted, "{agent}");
        Ok(status)
    })
    .unwrap()
}

fn ask(daemon: &Daemon<'_>, arguments: &[&str]) -> String {
    let output = daemon.ask(arguments).unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// How the connections of a client that never sends another SYN do, beside many that do.
fn traffic(bed: &Topology) -> Result<Traffic<'_>> {
    let load = Load {
        rate: 50,
        kept: 30,
        ..Load::new(VIP4, Duration::from_mins(5))
    };
    Traffic::start(bed, load)
}

/// What was asked for is in the journal and in the log.
fn assert_told(daemon: &Daemon<'_>) {
    let events = ask(daemon, &["events", "--kind", "agent", "--backend", "b2"]);
    for words in [
        "asks by its agent for 50 % of its weight",
        "asks by its agent for no new flows ('drain'): new kernel",
        "an override holds, so nothing follows",
        "(connection refused): that it asked for no new flows ('maint') does not count any more",
    ] {
        assert!(events.contains(words), "{words}: {events}");
    }
    let log = fs::read_to_string(daemon.log()).unwrap();
    for words in [
        "what backends ask for by their agents does not count",
        "enough is left again",
    ] {
        assert!(log.contains(words), "{words}");
    }
}

#[test]
fn backends_get_what_they_ask_for_and_no_connection_breaks() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let servers = Web::start_all(&bed).unwrap();
    let mut agents = Agent::start_all(&bed, "up 100%").unwrap();
    // What was said before the start holds from the first table on.
    agents[2].say("drain # new kernel").unwrap();
    let mut daemon = Daemon::start(&bed, &config(&bed)).unwrap();
    let status = daemon.status().unwrap();
    assert_eq!(
        (status["generation"].as_u64(), slots(&status)[2]),
        (Some(1), 0),
        "{status}"
    );
    let traffic = traffic(&bed).unwrap();
    let seen = backend(&status, 2);
    assert_eq!(seen["health"], "up");
    assert_eq!(
        seen["out_of_ring"],
        "its agent asks for no new flows ('drain'): new kernel"
    );
    let text = ask(&daemon, &["status"]);
    assert!(
        text.contains("b3 asks by its agent for no new flows ('drain')"),
        "{text}"
    );

    agents[2].say("ready").unwrap();
    let status = wait::until("b3 to be back", PATIENCE, || {
        let status = daemon.status()?;
        ensure!(slots(&status)[2] > 0, "{}", backend(&status, 2));
        Ok(status)
    })
    .unwrap();
    let even = slots(&status);
    let all: u64 = even.iter().sum();

    // A part of the weight: 2.5 are left, of which b2 has one half.
    agents[1].say("50%").unwrap();
    let status = await_slots(&daemon, 1, all / 5);
    assert_eq!(backend(&status, 1)["weight_in_force"], 0.5);
    assert_eq!(backend(&status, 1)["agent"]["part"], 0.5);

    // No new flows, at once; those that it has stay.
    agents[1].say("drain # new kernel").unwrap();
    let status = await_slots(&daemon, 1, 0);
    assert_eq!(backend(&status, 1)["agent"]["state"], "drain");
    assert_eq!(backend(&status, 1)["agent"]["note"], "new kernel");
    let began = backend(&status, 1)["packets"].as_u64();
    wait::until("its connections to go on", PATIENCE, || {
        let now = backend(&daemon.status()?, 1)["packets"].as_u64();
        ensure!(now > began, "{now:?} after {began:?}");
        Ok(())
    })
    .unwrap();

    // An operator's word is the last one, whatever the agent says.
    ask(
        &daemon,
        &["backend", "weight", "web", "b2", "1", "--reason", "it lies"],
    );
    let status = await_slots(&daemon, 1, even[1]);
    assert_eq!(backend(&status, 1)["agent"]["ignored"], "override");
    agents[1].say("maint").unwrap();
    let status = await_agent(&daemon, 1, "state", &"maint".into());
    assert!(slots(&status)[1] > 0, "{status}");
    ask(&daemon, &["backend", "enable", "web", "b2"]);
    await_slots(&daemon, 1, 0);

    // Another one may go, and a third would leave too little: then nobody's wish counts.
    agents[0].say("stopped # deployed").unwrap();
    let status = await_agent(&daemon, 0, "ignored", &"too-little-left".into());
    assert_eq!(slots(&status), even, "{status}");
    assert_eq!(backend(&status, 1)["agent"]["ignored"], "too-little-left");
    agents[0].say("up").unwrap();
    await_slots(&daemon, 1, 0);

    // Silence: the last word counts for a while, also over a crash, and then no longer.
    agents[1].kill();
    let status = wait::until("the silence to be noticed", PATIENCE, || {
        let status = daemon.status()?;
        ensure!(
            backend(&status, 1)["agent"]["failure"].is_string(),
            "{status}"
        );
        Ok(status)
    })
    .unwrap();
    assert_eq!(slots(&status)[1], 0, "{status}");
    daemon.restart().unwrap();
    let status = daemon.status().unwrap();
    assert_eq!(slots(&status)[1], 0, "{status}");
    let status = await_slots(&daemon, 1, even[1]);
    assert_eq!(backend(&status, 1)["agent"]["state"], "silent");
    assert_eq!(
        backend(&status, 1)["agent"]["failure"],
        "connection refused"
    );

    assert_told(&daemon);
    daemon.check_running().unwrap();

    let outcome = traffic.stop().unwrap();
    let failures: Vec<_> = outcome.failures().collect();
    assert!(failures.is_empty(), "{failures:?}");
    assert!(outcome.report.kept.ok > 1000, "{:?}", outcome.report);
    drop(servers);
}
