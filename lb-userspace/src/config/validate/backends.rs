//! The backends of a service.

use std::{collections::BTreeMap, num::NonZeroU32, ops::Range, sync::Arc};

use super::{NAME, Seen, field::Fields, held, name, unicast};
use crate::{
    config::{
        findings::Report,
        raw::{self, Held, Tables},
    },
    model::{Backend, Weight},
};

/// What a service's backends say together, as far as it can be read.
#[derive(Default)]
struct Peers {
    names: BTreeMap<String, Range<usize>>,
    addresses: BTreeMap<String, Range<usize>>,
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
            backend(&table.0, at, &path, &mut peers, seen, report)
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
    if let Some(address) = address {
        seen.backends.push((address, format!("{path}.address"), at));
    }
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
    })
}
