//! The report of a load test, as data and as text.

mod html;

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use serde::Serialize;

use super::{
    Brief, Ended, Outcome, Test,
    beside::{Holds, Spread},
    schedule::{Arrivals, Stage},
    search::Target as Goal,
    tally::{Failure, Tally},
};

pub use self::html::page;

/// The version of the JSON form.
pub const VERSION: u32 = 1;
/// A generator that begins a hundredth of the requests later than this tells of itself.
const LATE: f64 = 0.010;

/// What a load test found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The version of this form.
    pub version: u32,
    /// When the test began, in milliseconds since 1970.
    pub began_at_ms: u64,
    /// What was asked.
    pub target: String,
    /// The address that this was.
    pub address: String,
    /// `kept` or `one each`: the connections of HTTP.
    pub connections: &'static str,
    /// How requests lay in time: `even` or `random`.
    pub arrivals: &'static str,
    /// From how many addresses requests came; none where the system chose.
    pub client_addresses: usize,
    /// How long after it was due a request had failed, in seconds.
    pub timeout_s: f64,
    /// All requests.
    pub total: Figures,
    /// Each stage, in turn.
    pub stages: Vec<StageReport>,
    /// Each second.
    pub seconds: Vec<SecondReport>,
    /// The distribution of latencies: a part of the requests, and the seconds that it did not
    /// exceed.
    pub distribution: Vec<(f64, f64)>,
    /// Why the test ended before its time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<&'static str>,
    /// What was searched for, and found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<SearchReport>,
    /// What the controller saw, where the target is a service of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
    /// What makes the figures doubtful.
    pub warnings: Vec<String>,
}

/// Figures of some requests.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// How many were due.
    pub due: u64,
    /// How many were answered.
    pub answered: u64,
    /// How many a second were due, and answered.
    pub due_rate: f64,
    /// How many a second were answered.
    pub answered_rate: f64,
    /// The bytes of the answers.
    pub bytes: u64,
    /// How many failed, by reason.
    pub failures: BTreeMap<Failure, u64>,
    /// How long the answered ones took; absent where none was.
    pub latency: Option<Latency>,
    /// How late ninety-nine hundredths of the requests were begun at most, in seconds.
    pub late_p99_s: f64,
}

/// How long answered requests took, in seconds, from when they were due.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// The mean.
    pub mean_s: f64,
    /// Half took no longer.
    pub p50_s: f64,
    /// Nine tenths took no longer.
    pub p90_s: f64,
    /// Ninety-nine hundredths.
    pub p99_s: f64,
    /// Nine hundred and ninety-nine thousandths.
    pub p999_s: f64,
    /// The longest.
    pub max_s: f64,
}

/// A stage of a test.
#[derive(Clone, Debug, Serialize)]
pub struct StageReport {
    /// The rate at its beginning.
    pub from: f64,
    /// The rate at its end.
    pub to: f64,
    /// When it began, in seconds from the beginning of the test.
    pub begins_s: f64,
    /// How long it lasted.
    pub lasts_s: f64,
    /// Whether it held what was asked for; absent where nothing was.
    pub holds: Option<bool>,
    /// What became of its requests.
    #[serde(flatten)]
    pub figures: Figures,
}

/// A second of a test.
#[derive(Clone, Debug, Serialize)]
pub struct SecondReport {
    /// When, in seconds from the beginning of the test.
    pub at_s: u64,
    /// How many requests were due.
    pub due: u64,
    /// How many of them failed.
    pub failed: u64,
    /// The median, p90, p99 and the longest of the answered ones, in seconds.
    pub latency_s: Option<[f64; 4]>,
}

/// A search and its answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SearchReport {
    /// The quantile that was held against the limit.
    pub quantile: f64,
    /// The limit, in seconds.
    pub limit_s: f64,
    /// The part of the requests that might fail.
    pub failures: f64,
    /// The highest rate that held.
    pub held: Option<f64>,
    /// The lowest rate that did not.
    pub broken: Option<f64>,
}

impl Figures {
    fn of(tally: &Tally, lasted: Duration) -> Self {
        let seconds = lasted.as_secs_f64().max(f64::MIN_POSITIVE);
        let latency = || {
            Some(Latency {
                mean_s: tally.mean()?,
                p50_s: tally.quantile(0.5)?,
                p90_s: tally.quantile(0.9)?,
                p99_s: tally.quantile(0.99)?,
                p999_s: tally.quantile(0.999)?,
                max_s: tally.longest()?,
            })
        };
        Self {
            due: tally.due,
            answered: tally.answered,
            due_rate: tally.due as f64 / seconds,
            answered_rate: tally.answered as f64 / seconds,
            bytes: tally.bytes,
            failures: tally.failures.clone(),
            latency: latency(),
            late_p99_s: tally.lateness(0.99),
        }
    }

    /// How many failed.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

/// Whether a tally holds what is asked.
pub fn holds(tally: &Tally, goal: Goal) -> bool {
    let fast = tally.quantile(goal.quantile);
    fast.is_some_and(|fast| fast <= goal.latency_s) && tally.failed_part() <= goal.failures
}

impl Report {
    /// The report of tests that followed each other as one, without what the controller saw.
    pub fn new(
        test: &Test,
        parts: &[(Vec<Stage>, Duration, Outcome)],
        goal: Option<Goal>,
        began_at_ms: u64,
    ) -> Self {
        let mut total = Tally::default();
        let (mut stages, mut seconds) = (Vec::new(), Vec::new());
        let mut lasted = Duration::ZERO;
        let mut ended = None;
        for (planned, begins, outcome) in parts {
            let mut at = *begins;
            let mut left = outcome.lasted;
            for (stage, tally) in planned.iter().zip(&outcome.stages) {
                let lasts = stage.lasts.min(left);
                left -= lasts;
                if lasts.is_zero() && tally.due == 0 {
                    continue;
                }
                stages.push(StageReport {
                    from: stage.from,
                    to: stage.to,
                    begins_s: at.as_secs_f64(),
                    lasts_s: lasts.as_secs_f64(),
                    holds: goal.map(|goal| holds(tally, goal)),
                    figures: Figures::of(tally, lasts),
                });
                at += lasts;
            }
            total.merge(&outcome.total);
            seconds.extend(outcome.seconds.iter().map(|brief: &Brief| SecondReport {
                at_s: begins.as_secs() + brief.number,
                due: brief.due,
                failed: brief.failed,
                latency_s: brief.took,
            }));
            lasted += outcome.lasted;
            ended = ended.or(outcome.ended);
        }
        let figures = Figures::of(&total, lasted);
        Self {
            version: VERSION,
            began_at_ms,
            target: test.ask.target.to_string(),
            address: test.ask.target.address.to_string(),
            connections: if test.ask.keeps { "kept" } else { "one each" },
            arrivals: match test.arrivals {
                Arrivals::Even => "even",
                Arrivals::Random => "random",
            },
            client_addresses: test.ask.from.len(),
            timeout_s: test.ask.timeout.as_secs_f64(),
            warnings: warnings(&figures),
            total: figures,
            stages,
            seconds,
            distribution: total.distribution(),
            ended: ended.map(|ended| match ended {
                Ended::Interrupted => "it was interrupted",
                Ended::Failures => "too many requests failed",
            }),
            search: None,
            spread: None,
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    /// What the search says for the audit: what a backend holds, in connections a second.
    fn capacities(&self, spread: &Spread) -> Option<String> {
        let held = self.search.as_ref()?.held?;
        if self.connections != "one each" {
            return None;
        }
        let of = spread.backends.iter().filter(|backend| backend.took > 0);
        let of = of.map(|backend| {
            let part = (backend.share.unwrap_or_default() * held).floor();
            format!("{} {part:.0}", backend.name)
        });
        Some(format!(
            "for the audit (L14), as capacity of the backends beside peak_load, in connections a \
             second: {}",
            of.collect::<Vec<_>>().join(", ")
        ))
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let total = &self.total;
        writeln!(text, "target      {} ({})", self.target, self.address)?;
        writeln!(
            text,
            "requests    {} due, {} answered, {} failed",
            total.due,
            total.answered,
            total.failed()
        )?;
        writeln!(
            text,
            "rate        {} /s due, {} /s answered",
            number(total.due_rate),
            number(total.answered_rate)
        )?;
        if let Some(latency) = &total.latency {
            writeln!(
                text,
                "latency     p50 {}, p90 {}, p99 {}, p99.9 {}, longest {}, from when a request was due",
                time(latency.p50_s),
                time(latency.p90_s),
                time(latency.p99_s),
                time(latency.p999_s),
                time(latency.max_s)
            )?;
        }
        for (failure, count) in &total.failures {
            writeln!(text, "failed      {count:>8}  {failure}")?;
        }
        if let Some(ended) = self.ended {
            writeln!(text, "ended early {ended}")?;
        }
        if self.stages.len() > 1 {
            writeln!(text, "\nstages")?;
            writeln!(
                text,
                "{:>4} {:>16} {:>8} {:>12} {:>10} {:>10} {:>10} {:>8}",
                "", "rate /s", "lasts", "answered /s", "p50", "p99", "longest", "failed"
            )?;
            for (n, stage) in self.stages.iter().enumerate() {
                let of = |of: fn(&Latency) -> f64| {
                    let latency = stage.figures.latency.as_ref();
                    latency.map_or_else(|| "-".into(), |latency| time(of(latency)))
                };
                writeln!(
                    text,
                    "{:>4} {:>16} {:>8} {:>12} {:>10} {:>10} {:>10} {:>8}  {}",
                    n + 1,
                    rates(stage),
                    time(stage.lasts_s),
                    number(stage.figures.answered_rate),
                    of(|l| l.p50_s),
                    of(|l| l.p99_s),
                    of(|l| l.max_s),
                    stage.figures.failed(),
                    match stage.holds {
                        Some(true) => "holds",
                        Some(false) => "does not hold",
                        None => "",
                    }
                )?;
            }
        }
        if let Some(search) = &self.search {
            writeln!(text, "\n{}", search.told())?;
        }
        if let Some(spread) = &self.spread {
            write_spread(text, spread)?;
            if let Some(capacities) = self.capacities(spread) {
                writeln!(text, "  {capacities}")?;
            }
        }
        for warning in &self.warnings {
            writeln!(text, "\nwarning: {warning}")?;
        }
        Ok(())
    }
}

impl SearchReport {
    /// The answer in a sentence.
    pub fn told(&self) -> String {
        let asked = format!(
            "p{} within {} and at most {:.1} % failing",
            self.quantile * 100.0,
            time(self.limit_s),
            self.failures * 100.0
        );
        match (self.held, self.broken) {
            (Some(held), Some(broken)) => format!(
                "highest rate with {asked}: {} /s; {} /s did not hold",
                number(held),
                number(broken)
            ),
            (Some(held), None) => format!(
                "{} /s holds {asked}, and no more was tried: raise --max-rate to go on",
                number(held)
            ),
            (None, Some(broken)) => format!("not even {} /s holds {asked}", number(broken)),
            (None, None) => format!("nothing was tried for {asked}"),
        }
    }
}

fn write_spread(text: &mut String, spread: &Spread) -> std::fmt::Result {
    writeln!(text, "\nservice {}: {}", spread.service, spread.message)?;
    let width = spread.backends.iter().map(|b| b.name.len()).max();
    let width = width.unwrap_or(0).max(8);
    writeln!(
        text,
        "  {:<width$} {:>12} {:>8} {:>9}",
        "backend", spread.unit, "share", "intended"
    )?;
    for backend in &spread.backends {
        let share = backend.share.map_or_else(|| "-".into(), percent);
        writeln!(
            text,
            "  {:<width$} {:>12} {:>8} {:>9}",
            backend.name,
            backend.took,
            share,
            percent(backend.intended_share)
        )?;
    }
    // The stage that asked for most says it best.
    let most = spread
        .without_one
        .iter()
        .max_by(|a, b| a.would_take.total_cmp(&b.would_take));
    if let Some(without) = most {
        writeln!(text, "  {}", without.told(spread.unit))?;
    }
    Ok(())
}

impl super::beside::WithoutOne {
    /// The answer in a sentence.
    pub fn told(&self, unit: &str) -> String {
        let would = format!(
            "without {}, {} would take {} {unit}/s in stage {}",
            self.backend,
            self.busiest,
            number(self.would_take),
            self.stage
        );
        let known = self.known_to_hold.map_or_else(
            || "and is not known to hold any load".to_owned(),
            |held| format!("and is known to hold {}", number(held)),
        );
        let so = match self.holds {
            Holds::Yes => "one backend may fail under this load",
            Holds::No => "one backend must not fail under this load",
            Holds::Unknown => {
                "whether one may fail under this load is not known: test a higher rate"
            }
        };
        format!("{would} {known}: {so}")
    }
}

/// How far a test is, in a line.
pub fn progress(progress: &super::Progress) -> String {
    let lately = &progress.lately;
    let of = |quantile| lately.quantile(quantile).map_or_else(|| "-".into(), time);
    format!(
        "{:>5.0} s  {:>6} answered  {:>6} failed  p50 {:>9}  p99 {:>9}",
        progress.elapsed.as_secs_f64(),
        lately.answered,
        lately.failed(),
        of(0.5),
        of(0.99)
    )
}

/// What makes figures doubtful.
fn warnings(total: &Figures) -> Vec<String> {
    let mut warnings = Vec::new();
    if total.late_p99_s > LATE {
        warnings.push(format!(
            "1 % of the requests were begun {} late or more: this host could not keep up, and the \
             latencies are its own too",
            time(total.late_p99_s)
        ));
    }
    for (failure, remedy) in [
        (
            Failure::NoPort,
            "name more client addresses with --from, or keep connections with --keep",
        ),
        (Failure::NoFile, "raise the limit of open files: ulimit -n"),
        (
            Failure::NotSent,
            "the target is overloaded, or --waiting is too small for this rate and latency",
        ),
    ] {
        if let Some(count) = total.failures.get(&failure) {
            warnings.push(format!("{count} requests failed for '{failure}': {remedy}"));
        }
    }
    warnings
}

fn rates(stage: &StageReport) -> String {
    if (stage.from - stage.to).abs() < f64::EPSILON {
        number(stage.from)
    } else {
        format!("{} to {}", number(stage.from), number(stage.to))
    }
}

/// A time with three digits and its unit.
pub(super) fn time(seconds: f64) -> String {
    if seconds < 0.001 {
        format!("{:.0} µs", seconds * 1e6)
    } else if seconds < 0.1 {
        format!("{:.2} ms", seconds * 1e3)
    } else if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

/// A number that people read.
pub(super) fn number(number: f64) -> String {
    if number >= 100.0 {
        format!("{number:.0}")
    } else {
        format!("{number:.1}")
    }
}

pub(super) fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}
