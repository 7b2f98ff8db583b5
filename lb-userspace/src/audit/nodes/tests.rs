use serde_json::{Value, json};

use super::*;
use crate::audit::testing::status;

/// The findings about another node whose status differs by a change.
fn beside(change: impl FnOnce(&mut Value)) -> Vec<(Option<String>, String)> {
    let digest = |s: &mut Value| s["services"][0]["ring_digest"] = "d1".into();
    let other = status(|s| {
        digest(s);
        change(s);
    });
    let findings = judge(&status(digest), &other, "lb2");
    findings
        .into_iter()
        .map(|finding| {
            assert_eq!((finding.rule, finding.level), ("L29", Level::Error));
            (finding.service, finding.what)
        })
        .collect()
}

#[test]
fn nodes_that_agree_have_no_finding() {
    assert_eq!(beside(|_| {}), []);
    // Load and generations are each node's own.
    let counted = beside(|s| {
        s["generation"] = 77.into();
        s["services"][0]["backends"][0]["packets"] = 5.into();
    });
    assert_eq!(counted, []);
}

#[test]
fn another_configuration_is_told_once() {
    let web = || Some("web".to_owned());
    let weight = beside(|s| {
        s["services"][0]["backends"][0]["weight"] = 2.into();
        s["services"][0]["ring_digest"] = "d2".into();
    });
    let told = "it is configured in another way on lb2".to_owned();
    assert_eq!(weight, [(web(), told)]);
    // The host's own part of a file is nobody else's.
    assert_eq!(beside(|s| s["config_sha256"] = "def".into()), []);
    let renamed = beside(|s| s["services"][0]["name"] = "shop".into());
    assert_eq!(
        renamed,
        [
            (web(), "only this node serves it".to_owned()),
            (Some("shop".to_owned()), "only lb2 serves it".to_owned()),
        ]
    );
}

#[test]
fn another_ring_is_told_with_what_is_seen_differently() {
    let web = || Some("web".to_owned());
    let unexplained = beside(|s| s["services"][0]["ring_digest"] = "d2".into());
    assert_eq!(
        unexplained,
        [(web(), "its ring is another than on lb2".to_owned())]
    );
    let down = beside(|s| {
        let service = &mut s["services"][0];
        service["ring_digest"] = "d2".into();
        service["backends"][1]["health"] = "down".into();
        service["backends"][1]["out_of_ring"] = "its check fails".into();
        service["backends"][1]["weight_in_force"] = json!(0.0);
    });
    assert_eq!(
        down,
        [(
            web(),
            "its ring is another than on lb2: 10.0.0.12 is up, weight 1 here, down, weight 0 (its \
             check fails) there"
                .to_owned()
        )]
    );
    let empty = beside(|s| s["services"][0]["ring_digest"] = Value::Null);
    assert_eq!(empty.len(), 1);
}
