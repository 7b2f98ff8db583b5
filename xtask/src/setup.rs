//! `cargo xtask setup`: what the machine lacks, and the commands that bring it.

mod bpf;
mod debian;
mod package;
mod peers;
mod programs;

use std::fs;

use anyhow::{Result, bail, ensure};
use evenkeel_tests::tools;
use serde_json::Value;

use crate::steps::Step;

/// Installs what building, tests, demonstration and benchmarks take and the machine lacks
///
/// On Debian and its kin it runs the commands, with sudo for apt alone; elsewhere it prints them.
/// Nothing is installed twice, and nothing of yours is changed: what is not a Debian package goes
/// to `target/tools`, and no service is started.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Print the commands and run none
    #[arg(long, visible_alias = "print")]
    dry_run: bool,
    /// Also what `cargo xtask test --kernels` takes: an emulator, and tools to feed it
    #[arg(long)]
    kernels: bool,
    /// Also what `cargo xtask bench e2e` takes: the programs that it compares with
    #[arg(long)]
    peers: bool,
}

/// What the machine is set up for, beside building, demonstration, most tests and the packet benchmark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Purpose {
    /// Tests on other kernels.
    pub(crate) kernels: bool,
    /// The Debian package, and its tests.
    pub(crate) package: bool,
    /// The comparison with other load balancers.
    pub(crate) peers: bool,
}

/// Runs the task.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let purpose = Purpose {
        kernels: arguments.kernels,
        package: true,
        peers: arguments.peers,
    };
    if arguments.dry_run {
        let missing = Missing::look(purpose)?;
        if missing.is_nothing() {
            eprintln!("nothing is missing");
        } else {
            missing.print();
        }
        return Ok(());
    }
    if !ensure_for(purpose)? {
        eprintln!("nothing is missing");
    }
    Ok(())
}

/// Installs what is missing for building, tests and demonstration.
///
/// # Errors
///
/// Where a command fails, or on a system whose packages this does not know.
pub(crate) fn ensure() -> Result<bool> {
    ensure_for(Purpose::default())
}

/// As [`ensure()`], for a purpose.
///
/// # Errors
///
/// As [`ensure()`].
pub(crate) fn ensure_for(purpose: Purpose) -> Result<bool> {
    let mut before = None;
    loop {
        let missing = match Missing::look(purpose) {
            // The lists of packages may be older than what is needed.
            Err(_) if before.is_none() && debian::is_here() => {
                debian::update().perform()?;
                Missing::look(purpose)?
            }
            looked => looked?,
        };
        if missing.is_nothing() {
            return Ok(before.is_some());
        }
        if !debian::is_here() {
            missing.print();
            bail!("install what is named above, then run this again");
        }
        let steps = missing.steps();
        // What is found to be missing may depend on what was installed for the round before.
        ensure!(
            before.as_ref() != Some(&steps),
            "the commands ran, yet this is still missing: {}",
            missing.summary()
        );
        for step in &steps {
            step.perform()?;
        }
        before = Some(steps);
    }
}

/// Cargo's records of what it has installed into `target/tools`.
fn installed_crates() -> Value {
    let records = fs::read(tools::workspace_tools().join(".crates2.json")).unwrap_or_default();
    serde_json::from_slice(&records).unwrap_or_default()
}

/// A package and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    name: String,
    why: String,
}

/// What the machine lacks, as far as can be known before it is installed.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    /// From the distribution.
    packages: Vec<Package>,
    /// To be run once the packages are there.
    afterwards: Vec<Step>,
    /// What cannot be told yet.
    notes: Vec<String>,
}

impl Missing {
    fn look(purpose: Purpose) -> Result<Self> {
        let mut missing = Self::default();
        programs::look(&mut missing);
        if purpose.kernels {
            programs::look_for_kernels(&mut missing);
        }
        if purpose.package {
            package::look(&mut missing);
        }
        if purpose.peers {
            peers::look(&mut missing);
        }
        bpf::look(&mut missing)?;
        Ok(missing)
    }

    fn needs(&mut self, name: impl Into<String>, why: impl Into<String>) {
        let package = Package {
            name: name.into(),
            why: why.into(),
        };
        if !self.packages.iter().any(|other| other.name == package.name) {
            self.packages.push(package);
        }
    }

    fn is_nothing(&self) -> bool {
        self.packages.is_empty() && self.afterwards.is_empty()
    }

    fn steps(&self) -> Vec<Step> {
        debian::install(&self.packages)
            .into_iter()
            .chain(self.afterwards.clone())
            .collect()
    }

    fn summary(&self) -> String {
        let packages = self.packages.iter().map(|package| package.name.clone());
        let rest = self.afterwards.iter().map(|step| step.why.clone());
        packages.chain(rest).collect::<Vec<_>>().join(", ")
    }

    fn print(&self) {
        if debian::is_here() {
            for step in self.steps() {
                println!("# {}\n{step}", step.why);
            }
        } else {
            println!("# install by your distribution's means (the names are Debian's)");
            for package in &self.packages {
                println!("#   {}: {}", package.name, package.why);
            }
            for step in &self.afterwards {
                println!("# {}\n{step}", step.why);
            }
        }
        for note in &self.notes {
            println!("# {note}");
        }
    }
}
