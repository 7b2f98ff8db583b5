//! Verdicts as they are told: since when each finding holds, and what the journal is to know.
//!
//! A report states only what the journal holds. So an event has the cause with its evidence, and what
//! it is not, as they were when the verdict changed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::{
    admin::proto::{Evenness, Finding, Service, Verdict},
    journal::{Event, Kind, Level},
};

/// How long another cause of the same verdict is not told, in milliseconds: of several backends that
/// deviate alike, the worst changes all the time.
const SETTLES: u64 = 30_000;

/// What tells an exact finding from others: service, reference, backend.
type Place = (String, String, Option<String>);

/// What was told, and since when findings hold.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    told: BTreeMap<String, Told>,
    since: BTreeMap<Place, u64>,
}

/// What was told of a service.
#[derive(Debug)]
struct Told {
    verdict: Verdict,
    cause: Option<(String, Option<String>)>,
    at_ms: u64,
}

impl Verdicts {
    /// Dates findings that are exact. They follow from a publication, which is the last one where one
    /// is new.
    pub(super) fn date(&mut self, services: &mut [Service], published_ms: u64) {
        let mut before = std::mem::take(&mut self.since);
        for service in services {
            for finding in &mut service.evenness.findings {
                if !matches!(finding.reference.as_str(), "config" | "table") {
                    continue;
                }
                let reference = finding.reference.clone();
                let place = (service.name.clone(), reference, finding.backend.clone());
                let since = before.remove(&place).unwrap_or(published_ms);
                finding.since_ms = since;
                self.since.insert(place, since);
            }
        }
    }

    /// What there is to tell where a verdict, or the cause of a skew, changed.
    pub(super) fn news(&mut self, services: &[Service], now_ms: u64) -> Vec<Event> {
        let names: BTreeSet<&str> = services.iter().map(|service| &*service.name).collect();
        self.told.retain(|name, _| names.contains(name.as_str()));
        let changed = services
            .iter()
            .filter(|service| self.is_news(service, now_ms));
        let changed: Vec<&Service> = changed.collect();
        for service in &changed {
            let told = Told {
                verdict: service.evenness.verdict,
                cause: cause(&service.evenness),
                at_ms: now_ms,
            };
            self.told.insert(service.name.clone(), told);
        }
        let events = changed.iter().map(|service| event(service, now_ms));
        events.collect()
    }

    fn is_news(&self, service: &Service, now_ms: u64) -> bool {
        let evenness = &service.evenness;
        let Some(told) = self.told.get(&service.name) else {
            // Of UDP nothing else can be told.
            return service.protocol != "udp" || evenness.verdict != Verdict::CannotTell;
        };
        told.verdict != evenness.verdict
            || (told.cause != cause(evenness) && now_ms >= told.at_ms + SETTLES)
    }
}

/// What tells the cause of a skew from another one.
fn cause(evenness: &Evenness) -> Option<(String, Option<String>)> {
    let cause = evenness.cause.as_ref();
    let cause = cause.filter(|_| evenness.verdict == Verdict::Skewed)?;
    Some((cause.kind.clone(), cause.backend.clone()))
}

fn event(service: &Service, now_ms: u64) -> Event {
    let evenness = &service.evenness;
    let level = match evenness.verdict {
        Verdict::Skewed => Level::Warning,
        _ => Level::Info,
    };
    let mut message = format!("{}: {}", service.name, evenness.message);
    let cause = evenness.cause.as_ref();
    if let Some(cause) = cause.filter(|cause| !message.contains(&cause.message)) {
        message = format!("{message}; {}", cause.message);
    }
    let blamed = |finding: &&Finding| {
        let by_reference = |kind: &str| {
            finding.reference == kind
                || (finding.reference == "flows" && !matches!(kind, "drift" | "table" | "config"))
        };
        cause.is_some_and(|of| by_reference(&of.kind) && of.backend == finding.backend)
    };
    let finding = evenness.findings.iter().find(blamed);
    let event = Event::of_controller(now_ms, Kind::Evenness, level, message);
    event.service(&service.name).detail(json!({
        "verdict": evenness.verdict,
        "backend": cause.and_then(|cause| cause.backend.clone()),
        "ratio": finding.and_then(|finding| finding.ratio),
        "since_ms": finding.map(|finding| finding.since_ms),
        "cause": cause,
        "findings": evenness.findings,
        "detectable_skew": evenness.detectable_skew,
        "detectable_within_s": evenness.detectable_within_s,
        "clients": evenness.clients,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::proto::{Cause, Status};

    fn service(verdict: Verdict, backend: Option<&str>) -> Service {
        let json = include_str!("../cli/status/render/fixture.json");
        let mut status: Status = serde_json::from_str(json).unwrap();
        let mut service = status.services.remove(0);
        let evenness = &mut service.evenness;
        evenness.verdict = verdict;
        evenness.message = "as it is".to_owned();
        let finding = |name: &str| Finding {
            reference: "config".to_owned(),
            severity: "page".to_owned(),
            backend: Some(name.to_owned()),
            ratio: Some(2.5),
            since_ms: 1,
            message: format!("{name} is weighted for 83.3 %"),
        };
        evenness.findings = backend.map(finding).into_iter().collect();
        evenness.cause = backend.map(|name| Cause {
            kind: "config".to_owned(),
            backend: Some(name.to_owned()),
            message: format!("{name} is weighted for 83.3 %"),
            ruled_out: vec!["drift: compared 3 s ago".to_owned()],
        });
        service
    }

    #[test]
    fn a_verdict_is_told_once_with_its_cause_and_what_that_is_not() {
        let mut verdicts = Verdicts::default();
        let even = [service(Verdict::Even, None)];
        assert_eq!(verdicts.news(&even, 1).len(), 1);
        assert_eq!(verdicts.news(&even, 2), []);
        let mut skewed = [service(Verdict::Skewed, Some("b2"))];
        verdicts.date(&mut skewed, 1000);
        let told = verdicts.news(&skewed, 2000);
        let [event] = &*told else { panic!("{told:?}") };
        assert_eq!(event.level, Level::Warning);
        assert_eq!(event.message, "web: as it is; b2 is weighted for 83.3 %");
        let detail = &event.detail;
        assert_eq!(detail["backend"], "b2");
        assert_eq!(detail["ratio"], 2.5);
        assert_eq!(detail["since_ms"], 1000);
        assert_eq!(detail["cause"]["ruled_out"][0], "drift: compared 3 s ago");
        // Later publications do not make it younger.
        verdicts.date(&mut skewed, 1500);
        assert_eq!(skewed[0].evenness.findings[0].since_ms, 1000);
        // Another one is the worst now, and that is told after a while.
        let other = [service(Verdict::Skewed, Some("b3"))];
        assert_eq!(verdicts.news(&other, 2000 + SETTLES - 1), []);
        assert_eq!(verdicts.news(&other, 2000 + SETTLES).len(), 1);
        assert_eq!(verdicts.news(&even, 2001 + SETTLES).len(), 1);
    }

    #[test]
    fn nothing_is_told_of_udp_but_a_skew() {
        let mut verdicts = Verdicts::default();
        let mut udp = [service(Verdict::CannotTell, None)];
        udp[0].protocol = "udp".to_owned();
        assert_eq!(verdicts.news(&udp, 1), []);
        udp[0].evenness.verdict = Verdict::Skewed;
        assert_eq!(verdicts.news(&udp, 2).len(), 1);
    }
}
