//! Which backend owns each slot.

use crate::{
    balance::{
        maglev::{self, Member, TooFewSlots},
        overlay::{self, Fraction},
    },
    model::{RingSize, RingSlots, Service},
};

/// A service's base ring, made once from its configuration.
#[derive(Clone, Debug)]
pub struct Base {
    members: Vec<Member>,
    slots: RingSlots,
    ring: Option<Box<[u16]>>,
}

impl Base {
    /// Builds the ring of a service with all of its backends.
    ///
    /// # Errors
    /// Where the ring has fewer slots than the service has backends.
    pub fn new(service: &Service) -> Result<Self, TooFewSlots> {
        let members: Vec<Member> = service
            .backends
            .iter()
            .map(|backend| Member {
                id: maglev::member_id(backend.address),
                weight: u32::from(backend.weight.number()),
            })
            .collect();
        let slots = match service.ring_slots {
            RingSize::Auto => RingSlots::LARGEST,
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

    /// The ring while only some of the backends are usable, by the backends' indices in the
    /// configuration; `None` where none of those that are has any weight.
    ///
    /// # Panics
    /// Where `usable` has not one entry for each backend.
    pub fn owners(&self, usable: &[bool]) -> Option<Box<[u16]>> {
        let fractions: Vec<Fraction> = usable
            .iter()
            .map(|&usable| {
                if usable {
                    Fraction::FULL
                } else {
                    Fraction::NONE
                }
            })
            .collect();
        overlay::overlay(self.ring.as_deref()?, &self.members, &fractions)
    }
}
