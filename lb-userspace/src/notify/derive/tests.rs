use serde_json::{Value, json};

use super::*;

/// The status of the command line's tests, changed.
fn status(change: impl FnOnce(&mut Value)) -> Status {
    let text = include_str!("../../cli/status/render/fixture.json");
    let mut value: Value = serde_json::from_str(text).unwrap();
    for service in value["services"].as_array_mut().unwrap() {
        service["evenness"]["findings"] = json!([]);
        service["evenness"]["verdict"] = json!("even");
        service["syn_flood"] = Value::Null;
        service["serving"] = json!(1);
        for backend in service["backends"].as_array_mut().unwrap() {
            backend["health"] = json!("up");
            backend["weight"] = json!(1);
            backend["performance"] = Value::Null;
            backend["next_hop"] = json!({ "interface": "lb0", "gateway": null, "mac": "" });
        }
    }
    value["tables"] = json!({
        "as_intended": true, "checked_at_ms": 1, "differing_slots": 0, "differences": [],
    });
    value["journal"] = json!({ "failure": null, "lost": 0 });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn words(status: &Status, audited: &Audited) -> Vec<String> {
    let derived = derive(status, audited).unwrap();
    let word = |alert: &Alert| {
        let place = [&alert.key.service, &alert.key.backend, &alert.key.detail];
        let place: Vec<_> = place.into_iter().flatten().cloned().collect();
        format!(
            "{} {} {}",
            alert.key.severity,
            alert.key.name,
            place.join("/")
        )
        .trim_end()
        .to_owned()
    };
    derived.alerts.iter().map(word).collect()
}

/// The alerts after a change to the first service.
fn of_service(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let status = status(|value| change(&mut value["services"][0]));
    let name = status.services[0].name.clone();
    let found = words(&status, &Audited::default());
    found.iter().map(|word| word.replace(&name, "S")).collect()
}

#[test]
fn where_all_is_well_nothing_is_on() {
    assert_eq!(
        words(&status(|_| {}), &Audited::default()),
        Vec::<String>::new()
    );
}

#[test]
fn before_the_program_is_attached_nothing_can_be_told() {
    let starting = status(|value| {
        value["interfaces"] = json!([]);
        value["services"][0]["serving"] = json!(0);
    });
    assert_eq!(derive(&starting, &Audited::default()), None);
}

#[test]
fn what_concerns_the_host_has_no_service() {
    let drifted = status(|value| {
        value["tables"]["as_intended"] = json!(false);
        value["tables"]["differences"] = json!(["web: 3 slots differ"]);
        value["refused"] = json!("no memory");
        value["journal"]["failure"] = json!("disk full");
    });
    assert_eq!(
        words(&drifted, &Audited::default()),
        [
            "page TableDrift",
            "page PublicationRefused",
            "ticket JournalFailing"
        ]
    );
}

#[test]
fn what_was_repaired_is_told_for_a_while_and_what_is_not_is_a_page() {
    let tables = |as_intended: bool, recent: bool, given_up: bool| {
        status(|value| {
            value["tables"]["as_intended"] = json!(as_intended);
            value["tables"]["repairs"] = json!({
                "count": 3, "last_at_ms": 5, "last": ["web: 1 slots differ"],
                "recent": recent, "given_up": given_up,
            });
        })
    };
    let alerts = |status: &Status| {
        let derived = derive(status, &Audited::default()).expect("it is attached");
        let tables = derived.alerts.into_iter();
        tables
            .filter(|alert| alert.key.name == AlertName::TableDrift)
            .map(|alert| (alert.key.severity, alert.summary))
            .collect::<Vec<_>>()
    };
    assert_eq!(alerts(&tables(true, false, false)), []);
    let repaired = alerts(&tables(true, true, false));
    assert_eq!(repaired[0].0, Severity::Ticket);
    assert!(
        repaired[0].1.ends_with("are repaired: web: 1 slots differ"),
        "{repaired:?}"
    );
    let given_up = alerts(&tables(false, true, true));
    assert_eq!((given_up.len(), given_up[0].0), (1, Severity::Page));
    assert!(
        given_up[0].1.contains("3 repairs did not last"),
        "{given_up:?}"
    );
}

#[test]
fn each_state_of_a_service_has_its_alert() {
    let flood = json!({ "since_ms": 7, "syn_rate": 1e4, "syn_share": 0.9 });
    let finding = |reference: &str, severity: &str| {
        json!([{ "reference": reference, "severity": severity, "backend": "B", "ratio": 2.0,
                 "since_ms": 9, "message": "it is off" }])
    };
    for (key, value, expected) in [
        ("serving", json!(0), "page NoBackends S"),
        ("panic", json!("1 of 3 backends are up"), "page Panic S"),
        (
            "fleet_degraded",
            json!("3 of 3 are slow"),
            "page FleetDegraded S",
        ),
        ("demotions_frozen_s", json!(12.0), "info DemotionsFrozen S"),
        ("syn_flood", flood, "ticket FloodSeen S"),
    ] {
        assert_eq!(of_service(|service| service[key] = value), [expected]);
    }
    for (reference, severity, expected) in [
        ("flows", "page", "page TrafficSkewed S/B"),
        ("flows", "warning", "ticket TrafficSkewed S/B"),
        ("flows", "ticket", "ticket TrafficSkewed S/B"),
        ("table", "page", "page TableSkewed S/B"),
        ("config", "warning", "ticket WeightsSkewed S/B"),
        ("config", "ticket", "info WeightsSkewed S/B"),
    ] {
        let found = of_service(|service| {
            service["evenness"]["findings"] = finding(reference, severity);
        });
        assert_eq!(found, [expected]);
    }
    // Drift is the host's, and told once.
    let found = of_service(|service| service["evenness"]["findings"] = finding("drift", "page"));
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn each_state_of_a_backend_has_its_alert() {
    let performance = |state: &str, cause: &str| {
        json!({ "state": state, "part": 0.5, "cause": cause, "reason": "slow", "spared": null,
                "latency_ms": null, "peers_ms": null, "ratio": null, "evidence": 1.0,
                "next_rise_s": null })
    };
    for (key, value, expected) in [
        ("health", json!("down"), Some("ticket BackendDown")),
        ("health", json!("unknown"), None),
        ("next_hop", Value::Null, Some("ticket NeighbourUnresolved")),
        (
            "performance",
            performance("demoted", "slow"),
            Some("ticket BackendDemoted"),
        ),
        (
            "performance",
            performance("returning", "slow"),
            Some("ticket BackendDemoted"),
        ),
        (
            "performance",
            performance("spared", "slow"),
            Some("ticket BackendSlow"),
        ),
        (
            "performance",
            performance("spared", "failing"),
            Some("ticket BackendFailing"),
        ),
        ("performance", performance("suspect", "slow"), None),
        ("performance", performance("well", "slow"), None),
    ] {
        let found = of_service(|service| service["backends"][0][key] = value.clone());
        let found: Vec<_> = found
            .iter()
            .map(|word| word.split(" S/").next().unwrap())
            .collect();
        assert_eq!(
            found,
            expected.into_iter().collect::<Vec<_>>(),
            "{key} {value}"
        );
    }
    // Whoever was drained is not missed.
    let drained = of_service(|service| {
        service["backends"][0]["health"] = json!("down");
        service["backends"][0]["weight"] = json!(0);
    });
    assert!(drained.is_empty(), "{drained:?}");
}

#[test]
fn what_the_audit_fails_is_told_unless_it_has_an_alert_of_its_own() {
    let finding = |rule: &'static str, level: audit::Level| audit::Finding {
        rule,
        level,
        service: Some("web".to_owned()),
        backend: None,
        what: "it is off".to_owned(),
        why: "it hurts",
        remedy: "mend it".to_owned(),
    };
    let audited = Audited {
        at_ms: 5,
        findings: vec![
            finding("L2", audit::Level::Critical),
            finding("L8", audit::Level::Error),
            finding("L25", audit::Level::Warning),
        ],
        rejected: Some("line 3: vip: is missing".to_owned()),
    };
    assert_eq!(
        words(&status(|_| {}), &audited),
        ["ticket ConfigRejected", "ticket AuditFailed web/L8"]
    );
}
