//! What is told: alerts, and notifications made of them.

use serde::{Deserialize, Serialize};

use crate::{
    incident::Sign,
    model::{AlertName, Severity},
};

/// What tells an alert from every other.
///
/// The severity is part of it, as it is of the labels at the receiver: an alert that becomes
/// graver ends, and another begins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// What it is about.
    #[serde(with = "name")]
    pub name: AlertName,
    /// How grave it is.
    #[serde(with = "severity")]
    pub severity: Severity,
    /// The service, where it is about one.
    pub service: Option<String>,
    /// The backend, where it is about one.
    pub backend: Option<String>,
    /// What else tells it apart: the audit's rule, or the receiver.
    pub detail: Option<String>,
    /// The drill that causes it: where it outlasts that, it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<String>,
}

impl Key {
    /// Of a name, about everything, with the usual severity.
    #[must_use]
    pub const fn of(name: AlertName) -> Self {
        Self {
            name,
            severity: name.severity(),
            service: None,
            backend: None,
            detail: None,
            drill: None,
        }
    }

    /// The alert as an incident knows it.
    #[must_use]
    pub fn sign(&self, since_ms: u64, summary: &str) -> Sign {
        Sign {
            name: self.name.word().to_owned(),
            severity: self.severity.word().to_owned(),
            service: self.service.clone(),
            backend: self.backend.clone(),
            detail: self.detail.clone(),
            since_ms,
            summary: summary.to_owned(),
            drill: self.drill.clone(),
        }
    }

    /// The labels, by name: what Alertmanager tells alerts apart by.
    #[must_use]
    pub fn labels(&self) -> Vec<(&'static str, &str)> {
        let optional = [
            ("service", &self.service),
            ("backend", &self.backend),
            ("detail", &self.detail),
            ("drill", &self.drill),
        ];
        let own = [
            ("alertname", self.name.word()),
            ("severity", self.severity.word()),
        ];
        let more = optional
            .into_iter()
            .filter_map(|(label, value)| Some((label, value.as_deref()?)));
        own.into_iter().chain(more).collect()
    }
}

/// Something that is wrong now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Which one.
    pub key: Key,
    /// What is wrong, with its numbers, for people.
    pub summary: String,
    /// Since when, in milliseconds since the Unix epoch; `None` where that is not known.
    pub since_ms: Option<u64>,
}

impl Alert {
    /// The same as what a drill causes.
    #[must_use]
    pub fn of_drill(self, drill: &str) -> Self {
        Self {
            summary: format!("{}{}", marked(drill), self.summary),
            key: Key {
                drill: Some(drill.to_owned()),
                ..self.key
            },
            ..self
        }
    }

    /// The same as what no drill causes.
    #[must_use]
    pub fn without_drill(&self) -> Self {
        let mut plain = self.clone();
        if let Some(drill) = plain.key.drill.take()
            && let Some(summary) = self.summary.strip_prefix(&marked(&drill))
        {
            summary.clone_into(&mut plain.summary);
        }
        plain
    }
}

/// What a summary begins with, for receivers that show no labels.
fn marked(drill: &str) -> String {
    format!("DRILL {drill}: ")
}

/// An alert as a receiver is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Which one.
    pub key: Key,
    /// What is, or was, wrong.
    pub summary: String,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// When it ended; `None` while it is on.
    pub ended_ms: Option<u64>,
}

/// What a receiver is told at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Counts up, across restarts: its place in the order, and how a receiver knows it again.
    pub id: u64,
    /// The service that all of it is about; `None` for what is about none.
    pub service: Option<String>,
    /// When it was made, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Whether it only says again what was said before.
    pub again: bool,
    /// Alerts that are on, then such that ended.
    pub items: Vec<Item>,
}

impl Notification {
    /// Whether any of its alerts is on.
    #[must_use]
    pub fn is_firing(&self) -> bool {
        self.items.iter().any(|item| item.ended_ms.is_none())
    }

    /// In a few words, for the log and the journal.
    #[must_use]
    pub fn describe(&self) -> String {
        const MOST: usize = 3;
        let word = |item: &Item| {
            let ended = if item.ended_ms.is_some() {
                " is over"
            } else {
                ""
            };
            let place = match (&item.key.service, &item.key.backend) {
                (Some(service), Some(backend)) => format!(" {service}/{backend}"),
                (Some(service), None) => format!(" {service}"),
                _ => String::new(),
            };
            format!("{}{place}{ended}", item.key.name)
        };
        let mut words: Vec<String> = self.items.iter().take(MOST).map(word).collect();
        if self.items.len() > MOST {
            words.push(format!("{} more", self.items.len() - MOST));
        }
        words.join(", ")
    }
}

/// Defines how a closed list of words is written and read.
macro_rules! words {
    ($module:ident, $type:ty, $find:expr) => {
        mod $module {
            use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

            use super::*;
            pub(super) fn serialize<S: Serializer>(
                value: &$type,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(value.word())
            }

            pub(super) fn deserialize<'de, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<$type, D::Error> {
                let word = String::deserialize(deserializer)?;
                let find: fn(&str) -> Option<$type> = $find;
                find(&word).ok_or_else(|| D::Error::custom(format!("unknown word '{word}'")))
            }
        }
    };
}

words!(name, AlertName, AlertName::of);
words!(severity, Severity, |word| {
    let found = Severity::WORDS.iter().find(|(own, _)| *own == word);
    found.map(|(_, severity)| *severity)
});
