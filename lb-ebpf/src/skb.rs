//! A packet in the stack, on its way out or in.
//!
//! Probes are few: every access is a call of the kernel's, which checks the bounds itself and does
//! not ask whether the packet lies in one piece.

use aya_ebpf::{
    helpers::{bpf_csum_diff, bpf_redirect, bpf_skb_change_tail},
    programs::TcContext,
};
use bytemuck::Pod;
use lb_common::{
    flow::{Address, Parsed, V4},
    packet::Packet,
    wire::{tcp, udp},
};

/// `BPF_ADJ_ROOM_MAC` of linux/bpf.h: room between the Ethernet header and the IP header.
const BEHIND_MAC: u32 = 1;
/// `BPF_F_PSEUDO_HDR`: what changes is also in the pseudo-header.
const PSEUDO_HEADER: u64 = 1 << 4;
/// `BPF_F_MARK_MANGLED_0`: a checksum of zero, which stands for none, stays.
const KEEP_ZERO: u64 = 1 << 5;

/// What is about to be put around a packet, as flags of `bpf_skb_adjust_room`.
pub(crate) mod around {
    /// An IPv4 header.
    pub(crate) const IPV4: u64 = 1 << 1;
    /// An IPv6 header.
    pub(crate) const IPV6: u64 = 1 << 2;
    /// A UDP header as well.
    pub(crate) const UDP: u64 = 1 << 4;
}

/// A packet of the stack's.
pub(crate) struct Skb<'a> {
    ctx: &'a TcContext,
    /// What [`Packet::grow`] makes room for.
    pub(crate) around: u64,
}

/// Sends the packet in hand out by another interface: what the program is to answer.
pub(crate) fn redirect(interface: u32) -> i32 {
    // SAFETY: a helper of two numbers.
    unsafe { bpf_redirect(interface, 0) as i32 }
}

/// A step of the kernel's failed; the packet may be half changed.
pub(crate) struct Refused;

impl<'a> Skb<'a> {
    pub(crate) fn new(ctx: &'a TcContext) -> Self {
        Self { ctx, around: 0 }
    }

    pub(crate) fn mark(&self) -> u32 {
        // SAFETY: the context outlives the program's run.
        unsafe { (*self.ctx.skb.skb).mark }
    }

    pub(crate) fn clear_mark(&self) {
        self.ctx.set_mark(0);
    }

    /// The index of the interface that it is about to leave by, or came in by.
    pub(crate) fn interface(&self) -> u32 {
        // SAFETY: the context outlives the program's run.
        unsafe { (*self.ctx.skb.skb).ifindex }
    }

    /// Makes the IP packet so many bytes long, with zeroes at its end.
    pub(crate) fn pad(&mut self, parsed: &Parsed, to: u16) -> Result<(), Refused> {
        let network = parsed.network;
        let before = (parsed.end - network) as u16;
        // SAFETY: the kernel checks the length.
        let grown =
            unsafe { bpf_skb_change_tail(self.ctx.skb.skb, (network as u32) + u32::from(to), 0) };
        if grown != 0 {
            return Err(Refused);
        }
        if parsed.flow.family == V4 {
            let change = (before.to_be().into(), to.to_be().into());
            self.ctx
                .l3_csum_replace(network + 10, change.0, change.1, 2)
                .map_err(|_| Refused)?;
            self.store(network + 2, to.to_be())?;
        } else {
            self.store(network + 4, (to - 40).to_be())?;
        }
        if parsed.flow.protocol == tcp::PROTOCOL {
            // The pseudo-header has the length of all of it; the zeroes add nothing. A UDP
            // datagram's length is its own, and stays.
            let header = (parsed.transport - network) as u16;
            let change = (before - header, to - header);
            self.ctx
                .l4_csum_replace(
                    parsed.transport + tcp::CHECKSUM,
                    change.0.to_be().into(),
                    change.1.to_be().into(),
                    PSEUDO_HEADER | 2,
                )
                .map_err(|_| Refused)?;
        }
        Ok(())
    }

    /// Puts another address in the place of one that stands at an offset of the IP header.
    pub(crate) fn readdress(
        &mut self,
        parsed: &Parsed,
        at: AddressAt,
        from: &Address,
        to: &Address,
    ) -> Result<(), Refused> {
        let network = parsed.network;
        let (checksum, keep) = if parsed.flow.protocol == udp::PROTOCOL {
            (parsed.transport + udp::CHECKSUM, KEEP_ZERO)
        } else {
            (parsed.transport + tcp::CHECKSUM, 0)
        };
        if parsed.flow.family == V4 {
            let (from, to) = (u64::from(from[3]), u64::from(to[3]));
            self.ctx
                .l4_csum_replace(checksum, from, to, PSEUDO_HEADER | keep | 4)
                .map_err(|_| Refused)?;
            self.ctx
                .l3_csum_replace(network + 10, from, to, 4)
                .map_err(|_| Refused)?;
            return self.store(network + at.of_ipv4(), to as u32);
        }
        let (mut from, mut to) = (*from, *to);
        // SAFETY: both are sixteen bytes.
        let difference = unsafe { bpf_csum_diff(from.as_mut_ptr(), 16, to.as_mut_ptr(), 16, 0) };
        let difference = u64::try_from(difference).map_err(|_| Refused)?;
        self.ctx
            .l4_csum_replace(checksum, 0, difference, PSEUDO_HEADER | keep)
            .map_err(|_| Refused)?;
        self.store(network + at.of_ipv6(), to)
    }

    fn store<T: Pod>(&mut self, at: usize, value: T) -> Result<(), Refused> {
        self.ctx.store(at, &value, 0).map_err(|_| Refused)
    }
}

/// Which address of an IP header.
#[derive(Clone, Copy)]
pub(crate) enum AddressAt {
    Source,
    Destination,
}

impl AddressAt {
    #[inline(always)]
    const fn of_ipv4(self) -> usize {
        match self {
            Self::Source => 12,
            Self::Destination => 16,
        }
    }

    #[inline(always)]
    const fn of_ipv6(self) -> usize {
        match self {
            Self::Source => 8,
            Self::Destination => 24,
        }
    }
}

impl Packet for Skb<'_> {
    #[inline(always)]
    fn read<T: Pod>(&self, at: usize) -> Option<T> {
        self.ctx.load(at).ok()
    }

    #[inline(always)]
    fn write<T: Pod>(&mut self, at: usize, value: T) -> Option<()> {
        self.ctx.store(at, &value, 0).ok()
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.ctx.len() as usize
    }

    #[inline(always)]
    fn sum<const WORDS: usize>(&self, _: usize) -> Option<u64> {
        None
    }

    #[inline(always)]
    fn full_length(&self) -> usize {
        self.ctx.len() as usize
    }

    /// The room is behind the Ethernet header, and not in front of it: whoever grows a packet
    /// writes both anew.
    #[inline(always)]
    #[expect(clippy::cast_possible_wrap, reason = "a packet is shorter than that")]
    fn grow(&mut self, bytes: usize) -> Option<()> {
        let room = self.ctx.adjust_room(bytes as i32, BEHIND_MAC, self.around);
        room.ok()
    }

    #[inline(always)]
    fn shrink(&mut self, _: usize) -> Option<()> {
        None
    }

    #[inline(always)]
    fn truncate(&mut self, _: usize) -> Option<()> {
        None
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        self.interface()
    }
}
