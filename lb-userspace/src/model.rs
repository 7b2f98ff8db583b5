//! The words of the control plane: services, backends and checks, already validated.
//!
//! Everything here is plain data, made once at the edge (`config::validate`) and then passed
//! around. Nothing here reads a clock, a file or the kernel.

mod agent;
mod alert;
mod drill;
mod ejection;
mod notify;
mod options;
mod probes;
mod shared;
mod web;

use std::{
    fmt,
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
    path::PathBuf,
    sync::Arc,
};

pub use self::{
    agent::AgentCheck,
    alert::{AlertName, RUNBOOKS, Severity},
    drill::Drill,
    ejection::{Ejection, Fraction, Part, Senses, Slowness, Underperformers},
    notify::{Audit, Filter, Http, Incidents, Receiver, Secret, Target, Text},
    options::{
        ConnectionLimit, Fate, Fragments, Measured, OnDown, Options, Quic, ServerId,
        ServerIdLength, Sources, Spread, Traffic, UdpFlows,
    },
    probes::{
        BodyMatch, CommandProbe, GrpcProbe, HealthCheck, HttpProbe, ProbeKind, ProbeMark, TlsProbe,
        UdpProbe, Verify, Via,
    },
    shared::{Evenness, PortRange, Snat, State, Tracking, Tunnel},
    web::{Certificate, HttpServer},
};

/// A transport protocol that a service balances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, protocol number 6.
    Tcp,
    /// UDP, protocol number 17.
    Udp,
}

impl Protocol {
    /// The protocol number in an IP header.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// The destination port of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServicePort {
    /// Every port that no service of the same VIP and protocol names exactly.
    Any,
    /// This port alone.
    Exact(NonZeroU16),
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Exact(port) => port.fmt(f),
        }
    }
}

/// What a packet must be addressed to, to belong to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The virtual address.
    pub vip: IpAddr,
    /// The destination port.
    pub port: ServicePort,
    /// The transport protocol.
    pub protocol: Protocol,
}

impl fmt::Display for ServiceKey {
    /// Writes `tcp 198.51.100.10:80`, `udp [2001:db8::1]:any`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vip {
            IpAddr::V4(vip) => write!(f, "{} {vip}:{}", self.protocol, self.port),
            IpAddr::V6(vip) => write!(f, "{} [{vip}]:{}", self.protocol, self.port),
        }
    }
}

/// How a packet reaches its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Direct server return: only the MAC addresses change, the backend holds the VIP on a
    /// loopback device and answers the client itself.
    Dsr,
    /// In an IP packet of its own, which the backend unpacks. It holds the VIP and answers the
    /// client itself.
    Ipip,
    /// The same in UDP.
    Gue,
    /// The destination is rewritten; replies come back by way of the load balancer.
    Nat,
    /// Source and destination are rewritten; the backend answers the load balancer.
    Snat,
}

impl Mode {
    /// Every mode with the configuration's word for it.
    pub const WORDS: [(&'static str, Self); 5] = [
        ("dsr", Self::Dsr),
        ("ipip", Self::Ipip),
        ("gue", Self::Gue),
        ("nat", Self::Nat),
        ("snat", Self::Snat),
    ];

    /// Whether packets travel in packets of their own, whose family may be another.
    #[must_use]
    pub const fn tunnels(self) -> bool {
        matches!(self, Self::Ipip | Self::Gue)
    }

    /// Whether packets are given other addresses.
    #[must_use]
    pub const fn translates(self) -> bool {
        matches!(self, Self::Nat | Self::Snat)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dsr => "dsr",
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::Nat => "nat",
            Self::Snat => "snat",
        })
    }
}

/// The fate of a service's packets while none of its backends is usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnEmpty {
    /// Drop them in the driver.
    Drop,
    /// Hand them to the host's own stack.
    Pass,
}

impl fmt::Display for OnEmpty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drop => "drop",
            Self::Pass => "pass",
        })
    }
}

/// How many slots a Maglev ring has: a power of two from [`RingSlots::MIN`] to [`RingSlots::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSlots(u32);

impl RingSlots {
    /// The smallest ring.
    pub const MIN: u32 = 256;
    /// The largest ring, as large as the slot index of the data plane reaches.
    pub const MAX: u32 = lb_common::layout::RING_SLOTS as u32;
    /// The largest ring.
    pub const LARGEST: Self = Self(Self::MAX);

    /// Takes a number of slots; `None` unless it is a power of two within the bounds.
    pub const fn new(slots: u32) -> Option<Self> {
        if slots.is_power_of_two() && slots >= Self::MIN && slots <= Self::MAX {
            Some(Self(slots))
        } else {
            None
        }
    }

    /// The number of slots.
    pub const fn count(self) -> usize {
        self.0 as usize
    }
}

/// How large a service's ring is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RingSize {
    /// As large as its backends and weights need for [`DataPlaneConfig::evenness`].
    #[default]
    Auto,
    /// This large.
    Fixed(RingSlots),
}

impl fmt::Display for RingSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("as many slots as evenness needs"),
            Self::Fixed(slots) => write!(f, "{} slots", slots.count()),
        }
    }
}

/// A backend's intended part of a service's load, in proportion to the other backends'.
///
/// Zero takes no new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u16);

impl Weight {
    /// The largest weight.
    pub const MAX: u16 = 1_000;
    /// The weight of a backend whose configuration names none.
    pub const DEFAULT: Self = Self(1);

    /// Takes a weight; `None` above [`Weight::MAX`].
    pub const fn new(weight: u16) -> Option<Self> {
        if weight <= Self::MAX {
            Some(Self(weight))
        } else {
            None
        }
    }

    /// The plain number.
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// One server of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// What people call it; unique within the service.
    pub name: Arc<str>,
    /// Where it is; unique within the service.
    pub address: IpAddr,
    /// Its intended part of the load.
    pub weight: Weight,
    /// What it can take in proportion to its peers, as its owner declares it.
    ///
    /// Where no backend of a service declares one, all are taken to be equal.
    pub capacity: Option<NonZeroU32>,
    /// The port that `nat` and `snat` send to; `None` keeps the packet's.
    pub port: Option<NonZeroU16>,
    /// Its server ID, where the service has [`Options::quic`]; unique within the service.
    pub server_id: Option<ServerId>,
}

/// One VIP, port and protocol with the backends that serve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What people call it; unique.
    pub name: Arc<str>,
    /// What packets it takes; unique.
    pub key: ServiceKey,
    /// How packets reach a backend. Only in a tunnel is a backend of another family than the VIP.
    pub mode: Mode,
    /// The size of its ring.
    pub ring_slots: RingSize,
    /// What happens to its packets while it has no usable backend.
    pub on_empty: OnEmpty,
    /// What else is asked for.
    pub options: Options,
    /// How its backends are probed; `None` takes them all for healthy.
    pub health: Option<HealthCheck>,
    /// Its backends, at least one, in the order of the configuration.
    pub backends: Vec<Backend>,
}

impl Service {
    /// Whether anything is measured of its flows: of UDP it is the replies that tell.
    #[must_use]
    pub fn is_measured(&self) -> bool {
        let tells = self.key.protocol == Protocol::Tcp || self.mode.translates();
        tells && self.options.measured != Measured::NONE
    }
}

/// Which XDP hook the program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver; refused where the driver cannot.
    Native,
    /// In the stack, on any interface, at several times the cost.
    Generic,
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// Where the data plane is attached and pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataPlaneConfig {
    /// The interfaces that VIP traffic arrives at; at least one.
    pub interfaces: Vec<String>,
    /// Which hook.
    pub xdp_mode: XdpMode,
    /// The folder in a bpffs that holds the pinned program, links and maps.
    pub pins: PathBuf,
    /// Seeds the flow hash. Load balancers that share VIPs must share it.
    pub hash_seed: u64,
    /// How even the shares are to be in rings whose size is not given.
    pub evenness: Evenness,
    /// How the kernel recognises probes that take the way of traffic.
    pub probe_mark: ProbeMark,
    /// What is done where the kernel's tables are not the intended ones.
    pub on_drift: OnDrift,
}

/// What is done where the kernel's tables are not the intended ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDrift {
    /// It is told, and the intended ones are published.
    #[default]
    Repair,
    /// It is told.
    Report,
}

/// Where the controller answers its command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// The Unix socket's path.
    pub socket: PathBuf,
    /// A group, by name or number, whose members may ask, besides root and the controller's own
    /// user.
    pub group: Option<String>,
    /// A group whose members may change as well.
    pub change_group: Option<String>,
}

/// A whole validated configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the data plane is.
    pub data_plane: DataPlaneConfig,
    /// Where the controller answers.
    pub admin: AdminConfig,
    /// Where mode `snat` sends from; there is one where a service has that mode.
    pub snat: Option<Snat>,
    /// How packets travel in a tunnel.
    pub tunnel: Tunnel,
    /// The memory of flows.
    pub tracking: Tracking,
    /// What is kept on disk.
    pub state: State,
    /// When the controller audits.
    pub audit: Audit,
    /// When incidents end by themselves.
    pub incidents: Incidents,
    /// What is shown over HTTP.
    pub http: HttpServer,
    /// Who is told of alerts, in the order of the file.
    pub notify: Vec<Receiver>,
    /// The services, in the order of the file.
    pub services: Vec<Service>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_key_reads_like_an_address() {
        let key = ServiceKey {
            vip: "198.51.100.10".parse().unwrap(),
            port: ServicePort::Exact(NonZeroU16::new(80).unwrap()),
            protocol: Protocol::Tcp,
        };
        assert_eq!(key.to_string(), "tcp 198.51.100.10:80");
        let key = ServiceKey {
            vip: "2001:db8::1".parse().unwrap(),
            port: ServicePort::Any,
            protocol: Protocol::Udp,
        };
        assert_eq!(key.to_string(), "udp [2001:db8::1]:any");
    }

    #[test]
    fn ring_sizes_are_powers_of_two_within_bounds() {
        for slots in [256, 4096, 65_536] {
            assert_eq!(RingSlots::new(slots).unwrap().count(), slots as usize);
        }
        for slots in [0, 1, 128, 255, 257, 65_535, 65_537, 131_072] {
            assert!(RingSlots::new(slots).is_none(), "{slots}");
        }
    }
}
