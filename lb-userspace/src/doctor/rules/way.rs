//! Rules about the ways that packets take through the host.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
    sync::Arc,
};

use super::super::{
    facts::{Facts, Interface, Tunnel, Way},
    finding::{Finding, Level, Remedy},
};

/// As long as a packet from the internet gets.
const CLIENT_MTU: u32 = 1_500;
/// How many addresses a finding names.
const NAMED: usize = 3;

/// `bpf_fib_lookup` finds no way where the interface that a packet came in by does not forward.
pub(super) fn forwarding(facts: &Facts, name: &str, interface: &Interface) -> Option<Finding> {
    let answers = facts.plan.ways.iter().filter(|way| way.needs.answers);
    let (v4, v6): (Vec<_>, Vec<_>) = answers.map(|way| way.vip).partition(IpAddr::is_ipv4);
    let families = [
        ("ipv4", v4, interface.forwarding_v4),
        ("ipv6", v6, interface.forwarding_v6),
    ];
    let used: Vec<_> = families
        .iter()
        .filter(|(_, vips, _)| !vips.is_empty())
        .collect();
    if used.is_empty() {
        return None;
    }
    let off: Vec<_> = used
        .iter()
        .filter(|(_, _, forwards)| *forwards == Some(false))
        .map(|(family, ..)| *family)
        .collect();
    if off.is_empty() {
        return Some(Finding::ok("forwarding", name, "forwarding is on"));
    }
    // With slashes, because names of interfaces may have dots.
    let keys = off
        .iter()
        .map(|family| format!("net/{family}/conf/{name}/forwarding=1"));
    let command = ["sysctl".to_owned(), "-w".to_owned()]
        .into_iter()
        .chain(keys);
    Some(Finding::new(
        Level::Warning,
        "forwarding",
        name,
        format!("forwarding of {} is off", off.join(" and ")),
        "the kernel then finds no way for the answers that come back through the balancer",
        Remedy::command("switch it on, in /etc/sysctl.d too", command),
    ))
}

/// The strict filter drops what comes in by another interface than its answer goes out by.
pub(super) fn rp_filter(facts: &Facts, name: &str, interface: &Interface) -> Option<Finding> {
    const STRICT: u8 = 1;
    if facts.plan.interfaces.len() < 2 {
        return None;
    }
    let value = facts.host.rp_filter.max(interface.rp_filter)?;
    Some(if value == STRICT {
        Finding::new(
            Level::Info,
            "rp-filter",
            name,
            "the reverse path filter is strict",
            "packets that go to the host's own stack are dropped where the way back is by \
             another interface; what is balanced does not meet the filter",
            Remedy::command(
                "loosen it, if the host's own services are reached by several interfaces",
                ["sysctl", "-w", &format!("net/ipv4/conf/{name}/rp_filter=2")],
            ),
        )
    } else {
        Finding::ok("rp-filter", name, "the reverse path filter is not strict")
    })
}

/// What concerns whole services: whether backends are reached by an attached interface, and
/// whether what goes around a packet fits.
pub(super) fn ways(facts: &Facts) -> Vec<Finding> {
    let mut services: BTreeMap<&Arc<str>, Vec<&Way>> = BTreeMap::new();
    for way in &facts.plan.ways {
        // Where no route was asked for, there is nothing to judge.
        if !facts.routes.is_empty() {
            services.entry(&way.service).or_default().push(way);
        }
    }
    let mut findings = Vec::new();
    for (service, ways) in services {
        findings.push(way_out(facts, service, &ways));
        findings.extend(headroom(facts, service, &ways));
    }
    findings
}

fn way_out(facts: &Facts, service: &str, ways: &[&Way]) -> Finding {
    let astray: Vec<_> = ways
        .iter()
        .filter_map(|way| {
            let Some(route) = facts.routes.get(&way.backend) else {
                return Some(format!("{} (no route)", way.backend));
            };
            let attached = facts.plan.interfaces.contains(&route.interface);
            (!attached).then(|| format!("{} (by {})", way.backend, route.interface))
        })
        .collect();
    let place = format!("service {service}");
    if astray.is_empty() {
        let what = "every backend is reached by an interface of data_plane.interfaces";
        return Finding::ok("way-out", &place, what);
    }
    Finding::new(
        Level::Warning,
        "way-out",
        &place,
        format!(
            "{} of {} backends are not reached by an interface of data_plane.interfaces: {}",
            astray.len(),
            ways.len(),
            listed(&astray)
        ),
        "their packets go to the host's stack",
        Remedy::words(
            "correct the host's routes ('ip route get ADDRESS'), the backends' addresses, or \
             data_plane.interfaces",
        ),
    )
}

fn headroom(facts: &Facts, service: &str, ways: &[&Way]) -> Option<Finding> {
    let mut any = false;
    // The way out with its MTU, and what it would have to be.
    let mut tight: BTreeMap<(&str, u32), u32> = BTreeMap::new();
    for way in ways {
        let (Some(tunnel), Some(route)) = (way.needs.tunnel, facts.routes.get(&way.backend)) else {
            continue;
        };
        any = true;
        let needed = client_mtu(facts) + Tunnel::overhead(tunnel, way.backend);
        if route.mtu < needed {
            let most = tight.entry((&route.interface, route.mtu)).or_default();
            *most = needed.max(*most);
        }
    }
    if !any {
        return None;
    }
    let place = format!("service {service}");
    let Some(((interface, mtu), needed)) = tight.into_iter().max_by_key(|(_, needed)| *needed)
    else {
        let what = "what goes around its packets fits the way to every backend";
        return Some(Finding::ok("mtu-headroom", &place, what));
    };
    let overhead = needed - client_mtu(facts);
    let inner = mtu.saturating_sub(overhead);
    let header = if ways.iter().any(|way| way.vip.is_ipv6()) {
        60
    } else {
        40
    };
    Some(Finding::new(
        Level::Warning,
        "mtu-headroom",
        &place,
        format!(
            "{overhead} bytes go around each packet, and the way out by {interface} takes {mtu} \
             where it should take {needed}"
        ),
        format!("packets of clients that are longer than {inner} do not get through"),
        Remedy::command(
            format!(
                "raise the MTU here and all the way to the backends, or let the backends announce \
                 a smaller segment size (route attribute 'advmss {}')",
                inner.saturating_sub(header)
            ),
            [
                "ip",
                "link",
                "set",
                "dev",
                interface,
                "mtu",
                &needed.to_string(),
            ],
        ),
    ))
}

/// As long as a packet of a client gets here.
fn client_mtu(facts: &Facts) -> u32 {
    let attached = facts
        .plan
        .interfaces
        .iter()
        .filter_map(|name| facts.interfaces.get(name)?.as_ref());
    attached
        .map(|interface| interface.mtu)
        .max()
        .map_or(CLIENT_MTU, |mtu| mtu.min(CLIENT_MTU))
}

/// The first few, and how many more.
fn listed(items: &[String]) -> String {
    let distinct: BTreeSet<_> = items.iter().collect();
    let mut text = distinct
        .iter()
        .take(NAMED)
        .map(|item| item.as_str())
        .collect::<Vec<_>>()
        .join(", ");
    if distinct.len() > NAMED {
        // Writing to a string cannot fail.
        let _ = write!(text, " and {} more", distinct.len() - NAMED);
    }
    text
}
