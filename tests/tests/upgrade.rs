//! Another build takes over from the one that runs, and nobody notices: over the same layout, from
//! an older one, and with a crash at any step. What cannot be read is left alone.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ways;

use std::{collections::BTreeMap, fs, path::Path, thread, time::Duration};

use aya::{maps::MapData, programs::ProgramInfo};
use evenkeel_tests::{
    daemon::Daemon,
    tools,
    topology::{Service, VIP4},
    traffic::{Load, Outcome, Traffic},
};
use serde_json::Value;
use ways::{Bed, Way};

const BACKENDS: u8 = 3;

fn config(bed: &Bed, weights: [u32; BACKENDS as usize]) -> String {
    let weight = |(number, weight)| (number, format!("weight = {weight}\ncapacity = {weight}"));
    let service = bed.topology.service(&Service {
        backends: weights.into_iter().enumerate().map(weight).collect(),
        ..bed.web("web", VIP4)
    });
    bed.head() + &service
}

fn traffic(bed: &Bed) -> Traffic<'static> {
    let load = Load {
        rate: 100,
        kept: 150,
        kept_every: Duration::from_millis(300),
        ..Load::new(VIP4, Duration::from_mins(3))
    };
    let traffic = Traffic::start(bed.topology, load).unwrap();
    thread::sleep(Duration::from_secs(2));
    traffic
}

/// Ends the traffic, of which nothing may have failed or gone to another backend.
#[track_caller]
fn all_answered(bed: &Bed, traffic: Traffic<'_>) -> Outcome {
    let outcome = traffic.stop().unwrap();
    let failures: Vec<_> = outcome.failures().take(5).collect();
    assert!(
        failures.is_empty(),
        "{:?}: {failures:?} of {:?}",
        bed.way,
        outcome.report
    );
    assert!(outcome.report.new.ok > 100, "{:?}", outcome.report);
    assert!(outcome.report.kept.ok > 500, "{:?}", outcome.report);
    outcome
}

/// Gives half of the slots another owner, so that flows are remembered.
fn begin_a_transition(bed: &Bed, daemon: &Daemon<'_>) {
    let next = bed
        .topology
        .dir()
        .write("next.toml", &config(bed, [3, 1, 1]));
    let apply = ["apply", next.as_ref().unwrap().to_str().unwrap()];
    let output = daemon.ask(&apply).unwrap();
    assert!(output.status.success(), "{output:?}");
    // Every kept connection sends something in the transition.
    thread::sleep(Duration::from_secs(1));
}

/// Every pin with the kernel's number of what it pins, but for links.
fn pins(bed: &Bed) -> BTreeMap<String, u32> {
    let folder = bed.topology.pins();
    let mut pins = BTreeMap::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let path = folder.join(&name);
        let id = match name.as_str() {
            "program" => ProgramInfo::from_pin(path).unwrap().id(),
            link if link.starts_with("link-") => continue,
            _ => MapData::from_pin(path).unwrap().info().unwrap().id(),
        };
        pins.insert(name, id);
    }
    pins
}

/// What the program is made of, in the kernel's short.
fn tag(bed: &Bed) -> u64 {
    let pin = bed.topology.pins().join("program");
    ProgramInfo::from_pin(pin).unwrap().tag()
}

/// What of a status an upgrade must not change.
fn kept(status: &Value) -> Value {
    let service = &status["services"][0];
    let mut remembered = service["remembered"].clone();
    remembered["flows"] = Value::Null;
    let slots = service["backends"].as_array().unwrap().iter();
    let slots: Vec<_> = slots.map(|backend| &backend["slots"]).collect();
    serde_json::json!([service["ring_slots"], remembered, slots])
}

fn sent(status: &Value) -> u64 {
    let backends = status["services"][0]["backends"].as_array().unwrap();
    let packets = backends.iter().map(|backend| backend["packets"].as_u64());
    packets.map(Option::unwrap).sum()
}

/// An older build refuses what it cannot read, and touches nothing.
fn is_refused(bed: &Bed, daemon: &mut Daemon<'_>, binary: &Path) {
    daemon.kill();
    let before = pins(bed);
    let refused = daemon.attempt(binary).unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    for part in [
        "was pinned by a newer version of evenkeel (layout 3, this one reads up to 2)",
        "run that version or a later one",
        "packets go on as they did",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(pins(bed), before);
}

fn each_way(test: fn(&Bed)) {
    thread::scope(|scope| {
        for way in [Way::Dsr, Way::Snat] {
            scope.spawn(move || test(&way.bed(BACKENDS)));
        }
    });
}

#[test]
fn another_program_over_the_same_layout_takes_its_place() {
    each_way(|bed| {
        let _servers = bed.servers();
        let (own, other) = (
            tools::evenkeel().unwrap(),
            tools::evenkeel_with("other-program").unwrap(),
        );
        let mut daemon = Daemon::start(bed.topology, &config(bed, [1, 1, 1])).unwrap();
        let traffic = traffic(bed);
        begin_a_transition(bed, &daemon);
        let before = daemon.status().unwrap();
        let (first, maps) = (tag(bed), pins(bed));
        for binary in [&other, &own] {
            daemon.upgrade(binary).unwrap();
            thread::sleep(Duration::from_secs(1));
            assert_eq!(tag(bed) == first, binary == &own);
            // The maps are the same ones, with all that they hold.
            let mut now = pins(bed);
            now.insert("program".to_owned(), maps["program"]);
            assert_eq!(now, maps);
            let after = daemon.status().unwrap();
            assert_eq!(after["generation"], before["generation"]);
            assert_eq!(kept(&after), kept(&before));
        }
        all_answered(bed, traffic);
    });
}

#[test]
fn maps_of_another_layout_are_filled_from_the_old_ones() {
    each_way(|bed| {
        let _servers = bed.servers();
        let next = tools::evenkeel_with("next-layout").unwrap();
        let mut daemon = Daemon::start(bed.topology, &config(bed, [1, 1, 1])).unwrap();
        let traffic = traffic(bed);
        begin_a_transition(bed, &daemon);
        let (before, maps) = (daemon.status().unwrap(), pins(bed));
        // In mode `snat` every flow is remembered, so that its slots need no transition.
        let remembered = &before["services"][0]["remembered"];
        let in_transition = remembered["slots_in_transition"].as_u64().unwrap();
        assert_eq!(in_transition > 0, bed.way == Way::Dsr);
        daemon.upgrade(&next).unwrap();
        let (after, now) = (daemon.status().unwrap(), pins(bed));
        // Other maps, of which each says what the old one said.
        assert_eq!(now.len(), maps.len(), "{now:?}");
        for name in ["TABLES", "RINGS", "SMALL_RINGS", "SOURCES"] {
            let version = |version| format!("{name}-{version}");
            assert!(!now.contains_key(&version(3)) && now.contains_key(&version(4)));
        }
        for name in ["FRESH", "ESTABLISHED", "FRAGMENTS"] {
            assert!(!now.contains_key(name) && now.contains_key(&format!("{name}-3")));
        }
        assert_eq!(kept(&after), kept(&before));
        // What has not changed is shared.
        assert_eq!(now["ENDPOINTS-3"], maps["ENDPOINTS-3"]);
        assert!(sent(&after) > sent(&before));
        assert_eq!(after["tables"]["as_intended"], true);
        thread::sleep(Duration::from_secs(2));

        is_refused(bed, &mut daemon, &tools::evenkeel().unwrap());
        daemon.restart().unwrap();
        assert_eq!(kept(&daemon.status().unwrap()), kept(&before));
        thread::sleep(Duration::from_secs(2));
        let outcome = all_answered(bed, traffic);
        assert_eq!(outcome.report.kept.by_backend.len(), usize::from(BACKENDS));
        // All of it is taken away again, whatever its version.
        daemon.terminate().unwrap();
        daemon.unload().unwrap();
        assert!(!bed.topology.pins().exists());
    });
}

/// A crash at a step of an upgrade in mode `snat`, where every connection stands on the flows.
fn crash_at(step: &str, attached: bool) {
    let bed = &Way::Snat.bed(BACKENDS);
    let _servers = bed.servers();
    let (own, next) = (
        tools::evenkeel().unwrap(),
        tools::evenkeel_with("next-layout").unwrap(),
    );
    let mut daemon = Daemon::start(bed.topology, &config(bed, [1, 1, 1])).unwrap();
    let maps = pins(bed);
    let traffic = traffic(bed);
    daemon.upgrade_and_crash(&next, step).unwrap();
    thread::sleep(Duration::from_millis(500));
    if attached {
        is_refused(bed, &mut daemon, &own);
    } else {
        // The older build goes on as if nothing had been, and clears away what was begun.
        let left = pins(bed);
        assert!(left.contains_key("TABLES-4"), "{step}: {left:?}");
        daemon.upgrade(&own).unwrap();
        let mut now = pins(bed);
        now.insert("program".to_owned(), maps["program"]);
        assert_eq!(now, maps, "{step}");
        daemon.upgrade_and_crash(&next, step).unwrap();
    }
    daemon.upgrade(&next).unwrap();
    let now = pins(bed);
    assert_eq!(now.len(), maps.len(), "{step}: {now:?}");
    assert!(!now.contains_key("TABLES-3"), "{step}: {now:?}");
    thread::sleep(Duration::from_secs(1));
    all_answered(bed, traffic);
}

#[test]
fn a_crash_before_the_program_is_replaced_changes_nothing() {
    for step in ["begun", "published"] {
        crash_at(step, false);
    }
}

#[test]
fn a_crash_after_the_program_was_replaced_is_made_good_by_the_next_start() {
    for step in ["attached", "carried", "retiring"] {
        crash_at(step, true);
    }
}
