//! When what happened: an incident's moments, and before, during and after.

use super::{
    Figure, IncidentPart, Moment, Phase,
    material::{Material, Told},
    references::References,
    span, time,
};
use crate::{
    incident::{Sign, What},
    journal::Record,
};

/// Before, during and after; one phase where there is no incident.
pub(super) fn phases(of: &Material, refs: &mut References) -> Vec<Phase> {
    let scope = &of.scope;
    let phase = |name, from_ms, until_ms, refs| Phase {
        name,
        from_ms,
        until_ms,
        refs,
    };
    let Some(start_ms) = scope.start_ms() else {
        return vec![phase("during", scope.from_ms, scope.until_ms, Vec::new())];
    };
    let (start_ms, end_ms) = (
        start_ms.clamp(scope.from_ms, scope.until_ms),
        scope.end_ms().unwrap_or(scope.until_ms),
    );
    let end_ms = end_ms.clamp(start_ms, scope.until_ms);
    let first: Vec<String> = scope
        .incidents
        .iter()
        .filter(|told| told.incident.start_ms <= start_ms)
        .filter_map(|told| Some(refs.row(beginning(told)?)))
        .collect();
    let ends = scope.incidents.iter().filter_map(Told::end);
    let last = ends.max_by_key(|row| row.at_ms);
    let last: Vec<String> = last.map(|row| refs.row(row)).into_iter().collect();
    let both = [first.clone(), last.clone()].concat();
    let all = [
        phase("before", scope.from_ms, start_ms, first),
        phase("during", start_ms, end_ms, both),
        phase("after", end_ms, scope.until_ms, last),
    ];
    all.into_iter()
        .filter(|phase| phase.from_ms < phase.until_ms)
        .collect()
}

/// The alerts of a step.
pub(super) fn signs(step: &Record) -> Vec<Sign> {
    serde_json::from_value(step.detail["alerts"].clone()).unwrap_or_default()
}

/// The step that tells the beginning.
fn beginning(told: &Told) -> Option<&Record> {
    let start_ms = told.incident.start_ms;
    let tells = |step: &&Record| signs(step).iter().any(|sign| sign.since_ms == start_ms);
    let found = told.steps.iter().find(tells);
    found.or_else(|| told.first(What::Open))
}

/// Whether a notification that was delivered tells of one of these alerts.
pub(super) fn tells_of(row: &Record, told: &Told) -> bool {
    let alerts = row.detail["alerts"].as_array();
    let is_own = |alert: &serde_json::Value| {
        let labels = &alert["labels"];
        let label = |name: &str| labels[name].as_str();
        alert["resolved"] == false
            && told.incident.signs().any(|sign| {
                label("alertname") == Some(&sign.name)
                    && label("severity") == Some(&sign.severity)
                    && label("service") == sign.service.as_deref()
                    && label("backend") == sign.backend.as_deref()
            })
    };
    row.kind == "notification" && alerts.is_some_and(|all| all.iter().any(is_own))
}

/// All incidents, with their moments.
pub(super) fn incidents(of: &Material, refs: &mut References) -> Vec<IncidentPart> {
    let told = of.scope.incidents.iter();
    told.map(|told| part(of, told, refs)).collect()
}

fn part(of: &Material, told: &Told, refs: &mut References) -> IncidentPart {
    let incident = &told.incident;
    let opened = told.first(What::Open);
    let notified = of
        .rows
        .iter()
        .find(|row| tells_of(row, told) && row.detail["delivered"] == true);
    let mitigated = incident
        .mitigated_ms
        .and_then(|_| told.last(What::Mitigated));
    let by = |row: Option<&Record>| row.map(|row| format!("by {}", row.actor));
    let receiver = |row: &Record| {
        let name = row.detail["receiver"].as_str().unwrap_or("a receiver");
        format!("{name} took the first notification")
    };
    let start = beginning(told);
    let start_text = match signs_since(start, incident.start_ms) {
        Some(title) => format!("as the detector of {title} has it"),
        None => "when it was opened: no detector knows".to_owned(),
    };
    let found = [
        ("start", start, Some(incident.start_ms), Some(start_text)),
        ("detected", opened, opened.map(|row| row.at_ms), by(opened)),
        (
            "notified",
            notified,
            notified.map(|row| row.at_ms),
            notified.map(receiver),
        ),
        (
            "acknowledged",
            told.first(What::Ack),
            told.first(What::Ack).map(|row| row.at_ms),
            by(told.first(What::Ack)),
        ),
        (
            "mitigated",
            mitigated,
            mitigated.map(|row| row.at_ms),
            Some("all of its alerts were over".to_owned()).filter(|_| mitigated.is_some()),
        ),
        (
            "resolved",
            told.last(What::Close),
            incident.closed_ms,
            by(told.last(What::Close)),
        ),
    ];
    let times: Vec<Moment> = found
        .into_iter()
        .map(|(name, row, at_ms, text)| Moment {
            name,
            at_ms: at_ms.filter(|_| row.is_some()),
            text: text.unwrap_or_else(|| "not known to the journal".to_owned()),
            refs: row.map(|row| refs.row(row)).into_iter().collect(),
        })
        .collect();
    IncidentPart {
        id: incident.id.clone(),
        service: incident.service.clone(),
        drill: incident.drill.clone(),
        state: incident.shown().state,
        text: incident.text.clone(),
        durations: durations(&times),
        times,
        refs: opened.map(|row| refs.row(row)).into_iter().collect(),
    }
}

/// The alert whose detector knows the beginning.
fn signs_since(row: Option<&Record>, start_ms: u64) -> Option<String> {
    let signs = signs(row?);
    let sign = signs.iter().find(|sign| sign.since_ms == start_ms)?;
    Some(sign.title())
}

fn durations(times: &[Moment]) -> Vec<Figure> {
    let of = |name: &str| {
        times
            .iter()
            .find(|of| of.name == name && of.at_ms.is_some())
    };
    let pairs = [
        ("time to detect", "start", "detected"),
        ("time to notify", "detected", "notified"),
        ("time to acknowledge", "detected", "acknowledged"),
        ("time to mitigate", "detected", "mitigated"),
        ("time of harm", "start", "mitigated"),
        ("time to resolve", "start", "resolved"),
    ];
    let duration = |(name, from, to): (&str, &str, &str)| {
        let (from, to) = (of(from)?, of(to)?);
        let ms = to.at_ms?.saturating_sub(from.at_ms?);
        let mut refs = from.refs.clone();
        refs.extend(to.refs.iter().filter(|id| !from.refs.contains(id)).cloned());
        Some(Figure {
            name: name.to_owned(),
            value: ms as f64 / 1000.0,
            unit: "s",
            // The start is a detector's estimate.
            estimate: from.name == "start",
            text: format!("{} ({} to {})", span(ms), from.name, to.name),
            refs,
        })
    };
    pairs.into_iter().filter_map(duration).collect()
}

/// A moment for people.
pub(super) fn shown(moment: &Moment) -> String {
    moment.at_ms.map_or_else(|| "–".to_owned(), time)
}
