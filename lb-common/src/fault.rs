//! Faults on purpose: which packets a drill takes on their way to a backend.
//!
//! Not the program that forwards knows of them but the one that takes its place while something is
//! watched or rehearsed, after the decision: what is lost is lost behind the load balancer, counted
//! and remembered as sent.

use bytemuck::{Pod, Zeroable};

use crate::{
    flow::Address,
    trace::{self, Subject},
    trail::Trail,
    wire::tcp,
};

/// How many connections are known whose first packet was taken; the ones that are heard of last.
pub const OPENED: usize = 1 << 16;

/// A fault of one endpoint, for clients of one network, with an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Fault {
    /// Until when, in [`TICK_NS`](crate::layout::TICK_NS) of the monotonic clock, wrapping. No more
    /// than half of the clock's range ahead.
    pub until: u32,
    /// Which flows: those whose hash is below it; the highest number stands for all.
    pub part: u32,
    /// The clients' network: its address,
    pub client: Address,
    /// and the bits of it that count.
    pub mask: Address,
    /// The endpoint's number.
    pub endpoint: u16,
    /// The family of `client`.
    pub client_family: u8,
    /// 1 where the first packet of each TCP connection is taken, and no other.
    pub opening: u8,
}

impl Fault {
    /// One whose time is over.
    #[must_use]
    pub fn over(now: u32) -> Self {
        Self {
            until: now.wrapping_sub(1),
            ..Self::zeroed()
        }
    }

    /// Whether its time is not over.
    #[inline(always)]
    #[must_use]
    pub const fn is_on(&self, now: u32) -> bool {
        !trace::is_over(self.until, now)
    }

    /// Whether a packet may be one of those that are taken, by what it says of itself.
    #[inline(always)]
    #[must_use]
    pub fn may_strike(&self, subject: &Subject) -> bool {
        let flow = &subject.flow;
        self.client_family == flow.family
            && trace::covers(&self.client, &self.mask, &flow.source)
            && (self.opening == 0 || tcp::opens(subject.tcp_flags))
            && (self.part == u32::MAX || place(subject) < self.part)
    }

    /// Whether a packet that may be one is one, by what was decided: it was sent to the endpoint.
    #[inline(always)]
    #[must_use]
    pub const fn strikes(&self, trail: &Trail) -> bool {
        trail.sent != 0 && trail.endpoint == self.endpoint
    }
}

/// Where a client's connection lies among all, by Fibonacci hashing: drills want no more of it than
/// to be even.
#[inline(always)]
const fn place(subject: &Subject) -> u32 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let flow = &subject.flow;
    let source = flow.source[0] ^ flow.source[1] ^ flow.source[2] ^ flow.source[3];
    let word = (source as u64) << 32 | flow.ports as u64;
    (word.wrapping_mul(GOLDEN) >> 32) as u32
}

const _: () = assert!(size_of::<Fault>() == 44);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        flow::{Flow, V4, V6},
        trail::{Step, step},
    };

    fn subject(source: [u8; 4], port: u16) -> Subject {
        let mut subject = Subject::zeroed();
        subject.flow = Flow {
            source: [0, 0, 0, u32::from_ne_bytes(source)],
            destination: [0, 0, 0, u32::from_ne_bytes([198, 51, 100, 10])],
            ports: u32::from(port.to_be()) | u32::from(80_u16.to_be()) << 16,
            protocol: 6,
            family: V4,
            reserved: [0; 2],
        };
        subject
    }

    fn fault() -> Fault {
        Fault {
            until: 1_000,
            part: u32::MAX,
            client: [0, 0, 0, u32::from_ne_bytes([203, 0, 113, 0])],
            mask: [
                u32::MAX,
                u32::MAX,
                u32::MAX,
                u32::from_ne_bytes([255, 255, 255, 0]),
            ],
            endpoint: 7,
            client_family: V4,
            opening: 0,
        }
    }

    fn sent_to(endpoint: u16) -> Trail {
        let mut trail = Trail::begun();
        trail.add(Step::new(step::FORWARDED, step::NO, endpoint, 0));
        trail
    }

    #[test]
    fn it_ends_by_itself_and_none_is_on_that_never_was() {
        assert!(fault().is_on(999) && fault().is_on(1_000));
        assert!(!fault().is_on(1_001));
        // The clock wraps within it.
        let late = Fault {
            until: 50,
            ..fault()
        };
        assert!(late.is_on(u32::MAX - 50) && late.is_on(50) && !late.is_on(51));
        for now in [0, 1, u32::MAX / 2, u32::MAX] {
            assert!(!Fault::over(now).is_on(now), "{now}");
        }
    }

    #[test]
    fn other_clients_and_other_endpoints_are_left_alone() {
        let inside = subject([203, 0, 113, 9], 51_000);
        assert!(fault().may_strike(&inside));
        assert!(!fault().may_strike(&subject([203, 0, 114, 9], 51_000)));
        let v6 = Fault {
            client_family: V6,
            mask: [0; 4],
            ..fault()
        };
        assert!(!v6.may_strike(&inside));
        assert!(fault().strikes(&sent_to(7)));
        assert!(!fault().strikes(&sent_to(8)));
        // What was not sent to it, but came from it.
        let mut reply = Trail::begun();
        reply.add(Step::new(step::EVENT, step::REPLY, 7, 0));
        assert!(!fault().strikes(&reply));
    }

    #[test]
    fn what_opens_a_connection_alone_is_taken_where_that_is_asked_for() {
        let opening = Fault {
            opening: 1,
            ..fault()
        };
        let mut packet = subject([203, 0, 113, 9], 51_000);
        for (flags, taken) in [(tcp::SYN, true), (tcp::ACK, false), (0, false)] {
            packet.tcp_flags = flags;
            assert_eq!(opening.may_strike(&packet), taken, "{flags:#x}");
        }
    }

    #[test]
    fn a_part_of_the_flows_is_that_part() {
        let some = Fault {
            part: (f64::from(u32::MAX) * 0.3) as u32,
            ..fault()
        };
        let flows: std::vec::Vec<Subject> = (0..10_000)
            .map(|n| subject([203, 0, 113, (n % 250) as u8], 10_000 + n))
            .collect();
        let struck = flows.iter().filter(|of| some.may_strike(of)).count();
        // Within 4.5 standard deviations.
        assert!((2_794..=3_206).contains(&struck), "{struck}");
    }
}
