//! What it cost, in numbers that are estimates and say so.

use std::collections::BTreeMap;

use super::{
    Figure, Phase,
    material::{Material, Past},
    references::References,
    span,
};
use crate::history::chunk::{ABSENT, Sample};

/// From so many times its share on, a backend gets too much.
const TOO_MUCH: f64 = 1.5;
/// Connections that a backend should get in a look, so that chance does not make it too much.
const ENOUGH: f64 = 20.0;
/// Most points that are looked at together.
const LONGEST: usize = 30;
/// A part of what it should have got that is worth telling.
const WORTH: f64 = 0.05;

/// Shares of backends, by name.
pub(super) type Shares<'a> = BTreeMap<&'a str, f64>;

/// The shares that backends were meant to get: those of the slots just before it began. What they were
/// meant to get meanwhile may be what was wrong.
pub(super) fn intent<'a>(past: &'a Past, phases: &[Phase]) -> Shares<'a> {
    let during = phases.iter().find(|phase| phase.name == "during");
    let start_ms = during.map_or(0, |phase| phase.from_ms);
    // A point that begins before the start may end behind it, and tells how it was at its end.
    let whole_ms = start_ms.saturating_sub(past.step_s * 1000);
    let before = past.within(0, whole_ms + 1).last();
    let first = || past.points.first().map(|(_, sample)| sample);
    let Some(sample) = before.or_else(first) else {
        return Shares::new();
    };
    let known = sample.backends.iter().filter(|(_, of)| of.share != ABSENT);
    known
        .map(|(name, of)| (name.as_str(), f64::from(of.share) / 1e6))
        .collect()
}

/// New connections of a sample's backends.
fn flows(sample: &Sample) -> impl Iterator<Item = (&str, f64)> {
    let known = sample
        .backends
        .iter()
        .filter(|(_, of)| of.new_flows != ABSENT);
    known.map(|(name, of)| (name.as_str(), f64::from(of.new_flows)))
}

/// What it cost the services.
pub(super) fn impact(of: &Material, phases: &[Phase], refs: &mut References) -> Vec<Figure> {
    let mut figures = Vec::new();
    for phase in phases.iter().filter(|phase| phase.name == "during") {
        for past in &of.history {
            figures.extend(of_service(past, phase, phases, refs));
        }
        figures.extend(probes(of, phase, refs));
    }
    figures
}

fn of_service(past: &Past, phase: &Phase, phases: &[Phase], refs: &mut References) -> Vec<Figure> {
    let range = (phase.from_ms, phase.until_ms);
    let samples: Vec<&Sample> = past.within(range.0, range.1).collect();
    if samples.is_empty() {
        return Vec::new();
    }
    let service = &past.service;
    let intent = intent(past, phases);
    let mut got: BTreeMap<&str, f64> = BTreeMap::new();
    for (name, count) in samples.iter().flat_map(|sample| flows(sample)) {
        *got.entry(name).or_default() += count;
    }
    let all: f64 = got.values().sum();
    let figure = |name: String, value: f64, unit, text: String, id: String| Figure {
        name,
        value,
        unit,
        estimate: true,
        text,
        refs: vec![id],
    };
    let of_all = refs.past(past, None, "new_flows", range);
    let mut figures = vec![figure(
        format!("{service}: new connections meanwhile"),
        all,
        "connections",
        format!("{all:.0}, of all backends together"),
        of_all.clone(),
    )];
    for (name, count) in &got {
        let share = intent.get(name).copied().unwrap_or(0.0);
        let more = count - share * all;
        if more > WORTH * all * share.max(WORTH) {
            figures.push(figure(
                format!("{service}/{name}: connections above its share"),
                more.round(),
                "connections",
                format!(
                    "about {more:.0} of {count:.0}: its share of {all:.0} was {:.1} % just before",
                    100.0 * share
                ),
                refs.past(past, Some(name), "new_flows", range),
            ));
        }
    }
    if let Some(seconds) = too_much(past, &samples, &intent, all) {
        figures.push(figure(
            format!("{service}: time with a backend above {TOO_MUCH} times its intent"),
            seconds,
            "s",
            format!("about {}", span((seconds * 1000.0) as u64)),
            of_all,
        ));
    }
    let step = past.step_s as f64;
    let names: Vec<&str> = samples
        .iter()
        .flat_map(|sample| sample.backends.keys())
        .map(String::as_str)
        .collect();
    let names: std::collections::BTreeSet<&str> = names.into_iter().collect();
    for name in names {
        let is_down = |sample: &&&Sample| sample.backends.get(name).is_some_and(|of| of.up == 0);
        let down = samples.iter().filter(is_down).count() as f64 * step;
        if down > 0.0 {
            figures.push(figure(
                format!("{service}/{name}: time down"),
                down,
                "s",
                format!("about {}", span((down * 1000.0) as u64)),
                refs.past(past, Some(name), "up", range),
            ));
        }
    }
    figures
}

/// How many seconds some backend got too much; `None` where too little came to say.
fn too_much(past: &Past, samples: &[&Sample], intent: &Shares<'_>, all: f64) -> Option<f64> {
    let least = intent.values().copied().filter(|share| *share > 0.0);
    let least = least.fold(f64::INFINITY, f64::min);
    let each = all / samples.len() as f64 * least;
    let together = (ENOUGH / each).ceil();
    if !together.is_finite() || together > LONGEST as f64 {
        return None;
    }
    let looks = samples.chunks((together as usize).max(1));
    let bad = looks.filter(|look| {
        let mut got: BTreeMap<&str, f64> = BTreeMap::new();
        for (name, count) in look.iter().flat_map(|sample| flows(sample)) {
            *got.entry(name).or_default() += count;
        }
        let all: f64 = got.values().sum();
        got.iter().any(|(name, count)| {
            let meant = intent.get(name).copied().unwrap_or(0.0) * all;
            *count > (TOO_MUCH * meant).max(ENOUGH / 2.0)
        })
    });
    let points: usize = bad.map(<[&Sample]>::len).sum();
    Some(points as f64 * past.step_s as f64)
}

/// Probes that took a backend down.
fn probes(of: &Material, phase: &Phase, refs: &mut References) -> Option<Figure> {
    let within = phase.from_ms..phase.until_ms;
    let failed: Vec<_> = of
        .rows
        .iter()
        .filter(|row| row.kind == "health" && row.level != "info")
        .filter(|row| within.contains(&row.at_ms) && of.scope.holds(row.service.as_deref()))
        .collect();
    let (first, last) = (failed.first()?, failed.last()?);
    let mut ids = vec![refs.row(first)];
    if last.id != first.id {
        ids.push(refs.row(last));
    }
    Some(Figure {
        name: "backends taken down by failed probes".to_owned(),
        value: failed.len() as f64,
        unit: "times",
        estimate: true,
        text: format!(
            "{} times; single probes that fail are not kept",
            failed.len()
        ),
        refs: ids,
    })
}
