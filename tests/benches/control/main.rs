//! What the controller takes: time to publish and to start, memory, processor time, with as many
//! services as a host has, and with as many probes.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints"
)]

mod process;
mod report;
mod scenes;

use std::{process::ExitCode, thread, time::Duration};

use anyhow::{Result, ensure};
use clap::Parser;
use evenkeel_tests::{
    clock,
    control_cost::Options,
    daemon::Daemon,
    end_to_end::report::Machine,
    server::Web,
    tools::{require_root, tool},
    topology::Topology,
};

use crate::{
    report::{Record, Report},
    scenes::{Checks, Started},
};

/// Measures the controller; `cargo xtask bench control` builds what this takes and runs it.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// From the decision to the swap, in milliseconds.
const PUBLISHED: f64 = 50.0;
/// From the start of the process to forwarding, in seconds.
const STARTED: f64 = 3.0;
/// Resident, in MiB.
const RESIDENT: f64 = 200.0;
/// The part of a processor that probes take.
const PROBES: f64 = 0.25;
/// Until what a start has left to do is done.
const SETTLE: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    match run(&Arguments::parse().options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn print(text: &str) {
    println!("{text}");
}

pub(crate) fn tell(text: &str) {
    eprintln!("{text}");
}

fn run(options: &Options) -> Result<()> {
    require_root()?;
    for program in ["nginx", "ethtool"] {
        tool(program)?;
    }
    let date = std::time::UNIX_EPOCH + Duration::from_millis(clock::now_ms());
    let bed = scenes::network(options)?;
    let mut servers = scenes::servers(&bed)?;
    let mut records = Vec::new();
    unchecked(options, &bed, &mut servers, &mut records)?;
    checked(options, &bed, &mut servers, &mut records)?;
    probes(options, &bed, &mut records)?;
    let report = Report {
        date: humantime::format_rfc3339_seconds(date).to_string(),
        machine: Machine::look()?,
        services: options.services,
        backends: options.backends,
        probed: options.probed,
        seconds: options.seconds,
        records,
    };
    report.deliver(options)?;
    let missed: Vec<_> = report.records.iter().filter(|r| r.missed()).collect();
    ensure!(
        missed.is_empty(),
        "missed: {}",
        missed
            .iter()
            .map(|r| r.told())
            .collect::<Vec<_>>()
            .join("; ")
    );
    Ok(())
}

fn note(
    records: &mut Vec<Record>,
    name: &'static str,
    unit: &'static str,
    values: Vec<f64>,
    bound: Option<f64>,
) {
    let record = Record::new(name, unit, values, bound);
    tell(&format!("  {}", record.told()));
    records.push(record);
}

/// Services of which one is checked: what changes, starts and standing still cost by themselves.
fn unchecked(
    options: &Options,
    bed: &Topology,
    servers: &mut [Web<'_>],
    records: &mut Vec<Record>,
) -> Result<()> {
    tell("one service is checked");
    let toml = scenes::configuration(bed, options.services, Checks::First);
    let (cold, adopting, mut daemon) = starts(options, bed, &toml)?;
    note(
        records,
        "cold start to a client's answer",
        "s",
        cold,
        Some(STARTED),
    );
    note(
        records,
        "start on live tables to the new program",
        "s",
        adopting,
        Some(STARTED),
    );
    thread::sleep(SETTLE);
    let cpu = process::part_of_a_core(&mut daemon, seconds(options))?;
    note(records, "standing still", "of a core", vec![cpu], None);
    let changes = flip(options, &daemon, servers)?;
    note(
        records,
        "one backend fails or comes back",
        "ms",
        changes,
        Some(PUBLISHED),
    );
    note_memory(records, &daemon, ["memory", "memory, peak"])?;
    stop(daemon)
}

/// All services checked each ten seconds.
fn checked(
    options: &Options,
    bed: &Topology,
    servers: &mut [Web<'_>],
    records: &mut Vec<Record>,
) -> Result<()> {
    tell("all services are checked each 10 s");
    let toml = scenes::configuration(bed, options.services, Checks::All);
    let (cold, adopting, mut daemon) = starts(options, bed, &toml)?;
    note(
        records,
        "all checked: cold start to a client's answer",
        "s",
        cold,
        Some(STARTED),
    );
    note(
        records,
        "all checked: start on live tables to the new program",
        "s",
        adopting,
        Some(STARTED),
    );
    scenes::await_up(&daemon)?;
    thread::sleep(SETTLE);
    let cpu = process::part_of_a_core(&mut daemon, seconds(options))?;
    note(
        records,
        "all checked: standing still",
        "of a core",
        vec![cpu],
        None,
    );
    let changes = flip(options, &daemon, servers)?;
    note(
        records,
        "all checked: one backend fails or comes back",
        "ms",
        changes,
        Some(PUBLISHED),
    );
    note_memory(
        records,
        &daemon,
        ["all checked: memory", "all checked: memory, peak"],
    )?;
    stop(daemon)
}

/// Probes once a second.
fn probes(options: &Options, bed: &Topology, records: &mut Vec<Record>) -> Result<()> {
    for (name, checks) in [
        ("TCP probes each second", Checks::Tcp),
        ("HTTP probes each second", Checks::Http),
    ] {
        tell(name);
        let toml = scenes::configuration(bed, options.probed, checks);
        let Started { mut daemon, .. } = scenes::start(bed, &toml)?;
        let up = scenes::await_up(&daemon)?;
        let expected = usize::from(options.probed) * usize::from(options.backends);
        ensure!(up == expected, "{up} backends are probed, not {expected}");
        thread::sleep(SETTLE);
        let cpu = process::part_of_a_core(&mut daemon, seconds(options))?;
        // A status follows a tick, and a probe its interval and time-out.
        scenes::require_probed(&daemon, Duration::from_secs(3))?;
        note(records, name, "of a core", vec![cpu], Some(PROBES));
        stop(daemon)?;
    }
    Ok(())
}

fn seconds(options: &Options) -> Duration {
    Duration::from_secs(options.seconds.into())
}

/// Starts without and with live tables, in turns; answers the seconds of each, and the last one's
/// controller.
fn starts<'bed>(
    options: &Options,
    bed: &'bed Topology,
    toml: &str,
) -> Result<(Vec<f64>, Vec<f64>, Daemon<'bed>)> {
    let (mut cold, mut adopting) = (Vec::new(), Vec::new());
    loop {
        let Started {
            mut daemon,
            answered,
            ..
        } = scenes::start(bed, toml)?;
        cold.push(answered.as_secs_f64());
        daemon.kill();
        let Started {
            mut daemon,
            attached,
            ..
        } = scenes::start(bed, toml)?;
        adopting.push(attached.as_secs_f64());
        if cold.len() == options.rounds as usize {
            return Ok((cold, adopting, daemon));
        }
        daemon.kill();
        daemon.unload()?;
    }
}

/// Lets the last backend fail and come back, and answers the milliseconds of each publication.
fn flip(options: &Options, daemon: &Daemon<'_>, servers: &mut [Web<'_>]) -> Result<Vec<f64>> {
    let last = servers.len() - 1;
    let server = &mut servers[last];
    let mut took = Vec::new();
    for _ in 0..options.rounds {
        took.push(scenes::change(daemon, || {
            server.kill();
            Ok(())
        })?);
        took.push(scenes::change(daemon, || server.start_again())?);
    }
    Ok(took)
}

fn note_memory(
    records: &mut Vec<Record>,
    daemon: &Daemon<'_>,
    [steady, peak]: [&'static str; 2],
) -> Result<()> {
    let memory = process::memory(daemon)?;
    note(records, steady, "MiB", vec![memory.steady], Some(RESIDENT));
    note(records, peak, "MiB", vec![memory.peak], Some(RESIDENT));
    Ok(())
}

/// Leaves nothing to adopt.
fn stop(mut daemon: Daemon<'_>) -> Result<()> {
    daemon.kill();
    daemon.unload().map(drop)
}
