//! Reports without clients: of their addresses the networks are left.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::Value;

use super::material::{Last, Material};
use crate::{
    addresses,
    incident::{Book, Incident},
    journal::Record,
};

impl Material {
    /// Leaves of clients' addresses their networks: of all that no configuration names.
    pub(super) fn redact(&mut self, configurations: &[String]) {
        let texts = configurations.iter();
        let known: BTreeSet<IpAddr> = texts.flat_map(|text| addresses::named(text)).collect();
        let of_host = |address: IpAddr| address.is_loopback() || address.is_unspecified();
        let instead = |address: IpAddr| {
            (!known.contains(&address) && !of_host(address)).then(|| addresses::network(address))
        };
        let last = |of: &mut Last| {
            let rows = [&mut of.publication, &mut of.wish, &mut of.audit];
            rows.into_iter()
                .flatten()
                .for_each(|row| discreet(row, &instead));
        };
        last(&mut self.before);
        last(&mut self.mended);
        for row in [&mut self.start, &mut self.change].into_iter().flatten() {
            discreet(row, &instead);
        }
        for row in &mut self.rows {
            discreet(row, &instead);
        }
        for told in &mut self.scope.incidents {
            for row in &mut told.steps {
                discreet(row, &instead);
            }
            told.incident =
                of_steps(&told.steps, &told.incident.id).unwrap_or_else(|| told.incident.clone());
        }
    }
}

/// Takes addresses out of a row.
fn discreet(row: &mut Record, instead: &impl Fn(IpAddr) -> Option<String>) {
    row.message = addresses::replaced(&row.message, instead);
    within(&mut row.detail, instead);
}

fn within(value: &mut Value, instead: &impl Fn(IpAddr) -> Option<String>) {
    match value {
        Value::String(text) => *text = addresses::replaced(text, instead),
        Value::Array(all) => all.iter_mut().for_each(|one| within(one, instead)),
        Value::Object(all) => all.values_mut().for_each(|one| within(one, instead)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn of_steps(steps: &[Record], id: &str) -> Option<Incident> {
    let book = Book::read(0, steps.iter().map(|row| (row.at_ms, &row.detail)));
    book.named(id).cloned()
}
