//! The XDP program: the shared decision, put on a frame and on BPF maps.
//!
//! Compiled for the host too (never run there), so that clippy and the editor see it.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the signature of entry points is aya's"
)]

mod bare;
mod bench;
mod frame;
mod maps;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::{decide, verdict::Verdict};

use crate::{
    frame::Frame,
    maps::{KernelCounters, KernelTables},
};

/// Balances a frame. Kernel 5.9 or later, for the link that it is attached by.
#[xdp]
fn evenkeel(ctx: XdpContext) -> u32 {
    action(decide::process(
        &mut Frame::new(&ctx),
        &KernelTables,
        &KernelCounters(&ctx),
    ))
}

#[inline(always)]
fn action(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Transmit => xdp_action::XDP_TX,
        Verdict::Pass(_) => xdp_action::XDP_PASS,
        Verdict::Drop(_) => xdp_action::XDP_DROP,
    }
}

/// The floor of the benchmark, and the program that a veth peer needs before its end can send.
#[xdp]
fn empty(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}

/// Never reached: the verifier refuses a program in which it could be.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
