//! What a packet says about itself: addresses, ports and protocol.

use crate::{
    packet::Packet,
    verdict::Reason,
    wire::{ipv4, ipv6, tcp, udp},
};

/// IPv4 in the `family` fields.
pub const V4: u8 = 4;
/// IPv6 in the `family` fields.
pub const V6: u8 = 6;

/// An IP address as it lies in memory; an IPv4 address is the last word, the others zero.
///
/// The words alone do not say which family it is of.
pub type Address = [u32; 4];

/// The words of an IPv4 address.
#[inline(always)]
pub const fn v4(address: u32) -> Address {
    [0, 0, 0, address]
}

/// A flow's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Where the packet comes from.
    pub source: Address,
    /// Where it is addressed to.
    pub destination: Address,
    /// Source port and destination port as they lie in memory, the source in the low half.
    pub ports: u32,
    /// The transport protocol's number.
    pub protocol: u8,
    /// [`V4`] or [`V6`].
    pub family: u8,
}

impl Flow {
    /// The destination port as it lies in memory.
    #[inline(always)]
    pub const fn destination_port(&self) -> u16 {
        (self.ports >> 16) as u16
    }
}

/// A packet that may belong to a service.
pub struct Parsed {
    /// Its flow.
    pub flow: Flow,
    /// Where the transport header begins.
    pub transport: usize,
    /// The TCP flags; zero for UDP.
    pub tcp_flags: u8,
}

impl Parsed {
    /// Whether it opens a TCP connection: SYN without ACK.
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        self.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
    }
}

/// Reads an IPv4 packet at an offset down to its ports.
///
/// # Errors
/// The reason for which it cannot belong to a service.
#[inline(always)]
pub fn ipv4<P: Packet>(packet: &P, at: usize) -> Result<Parsed, Reason> {
    let header = ipv4::header(packet, at)?;
    let (source, destination) = (v4(header.source), v4(header.destination));
    transport(
        packet,
        source,
        destination,
        header.protocol,
        V4,
        header.payload,
    )
}

/// Reads an IPv6 packet at an offset down to its ports.
///
/// # Errors
/// The reason for which it cannot belong to a service.
#[inline(always)]
pub fn ipv6<P: Packet>(packet: &P, at: usize) -> Result<Parsed, Reason> {
    let header = ipv6::header(packet, at)?;
    transport(
        packet,
        header.source,
        header.destination,
        header.protocol,
        V6,
        header.payload,
    )
}

#[inline(always)]
fn transport<P: Packet>(
    packet: &P,
    source: Address,
    destination: Address,
    protocol: u8,
    family: u8,
    at: usize,
) -> Result<Parsed, Reason> {
    let (ports, tcp_flags) = match protocol {
        tcp::PROTOCOL => {
            let header = tcp::header(packet, at)?;
            (header.ports, header.flags)
        }
        udp::PROTOCOL => (udp::ports(packet, at)?, 0),
        _ => return Err(Reason::NotTcpUdp),
    };
    let flow = Flow {
        source,
        destination,
        ports,
        protocol,
        family,
    };
    Ok(Parsed {
        flow,
        transport: at,
        tcp_flags,
    })
}
