//! Probes that take the way of a service's packets to one backend.
//!
//! A probe is a socket of the host, connected to the backend's own address and marked. On its way
//! out its packets are given the VIP for their destination, and leave as the service's packets to
//! this backend do; the answers, which come from the VIP, are given the backend's address before
//! the host's stack sees them. So the stack needs no route to the VIP and may have the VIP itself,
//! its reverse path filter and its firewall see a connection to the backend, and what the backend
//! sees is a client's packet.

use bytemuck::{Pod, Zeroable};

use super::{Job, beyond::tunnel};
use crate::{
    flow::{Address, Flow, Parsed},
    layout::{ENDPOINTS, Endpoint, Far, mode},
    packet::Packet,
    verdict::Reason,
};

/// The bits of a mark that say whose probe it is; those above are the operator's to choose.
pub const MARK_BITS: u32 = 0xffff;
/// The bit of a mark that makes a packet as large as the largest of a client.
///
/// Only one whose growth no receiver hands on is made larger: the SYN of a connection, whose data
/// the receiver does not take before the handshake is over (RFC 9293 §3.10.7.2), and a UDP
/// datagram, which ends where its own length says.
pub const LARGE: u32 = 1 << 15;

/// How many answers can be waited for at once.
pub const REPLIES: usize = 1 << 14;

/// The number of a marked packet's endpoint.
#[inline(always)]
pub const fn endpoint_of(mark: u32) -> u32 {
    mark & (ENDPOINTS as u32 - 1)
}

/// Where the probes of an endpoint go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Target {
    /// The endpoint as its service's packets know it; [`mode::UNRESOLVED`] while nothing can be
    /// sent to it.
    pub endpoint: Endpoint,
    /// What else there is to know of it.
    pub far: Far,
    /// Its service's VIP.
    pub vip: Address,
    /// The length of the largest packet that a client may send it, in bytes.
    pub largest: u16,
    /// The UDP port of GUE as it lies in memory.
    pub gue_port: u16,
    /// The VIP's family.
    pub family: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

const _: () = assert!(size_of::<Target>() == 56 + size_of::<Endpoint>());

impl Target {
    /// The target of an endpoint that nothing can be sent to.
    pub const NONE: Self = Self {
        endpoint: Endpoint {
            macs: [0; 3],
            interface: 0,
            entropy: 0,
            service: 0,
            port: 0,
            mtu: 0,
            mode: mode::UNRESOLVED,
            family: 0,
            serves: 0,
            sampled: 0,
            reserved: [0; _],
        },
        far: Far {
            address: [0; 4],
            source: [0; 4],
        },
        vip: [0; 4],
        largest: 0,
        gue_port: 0,
        family: 0,
        reserved: [0; 3],
    };

    /// The largest packet of a client that reaches an endpoint whole, where a client's own network
    /// takes packets of so many bytes.
    pub const fn largest(endpoint: &Endpoint, clients: u16) -> u16 {
        let left = endpoint
            .mtu
            .saturating_sub(tunnel::overhead(endpoint) as u16);
        if left < clients { left } else { clients }
    }
}

/// The flow of the answers to a probe's packet, which comes from the VIP.
#[inline(always)]
pub const fn answers(probe: &Flow, target: &Target) -> Flow {
    Flow {
        destination: target.vip,
        ..*probe
    }
    .reversed()
}

/// Puts a probe's packet, already addressed to the VIP, on its way as the data plane does: into
/// its tunnel where there is one, and with the MAC addresses of its next hop.
///
/// # Errors
/// [`Reason::Unresolved`] where nothing can be sent, and whatever the tunnel refuses.
#[inline(always)]
pub fn send<P: Packet>(packet: &mut P, target: &Target, parsed: &Parsed) -> Result<(), Reason> {
    let to = &target.endpoint;
    match to.mode {
        mode::DSR => {}
        mode::IPIP | mode::GUE => {
            let mut job = Job::zeroed();
            // The ports stand in for the flow's hash: each probe takes another of several paths.
            let mixed = parsed.flow.ports.wrapping_mul(0x9e37_79b1);
            job.note(parsed, u64::from(mixed ^ mixed >> 16), Job::NO_PLACE, 0);
            tunnel::wrap(packet, target.gue_port, &job, to, &target.far)?;
        }
        _ => return Err(Reason::Unresolved),
    }
    packet.write(0, to.macs).ok_or(Reason::Truncated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        flow::{self, V4, V6, v4},
        host::Frame,
        testing::Plan,
    };

    fn target(mode: u8, family: u8) -> Target {
        Target {
            endpoint: Endpoint {
                macs: [1, 2, 3],
                interface: 7,
                mtu: 1_500,
                mode,
                family,
                serves: 1,
                ..Endpoint::zeroed()
            },
            far: Far {
                address: v4(u32::from_ne_bytes([10, 0, 0, 1])),
                source: v4(u32::from_ne_bytes([10, 0, 0, 9])),
            },
            vip: v4(u32::from_ne_bytes([198, 51, 100, 10])),
            gue_port: 6080_u16.to_be(),
            family: V4,
            ..Target::NONE
        }
    }

    fn sent(target: &Target) -> (Vec<u8>, Result<(), Reason>) {
        let to = "198.51.100.10:80".parse().unwrap();
        let plan = Plan::tcp("10.0.0.9:40000".parse().unwrap(), to);
        let mut frame = Frame::new(&plan.bytes(), 1);
        let parsed = flow::ipv4(&frame, 14).unwrap_or_else(|_| panic!("a packet"));
        let result = send(&mut frame, target, &parsed);
        (frame.bytes, result)
    }

    use std::vec::Vec;

    #[test]
    fn it_leaves_as_the_services_packets_do() {
        let (bytes, result) = sent(&target(mode::DSR, V4));
        assert_eq!(result, Ok(()));
        assert_eq!(bytes[..12], [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]);
        let plain = bytes.len();

        let (bytes, result) = sent(&target(mode::IPIP, V4));
        assert_eq!((result, bytes.len()), (Ok(()), plain + 20));
        assert_eq!(bytes[..4], [1, 0, 0, 0]);
        // The protocol, and from whom to whom.
        assert_eq!(bytes[23], 4);
        assert_eq!(bytes[26..34], [10, 0, 0, 9, 10, 0, 0, 1]);
        assert_eq!(bytes[50..54], [198, 51, 100, 10]);

        let (bytes, result) = sent(&target(mode::GUE, V4));
        assert_eq!((result, bytes.len()), (Ok(()), plain + 28));
        assert_eq!((bytes[23], &bytes[36..38]), (17, &[0x17, 0xc0][..]));
    }

    #[test]
    fn it_does_not_leave_where_nothing_can_be_sent() {
        let (_, result) = sent(&Target::NONE);
        assert_eq!(result, Err(Reason::Unresolved));
        let mut small = target(mode::IPIP, V4);
        small.endpoint.mtu = 60;
        assert_eq!(sent(&small).1, Err(Reason::TooBig));
    }

    #[test]
    fn the_largest_packet_leaves_room_for_the_tunnel() {
        let largest =
            |mode, family, clients| Target::largest(&target(mode, family).endpoint, clients);
        assert_eq!(largest(mode::DSR, V4, 1_500), 1_500);
        assert_eq!(largest(mode::DSR, V4, 9_000), 1_500);
        assert_eq!(largest(mode::IPIP, V4, 1_500), 1_480);
        assert_eq!(largest(mode::IPIP, V6, 1_500), 1_460);
        assert_eq!(largest(mode::GUE, V4, 1_500), 1_472);
        assert_eq!(largest(mode::GUE, V6, 1_400), 1_400);
    }

    #[test]
    fn answers_come_from_the_vip() {
        let probe = Flow {
            source: v4(1),
            destination: v4(2),
            ports: 0x0050_9c40,
            protocol: 6,
            family: V4,
            reserved: [0; 2],
        };
        let answer = answers(&probe, &target(mode::DSR, V4));
        assert_eq!(answer.source, v4(u32::from_ne_bytes([198, 51, 100, 10])));
        assert_eq!((answer.destination, answer.ports), (v4(1), 0x9c40_0050));
    }
}
