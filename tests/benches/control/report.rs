//! What is measured, against its bound, as text, page and JSON.

use std::cmp::Ordering;
use std::{fmt::Write as _, path::Path};

use anyhow::{Context, Result};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, TableStyle, presets};
use evenkeel_tests::{control_cost::Options, end_to_end::report::Machine};
use serde::Serialize;

/// A figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    /// What was measured.
    name: &'static str,
    /// In which unit.
    unit: &'static str,
    /// Each value.
    values: Vec<f64>,
    /// The middle one.
    median: f64,
    /// The largest.
    max: f64,
    /// What none of them may exceed; `None` where nothing is promised.
    bound: Option<f64>,
}

impl Record {
    pub(crate) fn new(
        name: &'static str,
        unit: &'static str,
        values: Vec<f64>,
        bound: Option<f64>,
    ) -> Self {
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN);
        let max = sorted.last().copied().unwrap_or(f64::NAN);
        Self {
            name,
            unit,
            values,
            median,
            max,
            bound,
        }
    }

    /// Whether a bound is missed; nothing measured is a miss, too.
    pub(crate) fn missed(&self) -> bool {
        self.bound
            .is_some_and(|bound| self.max.partial_cmp(&bound) != Some(Ordering::Less))
    }

    /// The figure in words.
    pub(crate) fn told(&self) -> String {
        format!("{}: {} {}", self.name, number(self.max), self.unit)
    }
}

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// When it began, in UTC (RFC 3339).
    pub(crate) date: String,
    /// Where.
    pub(crate) machine: Machine,
    /// How many services there were.
    pub(crate) services: u16,
    /// How many backends each had.
    pub(crate) backends: u8,
    /// How many services there were where the probes were measured.
    pub(crate) probed: u16,
    /// How long processor time was measured in each situation, in seconds.
    pub(crate) seconds: u32,
    /// The figures.
    pub(crate) records: Vec<Record>,
}

impl Report {
    /// Prints and writes what was asked for.
    pub(crate) fn deliver(&self, options: &Options) -> Result<()> {
        let json = serde_json::to_string_pretty(self).context("cannot write the report as JSON")?;
        if options.json {
            crate::print(&json);
        } else {
            crate::print(&format!(
                "{}\n\n{}",
                self.heading(),
                self.table(presets::NOTHING)
            ));
        }
        let Some(folder) = &options.save else {
            return Ok(());
        };
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let (day, _) = self.date.split_once('T').context("the date has no day")?;
        let path = |extension| folder.join(format!("control-{day}.{extension}"));
        save(&path("json"), &json)?;
        save(&path("md"), &self.page())
    }

    fn heading(&self) -> String {
        let machine = &self.machine;
        format!(
            "{} × {}, Linux {}, {}; {} services with {} backends each; probes of {} backends; \
             processor time over {} s",
            machine.processors,
            machine.processor,
            machine.kernel,
            self.date,
            self.services,
            self.backends,
            u32::from(self.probed) * u32::from(self.backends),
            self.seconds,
        )
    }

    fn page(&self) -> String {
        let mut text = format!(
            "# The controller\n\n{}. Made by `cargo xtask bench control`.\n\n{}\n\n",
            self.heading(),
            self.table(presets::ASCII_MARKDOWN)
        );
        _ = writeln!(
            text,
            "[How it is measured](README.md#the-controller-cargo-xtask-bench-control)"
        );
        text
    }

    fn table(&self, style: TableStyle) -> Table {
        let mut table = Table::new();
        table.load_style(style);
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["", "median", "largest", "unit", "bound"]);
        for record in &self.records {
            let bound = match record.bound {
                None => String::new(),
                Some(bound) if record.missed() => format!("{} missed", number(bound)),
                Some(bound) => number(bound),
            };
            let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
            table.add_row([
                Cell::new(record.name),
                right(number(record.median)),
                right(number(record.max)),
                Cell::new(record.unit),
                right(bound),
            ]);
        }
        table
    }
}

/// A value to three digits.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        value if value >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

fn save(path: &Path, content: &str) -> Result<()> {
    std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))?;
    crate::tell(&format!("wrote {}", path.display()));
    Ok(())
}
