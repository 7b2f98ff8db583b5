//! Next hops: the interface and the MAC addresses that a backend's packets leave with.
//!
//! The kernel's own routes and neighbours are asked and followed; nobody types a MAC address.
//! [`table`] holds what the kernel said and draws the conclusions, knowing no socket and no
//! clock; [`watch`] talks rtnetlink and publishes a [`NextHops`] whenever the conclusions change.
//!
//! # What is asked of the kernel
//! A next hop that the kernel does not keep fresh by itself is *asked for*: a neighbour entry
//! with `NTF_EXT_MANAGED` (Linux 5.16) is resolved at once and again before it goes stale, with
//! no traffic needed, which matters because XDP sends past the stack's neighbour cache and would
//! never refresh it. Each such request carries `NTF_USE` too. An older kernel ignores the first
//! flag and takes the second: resolve now. Its entries never show as managed, and what is not
//! managed is asked for again every [`table::ASK_AGAIN`], which keeps it fresh there as well.
//!
//! # What is left alone
//! A permanent entry is taken as it is: the kernel would silently make it dynamic if it were
//! asked for. A request to create an entry therefore fails where one exists meanwhile, and a
//! request to manage one is made only of an entry that was last seen dynamic. Entries that a
//! routing daemon has put there (`NTF_EXT_LEARNED`) are the daemon's to keep fresh.
//!
//! # What is left behind
//! Nothing is ever deleted. An entry that is no longer needed loses its 'managed' flag and stays
//! as an ordinary cache entry for the kernel's garbage collection; only entries that carry
//! [`watch::PROTOCOL`] are released so. A controller that is killed leaves its entries managed:
//! the kernel goes on asking these neighbours for their address every few seconds, which harms
//! nobody and keeps the data plane's MAC addresses warm. The next controller takes them over, and
//! releases those that it does not need.
//!
//! # What is not followed
//! Of several equal paths, the one that the kernel picks for this destination is taken. Routes
//! are looked up without mark, input interface or transport ports, so policy rules on these do
//! not apply. The kernel sends no neighbour solicitation of its own from an interface without an
//! IPv6 link-local address, so IPv6 next hops there stay unresolved. Changes that the kernel
//! announces nowhere are found within [`watch::REFRESH`].

pub mod table;
pub mod watch;

mod rtnl;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::IpAddr,
    sync::Arc,
};

use thiserror::Error;

/// What is known of all backend addresses at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NextHops {
    /// One answer for each address asked about.
    pub hops: BTreeMap<IpAddr, Result<NextHop, Unresolved>>,
    /// Addresses in `hops` whose next hop has stopped answering ARP or neighbour discovery.
    ///
    /// Their [`NextHop::mac`] is the last one known. For information: whether such a backend is
    /// usable is for its health check to say.
    pub silent: BTreeSet<IpAddr>,
}

/// Where a backend's packets go next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The index of the interface they leave by.
    pub interface: u32,
    /// Its name.
    pub interface_name: Arc<str>,
    /// Its own MAC address: the source of the frames.
    pub source_mac: [u8; 6],
    /// The router on the way; `None` where the backend is on the link.
    pub gateway: Option<IpAddr>,
    /// The MAC address of the gateway or, without one, of the backend.
    pub mac: [u8; 6],
    /// The largest IP packet that the interface sends, in bytes.
    pub mtu: u32,
    /// The address of this host that the kernel would send from.
    pub source: Option<IpAddr>,
}

/// Why an address has no next hop, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unresolved {
    /// The routing tables do not cover it.
    #[error("no route to {address}: add a route or correct the address")]
    NoRoute {
        /// The backend's address.
        address: IpAddr,
    },
    /// The route is one that refuses its packets.
    #[error("the route to {address} is of type {kind}: replace the route or correct the address")]
    Rejected {
        /// The backend's address.
        address: IpAddr,
        /// How they are refused.
        kind: Rejection,
    },
    /// The address is one of this host's own.
    #[error("{address} is an address of this host: name a backend on another host")]
    Local {
        /// The backend's address.
        address: IpAddr,
    },
    /// The address is a broadcast, anycast or multicast address.
    #[error("{address} is not a unicast address here: name the address of one host")]
    NotUnicast {
        /// The backend's address.
        address: IpAddr,
    },
    /// The route puts its packets into a tunnel, which the data plane cannot do for it.
    #[error("the route to {address} encapsulates its packets: route it without a tunnel")]
    Encapsulated {
        /// The backend's address.
        address: IpAddr,
    },
    /// The kernel failed to look the route up.
    #[error("cannot look up the route to {address}: {}", io::Error::from_raw_os_error(*errno))]
    LookupFailed {
        /// The backend's address.
        address: IpAddr,
        /// The kernel's error number, positive.
        errno: i32,
    },
    /// The interface of the route went away between two answers of the kernel.
    #[error("the interface {interface} of the route to {address} is gone: looking again")]
    InterfaceGone {
        /// The backend's address.
        address: IpAddr,
        /// The index of the interface.
        interface: u32,
    },
    /// The interface of the route does not speak Ethernet.
    #[error(
        "{address} is routed over {interface}, which has no Ethernet address: \
         route it over an Ethernet interface"
    )]
    NoEthernet {
        /// The backend's address.
        address: IpAddr,
        /// The name of the interface.
        interface: Arc<str>,
    },
    /// The next hop has not answered yet.
    #[error(
        "waiting for {}{next_hop} to answer {} on {interface}",
        Gateway { address, next_hop },
        resolution(*next_hop)
    )]
    Waiting {
        /// The backend's address.
        address: IpAddr,
        /// The gateway's address or, without one, the backend's.
        next_hop: IpAddr,
        /// The name of the interface.
        interface: Arc<str>,
    },
    /// The kernel refused to resolve the next hop.
    #[error(
        "cannot ask for {}{next_hop} on {interface}: {refusal}",
        Gateway { address, next_hop }
    )]
    Refused {
        /// The backend's address.
        address: IpAddr,
        /// The gateway's address or, without one, the backend's.
        next_hop: IpAddr,
        /// The name of the interface.
        interface: Arc<str>,
        /// Why.
        refusal: Refusal,
    },
}

/// A type of route that refuses packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Dropped without a word.
    Blackhole,
    /// Answered with 'host unreachable'.
    Unreachable,
    /// Answered with 'administratively prohibited'.
    Prohibit,
}

impl fmt::Display for Rejection {
    /// Writes the word that `ip route` knows it by.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blackhole => "blackhole",
            Self::Unreachable => "unreachable",
            Self::Prohibit => "prohibit",
        })
    }
}

/// Why the kernel would not resolve a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// There are too many neighbours already.
    #[error(
        "the kernel's neighbour table is full: raise net.ipv4.neigh.default.gc_thresh3 and \
         net.ipv6.neigh.default.gc_thresh3"
    )]
    TableFull,
    /// The process may not change neighbours.
    #[error("changing neighbours is not permitted: run as root or with CAP_NET_ADMIN")]
    NotPermitted,
    /// Anything else.
    #[error("{}", io::Error::from_raw_os_error(*.0))]
    Other(
        /// The kernel's error number, positive.
        i32,
    ),
}

/// Writes `gateway ` before a next hop that is not the backend itself.
struct Gateway<'a> {
    address: &'a IpAddr,
    next_hop: &'a IpAddr,
}

impl fmt::Display for Gateway<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.address == self.next_hop {
            ""
        } else {
            "gateway "
        })
    }
}

/// The protocol that finds the MAC address of a neighbour of this family.
fn resolution(next_hop: IpAddr) -> &'static str {
    match next_hop {
        IpAddr::V4(_) => "ARP",
        IpAddr::V6(_) => "neighbour discovery",
    }
}
