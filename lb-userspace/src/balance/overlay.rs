//! The ring in force: the base ring, adapted to who is usable and how far.
//!
//! It is a function of the base, the members and their fractions, never of the ring before: load
//! balancers with the same view have the same ring, however they came to that view, and nothing
//! has to be remembered to go back to the base when all is well again.
//!
//! The ring is settled in two steps, both by the same rule. First it is settled for the *anchors*,
//! the members that are fully usable, as if all others were down. Then those who are usable in
//! part take their part back. To settle is to move as few slots as it takes to give every member
//! its quota:
//!
//! 1. A slot goes home to its owner in the base, where its holder has too many and that owner too
//!    few.
//! 2. Whoever still has too many lets go of slots, in the order of a fixed permutation, those that
//!    it owns in the base last.
//! 3. Each of these slots is thrown at a place of the base ring by its hash, and walks on from
//!    there to the first slot whose owner has too few; that owner takes it.
//!
//! The base is thus the circle of consistent hashing with bounded loads (Mirrokni, Thorup and
//! Zadimoghaddam, SODA 2018): a member's chance is its weight, neighbours are thrown far apart,
//! and a member that fails sends on only what it had taken. The quotas make the counts exact.
//!
//! Settling in two steps is what makes gradual changes cheap: what the anchors hold for a member
//! does not depend on its fraction, so a growing fraction only ever takes more of it home, from
//! each anchor in the same order. Alone among equals, ten small steps move the same slots as one
//! large one; [`overlay`] says what others that are down or in part add to that.

use crate::{
    balance::maglev::{Member, mix, quotas},
    model::Fraction,
};

/// Adapts the ring `base` to the `fractions` of its members' weights that are in force.
///
/// `fractions` is parallel to `members`. The result names members by index as the base does. It is
/// `None` where no member with a weight has a fraction above zero. Otherwise:
///
/// - Each member's slots are its share by weight × fraction, rounded down or up, and at least one
///   where that is above zero (and where many are raised to one slot, see
///   [`ring`](crate::balance::maglev::ring), in proportion).
/// - With all fractions equal and above zero, it is the base, slot for slot.
/// - Where members fail or shrink, only their slots move, to the others by weight. With unequal
///   weights the rounding of the new shares can cost some others one slot each: no method rounds
///   every share to a neighbouring whole number and never takes a slot from a party when another
///   leaves (Balinski and Young, 'Fair Representation', 1982).
/// - Growing one member's fraction in small steps, beside others that are equal and whole, moves
///   the slots that one large step moves.
/// - Permuting the members, and their indices in `base`, permutes the indices in the result and
///   changes nothing else.
///
/// Measured at 65,536 slots and 100 equal members: the failure of any one moves its 655 or 656
/// slots and no other, and each of the others gets 5 to 8 of them (test
/// `one_failure_of_a_hundred_moves_its_slots_alone`); with weights from 1 to 1,000 it moves no other
/// either (`one_failure_among_unequals_moves_its_slots_alone`). A second failure moves 18 % more
/// slots than the member held, all of them the first one's
/// (`a_second_failure_moves_little_more_than_its_slots`). Bringing one member from nothing to full
/// in ten steps moves not a slot more than in one; two together, 3 % more; one beside another that
/// is down, 13 % more; beside another that stays at 30 %, 58 % more
/// (`small_steps_move_little_more_than_a_large_one`).
///
/// # Panics
///
/// Where `fractions` and `members` differ in number, or `base` is not the ring of these members: it
/// has no power of two slots, a slot names none of them, or a usable member owns no slot.
pub fn overlay(base: &[u16], members: &[Member], fractions: &[Fraction]) -> Option<Box<[u16]>> {
    assert_eq!(
        members.len(),
        fractions.len(),
        "one fraction for each member"
    );
    assert!(
        base.len().is_power_of_two(),
        "a ring has a power of two slots"
    );
    let weighted = || {
        members
            .iter()
            .map(|member| u64::from(member.weight))
            .zip(fractions)
    };
    // Only the proportions count: where nobody is fully usable, those who are most are the anchors.
    let most = weighted()
        .filter(|&(weight, _)| weight > 0)
        .map(|(_, &fraction)| fraction)
        .max()?;
    let anchored: Vec<u64> = weighted()
        .map(|(weight, &fraction)| if fraction == most { weight } else { 0 })
        .collect();
    let effective: Vec<u64> = weighted()
        .map(|(weight, fraction)| weight * u64::from(fraction.parts()))
        .collect();

    let owned = counts(base, members.len());
    assert!(
        owned
            .iter()
            .zip(&effective)
            .all(|(&slots, &weight)| slots > 0 || weight == 0),
        "every usable member owns a slot of the base"
    );
    let intended = quotas(base.len(), members, &effective, &owned)?;
    let mut ring: Box<[u16]> = base.into();
    settle(
        &mut ring,
        base,
        &quotas(base.len(), members, &anchored, &owned)?,
    );
    settle(&mut ring, base, &intended);
    Some(ring)
}

/// How many slots each of so many members holds.
fn counts(ring: &[u16], members: usize) -> Vec<u32> {
    let mut counts = vec![0; members];
    for &holder in ring {
        counts[usize::from(holder)] += 1;
    }
    counts
}

/// Moves slots of `ring` until every member holds its quota, as the module describes.
fn settle(ring: &mut [u16], base: &[u16], quotas: &[u32]) {
    let held = counts(ring, quotas.len());
    let mut excess: Vec<u32> = held
        .iter()
        .zip(quotas)
        .map(|(held, quota)| held.saturating_sub(*quota))
        .collect();
    let mut room: Vec<u32> = held
        .iter()
        .zip(quotas)
        .map(|(held, quota)| quota.saturating_sub(*held))
        .collect();
    if excess.iter().all(|&excess| excess == 0) {
        return;
    }
    let order: Vec<usize> = (0..ring.len())
        .map(|step| scatter(step, ring.len()))
        .collect();

    for &slot in &order {
        let (holder, owner) = (usize::from(ring[slot]), usize::from(base[slot]));
        if excess[holder] > 0 && room[owner] > 0 {
            excess[holder] -= 1;
            room[owner] -= 1;
            ring[slot] = base[slot];
        }
    }

    let mut released = Vec::new();
    for own in [false, true] {
        for &slot in &order {
            let holder = usize::from(ring[slot]);
            if excess[holder] > 0 && (ring[slot] == base[slot]) == own {
                excess[holder] -= 1;
                released.push(slot);
            }
        }
    }

    let mut circle = Circle::new(base);
    for slot in released {
        let taker = circle.first_with_room(mix(slot as u64) as usize, &room);
        room[usize::from(taker)] -= 1;
        ring[slot] = taker;
    }
}

/// A permutation of the slots, the same for every ring of this size, in which neighbours are far
/// apart. Both of its steps, an odd factor and a shift, are bijections of the slot numbers.
const fn scatter(slot: usize, slots: usize) -> usize {
    let mask = slots - 1;
    let half = slots.ilog2().div_ceil(2);
    let x = slot.wrapping_mul(0x9e37_79b1) & mask;
    let x = (x ^ (x >> half)).wrapping_mul(0x85eb_ca6b) & mask;
    x ^ (x >> half)
}

/// The base ring as the circle that slots walk along.
///
/// Room only ever shrinks while slots are taken, so a stretch of owners without room stays one and
/// is skipped at once the next time (the path halving of a disjoint-set forest): the walks cost
/// about as much as the ring has slots, however few have room left.
struct Circle<'a> {
    owners: &'a [u16],
    next: Vec<u32>,
}

impl<'a> Circle<'a> {
    fn new(owners: &'a [u16]) -> Self {
        let mask = owners.len() - 1;
        Self {
            owners,
            next: (0..owners.len())
                .map(|place| ((place + 1) & mask) as u32)
                .collect(),
        }
    }

    /// The first owner from `start` on, reduced to the circle, that has room; someone must have.
    fn first_with_room(&mut self, start: usize, room: &[u32]) -> u16 {
        let has_room = |place: usize| room[usize::from(self.owners[place])] > 0;
        let mut place = start & (self.owners.len() - 1);
        while !has_room(place) {
            let next = self.next[place] as usize;
            if !has_room(next) {
                self.next[place] = self.next[next];
            }
            place = next;
        }
        self.owners[place]
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;
    use crate::balance::maglev::tests::{
        built, check_shares, counts, fingerprint, members, moved, sizes, weights,
    };

    const DOWN: Fraction = Fraction::NONE;
    const UP: Fraction = Fraction::FULL;

    /// All of `members` up but those at `down`.
    fn without(members: usize, down: &[usize]) -> Vec<Fraction> {
        (0..members)
            .map(|index| if down.contains(&index) { DOWN } else { UP })
            .collect()
    }

    fn laid(base: &[u16], members: &[Member], fractions: &[Fraction]) -> Box<[u16]> {
        overlay(base, members, fractions).expect("someone is usable")
    }

    /// Fractions of which about half are whole, and the others nothing or in between.
    fn fractions(members: usize) -> impl Strategy<Value = Vec<Fraction>> {
        let fraction = prop_oneof![
            2 => Just(UP),
            1 => Just(DOWN),
            1 => (1_u32..65_536).prop_map(|parts| Fraction::new(parts).unwrap()),
        ];
        vec(fraction, members)
    }

    /// Weights with the fractions of them in force, of which some are above zero.
    fn views() -> impl Strategy<Value = (Vec<u32>, Vec<Fraction>)> {
        weights()
            .prop_flat_map(|weights| {
                let members = weights.len();
                (Just(weights), fractions(members))
            })
            .prop_filter("someone is usable", |(weights, fractions)| {
                weights
                    .iter()
                    .zip(fractions)
                    .any(|(&weight, &fraction)| weight > 0 && fraction > DOWN)
            })
    }

    /// Slots that moved although their owner in the base is whole.
    fn needless(base: &[u16], ring: &[u16], fractions: &[Fraction]) -> usize {
        base.iter()
            .zip(ring)
            .filter(|&(owner, holder)| fractions[usize::from(*owner)] == UP && owner != holder)
            .count()
    }

    #[test]
    fn fractions_end_at_one() {
        assert_eq!(Fraction::new(65_536), Some(Fraction::FULL));
        assert_eq!(Fraction::new(65_537), None);
        assert_eq!(Fraction::new(0).unwrap().parts(), 0);
    }

    #[test]
    fn the_algorithm_is_a_promise() {
        let members = members(&[1, 2, 3, 0, 100, 1_000]);
        let base = built(65_536, &members);
        let half = Fraction::new(32_768).unwrap();
        let ring = laid(&base, &members, &[UP, DOWN, UP, UP, UP, half]);
        assert_eq!(fingerprint(&ring), 0x715a_408d_9eee_66b5);
    }

    #[test]
    fn nobody_usable_has_no_ring() {
        let members = members(&[0, 1, 2]);
        let base = built(256, &members);
        assert_eq!(overlay(&base, &members, &[UP, DOWN, DOWN]), None);
        assert!(
            laid(&base, &members, &[UP, DOWN, Fraction::new(1).unwrap()])
                .iter()
                .all(|&owner| owner == 2)
        );
    }

    #[test]
    #[should_panic(expected = "every usable member owns a slot")]
    fn a_base_of_other_members_is_refused() {
        let base = built(256, &members(&[1, 0]));
        overlay(&base, &members(&[1, 1]), &[UP, UP]);
    }

    #[test]
    fn one_failure_of_a_hundred_moves_its_slots_alone() {
        let members = members(&[1; 100]);
        let base = built(65_536, &members);
        let owned = counts(&base, 100);
        for down in 0..100 {
            let ring = laid(&base, &members, &without(100, &[down]));
            assert_eq!(moved(&base, &ring) as u64, owned[down]);
            let held = counts(&ring, 100);
            for index in (0..100).filter(|&index| index != down) {
                // 655 or 656 slots, of 99 others.
                assert!(
                    (5..=8).contains(&(held[index] - owned[index])),
                    "{}",
                    held[index]
                );
            }
        }
    }

    #[test]
    fn a_second_failure_moves_little_more_than_its_slots() {
        let members = members(&[1; 100]);
        let base = built(65_536, &members);
        let one = laid(&base, &members, &without(100, &[0]));
        let (mut moves, mut orphaned) = (0, 0);
        for second in 1..100 {
            let two = laid(&base, &members, &without(100, &[0, second]));
            assert_eq!(needless(&base, &two, &without(100, &[0, second])), 0);
            moves += moved(&one, &two);
            orphaned += counts(&one, 100)[second];
        }
        let extra = moves as f64 / orphaned as f64 - 1.0;
        assert!((0.0..0.25).contains(&extra), "{extra}");
    }

    /// The receivers of slots that follow each other are independent: of all pairs of neighbours
    /// among the orphaned slots, each pair of receivers has its part.
    #[test]
    fn orphaned_neighbours_go_separate_ways() {
        let members = members(&[1; 4]);
        let base = built(65_536, &members);
        let ring = laid(&base, &members, &without(4, &[3]));
        let takers: Vec<usize> = base
            .iter()
            .zip(&ring)
            .filter(|&(&owner, _)| owner == 3)
            .map(|(_, &taker)| usize::from(taker))
            .collect();
        assert_eq!(takers.len(), 16_384);
        for distance in [1, 2, 3, 4, 16, 256] {
            let mut pairs = [0.0; 9];
            for (&one, &other) in takers.iter().zip(&takers[distance..]) {
                pairs[one * 3 + other] += 1.0;
            }
            let expected = (takers.len() - distance) as f64 / 9.0;
            let chi_square: f64 = pairs
                .iter()
                .map(|seen| (seen - expected).powi(2) / expected)
                .sum();
            // Four degrees of freedom, as the sums are given: beyond 30 by chance in 5 of 10^6.
            assert!(chi_square < 30.0, "{chi_square} at distance {distance}");
        }
    }

    #[test]
    fn one_failure_among_unequals_moves_its_slots_alone() {
        let weights: Vec<u32> = (0..100).map(|index| 1 + index * 37 % 1_000).collect();
        let members = members(&weights);
        let base = built(65_536, &members);
        for down in 0..100 {
            let fractions = without(100, &[down]);
            assert_eq!(
                needless(&base, &laid(&base, &members, &fractions), &fractions),
                0
            );
        }
    }

    /// Takes the members at `growing` from nothing to their full weight beside the others at
    /// `fractions`, and returns how many slots move in ten small steps, and how many in a large one.
    fn moves_to_full(growing: &[usize], mut fractions: Vec<Fraction>) -> (usize, usize) {
        let members = members(&[1; 100]);
        let base = built(65_536, &members);
        let rings: Vec<Box<[u16]>> = (0..=10)
            .map(|tenth| {
                for &index in growing {
                    fractions[index] = Fraction::new(65_536 * tenth / 10).unwrap();
                }
                laid(&base, &members, &fractions)
            })
            .collect();
        let small = rings.windows(2).map(|pair| moved(&pair[0], &pair[1])).sum();
        (small, moved(&rings[0], &rings[10]))
    }

    #[test]
    fn small_steps_move_little_more_than_a_large_one() {
        assert_eq!(moves_to_full(&[7], without(100, &[])), (656, 656));
        let (small, large) = moves_to_full(&[7, 8], without(100, &[]));
        assert!(
            small * 100 < large * 105,
            "two at once: {small} for {large}"
        );
        let (small, large) = moves_to_full(&[7], without(100, &[50]));
        assert!(
            small * 100 < large * 120,
            "beside one that is down: {small} for {large}"
        );
        let mut fractions = without(100, &[]);
        fractions[50] = Fraction::new(20_000).unwrap();
        let (small, large) = moves_to_full(&[7], fractions);
        assert!(
            small * 100 < large * 170,
            "beside one in part: {small} for {large}"
        );
    }

    proptest! {
        #[test]
        fn every_member_has_its_quota((weights, fractions) in views(), slots in sizes()) {
            let members = members(&weights);
            let ring = laid(&built(slots, &members), &members, &fractions);
            let effective: Vec<u64> = weights
                .iter()
                .zip(&fractions)
                .map(|(&weight, fraction)| u64::from(weight) * u64::from(fraction.parts()))
                .collect();
            check_shares(&counts(&ring, weights.len()), &effective)?;
        }

        #[test]
        fn all_alike_is_the_base(weights in weights(), slots in sizes(), parts in 1_u32..=65_536) {
            let members = members(&weights);
            let base = built(slots, &members);
            let fractions = vec![Fraction::new(parts).unwrap(); weights.len()];
            prop_assert_eq!(laid(&base, &members, &fractions), base);
        }

        #[test]
        fn failures_among_equals_move_their_slots_alone(
            up in vec(any::<bool>(), 1..200), slots in sizes(),
        ) {
            prop_assume!(up.contains(&true));
            let members = members(&vec![1; up.len()]);
            let base = built(slots, &members);
            let fractions: Vec<Fraction> =
                up.iter().map(|&up| if up { UP } else { DOWN }).collect();
            let ring = laid(&base, &members, &fractions);
            prop_assert_eq!(needless(&base, &ring, &fractions), 0);
        }

        #[test]
        fn the_whole_lose_one_slot_at_most(
            (weights, fractions) in views(), slots in sizes(),
        ) {
            let members = members(&weights);
            let base = built(slots, &members);
            let ring = laid(&base, &members, &fractions);
            let mut lost = vec![0; weights.len()];
            for (&owner, &holder) in base.iter().zip(&ring) {
                lost[usize::from(owner)] += u32::from(owner != holder);
            }
            for (lost, fraction) in lost.into_iter().zip(fractions) {
                prop_assert!(fraction < UP || lost <= 1, "{} lost", lost);
            }
        }

        #[test]
        fn order_does_not_matter(
            ((weights, fractions), order) in views().prop_flat_map(|view| {
                let order: Vec<usize> = (0..view.0.len()).collect();
                (Just(view), Just(order).prop_shuffle())
            }),
            slots in sizes(),
        ) {
            let members = members(&weights);
            let ring = laid(&built(slots, &members), &members, &fractions);
            let shuffled: Vec<Member> = order.iter().map(|&index| members[index]).collect();
            let their_fractions: Vec<Fraction> =
                order.iter().map(|&index| fractions[index]).collect();
            let named: Vec<u16> =
                laid(&built(slots, &shuffled), &shuffled, &their_fractions)
                    .iter()
                    .map(|&owner| order[usize::from(owner)] as u16)
                    .collect();
            prop_assert_eq!(&named[..], &ring[..]);
        }

        #[test]
        fn small_steps_among_equals_move_no_more_than_a_large_one(
            members in 2_usize..100, slots in sizes(), steps in vec(0_u32..65_536, 1..20),
        ) {
            let members = self::members(&vec![3; members]);
            let base = built(slots, &members);
            let mut fractions = without(members.len(), &[0]);
            let first = laid(&base, &members, &fractions);
            let mut steps = steps;
            steps.sort_unstable();
            steps.push(65_536);
            let (mut last, mut moves) = (first.clone(), 0);
            for parts in steps {
                fractions[0] = Fraction::new(parts).unwrap();
                let ring = laid(&base, &members, &fractions);
                moves += moved(&last, &ring);
                last = ring;
            }
            prop_assert_eq!(moves, moved(&first, &last));
        }

        #[test]
        fn equal_ids_do_no_harm(
            (weights, fractions) in views(), id: u64, which in select(vec![1_usize, 2, 3]),
        ) {
            let mut members = members(&weights);
            for member in members.iter_mut().step_by(which) {
                member.id = id;
            }
            let base = built(256, &members);
            let everyone = vec![UP; members.len()];
            prop_assert_eq!(&laid(&base, &members, &everyone), &base);
            laid(&base, &members, &fractions);
        }
    }
}
