//! What each backend took, before, during and after.

use std::collections::BTreeSet;

use super::{
    BackendPart, Figure, Phase, ServicePart, Taken,
    material::{Material, Past},
    references::References,
    span,
};
use crate::history::{
    bars,
    chunk::{ABSENT, Point},
    series::Series,
};

/// Most points of a series: more than a picture has pixels for show nothing more.
const POINTS: u64 = 600;
/// Bars of a sparkline.
const BARS: u64 = 40;

/// The services of the report.
pub(super) fn services(of: &Material, phases: &[Phase], refs: &mut References) -> Vec<ServicePart> {
    let window = (of.scope.from_ms, of.scope.until_ms);
    let part = |past: &Past| {
        let series = joined(past, window, POINTS);
        let short = joined(past, window, BARS);
        let names: BTreeSet<&String> = past
            .points
            .iter()
            .flat_map(|(_, sample)| sample.backends.keys())
            .collect();
        let backends = names.into_iter().map(|name| {
            let line = short.backends.iter().find(|line| line.name == *name);
            let values: Vec<Option<f64>> = line
                .map(|line| line.new_flows.iter().map(|n| n.map(f64::from)).collect())
                .unwrap_or_default();
            BackendPart {
                name: name.clone(),
                phases: phases
                    .iter()
                    .map(|phase| taken(past, name, phase, refs))
                    .collect(),
                sparkline: bars(&values),
                refs: vec![refs.past(past, Some(name), "new_flows", window)],
            }
        });
        let backends = backends.collect();
        ServicePart {
            name: past.service.clone(),
            backends,
            series,
            refs: vec![refs.past(past, None, "all", window)],
        }
    };
    of.history.iter().map(part).collect()
}

/// History at a step that leaves so many points at most.
fn joined(past: &Past, (from_ms, until_ms): (u64, u64), most: u64) -> Series {
    let length_s = (until_ms - from_ms).div_ceil(1000);
    let step_s = length_s.div_ceil(most).max(1).next_multiple_of(past.step_s);
    Series::of(&past.service, step_s, past.points.clone())
}

fn taken(past: &Past, name: &str, phase: &Phase, refs: &mut References) -> Taken {
    let range = (phase.from_ms, phase.until_ms);
    let samples: Vec<_> = past.within(range.0, range.1).collect();
    let points: Vec<Point> = samples
        .iter()
        .filter_map(|sample| sample.backends.get(name).copied())
        .collect();
    let known = |of: fn(&Point) -> u32| {
        let values = points.iter().map(of).filter(|value| *value != ABSENT);
        values.map(f64::from).collect::<Vec<f64>>()
    };
    let mut figures = Vec::new();
    let mut add = |name_of: &str, value: f64, unit, text: String, series| {
        figures.push(Figure {
            name: name_of.to_owned(),
            value,
            unit,
            estimate: false,
            text,
            refs: vec![refs.past(past, Some(name), series, range)],
        });
    };
    let flows = known(|of| of.new_flows);
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    if !flows.is_empty() {
        let got: f64 = flows.iter().sum();
        let all: f64 = samples
            .iter()
            .flat_map(|sample| sample.backends.values())
            .filter(|of| of.new_flows != ABSENT)
            .map(|of| f64::from(of.new_flows))
            .sum();
        let rate = got / (flows.len() as f64 * past.step_s as f64);
        add(
            "new connections",
            got,
            "connections",
            format!("{got:.0}"),
            "new_flows",
        );
        add("rate", rate, "1/s", format!("{rate:.1}/s"), "new_flows");
        if all > 0.0 {
            add("share", got / all, "share", percent(got / all), "new_flows");
        }
    }
    if let Some(share) = known(|of| of.share).last() {
        let share = share / 1e6;
        add(
            "intended share",
            share,
            "share",
            percent(share),
            "intended_share",
        );
    }
    if let Some(weight) = known(|of| of.weight).last() {
        let weight = weight / 1e3;
        add("weight", weight, "weight", format!("{weight}"), "weight");
    }
    if let Some(slowest) = known(|of| of.latency).into_iter().reduce(f64::max) {
        let ms = slowest / 1e3;
        add(
            "slowest probe",
            ms,
            "ms",
            format!("{ms:.1} ms"),
            "latency_ms",
        );
    }
    let up = known(|of| of.up);
    if !up.is_empty() {
        let down = up.iter().filter(|up| **up == 0.0).count() as f64 * past.step_s as f64;
        add("down", down, "s", span((down * 1000.0) as u64), "up");
    }
    Taken {
        phase: phase.name,
        figures,
    }
}
