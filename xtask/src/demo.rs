//! `cargo xtask demo`: the whole product on one machine, in less than a minute.

mod promises;
mod screen;
mod stage;
mod stop;

use std::{
    env,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use evenkeel_tests::tools;

use crate::{
    build::{self, Profile},
    setup,
};
use stage::{Phase, Stage};
use stop::Interrupted;

/// Spreads real traffic over three servers, kills one and brings it back
///
/// Builds a network of namespaces with a client, a router, a switch, the load balancer and three
/// web servers, and shows live what the load balancer does and what the client sees. Then it
/// checks what was promised, and exits with 0 only if every promise was kept. It touches nothing
/// outside of its namespaces and removes them however it ends. Namespaces and XDP need root:
/// building is done as you, and the rest by sudo.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Leave it running afterwards, with commands to try, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Show this `evenkeel` binary instead of building one
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// How long each part of the demonstration lasts.
const STEADY: Duration = Duration::from_secs(12);
const DEAD: Duration = Duration::from_secs(10);
const RETURNED: Duration = Duration::from_secs(12);

/// Runs the task.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let binary = if let Some(path) = &arguments.binary {
        path.canonicalize()
            .with_context(|| format!("no binary at {}", path.display()))?
    } else {
        setup::ensure()?;
        // The program in the kernel is the same, and what people wait for is the build.
        build::evenkeel(Profile::Debug)?
    };
    if !rustix::process::geteuid().is_root() {
        return become_root(&binary, arguments.keep);
    }
    let stop = stop::on_signals()?;
    match play(&binary, arguments.keep, &stop) {
        Err(error) if error.is::<Interrupted>() => {
            println!("\nstopped; everything is removed");
            Ok(ExitCode::from(130))
        }
        result => result,
    }
}

/// Becomes the same demonstration as root; answers only where it could not.
fn become_root(binary: &Path, keep: bool) -> Result<ExitCode> {
    eprintln!("network namespaces and XDP need root: going on by sudo");
    let sudo = tools::find("sudo").context("this needs root: run it as root, or install sudo")?;
    let own = env::current_exe().context("cannot tell the path of this program")?;
    let mut command = Command::new(sudo);
    command
        .arg("-E")
        .arg(own)
        .args(["demo", "--binary"])
        .arg(binary);
    if keep {
        command.arg("--keep");
    }
    let error = command.exec();
    bail!("cannot start sudo: {error}")
}

/// The demonstration itself.
fn play(binary: &Path, keep: bool, stop: &stop::Stop) -> Result<ExitCode> {
    let bed = stage::build_network()?;
    let mut stage = Stage::set(&bed, binary, stop)?;
    stage.watch(Phase::Steady, STEADY)?;
    stage.kill_one()?;
    stage.watch(Phase::OneDead, DEAD)?;
    stage.bring_back()?;
    stage.watch(Phase::Returned, RETURNED)?;
    let kept = stage.judge()?;
    if keep {
        stage.linger()?;
    }
    Ok(if kept {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
