//! The way of a packet whose service or backend takes more than a look at the ring.

pub mod reply;
pub mod too_big;

pub(in crate::decide) mod choose;
mod snat;
mod track;
pub(in crate::decide) mod translate;
pub(in crate::decide) mod tunnel;

use bytemuck::Zeroable as _;

use super::{Job, Plain, Sent, count, drop, measure, pass, unusual::fragments};
use crate::{
    flow,
    layout::{self, ENDPOINTS, Endpoint, Far, SERVICES, VIP_PLACES, Vip, flag, mode, state},
    packet::Packet,
    tables::World,
    verdict::{Reason, Verdict},
    wire::{ethernet, ipv4, udp},
};

pub(in crate::decide) use self::{snat::replies, translate::Rewrite};

/// Decides a packet's fate, rewrites it for its backend where it has one, and counts it.
#[inline(always)]
pub fn process<P: Packet, W: World>(
    packet: &mut P,
    world: &W,
    tables: &layout::Tables,
    job: &mut Job,
) -> Verdict {
    if is_reply(tables, job) {
        let verdict = reply::process(packet, world, tables, job);
        if verdict.is_sent() && measure::measures_reply(tables, job) {
            measure::answered(packet, world, job);
        }
        return fragments::remember(world, tables, job, verdict);
    }
    let mut choice = choose(packet, world, tables, job);
    if choice == Choice::Remembered {
        choice = snat(world, tables, job);
    }
    if choice == Choice::New {
        choice = open(world, tables, job);
    }
    if let Choice::Nobody(verdict) = choice {
        return verdict;
    }
    if measure::measures(tables, job) {
        measure::sent(packet, world, tables, job);
    }
    send_or_tell(packet, world, tables, job)
}

/// Sends a packet to the endpoint that was picked, or tells its sender that it is too big.
#[inline(always)]
pub fn send_or_tell<P: Packet, W: World>(
    packet: &mut P,
    world: &W,
    tables: &layout::Tables,
    job: &Job,
) -> Verdict {
    match send(packet, world, tables, job) {
        Some(verdict) => fragments::remember(world, tables, job, verdict),
        None => too_big::tell(packet, world, tables, job),
    }
}

/// Who gets a packet.
#[must_use = "a verdict that nobody carries out lets the packet go astray"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The job's endpoint.
    Endpoint,
    /// The endpoint of its flow in mode `snat`: [`snat`] finds it.
    Remembered,
    /// The job's endpoint, and its flow in mode `snat` is new: [`open`] finds it a port.
    New,
    /// None.
    Nobody(Verdict),
}

/// Whether a packet comes from a backend rather than from a client.
#[inline(always)]
pub fn is_reply(tables: &layout::Tables, job: &Job) -> bool {
    job.place == Job::NO_PLACE || vip(tables, job).state == state::POOL
}

/// Picks the endpoint of a client's packet; answers a verdict where it goes to none.
#[inline(always)]
pub fn choose<P: Packet, W: World>(
    packet: &P,
    world: &W,
    tables: &layout::Tables,
    job: &mut Job,
) -> Choice {
    let vip = vip(tables, job);
    let row = row(vip.service);
    match vip.state {
        state::SERVING => {}
        state::EMPTY_DROP => return Choice::Nobody(drop(world, row, Reason::NoBackendDropped)),
        state::EMPTY_PASS => return Choice::Nobody(pass(world, row, Reason::NoBackendPassed)),
        _ => return Choice::Nobody(pass(world, row, Reason::BadTables)),
    }
    match choose::choose(packet, world, tables, vip, job) {
        Ok(choice) => choice,
        Err(reason @ Reason::BadTables) => Choice::Nobody(pass(world, row, reason)),
        Err(reason @ Reason::FragmentUnknown) if vip.flags & flag::PASS_REORDERED != 0 => {
            Choice::Nobody(pass(world, row, reason))
        }
        Err(reason) => Choice::Nobody(drop(world, row, reason)),
    }
}

/// Finds the endpoint of a packet in mode `snat`, whose slot's owner the job names.
#[inline(always)]
pub fn snat<W: World>(world: &W, tables: &layout::Tables, job: &mut Job) -> Choice {
    let vip = vip(tables, job);
    match snat::choose(world, tables, job) {
        Ok(choice) => choice,
        Err(reason) => Choice::Nobody(drop(world, row(vip.service), reason)),
    }
}

/// Finds a port for a new flow in mode `snat`, and remembers both.
#[inline(always)]
pub fn open<W: World>(world: &W, tables: &layout::Tables, job: &mut Job) -> Choice {
    let vip = vip(tables, job);
    match snat::open(world, tables, vip, job) {
        Ok(()) => Choice::Endpoint,
        Err(reason) => Choice::Nobody(drop(world, row(vip.service), reason)),
    }
}

/// Sends a packet to the endpoint that was picked; `None` where it is too big for that, and
/// [`too_big::tell`] is to tell its sender.
#[inline(always)]
pub fn send<P: Packet, W: World>(
    packet: &mut P,
    world: &W,
    tables: &layout::Tables,
    job: &Job,
) -> Option<Verdict> {
    match try_send(packet, world, tables, job) {
        Ok(verdict) => Some(verdict),
        Err(Reason::TooBig) => None,
        Err(reason) => {
            let of = vip(tables, job).service;
            Some(failed(world, row(of), reason))
        }
    }
}

/// The same, with nothing counted where it fails.
///
/// # Errors
/// Why it could not be sent; nothing is written but with [`Reason::NoRoom`].
#[inline(always)]
fn try_send<P: Packet, W: World>(
    packet: &mut P,
    world: &W,
    tables: &layout::Tables,
    job: &Job,
) -> Result<Verdict, Reason> {
    let bytes = whole(packet, job)?;
    let (to, far) = endpoint(tables, job.endpoint);
    let transport = usize::from(job.transport) & OFFSET;
    let (flags, source) = (job.tcp_flags, &job.flow.source);
    let sent = Sent::new(packet, transport, flags, (job.hash, job.slot), source);
    let way = match to.mode {
        mode::DSR => Ok(()),
        mode::IPIP | mode::GUE => tunnel::wrap(packet, tables.header.gue_port, job, to, far),
        // Nothing says what it is sent from: an endpoint of mode `snat` in a service that is not.
        mode::SNAT if job.from_port == 0 => Err(Reason::BadTables),
        mode::NAT | mode::SNAT if tunnel::size(job) > usize::from(to.mtu) => Err(Reason::TooBig),
        mode::NAT | mode::SNAT => {
            translate::translate(packet, job, &Rewrite::to_endpoint(job, to, far))
        }
        _ => Err(Reason::Unresolved),
    };
    let verdict = way.and_then(|()| leave(packet, to.interface, to.macs))?;
    count(world, job.endpoint, &sent, bytes);
    Ok(verdict)
}

/// Sends a packet to its endpoint of which there is nothing else to know; `None` where it could
/// not, and nothing is written: [`send`] says why.
#[inline(always)]
pub fn forward<P: Packet, W: World>(
    packet: &mut P,
    world: &W,
    tables: &layout::Tables,
    plain: Plain,
) -> Option<Verdict> {
    const AT: usize = ethernet::HEADER;
    const TO: usize = AT + ipv4::HEADER;
    // Written out for what most packets are: with the offsets known, little is left to compute.
    if plain.family == flow::V4 && usize::from(plain.network) == AT {
        let plain = Plain {
            family: flow::V4,
            network: AT as u8,
            transport: TO as u16,
            ..plain
        };
        return send_plain(packet, world, tables, &plain, [AT, TO]);
    }
    let at = [
        usize::from(plain.network) & 0x3f,
        usize::from(plain.transport) & OFFSET,
    ];
    send_plain(packet, world, tables, &plain, at)
}

/// The same, where the headers begin at these offsets.
#[inline(always)]
fn send_plain<P: Packet, W: World>(
    packet: &mut P,
    world: &W,
    tables: &layout::Tables,
    plain: &Plain,
    at: [usize; 2],
) -> Option<Verdict> {
    let flow = flow::again(packet, at, plain.protocol, plain.family)?;
    // It stays in registers, as far as it is looked at.
    let job = Job {
        flow,
        hash: plain.hash,
        place: plain.place,
        network: plain.network.into(),
        transport: plain.transport,
        end: plain.end,
        tcp_flags: plain.tcp_flags,
        endpoint: plain.endpoint,
        ..Job::zeroed()
    };
    match try_send(packet, world, tables, &job) {
        Ok(verdict) => Some(verdict),
        Err(reason @ Reason::NoRoom) => {
            let of = vip(tables, &job).service;
            Some(drop(world, row(of), reason))
        }
        Err(_) => None,
    }
}

/// The length of a frame that holds all of its packet.
///
/// # Errors
/// [`Reason::Truncated`]; [`Reason::Malformed`] for a packet that ends within its own headers, and
/// would come out of a tunnel as another one.
#[inline(always)]
pub(in crate::decide) fn whole<P: Packet>(packet: &P, job: &Job) -> Result<usize, Reason> {
    let bytes = length(packet, job);
    if job.end as usize > bytes {
        return Err(Reason::Truncated);
    }
    if (job.end as usize) < usize::from(job.transport) + udp::HEADER {
        return Err(Reason::Malformed);
    }
    Ok(bytes)
}

/// A packet that could not be sent on: dropped where it may have been touched or makes no sense,
/// up the stack otherwise.
#[inline(always)]
pub(in crate::decide) fn failed<W: World>(world: &W, row: u32, reason: Reason) -> Verdict {
    match reason {
        Reason::Malformed | Reason::NoRoom => drop(world, row, reason),
        _ => pass(world, row, reason),
    }
}

/// The VIP of a packet that has one.
#[inline(always)]
pub(in crate::decide) fn vip<'t>(tables: &'t layout::Tables, job: &Job) -> &'t Vip {
    &tables.vips[job.place as usize & (VIP_PLACES - 1)]
}

/// The frame's length. Only one that is spread over several buffers is asked for it.
#[inline(always)]
pub(in crate::decide) fn length<P: Packet>(packet: &P, job: &Job) -> usize {
    let first = packet.length();
    if job.end as usize > first {
        packet.full_length()
    } else {
        first
    }
}

/// The row of a service's exits.
#[inline(always)]
pub(in crate::decide) const fn row(service: u16) -> u32 {
    service as u32 + 1
}

/// An endpoint's records.
#[inline(always)]
pub(in crate::decide) fn endpoint(tables: &layout::Tables, number: u16) -> (&Endpoint, &Far) {
    let number = usize::from(number) & (ENDPOINTS - 1);
    (&tables.endpoints[number], &tables.fars[number])
}

/// A service's record.
#[inline(always)]
pub(in crate::decide) fn service(tables: &layout::Tables, number: u16) -> &layout::Service {
    &tables.services[usize::from(number) & (SERVICES - 1)]
}

/// Whether flows that are remembered as an endpoint's may still go to it.
#[inline(always)]
pub(in crate::decide) fn serves(tables: &layout::Tables, number: u16) -> bool {
    endpoint(tables, number).0.serves != 0
}

/// Offsets are masked with this, so that the verifier knows their bounds: up to eight bytes of
/// tags, sixty of IPv4 or three hundred of IPv6.
pub(crate) const OFFSET: usize = 0x1ff;

/// Puts the MAC addresses in place, and says by which interface the frame leaves.
#[inline(always)]
pub(in crate::decide) fn leave<P: Packet>(
    packet: &mut P,
    interface: u32,
    macs: [u32; 3],
) -> Result<Verdict, Reason> {
    packet.write(0, macs).ok_or(Reason::Truncated)?;
    Ok(if interface == packet.ingress() {
        Verdict::Transmit
    } else {
        Verdict::Redirect(interface)
    })
}
