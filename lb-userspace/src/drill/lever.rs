//! How far a fault goes: far enough to be found, and no further than it may.

use lb_common::layout::Slot;

use crate::model::Weight;

/// The least part by which a share has to be off its weight's for the drill to mean anything: what is
/// less is not told (R1).
const LEAST: f64 = 0.15;

/// The weight that a backend is given so that at most a part of the slots becomes its own beyond those
/// that it has.
///
/// # Errors
/// Where its weight is too coarse, or there is nobody to take slots from.
pub fn weight(weights: &[u16], of: usize, most: f64) -> Result<u16, String> {
    let own = f64::from(weights[of]);
    let sum: f64 = weights.iter().copied().map(f64::from).sum();
    let others = sum - own;
    if own == 0.0 || others == 0.0 {
        return Err("it needs a backend with a weight, and another one beside it".to_owned());
    }
    let share = own / sum;
    // share' = w / (others + w) is at most share + most.
    let ceiling = (share + most).min(0.99);
    let exact = ceiling * others / (1.0 - ceiling);
    let weight = exact.floor().min(f64::from(Weight::MAX)) as u16;
    let after = f64::from(weight) / (others + f64::from(weight));
    if after < share * (1.0 + LEAST) {
        return Err(format!(
            "a weight of {own} cannot be raised by so little that no more than {:.0} % of the slots \
             move and by enough to be found: give the backends weights that are finer, as in 100 \
             instead of 1",
            most * 100.0
        ));
    }
    Ok(weight)
}

/// A ring in which a part of the slots that are not an endpoint's becomes its own, evenly picked.
/// Answers it with how many slots those are.
///
/// Whoever had a slot keeps the flows that are open: the fault is where new ones go.
#[must_use]
pub fn drifted(ring: &[Slot], to: u16, most: f64) -> (Vec<Slot>, u32) {
    let mut slots = ring.to_vec();
    let others = ring
        .iter()
        .filter(|slot| slot.owner() != to && slot.is_steady());
    let others = others.count();
    let wanted = ((ring.len() as f64 * most).floor() as usize).min(others);
    let mut moved = 0;
    let mut seen = 0;
    for slot in &mut slots {
        if slot.owner() == to || !slot.is_steady() {
            continue;
        }
        seen += 1;
        // The n-th of `others` is taken where that keeps the pace of `wanted` in all of them.
        if seen * wanted / others > moved {
            *slot = Slot::new(to, slot.owner());
            moved += 1;
        }
    }
    (slots, moved as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_moves_what_it_may_and_is_found() {
        // Five of a fifth each: one gets up to three tenths.
        assert_eq!(weight(&[100; 5], 1, 0.1), Ok(171));
        let share = 171.0 / 571.0;
        assert!(share <= 0.3 && share > 0.2 * 1.15, "{share}");
        // The third could be found only beyond what a weight can be.
        for (weights, of) in [
            (&[1, 1, 1][..], 0),
            (&[0, 5][..], 0),
            (&[7][..], 0),
            (&[1000, 1000, 900][..], 2),
        ] {
            assert!(weight(weights, of, 0.1).is_err(), "{weights:?}");
        }
        // A heavy one cannot be off by much within a tenth of the slots, and is still found.
        let raised = weight(&[400, 300, 300], 0, 0.1).unwrap();
        let share = f64::from(raised) / f64::from(raised + 600);
        assert!((0.46..=0.5).contains(&share), "{share}");
    }

    #[test]
    fn drifted_slots_are_as_many_as_may_be_and_keep_their_old_flows() {
        let ring: Vec<Slot> = (0..1000).map(|n| Slot::steady(n % 4)).collect();
        let (drifted, moved) = drifted(&ring, 3, 0.1);
        assert_eq!(moved, 100);
        let changed: Vec<usize> = (0..1000).filter(|&n| drifted[n] != ring[n]).collect();
        assert_eq!(changed.len(), 100);
        for &n in &changed {
            assert_eq!(
                (drifted[n].owner(), drifted[n].prior()),
                (3, ring[n].owner())
            );
        }
        // From one end to the other.
        assert!(changed[0] < 20 && changed[99] > 980, "{changed:?}");
        let (all, moved) = super::drifted(&ring, 3, 1.0);
        assert_eq!(
            (moved, all.iter().filter(|s| s.owner() == 3).count()),
            (750, 1000)
        );
    }
}
