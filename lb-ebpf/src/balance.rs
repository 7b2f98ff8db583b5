//! The decision, cut into the functions that the verifier looks at one by one.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::bpf_redirect,
    programs::XdpContext,
};
use lb_common::{
    decide::{self, Job, Step},
    layout::Tables,
    verdict::Verdict,
};

use crate::{frame::Frame, maps::Kernel};

/// Balances a frame.
#[inline(always)]
pub(crate) fn run(ctx: &XdpContext) -> u32 {
    match decide::quick(&mut Frame::new(ctx), &Kernel(ctx)) {
        Step::Done(verdict) => action(verdict),
        Step::Beyond(tables, job) => evenkeel_beyond(ctx.ctx, tables, &raw const job),
        Step::Unusual => evenkeel_unusual(ctx.ctx),
    }
}

/// [`decide::beyond::process`], as a function of its own.
///
/// Kernel 5.13 or later, for pointers in the arguments of a global function.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evenkeel_beyond(ctx: *mut xdp_md, tables: *const Tables, job: *const Job) -> u32 {
    // SAFETY: the callers pass references; the verifier wants to see them checked.
    let (Some(tables), Some(job)) = (unsafe { tables.as_ref() }, unsafe { job.as_ref() }) else {
        return xdp_action::XDP_ABORTED;
    };
    let ctx = XdpContext::new(ctx);
    let verdict = decide::beyond::process(&mut Frame::new(&ctx), &Kernel(&ctx), tables, job);
    action(verdict)
}

/// [`decide::unusual::process`], as a function of its own.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evenkeel_unusual(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    match decide::unusual::process(&mut Frame::new(&ctx), &Kernel(&ctx)) {
        Step::Done(verdict) => action(verdict),
        Step::Beyond(tables, job) => evenkeel_beyond(ctx.ctx, tables, &raw const job),
        Step::Unusual => xdp_action::XDP_ABORTED,
    }
}

/// Carries a verdict out.
#[inline(always)]
fn action(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Transmit => xdp_action::XDP_TX,
        // SAFETY: a helper that takes numbers.
        Verdict::Redirect(interface) => unsafe { bpf_redirect(interface, 0) as u32 },
        Verdict::Pass(_) => xdp_action::XDP_PASS,
        Verdict::Drop(_) => xdp_action::XDP_DROP,
    }
}
