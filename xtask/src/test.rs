//! `cargo xtask test`.

use anyhow::Result;

use crate::{
    build::{self, Profile},
    dist, kernels,
    setup::{self, Purpose},
    steps::{cargo, run_as_root, run_cargo},
};

/// Runs all tests: the crates' own as the user, then those in network namespaces as root
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Leave out the tests that need root
    #[arg(long)]
    no_root: bool,
    /// Run what matters to a kernel on others instead, under emulation (x86-64, Debian's packages;
    /// no root): `--kernels=6.1,6.12`, or all that can be had
    ///
    /// Options are then parts of names: `--kernels 6.1 -- restart`.
    #[arg(long, num_args = 0.., value_delimiter = ',', value_name = "VERSION")]
    #[arg(conflicts_with = "no_root")]
    kernels: Option<Vec<String>>,
    /// Passed to the test programs: a part of the names to run, or options such as `--nocapture`
    #[arg(last = true)]
    options: Vec<String>,
}

/// Runs the task.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if let Some(wanted) = &arguments.kernels {
        return kernels::run(wanted, &arguments.options);
    }
    let purpose = Purpose {
        package: !arguments.no_root,
        ..Purpose::default()
    };
    setup::ensure_for(purpose)?;
    let mut own = cargo();
    own.args(["test", "--workspace", "--exclude", "evenkeel-tests", "--"]);
    run_cargo(own.args(&arguments.options))?;
    if arguments.no_root {
        eprintln!("left out, as told: the tests in network namespaces, which need root");
        return Ok(());
    }

    build::upgrades()?;
    let binary = build::evenkeel(Profile::Debug)?;
    // Of the debug build: the tests are of the package, and a release build takes minutes.
    let package = dist::package(Profile::Debug)?;
    let mut integration = cargo();
    // One at a time: they share two cores with their servers and clients, and watch the clock.
    integration.args([
        "test",
        "--package",
        "evenkeel-tests",
        "--",
        "--test-threads=1",
    ]);
    integration
        .args(&arguments.options)
        .env("EVENKEEL_BIN", binary)
        .env("EVENKEEL_DEB", package);
    run_as_root(&mut integration)?;
    run_cargo(&mut integration)
}
