use super::*;

const ETH0: u32 = 2;
const ETH1: u32 = 3;
const TUN: u32 = 4;
const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 9];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 10];
const BACKEND: &str = "10.0.0.9";
const SOURCE: &str = "10.0.0.2";

fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

fn hop(address: &str) -> Hop {
    Hop {
        interface: ETH0,
        address: ip(address),
    }
}

fn link(index: u32, name: &str, mac: Option<[u8; 6]>) -> Link {
    Link {
        index,
        name: name.into(),
        mac,
        mtu: 1500 + index,
    }
}

fn neighbour(address: &str, mac: Option<[u8; 6]>, reachability: Reachability) -> Neighbour {
    Neighbour {
        hop: hop(address),
        mac,
        reachability,
        upkeep: Upkeep::Ours,
    }
}

fn via(interface: u32, gateway: Option<&str>) -> Route {
    Route::Via {
        interface,
        gateway: gateway.map(ip),
        source: Some(ip(SOURCE)),
    }
}

/// A table with two Ethernet links and a tunnel, and one address routed like this.
fn table(address: &str, route: Route) -> Table {
    let mut table = Table::default();
    table.replace_links([
        link(ETH0, "eth0", Some(OWN)),
        link(ETH1, "eth1", Some(OTHER)),
        link(TUN, "tun0", None),
    ]);
    table.replace_routes([(ip(address), route)].into());
    table
}

fn next_hop(table: &Table, address: &str) -> NextHop {
    table.answer().hops[&ip(address)].clone().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "any point in time will do")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn what_is_unresolved_says_why_and_what_to_do() {
    let waiting_v6 = "waiting for fd00::9 to answer neighbour discovery on eth0";
    for (address, route, message) in [
        (
            BACKEND,
            Route::None,
            "no route to 10.0.0.9: add a route or correct the address",
        ),
        (
            BACKEND,
            Route::Rejected(Rejection::Blackhole),
            "the route to 10.0.0.9 is of type blackhole: replace the route or correct the address",
        ),
        (
            BACKEND,
            Route::Local,
            "10.0.0.9 is an address of this host: name a backend on another host",
        ),
        (
            BACKEND,
            Route::NotUnicast,
            "10.0.0.9 is not a unicast address here: name the address of one host",
        ),
        (
            BACKEND,
            Route::Encapsulated,
            "the route to 10.0.0.9 encapsulates its packets: route it without a tunnel",
        ),
        (
            BACKEND,
            Route::Failed(libc::ENOMEM),
            "cannot look up the route to 10.0.0.9: Cannot allocate memory (os error 12)",
        ),
        (
            BACKEND,
            via(77, None),
            "the interface 77 of the route to 10.0.0.9 is gone: looking again",
        ),
        (
            BACKEND,
            via(TUN, None),
            "10.0.0.9 is routed over tun0, which has no Ethernet address: \
             route it over an Ethernet interface",
        ),
        (
            BACKEND,
            via(ETH0, None),
            "waiting for 10.0.0.9 to answer ARP on eth0",
        ),
        (
            BACKEND,
            via(ETH0, Some("10.0.0.1")),
            "waiting for gateway 10.0.0.1 to answer ARP on eth0",
        ),
        ("fd00::9", via(ETH0, None), waiting_v6),
    ] {
        let answer = table(address, route).answer();
        assert_eq!(
            answer.hops[&ip(address)].clone().unwrap_err().to_string(),
            message
        );
        assert!(answer.silent.is_empty());
    }
}

#[test]
fn the_mac_is_the_backends_or_its_gateways() {
    for gateway in [None, Some("10.0.0.1"), Some("fe80::1")] {
        let mut table = table(BACKEND, via(ETH0, gateway));
        let next = gateway.unwrap_or(BACKEND);
        table.update_neighbour(neighbour(next, Some(PEER), Reachability::Known));
        let expected = NextHop {
            interface: ETH0,
            interface_name: "eth0".into(),
            source_mac: OWN,
            gateway: gateway.map(ip),
            mac: PEER,
            mtu: 1500 + ETH0,
            source: Some(ip(SOURCE)),
        };
        assert_eq!(next_hop(&table, BACKEND), expected);
    }
}

#[test]
fn a_neighbour_on_another_link_is_another_machine() {
    let mut table = table(BACKEND, via(ETH1, None));
    table.update_neighbour(neighbour(BACKEND, Some(PEER), Reachability::Known));
    assert!(table.answer().hops[&ip(BACKEND)].is_err());
}

#[test]
fn a_silent_neighbour_keeps_its_last_mac() {
    type Loss = fn(&mut Table);
    let losses: [Loss; 3] = [
        |table| table.update_neighbour(neighbour(BACKEND, None, Reachability::Silent)),
        |table| table.remove_neighbour(hop(BACKEND)),
        |table| table.replace_neighbours([]),
    ];
    for lose in losses {
        let mut table = table(BACKEND, via(ETH0, None));
        table.update_neighbour(neighbour(BACKEND, Some(PEER), Reachability::Known));
        assert!(table.answer().silent.is_empty());
        lose(&mut table);
        assert_eq!(next_hop(&table, BACKEND).mac, PEER);
        assert_eq!(table.answer().silent, [ip(BACKEND)].into());
        table.update_neighbour(neighbour(BACKEND, Some(OTHER), Reachability::Known));
        assert_eq!(next_hop(&table, BACKEND).mac, OTHER);
        assert!(table.answer().silent.is_empty());
    }
}

#[test]
fn what_is_gone_and_not_needed_is_forgotten() {
    let mut table = table(BACKEND, via(ETH0, None));
    table.update_neighbour(neighbour(BACKEND, Some(PEER), Reachability::Known));
    table.update_neighbour(neighbour("10.0.0.10", Some(PEER), Reachability::Known));
    table.remove_neighbour(hop("10.0.0.10"));
    assert_eq!(table.entries.len(), 1);
    table.remove_neighbour(hop(BACKEND));
    assert_eq!(table.entries.len(), 1);
    table.replace_routes(BTreeMap::new());
    assert!(table.entries.is_empty());
    assert!(table.answer().hops.is_empty());
}

#[test]
fn a_new_link_of_an_old_index_has_no_neighbours() {
    let mut table = table(BACKEND, via(ETH0, None));
    table.update_neighbour(neighbour(BACKEND, Some(PEER), Reachability::Known));
    table.remove_link(ETH0);
    assert!(matches!(
        table.answer().hops[&ip(BACKEND)],
        Err(Unresolved::InterfaceGone {
            interface: ETH0,
            ..
        })
    ));
    table.update_link(link(ETH0, "eth7", Some(OWN)));
    assert!(matches!(
        table.answer().hops[&ip(BACKEND)],
        Err(Unresolved::Waiting { .. })
    ));
}

#[test]
fn a_changed_link_changes_the_source() {
    let mut table = table(BACKEND, via(ETH0, None));
    table.update_neighbour(neighbour(BACKEND, Some(PEER), Reachability::Known));
    table.update_link(link(ETH0, "wan", Some(OTHER)));
    let next = next_hop(&table, BACKEND);
    assert_eq!((next.source_mac, &*next.interface_name), (OTHER, "wan"));
}

#[test]
fn requests_follow_from_the_entry() {
    use Reachability::{Fixed, Known, Silent};
    let create = Some(Request::Create(hop(BACKEND)));
    let manage = Some(Request::Manage(hop(BACKEND)));
    let release = Some(Request::Release(hop(BACKEND)));
    for (is_needed, entry, expected) in [
        (true, None, create),
        (true, Some((Known, Upkeep::None)), manage),
        (true, Some((Silent, Upkeep::None)), manage),
        (true, Some((Fixed, Upkeep::None)), None),
        (true, Some((Known, Upkeep::Ours)), None),
        (true, Some((Silent, Upkeep::Ours)), None),
        (true, Some((Known, Upkeep::Foreign)), None),
        (false, None, None),
        (false, Some((Known, Upkeep::None)), None),
        (false, Some((Known, Upkeep::Ours)), release),
        (false, Some((Silent, Upkeep::Ours)), release),
        (false, Some((Known, Upkeep::Foreign)), None),
    ] {
        let mut table = table(
            BACKEND,
            if is_needed {
                via(ETH0, None)
            } else {
                Route::None
            },
        );
        if let Some((reachability, upkeep)) = entry {
            let mac = (reachability != Silent).then_some(PEER);
            let hop = hop(BACKEND);
            table.update_neighbour(Neighbour {
                hop,
                mac,
                reachability,
                upkeep,
            });
        }
        let requests = table.requests(now());
        assert_eq!(
            requests,
            Vec::from_iter(expected),
            "needed: {is_needed}, {entry:?}"
        );
    }
}

#[test]
fn backends_behind_one_gateway_ask_once() {
    let mut table = table(BACKEND, Route::None);
    let routes = ["10.9.0.1", "10.9.0.2", "10.9.0.3"].map(|a| (ip(a), via(ETH0, Some(BACKEND))));
    table.replace_routes(routes.into());
    assert_eq!(table.requests(now()), [Request::Create(hop(BACKEND))]);
}

#[test]
fn an_unmanaged_entry_is_asked_for_again_after_a_while() {
    let start = now();
    let mut table = table(BACKEND, via(ETH0, None));
    assert_eq!(table.next_request(), None);
    let request = Request::Create(hop(BACKEND));
    table.answered(request, Ok(()), start);
    assert_eq!(table.next_request(), Some(start + ASK_AGAIN));
    let almost = ASK_AGAIN.checked_sub(Duration::from_nanos(1)).unwrap();
    assert_eq!(table.requests(start + almost), []);
    assert_eq!(table.requests(start + ASK_AGAIN), [request]);

    table.update_neighbour(neighbour(BACKEND, Some(PEER), Reachability::Known));
    assert_eq!(table.next_request(), None);
    assert_eq!(table.requests(start + ASK_AGAIN), []);
}

#[test]
fn an_entry_is_released_as_soon_as_it_is_not_needed() {
    let start = now();
    let mut table = table(BACKEND, via(ETH0, None));
    table.answered(Request::Create(hop(BACKEND)), Ok(()), start);
    table.update_neighbour(neighbour(BACKEND, Some(PEER), Reachability::Known));
    table.replace_routes([(ip(BACKEND), Route::None)].into());
    let release = Request::Release(hop(BACKEND));
    assert_eq!(table.requests(start), [release]);
    table.answered(release, Err(Refusal::NotPermitted), start);
    assert_eq!(table.requests(start), []);
    assert_eq!(table.next_request(), Some(start + ASK_AGAIN));
}

#[test]
fn losing_an_entry_is_answered_at_once() {
    type Loss = fn(&mut Table);
    let start = now();
    let deleted: Loss = |table| table.remove_neighbour(hop(BACKEND));
    let released: Loss = |table| {
        let neighbour = neighbour(BACKEND, Some(PEER), Reachability::Known);
        table.update_neighbour(Neighbour {
            upkeep: Upkeep::None,
            ..neighbour
        });
    };
    let rerouted: Loss = |table| {
        table.replace_routes([(ip(BACKEND), Route::None)].into());
        table.remove_neighbour(hop(BACKEND));
        table.replace_routes([(ip(BACKEND), Route::None)].into());
        table.replace_routes([(ip(BACKEND), via(ETH0, None))].into());
    };
    for (lose, expected) in [
        (deleted, Request::Create(hop(BACKEND))),
        (released, Request::Manage(hop(BACKEND))),
        (rerouted, Request::Create(hop(BACKEND))),
    ] {
        let mut table = table(BACKEND, via(ETH0, None));
        table.answered(Request::Create(hop(BACKEND)), Ok(()), start);
        table.update_neighbour(neighbour(BACKEND, Some(PEER), Reachability::Known));
        table.answered(Request::Manage(hop(BACKEND)), Ok(()), start);
        lose(&mut table);
        assert_eq!(table.requests(start), [expected]);
    }
}

#[test]
fn a_refusal_is_told_until_the_kernel_knows_better() {
    let mut table = table(BACKEND, via(ETH0, Some("10.0.0.1")));
    let request = Request::Create(hop("10.0.0.1"));
    for (refusal, message) in [
        (
            Refusal::TableFull,
            "cannot ask for gateway 10.0.0.1 on eth0: the kernel's neighbour table is full: \
             raise net.ipv4.neigh.default.gc_thresh3 and net.ipv6.neigh.default.gc_thresh3",
        ),
        (
            Refusal::NotPermitted,
            "cannot ask for gateway 10.0.0.1 on eth0: changing neighbours is not permitted: \
             run as root or with CAP_NET_ADMIN",
        ),
        (
            Refusal::Other(libc::ENETDOWN),
            "cannot ask for gateway 10.0.0.1 on eth0: Network is down (os error 100)",
        ),
    ] {
        table.answered(request, Err(refusal), now());
        let answer = table.answer().hops[&ip(BACKEND)].clone();
        assert_eq!(answer.unwrap_err().to_string(), message);
    }
    table.update_neighbour(neighbour("10.0.0.1", Some(PEER), Reachability::Known));
    assert_eq!(next_hop(&table, BACKEND).mac, PEER);
}

#[test]
fn a_route_concerns_the_addresses_that_it_covers() {
    let mut table = Table::default();
    let routes = ["10.0.0.9", "fd00::9"].map(|address| (ip(address), Route::None));
    table.replace_routes(routes.into());
    for (prefix, length, expected) in [
        ("0.0.0.0", 0, true),
        ("10.0.0.0", 8, true),
        ("10.0.0.8", 31, true),
        ("10.0.0.9", 32, true),
        ("10.0.0.8", 32, false),
        ("11.0.0.0", 8, false),
        ("::", 0, true),
        ("fd00::", 64, true),
        ("fd00::8", 128, false),
        ("fd01::", 16, false),
    ] {
        assert_eq!(
            table.is_concerned(ip(prefix), length),
            expected,
            "{prefix}/{length}"
        );
    }
    table.replace_routes([(ip("10.0.0.9"), Route::None)].into());
    assert!(!table.is_concerned(ip("::"), 0));
}
