//! What a service does about backends that answer and yet underperform.

use std::{fmt, time::Duration};

/// How much of a backend's weight is in force: a fixed-point number from zero to one, in steps of
/// 1/65,536.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fraction(u32);

impl Fraction {
    /// Not usable: the backend gets no slot.
    pub const NONE: Self = Self(0);
    /// The whole weight.
    pub const FULL: Self = Self(65_536);

    /// Takes a number of 65,536th parts; `None` above 65,536.
    pub const fn new(parts: u32) -> Option<Self> {
        if parts <= Self::FULL.0 {
            Some(Self(parts))
        } else {
            None
        }
    }

    /// One part of so many equal ones.
    pub const fn one_of(parts: u16) -> Self {
        if parts == 0 {
            Self::FULL
        } else {
            Self(Self::FULL.0 / parts as u32)
        }
    }

    /// The number of 65,536th parts.
    pub const fn parts(self) -> u32 {
        self.0
    }

    /// As a number from zero to one.
    pub fn number(self) -> f64 {
        f64::from(self.0) / f64::from(Self::FULL.0)
    }
}

impl fmt::Display for Fraction {
    /// Writes `1`, `1/4`, `0`; `0.3` where it is no simple part.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0"),
            65_536 => f.write_str("1"),
            parts if Self::FULL.0.is_multiple_of(parts) => write!(f, "1/{}", Self::FULL.0 / parts),
            _ => write!(f, "{:.2}", self.number()),
        }
    }
}

/// What becomes of a backend that answers, and is slower or fails more often than its peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underperformers {
    /// Its weight is lowered in steps, and raised again when it is well.
    #[default]
    Demote,
    /// It is told of, and keeps its weight.
    Tell,
    /// Nobody looks.
    Ignore,
}

impl Underperformers {
    /// Every answer with the configuration's word for it.
    pub const WORDS: [(&'static str, Self); 3] = [
        ("demote", Self::Demote),
        ("alert", Self::Tell),
        ("off", Self::Ignore),
    ];
}

impl fmt::Display for Underperformers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Demote => "demote",
            Self::Tell => "alert",
            Self::Ignore => "off",
        })
    }
}

/// What tells how backends perform.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Senses {
    /// Their probes.
    Probes,
    /// Their probes, and what is measured of traffic.
    #[default]
    ProbesAndTraffic,
}

/// When a backend underperforms, and what is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// What is done.
    pub underperformers: Underperformers,
    /// What tells.
    pub senses: Senses,
    /// How many times as slow as its peers a backend is that must be found.
    pub slow: Slowness,
    /// The part of failures that must be found; a tenth of it is borne.
    pub errors: Part,
    /// Latencies below this count as this: differences within it hurt nobody.
    pub floor: Duration,
    /// The most of a service's weight that may be missing for a backend to be demoted.
    pub budget: Part,
    /// How long a demotion lasts at least; it doubles with each relapse, up to ten times as long.
    pub hold: Duration,
}

impl Ejection {
    /// The longest hold, as a multiple of the first.
    pub const LONGEST_HOLD: u32 = 10;
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            underperformers: Underperformers::Demote,
            senses: Senses::ProbesAndTraffic,
            slow: Slowness::DEFAULT,
            errors: Part { millionths: 10_000 },
            floor: Duration::from_millis(2),
            budget: Part {
                millionths: 340_000,
            },
            hold: Duration::from_mins(1),
        }
    }
}

/// A ratio of latencies, from [`Slowness::MIN`] to [`Slowness::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slowness {
    thousandths: u32,
}

impl Slowness {
    /// The least; chance and habit make hosts differ by less.
    pub const MIN: f64 = 1.5;
    /// The most.
    pub const MAX: f64 = 10.0;
    /// Twice as slow.
    pub const DEFAULT: Self = Self { thousandths: 2000 };

    /// Takes a ratio; `None` outside of the bounds.
    #[must_use]
    pub fn new(ratio: f64) -> Option<Self> {
        (Self::MIN..=Self::MAX).contains(&ratio).then(|| Self {
            thousandths: (ratio * 1e3).round() as u32,
        })
    }

    /// The ratio.
    #[must_use]
    pub fn ratio(self) -> f64 {
        f64::from(self.thousandths) / 1e3
    }
}

/// A part of a whole, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    millionths: u32,
}

impl Part {
    /// Nothing.
    pub const NONE: Self = Self { millionths: 0 };
    /// A half.
    pub const HALF: Self = Self {
        millionths: 500_000,
    };

    /// Takes a fraction; `None` outside of zero to one.
    #[must_use]
    pub fn new(fraction: f64) -> Option<Self> {
        (0.0..=1.0).contains(&fraction).then(|| Self {
            millionths: (fraction * 1e6).round() as u32,
        })
    }

    /// The fraction.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.millionths) / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_read_as_people_say_them() {
        for (fraction, text) in [
            (Fraction::NONE, "0"),
            (Fraction::one_of(8), "1/8"),
            (Fraction::one_of(2), "1/2"),
            (Fraction::FULL, "1"),
            (Fraction::new(20_000).unwrap(), "0.31"),
        ] {
            assert_eq!(fraction.to_string(), text);
        }
        assert_eq!(Fraction::new(65_537), None);
    }

    #[test]
    fn values_outside_of_their_bounds_are_none() {
        assert_eq!(Slowness::new(2.0), Some(Slowness::DEFAULT));
        for ratio in [1.0, 10.5, f64::NAN] {
            assert_eq!(Slowness::new(ratio), None, "{ratio}");
        }
        assert_eq!(Part::new(0.5), Some(Part::HALF));
        for part in [-0.1, 1.1, f64::NAN] {
            assert_eq!(Part::new(part), None, "{part}");
        }
    }
}
