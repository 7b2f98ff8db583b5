//! What a plan says that backends would get of the flows that came lately is what they get.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::ensure;
use evenkeel_tests::{
    daemon::Daemon,
    server::Web,
    topology::{Service, Spec, Topology, VIP4},
    traffic::{Load, Traffic},
    wait,
};
use serde_json::Value;

/// How long flows are counted: some two thousand of them.
const COUNTED: Duration = Duration::from_secs(20);

/// A service whose clients stay with their backend, by the weights of its three.
fn config(bed: &Topology, weights: [u16; 3]) -> String {
    let backends = weights.iter().enumerate();
    let service = Service {
        options: "spread = \"source\"".to_owned(),
        backends: backends
            .map(|(n, weight)| (n, format!("weight = {weight}\ncapacity = {weight}")))
            .collect(),
        ..Service::web("web", VIP4)
    };
    bed.config_head() + &bed.service(&service)
}

fn connections(daemon: &Daemon<'_>) -> BTreeMap<String, u64> {
    let status = daemon.status().unwrap();
    let backends = status["services"][0]["backends"].as_array().unwrap();
    let of = |b: &Value| {
        (
            b["name"].as_str().unwrap().to_owned(),
            b["new_flows"].as_u64().unwrap(),
        )
    };
    backends.iter().map(of).collect()
}

#[test]
fn what_a_plan_foresees_comes() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    // So few that no ring could give the backends their shares.
    let sources = bed.more_clients(5).unwrap();
    let daemon = Daemon::start(&bed, &config(&bed, [1, 1, 1])).unwrap();
    let next = bed
        .dir()
        .write("next.toml", &config(&bed, [4, 1, 1]))
        .unwrap();
    let next = next.to_str().unwrap();
    let plan = || -> Value {
        let output = daemon.ask(&["plan", "--json", next]).unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    // Of nothing nothing follows.
    let blind = plan();
    assert_eq!(blind["services"][0]["forecast_from"], 0);
    assert_eq!(blind["services"][0]["backends"][0]["forecast"], Value::Null);

    let load = Load {
        sources,
        records: false,
        ..Load::new(VIP4, Duration::from_mins(3))
    };
    let traffic = Traffic::start(&bed, load).unwrap();
    let planned = wait::until("samples of flows", Duration::from_mins(1), || {
        let service = plan()["services"][0].clone();
        ensure!(service["forecast_from"].as_u64() > Some(2000), "{service}");
        Ok(service)
    })
    .unwrap();
    let text = daemon.ask(&["plan", next]).unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("would get"), "{text}");

    let applied = daemon.ask(&["apply", next]).unwrap();
    assert!(applied.status.success(), "{applied:?}");
    // A status is a second behind.
    thread::sleep(Duration::from_secs(3));
    let before = connections(&daemon);
    thread::sleep(COUNTED);
    let after = connections(&daemon);
    let got = |name: &str| (after[name] - before[name]) as f64;
    let all: f64 = before.keys().map(|name| got(name)).sum();
    assert!(all > 1000.0, "{before:?} {after:?}");
    let mut ring_is_off = 0.0;
    for backend in planned["backends"].as_array().unwrap() {
        let part = got(backend["name"].as_str().unwrap()) / all;
        let of = |key: &str| backend[key].as_f64().unwrap();
        assert!((part - of("forecast")).abs() < 0.05, "{part} {backend}");
        ring_is_off = f64::max(ring_is_off, (part - of("share")).abs());
    }
    // Shares of fifths are no shares of sixths: the ring alone would have been wrong.
    assert!(ring_is_off > 0.05, "{planned}");
    let outcome = traffic.stop().unwrap();
    assert!(
        outcome.report.new.by_error.is_empty(),
        "{:?}",
        outcome.report.new
    );
}
