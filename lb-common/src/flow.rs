//! What a packet says about itself: addresses, ports and protocol.

use bytemuck::{Pod, Zeroable};

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

/// A flow's identity, as the tables of flows hold it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C, align(8))]
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
    /// Zero.
    pub reserved: [u8; 2],
}

impl Flow {
    /// The source port as it lies in memory.
    #[inline(always)]
    pub const fn source_port(&self) -> u16 {
        self.ports as u16
    }

    /// The destination port as it lies in memory.
    #[inline(always)]
    pub const fn destination_port(&self) -> u16 {
        (self.ports >> 16) as u16
    }

    /// The flow of the packets that answer it.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            ports: self.ports.rotate_left(16),
            ..*self
        }
    }
}

/// A packet that may belong to a service.
pub struct Parsed {
    /// Its flow.
    pub flow: Flow,
    /// Where the IP header begins.
    pub network: usize,
    /// Where the transport header begins.
    pub transport: usize,
    /// Where the IP packet ends, by its own word.
    pub end: usize,
    /// The TCP flags; zero for UDP.
    pub tcp_flags: u8,
}

/// Reads an IPv4 packet at an offset down to its ports.
///
/// # Errors
/// The reason for which it cannot belong to a service.
#[inline(always)]
pub fn ipv4<P: Packet>(packet: &P, at: usize) -> Result<Parsed, Reason> {
    let header = ipv4::header(packet, at)?;
    let network = Network {
        at,
        source: v4(header.source),
        destination: v4(header.destination),
        protocol: header.protocol,
        family: V4,
        end: header.end,
    };
    transport(packet, &network, header.payload)
}

/// Reads an IPv6 packet at an offset down to its ports.
///
/// # Errors
/// The reason for which it cannot belong to a service.
#[inline(always)]
pub fn ipv6<P: Packet>(packet: &P, at: usize) -> Result<Parsed, Reason> {
    let header = ipv6::header(packet, at)?;
    let network = Network {
        at,
        source: header.source,
        destination: header.destination,
        protocol: header.protocol,
        family: V6,
        end: header.end,
    };
    transport(packet, &network, header.payload)
}

/// Reads a packet's flow once more, where the headers begin and what they are is known.
#[inline(always)]
pub fn again<P: Packet>(
    packet: &P,
    [network, transport]: [usize; 2],
    protocol: u8,
    family: u8,
) -> Option<Flow> {
    let [source, destination] = if family == V4 {
        let [source, destination]: [u32; 2] = packet.read(network + ipv4::ADDRESSES)?;
        [v4(source), v4(destination)]
    } else {
        packet.read(network + ipv6::ADDRESSES)?
    };
    Some(Flow {
        source,
        destination,
        ports: packet.read(transport)?,
        protocol,
        family,
        reserved: [0; 2],
    })
}

/// What the IP header says.
#[derive(Clone, Copy)]
pub struct Network {
    /// Where it begins.
    pub at: usize,
    /// Where the packet comes from.
    pub source: Address,
    /// Where it is addressed to.
    pub destination: Address,
    /// The protocol behind it and its extension headers.
    pub protocol: u8,
    /// [`V4`] or [`V6`].
    pub family: u8,
    /// Where the packet ends, by its own word.
    pub end: usize,
}

/// Reads the ports at an offset behind an IP header.
///
/// # Errors
/// The reason for which the packet cannot belong to a service.
#[inline(always)]
pub fn transport<P: Packet>(packet: &P, network: &Network, at: usize) -> Result<Parsed, Reason> {
    let (ports, tcp_flags) = match network.protocol {
        tcp::PROTOCOL => {
            let header = tcp::header(packet, at)?;
            (header.ports, header.flags)
        }
        udp::PROTOCOL => (udp::ports(packet, at)?, 0),
        _ => return Err(Reason::NotTcpUdp),
    };
    let flow = Flow {
        source: network.source,
        destination: network.destination,
        ports,
        protocol: network.protocol,
        family: network.family,
        reserved: [0; 2],
    };
    Ok(Parsed {
        flow,
        network: network.at,
        transport: at,
        end: network.end,
        tcp_flags,
    })
}
