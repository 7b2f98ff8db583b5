//! `evenkeel run`: the controller.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::{Answer, CONFIG_FILE, VERSION};
use crate::{
    config,
    controller::{self, Identity},
};

/// Load the data plane, probe the backends and watch the load, until told to end
///
/// Starting it while the kernel already forwards adopts what is there, with no gap. SIGTERM and
/// Ctrl-C end the controller and leave the kernel forwarding by its last tables.
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
    let (config, config_sha256) = config::load_with_digest(&arguments.config)?;
    let identity = Identity {
        version: VERSION.clone(),
        config_file: std::path::absolute(&arguments.config)?,
        config_sha256,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(controller::run(config, identity))?;
    Ok(Answer::Yes)
}
