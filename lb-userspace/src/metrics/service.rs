//! What there is of each service.

use std::{collections::BTreeMap, fmt};

use prometheus_client::registry::Unit;

use super::{
    host::ASKED_FOR,
    page::{Page, of, plain, ratio, truth},
};
use crate::admin::proto::{Service, Verdict};

type Labels<'s> = [(&'static str, &'s str); 1];

fn named(service: &Service) -> Labels<'_> {
    [("service", &service.name)]
}

/// A number of each service.
fn each(
    services: &[Service],
    value: fn(&Service) -> f64,
) -> impl Iterator<Item = (Labels<'_>, f64)> {
    services.iter().map(move |s| (named(s), value(s)))
}

pub(super) fn write(services: &[Service], page: &mut Page<'_>) -> fmt::Result {
    let help = "What a service is: its address, and how packets reach its backends.";
    let rows = services.iter().map(|s| {
        let (name, key, mode) = (&*s.name, &*s.key, &*s.mode);
        [("service", name), ("key", key), ("mode", mode)]
    });
    page.info(&plain("service", help), rows)?;
    verdicts(services, page)?;
    state(services, page)?;
    exits(services, page)
}

fn verdicts(services: &[Service], page: &mut Page<'_>) -> fmt::Result {
    let help = "Whether a service's load is spread as intended: one for the verdict that holds.";
    let words = [
        ("even", Verdict::Even),
        ("skewed", Verdict::Skewed),
        ("cannot-tell", Verdict::CannotTell),
    ];
    let rows = services.iter().flat_map(|s| {
        words.map(|(word, verdict)| {
            let labels = [("service", &*s.name), ("verdict", word)];
            (labels, truth(s.evenness.verdict == verdict))
        })
    });
    page.gauge(&plain("service_verdict", help), rows)?;
    let help = "What is held against a service's evenness: by what it is seen (flows, table, config, \
                drift) and how bad it is (page, warning, ticket).";
    let mut counted: BTreeMap<(&str, &str, &str), u32> = BTreeMap::new();
    for service in services {
        for finding in &service.evenness.findings {
            let key = (&*service.name, &*finding.reference, &*finding.severity);
            *counted.entry(key).or_default() += 1;
        }
    }
    let rows = counted
        .into_iter()
        .map(|((service, reference, severity), n)| {
            let (service, reference) = (("service", service), ("reference", reference));
            ([service, reference, ("severity", severity)], f64::from(n))
        });
    page.gauge(&plain("service_findings", help), rows)?;
    let help = "The smallest skew that would be noticed at the present rate, as a ratio above one.";
    let skew = of(ratio(), "service_detectable_skew", help);
    let rows = services.iter().filter_map(|s| {
        let ratio = s.evenness.detectable_skew?;
        Some((named(s), ratio))
    });
    page.gauge(&skew, rows)?;
    let help = "How long that skew would take to be noticed.";
    let within = of(Unit::Seconds, "service_detectable_skew_within", help);
    let rows = services.iter().filter_map(|s| {
        let seconds = s.evenness.detectable_within_s?;
        Some((named(s), seconds))
    });
    page.gauge(&within, rows)
}

fn state(services: &[Service], page: &mut Page<'_>) -> fmt::Result {
    type Number = fn(&Service) -> f64;
    let all: [(&'static str, &'static str, Number); 10] = [
        ("service_backends", "Backends that are configured.", |s| {
            s.backends.len() as f64
        }),
        (
            "service_backends_serving",
            "Backends that are in the ring.",
            |s| s.serving as f64,
        ),
        (
            "service_panic",
            "Whether so few backends are up that all that are not drained are used.",
            |s| truth(s.panic.is_some()),
        ),
        (
            "service_fleet_degraded",
            "Whether the backends are slow or fail as a whole, so that nobody is demoted.",
            |s| truth(s.fleet_degraded.is_some()),
        ),
        (
            "service_demotions_frozen",
            "Whether nobody is demoted for a while, because a demotion did harm.",
            |s| truth(s.demotions_frozen_s.is_some()),
        ),
        (
            "service_syn_flood",
            "Whether the service is flooded with SYNs.",
            |s| truth(s.syn_flood.is_some()),
        ),
        (
            "service_tracked_flows",
            "Flows of the service that are remembered.",
            |s| s.remembered.flows as f64,
        ),
        ("service_ring_slots", "Slots of the service's ring.", |s| {
            f64::from(s.ring_slots)
        }),
        (
            "service_slots_in_transition",
            "Slots that got another owner, whose older flows are still waited for.",
            |s| f64::from(s.remembered.slots_in_transition),
        ),
        (
            "service_slots_pinned",
            "Slots whose remembered flows go elsewhere.",
            |s| f64::from(s.remembered.slots_pinned),
        ),
    ];
    for (name, help, value) in all {
        page.gauge(&plain(name, help), each(services, value))?;
    }
    Ok(())
}

fn exits(services: &[Service], page: &mut Page<'_>) -> fmt::Result {
    let help = "Packets of a service that reached no backend, by reason.";
    let rows = services.iter().flat_map(|s| {
        let asked = ASKED_FOR.map(|reason| (reason.name(), 0));
        let mut counted: BTreeMap<&str, u64> = asked.into();
        counted.extend(s.exits.iter().map(|(why, n)| (&**why, *n)));
        let row = |(why, n)| ([("service", &*s.name), ("reason", why)], n);
        counted.into_iter().map(row)
    });
    page.counter(&plain("service_not_forwarded_packets", help), rows)
}
