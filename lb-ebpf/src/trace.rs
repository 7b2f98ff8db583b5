//! The program that forwards while somebody watches or rehearses, in an object of its own: the same
//! decision over the same maps, which writes its way down where a filter asks for it, and loses what
//! a drill takes.
//!
//! The controller puts it in the place of the plain one, and that one back when nobody watches or
//! rehearses any more.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the signature of entry points is aya's"
)]

mod balance;
mod counters;
mod frame;
mod maps;
mod runtime;
mod shots;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::{
    trace::watching,
    trail::{Notes as _, Watched},
    verdict::Verdict,
};

use self::{maps::Kernel, shots::Trails};

/// See [`balance`].
const OPAQUE_SLOTS: bool = true;

/// What the decision asks.
#[inline(always)]
fn home(ctx: &XdpContext) -> Watched<Kernel<'_>, Trails> {
    Watched {
        world: Kernel(ctx),
        notes: Trails,
    }
}

/// The same where `snat` looks for a port: the stack has no room to write that down.
#[inline(always)]
fn home_of_ports(ctx: &XdpContext) -> Kernel<'_> {
    Kernel(ctx)
}

/// The end of the packet's way.
#[inline(always)]
fn decided(verdict: Verdict) {
    Trails.note(|trail| trail.decided(verdict));
}

/// Balances a frame, tells how where that is asked for, and loses it where a drill takes it.
#[xdp(frags)]
#[inline(always)]
fn evenkeel_trace(ctx: XdpContext) -> u32 {
    let why = u64::from(shots::evenkeel_watch(ctx.ctx));
    let mut action = balance::run(&ctx);
    let mut is_sent = matches!(action, xdp_action::XDP_TX | xdp_action::XDP_REDIRECT);
    if is_sent && why & watching::STRUCK != 0 && shots::evenkeel_strike() != 0 {
        (action, is_sent) = (xdp_action::XDP_DROP, false);
    }
    if why & watching::TOLD != 0 {
        shots::evenkeel_tell_decision(ctx.ctx, is_sent.into());
    }
    action
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
