//! The backends of a service.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
    ops::Range,
    sync::Arc,
};

use super::{
    NAME,
    field::{Fields, place},
    held, name,
    seen::{NatEnd, Seen, family},
    service::Known,
    unicast,
};
use crate::{
    config::{
        findings::Report,
        raw::{self, Held, Tables},
    },
    model::{Backend, Mode, ServerId, ServicePort, Weight},
};

/// What a service's backends say together, as far as it can be read.
#[derive(Default)]
struct Peers {
    names: BTreeMap<String, Range<usize>>,
    addresses: BTreeMap<String, Range<usize>>,
    server_ids: BTreeMap<String, Range<usize>>,
    /// Those whose weight is 0.
    idle: usize,
    /// Those that declare a capacity.
    declared: usize,
    /// Those that are tables.
    count: usize,
}

/// Checks the backends of the service at `at`.
pub(super) fn check(
    raw: &Tables<raw::Backend>,
    path: &str,
    at: &Range<usize>,
    service: &Known,
    seen: &mut Seen,
    report: &mut Report<'_>,
) -> Option<Vec<Backend>> {
    let field = format!("{path}.backends");
    let tables = match held(raw, &field, "write each as [[services.backends]]", report)? {
        Some((tables, _)) if !tables.is_empty() => tables,
        _ => {
            let remedy = "add at least one [[services.backends]]";
            report.add(at.clone(), &field, "there is none", remedy);
            return None;
        }
    };
    let mut peers = Peers::default();
    let backends: Vec<Option<Backend>> = tables
        .iter()
        .enumerate()
        .map(|(index, table)| {
            let path = format!("{field}[{index}]");
            let (table, at) = held(table, &path, "write it as [[services.backends]]", report)??;
            backend(&table.0, at, &path, service, &mut peers, seen, report)
        })
        .collect();
    if peers.idle == tables.len() {
        report.add(
            at.clone(),
            &field,
            "every weight is 0: no backend would take a connection",
            "give at least one backend a weight of 1 or more",
        );
    }
    let Peers {
        declared, count, ..
    } = peers;
    if declared != 0 && declared != count {
        report.add(
            at.clone(),
            &field,
            format!("{declared} of {count} backends declare a capacity"),
            "declare it for all of them or for none: they are compared with each other",
        );
    }
    backends.into_iter().collect()
}

fn backend(
    raw: &raw::Backend,
    at: Range<usize>,
    path: &str,
    service: &Known,
    peers: &mut Peers,
    seen: &mut Seen,
    report: &mut Report<'_>,
) -> Option<Backend> {
    let mut fields = Fields::new(path, at.clone(), report);
    let address = fields.required(
        "address",
        &raw.address,
        "give one address, as in \"10.0.0.11\"",
        |text| unicast(text),
    );
    let address = address.filter(|address| {
        let text = address.to_string();
        fields.unique("address", &raw.address, &text, &mut peers.addresses)
    });
    let port = port(raw, &mut fields, service);
    if let Some(address) = address {
        reachable(raw, address, &mut fields, service);
        let field = format!("{path}.address");
        if let (Some(Mode::Nat), Some(key), Some(port)) = (service.mode, service.key(), port) {
            seen.nat.push(NatEnd {
                address,
                port: port.map_or(key.port, ServicePort::Exact),
                service: key,
                field: field.clone(),
                at: at.clone(),
            });
        }
        seen.backends.push((address, field, at));
    }
    let server_id = server_id(raw, &mut fields, service, peers);
    let name = fields.optional("name", &raw.name, NAME, |text| name(text, "._-:"));
    let name = match (name, address) {
        (Some(Some(name)), _) => Some(name),
        (Some(None), Some(address)) => Some(Arc::from(address.to_string())),
        _ => None,
    };
    let name = name.filter(|name| fields.unique("name", &raw.name, name, &mut peers.names));
    let weight = fields.number(
        "weight",
        &raw.weight,
        i64::from(Weight::DEFAULT.number()),
        0..=i64::from(Weight::MAX),
        " (0 takes no new connections)",
    );
    let shares = "give a whole number from 1 to 1000000";
    let capacity = fields.optional("capacity", &raw.capacity, shares, |&number| {
        u32::try_from(number)
            .ok()
            .filter(|number| *number <= 1_000_000)
            .and_then(NonZeroU32::new)
            .ok_or_else(|| format!("is {number}"))
    });
    peers.count += 1;
    peers.idle += usize::from(weight == Some(0));
    peers.declared += usize::from(!matches!(raw.capacity.held(), Held::Missing));
    let weight = weight.and_then(|weight| Weight::new(u16::try_from(weight).ok()?));
    Some(Backend {
        name: name?,
        address: address?,
        weight: weight?,
        capacity: capacity?,
        port: port?,
        server_id: server_id?,
    })
}

/// Only a tunnel leads from one family to the other.
fn reachable(raw: &raw::Backend, address: IpAddr, fields: &mut Fields<'_, '_>, service: &Known) {
    if let (Some(vip), Some(mode), Held::Good(_, at)) =
        (service.vip, service.mode, raw.address.held())
        && family(vip) != family(address)
        && !mode.tunnels()
    {
        let (own, vips) = (family(address), family(vip));
        fields.report(
            at,
            "address",
            format!("{address} is {own}, the VIP is {vips}, which mode {mode} cannot join"),
            &format!("give an {vips} address, or use mode = \"ipip\" or \"gue\""),
        );
    }
}

/// The port that the backend is sent to.
#[expect(
    clippy::option_option,
    reason = "wrong, missing and there are three things"
)]
fn port(
    raw: &raw::Backend,
    fields: &mut Fields<'_, '_>,
    service: &Known,
) -> Option<Option<NonZeroU16>> {
    let port = fields.port("port", &raw.port)?;
    let (Some(number), Some(at)) = (port, place(&raw.port)) else {
        return Some(port);
    };
    match (service.mode, service.port) {
        (Some(mode), _) if !mode.translates() => fields.report(
            at,
            "port",
            format!("mode {mode} does not change ports"),
            "remove it, or use mode = \"nat\" or \"snat\"",
        ),
        (Some(Mode::Nat), Some(ServicePort::Any)) => fields.report(
            at,
            "port",
            format!(
                "all ports of the VIP would meet at {number}, and replies would not tell which"
            ),
            "remove it, give the service one port, or use mode = \"snat\"",
        ),
        _ => {}
    }
    Some(port)
}

/// The backend's QUIC server ID, which each backend of a service has or none.
#[expect(
    clippy::option_option,
    reason = "wrong, missing and there are three things"
)]
fn server_id(
    raw: &raw::Backend,
    fields: &mut Fields<'_, '_>,
    service: &Known,
    peers: &mut Peers,
) -> Option<Option<ServerId>> {
    let leaf = &raw.server_id;
    let Some(length) = service.server_ids? else {
        if let Some(at) = place(leaf) {
            fields.report(
                at,
                "server_id",
                "the service does not look at connection IDs",
                "remove it, or add quic = { server_id_length = … } to the service",
            );
        }
        return Some(None);
    };
    let digits = 2 * usize::from(length.bytes());
    let remedy = format!(
        "give {digits} hexadecimal digits, as in \"{:0digits$x}\"",
        0x2a
    );
    let id = fields.required("server_id", leaf, &remedy, |text| {
        let bytes = hex::decode(text).ok();
        bytes
            .filter(|bytes| bytes.len() == usize::from(length.bytes()))
            .and_then(|bytes| ServerId::new(&bytes))
            .ok_or_else(|| format!("is {text:?}"))
    })?;
    let first = fields.unique("server_id", leaf, &id.to_string(), &mut peers.server_ids);
    first.then_some(Some(id))
}
