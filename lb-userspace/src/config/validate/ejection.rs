//! What a service does about backends that come back and that underperform.

use std::time::Duration;

use super::{
    field::{Fields, place},
    options::table,
};
use crate::{
    config::raw,
    model::{Ejection, Measured, Part, Senses, Slowness, Spread, Underperformers},
};

const LONGEST_START: Duration = Duration::from_hours(1);

/// How long a backend takes to reach its whole weight.
#[expect(
    clippy::option_option,
    reason = "wrong, missing and there are three things"
)]
pub(super) fn slow_start(
    raw: &raw::Service,
    fields: &mut Fields<'_, '_>,
) -> Option<Option<Duration>> {
    let bounds = Duration::from_secs(1)..=LONGEST_START;
    let leaf = &raw.slow_start;
    let length = fields.duration("slow_start", leaf, Duration::from_secs(30), bounds)?;
    let Some(at) = place(leaf) else {
        return Some(None);
    };
    if place(&raw.health).is_none() {
        let problem = "nobody sees a backend come back without a check";
        fields.report(
            at,
            "slow_start",
            problem,
            "add [services.health], or remove it",
        );
    }
    Some(Some(length))
}

/// Below which part all backends are used.
pub(super) fn panic_below(raw: &raw::Service, fields: &mut Fields<'_, '_>) -> Option<Part> {
    let remedy = "give a fraction from 0 (never) to 1, as in 0.5";
    let below = fields.optional("panic_below", &raw.panic_below, remedy, |&fraction| {
        Part::new(fraction).ok_or_else(|| format!("is {fraction}"))
    })?;
    if let (Some(at), None) = (place(&raw.panic_below), place(&raw.health)) {
        let problem = "without a check all backends count as healthy";
        fields.report(
            at,
            "panic_below",
            problem,
            "add [services.health], or remove it",
        );
    }
    Some(below.unwrap_or(Part::HALF))
}

/// What is done about underperformers.
pub(super) fn check(
    raw: &raw::Service,
    fields: &mut Fields<'_, '_>,
    spread: Option<Spread>,
    measured: Option<Measured>,
) -> Option<Ejection> {
    let default = Ejection {
        // All flows of a client far away, or of a slow application, may be one backend's otherwise.
        senses: match spread {
            Some(Spread::Source | Spread::Port) => Senses::Probes,
            Some(Spread::Flow) | None => Senses::ProbesAndTraffic,
        },
        ..Ejection::default()
    };
    let Some((table, at)) = table(&raw.ejection, "ejection", "{ slow = 2.0 }", fields)? else {
        return Some(default);
    };
    if place(&raw.health).is_none() {
        let problem = "nothing is known of backends without a check";
        fields.report(
            at.clone(),
            "ejection",
            problem,
            "add [services.health], or remove it",
        );
    }
    let mut fields = fields.inner("ejection", at);
    let underperformers = fields.word(
        "underperformers",
        &table.underperformers,
        default.underperformers,
        &Underperformers::WORDS,
    );
    let ratios = "give a ratio from 1.5 to 10, as in 2.0";
    let senses = fields.optional("traffic", &table.traffic, "give true or false", |&counts| {
        Ok(if counts {
            Senses::ProbesAndTraffic
        } else {
            Senses::Probes
        })
    });
    if let (Some(Some(Senses::ProbesAndTraffic)), Some(Measured::NONE), Some(at)) =
        (senses, measured, place(&table.traffic))
    {
        let problem = "nothing is measured of traffic";
        fields.report(at, "traffic", problem, "set measure_one_in, or remove it");
    }
    let slow = fields.optional("slow", &table.slow, ratios, |&ratio| {
        Slowness::new(ratio).ok_or_else(|| format!("is {ratio}"))
    });
    let mut part = |key, leaf, (least, most): (f64, f64)| {
        let remedy = format!("give a fraction from {least} to {most}");
        fields.optional(key, leaf, &remedy, |&fraction: &f64| {
            Part::new(fraction)
                .filter(|_| (least..=most).contains(&fraction))
                .ok_or_else(|| format!("is {fraction}"))
        })
    };
    let errors = part("errors", &table.errors, (0.001, 0.5));
    let budget = part("budget", &table.budget, (0.01, 0.5));
    let floors = Duration::from_micros(10)..=Duration::from_secs(10);
    let floor = fields.duration("latency_floor", &table.latency_floor, default.floor, floors);
    let holds = Duration::from_secs(20)..=Duration::from_hours(1);
    let hold = fields.duration("hold", &table.hold, default.hold, holds);
    Some(Ejection {
        underperformers: underperformers?,
        senses: senses?.unwrap_or(default.senses),
        slow: slow?.unwrap_or(default.slow),
        errors: errors?.unwrap_or(default.errors),
        floor: floor?,
        budget: budget?.unwrap_or(default.budget),
        hold: hold?,
    })
}
