//! The other end of the tunnels: takes packets out of IP in IP and GUE on a backend.
//!
//! [`process`] is the counterpart of the modes `ipip` and `gue`, generic over a frame and what
//! the host allows, as the forwarding decision is. A frame that is no tunnel's packet for this
//! host goes to the stack untouched. One that is either loses its outer header or is dropped: where
//! the stack has a tunnel of its own, it would let through what was refused here.

#[cfg(any(test, feature = "host"))]
pub mod host;

use bytemuck::{Pod, Zeroable};

use crate::{
    flow::{self, Address},
    packet::Packet,
    wire::{checksum, ethernet, ipv4, ipv6, udp},
};

/// Changes whenever a type in this module does, or the meaning of a counter.
pub const VERSION: u32 = 1;

/// How many prefixes of senders there is room for.
pub const SENDERS: usize = 1 << 12;
/// How many addresses there is room for.
pub const ADDRESSES: usize = 1 << 12;

/// The protocol number of IPv4 within IP (RFC 2003).
pub const IPV4_WITHIN: u8 = 4;
/// The protocol number of IPv6 within IP (RFC 2473).
pub const IPV6_WITHIN: u8 = 41;

/// What the operator has set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Settings {
    /// [`VERSION`].
    pub version: u32,
    /// The UDP port of GUE as it lies in memory; zero leaves UDP alone.
    pub gue_port: u16,
    /// Bits of [`flag`].
    pub flags: u16,
}

/// Bits of [`Settings::flags`].
pub mod flag {
    /// Every sender is allowed.
    pub const ANY_SENDER: u16 = 1;
    /// Tunnel packets of others go to the stack as they are, instead of nowhere.
    pub const PASS_OTHERS: u16 = 1 << 1;
    /// Only what is for a VIP of the table is taken out.
    pub const VIPS: u16 = 1 << 2;
}

/// An address and what it is to this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct AddressKey {
    /// The address.
    pub address: Address,
    /// [`V4`](flow::V4) or [`V6`](flow::V6).
    pub family: u8,
    /// One of [`role`].
    pub role: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

/// What an address is to a host.
pub mod role {
    /// A tunnel ends here.
    pub const TUNNEL: u8 = 0;
    /// What is inside may be addressed to it.
    pub const VIP: u8 = 1;
}

impl AddressKey {
    /// The key of an address.
    #[inline(always)]
    pub const fn new(address: Address, family: u8, role: u8) -> Self {
        Self {
            address,
            family,
            role,
            reserved: [0; 2],
        }
    }
}

/// What a sender is looked up by: a prefix of everything behind `prefix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct SenderKey {
    /// How many bits of what follows count: 32 and those of the address.
    pub prefix: u32,
    /// [`V4`](flow::V4) or [`V6`](flow::V6), as one word.
    pub family: u32,
    /// The address; of IPv4 the first word, so that a prefix is one.
    pub address: Address,
}

impl SenderKey {
    /// The key of so many leading bits of an address.
    #[inline(always)]
    pub const fn new(address: Address, family: u8, bits: u32) -> Self {
        let address = if family == flow::V4 {
            [address[3], 0, 0, 0]
        } else {
            address
        };
        Self {
            prefix: 32 + bits,
            family: family as u32,
            address,
        }
    }
}

/// Why a frame was not unwrapped.
///
/// The numbers index the counters and do not change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {
    /// No tunnel's packet, or for another host; to the stack.
    NotTunnel = 1,
    /// From a sender that is not allowed.
    Sender = 2,
    /// A fragment: the load balancer sends none.
    Fragment = 3,
    /// IPv4 options in the outer header: the load balancer sends none.
    Options = 4,
    /// The outer header's checksum is wrong.
    Checksum = 5,
    /// The frame ends before the packet that it announces.
    Truncated = 6,
    /// The outer and the inner length contradict each other.
    Length = 7,
    /// There is no IP packet inside, or one of another version than announced.
    NotIpInside = 8,
    /// What is inside is for none of the VIPs.
    NotVip = 9,
    /// A router marked the outer packet as having met congestion, and the ends of the inner one
    /// do not understand that: the loss tells them (RFC 6040 §4.2).
    Congestion = 10,
    /// The settings are missing or of another version; the command never attaches in this state.
    NoSettings = 11,
}

impl Reason {
    /// Every reason, by number.
    pub const ALL: [Self; 11] = [
        Self::NotTunnel,
        Self::Sender,
        Self::Fragment,
        Self::Options,
        Self::Checksum,
        Self::Truncated,
        Self::Length,
        Self::NotIpInside,
        Self::NotVip,
        Self::Congestion,
        Self::NoSettings,
    ];

    /// The name in the command's output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotTunnel => "not-tunnel",
            Self::Sender => "sender",
            Self::Fragment => "fragment",
            Self::Options => "options",
            Self::Checksum => "checksum",
            Self::Truncated => "truncated",
            Self::Length => "length",
            Self::NotIpInside => "not-ip-inside",
            Self::NotVip => "not-vip",
            Self::Congestion => "congestion",
            Self::NoSettings => "no-settings",
        }
    }
}

/// What became of a frame.
#[must_use = "a verdict that nobody carries out lets the packet go astray"]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Without its outer header, to the stack.
    Unwrapped,
    /// Untouched, to the stack.
    Pass(Reason),
    /// Gone.
    Drop(Reason),
}

impl Verdict {
    /// Which of the [`Counters`] counts it.
    #[inline(always)]
    pub const fn counter(self) -> usize {
        match self {
            Self::Unwrapped => UNWRAPPED,
            Self::Pass(reason) | Self::Drop(reason) => reason as usize,
        }
    }
}

/// Frames by what became of them, on one CPU: [`UNWRAPPED`], those of each [`Reason`], [`BYTES`].
pub type Counters = [u64; 16];
/// The counter of frames that were unwrapped.
pub const UNWRAPPED: usize = 0;
/// The counter of bytes of the unwrapped frames, as they came.
pub const BYTES: usize = 15;

/// What the decision asks of the host.
pub trait World {
    /// What the operator has set; `None` before that.
    fn settings(&self) -> Option<Settings>;

    /// Whether an address has this role here.
    fn has(&self, address: &AddressKey) -> bool;

    /// Whether a sender is in one of the allowed prefixes.
    fn allows(&self, sender: &SenderKey) -> bool;

    /// Counts a frame; where it was unwrapped, it had so many bytes.
    fn count(&self, verdict: Verdict, bytes: usize);
}

/// What an outer header says.
struct Outer {
    family: u8,
    protocol: u8,
    source: Address,
    destination: Address,
    /// DSCP and ECN.
    class: u8,
    /// Where its payload begins.
    payload: usize,
    /// Where the packet ends, by its own word.
    end: usize,
    /// A fragment, and not the first.
    later: bool,
    /// What forbids to take the packet out.
    odd: Option<Reason>,
}

/// Takes a packet out of its tunnel where it is in one that ends here, and counts it.
#[inline(always)]
pub fn process<P: Packet, W: World>(packet: &mut P, world: &W) -> Verdict {
    let mut bytes = 0;
    let verdict = decide(packet, world, &mut bytes);
    world.count(verdict, bytes);
    verdict
}

#[inline(always)]
fn decide<P: Packet, W: World>(packet: &mut P, world: &W, bytes: &mut usize) -> Verdict {
    let untouched = Verdict::Pass(Reason::NotTunnel);
    let Ok(ethernet::Payload { ethertype, at }) = ethernet::payload(packet) else {
        return untouched;
    };
    let outer = match ethertype {
        ethernet::IPV4 => outer_ipv4(packet, at),
        ethernet::IPV6 => outer_ipv6(packet, at),
        _ => None,
    };
    let Some(outer) = outer else {
        return untouched;
    };
    if !matches!(outer.protocol, IPV4_WITHIN | IPV6_WITHIN | udp::PROTOCOL) {
        return untouched;
    }
    let Some(settings) = world.settings().filter(|set| set.version == VERSION) else {
        return Verdict::Pass(Reason::NoSettings);
    };
    let gue = outer.protocol == udp::PROTOCOL;
    if gue {
        // The port stands in the first fragment alone; the others cannot be told from what the
        // host itself waits for, and come to nothing without the first.
        let port: Option<u16> = packet.read(outer.payload + 2);
        if settings.gue_port == 0 || outer.later || port != Some(settings.gue_port) {
            return untouched;
        }
    }
    let end = AddressKey::new(outer.destination, outer.family, role::TUNNEL);
    if !world.has(&end) {
        return untouched;
    }
    if settings.flags & flag::ANY_SENDER == 0 {
        let bits = if outer.family == flow::V4 { 32 } else { 128 };
        if !world.allows(&SenderKey::new(outer.source, outer.family, bits)) {
            return if settings.flags & flag::PASS_OTHERS == 0 {
                Verdict::Drop(Reason::Sender)
            } else {
                Verdict::Pass(Reason::Sender)
            };
        }
    }
    match unwrap(packet, world, &settings, &outer, at) {
        Ok(()) => {
            *bytes = outer.end;
            Verdict::Unwrapped
        }
        Err(reason) => Verdict::Drop(reason),
    }
}

/// Reads an outer IPv4 header; `None` where it is none, or cut short.
#[inline(always)]
fn outer_ipv4<P: Packet>(packet: &P, at: usize) -> Option<Outer> {
    let words: [u32; 5] = packet.read(at)?;
    let [first, class, length @ ..] = words[0].to_ne_bytes();
    let header = usize::from(first & 0xf) * 4;
    if first >> 4 != 4 || header < ipv4::HEADER {
        return None;
    }
    let fragment = u16::from_be((words[1] >> 16) as u16);
    let odd = if fragment & ipv4::FRAGMENT != 0 {
        Some(Reason::Fragment)
    } else if header != ipv4::HEADER {
        Some(Reason::Options)
    } else if checksum::of_words(&words) != 0 {
        Some(Reason::Checksum)
    } else {
        None
    };
    Some(Outer {
        family: flow::V4,
        protocol: words[2].to_ne_bytes()[1],
        source: flow::v4(words[3]),
        destination: flow::v4(words[4]),
        class,
        payload: at + header,
        end: at + usize::from(u16::from_be_bytes(length)),
        later: fragment & ipv4::OFFSET != 0,
        odd,
    })
}

/// Reads an outer IPv6 header; `None` where it is none, or cut short.
///
/// Behind an extension header nothing is looked for: the load balancer sends none.
#[inline(always)]
fn outer_ipv6<P: Packet>(packet: &P, at: usize) -> Option<Outer> {
    let first: u16 = packet.read(at).map(u16::from_be)?;
    if first >> 12 != 6 {
        return None;
    }
    let length: u16 = packet.read(at + 4).map(u16::from_be)?;
    Some(Outer {
        family: flow::V6,
        protocol: packet.read(at + 6)?,
        source: packet.read(at + 8)?,
        destination: packet.read(at + 24)?,
        class: (first >> 4) as u8,
        payload: at + ipv6::HEADER,
        end: at + ipv6::HEADER + usize::from(length),
        later: false,
        odd: None,
    })
}

/// What an inner header says.
struct Inner {
    family: u8,
    destination: Address,
    /// How long the packet is, by its own word.
    length: usize,
}

/// Takes the outer header at `network` off.
///
/// # Errors
/// What forbids it.
#[inline(always)]
fn unwrap<P: Packet, W: World>(
    packet: &mut P,
    world: &W,
    settings: &Settings,
    outer: &Outer,
    network: usize,
) -> Result<(), Reason> {
    let cut = Reason::Truncated;
    if let Some(odd) = outer.odd {
        return Err(odd);
    }
    // The frame may be longer: the least length of Ethernet is filled up.
    if outer.end > packet.length() && outer.end > packet.full_length() {
        return Err(cut);
    }
    let gue = outer.protocol == udp::PROTOCOL;
    let mut at = outer.payload;
    if gue {
        // Its checksum is zero (RFC 6935, RFC 6936), or covers what has checksums of its own.
        let length: u16 = packet.read(at + 4).map(u16::from_be).ok_or(cut)?;
        if at + usize::from(length) != outer.end {
            return Err(Reason::Length);
        }
        at += udp::HEADER;
    }
    let inner = inner(packet, at)?;
    let announced = match outer.protocol {
        IPV4_WITHIN => inner.family == flow::V4,
        IPV6_WITHIN => inner.family == flow::V6,
        _ => true,
    };
    if !announced {
        return Err(Reason::NotIpInside);
    }
    if at + inner.length != outer.end {
        return Err(Reason::Length);
    }
    let vip = AddressKey::new(inner.destination, inner.family, role::VIP);
    if settings.flags & flag::VIPS != 0 && !world.has(&vip) {
        return Err(Reason::NotVip);
    }
    congestion(packet, outer.class, &inner, at)?;
    strip(packet, inner.family, network, at - network)
}

/// Reads the header of the packet inside.
///
/// In GUE, the upper two bits of both versions say that no header of its own comes first
/// (variant 1); all else, control messages among it, is no IP.
#[inline(always)]
fn inner<P: Packet>(packet: &P, at: usize) -> Result<Inner, Reason> {
    let cut = Reason::Truncated;
    let first: u8 = packet.read(at).ok_or(cut)?;
    match first >> 4 {
        4 => {
            let length: u16 = packet.read(at + 2).map(u16::from_be).ok_or(cut)?;
            let destination: u32 = packet.read(at + 16).ok_or(cut)?;
            let header = usize::from(first & 0xf) * 4;
            if header < ipv4::HEADER || usize::from(length) < header {
                return Err(Reason::NotIpInside);
            }
            Ok(Inner {
                family: flow::V4,
                destination: flow::v4(destination),
                length: usize::from(length),
            })
        }
        6 => {
            let length: u16 = packet.read(at + 4).map(u16::from_be).ok_or(cut)?;
            Ok(Inner {
                family: flow::V6,
                destination: packet.read(at + 24).ok_or(cut)?,
                length: ipv6::HEADER + usize::from(length),
            })
        }
        _ => Err(Reason::NotIpInside),
    }
}

/// The codepoints of ECN (RFC 3168 §5).
mod ecn {
    pub(super) const MASK: u8 = 0b11;
    pub(super) const NOT_ECT: u8 = 0b00;
    pub(super) const ECT_1: u8 = 0b01;
    pub(super) const ECT_0: u8 = 0b10;
    pub(super) const CE: u8 = 0b11;
}

/// Brings what the outer packet met on its way into the inner one (RFC 6040 §4.2, figure 4).
#[inline(always)]
fn congestion<P: Packet>(
    packet: &mut P,
    outer: u8,
    inner: &Inner,
    at: usize,
) -> Result<(), Reason> {
    let cut = Reason::Truncated;
    let halves: [u8; 2] = packet.read(at).ok_or(cut)?;
    // In IPv6 the traffic class begins four bits later.
    let shift = if inner.family == flow::V4 { 0 } else { 4 };
    let before = halves[1] >> shift & ecn::MASK;
    let after = match (before, outer & ecn::MASK) {
        (ecn::NOT_ECT, ecn::CE) => return Err(Reason::Congestion),
        (ecn::ECT_0 | ecn::ECT_1, ecn::CE) => ecn::CE,
        (ecn::ECT_0, ecn::ECT_1) => ecn::ECT_1,
        _ => return Ok(()),
    };
    let changed = [halves[0], halves[1] ^ (before ^ after) << shift];
    if inner.family == flow::V4 {
        let checksum: u16 = packet.read(at + 10).ok_or(cut)?;
        let change = checksum::Change::default()
            .half(u16::from_ne_bytes(halves), u16::from_ne_bytes(changed));
        packet.write(at + 10, change.apply(checksum)).ok_or(cut)?;
    }
    packet.write(at, changed).ok_or(cut)
}

/// Takes bytes away between the Ethernet header, tags included, and what is inside.
#[inline(always)]
fn strip<P: Packet>(
    packet: &mut P,
    family: u8,
    network: usize,
    bytes: usize,
) -> Result<(), Reason> {
    let cut = Reason::Truncated;
    let macs: [u32; 3] = packet.read(0).ok_or(cut)?;
    // Where there is no tag, these are of what is taken away.
    let tags: [u32; 2] = [packet.read(12).ok_or(cut)?, packet.read(16).ok_or(cut)?];
    packet.shrink(bytes).ok_or(cut)?;
    let tagged = network.wrapping_sub(ethernet::HEADER) & 0xc;
    packet.write(0, macs).ok_or(cut)?;
    if tagged > 0 {
        packet.write(12, tags[0]).ok_or(cut)?;
    }
    if tagged > ethernet::TAG {
        packet.write(16, tags[1]).ok_or(cut)?;
    }
    let ethertype = if family == flow::V4 {
        ethernet::IPV4
    } else {
        ethernet::IPV6
    };
    packet.write(12 + tagged, ethertype.to_be()).ok_or(cut)
}

const _: () = {
    use core::mem::size_of;
    assert!(size_of::<Settings>() == 8);
    assert!(size_of::<AddressKey>() == 20);
    assert!(size_of::<SenderKey>() == 24);
    assert!(Reason::ALL.len() < BYTES);
};

#[cfg(test)]
mod tests;
