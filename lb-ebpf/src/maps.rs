//! The maps that a packet's way depends on, as the decision sees them. All pointers into them live
//! here.

use core::mem::{MaybeUninit, offset_of};

use aya_ebpf::{
    EbpfContext as _,
    bindings::{self, BPF_ANY, BPF_NOEXIST},
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, lpm_trie::Key},
    helpers::{
        bpf_fib_lookup, bpf_get_smp_processor_id, bpf_ktime_get_coarse_ns, bpf_sk_lookup_udp,
        bpf_sk_release, bpf_skc_lookup_tcp,
    },
    macros::btf_map,
    programs::XdpContext,
};
use lb_common::{
    decide::Job,
    flow::{self, Address, Flow},
    layout::{
        self, Allowance, FlowEntry, FragmentKey, LimitKey, SMALL_RING_SLOTS, Scratch, Slot,
        SourceKey, TICK_NS, Vip,
    },
    tables::{Memory, Route, Routes, Tables},
    wire::tcp,
};

use crate::frame::opaque;

/// The one pointer that a publication swaps.
///
/// The value is an array of one and not the structure itself: up to Linux 6.1 the kernel refuses
/// to put a map that was made without type information in the place of one whose value is known
/// to be a structure.
#[btf_map]
static TABLES: ArrayOfMaps<Array<[layout::Tables; 1], 1>, 1> = ArrayOfMaps::new();

/// The large rings, by the numbers that the tables name them by.
#[btf_map]
static RINGS: ArrayOfMaps<Array<layout::Ring, 1>, { layout::RINGS }> = ArrayOfMaps::new();

/// The small rings, likewise.
#[btf_map]
static SMALL_RINGS: ArrayOfMaps<Array<layout::SmallRing, 1>, { layout::RINGS }> =
    ArrayOfMaps::new();

/// What a CPU keeps for itself.
#[btf_map]
static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// Flows of which a first packet was seen; the loader says how many there is room for.
#[btf_map]
static FRESH: LruHashMap<Flow, FlowEntry, 65_536> = LruHashMap::new();

/// The other flows that are remembered; the loader says how many there is room for.
#[btf_map]
static ESTABLISHED: HashMap<Flow, FlowEntry, 262_144> = HashMap::new();

/// First fragments of packets.
#[btf_map]
static FRAGMENTS: LruHashMap<FragmentKey, FlowEntry, { layout::FRAGMENTS }> = LruHashMap::new();

/// Lists of sources.
#[btf_map]
static SOURCES: LpmTrie<[u32; 6], u8, { layout::SOURCES }> = LpmTrie::new();

/// Sources that are limited.
#[btf_map]
static LIMITS: LruHashMap<LimitKey, Allowance, { layout::LIMITS }> = LruHashMap::new();

/// Where a CPU notes what it knows of a packet that takes more than the shortest way. It lies here
/// because the stack is small.
#[btf_map]
static JOB: PerCpuArray<Job, 1> = PerCpuArray::new();

/// How many CPUs share the ports of `snat`; the loader says.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
static CPUS: aya_ebpf::Global<u32> = aya_ebpf::Global::new(1);

/// This CPU's value of a per-CPU array.
///
/// # Safety
/// The caller holds no other reference to it. No other packet runs on this CPU meanwhile.
macro_rules! own {
    ($map:ident, $index:expr) => {
        match $map.get_ptr_mut($index) {
            // SAFETY: the value is this CPU's own, and the reference does not outlive its use.
            Some(value) => Some(unsafe { &mut *value }),
            None => None,
        }
    };
}

#[allow(unused_imports, reason = "objects that count use it")]
pub(crate) use own;

/// Hands the value under a key to a closure.
///
/// Other CPUs may write to it meanwhile: its fields are numbers of which any mixture is sound.
macro_rules! with {
    ($map:ident, $key:expr, $with:expr) => {
        $map.get_ptr_mut($key)
            // SAFETY: the kernel keeps the element's memory valid while the program runs.
            .map(|value| $with(unsafe { &mut *value }))
    };
}

#[allow(unused_imports, reason = "objects that count use it")]
pub(crate) use with;

/// The kernel, as one packet sees it.
pub(crate) struct Kernel<'a>(pub(crate) &'a XdpContext);

/// How many connections a source may still open, where that is known.
#[allow(dead_code, reason = "objects that only look use it")]
#[inline(always)]
pub(crate) fn allowed(source: &LimitKey) -> Option<Allowance> {
    with!(LIMITS, source, |allowance: &mut Allowance| *allowance)
}

/// What this CPU keeps for itself.
#[allow(dead_code, reason = "objects that only look use it")]
#[inline(always)]
pub(crate) fn scratch() -> Option<Scratch> {
    own!(SCRATCH, 0).map(|scratch| *scratch)
}

/// The port that `snat` tries as one of so many on this CPU.
#[inline(always)]
pub(crate) fn port(nth: u32) -> u32 {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    nth.wrapping_mul(CPUS.load()).wrapping_add(cpu)
}

impl Tables for Kernel<'_> {
    #[inline(always)]
    fn current(&self) -> Option<&layout::Tables> {
        TABLES.get_value(0, &0).map(|[tables]| tables)
    }

    #[inline(always)]
    fn slot(&self, vip: &Vip, hash: u32) -> Option<Slot> {
        let mut slot = usize::from(hash as u16 & vip.slot_mask);
        if crate::OPAQUE_SLOTS {
            slot = opaque(slot);
        }
        if usize::from(vip.slot_mask) < SMALL_RING_SLOTS {
            SMALL_RINGS
                .get_value(vip.ring, &0)
                .map(|ring| ring[slot & (SMALL_RING_SLOTS - 1)])
        } else {
            RINGS
                .get_value(vip.ring, &0)
                .map(|ring| ring[slot & (layout::RING_SLOTS - 1)])
        }
    }
}

/// This CPU's job: that of the packet in hand.
#[inline(always)]
pub(crate) fn job<'j>() -> Option<&'j mut Job> {
    own!(JOB, 0)
}

impl Memory for Kernel<'_> {
    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: a helper without arguments. Kernel 5.11 or later.
        (unsafe { bpf_ktime_get_coarse_ns() } / TICK_NS) as u32
    }

    #[inline(always)]
    fn fresh<R>(&self, flow: &Flow, with: impl FnOnce(&mut FlowEntry) -> R) -> Option<R> {
        with!(FRESH, flow, with)
    }

    #[inline(always)]
    fn established<R>(&self, flow: &Flow, with: impl FnOnce(&mut FlowEntry) -> R) -> Option<R> {
        with!(ESTABLISHED, flow, with)
    }

    #[inline(always)]
    fn remember_fresh(&self, flow: &Flow, entry: &FlowEntry) {
        // Where every place is just being used on another CPU, the flow is not remembered, and
        // its next packet is taken for a first one.
        let _ = FRESH.insert(flow, entry, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn claim_fresh(&self, flow: &Flow, entry: &FlowEntry) -> bool {
        FRESH.insert(flow, entry, u64::from(BPF_NOEXIST)).is_ok()
    }

    #[inline(always)]
    fn remember_established(&self, flow: &Flow, entry: &FlowEntry) -> bool {
        ESTABLISHED.insert(flow, entry, u64::from(BPF_ANY)).is_ok()
    }

    #[inline(always)]
    fn forget_fresh(&self, flow: &Flow) {
        // Nothing is wrong where it was gone already.
        let _ = FRESH.remove(flow);
    }

    #[inline(always)]
    fn forget_established(&self, flow: &Flow) {
        let _ = ESTABLISHED.remove(flow);
    }

    #[inline(always)]
    fn remember_fragment(&self, fragment: &FragmentKey, entry: &FlowEntry) {
        let _ = FRAGMENTS.insert(fragment, entry, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn fragment(&self, fragment: &FragmentKey) -> Option<FlowEntry> {
        with!(FRAGMENTS, fragment, |entry: &mut FlowEntry| *entry)
    }

    #[inline(always)]
    fn next_port(&self) -> u32 {
        let Some(scratch) = own!(SCRATCH, 0) else {
            return 0;
        };
        scratch.port = scratch.port.wrapping_add(1);
        port(scratch.port)
    }

    #[inline(always)]
    fn listed(&self, source: &SourceKey) -> Option<u8> {
        let [a, b, c, d] = source.address;
        let key = Key::new(source.prefix, [source.list, source.family, a, b, c, d]);
        SOURCES.get(&key).copied()
    }

    #[inline(always)]
    fn allowance<R>(
        &self,
        source: &LimitKey,
        first: Allowance,
        with: impl FnOnce(&mut Allowance) -> R,
    ) -> Option<R> {
        if LIMITS.get_ptr(source).is_none() {
            let _ = LIMITS.insert(source, first, u64::from(BPF_NOEXIST));
        }
        with!(LIMITS, source, with)
    }

    #[inline(always)]
    fn may_tell(&self) -> bool {
        let now = self.now();
        own!(SCRATCH, 0).is_some_and(|scratch| scratch.may_tell(now))
    }
}

/// `AF_INET` and `AF_INET6` of linux/socket.h.
const INET: u8 = 2;
const INET6: u8 = 10;
/// `BPF_FIB_LKUP_RET_NOT_FWDED` of linux/bpf.h: for the host itself, or without a route.
const NOT_FORWARDED: i64 = 4;
/// `BPF_FIB_LKUP_RET_FWD_DISABLED`: the interface's packets are not forwarded, wherever they go.
const FORWARDING_DISABLED: i64 = 5;
/// `BPF_F_CURRENT_NETNS` of linux/bpf.h.
const THIS_NAMESPACE: u64 = u64::MAX;

// What the kernel's answer comes to.
const OVER: usize = 0;
const NOWHERE: usize = 1;
const UNKNOWN: usize = 2;

/// A question to the kernel's routes, as words.
type Lookup = [u64; size_of::<bindings::bpf_fib_lookup>() / 8];

impl Routes for Kernel<'_> {
    #[inline(always)]
    fn route(&self, family: u8, source: &Address, destination: &Address, ingress: u32) -> Route {
        let mut lookup: MaybeUninit<Lookup> = MaybeUninit::uninit();
        let words = lookup.as_mut_ptr().cast::<u64>();
        // Written out, or the compiler would call a function that goes byte by byte.
        for word in 0..const { size_of::<Lookup>() / 8 } {
            // SAFETY: one of its words.
            unsafe { words.add(word).write_volatile(0) };
        }
        // SAFETY: integers, and arrays of them, for which zero is valid.
        let lookup = unsafe { &mut *words.cast::<bindings::bpf_fib_lookup>() };
        lookup.ifindex = ingress;
        if family == flow::V4 {
            lookup.family = INET;
            lookup.__bindgen_anon_3.ipv4_src = source[3];
            lookup.__bindgen_anon_4.ipv4_dst = destination[3];
        } else {
            lookup.family = INET6;
            lookup.__bindgen_anon_3.ipv6_src = *source;
            lookup.__bindgen_anon_4.ipv6_dst = *destination;
        }
        // SAFETY: the context and the structure outlive the call.
        let answer = unsafe {
            bpf_fib_lookup(
                self.0.as_ptr(),
                &raw mut *lookup,
                const { size_of::<bindings::bpf_fib_lookup>() as u8 }.into(),
                0,
            )
        };
        // Numbers of its own for the three, which the compiler must not take for the answer itself:
        // up to Linux 6.2 the verifier does not note that an answer is not zero, and then misses
        // the way that only a zero comes with.
        let kind = match answer {
            0 => opaque(OVER),
            NOT_FORWARDED | FORWARDING_DISABLED => opaque(NOWHERE),
            _ => opaque(UNKNOWN),
        };
        match kind {
            OVER => {
                // Two bytes at a time, and not to be merged: the verifier takes no word from the
                // stack that is not aligned.
                let half = |mac: &[u8; 6], at: usize| {
                    let halves = (&raw const *mac).cast::<[u8; 2]>();
                    // SAFETY: one of the three halves of the address.
                    let half = unsafe { halves.add(at).read_volatile() };
                    u32::from(u16::from_ne_bytes(half))
                };
                let (next, own) = (&lookup.dmac, &lookup.smac);
                Route::Over {
                    interface: lookup.ifindex,
                    macs: [
                        half(next, 0) | half(next, 1) << 16,
                        half(next, 2) | half(own, 0) << 16,
                        half(own, 1) | half(own, 2) << 16,
                    ],
                }
            }
            NOWHERE => Route::Nowhere,
            _ => Route::Unknown,
        }
    }

    #[inline(always)]
    fn awaited(&self, flow: &Flow) -> bool {
        // `struct bpf_sock_tuple` of linux/bpf.h: addresses and ports, of IPv6 as a flow begins.
        let of_ipv4;
        let (tuple, size) = if flow.family == flow::V4 {
            of_ipv4 = [flow.source[3], flow.destination[3], flow.ports];
            ((&raw const of_ipv4).cast(), size_of::<[u32; 3]>())
        } else {
            ((&raw const *flow).cast(), offset_of!(Flow, protocol))
        };
        let tuple: *const bindings::bpf_sock_tuple = tuple;
        let (ctx, tuple, size) = (self.0.as_ptr(), tuple.cast_mut(), size as u32);
        // SAFETY: the context and the tuple outlive the calls; what was found is given back.
        unsafe {
            let socket = if flow.protocol == tcp::PROTOCOL {
                bpf_skc_lookup_tcp(ctx, tuple, size, THIS_NAMESPACE, 0)
            } else {
                bpf_sk_lookup_udp(ctx, tuple, size, THIS_NAMESPACE, 0)
            };
            if socket.is_null() {
                return false;
            }
            bpf_sk_release(socket.cast());
        }
        true
    }
}
