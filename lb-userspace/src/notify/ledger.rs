//! Which alerts are on, since when, and which of them others explain.

use std::collections::BTreeMap;

use super::{
    alert::{Alert, Key},
    derive::Derived,
};
use crate::model::AlertName;

/// How long an alert goes on to hide others after its end, in milliseconds: they end with it, a
/// little later.
const LINGER: u64 = 10_000;
/// How long after a start an alert from before is taken to be on while nothing can be told.
const BENEFIT: u64 = 300_000;

/// How long an alert must be on before anybody is told, in milliseconds: what is grave at once,
/// what may be explained by something graver a little later, what may pass by itself later still.
const fn wait(name: AlertName) -> u64 {
    match name {
        AlertName::BackendDown => 2_000,
        AlertName::BackendSlow | AlertName::BackendFailing => 5_000,
        AlertName::NeighbourUnresolved | AlertName::JournalFailing => 10_000,
        AlertName::DeliveryFailing => 30_000,
        _ => 0,
    }
}

/// What an alert explains: the alerts of the same service, or of the same backend, that nobody
/// needs to be told of while it is on.
const fn explains(parent: AlertName, child: AlertName) -> bool {
    use AlertName as A;
    match parent {
        A::FleetDegraded => matches!(
            child,
            A::BackendDown
                | A::BackendSlow
                | A::BackendFailing
                | A::BackendDemoted
                | A::DemotionsFrozen
        ),
        A::NoBackends => matches!(child, A::BackendDown | A::Panic | A::NeighbourUnresolved),
        A::Panic => matches!(child, A::BackendDown),
        A::BackendDown => matches!(child, A::NeighbourUnresolved),
        _ => false,
    }
}

/// Everything that may explain something.
const PARENTS: [AlertName; 4] = [
    AlertName::FleetDegraded,
    AlertName::NoBackends,
    AlertName::Panic,
    AlertName::BackendDown,
];

/// An alert that is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    /// What is wrong.
    pub summary: String,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// When it was first seen by this controller.
    seen_ms: u64,
    /// Whether somebody was told of it, by this controller or the one before.
    known: bool,
    /// The alert that explains it.
    pub inhibited_by: Option<AlertName>,
}

/// Whether somebody is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is on for too short a time.
    Waiting,
    /// It is on.
    Firing,
    /// Another one explains it.
    Inhibited,
}

impl Stage {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Firing => "firing",
            Self::Inhibited => "inhibited",
        }
    }
}

/// Which alerts are on.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    started_ms: u64,
    active: BTreeMap<Key, Active>,
    /// When each that may explain others was last on, by name, service and backend.
    parents: BTreeMap<(AlertName, Option<String>, Option<String>), u64>,
}

impl Ledger {
    /// Begins with those that receivers were told of before a restart, and since when.
    #[must_use]
    pub fn new(now_ms: u64, known: impl IntoIterator<Item = (Key, String, u64)>) -> Self {
        let active = |(key, summary, since_ms)| {
            let active = Active {
                summary,
                since_ms,
                seen_ms: now_ms,
                known: true,
                inhibited_by: None,
            };
            (key, active)
        };
        Self {
            started_ms: now_ms,
            active: known.into_iter().map(active).collect(),
            parents: BTreeMap::new(),
        }
    }

    /// Takes what is wrong now.
    pub fn update(&mut self, now_ms: u64, derived: &Derived) {
        let before = std::mem::take(&mut self.active);
        for alert in &derived.alerts {
            // What was wrong before a drill is none of its.
            let plain = alert.without_drill();
            let alert = if before.contains_key(&plain.key) {
                &plain
            } else {
                alert
            };
            let active = Active::of(alert, before.get(&alert.key), now_ms);
            self.active.insert(alert.key.clone(), active);
        }
        let early = now_ms < self.started_ms + BENEFIT;
        for (key, active) in before {
            let unsure = key.name == AlertName::TrafficSkewed
                && key
                    .service
                    .as_ref()
                    .is_some_and(|s| derived.unsure.contains(s));
            if early && active.known && unsure {
                self.active.entry(key).or_insert(active);
            }
        }
        self.inhibit(now_ms);
    }

    fn inhibit(&mut self, now_ms: u64) {
        for key in self.active.keys().filter(|key| PARENTS.contains(&key.name)) {
            let place = (key.name, key.service.clone(), key.backend.clone());
            self.parents.insert(place, now_ms);
        }
        self.parents.retain(|_, &mut last| now_ms < last + LINGER);
        for (key, active) in &mut self.active {
            active.inhibited_by = PARENTS.iter().copied().find(|&parent| {
                let at = |backend: Option<&String>| {
                    let place = (parent, key.service.clone(), backend.cloned());
                    self.parents.contains_key(&place)
                };
                explains(parent, key.name) && (at(None) || at(key.backend.as_ref()))
            });
        }
    }

    /// Every alert that is on, with what is to be done about it.
    pub fn iter(&self, now_ms: u64) -> impl Iterator<Item = (&Key, &Active, Stage)> {
        self.active.iter().map(move |(key, active)| {
            let stage = if active.inhibited_by.is_some() {
                Stage::Inhibited
            } else if active.known || now_ms >= active.seen_ms + wait(key.name) {
                Stage::Firing
            } else {
                Stage::Waiting
            };
            (key, active, stage)
        })
    }

    /// Whether an alert is on.
    #[must_use]
    pub fn is_on(&self, key: &Key) -> bool {
        self.active.contains_key(key)
    }
}

impl Active {
    fn of(alert: &Alert, before: Option<&Self>, now_ms: u64) -> Self {
        let since = alert.since_ms.unwrap_or(now_ms).min(now_ms);
        Self {
            summary: alert.summary.clone(),
            since_ms: before.map_or(since, |before| before.since_ms),
            seen_ms: before.map_or(now_ms, |before| before.seen_ms),
            known: before.is_some_and(|before| before.known),
            inhibited_by: None,
        }
    }
}

#[cfg(test)]
mod tests;
