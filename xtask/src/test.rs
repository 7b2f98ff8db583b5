//! `cargo xtask test`.

use std::fs;

use anyhow::{Context as _, Result};
use evenkeel_tests::tools;

use crate::{
    build::{self, Profile},
    dist, kernels,
    setup::{self, Purpose},
    steps::{cargo, run_as_root, run_cargo},
};

/// Files whose tests spend most of their time waiting, for detectors to be sure or for changes to come,
/// and how many of these run at the same time.
const PATIENT: [(&str, usize); 4] = [
    ("drill", 3),
    ("eject", 4),
    ("eject_traffic", 4),
    ("long_lived", 2),
];

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
    let run = |which: &[&str], at_once: usize| {
        let mut integration = cargo();
        // All that fails is to be seen after one run: it takes most of an hour.
        integration.args(["test", "--no-fail-fast", "--package", "evenkeel-tests"]);
        integration.args(which).arg("--");
        integration
            .arg(format!("--test-threads={at_once}"))
            .args(&arguments.options)
            .env("EVENKEEL_BIN", &binary)
            .env("EVENKEEL_DEB", &package);
        run_as_root(&mut integration)?;
        run_cargo(&mut integration)
    };
    let patient = PATIENT.map(|(name, at_once)| run(&["--test", name], at_once));
    let tests = integration_tests()?;
    let is_patient = |name: &str| PATIENT.iter().any(|(patient, _)| *patient == name);
    let names = tests.iter().map(String::as_str);
    let others: Vec<&str> = names.filter(|name| !is_patient(name)).collect();
    // One at a time: they share two cores with their servers and clients, and watch the clock.
    let others = run(&[&["--lib"], &files(&others)[..]].concat(), 1);
    patient.into_iter().chain([others]).collect()
}

/// The words that pick files of tests.
fn files<'a>(names: &[&'a str]) -> Vec<&'a str> {
    names.iter().flat_map(|name| ["--test", *name]).collect()
}

/// The files of tests in network namespaces.
fn integration_tests() -> Result<Vec<String>> {
    let folder = tools::workspace().join("tests/tests");
    let files = fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    let mut names: Vec<String> = files
        .iter()
        .map(fs::DirEntry::path)
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}
