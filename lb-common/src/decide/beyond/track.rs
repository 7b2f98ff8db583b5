//! Just-enough tracking: flows are remembered only where a change of slots could break them.

use super::serves;
use crate::{
    decide::Job,
    flow::Flow,
    layout::{self, FlowEntry, PINNED, Slot, Vip, entry, mode},
    tables::{Tracked, World},
    wire::tcp,
};

/// Entries are written to only so often, in ticks: about a second.
const REFRESH: u32 = 1 << 10;

/// The endpoint of a TCP packet in a slot that is not steady.
#[inline(always)]
pub(super) fn follow<W: World>(
    world: &W,
    tables: &layout::Tables,
    vip: &Vip,
    job: &Job,
    slot: Slot,
) -> u16 {
    let now = world.now();
    let (owner, prior) = (slot.owner(), slot.prior());
    if job.opens() {
        if let Some(endpoint) = before(world, tables, job, now) {
            return endpoint;
        }
        if prior != PINNED {
            world.remember_fresh(&job.key(), &born(vip, job, owner, now));
            world.tracked(Tracked::Fresh);
        }
        return owner;
    }
    if let Some(entry) = known(world, tables, job, now) {
        return entry.endpoint;
    }
    if prior == PINNED {
        return owner;
    }
    let endpoint = if serves(tables, prior) { prior } else { owner };
    establish(world, &job.key(), &born(vip, job, endpoint, now));
    endpoint
}

/// Finds the endpoint of a packet of a service that remembers every flow; the job names its slot's
/// owner.
///
/// Nothing is remembered as an owner's whose next hop is not known: it may be of mode `snat`,
/// whose entries say more. Known flows go on.
#[inline(always)]
pub(super) fn sticky<W: World>(world: &W, tables: &layout::Tables, vip: &Vip, job: &mut Job) {
    let now = world.now();
    if let Some(entry) = known(world, tables, job, now) {
        job.send_as(entry.endpoint, &entry.other, entry.other_port);
        return;
    }
    let owner = job.endpoint;
    if super::endpoint(tables, owner).0.mode != mode::UNRESOLVED {
        world.remember_fresh(&job.key(), &born(vip, job, owner, now));
        world.tracked(Tracked::Fresh);
    }
}

/// A new entry.
#[inline(always)]
pub(super) fn born(vip: &Vip, job: &Job, endpoint: u16, now: u32) -> FlowEntry {
    FlowEntry {
        // Of nobody yet, so zeros, which nothing has to write.
        other: job.from,
        other_port: job.from_port,
        endpoint,
        seen: now,
        service: vip.service,
        flags: closing(job.tcp_flags),
        slot: job.slot,
        vip_port: job.flow.destination_port(),
    }
}

/// The endpoint of a SYN whose flow is known: one that was sent again, or came late.
///
/// It goes where its flow goes, so that nobody who guesses a flow's ports can turn it elsewhere.
/// Where the flow was seen to end, or its backend serves no more, it begins another.
#[inline(always)]
fn before<W: World>(world: &W, tables: &layout::Tables, job: &Job, now: u32) -> Option<u16> {
    let flow = &job.key();
    let old = world.established(flow, |e| {
        touch(e, job.tcp_flags, now);
        (e.endpoint, e.flags)
    });
    if let Some((endpoint, flags)) = old {
        if flags & entry::CLOSING == 0 && serves(tables, endpoint) {
            return Some(endpoint);
        }
        world.forget_established(flow);
    }
    let endpoint = world.fresh(flow, |e| {
        e.seen = now;
        e.endpoint
    })?;
    if serves(tables, endpoint) {
        return Some(endpoint);
    }
    world.forget_fresh(flow);
    None
}

/// What is remembered of a flow that serves, at a packet that need not be its first.
#[inline(always)]
pub(super) fn known<W: World>(
    world: &W,
    tables: &layout::Tables,
    job: &Job,
    now: u32,
) -> Option<FlowEntry> {
    let flow = &job.key();
    let established = world.established(flow, |e| {
        touch(e, job.tcp_flags, now);
        *e
    });
    if let Some(entry) = established
        && serves(tables, entry.endpoint)
    {
        return Some(entry);
    }
    let entry = world.fresh(flow, |e| *e)?;
    if !serves(tables, entry.endpoint) {
        return None;
    }
    let moved = FlowEntry {
        seen: now,
        flags: entry.flags | entry::CONFIRMED | closing(job.tcp_flags),
        ..entry
    };
    if establish(world, flow, &moved) {
        world.forget_fresh(flow);
    }
    Some(moved)
}

/// Remembers a flow that is more than a first packet; whether there was room.
#[inline(always)]
pub(super) fn establish<W: World>(world: &W, flow: &Flow, entry: &FlowEntry) -> bool {
    let room = world.remember_established(flow, entry);
    world.tracked(if room {
        Tracked::Established
    } else {
        Tracked::Refused
    });
    room
}

/// Notes that a packet was seen.
#[inline(always)]
pub(super) fn touch(e: &mut FlowEntry, tcp_flags: u8, now: u32) {
    let flags = e.flags | entry::CONFIRMED | closing(tcp_flags);
    // Written rarely: the entry may lie in another processor's cache.
    if now.wrapping_sub(e.seen) >= REFRESH || flags != e.flags {
        e.seen = now;
        e.flags = flags;
    }
}

/// What the TCP flags say of the flow's end.
#[inline(always)]
pub(super) const fn closing(tcp_flags: u8) -> u16 {
    if tcp_flags & (tcp::FIN | tcp::RST) != 0 {
        entry::CLOSING
    } else {
        0
    }
}
