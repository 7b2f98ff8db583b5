//! The audit: what a configuration or a running system is asked, and answers wrongly.
//!
//! Rules look at plain data and at nothing else. [`config`] asks what a file can tell by itself,
//! [`running`] what takes the controller's status,
//! [`nodes`] what takes that of another node, too. Rule numbers are those that runbooks, alerts and
//! the journal use: they never change their meaning.

pub mod config;
pub mod nodes;
pub mod running;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;

use serde::Serialize;

use crate::model::{Backend, Service};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth knowing.
    Info,
    /// It will hurt some day.
    Warning,
    /// It hurts when anything goes wrong.
    Error,
    /// It hurts now.
    Critical,
}

impl Level {
    /// The word for it, as JSON has it too.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's number, as in `L5`.
    pub rule: &'static str,
    /// How bad it is.
    pub level: Level,
    /// The service, where it is about one.
    pub service: Option<String>,
    /// The backend, where it is about one.
    pub backend: Option<String>,
    /// What was found.
    pub what: String,
    /// Why it matters.
    pub why: &'static str,
    /// What to do about it.
    pub remedy: String,
}

impl Finding {
    /// About everything.
    fn new(
        rule: &'static str,
        level: Level,
        what: impl Into<String>,
        why: &'static str,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            rule,
            level,
            service: None,
            backend: None,
            what: what.into(),
            why,
            remedy: remedy.into(),
        }
    }

    /// The same about a service.
    fn of(mut self, service: &str) -> Self {
        self.service = Some(service.to_owned());
        self
    }

    /// The same about a backend.
    fn at(mut self, backend: &str) -> Self {
        self.backend = Some(backend.to_owned());
        self
    }

    /// Where it is: `web/b2`, `web`, or nothing.
    #[must_use]
    pub fn place(&self) -> String {
        match (&self.service, &self.backend) {
            (Some(service), Some(backend)) => format!("{service}/{backend}"),
            (Some(service), None) => service.clone(),
            _ => String::new(),
        }
    }
}

impl fmt::Display for Finding {
    /// In one line, for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place();
        let colon = if place.is_empty() { "" } else { ": " };
        let (rule, what, why, remedy) = (self.rule, &self.what, self.why, &self.remedy);
        write!(f, "{rule} {place}{colon}{what}; {why}; {remedy}")
    }
}

/// The worst level of what was found; none where nothing was.
pub fn worst(findings: &[Finding]) -> Option<Level> {
    findings.iter().map(|finding| finding.level).max()
}

/// The weights of a service's backends.
fn weights(service: &Service) -> Vec<u16> {
    let weight = |backend: &Backend| backend.weight.number();
    service.backends.iter().map(weight).collect()
}

/// A part of one in per cent.
fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}
