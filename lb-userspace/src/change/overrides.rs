//! What an operator says of single backends, over what the configuration says.
//!
//! An override is about a backend by the names of its service and of itself. It outlives changes of
//! the configuration and restarts; where its backend is not configured it waits, because a
//! configuration may come back by itself.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    admin::proto::change as proto,
    model::{Config, Service, Weight},
};

/// What is in force instead of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Rule {
    /// No new flows; established ones stay.
    Drain {
        /// When it becomes [`Rule::Disable`], in milliseconds since the Unix epoch.
        deadline_ms: Option<u64>,
        /// Packets that the backend had been sent when the drain began.
        packets_before: u64,
        /// Whether it was told that nothing is left.
        told_complete: bool,
    },
    /// No flows at all.
    Disable,
    /// Another weight.
    Weight {
        /// It, at most [`Weight::MAX`].
        weight: u16,
    },
}

impl Rule {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drain { .. } => "drain",
            Self::Disable => "disable",
            Self::Weight { .. } => "weight",
        }
    }

    /// The weight that takes new flows.
    #[must_use]
    pub fn weight(self) -> Weight {
        let number = match self {
            Self::Drain { .. } | Self::Disable => 0,
            Self::Weight { weight } => weight.min(Weight::MAX),
        };
        Weight::new(number).unwrap_or(Weight::DEFAULT)
    }

    /// Whether flows that are the backend's end.
    #[must_use]
    pub const fn cuts_flows(self) -> bool {
        matches!(self, Self::Disable)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drain { .. } => f.write_str("drained"),
            Self::Disable => f.write_str("disabled"),
            Self::Weight { weight } => write!(f, "given weight {weight}"),
        }
    }
}

/// An override with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// What is in force.
    #[serde(flatten)]
    pub rule: Rule,
    /// Who did it.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// When it ends by itself.
    pub expires_ms: Option<u64>,
}

/// The names of a service and of one of its backends.
pub type Name = (String, String);

/// What time did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// It was for so long only, and is over.
    Expired(Override),
    /// What was being drained is disabled.
    PastDeadline,
}

/// All overrides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides(BTreeMap<Name, Override>);

impl Overrides {
    /// The override of a backend.
    #[must_use]
    pub fn of(&self, service: &str, backend: &str) -> Option<&Override> {
        self.0.get(&(service.to_owned(), backend.to_owned()))
    }

    /// The rule of a backend.
    #[must_use]
    pub fn rule(&self, service: &str, backend: &str) -> Option<Rule> {
        self.of(service, backend).map(|of| of.rule)
    }

    /// Puts one in force; answers the one before.
    pub fn put(&mut self, name: Name, of: Override) -> Option<Override> {
        self.0.insert(name, of)
    }

    /// Ends one; answers it.
    pub fn end(&mut self, name: &Name) -> Option<Override> {
        self.0.remove(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Override)> {
        self.0.iter()
    }

    /// Notes that it was told that nothing is left of a backend's flows.
    pub fn told_complete(&mut self, name: &Name) {
        if let Some(Override {
            rule: Rule::Drain { told_complete, .. },
            ..
        }) = self.0.get_mut(name)
        {
            *told_complete = true;
        }
    }

    /// Does what is due at a time, and answers that.
    pub fn pass(&mut self, now_ms: u64) -> Vec<(Name, Due)> {
        let mut due = Vec::new();
        self.0.retain(|name, of| {
            if of.expires_ms.is_some_and(|at| at <= now_ms) {
                due.push((name.clone(), Due::Expired(of.clone())));
                return false;
            }
            if matches!(of.rule, Rule::Drain { deadline_ms: Some(at), .. } if at <= now_ms) {
                of.rule = Rule::Disable;
                due.push((name.clone(), Due::PastDeadline));
            }
            true
        });
        due
    }

    /// A configuration with the weights that are in force.
    #[must_use]
    pub fn over(&self, filed: &Config) -> Config {
        self.with(filed, Rule::weight)
    }

    /// A service as its base ring is made from it. A backend that is drained or disabled keeps its
    /// place there, so that nobody else's slots move, and its own come back.
    #[must_use]
    pub fn beneath(&self, filed: &Service) -> Service {
        let mut service = filed.clone();
        for backend in &mut service.backends {
            if let Some(rule @ Rule::Weight { .. }) = self.rule(&service.name, &backend.name) {
                backend.weight = rule.weight();
            }
        }
        service
    }

    fn with(&self, filed: &Config, weight: impl Fn(Rule) -> Weight) -> Config {
        let mut config = filed.clone();
        for service in &mut config.services {
            for backend in &mut service.backends {
                if let Some(rule) = self.rule(&service.name, &backend.name) {
                    backend.weight = weight(rule);
                }
            }
        }
        config
    }
}

impl FromIterator<(Name, Override)> for Overrides {
    fn from_iter<T: IntoIterator<Item = (Name, Override)>>(all: T) -> Self {
        Self(all.into_iter().collect())
    }
}

/// As the API shows it.
#[must_use]
pub fn shown((service, backend): &Name, of: &Override, filed: Option<u16>) -> proto::Override {
    proto::Override {
        service: service.clone(),
        backend: backend.clone(),
        kind: of.rule.name().to_owned(),
        weight: of.rule.weight().number(),
        configured_weight: filed,
        actor: of.actor.clone(),
        reason: of.reason.clone(),
        since_ms: of.since_ms,
        expires_at_ms: of.expires_ms,
        drain: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn filed() -> Config {
        let text = "[data_plane]\ninterfaces = [\"eth0\"]\n[[services]]\nname = \"web\"\n\
                    vip = \"198.51.100.10\"\nport = 80\n\
                    [[services.backends]]\nname = \"b1\"\naddress = \"10.0.0.1\"\nweight = 3\n\
                    [[services.backends]]\nname = \"b2\"\naddress = \"10.0.0.2\"\nweight = 3\n\
                    [[services.backends]]\nname = \"b3\"\naddress = \"10.0.0.3\"\nweight = 3\n";
        config::parse("test", text).unwrap_or_else(|findings| panic!("{findings}"))
    }

    const fn of(rule: Rule) -> Override {
        Override {
            rule,
            actor: String::new(),
            reason: None,
            since_ms: 0,
            expires_ms: None,
        }
    }

    const DRAIN: Rule = Rule::Drain {
        deadline_ms: Some(2_000),
        packets_before: 7,
        told_complete: false,
    };

    fn name(backend: &str) -> Name {
        ("web".to_owned(), backend.to_owned())
    }

    fn weights(service: &Service) -> Vec<u16> {
        service.backends.iter().map(|b| b.weight.number()).collect()
    }

    #[test]
    fn only_a_weight_moves_the_slots_of_others() {
        let overrides: Overrides = [
            (name("b1"), of(DRAIN)),
            (name("b2"), of(Rule::Weight { weight: 5 })),
            (name("gone"), of(Rule::Disable)),
        ]
        .into_iter()
        .collect();
        let filed = filed();
        assert_eq!(weights(&overrides.over(&filed).services[0]), [0, 5, 3]);
        assert_eq!(weights(&overrides.beneath(&filed.services[0])), [3, 5, 3]);
    }

    #[test]
    fn time_ends_what_was_for_some_time_and_disables_what_was_drained() {
        let mut overrides = Overrides::default();
        overrides.put(name("b1"), of(DRAIN));
        let expiring = Override {
            expires_ms: Some(1_000),
            ..of(Rule::Disable)
        };
        overrides.put(name("b2"), expiring.clone());
        assert_eq!(overrides.pass(999), []);
        let over = (name("b2"), Due::Expired(expiring));
        assert_eq!(overrides.pass(1_000), [over]);
        assert_eq!(overrides.rule("web", "b2"), None);
        assert_eq!(overrides.pass(2_000), [(name("b1"), Due::PastDeadline)]);
        assert_eq!(overrides.rule("web", "b1"), Some(Rule::Disable));
        assert_eq!(overrides.pass(3_000), []);
    }
}
