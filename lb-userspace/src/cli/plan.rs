//! `evenkeel plan`: what would a configuration change?

use std::path::PathBuf;

use clap::Args;

use super::{ADMIN_SOCKET, Answer, change, output};
use crate::admin::client::Client;

/// Show what a configuration would change, and change nothing
///
/// Asks the running controller: services and backends that come, go or change, shares before and
/// after, the slots that move, whose flows would be tracked so that established connections stay,
/// and what the audit finds in the new configuration. Where new connections were seen in the last
/// minute, also what each backend would have got of them: with few or heavy clients that is not what
/// the shares say. Backends that are not known yet are taken for up.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel plan ./next.toml
  sudo evenkeel plan --json ./next.toml | jq '.services[].backends[] | {name, share_before, share}'
  sudo evenkeel plan ./next.toml; test $? -eq 2 && sudo evenkeel apply ./next.toml

Exit codes:
  0  nothing would change
  1  the controller or the file cannot be asked, or the configuration is not valid
  2  something would change, or wrong usage")]
pub(super) struct Arguments {
    /// The configuration
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The controller's admin socket
    #[arg(long, value_name = "PATH", env = "EVENKEEL_SOCKET", default_value = ADMIN_SOCKET)]
    socket: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Asks, and shows the answer.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    change::failed(ask(arguments))
}

fn ask(arguments: &Arguments) -> anyhow::Result<Answer> {
    let request = change::request(&arguments.file)?;
    let client = Client::new(&arguments.socket);
    let plan = match change::block_on(client.plan(&request))? {
        Ok(plan) => plan,
        Err(error) => return change::refusal(error, arguments.json),
    };
    if arguments.json {
        change::print_json(&plan)?;
    } else {
        output::print(&change::render(&plan))?;
    }
    Ok(if plan.changes {
        Answer::Changes
    } else {
        Answer::Yes
    })
}
