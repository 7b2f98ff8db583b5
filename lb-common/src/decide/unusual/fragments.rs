//! Fragments: only the first has ports, so the others follow it.

use super::address;
use crate::{
    decide::{
        Job,
        beyond::{self, Rewrite, translate, tunnel},
        drop, pass, special,
    },
    flow::V4,
    layout::{self, FlowEntry, FragmentKey, entry, flag, mode},
    packet::Packet,
    tables::{Event, Route, World},
    verdict::{Reason, Verdict},
};

/// Remembers where a first fragment went, for those that come after it; answers its verdict.
#[inline(always)]
pub fn remember<W: World>(
    world: &W,
    tables: &layout::Tables,
    job: &Job,
    verdict: Verdict,
) -> Verdict {
    if job.leads(verdict.is_sent()) {
        first(world, tables, job);
    }
    verdict
}

/// Remembers where a first fragment went.
#[inline(always)]
pub fn first<W: World>(world: &W, tables: &layout::Tables, job: &Job) {
    let (service, flags) = if job.special & special::REPLY != 0 {
        (job.service, entry::REPLY)
    } else {
        (beyond::vip(tables, job).service, 0)
    };
    let entry = FlowEntry {
        other: job.from,
        other_port: job.from_port,
        endpoint: job.endpoint,
        // The tunnel's entropy, so that all fragments take one way.
        seen: job.hash as u32,
        service,
        flags,
        slot: 0,
        vip_port: 0,
    };
    world.remember_fragment(&key(job), &entry);
}

#[inline(always)]
fn key(job: &Job) -> FragmentKey {
    // Of IPv6, only the first fragment says what follows its headers (RFC 8200 section 4.5): the
    // others name the first of those that were cut up, which may be options.
    let protocol = if job.flow.family == V4 {
        job.flow.protocol
    } else {
        0
    };
    FragmentKey {
        source: job.flow.source,
        destination: job.flow.destination,
        id: job.fragment,
        protocol,
        family: job.flow.family,
        reserved: [0; 2],
    }
}

/// Sends a later fragment where the first one went.
#[inline(always)]
pub fn process<P: Packet, W: World>(
    packet: &mut P,
    world: &W,
    tables: &layout::Tables,
    job: &mut Job,
) -> Verdict {
    let Some(first) = world.fragment(&key(job)) else {
        return unknown(world, tables, job);
    };
    let row = beyond::row(first.service);
    let bytes = beyond::length(packet, job);
    if job.end as usize > bytes {
        return pass(world, row, Reason::Truncated);
    }
    job.hash = first.seen.into();
    let (to, far) = beyond::endpoint(tables, first.endpoint);
    if first.flags & entry::REPLY != 0 {
        return reply(packet, world, tables, job, &first);
    }
    let source = if to.mode == mode::SNAT {
        first.other
    } else {
        job.flow.source
    };
    let way = match to.mode {
        mode::DSR => Ok(()),
        mode::IPIP | mode::GUE => tunnel::wrap(packet, tables.header.gue_port, job, to, far),
        mode::NAT | mode::SNAT if tunnel::size(job) > usize::from(to.mtu) => Err(Reason::TooBig),
        mode::NAT | mode::SNAT => {
            let rewrite = Rewrite {
                source,
                destination: far.address,
                ports: 0,
            };
            translate::addresses(packet, job, &rewrite).map(|_| ())
        }
        _ => Err(Reason::Unresolved),
    };
    match way.and_then(|()| beyond::leave(packet, to.interface, to.macs)) {
        Ok(verdict) => {
            world.forwarded(first.endpoint, bytes, false);
            verdict
        }
        Err(Reason::TooBig) => drop(world, row, Reason::TooBigUntold),
        Err(reason) => beyond::failed(world, row, reason),
    }
}

/// A later fragment of a reply.
#[inline(always)]
fn reply<P: Packet, W: World>(
    packet: &mut P,
    world: &W,
    tables: &layout::Tables,
    job: &Job,
    first: &FlowEntry,
) -> Verdict {
    let rewrite = Rewrite {
        source: beyond::service(tables, first.service).address,
        destination: first.other,
        ports: 0,
    };
    let row = beyond::row(first.service);
    let bytes = beyond::length(packet, job);
    let family = job.flow.family;
    let route = world.route(
        family,
        &rewrite.source,
        &rewrite.destination,
        packet.ingress(),
    );
    if let Err(reason) = translate::addresses(packet, job, &rewrite) {
        return beyond::failed(world, row, reason);
    }
    world.event(first.endpoint, Event::Reply(bytes));
    let Route::Over { interface, macs } = route else {
        return pass(world, row, Reason::NoRoute);
    };
    beyond::leave(packet, interface, macs).unwrap_or_else(|reason| drop(world, row, reason))
}

/// A fragment whose first was not seen: the host's own, or one to a VIP that came too early.
#[inline(always)]
fn unknown<W: World>(world: &W, tables: &layout::Tables, job: &Job) -> Verdict {
    let Some(vip) = address(tables, job) else {
        return pass(world, layout::HOST_EXITS, Reason::Fragment);
    };
    let row = beyond::row(vip.service);
    if vip.flags & flag::PASS_REORDERED != 0 {
        pass(world, row, Reason::FragmentUnknown)
    } else {
        drop(world, row, Reason::FragmentUnknown)
    }
}
