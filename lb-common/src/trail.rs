//! What the decision asked on a packet's way, and what it was told: what explanations and traces
//! are made from.
//!
//! [`Watched`] stands between the decision and its world and writes down what passes. It is the
//! same on both homes of the decision, so their trails can be compared step by step. The program
//! that forwards is built without it.

use bytemuck::{Pod, Zeroable};

use crate::{
    flow::{Address, Flow},
    layout::{
        self, Allowance, FlowEntry, FragmentKey, LimitKey, NONE, Slot, SourceKey, Vip, Waiting,
    },
    tables::{Counters, Event, Failed, Latency, Memory, Route, Routes, Tables, Took, Tracked},
    verdict::{Reason, Verdict},
};

/// How many steps a trail holds; of a longer one the last step is that of the end.
pub const STEPS: usize = 32;

/// A question and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Step(u64);

/// What a step was about, with what its other fields say.
pub mod step {
    /// A slot was looked up: whether its ring is there; the slot.
    pub const SLOT: u8 = 1;
    /// A list was asked about a source: [`ALLOWED`], [`DENIED`] or [`UNLISTED`].
    pub const LISTED: u8 = 2;
    /// A limit was asked about a source: how many connections it may still open, in 1,024ths.
    pub const LIMITED: u8 = 3;
    /// A flow was looked up among those of which a first packet was seen: whether it is there; its
    /// endpoint; its flags.
    pub const FRESH: u8 = 4;
    /// The same among the established flows.
    pub const ESTABLISHED: u8 = 5;
    /// A flow's first packet is remembered, of this endpoint.
    pub const REMEMBERED_FRESH: u8 = 6;
    /// A flow is remembered as established, of this endpoint: whether there was room.
    pub const REMEMBERED: u8 = 7;
    /// A flow's first packet is forgotten.
    pub const FORGOT_FRESH: u8 = 8;
    /// An established flow is forgotten.
    pub const FORGOT: u8 = 9;
    /// A port of `snat` was tried: which, counted on.
    pub const PORT: u8 = 10;
    /// The port that was tried was claimed: whether it was free.
    pub const CLAIMED: u8 = 11;
    /// A packet's first fragment was looked up: whether it is there; its endpoint.
    pub const FRAGMENT: u8 = 12;
    /// A packet's first fragment is remembered.
    pub const REMEMBERED_FRAGMENT: u8 = 13;
    /// Whether the sender may be told of what is wrong with its packet.
    pub const TELL: u8 = 14;
    /// The kernel's routes were asked: [`OVER`], [`NOWHERE`] or [`UNKNOWN`]; the interface.
    pub const ROUTE: u8 = 15;
    /// Whether a socket of the host waits for the flow.
    pub const AWAITED: u8 = 16;
    /// A packet was counted as sent to this endpoint: whether it opens a connection.
    pub const FORWARDED: u8 = 17;
    /// Something was counted of this endpoint: which [event](crate::tables::Event).
    pub const EVENT: u8 = 18;
    /// An exit was counted: its reason; its row.
    pub const EXIT: u8 = 19;
    /// A drill's fault took the packet after it was sent to this endpoint.
    pub const STRUCK: u8 = 20;

    /// No.
    pub const NO: u8 = 0;
    /// Yes.
    pub const YES: u8 = 1;

    /// The list denies the source.
    pub const DENIED: u8 = 0;
    /// The list allows the source.
    pub const ALLOWED: u8 = 1;
    /// The list does not name the source.
    pub const UNLISTED: u8 = 2;

    /// There is a way.
    pub const OVER: u8 = 0;
    /// There is none, or it is the host itself.
    pub const NOWHERE: u8 = 1;
    /// Its next hop is not resolved, or packets are refused.
    pub const UNKNOWN: u8 = 2;

    /// A SYN was sent again.
    pub const RETRANSMITTED: u8 = 0;
    /// A segment with RST.
    pub const RESET: u8 = 1;
    /// A reply.
    pub const REPLY: u8 = 2;
}

impl Step {
    /// A step about something of [`step`].
    #[inline(always)]
    #[must_use]
    pub const fn new(what: u8, answer: u8, number: u16, detail: u32) -> Self {
        Self(what as u64 | (answer as u64) << 8 | (number as u64) << 16 | (detail as u64) << 32)
    }

    /// What it was about: one of [`step`].
    #[must_use]
    pub const fn what(self) -> u8 {
        self.0 as u8
    }

    /// The answer.
    #[must_use]
    pub const fn answer(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// A number of an endpoint or a slot.
    #[must_use]
    pub const fn number(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// What else there is to say.
    #[must_use]
    pub const fn detail(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// What [`Trail::verdict`] is, as a number.
mod verdict {
    pub(super) const TRANSMIT: u8 = 1;
    pub(super) const REDIRECT: u8 = 2;
    pub(super) const PASS: u8 = 3;
    pub(super) const DROP: u8 = 4;
}

/// What [`Trail::table`] is.
pub mod table {
    /// No entry of the flow was found.
    pub const NONE: u8 = 0;
    /// Among flows of which a first packet was seen.
    pub const FRESH: u8 = 1;
    /// Among the others.
    pub const ESTABLISHED: u8 = 2;
}

/// A packet's way through the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Trail {
    /// When it came, in nanoseconds of the monotonic clock; zero in explanations.
    pub at: u64,
    /// The generation of the tables that it met.
    pub generation: u64,
    /// What is remembered of its flow, where `table` says that something is.
    pub entry: FlowEntry,
    /// The half of a hash that picked its slot.
    pub hash: u32,
    /// Its slot, where `slot_mask` is not zero.
    pub slot: Slot,
    /// The size of its ring less one.
    pub slot_mask: u16,
    /// The number of its service; [`NONE`] where it has none.
    pub service: u16,
    /// The number of the endpoint that it was sent to or came from; [`NONE`] where there is none.
    pub endpoint: u16,
    /// How many ports of `snat` were tried.
    pub ports: u8,
    /// One of [`table`].
    pub table: u8,
    verdict: u8,
    reason: u8,
    count: u8,
    /// 1 where it was counted as sent to `endpoint`.
    pub sent: u8,
    /// The interface that it was redirected to.
    interface: u32,
    /// The interface that it came in by.
    pub ingress: u32,
    /// The CPU that decided.
    pub cpu: u32,
    /// The kernel's way to a client: the interface,
    pub way: u32,
    /// and MAC addresses.
    pub macs: [u32; 3],
    steps: [Step; STEPS],
}

impl Trail {
    /// The trail of a packet that nothing was asked about.
    #[must_use]
    pub fn begun() -> Self {
        let mut trail = Self::zeroed();
        trail.begin();
        trail
    }

    /// Begins with another packet.
    #[inline(always)]
    pub fn begin(&mut self) {
        (self.at, self.generation) = (0, 0);
        (self.hash, self.slot_mask) = (0, 0);
        (self.service, self.endpoint) = (NONE, NONE);
        (self.ports, self.table, self.verdict, self.reason) = (0, table::NONE, 0, 0);
        (self.count, self.interface, self.way) = (0, 0, 0);
        self.sent = 0;
    }

    /// Notes a step, and what follows from it.
    #[inline(always)]
    pub fn add(&mut self, step: Step) {
        // Masked once more, so that the verifier knows its bounds wherever the number came from.
        let at = usize::from(self.count).min(STEPS - 1) & (STEPS - 1);
        self.steps[at] = step;
        self.count = at as u8 + 1;
        match step.what() {
            step::FORWARDED => {
                (self.endpoint, self.sent) = (step.number(), 1);
            }
            step::EVENT => self.endpoint = step.number(),
            step::EXIT => {
                self.reason = step.answer().wrapping_add(1);
                let row = step.detail();
                if row != layout::HOST_EXITS {
                    self.service = row.wrapping_sub(1) as u16;
                }
            }
            step::PORT => self.ports = self.ports.wrapping_add(1),
            _ => {}
        }
    }

    /// Notes the end.
    #[inline(always)]
    pub fn decided(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Transmit => self.verdict = verdict::TRANSMIT,
            Verdict::Redirect(interface) => {
                (self.verdict, self.interface) = (verdict::REDIRECT, interface);
            }
            Verdict::Pass(_) => self.verdict = verdict::PASS,
            Verdict::Drop(_) => self.verdict = verdict::DROP,
        }
    }

    /// Notes an entry that was found.
    #[inline(always)]
    fn found(&mut self, table: u8, entry: &FlowEntry) {
        // What a port was tried against is another flow's.
        if self.ports == 0 {
            self.table = table;
            self.entry = *entry;
        }
    }

    /// Its verdict, as [`trace::verdict_bit`](crate::trace::verdict_bit) has it.
    #[inline(always)]
    #[must_use]
    pub const fn verdict_bit(&self) -> u32 {
        // Zero stands for none.
        (1 << (self.verdict & 7)) >> 1
    }

    /// The reason that was counted, as a bit by its number; zero where there was none.
    #[inline(always)]
    #[must_use]
    pub const fn reason_bit(&self) -> u32 {
        ((1_u64 << (self.reason & 63)) >> 1) as u32
    }

    /// What became of it; `None` where that is not known.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        let reason = self.reason();
        match self.verdict {
            verdict::TRANSMIT => Some(Verdict::Transmit),
            verdict::REDIRECT => Some(Verdict::Redirect(self.interface)),
            verdict::PASS => reason.map(Verdict::Pass),
            verdict::DROP => reason.map(Verdict::Drop),
            _ => None,
        }
    }

    /// The reason that was counted, where one was: of packets that are sent, too.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        let number = usize::from(self.reason).checked_sub(1)?;
        Reason::ALL
            .into_iter()
            .find(|reason| *reason as usize == number)
    }

    /// The number of its slot within the ring.
    #[must_use]
    pub const fn slot_number(&self) -> u16 {
        self.hash as u16 & self.slot_mask
    }

    /// The steps, in their order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps[..usize::from(self.count).min(STEPS)]
    }

    /// The first step about something.
    #[must_use]
    pub fn first(&self, what: u8) -> Option<Step> {
        self.steps()
            .iter()
            .copied()
            .find(|step| step.what() == what)
    }
}

/// Where a trail is written.
pub trait Notes {
    /// Writes to the trail of the packet in hand; nothing where there is none.
    fn note(&self, with: impl FnOnce(&mut Trail));

    /// Notes a step.
    #[inline(always)]
    fn step(&self, step: Step) {
        self.note(|trail| trail.add(step));
    }
}

/// A world whose answers are written down.
#[derive(Debug)]
pub struct Watched<W, N> {
    /// The world.
    pub world: W,
    /// Where its answers are written.
    pub notes: N,
}

impl<W, N: Notes> Watched<W, N> {
    #[inline(always)]
    fn step(&self, what: u8, answer: u8, number: u16, detail: u32) {
        self.notes.step(Step::new(what, answer, number, detail));
    }

    /// Notes a look-up that found nothing.
    #[inline(always)]
    fn missed(&self, what: u8) {
        self.step(what, step::NO, 0, 0);
    }
}

impl<W: Tables, N: Notes> Tables for Watched<W, N> {
    #[inline(always)]
    fn current(&self) -> Option<&layout::Tables> {
        let current = self.world.current()?;
        self.notes
            .note(|trail| trail.generation = current.header.generation);
        Some(current)
    }

    #[inline(always)]
    fn slot(&self, vip: &Vip, hash: u32) -> Option<Slot> {
        let slot = self.world.slot(vip, hash);
        self.notes.note(|trail| {
            trail.service = vip.service;
            trail.hash = hash;
            trail.slot_mask = vip.slot_mask;
            if let Some(slot) = slot {
                trail.slot = slot;
            }
        });
        match slot {
            Some(slot) => {
                let [word] = bytemuck::cast::<Slot, [u32; 1]>(slot);
                self.step(step::SLOT, step::YES, 0, word);
            }
            None => self.missed(step::SLOT),
        }
        slot
    }
}

impl<W: Counters, N: Notes> Counters for Watched<W, N> {
    #[inline(always)]
    fn forwarded(&self, endpoint: u16, bytes: usize, new_flow: bool) {
        self.world.forwarded(endpoint, bytes, new_flow);
        self.step(step::FORWARDED, new_flow.into(), endpoint, 0);
    }

    #[inline(always)]
    fn exit(&self, row: u32, reason: Reason) {
        self.world.exit(row, reason);
        self.step(step::EXIT, reason as u8, 0, row);
    }

    #[inline(always)]
    fn syn_seen(&self, place: usize, fingerprint: u32) -> bool {
        self.world.syn_seen(place, fingerprint)
    }

    #[inline(always)]
    fn event(&self, endpoint: u16, event: Event) {
        self.world.event(endpoint, event);
        let kind = match event {
            Event::Retransmitted => step::RETRANSMITTED,
            Event::Reset => step::RESET,
            Event::Reply(_) => step::REPLY,
        };
        self.step(step::EVENT, kind, endpoint, 0);
    }

    #[inline(always)]
    fn tracked(&self, what: Tracked) {
        self.world.tracked(what);
    }

    #[inline(always)]
    fn opened(&self, endpoint: u16, source: &Address, slot: u16, lot: u32) {
        self.world.opened(endpoint, source, slot, lot);
    }
}

impl<W: Latency, N: Notes> Latency for Watched<W, N> {
    #[inline(always)]
    fn clock(&self) -> u64 {
        self.world.clock()
    }

    #[inline(always)]
    fn waiting<R>(&self, flow: &Flow, with: impl FnOnce(&mut Waiting) -> R) -> Option<R> {
        self.world.waiting(flow, with)
    }

    #[inline(always)]
    fn wait(&self, flow: &Flow, what: &Waiting) {
        self.world.wait(flow, what);
    }

    #[inline(always)]
    fn wait_no_more(&self, flow: &Flow) {
        self.world.wait_no_more(flow);
    }

    #[inline(always)]
    fn took(&self, endpoint: u16, what: Took, nanoseconds: u64) {
        self.world.took(endpoint, what, nanoseconds);
    }

    #[inline(always)]
    fn failed(&self, endpoint: u16, how: Failed) {
        self.world.failed(endpoint, how);
    }
}

impl<W: Memory, N: Notes> Memory for Watched<W, N> {
    #[inline(always)]
    fn now(&self) -> u32 {
        self.world.now()
    }

    #[inline(always)]
    fn fresh<R>(&self, flow: &Flow, with: impl FnOnce(&mut FlowEntry) -> R) -> Option<R> {
        let found = self.world.fresh(flow, |entry| {
            self.notes.note(|trail| trail.found(table::FRESH, entry));
            self.step(step::FRESH, step::YES, entry.endpoint, entry.flags.into());
            with(entry)
        });
        if found.is_none() {
            self.missed(step::FRESH);
        }
        found
    }

    #[inline(always)]
    fn established<R>(&self, flow: &Flow, with: impl FnOnce(&mut FlowEntry) -> R) -> Option<R> {
        let found = self.world.established(flow, |entry| {
            self.notes
                .note(|trail| trail.found(table::ESTABLISHED, entry));
            self.step(
                step::ESTABLISHED,
                step::YES,
                entry.endpoint,
                entry.flags.into(),
            );
            with(entry)
        });
        if found.is_none() {
            self.missed(step::ESTABLISHED);
        }
        found
    }

    #[inline(always)]
    fn remember_fresh(&self, flow: &Flow, entry: &FlowEntry) {
        self.world.remember_fresh(flow, entry);
        self.step(step::REMEMBERED_FRESH, step::YES, entry.endpoint, 0);
    }

    #[inline(always)]
    fn claim_fresh(&self, flow: &Flow, entry: &FlowEntry) -> bool {
        let free = self.world.claim_fresh(flow, entry);
        self.step(step::CLAIMED, free.into(), entry.endpoint, 0);
        free
    }

    #[inline(always)]
    fn remember_established(&self, flow: &Flow, entry: &FlowEntry) -> bool {
        let room = self.world.remember_established(flow, entry);
        self.step(step::REMEMBERED, room.into(), entry.endpoint, 0);
        room
    }

    #[inline(always)]
    fn forget_fresh(&self, flow: &Flow) {
        self.world.forget_fresh(flow);
        self.step(step::FORGOT_FRESH, step::YES, 0, 0);
    }

    #[inline(always)]
    fn forget_established(&self, flow: &Flow) {
        self.world.forget_established(flow);
        self.step(step::FORGOT, step::YES, 0, 0);
    }

    #[inline(always)]
    fn remember_fragment(&self, fragment: &FragmentKey, entry: &FlowEntry) {
        self.world.remember_fragment(fragment, entry);
        self.step(step::REMEMBERED_FRAGMENT, step::YES, entry.endpoint, 0);
    }

    #[inline(always)]
    fn fragment(&self, fragment: &FragmentKey) -> Option<FlowEntry> {
        let found = self.world.fragment(fragment);
        match &found {
            Some(entry) => self.step(step::FRAGMENT, step::YES, entry.endpoint, 0),
            None => self.missed(step::FRAGMENT),
        }
        found
    }

    #[inline(always)]
    fn next_port(&self) -> u32 {
        let port = self.world.next_port();
        self.step(step::PORT, step::YES, 0, port);
        port
    }

    #[inline(always)]
    fn listed(&self, source: &SourceKey) -> Option<u8> {
        let listed = self.world.listed(source);
        let answer = match listed {
            None => step::UNLISTED,
            Some(0) => step::DENIED,
            Some(_) => step::ALLOWED,
        };
        self.step(step::LISTED, answer, 0, source.list);
        listed
    }

    #[inline(always)]
    fn allowance<R>(
        &self,
        source: &LimitKey,
        first: Allowance,
        with: impl FnOnce(&mut Allowance) -> R,
    ) -> Option<R> {
        self.world.allowance(source, first, |allowance| {
            let answer = with(allowance);
            self.step(step::LIMITED, step::YES, 0, allowance.left);
            answer
        })
    }

    #[inline(always)]
    fn may_tell(&self) -> bool {
        let may = self.world.may_tell();
        self.step(step::TELL, may.into(), 0, 0);
        may
    }
}

impl<W: Routes, N: Notes> Routes for Watched<W, N> {
    #[inline(always)]
    fn route(&self, family: u8, source: &Address, destination: &Address, ingress: u32) -> Route {
        // Put together anew from numbers that are there in each case: up to Linux 6.2 the verifier
        // refuses to read from the stack what was written where there is a way alone.
        let (kind, interface, macs) = match self.world.route(family, source, destination, ingress) {
            Route::Over { interface, macs } => (step::OVER, interface, macs),
            Route::Nowhere => (step::NOWHERE, 0, [0; 3]),
            Route::Unknown => (step::UNKNOWN, 0, [0; 3]),
        };
        self.notes
            .note(|trail| (trail.way, trail.macs) = (interface, macs));
        self.step(step::ROUTE, kind, 0, interface);
        match kind {
            step::OVER => Route::Over { interface, macs },
            step::NOWHERE => Route::Nowhere,
            _ => Route::Unknown,
        }
    }

    #[inline(always)]
    fn awaited(&self, flow: &Flow) -> bool {
        let awaited = self.world.awaited(flow);
        self.step(step::AWAITED, awaited.into(), 0, 0);
        awaited
    }
}

const _: () = {
    assert!(STEPS.is_power_of_two());
    assert!(size_of::<Trail>().is_multiple_of(8));
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_keeps_all_that_it_is_made_of() {
        let step = Step::new(step::ESTABLISHED, step::YES, 0xabcd, 0x1234_5678);
        assert_eq!(
            (step.what(), step.answer(), step.number(), step.detail()),
            (step::ESTABLISHED, step::YES, 0xabcd, 0x1234_5678)
        );
    }

    #[test]
    fn a_long_trail_keeps_its_end() {
        let mut trail = Trail::begun();
        for number in 0..100 {
            trail.add(Step::new(step::PORT, step::YES, number, 0));
        }
        let numbers: std::vec::Vec<u16> = trail.steps().iter().map(|step| step.number()).collect();
        assert_eq!(numbers.len(), STEPS);
        assert_eq!((numbers[0], numbers[STEPS - 2]), (0, STEPS as u16 - 2));
        assert_eq!(numbers[STEPS - 1], 99);
    }

    #[test]
    fn every_verdict_is_read_as_it_was_written() {
        for verdict in [
            Verdict::Transmit,
            Verdict::Redirect(7),
            Verdict::Pass(Reason::NoTables),
            Verdict::Drop(Reason::Related),
        ] {
            let mut trail = Trail::begun();
            assert_eq!(trail.verdict(), None);
            if let Verdict::Pass(reason) | Verdict::Drop(reason) = verdict {
                trail.reason = reason as u8 + 1;
            }
            trail.decided(verdict);
            assert_eq!(trail.verdict(), Some(verdict));
        }
    }
}
