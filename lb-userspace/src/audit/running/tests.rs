use serde_json::{Value, json};

use super::*;
use crate::{config, doctor::finding::Remedy};

fn configured(weights: [u16; 3]) -> Config {
    let backends: Vec<String> = (11..)
        .zip(weights)
        .map(|(n, weight)| {
            format!("[[services.backends]]\naddress = \"10.0.0.{n}\"\nweight = {weight}\n")
        })
        .collect();
    let backends = backends.concat();
    let text = format!(
        "[data_plane]\ninterfaces = [\"eth0\"]\n[tracking]\nestablished = 1024\n[[services]]\n\
         name = \"web\"\nvip = \"198.51.100.10\"\nport = 80\n{backends}"
    );
    config::parse("test", &text).unwrap()
}

/// A status as the controller of [`configured`] would give it, with a part of it changed.
fn status(change: impl FnOnce(&mut Value)) -> Status {
    let backend = |n: u8, slots: u32| {
        json!({
            "name": format!("10.0.0.{n}"), "address": format!("10.0.0.{n}"), "weight": 1,
            "capacity": null, "health": "up", "health_since_ms": 0, "last_probe": null,
            "out_of_ring": null, "next_hop": null, "slots": slots, "intended_share": 0.33,
            "observed_share": null, "observed_over_s": 0.0, "packets": 0, "bytes": 0,
            "new_flows": 0, "packet_rate": 0.0, "byte_rate": 0.0, "new_flow_rate": 0.0,
        })
    };
    let mut value = json!({
        "version": "0", "pid": 1, "started_at_ms": 0, "now_ms": 0, "config_file": "f",
        "config_sha256": "abc", "generation": 1, "published_at_ms": null, "interfaces": [],
        "tables": {
            "as_intended": true, "checked_at_ms": 0, "differing_slots": 0, "differences": [],
        },
        "exits": {},
        "services": [{
            "name": "web", "key": "tcp 198.51.100.10:80", "vip": "198.51.100.10", "port": 80,
            "protocol": "tcp", "mode": "dsr", "ring_slots": 256, "on_empty": "drop",
            "serving": 3, "exits": {}, "remembered": {
                "flows": 0, "slots_in_transition": 0, "slots_pinned": 0, "changed_at_ms": null,
            },
            "evenness": {
                "verdict": "even", "message": "", "detectable_skew": null,
                "detectable_within_s": null, "findings": [],
            },
            "backends": [backend(11, 85), backend(12, 86), backend(13, 85)],
        }],
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn found(config: &Config, status: &Status) -> Vec<(&'static str, String)> {
    let findings = judge(config, Some("abc"), status);
    findings.iter().map(|f| (f.rule, f.place())).collect()
}

#[test]
fn what_is_as_it_should_be_is_not_told() {
    assert_eq!(found(&configured([1; 3]), &status(|_| {})), []);
}

#[test]
fn each_rule_finds_its_fault() {
    let equal = configured([1; 3]);
    let web = |rule| vec![(rule, "web".to_owned())];
    let drift = status(|s| s["tables"]["as_intended"] = false.into());
    assert_eq!(found(&equal, &drift), [("L1", String::new())]);
    let other = status(|s| s["config_sha256"] = "def".into());
    assert_eq!(found(&equal, &other), [("L32", String::new())]);
    let full = status(|s| {
        s["tracking"] = json!({
            "flows": 600, "fresh": 0, "established": 0, "refused": 0, "collisions": 0,
        });
    });
    assert_eq!(found(&equal, &full), [("L23", String::new())]);
    let nobody = status(|s| s["services"][0]["serving"] = 0.into());
    assert_eq!(found(&equal, &nobody), web("L2"));
    let uneven = status(|s| {
        s["services"][0]["backends"][0]["slots"] = 40.into();
        s["services"][0]["backends"][1]["slots"] = 131.into();
    });
    let two = [
        ("L3", "web/10.0.0.11".to_owned()),
        ("L3", "web/10.0.0.12".to_owned()),
    ];
    assert_eq!(found(&equal, &uneven), two);
    // One that is out has no share, and the others have more.
    let out = status(|s| {
        let backends = &mut s["services"][0]["backends"];
        backends[0]["out_of_ring"] = "down".into();
        for (n, slots) in [(0, 0), (1, 128), (2, 128)] {
            backends[n]["slots"] = slots.into();
        }
    });
    assert_eq!(found(&equal, &out), []);
    assert_eq!(
        found(&configured([1, 3, 1]), &status(|_| {})),
        [("L28", "web/10.0.0.12".to_owned())]
    );
    // A drain is no slip, and twice as much is not much.
    assert_eq!(found(&configured([0, 2, 1]), &status(|_| {})), []);
}

#[test]
fn a_look_at_the_host_becomes_findings_where_there_is_a_rule() {
    let seen =
        |level, rule| Seen::new(level, rule, "eth0", "something", "", Remedy::words("do it"));
    let findings = host(&[
        seen(Bad::Warning, "lro"),
        seen(Bad::Error, "mtu-headroom"),
        seen(Bad::Info, "queues"),
        seen(Bad::Error, "privilege"),
    ]);
    let of: Vec<_> = findings
        .iter()
        .map(|f| (f.rule, f.level, f.what.as_str()))
        .collect();
    assert_eq!(
        of,
        [
            ("L30", Level::Warning, "eth0: something"),
            ("L20", Level::Error, "eth0: something"),
        ]
    );
}

#[test]
fn a_way_that_nobody_went_for_long_is_told() {
    let told = |taken: Value| {
        let receiver = json!({
            "name": "ops", "type": "file", "sent": 0, "failed": 0, "dropped": 0, "held_back": 0,
            "waiting": 0, "waiting_since_ms": null, "failing_since_ms": null, "last_error": null,
            "last_error_at_ms": null, "last_taken_at_ms": taken,
        });
        let status = status(|value| {
            value["now_ms"] = json!(TESTED + 5);
            value["notify"] =
                json!({ "receivers": [receiver], "spool_failure": null, "unwritten": 0 });
        });
        found(&configured([1; 3]), &status)
    };
    assert_eq!(told(json!(6)), []);
    assert_eq!(told(json!(5)), [("L26", String::new())]);
    assert_eq!(told(Value::Null), [("L26", String::new())]);
}
