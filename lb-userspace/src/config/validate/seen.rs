//! What the parts of a file say together.

use std::{collections::BTreeMap, net::IpAddr, ops::Range};

use crate::{
    config::findings::Report,
    model::{Protocol, ServiceKey, ServicePort, Snat},
};

/// Most prefixes in the lists of a file: half of what the tables hold, so that a change of all of
/// them fits beside the old ones.
const PREFIXES: usize = lb_common::layout::SOURCES / 2;

/// What stands in a file, with its places.
#[derive(Default)]
pub(super) struct Seen {
    /// Names of services, with their first place.
    pub(super) names: BTreeMap<String, Range<usize>>,
    /// Keys of services, with their first place.
    pub(super) keys: BTreeMap<ServiceKey, Range<usize>>,
    /// VIPs, with their first place.
    pub(super) vips: BTreeMap<IpAddr, Range<usize>>,
    /// Backends, with their fields.
    pub(super) backends: Vec<(IpAddr, String, Range<usize>)>,
    /// Backends of mode `nat`.
    pub(super) nat: Vec<NatEnd>,
    /// Services of mode `snat`: VIP, field of the mode and its place.
    pub(super) snat: Vec<(IpAddr, String, Range<usize>)>,
    /// How many prefixes all lists have.
    pub(super) prefixes: usize,
}

/// A backend of mode `nat`, as far as its replies tell what they are replies to.
pub(super) struct NatEnd {
    pub(super) address: IpAddr,
    /// The port that it is sent to.
    pub(super) port: ServicePort,
    pub(super) service: ServiceKey,
    pub(super) field: String,
    pub(super) at: Range<usize>,
}

impl NatEnd {
    const fn end(&self) -> (IpAddr, Protocol) {
        (self.address, self.service.protocol)
    }

    /// Whether a reply may be to a packet of either service.
    fn meets(&self, other: &Self) -> bool {
        let apart = |any: &Self, exact: &Self| {
            any.service.vip == exact.service.vip && exact.service.port == exact.port
        };
        match (self.port, other.port) {
            (own, others) if own == others => true,
            // Packets to this port of the VIP are never the other service's.
            (ServicePort::Any, ServicePort::Exact(_)) => !apart(self, other),
            (ServicePort::Exact(_), ServicePort::Any) => !apart(other, self),
            _ => false,
        }
    }
}

impl Seen {
    /// Checks what needs to know all services.
    pub(super) fn together(&self, report: &mut Report<'_>) {
        self.vips_as_backends(report);
        self.nat_replies(report);
        if self.prefixes > PREFIXES {
            report.add(
                0..0,
                "services",
                format!("there are {} allowed and denied prefixes", self.prefixes),
                format!("give at most {PREFIXES} in all: join neighbouring ones"),
            );
        }
    }

    /// A backend at a VIP would be sent what it sends itself.
    fn vips_as_backends(&self, report: &mut Report<'_>) {
        for (address, field, at) in &self.backends {
            if let Some(vip) = self.vips.get(address) {
                let line = report.line(vip);
                report.add(
                    at.clone(),
                    field,
                    format!("{address} is the VIP of the service in line {line}"),
                    "give the backend's own address",
                );
            }
        }
    }

    /// Mode `nat` remembers no flow: a reply's source alone must tell its VIP.
    fn nat_replies(&self, report: &mut Report<'_>) {
        let mut ends: BTreeMap<(IpAddr, Protocol), Vec<&NatEnd>> = BTreeMap::new();
        for end in &self.nat {
            let others = ends.entry(end.end()).or_default();
            if let Some(other) = others.iter().find(|other| end.meets(other)) {
                let line = report.line(&other.at);
                report.add(
                    end.at.clone(),
                    &end.field,
                    format!(
                        "replies from {} port {} may be those of {} (line {line}) too",
                        end.address, end.port, other.service
                    ),
                    "give the backend a port of its own for each service, or use mode = \"snat\"",
                );
            }
            others.push(end);
        }
    }

    /// Checks where `snat` sends from: the pool, if there is one, and its place.
    pub(super) fn pool(&self, pool: Option<(&Snat, Range<usize>)>, report: &mut Report<'_>) {
        let addresses: &[IpAddr] = pool.as_ref().map_or(&[], |(snat, _)| &snat.addresses);
        for (vip, field, at) in &self.snat {
            if !addresses.iter().any(|own| own.is_ipv4() == vip.is_ipv4()) {
                report.add(
                    at.clone(),
                    field,
                    format!("there is no {} address to send from", family(*vip)),
                    "add one to addresses in [snat]",
                );
            }
        }
        let Some((snat, at)) = pool else {
            return;
        };
        for address in &snat.addresses {
            let backend = self
                .backends
                .iter()
                .find(|(backend, ..)| backend == address);
            let (what, other) = if let Some(vip) = self.vips.get(address) {
                ("the VIP of the service", vip)
            } else if let Some((_, _, backend)) = backend {
                ("the backend", backend)
            } else {
                continue;
            };
            let line = report.line(other);
            report.add(
                at.clone(),
                "snat.addresses",
                format!("{address} is {what} in line {line}"),
                "give an address that nothing but the load balancer uses",
            );
        }
    }
}

/// The name of an address's family.
pub(super) const fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}
