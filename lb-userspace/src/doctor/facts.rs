//! What is known of a host before the data plane is attached to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
};

use crate::model::{Config, Mode, XdpMode};

/// What goes around a packet on its way to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// An IP header.
    Ip,
    /// An IP header and a UDP header.
    Udp,
}

impl Tunnel {
    /// How many bytes longer a packet gets, where the outer header is of the backend's family.
    pub const fn overhead(self, backend: IpAddr) -> u32 {
        let ip = match backend {
            IpAddr::V4(_) => 20,
            IpAddr::V6(_) => 40,
        };
        match self {
            Self::Ip => ip,
            Self::Udp => ip + 8,
        }
    }
}

/// What a mode asks of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// What goes around its packets.
    pub tunnel: Option<Tunnel>,
    /// Whether answers come back through the balancer, which looks up their way to the client in
    /// the host's routes (`bpf_fib_lookup`).
    pub answers: bool,
}

impl Needs {
    /// The one place that knows what modes ask for.
    pub const fn of(mode: Mode) -> Self {
        match mode {
            Mode::Dsr => Self {
                tunnel: None,
                answers: false,
            },
            Mode::Ipip => Self {
                tunnel: Some(Tunnel::Ip),
                answers: false,
            },
            Mode::Gue => Self {
                tunnel: Some(Tunnel::Udp),
                answers: false,
            },
            Mode::Nat | Mode::Snat => Self {
                tunnel: None,
                answers: true,
            },
        }
    }
}

/// What is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Which hook.
    pub mode: XdpMode,
    /// Where it will be pinned.
    pub pins: PathBuf,
    /// The interfaces that the program is attached to.
    pub interfaces: Vec<String>,
    /// The ways that packets will take.
    pub ways: Vec<Way>,
}

/// Packets of a service on their way to a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The service.
    pub service: Arc<str>,
    /// The VIP, whose family is that of the packets.
    pub vip: IpAddr,
    /// The backend's address.
    pub backend: IpAddr,
    /// What the mode asks of the host.
    pub needs: Needs,
}

impl Plan {
    /// What a configuration asks for.
    pub fn of(config: &Config) -> Self {
        let ways = config.services.iter().flat_map(|service| {
            service.backends.iter().map(|backend| Way {
                service: Arc::clone(&service.name),
                vip: service.key.vip,
                backend: backend.address,
                needs: Needs::of(service.mode),
            })
        });
        Self {
            mode: config.data_plane.xdp_mode,
            pins: config.data_plane.pins.clone(),
            interfaces: config.data_plane.interfaces.clone(),
            ways: ways.collect(),
        }
    }
}

/// Everything that rules judge by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What is to run.
    pub plan: Plan,
    /// The host.
    pub host: Host,
    /// The interfaces that were asked about, by name; `None` where there is none of this name.
    pub interfaces: BTreeMap<String, Option<Interface>>,
    /// Where the host sends packets for a backend; without those it has no route for.
    pub routes: BTreeMap<IpAddr, Route>,
}

/// The host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The kernel's release, as `uname -r` has it.
    pub release: String,
    /// `net.core.bpf_jit_enable`; `None` where it cannot be read, as in a network namespace.
    pub jit: Option<u8>,
    /// CPUs that are on line.
    pub cpus: u32,
    /// What the folder of pins is in.
    pub pins: PinsPlace,
    /// Whether this process may load and attach programs.
    pub privileged: bool,
    /// Whether the program takes packets in several buffers (`xdp.frags`).
    pub frags: bool,
    /// `net.ipv4.conf.all.rp_filter`.
    pub rp_filter: Option<u8>,
}

/// What the folder of pins is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinsPlace {
    /// A BPF file system.
    Bpffs,
    /// The usual place of one, which a start mounts.
    Mountable,
    /// Some other file system.
    Elsewhere,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Whether it is set up.
    pub up: bool,
    /// Whether there is somebody at the other end.
    pub carrier: bool,
    /// Whether its frames are Ethernet's.
    pub ethernet: bool,
    /// What kind of virtual device it is, as `ip -details link` has it.
    pub kind: Option<String>,
    /// The driver of the device behind it.
    pub driver: Option<String>,
    /// What it is stacked on.
    pub parent: Option<String>,
    /// What it is a port of.
    pub master: Option<Master>,
    /// VLAN devices on top of it.
    pub vlans: Vec<String>,
    /// In bytes.
    pub mtu: u32,
    /// Queues that packets come in by.
    pub queues: u32,
    /// As many of them as the driver can have; `None` where it does not say.
    pub max_queues: Option<u32>,
    /// What ethtool calls them.
    pub queue_kind: QueueKind,
    /// Offloads that are on, by ethtool's names; `None` where the kernel does not say.
    pub offloads: Option<BTreeSet<String>>,
    /// `NETDEV_XDP_ACT_*` of linux/netdev.h; `None` where the kernel does not say (before 6.3).
    pub xdp_features: Option<u64>,
    /// The XDP program that is attached.
    pub program: Option<Program>,
    /// The other end of a veth pair, where this process may look at it.
    pub peer: Option<Peer>,
    /// `net.ipv4.conf.….forwarding`.
    pub forwarding_v4: Option<bool>,
    /// `net.ipv6.conf.….forwarding`.
    pub forwarding_v6: Option<bool>,
    /// `net.ipv4.conf.….rp_filter`.
    pub rp_filter: Option<u8>,
}

/// What ethtool calls the queues that packets come in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueKind {
    /// They only receive.
    Rx,
    /// Each has one for sending beside it.
    Combined,
}

impl QueueKind {
    /// The word that `ethtool -L` takes.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Rx => "rx",
            Self::Combined => "combined",
        }
    }
}

/// What an interface is a port of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Master {
    /// Its name.
    pub name: String,
    /// Its kind, as `bond` or `bridge`.
    pub kind: String,
}

/// The other end of a veth pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// In bytes.
    pub mtu: u32,
    /// Its transmit queues.
    pub queues: u32,
    /// Whether an XDP program is attached to it.
    pub program: bool,
}

/// An attached XDP program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its number.
    pub id: u32,
    /// Where it is attached.
    pub hook: Hook,
    /// Its name and tag, where this process may see them.
    pub label: Option<Label>,
    /// Whose it is.
    pub owner: Owner,
}

/// What a program is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The name that its loader gave it.
    pub name: String,
    /// A hash of its instructions.
    pub tag: u64,
}

/// Where an XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// In the driver.
    Native,
    /// In the stack.
    Generic,
    /// In the device itself, or in several of these places.
    Other,
}

/// Whose a program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It is pinned where this configuration pins: a start takes its place without a gap.
    Ours,
    /// It may be anybody's: this process is not shown.
    Unknown,
    /// Somebody else's.
    Foreign {
        /// The processes that hold it, as `name (pid)`; none where it is held by a pin or by the
        /// interface alone.
        holders: Vec<String>,
        /// The link that it is attached by; `None` where it is attached by rtnetlink.
        link: Option<u32>,
    },
}

/// Where the host sends packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Out of this interface.
    pub interface: String,
    /// At most so many bytes: the route's MTU, or the interface's.
    pub mtu: u32,
}
