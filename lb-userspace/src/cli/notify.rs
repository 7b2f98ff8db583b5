//! `evenkeel notify`: whether those who are to be told can be told.

use std::{fmt::Write as _, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::{
    ADMIN_SOCKET, Answer,
    output::{self, plain},
};
use crate::admin::{client::Client, proto::Tested};

/// Look after the receivers of notifications
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel notify test
  sudo evenkeel notify test pager

How it goes with each receiver otherwise (sent, failed, waiting, last error) is in 'evenkeel status'.

Exit codes:
  0  every receiver that was asked took the test
  1  at least one did not
  2  the controller could not be asked, or wrong usage")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Test(Test),
}

/// Have the running controller send a test to one receiver or to all, and say what became of it
///
/// The test is the alert 'Test' of severity info. It goes past filters, queue and rate limit.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel notify test
  sudo evenkeel notify test pager
  sudo evenkeel notify test --json | jq -r '.[] | select(.ok | not).error'

With --json, a list of {receiver, type, ok, took_ms, error} is printed.

Exit codes:
  0  every receiver that was asked took the test
  1  at least one did not
  2  the controller could not be asked, there is no such receiver, or wrong usage")]
struct Test {
    /// The receiver; all of them where none is named
    name: Option<String>,
    /// The controller's admin socket
    #[arg(long, value_name = "PATH", env = "EVENKEEL_SOCKET", default_value = ADMIN_SOCKET)]
    socket: PathBuf,
    /// Print what became of it as JSON
    #[arg(long)]
    json: bool,
}

/// Tests.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let Command::Test(test) = &arguments.command;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let client = Client::new(&test.socket);
    let tested = runtime.block_on(client.test_notify(test.name.as_deref()))?;
    let text = if test.json {
        serde_json::to_string_pretty(&tested)? + "\n"
    } else {
        render(&tested)
    };
    output::print(&text)?;
    let all = tested.iter().all(|tested| tested.ok);
    Ok(if all { Answer::Yes } else { Answer::No })
}

fn render(tested: &[Tested]) -> String {
    let mut text = String::new();
    for one in tested {
        let (name, kind) = (plain(&one.receiver), plain(&one.kind));
        let outcome = match &one.error {
            None => format!("took it in {:.0} ms", one.took_ms),
            Some(why) => format!("did NOT take it: {}", plain(why)),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name} ({kind}) {outcome}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_receiver_has_a_line() {
        let one = |receiver: &str, error: Option<&str>| Tested {
            receiver: receiver.to_owned(),
            kind: "webhook".to_owned(),
            ok: error.is_none(),
            took_ms: 12.4,
            error: error.map(ToOwned::to_owned),
        };
        assert_eq!(
            render(&[one("ops", None), one("pager", Some("answered 500"))]),
            "ops (webhook) took it in 12 ms\npager (webhook) did NOT take it: answered 500\n"
        );
    }
}
