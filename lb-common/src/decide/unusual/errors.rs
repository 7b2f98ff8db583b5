//! ICMP errors, handed on to the end whose packet they quote.
//!
//! An error about a packet to a client is addressed to the VIP, and belongs to the backend that
//! has the flow. One about a packet to a backend is addressed to the client (mode `nat`) or to the
//! pool (`snat`), and belongs to the client. Under NAT, what is quoted is what the receiver sent,
//! not what became of it.

use super::address;
use crate::{
    decide::{
        Job,
        beyond::{self, OFFSET, Rewrite, reply::endpoint_at, translate, tunnel},
        drop, pass, service,
    },
    flow::{Address, V4},
    hash,
    layout::{self, NONE, PINNED, VIP_PLACES, entry, flag, mode, state},
    packet::Packet,
    tables::{Route, World},
    verdict::{Reason, Verdict},
    wire::{checksum::Change, icmp, ipv4, ipv6, tcp, udp},
};

/// Notes what an error quotes, where it is sound and comes to whoever sent that.
///
/// # Errors
/// What is counted otherwise.
#[inline(always)]
fn read<P: Packet>(packet: &P, job: &mut Job, unrelated: Reason) -> Result<(), Reason> {
    if job.end as usize > beyond::length(packet, job) {
        return Err(Reason::Truncated);
    }
    quoted(packet, job).ok_or(unrelated)?;
    if job.quoted.source == job.flow.destination {
        Ok(())
    } else {
        Err(unrelated)
    }
}

/// Where the packet that an error quotes begins.
#[inline(always)]
fn quoted_at(job: &Job) -> usize {
    (usize::from(job.transport) & OFFSET) + icmp::HEADER
}

/// Reads what an error quotes: eight bytes behind the IP header suffice.
#[inline(always)]
fn quoted<P: Packet>(packet: &P, job: &mut Job) -> Option<()> {
    let at = quoted_at(job);
    let transport;
    if job.flow.family == V4 {
        let [version, _, _, _]: [u8; 4] = packet.read(at)?;
        let [_, place]: [u16; 2] = packet.read(at + 4)?;
        let [_, inner, _, _]: [u8; 4] = packet.read(at + 8)?;
        let words = usize::from(version & 0xf);
        if version >> 4 != 4 || words < ipv4::HEADER / 4 || u16::from_be(place) & ipv4::OFFSET != 0
        {
            return None;
        }
        job.quoted.source = [0, 0, 0, packet.read(at + 12)?];
        job.quoted.destination = [0, 0, 0, packet.read(at + 16)?];
        job.quoted.protocol = inner;
        transport = at + 4 * words;
    } else {
        let [version, _]: [u8; 2] = packet.read(at)?;
        let [inner, _]: [u8; 2] = packet.read(at + 6)?;
        if version >> 4 != 6 {
            return None;
        }
        job.quoted.source = words(packet, at + 8)?;
        job.quoted.destination = words(packet, at + 24)?;
        job.quoted.protocol = inner;
        transport = at + ipv6::HEADER;
    }
    if !matches!(job.quoted.protocol, tcp::PROTOCOL | udp::PROTOCOL) {
        return None;
    }
    let [ports, _]: [u32; 2] = packet.read(transport)?;
    // What the frame was padded with is not quoted.
    if transport + udp::HEADER > job.end as usize {
        return None;
    }
    job.quoted.ports = ports;
    job.quoted.family = job.flow.family;
    job.quoted.reserved = [0; 2];
    job.quoted_transport = transport as u16;
    Some(())
}

/// An address of IPv6, word by word: at once it would go from memory to memory, by a function that
/// goes byte by byte and has a stack of its own.
#[inline(always)]
fn words<P: Packet>(packet: &P, at: usize) -> Option<Address> {
    Some([
        packet.read(at)?,
        packet.read(at + 4)?,
        packet.read(at + 8)?,
        packet.read(at + 12)?,
    ])
}

/// Finds the endpoint whose packet to a client an error is about, which is addressed to a VIP, and
/// notes it in the job.
///
/// Nothing is remembered: an error can be made up by anybody.
#[inline(always)]
pub fn owner<P: Packet, W: World>(
    packet: &P,
    world: &W,
    tables: &layout::Tables,
    job: &mut Job,
) -> Option<Verdict> {
    let row = address(tables, job).map_or(layout::HOST_EXITS, |vip| beyond::row(vip.service));
    if let Err(reason) = read(packet, job, Reason::IcmpUnrelated) {
        return Some(pass(world, row, reason));
    }
    let flow = job.quoted.reversed();
    let Some(place) = service(tables, &flow) else {
        return Some(pass(world, row, Reason::IcmpUnrelated));
    };
    let vip = &tables.vips[place & (VIP_PLACES - 1)];
    let row = beyond::row(vip.service);
    if vip.state != state::SERVING {
        return Some(pass(world, row, Reason::IcmpUnrelated));
    }
    job.service = vip.service;
    job.hash = hash::flow(&flow, &tables.header.flow_keys);
    let hash = beyond::choose::spread_hash(tables, vip, &flow, job.hash);
    let Some(slot) = world.slot(vip, hash) else {
        return Some(pass(world, row, Reason::BadTables));
    };
    let remembers = vip.flags & flag::REMEMBER != 0;
    let known = if remembers || !slot.is_steady() {
        match world.established(&flow, |e| *e) {
            Some(entry) => Some(entry),
            None => world.fresh(&flow, |e| *e),
        }
    } else {
        None
    };
    if let Some(entry) = known
        && beyond::serves(tables, entry.endpoint)
    {
        job.send_as(entry.endpoint, &entry.other, entry.other_port);
    } else {
        job.endpoint = slot.owner();
        let prior = slot.prior();
        let unremembered = flow.protocol == tcp::PROTOCOL && prior != NONE && prior != PINNED;
        if unremembered && beyond::serves(tables, prior) {
            job.endpoint = prior;
        }
    }
    // Without an entry nobody knows what its packets are sent from: also where the owner's next hop
    // is not known, and the prior is of mode `snat`. Nor does an entry from before it was.
    if beyond::endpoint(tables, job.endpoint).0.mode == mode::SNAT && job.from_port == 0 {
        return Some(drop(world, row, Reason::IcmpUnrelated));
    }
    None
}

/// Hands an error on to the endpoint that the job names.
#[inline(always)]
pub fn to_backend<P: Packet, W: World>(
    packet: &mut P,
    world: &W,
    tables: &layout::Tables,
    job: &Job,
) -> Verdict {
    let row = beyond::row(job.service);
    let flow = &job.quoted;
    let bytes = beyond::length(packet, job);
    let (to, far) = beyond::endpoint(tables, job.endpoint);
    let way = match to.mode {
        mode::DSR => Ok(()),
        mode::IPIP | mode::GUE => tunnel::wrap(packet, tables, job, to, far),
        mode::NAT | mode::SNAT => {
            // The quoted packet went from the VIP to the client.
            let port = if to.port == 0 {
                flow.source_port()
            } else {
                to.port
            };
            let (peer, peer_port) = if to.mode == mode::SNAT {
                (job.from, job.from_port)
            } else {
                (flow.destination, flow.destination_port())
            };
            let outer = Rewrite {
                source: job.flow.source,
                destination: far.address,
                ports: 0,
            };
            let inner = Rewrite {
                source: far.address,
                destination: peer,
                ports: u32::from(port) | u32::from(peer_port) << 16,
            };
            rewrite(packet, job, &outer, &inner)
        }
        _ => Err(Reason::Unresolved),
    };
    match way.and_then(|()| beyond::leave(packet, to.interface, to.macs)) {
        Ok(verdict) => {
            world.exit(row, Reason::Related);
            world.forwarded(job.endpoint, bytes, false);
            verdict
        }
        Err(Reason::TooBig) => drop(world, row, Reason::TooBigUntold),
        Err(reason) => beyond::failed(world, row, reason),
    }
}

/// Finds out whose the packet to a backend was that an error is about, and notes it in the job;
/// passes an error that is nobody's here.
#[inline(always)]
pub fn about<P: Packet, W: World>(
    packet: &P,
    world: &W,
    tables: &layout::Tables,
    job: &mut Job,
) -> Option<Verdict> {
    let unrelated = Reason::NotTcpUdp;
    if let Err(reason) = read(packet, job, unrelated) {
        return Some(pass(world, layout::HOST_EXITS, reason));
    }
    let flow = job.quoted;
    // To the pool: the entry of the flow's replies tells whose it is.
    if tables.header.snat_v4 | tables.header.snat_v6 != 0 {
        let back = flow.reversed();
        let known = match world.established(&back, |e| *e) {
            Some(entry) => Some(entry),
            None => world.fresh(&back, |e| *e),
        };
        if let Some(entry) = known
            && entry.flags & entry::REPLY != 0
        {
            job.send_as(entry.endpoint, &entry.other, entry.other_port);
            job.service = entry.service;
            job.vip_port = entry.vip_port;
            return way(packet, world, job);
        }
    }
    let port = flow.destination_port();
    let at = if tables.header.nat_endpoints == 0 {
        None
    } else {
        endpoint_at(tables, &flow.destination, port, flow.protocol, flow.family)
    };
    let Some(at) = at.filter(|at| at.state == state::ENDPOINT) else {
        return Some(pass(world, layout::HOST_EXITS, unrelated));
    };
    let vip_port = beyond::service(tables, at.service).port;
    job.send_as(at.ring as u16, &flow.source, flow.source_port());
    job.service = at.service;
    job.vip_port = if vip_port == 0 { port } else { vip_port };
    way(packet, world, job)
}

/// Notes the way to the client; passes an error that is for the host itself.
#[inline(always)]
fn way<P: Packet, W: World>(packet: &P, world: &W, job: &mut Job) -> Option<Verdict> {
    let flow = &job.flow;
    match world.route(flow.family, &flow.source, &job.from, packet.ingress()) {
        // About a packet of the host's own, which has no other address for its sender.
        Route::Nowhere
            if job.from == job.quoted.source && world.awaited(&job.quoted.reversed()) =>
        {
            return Some(pass(world, layout::HOST_EXITS, Reason::NotTcpUdp));
        }
        Route::Over { interface, macs } => {
            job.interface = interface;
            job.macs = macs;
        }
        Route::Nowhere | Route::Unknown => job.interface = 0,
    }
    None
}

/// Hands an error about a packet to a backend on to the client that the job names.
#[inline(always)]
pub fn to_client<P: Packet, W: World>(
    packet: &mut P,
    world: &W,
    tables: &layout::Tables,
    job: &Job,
) -> Verdict {
    let row = beyond::row(job.service);
    let inner = Rewrite {
        source: job.from,
        destination: beyond::service(tables, job.service).address,
        ports: u32::from(job.from_port) | u32::from(job.vip_port) << 16,
    };
    // A backend that answers for itself is not to be seen.
    let own = job.flow.source == beyond::endpoint(tables, job.endpoint).1.address;
    let outer = Rewrite {
        source: if own {
            inner.destination
        } else {
            job.flow.source
        },
        destination: inner.source,
        ports: 0,
    };
    if let Err(reason) = rewrite(packet, job, &outer, &inner) {
        return beyond::failed(world, row, reason);
    }
    if job.interface == 0 {
        return pass(world, row, Reason::NoRoute);
    }
    match beyond::leave(packet, job.interface, job.macs) {
        Ok(verdict) => {
            world.exit(row, Reason::Related);
            verdict
        }
        Err(reason) => drop(world, row, reason),
    }
}

/// Rewrites an error's own addresses and those of the packet that it quotes, with all checksums.
#[inline(always)]
fn rewrite<P: Packet>(
    packet: &mut P,
    job: &Job,
    outer: &Rewrite,
    inner: &Rewrite,
) -> Result<(), Reason> {
    let cut = Reason::Malformed;
    let at = usize::from(job.transport) & OFFSET;
    let checksum: u16 = packet.read(at + icmp::CHECKSUM).ok_or(cut)?;
    let flow = &job.quoted;
    let addresses = translate::addresses(packet, job, outer)?;
    let network = quoted_at(job);
    let transport = usize::from(job.quoted_transport) & 0x3ff;
    let moved;
    let mut change = Change::default();
    if flow.family == V4 {
        moved = Change::default()
            .word(flow.source[3], inner.source[3])
            .word(flow.destination[3], inner.destination[3]);
        let header: u16 = packet.read(network + 10).ok_or(cut)?;
        let new = moved.apply(header);
        packet.write(network + 10, new).ok_or(cut)?;
        packet.write(network + 12, inner.source[3]).ok_or(cut)?;
        packet
            .write(network + 16, inner.destination[3])
            .ok_or(cut)?;
        change = change.half(header, new);
    } else {
        moved = Change::default()
            .words(&flow.source, &inner.source)
            .words(&flow.destination, &inner.destination);
        packet.write(network + 8, inner.source).ok_or(cut)?;
        packet.write(network + 24, inner.destination).ok_or(cut)?;
        // The pseudo-header has the error's own addresses.
        change = change.and(addresses);
    }
    let with_ports = moved.word(flow.ports, inner.ports);
    packet.write(transport, inner.ports).ok_or(cut)?;
    change = change.and(with_ports);
    // The quoted checksum, where so much is quoted.
    let is_tcp = flow.protocol == tcp::PROTOCOL;
    let field = transport + if is_tcp { tcp::CHECKSUM } else { udp::CHECKSUM };
    if field + 2 <= job.end as usize
        && let Some(old) = packet.read::<u16>(field)
        && (is_tcp || old != 0)
    {
        let mut new = with_ports.apply(old);
        if !is_tcp && new == 0 {
            new = 0xffff;
        }
        packet.write(field, new).ok_or(cut)?;
        change = change.half(old, new);
    }
    packet
        .write(at + icmp::CHECKSUM, change.apply(checksum))
        .ok_or(cut)
}
