//! TCP (RFC 9293 §3.1).

use bytemuck::{Pod, Zeroable};

use super::read;
use crate::{packet::Packet, verdict::Reason};

/// The protocol number.
pub const PROTOCOL: u8 = 6;
/// The length of a header without options.
pub const HEADER: usize = 20;
/// Where the checksum stands.
pub const CHECKSUM: usize = 16;
/// The flag that opens a connection.
pub const SYN: u8 = 0x02;
/// The flag that ends a direction.
pub const FIN: u8 = 0x01;
/// The flag that aborts a connection.
pub const RST: u8 = 0x04;
/// The flag that acknowledges.
pub const ACK: u8 = 0x10;

/// Whether these flags open a connection: SYN without ACK.
#[inline(always)]
pub const fn opens(flags: u8) -> bool {
    flags & (SYN | ACK) == SYN
}

/// What the decision needs of a header.
pub struct Header {
    /// Source port and destination port as they lie in memory, the source in the low half.
    pub ports: u32,
    /// The flags without the two of ECN's upper byte.
    pub flags: u8,
}

/// The header as it lies in the frame: read at once, so that the frame's end is asked for once.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Fixed {
    ports: u32,
    sequence: u32,
    acknowledged: u32,
    words: u8,
    flags: u8,
    window: u16,
    checksum: u16,
    urgent: u16,
}

/// Reads the header at an offset.
///
/// # Errors
/// [`Reason::Truncated`]; [`Reason::Malformed`] for a header length below its minimum.
#[inline(always)]
pub fn header<P: Packet>(packet: &P, at: usize) -> Result<Header, Reason> {
    let fixed: Fixed = read(packet, at)?;
    if fixed.words >> 4 < 5 {
        return Err(Reason::Malformed);
    }
    Ok(Header {
        ports: fixed.ports,
        flags: fixed.flags,
    })
}

/// The numbers of a header, and how long it is.
pub struct Numbers {
    /// The sequence number.
    pub sequence: u32,
    /// What is acknowledged; means nothing without [`ACK`].
    pub acknowledged: u32,
    /// The header's length in bytes, 20 to 60.
    pub header: u8,
}

/// Reads the numbers of the header at an offset.
///
/// # Errors
/// [`Reason::Truncated`].
#[inline(always)]
pub fn numbers<P: Packet>(packet: &P, at: usize) -> Result<Numbers, Reason> {
    let fixed: Fixed = read(packet, at)?;
    Ok(Numbers {
        sequence: u32::from_be(fixed.sequence),
        acknowledged: u32::from_be(fixed.acknowledged),
        header: fixed.words >> 4 << 2,
    })
}

/// The sequence number of the header at an offset, as it lies in memory.
///
/// # Errors
/// [`Reason::Truncated`].
#[inline(always)]
pub fn sequence<P: Packet>(packet: &P, at: usize) -> Result<u32, Reason> {
    read(packet, at + 4)
}
