//! The kernel for who only looks: what the decision reads is read, and what it would write is not.

use core::cell::Cell;

use aya_ebpf::programs::XdpContext;
use lb_common::{
    flow::{Address, Flow},
    layout::{self, Allowance, FlowEntry, FragmentKey, LimitKey, Slot, SourceKey, Vip, Waiting},
    tables::{Counters, Event, Failed, Latency, Memory, Route, Routes, Tables, Took, Tracked},
    verdict::Reason,
};

use crate::maps::{self, Kernel};

/// The kernel, as a packet would see it that leaves no trace.
///
/// An entry that is found is given out as a copy. What is said to be remembered would be: there is
/// room for every flow.
pub(crate) struct Look<'a> {
    kernel: Kernel<'a>,
    /// How many ports of `snat` were tried.
    tries: Cell<u32>,
}

impl<'a> Look<'a> {
    #[inline(always)]
    pub(crate) const fn new(ctx: &'a XdpContext) -> Self {
        Self {
            kernel: Kernel(ctx),
            tries: Cell::new(0),
        }
    }
}

impl Tables for Look<'_> {
    #[inline(always)]
    fn current(&self) -> Option<&layout::Tables> {
        self.kernel.current()
    }

    #[inline(always)]
    fn slot(&self, vip: &Vip, hash: u32) -> Option<Slot> {
        self.kernel.slot(vip, hash)
    }
}

impl Counters for Look<'_> {
    #[inline(always)]
    fn forwarded(&self, _: u16, _: usize, _: bool) {}

    #[inline(always)]
    fn exit(&self, _: u32, _: Reason) {}

    #[inline(always)]
    fn syn_seen(&self, _: usize, _: u32) -> bool {
        false
    }

    #[inline(always)]
    fn event(&self, _: u16, _: Event) {}

    #[inline(always)]
    fn tracked(&self, _: Tracked) {}

    #[inline(always)]
    fn opened(&self, _: u16, _: &Address, _: u16, _: u32) {}
}

impl Latency for Look<'_> {
    #[inline(always)]
    fn clock(&self) -> u64 {
        0
    }

    #[inline(always)]
    fn waiting<R>(&self, _: &Flow, _: impl FnOnce(&mut Waiting) -> R) -> Option<R> {
        None
    }

    #[inline(always)]
    fn wait(&self, _: &Flow, _: &Waiting) {}

    #[inline(always)]
    fn wait_no_more(&self, _: &Flow) {}

    #[inline(always)]
    fn took(&self, _: u16, _: Took, _: u64) {}

    #[inline(always)]
    fn failed(&self, _: u16, _: Failed) {}
}

impl Memory for Look<'_> {
    #[inline(always)]
    fn now(&self) -> u32 {
        self.kernel.now()
    }

    #[inline(always)]
    fn fresh<R>(&self, flow: &Flow, with: impl FnOnce(&mut FlowEntry) -> R) -> Option<R> {
        self.kernel.fresh(flow, |entry| with(&mut { *entry }))
    }

    #[inline(always)]
    fn established<R>(&self, flow: &Flow, with: impl FnOnce(&mut FlowEntry) -> R) -> Option<R> {
        self.kernel.established(flow, |entry| with(&mut { *entry }))
    }

    #[inline(always)]
    fn remember_fresh(&self, _: &Flow, _: &FlowEntry) {}

    #[inline(always)]
    fn claim_fresh(&self, flow: &Flow, _: &FlowEntry) -> bool {
        self.kernel.fresh(flow, |_| ()).is_none()
    }

    #[inline(always)]
    fn remember_established(&self, _: &Flow, _: &FlowEntry) -> bool {
        true
    }

    #[inline(always)]
    fn forget_fresh(&self, _: &Flow) {}

    #[inline(always)]
    fn forget_established(&self, _: &Flow) {}

    #[inline(always)]
    fn remember_fragment(&self, _: &FragmentKey, _: &FlowEntry) {}

    #[inline(always)]
    fn fragment(&self, fragment: &FragmentKey) -> Option<FlowEntry> {
        self.kernel.fragment(fragment)
    }

    #[inline(always)]
    fn next_port(&self) -> u32 {
        let Some(scratch) = maps::scratch() else {
            return 0;
        };
        let tries = self.tries.get().wrapping_add(1);
        self.tries.set(tries);
        maps::port(scratch.port.wrapping_add(tries))
    }

    #[inline(always)]
    fn listed(&self, source: &SourceKey) -> Option<u8> {
        self.kernel.listed(source)
    }

    #[inline(always)]
    fn allowance<R>(
        &self,
        source: &LimitKey,
        first: Allowance,
        with: impl FnOnce(&mut Allowance) -> R,
    ) -> Option<R> {
        let mut allowance = maps::allowed(source).unwrap_or(first);
        Some(with(&mut allowance))
    }

    #[inline(always)]
    fn may_tell(&self) -> bool {
        let now = self.now();
        maps::scratch().is_some_and(|mut scratch| scratch.may_tell(now))
    }
}

impl Routes for Look<'_> {
    #[inline(always)]
    fn route(&self, family: u8, source: &Address, destination: &Address, ingress: u32) -> Route {
        self.kernel.route(family, source, destination, ingress)
    }

    #[inline(always)]
    fn awaited(&self, flow: &Flow) -> bool {
        self.kernel.awaited(flow)
    }
}
