use super::*;
use crate::model::AlertName;

fn notification() -> Notification {
    let item = |backend: &str, ended_ms| Item {
        key: Key {
            service: Some("web".to_owned()),
            backend: Some(backend.to_owned()),
            ..Key::of(AlertName::BackendDown)
        },
        summary: format!("web/{backend} is down: <timeout>"),
        since_ms: 1_795_637_036_816,
        ended_ms,
    };
    Notification {
        id: 7,
        service: Some("web".to_owned()),
        at_ms: 1_795_637_040_000,
        again: false,
        items: vec![item("b1", None), item("b2", Some(1_795_637_039_000))],
    }
}

fn from() -> From {
    From {
        incidents: Vec::new(),
        instance: "lb1".to_owned(),
        receiver: "ops".to_owned(),
        runbooks: "https://wiki.example.org/".into(),
    }
}

#[test]
fn alertmanager_gets_identity_in_labels_and_an_end_for_each() {
    let now = 1_795_637_040_000;
    let alerts = alertmanager(&notification(), &from(), now, Duration::from_mins(4));
    assert_eq!(
        alerts[0]["labels"],
        json!({ "alertname": "BackendDown", "severity": "ticket", "service": "web",
                "backend": "b1", "instance": "lb1" })
    );
    assert_eq!(alerts[0]["startsAt"], "2026-11-25T20:03:56.816Z");
    assert_eq!(alerts[0]["endsAt"], "2026-11-25T20:08:00.000Z");
    assert_eq!(alerts[1]["endsAt"], "2026-11-25T20:03:59.000Z");
    assert!(
        alerts[0]["annotations"]["remedy"]
            .as_str()
            .unwrap()
            .contains("probe")
    );
    assert_eq!(
        alerts[0]["annotations"]["runbook_url"],
        "https://wiki.example.org/backenddown.md"
    );
}

#[test]
fn a_webhook_has_the_shape_of_alertmanagers() {
    let body = webhook(&notification(), &from());
    assert_eq!(
        (&body["version"], &body["status"]),
        (&json!("4"), &json!("firing"))
    );
    assert_eq!(body["groupLabels"], json!({ "service": "web" }));
    assert_eq!(
        body["commonLabels"],
        json!({ "alertname": "BackendDown", "severity": "ticket", "service": "web", "instance": "lb1" })
    );
    let alerts = body["alerts"].as_array().unwrap();
    assert_eq!(alerts[0]["status"], "firing");
    assert_eq!(alerts[0]["endsAt"], "0001-01-01T00:00:00Z");
    assert_eq!(alerts[1]["status"], "resolved");
    assert_ne!(alerts[0]["fingerprint"], alerts[1]["fingerprint"]);
    assert_eq!(alerts[0]["fingerprint"].as_str().unwrap().len(), 16);
}

#[test]
fn an_alert_names_its_incident_and_no_other_does() {
    let notification = notification();
    let from = From {
        incidents: vec![(notification.items[0].key.clone(), "20261125-1".to_owned())],
        ..from()
    };
    let alerts = alertmanager(&notification, &from, 0, Duration::from_mins(4));
    assert_eq!(alerts[0]["annotations"]["incident"], "20261125-1");
    assert_eq!(alerts[1]["annotations"]["incident"], Value::Null);
    assert_eq!(alerts[0]["labels"]["incident"], Value::Null);
    let body = slack(&notification, &from);
    let text = |n: usize| body["attachments"][n]["text"].as_str().unwrap();
    assert!(text(0).contains("\nincident 20261125-1"), "{}", text(0));
    assert!(!text(1).contains("incident"));
}

#[test]
fn what_gives_text_a_meaning_is_made_harmless() {
    let body = slack(&notification(), &from());
    let text = body["attachments"][0]["text"].as_str().unwrap();
    assert!(
        text.starts_with("web/b1 is down: &lt;timeout&gt;\n"),
        "{text}"
    );
    let mut item = notification().items.remove(0);
    item.summary = "one\ntwo".to_owned();
    assert_eq!(sentence(&item), "firing ticket BackendDown: one two");
}

#[test]
fn a_line_for_each_alert() {
    let text = lines(&notification(), &from());
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["endsAt"], Value::Null);
    assert_eq!(lines[1]["status"], "resolved");
}

/// The key and data of RFC 4231, test case 2, with a time in front.
#[test]
fn the_signature_covers_time_and_body() {
    let signed = signature(b"Jefe", 1, b"what do ya want for nothing?");
    // printf '1.what do ya want for nothing?' | openssl dgst -sha256 -hmac Jefe
    assert_eq!(
        signed,
        "v1=a9049465ce89cfb8e9aac62333abda66f80e3403f51f57f6bae3c3a4485eca38"
    );
    assert_ne!(
        signed,
        signature(b"Jefe", 2, b"what do ya want for nothing?")
    );
    assert_ne!(
        signed,
        signature(b"jefe", 1, b"what do ya want for nothing?")
    );
}
