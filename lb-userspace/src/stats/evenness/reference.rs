//! The exact references: weights against capacities, shares against weights, kernel against intent.

/// Weights may be so far off the capacities, in parts of the capacity's share.
const CAPACITY_TOLERANCE: f64 = 0.10;
/// The table may be so far off the weights, in parts of the weight's share...
const TABLE_TOLERANCE: f64 = 0.02;
/// ... or so many slots, whichever is more.
const TABLE_TOLERANCE_SLOTS: f64 = 1.5;
/// Differing slots that are named one by one.
const NAMED_SLOTS: usize = 8;

/// A backend whose share is not what a reference says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deviation {
    /// Its index.
    pub backend: usize,
    /// Its share as the reference says, as a fraction of one.
    pub expected: f64,
    /// Its share as it is, as a fraction of one.
    pub actual: f64,
}

impl Deviation {
    /// The actual over the expected share; infinite where nothing was expected.
    pub fn ratio(&self) -> f64 {
        self.actual / self.expected
    }
}

/// Which backends' weights are off what they can take by more than 10 % (class *config*).
///
/// Without capacities all backends are taken to be equal. A weight of zero is a decision, not a
/// slip: such a backend is left out of the comparison.
///
/// # Panics
///
/// If there is not one capacity for every weight.
pub fn config_reference(weights: &[u16], capacities: Option<&[u32]>) -> Vec<Deviation> {
    if let Some(capacities) = capacities {
        assert_eq!(
            weights.len(),
            capacities.len(),
            "a capacity for every weight"
        );
    }
    let capacity = |backend: usize| match capacities {
        _ if weights[backend] == 0 => 0.0,
        Some(capacities) => f64::from(capacities[backend]),
        None => 1.0,
    };
    let weight_sum: f64 = weights.iter().copied().map(f64::from).sum();
    let capacity_sum: f64 = (0..weights.len()).map(capacity).sum();
    (0..weights.len())
        .filter(|&backend| weights[backend] > 0)
        .map(|backend| Deviation {
            backend,
            expected: capacity(backend) / capacity_sum,
            actual: f64::from(weights[backend]) / weight_sum,
        })
        .filter(|at| (at.actual - at.expected).abs() > CAPACITY_TOLERANCE * at.expected)
        .collect()
}

/// Which backends own another number of slots than their weight asks for, by more than 2 % of it
/// and more than 1.5 slots (class *table*).
///
/// `weights` are those in force, in any unit: zero for a backend that is down. Where all are zero no
/// slot should be owned.
///
/// # Panics
///
/// If there is not one number of slots for every weight.
pub fn table_reference(weights: &[u64], slot_counts: &[u32], slots: usize) -> Vec<Deviation> {
    assert_eq!(
        weights.len(),
        slot_counts.len(),
        "a number of slots for every weight"
    );
    let slots = slots as f64;
    let weight_sum = (weights.iter().sum::<u64>() as f64).max(1.0);
    weights
        .iter()
        .zip(slot_counts)
        .enumerate()
        .filter_map(|(backend, (&weight, &owned))| {
            let expected = weight as f64 / weight_sum;
            let off = (f64::from(owned) - expected * slots).abs();
            let tolerance = (TABLE_TOLERANCE * expected * slots).max(TABLE_TOLERANCE_SLOTS);
            let actual = f64::from(owned) / slots;
            (off > tolerance).then_some(Deviation {
                backend,
                expected,
                actual,
            })
        })
        .collect()
}

/// The exact difference between the intended table and the kernel's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift<S> {
    /// How many slots differ in any way.
    pub differing: usize,
    /// The first few of them.
    pub first: Vec<SlotDifference<S>>,
    /// Whose slots became more or fewer by it, in the order of the owners. A difference that leaves
    /// a slot's owner alone is not among them.
    pub owners: Vec<OwnerChange>,
}

impl<S> Drift<S> {
    /// Whether the kernel's table is the intended one.
    pub fn is_none(&self) -> bool {
        self.differing == 0
    }
}

/// A slot that is not as intended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotDifference<S> {
    /// Its index.
    pub slot: usize,
    /// As intended; `None` beyond the intended table's end.
    pub intended: Option<S>,
    /// As the kernel has it; `None` beyond its table's end.
    pub kernel: Option<S>,
}

/// How the kernel's table favours or cheats one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerChange {
    /// The owner, as the slots name it.
    pub owner: u16,
    /// Slots that the kernel gives to it against intent.
    pub gained: usize,
    /// Slots that the kernel keeps from it against intent.
    pub lost: usize,
}

/// Compares two tables slot by slot (class *drift*). `owner` tells who takes a slot's new flows.
pub fn drift<S: Copy + Eq>(intended: &[S], kernel: &[S], owner: impl Fn(S) -> u16) -> Drift<S> {
    let mut found = Drift {
        differing: 0,
        first: Vec::new(),
        owners: Vec::new(),
    };
    for slot in 0..intended.len().max(kernel.len()) {
        let (intended, kernel) = (intended.get(slot).copied(), kernel.get(slot).copied());
        if intended == kernel {
            continue;
        }
        found.differing += 1;
        if found.first.len() < NAMED_SLOTS {
            found.first.push(SlotDifference {
                slot,
                intended,
                kernel,
            });
        }
        let (loser, gainer) = (intended.map(&owner), kernel.map(&owner));
        if loser != gainer {
            if let Some(loser) = loser {
                change_of(&mut found.owners, loser).lost += 1;
            }
            if let Some(gainer) = gainer {
                change_of(&mut found.owners, gainer).gained += 1;
            }
        }
    }
    found
}

/// The entry of `owner` in the sorted `changes`, made where there is none.
fn change_of(changes: &mut Vec<OwnerChange>, owner: u16) -> &mut OwnerChange {
    let at = match changes.binary_search_by_key(&owner, |change| change.owner) {
        Ok(at) => at,
        Err(at) => {
            changes.insert(
                at,
                OwnerChange {
                    owner,
                    gained: 0,
                    lost: 0,
                },
            );
            at
        }
    };
    &mut changes[at]
}

#[cfg(test)]
mod tests;
