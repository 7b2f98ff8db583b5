//! The data plane in plain memory: the same decision for tests, explanations and forecasts.

use std::{
    boxed::Box,
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use bytemuck::Pod;

use crate::{
    flow::{self, Address, Flow},
    layout::{
        self, Allowance, EndpointCounters, EndpointEvents, FlowEntry, FragmentKey, LimitKey,
        RECENT_SYNS, SMALL_RING_SLOTS, Slot, SourceKey, TrackingCounters, Vip, Waiting,
    },
    packet::Packet,
    tables::{Counters, Event, Failed, Latency, Memory, Route, Routes, Tables, Took, Tracked},
    verdict::Reason,
};

/// How much a driver leaves in front of a frame (`XDP_PACKET_HEADROOM`).
pub const HEADROOM: usize = 256;

/// A frame in a vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its bytes, from the destination MAC address on.
    pub bytes: Vec<u8>,
    /// The index of the interface that it came in by.
    pub ingress: u32,
    /// How many bytes may be put in front.
    pub headroom: usize,
}

impl Frame {
    /// A frame that came in by an interface.
    pub fn new(bytes: &[u8], ingress: u32) -> Self {
        Self {
            bytes: bytes.to_vec(),
            ingress,
            headroom: HEADROOM,
        }
    }
}

impl Packet for Frame {
    fn read<T: Pod>(&self, at: usize) -> Option<T> {
        let bytes = self.bytes.get(at..at.checked_add(size_of::<T>())?)?;
        Some(bytemuck::pod_read_unaligned(bytes))
    }

    fn write<T: Pod>(&mut self, at: usize, value: T) -> Option<()> {
        let bytes = self.bytes.get_mut(at..at.checked_add(size_of::<T>())?)?;
        bytes.copy_from_slice(bytemuck::bytes_of(&value));
        Some(())
    }

    fn length(&self) -> usize {
        self.bytes.len()
    }

    fn sum<const WORDS: usize>(&self, at: usize) -> Option<u64> {
        let words = (0..WORDS).map(|word| self.read::<u32>(at + 4 * word).map(u64::from));
        words.sum()
    }

    fn full_length(&self) -> usize {
        self.bytes.len()
    }

    fn grow(&mut self, bytes: usize) -> Option<()> {
        self.headroom = self.headroom.checked_sub(bytes)?;
        self.bytes.splice(0..0, std::iter::repeat_n(0, bytes));
        Some(())
    }

    fn shrink(&mut self, bytes: usize) -> Option<()> {
        if bytes >= self.bytes.len() {
            return None;
        }
        self.bytes.drain(..bytes);
        self.headroom += bytes;
        Some(())
    }

    fn truncate(&mut self, length: usize) -> Option<()> {
        if length > self.bytes.len() {
            return None;
        }
        self.bytes.truncate(length);
        Some(())
    }

    fn ingress(&self) -> u32 {
        self.ingress
    }
}

/// Everything that the decision asks, in memory.
#[derive(Debug)]
pub struct Host {
    /// The current tables.
    pub tables: Option<Box<layout::Tables>>,
    /// The small rings, by number; a short one answers `None` beyond its end.
    pub small_rings: BTreeMap<u32, Vec<Slot>>,
    /// The large rings.
    pub rings: BTreeMap<u32, Vec<Slot>>,
    /// Packets sent, by endpoint number.
    pub endpoints: RefCell<BTreeMap<u16, EndpointCounters>>,
    /// What else happened, by endpoint number.
    pub events: RefCell<BTreeMap<u16, EndpointEvents>>,
    /// Packets not sent, by row and reason.
    pub exits: RefCell<BTreeMap<(u32, Reason), u64>>,
    /// What became of the memory of flows.
    pub tracking: RefCell<TrackingCounters>,
    /// Clients that opened a connection, each with the endpoint that it went to and its slot.
    pub opened: RefCell<Vec<(Address, u16, u16)>>,
    /// The time, in nanoseconds.
    pub clock: Cell<u64>,
    /// Flows whose latency is measured. Nothing is pushed out here.
    pub waiting: RefCell<BTreeMap<Flow, Waiting>>,
    /// What was measured: of which endpoint, what, and how many nanoseconds it took.
    pub took: RefCell<Vec<(u16, Took, u64)>>,
    /// Connections that failed: whose, and how.
    pub failed: RefCell<Vec<(u16, Failed)>>,
    /// The time, in ticks.
    pub now: Cell<u32>,
    /// Flows of which a first packet was seen. Nothing is pushed out here.
    pub fresh: RefCell<BTreeMap<Flow, FlowEntry>>,
    /// The other flows.
    pub established: RefCell<BTreeMap<Flow, FlowEntry>>,
    /// How many of these there is room for.
    pub room: usize,
    /// First fragments.
    pub fragments: RefCell<BTreeMap<FragmentKey, FlowEntry>>,
    /// What the lists of sources say.
    pub sources: BTreeMap<SourceKey, u8>,
    /// Sources that are limited.
    pub limits: RefCell<BTreeMap<LimitKey, Allowance>>,
    /// Routes to single addresses.
    pub routes: BTreeMap<Address, Route>,
    /// Flows that sockets of the host wait for.
    pub awaited: BTreeSet<Flow>,
    /// Counts ports.
    pub ports: Cell<u32>,
    /// By how much: one CPU of several takes every so manieth.
    pub port_step: u32,
    /// How many ICMP errors may still be sent.
    pub tell: Cell<u32>,
    recent: RefCell<Vec<u32>>,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            tables: None,
            small_rings: BTreeMap::new(),
            rings: BTreeMap::new(),
            endpoints: RefCell::default(),
            events: RefCell::default(),
            exits: RefCell::default(),
            tracking: RefCell::default(),
            opened: RefCell::default(),
            clock: Cell::default(),
            waiting: RefCell::default(),
            took: RefCell::default(),
            failed: RefCell::default(),
            now: Cell::new(0),
            fresh: RefCell::default(),
            established: RefCell::default(),
            room: usize::MAX,
            fragments: RefCell::default(),
            sources: BTreeMap::new(),
            limits: RefCell::default(),
            routes: BTreeMap::new(),
            awaited: BTreeSet::new(),
            ports: Cell::new(0),
            port_step: 1,
            tell: Cell::new(u32::MAX),
            recent: RefCell::new(std::vec![0; RECENT_SYNS]),
        }
    }
}

impl Tables for Host {
    fn current(&self) -> Option<&layout::Tables> {
        self.tables.as_deref()
    }

    fn slot(&self, vip: &Vip, hash: u32) -> Option<Slot> {
        let rings = if usize::from(vip.slot_mask) < SMALL_RING_SLOTS {
            &self.small_rings
        } else {
            &self.rings
        };
        let slot = usize::from(hash as u16 & vip.slot_mask);
        rings.get(&vip.ring)?.get(slot).copied()
    }
}

impl Counters for Host {
    fn forwarded(&self, endpoint: u16, bytes: usize, new_flow: bool) {
        let mut endpoints = self.endpoints.borrow_mut();
        let counters = endpoints.entry(endpoint).or_default();
        counters.packets += 1;
        counters.bytes += bytes as u64;
        counters.new_flows += u64::from(new_flow);
    }

    fn exit(&self, row: u32, reason: Reason) {
        *self.exits.borrow_mut().entry((row, reason)).or_default() += 1;
    }

    fn syn_seen(&self, place: usize, fingerprint: u32) -> bool {
        let mut recent = self.recent.borrow_mut();
        core::mem::replace(&mut recent[place], fingerprint) == fingerprint
    }

    fn event(&self, endpoint: u16, event: Event) {
        let mut events = self.events.borrow_mut();
        let counters = events.entry(endpoint).or_default();
        match event {
            Event::Retransmitted => counters.retransmitted += 1,
            Event::Reset => counters.resets += 1,
            Event::Reply(bytes) => {
                counters.replies += 1;
                counters.reply_bytes += bytes as u64;
            }
        }
    }

    fn tracked(&self, what: Tracked) {
        let mut tracking = self.tracking.borrow_mut();
        match what {
            Tracked::Fresh => tracking.fresh += 1,
            Tracked::Established => tracking.established += 1,
            Tracked::Refused => tracking.refused += 1,
            Tracked::Collision => tracking.collisions += 1,
        }
    }

    fn opened(&self, endpoint: u16, source: &Address, slot: u16, _lot: u32) {
        self.opened.borrow_mut().push((*source, endpoint, slot));
    }
}

impl Latency for Host {
    fn clock(&self) -> u64 {
        self.clock.get()
    }

    fn waiting<R>(&self, flow: &Flow, with: impl FnOnce(&mut Waiting) -> R) -> Option<R> {
        self.waiting.borrow_mut().get_mut(flow).map(with)
    }

    fn wait(&self, flow: &Flow, what: &Waiting) {
        self.waiting.borrow_mut().insert(*flow, *what);
    }

    fn wait_no_more(&self, flow: &Flow) {
        self.waiting.borrow_mut().remove(flow);
    }

    fn took(&self, endpoint: u16, what: Took, nanoseconds: u64) {
        self.took.borrow_mut().push((endpoint, what, nanoseconds));
    }

    fn failed(&self, endpoint: u16, how: Failed) {
        self.failed.borrow_mut().push((endpoint, how));
    }
}

impl Memory for Host {
    fn now(&self) -> u32 {
        self.now.get()
    }

    fn fresh<R>(&self, flow: &Flow, with: impl FnOnce(&mut FlowEntry) -> R) -> Option<R> {
        self.fresh.borrow_mut().get_mut(flow).map(with)
    }

    fn established<R>(&self, flow: &Flow, with: impl FnOnce(&mut FlowEntry) -> R) -> Option<R> {
        self.established.borrow_mut().get_mut(flow).map(with)
    }

    fn remember_fresh(&self, flow: &Flow, entry: &FlowEntry) {
        self.fresh.borrow_mut().insert(*flow, *entry);
    }

    fn claim_fresh(&self, flow: &Flow, entry: &FlowEntry) -> bool {
        let mut fresh = self.fresh.borrow_mut();
        let free = !fresh.contains_key(flow);
        if free {
            fresh.insert(*flow, *entry);
        }
        free
    }

    fn remember_established(&self, flow: &Flow, entry: &FlowEntry) -> bool {
        let mut established = self.established.borrow_mut();
        let room = established.contains_key(flow) || established.len() < self.room;
        if room {
            established.insert(*flow, *entry);
        }
        room
    }

    fn forget_fresh(&self, flow: &Flow) {
        self.fresh.borrow_mut().remove(flow);
    }

    fn forget_established(&self, flow: &Flow) {
        self.established.borrow_mut().remove(flow);
    }

    fn remember_fragment(&self, fragment: &FragmentKey, entry: &FlowEntry) {
        self.fragments.borrow_mut().insert(*fragment, *entry);
    }

    fn fragment(&self, fragment: &FragmentKey) -> Option<FlowEntry> {
        self.fragments.borrow().get(fragment).copied()
    }

    fn next_port(&self) -> u32 {
        let next = self.ports.get().wrapping_add(self.port_step);
        self.ports.replace(next)
    }

    fn listed(&self, source: &SourceKey) -> Option<u8> {
        let covers = |entry: &SourceKey| {
            let bits = entry.prefix.saturating_sub(64);
            let same = |n: u32| {
                let shift = 128 - bits.min(128);
                n == 0 || shift >= 128 || network(entry) >> shift == network(source) >> shift
            };
            entry.list == source.list && entry.family == source.family && same(bits)
        };
        let of_list = self.sources.iter().filter(|(entry, _)| covers(entry));
        of_list
            .max_by_key(|(entry, _)| entry.prefix)
            .map(|(_, &allowed)| allowed)
    }

    fn allowance<R>(
        &self,
        source: &LimitKey,
        first: Allowance,
        with: impl FnOnce(&mut Allowance) -> R,
    ) -> Option<R> {
        Some(with(
            self.limits.borrow_mut().entry(*source).or_insert(first),
        ))
    }

    fn may_tell(&self) -> bool {
        let left = self.tell.get();
        self.tell.set(left.saturating_sub(1));
        left > 0
    }
}

/// The address of a list's entry as a number, its first bit the highest.
fn network(key: &SourceKey) -> u128 {
    u128::from_be_bytes(bytemuck::cast(key.address))
}

impl Routes for Host {
    fn route(&self, family: u8, source: &Address, destination: &Address, _ingress: u32) -> Route {
        // The kernel never forwards from or to these (`rt6_need_strict`).
        let strict = |address: &Address| {
            let [high, low, ..]: [u8; 16] = bytemuck::cast(*address);
            let loopback = *address == [0, 0, 0, 1_u32.to_be()];
            high == 0xff || high == 0xfe && low & 0xc0 == 0x80 || loopback
        };
        if family == flow::V6 && (strict(source) || strict(destination)) {
            return Route::Nowhere;
        }
        self.routes
            .get(destination)
            .copied()
            .unwrap_or(Route::Nowhere)
    }

    fn awaited(&self, flow: &Flow) -> bool {
        self.awaited.contains(flow)
    }
}
