//! The decision, cut into the functions that the verifier looks at one by one.
//!
//! Each object that has it says at its root what the decision asks (`home`; `home_of_ports` where
//! `snat` looks for one, which takes most of the stack), what there is to do
//! once it has decided (`decided`), and whether the compiler, which arranges each otherwise, drops a
//! mask of a slot's number that the verifier needs (`OPAQUE_SLOTS`).

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::bpf_redirect,
    programs::XdpContext,
};
use lb_common::{
    decide::{
        self, Job, Next, Plain, Step,
        beyond::{self, Choice},
        measure,
        unusual::{self, Kind},
    },
    layout::Tables,
    verdict::Verdict,
};

use crate::{decided, frame::Frame, home, home_of_ports, maps::job};

/// Balances a frame.
#[inline(always)]
pub(crate) fn run(ctx: &XdpContext) -> u32 {
    let home = home(ctx);
    decide::quick(&mut Frame::<false>::new(ctx), &home, job, Functions(ctx))
}

/// What comes after a step: the functions below.
struct Functions<'a>(&'a XdpContext);

impl<'w, 'j, P> Next<'w, 'j, P> for Functions<'_> {
    type Output = u32;

    #[inline(always)]
    fn take(self, _: &mut P, step: Step<'w, 'j>) -> u32 {
        let ctx = self.0.ctx;
        let (tables, job) = match step {
            Step::Done(verdict) => return action(verdict),
            Step::Send(tables, job) => return send(ctx, tables, job),
            Step::Choose(tables, job) => (tables, job),
            Step::Unusual(tables, job) => match evenkeel_unusual(ctx, tables, job) {
                FLOW => (tables, job),
                FRAGMENT => return evenkeel_fragment(ctx, tables, job),
                ERROR_TO_VIP => return error_to_vip(ctx, tables, job),
                ERROR => return error(ctx, tables, job),
                action => return action,
            },
        };
        if beyond::is_reply(tables, job) {
            let action = evenkeel_reply(ctx, tables, job);
            if is_sent(action) && measure::measures_reply(tables, job) {
                evenkeel_answered(ctx, job);
            }
            return remember(tables, job, action);
        }
        let mut choice = evenkeel_choose(ctx, tables, job);
        if choice == REMEMBERED {
            choice = evenkeel_snat(tables, job);
        }
        if choice == NEW {
            choice = evenkeel_open(tables, job);
        }
        if choice == ENDPOINT {
            if measure::measures(tables, job) {
                evenkeel_sent(ctx, tables, job);
            }
            return send(ctx, tables, job);
        }
        choice
    }

    #[inline(always)]
    fn forward(&self, _: &mut P, tables: &'w Tables, plain: Plain, measured: bool) -> Option<u32> {
        let [first, second] = plain.pack();
        if measured {
            evenkeel_sent_plain(self.0.ctx, tables, plain.hash, first, second);
        }
        match evenkeel_forward(self.0.ctx, tables, plain.hash, first, second) {
            UNSENT => None,
            action => Some(action),
        }
    }
}

#[inline(always)]
fn send(ctx: *mut xdp_md, tables: &Tables, job: &mut Job) -> u32 {
    match evenkeel_send(ctx, tables, job) {
        TOO_BIG => evenkeel_tell(ctx, tables, job),
        action => remember(tables, job, action),
    }
}

#[inline(always)]
fn error_to_vip(ctx: *mut xdp_md, tables: &Tables, job: &mut Job) -> u32 {
    match evenkeel_owner(ctx, tables, job) {
        FLOW => evenkeel_error_to_vip(ctx, tables, job),
        action => action,
    }
}

#[inline(always)]
fn error(ctx: *mut xdp_md, tables: &Tables, job: &mut Job) -> u32 {
    match evenkeel_about(ctx, tables, job) {
        FLOW => evenkeel_error(ctx, tables, job),
        action => action,
    }
}

/// [`unusual::fragments::remember`], of which the rarer half is a function of its own.
#[inline(always)]
fn remember(tables: &Tables, job: &Job, action: u32) -> u32 {
    if job.leads(is_sent(action)) {
        evenkeel_first(tables, job);
    }
    action
}

#[inline(always)]
const fn is_sent(action: u32) -> bool {
    matches!(action, xdp_action::XDP_TX | xdp_action::XDP_REDIRECT)
}

// What the functions answer where it is no action.
const ENDPOINT: u32 = u32::MAX;
const REMEMBERED: u32 = u32::MAX - 1;
const NEW: u32 = u32::MAX - 2;
const TOO_BIG: u32 = u32::MAX - 3;
const FLOW: u32 = u32::MAX - 4;
const FRAGMENT: u32 = u32::MAX - 5;
const ERROR: u32 = u32::MAX - 6;
const ERROR_TO_VIP: u32 = u32::MAX - 7;
const UNSENT: u32 = u32::MAX - 8;

#[inline(always)]
fn code(choice: Choice) -> u32 {
    match choice {
        Choice::Endpoint => ENDPOINT,
        Choice::Remembered => REMEMBERED,
        Choice::New => NEW,
        Choice::Nobody(verdict) => action(verdict),
    }
}

// Each of these is a function of its own: the verifier looks at it once, whatever calls it, and
// what it keeps on the stack is gone when the next one runs. The verifier wants to see pointers
// checked for null that are references where they come from. Kernel 5.13 or later, for pointers
// in the arguments of a global function.

/// [`beyond::choose`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evenkeel_choose(ctx: *mut xdp_md, tables: *const Tables, job: *mut Job) -> u32 {
    // SAFETY: they are references in the callers.
    let (Some(tables), Some(job)) = (unsafe { tables.as_ref() }, unsafe { job.as_mut() }) else {
        return xdp_action::XDP_ABORTED;
    };
    let ctx = XdpContext::new(ctx);
    let choice = beyond::choose(&Frame::<true>::new(&ctx), &home(&ctx), tables, job);
    code(choice)
}

/// [`beyond::snat`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evenkeel_snat(tables: *const Tables, job: *mut Job) -> u32 {
    // SAFETY: as above.
    let (Some(tables), Some(job)) = (unsafe { tables.as_ref() }, unsafe { job.as_mut() }) else {
        return xdp_action::XDP_ABORTED;
    };
    // It looks at no packet. An argument that is not used would be optimised away in the function,
    // but not in what the verifier takes it for.
    let ctx = XdpContext::new(core::ptr::null_mut());
    code(beyond::snat(&home(&ctx), tables, job))
}

/// [`beyond::open`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evenkeel_open(tables: *const Tables, job: *mut Job) -> u32 {
    // SAFETY: as above.
    let (Some(tables), Some(job)) = (unsafe { tables.as_ref() }, unsafe { job.as_mut() }) else {
        return xdp_action::XDP_ABORTED;
    };
    let ctx = XdpContext::new(core::ptr::null_mut());
    code(beyond::open(&home_of_ports(&ctx), tables, job))
}

/// [`beyond::forward`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evenkeel_forward(
    ctx: *mut xdp_md,
    tables: *const Tables,
    hash: u64,
    first: u64,
    second: u64,
) -> u32 {
    // SAFETY: as above.
    let Some(tables) = (unsafe { tables.as_ref() }) else {
        return xdp_action::XDP_ABORTED;
    };
    let ctx = XdpContext::new(ctx);
    let plain = Plain::unpack(hash, [first, second]);
    beyond::forward(&mut Frame::<false>::new(&ctx), &home(&ctx), tables, plain)
        .map_or(UNSENT, action)
}

/// [`beyond::send`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evenkeel_send(ctx: *mut xdp_md, tables: *const Tables, job: *const Job) -> u32 {
    // SAFETY: as above.
    let (Some(tables), Some(job)) = (unsafe { tables.as_ref() }, unsafe { job.as_ref() }) else {
        return xdp_action::XDP_ABORTED;
    };
    let ctx = XdpContext::new(ctx);
    beyond::send(&mut Frame::<false>::new(&ctx), &home(&ctx), tables, job).map_or(TOO_BIG, action)
}

/// [`beyond::too_big::tell`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evenkeel_tell(ctx: *mut xdp_md, tables: *const Tables, job: *const Job) -> u32 {
    // SAFETY: as above.
    let (Some(tables), Some(job)) = (unsafe { tables.as_ref() }, unsafe { job.as_ref() }) else {
        return xdp_action::XDP_ABORTED;
    };
    let ctx = XdpContext::new(ctx);
    let verdict = beyond::too_big::tell(&mut Frame::<true>::new(&ctx), &home(&ctx), tables, job);
    action(verdict)
}

/// [`beyond::reply::process`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evenkeel_reply(ctx: *mut xdp_md, tables: *const Tables, job: *mut Job) -> u32 {
    // SAFETY: as above.
    let (Some(tables), Some(job)) = (unsafe { tables.as_ref() }, unsafe { job.as_mut() }) else {
        return xdp_action::XDP_ABORTED;
    };
    let ctx = XdpContext::new(ctx);
    let verdict = beyond::reply::process(&mut Frame::<false>::new(&ctx), &home(&ctx), tables, job);
    action(verdict)
}

/// [`measure::sent_plain`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evenkeel_sent_plain(
    ctx: *mut xdp_md,
    tables: *const Tables,
    hash: u64,
    first: u64,
    second: u64,
) -> u32 {
    // SAFETY: as above.
    if let Some(tables) = unsafe { tables.as_ref() } {
        let ctx = XdpContext::new(ctx);
        let plain = Plain::unpack(hash, [first, second]);
        measure::sent_plain(&Frame::<true>::new(&ctx), &home(&ctx), tables, &plain);
    }
    0
}

/// [`measure::sent`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evenkeel_sent(ctx: *mut xdp_md, tables: *const Tables, job: *const Job) -> u32 {
    // SAFETY: as above.
    if let (Some(tables), Some(job)) = (unsafe { tables.as_ref() }, unsafe { job.as_ref() }) {
        let ctx = XdpContext::new(ctx);
        measure::sent(&Frame::<true>::new(&ctx), &home(&ctx), tables, job);
    }
    0
}

/// [`measure::answered`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evenkeel_answered(ctx: *mut xdp_md, job: *const Job) -> u32 {
    // SAFETY: as above.
    if let Some(job) = unsafe { job.as_ref() } {
        let ctx = XdpContext::new(ctx);
        measure::answered(&Frame::<true>::new(&ctx), &home(&ctx), job);
    }
    0
}

/// [`unusual::process`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evenkeel_unusual(ctx: *mut xdp_md, tables: *const Tables, job: *mut Job) -> u32 {
    // SAFETY: as above.
    let (Some(tables), Some(job)) = (unsafe { tables.as_ref() }, unsafe { job.as_mut() }) else {
        return xdp_action::XDP_ABORTED;
    };
    let ctx = XdpContext::new(ctx);
    match unusual::process(&mut Frame::<true>::new(&ctx), &home(&ctx), tables, job) {
        Kind::Done(verdict) => action(verdict),
        Kind::Flow => FLOW,
        Kind::Fragment => FRAGMENT,
        Kind::ErrorToVip => ERROR_TO_VIP,
        Kind::Error => ERROR,
    }
}

/// [`unusual::fragments::first`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evenkeel_first(tables: *const Tables, job: *const Job) -> u32 {
    // SAFETY: as above.
    if let (Some(tables), Some(job)) = (unsafe { tables.as_ref() }, unsafe { job.as_ref() }) {
        let ctx = XdpContext::new(core::ptr::null_mut());
        unusual::fragments::first(&home(&ctx), tables, job);
    }
    0
}

/// [`unusual::fragments::process`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evenkeel_fragment(ctx: *mut xdp_md, tables: *const Tables, job: *mut Job) -> u32 {
    // SAFETY: as above.
    let (Some(tables), Some(job)) = (unsafe { tables.as_ref() }, unsafe { job.as_mut() }) else {
        return xdp_action::XDP_ABORTED;
    };
    let ctx = XdpContext::new(ctx);
    let verdict =
        unusual::fragments::process(&mut Frame::<true>::new(&ctx), &home(&ctx), tables, job);
    action(verdict)
}

/// [`unusual::errors::owner`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evenkeel_owner(ctx: *mut xdp_md, tables: *const Tables, job: *mut Job) -> u32 {
    // SAFETY: as above.
    let (Some(tables), Some(job)) = (unsafe { tables.as_ref() }, unsafe { job.as_mut() }) else {
        return xdp_action::XDP_ABORTED;
    };
    let ctx = XdpContext::new(ctx);
    unusual::errors::owner(&Frame::<true>::new(&ctx), &home(&ctx), tables, job).map_or(FLOW, action)
}

/// [`unusual::errors::to_backend`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evenkeel_error_to_vip(
    ctx: *mut xdp_md,
    tables: *const Tables,
    job: *const Job,
) -> u32 {
    // SAFETY: as above.
    let (Some(tables), Some(job)) = (unsafe { tables.as_ref() }, unsafe { job.as_ref() }) else {
        return xdp_action::XDP_ABORTED;
    };
    let ctx = XdpContext::new(ctx);
    let verdict =
        unusual::errors::to_backend(&mut Frame::<true>::new(&ctx), &home(&ctx), tables, job);
    action(verdict)
}

/// [`unusual::errors::about`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evenkeel_about(ctx: *mut xdp_md, tables: *const Tables, job: *mut Job) -> u32 {
    // SAFETY: as above.
    let (Some(tables), Some(job)) = (unsafe { tables.as_ref() }, unsafe { job.as_mut() }) else {
        return xdp_action::XDP_ABORTED;
    };
    let ctx = XdpContext::new(ctx);
    unusual::errors::about(&Frame::<true>::new(&ctx), &home(&ctx), tables, job).map_or(FLOW, action)
}

/// [`unusual::errors::to_client`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evenkeel_error(ctx: *mut xdp_md, tables: *const Tables, job: *const Job) -> u32 {
    // SAFETY: as above.
    let (Some(tables), Some(job)) = (unsafe { tables.as_ref() }, unsafe { job.as_ref() }) else {
        return xdp_action::XDP_ABORTED;
    };
    let ctx = XdpContext::new(ctx);
    let verdict =
        unusual::errors::to_client(&mut Frame::<true>::new(&ctx), &home(&ctx), tables, job);
    action(verdict)
}

/// Carries a verdict out.
#[inline(always)]
fn action(verdict: Verdict) -> u32 {
    decided(verdict);
    match verdict {
        Verdict::Transmit => xdp_action::XDP_TX,
        // SAFETY: a helper that takes numbers.
        Verdict::Redirect(interface) => unsafe { bpf_redirect(interface, 0) as u32 },
        Verdict::Pass(_) => xdp_action::XDP_PASS,
        Verdict::Drop(_) => xdp_action::XDP_DROP,
    }
}
