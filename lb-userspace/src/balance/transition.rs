//! From the slots that packets follow to those that come after them, so that no flow moves while
//! its backend serves.
//!
//! A slot says who takes new flows and whose the unremembered ones are; see
//! [`Slot`] and ADR 0012. Where a slot gets another owner, its
//! unremembered flows stay whose they were: of the prior in a transition, because everything since
//! is remembered; of the owner otherwise.

use std::{collections::BTreeSet, sync::Arc};

use lb_common::layout::{NONE, PINNED, Slot};

/// What packets of a service follow.
#[derive(Clone, Copy, Debug)]
pub enum Live<'a> {
    /// Nothing, and never have: nobody has a flow.
    Nothing,
    /// No ring, because nobody served. Flows of before may still be remembered.
    Empty,
    /// A ring.
    Ring {
        /// Its slots, a power of two of them.
        slots: &'a [Slot],
        /// When a slot last began a transition, in seconds since the epoch; zero where none is in
        /// one.
        changed: u64,
    },
}

/// The present: what a change of slots depends on, beside the slots.
#[derive(Clone, Copy, Debug)]
pub struct Present<'a, S> {
    /// Whether flows that are an endpoint's may go on.
    pub serves: S,
    /// Which of the live slots are pinned and known to have no remembered flow; short where
    /// nothing is known.
    pub clean: &'a [bool],
    /// Seconds since the epoch.
    pub now: u64,
    /// How long unremembered flows are waited for, in seconds.
    pub window: u64,
}

/// What packets of a service follow next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// The slots.
    pub slots: Arc<[Slot]>,
    /// As [`Live::Ring`]'s.
    pub changed: u64,
}

impl Next {
    /// Slots for flows that are all remembered, or none of them: they need no transition.
    #[must_use]
    pub fn untracked(owners: &[u16]) -> Self {
        Self {
            slots: owners.iter().copied().map(Slot::steady).collect(),
            changed: 0,
        }
    }
}

/// The slots that follow the live ones, for these owners of new flows.
///
/// A ring may change its size. One that grows does so at once: its slots begin as those that their
/// flows come from. One that shrinks keeps its size, with the owners of the smaller ring repeated,
/// until nothing is remembered any more; then all slots that become one agree.
///
/// # Panics
/// Where one of the rings has not a power of two slots.
pub fn follow<S: Fn(u16) -> bool>(
    live: Live<'_>,
    owners: &[u16],
    present: &Present<'_, S>,
) -> Next {
    let (slots, changed) = match live {
        Live::Nothing => return Next::untracked(owners),
        Live::Empty => {
            return Next {
                slots: owners.iter().map(|&o| Slot::new(o, PINNED)).collect(),
                changed: 0,
            };
        }
        Live::Ring { slots, changed } => (slots, changed),
    };
    assert!(slots.len().is_power_of_two() && owners.len().is_power_of_two());
    let over = changed != 0 && present.now.saturating_sub(changed) >= present.window;
    let settled = |at: usize| {
        let slot = slots[at];
        if names_endpoint(slot.prior()) && over {
            Slot::new(slot.owner(), PINNED)
        } else if slot.prior() == PINNED && present.clean.get(at) == Some(&true) {
            Slot::steady(slot.owner())
        } else {
            slot
        }
    };
    let mut began = false;
    let mut next: Vec<Slot> = (0..slots.len().max(owners.len()))
        .map(|at| {
            let before = settled(at & (slots.len() - 1));
            let after = slot(before, owners[at & (owners.len() - 1)], &present.serves);
            began |= before != after && names_endpoint(after.prior());
            after
        })
        .collect();
    if next.iter().all(|slot| slot.is_steady()) {
        next.truncate(owners.len());
    }
    let changed = if !next.iter().any(|slot| names_endpoint(slot.prior())) {
        0
    } else if began || changed == 0 {
        present.now
    } else {
        // A clock that was set back must not make the window longer than it is.
        changed.min(present.now)
    };
    Next {
        slots: next.into(),
        changed,
    }
}

/// The slot that follows a live one, for an owner of new flows.
#[must_use]
pub fn slot(live: Slot, owner: u16, serves: impl Fn(u16) -> bool) -> Slot {
    let prior = live.prior();
    if owner == live.owner() {
        let died = names_endpoint(prior) && !serves(prior);
        return if died { Slot::new(owner, PINNED) } else { live };
    }
    let unremembered = if names_endpoint(prior) {
        prior
    } else {
        live.owner()
    };
    if serves(unremembered) && unremembered != owner {
        Slot::new(owner, unremembered)
    } else if prior == NONE {
        // The old owner is dead: there is nothing to protect, and nothing is remembered.
        Slot::steady(owner)
    } else {
        // Only the sweeper knows when nothing is remembered any more.
        Slot::new(owner, PINNED)
    }
}

/// Who owns the slots while there is nobody for new flows, but somebody still serves old ones;
/// `None` where nobody does.
///
/// Without a ring their flows would be lost. New flows then go to them too: there is nobody else.
pub fn last_resort(
    live: Live<'_>,
    endpoints: impl IntoIterator<Item = u16>,
    serves: impl Fn(u16) -> bool,
) -> Option<Box<[u16]>> {
    let Live::Ring { slots, .. } = live else {
        return None;
    };
    let serving: Vec<u16> = endpoints
        .into_iter()
        .filter(|&endpoint| serves(endpoint))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    if serving.is_empty() {
        return None;
    }
    let of = |(at, slot): (usize, &Slot)| {
        [slot.owner(), slot.prior()]
            .into_iter()
            .find(|&endpoint| names_endpoint(endpoint) && serves(endpoint))
            .unwrap_or(serving[at % serving.len()])
    };
    Some(slots.iter().enumerate().map(of).collect())
}

/// Whether an owner or prior is an endpoint's number.
pub const fn names_endpoint(number: u16) -> bool {
    number < PINNED
}

#[cfg(test)]
mod tests;
