//! The first minutes of a backend that is new or comes back: a small part of its weight, then more.
//!
//! Four parts, each twice the one before. The slots of a smaller part are among those of a larger
//! one, so the steps together move no more flows than one would.

use std::time::Duration;

use crate::model::Fraction;

/// The parts before the whole, as one of so many.
const PARTS: [u16; 3] = [8, 4, 2];

/// How far one backend has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowStart {
    /// It has its whole weight.
    #[default]
    Over,
    /// It began at this time.
    Since(Duration),
}

impl SlowStart {
    /// The part of its weight that a backend has at `now`, and when it will have all of it, where
    /// that takes `length`.
    #[must_use]
    pub fn part(self, now: Duration, length: Duration) -> (Fraction, Option<Duration>) {
        let Self::Since(begin) = self else {
            return (Fraction::FULL, None);
        };
        let passed = now.saturating_sub(begin);
        let step = length / PARTS.len() as u32;
        let steps = passed.as_nanos() / step.as_nanos().max(1);
        match usize::try_from(steps).ok().and_then(|n| PARTS.get(n)) {
            Some(&parts) => (Fraction::one_of(parts), Some(length.saturating_sub(passed))),
            None => (Fraction::FULL, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_three_times() {
        let start = SlowStart::Since(Duration::from_secs(100));
        for (at, part, left) in [
            (100, 8, Some(30)),
            (109, 8, Some(21)),
            (110, 4, Some(20)),
            (120, 2, Some(10)),
            (129, 2, Some(1)),
            (130, 1, None),
            (1000, 1, None),
        ] {
            assert_eq!(
                start.part(Duration::from_secs(at), Duration::from_secs(30)),
                (Fraction::one_of(part), left.map(Duration::from_secs)),
                "at {at} s"
            );
        }
        let whole = (Fraction::FULL, None);
        assert_eq!(
            SlowStart::Over.part(Duration::ZERO, Duration::from_secs(30)),
            whole
        );
        assert_eq!(
            start.part(Duration::from_secs(100), Duration::ZERO).0,
            Fraction::one_of(8)
        );
    }
}
