//! What every supported kernel must do: load, attach, forward in every mode, and go on through
//! transitions and restarts.
//!
//! `cargo xtask test --kernels` runs these in virtual machines that are emulated, some twenty
//! times slower than the host: they ask for little traffic, and probe the backends patiently.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ways;

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use evenkeel_tests::{
    clock::now_ms,
    daemon::Daemon,
    process::Process,
    run_dir::RunDir,
    server::UdpEcho,
    tools,
    topology::{BALANCER_INTERFACE, Service, Spec, VIP4, VIP6},
    traffic::{Kind, Load, Outcome, Traffic},
    wait,
};
use serde_json::Value;
use ways::{Bed, Way};

/// How long an emulated machine may take for what a real one does at once.
const PATIENCE: Duration = Duration::from_mins(3);

/// How long a datagram that was too big for its tunnel is waited for, before it is sent again.
const GONE: Duration = Duration::from_secs(3);

/// The port of the UDP service.
const ECHO: u16 = 5353;

/// A check that waits for a slow machine.
const HEALTH: &str = "type = \"http\"\npath = \"/healthz\"\nport = 80\ninterval = \"1s\"\n\
                      timeout = \"900ms\"\nrise = 1\nfall = 10";

const BACKENDS: usize = 3;

/// A web service for each family, with backends of these weights.
fn web(bed: &Bed, weights: [u32; BACKENDS]) -> String {
    let weight = |(number, weight)| (number, format!("weight = {weight}"));
    let services = [("web4", VIP4), ("web6", VIP6)].map(|(name, vip)| {
        bed.topology.service(&Service {
            health: HEALTH,
            backends: weights.into_iter().enumerate().map(weight).collect(),
            ..bed.web(name, vip)
        })
    });
    bed.head() + &services.concat()
}

/// A UDP service for each family.
fn udp(bed: &Bed, health: &str) -> String {
    let services = [("echo4", VIP4), ("echo6", VIP6)].map(|(name, vip)| {
        let web = bed.web(name, vip);
        bed.topology.service(&Service {
            port: "5353",
            options: web.options.clone() + "protocol = \"udp\"\n",
            health,
            ..web
        })
    });
    services.concat()
}

/// Starts a controller and waits until every backend of every service serves.
fn serve(bed: &Bed, config: &str) -> Daemon<'static> {
    let daemon = Daemon::start(bed.topology, config).unwrap();
    await_services(&daemon, |service| service["serving"] == BACKENDS);
    daemon
}

/// Starts the servers of the UDP services.
fn echoes(bed: &Bed) -> Vec<UdpEcho<'static>> {
    let hosts = bed.topology.backends.iter();
    hosts
        .map(|host| UdpEcho::start(bed.topology, host, ECHO).unwrap())
        .collect()
}

/// Waits until something is so of every service.
fn await_services(daemon: &Daemon<'_>, so: impl Fn(&Value) -> bool) {
    wait::until("every service to be ready", PATIENCE, || {
        let status = daemon.status()?;
        for service in status["services"].as_array().context("no services")? {
            ensure!(so(service), "{service}");
        }
        Ok(())
    })
    .unwrap();
}

/// Requests at a pace that an emulated machine keeps up with.
fn gentle(bed: &Bed, vip: IpAddr, rate: u32, kept: u32, seconds: u64) -> Traffic<'static> {
    let load = Load {
        rate,
        kept,
        kept_every: Duration::from_secs(1),
        timeout: Duration::from_secs(20),
        ..Load::new(vip, Duration::from_secs(seconds))
    };
    Traffic::start(bed.topology, load).unwrap()
}

/// Checks that nothing failed, and that every backend had some.
fn all_answered(bed: &Bed, outcome: &Outcome) {
    let failures: Vec<_> = outcome.failures().take(5).collect();
    assert!(failures.is_empty(), "{:?}: {failures:?}", bed.way);
    let report = &outcome.report;
    // Chance leaves one of three backends out of 40 connections once in four million runs.
    assert!(report.new.ok >= 40 && report.kept.ok > 0, "{report:?}");
    assert_eq!(report.new.by_backend.len(), BACKENDS, "{report:?}");
}

/// Sends the UDP service a datagram from a port of its own, and answers by whom it was answered:
/// another one than the VIP is not heard.
fn ask(vip: IpAddr, size: usize, patience: Duration) -> Result<String> {
    let any: IpAddr = if vip.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(patience))?;
    socket.connect(SocketAddr::new(vip, ECHO))?;
    socket.send(&vec![b'x'; size])?;
    let mut answer = [0; 16];
    let length = socket.recv(&mut answer).context("no answer")?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// Asks the UDP service from one port after another: every backend answers, and none is missing.
fn all_echo(bed: &Bed, vip: IpAddr, size: usize) {
    let asked =
        || -> Result<BTreeSet<String>> { (0..50).map(|_| ask(vip, size, PATIENCE)).collect() };
    let answered = bed.topology.client.inside(asked).unwrap();
    let answered = answered.with_context(|| format!("{:?} {vip}, {size} bytes", bed.way));
    let hosts = bed.topology.backends.iter();
    let all: BTreeSet<_> = hosts.map(|host| host.name.clone()).collect();
    // Chance leaves one of three backends out of 50 flows once in 200 million runs.
    assert_eq!(answered.unwrap(), all);
}

/// TCP, UDP in one piece and in fragments, and an echo request, in both families.
fn forwards(way: Way) {
    let bed = way.bed(BACKENDS as u8);
    let _tunnels = bed.tunnels();
    let _servers = bed.servers();
    let _echoes = echoes(&bed);
    // The UDP services are probed by their web server.
    let daemon = serve(&bed, &(web(&bed, [1; BACKENDS]) + &udp(&bed, HEALTH)));
    for traffic in [VIP4, VIP6].map(|vip| gentle(&bed, vip, 8, 3, 6)) {
        all_answered(&bed, &traffic.wait().unwrap());
    }
    for vip in [VIP4, VIP6] {
        all_echo(&bed, vip, 10);
        // Fragments of full size do not fit a tunnel: the first is answered with how much does.
        if way.has_tunnel() {
            let lost = || ask(vip, 4_000, GONE).is_err();
            assert!(bed.topology.client.inside(lost).unwrap(), "it fits");
        }
        all_echo(&bed, vip, 4_000);
        let ping = ["-c", "1", "-W", "60", &vip.to_string()];
        bed.topology.client.run("ping", &ping).unwrap();
    }
    // It was the program and not the host that forwarded: every service counted packets.
    await_services(&daemon, |service| {
        let backends = service["backends"].as_array().into_iter().flatten();
        let packets: u64 = backends.filter_map(|b| b["packets"].as_u64()).sum();
        packets > 50
    });
}

#[test]
fn mode_dsr_forwards() {
    forwards(Way::Dsr);
}

#[test]
fn mode_ipip_forwards() {
    forwards(Way::Ipip);
}

#[test]
fn mode_ipip_forwards_across_families() {
    forwards(Way::IpipAcross);
}

#[test]
fn mode_gue_forwards() {
    forwards(Way::Gue);
}

#[test]
fn mode_nat_forwards() {
    forwards(Way::Nat);
}

#[test]
fn mode_snat_forwards() {
    forwards(Way::Snat);
}

#[test]
fn the_program_is_attached_natively_by_a_pinned_link() {
    let bed = Way::Dsr.bed(BACKENDS as u8);
    let _servers = bed.servers();
    let _daemon = serve(&bed, &web(&bed, [1; BACKENDS]));
    let link = bed
        .topology
        .balancer
        .run("ip", &["link", "show", "dev", BALANCER_INTERFACE])
        .unwrap();
    assert!(
        link.contains("prog/xdp") && !link.contains("xdpgeneric"),
        "{link}"
    );
    let pins = fs::read_dir(bed.topology.pins()).unwrap();
    let pinned = pins
        .map(|pin| pin.unwrap().file_name().into_string().unwrap())
        .any(|name| name.starts_with("link-"));
    assert!(
        pinned,
        "no pinned link in {}",
        bed.topology.pins().display()
    );
}

/// Frames that are longer than a page, which XDP is given in several buffers.
fn forwards_jumbo_frames(way: Way) {
    let bed = way.bed_with(&Spec {
        backends: BACKENDS as u8,
        mtu: 9_000,
        ..Spec::default()
    });
    let _tunnels = bed.tunnels();
    let _echoes = echoes(&bed);
    let _daemon = serve(&bed, &(bed.head() + &udp(&bed, "")));
    for vip in [VIP4, VIP6] {
        all_echo(&bed, vip, 8_000);
    }
}

#[test]
fn frames_of_several_buffers_are_forwarded() {
    for way in [Way::Dsr, Way::Gue, Way::Snat] {
        forwards_jumbo_frames(way);
    }
}

/// Changes weights and drains a backend under traffic: it gets no new connection, and none of
/// those that it has breaks.
fn transition(way: Way) {
    let bed = way.bed(BACKENDS as u8);
    let _tunnels = bed.tunnels();
    let _servers = bed.servers();
    let mut daemon = serve(&bed, &web(&bed, [1; BACKENDS]));
    // Chance gives the first backend none of 30 kept connections once in 200,000 runs.
    let mut traffic = gentle(&bed, VIP4, 4, 30, 300);
    wait::until("every kept connection to be open", PATIENCE, || {
        let kept = traffic.report()?.kept;
        ensure!(kept.ok >= 45, "{kept:?}");
        Ok(())
    })
    .unwrap();
    daemon.reconfigure(&web(&bed, [1, 1, 5])).unwrap();
    thread::sleep(Duration::from_secs(3));
    daemon.reconfigure(&web(&bed, [0, 1, 1])).unwrap();
    await_services(&daemon, |service| {
        service["serving"] == BACKENDS - 1 && service["backends"][0]["slots"] == 0
    });
    let drained = now_ms() as f64;
    thread::sleep(Duration::from_secs(6));
    let outcome = traffic.stop().unwrap();
    all_answered(&bed, &outcome);
    let after = |kind| {
        let records = outcome.records.iter();
        let after = records.filter(move |r| r.kind == kind && r.at_ms > drained);
        let by_first = after.clone().filter(|r| r.backend.as_deref() == Some("b1"));
        (after.count(), by_first.count())
    };
    let (new, new_by_first) = after(Kind::New);
    assert!(
        new > 0 && new_by_first == 0,
        "{way:?}: {new_by_first} of {new}"
    );
    let (kept, kept_by_first) = after(Kind::Kept);
    assert!(kept_by_first > 0, "{way:?}: none of {kept}");
}

#[test]
fn established_connections_survive_weights_and_a_drain() {
    transition(Way::Dsr);
}

#[test]
fn established_connections_survive_weights_and_a_drain_in_a_tunnel() {
    transition(Way::Gue);
}

#[test]
fn established_connections_survive_weights_and_a_drain_in_mode_snat() {
    transition(Way::Snat);
}

/// Kills the controller under traffic and starts it anew, twice.
fn restart(way: Way) {
    let bed = way.bed(BACKENDS as u8);
    let _tunnels = bed.tunnels();
    let _servers = bed.servers();
    let mut daemon = serve(&bed, &web(&bed, [1; BACKENDS]));
    let generation = daemon.status().unwrap()["generation"].clone();
    let traffic = gentle(&bed, VIP4, 8, 3, 300);
    thread::sleep(Duration::from_secs(2));
    for _ in 0..2 {
        daemon.kill();
        thread::sleep(Duration::from_secs(2));
        daemon.restart().unwrap();
    }
    thread::sleep(Duration::from_secs(2));
    all_answered(&bed, &traffic.stop().unwrap());
    let status = daemon.status().unwrap();
    // Adopted, not built anew: nothing had changed, so nothing was published.
    assert_eq!(status["generation"], generation);
    daemon.terminate().unwrap();
    let said = daemon.unload().unwrap();
    assert!(said.contains("removed"), "{said}");
    assert!(!bed.topology.pins().exists());
}

#[test]
fn a_controller_that_is_killed_and_started_again_takes_over_unnoticed() {
    restart(Way::Dsr);
}

#[test]
fn a_controller_that_is_killed_and_started_again_takes_over_unnoticed_in_mode_snat() {
    restart(Way::Snat);
}

#[test]
#[ignore = "needs a kernel older than 6.1: `cargo xtask test --kernels 5.10` runs it on one"]
fn an_older_kernel_is_refused_before_anything_is_touched() {
    tools::require_root().unwrap();
    let running = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let dir = RunDir::create(0).unwrap();
    let pins = dir.bpf().join("evenkeel");
    let config = format!(
        "[data_plane]\ninterfaces = [\"lo\"]\nxdp_mode = \"generic\"\npins = \"{}\"\n\n\
         [admin]\nsocket = \"{}\"\n\n[[services]]\nname = \"web\"\nvip = \"{VIP4}\"\nport = 80\n\n\
         [[services.backends]]\naddress = \"10.0.0.1\"\n",
        pins.display(),
        dir.path().join("evenkeel.sock").display()
    );
    let config = dir.write("evenkeel.toml", &config).unwrap();
    let log = dir.path().join("evenkeel.log");
    let mut run = Command::new(tools::evenkeel().unwrap());
    run.args(["run", "--config"]).arg(&config);
    let mut refused = Process::start_logged("evenkeel", &mut run, &log).unwrap();
    // A controller that is not refused would run on.
    let status = refused.wait(PATIENCE).unwrap();
    let said = fs::read_to_string(&log).unwrap();
    assert_eq!(status.code(), Some(2), "{said}");
    let expected = format!(
        "error: this host is not fit:\n  host: kernel {}: missing are ",
        running.trim()
    );
    assert!(said.contains(&expected), "{said}");
    assert!(said.contains("; boot Linux 6.1 or later\n"), "{said}");
    assert!(!Path::new(&pins).exists(), "the pins were made");
}
