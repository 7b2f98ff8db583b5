//! Every mode carries every kind of traffic, in both address families.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ways;

use std::{collections::BTreeMap, net::IpAddr, thread, time::Duration};

use evenkeel_tests::{
    daemon::Daemon,
    process::Process,
    server::UdpEcho,
    tools,
    topology::{Service, VIP4, VIP6},
    traffic::{Load, Traffic},
    wait,
};
use serde::Deserialize;
use ways::{Bed, Way};

const UDP_PORT: u16 = 5353;
const UDP_ASK: &str = include_str!("../clients/udp_ask.py");

/// What the UDP client has seen.
#[derive(Debug, Deserialize)]
struct Asked {
    answers: BTreeMap<String, u32>,
    lost: u32,
}

fn config(bed: &Bed) -> String {
    let mut config = bed.head();
    for (family, vip) in [("4", VIP4), ("6", VIP6)] {
        let names = ["web", "echo", "bulk"].map(|name| format!("{name}{family}"));
        let web = bed.web(&names[0], vip);
        let echo = Service {
            name: &names[1],
            port: "5353",
            options: web.options.clone() + "protocol = \"udp\"\n",
            health: "",
            ..web.clone()
        };
        // One client's connections meet at one backend: iperf3 opens two.
        let bulk = Service {
            name: &names[2],
            port: "5201",
            options: web.options.clone() + "spread = \"source\"\n",
            health: "",
            ..web.clone()
        };
        for service in [&web, &echo, &bulk] {
            config += &bed.topology.service(service);
        }
    }
    config
}

fn bulk_servers(bed: &Bed) -> Vec<Process> {
    let hosts = bed.topology.backends.iter();
    hosts
        .map(|host| {
            let mut iperf = host.namespace.command("iperf3").unwrap();
            let name = format!("iperf3 on {}", host.name);
            let log = bed
                .topology
                .dir()
                .path()
                .join(format!("{}-iperf3.log", host.name));
            Process::start_logged(&name, iperf.arg("-s"), &log).unwrap()
        })
        .collect()
}

fn requests(bed: &Bed, vip: IpAddr) {
    let load = Load {
        rate: 150,
        kept: 20,
        ..Load::new(vip, Duration::from_secs(4))
    };
    let outcome = Traffic::start(bed.topology, load).unwrap().wait().unwrap();
    let failures: Vec<_> = outcome.failures().take(5).collect();
    assert!(failures.is_empty(), "{:?} {vip}: {failures:?}", bed.way);
    let report = outcome.report;
    assert!(report.new.ok > 400 && report.kept.ok > 200, "{report:?}");
    assert_eq!(report.new.by_backend.len(), 3, "{report:?}");
}

fn datagrams(bed: &Bed, vip: IpAddr, size: u32) {
    let script = bed.topology.dir().write("udp_ask.py", UDP_ASK).unwrap();
    let mut python = bed.topology.client.command("python3").unwrap();
    python.arg("-I").arg(script);
    python.args([vip.to_string(), UDP_PORT.to_string()]);
    python.args(["--size", &size.to_string(), "--count", "40"]);
    let asked: Asked = serde_json::from_str(&tools::output(&mut python).unwrap()).unwrap();
    assert_eq!(
        asked.lost, 0,
        "{:?} {vip}, {size} bytes: {asked:?}",
        bed.way
    );
    let names: Vec<_> = asked.answers.keys().map(String::as_str).collect();
    assert_eq!(names, ["b1", "b2", "b3"], "{:?} {vip}", bed.way);
}

fn bulk(bed: &Bed, vip: IpAddr) {
    let vip = vip.to_string();
    for direction in [&[][..], &["--reverse"]] {
        let words = [&["-c", &vip, "--bytes", "50M"], direction].concat();
        // A server takes its time to end one test before it begins another.
        let mut said = bed.topology.client.run("iperf3", &words);
        for _ in 0..50 {
            let busy = |e: &anyhow::Error| format!("{e:#}").contains("server is busy");
            if !said.as_ref().is_err_and(busy) {
                break;
            }
            thread::sleep(Duration::from_millis(200));
            said = bed.topology.client.run("iperf3", &words);
        }
        assert!(said.is_ok(), "{:?} {vip} {direction:?}: {said:?}", bed.way);
    }
}

fn echo(bed: &Bed, vip: IpAddr) {
    let ping = ["-c", "3", "-i", "0.2", "-W", "1", &vip.to_string()];
    let said = bed.topology.client.run("ping", &ping).unwrap();
    assert!(said.contains(" 0% packet loss"), "{:?}: {said}", bed.way);
}

fn carries_everything(way: Way) {
    let bed = way.bed(3);
    let _tunnels = bed.tunnels();
    let _servers = bed.servers();
    let hosts = bed.topology.backends.iter();
    let _echoes: Vec<_> = hosts
        .map(|host| UdpEcho::start(bed.topology, host, UDP_PORT).unwrap())
        .collect();
    let _bulk = bulk_servers(&bed);
    let daemon = Daemon::start(bed.topology, &config(&bed)).unwrap();
    wait::until("all backends to serve", Duration::from_secs(5), || {
        let status = daemon.status()?;
        let services = status["services"].as_array().unwrap();
        let backends = services
            .iter()
            .flat_map(|s| s["backends"].as_array().unwrap());
        for backend in backends {
            anyhow::ensure!(backend["out_of_ring"].is_null(), "{backend}");
        }
        Ok(())
    })
    .unwrap();
    for vip in [VIP4, VIP6] {
        requests(&bed, vip);
        datagrams(&bed, vip, 10);
        datagrams(&bed, vip, 1_400);
        // In fragments, which in a tunnel are too big at first.
        datagrams(&bed, vip, 4_000);
        bulk(&bed, vip);
        echo(&bed, vip);
    }
}

#[test]
fn dsr_carries_everything() {
    carries_everything(Way::Dsr);
}

#[test]
fn ipip_carries_everything() {
    carries_everything(Way::Ipip);
}

#[test]
fn ipip_carries_everything_across_families() {
    carries_everything(Way::IpipAcross);
}

#[test]
fn gue_carries_everything() {
    carries_everything(Way::Gue);
}

#[test]
fn nat_carries_everything() {
    carries_everything(Way::Nat);
}

#[test]
fn snat_carries_everything() {
    carries_everything(Way::Snat);
}
