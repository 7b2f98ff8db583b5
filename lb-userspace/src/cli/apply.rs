//! `evenkeel apply`, `confirm` and `rollback`: configurations are put in force and taken back.

use std::{
    fmt::Write as _,
    path::PathBuf,
    time::{Duration, UNIX_EPOCH},
};

use clap::Args;

use super::{
    ADMIN_SOCKET, Answer, change,
    output::{self, plain},
};
use crate::admin::{
    client::Client,
    proto::change::{self as proto, Configuration, Outcome},
};

/// Put a configuration in force, with one publication or not at all
///
/// The running controller validates and audits it, looks at backends that are new, and lets packets
/// follow it at once; established connections stay with backends that serve. What the audit finds at
/// level error refuses it. The configuration is kept: a restart goes on with it until the
/// controller's own file is edited.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel apply /etc/evenkeel/evenkeel.toml --reason 'two more servers'
  sudo evenkeel apply ./next.toml --confirm-within 60s && curl -f http://vip/ && sudo evenkeel confirm
  sudo evenkeel apply ./next.toml --force --reason 'b1 has new hardware, capacity follows'
  sudo evenkeel apply --json ./next.toml | jq .configuration.number

Interfaces, XDP mode, pins, hash seed, admin socket, state directory and map sizes cannot be changed
while the controller runs; a file that changes them is refused, with the keys' names.

Exit codes:
  0  it is in force
  1  refused: everything is as it was
  2  the controller or the file cannot be asked, or wrong usage")]
pub(super) struct Arguments {
    /// The configuration
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Why, for the journal
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Take it back unless 'evenkeel confirm' comes within this time, also when the controller dies
    /// meanwhile
    #[arg(long, value_name = "TIME", value_parser = change::duration)]
    confirm_within: Option<Duration>,
    /// Do it although the audit finds errors; the journal says who and why
    #[arg(long, requires = "reason")]
    force: bool,
    /// The controller's admin socket
    #[arg(long, value_name = "PATH", env = "EVENKEEL_SOCKET", default_value = ADMIN_SOCKET)]
    socket: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Applies a configuration.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let request = proto::Request {
        reason: arguments.reason.clone(),
        confirm_within_s: arguments.confirm_within.map(|time| time.as_secs_f64()),
        force: arguments.force,
        ..change::request(&arguments.file)?
    };
    let client = Client::new(&arguments.socket);
    match change::block_on(client.apply(&request))? {
        Ok(outcome) => tell(&outcome, arguments.json),
        Err(error) => change::refusal(error, arguments.json),
    }
}

/// Keep the last change, which is taken back otherwise
///
/// For a change that was made with 'apply --confirm-within'.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel confirm

Exit codes:
  0  it is kept
  1  nothing waits for a confirmation
  2  the controller cannot be asked, or wrong usage")]
pub(super) struct Confirm {
    /// The controller's admin socket
    #[arg(long, value_name = "PATH", env = "EVENKEEL_SOCKET", default_value = ADMIN_SOCKET)]
    socket: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Confirms the last change.
pub(super) fn confirm(arguments: &Confirm) -> anyhow::Result<Answer> {
    let client = Client::new(&arguments.socket);
    match change::block_on(client.confirm())? {
        Ok(outcome) => tell(&outcome, arguments.json),
        Err(error) => change::refusal(error, arguments.json),
    }
}

/// Put an earlier configuration in force, or list those that are kept
///
/// Without a number it is the one before the last change. It comes into force as by 'apply', under a
/// number of its own; the audit does not refuse it.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel rollback --reason 'p99 has doubled'
  sudo evenkeel rollback --list
  sudo evenkeel rollback 17

The texts are in the state directory: configurations/17.toml.

Exit codes:
  0  it is in force, or the list was shown
  1  refused: everything is as it was
  2  the controller cannot be asked, or wrong usage")]
pub(super) struct Rollback {
    /// The number of a kept configuration
    #[arg(value_name = "NUMBER")]
    to: Option<u64>,
    /// Why, for the journal
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// List the configurations that are kept, the newest first
    #[arg(long, conflicts_with_all = ["to", "reason"])]
    list: bool,
    /// The controller's admin socket
    #[arg(long, value_name = "PATH", env = "EVENKEEL_SOCKET", default_value = ADMIN_SOCKET)]
    socket: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Goes back, or lists where to.
pub(super) fn rollback(arguments: &Rollback) -> anyhow::Result<Answer> {
    let client = Client::new(&arguments.socket);
    if arguments.list {
        let kept = change::block_on(client.configurations())??;
        if arguments.json {
            change::print_json(&kept)?;
        } else {
            output::print(&list(&kept))?;
        }
        return Ok(Answer::Yes);
    }
    let wish = proto::Rollback {
        to: arguments.to,
        reason: arguments.reason.clone(),
    };
    match change::block_on(client.rollback(&wish))? {
        Ok(outcome) => tell(&outcome, arguments.json),
        Err(error) => change::refusal(error, arguments.json),
    }
}

fn tell(outcome: &Outcome, json: bool) -> anyhow::Result<Answer> {
    if json {
        change::print_json(outcome)?;
        return Ok(Answer::Yes);
    }
    let mut text = String::new();
    if outcome.plan.changes {
        text += &change::summary(&outcome.plan);
    }
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{}\npackets follow generation {}",
        plain(&outcome.message),
        outcome.generation
    );
    if let Some(differs) = &outcome.configuration.file_differs {
        let _ = writeln!(text, "{}", plain(differs));
    }
    output::print(&text)?;
    Ok(Answer::Yes)
}

/// The kept configurations, a line each.
fn list(kept: &[Configuration]) -> String {
    let mut text = String::new();
    for one in kept {
        let at = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(one.at_ms));
        let mark = if one.in_force { "*" } else { " " };
        let mut line = format!(
            "{mark} {:4}  {at}  {:8}  {}  by {}, {}",
            one.number,
            one.how,
            one.sha256.get(..12).unwrap_or_default(),
            one.actor,
            one.file
        );
        if let Some(copy) = one.copy_of {
            let _ = write!(line, ", the text of {copy}");
        }
        if let Some(reason) = &one.reason {
            let _ = write!(line, ": {reason}");
        }
        if !one.forced.is_empty() {
            line += " (FORCED)";
        }
        if one.confirm_by_ms.is_some() {
            line += " (not confirmed yet)";
        }
        let _ = writeln!(text, "{}", plain(&line));
    }
    if text.is_empty() {
        return "none is kept: see 'evenkeel events --kind change' for why\n".to_owned();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_configurations_are_a_line_each() {
        let one = |number, how: &str| Configuration {
            number,
            how: how.to_owned(),
            sha256: "0123456789abcdef".to_owned(),
            actor: "ann".to_owned(),
            file: "/e.toml".to_owned(),
            ..Configuration::default()
        };
        let kept = [
            Configuration {
                in_force: true,
                copy_of: Some(1),
                reason: Some("worse\n".to_owned()),
                confirm_by_ms: Some(5),
                ..one(2, "rollback")
            },
            Configuration {
                forced: vec!["L4".to_owned()],
                ..one(1, "apply")
            },
        ];
        assert_eq!(
            list(&kept),
            "*    2  1970-01-01T00:00:00Z  rollback  0123456789ab  by ann, /e.toml, the text of 1: \
             worse\\n (not confirmed yet)\n     1  1970-01-01T00:00:00Z  apply     0123456789ab  \
             by ann, /e.toml (FORCED)\n"
        );
        assert!(list(&[]).contains("none is kept"));
    }
}
