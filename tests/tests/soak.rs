//! Even traffic is never called anything else, however clumped it is.
//!
//! This takes an hour, or what `EVENKEEL_SOAK_MINUTES` says, and is no part of the usual run:
//!
//! ```text
//! cargo xtask test -- --ignored an_hour_of
//! ```

#![expect(clippy::print_stdout, reason = "figures for the reader of a run")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeMap,
    env,
    net::{IpAddr, Ipv4Addr},
    thread,
    time::Duration,
};

use evenkeel_tests::{
    clock,
    daemon::Daemon,
    server::Web,
    topology::{Service, Spec, Topology, VIP4},
    traffic::{Load, Traffic},
};
use serde_json::Value;

/// The VIP of the service whose clients stay with their backend.
const AFFINE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 20));
/// Connections a second, of each service.
const RATE: u32 = 100;
/// How many a client opens in a row.
const CLUMP: u32 = 8;

fn config(bed: &Topology) -> String {
    let service = |name, vip, spread: &str| {
        bed.service(&Service {
            options: format!("spread = \"{spread}\""),
            ..Service::web(name, vip)
        })
    };
    bed.config_head() + &service("web", VIP4, "flow") + &service("affine", AFFINE, "source")
}

/// Lets even traffic flow for so long.
fn soak(time: Duration) {
    let bed = Topology::build(&Spec {
        backends: 10,
        vips: vec![VIP4, AFFINE],
        ..Spec::default()
    })
    .unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let crowd = bed.crowd_of_clients().unwrap();
    let mut daemon = Daemon::start(&bed, &config(&bed)).unwrap();
    let traffic = [VIP4, AFFINE].map(|vip| {
        let load = Load {
            rate: RATE,
            crowd: Some((crowd, CLUMP)),
            records: false,
            ..Load::new(vip, time + Duration::from_mins(2))
        };
        Traffic::start(&bed, load).unwrap()
    });
    let began = clock::now_ms();
    let mut seen: BTreeMap<(String, String), u64> = BTreeMap::new();
    while clock::now_ms() - began < time.as_millis() as u64 {
        thread::sleep(Duration::from_secs(1));
        let status = daemon.status().unwrap();
        for service in status["services"].as_array().unwrap() {
            let evenness = &service["evenness"];
            assert_eq!(
                evenness["findings"],
                Value::Array(Vec::new()),
                "{evenness:#}"
            );
            assert_eq!(evenness["cause"], Value::Null, "{evenness:#}");
            let word = |value: &Value| value.as_str().unwrap().to_owned();
            let key = (word(&service["name"]), word(&evenness["verdict"]));
            *seen.entry(key).or_default() += 1;
        }
    }
    let minutes = time.as_secs_f64() / 60.0;
    for traffic in traffic {
        let new = traffic.stop().unwrap().report.new;
        println!(
            "{} connections in {minutes:.0} min, {} failed",
            new.sent, new.failed
        );
        // As many as were to come, or the soak was a dry one.
        let most = f64::from(RATE) * time.as_secs_f64();
        assert!(new.ok as f64 > 0.8 * most, "{new:?}");
        assert_eq!(new.failed, 0, "{:?}", new.by_error);
    }
    daemon.check_running().unwrap();
    // Nor was there ever an event of a skew between two looks.
    let events = daemon
        .ask(&["events", "--json", "--kind", "evenness"])
        .unwrap();
    let events = String::from_utf8(events.stdout).unwrap();
    for line in events.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["level"], "info", "{event:#}");
    }
    println!("{seen:?}");
    for service in ["web", "affine"] {
        let even = seen.get(&(service.to_owned(), "even".to_owned()));
        assert!(even.is_some_and(|&times| times > 10), "{seen:?}");
    }
}

#[test]
#[ignore = "takes an hour, or EVENKEEL_SOAK_MINUTES"]
fn an_hour_of_clumped_but_even_traffic_is_called_even() {
    let minutes = env::var("EVENKEEL_SOAK_MINUTES").map_or(60, |text| text.parse().unwrap());
    soak(Duration::from_mins(minutes));
}
