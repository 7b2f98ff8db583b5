//! The XDP program of a backend: takes packets out of their tunnels.
//!
//! Compiled for the host too (never run there), so that clippy and the editor see it.
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
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, lpm_trie::Key},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use lb_common::decap::{self, AddressKey, Counters, SenderKey, Settings, Verdict, World};

use crate::frame::Frame;

/// What the operator has set.
#[btf_map]
static SETTINGS: Array<Settings, 1> = Array::new();

/// The prefixes of those who may send.
#[btf_map]
static SENDERS: LpmTrie<[u32; 5], u8, { decap::SENDERS }> = LpmTrie::new();

/// What addresses are to this host.
#[btf_map]
static ADDRESSES: HashMap<AddressKey, u8, { decap::ADDRESSES }> = HashMap::new();

/// What became of how many frames.
#[btf_map]
static COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();

/// Takes a packet out of its tunnel. Kernel 5.18 or later, for frames of several buffers.
#[xdp(frags)]
fn unwrap(ctx: XdpContext) -> u32 {
    match decap::process(&mut Frame::<false>::new(&ctx), &Kernel) {
        Verdict::Unwrapped | Verdict::Pass(_) => xdp_action::XDP_PASS,
        Verdict::Drop(_) => xdp_action::XDP_DROP,
    }
}

/// The maps, as one packet sees them.
struct Kernel;

impl World for Kernel {
    #[inline(always)]
    fn settings(&self) -> Option<Settings> {
        SETTINGS.get(0).copied()
    }

    #[inline(always)]
    fn has(&self, address: &AddressKey) -> bool {
        ADDRESSES.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn allows(&self, sender: &SenderKey) -> bool {
        let [a, b, c, d] = sender.address;
        let key = Key::new(sender.prefix, [sender.family, a, b, c, d]);
        SENDERS.get(&key).is_some()
    }

    #[inline(always)]
    fn count(&self, verdict: Verdict, bytes: usize) {
        if let Some(counters) = COUNTERS.get_ptr_mut(0) {
            // SAFETY: the value is this CPU's own, on which no other packet runs meanwhile.
            let counters = unsafe { &mut *counters };
            if let Some(counter) = counters.get_mut(verdict.counter()) {
                *counter += 1;
            }
            counters[decap::BYTES] += bytes as u64;
        }
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
