//! The forwarding decision.
//!
//! [`quick`] is the shortest way: TCP and UDP without anything unusual, to a backend on the same
//! segment, with nothing to remember. It hands everything else on: a packet whose service or
//! backend takes more to [`beyond`], one with options, extension headers, fragments or ICMP to
//! [`unusual`]. In the kernel each of these is a function that the verifier looks at by itself.

pub mod beyond;
pub mod unusual;

use bytemuck::{Pod, Zeroable};

use crate::{
    flow::{self, Flow, Parsed},
    hash,
    layout::{self, RECENT_SYNS, VipKey, flag, mode, spread, state},
    packet::Packet,
    tables::{Counters, Event, Tables, World},
    verdict::{Reason, Verdict},
    wire::{
        ethernet::{self, Payload},
        tcp,
    },
};

/// Decides a packet's fate, rewrites it for its backend where it has one, and counts it.
///
/// A packet that goes to the host's stack is not touched.
#[inline(always)]
pub fn process<P: Packet, W: World>(packet: &mut P, world: &W) -> Verdict {
    let mut step = quick(packet, world);
    if let Step::Unusual = step {
        step = unusual::process(packet, world);
    }
    match step {
        Step::Done(verdict) => verdict,
        Step::Beyond(tables, job) => beyond::process(packet, world, tables, &job),
        // Never answered by the way that it stands for.
        Step::Unusual => pass(world, layout::HOST_EXITS, Reason::BadTables),
    }
}

/// What the shortest way comes to.
#[must_use = "a verdict that nobody carries out lets the packet go astray"]
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart where it is made, and there is no heap in the kernel"
)]
pub enum Step<'t> {
    /// It is decided.
    Done(Verdict),
    /// [`beyond::process`] decides.
    Beyond(&'t layout::Tables, Job),
    /// [`unusual::process`] decides.
    Unusual,
}

/// What is known of a packet that the shortest way does not suffice for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Job {
    /// Its flow.
    pub flow: Flow,
    /// The hash of its flow.
    pub hash: u64,
    /// Its place in the VIP table, or [`Job::NO_PLACE`].
    pub place: u32,
    /// Where the IP header begins.
    pub network: u16,
    /// Where the transport header begins.
    pub transport: u16,
    /// Where the IP packet ends, by its own word.
    pub end: u32,
    /// The TCP flags; zero for UDP.
    pub tcp_flags: u8,
    /// What is special about it: bits of [`special`].
    pub special: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// Of a first fragment, the packet's identification as it lies in memory.
    pub fragment: u32,
    /// Zero.
    pub rest: u32,
}

/// Bits of [`Job::special`].
pub mod special {
    /// The first fragment of several.
    pub const FIRST_FRAGMENT: u8 = 1;
}

impl Job {
    /// It is addressed to no VIP; it may be a reply of a backend.
    pub const NO_PLACE: u32 = u32::MAX;

    /// What is known once the ports have been read.
    #[inline(always)]
    pub fn new(parsed: &Parsed, hash: u64, place: u32) -> Self {
        Self {
            flow: parsed.flow,
            hash,
            place,
            network: parsed.network as u16,
            transport: parsed.transport as u16,
            end: parsed.end as u32,
            tcp_flags: parsed.tcp_flags,
            special: 0,
            reserved: [0; 2],
            fragment: 0,
            rest: 0,
        }
    }

    /// Whether it opens a TCP connection: SYN without ACK.
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        tcp::opens(self.tcp_flags)
    }
}

/// Goes the shortest way.
#[inline(always)]
pub fn quick<'w, P: Packet, W: Tables + Counters>(packet: &mut P, world: &'w W) -> Step<'w> {
    // Written out for each family, and for untagged frames by themselves: with family and offsets
    // known, a packet stays in registers.
    match ethernet::payload(packet) {
        Ok(Payload {
            ethertype,
            at: ethernet::HEADER,
        }) => network(packet, ethertype, ethernet::HEADER, world),
        Ok(Payload { ethertype, at }) => network(packet, ethertype, at, world),
        Err(reason) => Step::Done(pass(world, layout::HOST_EXITS, reason)),
    }
}

#[inline(always)]
fn network<'w, P: Packet, W: Tables + Counters>(
    packet: &mut P,
    ethertype: u16,
    at: usize,
    world: &'w W,
) -> Step<'w> {
    let reason = match ethertype {
        ethernet::IPV4 => match flow::ipv4(packet, at) {
            Ok(parsed) => return balance(packet, &parsed, world),
            Err(reason) => reason,
        },
        ethernet::IPV6 => match flow::ipv6(packet, at) {
            Ok(parsed) => return balance(packet, &parsed, world),
            Err(reason) => reason,
        },
        _ => Reason::NotIp,
    };
    match reason {
        Reason::Ipv4Options | Reason::Ipv6Extension | Reason::Fragment | Reason::NotTcpUdp => {
            Step::Unusual
        }
        _ => Step::Done(pass(world, layout::HOST_EXITS, reason)),
    }
}

/// Finds a packet's service and backend, and sends it there.
#[inline(always)]
fn balance<'w, P: Packet, W: Tables + Counters>(
    packet: &mut P,
    parsed: &Parsed,
    world: &'w W,
) -> Step<'w> {
    let Some(current) = world.current() else {
        return Step::Done(pass(world, layout::HOST_EXITS, Reason::NoTables));
    };
    let Some(place) = service(current, parsed) else {
        if current.header.nat_endpoints != 0 {
            return Step::Beyond(current, Job::new(parsed, 0, Job::NO_PLACE));
        }
        return Step::Done(pass(world, layout::HOST_EXITS, Reason::NoService));
    };
    let vip = &current.vips[place];
    let hash = hash::flow(&parsed.flow, &current.header.flow_keys);
    let simple = vip.state == state::SERVING
        && vip.spread == spread::FLOW
        && vip.flags & flag::SLOW == 0
        && parsed.end <= packet.length();
    if simple
        && let Some(slot) = world.slot(vip, upper(hash))
        && slot.is_steady()
    {
        let owner = slot.owner();
        let endpoint = &current.endpoints[usize::from(owner) & (layout::ENDPOINTS - 1)];
        if endpoint.mode == mode::DSR
            && endpoint.interface == packet.ingress()
            && packet.write(0, endpoint.macs).is_some()
        {
            count(
                packet,
                world,
                owner,
                &Sent::new(parsed, hash),
                packet.length(),
            );
            return Step::Done(Verdict::Transmit);
        }
    }
    Step::Beyond(current, Job::new(parsed, hash, place as u32))
}

/// The half of a flow's hash that picks its slot.
#[inline(always)]
const fn upper(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[inline(always)]
fn pass<C: Counters>(counters: &C, row: u32, reason: Reason) -> Verdict {
    counters.exit(row, reason);
    Verdict::Pass(reason)
}

#[inline(always)]
fn drop<C: Counters>(counters: &C, row: u32, reason: Reason) -> Verdict {
    counters.exit(row, reason);
    Verdict::Drop(reason)
}

/// What is counted of a packet that was sent to a backend.
struct Sent {
    hash: u64,
    transport: usize,
    tcp_flags: u8,
}

impl Sent {
    #[inline(always)]
    fn new(parsed: &Parsed, hash: u64) -> Self {
        Self {
            hash,
            transport: parsed.transport,
            tcp_flags: parsed.tcp_flags,
        }
    }
}

/// Counts a packet that was sent to a backend.
#[inline(always)]
fn count<P: Packet, C: Counters>(
    packet: &P,
    counters: &C,
    endpoint: u16,
    sent: &Sent,
    bytes: usize,
) {
    let mut new_flow = false;
    if sent.tcp_flags & (tcp::SYN | tcp::RST) != 0 {
        if tcp::opens(sent.tcp_flags) {
            new_flow = !retransmitted(packet, sent, counters);
            if !new_flow {
                counters.event(endpoint, Event::Retransmitted);
            }
        } else if sent.tcp_flags & tcp::RST != 0 {
            counters.event(endpoint, Event::Reset);
        }
    }
    counters.forwarded(endpoint, bytes, new_flow);
}

/// Finds the place of a packet's service: the exact port before any port.
#[inline(always)]
fn service(tables: &layout::Tables, parsed: &Parsed) -> Option<usize> {
    let flow = &parsed.flow;
    let mut key = VipKey {
        address: flow.destination,
        port: flow.destination_port(),
        protocol: flow.protocol,
        family: flow.family,
    };
    if let Some(place) = find(tables, &key) {
        return Some(place);
    }
    if tables.header.any_port_services == 0 {
        return None;
    }
    key.port = 0;
    find(tables, &key)
}

/// The place of a key in the VIP table.
#[inline(always)]
fn find(tables: &layout::Tables, key: &VipKey) -> Option<usize> {
    let [first, second] = tables.header.places(key);
    if tables.vips[first].key == *key {
        return Some(first);
    }
    (tables.vips[second].key == *key).then_some(second)
}

/// Tells a SYN that is sent again from one that opens a connection, so that a backend that does
/// not answer does not seem to be given more connections than its peers.
///
/// A repetition has the same addresses, ports and initial sequence number. The memory is small
/// and lossy: under a flood of SYNs a repetition may be counted as new, nothing else happens.
#[inline(always)]
fn retransmitted<P: Packet, C: Counters>(packet: &P, sent: &Sent, counters: &C) -> bool {
    let sequence = tcp::sequence(packet, sent.transport).unwrap_or(0);
    // Never zero, which an unused place holds.
    let fingerprint = (sent.hash as u32 ^ sequence) | 1;
    counters.syn_seen((sent.hash >> 32) as usize & (RECENT_SYNS - 1), fingerprint)
}

#[cfg(test)]
mod tests;
