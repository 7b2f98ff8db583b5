//! The kernels: which ones, where their packages are, and what is expected of them.

use std::fmt;

use anyhow::{Result, ensure};

/// What Evenkeel promises on a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// To serve.
    Serves,
    /// To refuse to start, and say why.
    Refuses,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Serves => "serves",
            Self::Refuses => "refused, as it should be",
        })
    }
}

/// A line of kernels, such as 6.12 or all of 7.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Series {
    numbers: Vec<u32>,
}

/// The least kernel that is promised to work.
const LEAST: [u32; 2] = [6, 1];

/// The kernels that are run where none is named.
const KNOWN: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "7"];

/// Debian's suites, the old ones first.
const SUITES: [&str; 6] = [
    "bullseye",
    "bookworm",
    "bookworm-backports",
    "trixie",
    "trixie-backports",
    "sid",
];

/// All kernels that are run where none is named.
pub(super) fn known() -> Vec<Series> {
    KNOWN
        .iter()
        .filter_map(|name| Series::named(name).ok())
        .collect()
}

impl Series {
    /// Reads `6.12`, `7` or `7.x`.
    ///
    /// # Errors
    ///
    /// Where it is no version.
    pub(super) fn named(name: &str) -> Result<Self> {
        let numbers: Option<Vec<u32>> = name
            .strip_suffix(".x")
            .unwrap_or(name)
            .split('.')
            .map(|number| number.parse().ok())
            .collect();
        let numbers = numbers.filter(|numbers| numbers.len() <= 3);
        ensure!(
            numbers.is_some(),
            "`{name}` is no kernel version: write it like 6.12, or 7 for the newest of all 7.x"
        );
        Ok(Self {
            numbers: numbers.unwrap_or_default(),
        })
    }

    /// Whether a release, given by its numbers, is of this line.
    pub(super) fn holds(&self, release: &[u32]) -> bool {
        release.starts_with(&self.numbers)
    }

    /// What Evenkeel promises on it.
    pub(super) fn promise(&self) -> Promise {
        // A line that is a whole major version is judged by its newest.
        let minor = self.numbers.get(1).copied().unwrap_or(u32::MAX);
        if [self.numbers[0], minor] < LEAST {
            Promise::Refuses
        } else {
            Promise::Serves
        }
    }

    /// Where its package is looked for, the best first.
    pub(super) fn suites(&self) -> &'static [&'static str] {
        match self.numbers[..] {
            [5, 10, ..] => &["bullseye"],
            [6, 1, ..] => &["bookworm"],
            [6, 12, ..] => &["trixie"],
            [6, 18, ..] | [7, ..] => &["trixie-backports"],
            _ => &SUITES,
        }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<_> = self.numbers.iter().map(u32::to_string).collect();
        f.write_str(&numbers.join("."))?;
        if numbers.len() == 1 {
            f.write_str(".x")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_its_own_releases() {
        let line = |name| Series::named(name).unwrap();
        assert!(line("6.1").holds(&[6, 1, 0, 56]));
        assert!(!line("6.1").holds(&[6, 12, 117, 13]));
        assert!(line("7").holds(&[7, 3, 4, 13]) && line("7.x") == line("7"));
        assert_eq!(line("7").to_string(), "7.x");
        assert_eq!(line("6.12").to_string(), "6.12");
        for name in ["", "six", "6.", "6.1-rc1", "6.1.2.3", "-1"] {
            assert!(Series::named(name).is_err(), "{name}");
        }
        assert_eq!(known().len(), KNOWN.len());
    }

    #[test]
    fn kernels_before_the_least_are_to_be_refused() {
        let promise = |name| Series::named(name).unwrap().promise();
        for name in ["5.10", "5", "6.0", "4.19.3"] {
            assert_eq!(promise(name), Promise::Refuses, "{name}");
        }
        for name in ["6.1", "6.1.5", "6.12", "6", "7", "7.0"] {
            assert_eq!(promise(name), Promise::Serves, "{name}");
        }
    }
}
