//! ICMP (RFC 792) and `ICMPv6` (RFC 4443): what is answered, and what is handed on.

use crate::flow::V4;

/// The protocol number of ICMP.
pub const PROTOCOL: u8 = 1;
/// The protocol number of `ICMPv6`.
pub const PROTOCOL_V6: u8 = 58;
/// The length of the header; what an error quotes comes after it.
pub const HEADER: usize = 8;
/// Where the checksum stands.
pub const CHECKSUM: usize = 2;

/// 'Destination unreachable'.
pub const UNREACHABLE: u8 = 3;
/// Its code 'fragmentation needed'.
pub const FRAGMENTATION_NEEDED: u8 = 4;
/// 'Packet too big' of `ICMPv6`.
pub const TOO_BIG_V6: u8 = 2;

/// The types of an echo request and of its reply.
#[inline(always)]
pub const fn echo(family: u8) -> (u8, u8) {
    if family == V4 { (8, 0) } else { (128, 129) }
}

/// Whether a message is an error, which quotes the packet that caused it.
#[inline(always)]
pub const fn is_error(family: u8, kind: u8) -> bool {
    if family == V4 {
        // Unreachable, source quench, time exceeded, parameter problem (RFC 1122 §3.2.2).
        matches!(kind, 3 | 4 | 11 | 12)
    } else {
        // RFC 4443 §2.1 has errors below 128; these are the ones that it defines.
        matches!(kind, 1..=4)
    }
}
