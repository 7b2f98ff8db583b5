//! `evenkeel backend`: one backend, and overrides of what the configuration says of it.

mod show;

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use clap::{Args, Subcommand};

use super::{
    ADMIN_SOCKET, Answer, change,
    output::{self, plain},
};
use crate::admin::{
    client::{Client, ClientError},
    proto::change::{Action, Imposing, Override},
};

/// How often `--wait` looks.
const LOOK: Duration = Duration::from_secs(1);

/// Show one backend, or drain, disable, re-weight or enable it without touching the configuration
///
/// An override is in force at once and outlives restarts and changes of the configuration, until
/// 'enable' or its time ends it. 'evenkeel status' shows who did it and why.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_long_help = "\
Examples:
  sudo evenkeel backend web/b2
  sudo evenkeel backend drain web b2 --reason 'new kernel' --expires 2h
  sudo evenkeel backend drain web b2 --deadline 10m --wait
  sudo evenkeel backend disable web b2 --reason 'answers garbage'
  sudo evenkeel backend weight web b2 5
  sudo evenkeel backend enable web b2

Exit codes:
  0  it is in force, or was shown; with --wait, the backend is drained
  1  refused: everything is as it was; there is no such backend; with --wait, the drain was taken
     back
  2  the controller cannot be asked, or wrong usage"
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    /// Show everything that is known of this backend
    #[arg(value_name = "SERVICE/BACKEND", required = true)]
    name: Option<String>,
    /// The controller's admin socket
    #[arg(long, value_name = "PATH", env = "EVENKEEL_SOCKET", default_value = ADMIN_SOCKET)]
    socket: PathBuf,
    /// Print JSON, as it stands in 'evenkeel status --json'
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// No new flows; established ones stay until they end
    Drain {
        #[command(flatten)]
        to: Target,
        /// Disable it after this time: flows that are left then end
        #[arg(long, value_name = "TIME", value_parser = change::duration)]
        deadline: Option<Duration>,
        /// Wait until nothing is left of its flows, and show how many are
        #[arg(long)]
        wait: bool,
    },
    /// No flows at all, at once: established ones break
    Disable {
        #[command(flatten)]
        to: Target,
    },
    /// What the configuration says: ends the override
    Enable {
        #[command(flatten)]
        to: Target,
    },
    /// Another weight than the configuration's
    Weight {
        #[command(flatten)]
        to: Target,
        /// The weight, from 0 to 1000
        #[arg(value_name = "WEIGHT")]
        weight: u16,
    },
}

#[derive(Clone, Debug, Args)]
struct Target {
    /// The service's name
    #[arg(value_name = "SERVICE")]
    service: String,
    /// The backend's name
    #[arg(value_name = "BACKEND")]
    backend: String,
    /// Why, for the journal and the status
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// End the override by itself after this time
    #[arg(long, value_name = "TIME", value_parser = change::duration)]
    expires: Option<Duration>,
    /// The controller's admin socket
    #[arg(long, value_name = "PATH", env = "EVENKEEL_SOCKET", default_value = ADMIN_SOCKET)]
    socket: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Shows the backend; or asks for the override, and waits for a drain where that is wanted.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let Some(what) = &arguments.what else {
        let name = arguments.name.as_deref().unwrap_or_default();
        return show::show(name, &arguments.socket, arguments.json);
    };
    let (to, action, deadline, wait) = match what {
        What::Drain { to, deadline, wait } => (to, Action::Drain, *deadline, *wait),
        What::Disable { to } => (to, Action::Disable, None, false),
        What::Enable { to } => (to, Action::Enable, None, false),
        What::Weight { to, weight } => (to, Action::Weight(*weight), None, false),
    };
    let wish = Imposing {
        service: to.service.clone(),
        backend: to.backend.clone(),
        action,
        reason: to.reason.clone(),
        expires_s: to.expires.map(|time| time.as_secs_f64()),
        deadline_s: deadline.map(|time| time.as_secs_f64()),
    };
    let client = Client::new(&to.socket);
    change::block_on(async {
        let imposed = match client.impose(&wish).await {
            Ok(imposed) => imposed,
            Err(error) => return change::refusal(error, to.json),
        };
        if let Some(warning) = &imposed.warning {
            output::complain(&plain(warning));
        }
        if to.json && !wait {
            change::print_json(&imposed)?;
        } else if !to.json {
            output::print(&(plain(&imposed.message) + "\n"))?;
        }
        if wait {
            watch(&client, to).await
        } else {
            Ok(Answer::Yes)
        }
    })?
}

/// Waits for the end of a drain, and shows how far it is.
async fn watch(client: &Client, to: &Target) -> anyhow::Result<Answer> {
    let mut said = String::new();
    loop {
        let found = match client.status().await {
            Ok(status) => {
                let services = status.services.iter();
                let backends = services
                    .filter(|service| service.name == to.service)
                    .flat_map(|service| &service.backends);
                let mut named = backends.filter(|backend| backend.name == to.backend);
                named.next().map(|backend| backend.overridden.clone())
            }
            // It may be restarted meanwhile, and remembers.
            Err(ClientError::NoController { .. } | ClientError::Broken { .. }) => {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let (line, answer) = progress(found.flatten().as_ref(), now_ms());
        if line != said {
            if to.json {
                output::print(&(serde_json::json!({ "progress": line }).to_string() + "\n"))?;
            } else {
                output::print(&(plain(&line) + "\n"))?;
            }
            said = line;
        }
        if let Some(answer) = answer {
            return Ok(answer);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How far a drain is, and what to answer where it is over.
fn progress(of: Option<&Override>, now_ms: u64) -> (String, Option<Answer>) {
    let taken_back = || ("taken back: it is not drained".to_owned(), Some(Answer::No));
    let Some(of) = of else {
        return taken_back();
    };
    match (of.kind.as_str(), &of.drain) {
        ("drain", Some(drain)) if drain.complete => (
            format!(
                "drained: no flow is left; {} packets since it began",
                drain.packets_since
            ),
            Some(Answer::Yes),
        ),
        ("drain", Some(drain)) => {
            let flows = drain.flows_left.map_or_else(
                || "flows are being counted".to_owned(),
                |n| format!("{n} tracked flows left"),
            );
            let deadline = drain.deadline_at_ms.map(|at| {
                let left = Duration::from_secs(at.saturating_sub(now_ms) / 1000);
                format!("; disabled in {}", humantime::format_duration(left))
            });
            (
                format!(
                    "draining: {flows}, {} slots with older flows, {} packets since it began{}",
                    drain.slots_left,
                    drain.packets_since,
                    deadline.unwrap_or_default()
                ),
                None,
            )
        }
        ("disable", _) => (
            "disabled: the deadline of the drain is over".to_owned(),
            Some(Answer::Yes),
        ),
        _ => taken_back(),
    }
}

#[expect(clippy::disallowed_methods, reason = "a deadline is some time away")]
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |time| time.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::proto::change::Drain;

    #[test]
    fn a_drain_tells_how_far_it_is() {
        let mut of = Override {
            service: "web".to_owned(),
            backend: "b2".to_owned(),
            kind: "drain".to_owned(),
            weight: 0,
            configured_weight: Some(1),
            actor: "ann".to_owned(),
            reason: None,
            since_ms: 0,
            expires_at_ms: None,
            drain: Some(Drain {
                flows_left: Some(12),
                slots_left: 80,
                packets_since: 34,
                deadline_at_ms: Some(61_000),
                complete: false,
            }),
        };
        let (line, answer) = progress(Some(&of), 1_000);
        assert_eq!(
            line,
            "draining: 12 tracked flows left, 80 slots with older flows, 34 packets since it began; \
             disabled in 1m"
        );
        assert_eq!(answer, None);
        of.drain.as_mut().unwrap().complete = true;
        assert_eq!(progress(Some(&of), 1_000).1, Some(Answer::Yes));
        of.kind = "disable".to_owned();
        assert_eq!(progress(Some(&of), 1_000).1, Some(Answer::Yes));
        of.kind = "weight".to_owned();
        assert_eq!(progress(Some(&of), 1_000).1, Some(Answer::No));
        assert_eq!(progress(None, 1_000).1, Some(Answer::No));
    }
}
