//! The balancer's own services keep working on the interface that VIP traffic goes through.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use evenkeel_tests::{
    daemon::Daemon,
    server::Web,
    topology::{BALANCER_INTERFACE, Spec, Topology, VIP4, VIP6},
    traffic::{Load, Traffic},
    wait,
};

/// The balancer's own addresses.
const OWN: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 10, 0, 2)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 2)),
];
/// The services' port, so that the address alone tells them apart.
const WEB: u16 = 80;
const LIMIT: Duration = Duration::from_secs(10);

/// Takes connections, and sends each what came in by it.
fn echo_streams(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut from = stream.try_clone()?;
                io::copy(&mut from, &mut &stream)?;
                stream.shutdown(Shutdown::Write)
            });
        }
    });
}

/// Sends every datagram back.
fn echo_datagrams(socket: UdpSocket) {
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            if socket.send_to(&buffer[..length], from).is_err() {
                return;
            }
        }
    });
}

/// Bytes that are not the same anywhere.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

fn connect(bed: &Topology, own: IpAddr) -> TcpStream {
    let stream = bed
        .client
        .inside(|| TcpStream::connect_timeout(&SocketAddr::new(own, WEB), LIMIT));
    let stream = stream.unwrap().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A large transfer in both directions at once.
fn transfer(bed: &Topology, own: IpAddr, length: usize) {
    let sent = pattern(length);
    let mut stream = connect(bed, own);
    let mut writer = stream.try_clone().unwrap();
    let mut received = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        stream.read_to_end(&mut received).unwrap();
    });
    assert!(received == sent, "{} of {length} bytes", received.len());
}

/// One keystroke and its echo, as a shell has them.
fn type_key(stream: &mut TcpStream, key: u8) {
    stream.write_all(&[key]).unwrap();
    let mut echo = [0];
    stream.read_exact(&mut echo).unwrap();
    assert_eq!(echo, [key]);
}

/// A datagram there and back; above the MTU it goes in fragments, both ways.
fn datagram(bed: &Topology, own: IpAddr, length: usize) {
    let any: IpAddr = match own {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = bed.client.inside(|| UdpSocket::bind((any, 0)));
    let socket = socket.unwrap().unwrap();
    socket.connect((own, WEB)).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let sent = pattern(length);
    socket.send(&sent).unwrap();
    let mut received = vec![0; length + 1];
    let count = socket
        .recv(&mut received)
        .unwrap_or_else(|e| panic!("{length} bytes to {own} and back: {e}"));
    assert!(received[..count] == sent, "{count} of {length} bytes");
}

#[test]
fn the_balancers_own_services_work_while_vip_traffic_flows() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    for own in OWN {
        // Each family has a socket of its own: a datagram must be answered from where it went to.
        let listener = bed.balancer.inside(|| TcpListener::bind((own, WEB)));
        echo_streams(listener.unwrap().unwrap());
        let socket = bed.balancer.inside(|| UdpSocket::bind((own, WEB)));
        echo_datagrams(socket.unwrap().unwrap());
    }
    // One connection from before the program is there, which must not notice that it comes.
    let mut shell = connect(&bed, OWN[0]);
    type_key(&mut shell, b'a');

    let config = bed.config_head() + &bed.web_service("web", VIP4) + &bed.web_service("six", VIP6);
    let daemon = Daemon::start(&bed, &config).unwrap();
    let link = bed
        .balancer
        .run("ip", &["link", "show", "dev", BALANCER_INTERFACE])
        .unwrap();
    assert!(
        link.contains(" xdp ") && !link.contains("xdpgeneric"),
        "not native: {link}"
    );
    let load = |vip| Load {
        kept: 10,
        ..Load::new(vip, Duration::from_mins(1))
    };
    let mut traffic = [VIP4, VIP6].map(|vip| Traffic::start(&bed, load(vip)).unwrap());
    for traffic in &mut traffic {
        wait::until("VIP traffic to flow", LIMIT, || {
            let report = traffic.report()?;
            anyhow::ensure!(report.new.ok > 0, "{report:?}");
            Ok(())
        })
        .unwrap();
    }

    let mut shells: Vec<_> = OWN.iter().map(|own| connect(&bed, *own)).collect();
    shells.push(shell);
    for round in 0..100 {
        for shell in &mut shells {
            type_key(shell, round);
        }
    }
    for own in OWN {
        transfer(&bed, own, 8 << 20);
        for length in [1, 1000, 1472, 4000, 20_000] {
            datagram(&bed, own, length);
        }
        let own = own.to_string();
        // Large ones come in fragments, which only the host can put together again.
        for size in ["56", "4000"] {
            bed.client
                .run("ping", &["-c3", "-i0.2", "-W2", "-s", size, &own])
                .unwrap();
        }
    }
    // The balancer is a client too.
    for host in &bed.backends {
        for address in [host.ipv4.to_string(), format!("[{}]", host.ipv6)] {
            let url = format!("http://{address}/");
            let answer = bed.balancer.run("curl", &["-sS", "-m", "5", &url]).unwrap();
            assert_eq!(answer.trim(), host.name);
        }
    }
    for shell in &mut shells {
        type_key(shell, b'z');
    }

    for traffic in traffic {
        let outcome = traffic.stop().unwrap();
        let failures: Vec<_> = outcome.failures().collect();
        assert!(failures.is_empty(), "{failures:?}");
        assert!(outcome.report.kept.ok > 0, "{:?}", outcome.report);
        assert_eq!(outcome.report.new.by_backend.len(), bed.backends.len());
    }
    let status = daemon.status().unwrap();
    for reason in ["fragment", "not-tcp-udp", "not-ip", "no-service"] {
        assert!(
            status["exits"][reason].as_u64().unwrap_or(0) > 0,
            "{reason}: {}",
            status["exits"]
        );
    }
}
