//! What the benchmark and its programs in the kernel agree on.

use bytemuck::{Pod, Zeroable};

use crate::flow::{self, Address, Flow};

/// The frames of one measured case: what they have in common, and where the count stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Case {
    /// The number of the flow that comes next.
    pub flow: u32,
    /// How many flows there are: after the last, the first comes again.
    pub flows: u32,
    /// The number of the service that the next flow goes to.
    pub service: u32,
    /// How many services the flows go to in turn.
    pub services: u32,
    /// The length of a frame before it is balanced.
    pub length: u32,
    /// Whether a program may have put something in front of the frame: 1, or 0.
    pub grown: u32,
    /// [`V4`](flow::V4) or [`V6`](flow::V6).
    pub family: u32,
    /// The transport protocol's number.
    pub protocol: u32,
    /// The MAC addresses.
    pub macs: [u32; 3],
    /// What follows them, up to the addresses: of IPv4 without the checksum, of IPv6 without the
    /// upper half of the last word.
    pub head: [u32; 3],
    /// The source of the first flow.
    pub source: Address,
    /// The destination of the first flow.
    pub destination: Address,
    /// What follows the addresses; the ports of the first flow come first.
    pub transport: [u32; 5],
    /// Zero.
    pub reserved: u32,
}

impl Case {
    /// The next frame's flow; the one after it is the next from now on.
    #[inline(always)]
    pub fn next_flow(&mut self) -> Flow {
        let (number, service) = (self.flow, self.service);
        self.flow = number + 1;
        self.service = service + 1;
        if self.service >= self.services {
            self.service = 0;
        }
        // Every lap begins with the first service, so that there are as many flows as it says.
        if self.flow >= self.flows {
            self.flow = 0;
            self.service = 0;
        }
        let mut flow = Flow {
            source: self.source,
            destination: self.destination,
            // 65,536 source ports, then the next source address.
            ports: self.transport[0] & 0xffff_0000 | number & 0xffff,
            protocol: self.protocol as u8,
            family: self.family as u8,
            reserved: [0; 2],
        };
        flow.source[3] ^= (number >> 16) << 24;
        flow.destination[3] ^= u32::from((service as u16).to_be()) << 16;
        flow
    }

    /// Whether the frames are of IPv4.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.family == flow::V4 as u32
    }
}

/// The places of the programs that the frames are handed to.
pub mod target {
    /// The program under test.
    pub const TESTED: u32 = 0;
    /// One that sends the frame back at once.
    pub const BARE: u32 = 1;
    /// One that reads the headers and swaps the MAC addresses.
    pub const SWAP: u32 = 2;
    /// How many there are.
    pub const COUNT: usize = 3;
}
