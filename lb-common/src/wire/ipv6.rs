//! IPv6 (RFC 8200 §3).

use bytemuck::{Pod, Zeroable};

use super::read;
use crate::{packet::Packet, verdict::Reason};

/// The length of the fixed header.
pub const HEADER: usize = 40;
/// Where both addresses begin.
pub const ADDRESSES: usize = 8;

/// Next-header numbers of the extension headers that may stand before a transport header
/// (RFC 8200 §4.1, RFC 7045 §4).
pub const HOP_BY_HOP: u8 = 0;
/// Routing header.
pub const ROUTING: u8 = 43;
/// Fragment header.
pub const FRAGMENT: u8 = 44;
/// The offset and 'more fragments' in a fragment header.
pub const FRAGMENTED: u16 = 0xfff9;
/// Authentication header (RFC 4302).
pub const AUTHENTICATION: u8 = 51;
/// Destination options.
pub const DESTINATION_OPTIONS: u8 = 60;

/// Whether a header of this number may stand before a transport header.
#[inline(always)]
pub const fn is_extension(number: u8) -> bool {
    matches!(
        number,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS
    )
}

/// What the decision needs of a header.
pub struct Header {
    /// The protocol that follows.
    pub protocol: u8,
    /// The source address as it lies in memory.
    pub source: [u32; 4],
    /// The destination address as it lies in memory.
    pub destination: [u32; 4],
    /// Where the payload begins.
    pub payload: usize,
    /// Where the packet ends, by its own word.
    pub end: usize,
}

/// The header as it lies in the frame: read at once, so that the frame's end is asked for once.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Fixed {
    version_and_class: u8,
    class_and_label: u8,
    label: u16,
    length: u16,
    protocol: u8,
    hops: u8,
    source: [u32; 4],
    destination: [u32; 4],
}

/// Reads the header at an offset.
///
/// # Errors
/// [`Reason::Truncated`]; [`Reason::Malformed`] for another version; [`Reason::Fragment`];
/// [`Reason::Extensions`].
#[inline(always)]
pub fn header<P: Packet>(packet: &P, at: usize) -> Result<Header, Reason> {
    let fixed: Fixed = read(packet, at)?;
    if fixed.version_and_class >> 4 != 6 {
        return Err(Reason::Malformed);
    }
    match fixed.protocol {
        FRAGMENT => return Err(Reason::Fragment),
        protocol if is_extension(protocol) => return Err(Reason::Extensions),
        _ => {}
    }
    Ok(Header {
        protocol: fixed.protocol,
        source: fixed.source,
        destination: fixed.destination,
        payload: at + HEADER,
        end: at + HEADER + usize::from(u16::from_be(fixed.length)),
    })
}
