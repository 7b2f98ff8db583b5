//! Packets from backends, on their way to clients.

use super::{Rewrite, failed, leave, service, track::touch, translate::translate};
use crate::{
    decide::{Job, drop, pass, special},
    flow::{Address, Flow},
    layout::{self, Vip, VipKey, state},
    packet::Packet,
    tables::{Event, Route, World},
    verdict::{Reason, Verdict},
    wire::tcp,
};

/// The place of a key in the table of endpoints.
#[inline(always)]
pub(in crate::decide) fn find<'t>(tables: &'t layout::Tables, key: &VipKey) -> Option<&'t Vip> {
    let [first, second] = tables.header.endpoint_places(key);
    let place = &tables.by_address[first];
    if place.key == *key {
        return Some(place);
    }
    let place = &tables.by_address[second];
    (place.key == *key).then_some(place)
}

/// The endpoint of mode `nat` that has an address and port: its own port before any port.
#[inline(always)]
pub(in crate::decide) fn endpoint_at<'t>(
    tables: &'t layout::Tables,
    address: &Address,
    port: u16,
    protocol: u8,
    family: u8,
) -> Option<&'t Vip> {
    let mut key = VipKey {
        address: *address,
        port,
        protocol,
        family,
    };
    if let Some(place) = find(tables, &key) {
        return Some(place);
    }
    if tables.header.any_port_endpoints == 0 {
        return None;
    }
    key.port = 0;
    find(tables, &key)
}

/// The endpoint of mode `nat` that a packet comes from, and its service.
#[inline(always)]
pub(in crate::decide) fn comes_from(tables: &layout::Tables, flow: &Flow) -> Option<[u16; 2]> {
    if tables.header.nat_endpoints == 0 {
        return None;
    }
    let port = flow.source_port();
    let from = endpoint_at(tables, &flow.source, port, flow.protocol, flow.family)?;
    (from.state == state::ENDPOINT).then_some([from.ring as u16, from.service])
}

/// Restores the VIP in a backend's packet and sends it to its client.
///
/// Where the kernel has to resolve the client's next hop first, or has no way to the client, the
/// stack gets the packet as the client is to see it: nothing of a backend leaves by its own
/// address, whatever the stack's rules make of the packet.
#[inline(always)]
pub fn process<P: Packet, W: World>(
    packet: &mut P,
    world: &W,
    tables: &layout::Tables,
    job: &mut Job,
) -> Verdict {
    let found = if job.place == Job::NO_PLACE {
        from_endpoint(tables, job)
    } else {
        to_pool(world, job)
    };
    match found {
        Ok(()) => send(packet, world, tables, job),
        Err(reason @ Reason::NoEntry) if tables.header.takes_over != 0 => {
            drop(world, layout::HOST_EXITS, reason)
        }
        Err(reason) => pass(world, layout::HOST_EXITS, reason),
    }
}

/// Notes whose a packet is that comes from an endpoint of mode `nat`.
///
/// # Errors
/// Where it comes from nobody in particular.
#[inline(always)]
fn from_endpoint(tables: &layout::Tables, job: &mut Job) -> Result<(), Reason> {
    // The shortest way knows it already, where it came by that.
    if job.endpoint == layout::NONE {
        [job.endpoint, job.service] = comes_from(tables, &job.flow).ok_or(Reason::NoService)?;
    }
    let of = service(tables, job.service);
    job.vip_port = if of.port == 0 {
        job.flow.source_port()
    } else {
        of.port
    };
    job.from = job.flow.destination;
    job.from_port = job.flow.destination_port();
    Ok(())
}

/// Notes whose a packet is that comes to an address which `snat` sends from.
///
/// # Errors
/// Where it is nobody's: the host's own traffic may have one of these addresses too.
#[inline(always)]
fn to_pool<W: World>(world: &W, job: &mut Job) -> Result<(), Reason> {
    let now = world.now();
    let tcp_flags = job.tcp_flags;
    let seen = |e: &mut layout::FlowEntry| {
        touch(e, tcp_flags, now);
        *e
    };
    let flow = &job.key();
    let entry = match world.established(flow, seen) {
        Some(entry) => entry,
        None => world.fresh(flow, seen).ok_or(Reason::NoEntry)?,
    };
    job.service = entry.service;
    job.vip_port = entry.vip_port;
    job.send_as(entry.endpoint, &entry.other, entry.other_port);
    Ok(())
}

/// Rewrites a reply and sends it to its client.
#[inline(always)]
fn send<P: Packet, W: World>(
    packet: &mut P,
    world: &W,
    tables: &layout::Tables,
    job: &mut Job,
) -> Verdict {
    let row = super::row(job.service);
    let rewrite = Rewrite {
        source: service(tables, job.service).address,
        destination: job.from,
        ports: u32::from(job.vip_port) | u32::from(job.from_port) << 16,
    };
    let route = world.route(
        job.flow.family,
        &rewrite.source,
        &rewrite.destination,
        packet.ingress(),
    );
    // The answer to a probe of our own. One that a flow of the pool's has an entry for is none,
    // whatever listens on every address.
    let may_be_own = route == Route::Nowhere && job.place == Job::NO_PLACE;
    if may_be_own && world.awaited(&job.flow) {
        return pass(world, layout::HOST_EXITS, Reason::NoService);
    }
    let bytes = match super::whole(packet, job) {
        Ok(bytes) => bytes,
        Err(reason) => return failed(world, row, reason),
    };
    if let Err(reason) = translate(packet, job, &rewrite) {
        return failed(world, row, reason);
    }
    world.event(job.endpoint, Event::Reply(bytes));
    job.special |= special::REPLY;
    job.from_port = 0;
    if job.tcp_flags & tcp::RST != 0 {
        world.event(job.endpoint, Event::Reset);
    }
    let Route::Over { interface, macs } = route else {
        // The stack resolves the next hop where there is one, and sends what it is given.
        return pass(world, row, Reason::NoRoute);
    };
    leave(packet, interface, macs).unwrap_or_else(|reason| drop(world, row, reason))
}
