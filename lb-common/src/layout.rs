//! The tables as they lie in kernel memory.
//!
//! Userspace writes them once and publishes them by one pointer; nothing changes them after that.
//! Every index that the data plane follows is masked with the size of the array it goes into, so
//! a damaged table can misdirect a packet but never read outside.

use bytemuck::{Pod, Zeroable};

use crate::{
    flow::Address,
    hash::{FlowKeys, VipKeys},
};

/// Changes whenever a type in this module does.
pub const VERSION: u32 = 1;

/// The slots of the largest ring. A smaller ring uses the first of them.
pub const RING_SLOTS: usize = 1 << 16;
/// How many rings there is room for: those in use and those about to be.
pub const RINGS: usize = 1 << 12;
/// How many services there is room for.
pub const SERVICES: usize = 1 << 10;
/// The places of the VIP table: four for each service, so that two choices always suffice.
pub const VIP_PLACES: usize = 1 << 12;
/// How many endpoints (pairs of service and backend) there is room for.
pub const ENDPOINTS: usize = 1 << 14;
/// How many recently opened connections a CPU recognises, to tell a retransmitted SYN.
pub const RECENT_SYNS: usize = 1 << 12;

/// A slot of a ring: who takes new flows, and who may still have old ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct Slot(u32);

/// An endpoint's number that stands for no endpoint. As `prior`: the slot is steady.
pub const NONE: u16 = 0xffff;
/// As `prior`: the slot's transition is over, but remembered flows may disagree with its owner.
pub const PINNED: u16 = 0xfffe;

impl Slot {
    /// A slot in which nothing is remembered.
    #[must_use]
    pub const fn steady(owner: u16) -> Self {
        Self::new(owner, NONE)
    }

    /// A slot with an owner and a prior: an endpoint, [`NONE`] or [`PINNED`].
    #[must_use]
    pub const fn new(owner: u16, prior: u16) -> Self {
        Self(owner as u32 | (prior as u32) << 16)
    }

    /// The endpoint that takes new flows.
    #[inline(always)]
    pub const fn owner(self) -> u16 {
        self.0 as u16
    }

    /// Whose the unremembered flows are: an endpoint, [`NONE`] or [`PINNED`].
    #[inline(always)]
    pub const fn prior(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// The slots of one service.
pub type Ring = [Slot; RING_SLOTS];

/// What a service does with its packets.
pub mod state {
    /// The place is empty.
    pub const VACANT: u8 = 0;
    /// It has a ring.
    pub const SERVING: u8 = 1;
    /// It has no usable backend, and drops.
    pub const EMPTY_DROP: u8 = 2;
    /// It has no usable backend, and passes.
    pub const EMPTY_PASS: u8 = 3;
}

/// How an endpoint is reached.
pub mod mode {
    /// The record is empty, or its next hop is not known.
    pub const UNRESOLVED: u8 = 0;
    /// By rewriting the MAC addresses.
    pub const DSR: u8 = 1;
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
}

/// A place of the VIP table: a key with its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Vip {
    /// The key.
    pub key: VipKey,
    /// Which ring, where `state` is [`state::SERVING`].
    pub ring: u32,
    /// The ring's size less one.
    pub slot_mask: u16,
    /// The service's number, below [`SERVICES`].
    pub service: u16,
    /// One of [`state`].
    pub state: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// A backend of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Endpoint {
    /// The first twelve bytes of the frames sent to it: its next hop's MAC address, then that of
    /// the interface they leave by, as they lie in memory.
    pub macs: [u32; 3],
    /// The index of that interface.
    pub interface: u32,
    /// The backend's address; not needed to forward in mode `dsr`.
    pub address: Address,
    /// Its service's number, below [`SERVICES`].
    pub service: u16,
    /// One of [`mode`].
    pub mode: u8,
    /// Of `address`: [`V4`](crate::flow::V4) or [`V6`](crate::flow::V6); zero marks a free record.
    pub family: u8,
    /// Zero.
    pub reserved: [u8; 4],
}

/// What a published table says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Header {
    /// [`VERSION`].
    pub version: u32,
    /// How many services take any port; where none does, one look-up suffices.
    pub any_port_services: u32,
    /// Counts publications.
    pub generation: u64,
    /// The keys of the flow hash.
    pub flow_keys: FlowKeys,
    /// The keys of the VIP table's hash.
    pub vip_keys: VipKeys,
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
}

impl Header {
    /// The two places in which a VIP may stand.
    #[inline(always)]
    pub fn places(&self, key: &VipKey) -> [usize; 2] {
        let hash = crate::hash::vip(&key.address, key.rest(), key.family, &self.vip_keys);
        [
            (hash >> 32) as usize & (VIP_PLACES - 1),
            (hash >> 48) as usize & (VIP_PLACES - 1),
        ]
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
    assert!(size_of::<VipKey>() == 20);
    assert!(size_of::<Vip>() == 32);
    assert!(offset_of!(Vip, ring) == 20);
    assert!(offset_of!(Vip, service) == 26);
    assert!(offset_of!(Vip, state) == 28);
    assert!(size_of::<Endpoint>() == 40);
    assert!(offset_of!(Endpoint, interface) == 12);
    assert!(offset_of!(Endpoint, address) == 16);
    assert!(offset_of!(Endpoint, mode) == 34);
    assert!(size_of::<Header>() == 144);
    assert!(offset_of!(Header, generation) == 8);
    assert!(offset_of!(Header, flow_keys) == 16);
    assert!(offset_of!(Tables, vips) == 144);
    assert!(offset_of!(Tables, endpoints) == 144 + 32 * VIP_PLACES);
    assert!(size_of::<Tables>() == 144 + 32 * VIP_PLACES + 40 * ENDPOINTS);
    assert!(size_of::<EndpointCounters>() == 24);
    // Endpoint numbers must not meet the two special priors.
    assert!(ENDPOINTS <= PINNED as usize);
};
