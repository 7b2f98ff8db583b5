//! What is wrong, from what the controller knows: a function of a status and of what else is seen.

use super::alert::{Alert, Key};
use crate::{
    admin::proto::{Backend, Finding, Service, Status, Tables, Verdict, drill::Running},
    audit,
    model::{AlertName, Drill, Severity},
};

/// Rules of the audit that have an alert of their own, which follows at once.
const TOLD_OTHERWISE: [&str; 3] = ["L1", "L2", "L3"];

/// What was found by the last audit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audited {
    /// When, in milliseconds since the Unix epoch; zero before the first.
    pub at_ms: u64,
    /// What it found.
    pub findings: Vec<audit::Finding>,
    /// Why the configuration on disk would be refused; `None` where it is valid.
    pub rejected: Option<String>,
}

/// Everything that is wrong; `None` while the controller starts, when it cannot be told.
///
/// Delivery itself is not looked at.
#[must_use]
pub fn derive(status: &Status, audited: &Audited) -> Option<Derived> {
    // Attaching is the last step of a start: until then nobody was probed, and nothing is known.
    if status.interfaces.is_empty() {
        return None;
    }
    let mut derived = Derived::default();
    derived.host(status);
    for service in &status.services {
        derived.service(service, status.started_at_ms);
    }
    derived.audit(audited);
    if let Some(drill) = &status.drill {
        derived.mark(drill);
    }
    Some(derived)
}

/// What is wrong, and what cannot be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Derived {
    /// What is wrong.
    pub alerts: Vec<Alert>,
    /// Services of whose traffic nothing can be said yet: an alert about it is neither on nor over.
    pub unsure: Vec<String>,
}

impl Derived {
    fn add(&mut self, key: Key, summary: impl Into<String>, since_ms: Option<u64>) {
        let alert = Alert {
            key,
            summary: summary.into(),
            since_ms,
        };
        // Two references may blame the same thing; the first one is the gravest.
        if self.alerts.iter().all(|other| other.key != alert.key) {
            self.alerts.push(alert);
        }
    }

    /// Marks what a drill causes.
    fn mark(&mut self, drill: &Running) {
        let usual = Drill::of(&drill.drill).and_then(Drill::alert);
        let alerts = std::mem::take(&mut self.alerts).into_iter().map(|alert| {
            let key = &alert.key;
            let caused = match &key.service {
                Some(service) => *service == drill.service && key.name != AlertName::AuditFailed,
                None => usual == Some(key.name),
            };
            if caused {
                alert.of_drill(&drill.drill)
            } else {
                alert
            }
        });
        self.alerts = alerts.collect();
    }

    fn host(&mut self, status: &Status) {
        self.tables(&status.tables);
        if let Some(why) = &status.refused {
            let summary = format!("tables are not published: {why}");
            self.add(Key::of(AlertName::PublicationRefused), summary, None);
        }
        if let Some(why) = &status.journal.failure {
            let summary = format!("the journal is not written: {why}");
            self.add(Key::of(AlertName::JournalFailing), summary, None);
        }
    }

    fn tables(&mut self, tables: &Tables) {
        let repairs = &tables.repairs;
        if !tables.as_intended {
            let given_up = if repairs.given_up {
                format!(" (not repaired: {} repairs did not last)", repairs.count)
            } else {
                String::new()
            };
            self.add(
                Key::of(AlertName::TableDrift),
                format!(
                    "the kernel's tables are not the intended ones, {} slots differ: {}{given_up}",
                    tables.differing_slots,
                    tables.differences.join("; ")
                ),
                None,
            );
        } else if repairs.recent {
            let key = Key {
                severity: Severity::Ticket,
                ..Key::of(AlertName::TableDrift)
            };
            let summary = format!(
                "the kernel's tables were not the intended ones and are repaired: {}",
                repairs.last.join("; ")
            );
            self.add(key, summary, repairs.last_at_ms);
        }
    }

    fn service(&mut self, service: &Service, started_ms: u64) {
        let name = &service.name;
        let key = |alert| Key {
            service: Some(name.clone()),
            ..Key::of(alert)
        };
        if service.serving == 0 {
            let fate = match service.on_empty.as_str() {
                "pass" => "its packets go to the host's own stack",
                _ => "its packets are dropped",
            };
            let summary = format!(
                "{name}: none of {} backends is usable; {fate}",
                service.backends.len()
            );
            self.add(key(AlertName::NoBackends), summary, None);
        }
        if let Some(why) = &service.panic {
            let summary = format!("{name}: {why}; all that are not drained are used");
            self.add(key(AlertName::Panic), summary, None);
        }
        if let Some(why) = &service.fleet_degraded {
            let summary = format!("{name}: {why}; nobody is demoted");
            self.add(key(AlertName::FleetDegraded), summary, None);
        }
        if let Some(left) = service.demotions_frozen_s {
            let summary = format!("{name}: a demotion did harm; none follows for {left:.0} s");
            self.add(key(AlertName::DemotionsFrozen), summary, None);
        }
        if let Some(flood) = &service.syn_flood {
            let summary = format!(
                "{name}: {:.0} SYNs a second, {:.0} % of its packets",
                flood.syn_rate,
                flood.syn_share * 100.0
            );
            self.add(key(AlertName::FloodSeen), summary, Some(flood.since_ms));
        }
        if service.evenness.verdict == Verdict::CannotTell {
            self.unsure.push(name.clone());
        }
        for finding in &service.evenness.findings {
            self.finding(name, finding);
        }
        for backend in &service.backends {
            self.backend(name, backend, started_ms);
        }
    }

    fn finding(&mut self, service: &str, finding: &Finding) {
        let (alert, severity) = match (finding.reference.as_str(), finding.severity.as_str()) {
            ("flows", "page") => (AlertName::TrafficSkewed, Severity::Page),
            ("flows", _) => (AlertName::TrafficSkewed, Severity::Ticket),
            ("table", _) => (AlertName::TableSkewed, Severity::Page),
            ("config", "page") => (AlertName::WeightsSkewed, Severity::Page),
            ("config", "warning") => (AlertName::WeightsSkewed, Severity::Ticket),
            // Capacities that nobody declared: weights may well be meant.
            ("config", _) => (AlertName::WeightsSkewed, Severity::Info),
            // Drift is the host's.
            _ => return,
        };
        let key = Key {
            severity,
            service: Some(service.to_owned()),
            backend: finding.backend.clone(),
            ..Key::of(alert)
        };
        let summary = format!("{service}: {}", finding.message);
        self.add(key, summary, Some(finding.since_ms));
    }

    fn backend(&mut self, service: &str, backend: &Backend, started_ms: u64) {
        let name = format!("{service}/{}", backend.name);
        let key = |alert| Key {
            service: Some(service.to_owned()),
            backend: Some(backend.name.clone()),
            ..Key::of(alert)
        };
        // Who has a weight of zero is not missed.
        if backend.health == "down" && backend.weight > 0 {
            let probe = backend.last_probe.as_ref();
            let detail = probe.map_or("not probed yet", |probe| probe.detail.as_str());
            // What was down at the start was down before.
            let since = Some(backend.health_since_ms).filter(|&since| since > started_ms);
            self.add(
                key(AlertName::BackendDown),
                format!("{name} is down: {detail}"),
                since,
            );
        }
        if backend.next_hop.is_none() {
            let summary = format!("the way to {name} ({}) is not known", backend.address);
            self.add(key(AlertName::NeighbourUnresolved), summary, None);
        }
        let Some(seen) = &backend.performance else {
            return;
        };
        let reason = seen.reason.as_deref().unwrap_or("it underperforms");
        match (seen.state.as_str(), seen.cause.as_deref()) {
            ("demoted" | "returning", _) => {
                let part = seen.part * 100.0;
                let summary = format!("{name} has {part:.0} % of its weight: {reason}");
                self.add(key(AlertName::BackendDemoted), summary, None);
            }
            ("spared", cause) => {
                let alert = match cause {
                    Some("failing") => AlertName::BackendFailing,
                    _ => AlertName::BackendSlow,
                };
                let why = seen.spared.as_deref().unwrap_or("it is spared");
                let summary = format!("{name} is {reason}; it keeps its weight: {why}");
                self.add(key(alert), summary, None);
            }
            _ => {}
        }
    }

    fn audit(&mut self, audited: &Audited) {
        if let Some(why) = &audited.rejected {
            self.add(Key::of(AlertName::ConfigRejected), why.clone(), None);
        }
        for finding in &audited.findings {
            if finding.level < audit::Level::Error || TOLD_OTHERWISE.contains(&finding.rule) {
                continue;
            }
            let key = Key {
                service: finding.service.clone(),
                backend: finding.backend.clone(),
                detail: Some(finding.rule.to_owned()),
                ..Key::of(AlertName::AuditFailed)
            };
            self.add(key, finding.to_string(), None);
        }
    }
}

#[cfg(test)]
mod tests;
