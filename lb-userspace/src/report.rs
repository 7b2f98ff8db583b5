//! The report of an incident, or of a span of time: what happened, what it cost, why, and what mended
//! it.
//!
//! A report states only what the journal or history hold, and every figure says where: a row of the
//! journal (`j123`), or a series of history over a time (`h1`). [`material`] reads; all else is a
//! function of what was read. What cannot be told is absent, or said to be unknown.
//!
//! The JSON is a promise: [`VERSION`] grows with a change that could break a reader.

mod backends;
mod cause;
mod header;
mod html;
mod impact;
mod markdown;
pub mod material;
mod outcome;
mod plots;
mod redact;
pub mod references;
mod timeline;
mod trigger;

use serde::Serialize;

pub use self::html::page;
use self::references::{Noted, References};
use crate::history::series::Series;

/// The version of the JSON's shape.
pub const VERSION: u32 = 1;

/// A report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// `evenkeel-report`.
    pub format: &'static str,
    /// The version of this shape.
    pub version: u32,
    /// When it was made, in milliseconds since the Unix epoch, as all moments.
    pub made_at_ms: u64,
    /// What made it.
    pub made_by: String,
    /// What it covers: from then on.
    pub from_ms: u64,
    /// Until just before then.
    pub until_ms: u64,
    /// Whether clients' addresses are whole; otherwise only their networks are told.
    pub with_clients: bool,
    /// The incidents, the oldest first.
    pub incidents: Vec<IncidentPart>,
    /// What of the time is before, during and after.
    pub phases: Vec<Phase>,
    /// What it cost, as estimates.
    pub impact: Vec<Figure>,
    /// Why.
    pub causes: Vec<CausePart>,
    /// The last change before it began, which need not be why.
    pub trigger: Option<TriggerPart>,
    /// Everything that the journal tells of that time.
    pub timeline: Vec<Entry>,
    /// What each backend took, by service.
    pub services: Vec<ServicePart>,
    /// What ended it, and how that shows.
    pub resolution: Vec<Fact>,
    /// How well it was noticed.
    pub detection: Vec<Fact>,
    /// What people have to fill in.
    pub human: Vec<Blank>,
    /// What would keep it from happening again, as far as the audit and the cause say.
    pub actions: Vec<Fact>,
    /// What belongs to the report and is kept elsewhere.
    pub attachments: Vec<Fact>,
    /// What is missing, in words.
    pub gaps: Vec<String>,
    /// What all those notes refer to.
    pub references: Vec<Noted>,
}

/// An incident with its moments.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IncidentPart {
    /// Its name.
    pub id: String,
    /// The service; absent where it is about the whole host.
    pub service: Option<String>,
    /// The drill that it belongs to.
    pub drill: Option<String>,
    /// `open`, `mitigated` or `closed`.
    pub state: String,
    /// What was said of it when it was opened.
    pub text: String,
    /// `start`, `detected`, `notified`, `acknowledged`, `mitigated` and `resolved`, in this order.
    pub times: Vec<Moment>,
    /// The times between them.
    pub durations: Vec<Figure>,
    /// Where all of this is from.
    pub refs: Vec<String>,
}

/// A moment; absent where it did not come, or the journal does not tell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Moment {
    /// Which one.
    pub name: &'static str,
    /// When.
    pub at_ms: Option<u64>,
    /// What there is to say of it.
    pub text: String,
    /// Where it is from.
    pub refs: Vec<String>,
}

/// A number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// The number, in `unit`.
    pub value: f64,
    /// `s`, `ms`, `1/s`, `connections`, `probes`, `share` (a fraction of one), `weight` or `times`.
    pub unit: &'static str,
    /// Whether it is an estimate.
    pub estimate: bool,
    /// How it reads.
    pub text: String,
    /// Where it is from.
    pub refs: Vec<String>,
}

/// A sentence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fact {
    /// The sentence.
    pub text: String,
    /// Where it is from; empty only where it has no figure.
    pub refs: Vec<String>,
}

impl Fact {
    fn new(text: impl Into<String>, refs: Vec<String>) -> Self {
        Self {
            text: text.into(),
            refs,
        }
    }
}

/// A part of the time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Phase {
    /// `before`, `during` or `after`.
    pub name: &'static str,
    /// From then on.
    pub from_ms: u64,
    /// Until just before then.
    pub until_ms: u64,
    /// What bounds it.
    pub refs: Vec<String>,
}

/// A cause.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CausePart {
    /// The service, where it is about one.
    pub service: Option<String>,
    /// As the status has it (`config`, `drift`, …); else the alert's name.
    pub kind: String,
    /// The backend, where it is about one.
    pub backend: Option<String>,
    /// The cause in words.
    pub text: String,
    /// What speaks for it.
    pub evidence: Vec<Fact>,
    /// What it is not, and why not.
    pub ruled_out: Vec<Fact>,
    /// Where it is from.
    pub refs: Vec<String>,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TriggerPart {
    /// The publication in words.
    pub text: String,
    /// When.
    pub at_ms: u64,
    /// Who did it.
    pub who: String,
    /// Why, as the controller had it.
    pub why: Vec<String>,
    /// What came of it.
    pub difference: Vec<Fact>,
    /// The generation that packets followed from then on.
    pub generation: u64,
    /// What the last audit before it had said.
    pub audit: Option<Fact>,
    /// Where it is from.
    pub refs: Vec<String>,
}

/// A line of the timeline: an event, or a run of events that are alike.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// When; of a run, the first.
    pub at_ms: u64,
    /// When the last of a run was.
    pub until_ms: u64,
    /// How many events it stands for.
    pub count: usize,
    /// What it is about.
    pub kind: String,
    /// How much it matters.
    pub level: String,
    /// The service, where it is about one.
    pub service: Option<String>,
    /// The backend, where it is about one.
    pub backend: Option<String>,
    /// Who did it.
    pub actor: String,
    /// The first of them in words.
    pub text: String,
    /// The first and the last.
    pub refs: Vec<String>,
}

/// What the backends of a service took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServicePart {
    /// Its name.
    pub name: String,
    /// Its backends.
    pub backends: Vec<BackendPart>,
    /// All of it over time.
    pub series: Series,
    /// Where that is from.
    pub refs: Vec<String>,
}

/// What a backend took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackendPart {
    /// Its name.
    pub name: String,
    /// Before, during and after, as far as something is known.
    pub phases: Vec<Taken>,
    /// New connections over the whole time, as bars.
    pub sparkline: String,
    /// Where the bars are from.
    pub refs: Vec<String>,
}

/// What a backend took in a phase.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Taken {
    /// Which one.
    pub phase: &'static str,
    /// `new connections`, `rate`, `share`, `intended share`, `weight`, `slowest probe` and `down`, as
    /// far as they are known.
    pub figures: Vec<Figure>,
}

/// A section for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Blank {
    /// Its title.
    pub title: &'static str,
    /// What is to be said there.
    pub question: &'static str,
    /// Always: a report without it is not whole.
    pub required: bool,
    /// What somebody filled in: nothing yet.
    pub text: Option<String>,
}

/// What people have to fill in.
const BLANKS: [(&str, &str); 5] = [
    (
        "Summary",
        "In three sentences, for somebody who was not there: what broke, for whom, and what ended it.",
    ),
    (
        "What users noticed",
        "How many users, for how long, and how: the estimates above know connections and no users.",
    ),
    (
        "Root cause beyond the load balancer",
        "Why was the trigger possible: which decision, tool or missing check let it through?",
    ),
    (
        "What went well, what went badly, where we were lucky",
        "Of the response, not of the people.",
    ),
    (
        "Actions with owners and dates",
        "For each action: who does it, and until when.",
    ),
];

/// A time as reports write it: UTC, to the second.
fn time(ms: u64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms);
    let text = humantime::format_rfc3339_seconds(at).to_string();
    text.replace('T', " ").replace('Z', " UTC")
}

/// A length of time, with tenths of a second where it is short.
fn span(ms: u64) -> String {
    let time = std::time::Duration::from_millis(ms);
    if ms < 60_000 {
        return format!("{:.1} s", time.as_secs_f64());
    }
    humantime::format_duration(std::time::Duration::from_secs(time.as_secs())).to_string()
}

/// Makes the report of what was read.
#[must_use]
pub fn assemble(of: &material::Material) -> Report {
    let mut refs = References::default();
    let phases = header::phases(of, &mut refs);
    let incidents = header::incidents(of, &mut refs);
    let causes = cause::causes(of, &phases, &mut refs);
    let trigger = trigger::trigger(of, &mut refs);
    let impact = impact::impact(of, &phases, &mut refs);
    let services = backends::services(of, &phases, &mut refs);
    let resolution = outcome::resolution(of, &phases, &mut refs);
    let detection = outcome::detection(of, &mut refs);
    let actions = outcome::actions(of, &causes, &mut refs);
    let attachments = outcome::attachments(of, &mut refs);
    let timeline = timeline::timeline(of, &mut refs);
    let blank = |&(title, question): &(&'static str, &'static str)| Blank {
        title,
        question,
        required: true,
        text: None,
    };
    Report {
        format: "evenkeel-report",
        version: VERSION,
        made_at_ms: of.now_ms,
        made_by: of.made_by.clone(),
        from_ms: of.scope.from_ms,
        until_ms: of.scope.until_ms,
        with_clients: of.with_clients,
        incidents,
        phases,
        impact,
        causes,
        trigger,
        timeline,
        services,
        resolution,
        detection,
        human: BLANKS.iter().map(blank).collect(),
        actions,
        attachments,
        gaps: of.gaps.clone(),
        references: refs.all(),
    }
}

/// The report as Markdown.
#[must_use]
pub fn markdown(report: &Report) -> String {
    markdown::text(report)
}

#[cfg(test)]
mod tests;
