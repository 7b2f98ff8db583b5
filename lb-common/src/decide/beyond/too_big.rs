//! The answer to a packet that is too big for its tunnel: 'fragmentation needed' (RFC 1191 §4) or
//! 'packet too big' (RFC 4443 §3.2).

use super::{endpoint, row, tunnel::overhead, vip};
use crate::{
    decide::{Job, drop, unusual::echo::swap},
    flow::V4,
    layout,
    packet::Packet,
    tables::World,
    verdict::{Reason, Verdict},
    wire::{checksum, ethernet, icmp, ipv4, ipv6},
};

/// How many words are quoted: the longest IPv4 header and the eight bytes behind it.
const QUOTED: usize = 17;
/// Of IPv6: the header, what may stand behind it, and more than a TCP header.
const QUOTED_V6: usize = 32;
/// The hops that the answer may take.
const HOPS: u8 = 64;

/// Tells the sender, in the VIP's name, how much would fit.
#[inline(always)]
pub fn tell<P: Packet, W: World>(
    packet: &mut P,
    world: &W,
    tables: &layout::Tables,
    job: &Job,
) -> Verdict {
    let row = row(vip(tables, job).service);
    if !world.may_tell() {
        return drop(world, row, Reason::TooBigUntold);
    }
    let to = endpoint(tables, job.endpoint).0;
    let fits = to.mtu.saturating_sub(overhead(to) as u16);
    let told = if job.flow.family == V4 {
        answer_v4(packet, job, fits)
    } else {
        answer_v6(packet, job, fits)
    };
    match told {
        Some(()) => {
            world.exit(row, Reason::TooBig);
            Verdict::Transmit
        }
        None => drop(world, row, Reason::TooBigUntold),
    }
}

/// Cuts the packet to what is quoted, and makes room in front of it.
#[inline(always)]
fn quote<P: Packet>(packet: &mut P, network: usize, quoted: usize, header: usize) -> Option<()> {
    let macs: [u32; 3] = packet.read(0)?;
    let tags: [u32; 2] = [packet.read(12)?, packet.read(16)?];
    let tagged = network.wrapping_sub(ethernet::HEADER) & 0xc;
    let ethertype: u16 = packet.read(12 + tagged)?;
    packet.truncate(network + quoted)?;
    packet.grow(header)?;
    packet.write(0, swap(macs))?;
    // Two words hold the tags; what they hold beyond is written over now and by the IP header.
    packet.write(12, tags[0])?;
    packet.write(16, tags[1])?;
    packet.write(12 + tagged, ethertype)
}

#[inline(always)]
fn answer_v4<P: Packet>(packet: &mut P, job: &Job, fits: u16) -> Option<()> {
    let network = usize::from(job.network) & 0x3f;
    let header = ipv4::HEADER + icmp::HEADER;
    quote(packet, network, 4 * QUOTED, header)?;
    let error = [
        u32::from_ne_bytes([icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED, 0, 0]),
        u32::from(fits.to_be()) << 16,
    ];
    let mut sum = u64::from(error[0]) + u64::from(error[1]);
    sum += packet.sum::<QUOTED>(network + header)?;
    let sum = !checksum::fold(sum);
    let length = (header + 4 * QUOTED) as u16;
    let mut ip = [
        u32::from_ne_bytes([0x45, 0, (length >> 8) as u8, length as u8]),
        0,
        u32::from_ne_bytes([HOPS, icmp::PROTOCOL, 0, 0]),
        job.flow.destination[3],
        job.flow.source[3],
    ];
    ip[2] |= u32::from(checksum::of_words(&ip)) << 16;
    packet.write(network, ip)?;
    let error = [error[0] | u32::from(sum) << 16, error[1]];
    packet.write(network + ipv4::HEADER, error)
}

#[inline(always)]
fn answer_v6<P: Packet>(packet: &mut P, job: &Job, fits: u16) -> Option<()> {
    let network = usize::from(job.network) & 0x3f;
    let header = ipv6::HEADER + icmp::HEADER;
    quote(packet, network, 4 * QUOTED_V6, header)?;
    let (source, destination) = (job.flow.destination, job.flow.source);
    let length = (icmp::HEADER + 4 * QUOTED_V6) as u16;
    let error = [
        u32::from_ne_bytes([icmp::TOO_BIG_V6, 0, 0, 0]),
        u32::from(fits).to_be(),
    ];
    // The pseudo-header (RFC 8200 §8.1): addresses, length, protocol.
    let mut sum = u64::from(error[0])
        + u64::from(error[1])
        + u64::from(u32::from(length).to_be())
        + u64::from(u32::from(icmp::PROTOCOL_V6).to_be());
    for word in 0..4 {
        sum += u64::from(source[word]) + u64::from(destination[word]);
    }
    sum += packet.sum::<QUOTED_V6>(network + header)?;
    let sum = !checksum::fold(sum);
    packet.write(network, u32::from_ne_bytes([0x60, 0, 0, 0]))?;
    let rest = [(length >> 8) as u8, length as u8, icmp::PROTOCOL_V6, HOPS];
    packet.write(network + 4, rest)?;
    packet.write(network + 8, source)?;
    packet.write(network + 24, destination)?;
    let error = [error[0] | u32::from(sum) << 16, error[1]];
    packet.write(network + ipv6::HEADER, error)
}
