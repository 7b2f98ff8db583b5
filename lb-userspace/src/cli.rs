//! The command line: what people and scripts hold.
//!
//! Every command ends with one of three codes: 0, it did what it was asked; 1, it looked and the
//! answer is no; 2, it could not do what it was asked, wrong usage included. `plan` alone has three
//! answers, and says 2 where something would change; `explain` says 3 where the kernel and this host
//! contradict each other.

mod alerts;
mod apply;
mod audit;
mod backend;
mod change;
mod check;
mod completions;
mod decap;
mod doctor;
mod drill;
mod events;
mod explain;
mod flows;
mod history;
mod incident;
mod loadtest;
mod log_filter;
mod manual;
mod note;
mod notify;
mod output;
mod plan;
mod report;
mod run;
mod schema;
mod service;
mod status;
mod top;
mod trace;
mod unload;

use std::{io, process::ExitCode, sync::LazyLock};

use clap::{Parser, Subcommand};

use crate::{causes::with_causes, model::State};

/// The version with the git revision that it was built from, as in `0.1.0 (4f2c1d09)`.
pub static VERSION: LazyLock<String> = LazyLock::new(|| {
    let revision = option_env!("EVENKEEL_REVISION").unwrap_or("unknown");
    format!("{} ({revision})", env!("CARGO_PKG_VERSION"))
});

/// Where the configuration is, unless named.
const CONFIG_FILE: &str = "/etc/evenkeel/evenkeel.toml";
/// Where the controller answers, unless named.
const ADMIN_SOCKET: &str = "/run/evenkeel/evenkeel.sock";

/// Where the controller keeps its journal, unless named.
const STATE_DIRECTORY: &str = State::DIRECTORY;

/// Evenkeel, a layer-4 load balancer in XDP that says when the load is not even, and why
///
/// The kernel spreads connections over the backends of each service; the controller ('evenkeel
/// run') loads the kernel's program and its tables, probes the backends, and watches whether every
/// backend gets its share. When the controller ends, the kernel goes on forwarding by its last
/// tables; only 'evenkeel unload' ends that.
#[derive(Debug, Parser)]
#[command(
    name = "evenkeel",
    version = VERSION.as_str(),
    arg_required_else_help = true,
    max_term_width = 100,
    after_long_help = "\
First steps:
  evenkeel check                    is the configuration right?
  sudo evenkeel doctor              is the host fit for it?
  sudo evenkeel run                 load the tables, probe, watch; Ctrl-C ends the controller only
  sudo evenkeel status --watch      who serves, and is the load even?
  sudo evenkeel top                 the same on a live screen; 'service' and 'backend' show one
  sudo evenkeel explain PACKET      where would this packet go, and why?
  sudo evenkeel trace web           what the kernel decides, as it does; 'capture' for Wireshark
  sudo evenkeel plan FILE           what would this configuration change?
  sudo evenkeel apply FILE          change it, with no gap; 'rollback' takes it back
  sudo evenkeel audit               what is wrong, or will go wrong?
  sudo evenkeel alerts              what is on of all that, since when, and what to do
  sudo evenkeel events --since 1h   what happened, and why
  sudo evenkeel history web         what each backend took, and how evenly, over time
  sudo evenkeel incident list       what is being dealt with, and by whom
  sudo evenkeel report              what happened, what it cost, why, and what mended it
  evenkeel loadtest URL             what does it hold, and is the load spread evenly?
  sudo evenkeel drill run --sandbox skew   rehearse an incident in a network of its own
  sudo evenkeel unload              take everything out of the kernel again

The configuration is at /etc/evenkeel/evenkeel.toml unless a command is told another place;
'evenkeel schema' prints what may be in it, for editors.

Exit codes of all commands:
  0  done
  1  looked, and the answer is no (check: not valid; alerts, audit, doctor, status
     --check: something is wrong; decap --status: not loaded; apply, confirm,
     rollback, backend, log: refused; service, backend, flows: there is none;
     notify test: somebody did not take it; history: nothing is known; incident:
     refused; report: there is nothing to report of;
     loadtest: it does not hold; drill: refused, or not passed; explain: it would not be forwarded;
     trace, capture: nothing was told)
  2  could not be done, or wrong usage; 'plan' has its own: 0 no change,
     1 error, 2 change
  3  explain: the kernel and this host contradict each other

Environment:
  RUST_LOG          what is logged to standard error: error, warn, info (default), debug, trace;
                    'evenkeel log' changes it in a controller that runs
  EVENKEEL_SOCKET   the admin socket of the controller that is asked
  EVENKEEL_STATE    the state directory that 'events', 'history', 'incident', 'note' and
                    'report' use
  NO_COLOR          set and not empty: no colours"
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Arguments),
    Check(check::Arguments),
    Doctor(doctor::Arguments),
    Status(status::Arguments),
    Top(top::Arguments),
    Service(service::Arguments),
    Flows(flows::Arguments),
    Explain(explain::Arguments),
    Trace(trace::Trace),
    Capture(trace::Capture),
    Plan(plan::Arguments),
    Apply(apply::Arguments),
    Confirm(apply::Confirm),
    Rollback(apply::Rollback),
    Backend(backend::Arguments),
    Audit(audit::Arguments),
    Events(events::Arguments),
    History(history::Arguments),
    Note(note::Arguments),
    Incident(incident::Arguments),
    Report(report::Arguments),
    Alerts(alerts::Arguments),
    Notify(notify::Arguments),
    Loadtest(Box<loadtest::Arguments>),
    Drill(drill::Arguments),
    Log(log_filter::Arguments),
    Unload(unload::Arguments),
    Decap(decap::Arguments),
    Schema(schema::Arguments),
    Completions(completions::Arguments),
    Manual(manual::Arguments),
}

/// What a command that did its work found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// All is as asked.
    Yes,
    /// It is not, and the command said so.
    No,
    /// Something would change.
    Changes,
    /// Two that should agree do not.
    Contradiction,
}

/// Parses the command line, runs the command, reports an error and tells the exit code.
pub fn main() -> ExitCode {
    let result = match CommandLine::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Service(arguments) => service::run(&arguments),
        Command::Flows(arguments) => flows::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Trace(arguments) => trace::trace(&arguments),
        Command::Capture(arguments) => trace::capture(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Apply(arguments) => apply::run(&arguments),
        Command::Confirm(arguments) => apply::confirm(&arguments),
        Command::Rollback(arguments) => apply::rollback(&arguments),
        Command::Backend(arguments) => backend::run(&arguments),
        Command::Audit(arguments) => audit::run(&arguments),
        Command::Events(arguments) => events::run(&arguments),
        Command::History(arguments) => history::run(&arguments),
        Command::Note(arguments) => note::run(&arguments),
        Command::Incident(arguments) => incident::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Alerts(arguments) => alerts::run(&arguments),
        Command::Notify(arguments) => notify::run(&arguments),
        Command::Loadtest(arguments) => loadtest::run(&arguments),
        Command::Drill(arguments) => drill::run(&arguments),
        Command::Log(arguments) => log_filter::run(&arguments),
        Command::Unload(arguments) => unload::run(&arguments),
        Command::Decap(arguments) => decap::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Manual(arguments) => manual::run(&arguments),
    };
    if let Err(error) = &result
        && !is_closed_pipe(error)
    {
        output::complain(&format!("error: {}", with_causes(error.as_ref())));
    }
    exit_code(&result)
}

/// The one place that turns results into exit codes.
fn exit_code(result: &anyhow::Result<Answer>) -> ExitCode {
    match result {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        // Who closes the pipe, as `head` does, has read all that it wanted.
        Err(error) if is_closed_pipe(error) => ExitCode::SUCCESS,
        Ok(Answer::Changes) | Err(_) => ExitCode::from(2),
        Ok(Answer::Contradiction) => ExitCode::from(3),
    }
}

/// Whether standard output was closed by its reader.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<output::WriteError>()
        .is_some_and(|output::WriteError(cause)| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn every_command_teaches_by_example_and_names_its_exit_codes() {
        for command in CommandLine::command().get_subcommands() {
            let help = command
                .get_after_long_help()
                .unwrap_or_default()
                .to_string();
            assert!(help.contains("Examples:"), "{}", command.get_name());
            assert!(help.contains("Exit codes:"), "{}", command.get_name());
        }
    }

    #[test]
    fn the_version_names_its_revision() {
        let (number, revision) = VERSION.split_once(' ').unwrap();
        assert_eq!(number, env!("CARGO_PKG_VERSION"));
        assert!(
            revision.starts_with('(') && revision.ends_with(')'),
            "{revision}"
        );
    }

    #[test]
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is() {
        let written = |kind: io::ErrorKind| Err(output::WriteError(kind.into()).into());
        let code = |result| format!("{:?}", exit_code(&result));
        assert_eq!(
            code(written(io::ErrorKind::BrokenPipe)),
            format!("{:?}", ExitCode::SUCCESS)
        );
        assert_eq!(
            code(written(io::ErrorKind::StorageFull)),
            format!("{:?}", ExitCode::from(2))
        );
        assert_eq!(code(Ok(Answer::No)), format!("{:?}", ExitCode::from(1)));
    }
}
