//! What becomes of a packet, and why.

/// The end of a packet's way through the data plane.
#[must_use = "a verdict that nobody carries out lets the packet go astray"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Rewritten for a backend: out by the interface that it came in by.
    Transmit,
    /// Untouched to the host's own stack.
    Pass(Reason),
    /// Gone.
    Drop(Reason),
}

/// Why a packet was not sent to a backend. Each is counted.
///
/// The numbers index the counters and do not change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// Nothing has been published; the controller never attaches the program in this state.
    NoTables = 0,
    /// The frame ends before the header that its own fields announce.
    Truncated = 1,
    /// Neither IPv4 nor IPv6: ARP, LLDP, a third VLAN tag.
    NotIp = 2,
    /// A header that contradicts its standard.
    Malformed = 3,
    /// IPv4 options.
    Ipv4Options = 4,
    /// An IPv6 extension header.
    Ipv6Extension = 5,
    /// A fragment of an IPv4 or IPv6 packet.
    Fragment = 6,
    /// Neither TCP nor UDP: ICMP, for one.
    NotTcpUdp = 7,
    /// Addressed to no service.
    NoService = 8,
    /// The service has no usable backend and is configured to drop.
    NoBackendDropped = 9,
    /// The service has no usable backend and is configured to pass.
    NoBackendPassed = 10,
    /// The slot's endpoint has no next hop; up the stack.
    Unresolved = 11,
    /// The backend is reached by another interface than the packet came in by; up the stack.
    OtherInterface = 12,
    /// The tables contradict themselves; up the stack.
    BadTables = 13,
}

impl Reason {
    /// How many counters a row of reasons has: a power of two with room for more reasons.
    pub const ROW: usize = 16;

    /// Every reason, by number.
    pub const ALL: [Self; 14] = [
        Self::NoTables,
        Self::Truncated,
        Self::NotIp,
        Self::Malformed,
        Self::Ipv4Options,
        Self::Ipv6Extension,
        Self::Fragment,
        Self::NotTcpUdp,
        Self::NoService,
        Self::NoBackendDropped,
        Self::NoBackendPassed,
        Self::Unresolved,
        Self::OtherInterface,
        Self::BadTables,
    ];

    /// The name in the status, the logs and the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoTables => "no-tables",
            Self::Truncated => "truncated",
            Self::NotIp => "not-ip",
            Self::Malformed => "malformed",
            Self::Ipv4Options => "ipv4-options",
            Self::Ipv6Extension => "ipv6-extension",
            Self::Fragment => "fragment",
            Self::NotTcpUdp => "not-tcp-udp",
            Self::NoService => "no-service",
            Self::NoBackendDropped => "no-backend-dropped",
            Self::NoBackendPassed => "no-backend-passed",
            Self::Unresolved => "unresolved",
            Self::OtherInterface => "other-interface",
            Self::BadTables => "bad-tables",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_in_order_and_named_apart() {
        for (number, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
        }
        let names: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        assert!(Reason::ALL.len() <= Reason::ROW);
    }
}
