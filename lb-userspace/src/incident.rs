//! Incidents: alerts that belong together, and what people did about them.
//!
//! An alert that calls somebody opens an incident of its service, or of the whole host where it is
//! about no service. What else is wrong with the same service meanwhile joins it. Once all of that is
//! over the incident is mitigated, and once it has been quiet for a while it is closed. People may
//! open, acknowledge, annotate and close one at any time.
//!
//! Each step is told as a value, and a [`Book`] is nothing but the sum of the steps: who reads them
//! again, in order, has the same book. So nothing but the journal keeps incidents. The rules take the
//! time and read no clock.

mod book;

use serde::{Deserialize, Serialize};

pub use self::book::{Book, Shared, lock};
use crate::{
    admin::proto::incident as proto,
    model::{AlertName, Severity},
};

/// An alert as an incident knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sign {
    /// Its name.
    pub name: String,
    /// `page` or `ticket`.
    pub severity: String,
    /// The service, where it is about one.
    pub service: Option<String>,
    /// The backend, where it is about one.
    pub backend: Option<String>,
    /// What else tells it apart.
    pub detail: Option<String>,
    /// Since when, as far as its detector knows, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// What is wrong, with its numbers.
    pub summary: String,
    /// The drill that causes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<String>,
}

impl Sign {
    /// Whether both are the same alert, whatever they say of it.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let key = |of: &Self| {
            let Self {
                name,
                severity,
                service,
                backend,
                detail,
                ..
            } = of.clone();
            (name, severity, service, backend, detail)
        };
        key(self) == key(other)
    }

    /// Its name, with the backend.
    #[must_use]
    pub fn title(&self) -> String {
        match (&self.service, &self.backend) {
            (Some(service), Some(backend)) => format!("{} {service}/{backend}", self.name),
            (Some(service), None) => format!("{} {service}", self.name),
            _ => self.name.clone(),
        }
    }

    /// Whether it is as grave as one that opens an incident.
    fn opens(&self, least: Severity) -> bool {
        self.severity == "page" || least <= Severity::Ticket && self.severity == "ticket"
    }

    /// Whether it can be a part of an incident: what is of no consequence is not, nor is what the
    /// audit says, which looks once an hour and at the configuration, not at what happens.
    fn counts(&self) -> bool {
        let audit = [AlertName::AuditFailed, AlertName::ConfigRejected];
        matches!(self.severity.as_str(), "page" | "ticket")
            && audit.iter().all(|name| name.word() != self.name)
    }
}

/// An alert that has been on for long enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which one.
    pub sign: Sign,
    /// Whether receivers are told of it: no other one explains it.
    pub firing: bool,
}

/// What became of an incident at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// It began to be told of.
    Open,
    /// More is wrong.
    Alert,
    /// All that was wrong is over.
    Mitigated,
    /// Something is wrong again.
    Relapse,
    /// Somebody has it in hand.
    Ack,
    /// Somebody wrote something down.
    Note,
    /// It is over.
    Close,
}

/// A step of an incident: the detail of its event in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The incident.
    pub id: String,
    /// What became of it.
    pub step: What,
    /// The service that it is about; none for the whole host.
    pub service: Option<String>,
    /// The drill that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<String>,
    /// The alerts that the step is about.
    #[serde(default)]
    pub alerts: Vec<Sign>,
    /// Who did it: `controller`, or a user.
    pub by: String,
    /// What there is to say.
    #[serde(default)]
    pub text: Option<String>,
}

impl Step {
    /// The step in a sentence.
    #[must_use]
    pub fn describe(&self) -> String {
        let Self { id, by, .. } = self;
        let about = self.service.as_deref().unwrap_or("the whole host");
        let titles: Vec<String> = self.alerts.iter().map(Sign::title).collect();
        let titles = titles.join(", ");
        let text = self.text.as_deref().unwrap_or_default();
        let drill = match &self.drill {
            Some(drill) => format!(" (drill {drill})"),
            None => String::new(),
        };
        match self.step {
            What::Open => format!("incident {id} of {about} is open{drill}: {text}"),
            What::Alert => format!("incident {id}: {titles} joins"),
            What::Mitigated => format!("incident {id} is mitigated: all alerts of it are over"),
            What::Relapse => format!("incident {id}: {titles} is on again"),
            What::Ack if text.is_empty() => format!("incident {id} is acknowledged by {by}"),
            What::Ack => format!("incident {id} is acknowledged by {by}: {text}"),
            What::Note => format!("incident {id}: {by} notes: {text}"),
            What::Close if text.is_empty() => format!("incident {id} is closed by {by}"),
            What::Close => format!("incident {id} is closed by {by}: {text}"),
        }
    }
}

/// A part of an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    sign: Sign,
    on: bool,
    /// Whether it was seen by whoever keeps the book now.
    seen: bool,
}

/// An incident, as its steps make it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Its name: the day that it was opened on, and its number on that day.
    pub id: String,
    /// The service that it is about; none for the whole host.
    pub service: Option<String>,
    /// The drill that it belongs to.
    pub drill: Option<String>,
    /// What was said of it when it was opened.
    pub text: String,
    /// Who opened it.
    pub by: String,
    /// When, in milliseconds since the Unix epoch, as all moments here.
    pub opened_ms: u64,
    /// Since when something was wrong, as far as a detector knows.
    pub start_ms: u64,
    /// Who acknowledged it, and when.
    pub acknowledged: Option<(String, u64)>,
    /// Since when all of it is over.
    pub mitigated_ms: Option<u64>,
    /// When it was closed.
    pub closed_ms: Option<u64>,
    parts: Vec<Part>,
}

impl Incident {
    /// The alerts that belong to it, in the order in which they came.
    pub fn signs(&self) -> impl Iterator<Item = &Sign> {
        self.parts.iter().map(|part| &part.sign)
    }

    /// The incident as the admin API shows it.
    #[must_use]
    pub fn shown(&self) -> proto::Incident {
        let state = match (self.closed_ms, self.mitigated_ms) {
            (Some(_), _) => "closed",
            (None, Some(_)) => "mitigated",
            (None, None) => "open",
        };
        let (acknowledged_by, acknowledged_at_ms) = self.acknowledged.clone().unzip();
        proto::Incident {
            id: self.id.clone(),
            state: state.to_owned(),
            service: self.service.clone(),
            drill: self.drill.clone(),
            text: self.text.clone(),
            opened_by: self.by.clone(),
            opened_at_ms: self.opened_ms,
            start_ms: self.start_ms,
            acknowledged_by,
            acknowledged_at_ms,
            mitigated_at_ms: self.mitigated_ms,
            closed_at_ms: self.closed_ms,
            alerts: self.signs().map(Sign::title).collect(),
        }
    }

    fn part(&mut self, sign: &Sign) -> Option<&mut Part> {
        self.parts.iter_mut().find(|part| part.sign.is(sign))
    }

    fn step(&self, step: What, by: &str, alerts: Vec<Sign>, text: Option<String>) -> Step {
        Step {
            id: self.id.clone(),
            step,
            service: self.service.clone(),
            drill: self.drill.clone(),
            alerts,
            by: by.to_owned(),
            text,
        }
    }
}

/// Why a wish is not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It says nothing.
    #[error("an incident is opened, and a note made, with words that say something: give them")]
    Empty,
    /// There is none.
    #[error("no incident is open: 'evenkeel incident list --all' shows those that were")]
    NoneOpen,
    /// There are several.
    #[error("several incidents are open, name one of them: {}", .0.join(", "))]
    Several(Vec<String>),
    /// It was never opened.
    #[error("there is no incident {0}: 'evenkeel incident list --all' shows all that are known")]
    Unknown(String),
    /// It is over.
    #[error("incident {0} is closed: write into the journal with 'evenkeel note'")]
    Closed(String),
    /// Somebody was first.
    #[error("incident {id} is acknowledged by {by} already: add a note, or close it")]
    Acknowledged {
        /// Which one.
        id: String,
        /// By whom.
        by: String,
    },
    /// There is one of that service.
    #[error("incident {0} is open for that already: add a note to it")]
    Open(String),
}

#[cfg(test)]
mod tests;
