//! `cargo xtask bench`.

use anyhow::Result;

use crate::{
    setup,
    steps::{cargo, run_as_root, run_cargo},
};

/// Measures the cost of a packet in the kernel (as root, by sudo where needed)
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Print a JSON list of the cases instead of a table
    #[arg(long)]
    json: bool,
    /// Measure one service of three backends only
    #[arg(long)]
    quick: bool,
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
    if arguments.json {
        bench.arg("--json");
    }
    if arguments.quick {
        bench.arg("--quick");
    }
    run_as_root(&mut bench)?;
    run_cargo(&mut bench)
}
