//! Why, as the verdict had it while it lasted, with what it had ruled out.

use serde_json::Value;

use super::{
    CausePart, Fact, Phase, header,
    material::{Material, Told},
    references::References,
    span,
};
use crate::{incident::What, journal::Record};

/// The causes: one for each service whose verdict was skewed meanwhile, and one for each incident that
/// no verdict explains.
pub(super) fn causes(of: &Material, phases: &[Phase], refs: &mut References) -> Vec<CausePart> {
    let during = phases.iter().find(|phase| phase.name == "during");
    let until_ms = during.map_or(of.scope.until_ms, |phase| phase.until_ms);
    let mut causes: Vec<CausePart> = of
        .scope
        .services
        .iter()
        .filter_map(|service| by_verdict(of, service, until_ms, refs))
        .collect();
    for told in &of.scope.incidents {
        let known = causes.iter_mut().find(|cause| {
            cause.service == told.incident.service && told.incident.service.is_some()
        });
        let alerts = alerts(told, refs);
        match known {
            Some(cause) => cause.evidence.extend(alerts),
            None => causes.extend(by_alert(of, told, alerts, until_ms, refs)),
        }
    }
    causes
}

/// The skewed verdict that says most: the first with a cause that is known.
fn by_verdict(
    of: &Material,
    service: &str,
    until_ms: u64,
    refs: &mut References,
) -> Option<CausePart> {
    let skewed: Vec<&Record> = of
        .rows
        .iter()
        .filter(|row| row.kind == "evenness" && row.detail["verdict"] == "skewed")
        .filter(|row| row.service.as_deref() == Some(service) && row.at_ms <= until_ms)
        .collect();
    let kind = |row: &Record| row.detail["cause"]["kind"].as_str().map(ToOwned::to_owned);
    let is_known = |row: &&&Record| kind(row).is_some_and(|kind| kind != "unknown");
    let row = *skewed.iter().find(is_known).or(skewed.first())?;
    let id = refs.row(row);
    let cause = &row.detail["cause"];
    let text = |of: &Value| of.as_str().map(ToOwned::to_owned);
    let mut evidence = Vec::new();
    let mut add = |text: String| evidence.push(Fact::new(text, vec![id.clone()]));
    if let Some(ratio) = row.detail["ratio"].as_f64() {
        add(format!("{ratio:.2} times what was meant for it"));
    }
    if let Some(since_ms) = row.detail["since_ms"].as_u64() {
        let after = span(row.at_ms.saturating_sub(since_ms));
        add(format!(
            "since {}, told {after} later",
            super::time(since_ms)
        ));
    }
    let findings = row.detail["findings"].as_array().into_iter().flatten();
    let told = text(&cause["message"]);
    for finding in findings.filter(|of| text(&of["message"]) != told) {
        if let (Some(message), Some(reference)) =
            (finding["message"].as_str(), finding["reference"].as_str())
        {
            add(format!("{reference}: {message}"));
        }
    }
    let ruled_out = cause["ruled_out"].as_array().into_iter().flatten();
    Some(CausePart {
        service: Some(service.to_owned()),
        kind: kind(row).unwrap_or_else(|| "unknown".to_owned()),
        backend: text(&cause["backend"]),
        text: told.unwrap_or_else(|| row.message.clone()),
        evidence,
        ruled_out: ruled_out
            .filter_map(|of| Some(Fact::new(of.as_str()?, vec![id.clone()])))
            .collect(),
        refs: vec![id],
    })
}

/// The alerts of an incident, as they were when they came.
fn alerts(told: &Told, refs: &mut References) -> Vec<Fact> {
    let mut facts = Vec::new();
    for step in &told.steps {
        for sign in header::signs(step) {
            let text = format!("alert {}: {}", sign.title(), sign.summary);
            facts.push(Fact::new(text, vec![refs.row(step)]));
        }
    }
    facts.dedup();
    facts
}

/// What opened it is all that is known, and what would be in the journal if it were something else.
fn by_alert(
    of: &Material,
    told: &Told,
    evidence: Vec<Fact>,
    until_ms: u64,
    refs: &mut References,
) -> Option<CausePart> {
    let opened = told.first(What::Open)?;
    let signs = header::signs(opened);
    let first = signs.first();
    let kind = first.map_or("unknown", |sign| &*sign.name).to_owned();
    let backend = first.and_then(|sign| sign.backend.clone());
    let service = told.incident.service.clone();
    Some(CausePart {
        text: told.incident.text.clone(),
        evidence,
        ruled_out: others(of, (service.as_deref(), backend.as_deref()), until_ms, refs),
        refs: vec![refs.row(opened)],
        service,
        kind,
        backend,
    })
}

/// What it was not, by what the journal does not have of that time.
fn others(
    of: &Material,
    (service, backend): (Option<&str>, Option<&str>),
    until_ms: u64,
    refs: &mut References,
) -> Vec<Fact> {
    let is_own = |row: &&Record| service.is_none() || row.service.as_deref() == service;
    let rows = || of.rows.iter().filter(|row| row.at_ms <= until_ms);
    let mut facts = Vec::new();
    let mut absent = |text: String, found: bool| {
        if !found {
            facts.push(Fact::new(text, Vec::new()));
        }
    };
    let drifts = rows().any(|row| row.kind == "drift");
    let text = "drift: no difference between the kernel's tables and the intended ones was found";
    absent(text.to_owned(), drifts);
    let fleet = rows().filter(is_own);
    let fleet = fleet.filter(|row| row.detail["what"] == "fleet-degraded");
    let text = "fleet: nothing says that all backends got slow together";
    absent(text.to_owned(), fleet.count() > 0);
    if let (Some(service), Some(backend)) = (service, backend) {
        let suffers = |row: &&Record| {
            row.detail["what"] == "demoted" || row.kind == "health" && row.detail["to"] == "down"
        };
        let others = rows().filter(is_own).filter(suffers);
        let mut others = others.filter(|row| row.backend.as_deref() != Some(backend));
        let text = format!("others: no other backend of {service} was down or demoted");
        absent(text, others.next().is_some());
    }
    // Where it was skewed, the verdict is the cause.
    if let Some(row) = rows()
        .filter(is_own)
        .rfind(|row| row.kind == "evenness" && row.service.is_some())
    {
        facts.push(Fact::new(
            format!(
                "flows: the verdict of {} was: {}",
                super::time(row.at_ms),
                row.message
            ),
            vec![refs.row(row)],
        ));
    }
    facts
}
