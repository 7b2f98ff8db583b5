//! The base ring: which member owns which slot while all of them are usable.
//!
//! This is Maglev (Eisenbud et al., 'Maglev: A Fast and Reliable Software Network Load Balancer',
//! NSDI 2016, §3.4) with a power of two for the size. Each member prefers the slots in an order of
//! its own, `offset`, `offset + skip`, `offset + 2 skip` and so on; the members take turns, and
//! whoever has the turn takes its first slot that is still free. An odd skip meets every slot of a
//! power of two, so a mask stands where the paper has a prime and a modulo.
//!
//! Weights decide two things apart. *How many* slots a member gets is its share, settled beforehand
//! and exact. *When* it has its turns follows from its own weight alone: turn `k` of
//! weight `w` comes at `(k + ½) / w`. So the order of any two members' turns does not depend on who
//! else is there, which keeps the ring similar when members come and go, and no weight is so large
//! that a round of turns could cut it short.
//!
//! A ring depends on the set of members and on nothing else: load balancers with the same members
//! agree on every slot, whatever the order of their configurations. Everything is integer
//! arithmetic, so they agree on every machine.

use std::{cmp::Reverse, net::IpAddr};

use crate::model::RingSlots;

/// One backend as the ring sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who it is: [`member_id`] of its address.
    ///
    /// Ids are meant to be distinct. Members with the same id each get their share, but which of
    /// them gets which slot then depends on their order.
    pub id: u64,
    /// Its part of the slots, in proportion to the other members'. Zero gets none.
    pub weight: u32,
}

/// A ring with less than one slot for each member, which would starve some of them unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot give each of {members} backends a slot of a ring of {slots}: enlarge the ring")]
pub struct TooFewSlots {
    /// How many members there are, those of weight zero among them.
    pub members: usize,
    /// How many slots there are.
    pub slots: usize,
}

/// Names the backend at `address` in the same way on every node and in every version.
///
/// This is a promise: load balancers of different versions that share a VIP must agree on their
/// rings. An IPv4 address and its IPv4-mapped IPv6 address have the same id. No two IPv4 addresses
/// and no two addresses of the same IPv6 /64 have the same id; for others a collision takes some
/// 2³² backends to become likely.
pub fn member_id(address: IpAddr) -> u64 {
    let bits = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    mix(mix((bits >> 64) as u64) ^ bits as u64)
}

/// Builds the ring of `members`: each slot holds an index into `members`.
///
/// `None` where no member has a weight above zero. Otherwise the number of slots of each member is
/// its exact share rounded down or up, and at least one for a weight above zero. Where so many
/// members are raised to one slot that the others' shares no longer fit, the others share what
/// remains in proportion to their weights. Permuting `members` permutes the indices and changes
/// nothing else.
///
/// Measured at 65,536 slots: removing one of 100 equal members moves 1.56 % of the slots, where
/// 1.00 % is the least possible (test `removing_one_of_a_hundred_moves_little`, mean of all 100
/// choices). Weights of 1 and 1,000 are each met to within one slot (test
/// `extreme_weights_are_met_to_within_a_slot`).
///
/// # Errors
///
/// [`TooFewSlots`] where there are more members than slots. Those of weight zero count, so that
/// giving them a weight later cannot fail.
pub fn ring(slots: RingSlots, members: &[Member]) -> Result<Option<Box<[u16]>>, TooFewSlots> {
    let slots = slots.count();
    if members.len() > slots {
        return Err(TooFewSlots {
            members: members.len(),
            slots,
        });
    }
    let weights: Vec<u64> = members
        .iter()
        .map(|member| u64::from(member.weight))
        .collect();
    let Some(quotas) = quotas(slots, members, &weights, &vec![0; members.len()]) else {
        return Ok(None);
    };

    let mut by_id: Vec<usize> = (0..members.len()).collect();
    by_id.sort_unstable_by_key(|&index| (members[index].id, members[index].weight, index));
    let mut turns = Vec::with_capacity(slots);
    for (rank, &index) in by_id.iter().enumerate() {
        let weight = weights[index];
        // At most 2^17 << 46: the time fits, and resolves any two weights up to 2^23.
        turns.extend((0..u64::from(quotas[index])).map(|k| (((2 * k + 1) << 46) / weight, rank)));
    }
    turns.sort_unstable();

    let mask = slots - 1;
    let mut walks: Vec<Walk> = by_id
        .iter()
        .map(|&index| Walk::new(members[index].id))
        .collect();
    let mut ring = vec![None; slots];
    for (_, rank) in turns {
        let walk = &mut walks[rank];
        // There are as many turns as slots, so a free one is always found.
        while ring[walk.next & mask].is_some() {
            walk.advance();
        }
        ring[walk.next & mask] = Some(by_id[rank] as u16);
    }
    Ok(Some(ring.into_iter().flatten().collect()))
}

/// A member's way over the slots, in its order of preference.
struct Walk {
    next: usize,
    skip: usize,
}

impl Walk {
    fn new(id: u64) -> Self {
        let hash = mix(id);
        Self {
            next: (hash >> 32) as usize,
            skip: hash as u32 as usize | 1,
        }
    }

    const fn advance(&mut self) {
        self.next = self.next.wrapping_add(self.skip);
    }
}

/// Divides the slots among the members by `weights`; `None` where all weights are zero.
///
/// Each quota is the member's exact share of the slots rounded down or up, and their sum is the
/// number of slots. Rounded up are first those who `held` more than their share rounded down, as
/// they would otherwise have to give up a slot for the sake of rounding, then those with the
/// largest remainders, then those with the smallest ids.
///
/// A weight above zero gets at least one slot. Where so many members are raised to one slot that
/// the others' shares no longer fit, the others share what remains in proportion to their weights:
/// their shares are rounded as if the ring were as much smaller as makes everything fit.
///
/// `weights` and `held` are parallel to `members`; no more weights are above zero than there are
/// slots.
pub(super) fn quotas(
    slots: usize,
    members: &[Member],
    weights: &[u64],
    held: &[u32],
) -> Option<Vec<u32>> {
    let total: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
    if total == 0 {
        return None;
    }
    let whole = |weight: u64, scale: usize| match (u128::from(weight) * scale as u128) / total {
        0 => u32::from(weight > 0),
        share => share as u32,
    };
    let wholes = |scale: usize| weights.iter().map(move |&weight| whole(weight, scale));
    let fits = |scale: usize| wholes(scale).map(|quota| quota as usize).sum::<usize>() <= slots;
    // The scale is the number of slots unless members were raised to one. Each member gains at
    // most one slot from one scale to the next, so the largest that fits leaves less to hand out
    // than one slot to each member with a remainder.
    let scale = if fits(slots) {
        slots
    } else {
        last_that(slots, fits)
    };

    let mut quotas: Vec<u32> = wholes(scale).collect();
    let remainder = |index: usize| (u128::from(weights[index]) * scale as u128) % total;
    let shares_a_slot = |index: usize| u128::from(weights[index]) * scale as u128 >= total;
    let mut claims: Vec<usize> = (0..members.len())
        .filter(|&index| shares_a_slot(index) && remainder(index) > 0)
        .collect();
    claims.sort_by_cached_key(|&index| {
        let loses_nothing = held[index] <= quotas[index];
        (
            loses_nothing,
            Reverse(remainder(index)),
            members[index].id,
            index,
        )
    });
    let rest = slots - quotas.iter().map(|&quota| quota as usize).sum::<usize>();
    for &index in &claims[..rest] {
        quotas[index] += 1;
    }
    Some(quotas)
}

/// The largest number below `end` that `holds`, which it does from zero to somewhere.
fn last_that(end: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut yes, mut no) = (0, end);
    while no - yes > 1 {
        let middle = yes.midpoint(no);
        if holds(middle) {
            yes = middle;
        } else {
            no = middle;
        }
    }
    yes
}

/// A bijection of 64 bits in which every bit of the input moves half of the output's (the step and
/// finaliser of `SplitMix64`).
pub(super) const fn mix(bits: u64) -> u64 {
    let x = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    pub(in crate::balance) fn slots(slots: u32) -> RingSlots {
        RingSlots::new(slots).unwrap()
    }

    /// Members at 192.0.2.0, 192.0.2.1 and so on with these weights.
    pub(in crate::balance) fn members(weights: &[u32]) -> Vec<Member> {
        weights
            .iter()
            .zip(0xc000_0200_u32..)
            .map(|(&weight, address)| Member {
                id: member_id(IpAddr::from(address.to_be_bytes())),
                weight,
            })
            .collect()
    }

    pub(in crate::balance) fn built(slots: u32, members: &[Member]) -> Box<[u16]> {
        ring(self::slots(slots), members)
            .unwrap()
            .expect("someone has a weight")
    }

    /// Slots of each member.
    pub(in crate::balance) fn counts(ring: &[u16], members: usize) -> Vec<u64> {
        let mut counts = vec![0; members];
        for &owner in ring {
            counts[usize::from(owner)] += 1;
        }
        counts
    }

    pub(in crate::balance) fn moved(one: &[u16], other: &[u16]) -> usize {
        one.iter()
            .zip(other)
            .filter(|(one, other)| one != other)
            .count()
    }

    /// FNV-1a of the owners in little-endian order.
    pub(in crate::balance) fn fingerprint(ring: &[u16]) -> u64 {
        ring.iter()
            .flat_map(|owner| owner.to_le_bytes())
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            })
    }

    /// Weights of many kinds: equal, some zero, mixed, of which a few are a thousand times larger.
    pub(in crate::balance) fn weights() -> impl Strategy<Value = Vec<u32>> {
        prop_oneof![
            (1_usize..120, 1_u32..=1_000).prop_map(|(members, weight)| vec![weight; members]),
            vec(0_u32..4, 1..120),
            vec(1_u32..=1_000, 1..40),
            vec(select(vec![1, 1, 1, 1, 1_000]), 1..200),
            vec(any::<u32>(), 1..40),
        ]
        .prop_filter("someone has a weight", |weights| {
            weights.iter().any(|&weight| weight > 0)
        })
    }

    pub(in crate::balance) fn sizes() -> impl Strategy<Value = u32> {
        select(vec![256, 512, 4_096])
    }

    /// Checks that `counts` divides its sum by `weights`, as `quotas` promises.
    pub(in crate::balance) fn check_shares(
        counts: &[u64],
        weights: &[u64],
    ) -> Result<(), TestCaseError> {
        let slots = counts.iter().map(|&count| u128::from(count)).sum::<u128>();
        let total = weights
            .iter()
            .map(|&weight| u128::from(weight))
            .sum::<u128>();
        let floor = |weight: u64| u128::from(weight) * slots / total;
        let ceil = |weight: u64| (u128::from(weight) * slots).div_ceil(total);
        let least = |weight: u64| floor(weight).max(u128::from(weight > 0));
        let raised = weights.iter().map(|&weight| least(weight)).sum::<u128>() > slots;
        for (&count, &weight) in counts.iter().zip(weights) {
            let count = u128::from(count);
            prop_assert_eq!(count == 0, weight == 0);
            prop_assert!(count <= ceil(weight).max(1));
            prop_assert!(raised || count >= least(weight), "{} for {}", count, weight);
        }
        // Where some were raised, the rest is in proportion: a common scale rounds to all counts.
        let beyond_one = || counts.iter().zip(weights).filter(|(count, _)| **count > 1);
        for (&one, &one_weight) in beyond_one() {
            for (&other, &other_weight) in beyond_one() {
                prop_assert!(
                    u128::from(one - 1) * u128::from(other_weight)
                        <= u128::from(other + 1) * u128::from(one_weight)
                );
            }
        }
        Ok(())
    }

    #[test]
    fn ids_are_a_promise() {
        for (address, id) in [
            ("192.0.2.1", 0xd21f_2ca3_5c22_1d8d),
            ("192.0.2.2", 0xb728_a70e_e06f_3b29),
            ("::ffff:192.0.2.1", 0xd21f_2ca3_5c22_1d8d),
            ("0.0.0.0", 0x0a24_16fe_6de9_3bd1),
            ("255.255.255.255", 0x54fc_f204_9017_3a0b),
            ("2001:db8::1", 0x4de8_97d9_54fd_23d5),
            ("2001:db8:0:1::1", 0x53f4_6b36_eda4_b534),
            ("::", 0xa706_dd2f_4d19_7e6f),
        ] {
            assert_eq!(member_id(address.parse().unwrap()), id, "{address}");
        }
    }

    #[test]
    fn the_algorithm_is_a_promise() {
        let ring = built(65_536, &members(&[1, 2, 3, 0, 100, 1_000]));
        assert_eq!(fingerprint(&ring), 0x202d_c31b_0033_e4e5);
        let ring = built(256, &members(&[1; 3]));
        assert_eq!(ring[..16], [2, 2, 2, 1, 1, 1, 0, 1, 1, 1, 0, 1, 2, 0, 2, 1]);
    }

    #[test]
    fn equal_weights_are_the_ring_of_the_paper() {
        let members = members(&[7; 50]);
        let mut by_id: Vec<usize> = (0..50).collect();
        by_id.sort_by_key(|&index| members[index].id);
        let permutation = |index: usize| {
            let hash = mix(members[index].id);
            let (offset, skip) = (hash >> 32, (hash & 0xffff_ffff) | 1);
            (0..4_096).map(move |step| (offset + step * skip) as usize % 4_096)
        };
        let mut ring = vec![None; 4_096];
        'full: loop {
            for &index in &by_id {
                let Some(free) = permutation(index).find(|&slot| ring[slot].is_none()) else {
                    break 'full;
                };
                ring[free] = Some(index as u16);
            }
        }
        assert_eq!(
            ring.into_iter().flatten().collect::<Box<_>>(),
            built(4_096, &members)
        );
    }

    #[test]
    fn nobody_with_a_weight_has_no_ring() {
        assert_eq!(ring(slots(256), &[]), Ok(None));
        assert_eq!(ring(slots(256), &members(&[0; 3])), Ok(None));
        assert!(
            built(256, &members(&[0, 1, 0]))
                .iter()
                .all(|&owner| owner == 1)
        );
    }

    #[test]
    fn more_members_than_slots_are_refused() {
        assert_eq!(counts(&built(256, &members(&[1; 256])), 256), [1; 256]);
        let error = ring(slots(256), &members(&[0; 257])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot give each of 257 backends a slot of a ring of 256: enlarge the ring"
        );
    }

    #[test]
    fn extreme_weights_are_met_to_within_a_slot() {
        // 65,536 · 1 / 1,001 = 65.47 and 65,536 · 1,000 / 1,099 = 59,632.4.
        assert_eq!(
            counts(&built(65_536, &members(&[1, 1_000])), 2),
            [65, 65_471]
        );
        let many = counts(
            &built(65_536, &members(&[[1_000].as_slice(), &[1; 99]].concat())),
            100,
        );
        assert!([59_632, 59_633].contains(&many[0]), "{}", many[0]);
        assert!(many[1..].iter().all(|&count| [59, 60].contains(&count)));
        // 0.2 slots each are raised to one, the heavy member has the rest.
        let raised = counts(
            &built(256, &members(&[[1_000].as_slice(), &[1; 200]].concat())),
            201,
        );
        assert_eq!((raised[0], &raised[1..]), (56, [1; 200].as_slice()));
        let widest = counts(&built(256, &members(&[1, u32::MAX])), 2);
        assert_eq!(widest, [1, 255]);
    }

    #[test]
    fn removing_one_of_a_hundred_moves_little() {
        let all = members(&[1; 100]);
        let before = built(65_536, &all);
        let mut moves = 0;
        for gone in 0..100 {
            let rest: Vec<Member> = all
                .iter()
                .enumerate()
                .filter(|&(index, _)| index != gone)
                .map(|(_, &m)| m)
                .collect();
            let after = built(65_536, &rest);
            moves += before
                .iter()
                .zip(&after)
                .filter(|&(&before, &after)| all[usize::from(before)] != rest[usize::from(after)])
                .count();
        }
        let share = moves as f64 / 100.0 / 65_536.0;
        assert!((0.010..0.017).contains(&share), "{share}");
    }

    proptest! {
        #[test]
        fn every_member_has_its_quota(weights in weights(), slots in sizes()) {
            let weights: Vec<u32> = weights.into_iter().take(slots as usize).collect();
            let ring = built(slots, &members(&weights));
            prop_assert_eq!(ring.len(), slots as usize);
            let weights: Vec<u64> = weights.into_iter().map(u64::from).collect();
            check_shares(&counts(&ring, weights.len()), &weights)?;
        }

        #[test]
        fn order_does_not_matter(
            (weights, order) in weights().prop_flat_map(|weights| {
                let order: Vec<usize> = (0..weights.len()).collect();
                (Just(weights), Just(order).prop_shuffle())
            }),
            slots in sizes(),
        ) {
            let members = members(&weights);
            let shuffled: Vec<Member> = order.iter().map(|&index| members[index]).collect();
            let named: Vec<u16> = built(slots, &shuffled)
                .iter()
                .map(|&owner| order[usize::from(owner)] as u16)
                .collect();
            prop_assert_eq!(&named[..], &built(slots, &members)[..]);
        }

        #[test]
        fn only_proportions_matter(weights in vec(0_u32..=1_000, 1..60), factor in 1_u32..=1_000) {
            prop_assume!(weights.iter().any(|&weight| weight > 0));
            let scaled: Vec<u32> = weights.iter().map(|weight| weight * factor).collect();
            prop_assert_eq!(built(512, &members(&weights)), built(512, &members(&scaled)));
        }

        #[test]
        fn equal_ids_share_all_the_same(weights in weights(), id: u64) {
            let members: Vec<Member> =
                weights.iter().map(|&weight| Member { id, weight }).collect();
            let weights: Vec<u64> = weights.into_iter().map(u64::from).collect();
            check_shares(&counts(&built(256, &members), weights.len()), &weights)?;
        }
    }
}
