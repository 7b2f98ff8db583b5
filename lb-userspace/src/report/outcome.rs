//! What ended it, how well it was noticed, and what is left to do.

use super::{
    CausePart, Fact, Phase,
    header::tells_of,
    impact::intent,
    material::{Material, Past},
    references::References,
    span, time,
    trigger::whys,
};
use crate::{history::chunk::ABSENT, incident::What, journal::Record};

/// Levels of the audit that ask for something.
const ASKS: [&str; 3] = ["critical", "error", "warning"];

/// What ended it, and the figures afterwards.
pub(super) fn resolution(of: &Material, phases: &[Phase], refs: &mut References) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let Some(publication) = &of.mended.publication {
        let mut ids = vec![refs.row(publication)];
        let wish = of.mended.wish.as_ref();
        ids.extend(wish.map(|row| refs.row(row)));
        let who = wish.map_or(&publication.actor, |row| &row.actor);
        let why = whys(&of.mended).join("; ");
        facts.push(Fact::new(
            format!(
                "last change before the end, by {who} at {}: {} ({why})",
                time(publication.at_ms),
                publication.message
            ),
            ids,
        ));
    }
    for told in &of.scope.incidents {
        for what in [What::Mitigated, What::Close] {
            if let Some(row) = told.last(what) {
                let text = format!("{}: {}", time(row.at_ms), row.message);
                facts.push(Fact::new(text, vec![refs.row(row)]));
            }
        }
        if told.end().is_none() {
            let id = &told.incident.id;
            facts.push(Fact::new(format!("incident {id} is not over"), Vec::new()));
        }
    }
    let Some(after) = phases.iter().find(|phase| phase.name == "after") else {
        return facts;
    };
    for past in &of.history {
        facts.extend(proof(past, after, phases, refs));
    }
    let mut verdicts = of.rows.iter().filter(|row| {
        row.kind == "evenness"
            && row.at_ms >= after.from_ms
            && of.scope.holds(row.service.as_deref())
    });
    if let Some(last) = verdicts.next_back() {
        let text = format!("last verdict, {}: {}", time(last.at_ms), last.message);
        facts.push(Fact::new(text, vec![refs.row(last)]));
    }
    facts
}

/// How far the furthest backend was off what it was meant to get before it began.
fn proof(past: &Past, after: &Phase, phases: &[Phase], refs: &mut References) -> Option<Fact> {
    let range = (after.from_ms, after.until_ms);
    let intent = intent(past, phases);
    let mut got = std::collections::BTreeMap::<&str, f64>::new();
    for (name, point) in past.within(range.0, range.1).flat_map(|of| &of.backends) {
        if point.new_flows != ABSENT {
            *got.entry(name).or_default() += f64::from(point.new_flows);
        }
    }
    let all: f64 = got.values().sum();
    if all == 0.0 {
        return None;
    }
    let ratios = intent.iter().filter(|(_, share)| **share > 0.0);
    let ratios = ratios.map(|(name, share)| {
        let ratio = got.get(name).copied().unwrap_or(0.0) / (all * share);
        (*name, ratio)
    });
    let off = |ratio: f64| ratio.max(1.0 / ratio.max(f64::MIN_POSITIVE));
    let (name, ratio) = ratios.max_by(|a, b| off(a.1).total_cmp(&off(b.1)))?;
    let text = format!(
        "{}: of {all:.0} new connections afterwards the furthest off its share of before is {name}, with \
         {ratio:.2} times that",
        past.service
    );
    let id = refs.past(past, None, "new_flows", range);
    Some(Fact::new(text, vec![id]))
}

/// How well it was noticed.
pub(super) fn detection(of: &Material, refs: &mut References) -> Vec<Fact> {
    let mut facts = Vec::new();
    for told in &of.scope.incidents {
        let incident = &told.incident;
        let Some(opened) = told.first(What::Open) else {
            continue;
        };
        let id = refs.row(opened);
        let how = if incident.by == "controller" {
            let after = span(opened.at_ms.saturating_sub(incident.start_ms));
            format!("noticed by a detector, {after} after the start")
        } else {
            format!("opened by {}: no alert had called anybody", incident.by)
        };
        facts.push(Fact::new(
            format!("incident {}: {how}", incident.id),
            vec![id.clone()],
        ));
        let alerts = incident.signs().count();
        let relapses = told
            .steps
            .iter()
            .filter(|row| row.detail["step"] == "relapse")
            .count();
        facts.push(Fact::new(
            format!("{alerts} alerts belong to it; {relapses} times one came back"),
            vec![id, refs.row(told.steps.last().unwrap_or(opened))],
        ));
        facts.extend(told_of(of, |row| tells_of(row, told), refs));
        if told.first(What::Ack).is_none() {
            facts.push(Fact::new("nobody acknowledged it", Vec::new()));
        }
    }
    let skewed = of.rows.iter().find(|row| {
        row.kind == "evenness"
            && row.detail["verdict"] == "skewed"
            && of.scope.holds(row.service.as_deref())
    });
    let before = skewed.and_then(|row| {
        let mut earlier = of
            .rows
            .iter()
            .filter(|of| of.id < row.id && of.kind == "evenness");
        earlier.rfind(|of| of.service == row.service)
    });
    if let Some((row, skew)) =
        before.and_then(|row| Some((row, row.detail["detectable_skew"].as_f64()?)))
    {
        let within = row.detail["detectable_within_s"]
            .as_f64()
            .unwrap_or_default();
        facts.push(Fact::new(
            format!("when the verdict before was made, a skew of {skew:.2} times would have shown within {within:.0} s"),
            vec![refs.row(row)],
        ));
    }
    facts
}

/// Who was told, and who was not.
fn told_of(of: &Material, about: impl Fn(&Record) -> bool, refs: &mut References) -> Vec<Fact> {
    let rows: Vec<&Record> = of.rows.iter().filter(|row| about(row)).collect();
    let (taken, failed): (Vec<&Record>, Vec<&Record>) = rows
        .into_iter()
        .partition(|row| row.detail["delivered"] == true);
    let ends = |rows: &[&Record], refs: &mut References| -> Vec<String> {
        let ends = [rows.first(), rows.last()].into_iter().flatten();
        let mut ids: Vec<String> = ends.map(|row| refs.row(row)).collect();
        ids.dedup();
        ids
    };
    let mut facts = Vec::new();
    if taken.is_empty() {
        facts.push(Fact::new(
            "no receiver took a notification of it",
            Vec::new(),
        ));
    } else {
        let ids = ends(&taken, refs);
        let text = format!("{} notifications of it were taken", taken.len());
        facts.push(Fact::new(text, ids));
    }
    if !failed.is_empty() {
        let ids = ends(&failed, refs);
        facts.push(Fact::new(
            format!("{} deliveries failed", failed.len()),
            ids,
        ));
    }
    facts
}

/// What the last audit asks for, and the drill that rehearses the cause.
pub(super) fn actions(of: &Material, causes: &[CausePart], refs: &mut References) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut audits = of.rows.iter().filter(|row| row.kind == "audit");
    let audit = audits
        .next_back()
        .or(of.mended.audit.as_ref())
        .or(of.before.audit.as_ref());
    if let Some(audit) = audit {
        let id = refs.row(audit);
        let findings = audit.detail["findings"].as_array().into_iter().flatten();
        for finding in findings {
            let text = |key: &str| finding[key].as_str().unwrap_or_default();
            if !ASKS.contains(&text("level")) || !of.scope.holds(finding["service"].as_str()) {
                continue;
            }
            let place: Vec<&str> = [finding["service"].as_str(), finding["backend"].as_str()]
                .into_iter()
                .flatten()
                .collect();
            let place = if place.is_empty() {
                String::new()
            } else {
                format!(" {}", place.join("/"))
            };
            let (rule, level, what, remedy) =
                (text("rule"), text("level"), text("what"), text("remedy"));
            facts.push(Fact::new(
                format!("audit {rule} ({level}){place}: {what}; {remedy}"),
                vec![id.clone()],
            ));
        }
    }
    for cause in causes {
        if let Some(drill) = drill(&cause.kind) {
            let place = cause.service.as_deref().unwrap_or("this host");
            let text = format!(
                "rehearse it: the drill '{drill}' on {place} makes the same happen, within limits"
            );
            facts.push(Fact::new(text, cause.refs.clone()));
        }
    }
    facts.dedup();
    facts
}

/// The drill that rehearses a cause.
fn drill(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "config" | "table" | "TrafficSkewed" | "TableSkewed" | "WeightsSkewed" => "skew",
        "drift" | "TableDrift" => "drift",
        "heavy-clients" => "heavy-client",
        "slow-backend" | "BackendSlow" | "BackendDemoted" => "slow",
        "BackendFailing" => "errors",
        "NoBackends" | "Panic" | "BackendDown" => "kill",
        "FleetDegraded" => "fleet-slow",
        "DeliveryFailing" => "notify-test",
        _ => return None,
    })
}

/// What belongs to the report and lies elsewhere.
pub(super) fn attachments(of: &Material, refs: &mut References) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let (Some(first), Some(last)) = (of.rows.first(), of.rows.last()) {
        let text = format!("journal.db, rows {} to {}", first.id, last.id);
        facts.push(Fact::new(text, vec![refs.row(first), refs.row(last)]));
    }
    for past in &of.history {
        let window = (of.scope.from_ms, of.scope.until_ms);
        let text = format!(
            "history.db, {} from {} on, each {} s",
            past.service,
            time(window.0),
            past.step_s
        );
        facts.push(Fact::new(text, vec![refs.past(past, None, "all", window)]));
    }
    if let Some(change) = &of.change
        && let Some(number) = change.detail["configuration"].as_u64()
    {
        let sha256 = change.detail["sha256"].as_str().unwrap_or("unknown");
        let text = format!(
            "configurations/{number}.toml, in force since {}, SHA-256 {sha256}",
            time(change.at_ms)
        );
        facts.push(Fact::new(text, vec![refs.row(change)]));
    } else if let Some(start) = &of.start {
        let text = |key: &str| start.detail[key].as_str().unwrap_or("unknown").to_owned();
        let text = format!(
            "{}, with which a controller started at {}, SHA-256 {}",
            text("config_file"),
            time(start.at_ms),
            text("config_sha256")
        );
        facts.push(Fact::new(text, vec![refs.row(start)]));
    }
    let publications = [&of.before.publication, &of.mended.publication];
    for publication in publications.into_iter().flatten() {
        let text = format!(
            "generation {}, in force from {} on",
            publication.generation,
            time(publication.at_ms)
        );
        facts.push(Fact::new(text, vec![refs.row(publication)]));
    }
    facts.dedup();
    facts
}
