//! The tables as they lie in kernel memory.
//!
//! Userspace writes them once and publishes them by one pointer; nothing changes them after that.
//! Every index that the data plane follows is masked with the size of the array it goes into, so
//! a damaged table can misdirect a packet but never read outside.

mod latency;

use bytemuck::{Pod, Zeroable};

pub use latency::{
    BUCKETS, COUNTED_NS, FIRST_AGAIN, Histogram, Latencies, WAITING, Waiting, bucket,
    end_of_bucket, waiting,
};

use crate::{
    flow::{Address, Flow},
    hash::{FlowKeys, VipKeys},
};

/// The versions of what lies in kernel memory, by part. One changes whenever a type of its part
/// does; what has not changed is shared by the programs of both versions during an upgrade.
///
/// Feature `next-layout` is for tests of that: what would be the next version, with fields in
/// other places and records of other sizes.
pub mod version {
    /// One later, where the next layout is built.
    const NEXT: u32 = cfg!(feature = "next-layout") as u32;

    /// Of the tables, the rings and the lists of sources.
    pub const TABLES: u32 = 3 + NEXT;
    /// Of what is remembered of flows and fragments.
    pub const FLOWS: u32 = 2 + NEXT;
    /// Of counters, and of what a CPU keeps for itself.
    pub const COUNTERS: u32 = 3;
}

/// The slots of the largest ring. A smaller ring uses the first of them.
pub const RING_SLOTS: usize = 1 << 16;
/// The slots of a small ring, which lies in a map of its own kind: a thousand of them take a
/// sixteenth of the memory.
pub const SMALL_RING_SLOTS: usize = 1 << 12;
/// How many rings of each kind there is room for: those in use and those about to be.
pub const RINGS: usize = 1 << 11;
/// How many services there is room for.
pub const SERVICES: usize = 1 << 10;
/// The places of the VIP table: at least three for each service with its address.
pub const VIP_PLACES: usize = 1 << 13;
/// The places of the table that finds an endpoint by its own address or QUIC server ID.
pub const ENDPOINT_PLACES: usize = 1 << 16;
/// How many endpoints (pairs of service and backend) there is room for.
pub const ENDPOINTS: usize = 1 << 15;
/// How many recently opened connections a CPU recognises, to tell a retransmitted SYN.
pub const RECENT_SYNS: usize = 1 << 12;
/// How many packets' first fragments are remembered.
pub const FRAGMENTS: usize = 1 << 13;
/// How many prefixes all lists of sources may have.
pub const SOURCES: usize = 1 << 16;
/// How many limited sources are remembered.
pub const LIMITS: usize = 1 << 16;
/// How many addresses `snat` may send from.
pub const SNAT_ADDRESSES: usize = 64;

/// A slot of a ring: who takes new flows, and who may still have old ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct Slot(u32);

/// An endpoint's number that stands for no endpoint. As `prior`: the slot is steady.
pub const NONE: u16 = 0xffff;
/// As `prior`: the slot's transition is over, but remembered flows may disagree with its owner.
pub const PINNED: u16 = 0xfffe;

impl Slot {
    /// Where owner and prior lie, in bits.
    const PLACES: (u32, u32) = if cfg!(feature = "next-layout") {
        (16, 0)
    } else {
        (0, 16)
    };

    /// A slot in which nothing is remembered.
    #[must_use]
    pub const fn steady(owner: u16) -> Self {
        Self::new(owner, NONE)
    }

    /// A slot with an owner and a prior: an endpoint, [`NONE`] or [`PINNED`].
    #[must_use]
    pub const fn new(owner: u16, prior: u16) -> Self {
        Self((owner as u32) << Self::PLACES.0 | (prior as u32) << Self::PLACES.1)
    }

    /// The endpoint that takes new flows.
    #[inline(always)]
    pub const fn owner(self) -> u16 {
        (self.0 >> Self::PLACES.0) as u16
    }

    /// Whose the unremembered flows are: an endpoint, [`NONE`] or [`PINNED`].
    #[inline(always)]
    pub const fn prior(self) -> u16 {
        (self.0 >> Self::PLACES.1) as u16
    }

    /// Whether nothing is remembered of its flows.
    #[inline(always)]
    pub const fn is_steady(self) -> bool {
        self.prior() == NONE
    }
}

/// The slots of one service, in the largest kind of ring.
pub type Ring = [Slot; RING_SLOTS];
/// The slots of one service that needs few.
pub type SmallRing = [Slot; SMALL_RING_SLOTS];

/// What becomes of packets that match a place of the VIP table.
pub mod state {
    /// The place is empty.
    pub const VACANT: u8 = 0;
    /// It has a ring.
    pub const SERVING: u8 = 1;
    /// It has no usable backend, and drops.
    pub const EMPTY_DROP: u8 = 2;
    /// It has no usable backend, and passes.
    pub const EMPTY_PASS: u8 = 3;
    /// The address of a VIP, with protocol and port zero: what has no ports is found by it.
    pub const ADDRESS: u8 = 4;
    /// An address that `snat` sends from, with port zero: what comes to it are replies.
    pub const POOL: u8 = 5;
    /// In the table of endpoints: the place names one.
    pub const ENDPOINT: u8 = 6;
}

/// How an endpoint is reached.
pub mod mode {
    /// The record is empty, or its next hop is not known.
    pub const UNRESOLVED: u8 = 0;
    /// By rewriting the MAC addresses.
    pub const DSR: u8 = 1;
    /// In an IP packet of its own: IPv4 or IPv6 in either.
    pub const IPIP: u8 = 2;
    /// The same in UDP (Generic UDP Encapsulation, variant 1).
    pub const GUE: u8 = 3;
    /// By rewriting the destination; replies come back by way of the load balancer.
    pub const NAT: u8 = 4;
    /// By rewriting source and destination.
    pub const SNAT: u8 = 5;
}

/// What of a flow picks its slot.
pub mod spread {
    /// Addresses, ports and protocol.
    pub const FLOW: u8 = 0;
    /// The source address alone: all of a client's flows meet at one backend.
    pub const SOURCE: u8 = 1;
    /// The destination port alone.
    pub const PORT: u8 = 2;
}

/// Bits of [`Vip::flags`]: what keeps a service's packets from the shortest way.
pub mod flag {
    /// Every flow has an entry: mode `snat`, and UDP that is sticky.
    pub const REMEMBER: u16 = 1;
    /// Sources are allowed or denied by a list.
    pub const SOURCES: u16 = 1 << 1;
    /// A source may open a limited number of connections a second.
    pub const LIMIT: u16 = 1 << 2;
    /// QUIC: the connection ID names the backend.
    pub const QUIC: u16 = 1 << 3;
    /// Sources that no entry of the list covers are denied.
    pub const DENY_OTHERS: u16 = 1 << 4;
    /// Later fragments whose first was not seen go up the stack, instead of nowhere.
    pub const PASS_REORDERED: u16 = 1 << 5;
    /// No fragment is followed: all go where `PASS_REORDERED` says.
    pub const NO_FRAGMENTS: u16 = 1 << 6;

    /// Those that the shortest way must look at.
    pub const SLOW: u16 = REMEMBER | SOURCES | LIMIT | QUIC;
}

/// Families in the table of endpoints, beside those of addresses.
pub mod family {
    /// A QUIC server ID; `port` is the service's number, `protocol` the ID's length.
    pub const QUIC: u8 = 64;
}

/// What a packet is looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct VipKey {
    /// The virtual address.
    pub address: Address,
    /// The destination port as it lies in memory; zero takes any.
    pub port: u16,
    /// The transport protocol's number.
    pub protocol: u8,
    /// [`V4`](crate::flow::V4) or [`V6`](crate::flow::V6).
    pub family: u8,
}

impl VipKey {
    /// Everything but the address, as one word.
    #[inline(always)]
    pub const fn rest(&self) -> u32 {
        self.port as u32 | (self.protocol as u32) << 16 | (self.family as u32) << 24
    }

    /// Whether a table's key is this one: with one branch, and of IPv4 by two words, because the
    /// others are zero in both.
    #[inline(always)]
    pub const fn stands_in(&self, table: &Self) -> bool {
        let mut difference = (self.address[3] ^ table.address[3]) | (self.rest() ^ table.rest());
        if self.family != crate::flow::V4 {
            difference |= (self.address[0] ^ table.address[0])
                | (self.address[1] ^ table.address[1])
                | (self.address[2] ^ table.address[2]);
        }
        difference == 0
    }
}

/// A place of the VIP table, or of that of endpoints: a key with what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Vip {
    /// The key.
    pub key: VipKey,
    /// Which ring, where `state` is [`state::SERVING`]: of the small ones where `slot_mask` is
    /// below [`SMALL_RING_SLOTS`]. Which endpoint, where it is [`state::ENDPOINT`].
    pub ring: u32,
    /// The ring's size less one.
    pub slot_mask: u16,
    /// The service's number, below [`SERVICES`].
    pub service: u16,
    /// One of [`state`].
    pub state: u8,
    /// One of [`spread`].
    pub spread: u8,
    /// Bits of [`flag`].
    pub flags: u16,
}

/// A backend of a service: what every packet needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Endpoint {
    /// Zero.
    #[cfg(feature = "next-layout")]
    pub reserved: [u8; 5],
    /// 1 while it serves: flows that are remembered as its own still go to it.
    #[cfg(feature = "next-layout")]
    pub serves: u8,
    /// As it is below, where this is not the next layout.
    #[cfg(feature = "next-layout")]
    pub sampled: u16,
    /// The first twelve bytes of the frames sent to it: its next hop's MAC address, then that of
    /// the interface they leave by, as they lie in memory.
    pub macs: [u32; 3],
    /// The index of that interface.
    pub interface: u32,
    /// Which bits of the last word of [`Far::source`] a flow may change, as they lie in memory.
    pub entropy: u32,
    /// Its service's number, below [`SERVICES`].
    pub service: u16,
    /// The port that NAT sends to, as it lies in memory; zero keeps the packet's.
    pub port: u16,
    /// The largest IP packet that may leave by `interface`, in bytes.
    pub mtu: u16,
    /// One of [`mode`].
    pub mode: u8,
    /// Of [`Far::address`]: [`V4`](crate::flow::V4) or [`V6`](crate::flow::V6); zero marks a free
    /// record.
    pub family: u8,
    /// 1 while it serves: flows that are remembered as its own still go to it.
    #[cfg(not(feature = "next-layout"))]
    pub serves: u8,
    /// Zero.
    #[cfg(not(feature = "next-layout"))]
    pub reserved: [u8; 1],
    /// How many of 65,536 flows have their latency measured.
    #[cfg(not(feature = "next-layout"))]
    pub sampled: u16,
}

/// A backend of a service: what only some modes need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Far {
    /// The backend's address.
    pub address: Address,
    /// Of the same family: where packets in a tunnel to it come from.
    pub source: Address,
}

/// A service: what only some packets need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Service {
    /// Its VIP.
    pub address: Address,
    /// When its last change of slots was published: seconds since the epoch, zero where no slot
    /// is in transition. For the controller's own use, so that a restart goes on with it.
    pub changed: u64,
    /// Its list of sources; see [`SourceKey`].
    pub sources: u32,
    /// How many connections a source may open: a burst, and how many a second after that.
    pub burst: u32,
    /// See `burst`.
    pub rate: u32,
    /// Its port as it lies in memory; zero takes any.
    pub port: u16,
    /// The transport protocol's number.
    pub protocol: u8,
    /// [`V4`](crate::flow::V4) or [`V6`](crate::flow::V6).
    pub family: u8,
    /// The length of its QUIC server IDs in bytes, 1 to 15; zero without QUIC.
    pub server_id: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

/// What a published table says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Header {
    /// [`version::TABLES`].
    pub version: u32,
    /// How many services take any port, and how many addresses `snat` sends from; where there is
    /// neither, one look-up suffices.
    pub any_port_services: u32,
    /// Counts publications.
    pub generation: u64,
    /// The keys of the flow hash.
    pub flow_keys: FlowKeys,
    /// The keys of the VIP table's hash.
    pub vip_keys: VipKeys,
    /// The keys of the hash of the table of endpoints.
    pub endpoint_keys: VipKeys,
    /// How many endpoints are of mode `nat`, whose replies are recognised by their source.
    pub nat_endpoints: u32,
    /// How many of these keep any port.
    pub any_port_endpoints: u32,
    /// The addresses that `snat` sends from, those of IPv4 first.
    pub snat_v4: u16,
    /// How many of IPv6 come after those of IPv4.
    pub snat_v6: u16,
    /// The first port that `snat` sends from.
    pub snat_first_port: u16,
    /// How many there are from that one on, a power of two less one.
    pub snat_port_mask: u16,
    /// The UDP port of GUE as it lies in memory.
    pub gue_port: u16,
    /// Not zero while a program takes over from one whose memory of flows is laid out in another
    /// way: replies of a flow that is not known yet are dropped, to be sent again, instead of going
    /// to the host, which would reset their connection.
    pub takes_over: u16,
    /// Zero.
    pub reserved: [u16; 2],
}

/// Everything but the rings: what the one pointer points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Tables {
    /// What the table says of itself.
    pub header: Header,
    /// The VIP table; a key stands in one of its two places.
    pub vips: [Vip; VIP_PLACES],
    /// The endpoints, by number.
    pub endpoints: [Endpoint; ENDPOINTS],
    /// What else there is to know of the endpoints, by number.
    pub fars: [Far; ENDPOINTS],
    /// The services, by number.
    pub services: [Service; SERVICES],
    /// The table of endpoints by address and port (mode `nat`), or by QUIC server ID; a key
    /// stands in one of its two places.
    pub by_address: [Vip; ENDPOINT_PLACES],
    /// The addresses that `snat` sends from.
    pub snat: [Address; SNAT_ADDRESSES],
}

impl Vip {
    /// Whether packets take nothing but a look at its ring: it serves, spreads by flow and has
    /// none of the [slow](flag::SLOW) flags. One word holds all three, and is read at once.
    #[inline(always)]
    pub const fn is_simple(&self) -> bool {
        const MASK: u32 = 0xffff | (flag::SLOW as u32) << 16;
        let word = self.state as u32 | (self.spread as u32) << 8 | (self.flags as u32) << 16;
        word & MASK == state::SERVING as u32 | (spread::FLOW as u32) << 8
    }
}

impl Header {
    /// Zero, without the compiler's knowing that: it takes constant zeros together, and has them
    /// written by a function that goes byte by byte.
    #[inline(always)]
    pub const fn zero(&self) -> u32 {
        self.reserved[0] as u32
    }

    /// The two places in which a VIP may stand.
    #[inline(always)]
    pub fn places(&self, key: &VipKey) -> [usize; 2] {
        let hash = crate::hash::vip(&key.address, key.rest(), key.family, &self.vip_keys);
        [
            (hash >> 32) as usize & (VIP_PLACES - 1),
            (hash >> 48) as usize & (VIP_PLACES - 1),
        ]
    }

    /// The two places in which an endpoint may stand.
    #[inline(always)]
    pub fn endpoint_places(&self, key: &VipKey) -> [usize; 2] {
        let hash = crate::hash::vip(&key.address, key.rest(), key.family, &self.endpoint_keys);
        [
            (hash >> 32) as usize & (ENDPOINT_PLACES - 1),
            (hash >> 48) as usize & (ENDPOINT_PLACES - 1),
        ]
    }
}

/// What is remembered of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct FlowEntry {
    /// Under `snat`, the other end that this direction is given: of packets from a client, the
    /// address of the pool; of those from a backend, the client.
    #[cfg(not(feature = "next-layout"))]
    pub other: Address,
    /// The port of `other` as it lies in memory.
    pub other_port: u16,
    /// The endpoint's number.
    pub endpoint: u16,
    /// When a packet was last seen, in [`TICK_NS`] of the monotonic clock, wrapping.
    pub seen: u32,
    /// The service's number.
    pub service: u16,
    /// Bits of [`entry`].
    pub flags: u16,
    /// Which slot of its service's ring the flow falls into.
    pub slot: u16,
    /// The VIP's port as it lies in memory.
    pub vip_port: u16,
    /// As it is above, where this is not the next layout.
    #[cfg(feature = "next-layout")]
    pub other: Address,
}

/// Nanoseconds in a tick of [`FlowEntry::seen`], about a millisecond.
pub const TICK_NS: u64 = 1 << 20;

/// Bits of [`FlowEntry::flags`].
pub mod entry {
    /// A FIN or RST was seen: the flow ends soon, and a SYN begins another.
    pub const CLOSING: u16 = 1;
    /// The entry of a direction that comes from a backend.
    pub const REPLY: u16 = 1 << 1;
    /// More than one packet was seen.
    pub const CONFIRMED: u16 = 1 << 2;
}

/// What a fragmented packet's later fragments are recognised by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct FragmentKey {
    /// Where it comes from.
    pub source: Address,
    /// Where it is addressed to.
    pub destination: Address,
    /// The packet's identification as it lies in memory.
    pub id: u32,
    /// The transport protocol's number; zero over IPv6, where not every fragment tells it.
    pub protocol: u8,
    /// [`V4`](crate::flow::V4) or [`V6`](crate::flow::V6).
    pub family: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

/// What a source is looked up by in the lists: a prefix of everything behind `prefix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct SourceKey {
    /// How many bits of what follows count: 64 and those of the address.
    pub prefix: u32,
    /// The list's number; lists are never changed, a new one has a new number.
    pub list: u32,
    /// [`V4`](crate::flow::V4) or [`V6`](crate::flow::V6), as one word.
    pub family: u32,
    /// The address; of IPv4 the first word, so that a prefix is one.
    pub address: Address,
}

/// What a source that is limited is looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct LimitKey {
    /// The source; of IPv6 its first 64 bits.
    pub source: Address,
    /// The service's number.
    pub service: u32,
}

/// How many connections a source may still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Allowance {
    /// When it was last filled up, in [`TICK_NS`].
    pub filled: u32,
    /// Connections, in 1,024ths.
    pub left: u32,
}

/// What a CPU keeps for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Scratch {
    /// How many ports `snat` has tried.
    pub port: u32,
    /// When `tell` was last filled up, in [`TICK_NS`].
    pub filled: u32,
    /// How many ICMP errors may still be sent, in 1,024ths.
    pub tell: u32,
    /// Zero.
    pub reserved: u32,
}

impl Scratch {
    /// How many ICMP errors a CPU sends at once, and about how many a second.
    const TELL: u32 = 100;

    /// Takes one ICMP error off what may be sent; false where nothing is left.
    #[inline(always)]
    pub fn may_tell(&mut self, now: u32) -> bool {
        let earned = u64::from(now.wrapping_sub(self.filled)) * u64::from(Self::TELL);
        let left = (u64::from(self.tell) + earned).min(u64::from(Self::TELL) << 10) as u32;
        self.filled = now;
        let enough = left >= 1 << 10;
        self.tell = if enough { left - (1 << 10) } else { left };
        enough
    }
}

/// What an endpoint was sent, on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct EndpointCounters {
    /// Packets.
    pub packets: u64,
    /// Bytes of those packets, from the Ethernet header on.
    pub bytes: u64,
    /// SYNs that open a connection, retransmissions left out.
    pub new_flows: u64,
}

/// What an endpoint's flows met, on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct EndpointEvents {
    /// SYNs that were sent again.
    pub retransmitted: u64,
    /// Packets with RST, from either end.
    pub resets: u64,
    /// Packets from it, where they come by way of the load balancer.
    pub replies: u64,
    /// Bytes of those packets, from the Ethernet header on.
    pub reply_bytes: u64,
}

/// What became of the memory of flows, on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct TrackingCounters {
    /// Entries made for a first packet.
    pub fresh: u64,
    /// Entries made for, or moved on by, a packet that is not the first.
    pub established: u64,
    /// Entries that found the table of established flows full.
    pub refused: u64,
    /// Ports that were taken when `snat` tried them.
    pub collisions: u64,
}

/// A connection that a client opened, as the ring buffer of samples holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct SampledFlow {
    /// Where it came from.
    pub source: Address,
    /// It stands for so many: one of them is noted. A power of two.
    pub one_of: u32,
    /// The endpoint that it went to.
    pub endpoint: u16,
    /// The slot that it fell into; above the ring's mask, any bits.
    pub slot: u16,
}

/// How many bytes there are for samples: eight thousand of them, each with eight bytes before it.
pub const SAMPLE_BYTES: usize = 256 * 1024;

/// Packets that did not go to a backend, on one CPU, by [`Reason`](crate::verdict::Reason).
pub type ExitCounters = [u64; crate::verdict::Reason::ROW];

/// The row of [`ExitCounters`] for packets of no service; that of service `n` is `n + 1`.
pub const HOST_EXITS: u32 = 0;
/// How many rows of [`ExitCounters`] there are.
pub const EXIT_ROWS: usize = SERVICES + 1;

/// Fingerprints of the SYNs that a CPU saw last.
pub type RecentSyns = [u32; RECENT_SYNS];

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<Slot>() == 4);
    assert!(size_of::<Ring>() == 256 * 1024);
    assert!(size_of::<SmallRing>() == 16 * 1024);
    assert!(size_of::<VipKey>() == 20);
    assert!(size_of::<Vip>() == 32);
    assert!(offset_of!(Vip, ring) == 20);
    assert!(offset_of!(Vip, service) == 26);
    assert!(offset_of!(Vip, state) == 28);
    assert!(offset_of!(Vip, flags) == 30);
    #[cfg(not(feature = "next-layout"))]
    {
        assert!(size_of::<Endpoint>() == 32);
        assert!(offset_of!(Endpoint, interface) == 12);
        assert!(offset_of!(Endpoint, mode) == 26);
    }
    assert!(size_of::<Far>() == 32);
    assert!(size_of::<Service>() == 48);
    assert!(size_of::<Header>() == 216);
    assert!(offset_of!(Header, generation) == 8);
    assert!(offset_of!(Header, flow_keys) == 16);
    assert!(offset_of!(Tables, vips) == 216);
    assert!(offset_of!(Tables, endpoints) == 216 + 32 * VIP_PLACES);
    assert!(offset_of!(Tables, fars) == 216 + 32 * VIP_PLACES + size_of::<Endpoint>() * ENDPOINTS);
    assert!(size_of::<Flow>() == 40);
    assert!(size_of::<FlowEntry>() == 32);
    assert!(size_of::<FragmentKey>() == 40);
    assert!(size_of::<SourceKey>() == 28);
    assert!(size_of::<LimitKey>() == 20);
    assert!(size_of::<EndpointCounters>() == 24);
    assert!(size_of::<EndpointEvents>() == 32);
    assert!(size_of::<SampledFlow>() == 24);
    // A small ring's numbers fit both kinds, and every place that is hashed to exists.
    assert!(2 * SERVICES <= RINGS && ENDPOINT_PLACES <= 1 << 16);
    // Endpoint numbers must not meet the two special priors.
    assert!(ENDPOINTS <= PINNED as usize);
};
