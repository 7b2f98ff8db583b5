//! What a running system can be asked, beside its configuration.

use std::collections::BTreeMap;

use super::{Finding, Level, percent};
use crate::{
    admin::proto::{self, Service as Live, Status},
    doctor::finding::{Finding as Seen, Level as Bad},
    model::{Backend, Config, Service, Spread, Via},
    stats::evenness::{Deviation, table_reference},
};

/// A weight that changes by more in one step deserves a second look.
const LARGEST_CHANGE: u32 = 2;
/// How long a way to somebody is good that was gone once, in milliseconds.
const TESTED: u64 = 30 * 24 * 60 * 60 * 1000;

/// With so many clients for each backend, chance is off by a fifth of a share: one in their root.
const CLIENTS_FOR_A_BACKEND: f64 = 25.0;
/// Who is out of service for longer, in milliseconds, was probably forgotten.
const FORGOTTEN: u64 = 24 * 60 * 60 * 1000;

/// Everything that the controller's status answers wrongly. `config` is what is audited: the file
/// that it runs by, with `digest` of its text, or one that shall follow, and has none to compare.
#[must_use]
pub fn judge(config: &Config, digest: Option<&str>, status: &Status) -> Vec<Finding> {
    let whole = [
        kernel(status),
        digest.and_then(|digest| file(digest, status)),
        memory(config, status),
        route(status),
    ];
    let mut findings: Vec<Finding> = whole.into_iter().flatten().collect();
    let live: BTreeMap<&str, &Live> = status
        .services
        .iter()
        .map(|live| (live.name.as_str(), live))
        .collect();
    for service in &config.services {
        if let Some(live) = live.get(&*service.name) {
            let found = shares(live)
                .into_iter()
                .chain(steps(service, live))
                .chain(unanswered(service, live))
                .chain(left_out(live, status.now_ms))
                .chain(few_clients(service, live));
            findings.extend(found.map(|finding| finding.of(&service.name)));
        }
    }
    findings
}

/// L1: the kernel's tables.
fn kernel(status: &Status) -> Option<Finding> {
    let tables = &status.tables;
    (!tables.as_intended).then(|| {
        Finding::new(
            "L1",
            Level::Critical,
            format!(
                "the kernel's tables are not the intended ones: {}",
                tables.differences.join("; ")
            ),
            "packets follow something that nobody decided",
            "restart the controller: it publishes the intended tables; then find out who else writes \
             to the pinned maps",
        )
    })
}

/// L32: the file on disk.
fn file(digest: &str, status: &Status) -> Option<Finding> {
    (!status.config_sha256.is_empty() && status.config_sha256 != digest).then(|| {
        Finding::new(
            "L32",
            Level::Error,
            "the running configuration is not this file's",
            "the next restart changes something, at a time that nobody chose",
            "'evenkeel plan FILE' shows what differs: apply the file, or put it right",
        )
    })
}

/// L23: room for remembered flows.
fn memory(config: &Config, status: &Status) -> Option<Finding> {
    let (room, flows) = (
        u64::from(config.tracking.established.get()),
        status.tracking.flows,
    );
    (room < 2 * flows).then(|| {
        Finding::new(
            "L23",
            Level::Warning,
            format!("{flows} flows are remembered, and there is room for {room}"),
            "flows that find no room may move to another backend when the ring changes",
            format!(
                "set established = {} under [tracking]",
                (2 * flows).next_power_of_two()
            ),
        )
    })
}

/// L26: whether anybody took a notification lately. That nobody is configured, the file tells.
fn route(status: &Status) -> Option<Finding> {
    let receivers = &status.notify.receivers;
    let lately = receivers
        .iter()
        .filter_map(|receiver| receiver.last_taken_at_ms)
        .any(|at| at.saturating_add(TESTED) > status.now_ms);
    (!receivers.is_empty() && !lately).then(|| {
        Finding::new(
            "L26",
            Level::Error,
            "no receiver took a notification or a test for 30 days",
            "a way that nobody has gone for long may lead nowhere",
            "ask them: 'evenkeel notify test'",
        )
    })
}

/// L2 and L3 as the kernel has them: slots of the backends that take new flows.
fn shares(live: &Live) -> Vec<Finding> {
    if live.serving == 0 {
        return vec![Finding::new(
            "L2",
            Level::Critical,
            "no backend is usable",
            "nobody serves",
            "see 'evenkeel status' for why each is out",
        )];
    }
    let backends = &live.backends;
    // Millionths: what ladder and slow start leave is a fraction.
    let in_force = |backend: &proto::Backend| {
        let weight = backend.weight_in_force.unwrap_or(backend.weight.into());
        if backend.out_of_ring.is_none() {
            (weight * 1e6).round() as u64
        } else {
            0
        }
    };
    let weights: Vec<u64> = backends.iter().map(in_force).collect();
    let slots: Vec<u32> = backends.iter().map(|b| b.slots).collect();
    let total: u32 = slots.iter().sum();
    let off = table_reference(&weights, &slots, total as usize);
    let finding = |off: Deviation| {
        let what = format!(
            "it has {} of the slots, its weight asks for {}",
            percent(off.actual),
            percent(off.expected)
        );
        Finding::new(
            "L3",
            Level::Critical,
            what,
            "the load is not spread as intended",
            "see 'evenkeel events --kind publication' for the last change",
        )
        .at(&backends[off.backend].name)
    };
    off.into_iter().map(finding).collect()
}

/// L28: weights that the file changes by much.
fn steps(service: &Service, live: &Live) -> Vec<Finding> {
    let now: BTreeMap<_, _> = live
        .backends
        .iter()
        .map(|b| (b.address, b.weight))
        .collect();
    let step = |backend: &Backend| {
        let (before, after) = (*now.get(&backend.address)?, backend.weight.number());
        let (small, large) = (u32::from(before.min(after)), u32::from(before.max(after)));
        // To zero and back is a drain, and no slip.
        (small > 0 && large > LARGEST_CHANGE * small).then(|| {
            Finding::new(
                "L28",
                Level::Warning,
                format!("its weight goes from {before} to {after} in one change"),
                "what it can take is not known before it gets it",
                "go in smaller steps, and look at its latency between them",
            )
            .at(&backend.name)
        })
    };
    service.backends.iter().filter_map(step).collect()
}

/// L21: backends that the service's packets do not reach.
fn unanswered(service: &Service, live: &Live) -> Vec<Finding> {
    let steered = service.health.as_ref().is_some_and(|h| h.via == Via::Vip);
    if !steered {
        return Vec::new();
    }
    let finding = |backend: &proto::Backend| {
        let detail = &backend.last_probe.as_ref()?.detail;
        (backend.health == "down").then(|| {
            Finding::new(
                "L21",
                Level::Error,
                format!("it does not answer for {}: {detail}", live.vip),
                "it is out of the ring until it does",
                "see that it serves, that it has the VIP, and in a tunnel that it unwraps",
            )
            .at(&backend.name)
        })
    };
    live.backends.iter().filter_map(finding).collect()
}

/// L22: so few clients that chance spreads them badly where each stays with one backend.
fn few_clients(service: &Service, live: &Live) -> Option<Finding> {
    let clients = live.evenness.clients.as_ref()?;
    let effective = clients.effective?;
    let backends = live.serving as f64;
    let few = effective < CLIENTS_FOR_A_BACKEND * backends;
    (service.options.spread == Spread::Source && few).then(|| {
        Finding::new(
            "L22",
            Level::Warning,
            format!(
                "each client stays with one backend, and there are as many as {effective:.0} that are \
                 alike for {} backends",
                live.serving
            ),
            "chance gives one backend much more than another, and no weight can mend it",
            "set spread = \"flow\", unless the application needs a client's connections together",
        )
    })
}

/// L27: backends that somebody took out, or that took themselves out, and nobody brought back.
fn left_out(live: &Live, now_ms: u64) -> Vec<Finding> {
    let finding = |backend: &proto::Backend| {
        let (since, word, by, remedy) = match (&backend.overridden, &backend.agent) {
            (Some(of), _) => {
                let word = match of.kind.as_str() {
                    "drain" => "drained",
                    "disable" => "disabled",
                    _ => return None,
                };
                let remedy = format!("'evenkeel backend enable {} {}'", live.name, backend.name);
                (of.since_ms, word, (&*of.actor, &of.reason), remedy)
            }
            (None, Some(agent)) if agent.part <= 0.0 => {
                let remedy = "have its agent say 'up ready 100%'".to_owned();
                let by = ("its agent", &agent.note);
                (agent.since_ms?, "without new flows", by, remedy)
            }
            _ => return None,
        };
        let (actor, reason) = by;
        let reason = reason.as_deref().unwrap_or("no reason was given");
        let passed = now_ms.saturating_sub(since);
        (passed > FORGOTTEN).then(|| {
            let hours = passed / (60 * 60 * 1000);
            Finding::new(
                "L27",
                Level::Warning,
                format!("{word} for {hours} hours by {actor} ({reason})"),
                "the others do its work, and there is one less to take over",
                format!("{remedy}, or take it out of the configuration"),
            )
            .at(&backend.name)
        })
    };
    live.backends.iter().filter_map(finding).collect()
}

/// L20 and L30: what a look at the host found, as far as the audit has a rule for it.
#[must_use]
pub fn host(seen: &[Seen]) -> Vec<Finding> {
    let finding = |seen: &Seen| {
        let level = match seen.level {
            Bad::Warning => Level::Warning,
            Bad::Error => Level::Error,
            Bad::Ok | Bad::Info => return None,
        };
        let (rule, why) = match seen.rule {
            "mtu-headroom" => ("L20", "packets that become too long in a tunnel are lost"),
            "native" | "lro" | "vlan-offload" | "queues" | "send-queues" | "gro-hw" => (
                "L30",
                "the interface does not give the program its packets as they came, or slowly",
            ),
            _ => return None,
        };
        Some(Finding::new(
            rule,
            level,
            format!("{}: {}", seen.place, seen.what),
            why,
            match &seen.command {
                Some(command) => format!("{}: '{command}'", seen.remedy),
                None => seen.remedy.clone(),
            },
        ))
    };
    seen.iter().filter_map(finding).collect()
}

#[cfg(test)]
mod tests;
