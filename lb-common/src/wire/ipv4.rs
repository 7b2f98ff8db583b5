//! IPv4 (RFC 791 §3.1).

use super::{read, read_be16};
use crate::{packet::Packet, verdict::Reason};

/// The length of a header without options.
pub const HEADER: usize = 20;

/// 'More fragments' and the fragment's offset; all zero in an unfragmented packet.
pub const FRAGMENT: u16 = 0x3fff;
/// The fragment's offset; zero in the first one.
pub const FRAGMENT_OFFSET: u16 = 0x1fff;

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

/// Reads the header at an offset.
///
/// # Errors
/// [`Reason::Truncated`]; [`Reason::Malformed`] for another version or a header length below its
/// minimum; [`Reason::Ipv4Options`]; [`Reason::Fragment`].
#[inline(always)]
pub fn header<P: Packet>(packet: &P, at: usize) -> Result<Header, Reason> {
    let version_and_length: u8 = read(packet, at)?;
    match version_and_length {
        0x45 => {}
        0x46..=0x4f => return Err(Reason::Ipv4Options),
        _ => return Err(Reason::Malformed),
    }
    if read_be16(packet, at + 6)? & FRAGMENT != 0 {
        return Err(Reason::Fragment);
    }
    Ok(Header {
        protocol: read(packet, at + 9)?,
        source: read(packet, at + 12)?,
        destination: read(packet, at + 16)?,
        payload: at + HEADER,
        end: at + usize::from(read_be16(packet, at + 2)?),
    })
}
