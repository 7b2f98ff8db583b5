//! The report as a page that needs nothing else, in light and dark, on paper too.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    CausePart, Fact, Figure, IncidentPart, Report, ServicePart, TriggerPart, header,
    markdown::{BLANK, COLUMNS, about, source, title},
    plots, time,
};

const STYLE: &str = "\
:root { color-scheme: light dark; --ground: #fff; --text: #1b1d21; --quiet: #555b66; --line: #c9ced6;
  --bad: #a8001c; --doubtful: #7a4a00; --blank: #fff6d6; }
@media (prefers-color-scheme: dark) { :root { --ground: #15171b; --text: #e6e8ec; --quiet: #a9b0bc;
  --line: #3b414b; --bad: #ff9a94; --doubtful: #f0c674; --blank: #3a3312; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--ground);
  max-width: 64rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--quiet); }
th, td { padding: .25rem .6rem; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
thead th { border-top: 0; } td.number { text-align: right; white-space: nowrap; }
td.when { white-space: nowrap; } .error { color: var(--bad); } .warning { color: var(--doubtful); }
a.note { font-size: .75em; color: var(--quiet); text-decoration: none; margin-left: .2em; }
a.note:hover, a.note:focus { text-decoration: underline; } :target { outline: 2px solid var(--doubtful); }
.quiet { color: var(--quiet); } .drill { color: var(--bad); font-weight: 700; }
.blank { background: var(--blank); padding: .6rem 1rem; border: 1px dashed var(--line); min-height: 3rem; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1rem; list-style: none; padding: 0; }
.legend i { display: inline-block; width: .8em; height: .8em; margin-right: .4em; }
figure { margin: 1rem 0; } figure svg { display: block; max-width: 100%; height: auto; }
figure svg text { fill: currentColor; } figure svg [stroke='#000000'] { stroke: currentColor; }
.bars { white-space: pre; }
@media print { :root { --ground: #fff; --text: #000; --quiet: #444; --line: #bbb; --bad: #900; --doubtful: #630; --blank: #fff; }
  body { font-size: 10pt; max-width: none; margin: 0; } h2 { break-after: avoid; }
  tr, figure, .blank { break-inside: avoid; } .blank { min-height: 6rem; } .scroll { overflow: visible; } }";

/// The page.
///
/// # Errors
/// Where a picture cannot be drawn.
pub fn page(report: &Report) -> anyhow::Result<String> {
    let pictures: Vec<String> = report
        .services
        .iter()
        .map(|service| plots::picture(report, service))
        .collect::<anyhow::Result<_>>()?;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title(report)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    h1 { (title(report)) }
                    @for drill in report.incidents.iter().filter_map(|of| of.drill.as_ref()) {
                        p.drill { "This was a drill: " (drill) "." }
                    }
                    p.quiet { (about(report)) }
                    @for incident in &report.incidents { (times(incident)) }
                    h2 { "Impact (estimates)" }
                    (figures(&report.impact, "Nothing is known of it."))
                    h2 { "Cause" }
                    @if report.causes.is_empty() { p { "The journal holds none." } }
                    @for of in &report.causes { (cause(of)) }
                    h2 { "Trigger" }
                    p.quiet { "The last change before the start. It need not be the cause." }
                    @match &report.trigger {
                        Some(of) => (trigger(of)),
                        None => p { "The journal holds no publication before the start." },
                    }
                    h2 { "Backends" }
                    @if report.services.is_empty() { p { "History holds nothing of them." } }
                    @for (service, picture) in report.services.iter().zip(&pictures) {
                        (backends(service, picture))
                    }
                    h2 { "Resolution" } (facts(&report.resolution, "Nothing is known of it."))
                    h2 { "How well it was noticed" } (facts(&report.detection, "Nothing is known of it."))
                    h2 { "For people to fill in" }
                    @for blank in &report.human {
                        h3 { (blank.title) }
                        p.quiet { (blank.question) }
                        p.blank { (blank.text.as_deref().unwrap_or(BLANK)) }
                    }
                    h2 { "Preventative actions" } (facts(&report.actions, "The audit asks for none."))
                    (timeline(report))
                    h2 { "Attachments" } (facts(&report.attachments, "None."))
                    @if !report.gaps.is_empty() {
                        h2 { "What is missing" }
                        ul { @for gap in &report.gaps { li { (gap) } } }
                    }
                    h2 { "References" }
                    div.scroll { table {
                        caption { "What the notes refer to" }
                        thead { tr { th scope="col" { "note" } th scope="col" { "where" } } }
                        tbody { @for noted in &report.references {
                            tr id=(noted.id) { td { (noted.id) } td { (source(&noted.source)) } }
                        } }
                    } }
                }
            }
        }
    };
    Ok(page.into_string())
}

/// Notes behind a figure, each a link to what it refers to.
fn notes(refs: &[String]) -> Markup {
    html! { @for id in refs { a.note href={ "#" (id) } { "[" (id) "]" } } }
}

fn facts(facts: &[Fact], none: &str) -> Markup {
    html! {
        @if facts.is_empty() { p { (none) } } @else {
            ul { @for fact in facts { li { (fact.text) (notes(&fact.refs)) } } }
        }
    }
}

fn times(incident: &IncidentPart) -> Markup {
    html! {
        h2 { "Incident " (incident.id) ": " (incident.state) }
        p { (incident.text) (notes(&incident.refs)) }
        div.scroll { table {
            caption { "When" }
            thead { tr { th scope="col" { "moment" } th scope="col" { "UTC" } th scope="col" { "note" } } }
            tbody { @for moment in &incident.times { tr {
                td { (moment.name) } td.when { (header::shown(moment)) }
                td { (moment.text) (notes(&moment.refs)) }
            } } }
        } }
        (figures(&incident.durations, ""))
    }
}

fn figures(figures: &[Figure], none: &str) -> Markup {
    html! {
        @if figures.is_empty() { p { (none) } } @else {
            div.scroll { table {
                caption { "Figures" }
                thead { tr { th scope="col" { "what" } th scope="col" { "how much" } } }
                tbody { @for of in figures { tr {
                    td { (of.name) }
                    td { @if of.estimate { span.quiet { "estimate: " } } (of.text) (notes(&of.refs)) }
                } } }
            } }
        }
    }
}

fn cause(of: &CausePart) -> Markup {
    html! {
        p {
            strong { (of.kind) } " (" (of.service.as_deref().unwrap_or("the whole host")) "): "
            (of.text) (notes(&of.refs))
        }
        h3 { "Evidence" } (facts(&of.evidence, "No more than that."))
        h3 { "What it is not, or cannot be told to be" }
        (facts(&of.ruled_out, "The journal holds no alternatives."))
    }
}

fn trigger(of: &TriggerPart) -> Markup {
    html! {
        p { (time(of.at_ms)) ", by " strong { (of.who) } ": " (of.text) (notes(&of.refs)) }
        ul {
            @for why in &of.why { li { "why: " (why) (notes(&of.refs)) } }
            @for fact in &of.difference { li { (fact.text) (notes(&fact.refs)) } }
        }
        @match &of.audit {
            Some(audit) => p { "What the audit had said: " (audit.text) (notes(&audit.refs)) },
            None => p { "No audit had been made." },
        }
    }
}

fn backends(service: &ServicePart, picture: &str) -> Markup {
    let drawn = plots::drawn(service);
    html! {
        h3 { (service.name) (notes(&service.refs)) }
        @if drawn.len() < service.backends.len() {
            p.quiet { "Drawn are the " (plots::MOST) " backends that deviate most." }
        }
        ul.legend { @for (n, line) in drawn.iter().enumerate() {
            li { i style={ "background:" (plots::colour(n)) } {} (line.name) }
        } }
        figure role="img" aria-label={ "shares, connections and probes of " (service.name) " over time" } {
            (PreEscaped(picture))
        }
        div.scroll { table {
            caption { "What each backend took" }
            thead { tr {
                th scope="col" { "backend" } th scope="col" { "phase" }
                @for column in COLUMNS { th scope="col" { (column) } }
                th scope="col" { "over all of it" }
            } }
            tbody { @for backend in &service.backends { @for (n, taken) in backend.phases.iter().enumerate() { tr {
                td { (backend.name) } td { (taken.phase) }
                @for column in COLUMNS { td.number {
                    @match taken.figures.iter().find(|figure| figure.name == column) {
                        Some(figure) => { (figure.text) (notes(&figure.refs)) }
                        None => "–",
                    }
                } }
                td.bars { @if n == 0 { (backend.sparkline) (notes(&backend.refs)) } }
            } } } }
        } }
    }
}

fn timeline(report: &Report) -> Markup {
    html! {
        h2 { "Timeline" }
        div.scroll { table {
            caption { "All that the journal holds of that time" }
            thead { tr {
                th scope="col" { "UTC" } th scope="col" { "level" } th scope="col" { "kind" }
                th scope="col" { "by" } th scope="col" { "what" }
            } }
            tbody { @for entry in &report.timeline { tr {
                td.when { (time(entry.at_ms)) } td class=(entry.level) { (entry.level) }
                td { (entry.kind) } td { (entry.actor) }
                td {
                    @if entry.count > 1 { (entry.count) " alike until " (time(entry.until_ms)) ": " }
                    (entry.text) (notes(&entry.refs))
                }
            } } }
        } }
    }
}
