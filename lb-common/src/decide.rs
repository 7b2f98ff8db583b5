//! The forwarding decision.
//!
//! [`quick`] is the shortest way: TCP and UDP without anything unusual, to a backend on the same
//! segment, with nothing to remember. It hands everything else on: a packet whose service or
//! backend takes more to [`beyond`], one with options, extension headers, fragments or ICMP to
//! [`unusual`]. In the kernel each of these is a function that the verifier looks at by itself.

pub mod beyond;
pub mod measure;
pub mod probe;
pub mod unusual;

use bytemuck::{Pod, Zeroable};

use self::unusual::Kind;

use crate::{
    flow::{self, Address, Flow, Network, Parsed},
    hash,
    layout::{self, RECENT_SYNS, VipKey, mode},
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
    let mut job = Job::zeroed();
    quick(packet, world, || Some(&mut job), OnHost(world))
}

/// What comes after a step, where one function does it all.
struct OnHost<'a, W>(&'a W);

impl<'w, 'j, P: Packet, W: World> Next<'w, 'j, P> for OnHost<'_, W> {
    type Output = Verdict;

    fn take(self, packet: &mut P, step: Step<'w, 'j>) -> Verdict {
        let world = self.0;
        match step {
            Step::Done(verdict) => verdict,
            Step::Choose(tables, job) => beyond::process(packet, world, tables, job),
            Step::Send(tables, job) => beyond::send_or_tell(packet, world, tables, job),
            Step::Unusual(tables, job) => match unusual::process(packet, world, tables, job) {
                Kind::Done(verdict) => verdict,
                Kind::Flow => beyond::process(packet, world, tables, job),
                Kind::Fragment => unusual::fragments::process(packet, world, tables, job),
                Kind::ErrorToVip => match unusual::errors::owner(packet, world, tables, job) {
                    None => unusual::errors::to_backend(packet, world, tables, job),
                    Some(verdict) => verdict,
                },
                Kind::Error => match unusual::errors::about(packet, world, tables, job) {
                    None => unusual::errors::to_client(packet, world, tables, job),
                    Some(verdict) => verdict,
                },
            },
        }
    }

    fn forward(
        &self,
        packet: &mut P,
        tables: &'w layout::Tables,
        plain: Plain,
        measured: bool,
    ) -> Option<Verdict> {
        if measured {
            measure::sent_plain(packet, self.0, tables, &plain);
        }
        beyond::forward(packet, self.0, tables, plain)
    }
}

/// What comes after a step.
///
/// It is called where the step is known, so that no step is ever put together in memory: a
/// function of its own, always inlined, and not a closure, which need not be.
pub trait Next<'w, 'j, P> {
    /// What it makes of the step.
    type Output;

    /// Goes on.
    fn take(self, packet: &mut P, step: Step<'w, 'j>) -> Self::Output;

    /// Sends a packet on by [`beyond::forward`]; `None` where it could not. Where its flow is
    /// measured, [`measure::sent_plain`] looks at it first.
    fn forward(
        &self,
        packet: &mut P,
        tables: &'w layout::Tables,
        plain: Plain,
        measured: bool,
    ) -> Option<Self::Output>;
}

/// What the shortest way comes to.
#[must_use = "a verdict that nobody carries out lets the packet go astray"]
pub enum Step<'w, 'j> {
    /// It is decided.
    Done(Verdict),
    /// [`beyond::process`] decides.
    Choose(&'w layout::Tables, &'j mut Job),
    /// It goes to the job's endpoint, and [`beyond::send`] sends it there.
    Send(&'w layout::Tables, &'j mut Job),
    /// [`unusual::process`] decides.
    Unusual(&'w layout::Tables, &'j mut Job),
}

/// A packet to an endpoint that is known, of which there is nothing else to know.
///
/// It is made to be handed on in registers: a [`Job`] lies in memory, and takes a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// The hash of its flow.
    pub hash: u64,
    /// Its place in the VIP table.
    pub place: u32,
    /// Where the IP packet ends, by its own word.
    pub end: u32,
    /// Where the IP header begins, below 256.
    pub network: u8,
    /// Where the transport header begins.
    pub transport: u16,
    /// The TCP flags; zero for UDP.
    pub tcp_flags: u8,
    /// The transport protocol's number.
    pub protocol: u8,
    /// [`V4`](flow::V4) or [`V6`](flow::V6).
    pub family: u8,
    /// The endpoint's number.
    pub endpoint: u16,
}

impl Plain {
    /// All but the hash, in two numbers.
    #[inline(always)]
    pub const fn pack(&self) -> [u64; 2] {
        [
            self.place as u64 | (self.end as u64) << 32,
            self.endpoint as u64
                | (self.transport as u64) << 16
                | (self.network as u64) << 32
                | (self.tcp_flags as u64) << 40
                | (self.protocol as u64) << 48
                | (self.family as u64) << 56,
        ]
    }

    /// The packet of these numbers.
    #[inline(always)]
    pub const fn unpack(hash: u64, [first, second]: [u64; 2]) -> Self {
        Self {
            hash,
            place: first as u32,
            end: (first >> 32) as u32,
            endpoint: second as u16,
            transport: (second >> 16) as u16,
            network: (second >> 32) as u8,
            tcp_flags: (second >> 40) as u8,
            protocol: (second >> 48) as u8,
            family: (second >> 56) as u8,
        }
    }
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
    /// The number of the endpoint that it goes to, once that is known; before, its slot's owner.
    pub endpoint: u16,
    /// The slot that it falls into, once that is known.
    pub slot: u16,
    /// The port that `snat` sends it from, as it lies in memory; zero until that is known.
    pub from_port: u16,
    /// The number of the service of a reply, once that is known.
    pub service: u16,
    /// The address that `snat` sends it from.
    pub from: Address,
    /// Of an error about a packet to a backend, the VIP's port as it lies in memory.
    pub vip_port: u16,
    /// Zero.
    pub last: u16,
    /// Of an error about a packet to a backend, the way to the client: MAC addresses,
    pub macs: [u32; 3],
    /// and interface; zero where the stack has to find it.
    pub interface: u32,
    /// Of an error, the flow of the packet that it quotes, in the direction in which that went.
    pub quoted: Flow,
    /// Where the transport header of that packet begins.
    pub quoted_transport: u16,
    /// Zero.
    pub end_of_job: [u16; 3],
}

/// Bits of [`Job::special`].
pub mod special {
    /// The first fragment of several.
    pub const FIRST_FRAGMENT: u8 = 1;
    /// A reply, whose `from` is the client that it goes to.
    pub const REPLY: u8 = 1 << 1;
}

impl Job {
    /// It is addressed to no VIP; it may be a reply of a backend.
    pub const NO_PLACE: u32 = u32::MAX;

    /// Its flow, to look up in the tables of flows.
    ///
    /// A copy, which lies on the stack: up to Linux 6.1 the kernel takes no key from behind a
    /// pointer in the arguments of a global function, which is where the job lies.
    #[inline(always)]
    pub const fn key(&self) -> Flow {
        self.flow
    }

    /// Notes what is known once the ports have been read. About `zero`, see
    /// [`layout::Header::zero`].
    #[inline(always)]
    pub fn note(&mut self, parsed: &Parsed, hash: u64, place: u32, zero: u32) {
        self.forget(zero);
        self.flow = parsed.flow;
        self.hash = hash;
        self.place = place;
        self.network = parsed.network as u16;
        self.transport = parsed.transport as u16;
        self.end = parsed.end as u32;
        self.tcp_flags = parsed.tcp_flags;
    }

    /// Notes what the IP header says; its flow has no ports yet.
    #[inline(always)]
    pub fn note_network(&mut self, network: &Network, transport: usize, zero: u32) {
        self.forget(zero);
        self.place = Self::NO_PLACE;
        self.flow = Flow {
            source: network.source,
            destination: network.destination,
            ports: 0,
            protocol: network.protocol,
            family: network.family,
            reserved: [0; 2],
        };
        self.network = network.at as u16;
        self.transport = transport as u16;
        self.end = network.end as u32;
        self.tcp_flags = 0;
    }

    /// Forgets what was decided of the packet before, which the job still holds: a step that finds
    /// nothing out must not send this one as another flow's.
    ///
    /// What only an error about a packet to a backend needs is written before it is read.
    #[inline(always)]
    fn forget(&mut self, zero: u32) {
        self.special = 0;
        self.fragment = 0;
        (self.endpoint, self.slot) = (layout::NONE, 0);
        (self.from_port, self.service) = (0, 0);
        self.from = [zero; 4];
    }

    /// Notes where it goes, and as whose.
    #[inline(always)]
    fn send_as(&mut self, endpoint: u16, from: &Address, port: u16) {
        self.endpoint = endpoint;
        self.from = *from;
        self.from_port = port;
    }

    /// Whether later fragments are to follow it, where it was sent or not: a first fragment, which
    /// as a reply is rewritten also where the stack is to send it.
    #[inline(always)]
    pub const fn leads(&self, sent: bool) -> bool {
        self.special & special::FIRST_FRAGMENT != 0 && (sent || self.special & special::REPLY != 0)
    }

    /// Whether it opens a TCP connection: SYN without ACK.
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        tcp::opens(self.tcp_flags)
    }
}

/// Goes the shortest way, and answers what `next` makes of what that comes to.
///
/// Where it does not suffice, what is known goes into the job that `jobs` gives.
#[inline(always)]
pub fn quick<'w, 'j, P: Packet, W: Tables + Counters, N: Next<'w, 'j, P>>(
    packet: &mut P,
    world: &'w W,
    jobs: impl FnOnce() -> Option<&'j mut Job>,
    next: N,
) -> N::Output {
    // Written out for each family, and for untagged frames by themselves: with family and offsets
    // known, a packet stays in registers.
    match ethernet::payload(packet) {
        Ok(Payload {
            ethertype,
            at: ethernet::HEADER,
        }) => network(packet, ethertype, ethernet::HEADER, world, jobs, next),
        Ok(Payload { ethertype, at }) => network(packet, ethertype, at, world, jobs, next),
        Err(reason) => next.take(packet, host(world, reason)),
    }
}

/// A packet for the host, which no service asks for.
#[inline(always)]
fn host<'w, 'j, W: Counters>(world: &W, reason: Reason) -> Step<'w, 'j> {
    Step::Done(pass(world, layout::HOST_EXITS, reason))
}

#[inline(always)]
fn network<'w, 'j, P: Packet, W: Tables + Counters, N: Next<'w, 'j, P>>(
    packet: &mut P,
    ethertype: u16,
    at: usize,
    world: &'w W,
    jobs: impl FnOnce() -> Option<&'j mut Job>,
    next: N,
) -> N::Output {
    let reason = match ethertype {
        ethernet::IPV4 => match flow::ipv4(packet, at) {
            Ok(parsed) => return balance(packet, &parsed, world, jobs, next),
            Err(reason) => reason,
        },
        ethernet::IPV6 => match flow::ipv6(packet, at) {
            Ok(parsed) => return balance(packet, &parsed, world, jobs, next),
            Err(reason) => reason,
        },
        _ => Reason::NotIp,
    };
    match reason {
        Reason::Extensions | Reason::Fragment | Reason::NotTcpUdp => {
            let Some(current) = world.current() else {
                return next.take(packet, host(world, Reason::NoTables));
            };
            match jobs() {
                Some(job) => next.take(packet, Step::Unusual(current, job)),
                None => next.take(packet, host(world, Reason::BadTables)),
            }
        }
        _ => next.take(packet, host(world, reason)),
    }
}

/// Finds a packet's service and backend, and sends it there.
#[inline(always)]
fn balance<'w, 'j, P: Packet, W: Tables + Counters, N: Next<'w, 'j, P>>(
    packet: &mut P,
    parsed: &Parsed,
    world: &'w W,
    jobs: impl FnOnce() -> Option<&'j mut Job>,
    next: N,
) -> N::Output {
    let Some(current) = world.current() else {
        return next.take(packet, host(world, Reason::NoTables));
    };
    let (mut hash, mut place, mut owner, mut of) = (0, Job::NO_PLACE, layout::NONE, 0);
    if let Some(found) = service(current, &parsed.flow) {
        let vip = &current.vips[found];
        place = found as u32;
        hash = hash::flow(&parsed.flow, &current.header.flow_keys);
        if vip.is_simple()
            && parsed.end <= packet.length()
            && let Some(slot) = world.slot(vip, upper(hash))
            && slot.is_steady()
        {
            let number = slot.owner();
            let endpoint = &current.endpoints[usize::from(number) & (layout::ENDPOINTS - 1)];
            // Of most flows nothing is measured.
            let is_short = endpoint.mode == mode::DSR && hash as u16 >= endpoint.sampled;
            if is_short
                && endpoint.interface == packet.ingress()
                && packet.write(0, endpoint.macs).is_some()
            {
                let (at, flags) = (parsed.transport, parsed.tcp_flags);
                // Not masked: what else is made of the same mask would lose the verifier's bound.
                let slot = upper(hash) as u16;
                let sent = Sent::new(packet, at, flags, (hash, slot), &parsed.flow.source);
                count(world, number, &sent, packet.length());
                return next.take(packet, Step::Done(Verdict::Transmit));
            }
            let plain = Plain {
                hash,
                place,
                end: parsed.end as u32,
                network: parsed.network as u8,
                transport: parsed.transport as u16,
                tcp_flags: parsed.tcp_flags,
                protocol: parsed.flow.protocol,
                family: parsed.flow.family,
                endpoint: number,
            };
            let (from, port) = (&parsed.flow.source, parsed.flow.source_port());
            let measured = measure::is_measured(endpoint, hash, from, port);
            if let Some(output) = next.forward(packet, current, plain, measured) {
                return output;
            }
            owner = number;
        }
    } else {
        match beyond::reply::comes_from(current, &parsed.flow) {
            Some(from) => [owner, of] = from,
            None => return next.take(packet, host(world, Reason::NoService)),
        }
    }
    let Some(job) = jobs() else {
        return next.take(packet, host(world, Reason::BadTables));
    };
    job.note(parsed, hash, place, current.header.zero());
    (job.endpoint, job.service) = (owner, of);
    if place == Job::NO_PLACE || owner == layout::NONE {
        next.take(packet, Step::Choose(current, job))
    } else {
        next.take(packet, Step::Send(current, job))
    }
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
#[derive(Clone, Copy)]
struct Sent<'a> {
    /// Where it comes from.
    source: &'a Address,
    hash: u64,
    slot: u16,
    tcp_flags: u8,
    /// Of a packet that opens a connection, as it lies in memory.
    sequence: u32,
}

impl<'a> Sent<'a> {
    #[inline(always)]
    fn new<P: Packet>(
        packet: &P,
        transport: usize,
        tcp_flags: u8,
        (hash, slot): (u64, u16),
        source: &'a Address,
    ) -> Self {
        let sequence = if tcp::opens(tcp_flags) {
            tcp::sequence(packet, transport).unwrap_or(0)
        } else {
            0
        };
        Self {
            source,
            hash,
            slot,
            tcp_flags,
            sequence,
        }
    }

    /// Of a packet that opens a connection: what tells it from others, and is the same where it is
    /// sent again. Never zero, which an unused place holds.
    #[inline(always)]
    const fn fingerprint(&self) -> u32 {
        (self.hash as u32 ^ self.sequence) | 1
    }
}

/// Counts a packet that was sent to a backend.
#[inline(always)]
fn count<C: Counters>(counters: &C, endpoint: u16, sent: &Sent<'_>, bytes: usize) {
    let mut new_flow = false;
    if sent.tcp_flags & (tcp::SYN | tcp::RST) != 0 {
        if tcp::opens(sent.tcp_flags) {
            new_flow = !retransmitted(sent, counters);
            if new_flow {
                counters.opened(endpoint, sent.source, sent.slot, sent.fingerprint() >> 1);
            } else {
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
fn service(tables: &layout::Tables, flow: &Flow) -> Option<usize> {
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
    if key.stands_in(&tables.vips[first].key) {
        return Some(first);
    }
    key.stands_in(&tables.vips[second].key).then_some(second)
}

/// Tells a SYN that is sent again from one that opens a connection, so that a backend that does
/// not answer does not seem to be given more connections than its peers.
///
/// A repetition has the same addresses, ports and initial sequence number. The memory is small
/// and lossy: under a flood of SYNs a repetition may be counted as new, nothing else happens.
#[inline(always)]
fn retransmitted<C: Counters>(sent: &Sent<'_>, counters: &C) -> bool {
    let place = (sent.hash >> 32) as usize & (RECENT_SYNS - 1);
    counters.syn_seen(place, sent.fingerprint())
}

#[cfg(test)]
mod tests;
