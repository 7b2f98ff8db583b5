//! What is measured of flows, as it lies in kernel memory.

use bytemuck::{Pod, Zeroable};

/// A flow whose latency is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Waiting {
    /// When what is waited for began, in nanoseconds of the monotonic clock.
    pub since: u64,
    /// Of TCP, the sequence number behind the last byte that the client has sent.
    pub next: u32,
    /// Of TCP, what the client had acknowledged when it sent that.
    pub acknowledged: u32,
    /// The endpoint's number.
    pub endpoint: u16,
    /// One of [`waiting`].
    pub what: u16,
    /// When a response of its was last counted as a [first](Latencies::response) one, in
    /// [`COUNTED_NS`] and from one on; zero before there was any.
    pub counted: u32,
}

/// Nanoseconds in a unit of [`Waiting::counted`], about a second.
pub const COUNTED_NS: u64 = 1 << 30;
/// A flow's response is a first one again after so many of these, a bit more than a minute.
pub const FIRST_AGAIN: u32 = 64;

/// What is waited for.
pub mod waiting {
    /// Nothing: the client has not asked.
    pub const NOTHING: u16 = 0;
    /// The end of the handshake.
    pub const HANDSHAKE: u16 = 1;
    /// The first of the response.
    pub const RESPONSE: u16 = 2;
    /// The same, where something was sent again: what it answers cannot be told (Karn and
    /// Partridge, 'Improving Round-Trip Time Estimates in Reliable Transport Protocols', 1987).
    pub const UNCLEAR: u16 = 3;
}

/// How many flows can be measured at once.
pub const WAITING: usize = 1 << 14;

/// How many buckets a histogram has: two for each power of two.
pub const BUCKETS: usize = 48;
/// Everything below 2 to this power of nanoseconds, four microseconds, falls into the first bucket.
const FIRST: u32 = 12;

/// How long something took: of how many flows, by buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Histogram {
    /// How many times, by bucket; wrapping.
    pub buckets: [u32; BUCKETS],
    /// The sum of the logarithms of the nanoseconds to base 2, in 256ths; wrapping.
    pub logarithms: u64,
    /// The sum of the nanoseconds; wrapping.
    pub nanoseconds: u64,
}

/// What of an endpoint is measured.
///
/// Responses are counted in two halves: a connection that is kept and asks a thousand times says
/// little more of its backend than one that asks once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Latencies {
    /// From the client's SYN to the end of the handshake.
    pub handshake: Histogram,
    /// From the end of a request to the first of its response: of each flow once in
    /// [`FIRST_AGAIN`].
    pub response: Histogram,
    /// The same of all other responses.
    pub further: Histogram,
    /// Connections whose SYN was sent again; wrapping.
    pub unanswered: u64,
    /// Connections that the backend reset while it was to answer, where replies pass by; wrapping.
    pub reset: u64,
}

/// The bucket of a number of nanoseconds, and its logarithm to base 2 in 256ths.
///
/// The second half of a power of two begins at one and a half of it.
#[inline(always)]
pub const fn bucket(nanoseconds: u64) -> (usize, u32) {
    // Below 2 to the 48th, three days.
    let ns = nanoseconds & ((1 << 48) - 1);
    let power = match ns.checked_ilog2() {
        Some(power) => power,
        None => 0,
    };
    // The eight bits behind the first.
    let rest = ((ns << (48 - power)) >> 40) as u32 & 0xff;
    // That of 1 + x is x + 0.344 x (1 - x), to within a hundredth.
    let logarithm = (power << 8) + rest + ((rest * (256 - rest) * 88) >> 16);
    if power < FIRST {
        return (0, logarithm);
    }
    let bucket = ((power - FIRST) << 1 | rest >> 7) as usize;
    let last = BUCKETS - 1;
    (if bucket < last { bucket } else { last }, logarithm)
}

/// Where a bucket ends, in nanoseconds: what falls into it is shorter. The last has no end.
#[must_use]
pub const fn end_of_bucket(bucket: usize) -> Option<u64> {
    if bucket + 1 >= BUCKETS {
        return None;
    }
    let power = 1_u64 << (FIRST as usize + bucket / 2);
    Some(if bucket.is_multiple_of(2) {
        power + power / 2
    } else {
        2 * power
    })
}

const _: () = {
    assert!(size_of::<Waiting>() == 24);
    assert!(size_of::<Histogram>() == 208);
    assert!(size_of::<Latencies>() == 640);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_between_the_ends_of_its_bucket() {
        let mut ns = 1_u64;
        let mut before = 0;
        while ns < 1 << 40 {
            let (at, logarithm) = bucket(ns);
            assert!(end_of_bucket(at).is_none_or(|end| ns < end), "{ns}: {at}");
            assert!(
                at == 0 || end_of_bucket(at - 1).is_some_and(|begin| begin <= ns),
                "{ns}: {at}"
            );
            let exact = (ns as f64).log2();
            let off = f64::from(logarithm) / 256.0 - exact;
            assert!(off.abs() < 0.02, "{ns}: {off}");
            assert!(logarithm >= before, "{ns}");
            before = logarithm;
            ns += 1 + ns / 97;
        }
        assert_eq!(bucket(4095).0, 0);
        assert_eq!((bucket(4096).0, bucket(6144).0, bucket(8192).0), (0, 1, 2));
        assert_eq!(bucket(u64::MAX).0, BUCKETS - 1);
    }
}
