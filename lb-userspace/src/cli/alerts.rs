//! `evenkeel alerts`: what is wrong, since when, and what to do.

use std::{fmt::Write as _, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::{
    ADMIN_SOCKET, Answer,
    output::{self, plain},
};
use crate::{
    admin::{client::Client, proto::Alert},
    model::{AlertName, RUNBOOKS},
};

/// List the alerts that are on, since when, and what to do about each
///
/// These are what the receivers of [[notify]] are told of. docs/alerts.md lists all that there are.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel alerts
  sudo evenkeel alerts --json | jq -r '.[] | select(.severity == \"page\").summary'

States:
  firing     receivers are told
  waiting    it is on for too short a time to tell anybody
  inhibited  another alert explains it, so nobody is told

With --json, the alerts are printed as a list of {name, severity, state, service, backend, detail,
since_ms, summary, meaning, remedy, inhibited_by, runbook}, the gravest first.

Exit codes:
  0  no alert is on, but for such of severity info
  1  at least one is
  2  the controller could not be asked, or wrong usage")]
pub(super) struct Arguments {
    /// The controller's admin socket
    #[arg(long, value_name = "PATH", env = "EVENKEEL_SOCKET", default_value = ADMIN_SOCKET)]
    socket: PathBuf,
    /// Print the alerts as JSON
    #[arg(long)]
    json: bool,
}

/// Lists them.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let status = runtime.block_on(Client::new(&arguments.socket).status())?;
    let mut alerts = status.alerts;
    alerts.sort_by_key(rank);
    let text = if arguments.json {
        let told = |alert| Told {
            alert,
            runbook: runbook(alert),
        };
        let told: Vec<_> = alerts.iter().map(told).collect();
        serde_json::to_string_pretty(&told)? + "\n"
    } else {
        render(&alerts, status.now_ms)
    };
    output::print(&text)?;
    let wrong = alerts.iter().any(|alert| alert.severity != "info");
    Ok(if wrong { Answer::No } else { Answer::Yes })
}

/// The gravest first, then the oldest.
pub(super) fn rank(alert: &Alert) -> (u8, bool, u64) {
    let severity = match alert.severity.as_str() {
        "page" => 0,
        "ticket" => 1,
        _ => 2,
    };
    (severity, alert.state != "firing", alert.since_ms)
}

/// Where the runbook of an alert is; `None` for one that a newer controller knows alone.
pub(super) fn runbook(alert: &Alert) -> Option<String> {
    let name = AlertName::of(&alert.name)?;
    Some(format!("{RUNBOOKS}{}", name.runbook()))
}

/// An alert with its runbook, for JSON.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    alert: &'a Alert,
    runbook: Option<String>,
}

fn render(alerts: &[Alert], now_ms: u64) -> String {
    if alerts.is_empty() {
        return "no alert is on\n".to_owned();
    }
    let mut text = String::new();
    for alert in alerts {
        let since = super::status::ago(now_ms, alert.since_ms);
        let state = match &alert.inhibited_by {
            Some(parent) => format!("inhibited by {parent}"),
            None => alert.state.clone(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:6}  {}, {}, for {since}: {}",
            plain(&alert.severity),
            plain(&alert.name),
            plain(&state),
            plain(&alert.summary)
        );
        let _ = writeln!(text, "        → {}", plain(&alert.remedy));
        if let Some(runbook) = runbook(alert) {
            let _ = writeln!(text, "        runbook: {runbook}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_listed_with_their_remedies() {
        let alert = |name: &str, severity: &str, inhibited_by: Option<&str>| Alert {
            name: name.to_owned(),
            severity: severity.to_owned(),
            state: inhibited_by.map_or("firing", |_| "inhibited").to_owned(),
            service: Some("web".to_owned()),
            backend: None,
            detail: None,
            since_ms: 5_000,
            summary: "web/b1 is \x1b[2Jdown".to_owned(),
            meaning: String::new(),
            remedy: "look at it".to_owned(),
            inhibited_by: inhibited_by.map(ToOwned::to_owned),
            drill: None,
        };
        let mut alerts = [
            alert("BackendDown", "ticket", Some("FleetDegraded")),
            alert("FleetDegraded", "page", None),
        ];
        alerts.sort_by_key(rank);
        let text = render(&alerts, 65_000);
        assert_eq!(
            text,
            "page    FleetDegraded, firing, for 1m: web/b1 is \\u{1b}[2Jdown\n        → look at it\n        \
             runbook: /usr/share/doc/evenkeel/runbooks/fleetdegraded.md\n\
             ticket  BackendDown, inhibited by FleetDegraded, for 1m: web/b1 is \\u{1b}[2Jdown\n        \
             → look at it\n        runbook: /usr/share/doc/evenkeel/runbooks/backenddown.md\n"
        );
        assert_eq!(render(&[], 0), "no alert is on\n");
    }
}
