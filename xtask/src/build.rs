//! `cargo xtask build`.

use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use evenkeel_tests::tools;

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
    /// Build what tests of upgrades start beside the usual binary, too
    #[arg(long, conflicts_with = "release")]
    upgrades: bool,
}

/// Runs the task.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::ensure()?;
    let profile = if arguments.release {
        Profile::Release
    } else {
        Profile::Debug
    };
    if arguments.upgrades {
        upgrades()?;
    }
    eprintln!("built {}", evenkeel(profile)?.display());
    Ok(())
}

/// The features of `lb-userspace` that are for tests of upgrades.
const UPGRADES: [&str; 2] = ["other-program", "next-layout"];

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
    evenkeel_with(profile, None)
}

/// Builds what tests of upgrades start, before the usual binary, whose place it takes meanwhile.
///
/// # Errors
///
/// Where a build fails.
pub(crate) fn upgrades() -> Result<()> {
    for feature in UPGRADES {
        let built = evenkeel_with(Profile::Debug, Some(feature))?;
        let folder = tools::upgrades(&built);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let place = folder.join(format!("evenkeel-{feature}"));
        // Not over the file itself: one that runs cannot be written to.
        let staging = place.with_extension("new");
        fs::copy(&built, &staging)
            .and_then(|_| fs::rename(&staging, &place))
            .with_context(|| format!("cannot write {}", place.display()))?;
    }
    Ok(())
}

fn evenkeel_with(profile: Profile, feature: Option<&str>) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--bin", "evenkeel"]);
    let folder = match profile {
        // Features of dependencies depend on which packages are built together: with all of them they
        // are those of the tests, and nothing is built twice, which takes minutes.
        Profile::Debug => {
            build.arg("--workspace");
            "debug"
        }
        Profile::Release => {
            build.args(["--package", "lb-userspace", "--release"]);
            "release"
        }
    };
    if let Some(feature) = feature {
        build.args(["--features", &format!("lb-userspace/{feature}")]);
    }
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
