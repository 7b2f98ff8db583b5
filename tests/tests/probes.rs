//! Probes go the way of traffic: what is wrong on it shows, also where the backend itself is well.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{process::Command, time::Duration};

use anyhow::ensure;
use aya::programs::{SchedClassifier, TcAttachType};
use evenkeel_tests::{
    daemon::Daemon,
    process::Process,
    server::UdpEcho,
    tools,
    topology::{BALANCER_INTERFACE, Service, VIP4, VIP6},
    wait,
};
use serde_json::Value;
use ways::{Bed, Way};

mod ways;

/// For what takes a few probes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A service for each family, and beside each one whose probes go straight to the same servers.
fn config(bed: &Bed) -> String {
    let mut config = bed.head();
    for (family, vip) in [("four", VIP4), ("six", VIP6)] {
        let service = bed.web(family, vip);
        config += &bed.topology.service(&service);
        let name = format!("{family}-direct");
        let health = format!("{}\nport = 80\nvia = \"direct\"", service.health);
        let direct = Service {
            name: &name,
            port: "81",
            health: &health,
            ..service
        };
        config += &bed.topology.service(&direct);
    }
    config
}

/// A backend's health, and what its last probe found.
fn health(status: &Value, service: &str, backend: &str) -> (String, String) {
    let services = status["services"].as_array().unwrap();
    let of = services.iter().find(|s| s["name"] == service).unwrap();
    let backends = of["backends"].as_array().unwrap();
    let found = backends.iter().find(|b| b["name"] == backend).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&found["health"]), text(&found["last_probe"]["detail"]))
}

/// Waits until a backend of these services is in a state, by a probe that says why.
#[track_caller]
fn await_health(daemon: &Daemon<'_>, services: &[&str], backend: &str, state: &str, why: &str) {
    let looked = wait::until(
        format_args!("{services:?} to have {backend} {state}, {why:?}"),
        PATIENCE,
        || {
            let status = daemon.status()?;
            for service in services {
                let (health, detail) = health(&status, service, backend);
                ensure!(
                    health == state && detail.contains(why) && !detail.contains("straight"),
                    "{service}/{backend} is {health}: {detail}"
                );
            }
            Ok(())
        },
    );
    if let Err(e) = looked {
        let log = std::fs::read_to_string(daemon.log()).unwrap_or_default();
        panic!("{e:#}\n{log}");
    }
}

const STEERED: [&str; 2] = ["four", "six"];
const DIRECT: [&str; 2] = ["four-direct", "six-direct"];

fn await_all_up(daemon: &Daemon<'_>) {
    for backend in ["b1", "b2"] {
        await_health(daemon, &STEERED, backend, "up", "HTTP 200");
        await_health(daemon, &DIRECT, backend, "up", "HTTP 200");
    }
}

/// Takes the VIPs from a host's loopback device, or gives them back.
fn vips(bed: &Bed, verb: &str) {
    let lines = format!(
        "address {verb} {VIP4}/32 dev lo\naddress {verb} {VIP6}/128 dev lo{}\n",
        if verb == "add" { " nodad" } else { "" }
    );
    bed.topology.backends[0].namespace.ip(&lines).unwrap();
}

fn programs(bed: &Bed) -> usize {
    let attached = bed.topology.balancer.inside(|| {
        [TcAttachType::Egress, TcAttachType::Ingress].map(|kind| {
            SchedClassifier::query_tcx(BALANCER_INTERFACE, kind)
                .unwrap()
                .1
                .len()
        })
    });
    attached.unwrap().iter().sum()
}

#[test]
fn a_backend_that_loses_its_vip_goes_down_though_its_server_answers() {
    let bed = Way::Dsr.bed(2);
    let _servers = bed.servers();
    let mut daemon = Daemon::start(bed.topology, &config(&bed)).unwrap();
    await_all_up(&daemon);

    vips(&bed, "del");
    await_health(&daemon, &STEERED, "b1", "down", "no answer");
    await_health(&daemon, &DIRECT, "b1", "up", "HTTP 200");
    await_health(&daemon, &STEERED, "b2", "up", "HTTP 200");
    vips(&bed, "add");
    await_all_up(&daemon);

    // A balancer may hold the VIPs itself, so that it answers ARP for them; and it may look at
    // where packets come from.
    let own = format!("address add {VIP4}/32 dev lo\naddress add {VIP6}/128 dev lo nodad\n");
    bed.topology.balancer.ip(&own).unwrap();
    let strict = [("ipv4/conf/all/rp_filter", "1")];
    bed.topology.balancer.set(&strict).unwrap();
    vips(&bed, "del");
    await_health(&daemon, &STEERED, "b1", "down", "no answer");
    vips(&bed, "add");
    await_all_up(&daemon);

    // The programs are the controller's alone.
    assert_eq!(programs(&bed), 2);
    daemon.restart().unwrap();
    await_all_up(&daemon);
    assert_eq!(programs(&bed), 2);
    assert!(daemon.terminate().unwrap().success());
    assert_eq!(programs(&bed), 0);
}

/// What is wrong with a tunnel: nobody takes packets out of it, or it is too narrow.
fn a_broken_tunnel_shows(way: Way, largest: [u16; 2]) {
    let bed = way.bed(2);
    let mut tunnels = bed.tunnels();
    let _servers = bed.servers();
    let daemon = Daemon::start(bed.topology, &config(&bed)).unwrap();
    await_all_up(&daemon);

    tunnels.remove(0).remove().unwrap();
    await_health(&daemon, &STEERED, "b1", "down", "no answer");
    await_health(&daemon, &DIRECT, "b1", "up", "HTTP 200");

    bed.topology.switch.ip("link set b2 mtu 1400").unwrap();
    for (service, bytes) in STEERED.iter().zip(largest) {
        let why = format!("packets of {bytes} bytes do not arrive, small ones do");
        await_health(&daemon, &[service], "b2", "down", &why);
    }
    await_health(&daemon, &DIRECT, "b2", "up", "HTTP 200");
    bed.topology.switch.ip("link set b2 mtu 1500").unwrap();
    await_health(&daemon, &STEERED, "b2", "up", "HTTP 200");
}

#[test]
fn a_broken_tunnel_shows_in_ipip() {
    a_broken_tunnel_shows(Way::Ipip, [1480, 1460]);
}

#[test]
fn a_broken_tunnel_shows_in_ipip_across_families() {
    a_broken_tunnel_shows(Way::IpipAcross, [1460, 1480]);
}

#[test]
fn a_broken_tunnel_shows_in_gue() {
    a_broken_tunnel_shows(Way::Gue, [1472, 1452]);
}

/// A certificate for `web.test` that expires in three days, by a CA of its own: `ca.pem`,
/// `web.pem` and `web.key` in the bed's folder.
fn certificates(bed: &Bed) {
    let folder = bed.topology.dir().path();
    let openssl = |words: &str| {
        let mut openssl = Command::new("openssl");
        openssl.current_dir(folder).args(words.split(' '));
        tools::output(&mut openssl).unwrap();
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!(
        "req -x509 {key} -keyout ca.key -out ca.pem -days 30 -subj /CN=CA"
    ));
    openssl(&format!(
        "req -x509 {key} -keyout web.key -out web.pem -days 3 -subj /CN=web.test -CA ca.pem \
         -CAkey ca.key -addext subjectAltName=DNS:web.test -addext basicConstraints=CA:FALSE"
    ));
}

const TIMES: &str = "interval = \"300ms\"\ntimeout = \"250ms\"\nrise = 1\nfall = 2";

#[test]
fn checks_of_every_kind_see_real_servers_through_a_tunnel() {
    let bed = Way::Ipip.bed(1);
    let host = &bed.topology.backends[0];
    let _tunnels = bed.tunnels();
    let _echo = UdpEcho::start(bed.topology, host, 5300).unwrap();
    certificates(&bed);
    let folder = bed.topology.dir().path();
    let mut openssl = host.namespace.command("openssl").unwrap();
    openssl.current_dir(folder);
    openssl.args([
        "s_server", "-quiet", "-www", "-accept", "443", "-cert", "web.pem",
    ]);
    openssl.args(["-key", "web.key"]);
    let log = folder.join("s_server.log");
    let _server = Process::start_logged("openssl s_server", &mut openssl, &log).unwrap();

    let ca = folder.join("ca.pem");
    let tls = format!("server_name = \"web.test\"\nca = \"{}\"", ca.display());
    let checks = [
        ("https", "443", "tcp", format!("type = \"https\"\n{tls}\nbody_regex = \"Ciphers? (common|supported)\"")),
        ("tls", "444", "tcp", format!("type = \"tls\"\nport = 443\n{tls}")),
        ("stranger", "445", "tcp", "type = \"tls\"\nport = 443\nserver_name = \"web.test\"".to_owned() + &format!("\nca = \"{}\"", folder.join("web.pem").display())),
        ("udp", "5300", "udp", "type = \"udp\"\nsend = \"hello\"\nexpect = \"b1\"".to_owned()),
        ("icmp", "446", "tcp", "type = \"icmp\"".to_owned()),
        (
            "command",
            "447",
            "tcp",
            "type = \"command\"\ncommand = [\"/bin/sh\", \"-c\", \"echo $EVENKEEL_BACKEND is fine\"]".to_owned(),
        ),
    ];
    let mut config = bed.head();
    for (name, port, protocol, check) in &checks {
        let health = format!("{check}\n{TIMES}");
        let mut service = Service {
            port,
            health: &health,
            ..bed.web(name, VIP4)
        };
        service.options = format!("{}protocol = \"{protocol}\"\n", service.options);
        config += &bed.topology.service(&service);
    }
    let daemon = Daemon::start(bed.topology, &config).unwrap();
    let expires = ", and the certificate expires in ";
    await_health(
        &daemon,
        &["https"],
        "b1",
        "up",
        "HTTP 200, and the certificate",
    );
    await_health(&daemon, &["https", "tls"], "b1", "up", expires);
    await_health(&daemon, &["stranger"], "b1", "down", "certificate refused");
    await_health(&daemon, &["udp", "icmp"], "b1", "up", "answered");
    await_health(&daemon, &["command"], "b1", "up", "b1 is fine");
    let told = std::fs::read_to_string(daemon.log()).unwrap();
    assert!(
        told.contains("https/b1: its certificate expires in "),
        "{told}"
    );

    bed.topology.switch.ip("link set b1 mtu 1400").unwrap();
    let narrow = "packets of 1480 bytes do not arrive, small ones do";
    await_health(&daemon, &["https", "tls", "udp"], "b1", "down", narrow);
    await_health(&daemon, &["icmp"], "b1", "up", "answered");
}
