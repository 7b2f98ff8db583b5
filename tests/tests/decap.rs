//! `evenkeel decap` on a backend: what comes in a tunnel reaches the VIP, and goes on doing so
//! while the command comes, goes and crashes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Command, Output},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use evenkeel_tests::{
    process::Process,
    tools,
    topology::{HOST_INTERFACE, Spec, Topology, VIP4, VIP6},
    wait,
};
use lb_common::testing::{Plan, Tunnel, ipv4_checksum};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
use serde_json::Value;

const PORT: u16 = 5353;
const GUE: u16 = 6080;
const PATIENCE: Duration = Duration::from_secs(10);

/// A bed with one backend, whose load balancer is this test: it sends by raw sockets.
struct Stage {
    bed: Topology,
    clients: [UdpSocket; 2],
    raw: [OwnedFd; 2],
}

impl Stage {
    fn build() -> Self {
        let spec = Spec {
            backends: 1,
            ..Spec::default()
        };
        let bed = Topology::build(&spec).unwrap();
        let bind = |address: &str| UdpSocket::bind((address, PORT)).unwrap();
        let clients = ["10.10.1.2", "fd00:10:1::2"]
            .map(|address| bed.client.inside(|| bind(address)).unwrap());
        for client in &clients {
            client.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        let raw = [AddressFamily::INET, AddressFamily::INET6].map(|family| {
            let open = || socket(family, SocketType::RAW, Some(ipproto::RAW)).unwrap();
            bed.balancer.inside(open).unwrap()
        });
        for vip in [VIP4, VIP6] {
            let bind = || UdpSocket::bind((vip, PORT)).unwrap();
            let server = bed.backends[0].namespace.inside(bind).unwrap();
            // It ends with the test's process.
            thread::spawn(move || {
                let mut buffer = [0; 2048];
                while let Ok((length, from)) = server.recv_from(&mut buffer) {
                    // What cannot be answered is missed by the client.
                    let _ = server.send_to(&buffer[..length], from);
                }
            });
        }
        Self { bed, clients, raw }
    }

    /// The tunnel from the balancer, or from another address of its network, to the backend.
    fn tunnel(outer_v6: bool, from: u8) -> Tunnel {
        if outer_v6 {
            Tunnel::ipip(&format!("fd00:10::{from}"), "fd00:10::11")
        } else {
            Tunnel::ipip(&format!("10.10.0.{from}"), "10.10.0.11")
        }
    }

    /// Sends a client's datagram to the VIP in a tunnel.
    fn send(&self, tunnel: &Tunnel, inner_v6: bool, payload: &[u8]) {
        let frame = tunnel.frame(&datagram(inner_v6, payload));
        let packet = &frame[tunnel.network()..];
        let raw = &self.raw[usize::from(tunnel.destination.is_ipv6())];
        let to = SocketAddr::new(tunnel.destination, 0);
        sendto(raw, packet, SendFlags::empty(), &to).unwrap();
    }

    /// The next answer that a client gets.
    fn answer(&self, inner_v6: bool) -> Vec<u8> {
        let mut buffer = [0; 2048];
        let client = &self.clients[usize::from(inner_v6)];
        let (length, from) = client.recv_from(&mut buffer).expect("an answer");
        assert_eq!(from.ip(), if inner_v6 { VIP6 } else { VIP4 });
        buffer[..length].to_vec()
    }

    fn pins(&self) -> PathBuf {
        self.bed.dir().bpf().join("decap")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let backend = &self.bed.backends[0].namespace;
        let mut command = backend.command_at(&tools::evenkeel().unwrap());
        command.arg("decap").args(arguments);
        command.arg("--pins").arg(self.pins());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn status(&self) -> anyhow::Result<Value> {
        let output = self.run(&["--status", "--json"]);
        ensure!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).context("no JSON")
    }

    /// Starts the command in the foreground, and waits until it says that it is attached.
    fn start(&self, times: usize) -> Process {
        let log = self.bed.dir().path().join("decap.log");
        let mut command = self.command(ATTACH);
        let mut process = Process::start_logged("evenkeel decap", &mut command, &log).unwrap();
        wait::until("decap to be attached", PATIENCE, || {
            process.check_running()?;
            let text = std::fs::read_to_string(&log)?;
            let said = text.matches("attached to eth0").count();
            let said = said + text.matches("took over on eth0").count();
            ensure!(said >= times, "{text}");
            Ok(())
        })
        .unwrap();
        process
    }
}

const ATTACH: &[&str] = &[
    "--interface",
    HOST_INTERFACE,
    "--allow",
    "10.10.0.2",
    "--allow",
    "fd00:10::2",
    "--vip",
    "198.51.100.10",
    "--vip",
    "2001:db8:100::10",
];

/// A client's datagram to the VIP: its IP packet, checksums right.
fn datagram(v6: bool, payload: &[u8]) -> Vec<u8> {
    let (from, to): (IpAddr, IpAddr) = if v6 {
        ("fd00:10:1::2".parse().unwrap(), VIP6)
    } else {
        ("10.10.1.2".parse().unwrap(), VIP4)
    };
    let mut plan = Plan::udp((from, PORT).into(), (to, PORT).into());
    plan.payload = payload.len();
    let mut packet = plan.bytes().split_off(14);
    let at = packet.len() - payload.len();
    packet[at..].copy_from_slice(payload);
    if v6 {
        // RFC 8200 §8.1: addresses, length and protocol count, too. IPv6 takes no zero.
        let words = packet[8..].chunks(2);
        let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        let mut sum = words.map(word).sum::<u32>() + (packet.len() as u32 - 40) + 17;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        packet[46..48].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    } else {
        ipv4_checksum(&mut packet, 0);
    }
    packet
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_tunnel_of_an_allowed_sender_reaches_the_vip_and_no_other_does() {
    let stage = Stage::build();
    let output = stage.run(&[ATTACH, &["--once"]].concat());
    assert!(output.status.success(), "{}", complaint(&output));
    for (outer_v6, inner_v6) in [(false, false), (false, true), (true, false), (true, true)] {
        for port in [None, Some(GUE)] {
            let name = format!("{outer_v6} {inner_v6} {port:?}");
            let tunnel = |from| Tunnel {
                port,
                ..Stage::tunnel(outer_v6, from)
            };
            // One after the other on one way: had the first come through, it would be answered
            // first.
            stage.send(&tunnel(3), inner_v6, b"from a stranger");
            stage.send(&tunnel(2), inner_v6, name.as_bytes());
            assert_eq!(stage.answer(inner_v6), name.as_bytes());
        }
    }
    let status = stage.status().unwrap();
    assert_eq!(status["unwrapped"], 8, "{status}");
    assert_eq!(status["reasons"]["sender"], 8, "{status}");
}

/// A decapsulator at work may load BPF and attach it, and nothing else.
fn assert_few_privileges(pid: u32) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    // BPF, PERFMON and NET_ADMIN, by their numbers in linux/capability.h.
    let kept = [39, 38, 12]
        .map(|number| 1_u64 << number)
        .iter()
        .sum::<u64>();
    for (set, bits) in [
        ("CapEff", kept),
        ("CapPrm", kept),
        ("CapBnd", 0),
        ("CapInh", 0),
    ] {
        assert!(
            status.contains(&format!("{set}:\t{bits:016x}\n")),
            "{set}: {status}"
        );
    }
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
}

/// Ends the sender, also where the test fails.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_packet_is_lost_while_the_command_is_killed_and_started() {
    let stage = Stage::build();
    let mut process = stage.start(1);
    assert_few_privileges(process.pid());
    let (done, count) = (AtomicBool::new(false), AtomicU32::new(0));
    let (sent, answered) = thread::scope(|scope| {
        let ends = SetOnDrop(&done);
        let sender = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let number = count.load(Ordering::Relaxed);
                let mut tunnel = Stage::tunnel(number % 4 > 1, 2);
                tunnel.port = (number % 2 == 1).then_some(GUE);
                stage.send(&tunnel, false, &number.to_be_bytes());
                count.store(number + 1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        });
        // Each state of the command has its traffic.
        let some_pass = || {
            let before = count.load(Ordering::Relaxed);
            wait::until("packets to be sent", PATIENCE, || {
                ensure!(count.load(Ordering::Relaxed) >= before + 100);
                Ok(())
            })
            .unwrap();
        };
        let receiver = scope.spawn(|| {
            let mut answered = BTreeSet::new();
            let mut buffer = [0; 64];
            // The read's time-out ends it: an empty answer, sent by this test, does so earlier.
            while let Ok(length) = stage.clients[0].recv(&mut buffer) {
                let Ok(bytes) = buffer[..length].try_into() else {
                    break;
                };
                answered.insert(u32::from_be_bytes(bytes));
            }
            answered
        });
        for times in 2..5 {
            some_pass();
            process.kill();
            some_pass();
            process = stage.start(times);
        }
        let ended = process.terminate(PATIENCE).unwrap();
        assert!(ended.success(), "{}", process.log_tail());
        let once = stage.run(&[ATTACH, &["--once"]].concat());
        assert!(once.status.success(), "{}", complaint(&once));
        some_pass();
        drop(ends);
        sender.join().unwrap();
        // The last of all, by the same way.
        stage.send(&Stage::tunnel(false, 2), false, b"the end");
        (count.load(Ordering::Relaxed), receiver.join().unwrap())
    });
    let missing: Vec<u32> = (0..sent)
        .filter(|number| !answered.contains(number))
        .collect();
    assert!(
        missing.is_empty(),
        "{} of {sent}: {missing:?}",
        missing.len()
    );
    let status = stage.status().unwrap();
    assert_eq!(status["unwrapped"], sent + 1, "{status}");
}

#[test]
fn rules_follow_the_last_start_and_addresses_the_interface() {
    let stage = Stage::build();
    let attach = |allow: &str| {
        let arguments = ["--interface", HOST_INTERFACE, "--allow", allow, "--once"];
        let output = stage.run(&arguments);
        assert!(output.status.success(), "{}", complaint(&output));
    };
    attach("10.10.0.0/30");
    stage.send(&Stage::tunnel(false, 2), false, b"one");
    assert_eq!(stage.answer(false), b"one");
    attach("10.10.0.3");
    stage.send(&Stage::tunnel(false, 2), false, b"two");
    stage.send(&Stage::tunnel(false, 3), false, b"three");
    assert_eq!(stage.answer(false), b"three");
    let status = stage.status().unwrap();
    assert_eq!(status["allowed"], serde_json::json!(["10.10.0.3/32"]));
    assert_eq!(status["reasons"]["sender"], 1, "{status}");

    // A wrong name changes nothing of what is in force.
    let output = stage.run(&["--interface", "eth9", "--allow", "10.10.0.2", "--once"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        complaint(&output).contains("interface eth9 does not exist"),
        "{output:?}"
    );
    assert_eq!(stage.status().unwrap()["allowed"], status["allowed"]);

    let mut follow = stage.command(ATTACH);
    follow.args(["--every", "1"]);
    let log = stage.bed.dir().path().join("decap.log");
    let _process = Process::start_logged("evenkeel decap", &mut follow, &log).unwrap();
    let ends = |address: &'static str| {
        wait::until("the address to be followed", PATIENCE, || {
            let status = stage.status()?;
            let ends = status["addresses"].as_array().context("no list")?;
            ensure!(ends.iter().any(|end| end == address), "{status}");
            Ok(())
        })
        .unwrap();
    };
    ends("10.10.0.11");
    let backend = &stage.bed.backends[0].namespace;
    backend.ip("address add 10.10.0.99/24 dev eth0").unwrap();
    ends("10.10.0.99");
    let tunnel = Tunnel::ipip("10.10.0.2", "10.10.0.99");
    stage.send(&tunnel, false, b"four");
    assert_eq!(stage.answer(false), b"four");
}

#[test]
fn an_open_relay_is_refused_and_what_is_loaded_can_be_taken_out() {
    let stage = Stage::build();
    let output = stage.run(&["--interface", HOST_INTERFACE, "--once"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(complaint(&output).contains("--allow-any"), "{output:?}");
    let output = stage.run(&["--status", "--json"]);
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(1), &b"null\n"[..])
    );

    let any = ["--interface", HOST_INTERFACE, "--allow-any", "--once"];
    let output = stage.run(&any);
    assert!(output.status.success(), "{}", complaint(&output));
    assert!(
        complaint(&output).contains("whoever reaches this host"),
        "{output:?}"
    );
    stage.send(&Stage::tunnel(true, 77), true, b"from anybody");
    assert_eq!(stage.answer(true), b"from anybody");

    let mut process = stage.start(1);
    let output = stage.run(&["--detach"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(complaint(&output).contains("end it first"), "{output:?}");
    assert!(process.terminate(PATIENCE).unwrap().success());

    let backend = &stage.bed.backends[0].namespace;
    let link = || {
        backend
            .run("ip", &["link", "show", HOST_INTERFACE])
            .unwrap()
    };
    assert!(link().contains("prog/xdp"), "{}", link());
    let output = stage.run(&["--detach"]);
    assert!(output.status.success(), "{}", complaint(&output));
    assert!(!stage.pins().exists());
    wait::until("the program to be gone", PATIENCE, || {
        ensure!(!link().contains("prog/xdp"), "{}", link());
        Ok(())
    })
    .unwrap();
}

#[test]
fn generic_xdp_serves_where_it_is_asked_for() {
    let stage = Stage::build();
    let output = stage.run(&[ATTACH, &["--once", "--xdp-mode", "generic"]].concat());
    assert!(output.status.success(), "{}", complaint(&output));
    for (outer_v6, inner_v6) in [(false, false), (false, true), (true, false), (true, true)] {
        let tunnel = Stage::tunnel(outer_v6, 2).gue(GUE);
        stage.send(&tunnel, inner_v6, b"generic");
        assert_eq!(stage.answer(inner_v6), b"generic");
    }
}
