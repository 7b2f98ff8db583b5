//! The state as the admin API shows it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use bytemuck::bytes_of;
use lb_common::{
    hash::FlowKeys,
    layout::{BUCKETS, ExitCounters, Slot, end_of_bucket},
    verdict::Reason,
};
use sha2::{Digest as _, Sha256};

use super::{
    evenness::{self, Start},
    state::{BackendState, ServiceState},
    verify::Verification,
};
use crate::{
    admin::proto::{
        self,
        measured::{self, Band},
    },
    audit::Level,
    explain::mac,
    health::state::{Machine, State as Health},
    model::{Service, ServicePort},
    neighbours::NextHop,
    notify::derive::Audited,
    stats::{
        heat,
        latency::{Latency, Series, Sum},
    },
};

/// The reasons that occurred, by name.
pub(super) fn exits(counters: &ExitCounters) -> BTreeMap<String, u64> {
    let counted = Reason::ALL
        .iter()
        .map(|reason| (reason.name(), counters[*reason as usize]));
    counted
        .filter(|(_, n)| *n > 0)
        .map(|(name, n)| (name.to_owned(), n))
        .collect()
}

/// What an audit found, in numbers.
pub(super) fn audit(audited: &Audited) -> measured::Audit {
    let levels = [Level::Info, Level::Warning, Level::Error, Level::Critical];
    let of = |level: Level| audited.findings.iter().filter(|f| f.level == level).count() as u64;
    let findings = levels.map(|level| (level.name().to_owned(), of(level)));
    measured::Audit {
        at_ms: (audited.at_ms > 0).then_some(audited.at_ms),
        findings: findings.into(),
        rejected: audited.rejected.clone(),
    }
}

/// The state in a line, for a service manager.
pub(super) fn line(status: &proto::Status) -> String {
    let serving: usize = status.services.iter().map(|s| s.serving).sum();
    let all: usize = status.services.iter().map(|s| s.backends.len()).sum();
    let mut line = format!(
        "forwarding by generation {}: services {}, backends serving {serving} of {all}",
        status.generation,
        status.services.len()
    );
    let names: BTreeSet<&str> = status.alerts.iter().map(|a| &*a.name).collect();
    for (n, name) in names.into_iter().enumerate() {
        line += if n == 0 { "; " } else { ", " };
        line += name;
    }
    line
}

/// A backend.
pub(super) fn backend(
    service: &Service,
    state: &ServiceState,
    n: usize,
    out_of_ring: Option<String>,
    hop: Option<&NextHop>,
) -> proto::Backend {
    let (configured, seen, load) = (&service.backends[n], &state.backends[n], &state.load);
    let counters = load.counters[n];
    proto::Backend {
        name: configured.name.to_string(),
        address: configured.address,
        weight: configured.weight.number(),
        overridden: None,
        weight_in_force: None,
        performance: None,
        agent: None,
        full_in_s: None,
        capacity: configured.capacity.map(std::num::NonZero::get),
        health: health(seen).to_owned(),
        health_since_ms: seen.health_since_ms,
        last_probe: seen.last_probe.clone(),
        probes: seen.probes,
        out_of_ring,
        next_hop: hop.map(|hop| proto::NextHop {
            interface: hop.interface_name.to_string(),
            gateway: hop.gateway,
            mac: mac(hop.mac),
        }),
        slots: state.slots[n],
        intended_share: f64::from(state.slots[n])
            / f64::from(state.slots.iter().sum::<u32>().max(1)),
        observed_share: load.window.share(n),
        observed_over_s: load.window.covered().as_secs_f64(),
        packets: counters.packets,
        bytes: counters.bytes,
        new_flows: counters.new_flows,
        packet_rate: load.packets.rate(n).unwrap_or(0.0),
        byte_rate: load.bytes.rate(n).unwrap_or(0.0),
        new_flow_rate: load.flows.rate(n).unwrap_or(0.0),
        handshake: load.latencies.get(n).and_then(|of| latency(&of.handshake)),
        response: load.latencies.get(n).and_then(|of| latency(&of.response)),
        measured: load.latencies.get(n).and_then(flows),
    }
}

/// The word for a backend's health.
pub(super) fn health(seen: &BackendState) -> &'static str {
    match seen.machine.as_ref().map(Machine::state) {
        None => "unchecked",
        Some(Health::Unknown) => "unknown",
        Some(Health::Up) => "up",
        Some(Health::Down) => "down",
    }
}

/// How long something took lately.
fn latency(series: &Series) -> Option<proto::Latency> {
    let ms = |took: Duration| took.as_secs_f64() * 1e3;
    series.recent().map(|recent| proto::Latency {
        samples: recent.samples,
        mean_ms: ms(recent.mean),
        median_ms: ms(recent.median),
        p90_ms: ms(recent.p90),
        p99_ms: ms(recent.p99),
    })
}

/// All that was measured of a backend's flows.
fn flows(of: &Latency) -> Option<Box<measured::Flows>> {
    let total = of.total.as_deref()?;
    let waits = |sum: &Sum| {
        let ends = (0..BUCKETS).map(end_of_bucket);
        measured::Waits::of(ends.zip(sum.buckets), sum.nanoseconds)
    };
    Some(Box::new(measured::Flows {
        handshake: waits(&total.handshake),
        response: waits(&total.response),
        unanswered: total.unanswered,
        reset: total.reset,
    }))
}

/// Where in the ring new flows fall, to a hundredth of a percent.
fn heat(state: &ServiceState) -> Vec<f32> {
    let slots = state.ring_size();
    let parts = heat::parts(state.load.clients.samples(), slots);
    let round = |part: f64| (part * 1e4).round() / 1e4;
    parts.into_iter().map(|part| round(part) as f32).collect()
}

/// Who owns a ring's slots, by their place among the backends' numbers.
pub(super) fn band(ring: Option<&[Slot]>, ends: &[u16]) -> Band {
    let Some(ring) = ring else {
        return Band::default();
    };
    let places: HashMap<u16, u16> = ends.iter().copied().zip(0..).collect();
    let place = |slot: &Slot| places.get(&slot.owner()).copied().unwrap_or(Band::NOBODY);
    let step = ring.len().div_ceil(Band::LONGEST).max(1);
    Band(ring.iter().step_by(step).map(place).collect())
}

/// A digest of what packets of a service follow, the same on all nodes that agree: the keys by which
/// a flow finds its slot, and the slots' owners by their place in the configuration.
pub(super) fn ring_digest(keys: &FlowKeys, ring: &[Slot], places: &BTreeMap<u16, u16>) -> String {
    let mut digest = Sha256::new();
    digest.update(bytes_of(keys));
    let owners: Vec<u8> = ring
        .iter()
        .flat_map(|slot| {
            let place = places.get(&slot.owner()).copied().unwrap_or(u16::MAX);
            place.to_le_bytes()
        })
        .collect();
    digest.update(owners);
    hex::encode(&digest.finalize()[..8])
}

/// A service with its backends.
pub(super) fn service(
    service: &Service,
    state: &ServiceState,
    backends: Vec<proto::Backend>,
    verification: Option<&Verification>,
    start: Start,
    remembered: proto::Remembered,
) -> proto::Service {
    let prefix = format!("{}: ", service.name);
    let drifted = verification.and_then(|seen| {
        let own = seen
            .differences
            .iter()
            .find(|words| words.starts_with(&prefix))?;
        Some((seen.at_ms, own.as_str()))
    });
    proto::Service {
        name: service.name.to_string(),
        key: service.key.to_string(),
        vip: service.key.vip,
        port: match service.key.port {
            ServicePort::Any => None,
            ServicePort::Exact(port) => Some(port.get()),
        },
        protocol: service.key.protocol.to_string(),
        mode: service.mode.to_string(),
        ring_slots: state.ring_size() as u32,
        ring_digest: None,
        on_empty: service.on_empty.to_string(),
        serving: backends.iter().filter(|backend| backend.slots > 0).count(),
        evenness: evenness::judge(service, state, drifted, start),
        panic: None,
        fleet_degraded: None,
        demotions_frozen_s: None,
        remembered,
        syn_flood: state.load.floods.flood().map(|flood| proto::SynFlood {
            since_ms: state.load.flood_since_ms,
            syn_rate: flood.syn_rate,
            syn_share: flood.share,
        }),
        exits: exits(&state.load.exits),
        band: state.band.clone(),
        heat: heat(state),
        backends,
    }
}
