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

    /// How many bytes of the frame can be read, from the destination MAC address on. A frame that
    /// is spread over several buffers is longer.
    fn length(&self) -> usize;

    /// Adds up so many 32-bit words, at most 128, as a checksum does, without folding them to 16
    /// bits; `None` unless all of them lie within the frame.
    fn sum<const WORDS: usize>(&self, at: usize) -> Option<u64>;

    /// The frame's length in bytes, without its checksum.
    fn full_length(&self) -> usize;

    /// Makes room for bytes in front of the frame, whose first byte is then that of the room;
    /// `None`, and nothing changed, where the driver has none. At most 256 bytes.
    fn grow(&mut self, bytes: usize) -> Option<()>;

    /// Takes bytes away at the front of the frame; `None`, and nothing changed, where it has no
    /// more than these. At most 256 bytes.
    fn shrink(&mut self, bytes: usize) -> Option<()>;

    /// Cuts the frame to a length; `None`, and nothing changed, where that fails.
    fn truncate(&mut self, length: usize) -> Option<()>;

    /// The index of the interface that it came in by.
    fn ingress(&self) -> u32;
}
