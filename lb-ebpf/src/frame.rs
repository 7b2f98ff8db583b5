//! A received frame. All packet pointers live here.

use aya_ebpf::{
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
    programs::XdpContext,
};
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
        let mut stop = pointer + size_of::<T>();
        if size_of::<T>() == 1 {
            // Or else `pointer < end` is compared, from which the verifier learns nothing.
            stop = core::hint::black_box(stop);
        }
        if stop > self.end {
            None
        } else {
            Some(pointer as *mut T)
        }
    }

    /// Moves the frame's first byte: to the front where `by` is negative.
    #[inline(always)]
    fn move_start(&mut self, by: i32) -> Option<()> {
        // SAFETY: the kernel checks the bounds; old pointers are not used after this.
        let moved = unsafe { bpf_xdp_adjust_head(self.ctx.ctx, by) } == 0;
        *self = Self::new(self.ctx);
        moved.then_some(())
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
    fn full_length(&self) -> usize {
        // SAFETY: the context outlives the program's run.
        unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) as usize }
    }

    #[inline(always)]
    fn grow(&mut self, bytes: usize) -> Option<()> {
        self.move_start(-(bytes as i32))
    }

    #[inline(always)]
    fn shrink(&mut self, bytes: usize) -> Option<()> {
        self.move_start(bytes as i32)
    }

    #[inline(always)]
    fn truncate(&mut self, length: usize) -> Option<()> {
        let by = length as i32 - self.full_length() as i32;
        // SAFETY: the kernel checks the bounds; old pointers are not used after this.
        let moved = unsafe { bpf_xdp_adjust_tail(self.ctx.ctx, by) } == 0;
        *self = Self::new(self.ctx);
        moved.then_some(())
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }
}
