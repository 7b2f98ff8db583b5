//! Where figures come from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::material::Past;
use crate::journal::Record;

/// Something that a figure is from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// How notes name it: `j` and the row's number, or `h` and a number of its own.
    pub id: String,
    /// Where it is.
    #[serde(flatten)]
    pub source: Source,
}

/// Where something is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "kebab-case")]
pub enum Source {
    /// A row of the journal (`journal.db`).
    Journal {
        /// Its number.
        row: i64,
        /// When.
        at_ms: u64,
        /// What it is about.
        kind: String,
    },
    /// Samples of history (`history.db`).
    History {
        /// The service.
        service: String,
        /// The backend; absent for all of them.
        backend: Option<String>,
        /// `new_flows`, `intended_share`, `weight`, `latency_ms`, `up`, or `all` of them.
        series: String,
        /// From then on.
        from_ms: u64,
        /// Until just before then.
        until_ms: u64,
        /// The resolution: from one sample to the next, in seconds.
        step_s: u64,
    },
}

/// What was noted so far.
#[derive(Debug, Default)]
pub(super) struct References {
    rows: BTreeMap<i64, Noted>,
    past: Vec<Noted>,
}

impl References {
    /// Notes a row.
    pub(super) fn row(&mut self, record: &Record) -> String {
        let id = format!("j{}", record.id);
        self.rows.entry(record.id).or_insert_with(|| Noted {
            id: id.clone(),
            source: Source::Journal {
                row: record.id,
                at_ms: record.at_ms,
                kind: record.kind.clone(),
            },
        });
        id
    }

    /// Notes samples.
    pub(super) fn past(
        &mut self,
        past: &Past,
        backend: Option<&str>,
        series: &str,
        (from_ms, until_ms): (u64, u64),
    ) -> String {
        let source = Source::History {
            service: past.service.clone(),
            backend: backend.map(ToOwned::to_owned),
            series: series.to_owned(),
            from_ms,
            until_ms,
            step_s: past.step_s,
        };
        if let Some(known) = self.past.iter().find(|noted| noted.source == source) {
            return known.id.clone();
        }
        let id = format!("h{}", self.past.len() + 1);
        self.past.push(Noted {
            id: id.clone(),
            source,
        });
        id
    }

    /// All of them: rows in their order, then history.
    pub(super) fn all(self) -> Vec<Noted> {
        self.rows.into_values().chain(self.past).collect()
    }
}
