//! `evenkeel run`: the controller.

use std::{
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use clap::Args;

use super::{Answer, CONFIG_FILE, VERSION};
use crate::{admin::server::Server, controller, kept::opening, model::Config, privileges};

/// Load the data plane, probe the backends and watch the load, until told to end
///
/// Starting it while the kernel already forwards adopts what is there, with no gap. SIGTERM and
/// Ctrl-C end the controller and leave the kernel forwarding by its last tables. SIGHUP has it read
/// its file again, as 'evenkeel apply' would.
///
/// It keeps the few of root's privileges that it needs; programs of probes and notifications get
/// none. A service manager that it tells of itself (systemd's Type=notify) is told that it is ready
/// once packets follow its tables.
///
/// It starts with its file, or with what was applied since the file was last edited, and says which.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel run
  sudo evenkeel run --config ./evenkeel.toml
  sudo RUST_LOG=debug evenkeel run

Exit codes:
  0  ended as told
  2  could not start, or had to give up")]
pub(super) struct Arguments {
    /// The configuration
    #[arg(long, short, value_name = "FILE", default_value = CONFIG_FILE)]
    config: PathBuf,
}

/// Runs the controller.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    control(&arguments.config)
}

/// Gives all threads one heap. With several, what one thread makes and another frees, a status each
/// second, leaves holes in each of them: of ten thousand backends some 50 MiB.
fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "a setting of the C library")]
        // SAFETY: two numbers. Where it is refused, all is as it was.
        let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}

/// Runs a controller by a file.
pub(super) fn control(config: &Path) -> anyhow::Result<Answer> {
    let opening = opening::open(config, now_ms())?;
    // What takes more than a controller at work needs comes first, and before there is a thread.
    let server = Server::bind(&opening.config.admin)?;
    look(&opening.config)?;
    privileges::give_up_all_but(privileges::CONTROLLER)?;
    share_one_heap();
    // The controller's task has this thread. One more takes probes and questions: with two of them,
    // a quarter of what thousands of probes take went into waking each other.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(controller::run(opening, server, VERSION.clone()))?;
    Ok(Answer::Yes)
}

/// Looks at the host, and leaves no thread behind.
fn look(config: &Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    Ok(runtime.block_on(controller::look(config))?)
}

#[expect(clippy::disallowed_methods, reason = "a start happens now")]
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| time.as_millis() as u64)
}
