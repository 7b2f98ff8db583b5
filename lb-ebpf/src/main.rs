//! The XDP program: the shared decision, put on a frame and on BPF maps.
//!
//! Compiled for the host too (never run there), so that clippy and the editor see it.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the signature of entry points is aya's"
)]

mod balance;
mod bare;
mod counters;
mod frame;
mod maps;
mod runtime;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::verdict::Verdict;

use self::maps::Kernel;

/// See [`balance`].
const OPAQUE_SLOTS: bool = true;

/// What the decision asks.
#[inline(always)]
fn home(ctx: &XdpContext) -> Kernel<'_> {
    Kernel(ctx)
}

use home as home_of_ports;

/// A verdict takes nothing more than to be carried out.
#[inline(always)]
fn decided(_: Verdict) {}

/// Balances a frame. Kernel 5.18 or later, for frames of several buffers.
#[xdp(frags)]
#[inline(always)]
fn evenkeel(ctx: XdpContext) -> u32 {
    // A call that nothing needs makes it another program.
    #[cfg(feature = "other-program")]
    // SAFETY: a helper without arguments.
    let _ = unsafe { aya_ebpf::helpers::bpf_get_smp_processor_id() };
    balance::run(&ctx)
}

/// The floor of the benchmark, and the program that a veth peer needs before its end can send.
#[xdp]
fn empty(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
