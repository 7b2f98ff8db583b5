//! How many slots a ring needs.

use std::collections::BTreeMap;

use crate::model::RingSlots;

/// The smallest ring in which every backend's share deviates by at most `evenness` (0.02 for 2 %)
/// from its weight's, with all backends and with any one of them missing; the largest ring where
/// none suffices.
///
/// A share is rounded to a slot down or up; both must do. It is arithmetic on the weights alone,
/// so load balancers with the same backends choose the same size: 4,000 backends with the 1,000
/// weights that there are take about nine million steps at most.
#[must_use]
pub fn choose(weights: &[u16], evenness: f64) -> RingSlots {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for &weight in weights.iter().filter(|&&weight| weight > 0) {
        *counts.entry(weight.into()).or_default() += 1;
    }
    let total: u64 = counts.iter().map(|(weight, &n)| weight * n as u64).sum();
    let suffices = |slots: u64| {
        weights.len() as u64 <= slots
            && is_even(&counts, None, total, slots, evenness)
            && counts
                .keys()
                .all(|&gone| is_even(&counts, Some(gone), total - gone, slots, evenness))
    };
    (RingSlots::MIN.ilog2()..RingSlots::MAX.ilog2())
        .map(|bits| 1_u32 << bits)
        .find(|&slots| suffices(slots.into()))
        .and_then(RingSlots::new)
        .unwrap_or(RingSlots::LARGEST)
}

/// Whether everyone's share is even enough while one backend of a weight is missing.
fn is_even(
    counts: &BTreeMap<u64, usize>,
    gone: Option<u64>,
    total: u64,
    slots: u64,
    evenness: f64,
) -> bool {
    counts
        .iter()
        .filter(|&(&weight, &n)| gone != Some(weight) || n > 1)
        .all(|(&weight, _)| {
            // The exact share is `exact / total` slots.
            let exact = weight * slots;
            let over = exact % total;
            let worst = match over {
                0 => 0,
                // Nobody is rounded down to nothing.
                _ if exact < total => total - over,
                _ => over.max(total - over),
            };
            worst as f64 <= evenness * exact as f64
        })
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::balance::maglev::{Member, quotas};

    fn slots(weights: &[u16]) -> usize {
        choose(weights, 0.02).count()
    }

    #[test]
    fn small_services_have_small_rings() {
        assert_eq!(slots(&[1]), 256);
        assert_eq!(slots(&[1; 2]), 256);
        // 256 / 3 is 85.3: 0.8 % at most. 256 / 10 is 25.6: 26 would be fine, 25 is not.
        assert_eq!(slots(&[1; 3]), 256);
        assert_eq!(slots(&[1; 10]), 512);
        assert_eq!(slots(&[1; 100]), 8_192);
        assert_eq!(slots(&[1; 1_000]), 65_536);
        assert_eq!(slots(&[1; 4_000]), 65_536);
    }

    #[test]
    fn unequal_weights_take_more() {
        assert_eq!(slots(&[1, 1]), 256);
        assert_eq!(slots(&[1, 100]), 4_096);
        // Weights of zero have no share, but a slot each must be there for later.
        assert_eq!(slots(&[[0; 300].as_slice(), &[1; 2]].concat()), 512);
        assert_eq!(slots(&[0]), 256);
    }

    proptest! {
        #[test]
        fn the_promise_is_kept(weights in vec(1_u16..=20, 1..40)) {
            let slots = choose(&weights, 0.02).count();
            prop_assume!(slots < 65_536);
            let members: Vec<Member> = (0..).zip(&weights)
                .map(|(id, &weight)| Member { id, weight: weight.into() })
                .collect();
            for gone in 0..=members.len() {
                let in_force: Vec<u64> = weights.iter().enumerate()
                    .map(|(n, &weight)| if n == gone { 0 } else { weight.into() })
                    .collect();
                let total: u64 = in_force.iter().sum();
                let held = vec![0; members.len()];
                let Some(quotas) = quotas(slots, &members, &in_force, &held) else { continue };
                for (&quota, &weight) in quotas.iter().zip(&in_force).filter(|(_, w)| **w > 0) {
                    let share = weight as f64 * slots as f64 / total as f64;
                    let deviation = (f64::from(quota) / share - 1.0).abs();
                    prop_assert!(deviation <= 0.02 + 1e-9, "{} of {}", quota, share);
                }
            }
        }
    }
}
