//! What a service may ask for beyond its mode.

use std::{fmt, num::NonZeroU32, time::Duration};

use ipnet::IpNet;

use super::{AgentCheck, Ejection, Part};

/// What a service may ask for beyond its mode; the default is what holds where nothing is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether UDP flows are remembered.
    pub udp: UdpFlows,
    /// What of a flow picks its backend.
    pub spread: Spread,
    /// Who may use the service; `None` lets everybody.
    pub sources: Option<Sources>,
    /// How many connections a source may open.
    pub limit: Option<ConnectionLimit>,
    /// What becomes of fragments.
    pub fragments: Fragments,
    /// How QUIC's connection IDs name the backend; `None` does not look at them.
    pub quic: Option<Quic>,
    /// What becomes of a backend's flows when its checks fail.
    pub on_down: OnDown,
    /// How long a backend that is new or comes back takes to reach its whole weight; `None` gives
    /// it at once.
    pub slow_start: Option<Duration>,
    /// Where a smaller part of the backends is up than this, all are used: better one that may
    /// answer than too much for those that do. [`Part::NONE`] never does.
    pub panic_below: Part,
    /// What is done about backends that answer and underperform.
    pub ejection: Ejection,
    /// How the backends' agents are asked; `None` asks nobody.
    pub agent: Option<AgentCheck>,
    /// What the owner says of its traffic, for the audit.
    pub traffic: Traffic,
    /// Of how many flows the latency is measured.
    pub measured: Measured,
}

impl Options {
    /// Whether the same flows come as by other ones, and go the same ways.
    #[must_use]
    pub fn admits_as(&self, other: &Self) -> bool {
        (self.spread, &self.sources, self.limit) == (other.spread, &other.sources, other.limit)
    }
}

/// Of how many flows the latency is measured in passing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured(u16);

impl Measured {
    /// Of none.
    pub const NONE: Self = Self(0);
    /// Of one in 64.
    pub const DEFAULT: Self = Self::one_of(64);
    /// The smallest part that there is: one in so many.
    pub const LEAST: u32 = 1 << 16;

    /// Of one in so many, at most [`Self::LEAST`]; of none where that is zero.
    #[must_use]
    pub const fn one_of(flows: u32) -> Self {
        match Self::LEAST.checked_div(flows) {
            None => Self::NONE,
            // All but one in 65,536.
            Some(part) if part > u16::MAX as u32 => Self(u16::MAX),
            Some(part) => Self(part as u16),
        }
    }

    /// How many flows of 65,536.
    #[must_use]
    pub const fn of_65536(self) -> u16 {
        self.0
    }
}

/// What a service's owner says of its traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// What arrives at the busiest moment, in the unit of [`Backend::capacity`].
    ///
    /// [`Backend::capacity`]: crate::model::Backend::capacity
    pub peak_load: Option<NonZeroU32>,
    /// How long a connection may be silent before the application ends it or says something.
    pub keepalive: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            udp: UdpFlows::default(),
            spread: Spread::default(),
            sources: None,
            limit: None,
            fragments: Fragments::default(),
            quic: None,
            on_down: OnDown::default(),
            slow_start: None,
            panic_below: Part::HALF,
            ejection: Ejection::default(),
            agent: None,
            traffic: Traffic::default(),
            measured: Measured::DEFAULT,
        }
    }
}

/// Whether the flows of a UDP service are remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UdpFlows {
    /// They are not: a datagram goes to its slot's owner.
    #[default]
    Hash,
    /// They are: a flow stays with its backend until it falls silent.
    Sticky,
}

impl fmt::Display for UdpFlows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hash => "hash",
            Self::Sticky => "sticky",
        })
    }
}

/// What of a flow picks its backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spread {
    /// Addresses, ports and protocol: each flow by itself.
    #[default]
    Flow,
    /// The source address alone: a client's flows meet at one backend.
    Source,
    /// The destination port alone: a port's flows meet at one backend.
    Port,
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flow => "flow",
            Self::Source => "source",
            Self::Port => "port",
        })
    }
}

/// Who may use a service: the longest prefix that covers a source decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Prefixes that are allowed. Where there is one, sources that no prefix covers are denied.
    pub allow: Vec<IpNet>,
    /// Prefixes that are denied.
    pub deny: Vec<IpNet>,
}

/// How many connections each source may open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimit {
    /// In the long run, each second; at most [`ConnectionLimit::MAX`].
    pub per_second: NonZeroU32,
    /// At once, after a pause; at most [`ConnectionLimit::MAX`].
    pub burst: NonZeroU32,
}

impl ConnectionLimit {
    /// The largest value of either: the data plane counts 1,024ths in 32 bits.
    pub const MAX: u32 = 1_000_000;
}

/// What becomes of a service's fragmented packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragments {
    /// Later fragments go where the first one went; those that come before it have this fate.
    Follow(Fate),
    /// None is balanced: all have this fate.
    Refuse(Fate),
}

impl Default for Fragments {
    fn default() -> Self {
        Self::Follow(Fate::Drop)
    }
}

/// What becomes of a packet that goes to no backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// It is dropped.
    #[default]
    Drop,
    /// It goes to the host's own stack.
    Pass,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drop => "drop",
            Self::Pass => "pass",
        })
    }
}

/// Server IDs in QUIC connection IDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quic {
    /// How long each is.
    pub server_id_length: ServerIdLength,
}

/// The length of a service's QUIC server IDs: 1 to [`ServerIdLength::MAX`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerIdLength(u8);

impl ServerIdLength {
    /// The longest that the data plane reads.
    pub const MAX: u8 = lb_common::wire::quic::SERVER_ID;

    /// Takes a number of bytes; `None` outside of the bounds.
    pub const fn new(bytes: u8) -> Option<Self> {
        if bytes >= 1 && bytes <= Self::MAX {
            Some(Self(bytes))
        } else {
            None
        }
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u8 {
        self.0
    }
}

/// A backend's QUIC server ID, as long as its service says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerId(Box<[u8]>);

impl ServerId {
    /// Takes the ID's bytes; `None` for none and for more than [`ServerIdLength::MAX`].
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (1..=usize::from(ServerIdLength::MAX))
            .contains(&bytes.len())
            .then(|| Self(bytes.into()))
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for ServerId {
    /// Writes it in hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

/// What becomes of a backend's flows when its checks fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDown {
    /// Its flows go to other backends at once.
    #[default]
    Rehash,
    /// Its flows stay, and it takes no new ones: a check that is wrong breaks nothing.
    Keep,
}

impl fmt::Display for OnDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rehash => "rehash",
            Self::Keep => "keep",
        })
    }
}
