//! The network that the kernel's home routes replies by, and the host's routes to match.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::atomic::{AtomicU32, Ordering},
};

use evenkeel_tests::netns::Namespace;
use lb_common::{
    flow::{self, Address},
    tables::Route,
};

/// The index of the interface to the clients.
pub(crate) const CLIENTS: u32 = 7;
/// Its MAC address.
pub(crate) const OWN: [u8; 6] = [0x02, 0, 0, 0, 0, 0x77];
/// Addresses of clients whose MAC addresses are known: [`mac`] of the last byte.
pub(crate) const KNOWN: [&str; 8] = [
    "203.0.113.9",
    "203.0.113.10",
    "203.0.113.11",
    "203.0.113.12",
    "2001:db8:c::9",
    "2001:db8:c::10",
    "2001:db8:c::11",
    "2001:db8:c::12",
];
/// Clients whose MAC addresses are not: their next hops would have to be resolved.
pub(crate) const UNKNOWN: [&str; 2] = ["203.0.113.200", "2001:db8:c::200"];
/// Clients to whom there is no route at all.
pub(crate) const NOWHERE: [&str; 2] = ["192.0.2.200", "2001:db8:bad::200"];
/// A client whose packets are to be refused.
pub(crate) const REFUSED: [&str; 2] = ["192.0.2.99", "2001:db8:bad::99"];
/// The host's own addresses.
pub(crate) const LOCAL: [&str; 2] = ["203.0.113.1", "2001:db8:c::1"];

/// The MAC address of a client, by the last byte of its address.
pub(crate) const fn mac(last: u8) -> [u8; 6] {
    [0x02, 0, 0, 0, 0xc1, last]
}

/// A MAC address as `ip` reads it.
fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The words of an address.
pub(crate) fn words(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => flow::v4(u32::from_ne_bytes(address.octets())),
        IpAddr::V6(address) => bytemuck::cast(address.octets()),
    }
}

fn last(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    }
}

/// The host's routes, as the namespace has them.
pub(crate) fn routes() -> BTreeMap<Address, Route> {
    let known = KNOWN.map(|address| {
        let address: IpAddr = address.parse().expect("an address");
        let mut macs = [0; 12];
        macs[..6].copy_from_slice(&mac(last(address)));
        macs[6..].copy_from_slice(&OWN);
        let over = Route::Over {
            interface: CLIENTS,
            macs: bytemuck::pod_read_unaligned(&macs),
        };
        (words(address), over)
    });
    let local = LOCAL.map(|address| (words(address.parse().expect("an address")), Route::Nowhere));
    let unknown = UNKNOWN.into_iter().chain(REFUSED);
    let unknown = unknown.map(|text| (words(text.parse().expect("an address")), Route::Unknown));
    known.into_iter().chain(local).chain(unknown).collect()
}

/// Runs a test in a namespace in which the kernel answers as [`routes`] does.
///
/// There is no way to what is not named here, and nothing else is local or multicast.
pub(crate) fn within<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    static BEDS: AtomicU32 = AtomicU32::new(0);
    let number = BEDS.fetch_add(1, Ordering::Relaxed);
    let namespace = Namespace::create(number, "routes").expect("a namespace");
    let own = text(OWN);
    let mut lines = format!(
        "link add clients index {CLIENTS} address {own} type veth peer name wire\n\
         link set clients addrgenmode none\n\
         link set clients up\n\
         link set wire up\n\
         address delete 127.0.0.1/8 dev lo\n\
         address add 203.0.113.1/32 dev clients\n\
         address add 2001:db8:c::1/128 dev clients nodad\n\
         route add 203.0.113.0/24 dev clients\n\
         route add 2001:db8:c::/64 dev clients\n\
         route add unreachable 192.0.2.99/32\n\
         route add unreachable 2001:db8:bad::99/128 metric 1\n\
         route delete multicast ff00::/8 dev clients table local\n\
         route delete multicast ff00::/8 dev wire table local\n"
    );
    for address in KNOWN {
        let mac = text(mac(last(address.parse().expect("an address"))));
        let line = format!("neighbour add {address} lladdr {mac} nud permanent dev clients\n");
        lines.push_str(&line);
    }
    namespace
        .set(&[
            ("ipv4/conf/all/forwarding", "1"),
            ("ipv6/conf/all/forwarding", "1"),
        ])
        .expect("forwarding is switched on");
    namespace.ip(&lines).expect("the network is set up");
    namespace
        .inside(|| {
            super::stay_on(0);
            test()
        })
        .expect("the namespace can be entered")
}
