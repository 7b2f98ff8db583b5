//! `evenkeel log`: what a running controller logs.

use std::path::PathBuf;

use clap::Args;

use super::{
    ADMIN_SOCKET, Answer, change,
    output::{self, plain},
};
use crate::admin::{client::Client, proto::SetLogFilter};

/// Show what the running controller logs, or change it until it ends
///
/// A filter is a level (error, warn, info, debug, trace, off), or levels of modules. The next start
/// goes by its environment again, as 'evenkeel help' says. A change is in the journal.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel log
  sudo evenkeel log debug
  sudo evenkeel log info,lb_userspace::health=debug
  sudo evenkeel log --json | jq -r .filter

Exit codes:
  0  shown, or in force
  1  refused: not a filter, or you may not
  2  the controller cannot be asked, or wrong usage")]
pub(super) struct Arguments {
    /// What to log from now on
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
    /// The controller's admin socket
    #[arg(long, value_name = "PATH", env = "EVENKEEL_SOCKET", default_value = ADMIN_SOCKET)]
    socket: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Asks or changes.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let client = Client::new(&arguments.socket);
    let answered = match &arguments.filter {
        None => change::block_on(client.log_filter())?,
        Some(filter) => {
            let filter = filter.clone();
            change::block_on(client.set_log_filter(&SetLogFilter { filter }))?
        }
    };
    match answered {
        Ok(answer) if arguments.json => change::print_json(&answer)?,
        Ok(answer) => output::print(&format!("{}\n", plain(&answer.filter)))?,
        Err(error) => return change::refusal(error, arguments.json),
    }
    Ok(Answer::Yes)
}
