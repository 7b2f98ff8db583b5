//! The Internet checksum, whole (RFC 1071) and brought up to date (RFC 1624).
//!
//! Sums are taken over words as they lie in memory: the sum of the swapped words is the swapped
//! sum, so nothing is ever swapped (RFC 1071 §2).

/// What changes in the words that a checksum covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "a change that is not applied leaves a checksum wrong"]
pub struct Change(u64);

impl Change {
    /// A 16-bit word at an even offset becomes another.
    #[inline(always)]
    pub const fn half(self, old: u16, new: u16) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// The first byte of a 16-bit word at an even offset, which is not zero, becomes one less.
    #[inline(always)]
    pub const fn one_less(self) -> Self {
        // Whatever the word is, ~m + m' is this.
        Self(self.0 + !u16::from_ne_bytes([1, 0]) as u64)
    }

    /// A 32-bit word at an even offset becomes another.
    #[inline(always)]
    pub const fn word(self, old: u32, new: u32) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// Four words become others.
    #[inline(always)]
    pub const fn words(self, old: &[u32; 4], new: &[u32; 4]) -> Self {
        self.word(old[0], new[0])
            .word(old[1], new[1])
            .word(old[2], new[2])
            .word(old[3], new[3])
    }

    /// Both changes.
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The checksum after the change: ~(~HC + ~m + m') of RFC 1624 §3.
    #[inline(always)]
    pub const fn apply(self, checksum: u16) -> u16 {
        !fold(self.0 + !checksum as u64)
    }

    /// The change of a checksum that becomes another, for a checksum that covers it.
    #[inline(always)]
    pub const fn of_checksum(self, old: u16, new: u16) -> Self {
        self.half(old, new)
    }
}

/// The sum of 16-bit words with the carries added, of a sum of up to 2³¹ words.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    // A number and its two halves changed over: each half of the sum is that of both halves, and
    // the upper one has the lower one's carry, which is its own.
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// The checksum of 32-bit words.
#[inline(always)]
pub const fn of_words<const N: usize>(words: &[u32; N]) -> u16 {
    let mut sum = 0;
    let mut n = 0;
    while n < N {
        sum += words[n] as u64;
        n += 1;
    }
    !fold(sum)
}

#[cfg(test)]
mod tests;
