//! What a configuration can be asked by itself.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;

use super::{Finding, Level, percent, weights};
use crate::{
    model::{
        Config, ProbeKind, Protocol, RingSize, Service, ServicePort, Underperformers, Verify, Via,
        XdpMode,
    },
    stats::evenness::{Deviation, config_reference},
};

/// Weights that differ more are more than a matter of taste where no capacity says why.
const LIKELY_RATIO: u16 = 4;
/// Weights that differ more leave the smaller backends next to nothing.
const LARGEST_RATIO: u16 = 10;
/// A ring has at least so many slots for its smallest share.
const SLOTS_FOR_THE_SMALLEST: f64 = 100.0;
/// A dead server may take so long to be noticed...
const SLOW: Duration = Duration::from_secs(10);
/// ... and never so long.
const TOO_SLOW: Duration = Duration::from_secs(30);
/// Ports of services that very likely speak HTTP.
const HTTP_PORTS: [u16; 4] = [80, 8000, 8008, 8080];

/// Everything that the configuration alone answers wrongly, by service and rule. `local` are the
/// addresses of the host that it is for, with their subnets; none where that is another host.
#[must_use]
pub fn judge(config: &Config, local: &[IpNet]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for service in &config.services {
        let found = [
            capacities(service),
            ratio(service),
            ring(service),
            spare(service),
            check(service),
            ejection(service),
            budget(service),
            peak(service),
            silence(config, service),
            addresses(config, service, local),
            path(service),
        ];
        let found = found.into_iter().flatten();
        findings.extend(found.map(|finding| finding.of(&service.name)));
    }
    if config.notify.is_empty() {
        findings.push(Finding::new(
            "L26",
            Level::Error,
            "nobody is told of alerts",
            "what goes wrong is noticed by users first",
            "add [[notify]], and ask it by 'evenkeel notify test'",
        ));
    }
    findings.extend(open_to_all(config));
    if config.data_plane.xdp_mode == XdpMode::Generic {
        findings.push(Finding::new(
            "L30",
            Level::Warning,
            "XDP is generic, in the stack",
            "a packet costs several times as much as in the driver",
            "set xdp_mode = \"native\" under [data_plane], and ask 'evenkeel doctor' what stands in \
             its way",
        ));
    }
    findings
}

/// L34: metrics and page for everybody who gets there.
fn open_to_all(config: &Config) -> Option<Finding> {
    let mut listen = config.http.listen.iter();
    let open = listen.find(|at| !at.ip().is_loopback())?;
    config.http.token.is_none().then(|| {
        Finding::new(
            "L34",
            Level::Warning,
            format!("metrics and the page are at {open}, for everybody"),
            "they name services, backends and the heaviest clients, and say what is down",
            "set token, certificate and key under [http], or listen on loopback only",
        )
    })
}

/// L4: weights against what the backends can take.
fn capacities(service: &Service) -> Vec<Finding> {
    let declared: Vec<_> = service.backends.iter().map(|b| b.capacity).collect();
    let weights = weights(service);
    if declared.iter().all(Option::is_none) {
        let in_force = || weights.iter().copied().filter(|&weight| weight > 0);
        let (Some(least), Some(most)) = (in_force().min(), in_force().max()) else {
            return Vec::new();
        };
        if least == most {
            return Vec::new();
        }
        let level = if u32::from(most) > u32::from(least) * u32::from(LIKELY_RATIO) {
            Level::Error
        } else {
            Level::Warning
        };
        return vec![Finding::new(
            "L4",
            level,
            format!("weights go from {least} to {most}, and no capacity says why"),
            "a wrong weight looks like a right one, and overloads a server unseen",
            "declare the capacity of each backend, or give them equal weights",
        )];
    }
    let capacities: Vec<u32> = declared.iter().map(|c| c.map_or(1, u32::from)).collect();
    let finding = |off: Deviation| {
        let what = format!(
            "its weight gives it {} of the load, its capacity is {} of all",
            percent(off.actual),
            percent(off.expected)
        );
        let (weight, capacity) = (weights[off.backend], capacities[off.backend]);
        Finding::new(
            "L4",
            Level::Error,
            what,
            "it gets more, or less, than it can take, while no server is down",
            format!(
                "its weight is {weight}, its capacity {capacity}: correct the one that is wrong"
            ),
        )
        .at(&service.backends[off.backend].name)
    };
    let off = config_reference(&weights, Some(&capacities));
    off.into_iter().map(finding).collect()
}

/// L5: weights far apart.
fn ratio(service: &Service) -> Vec<Finding> {
    let weights = weights(service);
    let in_force = || weights.iter().copied().filter(|&weight| weight > 0);
    let (Some(least), Some(most)) = (in_force().min(), in_force().max()) else {
        return Vec::new();
    };
    if u32::from(most) <= u32::from(least) * u32::from(LARGEST_RATIO) {
        return Vec::new();
    }
    vec![Finding::new(
        "L5",
        Level::Warning,
        format!("the largest weight is {most}, the smallest {least}"),
        "when the large backend fails, the small ones get many times what they are used to",
        "use backends of similar size, or several services",
    )]
}

/// L6: a ring that is small for its smallest share.
fn ring(service: &Service) -> Vec<Finding> {
    // A ring of our own choice is as large as evenness asks.
    let RingSize::Fixed(slots) = service.ring_slots else {
        return Vec::new();
    };
    let weights = weights(service);
    let total: f64 = weights.iter().copied().map(f64::from).sum();
    let Some(least) = weights.iter().copied().filter(|&weight| weight > 0).min() else {
        return Vec::new();
    };
    let needed = SLOTS_FOR_THE_SMALLEST * total / f64::from(least);
    if slots.count() as f64 >= needed {
        return Vec::new();
    }
    vec![Finding::new(
        "L6",
        Level::Warning,
        format!(
            "the ring has {} slots, and its smallest share asks for {needed:.0}",
            slots.count()
        ),
        "a share is rounded to whole slots",
        "leave ring_slots out, or give more",
    )]
}

/// L8: no one to take over.
fn spare(service: &Service) -> Vec<Finding> {
    let backends = weights(service)
        .iter()
        .filter(|&&weight| weight > 0)
        .count();
    let (level, what, why) = match backends {
        1 => (
            Level::Error,
            "one backend has a weight above zero",
            "when it fails, nobody serves",
        ),
        2 => (
            Level::Warning,
            "two backends have a weight above zero",
            "when one fails, the other gets twice its load, and nobody can be compared",
        ),
        _ => return Vec::new(),
    };
    vec![Finding::new("L8", level, what, why, "add backends")]
}

/// L9, L10, L12, L13 and L33: how the backends are checked.
fn check(service: &Service) -> Vec<Finding> {
    let Some(check) = &service.health else {
        return vec![Finding::new(
            "L9",
            Level::Error,
            "the backends are not checked",
            "a dead server goes on getting its share of the load",
            "add [services.health]",
        )];
    };
    let mut findings = Vec::new();
    let speaks_http = service.key.protocol == Protocol::Tcp
        && matches!(service.key.port, ServicePort::Exact(port) if HTTP_PORTS.contains(&port.get()));
    if check.kind == ProbeKind::Tcp && speaks_http {
        findings.push(Finding::new(
            "L10",
            Level::Warning,
            format!(
                "port {} is HTTP's, and the check only opens a connection",
                service.key.port
            ),
            "a server that hangs still opens connections: its kernel does that",
            "use a check of type = \"http\"",
        ));
    }
    if check.kind.tls().is_some_and(|tls| tls.verify == Verify::No) {
        findings.push(Finding::new(
            "L33",
            Level::Warning,
            "the check takes any certificate",
            "an expired certificate, or another server's, turns clients away while the backend is up",
            "remove verify = false, and name the CA in health.ca where it is your own",
        ));
    }
    let slow = check.detection();
    if slow > SLOW {
        findings.push(Finding::new(
            "L12",
            if slow > TOO_SLOW {
                Level::Error
            } else {
                Level::Warning
            },
            format!(
                "a dead server is noticed after {} at worst",
                humantime::format_duration(slow)
            ),
            "its clients wait for as long",
            "make interval × fall + timeout shorter, or set fast_interval: the interval once a probe \
             has failed",
        ));
    }
    for (word, number, why) in [
        ("fall", check.fall, "one lost packet takes a server out"),
        (
            "rise",
            check.rise,
            "one lucky answer brings a server back in",
        ),
    ] {
        if number.get() == 1 {
            findings.push(Finding::new(
                "L13",
                Level::Warning,
                format!("{word} is 1"),
                why,
                format!("set {word} = 2 or more"),
            ));
        }
    }
    findings
}

/// L15 and L31: whether all may be taken out, and how backends come back.
fn ejection(service: &Service) -> Vec<Finding> {
    let options = &service.options;
    let mut findings = Vec::new();
    if options.panic_below.fraction() <= 0.0 {
        findings.push(Finding::new(
            "L15",
            Level::Error,
            "panic is off",
            "when most backends fail their checks, the rest get all of the load, and fail too",
            "leave panic_below at 0.5",
        ));
    }
    if service.health.is_some() && options.slow_start.is_none() {
        findings.push(Finding::new(
            "L31",
            Level::Info,
            "a backend that comes back gets its whole share at once",
            "one with cold caches fails again under it",
            "set slow_start = \"30s\"",
        ));
    }
    findings
}

/// L16: a budget that no backend fits into.
fn budget(service: &Service) -> Vec<Finding> {
    let ejection = &service.options.ejection;
    let weights = weights(service);
    let total: f64 = weights.iter().copied().map(f64::from).sum();
    let in_force: Vec<u16> = weights.into_iter().filter(|&weight| weight > 0).collect();
    let looks = service.health.is_some() && ejection.underperformers == Underperformers::Demote;
    // Fewer than three are never demoted, whatever the budget.
    let (true, 3.., Some(least)) = (looks, in_force.len(), in_force.iter().min()) else {
        return Vec::new();
    };
    let (share, budget) = (f64::from(*least) / total, ejection.budget.fraction());
    if share <= budget {
        return Vec::new();
    }
    vec![Finding::new(
        "L16",
        Level::Warning,
        format!(
            "the budget of demotions is {} of the weight, the smallest backend has {}",
            percent(budget),
            percent(share)
        ),
        "one backend may be demoted while nothing else is missing, and none beside it",
        format!(
            "set budget = {:.2} or more under [services.ejection]",
            (share * 100.0).ceil() / 100.0
        ),
    )]
}

/// L14: a peak that all but one cannot take.
fn peak(service: &Service) -> Vec<Finding> {
    let Some(peak) = service.options.traffic.peak_load else {
        return Vec::new();
    };
    // Drained ones take nothing. None may be missing, by validation.
    let capacities = service.backends.iter().filter(|b| b.weight.number() > 0);
    let capacities: Vec<u64> = capacities
        .map(|backend| backend.capacity.map_or(0, |number| number.get().into()))
        .collect();
    let largest = capacities.iter().max().copied().unwrap_or(0);
    let rest = capacities.iter().sum::<u64>() - largest;
    if u64::from(peak.get()) <= rest {
        return Vec::new();
    }
    vec![Finding::new(
        "L14",
        Level::Error,
        format!("the peak is {peak}; without the largest backend, the others can take {rest}"),
        "when one server fails at the busiest moment, the others follow it",
        "add backends, or correct peak_load or a capacity that is wrong",
    )]
}

/// L24: flows that are forgotten while their connection lives.
fn silence(config: &Config, service: &Service) -> Vec<Finding> {
    let (key, idle) = match service.key.protocol {
        Protocol::Tcp => ("idle_tcp", config.tracking.idle_tcp),
        Protocol::Udp => ("idle_udp", config.tracking.idle_udp),
    };
    let Some(keepalive) = service.options.traffic.keepalive.filter(|&of| idle < of) else {
        return Vec::new();
    };
    let [idle, keepalive] = [idle, keepalive].map(humantime::format_duration);
    vec![Finding::new(
        "L24",
        Level::Warning,
        format!("a connection may be silent for {keepalive}, and is forgotten after {idle}"),
        "a remembered flow that is forgotten goes to its slot's owner, which may not know it",
        format!("set {key} = \"{keepalive}\" or more under [tracking]"),
    )]
}

/// L17: a VIP where it must not be.
fn addresses(config: &Config, service: &Service, local: &[IpNet]) -> Vec<Finding> {
    let vip = service.key.vip;
    let finding = |what: String| {
        Finding::new(
            "L17",
            Level::Error,
            what,
            "whoever answers for the address first gets the packets, past the load balancer",
            "give the VIP an address of its own, routed to this host",
        )
    };
    if local.iter().any(|net| net.addr() == vip) {
        return vec![finding(format!("{vip} is an address of this host"))];
    }
    let backends = config.services.iter().flat_map(|service| {
        let names = service.backends.iter();
        names.map(|backend| (&service.name, &backend.name, backend.address))
    });
    let mut findings = Vec::new();
    let mut inside = false;
    for (of, name, address) in backends {
        if address == vip {
            findings.push(finding(format!(
                "{vip} is the address of the backend {of}/{name}"
            )));
        }
        let shares = |net: &&IpNet| net.contains(&vip) && net.contains(&address) && !is_host(net);
        inside |= *of == service.name && local.iter().any(|net| shares(&net));
    }
    if findings.is_empty() && inside {
        findings.push(finding(format!(
            "{vip} is inside the subnet of its backends"
        )));
    }
    findings
}

/// Whether a subnet is a single address.
fn is_host(net: &IpNet) -> bool {
    match net.addr() {
        IpAddr::V4(_) => net.prefix_len() == 32,
        IpAddr::V6(_) => net.prefix_len() == 128,
    }
}

/// L25: a check that goes another way than traffic.
fn path(service: &Service) -> Vec<Finding> {
    let check = service.health.as_ref();
    let Some(check) = check.filter(|check| check.via == Via::Direct) else {
        return Vec::new();
    };
    if service.mode.translates() {
        return Vec::new();
    }
    let remedy = match check.kind {
        ProbeKind::Icmp | ProbeKind::Command(_) => "use a check of another type",
        _ => "remove via = \"direct\"",
    };
    vec![Finding::new(
        "L25",
        Level::Warning,
        format!(
            "mode {} sends traffic to the VIP, the check goes to the backend's own address",
            service.mode
        ),
        "a backend without the VIP, or without its tunnel, looks healthy",
        remedy,
    )]
}

#[cfg(test)]
mod tests;
