//! What two nodes that serve the same VIPs can be asked together.
//!
//! A flow whose packets come to another node, because a route changed, stays with its backend only
//! where both nodes have the same tables.

use std::collections::BTreeMap;

use super::{Finding, Level};
use crate::admin::proto::{Service, Status};

/// L29: in what another node, which is called `name`, disagrees. Files may differ in what is each
/// host's own, as interfaces: services are what is compared.
#[must_use]
pub fn judge(own: &Status, other: &Status, name: &str) -> Vec<Finding> {
    let [mut here, mut there] = [own, other].map(|status| -> BTreeMap<&str, &Service> {
        let services = status.services.iter();
        services.map(|of| (of.name.as_str(), of)).collect()
    });
    let alone = |services: &BTreeMap<&str, &Service>, others: &BTreeMap<&str, &Service>, of| {
        let names = services.keys().filter(|name| !others.contains_key(*name));
        let finding = |service: &&str| disagree(format!("only {of} serves it"), SAME).of(service);
        names.map(finding).collect::<Vec<_>>()
    };
    let mut findings = alone(&here, &there, "this node");
    findings.extend(alone(&there, &here, name));
    here.retain(|service, _| there.contains_key(service));
    for (service, here) in here {
        if let Some(there) = there.remove(service) {
            findings.extend(compare(here, there, name).map(|finding| finding.of(service)));
        }
    }
    findings
}

/// What to do where configurations differ.
const SAME: &str = "'evenkeel plan FILE' on each says what differs: apply the same file to both";

/// One service as both nodes have it.
fn compare(here: &Service, there: &Service, name: &str) -> Option<Finding> {
    if configured(here) != configured(there) {
        let what = format!("it is configured in another way on {name}");
        return Some(disagree(what, SAME));
    }
    if here.ring_digest == there.ring_digest {
        return None;
    }
    let what = format!("its ring is another than on {name}");
    let reasons = reasons(here, there);
    Some(if reasons.is_empty() {
        disagree(
            what,
            "compare hash_seed and the versions of both; 'evenkeel audit' on each compares its \
             tables with its configuration",
        )
    } else {
        disagree(
            format!("{what}: {}", reasons.join("; ")),
            "find out why they see it differently, and end overrides that stand on one of them",
        )
    })
}

/// What a configuration says of a service, as far as a status shows it.
fn configured(service: &Service) -> impl PartialEq {
    let backends = service.backends.iter().map(|backend| {
        let weight = match &backend.overridden {
            Some(of) => of.configured_weight,
            None => Some(backend.weight),
        };
        (backend.name.clone(), backend.address, weight)
    });
    (
        service.key.clone(),
        service.mode.clone(),
        service.ring_slots,
        backends.collect::<Vec<_>>(),
    )
}

fn disagree(what: String, remedy: &str) -> Finding {
    Finding::new(
        "L29",
        Level::Error,
        what,
        "a flow whose packets come by the other node goes to another backend, and breaks",
        remedy,
    )
}

/// What both say of the backends, where it differs.
fn reasons(here: &Service, there: &Service) -> Vec<String> {
    let say = |service: &Service| -> BTreeMap<String, String> {
        let backends = service.backends.iter();
        backends
            .map(|backend| {
                let weight = backend.weight_in_force.unwrap_or(backend.weight.into());
                let way = backend.out_of_ring.as_ref().map(|why| format!(" ({why})"));
                let way = way.unwrap_or_default();
                let says = format!("{}, weight {weight}{way}", backend.health);
                (backend.name.clone(), says)
            })
            .collect()
    };
    let there = say(there);
    say(here)
        .into_iter()
        .filter_map(|(name, here)| {
            let there = there.get(&name).filter(|there| **there != here)?;
            Some(format!("{name} is {here} here, {there} there"))
        })
        .collect()
}

#[cfg(test)]
mod tests;
