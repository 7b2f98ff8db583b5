//! The load goes where the slots are: shares, weights, families, protocols.

#![expect(clippy::print_stdout, reason = "figures for the reader of a run")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use anyhow::ensure;
use evenkeel_tests::{
    daemon::Daemon,
    server::{UdpEcho, Web},
    topology::{HOST_INTERFACE, Spec, Topology, VIP4, VIP6},
    traffic::{Load, Traffic},
    wait,
};
use serde_json::Value;
use statrs::distribution::{ChiSquared, ContinuousCDF as _};

/// The probability of counts at least so far from the shares, if only chance is at work (G-test).
fn chance(counts: &[f64], shares: &[f64]) -> f64 {
    let total: f64 = counts.iter().sum();
    let g: f64 = counts
        .iter()
        .zip(shares)
        .filter(|(count, _)| **count > 0.0)
        .map(|(count, share)| 2.0 * count * (count / (share * total)).ln())
        .sum();
    ChiSquared::new(counts.len() as f64 - 1.0).unwrap().sf(g)
}

fn backends(service: &Value) -> &Vec<Value> {
    service["backends"].as_array().unwrap()
}

fn column(service: &Value, name: &str) -> Vec<f64> {
    backends(service)
        .iter()
        .map(|b| b[name].as_f64().unwrap())
        .collect()
}

/// What the client counted for each backend of a service, in the service's order.
fn seen(service: &Value, by_backend: &BTreeMap<String, u64>) -> Vec<f64> {
    let names = backends(service)
        .iter()
        .map(|b| b["name"].as_str().unwrap());
    names
        .map(|name| by_backend.get(name).copied().unwrap_or(0) as f64)
        .collect()
}

/// The status once its counters, which are read every second, show this many packets or flows.
fn settled(daemon: &Daemon<'_>, service: usize, name: &str, at_least: f64) -> Value {
    wait::until("the counters to be read", Duration::from_secs(3), || {
        let status = daemon.status()?;
        let counted: f64 = column(&status["services"][service], name).iter().sum();
        ensure!(counted >= at_least, "{name}: {counted} of {at_least}");
        Ok(status)
    })
    .unwrap()
}

fn drive(bed: &Topology, vip: IpAddr, rate: u32, seconds: u64) -> BTreeMap<String, u64> {
    let load = Load {
        rate,
        ..Load::new(vip, Duration::from_secs(seconds))
    };
    let outcome = Traffic::start(bed, load).unwrap().wait().unwrap();
    assert_eq!(outcome.report.new.failed, 0, "{:?}", outcome.report);
    assert!(outcome.report.new.sent > u64::from(rate) * seconds * 9 / 10);
    outcome.report.new.by_backend
}

#[test]
fn a_hundred_thousand_connections_are_spread_by_chance_alone() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let daemon = Daemon::start(&bed, &(bed.config_head() + &bed.web_service("web", VIP4))).unwrap();
    let url = format!("http://{VIP4}/");
    // A client has some 64,000 ports, and a flow that comes again goes where it went: only flows
    // that differ are independent. So each two seconds come from another address. All in all it
    // is long enough for the detector's warm-up of a minute.
    for host in 100..136 {
        let address = format!("10.10.1.{host}");
        bed.client
            .ip(&format!(
                "addr add {address}/24 dev {HOST_INTERFACE}\n\
                 route replace default via 10.10.1.1 src {address}"
            ))
            .unwrap();
        let args = ["-t1", "-c4", "-d2s", "-H", "Connection: close", &url];
        let wrk = bed.client.run("wrk", &args).unwrap();
        assert!(
            !wrk.contains("Socket errors") && !wrk.contains("Non-2xx"),
            "{wrk}"
        );
    }
    let status = daemon.status().unwrap();
    let service = &status["services"][0];
    let (counts, shares) = (
        column(service, "new_flows"),
        column(service, "intended_share"),
    );
    let p = chance(&counts, &shares);
    println!("{counts:?} new flows, p = {p:.4}\n{}", service["evenness"]);
    assert!(counts.iter().sum::<f64>() >= 100_000.0, "{counts:?}");
    assert!(p > 0.001, "{counts:?} against {shares:?}: p = {p}");
    assert_eq!(service["evenness"]["verdict"], "even", "{service:#}");
    assert!(
        service["evenness"]["detectable_skew"].as_f64().unwrap() < 1.5,
        "{service:#}"
    );
    assert_eq!(status["tables"]["as_intended"], true);
}

#[test]
fn weights_set_the_shares() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let mut config = bed.config_head() + &bed.web_service("web", VIP4);
    for (host, weight) in bed.backends.iter().zip([1, 2, 5]) {
        let name = format!("name = \"{}\"", host.name);
        config = config.replace(&name, &format!("{name}\nweight = {weight}"));
    }
    let daemon = Daemon::start(&bed, &config).unwrap();
    let by_backend = drive(&bed, VIP4, 400, 8);
    let status = settled(
        &daemon,
        0,
        "new_flows",
        by_backend.values().sum::<u64>() as f64,
    );
    let service = &status["services"][0];
    let shares = column(service, "intended_share");
    for (share, weight) in shares.iter().zip([1.0, 2.0, 5.0]) {
        assert!((share - weight / 8.0).abs() <= 1.0 / 65_536.0, "{shares:?}");
    }
    let counts = seen(service, &by_backend);
    let p = chance(&counts, &shares);
    assert!(p > 0.001, "{counts:?} against {shares:?}: p = {p}");
    // What the client saw is what the kernel counted.
    assert_eq!(counts, column(service, "new_flows"));
}

#[test]
fn ipv6_is_served_beside_ipv4() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let config = bed.config_head() + &bed.web_service("web", VIP4) + &bed.web_service("web6", VIP6);
    let daemon = Daemon::start(&bed, &config).unwrap();
    for (n, vip) in [VIP4, VIP6].into_iter().enumerate() {
        let by_backend = drive(&bed, vip, 200, 5);
        let status = daemon.status().unwrap();
        let service = &status["services"][n];
        let counts = seen(service, &by_backend);
        let p = chance(&counts, &column(service, "intended_share"));
        assert!(p > 0.001, "{vip}: {counts:?}: p = {p}");
    }
}

#[test]
fn udp_is_answered_by_every_backend() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let _echoes: Vec<_> = bed
        .backends
        .iter()
        .map(|host| UdpEcho::start(&bed, host, 5353).unwrap())
        .collect();
    let config = bed.config_head()
        + &bed
            .web_service("echo", VIP4)
            .replace("port = 80\n", "port = \"any\"\nprotocol = \"udp\"\n")
            .replace("[services.health]\n", "[services.health]\nport = 80\n");
    let daemon = Daemon::start(&bed, &config).unwrap();
    let ask = format!(
        "import socket, collections\n\
         seen = collections.Counter()\n\
         for port in range(20000, 20600):\n\
         \x20 s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         \x20 s.bind(('', port)); s.settimeout(2); s.connect(('{VIP4}', 5353))\n\
         \x20 s.send(b'?'); seen[s.recv(100).decode().split()[0]] += 1; s.close()\n\
         print(*[f'{{k}}={{v}}' for k, v in sorted(seen.items())])"
    );
    let answers = bed.client.run("python3", &["-c", &ask]).unwrap();
    let counts: Vec<f64> = answers
        .split_whitespace()
        .map(|word| word.split_once('=').unwrap().1.parse().unwrap())
        .collect();
    assert_eq!(counts.len(), 3, "{answers}");
    assert!(
        (counts.iter().sum::<f64>() - 600.0).abs() < 0.5,
        "{answers}"
    );
    let p = chance(&counts, &[1.0 / 3.0; 3]);
    assert!(p > 0.001, "{answers}: p = {p}");
    let status = settled(&daemon, 0, "packets", 600.0);
    let packets = column(&status["services"][0], "packets");
    assert!(
        (packets.iter().sum::<f64>() - 600.0).abs() < 0.5,
        "{packets:?}"
    );
}
