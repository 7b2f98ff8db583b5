//! The way of a packet whose service or backend takes more than a look at the ring.

mod choose;
mod reply;
mod snat;
mod track;
mod translate;
mod tunnel;

use super::{Job, Sent, count, drop, pass};
use crate::{
    flow::Address,
    layout::{self, ENDPOINTS, Endpoint, Far, SERVICES, VIP_PLACES, Vip, mode, state},
    packet::Packet,
    tables::World,
    verdict::{Reason, Verdict},
};

use self::translate::Rewrite;

/// Where a packet goes, and as whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Choice {
    /// The endpoint's number.
    endpoint: u16,
    /// The address and port that mode `snat` sends from.
    from: Option<(Address, u16)>,
}

impl Choice {
    #[inline(always)]
    const fn endpoint(endpoint: u16) -> Self {
        Self {
            endpoint,
            from: None,
        }
    }
}

/// Decides a packet's fate, rewrites it for its backend where it has one, and counts it.
#[inline(always)]
pub fn process<P: Packet, W: World>(
    packet: &mut P,
    world: &W,
    tables: &layout::Tables,
    job: &Job,
) -> Verdict {
    if job.end as usize > packet.full_length() {
        return pass(world, layout::HOST_EXITS, Reason::Truncated);
    }
    if job.place == Job::NO_PLACE {
        return reply::from_endpoint(packet, world, tables, job);
    }
    let vip = &tables.vips[job.place as usize & (VIP_PLACES - 1)];
    let row = row(vip.service);
    match vip.state {
        state::SERVING => {}
        state::POOL => return reply::to_pool(packet, world, tables, job),
        state::EMPTY_DROP => return drop(world, row, Reason::NoBackendDropped),
        state::EMPTY_PASS => return pass(world, row, Reason::NoBackendPassed),
        _ => return pass(world, row, Reason::BadTables),
    }
    match choose::choose(packet, world, tables, vip, job) {
        Ok(choice) => emit(packet, world, tables, vip, job, choice),
        Err(reason @ Reason::BadTables) => pass(world, row, reason),
        Err(reason) => drop(world, row, reason),
    }
}

/// The row of a service's exits.
#[inline(always)]
const fn row(service: u16) -> u32 {
    service as u32 + 1
}

/// An endpoint's records.
#[inline(always)]
fn endpoint(tables: &layout::Tables, number: u16) -> (&Endpoint, &Far) {
    let number = usize::from(number) & (ENDPOINTS - 1);
    (&tables.endpoints[number], &tables.fars[number])
}

/// A service's record.
#[inline(always)]
fn service(tables: &layout::Tables, number: u16) -> &layout::Service {
    &tables.services[usize::from(number) & (SERVICES - 1)]
}

/// Whether flows that are remembered as an endpoint's may still go to it.
#[inline(always)]
fn serves(tables: &layout::Tables, number: u16) -> bool {
    endpoint(tables, number).0.serves != 0
}

/// Sends a packet to its endpoint.
#[inline(always)]
fn emit<P: Packet, W: World>(
    packet: &mut P,
    world: &W,
    tables: &layout::Tables,
    vip: &Vip,
    job: &Job,
    choice: Choice,
) -> Verdict {
    let (to, far) = endpoint(tables, choice.endpoint);
    let sent = Sent {
        hash: job.hash,
        transport: usize::from(job.transport) & OFFSET,
        tcp_flags: job.tcp_flags,
    };
    let bytes = packet.full_length();
    let way = match to.mode {
        mode::DSR => Ok(()),
        mode::IPIP | mode::GUE => tunnel::wrap(packet, tables, job, to, far),
        mode::NAT | mode::SNAT => {
            let rewrite = Rewrite::to_endpoint(job, to, far, choice.from);
            translate::translate(packet, job, &rewrite)
        }
        _ => Err(Reason::Unresolved),
    };
    let done = way.and_then(|()| leave(packet, to.interface, to.macs));
    match done {
        Ok(verdict) => {
            // A tunnel has moved the TCP header; only a SYN is read again.
            let sent = Sent {
                transport: sent.transport + (packet.full_length() - bytes),
                ..sent
            };
            count(packet, world, choice.endpoint, &sent, bytes);
            verdict
        }
        Err(reason @ (Reason::Malformed | Reason::NoRoom)) => drop(world, row(vip.service), reason),
        Err(reason) => pass(world, row(vip.service), reason),
    }
}

/// Offsets are masked with this, so that the verifier knows their bounds: up to eight bytes of
/// tags, sixty of IPv4 or three hundred of IPv6.
pub(crate) const OFFSET: usize = 0x1ff;

/// Puts the MAC addresses in place, and says by which interface the frame leaves.
#[inline(always)]
fn leave<P: Packet>(packet: &mut P, interface: u32, macs: [u32; 3]) -> Result<Verdict, Reason> {
    packet.write(0, macs).ok_or(Reason::Truncated)?;
    Ok(if interface == packet.ingress() {
        Verdict::Transmit
    } else {
        Verdict::Redirect(interface)
    })
}
