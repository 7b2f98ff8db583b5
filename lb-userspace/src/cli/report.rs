//! `evenkeel report`: what happened, what it cost, why, and what mended it.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use super::{
    Answer, STATE_DIRECTORY, VERSION,
    events::moment,
    note::now_ms,
    output::{self, plain},
};
use crate::report::{
    self,
    material::{Error, Material, Wanted},
};

/// Report of an incident, or of a span of time
///
/// Everything in it is from the journal and history of the state directory, and each figure says from
/// where. It works whether a controller runs or not, and changes nothing. What it costs is estimated,
/// and what people have to add is marked as missing.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel report
  sudo evenkeel report --incident 20261126-1 --format html -o report.html
  sudo evenkeel report --since 2026-11-26T08:00:00Z --until 2026-11-26T20:00:00Z
  sudo evenkeel report --format json | jq '.causes[].ruled_out'

Without a name and a time it is about the incident that was opened last. Times are UTC. docs/reports.md
describes the JSON.

Exit codes:
  0  it was made
  1  there is no such incident, or none at all
  2  the journal or history cannot be read, or wrong usage")]
pub(super) struct Arguments {
    /// The incident, as 'evenkeel incident list' has it
    #[arg(long, value_name = "ID", conflicts_with_all = ["since", "until"])]
    incident: Option<String>,
    /// From then on: a time (2026-11-20T08:00:00Z) or how long ago (30m, 2h, 3days)
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    since: Option<u64>,
    /// Until then [default: now]
    #[arg(long, value_name = "WHEN", value_parser = moment, requires = "since")]
    until: Option<u64>,
    /// How it is written
    #[arg(long, value_enum, default_value_t = Format::Markdown)]
    format: Format,
    /// Print JSON: the same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Write it into this file instead of to standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Tell whole addresses of clients, not their networks alone
    #[arg(long)]
    with_clients: bool,
    /// The state directory of the controller
    #[arg(long, value_name = "DIRECTORY", env = "EVENKEEL_STATE", default_value = STATE_DIRECTORY)]
    state: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// As forges show it
    Markdown,
    /// A page that needs nothing else
    Html,
    /// For programs
    Json,
}

/// Makes the report.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let now_ms = now_ms();
    let wanted = match (&arguments.incident, arguments.since) {
        (Some(id), _) => Wanted::Incident(id.clone()),
        (None, Some(from_ms)) => Wanted::Window {
            from_ms,
            until_ms: arguments.until.unwrap_or(now_ms),
        },
        (None, None) => Wanted::Latest,
    };
    if let Wanted::Window { from_ms, until_ms } = wanted
        && from_ms >= until_ms
    {
        bail!("--until must be later than --since");
    }
    let by = (now_ms, VERSION.clone());
    let material = match Material::read(&arguments.state, &wanted, arguments.with_clients, by) {
        Ok(material) => material,
        Err(none @ (Error::NoIncident | Error::Unknown(_))) => {
            output::complain(&plain(&none.to_string()));
            return Ok(Answer::No);
        }
        Err(other) => return Err(other.into()),
    };
    let report = report::assemble(&material);
    let format = if arguments.json {
        Format::Json
    } else {
        arguments.format
    };
    let text = match format {
        Format::Markdown => report::markdown(&report),
        Format::Html => report::page(&report)?,
        Format::Json => serde_json::to_string_pretty(&report)? + "\n",
    };
    match &arguments.output {
        Some(path) => std::fs::write(path, text)
            .with_context(|| format!("cannot write the report to {}", path.display()))?,
        None => output::print(&text)?,
    }
    Ok(Answer::Yes)
}
