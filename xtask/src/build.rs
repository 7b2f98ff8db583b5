//! `cargo xtask build`.

use std::{env, path::PathBuf};

use anyhow::{Context, Result, ensure};

use crate::{
    setup,
    steps::{cargo, run_cargo},
};

/// Builds everything, the XDP program included, after setting up what that takes
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Optimise
    #[arg(long)]
    release: bool,
}

/// Runs the task.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::ensure()?;
    let profile = if arguments.release {
        Profile::Release
    } else {
        Profile::Debug
    };
    eprintln!("built {}", evenkeel(profile)?.display());
    Ok(())
}

/// How the product is built.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    /// Quick to build.
    Debug,
    /// Optimised.
    Release,
}

/// Builds the `evenkeel` binary and answers its path.
///
/// # Errors
///
/// Where the build fails.
pub(crate) fn evenkeel(profile: Profile) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--package", "lb-userspace"]);
    let folder = match profile {
        Profile::Debug => "debug",
        Profile::Release => {
            build.arg("--release");
            "release"
        }
    };
    run_cargo(&mut build)?;
    // This program is in a folder of the target folder itself.
    let own = env::current_exe().context("cannot tell the path of this program")?;
    let target = own
        .ancestors()
        .nth(2)
        .context("this program is not in a target folder")?;
    let binary = target.join(folder).join("evenkeel");
    ensure!(binary.is_file(), "the build left no {}", binary.display());
    Ok(binary)
}
