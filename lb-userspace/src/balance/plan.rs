//! Which backend owns each slot.

use std::collections::BTreeSet;

use crate::{
    balance::{
        image::Image,
        maglev::{self, Member, TooFewSlots},
        overlay, size,
        transition::{self, Live, Next, Present},
    },
    model::{Fraction, RingSize, RingSlots, Service},
};

/// A service's base ring, made once from its configuration.
#[derive(Clone, Debug)]
pub struct Base {
    members: Vec<Member>,
    slots: RingSlots,
    ring: Option<Box<[u16]>>,
}

impl Base {
    /// Builds the ring of a service with all of its backends. `evenness` is how far a share may be
    /// off where the ring's size is left to us.
    ///
    /// # Errors
    /// Where the ring has fewer slots than the service has backends.
    pub fn new(service: &Service, evenness: f64) -> Result<Self, TooFewSlots> {
        let members: Vec<Member> = service
            .backends
            .iter()
            .map(|backend| Member {
                id: maglev::member_id(backend.address),
                weight: u32::from(backend.weight.number()),
            })
            .collect();
        let slots = match service.ring_slots {
            RingSize::Auto => {
                let weights: Vec<u16> =
                    service.backends.iter().map(|b| b.weight.number()).collect();
                size::choose(&weights, evenness)
            }
            RingSize::Fixed(slots) => slots,
        };
        let ring = maglev::ring(slots, &members)?;
        Ok(Self {
            members,
            slots,
            ring,
        })
    }

    /// How large the ring is.
    pub const fn size(&self) -> RingSlots {
        self.slots
    }

    /// The ring while only these parts of the backends' weights are in force, in the order of the
    /// configuration; `None` where none of them has any weight left.
    ///
    /// # Panics
    /// Where `fractions` has not one entry for each backend.
    pub fn owners(&self, fractions: &[Fraction]) -> Option<Box<[u16]>> {
        overlay::overlay(self.ring.as_deref()?, &self.members, fractions)
    }
}

/// What a service's next slots depend on, beside its base ring.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// What packets follow now.
    pub live: Live<'a>,
    /// The numbers of the configured backends, in their order.
    pub ends: &'a [u16],
    /// How much of each one's weight is in force.
    pub fractions: &'a [Fraction],
    /// The numbers of backends that were removed and may still have flows.
    pub leaving: &'a [u16],
    /// The numbers of those whose flows may go on.
    pub serves: &'a BTreeSet<u16>,
    /// The pinned slots without a remembered flow, where that is known.
    pub clean: &'a [bool],
    /// Seconds since the epoch.
    pub now: u64,
    /// How long unremembered flows are waited for, in seconds.
    pub window: u64,
}

impl Base {
    /// The owners of new flows, by number; `None` where nobody serves.
    fn owners_by_number(&self, standing: &Standing<'_>) -> Option<Box<[u16]>> {
        let serves = |end: u16| standing.serves.contains(&end);
        // A backend that only fails its probes is better than none.
        let failing = || {
            let whole = |&end: &u16| {
                if serves(end) {
                    Fraction::FULL
                } else {
                    Fraction::NONE
                }
            };
            let failing: Vec<Fraction> = standing.ends.iter().map(whole).collect();
            self.owners(&failing)
        };
        if let Some(owners) = self.owners(standing.fractions).or_else(failing) {
            let number = |&owner: &u16| standing.ends[usize::from(owner)];
            return Some(owners.iter().map(number).collect());
        }
        let all = standing.ends.iter().chain(standing.leaving).copied();
        transition::last_resort(standing.live, all, serves)
    }

    /// The slots that come next, where flows follow their slots' transitions.
    #[must_use]
    pub fn next(&self, standing: &Standing<'_>) -> Option<Next> {
        let present = Present {
            serves: |end| standing.serves.contains(&end),
            clean: standing.clean,
            now: standing.now,
            window: standing.window,
        };
        let owners = self.owners_by_number(standing)?;
        Some(transition::follow(standing.live, &owners, &present))
    }

    /// The slots that come next, where flows are all remembered or none of them.
    #[must_use]
    pub fn next_untracked(&self, standing: &Standing<'_>) -> Option<Next> {
        Some(Next::untracked(&self.owners_by_number(standing)?))
    }
}

/// The numbers of a service's endpoints whose flows may go on: of those that are configured, as
/// `known` says, and of those that were removed from the configuration, as packets follow it.
#[must_use]
pub fn serving(
    live: Option<&Image>,
    leaving: &[u16],
    ends: &[u16],
    known: &[bool],
) -> BTreeSet<u16> {
    let serves =
        |end: &u16| live.is_some_and(|live| live.tables.endpoints[usize::from(*end)].serves != 0);
    let configured = ends.iter().zip(known).filter(|&(_, &serves)| serves);
    configured
        .map(|(&end, _)| end)
        .chain(leaving.iter().copied().filter(serves))
        .collect()
}
