//! `evenkeel service`: all about one service.

use std::path::PathBuf;

use clap::Args;

use super::{
    ADMIN_SOCKET, Answer, change, output,
    status::{self, Colour},
};
use crate::admin::client::Client;

/// Show one service: its verdict, its backends, and everything that is known of each
///
/// The same look as 'evenkeel status', with what that leaves out for want of room.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel service web
  sudo evenkeel service web --json | jq '.backends[] | {name, slots, observed_share}'

--json prints the service as it stands in 'evenkeel status --json'.

Exit codes:
  0  it was shown
  1  there is no such service
  2  the controller cannot be reached, or wrong usage")]
pub(super) struct Arguments {
    /// The service's name
    #[arg(value_name = "NAME")]
    name: String,
    /// The controller's admin socket
    #[arg(long, value_name = "PATH", env = "EVENKEEL_SOCKET", default_value = ADMIN_SOCKET)]
    socket: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// When to use colours
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Colour::Auto)]
    color: Colour,
}

/// Asks and shows.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let client = Client::new(&arguments.socket);
    let status = change::block_on(async { client.status().await })??;
    let Some(service) = status.services.iter().find(|s| s.name == arguments.name) else {
        let names = status.services.iter().map(|s| s.name.as_str());
        return Ok(missing(&format!("service {}", arguments.name), names));
    };
    if arguments.json {
        change::print_json(service)?;
    } else {
        let view = status::view(arguments.color);
        output::print(&status::details::service(service, status.now_ms, view))?;
    }
    Ok(Answer::Yes)
}

/// Says that there is no such thing, and which there are.
pub(super) fn missing<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Answer {
    let names: Vec<_> = names.collect();
    let text = format!("error: there is no {what}: there are {}", names.join(", "));
    output::complain(&output::plain(&text));
    Answer::No
}
