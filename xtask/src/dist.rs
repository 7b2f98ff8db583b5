//! `cargo xtask dist`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use evenkeel_tests::tools;

use crate::{
    build::{self, Profile},
    setup::{self, Purpose},
};

/// Builds the Debian package: binary, service, manual pages, completions
///
/// The same source gives the same package: times in it are that of the last commit, or what
/// `SOURCE_DATE_EPOCH` says.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Package the debug build, quickly and badly compressed, as the tests do
    #[arg(long)]
    debug: bool,
}

/// Runs the task.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let purpose = Purpose {
        package: true,
        ..Purpose::default()
    };
    setup::ensure_for(purpose)?;
    let profile = if arguments.debug {
        Profile::Debug
    } else {
        Profile::Release
    };
    eprintln!("packaged {}", package(profile)?.display());
    Ok(())
}

/// Builds the package and answers its path; the tools for that must be there.
///
/// # Errors
///
/// Where a step fails.
pub(crate) fn package(profile: Profile) -> Result<PathBuf> {
    let binary = build::evenkeel(profile)?;
    let target = tools::workspace().join("target");
    let stage = target.join("dist");
    if stage.exists() {
        fs::remove_dir_all(&stage).with_context(|| format!("cannot empty {}", stage.display()))?;
    }
    let epoch = source_date()?;
    fill(&stage, &binary, epoch)?;

    // One name for each kind, so that nobody installs a debug build for the other.
    let name = match profile {
        Profile::Debug => "evenkeel-debug.deb",
        Profile::Release => "evenkeel.deb",
    };
    let package = target.join("debian").join(name);
    let mut deb = Command::new(tools::tool("cargo-deb")?);
    deb.current_dir(tools::workspace().join("lb-userspace"))
        .args(["--no-build", "--no-strip", "--quiet", "--output"])
        .arg(&package)
        .env("SOURCE_DATE_EPOCH", epoch.to_string());
    if matches!(profile, Profile::Debug) {
        deb.arg("--fast");
    }
    tools::output(&mut deb)?;
    ensure!(package.is_file(), "cargo-deb left no {}", package.display());
    Ok(package)
}

/// Lays out what the package is made of and is not in the repository.
fn fill(stage: &Path, binary: &Path, epoch: u64) -> Result<()> {
    let completions = stage.join("completions");
    fs::create_dir_all(&completions)
        .with_context(|| format!("cannot create {}", completions.display()))?;
    let stripped = stage.join("evenkeel");
    let mut strip = Command::new(tools::tool("strip")?);
    strip.args(["--strip-unneeded", "-o"]).arg(&stripped);
    tools::output(strip.arg(binary))?;

    tools::output(Command::new(&stripped).arg("manual").arg(stage.join("man")))?;
    for (shell, file) in [
        ("bash", "evenkeel"),
        ("zsh", "_evenkeel"),
        ("fish", "evenkeel.fish"),
    ] {
        let script = tools::output(Command::new(&stripped).args(["completions", shell]))?;
        write(&completions.join(file), &script)?;
    }
    write(&stage.join("changelog"), &changelog(epoch)?)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The time that the package bears, in seconds since the Unix epoch.
fn source_date() -> Result<u64> {
    let text = match env::var("SOURCE_DATE_EPOCH") {
        Ok(said) => said,
        Err(_) => tools::output(
            Command::new("git")
                .args(["log", "-1", "--format=%ct"])
                .current_dir(tools::workspace()),
        )
        .context("without git, say the time in SOURCE_DATE_EPOCH")?,
    };
    let text = text.trim();
    text.parse()
        .with_context(|| format!("SOURCE_DATE_EPOCH is '{text}', not a number of seconds"))
}

/// Debian's form of a changelog: it points to the one that people write.
fn changelog(epoch: u64) -> Result<String> {
    let mut date = Command::new("date");
    date.args(["--utc", "--rfc-email", &format!("--date=@{epoch}")])
        .env("LC_ALL", "C");
    Ok(format!(
        "evenkeel ({}-1) unstable; urgency=medium\n\n  * See /usr/share/doc/evenkeel/CHANGELOG.md.\
         \n\n -- The Evenkeel contributors <maintainers@evenkeel.invalid>  {}",
        env!("CARGO_PKG_VERSION"),
        tools::output(&mut date)?
    ))
}
