//! One table's values: there or not, of their type or not, within their bounds or not.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    num::NonZeroU16,
    ops::{Range, RangeInclusive},
    path::PathBuf,
    time::Duration,
};

use super::absolute;
use crate::config::{
    findings::Report,
    raw::{Held, Leaf},
};

/// The values of a table. Every method answers `None` only after reporting why.
pub(super) struct Fields<'r, 't> {
    path: String,
    table: Range<usize>,
    report: &'r mut Report<'t>,
}

impl<'r, 't> Fields<'r, 't> {
    pub(super) fn new(path: &str, table: Range<usize>, report: &'r mut Report<'t>) -> Self {
        Self {
            path: path.to_owned(),
            table,
            report,
        }
    }

    /// The values of a table within this one.
    pub(super) fn inner(&mut self, key: &str, table: Range<usize>) -> Fields<'_, 't> {
        Fields::new(&format!("{}.{key}", self.path), table, self.report)
    }

    pub(super) fn report(
        &mut self,
        at: Range<usize>,
        key: &str,
        problem: impl Into<String>,
        remedy: &str,
    ) {
        self.report
            .add(at, &format!("{}.{key}", self.path), problem, remedy);
    }

    /// A value that may be missing.
    #[expect(
        clippy::option_option,
        reason = "wrong, missing and there are three things"
    )]
    pub(super) fn optional<T, V>(
        &mut self,
        key: &str,
        leaf: &Leaf<T>,
        remedy: &str,
        check: impl FnOnce(&T) -> Result<V, String>,
    ) -> Option<Option<V>> {
        let (problem, at) = match leaf.held() {
            Held::Missing => return Some(None),
            Held::Good(value, at) => match check(value) {
                Ok(value) => return Some(Some(value)),
                Err(problem) => (problem, at),
            },
            Held::Bad(complaint, at) => (complaint.to_owned(), at),
        };
        self.report(at, key, problem, remedy);
        None
    }

    /// A value that must be there.
    pub(super) fn required<T, V>(
        &mut self,
        key: &str,
        leaf: &Leaf<T>,
        remedy: &str,
        check: impl FnOnce(&T) -> Result<V, String>,
    ) -> Option<V> {
        if let Held::Missing = leaf.held() {
            self.report(self.table.clone(), key, "is missing", remedy);
            return None;
        }
        self.optional(key, leaf, remedy, check)?
    }

    /// Says of a key that it is missing.
    pub(super) fn missing(&mut self, key: &str, remedy: &str) {
        self.report(self.table.clone(), key, "is missing", remedy);
    }

    /// One of a few words.
    pub(super) fn word<V: Copy>(
        &mut self,
        key: &str,
        leaf: &Leaf<String>,
        default: V,
        words: &[(&str, V)],
    ) -> Option<V> {
        let mut remedy = String::from("give ");
        for (index, (word, _)) in words.iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = write!(remedy, "{}\"{word}\"", if index == 0 { "" } else { " or " });
        }
        let value = self.optional(key, leaf, &remedy, |text| {
            let known = words.iter().find(|(word, _)| word == text);
            known
                .map(|(_, value)| *value)
                .ok_or_else(|| format!("is \"{text}\""))
        });
        value.map(|value| value.unwrap_or(default))
    }

    /// A whole number; `note` explains the bounds.
    pub(super) fn number(
        &mut self,
        key: &str,
        leaf: &Leaf<i64>,
        default: i64,
        bounds: RangeInclusive<i64>,
        note: &str,
    ) -> Option<i64> {
        let (low, high) = (bounds.start(), bounds.end());
        let remedy = format!("give a whole number from {low}{note} to {high}");
        let value = self.optional(key, leaf, &remedy, |&number| {
            if bounds.contains(&number) {
                Ok(number)
            } else {
                Err(format!("is {number}"))
            }
        });
        value.map(|value| value.unwrap_or(default))
    }

    /// A port.
    #[expect(
        clippy::option_option,
        reason = "wrong, missing and there are three things"
    )]
    pub(super) fn port(&mut self, key: &str, leaf: &Leaf<i64>) -> Option<Option<NonZeroU16>> {
        self.optional(key, leaf, "give 1 to 65535", |&port| {
            u16::try_from(port)
                .ok()
                .and_then(NonZeroU16::new)
                .ok_or_else(|| format!("is {port}"))
        })
    }

    /// A duration with its unit.
    pub(super) fn duration(
        &mut self,
        key: &str,
        leaf: &Leaf<String>,
        default: Duration,
        bounds: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let remedy = format!(
            "give a duration from {} to {}, as in \"{}\"",
            words(*bounds.start()),
            words(*bounds.end()),
            words(default)
        );
        let value = self.optional(key, leaf, &remedy, |text| {
            let value = humantime::parse_duration(text).map_err(|e| format!("\"{text}\": {e}"))?;
            if bounds.contains(&value) {
                Ok(value)
            } else {
                Err(format!("is \"{text}\""))
            }
        });
        value.map(|value| value.unwrap_or(default))
    }

    /// An absolute path of bounded length.
    pub(super) fn path(
        &mut self,
        key: &str,
        leaf: &Leaf<String>,
        default: &str,
        longest: usize,
    ) -> Option<PathBuf> {
        let remedy = match longest {
            usize::MAX => format!("give an absolute path, as in \"{default}\""),
            _ => format!("give an absolute path of at most {longest} bytes, as in \"{default}\""),
        };
        let value = self.optional(key, leaf, &remedy, |text| absolute(text, longest));
        value.map(|value| value.unwrap_or_else(|| default.into()))
    }

    /// Whether a value is the first of its kind.
    pub(super) fn unique<T>(
        &mut self,
        key: &str,
        leaf: &Leaf<T>,
        value: &str,
        seen: &mut BTreeMap<String, Range<usize>>,
    ) -> bool {
        let at = match leaf.held() {
            Held::Good(_, at) => at,
            _ => self.table.clone(),
        };
        let first = seen.entry(value.to_owned()).or_insert_with(|| at.clone());
        if *first == at {
            return true;
        }
        let line = self.report.line(first);
        let problem = format!("{value} stands in line {line} already");
        self.report(at, key, problem, "give each its own");
        false
    }
}

/// A duration as people write it: `90days`, and not in months.
fn words(duration: Duration) -> String {
    const DAY: u64 = 24 * 60 * 60;
    let seconds = duration.as_secs();
    if seconds > DAY && seconds.is_multiple_of(DAY) && duration.subsec_nanos() == 0 {
        format!("{}days", seconds / DAY)
    } else {
        humantime::format_duration(duration).to_string()
    }
}

/// Where a value stands, good or bad.
pub(super) fn place<T>(leaf: &Leaf<T>) -> Option<Range<usize>> {
    match leaf.held() {
        Held::Missing => None,
        Held::Good(_, at) | Held::Bad(_, at) => Some(at),
    }
}
