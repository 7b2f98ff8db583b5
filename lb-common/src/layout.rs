//! The tables as they lie in memory, shared by kernel and controller.
/// The slots of the largest ring.
pub const RING_SLOTS: usize = 65_536;
