//! `evenkeel trace` and `evenkeel capture` tell what is decided, lose no packet by it, and leave the
//! plain program behind.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ways;

use std::{
    collections::BTreeSet,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use anyhow::ensure;
use aya::programs::{
    links::{FdLink, PinnedLink},
    loaded_programs,
};
use evenkeel_tests::{
    daemon::Daemon,
    tools,
    topology::{BALANCER_INTERFACE, Service, VIP4, VIP6},
    traffic::{Load, Traffic},
    wait,
};
use serde_json::Value;
use ways::{Bed, Way};

const PATIENCE: Duration = Duration::from_secs(30);
/// The names of the two programs.
const PLAIN: &str = "evenkeel";
const TELLS: &str = "evenkeel_trace";

/// The name of the program that the balancer's link holds.
fn forwards(bed: &Bed, daemon: &Daemon<'_>) -> anyhow::Result<String> {
    let status = daemon.status()?;
    let index = &status["interfaces"][0]["index"];
    forwards_on(bed, index.as_u64().unwrap())
}

fn forwards_on(bed: &Bed, index: u64) -> anyhow::Result<String> {
    let pin = bed.topology.pins().join(format!("link-{index}"));
    let link = FdLink::from(PinnedLink::from_pin(pin)?);
    let id = link.info()?.program_id();
    for program in loaded_programs() {
        let program = program?;
        if program.id() == id {
            return Ok(program.name_as_str().unwrap().to_owned());
        }
    }
    anyhow::bail!("no program {id}")
}

fn await_program(bed: &Bed, daemon: &Daemon<'_>, name: &str) {
    wait::until(format!("{name} to forward"), PATIENCE, || {
        let found = forwards(bed, daemon)?;
        ensure!(found == name, "{found} forwards");
        Ok(())
    })
    .unwrap();
}

fn command(bed: &Bed, daemon: &Daemon<'_>, arguments: &[&str]) -> Command {
    let mut command = bed.topology.balancer.command_at(daemon.binary());
    command
        .args(arguments)
        .env("EVENKEEL_SOCKET", bed.topology.socket())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn start(bed: &Bed, daemon: &Daemon<'_>, arguments: &[&str]) -> Child {
    command(bed, daemon, arguments).spawn().unwrap()
}

/// The objects that a command printed, one a line.
fn told(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn complaint(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A web service for everybody, and one that denies the client.
fn config(bed: &Bed) -> String {
    let web = bed.web("web", VIP4);
    let denied = Service {
        name: "closed",
        options: web.options.clone() + "deny = [\"fd00::/8\"]\n",
        health: "",
        ..bed.web("closed", VIP6)
    };
    bed.head() + &bed.topology.service(&web) + &bed.topology.service(&denied)
}

fn steady(bed: &Bed) -> Traffic<'static> {
    let load = Load {
        rate: 100,
        kept: 50,
        // An emulated machine is busy for seconds when a program is loaded.
        timeout: Duration::from_secs(30),
        ..Load::new(VIP4, Duration::from_mins(5))
    };
    Traffic::start(bed.topology, load).unwrap()
}

/// In a mode: decisions are told, no request fails, and the plain program is back.
fn tells(way: Way) {
    let bed = way.bed(3);
    let _tunnels = bed.tunnels();
    let _servers = bed.servers();
    let daemon = Daemon::start(bed.topology, &config(&bed)).unwrap();
    await_program(&bed, &daemon, PLAIN);
    let traffic = steady(&bed);
    let mut opened = 0;
    for _ in 0..3 {
        let words = ["trace", "web", "--count", "200", "--for", "30s", "--json"];
        let output = start(&bed, &daemon, &words).wait_with_output().unwrap();
        assert!(output.status.success(), "{}", complaint(&output));
        let decisions = told(&output);
        assert_eq!(decisions.len(), 200, "{}", complaint(&output));
        let mut backends = BTreeSet::new();
        for decision in &decisions {
            assert_eq!(decision["service"], "web", "{decision}");
            assert_eq!(decision["protocol"], "tcp", "{decision}");
            assert!(decision["reason"].is_null(), "{decision}");
            let verdict = decision["verdict"].as_str().unwrap();
            assert!(["transmit", "redirect"].contains(&verdict), "{decision}");
            assert_eq!(decision["interface"], BALANCER_INTERFACE, "{decision}");
            backends.insert(decision["backend"].as_str().unwrap().to_owned());
            let reply = decision["reply"].as_bool().unwrap();
            let to_vip = decision["destination"] == format!("{VIP4}:80");
            assert_eq!(reply, !to_vip, "{decision}");
            if to_vip && way != Way::Snat {
                assert_eq!(decision["slot"]["owner"], decision["backend"], "{decision}");
            }
        }
        assert_eq!(backends.len(), 3, "{backends:?}");
        let has_replies = decisions.iter().any(|d| d["reply"] == true);
        assert_eq!(has_replies, matches!(way, Way::Nat | Way::Snat));
        opened += decisions.iter().filter(|d| d["new_flow"] == true).count();
    }
    assert!(opened > 0, "no new flow among the decisions");
    await_program(&bed, &daemon, PLAIN);
    // Traffic over the plain program as well: where the machine is quick, all decisions were told
    // within a second.
    thread::sleep(Duration::from_secs(2));
    let outcome = traffic.stop().unwrap();
    let failures: Vec<_> = outcome.failures().take(5).collect();
    assert!(failures.is_empty(), "{way:?}: {failures:?}");
    let report = &outcome.report;
    assert!(report.new.ok > 100 && report.kept.ok > 100, "{report:?}");
}

#[test]
fn decisions_are_told_in_dsr() {
    tells(Way::Dsr);
}

#[test]
fn decisions_are_told_in_gue() {
    tells(Way::Gue);
}

#[test]
fn decisions_are_told_in_nat() {
    tells(Way::Nat);
}

#[test]
fn decisions_are_told_in_snat() {
    tells(Way::Snat);
}

/// Tries to open connections to the service that denies the client.
fn knock(bed: &Bed, times: u32) {
    let script = "import socket, sys\n\
                  for _ in range(int(sys.argv[2])):\n\
                  \x20   s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)\n\
                  \x20   s.setblocking(False)\n\
                  \x20   s.connect_ex((sys.argv[1], 80))\n\
                  \x20   s.close()\n";
    let times = times.to_string();
    let vip = VIP6.to_string();
    bed.topology
        .client
        .run("python3", &["-I", "-c", script, &vip, &times])
        .unwrap();
}

#[test]
fn what_is_told_is_filtered_bounded_and_over_in_time() {
    let bed = Way::Dsr.bed(3);
    let _servers = bed.servers();
    let mut daemon = Daemon::start(bed.topology, &config(&bed)).unwrap();
    let traffic = steady(&bed);

    // By reason and verdict: none of the requests that go on meanwhile.
    let words = ["trace", "--reason", "denied", "--for", "4s", "--json"];
    let denied = start(&bed, &daemon, &words);
    await_program(&bed, &daemon, TELLS);
    knock(&bed, 20);
    let output = denied.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", complaint(&output));
    let decisions = told(&output);
    assert!(decisions.len() >= 20, "{}", complaint(&output));
    for decision in &decisions {
        assert_eq!(decision["reason"], "denied", "{decision}");
        assert_eq!(decision["verdict"], "drop", "{decision}");
        assert_eq!(decision["service"], "closed", "{decision}");
    }

    // By client, port and protocol: there are none such.
    for filter in [
        &["--client", "203.0.113.0/24"][..],
        &["--port", "81"],
        &["--protocol", "udp"],
        &["--vip", "198.51.100.77"],
        &["--verdict", "passed", "web"],
    ] {
        let words = [&["trace", "--for", "1s"][..], filter].concat();
        let output = start(&bed, &daemon, &words).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{filter:?}: {output:?}");
        assert!(complaint(&output).contains("0 decisions"), "{output:?}");
    }
    for filter in [
        &["--client", "10.10.1.0/24"][..],
        &["--port", "80"],
        &["--protocol", "tcp"],
        &["--vip", "198.51.100.10"],
        &["web/b2"],
    ] {
        let words = [&["trace", "--count", "5", "--json"][..], filter].concat();
        let output = start(&bed, &daemon, &words).wait_with_output().unwrap();
        assert_eq!(told(&output).len(), 5, "{filter:?}: {output:?}");
        if filter == ["web/b2"] {
            assert!(told(&output).iter().all(|d| d["backend"] == "b2"));
        }
    }
    let output = start(&bed, &daemon, &["trace", "mail"])
        .wait_with_output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");

    // No more than the rate.
    let words = ["trace", "--rate", "10", "--for", "3s", "--json"];
    let output = start(&bed, &daemon, &words).wait_with_output().unwrap();
    let count = told(&output).len();
    assert!(
        (10..=35).contains(&count),
        "{count}: {}",
        complaint(&output)
    );
    assert!(complaint(&output).contains("beyond the rate"), "{output:?}");

    // One at a time; who goes away is noticed.
    let mut first = start(&bed, &daemon, &["trace", "--for", "5m"]);
    await_program(&bed, &daemon, TELLS);
    let second = start(&bed, &daemon, &["trace"]).wait_with_output().unwrap();
    assert_eq!(second.status.code(), Some(2), "{second:?}");
    assert!(complaint(&second).contains("watches already"), "{second:?}");
    first.kill().unwrap();
    first.wait().unwrap();
    await_program(&bed, &daemon, PLAIN);

    // A controller that is killed leaves a program that forwards; the next one puts the plain one
    // back.
    let index = daemon.status().unwrap()["interfaces"][0]["index"]
        .as_u64()
        .unwrap();
    let mut first = start(&bed, &daemon, &["trace", "--for", "5m"]);
    await_program(&bed, &daemon, TELLS);
    daemon.kill();
    first.wait().unwrap();
    assert_eq!(forwards_on(&bed, index).unwrap(), TELLS);
    thread::sleep(Duration::from_secs(2));
    daemon.restart().unwrap();
    await_program(&bed, &daemon, PLAIN);

    // One that is ended puts it back itself.
    let mut first = start(&bed, &daemon, &["trace", "--for", "5m"]);
    await_program(&bed, &daemon, TELLS);
    daemon.terminate().unwrap();
    first.wait().unwrap();
    assert_eq!(forwards_on(&bed, index).unwrap(), PLAIN);

    let outcome = traffic.stop().unwrap();
    let failures: Vec<_> = outcome.failures().take(5).collect();
    assert!(failures.is_empty(), "{failures:?}");
}

/// What tshark reads of a file: direction, comment, source and destination of each packet.
fn read(file: &str) -> Vec<[String; 4]> {
    let mut tshark = Command::new(tools::tool("tshark").unwrap());
    tshark.args(["-r", file, "-T", "fields", "-E", "separator=|"]);
    for field in ["frame.p2p_dir", "frame.comment", "ip.src", "ip.dst"] {
        tshark.args(["-e", field]);
    }
    let text = tools::output(&mut tshark).unwrap();
    text.lines()
        .map(|line| {
            let mut fields = line.split('|').map(str::to_owned);
            [(); 4].map(|()| fields.next().unwrap_or_default())
        })
        .collect()
}

#[test]
fn a_capture_shows_packets_in_and_out_with_their_decisions() {
    let bed = Way::Ipip.bed(3);
    let _tunnels = bed.tunnels();
    let _servers = bed.servers();
    let daemon = Daemon::start(bed.topology, &config(&bed)).unwrap();
    let traffic = steady(&bed);
    let path = bed.topology.dir().path().join("web.pcapng");
    let file = path.display().to_string();
    let words = [
        "capture",
        "-w",
        &file,
        "web",
        "--count",
        "100",
        "--snaplen",
        "128",
    ];
    let output = start(&bed, &daemon, &words).wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(complaint(&output).contains("100 packets"), "{output:?}");
    await_program(&bed, &daemon, PLAIN);
    let packets = read(&file);
    assert_eq!(packets.len(), 200, "each packet as it came, and as it left");
    for pair in packets.chunks(2) {
        let [
            [came, why, source, destination],
            [left, also, outer_source, outer_destination],
        ] = pair
        else {
            panic!("a pair");
        };
        // The directions of tshark: 0 sent, 1 received.
        assert_eq!((&**came, &**left), ("1", "0"), "{pair:?}");
        assert_eq!(why, also);
        assert!(
            why.contains("tcp 10.10.1.2:") && why.contains(" of web; "),
            "{why}"
        );
        assert_eq!((&**source, &**destination), ("10.10.1.2", "198.51.100.10"));
        // The outer header comes first.
        assert!(outer_source.starts_with("10.10.0.2,10.10.1.2"), "{pair:?}");
        let to = outer_destination.split(',').next().unwrap();
        let last: u8 = to.strip_prefix("10.10.0.1").unwrap().parse().unwrap();
        assert!(why.contains(&format!("to b{last}")), "{pair:?}");
    }

    // Only what is dropped: packets that came and did not leave.
    let drops = bed.topology.dir().path().join("drops.pcapng");
    let file = drops.display().to_string();
    let words = [
        "capture",
        "-w",
        &file,
        "--verdict",
        "dropped",
        "--for",
        "4s",
    ];
    let capture = start(&bed, &daemon, &words);
    await_program(&bed, &daemon, TELLS);
    knock(&bed, 5);
    let output = capture.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let packets = read(&file);
    assert!(packets.len() >= 5, "{packets:?}");
    for [came, why, ..] in &packets {
        assert!(came == "1" && why.contains("DROPPED (denied)"), "{why}");
    }
    let outcome = traffic.stop().unwrap();
    let failures: Vec<_> = outcome.failures().take(5).collect();
    assert!(failures.is_empty(), "{failures:?}");
}
