//! `evenkeel status`: who serves, and is the load even?

pub(super) mod details;
pub(super) mod judgement;
mod render;
mod screen;
pub(super) mod units;

use std::{
    env,
    io::{self, IsTerminal},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    time,
};

pub(super) use self::units::ago;
use self::{
    render::{View, notice, render},
    screen::Screen,
};
use super::{ADMIN_SOCKET, Answer, output};
use crate::admin::{
    client::{Client, ClientError},
    proto::Status,
};

/// Show services, backends, their shares of the load, and whether it is even
///
/// The bar beside a backend's observed share pictures it against the intended one: at the mark it
/// gets what it should, at the right end twice that or more.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel status
  sudo evenkeel status --watch
  sudo evenkeel status --watch 5 | tee status.log
  sudo evenkeel status --json | jq '.services[].evenness.verdict'
  sudo evenkeel status --check >/dev/null || echo 'look at the load balancer'

A service is even, skewed, or cannot-tell (too little traffic yet). A chance deviation is no skew;
the smallest skew that would be noticed stands beside the verdict.

--json prints what the controller says, unchanged; with --watch, one line each time.
--watch waits while the controller restarts. Ctrl-C ends it, with exit code 0.

Exit codes:
  0  a status was obtained, whatever it says
  1  with --check only: a service is skewed or has no usable backend, or the kernel's tables are
     not the intended ones
  2  the controller cannot be reached, or wrong usage")]
pub(super) struct Arguments {
    /// The controller's admin socket
    #[arg(long, value_name = "PATH", env = "EVENKEEL_SOCKET", default_value = ADMIN_SOCKET)]
    socket: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show it again and again, every second or as said
    #[arg(
        long,
        short,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "1",
        value_parser = seconds
    )]
    watch: Option<Duration>,
    /// End with exit code 1 if something is wrong
    #[arg(long, conflicts_with = "watch")]
    check: bool,
    /// When to use colours
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Colour::Auto)]
    color: Colour,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Colour {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// In pipes and files too
    Always,
    /// Nowhere
    Never,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let remedy = "not a number of seconds from 0.1 to 86400";
    let seconds: f64 = text.parse().map_err(|_| remedy.to_owned())?;
    if (0.1..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(remedy.to_owned())
    }
}

/// Asks once, or again and again.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let client = Client::new(&arguments.socket);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot set up the client")?;
    runtime.block_on(async {
        match arguments.watch {
            Some(interval) => watch(arguments, &client, interval).await,
            None => once(arguments, &client).await,
        }
    })
}

async fn once(arguments: &Arguments, client: &Client) -> anyhow::Result<Answer> {
    let status = client.status().await?;
    if arguments.json {
        output::print(&(serde_json::to_string_pretty(&status)? + "\n"))?;
    } else {
        output::print(&render(&status, arguments.view()))?;
    }
    let wrong = arguments.check && !judgement::reasons(&status).is_empty();
    Ok(if wrong { Answer::No } else { Answer::Yes })
}

async fn watch(
    arguments: &Arguments,
    client: &Client,
    interval: Duration,
) -> anyhow::Result<Answer> {
    let mut stop = Stop::new().context("cannot watch for signals")?;
    // A controller that is not there from the start is an error; one that goes away is waited for.
    let mut latest = client.status().await?;
    let mut problem: Option<String> = None;
    let screen = if io::stdout().is_terminal() && !arguments.json {
        Some(Screen::enter()?)
    } else {
        None
    };
    let mut ticks = time::interval(interval);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        match &screen {
            Some(screen) => {
                let mut view = arguments.view();
                // Clearing the rest of a full line would take its last character.
                view.width = view.width.map(|columns| columns.saturating_sub(1));
                let notice = problem.as_deref().map(|problem| notice(problem, view));
                screen.show(&(notice.unwrap_or_default() + &render(&latest, view)))?;
            }
            None if problem.is_none() && arguments.json => {
                output::print(&(serde_json::to_string(&latest)? + "\n"))?;
            }
            None if problem.is_none() => {
                output::print(&(render(&latest, arguments.view()) + "\n"))?;
            }
            None => {}
        }
        let asked = async {
            ticks.tick().await;
            client.status().await
        };
        let answer = tokio::select! {
            answer = asked => answer,
            () = stop.told() => return Ok(Answer::Yes),
        };
        let now = note(answer, &mut latest);
        if screen.is_none()
            && now != problem
            && let Some(problem) = &now
        {
            output::complain(&output::plain(problem));
        }
        problem = now;
    }
}

/// Keeps an answer, or puts in words why there is none.
fn note(answer: Result<Status, ClientError>, latest: &mut Status) -> Option<String> {
    match answer {
        Ok(status) => {
            *latest = status;
            None
        }
        Err(error) => Some(format!("waiting: {error}")),
    }
}

impl Arguments {
    fn view(&self) -> View {
        view(self.color)
    }
}

/// How what is printed may look.
pub(super) fn view(colour: Colour) -> View {
    let out = io::stdout();
    let terminal = out.is_terminal();
    let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    View {
        width: if terminal {
            screen::size(&out).map(|(columns, _)| columns)
        } else {
            None
        },
        colour: match colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => terminal && !no_colour,
        },
    }
}

/// The signals that end a watch; taken, so that the terminal is put right first.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
