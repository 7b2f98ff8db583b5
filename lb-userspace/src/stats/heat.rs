//! Where in a service's ring its new flows fall, as far as samples tell.
//!
//! A ring's shares are what its backends get of flows that are all alike. Those of few clients, or of
//! some heavy ones, are not: what came lately says what a change of the ring does better than the ring
//! alone.

use super::clients::Sample;

/// Into how many parts a ring is cut for people to look at.
pub const PARTS: usize = 64;
/// So many samples say little more than chance.
pub const FEW: usize = 100;

/// The part of the flows that falls into each 64th of the ring of so many slots that they fell into;
/// nothing where there are no samples.
#[must_use]
pub fn parts<'a>(samples: impl IntoIterator<Item = &'a Sample>, slots: usize) -> Vec<f64> {
    let mut parts = vec![0.0; PARTS];
    let mut all = 0.0;
    for sample in samples {
        let flows = f64::from(sample.one_of);
        let slot = usize::from(sample.slot) & slots.saturating_sub(1);
        let part = (slot * PARTS).checked_div(slots);
        parts[part.unwrap_or(0).min(PARTS - 1)] += flows;
        all += flows;
    }
    if all == 0.0 {
        return Vec::new();
    }
    for part in &mut parts {
        *part /= all;
    }
    parts
}

/// Rings of two sizes, powers of two: the one that flows fell into, and the one that they would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Slots of the ring that they fell into.
    pub before: usize,
    /// Slots of the ring that they would fall into.
    pub after: usize,
}

/// The part of the flows that each owner of a ring would have got, by the samples, and how many of
/// these there are; what falls on a slot that nobody owns goes to nobody. In a larger ring, a flow may
/// fall on any slot that its own is cut into. `None` without a sample.
#[must_use]
pub fn shares<'a>(
    samples: impl IntoIterator<Item = &'a Sample>,
    sizes: Sizes,
    owners: usize,
    owner: impl Fn(usize) -> Option<usize>,
) -> Option<(Vec<f64>, usize)> {
    let Sizes { before, after } = sizes;
    if before == 0 || after == 0 {
        return None;
    }
    let step = before.min(after);
    let mut shares = vec![0.0; owners];
    let (mut all, mut count) = (0.0, 0);
    for sample in samples {
        let flows = f64::from(sample.one_of);
        let first = usize::from(sample.slot) & (step - 1);
        let slots = (first..after).step_by(step);
        let part = flows / slots.len() as f64;
        slots
            .filter_map(&owner)
            .for_each(|owner| shares[owner] += part);
        all += flows;
        count += 1;
    }
    if count == 0 {
        return None;
    }
    for share in &mut shares {
        *share /= all;
    }
    Some((shares, count))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn sample(slot: u16, one_of: u32) -> Sample {
        Sample {
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            backend: 0,
            one_of,
            slot,
        }
    }

    fn sizes(before: usize, after: usize) -> Sizes {
        Sizes { before, after }
    }

    #[test]
    fn flows_are_where_their_slot_is() {
        let samples = [sample(0x8003, 3), sample(0x0103, 1)];
        let parts = |slots| {
            let parts = parts(&samples, slots);
            assert!((parts.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            let hot = parts.iter().enumerate().filter(|(_, part)| **part > 0.0);
            hot.map(|(n, part)| (n, *part)).collect::<Vec<_>>()
        };
        assert_eq!(parts(65_536), [(0, 0.25), (32, 0.75)]);
        assert_eq!(super::parts(&[], 256), [] as [f64; 0]);
    }

    #[test]
    fn who_owns_the_slots_that_flows_fall_on_gets_them() {
        let samples = [sample(0, 6), sample(1, 1), sample(2, 2), sample(3, 1)];
        // The even ones are the first one's, and the fourth is nobody's.
        let owner = |slot: usize| (slot != 3).then_some(slot % 2);
        let found = shares(&samples, sizes(256, 256), 2, owner).unwrap();
        assert_eq!(found, (vec![0.8, 0.1], 4));
        assert_eq!(shares(&[], sizes(256, 256), 2, owner), None);
        assert_eq!(shares(&samples, sizes(256, 0), 2, owner), None);
    }

    #[test]
    fn a_ring_of_another_size_is_cut_or_folded() {
        let half = |slot: usize| Some(usize::from(slot >= 512));
        // Slot 300 of 512 is slots 300 and 812 of 1,024, and slot 44 of 256.
        let samples = [sample(300, 1)];
        let found = |after, owner: &dyn Fn(usize) -> Option<usize>| {
            shares(&samples, sizes(512, after), 2, owner).unwrap().0
        };
        assert_eq!(found(1024, &half), [0.5, 0.5]);
        assert_eq!(
            found(256, &|slot| Some(usize::from(slot == 44))),
            [0.0, 1.0]
        );
    }
}
