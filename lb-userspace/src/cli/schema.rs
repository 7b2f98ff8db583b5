//! `evenkeel schema`: what a configuration may say.

use clap::Args;

use super::{Answer, output};
use crate::config;

/// Print the JSON schema of the configuration
///
/// Editors complete and check a configuration by it.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  evenkeel schema > evenkeel.schema.json
  (echo '#:schema ./evenkeel.schema.json'; cat evenkeel.toml) > with-schema.toml

Exit codes:
  0  printed
  2  could not be written")]
pub(super) struct Arguments {}

/// Prints the schema.
pub(super) fn run(_: &Arguments) -> anyhow::Result<Answer> {
    output::print(&format!("{:#}\n", config::schema()))?;
    Ok(Answer::Yes)
}
