//! Frames for tests and benchmarks.

mod tunnel;

use std::{net::SocketAddr, vec::Vec};

pub use tunnel::{Tunnel, ipv4_checksum};

use crate::wire::{ethernet, ipv4, ipv6, tcp, udp};

/// What stands above the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP with these flags and this sequence number.
    Tcp {
        /// The flags without the two of ECN's upper byte.
        flags: u8,
        /// The sequence number.
        sequence: u32,
    },
    /// UDP.
    Udp,
    /// Another protocol, with nothing but the payload.
    Other(u8),
}

/// A frame to be built: public fields, to be changed by whoever wants another one.
///
/// Checksums are left zero: the decision neither reads nor changes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes; its address decides the IP version.
    pub destination: SocketAddr,
    /// What stands above the IP header.
    pub transport: Transport,
    /// The `EtherType`s of the VLAN tags, the outer first.
    pub tags: Vec<u16>,
    /// How many bytes follow the transport header.
    pub payload: usize,
}

impl Plan {
    /// A segment of an established connection.
    pub fn tcp(source: SocketAddr, destination: SocketAddr) -> Self {
        let transport = Transport::Tcp {
            flags: tcp::ACK,
            sequence: 1,
        };
        Self {
            source,
            destination,
            transport,
            tags: Vec::new(),
            payload: 10,
        }
    }

    /// A datagram.
    pub fn udp(source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            transport: Transport::Udp,
            ..Self::tcp(source, destination)
        }
    }

    /// The same with other TCP flags and another sequence number.
    #[must_use]
    pub fn segment(self, flags: u8, sequence: u32) -> Self {
        Self {
            transport: Transport::Tcp { flags, sequence },
            ..self
        }
    }

    /// The same behind VLAN tags of these `EtherType`s.
    #[must_use]
    pub fn tagged(self, tags: &[u16]) -> Self {
        Self {
            tags: tags.to_vec(),
            ..self
        }
    }

    /// Where the IP header begins.
    pub fn network(&self) -> usize {
        ethernet::HEADER + ethernet::TAG * self.tags.len()
    }

    /// Where the transport header begins.
    pub fn transport(&self) -> usize {
        self.network()
            + if self.destination.is_ipv4() {
                ipv4::HEADER
            } else {
                ipv6::HEADER
            }
    }

    /// The frame's bytes.
    ///
    /// # Panics
    /// Where source and destination are not of one IP version.
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = Vec::from(*b"\x02\0\0\0\0\xfe\x02\0\0\0\0\xfd");
        let version = if self.destination.is_ipv4() {
            ethernet::IPV4
        } else {
            ethernet::IPV6
        };
        for (number, tag) in (1u16..).zip(&self.tags) {
            frame.extend(tag.to_be_bytes());
            frame.extend(number.to_be_bytes());
        }
        frame.extend(version.to_be_bytes());
        let (protocol, header) = match self.transport {
            Transport::Tcp { .. } => (tcp::PROTOCOL, tcp::HEADER),
            Transport::Udp => (udp::PROTOCOL, udp::HEADER),
            Transport::Other(protocol) => (protocol, 0),
        };
        let length = (header + self.payload) as u16;
        match (self.source, self.destination) {
            (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
                frame.extend([0x45, 0]);
                frame.extend((ipv4::HEADER as u16 + length).to_be_bytes());
                // Not fragmented, 'do not fragment' set, 64 hops.
                frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
                frame.extend(source.ip().octets());
                frame.extend(destination.ip().octets());
            }
            (SocketAddr::V6(source), SocketAddr::V6(destination)) => {
                frame.extend([0x60, 0, 0, 0]);
                frame.extend(length.to_be_bytes());
                frame.extend([protocol, 64]);
                frame.extend(source.ip().octets());
                frame.extend(destination.ip().octets());
            }
            (source, destination) => panic!("no packet goes from {source} to {destination}"),
        }
        let ports = |frame: &mut Vec<u8>| {
            frame.extend(self.source.port().to_be_bytes());
            frame.extend(self.destination.port().to_be_bytes());
        };
        match self.transport {
            Transport::Tcp { flags, sequence } => {
                ports(&mut frame);
                frame.extend(sequence.to_be_bytes());
                // No acknowledgement, five words of header, a window, no urgent data.
                frame.extend([0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            }
            Transport::Udp => {
                ports(&mut frame);
                frame.extend(length.to_be_bytes());
                frame.extend([0, 0]);
            }
            Transport::Other(_) => {}
        }
        // Not zeroes, so that a byte that goes astray shows.
        frame.extend((0..self.payload).map(|at| at as u8 ^ 0xa5));
        frame
    }
}
