//! Which endpoint a packet goes to.

use super::{Choice, serves, service, track};
use crate::{
    decide::{Job, special, upper},
    flow::{self, Flow},
    hash,
    layout::{
        self, Allowance, LimitKey, SourceKey, TICK_NS, Vip, VipKey, family, flag, mode, spread,
    },
    packet::Packet,
    tables::World,
    verdict::Reason,
    wire::{quic, tcp, udp},
};

/// Picks the endpoint of a packet of a service that has a ring.
///
/// # Errors
/// Why it goes nowhere.
#[inline(always)]
pub(super) fn choose<P: Packet, W: World>(
    packet: &P,
    world: &W,
    tables: &layout::Tables,
    vip: &Vip,
    job: &mut Job,
) -> Result<Choice, Reason> {
    if vip.flags & flag::SOURCES != 0 {
        listed(world, tables, vip, &job.flow)?;
    }
    // Before it is taken off what the source may open.
    if job.special & special::FIRST_FRAGMENT != 0 && vip.flags & flag::NO_FRAGMENTS != 0 {
        return Err(Reason::FragmentUnknown);
    }
    if vip.flags & flag::LIMIT != 0 && job.opens() {
        limited(world, tables, vip, &job.flow)?;
    }
    let hash = spread_hash(tables, vip, &job.flow, job.hash);
    job.slot = hash as u16 & vip.slot_mask;
    if vip.flags & flag::QUIC != 0
        && let Some(endpoint) = by_connection_id(packet, tables, vip, job)
    {
        job.endpoint = endpoint;
        return Ok(match super::endpoint(tables, endpoint).0.mode {
            // The ID says whose it is, but not what it is sent from.
            mode::SNAT => Choice::Remembered,
            _ => Choice::Endpoint,
        });
    }
    let slot = world.slot(vip, hash).ok_or(Reason::BadTables)?;
    job.endpoint = slot.owner();
    if vip.flags & flag::REMEMBER != 0 {
        let mode = super::endpoint(tables, slot.owner()).0.mode;
        // TCP is remembered in mode `snat` alone, also while the owner's next hop is not known.
        if mode == mode::SNAT || job.flow.protocol == tcp::PROTOCOL {
            return Ok(Choice::Remembered);
        }
        track::sticky(world, tables, vip, job);
    } else if job.flow.protocol == tcp::PROTOCOL && !slot.is_steady() {
        job.endpoint = track::follow(world, tables, vip, job, slot);
    }
    Ok(Choice::Endpoint)
}

/// The hash that picks a flow's slot.
#[inline(always)]
pub(in crate::decide) fn spread_hash(
    tables: &layout::Tables,
    vip: &Vip,
    flow: &Flow,
    hash: u64,
) -> u32 {
    match vip.spread {
        spread::FLOW => upper(hash),
        other => upper(hash::flow(
            &spread_by(flow, other),
            &tables.header.flow_keys,
        )),
    }
}

/// The part of a flow that picks its slot.
#[inline(always)]
fn spread_by(flow: &Flow, by: u8) -> Flow {
    match by {
        spread::SOURCE => Flow { ports: 0, ..*flow },
        _ => Flow {
            source: [0; 4],
            ports: flow.ports & 0xffff_0000,
            ..*flow
        },
    }
}

/// Refuses a source that the service's list does not allow.
#[inline(always)]
fn listed<W: World>(
    world: &W,
    tables: &layout::Tables,
    vip: &Vip,
    flow: &Flow,
) -> Result<(), Reason> {
    let (address, bits) = if flow.family == flow::V4 {
        ([flow.source[3], 0, 0, 0], 32)
    } else {
        (flow.source, 128)
    };
    let key = SourceKey {
        prefix: 64 + bits,
        list: service(tables, vip.service).sources,
        family: flow.family.into(),
        address,
    };
    let allowed = match world.listed(&key) {
        Some(allowed) => allowed != 0,
        None => vip.flags & flag::DENY_OTHERS == 0,
    };
    if allowed { Ok(()) } else { Err(Reason::Denied) }
}

/// A connection in the unit of [`Allowance::left`].
const CONNECTION: u32 = 1024;

/// Takes one connection off a source's allowance: a token bucket.
#[inline(always)]
fn limited<W: World>(
    world: &W,
    tables: &layout::Tables,
    vip: &Vip,
    flow: &Flow,
) -> Result<(), Reason> {
    let limits = service(tables, vip.service);
    let (now, rate) = (world.now(), u64::from(limits.rate));
    let full = limits.burst.saturating_mul(CONNECTION);
    let source = if flow.family == flow::V4 {
        flow.source
    } else {
        [flow.source[0], flow.source[1], 0, 0]
    };
    let key = LimitKey {
        source,
        service: vip.service.into(),
    };
    let first = Allowance {
        filled: now,
        left: full,
    };
    let taken = world.allowance(&key, first, |allowance| {
        let ticks = u64::from(now.wrapping_sub(allowance.filled));
        // What a tick brings at one connection a second, in thousandths of the unit.
        let earned = ticks * rate * (u64::from(CONNECTION) * TICK_NS / 1_000_000) / 1000;
        let left = (u64::from(allowance.left) + earned).min(full.into()) as u32;
        let enough = left >= CONNECTION;
        allowance.filled = now;
        allowance.left = if enough { left - CONNECTION } else { left };
        enough
    });
    // A source that cannot be remembered is not punished for it.
    if taken.unwrap_or(true) {
        Ok(())
    } else {
        Err(Reason::Limited)
    }
}

/// The endpoint that a QUIC packet's connection ID names, while it serves.
#[inline(always)]
fn by_connection_id<P: Packet>(
    packet: &P,
    tables: &layout::Tables,
    vip: &Vip,
    job: &Job,
) -> Option<u16> {
    let length = service(tables, vip.service).server_id;
    let at = (usize::from(job.transport) & super::OFFSET) + udp::HEADER;
    let key = VipKey {
        address: quic::server_id(packet, at, length)?,
        port: vip.service,
        protocol: length,
        family: family::QUIC,
    };
    let endpoint = super::reply::find(tables, &key)?.ring as u16;
    serves(tables, endpoint).then_some(endpoint)
}
