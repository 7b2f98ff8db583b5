//! What is told of a packet that is watched, what a drill takes, and the maps of both. All pointers
//! into them live here.

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP, xdp_md},
    btf_maps::{Array, LruHashMap, PerCpuArray, RingBuf},
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_ringbuf_output, bpf_xdp_load_bytes},
    macros::btf_map,
    programs::XdpContext,
};
use lb_common::{
    decide::unusual,
    fault::{self, Fault},
    flow::Flow,
    layout::{ENDPOINTS, NONE, SERVICES},
    packet::Packet as _,
    tables::{Memory as _, Tables as _},
    trace::{Filter, Head, Left, Pace, RECORD_BYTES, SNAP, Seen, Shot, watching, what},
    trail::{Notes, Step, Trail, step},
};

use crate::{
    frame::{Frame, opaque},
    maps::{Kernel, own},
};

/// Which decisions are told.
#[btf_map]
static FILTER: Array<Filter, 1> = Array::new();

/// Which packets a drill takes.
#[btf_map]
static FAULT: Array<Fault, 1> = Array::new();

/// The connections whose first packet it took, of a fault that takes no other.
#[btf_map]
static OPENED: LruHashMap<Flow, u32, { fault::OPENED }> = LruHashMap::new();

/// How many it took.
#[btf_map]
static STRUCK: PerCpuArray<u64, 1> = PerCpuArray::new();

/// What is told.
#[btf_map]
static RECORDS: RingBuf<Seen, RECORD_BYTES> = RingBuf::new();

/// Where a decision is put together.
#[btf_map]
static SHOT: PerCpuArray<Shot, 1> = PerCpuArray::new();

/// Where a frame is put that leaves.
#[btf_map]
static LEFT: PerCpuArray<Left, 1> = PerCpuArray::new();

/// How much may be told.
#[btf_map]
static PACE: PerCpuArray<Pace, 1> = PerCpuArray::new();

/// Writes to the trail of a packet that is watched.
pub(crate) struct Trails;

impl Notes for Trails {
    #[inline(always)]
    fn note(&self, with: impl FnOnce(&mut Trail)) {
        if let Some(shot) = own!(SHOT, 0)
            && shot.watching != 0
        {
            with(&mut shot.seen.trail);
        }
    }

    /// By a function of its own: the program's stack has hardly any room.
    #[inline(always)]
    fn step(&self, step: Step) {
        evenkeel_step(bytemuck::cast(step));
    }
}

/// Notes a step of a packet that is watched.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evenkeel_step(step: u64) -> u32 {
    Trails.note(|trail| trail.add(bytemuck::cast(step)));
    0
}

/// Looks at a frame before it is decided. Answers bits of [`watching`].
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn evenkeel_watch(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let (Some(filter), Some(fault), Some(shot)) = (FILTER.get(0), FAULT.get(0), own!(SHOT, 0))
    else {
        return 0;
    };
    shot.watching = 0;
    let now = Kernel(&ctx).now();
    let (tells, strikes) = (!filter.is_over(now), fault.is_on(now));
    if !tells && !strikes {
        return 0;
    }
    let frame = Frame::<true>::new(&ctx);
    unusual::subject(&frame, &mut shot.seen.subject);
    let mut why = 0;
    if tells && filter.may_match(&shot.seen.subject) {
        why |= watching::TOLD;
    }
    if strikes && fault.may_strike(&shot.seen.subject) {
        why |= watching::STRUCK;
    }
    if why == 0 {
        return 0;
    }
    shot.watching = why;
    let trail = &mut shot.seen.trail;
    trail.begin();
    trail.ingress = frame.ingress();
    // SAFETY: helpers without arguments.
    (trail.at, trail.cpu) = unsafe { (bpf_ktime_get_ns(), bpf_get_smp_processor_id()) };
    let length = frame.full_length();
    let snap = if why & watching::TOLD == 0 {
        0
    } else {
        filter.snap
    };
    let captured = load(&ctx, &mut shot.bytes, length, snap);
    shot.seen.head = Head {
        what: what::DECIDED,
        length: length as u32,
        captured,
        cpu: trail.cpu,
        serial: 0,
    };
    why as u32
}

/// Whether a drill takes the packet in hand, which was decided to be sent.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn evenkeel_strike() -> u32 {
    let (Some(fault), Some(shot)) = (FAULT.get(0), own!(SHOT, 0)) else {
        return 0;
    };
    let Seen { subject, trail, .. } = &mut shot.seen;
    if !fault.strikes(trail) {
        return 0;
    }
    // Its second packet finds the first one's note.
    if fault.opening != 0 && OPENED.insert(subject.flow, 0, BPF_NOEXIST.into()).is_err() {
        return 0;
    }
    trail.add(Step::new(step::STRUCK, step::YES, fault.endpoint, 0));
    if let Some(struck) = own!(STRUCK, 0) {
        *struck += 1;
    }
    1
}

/// Tells a decision, where the filter asks for it, and the frame that leaves.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn evenkeel_tell_decision(ctx: *mut xdp_md, is_sent: u32) -> u32 {
    let ctx = XdpContext::new(ctx);
    let (Some(filter), Some(shot)) = (FILTER.get(0), own!(SHOT, 0)) else {
        return 0;
    };
    let kernel = Kernel(&ctx);
    let trail = &mut shot.seen.trail;
    let mut vip = [0; 4];
    if let Some(tables) = kernel.current() {
        if trail.service == NONE && trail.endpoint != NONE {
            let endpoint = usize::from(trail.endpoint) & (ENDPOINTS - 1);
            trail.service = tables.endpoints[endpoint].service;
        }
        if trail.service != NONE {
            vip = tables.services[usize::from(trail.service) & (SERVICES - 1)].address;
        }
    }
    if !filter.matches(&shot.seen.subject, &shot.seen.trail, &vip) {
        return 0;
    }
    let Some(pace) = own!(PACE, 0) else {
        return 0;
    };
    if !pace.may_tell(kernel.now(), filter.rate) {
        pace.skipped += 1;
        return 0;
    }
    pace.serial += 1;
    shot.seen.head.serial = pace.serial;
    let captured = shot.seen.head.captured;
    let record = (&raw const shot.seen).cast();
    if !output(record, size_of::<Seen>(), captured) {
        pace.lost += 1;
        return 0;
    }
    if filter.snap == 0 || is_sent == 0 {
        return 0;
    }
    let Some(left) = own!(LEFT, 0) else {
        return 0;
    };
    let length = Frame::<true>::new(&ctx).full_length();
    let captured = load(&ctx, &mut left.bytes, length, filter.snap);
    left.head = Head {
        what: what::LEFT,
        length: length as u32,
        captured,
        cpu: shot.seen.head.cpu,
        serial: pace.serial,
    };
    let record = (&raw const left.head).cast();
    if !output(record, size_of::<Head>(), captured) {
        pace.lost += 1;
    }
    0
}

/// Copies the first bytes of a frame, as many as there are and are asked for; answers how many.
#[inline(always)]
fn load(ctx: &XdpContext, to: &mut [u8; SNAP], length: usize, snap: u32) -> u32 {
    // Compared when it is one less: up to Linux 6.1 the verifier does not note that a number is not
    // zero.
    let one_less = opaque(length.min(snap as usize).wrapping_sub(1));
    if one_less >= SNAP {
        return 0;
    }
    let wanted = one_less + 1;
    // SAFETY: the kernel checks the frame's bounds, and the line above those of the copy. Kernel 5.18
    // or later.
    let loaded = unsafe { bpf_xdp_load_bytes(ctx.ctx, 0, to.as_mut_ptr().cast(), wanted as u32) };
    if loaded == 0 { wanted as u32 } else { 0 }
}

/// Puts a record of a fixed size with the bytes behind it into the ring buffer; false where there is
/// no room.
#[inline(always)]
fn output(record: *const core::ffi::c_void, fixed: usize, captured: u32) -> bool {
    let captured = opaque(captured as usize);
    if captured > SNAP {
        return false;
    }
    // SAFETY: the callers' records lie in map values, with as many bytes behind them.
    let done = unsafe {
        bpf_ringbuf_output(
            (&raw const RECORDS).cast_mut().cast(),
            record.cast_mut(),
            (fixed + captured) as u64,
            // Nobody waits for it: what is told is read some fifty times a second.
            u64::from(BPF_RB_NO_WAKEUP),
        )
    };
    done == 0
}
