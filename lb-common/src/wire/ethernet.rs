//! Ethernet II with up to two VLAN tags (IEEE 802.3 §3.2, IEEE 802.1Q §9.6).

use super::read_be16;
use crate::{packet::Packet, verdict::Reason};

/// The length of an untagged header.
pub const HEADER: usize = 14;
/// The length of a VLAN tag.
pub const TAG: usize = 4;
/// `EtherType` of IPv4.
pub const IPV4: u16 = 0x0800;
/// `EtherType` of IPv6.
pub const IPV6: u16 = 0x86dd;
/// `EtherType` of a customer VLAN tag.
pub const VLAN: u16 = 0x8100;
/// `EtherType` of a service VLAN tag, the outer one of two.
pub const SERVICE_VLAN: u16 = 0x88a8;

/// What follows the Ethernet header and its tags.
pub struct Payload {
    /// Its `EtherType`.
    pub ethertype: u16,
    /// Where it begins.
    pub at: usize,
}

/// Looks behind the header and at most two tags.
///
/// A third tag is left as the `EtherType`.
///
/// # Errors
/// [`Reason::Truncated`].
#[inline(always)]
pub fn payload<P: Packet>(packet: &P) -> Result<Payload, Reason> {
    let mut ethertype = read_be16(packet, 12)?;
    let mut at = HEADER;
    for _ in 0..2 {
        if !is_tag(ethertype) {
            break;
        }
        ethertype = read_be16(packet, at + 2)?;
        at += TAG;
    }
    Ok(Payload { ethertype, at })
}

/// Whether an `EtherType` is that of a VLAN tag.
#[inline(always)]
pub const fn is_tag(ethertype: u16) -> bool {
    ethertype == VLAN || ethertype == SERVICE_VLAN
}
