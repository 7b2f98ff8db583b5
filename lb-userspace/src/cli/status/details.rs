//! One service, and one backend, with everything that is known of them.

use super::{
    render::{Page, Tone, View, describe, remarks},
    units::{ago, percent, short, spark},
};
use crate::admin::proto::{Backend, Performance, Service};

/// A service with all of its backends.
pub(in crate::cli) fn service(service: &Service, now: u64, view: View) -> String {
    let mut page = Page::new(view);
    describe(service, now, &mut page);
    let digest = service.ring_digest.as_deref().unwrap_or("none");
    let text = format!("ring: {} slots, digest {digest}", service.ring_slots);
    page.text(2, Tone::Quiet, &text);
    if !service.heat.is_empty() {
        page.text(2, Tone::Quiet, &heat(&service.heat));
    }
    for backend in &service.backends {
        page.empty();
        facts(service, backend, now, &mut page);
    }
    page.finish()
}

/// A backend.
pub(in crate::cli) fn backend(service: &Service, of: &Backend, now: u64, view: View) -> String {
    let mut page = Page::new(view);
    facts(service, of, now, &mut page);
    remarks(of, now, &mut page);
    page.finish()
}

/// Where in the ring new flows fall: a bar for each part of it, the hottest as high as can be.
fn heat(parts: &[f32]) -> String {
    let parts: Vec<f64> = parts.iter().copied().map(f64::from).collect();
    let hottest = parts.iter().copied().fold(0.0, f64::max) * parts.len() as f64;
    format!(
        "heat: {}  new flows by place in the ring, at most {hottest:.1} times an even part",
        spark(&parts, parts.len())
    )
}

fn facts(service: &Service, of: &Backend, now: u64, page: &mut Page) {
    let head = format!(
        "{}/{}  {}  {} for {}",
        service.name,
        of.name,
        of.address,
        of.health,
        ago(now, of.health_since_ms)
    );
    page.text(0, Tone::Strong, &head);
    let lines = [
        Some(format!("weight     {}", weight(of))),
        Some(format!(
            "ring       {} of {} slots: {} intended, {}",
            of.slots,
            service.ring_slots,
            percent(of.intended_share),
            observed(of)
        )),
        Some(format!(
            "rates      {} new flows/s, {} packets/s, {} bit/s",
            short(of.new_flow_rate),
            short(of.packet_rate),
            short(of.byte_rate * 8.0)
        )),
        Some(format!(
            "counted    {} new flows, {} packets, {} bytes",
            of.new_flows, of.packets, of.bytes
        )),
        of.last_probe.as_ref().map(|probe| {
            let (ago, took) = (ago(now, probe.at_ms), probe.took_ms);
            format!("probe      {ago} ago, in {took:.1} ms: {}", probe.detail)
        }),
        of.performance.as_ref().map(probed),
        of.performance.as_ref().and_then(by_traffic),
        of.performance.as_ref().map(|seen| {
            let percent = seen.evidence * 100.0;
            let state = &seen.state;
            format!("evidence   {state}, {percent:.0} % of what it is demoted by")
        }),
        of.agent.as_ref().map(|agent| {
            let heard = agent
                .heard_at_ms
                .map(|at| format!(", heard {} ago", ago(now, at)));
            let failure = agent
                .failure
                .as_ref()
                .map(|why| format!(", not now: {why}"));
            format!(
                "agent      {}{}{}",
                agent.state,
                heard.unwrap_or_default(),
                failure.unwrap_or_default()
            )
        }),
        Some(format!("next hop   {}", next_hop(of))),
    ];
    for line in lines.into_iter().flatten() {
        page.text(2, Tone::Usual, &line);
    }
}

fn weight(of: &Backend) -> String {
    let force = of
        .weight_in_force
        .map(|force| format!(", {} in force", short(force)));
    let capacity = of.capacity.map(|capacity| format!(", capacity {capacity}"));
    format!(
        "{}{}{}",
        of.weight,
        force.unwrap_or_default(),
        capacity.unwrap_or_default()
    )
}

fn observed(of: &Backend) -> String {
    match of.observed_share {
        Some(share) => format!(
            "{} observed over {:.0} s",
            percent(share),
            of.observed_over_s
        ),
        None => "none observed yet".to_owned(),
    }
}

fn beside(own: Option<f64>, peers: Option<f64>, ratio: Option<f64>) -> String {
    let millis = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.1} ms"));
    let ratio = ratio.map(|ratio| format!(", {ratio:.2}x"));
    format!(
        "{}, its peers {}{}",
        millis(own),
        millis(peers),
        ratio.unwrap_or_default()
    )
}

fn probed(seen: &Performance) -> String {
    let compared = beside(seen.latency_ms, seen.peers_ms, seen.ratio);
    format!("probes     {compared}")
}

fn by_traffic(seen: &Performance) -> Option<String> {
    let of = seen.traffic.as_ref()?;
    let compared = beside(of.latency_ms, of.peers_ms, of.ratio);
    let counted = format!("{} requests a minute", short(of.per_minute));
    let judged = match (of.state.as_str(), of.found_within_s) {
        ("new", _) => ", which is not long enough to judge by".to_owned(),
        (_, Some(seconds)) => format!(
            ", slow is found within {}",
            ago(seconds.ceil() as u64 * 1000, 0)
        ),
        _ => ", too few to judge by".to_owned(),
    };
    let failing = (of.failing_evidence > 0.0).then(|| {
        let percent = of.failing_evidence * 100.0;
        format!("; {percent:.0} % of the evidence that clients find no answer")
    });
    Some(format!(
        "traffic    {compared}; {counted}{judged}{}",
        failing.unwrap_or_default()
    ))
}

fn next_hop(of: &Backend) -> String {
    match &of.next_hop {
        None => "unknown".to_owned(),
        Some(hop) => match hop.gateway {
            Some(gateway) => format!("{} via {gateway} on {}", hop.mac, hop.interface),
            None => format!("{} on {}", hop.mac, hop.interface),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::proto::{Agent, ByTraffic, Performance, Status};

    const PLAIN: View = View {
        width: Some(100),
        colour: false,
    };

    fn fixture() -> Status {
        serde_json::from_str(include_str!("render/fixture.json")).unwrap()
    }

    #[test]
    fn a_backend_tells_all_that_is_known_of_it() {
        let mut status = fixture();
        let service = &mut status.services[0];
        let mut of = service.backends[1].clone();
        of.weight_in_force = Some(0.5);
        of.performance = Some(Performance {
            state: "demoted".to_owned(),
            part: 0.5,
            cause: Some("slow".to_owned()),
            by: Some("traffic".to_owned()),
            reason: Some("slow by its traffic: 60 ms where its peers take 20 ms".to_owned()),
            spared: None,
            latency_ms: Some(60.0),
            peers_ms: Some(20.0),
            ratio: Some(3.0),
            traffic: Some(ByTraffic {
                state: "judged".to_owned(),
                latency_ms: Some(90.0),
                peers_ms: Some(30.0),
                ratio: Some(3.0),
                evidence: 1.0,
                failing_evidence: 0.0,
                per_minute: 240.4,
                found_within_s: Some(12.2),
            }),
            evidence: 1.2,
            next_rise_s: Some(12.0),
        });
        of.agent = Some(Agent {
            state: "drain".to_owned(),
            percent: Some(100),
            note: Some("new kernel".to_owned()),
            part: 0.0,
            since_ms: Some(status.now_ms - 60_000),
            heard_at_ms: Some(status.now_ms - 2_000),
            failure: None,
            ignored: None,
        });
        let text = backend(service, &of, status.now_ms, PLAIN);
        let found: Vec<&str> = text.lines().collect();
        for line in [
            "web/b2  10.0.0.2  up for 3h 3m",
            "  probes     60.0 ms, its peers 20.0 ms, 3.00x",
            "  traffic    90.0 ms, its peers 30.0 ms, 3.00x; 240 requests a minute, slow is found within 13s",
            "  evidence   demoted, 120 % of what it is demoted by",
            "  agent      drain, heard 2s ago",
            "  b2 asks by its agent for no new flows ('drain'), since 1m ago: new kernel",
        ] {
            assert!(found.contains(&line), "{line}\n{text}");
        }
        assert!(found[1].contains("0.5 in force"), "{text}");
        assert!(
            text.contains("b2 is demoted, with 50.0 % of its weight"),
            "{text}"
        );
        assert!(!text.contains("b1"), "{text}");
    }

    #[test]
    fn a_service_tells_of_each_of_its_backends() {
        let status = fixture();
        let text = service(&status.services[0], status.now_ms, PLAIN);
        for name in ["web/b1", "web/b2", "web/b3"] {
            assert_eq!(text.matches(&format!("\n{name}  ")).count(), 1, "{text}");
        }
        assert!(text.contains("SKEWED"), "{text}");
        assert!(!text.contains("dns"), "{text}");
    }
}
