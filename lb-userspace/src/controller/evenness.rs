//! The three references of a service's evenness, brought together.

use std::{collections::BTreeMap, time::Duration};

use lb_common::layout::{Slot, Vip, VipKey};

use super::{cause::FlowCause, load::Load, state::ServiceState};
use crate::{
    admin::proto,
    balance::image::{Image, Numbers, occupied},
    model::{Protocol, Service},
    stats::evenness::{self, Deviation, Severity, Verdict},
};

/// From so many times its declared capacity on, a backend's weight is a matter for now: as much as new
/// flows that go astray.
const DROWNS: f64 = 2.0;

/// When this controller began to look.
#[derive(Clone, Copy)]
pub(super) struct Start {
    pub(super) at_ms: u64,
}

/// Compares live tables with the intended ones: slots that differ, and all differences in words.
pub(super) fn drift(
    services: &[Service],
    numbers: &Numbers,
    intended: &Image,
    live: Option<&Image>,
) -> (u64, Vec<String>) {
    let Some(live) = live else {
        return (0, vec!["the kernel has no tables".to_owned()]);
    };
    if intended == live {
        return (0, Vec::new());
    }
    let mut slots = 0;
    let mut words = Vec::new();
    for service in services {
        let ring = |image: &Image| {
            numbers
                .service(&service.key)
                .and_then(|n| image.ring_of(n).map(|r| r.to_vec()))
        };
        let drift = evenness::drift(
            &ring(intended).unwrap_or_default(),
            &ring(live).unwrap_or_default(),
            Slot::owner,
        );
        if drift.is_none() {
            continue;
        }
        slots += drift.differing as u64;
        let name = |owner: u16| {
            let of = |b: &&crate::model::Backend| {
                numbers.endpoint(&service.key, b.address) == Some(owner)
            };
            let backend = service.backends.iter().find(of);
            backend.map_or_else(|| format!("endpoint {owner}"), |b| b.name.to_string())
        };
        let owners: Vec<String> = drift
            .owners
            .iter()
            .map(|c| format!("{} +{} −{}", name(c.owner), c.gained, c.lost))
            .collect();
        let which: Vec<String> = drift.first.iter().map(|d| d.slot.to_string()).collect();
        words.push(format!(
            "{}: {} slots differ ({}), first {}",
            service.name,
            drift.differing,
            owners.join(", "),
            which.join(", ")
        ));
    }
    if intended.tables.header != live.tables.header {
        words.push(format!(
            "generation {} is live, {} is intended",
            live.tables.header.generation, intended.tables.header.generation
        ));
    }
    let (own, other) = (&intended.tables, &live.tables);
    for (what, own, other) in [
        ("VIP", &own.vips[..], &other.vips[..]),
        ("endpoint place", &own.by_address[..], &other.by_address[..]),
    ] {
        let (missing, strange) = (lacking(own, other), lacking(other, own));
        if missing + strange > 0 {
            words.push(format!(
                "{missing} {what} records are missing, {strange} are not intended"
            ));
        }
    }
    for (what, count) in [
        ("endpoint", differing(&own.endpoints, &other.endpoints)),
        ("tunnel", differing(&own.fars, &other.fars)),
        ("service", differing(&own.services, &other.services)),
        ("snat address", differing(&own.snat, &other.snat)),
    ] {
        if count > 0 {
            words.push(format!("{count} {what} records differ"));
        }
    }
    if intended.lists != live.lists {
        words.push("lists of allowed and denied sources differ".to_owned());
    }
    if words.is_empty() {
        words.push("rings that no service names differ".to_owned());
    }
    (slots, words)
}

/// How many records of one hash table the other does not hold.
fn lacking(own: &[Vip], other: &[Vip]) -> usize {
    let held: BTreeMap<VipKey, &Vip> = occupied(other).map(|place| (place.key, place)).collect();
    occupied(own)
        .filter(|place| held.get(&place.key) != Some(place))
        .count()
}

fn differing<T: PartialEq>(own: &[T], other: &[T]) -> usize {
    own.iter().zip(other).filter(|(a, b)| a != b).count()
}

/// The verdict on a service.
pub(super) fn judge(
    service: &Service,
    state: &ServiceState,
    drifted: Option<(u64, &str)>,
    start: Start,
) -> proto::Evenness {
    let mut findings: Vec<proto::Finding> = drifted.map(drift_finding).into_iter().collect();
    findings.extend(table_findings(service, state, start));
    findings.extend(config_findings(service, start));
    let cause = FlowCause::of(&state.load);
    findings.extend(flow_findings(service, &state.load, cause.as_ref()));
    // Where several are as grave, the one that is furthest off is what people have to see.
    let off = |of: &proto::Finding| of.ratio.map_or(0.0, |ratio| ratio.ln().abs());
    findings.sort_by(|a, b| rank(a).cmp(&rank(b)).then(off(b).total_cmp(&off(a))));
    // A remark about capacities that nobody declared is not a skew.
    let skewed = findings
        .iter()
        .find(|f| f.reference == "flows" || rank(f) < 2);
    let assessment = state.load.detector.assessment();
    let (verdict, message) = match (skewed, assessment.verdict) {
        (Some(worst), _) => (proto::Verdict::Skewed, worst.message.clone()),
        (None, Verdict::CannotTell(_)) if service.key.protocol == Protocol::Udp => (
            proto::Verdict::CannotTell,
            "cannot tell: UDP has no connections to count".to_owned(),
        ),
        (None, Verdict::Even) => (proto::Verdict::Even, describe(service, &state.load)),
        (None, _) => (proto::Verdict::CannotTell, describe(service, &state.load)),
    };
    proto::Evenness {
        verdict,
        message,
        detectable_skew: assessment.detectable.map(|d| d.ratio),
        detectable_within_s: assessment.detectable.map(|d| d.within.as_secs_f64()),
        findings,
        cause: None,
        clients: clients(service, &state.load),
    }
}

/// Who opens the connections.
fn clients(service: &Service, load: &Load) -> Option<proto::Clients> {
    let summary = load.clients.summary(Duration::ZERO, service.backends.len());
    let heaviest = summary.heaviest.iter().map(|heavy| proto::HeavyClient {
        client: heavy.client,
        share: heavy.share,
    });
    (summary.samples > 0).then(|| proto::Clients {
        samples: summary.samples,
        effective: summary.effective(),
        heaviest: heaviest.collect(),
    })
}

/// The gravest first.
fn rank(finding: &proto::Finding) -> u8 {
    match finding.severity.as_str() {
        "page" => 0,
        "warning" => 1,
        _ => 2,
    }
}

fn drift_finding((since_ms, message): (u64, &str)) -> proto::Finding {
    proto::Finding {
        reference: "drift".to_owned(),
        severity: Severity::Page.name().to_owned(),
        backend: None,
        ratio: None,
        since_ms,
        message: message.to_owned(),
    }
}

fn exact_finding(
    reference: &str,
    severity: Severity,
    service: &Service,
    at: &Deviation,
    start: Start,
    words: impl FnOnce(&str, f64, f64) -> String,
) -> proto::Finding {
    let name = &service.backends[at.backend].name;
    proto::Finding {
        reference: reference.to_owned(),
        severity: severity.name().to_owned(),
        backend: Some(name.to_string()),
        ratio: Some(at.ratio()).filter(|ratio| ratio.is_finite()),
        since_ms: start.at_ms,
        message: words(name, 100.0 * at.actual, 100.0 * at.expected),
    }
}

/// The intended table against what is in force of the backends' weights.
fn table_findings(service: &Service, state: &ServiceState, start: Start) -> Vec<proto::Finding> {
    let weights: Vec<u64> = service
        .backends
        .iter()
        .enumerate()
        .map(|(n, backend)| {
            u64::from(backend.weight.number()) * u64::from(state.watched.fraction(n).parts())
        })
        .collect();
    if weights.iter().all(|&weight| weight == 0) {
        return Vec::new();
    }
    evenness::table_reference(&weights, &state.slots, state.ring_size())
        .iter()
        .map(|at| {
            exact_finding("table", Severity::Page, service, at, start, |name, actual, expected| {
                format!("{name} owns {actual:.1} % of the slots, its weight asks for {expected:.1} %")
            })
        })
        .collect()
}

/// The weights against what the backends can take (R1).
fn config_findings(service: &Service, start: Start) -> Vec<proto::Finding> {
    let weights: Vec<u16> = service.backends.iter().map(|b| b.weight.number()).collect();
    let capacities: Option<Vec<u32>> = service
        .backends
        .iter()
        .map(|b| b.capacity.map(std::num::NonZero::get))
        .collect();
    // Without a declaration equal capacity is only assumed: weights may well be meant.
    let (severity, against) = match &capacities {
        Some(_) => (Severity::Warning, "its declared capacity"),
        None => (Severity::Ticket, "equal capacity"),
    };
    evenness::config_reference(&weights, capacities.as_deref())
        .iter()
        .map(|at| {
            let drowns = capacities.is_some() && at.ratio() >= DROWNS;
            let severity = if drowns { Severity::Page } else { severity };
            exact_finding("config", severity, service, at, start, |name, actual, expected| {
                format!(
                    "{name} is weighted for {actual:.1} % of the load, {against} is {expected:.1} %"
                )
            })
        })
        .collect()
}

/// The new flows against the shares of the live ring (R3). What few clients do by chance is told, and
/// nobody is called for it.
fn flow_findings(service: &Service, load: &Load, cause: Option<&FlowCause>) -> Vec<proto::Finding> {
    let by_chance = cause.is_some_and(|of| of.judgement.cause == evenness::Cause::FewClients);
    let assessment = load.detector.assessment();
    assessment
        .skewed
        .iter()
        .map(|skew| {
            let name = &service.backends[skew.backend].name;
            proto::Finding {
                reference: "flows".to_owned(),
                severity: if by_chance {
                    Severity::Ticket.name().to_owned()
                } else {
                    skew.severity.name().to_owned()
                },
                backend: Some(name.to_string()),
                ratio: Some(skew.ratio()).filter(|ratio| ratio.is_finite()),
                since_ms: load.zero_ms + skew.since.as_millis() as u64,
                message: match cause.filter(|cause| cause.skew.backend == skew.backend) {
                    Some(cause) => {
                        format!("{}: {}", skew.describe(name, assessment.at), cause.words())
                    }
                    None => skew.describe(name, assessment.at),
                },
            }
        })
        .collect()
}

fn describe(service: &Service, load: &Load) -> String {
    let names: Vec<&str> = service.backends.iter().map(|b| &*b.name).collect();
    load.detector.assessment().describe(&names)
}
