//! `cargo xtask bench`.

use std::env;

use anyhow::{Context, Result};
use evenkeel_tests::packet_cost::Options;

use crate::{
    setup,
    steps::{cargo, run_as_root, run_cargo},
};

/// Measures the cost of a packet in the kernel (as root, by sudo where needed)
///
/// Every mode, with packets of every kind, 1 to 1,000,000 flows, 1 to 1,000 services and 3 to
/// 4,000 backends, over an empty program in the same run. The whole matrix takes about eight
/// minutes, during which nothing else should run on the machine. docs/benchmarks/packets.md tells
/// how it is measured and what the JSON holds.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    packets: Options,
}

/// Runs the task.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::ensure()?;
    let mut bench = cargo();
    bench.args([
        "bench",
        "--package",
        "evenkeel-tests",
        "--bench",
        "forward",
        "--",
    ]);
    let folder = env::current_dir().context("cannot tell the current folder")?;
    bench.args(arguments.packets.to_words(&folder));
    run_as_root(&mut bench)?;
    run_cargo(&mut bench)
}
