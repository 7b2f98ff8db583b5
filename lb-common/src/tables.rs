//! What the decision reads and counts, wherever that lies.

use crate::{
    layout::{self, Slot},
    verdict::Reason,
};

/// The published tables.
pub trait Tables {
    /// The current tables; `None` before the first publication.
    ///
    /// One packet asks once and stays with the answer.
    fn current(&self) -> Option<&layout::Tables>;

    /// A slot of a ring that the current tables name; `None` where the ring is missing.
    fn slot(&self, ring: u32, slot: u16) -> Option<Slot>;
}

/// What is counted. None of it may fail, block or change a verdict.
pub trait Counters {
    /// Counts a packet sent to an endpoint.
    fn forwarded(&self, endpoint: u16, bytes: usize, new_flow: bool);

    /// Counts a packet that was not: `row` is [`layout::HOST_EXITS`] or a service's number plus
    /// one.
    fn exit(&self, row: u32, reason: Reason);

    /// Remembers a SYN's fingerprint in a place, and says whether it stood there already.
    fn syn_seen(&self, place: usize, fingerprint: u32) -> bool;
}
