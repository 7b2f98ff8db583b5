//! Frames with a packet in a packet, written apart from the code that makes and takes them.

use std::{net::IpAddr, vec::Vec};

use crate::wire::{ethernet, udp};

/// An outer packet to be built: public fields, to be changed by whoever wants another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes; its address decides the outer IP version.
    pub destination: IpAddr,
    /// The UDP port that it goes to, in GUE.
    pub port: Option<u16>,
    /// DSCP and ECN of the outer packet.
    pub class: u8,
    /// The `EtherType`s of the VLAN tags, the outer first.
    pub tags: Vec<u16>,
}

impl Tunnel {
    /// IP in IP without tags.
    ///
    /// # Panics
    /// Where one of them is no address.
    pub fn ipip(source: &str, destination: &str) -> Self {
        let address = |text: &str| text.parse().expect("an IP address");
        Self {
            source: address(source),
            destination: address(destination),
            port: None,
            class: 0,
            tags: Vec::new(),
        }
    }

    /// The same in UDP.
    #[must_use]
    pub fn gue(self, port: u16) -> Self {
        Self {
            port: Some(port),
            ..self
        }
    }

    /// Where the outer IP header begins.
    pub fn network(&self) -> usize {
        ethernet::HEADER + ethernet::TAG * self.tags.len()
    }

    /// The frame that holds an IP packet, or anything else that is given.
    ///
    /// # Panics
    /// Where source and destination are not of one IP version.
    pub fn frame(&self, inner: &[u8]) -> Vec<u8> {
        let mut frame = Vec::from(*b"\x02\0\0\0\0\xfe\x02\0\0\0\0\xfd");
        for (number, tag) in (1u16..).zip(&self.tags) {
            frame.extend(tag.to_be_bytes());
            frame.extend(number.to_be_bytes());
        }
        let version = inner.first().map_or(0, |first| first >> 4);
        let protocol = match (self.port, version) {
            (Some(_), _) => udp::PROTOCOL,
            (None, 6) => 41,
            (None, _) => 4,
        };
        let length = inner.len() as u16 + self.port.map_or(0, |_| 8);
        let class = self.class;
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend(ethernet::IPV4.to_be_bytes());
                let at = frame.len();
                frame.extend([0x45, class]);
                frame.extend((length + 20).to_be_bytes());
                frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                ipv4_checksum(&mut frame, at);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend(ethernet::IPV6.to_be_bytes());
                frame.extend([0x60 | class >> 4, class << 4 | 0xa, 0xbc, 0xde]);
                frame.extend(length.to_be_bytes());
                frame.extend([protocol, 64]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
            }
            (source, destination) => panic!("no packet goes from {source} to {destination}"),
        }
        if let Some(port) = self.port {
            frame.extend(51_234u16.to_be_bytes());
            frame.extend(port.to_be_bytes());
            frame.extend(length.to_be_bytes());
            frame.extend([0, 0]);
        }
        frame.extend(inner);
        frame
    }
}

/// Puts the right checksum into the IPv4 header at an offset, by the sum of RFC 1071 as written.
///
/// # Panics
/// Where the frame ends before the header.
pub fn ipv4_checksum(frame: &mut [u8], at: usize) {
    let length = usize::from(frame[at] & 0xf) * 4;
    let header = &mut frame[at..at + length];
    header[10..12].fill(0);
    let words = header.chunks_exact(2);
    let mut sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}
