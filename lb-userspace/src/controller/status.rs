//! The state as the admin API shows it.

use std::collections::{BTreeMap, BTreeSet};

use bytemuck::bytes_of;
use lb_common::{
    hash::FlowKeys,
    layout::{ExitCounters, Slot},
    verdict::Reason,
};
use sha2::{Digest as _, Sha256};

use super::{
    evenness::{self, Start},
    state::ServiceState,
    verify::Verification,
};
use crate::{
    admin::proto,
    health::state::State as Health,
    model::{Service, ServicePort},
    neighbours::NextHop,
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

/// Writes a MAC address.
pub(super) fn mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
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
    let health = match seen
        .machine
        .as_ref()
        .map(crate::health::state::Machine::state)
    {
        None => "unchecked",
        Some(Health::Unknown) => "unknown",
        Some(Health::Up) => "up",
        Some(Health::Down) => "down",
    };
    proto::Backend {
        name: configured.name.to_string(),
        address: configured.address,
        weight: configured.weight.number(),
        overridden: None,
        weight_in_force: None,
        performance: None,
        full_in_s: None,
        capacity: configured.capacity.map(std::num::NonZero::get),
        health: health.to_owned(),
        health_since_ms: seen.health_since_ms,
        last_probe: seen.last_probe.clone(),
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
    }
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
        ring_slots: state.base.size().count() as u32,
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
        backends,
    }
}
