use std::fmt::Write as _;

use super::*;
use crate::audit::testing::status;

fn lines(text: &str, of: &str) -> Vec<String> {
    let wanted = |line: &&str| line.starts_with(of);
    text.lines().filter(wanted).map(ToOwned::to_owned).collect()
}

#[test]
fn each_backend_has_its_series() {
    let text = text(&Arc::new(status(|status| {
        let backend = &mut status["services"][0]["backends"][1];
        backend["new_flows"] = 7.into();
        backend["observed_share"] = 0.25.into();
        backend["probes"] = serde_json::json!({
            "passed": 2, "failed": 1, "undecided": 0,
            "took": { "counts": [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "sum_s": 1.5 },
        });
        let none = serde_json::json!({ "counts": vec![0; 18], "sum_s": 0.0 });
        let mut response = none.clone();
        response["counts"][9] = 2.into();
        response["counts"][17] = 1.into();
        response["sum_s"] = 0.5.into();
        backend["measured"] = serde_json::json!({
            "handshake": none, "response": response, "unanswered": 4, "reset": 0,
        });
    })));
    let of = |name: &str| {
        let name = format!("evenkeel_backend_{name}{{service=\"web\",backend=\"10.0.0.12\"");
        lines(&text, &name)
    };
    let line = |name: &str, labels: &str, value: &str| {
        let labels = format!("service=\"web\",backend=\"10.0.0.12\"{labels}");
        format!("evenkeel_backend_{name}{{{labels}}} {value}")
    };
    assert_eq!(of("new_flows_total"), [line("new_flows_total", "", "7")]);
    let share = "observed_share_ratio";
    assert_eq!(of(share), [line(share, "", "0.25")]);
    // Of one that nothing was seen of there is none.
    assert_eq!(
        lines(&text, "evenkeel_backend_observed_share_ratio").len(),
        1
    );
    // The library writes the bound before the other labels.
    let buckets = lines(&text, "evenkeel_backend_probe_duration_seconds_bucket{");
    let own = |line: &&String| line.contains("backend=\"10.0.0.12\"");
    let buckets: Vec<_> = buckets.iter().filter(own).collect();
    assert_eq!(buckets.len(), 11);
    for (n, bound, count) in [(0, "0.001", 1), (9, "1.0", 1), (10, "+Inf", 2)] {
        let labels = format!("{{le=\"{bound}\",service=\"web\",backend=\"10.0.0.12\"}}");
        assert!(
            buckets[n].ends_with(&format!("{labels} {count}")),
            "{}",
            buckets[n]
        );
    }
    let sum = "probe_duration_seconds_sum";
    assert_eq!(of(sum), [line(sum, "", "1.5")]);
    // Of one whose flows nobody measured there is none.
    let name = "evenkeel_backend_response_duration_seconds";
    assert_eq!(lines(&text, &format!("{name}_count{{")).len(), 1);
    let sum = "response_duration_seconds_sum";
    assert_eq!(of(sum), [line(sum, "", "0.5")]);
    let buckets = lines(&text, &format!("{name}_bucket{{"));
    assert_eq!(buckets.len(), 18);
    assert!(buckets[0].contains("le=\"0.000131072\"") && buckets[0].ends_with(" 0"));
    assert!(buckets[9].contains("le=\"0.067108864\"") && buckets[9].ends_with(" 2"));
    assert!(buckets[17].contains("le=\"+Inf\"") && buckets[17].ends_with(" 3"));
    let unanswered = "unanswered_flows_total";
    assert_eq!(of(unanswered), [line(unanswered, "", "4")]);
    let failed = line("probes_total", ",outcome=\"failed\"", "1");
    assert!(
        of("probes_total").contains(&failed),
        "{:?}",
        of("probes_total")
    );
}

#[test]
fn words_are_states_and_what_is_asked_for_is_there() {
    let text = text(&Arc::new(status(|status| {
        status["services"][0]["exits"] = serde_json::json!({ "no-backend-dropped": 3 });
        status["alerts"] = serde_json::json!([{
            "name": "BackendDown", "severity": "ticket", "state": "firing", "service": "web",
            "backend": "a", "detail": null, "since_ms": 1, "summary": "", "meaning": "",
            "remedy": "", "inhibited_by": null,
        }]);
    })));
    let verdicts = lines(&text, "evenkeel_service_verdict{");
    assert_eq!(
        verdicts,
        [
            "evenkeel_service_verdict{service=\"web\",verdict=\"even\"} 1.0",
            "evenkeel_service_verdict{service=\"web\",verdict=\"skewed\"} 0.0",
            "evenkeel_service_verdict{service=\"web\",verdict=\"cannot-tell\"} 0.0",
        ]
    );
    let exits = lines(&text, "evenkeel_service_not_forwarded_packets_total{");
    assert_eq!(exits.len(), 3);
    assert!(exits[0].ends_with("{service=\"web\",reason=\"no-backend-dropped\"} 3"));
    let alerts = lines(&text, "evenkeel_alerts_firing{alert=\"BackendDown\"");
    assert_eq!(
        alerts,
        ["evenkeel_alerts_firing{alert=\"BackendDown\",severity=\"ticket\"} 1.0"]
    );
    let alerts = lines(&text, "evenkeel_alerts_firing{");
    assert_eq!(alerts.len(), crate::model::AlertName::ALL.len());
    assert!(text.ends_with("# EOF\n"));
}

/// A status in which there is something of everything.
fn full() -> Arc<Status> {
    Arc::new(status(|status| {
        status["exits"] = serde_json::json!({ "no-service": 1 });
        status["published_at_ms"] = 1.into();
        status["audit"] = serde_json::json!({
            "at_ms": 1, "findings": { "error": 1 }, "rejected": null,
        });
    }))
}

/// Each metric's row: its name as it is asked for, its type, and what it says.
fn rows(text: &str) -> String {
    let mut help = "";
    let mut rows = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').unwrap().1;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            let end = match kind {
                "counter" => "_total",
                "info" => "_info",
                "histogram" => "_bucket",
                _ => "",
            };
            writeln!(rows, "| `{name}{end}` | {kind} | {help} |").unwrap();
        }
    }
    rows
}

#[test]
fn every_metric_is_documented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let (begin, end) = ("<!-- metrics -->\n", "<!-- end -->");
    let written = std::fs::read_to_string(path).unwrap();
    let (before, rest) = written.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    let table = format!(
        "\n| metric | type | what it says |\n|---|---|---|\n{}\n",
        rows(&text(&full()))
    );
    let should = format!("{before}{begin}{table}{end}{after}");
    if std::env::var_os("EVENKEEL_BLESS").is_some() {
        std::fs::write(path, &should).unwrap();
    }
    assert!(
        should == std::fs::read_to_string(path).unwrap(),
        "docs/metrics.md is out of date: EVENKEEL_BLESS=1 cargo test -p lb-userspace metrics"
    );
}

/// What a scrape of the largest set-up costs: `cargo test -p lb-userspace --lib \
/// metrics::tests::cost -- --ignored --nocapture`.
#[test]
#[ignore = "prints a figure"]
#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement"
)]
fn cost() {
    let one = serde_json::to_value(&*status(|_| ()).services).unwrap();
    let service = &one[0];
    let many: Vec<serde_json::Value> = (0..1000)
        .map(|n| {
            let mut service = service.clone();
            service["name"] = format!("service-{n}").into();
            let backend = service["backends"][0].clone();
            let named = |n| {
                let mut backend = backend.clone();
                backend["name"] = format!("10.0.0.{n}").into();
                backend["observed_share"] = 0.125.into();
                backend["weight_in_force"] = 1.0.into();
                backend
            };
            service["backends"] = (1..=8).map(named).collect();
            service
        })
        .collect();
    let status = Arc::new(status(|status| status["services"] = many.clone().into()));
    let start = std::time::Instant::now();
    let written = text(&status);
    let took = start.elapsed();
    println!(
        "1,000 services x 8 backends: {} series, {:.1} MB, {took:?}",
        written
            .lines()
            .filter(|line| !line.starts_with('#'))
            .count(),
        written.len() as f64 / 1e6
    );
}
