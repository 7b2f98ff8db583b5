//! What there is of each backend of each service.

use std::fmt;

use prometheus_client::registry::Unit;

use super::{
    page::{Page, of, plain, ratio, truth},
    seconds,
};
use crate::admin::proto::{Backend, Service};

type Labels<'s> = [(&'static str, &'s str); 2];

/// What there is of each backend, if there is anything.
fn each<V>(
    services: &[Service],
    value: fn(&Backend) -> Option<V>,
) -> impl Iterator<Item = (Labels<'_>, V)> {
    services.iter().flat_map(move |service| {
        service.backends.iter().filter_map(move |backend| {
            let labels = [("service", &*service.name), ("backend", &*backend.name)];
            Some((labels, value(backend)?))
        })
    })
}

pub(super) fn write(services: &[Service], page: &mut Page<'_>) -> fmt::Result {
    load(services, page)?;
    shares(services, page)?;
    waits(services, page)?;
    health(services, page)
}

/// What was measured of flows; there is none of backends of whose flows none was.
fn waits(services: &[Service], page: &mut Page<'_>) -> fmt::Result {
    let help = "From a SYN to the end of the handshake, of flows that are measured.";
    let handshake = of(Unit::Seconds, "backend_handshake_duration", help);
    let of_flows = |b: &Backend| b.measured.as_ref().map(|flows| flows.handshake);
    page.durations(&handshake, each(services, of_flows))?;
    let help = "From a request to the first of its response, of flows that are measured.";
    let response = of(Unit::Seconds, "backend_response_duration", help);
    let of_flows = |b: &Backend| b.measured.as_ref().map(|flows| flows.response);
    page.durations(&response, each(services, of_flows))?;
    let help = "Flows among those measured whose SYN was sent again.";
    let unanswered = plain("backend_unanswered_flows", help);
    let of_flows = |b: &Backend| b.measured.as_ref().map(|flows| flows.unanswered);
    page.counter(&unanswered, each(services, of_flows))?;
    let help = "Flows among those measured that the backend reset instead of an answer, in modes nat \
                and snat.";
    let reset = plain("backend_reset_flows", help);
    let of_flows = |b: &Backend| b.measured.as_ref().map(|flows| flows.reset);
    page.counter(&reset, each(services, of_flows))
}

fn load(services: &[Service], page: &mut Page<'_>) -> fmt::Result {
    let help = "New TCP connections sent to a backend, retransmitted SYNs left out.";
    let flows = plain("backend_new_flows", help);
    page.counter(&flows, each(services, |b| Some(b.new_flows)))?;
    let packets = plain("backend_packets", "Packets sent to a backend.");
    page.counter(&packets, each(services, |b| Some(b.packets)))?;
    let help = "Bytes of those packets, from the Ethernet header on.";
    let bytes = of(Unit::Bytes, "backend", help);
    page.counter(&bytes, each(services, |b| Some(b.bytes)))
}

fn shares(services: &[Service], page: &mut Page<'_>) -> fmt::Result {
    let help = "The part of the service's slots, and so of its new flows, that is a backend's.";
    let intended = of(ratio(), "backend_intended_share", help);
    page.gauge(&intended, each(services, |b| Some(b.intended_share)))?;
    let help = "The part of the service's new flows of the last minute that a backend got.";
    let observed = of(ratio(), "backend_observed_share", help);
    page.gauge(&observed, each(services, |b| b.observed_share))?;
    let help = "A backend's weight, as configured or overridden.";
    let weight = plain("backend_weight", help);
    page.gauge(&weight, each(services, |b| Some(f64::from(b.weight))))?;
    let help = "What is in force of it, after probes, demotion and slow start.";
    let in_force = plain("backend_weight_in_force", help);
    page.gauge(&in_force, each(services, |b| b.weight_in_force))?;
    let help = "The part of its weight that the ladder of demotions leaves a backend: 1, 1/2, 1/4, \
                1/8 or 0.";
    let part = of(ratio(), "backend_demotion_part", help);
    let performs = |b: &Backend| b.performance.as_ref().map(|of| of.part);
    page.gauge(&part, each(services, performs))?;
    let help = "Whether the configuration of a backend is overridden.";
    let overridden = plain("backend_overridden", help);
    let is = |b: &Backend| b.overridden.as_ref().map(|_| 1.0);
    page.gauge(&overridden, each(services, is))
}

fn health(services: &[Service], page: &mut Page<'_>) -> fmt::Result {
    let help =
        "Whether a backend passes its checks; absent where it has none or was not asked yet.";
    let up = plain("backend_up", help);
    let is_up = |b: &Backend| match &*b.health {
        "up" | "down" => Some(truth(b.health == "up")),
        _ => None,
    };
    page.gauge(&up, each(services, is_up))?;
    let help =
        "Probes of a backend, by outcome; undecided are those that this host could not make.";
    let rows = services.iter().flat_map(|service| {
        service.backends.iter().flat_map(move |b| {
            let outcomes = [
                ("passed", b.probes.passed),
                ("failed", b.probes.failed),
                ("undecided", b.probes.undecided),
            ];
            outcomes.map(|(word, n)| {
                let (service, backend) = (("service", &*service.name), ("backend", &*b.name));
                ([service, backend, ("outcome", word)], n)
            })
        })
    });
    page.counter(&plain("backend_probes", help), rows)?;
    let help = "How long probes took that passed.";
    let took = of(Unit::Seconds, "backend_probe_duration", help);
    let checked = |b: &Backend| (b.health != "unchecked").then_some(b.probes.took);
    page.durations(&took, each(services, checked))?;
    let help = "When a backend's certificate expires.";
    let expires = of(Unit::Seconds, "backend_certificate_expiry_timestamp", help);
    let end = |b: &Backend| b.probes.certificate_expires_at_ms.map(seconds);
    page.gauge(&expires, each(services, end))
}
