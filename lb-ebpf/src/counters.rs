//! What is counted and measured, and its maps. All pointers into them live here.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_RB_NO_WAKEUP},
    btf_maps::{Array, LruHashMap, PerCpuArray, RingBuf},
    helpers::bpf_ktime_get_ns,
    macros::btf_map,
};
use aya_log_ebpf::warn;
use lb_common::{
    flow::{Address, Flow},
    layout::{
        self, EndpointCounters, EndpointEvents, ExitCounters, Latencies, RECENT_SYNS, RecentSyns,
        SampledFlow, TrackingCounters, Waiting,
    },
    tables::{Counters, Event, Failed, Latency, Took, Tracked},
    verdict::Reason,
};

use crate::{
    frame::opaque,
    maps::{Kernel, own, with},
};

/// What each endpoint was sent.
#[btf_map]
static ENDPOINTS: PerCpuArray<EndpointCounters, { layout::ENDPOINTS }> = PerCpuArray::new();

/// What else was seen of each endpoint's flows.
#[btf_map]
static EVENTS: PerCpuArray<EndpointEvents, { layout::ENDPOINTS }> = PerCpuArray::new();

/// What was not sent to an endpoint, and why: the host's row, then one for each service.
#[btf_map]
static EXITS: PerCpuArray<ExitCounters, { layout::EXIT_ROWS }> = PerCpuArray::new();

/// What became of the memory of flows.
#[btf_map]
static TRACKING: PerCpuArray<TrackingCounters, 1> = PerCpuArray::new();

/// Of how many connections to each endpoint one is noted: a power of two; zero notes none.
#[btf_map]
static SAMPLING: Array<u32, { layout::ENDPOINTS }> = Array::new();

/// The connections that are noted.
#[btf_map]
static SAMPLES: RingBuf<SampledFlow, { layout::SAMPLE_BYTES }> = RingBuf::new();

/// Flows whose latency is measured.
#[btf_map]
static WAITING: LruHashMap<Flow, Waiting, { layout::WAITING }> = LruHashMap::new();

/// What was measured of each endpoint. All CPUs share it: few packets have anything to add.
#[btf_map]
static LATENCIES: Array<Latencies, { layout::ENDPOINTS }> = Array::new();

/// The SYNs seen last.
#[btf_map]
static SYNS: PerCpuArray<RecentSyns, 1> = PerCpuArray::new();

impl Counters for Kernel<'_> {
    #[inline(always)]
    fn forwarded(&self, endpoint: u16, bytes: usize, new_flow: bool) {
        if let Some(counters) = own!(ENDPOINTS, u32::from(endpoint)) {
            counters.packets += 1;
            counters.bytes += bytes as u64;
            counters.new_flows += u64::from(new_flow);
        }
    }

    #[inline(always)]
    fn exit(&self, row: u32, reason: Reason) {
        if let Some(counters) = own!(EXITS, row) {
            let counter = &mut counters[reason as usize & (Reason::ROW - 1)];
            // The tables should rule these out. The first on each CPU is told, the others only
            // counted: a log line costs more than a packet.
            if *counter == 0 && matches!(reason, Reason::NoTables | Reason::BadTables) {
                warn!(
                    self.0,
                    "a packet met reason {} in row {}", reason as u8, row
                );
            }
            *counter += 1;
        }
    }

    #[inline(always)]
    fn syn_seen(&self, place: usize, fingerprint: u32) -> bool {
        let Some(recent) = own!(SYNS, 0) else {
            return false;
        };
        core::mem::replace(&mut recent[place & (RECENT_SYNS - 1)], fingerprint) == fingerprint
    }

    #[inline(always)]
    fn event(&self, endpoint: u16, event: Event) {
        if let Some(events) = own!(EVENTS, u32::from(endpoint)) {
            match event {
                Event::Retransmitted => events.retransmitted += 1,
                Event::Reset => events.resets += 1,
                Event::Reply(bytes) => {
                    events.replies += 1;
                    events.reply_bytes += bytes as u64;
                }
            }
        }
    }

    #[inline(always)]
    fn tracked(&self, what: Tracked) {
        if let Some(tracking) = own!(TRACKING, 0) {
            match what {
                Tracked::Fresh => tracking.fresh += 1,
                Tracked::Established => tracking.established += 1,
                Tracked::Refused => tracking.refused += 1,
                Tracked::Collision => tracking.collisions += 1,
            }
        }
    }

    #[inline(always)]
    fn opened(&self, endpoint: u16, source: &Address, slot: u16, lot: u32) {
        let Some(&one_of) = SAMPLING.get(u32::from(endpoint)) else {
            return;
        };
        if lot & one_of.wrapping_sub(1) != 0 {
            return;
        }
        // Where nobody reads them, there is no room, and the packet goes on.
        if let Some(mut sample) = SAMPLES.reserve(0) {
            sample.write(SampledFlow {
                source: *source,
                one_of,
                endpoint,
                slot,
            });
            // Nobody waits for it: they are read once a second.
            sample.submit(u64::from(BPF_RB_NO_WAKEUP));
        }
    }
}

/// Adds to a number that other CPUs add to. The language's own atomics take an instruction that
/// the target is said not to have.
///
/// # Safety
/// There is such a number.
#[inline(always)]
#[cfg_attr(
    not(target_arch = "bpf"),
    expect(unused_variables, reason = "it is for BPF alone")
)]
unsafe fn add32(to: *mut u32, what: u32) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller's word.
    unsafe {
        core::arch::asm!("lock *(u32 *)({0} + 0) += {1}", in(reg) to, in(reg) u64::from(what), options(nostack, preserves_flags));
    }
}

/// The same for a long one.
///
/// # Safety
/// There is such a number.
#[inline(always)]
#[cfg_attr(
    not(target_arch = "bpf"),
    expect(unused_variables, reason = "it is for BPF alone")
)]
unsafe fn add64(to: *mut u64, what: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller's word.
    unsafe {
        core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) to, in(reg) what, options(nostack, preserves_flags));
    }
}

impl Latency for Kernel<'_> {
    #[inline(always)]
    fn clock(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn waiting<R>(&self, flow: &Flow, with: impl FnOnce(&mut Waiting) -> R) -> Option<R> {
        with!(WAITING, flow, with)
    }

    #[inline(always)]
    fn wait(&self, flow: &Flow, what: &Waiting) {
        // Where every place is just being used on another CPU, the flow is not measured.
        let _ = WAITING.insert(flow, what, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn wait_no_more(&self, flow: &Flow) {
        // Nothing is wrong where it was gone already.
        let _ = WAITING.remove(flow);
    }

    #[inline(always)]
    fn took(&self, endpoint: u16, what: Took, nanoseconds: u64) {
        let Some(latencies) = LATENCIES.get_ptr_mut(u32::from(endpoint)) else {
            return;
        };
        let (bucket, logarithm) = layout::bucket(nanoseconds);
        // SAFETY: the element is never freed; other CPUs add to it, as this does, in one
        // instruction.
        unsafe {
            let histogram = match what {
                Took::Handshake => &raw mut (*latencies).handshake,
                Took::Response => &raw mut (*latencies).response,
                Took::Further => &raw mut (*latencies).further,
            };
            // Of what the compiler knows it checks no bound, and the verifier wants one.
            let bucket = opaque(bucket);
            if bucket < layout::BUCKETS {
                add32((&raw mut (*histogram).buckets).cast::<u32>().add(bucket), 1);
            }
            add64(&raw mut (*histogram).logarithms, u64::from(logarithm));
            add64(&raw mut (*histogram).nanoseconds, nanoseconds);
        }
    }

    #[inline(always)]
    fn failed(&self, endpoint: u16, how: Failed) {
        let Some(latencies) = LATENCIES.get_ptr_mut(u32::from(endpoint)) else {
            return;
        };
        // SAFETY: as above.
        unsafe {
            add64(
                match how {
                    Failed::Unanswered => &raw mut (*latencies).unanswered,
                    Failed::Reset => &raw mut (*latencies).reset,
                },
                1,
            );
        }
    }
}
