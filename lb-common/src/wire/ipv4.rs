//! IPv4 (RFC 791 §3.1).

use bytemuck::{Pod, Zeroable};

use super::read;
use crate::{packet::Packet, verdict::Reason};

/// The length of a header without options.
pub const HEADER: usize = 20;
/// Where both addresses begin.
pub const ADDRESSES: usize = 12;

/// 'More fragments' and the fragment's offset; all zero in an unfragmented packet.
pub const FRAGMENT: u16 = 0x3fff;
/// The fragment's offset alone, in units of eight bytes.
pub const OFFSET: u16 = 0x1fff;

/// What the decision needs of a header.
pub struct Header {
    /// The protocol that follows.
    pub protocol: u8,
    /// The source address as it lies in memory.
    pub source: u32,
    /// The destination address as it lies in memory.
    pub destination: u32,
    /// Where the payload begins.
    pub payload: usize,
    /// Where the packet ends, by its own word.
    pub end: usize,
}

/// The header as it lies in the frame: read at once, so that the frame's end is asked for once.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Fixed {
    version_and_length: u8,
    class: u8,
    length: u16,
    id: u16,
    fragment: u16,
    hops: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

/// Reads the header at an offset.
///
/// # Errors
/// [`Reason::Truncated`]; [`Reason::Malformed`] for another version or a header length below its
/// minimum; [`Reason::Extensions`]; [`Reason::Fragment`].
#[inline(always)]
pub fn header<P: Packet>(packet: &P, at: usize) -> Result<Header, Reason> {
    let fixed: Fixed = read(packet, at)?;
    match fixed.version_and_length {
        0x45 => {}
        0x46..=0x4f => return Err(Reason::Extensions),
        _ => return Err(Reason::Malformed),
    }
    if fixed.fragment & FRAGMENT.to_be() != 0 {
        return Err(Reason::Fragment);
    }
    Ok(Header {
        protocol: fixed.protocol,
        source: fixed.source,
        destination: fixed.destination,
        payload: at + HEADER,
        end: at + usize::from(u16::from_be(fixed.length)),
    })
}
