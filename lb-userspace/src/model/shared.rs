//! What all services have in common.

use std::{
    fmt,
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
    path::PathBuf,
    time::Duration,
};

use ipnet::{Ipv4Net, Ipv6Net};

/// Where mode `snat` sends from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snat {
    /// The addresses, of both families in any order; one at least, at most
    /// [`lb_common::layout::SNAT_ADDRESSES`].
    pub addresses: Vec<IpAddr>,
    /// Which ports of each.
    pub ports: PortRange,
}

/// Ports that follow each other, a power of two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: NonZeroU16,
    count: u16,
}

impl PortRange {
    /// The fewest ports: what several processors can share.
    pub const FEWEST: u16 = 256;
    /// The most: of powers of two, the largest that leaves port 0 out.
    pub const MOST: u16 = 1 << 15;
    /// The range where the configuration names none: 1,024 to 33,791.
    pub const DEFAULT: Self = Self {
        first: NonZeroU16::MIN.saturating_add(1023),
        count: Self::MOST,
    };

    /// Takes a first port and a count; `None` unless the count is a power of two within the
    /// bounds and the last port exists.
    pub const fn new(first: NonZeroU16, count: u16) -> Option<Self> {
        let fits = first.get() as u32 + count as u32 <= 1 << 16;
        if count.is_power_of_two() && count >= Self::FEWEST && count <= Self::MOST && fits {
            Some(Self { first, count })
        } else {
            None
        }
    }

    /// The first port.
    pub const fn first(self) -> u16 {
        self.first.get()
    }

    /// The last port.
    pub const fn last(self) -> u16 {
        // At most 65,535, as the first and the count fit.
        self.first.get() + (self.count - 1)
    }

    /// How many there are.
    pub const fn count(self) -> u16 {
        self.count
    }
}

impl fmt::Display for PortRange {
    /// Writes `1024-33791`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first(), self.last())
    }
}

/// How packets travel in modes `ipip` and `gue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Where outer IPv4 packets come from: the flow fills in what the prefix leaves open. `None`
    /// takes the host's own address.
    pub source_ipv4: Option<Ipv4Net>,
    /// The same of IPv6; of at least 96 bits.
    pub source_ipv6: Option<Ipv6Net>,
    /// The UDP port of GUE.
    pub gue_port: NonZeroU16,
}

impl Tunnel {
    /// The port that GUE has by assignment.
    pub const GUE_PORT: NonZeroU16 = NonZeroU16::MIN.saturating_add(6079);
    /// The fewest bits of an IPv6 prefix: the data plane fills in the last 32.
    pub const SHORTEST_IPV6: u8 = 96;
}

impl Default for Tunnel {
    fn default() -> Self {
        Self {
            source_ipv4: None,
            source_ipv6: None,
            gue_port: Self::GUE_PORT,
        }
    }
}

/// The memory of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracking {
    /// How long a slot that changed its owner remembers flows of the one before.
    pub window: Duration,
    /// How long a TCP flow may be silent before it is forgotten.
    pub idle_tcp: Duration,
    /// How long a UDP flow may be silent before it is forgotten.
    pub idle_udp: Duration,
    /// How long a flow is remembered after a FIN or RST.
    pub closing: Duration,
    /// How many flows there is room for of which only a first packet was seen.
    pub fresh: NonZeroU32,
    /// How many other flows there is room for.
    pub established: NonZeroU32,
}

impl Default for Tracking {
    fn default() -> Self {
        Self {
            window: Duration::from_mins(10),
            idle_tcp: Duration::from_hours(1),
            idle_udp: Duration::from_mins(2),
            closing: Duration::from_secs(75),
            fresh: NonZeroU32::MIN.saturating_add((1 << 16) - 1),
            established: NonZeroU32::MIN.saturating_add((1 << 18) - 1),
        }
    }
}

/// The largest deviation of a backend's share from its weight that a ring's size may cause,
/// relative to that share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Evenness {
    millionths: u32,
}

impl Evenness {
    /// The finest.
    pub const MIN: f64 = 0.001;
    /// The coarsest.
    pub const MAX: f64 = 0.5;
    /// The one where the configuration names none: 2 %.
    pub const DEFAULT: Self = Self { millionths: 20_000 };

    /// Takes a fraction; `None` outside of the bounds.
    #[must_use]
    pub fn new(fraction: f64) -> Option<Self> {
        (Self::MIN..=Self::MAX).contains(&fraction).then(|| Self {
            millionths: (fraction * 1e6).round() as u32,
        })
    }

    /// The fraction.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.millionths) / 1e6
    }
}

/// What the controller keeps on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The folder.
    pub directory: PathBuf,
    /// How long the journal keeps events.
    pub keep_events: Duration,
    /// How large the journal may become, in bytes.
    pub max_journal: u64,
    /// How large history may become, in bytes.
    pub max_history: u64,
}

impl State {
    /// Where it is, unless the configuration says otherwise.
    pub const DIRECTORY: &'static str = "/var/lib/evenkeel";
    /// How long events are kept by default.
    pub const KEEP_EVENTS: Duration = Duration::from_hours(90 * 24);
    /// How large the journal may become by default, in MiB: some million events.
    pub const MAX_JOURNAL_MIB: i64 = 256;
    /// How large history may become by default, in MiB.
    pub const MAX_HISTORY_MIB: i64 = 256;
}

impl Default for State {
    fn default() -> Self {
        Self {
            directory: Self::DIRECTORY.into(),
            keep_events: Self::KEEP_EVENTS,
            max_journal: Self::MAX_JOURNAL_MIB.unsigned_abs() << 20,
            max_history: Self::MAX_HISTORY_MIB.unsigned_abs() << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges_are_powers_of_two_that_exist() {
        let first = |port| NonZeroU16::new(port).unwrap();
        for (port, count, last) in [
            (1, 32_768, 32_768),
            (1024, 256, 1279),
            (32_768, 32_768, 65_535),
            (65_280, 256, 65_535),
        ] {
            let range = PortRange::new(first(port), count).unwrap();
            assert_eq!(
                (range.first(), range.last(), range.count()),
                (port, last, count)
            );
        }
        for (port, count) in [(1, 0), (1, 128), (1, 300), (32_769, 32_768), (65_281, 256)] {
            assert_eq!(PortRange::new(first(port), count), None, "{port} {count}");
        }
    }

    #[test]
    fn evenness_is_a_small_fraction() {
        assert_eq!(Evenness::new(0.02), Some(Evenness::DEFAULT));
        assert!((Evenness::new(0.001).unwrap().fraction() - 0.001).abs() < 1e-9);
        for fraction in [0.0, -0.1, 0.000_9, 0.51, f64::NAN, f64::INFINITY] {
            assert_eq!(Evenness::new(fraction), None, "{fraction}");
        }
    }
}
