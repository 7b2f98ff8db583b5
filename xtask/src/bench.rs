//! `cargo xtask bench`.

use std::{env, ffi::OsString};

use anyhow::{Context, Result};
use evenkeel_tests::{
    control_cost::Options as Control, end_to_end::options::Options as EndToEnd,
    packet_cost::Options,
};

use crate::{
    build::{self, Profile},
    setup,
    steps::{cargo, run_as_root, run_cargo},
};

/// Measures the cost of a packet in the kernel, a whole service from end to end, or the controller
/// (as root, by sudo where needed)
///
/// Every mode, with packets of every kind, 1 to 1,000,000 flows, 1 to 1,000 services and 3 to
/// 4,000 backends, over an empty program in the same run. The whole matrix takes about eight
/// minutes, during which nothing else should run on the machine. docs/benchmarks/packets.md tells
/// how it is measured and what the JSON holds.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    other: Option<Other>,
    #[command(flatten)]
    packets: Options,
}

#[derive(clap::Subcommand)]
enum Other {
    /// Measures Evenkeel in each mode beside nftables, `HAProxy` and others, from end to end
    ///
    /// Real clients and servers in network namespaces, a new network for each turn. A turn takes
    /// about 5 s and five times --seconds: with the defaults, a round of six takes three minutes.
    /// Nothing else should run on the machine meanwhile. docs/benchmarks/README.md tells how it is
    /// measured and what the JSON holds.
    E2e(EndToEnd),
    /// Measures what the controller takes: time to publish and to start, memory, processor time
    ///
    /// 1,000 services with 10 backends each, and then 2,000 probed backends, in network namespaces
    /// with real servers. Takes about four minutes, five times --seconds of them, during which
    /// nothing else should run on the machine. It fails where a bound is missed.
    /// docs/benchmarks/README.md tells how it is measured and what the JSON holds.
    Control(Control),
}

/// Runs the task.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.other {
        None => packets(arguments),
        Some(Other::E2e(options)) => end_to_end(options),
        Some(Other::Control(options)) => control(options),
    }
}

fn packets(arguments: &Arguments) -> Result<()> {
    setup::ensure()?;
    let folder = env::current_dir().context("cannot tell the current folder")?;
    bench("forward", arguments.packets.to_words(&folder))
}

fn end_to_end(options: &EndToEnd) -> Result<()> {
    setup::ensure_for(setup::Purpose {
        peers: true,
        ..setup::Purpose::default()
    })?;
    // Beside the benchmark's own executable, where it looks.
    build::evenkeel(Profile::Release)?;
    let folder = env::current_dir().context("cannot tell the current folder")?;
    bench("e2e", options.to_words(&folder))
}

fn control(options: &Control) -> Result<()> {
    setup::ensure()?;
    // Beside the benchmark's own executable, where it looks.
    build::evenkeel(Profile::Release)?;
    let folder = env::current_dir().context("cannot tell the current folder")?;
    bench("control", options.to_words(&folder))
}

fn bench(name: &str, words: impl IntoIterator<Item = OsString>) -> Result<()> {
    let mut bench = cargo();
    bench.args([
        "bench",
        "--package",
        "evenkeel-tests",
        "--bench",
        name,
        "--",
    ]);
    bench.args(words);
    run_as_root(&mut bench)?;
    run_cargo(&mut bench)
}
