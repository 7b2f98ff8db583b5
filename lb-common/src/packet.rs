//! Access to a frame, one fixed-size value at an offset at a time.
//!
//! Offsets count bytes from the first byte of the destination MAC address. The verifier follows
//! an access only where the bounds check and the access use one pointer, so there are no slices
//! here: each implementation checks each access by itself.

use bytemuck::Pod;

/// A received frame.
pub trait Packet {
    /// Copies a value out; `None` unless all of it lies within the frame.
    fn read<T: Pod>(&self, at: usize) -> Option<T>;

    /// Copies a value in; `None`, and nothing written, unless all of it lies within the frame.
    fn write<T: Pod>(&mut self, at: usize, value: T) -> Option<()>;

    /// The frame's length in bytes, from the destination MAC address on, without the checksum.
    fn length(&self) -> usize;

    /// The index of the interface that it came in by.
    fn ingress(&self) -> u32;
}
