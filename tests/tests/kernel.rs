//! What every supported kernel must do: load, attach, forward, and go on through a restart.
//!
//! `cargo xtask test --kernels` runs these in virtual machines that are emulated, some twenty
//! times slower than the host: they ask for little traffic, and probe the backends patiently.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use evenkeel_tests::{
    daemon::Daemon,
    process::Process,
    run_dir::RunDir,
    server::{UdpEcho, Web},
    tools,
    topology::{BALANCER_INTERFACE, Spec, Topology, VIP4, VIP6},
    traffic::{Load, Traffic},
    wait,
};

/// How long an emulated machine may take for what a real one does at once.
const PATIENCE: Duration = Duration::from_mins(3);

/// The port of the UDP service.
const ECHO: u16 = 5353;

/// A configuration of one web service for each family, with checks that wait for a slow machine.
fn web(bed: &Topology) -> String {
    let services = bed.web_service("web", VIP4) + &bed.web_service("web6", VIP6);
    let eager = "interval = \"200ms\"\ntimeout = \"150ms\"\nrise = 2\nfall = 2\n";
    assert!(services.contains(eager), "{services}");
    let patient = "interval = \"1s\"\ntimeout = \"900ms\"\nrise = 1\nfall = 10\n";
    bed.config_head() + &services.replace(eager, patient)
}

/// The same with UDP services beside them, which are probed by their web server.
fn web_and_udp(bed: &Topology) -> String {
    let web = web(bed);
    let services = &web[bed.config_head().len()..];
    let port = format!("port = {ECHO}\nprotocol = \"udp\"\n");
    let udp = services
        .replace("name = \"web", "name = \"echo")
        .replace("\nport = 80\n", &format!("\n{port}"))
        .replace(
            "[services.health]\n",
            &format!("[services.health]\nport = {}\n", 80),
        );
    web.clone() + &udp
}

/// Starts a controller and waits until every backend of every service serves.
fn serve<'bed>(bed: &'bed Topology, config: &str) -> Daemon<'bed> {
    let daemon = Daemon::start(bed, config).unwrap();
    await_all(&daemon, bed.backends.len());
    daemon
}

fn await_all(daemon: &Daemon<'_>, backends: usize) {
    wait::until("every backend to serve", PATIENCE, || {
        let status = daemon.status()?;
        let services = status["services"].as_array().context("no services")?;
        for service in services {
            ensure!(service["serving"] == backends, "{service}");
        }
        Ok(())
    })
    .unwrap();
}

/// Requests at a pace that an emulated machine keeps up with.
fn gentle(bed: &Topology, vip: IpAddr, seconds: u64) -> Traffic<'_> {
    let load = Load {
        rate: 8,
        kept: 3,
        timeout: Duration::from_secs(20),
        ..Load::new(vip, Duration::from_secs(seconds))
    };
    Traffic::start(bed, load).unwrap()
}

/// Ends traffic, and checks that nothing failed and that every backend had some.
fn all_answered(traffic: Traffic<'_>, backends: usize) {
    let outcome = traffic.wait().unwrap();
    let failures: Vec<_> = outcome.failures().collect();
    assert!(failures.is_empty(), "{failures:?}");
    let report = &outcome.report;
    assert_eq!(report.new.by_backend.len(), backends, "{report:?}");
    assert!(report.kept.ok > 0, "{report:?}");
}

/// Asks the UDP service from one port after another until every backend has answered.
fn all_echo(bed: &Topology, vip: IpAddr) {
    let any: IpAddr = if vip.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let ask = || -> Result<BTreeSet<String>> {
        let mut answered = BTreeSet::new();
        for _ in 0..100 {
            let socket = UdpSocket::bind((any, 0))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            // Connected: an answer from any other address would be refused.
            socket.connect(SocketAddr::new(vip, ECHO))?;
            socket.send(b"who?")?;
            let mut answer = [0; 16];
            let length = socket.recv(&mut answer).context("no answer")?;
            answered.insert(String::from_utf8_lossy(&answer[..length]).into_owned());
        }
        Ok(answered)
    };
    let answered = bed.client.inside(ask).unwrap().unwrap();
    let all: BTreeSet<_> = bed.backends.iter().map(|host| host.name.clone()).collect();
    // Chance leaves one of three backends out of 100 flows once in 10^17 runs.
    assert_eq!(answered, all);
}

#[test]
fn the_program_is_attached_natively_by_a_pinned_link() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let _daemon = serve(&bed, &web(&bed));
    let link = bed
        .balancer
        .run("ip", &["link", "show", "dev", BALANCER_INTERFACE])
        .unwrap();
    assert!(
        link.contains("prog/xdp") && !link.contains("xdpgeneric"),
        "{link}"
    );
    let pins = fs::read_dir(bed.pins()).unwrap();
    let pinned = pins
        .map(|pin| pin.unwrap().file_name().into_string().unwrap())
        .any(|name| name.starts_with("link-"));
    assert!(pinned, "no pinned link in {}", bed.pins().display());
}

#[test]
fn mode_dsr_forwards_tcp_and_udp_of_both_families() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let _echoes: Vec<_> = bed
        .backends
        .iter()
        .map(|host| UdpEcho::start(&bed, host, ECHO).unwrap())
        .collect();
    let daemon = serve(&bed, &web_and_udp(&bed));
    for vip in [VIP4, VIP6] {
        all_answered(gentle(&bed, vip, 8), bed.backends.len());
        all_echo(&bed, vip);
    }
    // It was the program and not the host that forwarded: every service counted packets.
    wait::until("the counters to be read", PATIENCE, || {
        let status = daemon.status()?;
        for service in status["services"].as_array().context("no services")? {
            let backends = service["backends"].as_array().context("no backends")?;
            let packets: u64 = backends.iter().filter_map(|b| b["packets"].as_u64()).sum();
            ensure!(packets > 0, "{service}");
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_controller_that_is_killed_and_started_again_takes_over_unnoticed() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let mut daemon = serve(&bed, &web(&bed));
    let generation = daemon.status().unwrap()["generation"].clone();
    let traffic = gentle(&bed, VIP4, 20);
    std::thread::sleep(Duration::from_secs(2));
    for _ in 0..2 {
        daemon.kill();
        std::thread::sleep(Duration::from_secs(2));
        daemon.restart().unwrap();
    }
    all_answered(traffic, bed.backends.len());
    let status = daemon.status().unwrap();
    // Adopted, not built anew: nothing had changed, so nothing was published.
    assert_eq!(status["generation"], generation);
    daemon.terminate().unwrap();
    let said = daemon.unload().unwrap();
    assert!(said.contains("removed"), "{said}");
    assert!(!bed.pins().exists());
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
        "error: this machine runs Linux {}, and evenkeel needs 6.1 or later: missing are ",
        running.trim()
    );
    assert!(said.starts_with(&expected), "{said}");
    assert_eq!(
        said.lines().count(),
        1,
        "one error and nothing else: {said}"
    );
    assert!(!Path::new(&pins).exists(), "the pins were made");
}
