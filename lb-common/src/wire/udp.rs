//! UDP (RFC 768).

use super::read;
use crate::{packet::Packet, verdict::Reason};

/// The protocol number.
pub const PROTOCOL: u8 = 17;
/// The length of a header.
pub const HEADER: usize = 8;
/// Where the checksum stands.
pub const CHECKSUM: usize = 6;

/// Source port and destination port of the header at an offset, as they lie in memory, the
/// source in the low half.
///
/// # Errors
/// [`Reason::Truncated`].
#[inline(always)]
pub fn ports<P: Packet>(packet: &P, at: usize) -> Result<u32, Reason> {
    // All of the header, which the frame must hold, with one look at its end.
    let [ports, _]: [u32; 2] = read(packet, at)?;
    Ok(ports)
}
