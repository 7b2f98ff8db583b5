//! The report as Markdown, as a forge shows it.

use std::fmt::Write as _;

use super::{
    CausePart, Fact, Figure, IncidentPart, Report, ServicePart, TriggerPart, header,
    references::Source, time,
};

/// The figures of a backend, in the order of the columns.
pub(super) const COLUMNS: [&str; 7] = [
    "new connections",
    "rate",
    "share",
    "intended share",
    "weight",
    "slowest probe",
    "down",
];

/// What there is instead of what people have to say.
pub(super) const BLANK: &str = "To be filled in (required).";

/// The title of a report.
pub(super) fn title(report: &Report) -> String {
    let names: Vec<String> = report
        .incidents
        .iter()
        .map(|of| {
            let about = of.service.as_deref().unwrap_or("the whole host");
            let drill = of.drill.as_ref().map(|drill| format!(", DRILL {drill}"));
            format!("{} of {about}{}", of.id, drill.unwrap_or_default())
        })
        .collect();
    if names.is_empty() {
        return "Report without an incident".to_owned();
    }
    format!("Incident report: {}", names.join("; "))
}

/// What the report is, in a line.
pub(super) fn about(report: &Report) -> String {
    let clients = if report.with_clients {
        "addresses of clients are whole"
    } else {
        "of clients' addresses only the networks are told"
    };
    format!(
        "{} to {}. Made by evenkeel {} at {}; {clients}. Notes as [j1] and [h1] say where a figure is from.",
        time(report.from_ms),
        time(report.until_ms),
        report.made_by,
        time(report.made_at_ms)
    )
}

/// A source in words.
pub(super) fn source(of: &Source) -> String {
    match of {
        Source::Journal { row, at_ms, kind } => {
            format!("journal, row {row}: {kind} of {}", time(*at_ms))
        }
        Source::History {
            service,
            backend,
            series,
            from_ms,
            until_ms,
            step_s,
        } => {
            let backend = backend.as_ref().map(|name| format!("/{name}"));
            format!(
                "history, {series} of {service}{}, {} to {}, each {step_s} s",
                backend.unwrap_or_default(),
                time(*from_ms),
                time(*until_ms)
            )
        }
    }
}

/// Text that means nothing to Markdown but itself.
fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '|' | '<' | '>' | '*' | '_' | '`' | '[' | ']' | '~' | '&' | '#' => {
                shown.push('\\');
                shown.push(c);
            }
            c if c.is_control() => shown.push(' '),
            c => shown.push(c),
        }
    }
    shown
}

/// Notes behind a figure.
fn notes(refs: &[String]) -> String {
    let note = |id: &String| format!(" \\[{id}\\]");
    refs.iter().map(note).collect::<Vec<_>>().concat()
}

fn bullets(out: &mut String, facts: &[Fact], none: &str) {
    if facts.is_empty() {
        out.extend([none, "\n"]);
    }
    for fact in facts {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "- {}{}", plain(&fact.text), notes(&fact.refs));
    }
    out.push('\n');
}

/// The report.
pub(super) fn text(report: &Report) -> String {
    let mut out = format!(
        "# {}\n\n{}\n\n",
        plain(&title(report)),
        plain(&about(report))
    );
    for incident in &report.incidents {
        times(&mut out, incident);
    }
    out += "## Impact (estimates)\n\n";
    figures(&mut out, &report.impact, "Nothing is known of it.");
    out += "## Cause\n\n";
    if report.causes.is_empty() {
        out += "The journal holds none.\n\n";
    }
    for of in &report.causes {
        cause(&mut out, of);
    }
    out += "## Trigger\n\nThe last change before the start. It need not be the cause.\n\n";
    match &report.trigger {
        Some(of) => trigger(&mut out, of),
        None => out += "The journal holds no publication before the start.\n\n",
    }
    out += "## Backends\n\n";
    for service in &report.services {
        backends(&mut out, service);
    }
    if report.services.is_empty() {
        out += "History holds nothing of them.\n\n";
    }
    out += "## Resolution\n\n";
    bullets(&mut out, &report.resolution, "Nothing is known of it.");
    out += "## How well it was noticed\n\n";
    bullets(&mut out, &report.detection, "Nothing is known of it.");
    out += "## For people to fill in\n\n";
    for blank in &report.human {
        let text = blank.text.as_deref().unwrap_or(BLANK);
        let _ = writeln!(
            out,
            "### {}\n\n*{}*\n\n**{text}**\n",
            blank.title, blank.question
        );
    }
    out += "## Preventative actions\n\n";
    bullets(&mut out, &report.actions, "The audit asks for none.");
    timeline(&mut out, report);
    out += "## Attachments\n\n";
    bullets(&mut out, &report.attachments, "None.");
    if !report.gaps.is_empty() {
        out += "## What is missing\n\n";
        for gap in &report.gaps {
            let _ = writeln!(out, "- {}", plain(gap));
        }
        out.push('\n');
    }
    out += "## References\n\n| note | where |\n|---|---|\n";
    for noted in &report.references {
        let _ = writeln!(out, "| {} | {} |", noted.id, plain(&source(&noted.source)));
    }
    out
}

fn times(out: &mut String, incident: &IncidentPart) {
    let _ = writeln!(
        out,
        "## Incident {}: {}\n\n{}{}\n\n| moment | UTC | |\n|---|---|---|",
        plain(&incident.id),
        incident.state,
        plain(&incident.text),
        notes(&incident.refs)
    );
    for moment in &incident.times {
        let _ = writeln!(
            out,
            "| {} | {} | {}{} |",
            moment.name,
            header::shown(moment),
            plain(&moment.text),
            notes(&moment.refs)
        );
    }
    out.push('\n');
    figures(out, &incident.durations, "");
}

fn figures(out: &mut String, figures: &[Figure], none: &str) {
    if figures.is_empty() {
        out.extend([none, "\n\n"]);
        return;
    }
    *out += "| | |\n|---|---|\n";
    for of in figures {
        let estimate = if of.estimate { "estimate: " } else { "" };
        let _ = writeln!(
            out,
            "| {} | {estimate}{}{} |",
            plain(&of.name),
            plain(&of.text),
            notes(&of.refs)
        );
    }
    out.push('\n');
}

fn cause(out: &mut String, of: &CausePart) {
    let about = of.service.as_deref().unwrap_or("the whole host");
    let _ = writeln!(
        out,
        "**{}** ({}): {}{}\n\nEvidence:\n",
        plain(&of.kind),
        plain(about),
        plain(&of.text),
        notes(&of.refs)
    );
    bullets(out, &of.evidence, "No more than that.");
    *out += "What it is not, or cannot be told to be:\n\n";
    bullets(out, &of.ruled_out, "The journal holds no alternatives.");
}

fn trigger(out: &mut String, of: &TriggerPart) {
    let _ = writeln!(
        out,
        "{}, by **{}**: {}{}\n",
        time(of.at_ms),
        plain(&of.who),
        plain(&of.text),
        notes(&of.refs)
    );
    for why in &of.why {
        let _ = writeln!(out, "- why: {}{}", plain(why), notes(&of.refs));
    }
    bullets(out, &of.difference, "");
    match &of.audit {
        Some(audit) => {
            let _ = writeln!(
                out,
                "What the audit had said: {}{}\n",
                plain(&audit.text),
                notes(&audit.refs)
            );
        }
        None => *out += "No audit had been made.\n\n",
    }
}

fn backends(out: &mut String, service: &ServicePart) {
    let _ = writeln!(
        out,
        "### {}{}\n\n| backend | phase | {} | over all of it |\n|---|---|{}---|",
        plain(&service.name),
        notes(&service.refs),
        COLUMNS.join(" | "),
        "---:|".repeat(COLUMNS.len())
    );
    for backend in &service.backends {
        for (n, taken) in backend.phases.iter().enumerate() {
            let cell = |name: &str| {
                let found = taken.figures.iter().find(|figure| figure.name == name);
                found.map_or_else(
                    || "–".to_owned(),
                    |figure| figure.text.clone() + &notes(&figure.refs),
                )
            };
            let cells = COLUMNS.map(cell).join(" | ");
            let line = match n {
                0 => format!("{}{}", backend.sparkline, notes(&backend.refs)),
                _ => String::new(),
            };
            let name = plain(&backend.name);
            let _ = writeln!(out, "| {name} | {} | {cells} | {line} |", taken.phase);
        }
    }
    out.push('\n');
}

fn timeline(out: &mut String, report: &Report) {
    *out += "## Timeline\n\n| UTC | | kind | by | what |\n|---|---|---|---|---|\n";
    for entry in &report.timeline {
        let many = match entry.count {
            1 => String::new(),
            count => format!("{count} alike until {}: ", time(entry.until_ms)),
        };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {many}{}{} |",
            time(entry.at_ms),
            plain(&entry.level),
            plain(&entry.kind),
            plain(&entry.actor),
            plain(&entry.text),
            notes(&entry.refs)
        );
    }
    out.push('\n');
}
