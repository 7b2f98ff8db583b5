//! Addresses and ports of a packet, rewritten with their checksums.

use super::OFFSET;
use crate::{
    decide::Job,
    flow::{self, Address},
    layout::{Endpoint, Far, mode},
    packet::Packet,
    verdict::Reason,
    wire::{checksum::Change, tcp, udp},
};

/// What a packet's addresses and ports become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decide) struct Rewrite {
    /// The source address.
    pub(in crate::decide) source: Address,
    /// The destination address.
    pub(in crate::decide) destination: Address,
    /// Both ports, the source in the low half, as they lie in memory.
    pub(in crate::decide) ports: u32,
}

impl Rewrite {
    /// A packet on its way to an endpoint, from the pool's address and port where it has one.
    #[inline(always)]
    pub(super) fn to_endpoint(job: &Job, to: &Endpoint, far: &Far) -> Self {
        let flow = &job.flow;
        let port = if to.port == 0 {
            flow.destination_port()
        } else {
            to.port
        };
        let (source, source_port) = if to.mode == mode::SNAT {
            (job.from, job.from_port)
        } else {
            (flow.source, flow.source_port())
        };
        Self {
            source,
            destination: far.address,
            ports: u32::from(source_port) | u32::from(port) << 16,
        }
    }
}

/// Rewrites addresses and ports, brings the checksums up to date and takes one off the hops.
///
/// # Errors
/// [`Reason::TtlExpired`], and nothing written; [`Reason::Malformed`] for a packet that ends
/// before its transport header does.
#[inline(always)]
pub(super) fn translate<P: Packet>(
    packet: &mut P,
    job: &Job,
    rewrite: &Rewrite,
) -> Result<(), Reason> {
    let transport = usize::from(job.transport) & OFFSET;
    let flow = &job.flow;
    let tcp = flow.protocol == tcp::PROTOCOL;
    let checksum_at = transport + if tcp { tcp::CHECKSUM } else { udp::CHECKSUM };
    let Some(checksum) = packet.read::<u16>(checksum_at) else {
        return Err(Reason::Malformed);
    };
    let addresses = addresses(packet, job, rewrite)?;
    // A datagram over IPv4 may go without (RFC 768).
    if tcp || checksum != 0 {
        let change = addresses.word(flow.ports, rewrite.ports);
        let mut new = change.apply(checksum);
        if !tcp && new == 0 {
            new = 0xffff;
        }
        packet.write(checksum_at, new).ok_or(Reason::Malformed)?;
    }
    packet
        .write(transport, rewrite.ports)
        .ok_or(Reason::Malformed)
}

/// Rewrites the IP header alone, and says what changed for checksums that cover it.
///
/// # Errors
/// [`Reason::TtlExpired`], and nothing written.
#[inline(always)]
pub(in crate::decide) fn addresses<P: Packet>(
    packet: &mut P,
    job: &Job,
    rewrite: &Rewrite,
) -> Result<Change, Reason> {
    let network = usize::from(job.network) & 0x3f;
    let flow = &job.flow;
    let cut = Reason::Truncated;
    if flow.family == flow::V4 {
        let change = Change::default()
            .word(flow.source[3], rewrite.source[3])
            .word(flow.destination[3], rewrite.destination[3]);
        let ttl: u8 = packet.read(network + 8).ok_or(cut)?;
        if ttl <= 1 {
            return Err(Reason::TtlExpired);
        }
        let checksum: u16 = packet.read(network + 10).ok_or(cut)?;
        packet.write(network + 8, ttl - 1).ok_or(cut)?;
        packet
            .write(network + 10, change.one_less().apply(checksum))
            .ok_or(cut)?;
        packet.write(network + 12, rewrite.source[3]).ok_or(cut)?;
        packet
            .write(network + 16, rewrite.destination[3])
            .ok_or(cut)?;
        return Ok(change);
    }
    let hops: u8 = packet.read(network + 7).ok_or(cut)?;
    if hops <= 1 {
        return Err(Reason::TtlExpired);
    }
    packet.write(network + 7, hops - 1).ok_or(cut)?;
    packet.write(network + 8, rewrite.source).ok_or(cut)?;
    packet.write(network + 24, rewrite.destination).ok_or(cut)?;
    Ok(Change::default()
        .words(&flow.source, &rewrite.source)
        .words(&flow.destination, &rewrite.destination))
}
