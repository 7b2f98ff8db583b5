//! What the decision reads, remembers and counts, wherever that lies.

use crate::{
    flow::{Address, Flow},
    layout::{self, Allowance, FlowEntry, FragmentKey, LimitKey, Slot, SourceKey, Vip, Waiting},
    verdict::Reason,
};

/// The published tables.
pub trait Tables {
    /// The current tables; `None` before the first publication.
    ///
    /// One packet asks once and stays with the answer.
    fn current(&self) -> Option<&layout::Tables>;

    /// The slot of a service's ring that a hash picks; `None` where the ring is missing.
    fn slot(&self, vip: &Vip, hash: u32) -> Option<Slot>;
}

/// What is counted. None of it may fail, block or change a verdict.
pub trait Counters {
    /// Counts a packet sent to an endpoint.
    fn forwarded(&self, endpoint: u16, bytes: usize, new_flow: bool);

    /// Counts a packet that was not: `row` is [`layout::HOST_EXITS`] or a service's number plus
    /// one.
    fn exit(&self, row: u32, reason: Reason);

    /// Remembers a SYN's fingerprint in a place, and says whether it stood there already.
    fn syn_seen(&self, place: usize, fingerprint: u32) -> bool;

    /// Counts what an endpoint's flows met.
    fn event(&self, endpoint: u16, event: Event);

    /// Counts what became of the memory of flows.
    fn tracked(&self, what: Tracked);

    /// Takes note of a connection that a client opens and that falls into a slot, where `lot`, a number that is any number as
    /// likely as another, falls among the [part](layout::SampledFlow::one_of) that is noted.
    fn opened(&self, endpoint: u16, source: &Address, slot: u16, lot: u32);
}

/// What is counted of an endpoint beside its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A SYN was sent again.
    Retransmitted,
    /// A segment with RST passed.
    Reset,
    /// A reply of so many bytes passed.
    Reply(usize),
}

/// What is counted of the memory of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tracked {
    /// An entry was made for a first packet.
    Fresh = 0,
    /// An entry was made for, or moved on by, a packet that is not the first.
    Established = 1,
    /// The table of established flows was full.
    Refused = 2,
    /// A port that `snat` tried was taken.
    Collision = 3,
}

/// What is measured of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took {
    /// From a SYN to the end of the handshake.
    Handshake,
    /// From a request to the first of its response, for the first time in about a minute of its
    /// flow.
    Response,
    /// The same once more.
    Further,
}

/// How a connection that is measured failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// Its SYN was sent again.
    Unanswered,
    /// The backend reset it while it was to answer.
    Reset,
}

/// The memory of flows whose latency is measured. A flow that is pushed out is measured no more.
pub trait Latency {
    /// The monotonic clock, in nanoseconds. Asked for flows that are measured alone.
    fn clock(&self) -> u64;

    /// Looks a flow up among those that are measured.
    fn waiting<R>(&self, flow: &Flow, with: impl FnOnce(&mut Waiting) -> R) -> Option<R>;

    /// Begins to measure a flow, or begins anew.
    fn wait(&self, flow: &Flow, what: &Waiting);

    /// Measures a flow no more.
    fn wait_no_more(&self, flow: &Flow);

    /// Counts how long something took, in nanoseconds.
    fn took(&self, endpoint: u16, what: Took, nanoseconds: u64);

    /// Counts a connection that failed.
    fn failed(&self, endpoint: u16, how: Failed);
}

/// What is remembered from packet to packet, of flows and of sources.
///
/// Flows lie in two tables, so that a flood of first packets cannot push out the living: `fresh`
/// forgets the entries used least recently, `established` refuses new ones when it is full.
pub trait Memory {
    /// The time in [`layout::TICK_NS`], wrapping.
    fn now(&self) -> u32;

    /// Looks a flow up among those of which only a first packet was seen.
    fn fresh<R>(&self, flow: &Flow, with: impl FnOnce(&mut FlowEntry) -> R) -> Option<R>;

    /// Looks a flow up among the others.
    fn established<R>(&self, flow: &Flow, with: impl FnOnce(&mut FlowEntry) -> R) -> Option<R>;

    /// Remembers a flow's first packet.
    fn remember_fresh(&self, flow: &Flow, entry: &FlowEntry);

    /// The same unless the flow is in the table; whether it was not.
    fn claim_fresh(&self, flow: &Flow, entry: &FlowEntry) -> bool;

    /// Remembers a flow; false where there is no room.
    fn remember_established(&self, flow: &Flow, entry: &FlowEntry) -> bool;

    /// Forgets a flow's first packet.
    fn forget_fresh(&self, flow: &Flow);

    /// Forgets a flow.
    fn forget_established(&self, flow: &Flow);

    /// Remembers what became of a packet's first fragment.
    fn remember_fragment(&self, fragment: &FragmentKey, entry: &FlowEntry);

    /// What became of a packet's first fragment.
    fn fragment(&self, fragment: &FragmentKey) -> Option<FlowEntry>;

    /// Counts on for each port that `snat` tries, so that a port is not soon used again.
    fn next_port(&self) -> u32;

    /// What the lists say of a source: its longest prefix, 1 where that is allowed and 0 where it
    /// is denied.
    fn listed(&self, source: &SourceKey) -> Option<u8>;

    /// How many connections a source may still open; a source that is not known begins with what
    /// is given.
    fn allowance<R>(
        &self,
        source: &LimitKey,
        first: Allowance,
        with: impl FnOnce(&mut Allowance) -> R,
    ) -> Option<R>;

    /// Whether one more ICMP error may be sent now.
    fn may_tell(&self) -> bool;
}

/// The host's way to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Over an interface, with these first twelve bytes of the frame.
    Over {
        /// The interface's index.
        interface: u32,
        /// Next hop's and own MAC address, as they lie in memory.
        macs: [u32; 3],
    },
    /// The host does not send there: it is the host itself, or there is no route at all. The
    /// kernel's answer is the same; [`Routes::awaited`] tells the two apart.
    Nowhere,
    /// Its next hop is not resolved, or packets to it are refused.
    Unknown,
}

/// The host's routes.
pub trait Routes {
    /// The way of a packet from one address to another of the same family, which came in by an
    /// interface.
    fn route(&self, family: u8, source: &Address, destination: &Address, ingress: u32) -> Route;

    /// Whether a socket of the host waits for a flow's packets.
    ///
    /// One that listens on every address waits for all, also for those that are not the host's
    /// own: to be asked only where the route is [`Route::Nowhere`].
    fn awaited(&self, flow: &Flow) -> bool;
}

/// Everything that the decision asks.
pub trait World: Tables + Counters + Memory + Latency + Routes {}

impl<W: Tables + Counters + Memory + Latency + Routes> World for W {}
