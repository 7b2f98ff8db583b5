//! `evenkeel unload`: the end of forwarding.

use std::path::PathBuf;

use clap::Args;

use super::{Answer, CONFIG_FILE};

/// Stop forwarding and take everything of Evenkeel's out of the kernel
///
/// Detaches the program from its interfaces and removes what is pinned, and touches nothing else.
/// End the controller first.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel unload
  sudo evenkeel unload --config ./evenkeel.toml

Exit codes:
  0  nothing of Evenkeel's is left in the kernel
  2  something could not be removed")]
pub(super) struct Arguments {
    /// The configuration, which says where the data plane is pinned
    #[arg(long, short, value_name = "FILE", default_value = CONFIG_FILE)]
    config: PathBuf,
}

/// Removes the data plane.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    anyhow::bail!(
        "cannot unload {}: not built yet",
        arguments.config.display()
    )
}
