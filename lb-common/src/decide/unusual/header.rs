//! IP headers with everything that may stand between them and the transport header.

use crate::{
    decide::beyond::OFFSET,
    flow::{Network, V4, V6, v4},
    packet::Packet,
    verdict::Reason,
    wire::{
        ethernet::{self, Payload},
        ipv4, ipv6,
    },
};

/// What stands in front of a transport header.
pub(super) struct Header {
    pub(super) network: Network,
    /// Where the transport header begins, or what follows of it in a later fragment.
    pub(super) transport: usize,
    /// Where the packet is a fragment: which.
    pub(super) fragment: Option<Fragment>,
}

/// Which fragment of a packet.
#[derive(Clone, Copy)]
pub(super) struct Fragment {
    /// The packet's identification as it lies in memory.
    pub(super) id: u32,
    /// Where the fragment belongs, in units of eight bytes; zero for the first.
    pub(super) offset: u16,
}

/// How many extension headers are followed.
const EXTENSIONS: usize = 6;

/// Reads a frame's headers down to the transport header.
#[inline(always)]
pub(super) fn read<P: Packet>(packet: &P) -> Result<Header, Reason> {
    let Payload { ethertype, at } = ethernet::payload(packet)?;
    let at = at & 0x3f;
    match ethertype {
        ethernet::IPV4 => read_v4(packet, at),
        ethernet::IPV6 => read_v6(packet, at),
        _ => Err(Reason::NotIp),
    }
}

#[inline(always)]
fn read_v4<P: Packet>(packet: &P, at: usize) -> Result<Header, Reason> {
    let cut = Reason::Truncated;
    // The first half of the fixed header, a word at a time.
    let [version, _, high, low]: [u8; 4] = packet.read(at).ok_or(cut)?;
    let words = usize::from(version & 0xf);
    if version >> 4 != 4 || words < ipv4::HEADER / 4 {
        return Err(Reason::Malformed);
    }
    let [id, place]: [u16; 2] = packet.read(at + 4).ok_or(cut)?;
    let [_, protocol, _, _]: [u8; 4] = packet.read(at + 8).ok_or(cut)?;
    let place = u16::from_be(place) & ipv4::FRAGMENT;
    let network = Network {
        at,
        source: v4(packet.read(at + 12).ok_or(cut)?),
        destination: v4(packet.read(at + 16).ok_or(cut)?),
        protocol,
        family: V4,
        end: at + usize::from(u16::from_be_bytes([high, low])),
    };
    let fragment = Fragment {
        id: id.into(),
        offset: place & ipv4::OFFSET,
    };
    Ok(Header {
        network,
        transport: (at + 4 * words) & OFFSET,
        fragment: (place != 0).then_some(fragment),
    })
}

#[inline(always)]
fn read_v6<P: Packet>(packet: &P, at: usize) -> Result<Header, Reason> {
    let cut = Reason::Truncated;
    let [version, _]: [u8; 2] = packet.read(at).ok_or(cut)?;
    if version >> 4 != 6 {
        return Err(Reason::Malformed);
    }
    let [high, low, mut protocol, _]: [u8; 4] = packet.read(at + 4).ok_or(cut)?;
    let (source, destination) = (
        packet.read(at + 8).ok_or(cut)?,
        packet.read(at + 24).ok_or(cut)?,
    );
    let mut transport = at + ipv6::HEADER;
    let mut fragment = None;
    for nth in 0..=EXTENSIONS {
        // What follows in a later fragment is none of its headers, whatever the number says.
        let later = fragment.is_some_and(|f: Fragment| f.offset != 0);
        if !ipv6::is_extension(protocol) || later {
            break;
        }
        if nth == EXTENSIONS {
            return Err(Reason::Extensions);
        }
        let here = transport & OFFSET;
        let [next, length, high, low]: [u8; 4] = packet.read(here).ok_or(cut)?;
        transport = match protocol {
            ipv6::FRAGMENT => {
                let place = u16::from_be_bytes([high, low]);
                // A packet in one fragment is none (RFC 6946).
                if place & ipv6::FRAGMENTED != 0 {
                    fragment = Some(Fragment {
                        id: packet.read(here + 4).ok_or(cut)?,
                        offset: place >> 3,
                    });
                }
                here + 8
            }
            ipv6::AUTHENTICATION => here + 4 * (usize::from(length) + 2),
            _ => here + 8 * (usize::from(length) + 1),
        };
        protocol = next;
        if transport > OFFSET {
            return Err(Reason::Extensions);
        }
    }
    let network = Network {
        at,
        source,
        destination,
        protocol,
        family: V6,
        end: at + ipv6::HEADER + usize::from(u16::from_be_bytes([high, low])),
    };
    Ok(Header {
        network,
        transport: transport & OFFSET,
        fragment,
    })
}
