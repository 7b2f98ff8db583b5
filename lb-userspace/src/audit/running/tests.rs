use serde_json::{Value, json};

use super::*;
use crate::{audit::testing::status, config, doctor::finding::Remedy};

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

#[test]
fn a_backend_that_does_not_answer_for_the_vip_is_told() {
    let configured = |via: &str| {
        let text = format!(
            "[data_plane]\ninterfaces = [\"eth0\"]\n[[services]]\nname = \"web\"\n\
             vip = \"198.51.100.10\"\nport = 80\n[services.health]\ntype = \"tcp\"\n\
             via = \"{via}\"\n[[services.backends]]\naddress = \"10.0.0.11\"\n"
        );
        config::parse("test", &text).unwrap()
    };
    let down = |health: &str| {
        status(|s| {
            let backend = &mut s["services"][0]["backends"][0];
            backend["health"] = health.into();
            backend["last_probe"] =
                json!({ "at_ms": 0, "passed": false, "took_ms": 500.0, "detail": "no answer" });
        })
    };
    let web = vec![("L21", "web/10.0.0.11".to_owned())];
    assert_eq!(found(&configured("vip"), &down("down")), web);
    // One failed probe is none.
    assert_eq!(found(&configured("vip"), &down("up")), []);
    // That it is down is told by an alert; which way it fails on is not known.
    assert_eq!(found(&configured("direct"), &down("down")), []);
}

#[test]
fn who_was_left_out_for_a_day_is_told() {
    let told = |kind: &str, since: u64| {
        let status = status(|s| {
            s["now_ms"] = json!(FORGOTTEN + 5);
            s["services"][0]["backends"][1]["override"] = json!({
                "service": "web", "backend": "10.0.0.12", "kind": kind, "weight": 0,
                "configured_weight": 1, "actor": "uid 0", "reason": "new disks",
                "since_ms": since, "expires_at_ms": null, "drain": null,
            });
        });
        found(&configured([1; 3]), &status)
    };
    let web = vec![("L27", "web/10.0.0.12".to_owned())];
    assert_eq!(told("drain", 4), web);
    assert_eq!(told("disable", 4), web);
    assert_eq!(told("drain", 5), []);
    assert_eq!(told("weight", 4), []);
}

#[test]
fn who_takes_itself_out_for_a_day_is_told() {
    let told = |part: f64, since: u64, overridden: bool| {
        let status = status(|s| {
            s["now_ms"] = json!(FORGOTTEN + 5);
            let backend = &mut s["services"][0]["backends"][1];
            backend["agent"] = json!({
                "state": "drain", "percent": 100, "note": "new disks", "part": part,
                "since_ms": since, "heard_at_ms": since,
            });
            if overridden {
                backend["override"] = json!({
                    "service": "web", "backend": "10.0.0.12", "kind": "weight", "weight": 1,
                    "configured_weight": 1, "actor": "uid 0", "reason": null,
                    "since_ms": since, "expires_at_ms": null, "drain": null,
                });
            }
        });
        found(&configured([1; 3]), &status)
    };
    let web = vec![("L27", "web/10.0.0.12".to_owned())];
    assert_eq!(told(0.0, 4, false), web);
    assert_eq!(told(0.0, 5, false), []);
    assert_eq!(told(0.5, 4, false), [], "it serves");
    assert_eq!(told(0.0, 4, true), [], "an operator decided otherwise");
}

#[test]
fn few_clients_that_stay_with_their_backend_are_told() {
    let told = |spread: &str, effective: Value| {
        let text = format!(
            "[data_plane]\ninterfaces = [\"eth0\"]\n[[services]]\nname = \"web\"\n\
             vip = \"198.51.100.10\"\nport = 80\nspread = \"{spread}\"\n\
             [[services.backends]]\naddress = \"10.0.0.11\"\n"
        );
        let status = status(|s| {
            s["services"][0]["evenness"]["clients"] =
                json!({ "samples": 900, "effective": effective, "heaviest": [] });
        });
        found(&config::parse("test", &text).unwrap(), &status)
    };
    let web = vec![("L22", "web".to_owned())];
    assert_eq!(told("source", json!(74.0)), web);
    assert_eq!(told("source", json!(76.0)), []);
    assert_eq!(told("source", Value::Null), []);
    assert_eq!(told("flow", json!(3.0)), []);
}
