//! What happened can be read afterwards, and a disk that takes nothing hurts nobody.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    time::Duration,
};

use anyhow::ensure;
use evenkeel_tests::{
    daemon::Daemon,
    server::Web,
    tools,
    topology::{Spec, Topology, VIP4},
    traffic::{Load, Traffic},
    wait,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

/// What `evenkeel events --json` shows, or another command that names the state directory.
fn ask(bed: &Topology, arguments: &[&str]) -> String {
    let mut command = bed.balancer.command_at(&tools::evenkeel().unwrap());
    command.args(arguments).arg("--state").arg(bed.state());
    tools::output(&mut command).unwrap()
}

fn events(bed: &Topology, more: &[&str]) -> Vec<Value> {
    let all = ask(bed, &[&["events", "--json"], more].concat());
    all.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events
        .iter()
        .filter(|event| event["kind"] == kind)
        .collect()
}

fn slots_of(daemon: &Daemon<'_>, backend: usize) -> u64 {
    let status = daemon.status().unwrap();
    status["services"][0]["backends"][backend]["slots"]
        .as_u64()
        .unwrap()
}

#[test]
fn the_journal_tells_what_happened_and_why() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let mut servers = Web::start_all(&bed).unwrap();
    let config = bed.config_head() + &bed.web_service("web", VIP4);
    let mut daemon = Daemon::start(&bed, &config).unwrap();
    let mut follow = bed.balancer.command_at(&tools::evenkeel().unwrap());
    follow.args(["events", "--follow", "--json", "--kind", "note", "--state"]);
    let mut follow = follow
        .arg(bed.state())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let before = slots_of(&daemon, 1);
    servers[1].kill();
    wait::until("the dead backend to leave the ring", PATIENCE, || {
        ensure!(slots_of(&daemon, 1) == 0, "it is there");
        Ok(())
    })
    .unwrap();
    ask(&bed, &["note", "switch port\nreplaced", "--service", "web"]);
    servers[1].start_again().unwrap();
    wait::until("the backend to come back", PATIENCE, || {
        ensure!(slots_of(&daemon, 1) == before, "it is away");
        Ok(())
    })
    .unwrap();
    daemon.terminate().unwrap();
    daemon.restart().unwrap();
    daemon.terminate().unwrap();

    let mut line = String::new();
    BufReader::new(follow.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    follow.kill().unwrap();
    follow.wait().unwrap();
    let followed: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(followed["message"], "switch port\nreplaced");

    let all = events(&bed, &[]);
    let ids: Vec<_> = all
        .iter()
        .map(|event| event["id"].as_i64().unwrap())
        .collect();
    assert!(ids.is_sorted(), "{ids:?}");
    assert_eq!(of_kind(&all, "start").len(), 2);
    let stops = of_kind(&all, "stop");
    assert_eq!(stops.len(), 2);
    assert!(stops[0]["message"].as_str().unwrap().contains("SIGTERM"));
    let health: Vec<_> = of_kind(&all, "health")
        .into_iter()
        .filter(|event| event["backend"] == "b2")
        .map(|event| event["detail"]["to"].as_str().unwrap())
        .collect();
    // Up at the first start and taken for granted at the second.
    assert_eq!(health, ["up", "down", "up"]);
    let publications = of_kind(&all, "publication");
    let down = publications
        .iter()
        .find(|event| event["detail"]["why"] == serde_json::json!(["web/b2 is down"]))
        .unwrap_or_else(|| panic!("{publications:#?}"));
    let moved = down["detail"]["slots"].as_array().unwrap();
    let of_b2 = moved.iter().find(|moved| moved["backend"] == "b2").unwrap();
    assert_eq!(
        (of_b2["before"].as_u64(), of_b2["after"].as_u64()),
        (Some(before), Some(0))
    );
    let generations: Vec<_> = publications
        .iter()
        .map(|p| p["generation"].as_u64().unwrap())
        .collect();
    assert!(generations.is_sorted_by(|a, b| a < b), "{generations:?}");
    let note = of_kind(&all, "note");
    assert_eq!((&note[0]["service"], note.len()), (&"web".into(), 1));
    assert_ne!(note[0]["actor"], "controller");

    // As people read it.
    let text = ask(&bed, &["events", "--level", "warning", "--since", "1h"]);
    assert!(
        text.contains("warning  health       web/b2 is down: "),
        "{text}"
    );
    assert!(!text.contains("publication"), "{text}");
    let last = ask(&bed, &["events", "--lines", "1"]);
    assert!(last.lines().count() == 1 && last.contains("stop"), "{last}");
}

#[test]
fn a_full_disk_stops_neither_forwarding_nor_probing_and_loses_no_event() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let mut servers = Web::start_all(&bed).unwrap();
    let state = bed.state();
    std::fs::create_dir(&state).unwrap();
    let disk = state.to_str().unwrap();
    // Inside the balancer's own mounts it would be gone for the readers.
    tools::output(std::process::Command::new("mount").args([
        "-t", "tmpfs", "-o", // Enough for what is written meanwhile, history too.
        "size=2m", "none", disk,
    ]))
    .unwrap();
    let config = bed.config_head() + &bed.web_service("web", VIP4);
    let daemon = Daemon::start(&bed, &config).unwrap();
    let filler = state.join("filler");
    // It ends with 'no space left'.
    let _ = std::fs::write(&filler, vec![1; 4 << 20]);
    let traffic = Traffic::start(&bed, Load::new(VIP4, Duration::from_mins(2))).unwrap();
    let failure = || -> anyhow::Result<Option<String>> {
        let failure = &daemon.status()?["journal"]["failure"];
        Ok(failure.as_str().map(ToOwned::to_owned))
    };
    let mut turns = 0;
    let why = wait::until("the journal to fail", PATIENCE * 3, || {
        // Each turn has something to tell.
        let serves = turns % 2 == 1;
        if serves {
            servers[1].start_again()?;
        } else {
            servers[1].kill();
        }
        turns += 1;
        wait::until("the ring to follow", PATIENCE, || {
            ensure!((slots_of(&daemon, 1) > 0) == serves, "not yet");
            Ok(())
        })?;
        failure()?.ok_or_else(|| anyhow::anyhow!("events are still written"))
    })
    .unwrap();
    assert!(why.contains("full"), "{why}");
    let up = turns % 2 == 0;
    std::fs::remove_file(&filler).unwrap();
    wait::until("the journal to be written again", PATIENCE, || {
        ensure!(failure()?.is_none(), "it is not");
        Ok(())
    })
    .unwrap();
    let status = daemon.status().unwrap();
    assert_eq!(status["journal"]["lost"], 0);
    let outcome = traffic.stop().unwrap();
    assert!(outcome.report.new.ok > 100, "{:?}", outcome.report);
    drop(daemon);
    let all = events(&bed, &["--backend", "b2"]);
    let last = all.last().unwrap();
    assert_eq!(last["detail"]["to"], if up { "up" } else { "down" });
    assert_eq!(all.len(), turns + 1, "{all:#?}");
    tools::output(std::process::Command::new("umount").arg(disk)).unwrap();
}
