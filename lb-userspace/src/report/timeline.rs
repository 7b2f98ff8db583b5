//! All that the journal tells of the time, with runs of the same folded.

use super::{Entry, material::Material, references::References};
use crate::journal::Record;

/// So many events in a row that are alike are told as one.
const RUN: usize = 3;

/// The timeline.
pub(super) fn timeline(of: &Material, refs: &mut References) -> Vec<Entry> {
    let mut rows: Vec<&Record> = of.rows.iter().collect();
    // Events are numbered as they are written; some are dated by what they are about.
    rows.sort_by_key(|row| (row.at_ms, row.id));
    let mut entries = Vec::new();
    for run in rows.chunk_by(|a, b| shape(a) == shape(b)) {
        if run.len() < RUN {
            entries.extend(run.iter().map(|row| entry(std::slice::from_ref(row), refs)));
        } else {
            entries.push(entry(run, refs));
        }
    }
    entries
}

/// What is alike in events of a run: all but numbers.
fn shape(row: &Record) -> (&str, &str, Option<&str>, Option<&str>, &str, String) {
    let mut message = String::new();
    for c in row.message.chars() {
        match c {
            '0'..='9' if message.ends_with('#') => {}
            '0'..='9' => message.push('#'),
            other => message.push(other),
        }
    }
    (
        &row.kind,
        &row.level,
        row.service.as_deref(),
        row.backend.as_deref(),
        &row.actor,
        message,
    )
}

fn entry(run: &[&Record], refs: &mut References) -> Entry {
    let (first, last) = (run[0], run[run.len() - 1]);
    let mut ids = vec![refs.row(first)];
    if last.id != first.id {
        ids.push(refs.row(last));
    }
    Entry {
        at_ms: first.at_ms,
        until_ms: last.at_ms,
        count: run.len(),
        kind: first.kind.clone(),
        level: first.level.clone(),
        service: first.service.clone(),
        backend: first.backend.clone(),
        actor: first.actor.clone(),
        text: first.message.clone(),
        refs: ids,
    }
}
