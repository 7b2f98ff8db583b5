//! Requests, throughput, latency and processor time from end to end: Evenkeel in each of its modes
//! beside others that do the same, over the same namespaces, in turns.
//!
//! Each turn has a network of its own. Otherwise the closed connections that one contender left
//! behind would answer the next one's: a balancer that reuses a port towards a backend meets its
//! `TIME_WAIT`, and the kernel drops the SYN.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints"
)]

mod chart;
mod forwarder;
mod processor;
mod table;
mod traffic;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use evenkeel_tests::{
    clock,
    end_to_end::{
        Contender, Scenario,
        options::Options,
        report::{Machine, Report, Sample, median_and_max, records},
    },
    server::Web,
    tools::{require_root, tool},
};

use crate::forwarder::Forwarder;

/// Measures from end to end; `cargo xtask bench e2e` builds what this takes and runs it.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How busy with something else the machine may be without a word.
const QUIET: f64 = 0.05;

fn main() -> ExitCode {
    match run(&Arguments::parse().options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    require_root()?;
    for program in ["wrk", "iperf3", "nginx", "curl", "ss", "ethtool"] {
        tool(program)?;
    }
    let date = now();
    let (contenders, left_out) = choose(options)?;
    let (mut samples, mut background) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        // Nobody always follows the same one, and nobody always comes first.
        let first = round as usize % contenders.len();
        let turns = contenders[first..].iter().chain(&contenders[..first]);
        for &contender in turns {
            eprintln!(
                "round {} of {}: {}",
                round + 1,
                options.rounds,
                contender.name()
            );
            let busy = processor::background()?;
            if busy > QUIET {
                eprintln!(
                    "  the machine is {:.0} % busy with something else: expect noise",
                    busy * 100.0
                );
            }
            background.push(busy);
            let values = turn(contender, round, options)
                .with_context(|| format!("in the turn of {}", contender.name()))?;
            samples.extend(values);
        }
    }
    let (background_median, background_max) = median_and_max(&background);
    let report = Report {
        date,
        machine: Machine::look()?,
        rounds: options.rounds,
        seconds: options.seconds,
        connections: traffic::CONNECTIONS,
        background_median,
        background_max,
        left_out,
        records: records(&samples),
    };
    deliver(&report, options)
}

/// The time in UTC, to the second.
fn now() -> String {
    let now = UNIX_EPOCH + Duration::from_millis(clock::now_ms());
    humantime::format_rfc3339_seconds(now).to_string()
}

/// Those to measure, and those whose mode this Evenkeel does not know.
fn choose(options: &Options) -> Result<(Vec<Contender>, BTreeMap<Contender, String>)> {
    let mut contenders = options.contenders();
    let mut left_out = BTreeMap::new();
    for &contender in &contenders {
        forwarder::require_tools(contender)?;
        let unknown = forwarder::unknown_mode(contender)
            .with_context(|| format!("the configuration for {}", contender.name()))?;
        let Some(reason) = unknown else { continue };
        // What was asked for by name is not left out, and neither is what all the others are for.
        ensure!(
            !options.only.contains(&contender) && contender != Contender::Dsr,
            "this evenkeel has no mode {}: {reason}",
            contender.name()
        );
        eprintln!("left out: {}: {reason}", contender.name());
        left_out.insert(contender, reason);
    }
    contenders.retain(|contender| !left_out.contains_key(contender));
    ensure!(!contenders.is_empty(), "nobody is left to measure");
    Ok((contenders, left_out))
}

/// One contender in a network of its own, under each kind of traffic.
fn turn(contender: Contender, round: u32, options: &Options) -> Result<Vec<Sample>> {
    let bed = forwarder::network(contender)?;
    let _servers = Web::start_all(&bed)?;
    let _forwarder = Forwarder::start(contender, &bed)?;
    traffic::await_all_backends(&bed)?;
    traffic::warm_up(&bed)?;
    let mut samples = Vec::new();
    for scenario in Scenario::ALL {
        let values = match scenario {
            Scenario::KeepAlive | Scenario::Close => {
                traffic::requests(&bed, scenario, options.seconds)
            }
            Scenario::Download | Scenario::Upload | Scenario::UploadFrames => {
                traffic::transfer(&bed, scenario, options.seconds)
            }
        };
        let values = values.with_context(|| scenario.title())?;
        let told: Vec<_> = values
            .iter()
            .map(|(figure, value)| table::told(*figure, *value))
            .collect();
        eprintln!("  {}: {}", scenario.title(), told.join(", "));
        samples.extend(values.into_iter().map(|(figure, value)| Sample {
            round,
            contender,
            scenario,
            figure,
            value,
        }));
    }
    Ok(samples)
}

/// Prints and writes what was asked for.
fn deliver(report: &Report, options: &Options) -> Result<()> {
    let json = serde_json::to_string_pretty(report).context("cannot write the report as JSON")?;
    if options.json {
        println!("{json}");
    } else {
        print!("{}", table::text(report));
    }
    if let Some(path) = &options.svg {
        chart::write(report, path)?;
        eprintln!("wrote {}", path.display());
    }
    if let Some(folder) = &options.save {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let (day, _) = report.date.split_once('T').context("the date has no day")?;
        let path = |extension| folder.join(format!("e2e-{day}.{extension}"));
        let svg: PathBuf = path("svg");
        chart::write(report, &svg)?;
        save(&path("json"), &json)?;
        save(&path("md"), &table::markdown(report, &svg))?;
        eprintln!("wrote {} beside its .json and .md", svg.display());
    }
    Ok(())
}

fn save(path: &Path, content: &str) -> Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
