//! What the host of a decapsulator is like: its addresses, and what would keep packets from them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    path::Path,
};

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::{address::AddressAttribute, link::LinkAttribute};
use thiserror::Error;

/// The largest packet that clients send over Ethernet as a rule, in bytes.
const CLIENT_PACKET: u32 = 1500;
/// What the largest outer header adds: IPv6 and UDP.
const OUTER: u32 = 48;

/// The kernel did not say what the host is like.
#[derive(Debug, Error)]
pub enum HostError {
    /// No socket.
    #[error("open an rtnetlink socket: {0}")]
    Open(io::Error),
    /// No answer.
    #[error("list {what} by rtnetlink: {source}")]
    List {
        /// What was asked for.
        what: &'static str,
        /// Why it failed.
        source: rtnetlink::Error,
    },
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// The largest packet that it sends and takes, in bytes.
    pub mtu: u32,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
}

/// The interfaces of the calling thread's network namespace, by name.
///
/// # Errors
/// Where the kernel does not answer.
pub async fn interfaces() -> Result<BTreeMap<String, Interface>, HostError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(HostError::Open)?;
    let task = tokio::spawn(connection);
    let failed = |what| move |source| HostError::List { what, source };
    let links: Vec<_> = handle
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(failed("links"))?;
    let addresses: Vec<_> = handle
        .address()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(failed("addresses"))?;
    task.abort();
    let mut interfaces = BTreeMap::new();
    for link in links {
        let mut interface = Interface {
            index: link.header.index,
            ..Interface::default()
        };
        let mut name = None;
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::IfName(ifname) => name = Some(ifname),
                LinkAttribute::Mtu(mtu) => interface.mtu = mtu,
                _ => {}
            }
        }
        for message in &addresses {
            if message.header.index == interface.index {
                interface.addresses.extend(own(&message.attributes));
            }
        }
        interfaces.extend(name.map(|name| (name, interface)));
    }
    Ok(interfaces)
}

/// The host's own end of an address: on a line to one peer, `Address` is the peer's.
fn own(attributes: &[AddressAttribute]) -> Option<IpAddr> {
    let local = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

/// What an operator should know before packets go missing, each with its remedy.
pub fn warnings(
    all: &BTreeMap<String, Interface>,
    names: &[String],
    ends: &BTreeSet<IpAddr>,
    vips: &BTreeSet<IpAddr>,
    reverse_path: impl Fn(&str) -> Option<u8>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let on_host: BTreeSet<_> = all.values().flat_map(|one| &one.addresses).collect();
    for end in ends.iter().filter(|end| !on_host.contains(end)) {
        warnings.push(format!(
            "no tunnel reaches this host by {end}: the address is on none of its interfaces; \
             correct --address"
        ));
    }
    for vip in vips.iter().filter(|vip| !on_host.contains(vip)) {
        let (bits, rest) = if vip.is_ipv4() {
            (32, "")
        } else {
            (128, " nodad")
        };
        warnings.push(format!(
            "VIP {vip} is on none of this host's interfaces, which will not accept its packets: \
             'ip address add {vip}/{bits} dev lo{rest}'"
        ));
    }
    let strict = |name: &str| {
        // The kernel goes by the larger of the two.
        let own = reverse_path(name).unwrap_or(0);
        own.max(reverse_path("all").unwrap_or(0)) == 1
    };
    for name in names {
        if strict(name) {
            warnings.push(format!(
                "reverse path filtering of {name} is strict: packets of IPv4 clients that are \
                 answered by another interface are lost; 'sysctl -w \
                 net.ipv4.conf.{name}.rp_filter=2' makes it loose"
            ));
        }
        let mtu = all.get(name).map_or(u32::MAX, |interface| interface.mtu);
        if mtu < CLIENT_PACKET + OUTER {
            warnings.push(format!(
                "{name} takes packets of up to {mtu} bytes, and tunnels add 20 to {OUTER}: clients' \
                 packets of {CLIENT_PACKET} bytes only fit with an MTU of {} here and on the load \
                 balancer, or let the VIP's routes announce a smaller segment ('ip route change … \
                 advmss {}')",
                CLIENT_PACKET + OUTER,
                mtu.saturating_sub(OUTER + 60),
            ));
        }
    }
    warnings
}

/// The name of an interface; `None` where there is none of this index.
pub fn name(index: u32) -> Option<String> {
    use rustix::net::{AddressFamily, SocketType, netdevice, socket};
    let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None).ok()?;
    netdevice::index_to_name(&socket, index).ok()
}

/// `rp_filter` of an interface, or of `all`; `None` where the kernel has no IPv4.
pub fn reverse_path(name: &str) -> Option<u8> {
    let path = Path::new("/proc/sys/net/ipv4/conf").join(name);
    let text = fs::read_to_string(path.join("rp_filter")).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(mtu: u32) -> BTreeMap<String, Interface> {
        let interface = |index, mtu, addresses: &[&str]| Interface {
            index,
            mtu,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        };
        BTreeMap::from([
            (
                "lo".to_owned(),
                interface(1, 65536, &["127.0.0.1", "198.51.100.10"]),
            ),
            ("eth0".to_owned(), interface(2, mtu, &["10.0.0.2"])),
        ])
    }

    fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_host_that_is_set_up_is_not_complained_about() {
        let (ends, vips) = (set(&["10.0.0.2"]), set(&["198.51.100.10"]));
        let names = ["eth0".to_owned()];
        let found = warnings(&hosts(1548), &names, &ends, &vips, |_| Some(2));
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn each_complaint_has_its_remedy() {
        let (ends, vips) = (set(&["10.0.0.3"]), set(&["198.51.100.11", "2001:db8::10"]));
        let names = ["eth0".to_owned()];
        let strict = |name: &str| Some(u8::from(name == "all"));
        let found = warnings(&hosts(1547), &names, &ends, &vips, strict);
        for (warning, remedy) in found.iter().zip([
            "10.0.0.3: the address",
            "ip address add 198.51.100.11/32 dev lo'",
            "ip address add 2001:db8::10/128 dev lo nodad'",
            "net.ipv4.conf.eth0.rp_filter=2",
            "MTU of 1548",
        ]) {
            assert!(warning.contains(remedy), "{warning}");
        }
        assert_eq!(found.len(), 5);
    }

    #[test]
    fn loose_filtering_of_the_interface_wins_over_strict_for_all() {
        let names = ["eth0".to_owned()];
        let filter = |name: &str| Some(if name == "all" { 1 } else { 2 });
        let none = BTreeSet::new();
        assert_eq!(
            warnings(&hosts(9000), &names, &none, &none, filter),
            [""; 0]
        );
    }
}
