//! A received frame. All packet pointers live here.

use aya_ebpf::{
    helpers::{bpf_csum_diff, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
    programs::XdpContext,
};
use bytemuck::Pod;
use lb_common::packet::Packet;

/// The frame of an XDP context.
///
/// The compiler drops a bounds check that follows from an earlier one. The verifier, though,
/// forgets the earlier one where an offset is not the same constant in both; with `EACH` every
/// access is checked, whatever went before.
pub(crate) struct Frame<'a, const EACH: bool = false> {
    ctx: &'a XdpContext,
    start: usize,
    end: usize,
}

impl<'a, const EACH: bool> Frame<'a, EACH> {
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
        // Of one byte, `pointer < end` would be compared, from which the verifier learns nothing.
        if EACH || size_of::<T>() == 1 {
            stop = opaque(stop);
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

/// A number of which the compiler knows nothing.
#[inline(always)]
pub(crate) fn opaque(number: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    let number = {
        let mut number = number;
        // SAFETY: adds nothing. It has to be an instruction: the kernel refuses line information
        // without one.
        unsafe {
            core::arch::asm!("{0} += 0", inout(reg) number, options(pure, nomem, nostack, preserves_flags));
        }
        number
    };
    number
}

/// Copies a value in word by word.
///
/// A value that comes from a table would otherwise be moved from memory to memory, for which the
/// compiler calls a function that goes byte by byte. Written out and no loop, which it would take
/// for such a move again.
///
/// # Safety
/// There is room for the value at the pointer.
#[inline(always)]
unsafe fn store<T: Pod>(to: *mut T, value: &T) {
    const { assert!(size_of::<T>() <= 40, "a larger value needs more lines") };
    let from = (&raw const *value).cast::<u8>();
    let to = to.cast::<u8>();
    macro_rules! word {
        ($word:ty, $at:expr) => {
            if size_of::<T>() >= $at + size_of::<$word>() {
                // SAFETY: within the value, and what the caller says.
                unsafe {
                    let word = from.add($at).cast::<$word>().read_unaligned();
                    to.add($at).cast::<$word>().write_unaligned(word);
                }
            }
        };
    }
    word!(u64, 0);
    word!(u64, 8);
    word!(u64, 16);
    word!(u64, 24);
    word!(u64, 32);
    let whole = size_of::<T>() & !7;
    if size_of::<T>() & 4 != 0 {
        word!(u32, whole);
    }
    if size_of::<T>() & 2 != 0 {
        word!(u16, size_of::<T>() & !3);
    }
    if size_of::<T>() & 1 != 0 {
        word!(u8, size_of::<T>() & !1);
    }
}

impl<const EACH: bool> Packet for Frame<'_, EACH> {
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
            .map(|pointer| unsafe { store(pointer, &value) })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.end - self.start
    }

    #[inline(always)]
    fn sum<const WORDS: usize>(&self, at: usize) -> Option<u64> {
        let pointer = self.at::<[u32; WORDS]>(at)?;
        let bytes = size_of::<[u32; WORDS]>() as u32;
        // SAFETY: `at` has compared the words with the frame's end.
        let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, pointer.cast(), bytes, 0) };
        u64::try_from(sum).ok()
    }

    #[inline(always)]
    fn full_length(&self) -> usize {
        // SAFETY: the context outlives the program's run.
        unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) as usize }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_wrap, reason = "a frame is shorter than that")]
    fn grow(&mut self, bytes: usize) -> Option<()> {
        self.move_start(-(bytes as i32))
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_wrap, reason = "a frame is shorter than that")]
    fn shrink(&mut self, bytes: usize) -> Option<()> {
        self.move_start(bytes as i32)
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_wrap, reason = "a frame is shorter than that")]
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
