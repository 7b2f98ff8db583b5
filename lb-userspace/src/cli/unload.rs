//! `evenkeel unload`: the end of forwarding.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Answer, CONFIG_FILE, output};
use crate::{
    config,
    dataplane::{
        kernel::{self, Unloaded},
        steering,
    },
};

/// Stop forwarding and take everything of Evenkeel's out of the kernel
///
/// Detaches the program from its interfaces and removes what is pinned, and touches nothing else.
/// End the controller first.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel unload
  sudo evenkeel unload --config ./evenkeel.toml
  sudo evenkeel unload --pins /sys/fs/bpf/evenkeel     # where the configuration is lost

Exit codes:
  0  nothing of Evenkeel's is left in the kernel
  2  something could not be removed")]
pub(super) struct Arguments {
    /// The configuration, which says where the data plane is pinned
    #[arg(long, short, value_name = "FILE", default_value = CONFIG_FILE)]
    config: PathBuf,
    /// Where the data plane is pinned; no configuration is read then
    #[arg(long, value_name = "FOLDER", conflicts_with = "config")]
    pins: Option<PathBuf>,
}

/// Removes the data plane.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let pins = match &arguments.pins {
        Some(pins) => pins.clone(),
        None => config::load(&arguments.config)?.data_plane.pins,
    };
    let pins = pins.as_path();
    let text = match kernel::unload(pins)? {
        None => format!("nothing is loaded: {} does not exist\n", pins.display()),
        Some(unloaded) => sentence(pins, &unloaded),
    };
    output::print(&text)?;
    // What a killed controller left on an old kernel. Nothing of it is in the way of traffic.
    match steering::remove_stale() {
        Ok(0) => {}
        Ok(filters) => output::print(&format!("removed {filters} filters of probes\n"))?,
        Err(e) => log::warn!("the filters of probes were not looked for: {e}"),
    }
    Ok(Answer::Yes)
}

/// What was removed, and what was left.
pub(super) fn sentence(pins: &Path, unloaded: &Unloaded) -> String {
    let (pins, removed) = (pins.display(), unloaded.removed.len());
    if unloaded.foreign.is_empty() {
        format!("removed {pins} with {removed} pins\n")
    } else {
        format!(
            "removed {removed} pins from {pins}; left what is not Evenkeel's: {}\n",
            unloaded.foreign.join(", ")
        )
    }
}
