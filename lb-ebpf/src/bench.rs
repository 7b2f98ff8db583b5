//! Programs for the benchmark, in an object of their own that no controller loads.
//!
//! `BPF_PROG_TEST_RUN` repeats one frame and keeps what a program did to it. So a frame does not
//! go to the program under test, but to one of these: it takes back what the repetition before
//! has put in front, writes the headers anew as the next flow's, and calls the program under test
//! by a tail call. What that takes is measured by the same way to a program that sends the frame
//! back at once. The flow is computed from a count: a table of a million flows would push out of
//! the caches what is to be measured.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the signature of entry points is aya's"
)]

mod frame;
mod runtime;

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, HashMap, ProgramArray},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use lb_common::{
    bench::{Case, target},
    flow::{self, Flow},
    layout::FlowEntry,
    packet::Packet as _,
};

use crate::frame::Frame;

/// What is being measured.
#[btf_map]
static CASE: Array<Case, 1> = Array::new();

/// The programs that frames are handed to, by [`target`].
#[btf_map]
static TARGETS: ProgramArray<{ target::COUNT }> = ProgramArray::new();

/// The established flows of the program under test.
#[btf_map]
static ESTABLISHED: HashMap<Flow, FlowEntry, 262_144> = HashMap::new();

/// Hands the next flow's frame to the program under test.
#[xdp(frags)]
fn tested(ctx: XdpContext) -> u32 {
    hand_on(&ctx, target::TESTED)
}

/// The floor: what making the frame takes, and an empty program.
#[xdp(frags)]
fn floor(ctx: XdpContext) -> u32 {
    hand_on(&ctx, target::BARE)
}

/// The least that a program does which forwards anything.
#[xdp(frags)]
fn swap(ctx: XdpContext) -> u32 {
    hand_on(&ctx, target::SWAP)
}

/// Forgets the next flow, where it was remembered as established.
#[xdp(frags)]
fn forget(_: XdpContext) -> u32 {
    if let Some(case) = case() {
        // Nothing is wrong where it was not there.
        let _ = ESTABLISHED.remove(case.next_flow());
    }
    xdp_action::XDP_TX
}

/// Sends a frame back.
#[xdp(frags)]
fn bare(_: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// Reads a frame's headers down to its ports, swaps its MAC addresses and sends it back.
#[xdp(frags)]
fn parse_and_swap(ctx: XdpContext) -> u32 {
    swapped(&mut Frame::<false>::new(&ctx)).map_or(xdp_action::XDP_ABORTED, |()| xdp_action::XDP_TX)
}

#[inline(always)]
fn swapped(frame: &mut Frame<'_>) -> Option<()> {
    let at = lb_common::wire::ethernet::payload(frame).ok()?;
    let parsed = if at.ethertype == lb_common::wire::ethernet::IPV4 {
        flow::ipv4(frame, at.at)
    } else {
        flow::ipv6(frame, at.at)
    };
    // Or else the ports would not be read.
    core::hint::black_box(parsed.ok()?.flow.ports);
    let [a, b, c]: [u32; 3] = frame.read(0)?;
    let macs = [b >> 16 | c << 16, c >> 16 | a << 16, a >> 16 | b << 16];
    frame.write(0, macs)
}

#[inline(always)]
fn case<'c>() -> Option<&'c mut Case> {
    // SAFETY: the benchmark runs on one CPU, and the reference does not outlive the packet.
    CASE.get_ptr_mut(0).map(|case| unsafe { &mut *case })
}

/// Makes the next flow's frame and calls a program.
#[inline(always)]
fn hand_on(ctx: &XdpContext, target: u32) -> u32 {
    if make(&mut Frame::<false>::new(ctx)).is_some() {
        // SAFETY: nothing here waits for being dropped.
        unsafe { TARGETS.tail_call(ctx, target) };
    }
    xdp_action::XDP_ABORTED
}

/// Makes the frame the next flow's.
///
/// It writes whole words where the decision reads whole words: a load that spans two stores would
/// wait for both, which no frame from a wire makes it do.
#[inline(always)]
fn make(frame: &mut Frame<'_>) -> Option<()> {
    let case = case()?;
    if case.grown != 0 {
        // By zero bytes too: the floor pays for the call as well.
        let grown = frame.length().wrapping_sub(case.length as usize) & 0xff;
        frame.shrink(grown)?;
    }
    let flow = case.next_flow();
    let [head, middle, last] = case.head;
    frame.write(0, case.macs)?;
    frame.write(12, [head, middle])?;
    let transport = if case.is_v4() {
        frame.write(20, last)?;
        // The checksum of the header.
        frame.write(24, 0u16)?;
        frame.write(26, pair(flow.source[3], flow.destination[3]))?;
        34
    } else {
        frame.write(20, last as u16)?;
        frame.write(22, pairs(&flow.source))?;
        frame.write(38, pairs(&flow.destination))?;
        54
    };
    // Another sequence number each time, or else a SYN would seem to be sent again.
    let sequence = case.transport[1].wrapping_add(1);
    case.transport[1] = sequence;
    let [_, _, third, fourth, fifth] = case.transport;
    if case.protocol == u32::from(lb_common::wire::tcp::PROTOCOL) {
        frame.write(transport, pair(flow.ports, sequence))?;
        frame.write(transport + 8, pair(third, fourth))?;
        frame.write(transport + 16, fifth)
    } else {
        // Length and checksum.
        frame.write(transport, pair(flow.ports, third))
    }
}

#[inline(always)]
const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

#[inline(always)]
const fn pairs(address: &flow::Address) -> [u64; 2] {
    [pair(address[0], address[1]), pair(address[2], address[3])]
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
