//! A second load balancer takes over: it has never seen a packet, and no connection breaks.

mod ways;

use std::{fs, thread, time::Duration};

use evenkeel_tests::{
    daemon::Daemon,
    topology::{Spec, VIP4},
    traffic::{Load, Traffic},
};
use serde_json::Value;
use ways::Way;

#[test]
fn a_second_balancer_takes_over_a_steady_service_in_mid_traffic() {
    let bed = Way::Ipip.bed_with(&Spec {
        standby: true,
        ..Spec::default()
    });
    let _tunnels = bed.tunnels();
    let _servers = bed.servers();
    let service = bed.topology.service(&bed.web("web", VIP4));
    let first = Daemon::start(bed.topology, &(bed.head() + &service)).unwrap();
    let seat = bed.topology.standby_seat();
    let second = Daemon::start_at(bed.topology, seat, &(seat.config_head() + &service)).unwrap();
    let load = Load {
        rate: 100,
        kept: 200,
        ..Load::new(VIP4, Duration::from_secs(12))
    };
    let traffic = Traffic::start(bed.topology, load).unwrap();
    thread::sleep(Duration::from_secs(6));
    let sent = |daemon: &Daemon<'_>| -> u64 {
        let status = daemon.status().unwrap();
        let backends = status["services"][0]["backends"].as_array().unwrap();
        backends
            .iter()
            .map(|b| b["packets"].as_u64().unwrap())
            .sum()
    };
    assert!(
        sent(&first) > 1_000 && sent(&second) == 0,
        "{} {}",
        sent(&first),
        sent(&second)
    );
    bed.topology.fail_over().unwrap();
    thread::sleep(Duration::from_secs(2));
    let before = sent(&first);
    let outcome = traffic.wait().unwrap();
    let failures: Vec<_> = outcome.failures().take(5).collect();
    assert!(failures.is_empty(), "{failures:?}");
    assert!(outcome.report.kept.ok > 8_000, "{:?}", outcome.report.kept);
    // All of it went by the second one from then on.
    assert_eq!(sent(&first), before);
    assert!(sent(&second) > 1_000, "{}", sent(&second));
    // What the first cannot know of the second, their statuses tell together.
    let other = bed.topology.dir().path().join("second.json");
    let beside = ["audit", "--json", "--beside", &other.display().to_string()];
    let disagree = || {
        fs::write(&other, second.status().unwrap().to_string()).unwrap();
        let found = first.ask(&beside).unwrap();
        let findings: Vec<Value> = serde_json::from_slice(&found.stdout).unwrap();
        let mut findings = findings.into_iter().filter(|of| of["rule"] == "L29");
        findings
            .next()
            .map(|of| of["what"].as_str().unwrap().to_owned())
    };
    assert_eq!(disagree(), None);
    let weight = |word: &[&str]| {
        let done = second
            .ask(&[&["backend"], word, &["web", "b1"]].concat())
            .unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    weight(&["drain"]);
    let told = disagree().expect("another ring is told");
    assert!(
        told.contains("weight 1 here") && told.contains("weight 0"),
        "{told}"
    );
    weight(&["enable"]);
    assert_eq!(disagree(), None);
}
