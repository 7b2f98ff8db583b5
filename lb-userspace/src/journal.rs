//! The journal: what happened, in order, on disk.
//!
//! Events are only ever added; the oldest go when they are too old or too many. A thread of its
//! own writes them, so that a disk that is full, slow or locked holds nothing up: what cannot be
//! written waits in memory, and what there is no room for is counted and told later.

pub mod incidents;
mod store;
mod writer;

use std::{fmt, path::PathBuf};

use rusqlite::{ToSql, types::ToSqlOutput};
use serde::Serialize;
use serde_json::Value;

pub use self::{
    store::{Error, Filter, Reader, Record, append_one},
    writer::{Condition, Journal},
};

/// The journal's file in the state directory.
const FILE: &str = "journal.db";

/// The journal in a state directory.
#[must_use]
pub fn path(directory: &std::path::Path) -> PathBuf {
    directory.join(FILE)
}

/// Why slots move although nobody changed anything: remembered flows that held them are over.
pub const NO_FLOWS_LEFT: &str = "pinned slots have no flows left";
/// Likewise: the time for which slots that moved are in transition.
pub const WINDOW_OVER: &str = "the window of a transition is over";

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A controller began.
    Start,
    /// A controller ended as it was told.
    Stop,
    /// Tables were published.
    Publication,
    /// Tables could not be published.
    Refusal,
    /// A backend's health changed.
    Health,
    /// A backend was found to be worse than its peers, or to be well again; or so were all.
    Performance,
    /// What a backend asks for by its agent changed.
    Agent,
    /// The verdict on a service's evenness changed.
    Evenness,
    /// The kernel's tables are not the intended ones, or are again.
    Drift,
    /// A flood of SYNs began or ended.
    Flood,
    /// A configuration was put in force, or refused.
    Change,
    /// What the configuration says of a backend was overridden, or is not any more.
    Override,
    /// What somebody wrote down.
    Note,
    /// The journal itself.
    Journal,
    /// Somebody was told of an alert, or could not be.
    Notification,
    /// What the audit finds changed.
    Audit,
    /// A service was loaded to see what it holds.
    LoadTest,
    /// A step of an incident.
    Incident,
    /// A drill began or ended, and what it was worth.
    Drill,
}

impl Kind {
    /// Every kind with the word for it.
    pub const WORDS: [(&'static str, Self); 19] = [
        ("start", Self::Start),
        ("stop", Self::Stop),
        ("publication", Self::Publication),
        ("refusal", Self::Refusal),
        ("health", Self::Health),
        ("performance", Self::Performance),
        ("agent", Self::Agent),
        ("evenness", Self::Evenness),
        ("drift", Self::Drift),
        ("flood", Self::Flood),
        ("change", Self::Change),
        ("override", Self::Override),
        ("note", Self::Note),
        ("journal", Self::Journal),
        ("notification", Self::Notification),
        ("audit", Self::Audit),
        ("load-test", Self::LoadTest),
        ("incident", Self::Incident),
        ("drill", Self::Drill),
    ];
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It is as it should be.
    Info,
    /// Somebody should look at it.
    Warning,
    /// Clients may notice.
    Error,
}

impl Level {
    /// Every level with the word for it, the least first.
    pub const WORDS: [(&'static str, Self); 3] = [
        ("info", Self::Info),
        ("warning", Self::Warning),
        ("error", Self::Error),
    ];
}

macro_rules! words {
    ($type:ty) => {
        impl $type {
            /// Its word.
            #[must_use]
            pub fn word(self) -> &'static str {
                let found = Self::WORDS.iter().find(|(_, value)| *value == self);
                found.expect("each has a word").0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }

        impl ToSql for $type {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(self.word().into())
            }
        }
    };
}

words!(Kind);
words!(Level);

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What it is about.
    pub kind: Kind,
    /// How much it matters.
    pub level: Level,
    /// The service, where it is about one.
    pub service: Option<String>,
    /// The backend, where it is about one.
    pub backend: Option<String>,
    /// The publication that packets followed, or followed from then on; zero where none did.
    pub generation: u64,
    /// Who did it.
    pub actor: String,
    /// What a person should read.
    pub message: String,
    /// The same for programs, with its numbers: an object.
    pub detail: Value,
}

impl Event {
    /// Something that the controller did or saw.
    #[must_use]
    pub fn of_controller(at_ms: u64, kind: Kind, level: Level, message: impl Into<String>) -> Self {
        Self {
            at_ms,
            kind,
            level,
            service: None,
            backend: None,
            generation: 0,
            actor: "controller".to_owned(),
            message: message.into(),
            detail: Value::Object(serde_json::Map::new()),
        }
    }

    /// The same about a service.
    #[must_use]
    pub fn service(mut self, name: &(impl ToString + ?Sized)) -> Self {
        self.service = Some(name.to_string());
        self
    }

    /// The same about a backend.
    #[must_use]
    pub fn backend(mut self, name: &(impl ToString + ?Sized)) -> Self {
        self.backend = Some(name.to_string());
        self
    }

    /// The same with its numbers.
    ///
    /// # Panics
    /// Where they are no JSON, as a map whose keys are not strings.
    #[must_use]
    pub fn detail(mut self, detail: impl Serialize) -> Self {
        self.detail = serde_json::to_value(detail).expect("plain data is JSON");
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_again() {
        assert_eq!(Kind::Publication.word(), "publication");
        assert_eq!(format!("{:8}|", Level::Error), "error   |");
        let words: std::collections::BTreeSet<_> =
            Kind::WORDS.iter().map(|(word, _)| word).collect();
        assert_eq!(words.len(), Kind::WORDS.len());
    }
}
