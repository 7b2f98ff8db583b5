//! What is measured in passing is what clients wait for.

#![expect(clippy::print_stdout, reason = "figures for the reader of a run")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ways;

use std::{fmt::Write as _, thread, time::Duration};

use evenkeel_tests::{
    daemon::Daemon,
    server::{Mood, Moody},
    topology::{Service, VIP4},
    traffic::{Load, Outcome, Traffic},
};
use lb_userspace::admin::proto::measured::Waits;
use serde_json::Value;
use ways::{Bed, Way};

/// How long each backend takes to answer, in milliseconds.
const DELAYS: [u64; 3] = [5, 20, 80];
/// Two buckets of the histogram to a power of two, the first half of which is the wider.
const BUCKET: f64 = 1.5;

fn config(bed: &Bed, one_in: u32) -> String {
    let mut service = Service {
        health: "type = \"tcp\"\ninterval = \"1s\"",
        ..bed.web("web", VIP4)
    };
    writeln!(service.options, "measure_one_in = {one_in}").unwrap();
    bed.head() + &bed.topology.service(&service)
}

/// The status after some seconds of traffic, and what its clients saw.
fn seen(bed: &Bed, one_in: u32) -> (Value, Outcome) {
    let servers = Moody::start_all(bed.topology, Mood::after(Duration::ZERO)).unwrap();
    for (server, delay) in servers.iter().zip(DELAYS) {
        server
            .turn(Mood::after(Duration::from_millis(delay)))
            .unwrap();
    }
    let daemon = Daemon::start(bed.topology, &config(bed, one_in)).unwrap();
    let load = Load {
        rate: 60,
        kept: 6,
        ..Load::new(VIP4, Duration::from_secs(9))
    };
    let traffic = Traffic::start(bed.topology, load).unwrap();
    thread::sleep(Duration::from_secs(8));
    let status = daemon.status().unwrap();
    let outcome = traffic.wait().unwrap();
    assert_eq!(outcome.failures().count(), 0);
    (status, outcome)
}

/// The part of a backend's requests that took no longer, as clients saw it, in milliseconds.
fn quantile(outcome: &Outcome, backend: &str, part: f64) -> f64 {
    let of = |record: &&evenkeel_tests::traffic::Record| record.backend.as_deref() == Some(backend);
    let mut took: Vec<f64> = outcome
        .records
        .iter()
        .filter(of)
        .map(|r| r.took_ms)
        .collect();
    took.sort_by(f64::total_cmp);
    took[((took.len() - 1) as f64 * part) as usize]
}

fn agrees(way: Way) {
    let bed = way.bed(3);
    let _tunnels = bed.tunnels();
    let (status, outcome) = seen(&bed, 1);
    let mut handshakes = Vec::new();
    for (n, delay) in DELAYS.into_iter().enumerate() {
        let backend = &status["services"][0]["backends"][n];
        let name = backend["name"].as_str().unwrap();
        let (response, handshake) = (&backend["response"], &backend["handshake"]);
        for (key, part) in [("median_ms", 0.5), ("p90_ms", 0.9)] {
            let (ours, clients) = (
                response[key].as_f64().unwrap(),
                quantile(&outcome, name, part),
            );
            println!("{way:?} {name} ({delay} ms): {key} {ours:.1}, clients saw {clients:.1}");
            let ratio = ours / clients;
            assert!(
                (1.0 / BUCKET..=BUCKET).contains(&ratio),
                "{way:?} {name} {key}: {ours} beside {clients}: {backend}"
            );
        }
        // Both of new connections and of those that are kept.
        assert!(response["samples"].as_f64().unwrap() > 100.0, "{backend}");
        // What Prometheus is told are the same, by the least bound above.
        let measured = &backend["measured"]["response"];
        let counts = measured["counts"].as_array().unwrap();
        let counts = counts
            .iter()
            .map(|n| n.as_u64().unwrap())
            .collect::<Vec<_>>();
        let all: u64 = counts.iter().sum();
        let bound = Waits::BOUNDS
            .iter()
            .position(|&bound| bound * 1e3 > delay as f64)
            .unwrap();
        // Up to four times the delay: the test's own programs take some of it.
        let near: u64 = counts[bound..=bound + 1].iter().sum();
        assert!(near * 10 >= all * 9, "{delay}: {counts:?}");
        let mean = measured["sum_s"].as_f64().unwrap() * 1e3 / all as f64;
        assert!(mean >= delay as f64, "{mean} of {delay}");
        let opened = backend["new_flows"].as_f64().unwrap();
        let measured = handshake["samples"].as_f64().unwrap();
        // Each counts for less the older it is: after eight seconds, on average seven eighths.
        assert!(measured > opened * 0.6 && measured <= opened, "{backend}");
        handshakes.push(handshake["median_ms"].as_f64().unwrap());
    }
    // The kernel of a slow application's host answers as quickly as any.
    assert!(handshakes.iter().all(|&ms| ms < 4.0), "{handshakes:?}");
}

#[test]
fn without_replies_latency_is_what_clients_see() {
    for way in [Way::Dsr, Way::Gue] {
        agrees(way);
    }
}

#[test]
fn with_replies_latency_is_what_clients_see() {
    for way in [Way::Nat, Way::Snat] {
        agrees(way);
    }
}

#[test]
fn a_service_that_wants_nothing_measured_has_nothing_measured() {
    let bed = Way::Dsr.bed(3);
    let (status, _) = seen(&bed, 0);
    for n in 0..3 {
        let backend = &status["services"][0]["backends"][n];
        assert!(backend["new_flows"].as_u64().unwrap() > 0);
        assert!(
            backend["response"].is_null() && backend["handshake"].is_null(),
            "{backend}"
        );
    }
}
