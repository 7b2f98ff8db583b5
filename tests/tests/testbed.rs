//! The test bed itself: what it promises to the tests that stand on it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use evenkeel_tests::{
    clock,
    process::Process,
    server::{AccessLog, UdpEcho, Web},
    topology::{Spec, Topology, VIP4},
    traffic::{Kind, Load, Traffic},
};

fn build() -> Topology {
    Topology::build(&Spec::default()).unwrap()
}

fn get(bed: &Topology, host: &str, path: &str) -> String {
    bed.client
        .run("curl", &["-sS", "-m", "2", &format!("http://{host}{path}")])
        .unwrap()
}

/// Everything that beds of a process leave in the file system while they live.
fn traces_of(pid: u32) -> Vec<String> {
    let marks = [format!("ek-{pid}-"), format!("{pid}-")];
    let mut traces: Vec<_> = ["/run/netns", "/run/evenkeel-test"]
        .iter()
        .filter_map(|dir| fs::read_dir(dir).ok())
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| marks.iter().any(|mark| name.starts_with(mark)))
        .collect();
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    traces.extend(
        mounts
            .lines()
            .filter(|l| l.contains(&format!("test/{pid}-")))
            .map(Into::into),
    );
    traces
}

#[test]
fn the_client_reaches_every_backend() {
    let bed = build();
    let _servers = Web::start_all(&bed).unwrap();
    for host in &bed.backends {
        for address in [host.ipv4.to_string(), format!("[{}]", host.ipv6)] {
            assert_eq!(get(&bed, &address, "/healthz"), "ok\n");
            assert_eq!(get(&bed, &address, "/"), format!("{}\n", host.name));
        }
    }
}

#[test]
fn the_first_connections_do_not_wait_for_the_lines() {
    let bed = build();
    let _servers = Web::start_all(&bed).unwrap();
    for host in &bed.backends {
        for address in [IpAddr::V4(host.ipv4), IpAddr::V6(host.ipv6)] {
            // A lost first frame would be sent again after a second.
            let limit = Duration::from_millis(500);
            let address = SocketAddr::new(address, 80);
            let connected = bed
                .client
                .inside(|| TcpStream::connect_timeout(&address, limit));
            connected.unwrap().unwrap();
        }
    }
}

#[test]
fn nobody_on_the_wire_answers_for_a_vip() {
    let bed = build();
    let _servers = Web::start_all(&bed).unwrap();
    // The balancer asks for them by ARP and neighbour solicitation, as the host next to them.
    for vip in &bed.vips {
        bed.balancer
            .ip(&format!("route add {vip} dev lb0"))
            .unwrap();
    }
    let connect = |address: IpAddr| {
        let address = SocketAddr::new(address, 80);
        bed.balancer
            .inside(|| TcpStream::connect_timeout(&address, Duration::from_millis(500)))
            .unwrap()
    };
    connect(bed.backends[0].ipv4.into()).unwrap();
    connect(bed.backends[0].ipv6.into()).unwrap();
    for vip in &bed.vips {
        connect(*vip).unwrap_err();
    }
}

#[test]
fn a_datagram_to_a_vip_is_answered_from_the_vip() {
    let bed = build();
    let _echo = UdpEcho::start(&bed, &bed.backends[0], 5353).unwrap();
    // A direct way stands in for the balancer.
    for (vip, via) in bed.vips.iter().zip(["10.10.0.11", "fd00:10::11"]) {
        bed.router
            .ip(&format!("route replace {vip} via {via}"))
            .unwrap();
    }
    for vip in &bed.vips {
        let any: IpAddr = if vip.is_ipv4() {
            [0; 4].into()
        } else {
            [0; 16].into()
        };
        let socket = bed
            .client
            .inside(|| UdpSocket::bind((any, 0)))
            .unwrap()
            .unwrap();
        // Connected: an answer from any other address would be refused.
        socket.connect(SocketAddr::new(*vip, 5353)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        socket.send(b"who?").unwrap();
        let mut answer = [0; 16];
        let length = socket.recv(&mut answer).unwrap();
        assert_eq!(&answer[..length], b"b1");
    }
}

#[test]
fn xdp_is_native_on_the_balancers_peer_and_its_checksums_are_whole() {
    let bed = build();
    let link = bed
        .switch
        .run("ip", &["link", "show", "dev", "balancer"])
        .unwrap();
    assert!(
        link.contains(" xdp ") && !link.contains("xdpgeneric"),
        "{link}"
    );
    let features = bed.switch.run("ethtool", &["-k", "balancer"]).unwrap();
    assert!(features.contains("tx-checksumming: off"), "{features}");
}

#[test]
fn traffic_notices_a_killed_server_and_its_return() {
    let bed = build();
    let mut server = Web::start(&bed, &bed.backends[0], AccessLog::On).unwrap();
    bed.router
        .ip(&format!(
            "route replace {VIP4} via {}",
            bed.backends[0].ipv4
        ))
        .unwrap();
    let load = Load {
        kept: 3,
        ..Load::new(VIP4, Duration::from_secs(30))
    };
    let mut traffic = Traffic::start(&bed, load).unwrap();

    thread::sleep(Duration::from_millis(2500));
    let report = traffic.report().unwrap();
    assert!((150..=300).contains(&report.new.sent), "{report:?}");
    assert_eq!((report.new.failed, report.kept.failed), (0, 0));

    let killed_at = clock::now_ms() as f64;
    server.kill();
    thread::sleep(Duration::from_secs(1));
    server.start_again().unwrap();
    let back_at = clock::now_ms() as f64;
    thread::sleep(Duration::from_secs(1));
    let outcome = traffic.stop().unwrap();

    let report = &outcome.report;
    assert_eq!(report.new.sent, report.new.ok + report.new.failed);
    assert_eq!(
        report.new.by_backend,
        BTreeMap::from([("b1".to_owned(), report.new.ok)])
    );
    assert_eq!(
        outcome.records.len() as u64,
        report.new.sent + report.kept.sent
    );
    assert!((70..=140).contains(&report.new.failed), "{report:?}");
    for failure in outcome.failures() {
        let end = failure.at_ms + failure.took_ms;
        assert!(
            end >= killed_at - 1.0 && failure.at_ms <= back_at,
            "{failure:?}"
        );
    }
    // Each long-lived connection was lost once, and belonged to the server that was killed.
    let lost = |number| {
        outcome
            .failures()
            .find(|r| r.kind == Kind::Kept && r.connection == number)
            .unwrap()
    };
    assert!((0..3).all(|number| lost(number).backend.as_deref() == Some("b1")));
    assert!(report.latency.p50_ms.unwrap() < 50.0, "{report:?}");

    let access = fs::read_to_string(bed.dir().path().join("b1/access.log")).unwrap();
    let served = access
        .lines()
        .filter(|line| line.ends_with(" 200 /"))
        .count() as u64;
    assert!(
        served >= report.new.ok + report.kept.ok,
        "{served} lines for {report:?}"
    );
}

#[test]
fn traffic_ends_by_its_number() {
    let bed = build();
    let _servers = Web::start_all(&bed).unwrap();
    let load = Load {
        rate: 1000,
        limit: Some(500),
        ..Load::new(IpAddr::V6(bed.backends[1].ipv6), Duration::from_secs(30))
    };
    let outcome = Traffic::start(&bed, load).unwrap().wait().unwrap();
    assert_eq!((outcome.report.new.sent, outcome.report.new.ok), (500, 500));
}

#[test]
fn nothing_is_left_after_drop() {
    let bed = build();
    let servers = Web::start_all(&bed).unwrap();
    let pid = std::process::id();
    assert_eq!(
        traces_of(pid).len(),
        9,
        "7 namespaces, a folder, a mount: {:?}",
        traces_of(pid)
    );
    drop(servers);
    drop(bed);
    assert_eq!(traces_of(pid), Vec::<String>::new());
}

#[test]
fn nothing_is_left_after_a_panic() {
    let panicked = thread::spawn(|| {
        let bed = build();
        let _servers = Web::start_all(&bed).unwrap();
        panic!("as a failing test does");
    });
    let message = panicked.join().unwrap_err();
    assert_eq!(message.downcast_ref(), Some(&"as a failing test does"));
    assert_eq!(traces_of(std::process::id()), Vec::<String>::new());
}

#[test]
fn the_next_run_removes_what_a_killed_one_left() {
    let mut dead = Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    let dead = dead.id();
    let name = format!("ek-{dead}-0-client");
    let bpf = format!("/run/evenkeel-test/{dead}-0/bpf");
    fs::create_dir_all(&bpf).unwrap();
    for line in [
        format!("ip netns add {name}"),
        format!("mount -t bpf test {bpf}"),
    ] {
        let mut words = line.split(' ');
        assert!(
            Command::new(words.next().unwrap())
                .args(words)
                .status()
                .unwrap()
                .success()
        );
    }
    let mut nsenter = Command::new("nsenter");
    nsenter
        .arg(format!("--net=/run/netns/{name}"))
        .args(["--", "sleep", "60"]);
    let mut stray = Process::start("stray", &mut nsenter).unwrap();
    thread::sleep(Duration::from_millis(200));
    assert_eq!(traces_of(dead).len(), 3);

    let _bed = build();
    assert_eq!(traces_of(dead), Vec::<String>::new());
    assert!(!Path::new(&bpf).exists());
    stray.wait(Duration::from_secs(1)).unwrap();
}
