//! Traced decisions: which are told, and how they lie in a ring buffer.

use bytemuck::{Pod, Zeroable};

use crate::{
    flow::{Address, Flow, V6},
    layout::{NONE, TICK_NS},
    trail::{Trail, table},
    verdict::Verdict,
};

/// How many bytes there are for traced decisions.
pub const RECORD_BYTES: usize = 4 << 20;
/// The most bytes of a frame that are captured.
pub const SNAP: usize = 9_216;

/// Which decisions are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Filter {
    /// Until when, in [`TICK_NS`] of the monotonic clock, wrapping: nobody listens after that.
    pub until: u32,
    /// How many of them a second, on each CPU.
    pub rate: u32,
    /// How many bytes of each frame are captured, at most [`SNAP`]; zero captures nothing.
    pub snap: u32,
    /// Bits of [`only`]: what of the following counts.
    pub only: u32,
    /// The client's network: its address,
    pub client: Address,
    /// and the bits of it that count.
    pub mask: Address,
    /// The VIP.
    pub vip: Address,
    /// One of the two ports, as it lies in memory.
    pub port: u16,
    /// The service's number.
    pub service: u16,
    /// The endpoint's number.
    pub endpoint: u16,
    /// The transport protocol's number over IPv4,
    pub protocol: u8,
    /// and over IPv6.
    pub protocol_v6: u8,
    /// The family of `client`.
    pub client_family: u8,
    /// The family of `vip`.
    pub vip_family: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// What became of the packet: a bit for each, as [`verdict_bit`] has it.
    pub verdicts: u32,
    /// The reasons that were counted: a bit for each, by number.
    pub reasons: u32,
}

/// Bits of [`Filter::only`].
pub mod only {
    /// Packets of a client's network.
    pub const CLIENT: u32 = 1;
    /// Packets to or from a VIP.
    pub const VIP: u32 = 1 << 1;
    /// Packets from or to a port.
    pub const PORT: u32 = 1 << 2;
    /// Packets of a service.
    pub const SERVICE: u32 = 1 << 3;
    /// Packets of an endpoint.
    pub const ENDPOINT: u32 = 1 << 4;
    /// Packets of a protocol.
    pub const PROTOCOL: u32 = 1 << 5;
    /// Some verdicts.
    pub const VERDICT: u32 = 1 << 6;
    /// Some reasons.
    pub const REASON: u32 = 1 << 7;
}

/// The bit of a verdict in [`Filter::verdicts`].
#[inline(always)]
#[must_use]
pub const fn verdict_bit(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Transmit => 1,
        Verdict::Redirect(_) => 1 << 1,
        Verdict::Pass(_) => 1 << 2,
        Verdict::Drop(_) => 1 << 3,
    }
}

/// What a packet says of itself, as far as it can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Subject {
    /// Its flow; of family zero where it is no IP packet. Of ICMP, type and code stand in the place of
    /// the source port.
    pub flow: Flow,
    /// The TCP flags; zero for others.
    pub tcp_flags: u8,
    /// 1 for a fragment that is not the first, which has no ports.
    pub later_fragment: u8,
    /// Zero.
    pub reserved: [u8; 6],
}

/// What every record begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Head {
    /// One of [`what`].
    pub what: u32,
    /// The frame's length.
    pub length: u32,
    /// How many of its bytes follow.
    pub captured: u32,
    /// The CPU.
    pub cpu: u32,
    /// The same in both records of a packet, and in no other two of this CPU.
    pub serial: u64,
}

/// What a record is about.
pub mod what {
    /// A decision, with the frame that it was about: [`Seen`](super::Seen), then bytes.
    pub const DECIDED: u32 = 1;
    /// The frame that left: [`Head`](super::Head), then bytes.
    pub const LEFT: u32 = 2;
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Seen {
    /// See [`Head`].
    pub head: Head,
    /// The packet.
    pub subject: Subject,
    /// Its way.
    pub trail: Trail,
}

/// Bits of [`Shot::watching`].
pub mod watching {
    /// Its decision may be one that is told.
    pub const TOLD: u64 = 1;
    /// A drill's fault may take it.
    pub const STRUCK: u64 = 1 << 1;
}

/// Where a CPU puts a decision together.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Shot {
    /// Bits of [`watching`]: why the packet in hand is watched.
    pub watching: u64,
    /// The decision.
    pub seen: Seen,
    /// The frame as it came in.
    pub bytes: [u8; SNAP],
}

/// Where a CPU puts a frame that leaves.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Left {
    /// See [`Head`].
    pub head: Head,
    /// The frame.
    pub bytes: [u8; SNAP],
}

/// How much a CPU may tell, and what it did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Pace {
    /// When `left` was last filled up, in [`TICK_NS`].
    pub filled: u32,
    /// How many decisions may still be told, in 1,024ths.
    pub left: u32,
    /// How many were not, because of the rate.
    pub skipped: u64,
    /// How many were not, because nobody read what was told before.
    pub lost: u64,
    /// Counts decisions that were told.
    pub serial: u64,
}

impl Pace {
    /// Takes one decision off what may be told; false where nothing is left.
    #[inline(always)]
    pub fn may_tell(&mut self, now: u32, rate: u32) -> bool {
        const ONE: u64 = 1 << 10;
        // A tick is about a thousandth of a second: it brings `rate` thousandths.
        let ticks = u64::from(now.wrapping_sub(self.filled));
        let earned = ticks.min(1 << 20) * u64::from(rate) * ONE * TICK_NS / 1_000_000_000;
        // A tenth of a second's at once, and one at least.
        let full = (u64::from(rate) * ONE / 10).max(ONE);
        let left = (u64::from(self.left) + earned).min(full);
        let enough = left >= ONE;
        if earned > 0 {
            self.filled = now;
        }
        self.left = if enough { left - ONE } else { left } as u32;
        enough
    }
}

impl Filter {
    /// One whose time is over.
    #[must_use]
    pub fn over(now: u32) -> Self {
        Self {
            until: now.wrapping_sub(1),
            ..Self::zeroed()
        }
    }

    /// Whether its time is over.
    #[inline(always)]
    #[must_use]
    pub const fn is_over(&self, now: u32) -> bool {
        is_over(self.until, now)
    }

    /// Whether a packet may be one of those that are told, by what it says of itself.
    ///
    /// What a reply was before it was translated is not known yet, so of clients, VIPs and ports
    /// nothing can be said.
    #[inline(always)]
    #[must_use]
    pub const fn may_match(&self, subject: &Subject) -> bool {
        let wanted = if subject.flow.family == V6 {
            self.protocol_v6
        } else {
            self.protocol
        };
        self.only & only::PROTOCOL == 0 || wanted == subject.flow.protocol
    }

    /// Whether a decision is one of those that are told. `vip` is the address of its service.
    #[inline(always)]
    #[must_use]
    pub fn matches(&self, subject: &Subject, trail: &Trail, vip: &Address) -> bool {
        let flow = &subject.flow;
        let only = self.only;
        if !self.may_match(subject) {
            return false;
        }
        if only & only::SERVICE != 0 && self.service != trail.service {
            return false;
        }
        if only & only::ENDPOINT != 0 && self.endpoint != trail.endpoint {
            return false;
        }
        if only & only::PORT != 0
            && self.port != flow.source_port()
            && self.port != flow.destination_port()
        {
            return false;
        }
        if only & only::VIP != 0 {
            let of_service = trail.service != NONE && same(vip, &self.vip);
            let family = self.vip_family == flow.family;
            if !(family && (same(&flow.destination, &self.vip) || of_service)) {
                return false;
            }
        }
        if only & only::CLIENT != 0 {
            // Of a reply in mode `snat`, the entry alone knows the client.
            let of_entry = trail.table != table::NONE && self.covers(&trail.entry.other);
            let family = self.client_family == flow.family;
            let of_flow = self.covers(&flow.source) || self.covers(&flow.destination);
            if !(family && (of_flow || of_entry)) {
                return false;
            }
        }
        if only & only::VERDICT != 0 && self.verdicts & trail.verdict_bit() == 0 {
            return false;
        }
        only & only::REASON == 0 || self.reasons & trail.reason_bit() != 0
    }

    /// Whether an address lies in the client's network.
    #[inline(always)]
    fn covers(&self, address: &Address) -> bool {
        covers(&self.client, &self.mask, address)
    }
}

/// Whether an address is that of a network in the bits that count.
#[inline(always)]
pub(crate) const fn covers(network: &Address, mask: &Address, address: &Address) -> bool {
    // Written out: no loop for the verifier.
    let mut difference = (address[0] ^ network[0]) & mask[0];
    difference |= (address[1] ^ network[1]) & mask[1];
    difference |= (address[2] ^ network[2]) & mask[2];
    difference |= (address[3] ^ network[3]) & mask[3];
    difference == 0
}

/// Whether a moment is over, by the wrapping clock of [`TICK_NS`].
#[inline(always)]
pub(crate) const fn is_over(until: u32, now: u32) -> bool {
    until.wrapping_sub(now) > u32::MAX / 2
}

/// Whether two addresses are the same, without a branch for each word.
#[inline(always)]
const fn same(a: &Address, b: &Address) -> bool {
    (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
}

const _: () = {
    assert!(size_of::<Filter>() == 84);
    assert!(size_of::<Subject>() == 48);
    assert!(size_of::<Head>() == 24);
    assert!(size_of::<Seen>().is_multiple_of(8));
    // What a CPU keeps for itself may be no larger.
    assert!(size_of::<Shot>() <= 32 * 1024);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{flow::V4, verdict::Reason};

    fn subject() -> Subject {
        let mut subject = Subject::zeroed();
        subject.flow = Flow {
            source: [0, 0, 0, u32::from_ne_bytes([203, 0, 113, 9])],
            destination: [0, 0, 0, u32::from_ne_bytes([198, 51, 100, 10])],
            ports: u32::from(51000_u16.to_be()) | u32::from(80_u16.to_be()) << 16,
            protocol: 6,
            family: V4,
            reserved: [0; 2],
        };
        subject
    }

    #[test]
    fn each_condition_alone_tells_a_decision_from_another() {
        let subject = subject();
        let vip = subject.flow.destination;
        let mut trail = Trail::begun();
        (trail.service, trail.endpoint) = (3, 7);
        trail.decided(Verdict::Transmit);
        let all = Filter::zeroed();
        assert!(all.matches(&subject, &trail, &vip));
        let network = [0, 0, 0, u32::from_ne_bytes([203, 0, 113, 0])];
        let mask = [
            u32::MAX,
            u32::MAX,
            u32::MAX,
            u32::from_ne_bytes([255, 255, 255, 0]),
        ];
        let filter = |only| Filter {
            only,
            client: network,
            mask,
            client_family: V4,
            vip,
            vip_family: V4,
            port: 80_u16.to_be(),
            service: 3,
            endpoint: 7,
            protocol: 6,
            verdicts: verdict_bit(Verdict::Transmit),
            ..Filter::zeroed()
        };
        let base = filter(0);
        let conditions = [
            (
                only::CLIENT,
                Filter {
                    client: [0; 4],
                    ..base
                },
            ),
            (
                only::VIP,
                Filter {
                    vip: [1; 4],
                    ..base
                },
            ),
            (only::PORT, Filter { port: 81, ..base }),
            (only::SERVICE, Filter { service: 4, ..base }),
            (
                only::ENDPOINT,
                Filter {
                    endpoint: 8,
                    ..base
                },
            ),
            (
                only::PROTOCOL,
                Filter {
                    protocol: 17,
                    ..base
                },
            ),
            (
                only::VERDICT,
                Filter {
                    verdicts: 2,
                    ..base
                },
            ),
        ];
        for (only, other) in conditions {
            assert!(filter(only).matches(&subject, &trail, &vip), "{only}");
            let other = Filter { only, ..other };
            assert!(!other.matches(&subject, &trail, &vip), "{only}");
        }
        let reasons = Filter {
            only: only::REASON,
            reasons: 1 << Reason::Denied as u32,
            ..Filter::zeroed()
        };
        assert!(!reasons.matches(&subject, &trail, &vip));
    }

    #[test]
    fn a_pace_tells_so_many_a_second() {
        let mut pace = Pace::default();
        let mut told = 0_u32;
        // Ten seconds, many packets in each tick.
        for tick in 1..=9_536_u32 {
            for _ in 0..10 {
                told += u32::from(pace.may_tell(tick, 100));
            }
        }
        assert!((990..=1_020).contains(&told), "{told}");
        // A slow one tells the first at once, and others as they are due.
        let mut slow = Pace::default();
        let told: u32 = (1..=9_536_u32)
            .map(|tick| u32::from(slow.may_tell(tick, 1)))
            .sum();
        assert!((9..=11).contains(&told), "{told}");
    }

    #[test]
    fn the_time_is_over_also_where_the_clock_wraps() {
        let filter = Filter {
            until: 5,
            ..Filter::zeroed()
        };
        assert!(!filter.is_over(u32::MAX - 3) && !filter.is_over(5) && filter.is_over(6));
    }
}
