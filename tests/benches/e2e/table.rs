//! The figures as tables, for a terminal and for a page.

use std::{fmt::Write as _, path::Path};

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use evenkeel_tests::end_to_end::{Contender, Figure, REFERENCES, Scenario, report::Report};

/// How to read the tables.
const NOTES: [&str; 7] = [
    "Medians of the rounds, in brackets the smallest and the largest. × NAME is the median of the \
     ratios to NAME in the same round: of the first figure, where more is better, and in brackets \
     of the CPU that it takes, where less is.",
    "CPU is what the whole machine worked meanwhile: client, servers, balancer, and whatever else \
     ran.",
    "Percentiles are wrk's: from writing a request to the end of its answer, without the opening \
     of the connection. Where each request has its connection, requests a second are connections \
     a second.",
    "direct has no balancer's hop: the router spreads the connections. bare-xdp has the hop and \
     nothing more, and so is the ceiling for a balancer here.",
    "Answers go past the balancer under direct, bare-xdp, dsr, ipip and gue, and through it under \
     nat, snat, nftables and haproxy: a download loads the former with acknowledgements only.",
    "Between namespaces, segmentation that is 'offloaded' never happens: chunks of 64 KiB go all \
     the way in one piece, which no wire carries. A line with XDP takes frames only, so it looks \
     slow in that case. Frame by frame, all have the same to do.",
    "Each turn has a network of its own, because closed connections of one contender would stand \
     in the next one's way.",
];

/// A value with its name and unit.
pub(crate) fn told(figure: Figure, value: f64) -> String {
    let text = format!("{} {}", figure.title(), number(figure, value));
    format!("{text} {}", figure.unit()).trim_end().to_owned()
}

/// A value to the digits worth showing.
pub(crate) fn number(figure: Figure, value: f64) -> String {
    format!("{value:.*}", figure.digits())
}

/// The tables as a terminal shows them.
pub(crate) fn text(report: &Report) -> String {
    let mut text = format!("{}\n", heading(report));
    for scenario in Scenario::ALL {
        let mut table = table(report, scenario);
        table.load_style(presets::NOTHING);
        _ = write!(text, "\n{}\n{table}\n", scenario.title());
    }
    text.push('\n');
    for note in notes(report) {
        _ = writeln!(text, "- {note}");
    }
    text
}

/// The tables as a page beside its chart.
pub(crate) fn markdown(report: &Report, chart: &Path) -> String {
    let chart = chart.file_name().unwrap_or_default().to_string_lossy();
    let mut text = format!(
        "# From end to end\n\n{}. Made by `cargo xtask bench e2e`.\n\n![medians]({chart})\n",
        heading(report)
    );
    for scenario in Scenario::ALL {
        let mut table = table(report, scenario);
        table.load_style(presets::ASCII_MARKDOWN);
        _ = write!(text, "\n## {}\n\n{table}\n", capital(scenario.title()));
    }
    text.push_str("\n## Notes\n\n");
    for note in notes(report) {
        _ = writeln!(text, "- {note}");
    }
    text
}

/// Where, when and how long.
pub(crate) fn heading(report: &Report) -> String {
    let machine = &report.machine;
    format!(
        "{} × {}, Linux {}, {}; {} rounds of {} s, {} connections, 3 backends",
        machine.processors,
        machine.processor,
        machine.kernel,
        report.date,
        report.rounds,
        report.seconds,
        report.connections,
    )
}

fn notes(report: &Report) -> Vec<String> {
    let errors = report
        .records
        .iter()
        .filter(|record| record.figure == Figure::Errors && record.max > 0.0);
    let errors = errors.map(|record| {
        format!(
            "{}, {}: up to {} requests of a round had no good answer.",
            record.contender.name(),
            record.scenario.title(),
            record.max
        )
    });
    let left_out = report
        .left_out
        .iter()
        .map(|(contender, reason)| format!("{} was left out: {reason}.", contender.name()));
    let background = format!(
        "Before the turns the machine was {:.0} % busy with something else, at most {:.0} %.",
        report.background_median * 100.0,
        report.background_max * 100.0
    );
    let notes = NOTES.iter().map(|&note| note.to_owned());
    notes
        .chain([background])
        .chain(errors)
        .chain(left_out)
        .collect()
}

fn table(report: &Report, scenario: Scenario) -> Table {
    let contenders = report.contenders();
    let measured = |reference: &Contender| contenders.contains(reference);
    let references: Vec<_> = REFERENCES.into_iter().filter(measured).collect();
    // Errors are told below the tables, where there were any.
    let figures = scenario.figures().iter().copied();
    let figures: Vec<_> = figures.filter(|&figure| figure != Figure::Errors).collect();
    let head = figures
        .iter()
        .map(|figure| format!("{}, {}", figure.title(), figure.unit()));
    let ratios = references
        .iter()
        .map(|other| format!("× {} (CPU)", other.name()));

    let mut table = Table::new();
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(std::iter::once(String::new()).chain(head).chain(ratios));
    for contender in contenders {
        let records: Vec<_> = figures
            .iter()
            .filter_map(|&figure| report.record(contender, scenario, figure))
            .collect();
        let [main, cost, ..] = records[..] else {
            continue;
        };
        let mut row = vec![Cell::new(contender.name())];
        row.extend(records.iter().map(|record| {
            let told = |value| number(record.figure, value);
            let median = told(record.median);
            right(if record.figure == main.figure {
                format!("{median} ({} – {})", told(record.min), told(record.max))
            } else {
                median
            })
        }));
        row.extend(references.iter().map(|other| {
            let ratios = main.ratio_to.get(other).zip(cost.ratio_to.get(other));
            right(ratios.map_or(String::new(), |(main, cost)| {
                format!("{main:.2} ({cost:.2})")
            }))
        }));
        table.add_row(row);
    }
    table
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// A title as a heading begins.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters).collect()
}
