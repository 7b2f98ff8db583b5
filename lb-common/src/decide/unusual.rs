//! The way of what is not plain TCP or UDP: options, extension headers, fragments, ICMP.

pub mod errors;
pub mod fragments;

pub(in crate::decide) mod echo;
mod header;

use super::{Job, pass, service, special};
use crate::{
    flow::{self, Flow, V4},
    hash, layout,
    layout::{VipKey, state},
    packet::Packet,
    tables::World,
    trace::Subject,
    verdict::{Reason, Verdict},
    wire::{icmp, tcp, udp},
};

/// What an unusual packet turns out to be.
#[must_use = "a verdict that nobody carries out lets the packet go astray"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is decided.
    Done(Verdict),
    /// TCP or UDP after all: [`super::beyond::process`] decides.
    Flow,
    /// A later fragment: [`fragments::process`] decides.
    Fragment,
    /// An ICMP error to a VIP: [`errors::to_backend`] decides.
    ErrorToVip,
    /// An ICMP error to another address: [`errors::to_client`] decides.
    Error,
}

/// Finds out what a packet is, and notes it in the job.
#[inline(always)]
pub fn process<P: Packet, W: World>(
    packet: &mut P,
    world: &W,
    tables: &layout::Tables,
    job: &mut Job,
) -> Kind {
    let header = match header::read(packet) {
        Ok(header) => header,
        Err(reason) => return Kind::Done(pass(world, layout::HOST_EXITS, reason)),
    };
    let network = &header.network;
    if network.end < header.transport {
        return Kind::Done(pass(world, layout::HOST_EXITS, Reason::Malformed));
    }
    job.note_network(network, header.transport, tables.header.zero());
    if let Some(fragment) = header.fragment {
        job.fragment = fragment.id;
        if fragment.offset != 0 {
            return Kind::Fragment;
        }
        job.special = special::FIRST_FRAGMENT;
    }
    let icmp = if network.family == V4 {
        icmp::PROTOCOL
    } else {
        icmp::PROTOCOL_V6
    };
    if network.protocol == icmp && job.special == 0 {
        return echo::or_error(packet, world, tables, job);
    }
    if !matches!(network.protocol, tcp::PROTOCOL | udp::PROTOCOL) {
        return Kind::Done(pass(world, layout::HOST_EXITS, Reason::NotTcpUdp));
    }
    let parsed = match flow::transport(packet, network, header.transport) {
        Ok(parsed) => parsed,
        Err(reason) => return Kind::Done(pass(world, layout::HOST_EXITS, reason)),
    };
    let place = match service(tables, &parsed.flow) {
        Some(place) => place as u32,
        None if tables.header.nat_endpoints == 0 => {
            return Kind::Done(pass(world, layout::HOST_EXITS, Reason::NoService));
        }
        None => Job::NO_PLACE,
    };
    job.place = place;
    job.hash = hash::flow(&parsed.flow, &tables.header.flow_keys);
    job.flow.ports = parsed.flow.ports;
    job.tcp_flags = parsed.tcp_flags;
    Kind::Flow
}

/// Reads what a packet says of itself, whatever it is, for those who watch: nothing is decided by it.
#[inline(always)]
pub fn subject<P: Packet>(packet: &P, subject: &mut Subject) {
    subject.flow.family = 0;
    (subject.tcp_flags, subject.later_fragment) = (0, 0);
    let Ok(header) = header::read(packet) else {
        return;
    };
    let network = &header.network;
    subject.flow = Flow {
        source: network.source,
        destination: network.destination,
        ports: 0,
        protocol: network.protocol,
        family: network.family,
        reserved: [0; 2],
    };
    if header.fragment.is_some_and(|fragment| fragment.offset != 0) {
        subject.later_fragment = 1;
        return;
    }
    let at = header.transport & super::beyond::OFFSET;
    match network.protocol {
        tcp::PROTOCOL | udp::PROTOCOL => {
            if let Ok(parsed) = flow::transport(packet, network, at) {
                subject.flow.ports = parsed.flow.ports;
                subject.tcp_flags = parsed.tcp_flags;
            }
        }
        icmp::PROTOCOL | icmp::PROTOCOL_V6 => {
            if let Some(kind) = packet.read::<u16>(at) {
                subject.flow.ports = kind.into();
            }
        }
        _ => {}
    }
}

/// The place of a VIP's or pool's address, which is asked for where there are no ports.
#[inline(always)]
fn address<'t>(tables: &'t layout::Tables, job: &Job) -> Option<&'t layout::Vip> {
    let key = VipKey {
        address: job.flow.destination,
        port: 0,
        protocol: 0,
        family: job.flow.family,
    };
    let place = super::find(tables, &key)?;
    let vip = &tables.vips[place];
    (vip.state == state::ADDRESS).then_some(vip)
}
