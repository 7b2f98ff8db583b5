//! What becomes of a packet, and why.

/// The end of a packet's way through the data plane.
#[must_use = "a verdict that nobody carries out lets the packet go astray"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Rewritten for a backend: out by the interface that it came in by.
    Transmit,
    /// Rewritten, out by the interface of this index.
    Redirect(u32),
    /// Untouched to the host's own stack.
    Pass(Reason),
    /// Gone.
    Drop(Reason),
}

impl Verdict {
    /// Whether the packet leaves this host.
    #[inline(always)]
    pub const fn is_sent(self) -> bool {
        matches!(self, Self::Transmit | Self::Redirect(_))
    }
}

/// Why a packet was not sent to a backend, or what else became of it. Each is counted.
///
/// The numbers index the counters and do not change their meaning. Those that are missing stood
/// for what no longer happens, and are not used again.
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
    /// Options or extension headers, of which more than are followed.
    Extensions = 5,
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
    /// The tables contradict themselves; up the stack.
    BadTables = 13,
    /// Its time to live ends here; up the stack, which answers.
    TtlExpired = 14,
    /// From a source that the service does not serve.
    Denied = 15,
    /// From a source that opens more connections than it may.
    Limited = 16,
    /// Too big for its tunnel; its sender was told.
    TooBig = 17,
    /// Too big for its tunnel; its sender was not told, because many were before.
    TooBigUntold = 18,
    /// A fragment that is not followed: its service wants none to be, or its first was not seen.
    FragmentUnknown = 19,
    /// An echo request to a VIP, answered.
    EchoAnswered = 20,
    /// An ICMP message to a VIP that quotes no flow of a service.
    IcmpUnrelated = 21,
    /// No free port for the flow in the pool of `snat`.
    NoPort = 22,
    /// A segment in mode `snat`, or a reply, of a flow that is not known.
    NoEntry = 23,
    /// A reply to a client to whom the kernel has no way, or none yet; up the stack, as the client
    /// is to see it.
    NoRoute = 24,
    /// The driver leaves no room in front of the frame for an outer header.
    NoRoom = 25,
    /// An ICMP error handed on to the end that it concerns.
    Related = 26,
}

impl Reason {
    /// How many counters a row of reasons has: a power of two with room for more reasons.
    pub const ROW: usize = 32;

    /// Every reason, by number.
    pub const ALL: [Self; 25] = [
        Self::NoTables,
        Self::Truncated,
        Self::NotIp,
        Self::Malformed,
        Self::Extensions,
        Self::Fragment,
        Self::NotTcpUdp,
        Self::NoService,
        Self::NoBackendDropped,
        Self::NoBackendPassed,
        Self::Unresolved,
        Self::BadTables,
        Self::TtlExpired,
        Self::Denied,
        Self::Limited,
        Self::TooBig,
        Self::TooBigUntold,
        Self::FragmentUnknown,
        Self::EchoAnswered,
        Self::IcmpUnrelated,
        Self::NoPort,
        Self::NoEntry,
        Self::NoRoute,
        Self::NoRoom,
        Self::Related,
    ];

    /// The name in the status, the logs and the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoTables => "no-tables",
            Self::Truncated => "truncated",
            Self::NotIp => "not-ip",
            Self::Malformed => "malformed",
            Self::Extensions => "extensions",
            Self::Fragment => "fragment",
            Self::NotTcpUdp => "not-tcp-udp",
            Self::NoService => "no-service",
            Self::NoBackendDropped => "no-backend-dropped",
            Self::NoBackendPassed => "no-backend-passed",
            Self::Unresolved => "unresolved",
            Self::BadTables => "bad-tables",
            Self::TtlExpired => "ttl-expired",
            Self::Denied => "denied",
            Self::Limited => "limited",
            Self::TooBig => "too-big",
            Self::TooBigUntold => "too-big-untold",
            Self::FragmentUnknown => "fragment-unknown",
            Self::EchoAnswered => "echo-answered",
            Self::IcmpUnrelated => "icmp-unrelated",
            Self::NoPort => "no-port",
            Self::NoEntry => "no-entry",
            Self::NoRoute => "no-route",
            Self::NoRoom => "no-room",
            Self::Related => "related",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_in_order_and_named_apart() {
        let numbers = Reason::ALL.map(|reason| reason as usize);
        assert!(numbers.is_sorted_by(|a, b| a < b));
        assert!(numbers.iter().all(|&number| number < Reason::ROW));
        let names: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}
