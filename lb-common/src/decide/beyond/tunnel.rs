//! Packets in packets: IP in IP (RFC 2003, RFC 2473) and in UDP (GUE, variant 1: no header of its
//! own between UDP and IP).

use crate::{
    decide::Job,
    flow,
    layout::{self, Endpoint, Far, mode},
    packet::Packet,
    verdict::Reason,
    wire::{checksum, ethernet, ipv4, ipv6, udp},
};

/// The hops that an outer packet may take.
const HOPS: u8 = 64;
/// 'Do not fragment', as it lies in memory: path MTU discovery is the clients' (RFC 2003 §5.1).
const DO_NOT_FRAGMENT: u16 = 0x4000_u16.to_be();
/// The source ports of GUE: the dynamic ones (RFC 6335 §6).
const SOURCE_PORTS: u16 = 0xc000;

/// How many bytes an endpoint's packets grow by.
#[inline(always)]
pub(in crate::decide) const fn overhead(to: &Endpoint) -> usize {
    let outer = if to.family == flow::V4 {
        ipv4::HEADER
    } else {
        ipv6::HEADER
    };
    match to.mode {
        mode::IPIP => outer,
        mode::GUE => outer + udp::HEADER,
        _ => 0,
    }
}

/// The IP packet's length, by its own word.
#[inline(always)]
pub(in crate::decide) fn size(job: &Job) -> usize {
    (job.end as usize).wrapping_sub(job.network.into()) & 0xffff
}

/// Puts a packet into another one to its endpoint. The MAC addresses are left to be written.
///
/// # Errors
/// [`Reason::TooBig`], [`Reason::TtlExpired`], [`Reason::NoRoom`], and nothing written.
#[inline(always)]
pub(in crate::decide) fn wrap<P: Packet>(
    packet: &mut P,
    tables: &layout::Tables,
    job: &Job,
    to: &Endpoint,
    far: &Far,
) -> Result<(), Reason> {
    let network = usize::from(job.network) & 0x3f;
    let inner_length = size(job);
    let grown = overhead(to);
    if inner_length + grown > usize::from(to.mtu) {
        return Err(Reason::TooBig);
    }
    let cut = Reason::Truncated;
    let class = hop(packet, job, network)?;
    // The tags, which stay in front.
    let tags: [u32; 2] = [packet.read(12).ok_or(cut)?, packet.read(16).ok_or(cut)?];
    packet.grow(grown).ok_or(Reason::NoRoom)?;
    let outer_is_v4 = to.family == flow::V4;
    // A number with bounds of its own, for the verifier.
    let tagged = network.wrapping_sub(ethernet::HEADER) & 0xc;
    if tagged > 0 {
        packet.write(12, tags[0]).ok_or(cut)?;
        packet.write(16, tags[1]).ok_or(cut)?;
    }
    let ethertype = if outer_is_v4 {
        ethernet::IPV4
    } else {
        ethernet::IPV6
    };
    packet.write(12 + tagged, ethertype.to_be()).ok_or(cut)?;
    let inner = if job.flow.family == flow::V4 { 4 } else { 41 };
    let gue = to.mode == mode::GUE;
    let protocol = if gue { udp::PROTOCOL } else { inner };
    let length = (inner_length + grown) as u16;
    let mut source = far.source;
    source[3] ^= job.hash as u32 & to.entropy;
    let header = if outer_is_v4 {
        let mut words = [
            u32::from_ne_bytes([0x45, class, (length >> 8) as u8, length as u8]),
            // Never fragmented, so its identification means nothing (RFC 6864 §4.1).
            u32::from(DO_NOT_FRAGMENT) << 16,
            u32::from_ne_bytes([HOPS, protocol, 0, 0]),
            source[3],
            far.address[3],
        ];
        words[2] |= u32::from(checksum::of_words(&words)) << 16;
        packet.write(network, words).ok_or(cut)?;
        ipv4::HEADER
    } else {
        let label = job.hash as u32 & 0x000f_ffff;
        let payload = length - ipv6::HEADER as u16;
        let first = 6 << 28 | u32::from(class) << 20 | label;
        packet.write(network, first.to_be()).ok_or(cut)?;
        let rest = [(payload >> 8) as u8, payload as u8, protocol, HOPS];
        packet.write(network + 4, rest).ok_or(cut)?;
        packet.write(network + 8, source).ok_or(cut)?;
        packet.write(network + 24, far.address).ok_or(cut)?;
        ipv6::HEADER
    };
    if gue {
        let from = (job.hash as u16 | SOURCE_PORTS).to_be();
        let length = (inner_length + udp::HEADER) as u16;
        // No checksum: the inner packet has its own (RFC 6935, RFC 6936 for IPv6).
        let words = [
            u32::from(from) | u32::from(tables.header.gue_port) << 16,
            u32::from(length.to_be()),
        ];
        packet.write(network + header, words).ok_or(cut)?;
    }
    Ok(())
}

/// Takes one off the inner packet's hops, and answers its traffic class, which the outer packet
/// takes over whole: DSCP, and ECN as RFC 6040 §4.1 has it.
#[inline(always)]
fn hop<P: Packet>(packet: &mut P, job: &Job, network: usize) -> Result<u8, Reason> {
    let cut = Reason::Truncated;
    if job.flow.family == flow::V4 {
        let ttl: u8 = packet.read(network + 8).ok_or(cut)?;
        if ttl <= 1 {
            return Err(Reason::TtlExpired);
        }
        let checksum: u16 = packet.read(network + 10).ok_or(cut)?;
        let change = checksum::Change::default().one_less();
        packet.write(network + 8, ttl - 1).ok_or(cut)?;
        packet
            .write(network + 10, change.apply(checksum))
            .ok_or(cut)?;
        return packet.read(network + 1).ok_or(cut);
    }
    let hops: u8 = packet.read(network + 7).ok_or(cut)?;
    if hops <= 1 {
        return Err(Reason::TtlExpired);
    }
    packet.write(network + 7, hops - 1).ok_or(cut)?;
    let first: u16 = packet.read(network).ok_or(cut)?;
    Ok((u16::from_be(first) >> 4) as u8)
}
