//! The programs that put the host's own probes on the way of a service's packets, and bring the
//! answers back.
//!
//! Compiled for the host too (never run there), so that clippy and the editor see it.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the signature of entry points is aya's"
)]

mod runtime;
mod skb;

use aya_ebpf::{
    btf_maps::{Array, LruHashMap},
    macros::{btf_map, classifier},
    programs::TcContext,
};
use lb_common::{
    decide::probe::{self, LARGE, MARK_BITS, Target},
    flow::{self, Address, Flow, Parsed, V4},
    layout::{ENDPOINTS, mode},
    packet::Packet as _,
    wire::{ethernet, tcp, udp},
};

use crate::skb::{AddressAt, Refused, Skb, around, redirect};

/// `TC_ACT_UNSPEC` of `linux/pkt_cls.h`, `TCX_NEXT` of linux/bpf.h: whoever comes next decides.
const GO_ON: i32 = -1;
/// `TC_ACT_SHOT`, `TCX_DROP`.
const DROP: i32 = 2;

/// Where probes go, by the number of their endpoint.
#[btf_map]
static TARGETS: Array<Target, ENDPOINTS> = Array::new();

/// The address that an answer is to come from, by the flow with which it comes.
#[btf_map]
static ANSWERS: LruHashMap<Flow, Address, { probe::REPLIES }> = LruHashMap::new();

/// The upper bits of the marks of probes; the loader says.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
static MARK: aya_ebpf::Global<u32> = aya_ebpf::Global::new(0);

/// Sends a marked packet to its endpoint.
#[classifier]
fn evenkeel_out(ctx: TcContext) -> i32 {
    let mut packet = Skb::new(&ctx);
    let mark = packet.mark();
    if mark & !MARK_BITS != MARK.load() {
        return GO_ON;
    }
    // What cannot be sent as it should be is not sent at all: a probe by another way would say
    // what is not so.
    send(&mut packet, mark).unwrap_or(DROP)
}

/// Gives an answer the address that its probe was sent to.
#[classifier]
fn evenkeel_in(ctx: TcContext) -> i32 {
    let mut packet = Skb::new(&ctx);
    let Some(parsed) = parse(&packet) else {
        return GO_ON;
    };
    // SAFETY: the kernel keeps the memory valid while the program runs; a value that another CPU
    // writes meanwhile is that of the same flow.
    let Some(&probed) = (unsafe { ANSWERS.get(parsed.flow) }) else {
        return GO_ON;
    };
    let from = parsed.flow.source;
    match packet.readdress(&parsed, AddressAt::Source, &from, &probed) {
        Ok(()) => GO_ON,
        Err(Refused) => DROP,
    }
}

#[inline(always)]
fn send(packet: &mut Skb<'_>, mark: u32) -> Option<i32> {
    let parsed = parse(packet)?;
    let target = TARGETS.get(probe::endpoint_of(mark))?;
    if target.endpoint.mode == mode::UNRESOLVED || target.family != parsed.flow.family {
        return None;
    }
    let (probed, answers) = (
        parsed.flow.destination,
        probe::answers(&parsed.flow, target),
    );
    ANSWERS.insert(answers, probed, 0).ok()?;
    let packet_length = (parsed.end - parsed.network) as u16;
    let grows = parsed.flow.protocol == udp::PROTOCOL || tcp::opens(parsed.tcp_flags);
    let mut parsed = parsed;
    if mark & LARGE != 0 && grows && packet_length < target.largest {
        packet.pad(&parsed, target.largest).ok()?;
        parsed.end = parsed.network + usize::from(target.largest);
    }
    let at = AddressAt::Destination;
    packet.readdress(&parsed, at, &probed, &target.vip).ok()?;
    packet.around = if target.endpoint.family == V4 {
        around::IPV4
    } else {
        around::IPV6
    };
    if target.endpoint.mode == mode::GUE {
        packet.around |= around::UDP;
    }
    probe::send(packet, target, &parsed).ok()?;
    // So that it is not taken for one that is still to be sent, where it leaves elsewhere.
    packet.clear_mark();
    let interface = target.endpoint.interface;
    Some(if interface == packet.interface() {
        GO_ON
    } else {
        redirect(interface)
    })
}

/// What a packet is, where it may be a probe's.
#[inline(always)]
fn parse(packet: &Skb<'_>) -> Option<Parsed> {
    let ethertype: u16 = packet.read(12)?;
    let parsed = match u16::from_be(ethertype) {
        ethernet::IPV4 => flow::ipv4(packet, ethernet::HEADER),
        ethernet::IPV6 => flow::ipv6(packet, ethernet::HEADER),
        _ => return None,
    };
    parsed.ok()
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
