//! Next hops, against the routes and neighbours of real network namespaces. Needs root.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something it needs fails"
)]
#![expect(clippy::print_stdout, reason = "measured times are for people to read")]

use std::{
    collections::BTreeSet,
    fs::File,
    net::IpAddr,
    os::fd::AsFd as _,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc as std_mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use lb_userspace::neighbours::{NextHop, NextHops, Rejection, Unresolved, watch::Watcher};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::{mpsc, watch};

/// How long anything may take; shorter than the watcher's refresh, which would hide that an
/// announcement was missed.
const DEADLINE: Duration = Duration::from_secs(20);

const OWN_0: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OWN_1: [u8; 6] = [2, 0, 0, 0, 1, 1];
const PEER_0: [u8; 6] = [2, 0, 0, 0, 0, 2];
const PEER_1: [u8; 6] = [2, 0, 0, 0, 1, 2];

/// A network namespace that is removed, with all that is in it, at the end.
struct Namespace(String);

impl Namespace {
    fn new(role: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes network namespaces: run it as root"
        );
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ek-{}-n{count}-{role}", std::process::id());
        run("ip", &["netns", "add", &name]);
        Self(name)
    }

    /// Runs `ip` with these words inside, and returns what it prints.
    fn ip(&self, words: &str) -> String {
        let words: Vec<&str> = ["-n", &self.0]
            .into_iter()
            .chain(words.split(' '))
            .collect();
        run("ip", &words)
    }

    /// Runs a shell command inside, and returns what it prints.
    fn shell(&self, command: &str) -> String {
        run("ip", &["netns", "exec", &self.0, "sh", "-ec", command])
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A panic here would hide the one that is under way.
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn run(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {}: {stderr}",
        words.join(" ")
    );
    String::from_utf8(output.stdout).unwrap()
}

/// `lb`, and a peer behind each of its interfaces that is both backend and gateway.
///
/// | interface | subnet | `lb` | gateway | backend |
/// |---|---|---|---|---|
/// | `wan0` | 10.0.0.0/24 | .2 | .1 | .9 |
/// | `wan0` | `fd00::/64` | `::2` | `::1` | `::9` |
/// | `wan1` | 10.0.1.0/24 | .2 | .1 | – |
struct Net {
    lb: Namespace,
    peer0: Namespace,
    peer1: Namespace,
}

impl Net {
    fn new() -> Self {
        let net = Self {
            lb: Namespace::new("lb"),
            peer0: Namespace::new("p0"),
            peer1: Namespace::new("p1"),
        };
        net.lb
            .shell("echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad");
        for (index, peer) in [&net.peer0, &net.peer1].into_iter().enumerate() {
            // Addresses of other subnets must not be taken from another interface's answer.
            peer.shell("echo 2 > /proc/sys/net/ipv4/conf/all/arp_ignore");
            net.lb.ip(&format!(
                "link add wan{index} address 02:00:00:00:0{index}:01 type veth \
                 peer name up0 address 02:00:00:00:0{index}:02 netns {}",
                peer.0
            ));
            net.lb.ip(&format!("link set wan{index} up"));
            net.lb
                .ip(&format!("addr add 10.0.{index}.2/24 dev wan{index}"));
            peer.ip("link set up0 up");
            peer.ip(&format!("addr add 10.0.{index}.1/24 dev up0"));
        }
        net.lb.ip("link set lo up");
        net.lb.ip("addr add fd00::2/64 dev wan0 nodad");
        net.peer0.ip("addr add 10.0.0.9/24 dev up0");
        net.peer0.ip("addr add fd00::9/64 dev up0 nodad");
        net.peer0.ip("addr add fd00::1/64 dev up0 nodad");
        // An address that settles later would be announced, and lead the watcher to read all
        // again just when a test wants to see whether it does so for another reason.
        for interface in ["wan0", "wan1"] {
            let begin = now();
            let settled = format!("-6 addr show dev {interface} scope link -tentative");
            while !net.lb.ip(&settled).contains("fe80:") {
                assert!(
                    begin.elapsed() < DEADLINE,
                    "no link-local address on {interface}"
                );
                thread::sleep(Duration::from_millis(5));
            }
        }
        net
    }
}

enum Order {
    Follow(BTreeSet<IpAddr>),
    /// Keeps the watcher from running until the other end is dropped.
    Stall(std_mpsc::Receiver<()>),
}

/// A watcher on a thread of its own, inside a namespace.
struct Watched {
    orders: Option<mpsc::UnboundedSender<Order>>,
    state: watch::Receiver<Arc<NextHops>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Watched {
    fn new(net: &Net, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let namespace = File::open(format!("/run/netns/{}", net.lb.0)).unwrap();
        let addresses = addresses.into_iter().collect();
        let (orders, mut ordered) = mpsc::unbounded_channel();
        let (send_state, state) = std_mpsc::channel();
        let thread = thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let (watcher, state) = Watcher::spawn(addresses);
                send_state.send(state).unwrap();
                while let Some(order) = ordered.recv().await {
                    match order {
                        Order::Follow(addresses) => watcher.follow(addresses),
                        Order::Stall(until) => assert!(until.recv().is_err()),
                    }
                }
            });
        });
        let state = state.recv().unwrap();
        let watched = Self {
            orders: Some(orders),
            state,
            thread: Some(thread),
        };
        watched.wait("the first snapshot", |_| {
            watched.state.has_changed().unwrap()
        });
        watched
    }

    fn order(&self, order: Order) {
        self.orders.as_ref().unwrap().send(order).ok().unwrap();
    }

    /// Waits for a state that fulfils a condition.
    fn wait(&self, what: &str, condition: impl Fn(&NextHops) -> bool) -> Arc<NextHops> {
        let begin = now();
        loop {
            let state = Arc::clone(&self.state.borrow());
            if condition(&state) {
                return state;
            }
            assert!(
                begin.elapsed() < DEADLINE,
                "{what} did not come to be: {state:#?}"
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for an address to have a next hop that fulfils a condition.
    fn hop(&self, address: &str, condition: impl Fn(&NextHop) -> bool) -> NextHop {
        let key = ip(address);
        let state = self.wait(&format!("the next hop of {address}"), |state| {
            state.hops[&key].as_ref().is_ok_and(&condition)
        });
        state.hops[&key].clone().unwrap()
    }

    /// Waits for an address to have no next hop for this reason.
    fn unresolved(&self, address: &str, reason: &Unresolved) {
        let key = ip(address);
        self.wait(&format!("the end of {address}"), |state| {
            state.hops[&key]
                .as_ref()
                .is_err_and(|found| found == reason)
        });
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.orders = None;
        let ended = self.thread.take().unwrap().join();
        assert!(
            ended.is_ok() || thread::panicking(),
            "the watcher's thread panicked"
        );
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test against the kernel runs in real time"
)]
fn now() -> Instant {
    Instant::now()
}

fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

fn ips<const N: usize>(addresses: [&str; N]) -> [IpAddr; N] {
    addresses.map(ip)
}

/// Waits for the kernel's entry of a neighbour of `lb`, as `ip -d neigh` prints it.
fn entry(net: &Net, neighbour: &str, condition: impl Fn(&str) -> bool) {
    let begin = now();
    loop {
        let line = net.lb.ip(&format!("-d neigh show {neighbour}"));
        if condition(&line) {
            return;
        }
        assert!(
            begin.elapsed() < DEADLINE,
            "the entry of {neighbour} stays {line:?}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn backends_are_found_on_the_link_and_behind_gateways() {
    let net = Net::new();
    net.lb.ip("link set wan0 mtu 1480");
    net.lb.ip("route add 10.9.0.0/24 via 10.0.0.1");
    net.lb.ip("route add fd09::/64 via fd00::1");
    net.lb
        .ip("route add 10.8.0.0/24 via inet6 fd00::1 dev wan0");
    let cases = [
        ("10.0.0.9", None),
        ("10.9.0.9", Some("10.0.0.1")),
        ("fd00::9", None),
        ("fd09::9", Some("fd00::1")),
        ("10.8.0.9", Some("fd00::1")),
    ];
    let watched = Watched::new(&net, cases.map(|(address, _)| ip(address)));
    for (address, gateway) in cases {
        let hop = watched.hop(address, |_| true);
        let expected = NextHop {
            interface: hop.interface,
            interface_name: "wan0".into(),
            source_mac: OWN_0,
            gateway: gateway.map(ip),
            mac: PEER_0,
            mtu: 1480,
            source: Some(ip(if address.contains(':') {
                "fd00::2"
            } else {
                "10.0.0.2"
            })),
        };
        assert_eq!(hop, expected);
        let index = net.lb.shell("cat /sys/class/net/wan0/ifindex");
        assert_eq!(hop.interface.to_string(), index.trim());
        entry(&net, gateway.unwrap_or(address), |line| {
            line.contains(" managed ")
        });
    }
}

#[test]
fn what_cannot_be_reached_says_why() {
    let net = Net::new();
    for (kind, number) in [("blackhole", 1), ("unreachable", 2), ("prohibit", 3)] {
        net.lb.ip(&format!("route add {kind} 10.{number}.0.0/16"));
        net.lb.ip(&format!("route add {kind} fd0{number}::/64"));
    }
    net.lb.ip("route add 10.4.0.0/16 dev lo");
    net.lb.ip("tuntap add mode tun name tun0");
    net.lb.ip("link set tun0 up");
    net.lb.ip("route add 10.5.0.0/16 dev tun0");
    let rejected = |address, kind| Unresolved::Rejected { address, kind };
    let no_ethernet = |address, interface: &str| Unresolved::NoEthernet {
        address,
        interface: interface.into(),
    };
    let cases = [
        rejected(ip("10.1.0.1"), Rejection::Blackhole),
        rejected(ip("10.2.0.1"), Rejection::Unreachable),
        rejected(ip("10.3.0.1"), Rejection::Prohibit),
        rejected(ip("fd01::1"), Rejection::Blackhole),
        rejected(ip("fd02::1"), Rejection::Unreachable),
        rejected(ip("fd03::1"), Rejection::Prohibit),
        no_ethernet(ip("10.4.0.1"), "lo"),
        no_ethernet(ip("10.5.0.1"), "tun0"),
        Unresolved::NoRoute {
            address: ip("10.6.0.1"),
        },
        Unresolved::NoRoute {
            address: ip("fd06::1"),
        },
        Unresolved::Local {
            address: ip("10.0.0.2"),
        },
        Unresolved::Local {
            address: ip("fd00::2"),
        },
        Unresolved::NotUnicast {
            address: ip("10.0.0.255"),
        },
        Unresolved::Waiting {
            address: ip("10.0.0.77"),
            next_hop: ip("10.0.0.77"),
            interface: "wan0".into(),
        },
    ];
    let addresses = [
        "10.1.0.1",
        "10.2.0.1",
        "10.3.0.1",
        "fd01::1",
        "fd02::1",
        "fd03::1",
        "10.4.0.1",
        "10.5.0.1",
        "10.6.0.1",
        "fd06::1",
        "10.0.0.2",
        "fd00::2",
        "10.0.0.255",
        "10.0.0.77",
    ];
    let watched = Watched::new(&net, ips(addresses));
    // The first snapshot knows it all already.
    let first = Arc::clone(&watched.state.borrow());
    for (address, reason) in addresses.into_iter().zip(&cases) {
        assert_eq!(first.hops[&ip(address)].as_ref().unwrap_err(), reason);
    }

    net.lb.ip("route replace 10.1.0.0/16 via 10.0.0.1");
    assert_eq!(
        watched.hop("10.1.0.1", |_| true).gateway,
        Some(ip("10.0.0.1"))
    );
    net.lb.ip("route del 10.1.0.0/16");
    watched.unresolved(
        "10.1.0.1",
        &Unresolved::NoRoute {
            address: ip("10.1.0.1"),
        },
    );
}

#[test]
fn a_backend_that_changes_its_mac_is_followed() {
    let net = Net::new();
    net.lb
        .shell("echo 0 > /proc/sys/net/ipv4/neigh/wan0/locktime");
    net.peer0.shell(
        "echo 1 > /proc/sys/net/ipv4/conf/up0/arp_notify; \
         echo 1 > /proc/sys/net/ipv6/conf/up0/ndisc_notify",
    );
    let watched = Watched::new(&net, ips(["10.0.0.9", "fd00::9"]));
    watched.hop("10.0.0.9", |hop| hop.mac == PEER_0);
    watched.hop("fd00::9", |hop| hop.mac == PEER_0);
    let mac = [2, 0, 0, 0, 0, 0x99];
    net.peer0.ip("link set up0 address 02:00:00:00:00:99");
    // The kernel announces the first address of the interface by itself; this is the second.
    net.lb
        .ip("neigh replace 10.0.0.9 dev wan0 lladdr 02:00:00:00:00:99 nud reachable");
    watched.hop("10.0.0.9", |hop| hop.mac == mac);
    watched.hop("fd00::9", |hop| hop.mac == mac);
}

#[test]
fn a_changed_route_leads_to_another_interface_and_gateway() {
    let net = Net::new();
    net.lb.ip("route add 10.9.0.0/24 via 10.0.0.1");
    let watched = Watched::new(&net, ips(["10.9.0.9"]));
    let hop = watched.hop("10.9.0.9", |_| true);
    assert_eq!(
        (&*hop.interface_name, hop.source_mac, hop.mac),
        ("wan0", OWN_0, PEER_0)
    );

    net.lb.ip("route replace 10.9.0.0/24 via 10.0.1.1");
    let hop = watched.hop("10.9.0.9", |hop| hop.gateway == Some(ip("10.0.1.1")));
    assert_eq!(
        (&*hop.interface_name, hop.source_mac, hop.mac),
        ("wan1", OWN_1, PEER_1)
    );
    entry(&net, "10.0.1.1", |line| line.contains(" managed "));
    // The old gateway's entry stays, but need no longer be kept fresh.
    entry(&net, "10.0.0.1", |line| {
        line.contains("lladdr") && !line.contains(" managed ")
    });

    // A more specific route and a rule for another table lead elsewhere, too.
    net.lb.ip("route add 10.9.0.9/32 via 10.0.0.1");
    watched.hop("10.9.0.9", |hop| hop.gateway == Some(ip("10.0.0.1")));
    net.lb.ip("route add 10.9.0.9/32 via 10.0.1.1 table 100");
    // That route's own announcement must not be what leads to the rule.
    thread::sleep(Duration::from_millis(500));
    net.lb.ip("rule add to 10.9.0.9 table 100");
    watched.hop("10.9.0.9", |hop| hop.gateway == Some(ip("10.0.1.1")));
}

#[test]
fn an_interface_that_changes_is_followed() {
    let net = Net::new();
    // The loss of its IPv6 addresses would be announced together with the interface's.
    net.lb
        .shell("echo 1 > /proc/sys/net/ipv6/conf/wan0/disable_ipv6");
    let watched = Watched::new(&net, ips(["10.0.0.9"]));
    watched.hop("10.0.0.9", |hop| hop.source_mac == OWN_0);
    net.lb.ip("link set wan0 address 02:00:00:00:00:77");
    watched.hop("10.0.0.9", |hop| hop.source_mac == [2, 0, 0, 0, 0, 0x77]);

    // The kernel does not announce the routes that go with the interface.
    net.lb.ip("link set wan0 down");
    watched.unresolved(
        "10.0.0.9",
        &Unresolved::NoRoute {
            address: ip("10.0.0.9"),
        },
    );
    net.lb.ip("link set wan0 up");
    watched.hop("10.0.0.9", |hop| hop.mac == PEER_0);

    net.lb.ip("link del wan0");
    watched.unresolved(
        "10.0.0.9",
        &Unresolved::NoRoute {
            address: ip("10.0.0.9"),
        },
    );
}

#[test]
fn a_static_neighbour_is_respected() {
    let net = Net::new();
    net.lb
        .ip("neigh add 10.0.0.9 dev wan0 lladdr 02:00:00:00:00:55 nud permanent");
    let watched = Watched::new(&net, ips(["10.0.0.9", "fd00::9"]));
    watched.hop("10.0.0.9", |hop| hop.mac == [2, 0, 0, 0, 0, 0x55]);
    watched.hop("fd00::9", |hop| hop.mac == PEER_0);
    entry(&net, "fd00::9", |line| line.contains(" managed "));
    net.lb
        .ip("neigh replace fd00::9 dev wan0 lladdr 02:00:00:00:00:56 nud permanent");
    watched.hop("fd00::9", |hop| hop.mac == [2, 0, 0, 0, 0, 0x56]);

    // Longer than the time after which an entry is asked for again.
    thread::sleep(Duration::from_secs(6));
    for address in ["10.0.0.9", "fd00::9"] {
        let line = net.lb.ip(&format!("-d neigh show {address}"));
        assert!(line.contains("PERMANENT"), "{line}");
    }

    net.lb.ip("neigh del 10.0.0.9 dev wan0");
    watched.hop("10.0.0.9", |hop| hop.mac == PEER_0);
}

#[test]
fn a_silent_backend_keeps_its_last_mac() {
    let net = Net::new();
    let watched = Watched::new(&net, ips(["10.0.0.9"]));
    watched.hop("10.0.0.9", |hop| hop.mac == PEER_0);

    net.peer0.ip("addr del 10.0.0.9/24 dev up0");
    net.lb.ip("neigh del 10.0.0.9 dev wan0");
    watched.wait("silence", |state| state.silent.contains(&ip("10.0.0.9")));
    entry(&net, "10.0.0.9", |line| line.contains("managed FAILED"));
    let state = Arc::clone(&watched.state.borrow());
    assert!(state.silent.contains(&ip("10.0.0.9")));
    assert_eq!(state.hops[&ip("10.0.0.9")].as_ref().unwrap().mac, PEER_0);

    net.peer0.ip("addr add 10.0.0.9/24 dev up0");
    watched.wait("an answer", |state| state.silent.is_empty());
}

#[test]
fn lost_announcements_are_made_up_for() {
    let net = Net::new();
    let watched = Watched::new(&net, ips(["10.0.0.9"]));
    watched.hop("10.0.0.9", |hop| hop.mac == PEER_0);

    let (release, until) = std_mpsc::channel();
    watched.order(Order::Stall(until));
    // Enough to fill the buffer for announcements, whatever it is.
    net.lb.shell(
        "seq 30000 | sed 's/.*/neigh replace 10.0.1.77 dev wan1 nud permanent lladdr \
         02:00:00:00:00:01\\nneigh replace 10.0.1.77 dev wan1 nud permanent lladdr \
         02:00:00:00:00:02/' | ip -batch -",
    );
    net.lb
        .ip("neigh replace 10.0.0.9 dev wan0 lladdr 02:00:00:00:00:44 nud permanent");
    net.lb.ip("route add 10.0.0.9/32 dev wan0");
    let lost = net
        .lb
        .shell("awk '{ lost += $9 } END { print lost }' /proc/net/netlink");
    assert_ne!(
        lost.trim(),
        "0",
        "the announcements all fitted into the buffer"
    );
    drop(release);
    watched.hop("10.0.0.9", |hop| hop.mac == [2, 0, 0, 0, 0, 0x44]);
}

#[test]
fn entries_left_behind_are_taken_over_or_released() {
    let net = Net::new();
    let watched = Watched::new(&net, ips(["10.0.0.9", "fd00::9"]));
    for address in ["10.0.0.9", "fd00::9"] {
        watched.hop(address, |_| true);
    }
    drop(watched);
    net.lb.ip("neigh add 10.0.0.1 dev wan0 managed");
    for address in ["10.0.0.9", "fd00::9", "10.0.0.1"] {
        entry(&net, address, |line| line.contains(" managed "));
    }

    let watched = Watched::new(&net, ips(["10.0.0.9"]));
    watched.hop("10.0.0.9", |hop| hop.mac == PEER_0);
    entry(&net, "fd00::9", |line| {
        line.contains("lladdr") && !line.contains(" managed ")
    });
    for address in ["10.0.0.9", "10.0.0.1"] {
        entry(&net, address, |line| line.contains(" managed "));
    }
}

#[test]
fn thousands_of_addresses_are_followed() {
    let net = Net::new();
    net.lb.ip("route add 10.9.0.0/16 via 10.0.0.1");
    let all: BTreeSet<IpAddr> = (0..4096_u16)
        .map(|i| IpAddr::from([10, 9, (i >> 8) as u8, i as u8]))
        .collect();
    let is_via = |gateway: &str| {
        let gateway = Some(ip(gateway));
        move |state: &NextHops| {
            state.hops.len() == 4096
                && state
                    .hops
                    .values()
                    .all(|hop| hop.as_ref().is_ok_and(|hop| hop.gateway == gateway))
        }
    };
    let begin = now();
    let watched = Watched::new(&net, all.clone());
    println!("4096 addresses: first snapshot after {:?}", begin.elapsed());
    watched.wait("all next hops", is_via("10.0.0.1"));

    let begin = now();
    net.lb.ip("route replace 10.9.0.0/16 via 10.0.1.1");
    watched.wait("all new next hops", is_via("10.0.1.1"));
    println!(
        "4096 addresses: all over another gateway after {:?}",
        begin.elapsed()
    );

    watched.order(Order::Follow([ip("10.0.0.9")].into()));
    watched.wait("the one that is left", |state| state.hops.len() == 1);
    watched.hop("10.0.0.9", |hop| hop.mac == PEER_0);
    watched.order(Order::Follow(BTreeSet::new()));
    watched.wait("nothing", |state| state.hops.is_empty());
}
