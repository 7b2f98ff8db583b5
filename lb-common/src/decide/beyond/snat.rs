//! Mode `snat`: every flow has two entries, one for each direction, and a port of its own.
//!
//! Both lie in the table of first packets until the client's second packet comes, then in that of
//! established flows. What claims a port is the entry of the replies: no two flows to the same
//! backend have the same key there.

use super::{
    Choice, endpoint, serves,
    track::{born, closing, establish, touch},
};
use crate::{
    decide::Job,
    flow::{self, Address, Flow},
    layout::{self, Endpoint, Far, FlowEntry, SNAT_ADDRESSES, Vip, entry},
    tables::{Tracked, World},
    verdict::Reason,
    wire::tcp,
};

/// How many ports are tried for a flow.
const TRIES: usize = 8;

/// The endpoint of a packet of a known flow, and what it is sent as.
///
/// # Errors
/// [`Reason::NoEntry`] for a TCP segment that belongs to no flow.
#[inline(always)]
pub(super) fn choose<W: World>(
    world: &W,
    tables: &layout::Tables,
    job: &mut Job,
) -> Result<Choice, Reason> {
    if let Some(entry) = remembered(world, tables, job, world.now()) {
        job.send_as(entry.endpoint, &entry.other, entry.other_port);
        return Ok(Choice::Endpoint);
    }
    if job.flow.protocol == tcp::PROTOCOL && !job.opens() {
        return Err(Reason::NoEntry);
    }
    Ok(Choice::New)
}

/// Finds a port for a new flow to the job's endpoint, and remembers both directions.
///
/// # Errors
/// [`Reason::NoPort`].
#[inline(always)]
pub(super) fn open<W: World>(
    world: &W,
    tables: &layout::Tables,
    vip: &Vip,
    job: &mut Job,
) -> Result<(), Reason> {
    let owner = job.endpoint;
    let (to, far) = endpoint(tables, owner);
    let new = born(vip, job, owner, world.now());
    let (from, port) = claim(world, tables, job, to, far, &new).ok_or(Reason::NoPort)?;
    let forward = FlowEntry {
        other: from,
        other_port: port,
        ..new
    };
    world.remember_fresh(&job.key(), &forward);
    world.tracked(Tracked::Fresh);
    job.send_as(owner, &from, port);
    Ok(())
}

/// What is remembered of a packet's flow.
#[inline(always)]
fn remembered<W: World>(
    world: &W,
    tables: &layout::Tables,
    job: &Job,
    now: u32,
) -> Option<FlowEntry> {
    let flow = &job.key();
    if !job.opens() {
        let before = world.established(flow, |e| {
            touch(e, job.tcp_flags, now);
            *e
        });
        if let Some(entry) = before
            && goes_on(tables, &entry)
        {
            return Some(entry);
        }
        let entry = world.fresh(flow, |e| *e)?;
        if !goes_on(tables, &entry) {
            return None;
        }
        return Some(promote(world, tables, job, flow, &entry, now));
    }
    let old = world.established(flow, |e| {
        touch(e, job.tcp_flags, now);
        *e
    });
    if let Some(old) = old {
        if old.flags & entry::CLOSING == 0 && goes_on(tables, &old) {
            return Some(old);
        }
        // A new connection from the same address and port. The old one keeps its port at the
        // backend until the sweeper takes it, so that the two do not meet.
        world.forget_established(flow);
    }
    let again = world.fresh(flow, |e| {
        e.seen = now;
        *e
    })?;
    goes_on(tables, &again).then_some(again)
}

/// Whether a flow follows its entry: its backend serves, and it has a port. Entries from before the
/// service's mode became `snat` have none.
#[inline(always)]
fn goes_on(tables: &layout::Tables, entry: &FlowEntry) -> bool {
    entry.other_port != 0 && serves(tables, entry.endpoint)
}

/// Moves both entries of a flow to the table of established flows.
///
/// Where that is full, both stay where they are, and the flow goes on.
#[inline(always)]
fn promote<W: World>(
    world: &W,
    tables: &layout::Tables,
    job: &Job,
    flow: &Flow,
    old: &FlowEntry,
    now: u32,
) -> FlowEntry {
    let moved = FlowEntry {
        seen: now,
        flags: old.flags | entry::CONFIRMED | closing(job.tcp_flags),
        ..*old
    };
    let (to, far) = endpoint(tables, old.endpoint);
    let back = replies(job, to, far, old.other, old.other_port);
    let mirror = mirror(job, &moved);
    // The replies' first: a flow without them is no use, and a port must not seem free meanwhile.
    if world.remember_established(&back, &mirror) {
        if establish(world, flow, &moved) {
            world.forget_fresh(flow);
            world.forget_fresh(&back);
        } else {
            world.forget_established(&back);
        }
    } else {
        world.tracked(Tracked::Refused);
    }
    moved
}

/// Finds a port that no flow to this endpoint is sent from, and claims it.
#[inline(always)]
fn claim<W: World>(
    world: &W,
    tables: &layout::Tables,
    job: &Job,
    to: &Endpoint,
    far: &Far,
    new: &FlowEntry,
) -> Option<(Address, u16)> {
    let header = &tables.header;
    let (first, count) = if to.family == flow::V4 {
        (0, header.snat_v4)
    } else {
        (header.snat_v4, header.snat_v6)
    };
    if count == 0 {
        return None;
    }
    for _ in 0..TRIES {
        let next = world.next_port();
        let port = header
            .snat_first_port
            .wrapping_add(next as u16 & header.snat_port_mask);
        // All ports of an address, then the next address: as long as can be until one is used
        // again.
        let nth = first + ((next >> 16) as u16).checked_rem(count)?;
        let from = tables.snat[usize::from(nth) & (SNAT_ADDRESSES - 1)];
        let port = port.to_be();
        let back = replies(job, to, far, from, port);
        if world.claim_fresh(&back, &mirror(job, new)) {
            // Claimed first, asked then: whoever moves on between the two is found here.
            if world.established(&back, |_| ()).is_none() {
                return Some((from, port));
            }
            world.forget_fresh(&back);
        }
        world.tracked(Tracked::Collision);
    }
    None
}

/// The flow of a flow's replies, as they come from the backend.
#[inline(always)]
pub(in crate::decide) fn replies(
    job: &Job,
    to: &Endpoint,
    far: &Far,
    from: Address,
    port: u16,
) -> Flow {
    let at = if to.port == 0 {
        job.flow.destination_port()
    } else {
        to.port
    };
    Flow {
        source: far.address,
        destination: from,
        ports: u32::from(at) | u32::from(port) << 16,
        ..job.flow
    }
}

/// The entry of the replies, from that of the flow.
#[inline(always)]
fn mirror(job: &Job, forward: &FlowEntry) -> FlowEntry {
    FlowEntry {
        other: job.flow.source,
        other_port: job.flow.source_port(),
        flags: forward.flags | entry::REPLY,
        ..*forward
    }
}
