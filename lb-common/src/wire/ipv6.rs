//! IPv6 (RFC 8200 §3).

use super::{read, read_be16};
use crate::{packet::Packet, verdict::Reason};

/// The length of the fixed header.
pub const HEADER: usize = 40;

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

/// Reads the header at an offset.
///
/// # Errors
/// [`Reason::Truncated`]; [`Reason::Malformed`] for another version; [`Reason::Fragment`];
/// [`Reason::Ipv6Extension`].
#[inline(always)]
pub fn header<P: Packet>(packet: &P, at: usize) -> Result<Header, Reason> {
    let version: u8 = read(packet, at)?;
    if version >> 4 != 6 {
        return Err(Reason::Malformed);
    }
    let protocol: u8 = read(packet, at + 6)?;
    match protocol {
        FRAGMENT => return Err(Reason::Fragment),
        HOP_BY_HOP | ROUTING | AUTHENTICATION | DESTINATION_OPTIONS => {
            return Err(Reason::Ipv6Extension);
        }
        _ => {}
    }
    Ok(Header {
        protocol,
        source: read(packet, at + 8)?,
        destination: read(packet, at + 24)?,
        payload: at + HEADER,
        end: at + HEADER + usize::from(read_be16(packet, at + 4)?),
    })
}
