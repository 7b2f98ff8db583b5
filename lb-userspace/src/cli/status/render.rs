//! A status as text: a pure function of the status and of how wide and colourful it may be.

mod table;

use std::{collections::BTreeMap, fmt::Write as _};

use comfy_table::{ContentArrangement, Table, presets};

use super::{
    judgement,
    units::{ago, percent, short},
};
use crate::{
    admin::proto::{
        Backend, Cause, Clients, Evenness, Finding, Remembered, Service, Status, Verdict,
        change::Override,
    },
    cli::{alerts, incident, output::plain},
};

/// How a status may look.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct View {
    /// Columns; `None` takes as many as are needed.
    pub(in crate::cli) width: Option<usize>,
    /// Whether to use colours.
    pub(in crate::cli) colour: bool,
}

/// What a colour means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Doubtful,
    Bad,
    Strong,
    Quiet,
    Usual,
}

impl Tone {
    /// The 'select graphic rendition' parameter of ECMA-48.
    const fn code(self) -> Option<u8> {
        match self {
            Self::Good => Some(32),
            Self::Doubtful => Some(33),
            Self::Bad => Some(31),
            Self::Strong => Some(1),
            Self::Quiet => Some(2),
            Self::Usual => None,
        }
    }
}

/// Writes a whole status, ending with a line break.
pub(super) fn render(status: &Status, view: View) -> String {
    let mut page = Page::new(view);
    header(status, &mut page);
    for service in &status.services {
        page.empty();
        describe(service, status.now_ms, &mut page);
    }
    if let Some(exits) = exits(&status.exits) {
        page.empty();
        page.text(0, Tone::Quiet, &format!("other packets: {exits}"));
    }
    page.finish()
}

/// Writes what there is to say before a status that is no longer the latest.
pub(super) fn notice(text: &str, view: View) -> String {
    let mut page = Page::new(view);
    page.text(0, Tone::Doubtful, text);
    page.finish() + "\n"
}

/// Lines in the making.
pub(super) struct Page {
    view: View,
    lines: Vec<String>,
}

impl Page {
    pub(super) const fn new(view: View) -> Self {
        Self {
            view,
            lines: Vec::new(),
        }
    }

    /// Adds an empty line.
    pub(super) fn empty(&mut self) {
        self.lines.push(String::new());
    }

    /// All lines, each with its end.
    pub(super) fn finish(self) -> String {
        self.lines.join("\n") + "\n"
    }

    /// Adds text from anywhere, made harmless, wrapped at words and indented.
    pub(super) fn text(&mut self, indent: usize, tone: Tone, text: &str) {
        let text = plain(text);
        let wrapped = match self.view.width {
            Some(width) => wrap(&text, width.saturating_sub(indent).max(20)),
            None => vec![text],
        };
        for line in wrapped {
            let line = match tone.code() {
                Some(code) if self.view.colour => format!("\x1b[{code}m{line}\x1b[0m"),
                _ => line,
            };
            self.lines.push(format!("{:indent$}{line}", ""));
        }
    }
}

/// Breaks text at words; the table library knows how wide characters are.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .force_no_tty()
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(u16::try_from(width).unwrap_or(u16::MAX))
        .add_row([text]);
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 0));
    });
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

fn header(status: &Status, page: &mut Page) {
    let now = status.now_ms;
    let published = status.published_at_ms.map_or_else(
        || "published before this controller started".to_owned(),
        |at| format!("published {} ago", ago(now, at)),
    );
    let interfaces: Vec<String> = status
        .interfaces
        .iter()
        .map(|interface| format!("{} ({} XDP)", interface.name, interface.xdp_mode))
        .collect();
    let attached = if interfaces.is_empty() {
        "attached to no interface".to_owned()
    } else {
        format!("attached to {}", interfaces.join(", "))
    };
    page.text(
        0,
        Tone::Usual,
        &format!(
            "generation {}, {published}; {attached}; up {}",
            status.generation,
            ago(now, status.started_at_ms)
        ),
    );
    let checked = ago(now, status.tables.checked_at_ms);
    if status.tables.as_intended {
        page.text(
            0,
            Tone::Good,
            &format!("tables as intended, compared {checked} ago"),
        );
        repairs(status, page);
    } else {
        let slots = status.tables.differing_slots;
        page.text(
            0,
            Tone::Bad,
            &format!("tables NOT as intended: {slots} slots differ, compared {checked} ago"),
        );
        for difference in &status.tables.differences {
            page.text(2, Tone::Bad, difference);
        }
        if status.tables.repairs.given_up {
            let text = "not repaired any more: earlier repairs did not last, somebody else writes";
            page.text(2, Tone::Bad, text);
        }
    }
    if let Some(failure) = &status.journal.failure {
        let text = format!("journal NOT written, events wait in memory: {failure}");
        page.text(0, Tone::Bad, &text);
    }
    configuration(status, page);
    notifications(status, page);
    let reasons = judgement::reasons(status);
    if !reasons.is_empty() {
        page.text(0, Tone::Bad, &format!("wrong: {}", reasons.join("; ")));
    }
}

/// What was changed in the kernel's tables by somebody else.
fn repairs(status: &Status, page: &mut Page) {
    let repairs = &status.tables.repairs;
    let Some(last) = repairs.last_at_ms else {
        return;
    };
    let text = format!(
        "repaired {} times since the start, the last time {} ago: {}",
        repairs.count,
        ago(status.now_ms, last),
        repairs.last.join("; ")
    );
    page.text(2, Tone::Doubtful, &text);
}

/// What there is to say of the configuration, where it is not simply the file's.
fn configuration(status: &Status, page: &mut Page) {
    let of = &status.configuration;
    if let Some(by) = of.confirm_by_ms {
        let left = by.saturating_sub(status.now_ms) / 1000;
        let text = format!(
            "configuration {} is taken back in {left} s unless it is confirmed ('evenkeel confirm')",
            of.number
        );
        page.text(0, Tone::Doubtful, &text);
    }
    if let Some(differs) = &of.file_differs {
        page.text(0, Tone::Doubtful, differs);
    }
    for of in &status.waiting_overrides {
        let text = format!(
            "{}/{} is not configured; if it comes back, {}",
            of.service,
            of.backend,
            overridden(of, status.now_ms)
        );
        page.text(0, Tone::Quiet, &text);
    }
}

/// An override with its reason, as in `drained for 3m by ann: new kernel`.
fn overridden(of: &Override, now: u64) -> String {
    let what = match of.kind.as_str() {
        "drain" => "drained".to_owned(),
        "disable" => "disabled".to_owned(),
        _ => format!("given weight {}", of.weight),
    };
    let instead = of
        .configured_weight
        .map_or_else(String::new, |weight| format!(" instead of weight {weight}"));
    let reason = of.reason.as_ref().map(|reason| format!(": {reason}"));
    let ends = of.expires_at_ms.map(|at| {
        let left = std::time::Duration::from_secs(at.saturating_sub(now) / 1000);
        format!("; ends in {}", humantime::format_duration(left))
    });
    let drain = of.drain.as_ref().map(|drain| match drain.flows_left {
        _ if drain.complete => "; no flow is left".to_owned(),
        Some(flows) => format!("; {flows} tracked flows left"),
        None => "; flows are being counted".to_owned(),
    });
    format!(
        "{what}{instead} by {}, {} ago{}{}{}",
        of.actor,
        ago(now, of.since_ms),
        reason.unwrap_or_default(),
        drain.unwrap_or_default(),
        ends.unwrap_or_default()
    )
}

/// How it goes with those who are told of alerts.
fn notifications(status: &Status, page: &mut Page) {
    let now = status.now_ms;
    if let Some(failure) = &status.notify.spool_failure {
        let text = format!("notifications that wait are NOT on disk: {failure}");
        page.text(0, Tone::Bad, &text);
    }
    let firing = status.alerts.iter().filter(|alert| alert.state == "firing");
    let count = firing.clone().count();
    if let Some(gravest) = firing.min_by_key(|alert| alerts::rank(alert)) {
        let s = if count == 1 { "" } else { "s" };
        let text = format!("{count} alert{s} firing, see 'evenkeel alerts'");
        page.text(0, Tone::Doubtful, &text);
        if let Some(runbook) = alerts::runbook(gravest) {
            page.text(0, Tone::Quiet, &format!("runbook: {runbook}"));
        }
    }
    for incident in &status.incidents {
        let line = incident::line(incident, now);
        page.text(0, Tone::Bad, &format!("incident {}", line.trim_end()));
    }
    for receiver in &status.notify.receivers {
        let mut text = format!("tells {}: {} sent", receiver.name, receiver.sent);
        for (count, word) in [
            (receiver.failed, "tries failed"),
            (receiver.waiting, "waiting"),
            (receiver.dropped, "given up"),
        ] {
            if count > 0 {
                // Writing to a string cannot fail.
                let _ = write!(text, ", {count} {word}");
            }
        }
        if let Some(at) = receiver.last_taken_at_ms {
            let _ = write!(text, "; took something {} ago", ago(now, at));
        }
        let tone = match (receiver.failing_since_ms, &receiver.last_error) {
            (Some(since), why) => {
                let why = why.as_deref().unwrap_or_default();
                let _ = write!(text, "; NOT reached for {}: {why}", ago(now, since));
                Tone::Bad
            }
            (None, _) => Tone::Quiet,
        };
        page.text(0, tone, &text);
    }
}

/// Why it is so, where no finding has said that, and what it is not.
fn describe_cause(cause: &Cause, evenness: &Evenness, page: &mut Page) {
    let said = |finding: &Finding| finding.message == cause.message;
    if !evenness.findings.iter().any(said) {
        page.text(2, Tone::Doubtful, &cause.message);
    }
    for other in &cause.ruled_out {
        page.text(4, Tone::Quiet, &format!("not {other}"));
    }
}

/// Who opens the connections.
fn describe_clients(clients: &Clients) -> String {
    let heaviest: Vec<String> = clients
        .heaviest
        .iter()
        .map(|heavy| format!("{} {}", heavy.client, percent(heavy.share)))
        .collect();
    let many = match clients.effective {
        Some(number) => format!("as {number:.0} that are alike"),
        None => "many".to_owned(),
    };
    format!("clients: {many}; heaviest {}", heaviest.join(", "))
}

pub(super) fn describe(service: &Service, now: u64, page: &mut Page) {
    let total = service.backends.len();
    page.text(
        0,
        Tone::Strong,
        &format!(
            "{}  {}  {}  serving {} of {total}",
            service.name, service.key, service.mode, service.serving
        ),
    );
    if service.serving == 0 {
        let fate = match service.on_empty.as_str() {
            "pass" => "its packets go to the host's own stack",
            _ => "its packets are dropped",
        };
        page.text(2, Tone::Bad, &format!("no usable backend: {fate}"));
    }
    guards(service, page);
    let evenness = &service.evenness;
    let (tone, verdict) = match evenness.verdict {
        Verdict::Even => (Tone::Good, "even"),
        Verdict::Skewed => (Tone::Bad, "SKEWED"),
        Verdict::CannotTell => (Tone::Doubtful, "cannot tell"),
    };
    let detectable = match (evenness.detectable_skew, evenness.detectable_within_s) {
        (Some(skew), Some(seconds)) => {
            format!(" (would notice {skew:.2}x within {} s)", short(seconds))
        }
        (Some(skew), None) => format!(" (would notice {skew:.2}x)"),
        _ => String::new(),
    };
    // Most messages begin with their verdict, and an even one names what would be noticed.
    let message = &evenness.message;
    let verdict = if message.starts_with(verdict) {
        String::new()
    } else {
        format!("{verdict}: ")
    };
    let detectable = if message.contains("would show") {
        ""
    } else {
        detectable.as_str()
    };
    page.text(2, tone, &format!("{verdict}{message}{detectable}"));
    for finding in &evenness.findings {
        describe_finding(finding, now, page);
    }
    if let Some(cause) = &evenness.cause {
        describe_cause(cause, evenness, page);
    }
    if let Some(clients) = &evenness.clients {
        page.text(2, Tone::Quiet, &describe_clients(clients));
    }
    if let Some(flood) = service.syn_flood {
        let (rate, share) = (short(flood.syn_rate), percent(flood.syn_share));
        let since = ago(now, flood.since_ms);
        let text = format!("SYN flood for {since}: {rate} SYNs/s, {share} of its packets");
        page.text(2, Tone::Bad, &text);
    }
    if let Some(text) = remembered(&service.remembered, now) {
        page.text(2, Tone::Quiet, &text);
    }
    page.lines
        .extend(table::lines(&service.backends, now, page.view));
    for backend in &service.backends {
        remarks(backend, now, page);
    }
    if let Some(exits) = exits(&service.exits) {
        page.text(2, Tone::Quiet, &format!("not forwarded: {exits}"));
    }
}

/// What there is to say of a backend that does not simply serve.
pub(super) fn remarks(backend: &Backend, now: u64, page: &mut Page) {
    match (&backend.out_of_ring, performance(backend)) {
        (Some(reason), None) => page.text(2, Tone::Bad, &out_of_ring(backend, reason, now)),
        (_, Some(text)) => page.text(2, Tone::Doubtful, &text),
        (None, None) => {}
    }
    if let Some(of) = &backend.overridden {
        let text = format!("{} is {}", backend.name, overridden(of, now));
        page.text(2, Tone::Doubtful, &text);
    }
    if let Some((tone, text)) = agent(backend, now) {
        page.text(2, tone, &text);
    }
    if let Some(seconds) = backend.full_in_s {
        let text = format!("{} starts slowly: whole in {seconds:.0} s", backend.name);
        page.text(2, Tone::Quiet, &text);
    }
}

/// What is remembered of a service's flows; `None` where nothing is.
fn remembered(remembered: &Remembered, now: u64) -> Option<String> {
    let mut parts = Vec::new();
    if remembered.flows > 0 {
        parts.push(format!("remembers {} flows", remembered.flows));
    }
    if remembered.slots_in_transition > 0 {
        let since = remembered.changed_at_ms.map(|at| ago(now, at));
        parts.push(format!(
            "{} slots in transition{}",
            remembered.slots_in_transition,
            since.map_or_else(String::new, |since| format!(" for {since}"))
        ));
    }
    if remembered.slots_pinned > 0 {
        parts.push(format!("{} slots pinned", remembered.slots_pinned));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn describe_finding(finding: &Finding, now: u64, page: &mut Page) {
    let tone = if finding.severity == "page" {
        Tone::Bad
    } else {
        Tone::Doubtful
    };
    let ratio = finding
        .ratio
        .map(|ratio| format!(" at {ratio:.2}x"))
        .unwrap_or_default();
    let backend = finding
        .backend
        .as_ref()
        .map(|name| format!(", {name}{ratio}"))
        .unwrap_or_default();
    page.text(
        4,
        tone,
        &format!(
            "{} ({}{backend}, for {}): {}",
            finding.severity,
            finding.reference,
            ago(now, finding.since_ms),
            finding.message
        ),
    );
}

/// What holds of a service as a whole while something is wrong.
fn guards(service: &Service, page: &mut Page) {
    if let Some(why) = &service.panic {
        let text = format!("PANIC: {why}; all that are not drained are used");
        page.text(2, Tone::Bad, &text);
    }
    if let Some(why) = &service.fleet_degraded {
        page.text(
            2,
            Tone::Bad,
            &format!("fleet degraded: {why}; nobody is demoted"),
        );
    }
    if let Some(seconds) = service.demotions_frozen_s {
        let text = format!("a demotion did harm: none follows for {seconds:.0} s");
        page.text(2, Tone::Doubtful, &text);
    }
}

/// What is held against a backend, and what becomes of it; `None` where nothing is.
fn performance(backend: &Backend) -> Option<String> {
    let seen = backend.performance.as_ref()?;
    if matches!(seen.state.as_str(), "well" | "suspect") {
        return None;
    }
    let reason = seen.reason.as_deref().unwrap_or("it underperforms");
    let next = match (&seen.spared, seen.next_rise_s) {
        (Some(why), _) => format!("; it keeps its weight: {why}"),
        (None, Some(seconds)) => format!("; more in {seconds:.0} s if it is well"),
        (None, None) => String::new(),
    };
    let share = percent(seen.part);
    Some(format!(
        "{} is {}, with {share} of its weight: {reason}{next}",
        backend.name, seen.state
    ))
}

/// What a backend asks for itself, or that its agent is silent; `None` where it asks for all.
fn agent(backend: &Backend, now: u64) -> Option<(Tone, String)> {
    let agent = backend.agent.as_ref()?;
    let name = &backend.name;
    let failure = agent.failure.as_deref();
    let Some((heard, since)) = agent.heard_at_ms.zip(agent.since_ms) else {
        let text = format!("{name} has an agent that says nothing: {}", failure?);
        return Some((Tone::Quiet, text));
    };
    let asks = match (agent.state.as_str(), agent.percent) {
        ("up", None | Some(100)) if failure.is_none() => return None,
        ("up", percent) => format!("{} % of its weight", percent.unwrap_or(100)),
        (word, _) => format!("no new flows ('{word}')"),
    };
    let note = agent.note.as_ref().map(|note| format!(": {note}"));
    let silent = failure.map(|why| format!("; silent for {}: {why}", ago(now, heard)));
    let ignored = agent.ignored.as_deref().map(|why| match why {
        "override" => "; an override holds",
        _ => "; NOT followed: too little of the weight would be left",
    });
    let since = ago(now, since);
    let text = format!(
        "{name} asks by its agent for {asks}, since {since} ago{}{}{}",
        note.unwrap_or_default(),
        ignored.unwrap_or_default(),
        silent.unwrap_or_default()
    );
    Some((Tone::Doubtful, text))
}

fn out_of_ring(backend: &Backend, reason: &str, now: u64) -> String {
    let probe = backend.last_probe.as_ref().map(|probe| {
        format!(
            "; last probe {} ago: {}",
            ago(now, probe.at_ms),
            probe.detail
        )
    });
    format!(
        "{} takes no new flows: {reason}{}",
        backend.name,
        probe.unwrap_or_default()
    )
}

/// Reasons that have been counted; `None` where none has.
fn exits(exits: &BTreeMap<String, u64>) -> Option<String> {
    let mut counted: Vec<_> = exits.iter().filter(|(_, packets)| **packets > 0).collect();
    counted.sort_by_key(|(_, packets)| std::cmp::Reverse(**packets));
    let counted: Vec<String> = counted
        .iter()
        .map(|(reason, packets)| format!("{reason} {packets}"))
        .collect();
    (!counted.is_empty()).then(|| counted.join(", "))
}

#[cfg(test)]
mod tests;
