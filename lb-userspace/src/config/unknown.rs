//! Keys that the file has and Evenkeel does not.

use std::ops::Range;

use serde_ignored::Path;
use toml::de::{DeTable, DeValue};

use super::{findings::Report, raw};

/// The steps from the top of the file to a key.
pub(super) fn segments(path: &Path<'_>) -> Vec<String> {
    let (parent, own) = match path {
        Path::Root => return Vec::new(),
        Path::Seq { parent, index } => (parent, Some(index.to_string())),
        Path::Map { parent, key } => (parent, Some(key.clone())),
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => (parent, None),
    };
    let mut steps = segments(parent);
    // What `Spanned` calls its own field is no part of the file.
    steps.extend(own.filter(|step| !step.starts_with("$__")));
    steps
}

/// Reports each unknown key at its place, with the known key that is nearest.
pub(super) fn report(text: &str, unknown: &[Vec<String>], report: &mut Report<'_>) {
    let Ok(document) = DeTable::parse(text) else {
        return;
    };
    for steps in unknown {
        let Some((key, table)) = steps.split_last() else {
            continue;
        };
        let known = keys(table);
        let at = place(document.get_ref(), steps).unwrap_or(0..0);
        // A date or time looks like a table with one strange key, whose name is left out here.
        if known.contains(&key.as_str()) {
            report.add(
                at,
                &field(steps),
                "is a date or time",
                "write it as a table",
            );
            continue;
        }
        let nearest = known
            .iter()
            .map(|candidate| (strsim::jaro_winkler(key, candidate), candidate))
            .filter(|(likeness, _)| *likeness > 0.8)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let remedy = match nearest {
            Some((_, nearest)) => format!("did you mean '{nearest}'?"),
            None => format!("remove it; known here: {}", known.join(", ")),
        };
        report.add(at, &field(steps), format!("unknown key '{key}'"), remedy);
    }
}

fn keys(table: &[String]) -> &'static [&'static str] {
    let names: Vec<&str> = table.iter().map(String::as_str).collect();
    match names.as_slice() {
        ["data_plane"] => raw::DataPlane::KEYS,
        ["admin"] => raw::Admin::KEYS,
        ["snat"] => raw::Snat::KEYS,
        ["tunnel"] => raw::Tunnel::KEYS,
        ["tracking"] => raw::Tracking::KEYS,
        ["state"] => raw::State::KEYS,
        ["audit"] => raw::Audit::KEYS,
        ["incidents"] => raw::Incidents::KEYS,
        ["http"] => raw::Http::KEYS,
        ["notify", _] => raw::Notify::KEYS,
        ["notify", _, "secret" | "url"] | ["notify", _, "headers", _] | ["http", "token"] => {
            raw::Secret::KEYS
        }
        ["services", _] => raw::Service::KEYS,
        ["services", _, "new_connections_per_source"] => raw::ConnectionLimit::KEYS,
        ["services", _, "quic"] => raw::Quic::KEYS,
        ["services", _, "health"] => raw::Health::KEYS,
        ["services", _, "ejection"] => raw::Ejection::KEYS,
        ["services", _, "agent"] => raw::Agent::KEYS,
        ["services", _, "backends", _] => raw::Backend::KEYS,
        _ => raw::Config::KEYS,
    }
}

/// Writes `services[0].backends[1].wieght`.
fn field(steps: &[String]) -> String {
    let mut text = String::new();
    for step in steps {
        if step.bytes().all(|byte| byte.is_ascii_digit()) {
            text.extend(["[", step.as_str(), "]"]);
        } else {
            text.push_str(if text.is_empty() { "" } else { "." });
            text.push_str(step);
        }
    }
    text
}

fn place(table: &DeTable<'_>, steps: &[String]) -> Option<Range<usize>> {
    let (first, rest) = steps.split_first()?;
    let (key, value) = table
        .iter()
        .find(|(key, _)| key.get_ref() == first.as_str())?;
    match (value.get_ref(), rest) {
        (_, []) => Some(key.span()),
        (DeValue::Table(inner), _) => place(inner, rest),
        (DeValue::Array(items), [index, rest @ ..]) => {
            match items.get(index.parse::<usize>().ok()?)?.get_ref() {
                DeValue::Table(inner) => place(inner, rest),
                _ => None,
            }
        }
        _ => None,
    }
}
