//! The answer to a packet that is too big for its tunnel: 'fragmentation needed' (RFC 1191 §4) or
//! 'packet too big' (RFC 4443 §3.2).

use super::{
    endpoint, row,
    tunnel::{overhead, size},
    vip,
};
use crate::{
    decide::{Job, drop, unusual::echo::swap},
    flow::V4,
    layout,
    packet::Packet,
    tables::World,
    verdict::{Reason, Verdict},
    wire::{checksum, ethernet, icmp, ipv4, ipv6},
};

/// How many words one sum may cover: the kernel's helper takes 512 bytes.
const PART: usize = 128;
/// What is quoted, in such parts and words: as much as an answer of 576 bytes holds (RFC 1812
/// section 4.3.2.3), 548 bytes.
const QUOTED: Quoted = Quoted { parts: 1, words: 9 };
/// Of IPv6: as much as one of 1,280 bytes holds (RFC 4443 section 3.2), 1,232 bytes.
const QUOTED_V6: Quoted = Quoted {
    parts: 2,
    words: 52,
};
/// Of a packet that has less, on a way that takes hardly anything: an IPv4 header with the eight
/// bytes behind it, or an IPv6 header with what may stand behind it and more than a TCP header.
const LEAST: Quoted = Quoted {
    parts: 0,
    words: 17,
};
const LEAST_V6: Quoted = Quoted {
    parts: 0,
    words: 32,
};

/// How much is quoted.
struct Quoted {
    parts: usize,
    words: usize,
}

impl Quoted {
    const fn bytes(&self) -> usize {
        4 * (PART * self.parts + self.words)
    }
}

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
    // Lengths that are known beforehand, for the verifier.
    let size = size(job);
    let told = if job.flow.family == V4 {
        if size >= QUOTED.bytes() {
            answer_v4::<P, { QUOTED.parts }, { QUOTED.words }>(packet, job, fits)
        } else if size >= LEAST.bytes() {
            answer_v4::<P, { LEAST.parts }, { LEAST.words }>(packet, job, fits)
        } else {
            None
        }
    } else if size >= QUOTED_V6.bytes() {
        answer_v6::<P, { QUOTED_V6.parts }, { QUOTED_V6.words }>(packet, job, fits)
    } else if size >= LEAST_V6.bytes() {
        answer_v6::<P, { LEAST_V6.parts }, { LEAST_V6.words }>(packet, job, fits)
    } else {
        None
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

/// Adds up what is quoted.
#[inline(always)]
fn sum<P: Packet, const PARTS: usize, const WORDS: usize>(packet: &P, at: usize) -> Option<u64> {
    let mut sum = packet.sum::<WORDS>(at + 4 * PART * PARTS)?;
    // Written out: the offsets are to be constants.
    if PARTS > 0 {
        sum += packet.sum::<PART>(at)?;
    }
    if PARTS > 1 {
        sum += packet.sum::<PART>(at + 4 * PART)?;
    }
    Some(sum)
}

#[inline(always)]
fn answer_v4<P: Packet, const PARTS: usize, const WORDS: usize>(
    packet: &mut P,
    job: &Job,
    fits: u16,
) -> Option<()> {
    let network = usize::from(job.network) & 0x3f;
    let header = ipv4::HEADER + icmp::HEADER;
    let quoted = 4 * (PART * PARTS + WORDS);
    quote(packet, network, quoted, header)?;
    let error = [
        u32::from_ne_bytes([icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED, 0, 0]),
        u32::from(fits.to_be()) << 16,
    ];
    let mut all = u64::from(error[0]) + u64::from(error[1]);
    all += sum::<P, PARTS, WORDS>(packet, network + header)?;
    let sum = !checksum::fold(all);
    let length = (header + quoted) as u16;
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
fn answer_v6<P: Packet, const PARTS: usize, const WORDS: usize>(
    packet: &mut P,
    job: &Job,
    fits: u16,
) -> Option<()> {
    let network = usize::from(job.network) & 0x3f;
    let header = ipv6::HEADER + icmp::HEADER;
    let quoted = 4 * (PART * PARTS + WORDS);
    quote(packet, network, quoted, header)?;
    let (source, destination) = (job.flow.destination, job.flow.source);
    let length = (icmp::HEADER + quoted) as u16;
    let error = [
        u32::from_ne_bytes([icmp::TOO_BIG_V6, 0, 0, 0]),
        u32::from(fits).to_be(),
    ];
    // The pseudo-header (RFC 8200 §8.1): addresses, length, protocol.
    let mut all = u64::from(error[0])
        + u64::from(error[1])
        + u64::from(u32::from(length).to_be())
        + u64::from(u32::from(icmp::PROTOCOL_V6).to_be());
    for word in 0..4 {
        all += u64::from(source[word]) + u64::from(destination[word]);
    }
    all += sum::<P, PARTS, WORDS>(packet, network + header)?;
    let sum = !checksum::fold(all);
    packet.write(network, u32::from_ne_bytes([0x60, 0, 0, 0]))?;
    let rest = [(length >> 8) as u8, length as u8, icmp::PROTOCOL_V6, HOPS];
    packet.write(network + 4, rest)?;
    packet.write(network + 8, source)?;
    packet.write(network + 24, destination)?;
    let error = [error[0] | u32::from(sum) << 16, error[1]];
    packet.write(network + ipv6::HEADER, error)
}
