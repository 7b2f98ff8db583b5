//! The program that answers `evenkeel explain`, in an object of its own: it is loaded while
//! somebody asks, run on test packets and never attached.
//!
//! It is the same decision, over the same tables and the same memory of flows. It has none of the
//! maps of counters, samples and latencies, and [`look`] writes to none of the others: nobody can
//! tell afterwards that it ran.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the signature of entry points is aya's"
)]

mod balance;
mod frame;
mod look;
mod maps;
mod runtime;

use aya_ebpf::{
    btf_maps::Array,
    helpers::bpf_get_smp_processor_id,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use lb_common::{
    trail::{Notes, Trail, Watched},
    verdict::Verdict,
};

use self::look::Look;

/// The way of the packet in hand. There is one at a time.
#[btf_map]
static TRAIL: Array<Trail, 1> = Array::new();

/// Writes to [`TRAIL`].
struct Trails;

impl Notes for Trails {
    #[inline(always)]
    fn note(&self, with: impl FnOnce(&mut Trail)) {
        if let Some(trail) = TRAIL.get_ptr_mut(0) {
            // SAFETY: one packet is run at a time, and the reference does not outlive its use.
            with(unsafe { &mut *trail });
        }
    }
}

/// See [`balance`].
const OPAQUE_SLOTS: bool = true;

/// What the decision asks.
#[inline(always)]
fn home(ctx: &XdpContext) -> Watched<Look<'_>, Trails> {
    Watched {
        world: Look::new(ctx),
        notes: Trails,
    }
}

use home as home_of_ports;

/// The end of the packet's way.
#[inline(always)]
fn decided(verdict: Verdict) {
    Trails.note(|trail| trail.decided(verdict));
}

/// Decides a frame, and leaves its trail.
#[xdp(frags)]
#[inline(always)]
fn explain(ctx: XdpContext) -> u32 {
    Trails.note(|trail| {
        trail.begin();
        trail.ingress = ctx.ingress_ifindex() as u32;
        // SAFETY: a helper without arguments.
        trail.cpu = unsafe { bpf_get_smp_processor_id() };
    });
    balance::run(&ctx)
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
