//! Somebody else writes to the kernel's tables: it is told, with the slots, and put right without
//! harm to anybody; who does it again and again is not fought.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{thread, time::Duration};

use anyhow::{anyhow, ensure};
use aya::maps::{Array, ArrayOfMaps, Map, MapData};
use evenkeel_tests::{
    daemon::Daemon,
    server::Web,
    topology::{Spec, Topology, VIP4},
    traffic::{Load, Traffic},
    wait,
};
use lb_common::layout::{NONE, SMALL_RING_SLOTS, Slot};
use lb_userspace::dataplane::pin;
use serde_json::Value;

/// The tables are compared every 10 s.
const PATIENCE: Duration = Duration::from_secs(25);

type Ring = [u32; SMALL_RING_SLOTS];

/// The service's ring that packets follow, once it is the only one: what it replaced lies beside it
/// until the controller frees it.
fn ring(bed: &Topology) -> Array<MapData, Ring> {
    let outer = MapData::from_pin(pin(&bed.pins(), "SMALL_RINGS")).unwrap();
    let outer = Map::from_map_data(outer).unwrap();
    let outer: ArrayOfMaps<MapData> = outer.try_into().unwrap();
    // The first service's two numbers, of which one is in use and the other may never have been.
    let live = || {
        let rings = [0, 1].into_iter().filter_map(|number| {
            let data = outer.get(&number, 0).ok()?;
            let map = Map::from_map_data(data).unwrap();
            let ring = Array::<MapData, Ring>::try_from(map).unwrap();
            let [slot, ..] = ring.get(&0, 0).unwrap();
            (bytemuck::cast::<u32, Slot>(slot).owner() != NONE).then_some(ring)
        });
        rings.collect::<Vec<_>>()
    };
    wait::until("one live ring", PATIENCE, || {
        let [ring] =
            <[_; 1]>::try_from(live()).map_err(|rings| anyhow!("there are {}", rings.len()))?;
        Ok(ring)
    })
    .unwrap()
}

/// Gives every second slot to whoever has the one before it. Answers how many that changes.
fn damage(bed: &Topology) -> u64 {
    let mut ring = ring(bed);
    let mut slots = ring.get(&0, 0).unwrap();
    let before = slots;
    for pair in slots.as_chunks_mut::<2>().0 {
        pair[1] = pair[0];
    }
    ring.set(0, slots, 0).unwrap();
    let differs = before.iter().zip(&slots).filter(|(a, b)| a != b);
    differs.count() as u64
}

fn drifts(daemon: &Daemon<'_>) -> Vec<Value> {
    let output = daemon
        .ask(&["events", "--json", "--kind", "drift"])
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Waits until the alert about tables is on with this severity, and with no other.
fn await_alert(daemon: &Daemon<'_>, severity: &str) {
    wait::until(format!("a {severity} about tables"), PATIENCE, || {
        let status = daemon.status()?;
        let alerts = status["alerts"].as_array().unwrap().iter();
        let tables = alerts.filter(|alert| alert["name"] == "TableDrift");
        let on: Vec<_> = tables.map(|alert| &alert["severity"]).collect();
        ensure!(on == [severity], "{on:?}");
        Ok(())
    })
    .unwrap();
}

/// Waits for the beginning of the time between two comparisons.
fn await_comparison(daemon: &Daemon<'_>) {
    let at = |daemon: &Daemon<'_>| daemon.status().unwrap()["tables"]["checked_at_ms"].clone();
    let before = at(daemon);
    wait::until("a comparison", PATIENCE, || {
        ensure!(at(daemon) != before, "none came");
        Ok(())
    })
    .unwrap();
}

fn await_tables(daemon: &Daemon<'_>, what: &str, so: impl Fn(&Value) -> bool) {
    wait::until(what, PATIENCE, || {
        let tables = daemon.status()?["tables"].clone();
        ensure!(so(&tables), "{tables}");
        Ok(())
    })
    .unwrap();
}

fn apply(bed: &Topology, daemon: &Daemon<'_>, config: &str) {
    let file = bed.dir().write("next.toml", config).unwrap();
    let output = daemon.ask(&["apply", file.to_str().unwrap()]).unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Clients that come after the damage, which itself breaks what is under way.
fn clients(bed: &Topology) -> Traffic<'_> {
    let load = Load {
        kept: 100,
        ..Load::new(VIP4, Duration::from_mins(2))
    };
    let traffic = Traffic::start(bed, load).unwrap();
    thread::sleep(Duration::from_secs(2));
    traffic
}

#[track_caller]
fn all_answered(traffic: Traffic<'_>) {
    thread::sleep(Duration::from_secs(2));
    let outcome = traffic.stop().unwrap();
    let failures: Vec<_> = outcome.failures().take(5).collect();
    assert!(failures.is_empty(), "{failures:?}");
    assert!(outcome.report.new.ok > 200, "{:?}", outcome.report);
    assert!(outcome.report.kept.ok > 1_000, "{:?}", outcome.report);
}

#[test]
fn damaged_slots_are_told_and_repaired_and_nobody_is_harmed() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let config = |on_drift: &str| {
        let head = bed.config_head();
        let key = format!("[data_plane]\non_drift = \"{on_drift}\"\n");
        head.replacen("[data_plane]\n", &key, 1) + &bed.web_service("web", VIP4)
    };
    let daemon = Daemon::start(&bed, &config("report")).unwrap();
    let owners = || {
        let slots = ring(&bed).get(&0, 0).unwrap();
        slots.map(|slot| bytemuck::cast::<u32, Slot>(slot).owner())
    };
    let intended = owners();
    let count = |count: u64, as_intended: bool| {
        move |tables: &Value| {
            tables["repairs"]["count"] == count && tables["as_intended"] == as_intended
        }
    };

    // Told, and left alone, as configured.
    let slots = damage(&bed);
    assert!(slots > 50, "{slots}");
    let traffic = clients(&bed);
    await_tables(&daemon, "the damage to be told", |tables| {
        tables["differing_slots"] == slots
    });
    await_alert(&daemon, "page");
    let told = drifts(&daemon);
    assert_eq!((told.len(), &told[0]["level"]), (1, &"error".into()));
    assert_eq!(told[0]["detail"]["slots"], slots);
    // The verdict names it as the cause.
    let evenness = daemon.status().unwrap()["services"][0]["evenness"].clone();
    assert_eq!(evenness["verdict"], "skewed", "{evenness:#}");
    assert_eq!(evenness["cause"]["kind"], "drift", "{evenness:#}");
    await_comparison(&daemon);
    await_tables(&daemon, "no repair", count(0, false));

    // Once it may be, it is repaired: all slots are whose they were, and connections that were
    // opened by the damaged ones stay where they are.
    apply(&bed, &daemon, &config("repair"));
    await_tables(&daemon, "the repair", count(1, true));
    assert!(owners() == intended, "new connections go where they should");
    all_answered(traffic);
    await_alert(&daemon, "ticket");
    let told = drifts(&daemon);
    let last = told.last().unwrap();
    let message = last["message"].as_str().unwrap();
    assert!(message.contains("repaired by generation"), "{message}");
    assert_eq!(last["detail"]["repairs"], 1);

    // Three times. The fourth is a fight.
    for repairs in 2..=3 {
        damage(&bed);
        let traffic = clients(&bed);
        await_tables(&daemon, "the next repair", count(repairs, true));
        all_answered(traffic);
    }
    damage(&bed);
    await_tables(&daemon, "the end of repairs", |tables| {
        tables["repairs"]["given_up"] == true
    });
    await_comparison(&daemon);
    await_tables(&daemon, "no repair", count(3, false));
    await_alert(&daemon, "page");
    let told = drifts(&daemon);
    let given_up = |event: &Value| {
        let message = event["message"].as_str().unwrap();
        message.contains("nothing is repaired any more")
    };
    assert_eq!(told.iter().filter(|event| given_up(event)).count(), 1);
}
