//! Wire formats: one protocol a file, each a function from a frame and an offset to what the
//! decision needs of that header.
//!
//! None of them panics, whatever the bytes are. A header that is cut short is
//! [`Reason::Truncated`], one that contradicts its own standard [`Reason::Malformed`], and one
//! that is sound but not handled has a reason of its own.
//!
//! [`Reason::Truncated`]: crate::verdict::Reason::Truncated
//! [`Reason::Malformed`]: crate::verdict::Reason::Malformed

pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod quic;
pub mod tcp;
pub mod udp;

use bytemuck::Pod;

use crate::{packet::Packet, verdict::Reason};

/// Reads a value, or says that the frame ends before it does.
#[inline(always)]
fn read<P: Packet, T: Pod>(packet: &P, at: usize) -> Result<T, Reason> {
    packet.read(at).ok_or(Reason::Truncated)
}

/// Reads a 16-bit number in network byte order.
#[inline(always)]
fn read_be16<P: Packet>(packet: &P, at: usize) -> Result<u16, Reason> {
    read::<P, u16>(packet, at).map(u16::from_be)
}

#[cfg(test)]
mod tests;
