//! A received frame. All packet pointers live here.

use aya_ebpf::{EbpfContext, programs::XdpContext};
use bytemuck::Pod;
use lb_common::packet::Packet;

/// The frame of an XDP context.
pub(crate) struct Frame<'a> {
    ctx: &'a XdpContext,
    start: usize,
    end: usize,
}

impl<'a> Frame<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        Self {
            ctx,
            start: ctx.data(),
            end: ctx.data_end(),
        }
    }

    /// The address of a value within the frame.
    ///
    /// The verifier follows the access only because the pointer that is compared is the pointer
    /// that is given out.
    #[inline(always)]
    fn at<T>(&self, at: usize) -> Option<*mut T> {
        let pointer = self.start + at;
        if pointer + size_of::<T>() > self.end {
            None
        } else {
            Some(pointer as *mut T)
        }
    }
}

impl Packet for Frame<'_> {
    #[inline(always)]
    fn read<T: Pod>(&self, at: usize) -> Option<T> {
        // SAFETY: `at` has compared the whole value with the frame's end.
        self.at::<T>(at)
            .map(|pointer| unsafe { pointer.read_unaligned() })
    }

    #[inline(always)]
    fn write<T: Pod>(&mut self, at: usize, value: T) -> Option<()> {
        // SAFETY: `at` has compared the whole value with the frame's end.
        self.at::<T>(at)
            .map(|pointer| unsafe { pointer.write_unaligned(value) })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.end - self.start
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        // SAFETY: the context outlives the program's run, and the verifier knows its layout.
        unsafe { (*self.ctx.as_ptr().cast::<aya_ebpf::bindings::xdp_md>()).ingress_ifindex }
    }
}
