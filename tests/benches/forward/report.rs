//! What was measured, as tables and as records.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    os::unix::fs::{MetadataExt as _, chown},
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use comfy_table::{CellAlignment, Table, presets};
use evenkeel_tests::{
    clock,
    packet_cost::{Kind, Options},
};
use serde::Serialize;

use crate::{bed::Program, chart};

/// One measured case, in nanoseconds a packet.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    /// The mode; or `empty`, `empty-undo`, `parse-and-swap`.
    pub(crate) mode: String,
    pub(crate) case: String,
    pub(crate) flows: u32,
    pub(crate) services: u32,
    pub(crate) backends: u32,
    /// With what making the frame takes.
    pub(crate) median_ns: f64,
    pub(crate) min_ns: f64,
    /// Over the floor in the same round.
    pub(crate) net_median_ns: f64,
    pub(crate) net_min_ns: f64,
    pub(crate) net_max_ns: f64,
}

impl Record {
    pub(crate) fn new(
        mode: String,
        case: Kind,
        [flows, services, backends]: [u32; 3],
        mut gross: Vec<f64>,
        mut net: Vec<f64>,
    ) -> Self {
        gross.sort_by(f64::total_cmp);
        net.sort_by(f64::total_cmp);
        // No clock here tells less.
        let hundredths = |value: f64| (value * 100.0).round() / 100.0;
        let median = |sorted: &[f64]| hundredths(sorted[sorted.len() / 2]);
        Self {
            mode,
            case: case.name(),
            flows,
            services,
            backends,
            median_ns: median(&gross),
            min_ns: hundredths(gross[0]),
            net_median_ns: median(&net),
            net_min_ns: hundredths(net[0]),
            net_max_ns: hundredths(net[net.len() - 1]),
        }
    }

    /// Services and backends.
    pub(crate) const fn size(&self) -> (u32, u32) {
        (self.services, self.backends)
    }
}

/// A whole run.
pub(crate) struct Report {
    /// When, in UTC: a date.
    pub(crate) date: String,
    heading: String,
    programs: Table,
    left_out: Vec<String>,
    pub(crate) records: Vec<Record>,
}

impl Report {
    pub(crate) fn new(
        rounds: usize,
        programs: &[Program],
        records: Vec<Record>,
        left_out: Vec<String>,
    ) -> Self {
        let now = UNIX_EPOCH + Duration::from_millis(clock::now_ms());
        let now = humantime::format_rfc3339_seconds(now).to_string();
        let date = now.chars().take_while(|&c| c != 'T').collect();
        let mut table = table(&["program", "verified", "verifier and JIT", "machine code"]);
        for program in programs {
            table.add_row([
                program.name.to_owned(),
                format!("{} instructions", program.verified),
                format!("{} ms", program.took.as_millis()),
                format!("{} bytes", program.jited),
            ]);
        }
        Self {
            heading: format!("{}, {now}, {rounds} rounds", machine()),
            date,
            programs: table,
            left_out,
            records,
        }
    }

    /// Where and when.
    pub(crate) fn heading(&self) -> &str {
        &self.heading
    }

    /// Prints and writes what was asked for.
    pub(crate) fn give(&self, options: &Options) -> Result<()> {
        let json = serde_json::to_string_pretty(&self.records)? + "\n";
        if options.json {
            print!("{json}");
        } else {
            print!("{}", self.text());
        }
        if let Some(path) = &options.svg {
            chart::write(self, path)?;
        }
        if let Some(folder) = &options.save {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
            let path = |ending: &str| folder.join(format!("packet-{}.{ending}", self.date));
            let svg = path("svg");
            chart::write(self, &svg)?;
            let text = format!("# The cost of a packet\n\n{}", self.text());
            for (path, content) in [(path("json"), json), (path("md"), text)] {
                fs::write(&path, content)
                    .with_context(|| format!("cannot write {}", path.display()))?;
                hand_over(&path, folder)?;
            }
            hand_over(&svg, folder)?;
        }
        Ok(())
    }

    /// The tables, as text that is Markdown too.
    fn text(&self) -> String {
        let mut text = format!(
            "{}\n\nNanoseconds a packet over an empty program that is given the same frames in \
             the same round: median, and in brackets the least and the most. `BPF_PROG_TEST_RUN`, \
             thread processor time, everything on one processor.\n\n{}\n",
            self.heading, self.programs
        );
        let mut modes: Vec<&str> = Vec::new();
        for record in &self.records {
            if !modes.contains(&record.mode.as_str()) {
                modes.push(&record.mode);
            }
        }
        let (floors, modes): (Vec<_>, Vec<_>) = modes
            .into_iter()
            .partition(|mode| mode.starts_with("empty") || *mode == "parse-and-swap");
        let mut table = table(&["without balancing", "case", "whole", "net"]);
        for mode in floors {
            for record in self.of(mode) {
                let whole = format!("{:.1}", record.median_ns);
                table.add_row([mode, &record.case, &whole, &net(record)]);
            }
        }
        let _ = write!(text, "\n{table}\n");
        for mode in modes {
            let _ = write!(text, "\n## {mode}\n\n{}\n", self.matrix(mode));
        }
        for reason in &self.left_out {
            let _ = write!(text, "\nNot measured: {reason}.\n");
        }
        text
    }

    fn of<'s>(&'s self, mode: &'s str) -> impl Iterator<Item = &'s Record> {
        self.records
            .iter()
            .filter(move |record| record.mode == mode)
    }

    /// A mode's cases and flows against its sizes.
    fn matrix(&self, mode: &str) -> Table {
        let sizes: BTreeSet<_> = self.of(mode).map(Record::size).collect();
        let mut head = vec!["case".to_owned(), "flows".to_owned()];
        head.extend(
            sizes
                .iter()
                .map(|(services, backends)| format!("{services} × {backends}")),
        );
        let mut rows: Vec<(&str, u32)> = self.of(mode).map(|r| (&*r.case, r.flows)).collect();
        rows.sort_unstable();
        rows.dedup();
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        let mut table = table(&head);
        for (case, flows) in rows {
            let mut cells = vec![case.to_owned(), flows.to_string()];
            for size in &sizes {
                let record = self
                    .of(mode)
                    .find(|r| r.size() == *size && r.case == case && r.flows == flows);
                cells.push(record.map_or_else(String::new, net));
            }
            table.add_row(cells);
        }
        table
    }
}

fn net(record: &Record) -> String {
    format!(
        "{:.1} [{:.1}–{:.1}]",
        record.net_median_ns, record.net_min_ns, record.net_max_ns
    )
}

/// A table that is Markdown.
fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(head);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Gives a file that root wrote to the owner of its folder.
fn hand_over(path: &Path, folder: &Path) -> Result<()> {
    let owner = fs::metadata(folder)?;
    chown(path, Some(owner.uid()), Some(owner.gid()))
        .with_context(|| format!("cannot give {} to the folder's owner", path.display()))
}

/// Processor and kernel, as far as the machine tells them.
fn machine() -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> = processors
        .lines()
        .filter_map(|line| Some(line.strip_prefix("model name")?.split_once(": ")?.1))
        .collect();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{} × {}, Linux {}",
        models.len(),
        models.first().unwrap_or(&"unknown processor"),
        kernel.trim()
    )
}
