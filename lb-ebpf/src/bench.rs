//! Programs for the benchmark, which are never attached.
//!
//! `BPF_PROG_TEST_RUN` repeats one frame and keeps what the program wrote into it. So a frame
//! that counts in its own payload, and takes its source and its VIP from the count, is a
//! different flow at each repetition, without a map that would cost more than what is measured.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::packet::Packet;

use crate::{balance, frame::Frame};

/// The source address of an untagged IPv4 frame without options.
const SOURCE: usize = 26;
/// The destination address.
const DESTINATION: usize = 30;
/// The ports.
const PORTS: usize = 34;
/// Four counters after the TCP header: a flow and how many there are, a service and how many.
const FLOW: usize = 54;
const SERVICE: usize = FLOW + 8;

/// Balances the next flow's frame.
#[xdp]
fn bench_flows(ctx: XdpContext) -> u32 {
    if next(&mut Frame::<false>::new(&ctx)).is_none() {
        return xdp_action::XDP_ABORTED;
    }
    balance::run(&ctx)
}

/// The floor of [`bench_flows`]: makes the same frame and sends it back.
#[xdp]
fn bench_floor(ctx: XdpContext) -> u32 {
    if next(&mut Frame::<false>::new(&ctx)).is_none() {
        xdp_action::XDP_ABORTED
    } else {
        xdp_action::XDP_TX
    }
}

/// Makes the frame the next flow's.
///
/// It writes whole words, as the decision reads them: a load that spans two stores would wait for
/// both, which no frame from a wire makes it do.
#[inline(always)]
fn next(frame: &mut Frame<'_>) -> Option<()> {
    let flow = count(frame, FLOW)?;
    let ports: u32 = frame.read(PORTS)?;
    frame.write(PORTS, ports & 0xffff_0000 | flow & 0xffff)?;
    let source: u32 = frame.read(SOURCE)?;
    frame.write(SOURCE, source & 0xffff | flow & 0xffff_0000)?;
    let service = count(frame, SERVICE)?;
    let destination: u32 = frame.read(DESTINATION)?;
    frame.write(
        DESTINATION,
        destination & 0xffff | u32::from((service as u16).to_be()) << 16,
    )
}

/// Counts on, from the last back to zero.
#[inline(always)]
fn count(frame: &mut Frame<'_>, at: usize) -> Option<u32> {
    let next = frame.read::<u32>(at)? + 1;
    let next = if next < frame.read::<u32>(at + 4)? {
        next
    } else {
        0
    };
    frame.write(at, next)?;
    Some(next)
}
