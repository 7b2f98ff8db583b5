//! The forwarding decision.

use crate::{
    flow::{self, Parsed},
    hash,
    layout::{self, Endpoint, RECENT_SYNS, Vip, VipKey, mode, state},
    packet::Packet,
    tables::{Counters, Tables},
    verdict::{Reason, Verdict},
    wire::{
        ethernet::{self, Payload},
        tcp,
    },
};

/// Decides a packet's fate, rewrites it for its backend where it has one, and counts it.
///
/// A packet that is not sent to a backend is not touched.
#[inline(always)]
pub fn process<P, T, C>(packet: &mut P, tables: &T, counters: &C) -> Verdict
where
    P: Packet,
    T: Tables,
    C: Counters,
{
    // Written out for each family, and for untagged frames by themselves: with family and offsets
    // known, a packet stays in registers.
    let reason = match ethernet::payload(packet) {
        Ok(Payload {
            ethertype,
            at: ethernet::HEADER,
        }) => {
            return network(packet, ethertype, ethernet::HEADER, tables, counters);
        }
        Ok(Payload { ethertype, at }) => {
            return network(packet, ethertype, at, tables, counters);
        }
        Err(reason) => reason,
    };
    pass(counters, layout::HOST_EXITS, reason)
}

#[inline(always)]
fn network<P, T, C>(packet: &mut P, ethertype: u16, at: usize, tables: &T, counters: &C) -> Verdict
where
    P: Packet,
    T: Tables,
    C: Counters,
{
    let reason = match ethertype {
        ethernet::IPV4 => match flow::ipv4(packet, at) {
            Ok(parsed) => return balance(packet, &parsed, tables, counters),
            Err(reason) => reason,
        },
        ethernet::IPV6 => match flow::ipv6(packet, at) {
            Ok(parsed) => return balance(packet, &parsed, tables, counters),
            Err(reason) => reason,
        },
        _ => Reason::NotIp,
    };
    pass(counters, layout::HOST_EXITS, reason)
}

/// Finds a packet's service and backend, and sends it there.
#[inline(always)]
fn balance<P, T, C>(packet: &mut P, parsed: &Parsed, tables: &T, counters: &C) -> Verdict
where
    P: Packet,
    T: Tables,
    C: Counters,
{
    let Some(current) = tables.current() else {
        return pass(counters, layout::HOST_EXITS, Reason::NoTables);
    };
    let Some(vip) = service(current, parsed) else {
        return pass(counters, layout::HOST_EXITS, Reason::NoService);
    };
    let row = u32::from(vip.service) + 1;
    if vip.state != state::SERVING {
        return match vip.state {
            state::EMPTY_DROP => {
                counters.exit(row, Reason::NoBackendDropped);
                Verdict::Drop(Reason::NoBackendDropped)
            }
            state::EMPTY_PASS => pass(counters, row, Reason::NoBackendPassed),
            _ => pass(counters, row, Reason::BadTables),
        };
    }
    let hash = hash::flow(&parsed.flow, &current.header.flow_keys);
    let Some(slot) = tables.slot(vip.ring, (hash >> 32) as u16 & vip.slot_mask) else {
        return pass(counters, row, Reason::BadTables);
    };
    let owner = slot.owner();
    let endpoint = &current.endpoints[owner as usize & (layout::ENDPOINTS - 1)];
    match forward(packet, endpoint) {
        Ok(()) => {
            let new_flow = parsed.opens() && !retransmitted(packet, parsed, hash, counters);
            counters.forwarded(owner, packet.length(), new_flow);
            Verdict::Transmit
        }
        Err(reason) => pass(counters, row, reason),
    }
}

#[inline(always)]
fn pass<C: Counters>(counters: &C, row: u32, reason: Reason) -> Verdict {
    counters.exit(row, reason);
    Verdict::Pass(reason)
}

/// Finds a packet's service: the exact port before any port.
#[inline(always)]
fn service<'t>(tables: &'t layout::Tables, parsed: &Parsed) -> Option<&'t Vip> {
    let flow = &parsed.flow;
    let mut key = VipKey {
        address: flow.destination,
        port: flow.destination_port(),
        protocol: flow.protocol,
        family: flow.family,
    };
    if let Some(vip) = find(tables, &key) {
        return Some(vip);
    }
    if tables.header.any_port_services == 0 {
        return None;
    }
    key.port = 0;
    find(tables, &key)
}

#[inline(always)]
fn find<'t>(tables: &'t layout::Tables, key: &VipKey) -> Option<&'t Vip> {
    let [first, second] = tables.header.places(key);
    let vip = &tables.vips[first];
    if vip.key == *key {
        return Some(vip);
    }
    let vip = &tables.vips[second];
    (vip.key == *key).then_some(vip)
}

/// Rewrites a packet for its endpoint.
#[inline(always)]
fn forward<P: Packet>(packet: &mut P, endpoint: &Endpoint) -> Result<(), Reason> {
    if endpoint.mode != mode::DSR {
        return Err(Reason::Unresolved);
    }
    if endpoint.interface != packet.ingress() {
        return Err(Reason::OtherInterface);
    }
    packet.write(0, endpoint.macs).ok_or(Reason::Truncated)
}

/// Tells a SYN that is sent again from one that opens a connection, so that a backend that does
/// not answer does not seem to be given more connections than its peers.
///
/// A repetition has the same addresses, ports and initial sequence number. The memory is small
/// and lossy: under a flood of SYNs a repetition may be counted as new, nothing else happens.
#[inline(always)]
fn retransmitted<P, C>(packet: &P, parsed: &Parsed, hash: u64, counters: &C) -> bool
where
    P: Packet,
    C: Counters,
{
    let sequence = tcp::sequence(packet, parsed.transport).unwrap_or(0);
    // Never zero, which an unused place holds.
    let fingerprint = (hash as u32 ^ sequence) | 1;
    counters.syn_seen((hash >> 32) as usize & (RECENT_SYNS - 1), fingerprint)
}

#[cfg(test)]
mod tests;
