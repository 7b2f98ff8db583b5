//! `evenkeel drill`: incidents that are rehearsed.

mod live;
mod sandboxed;
mod tabletop;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::{
    ADMIN_SOCKET, Answer, STATE_DIRECTORY, change, events,
    output::{self, plain},
    run as controller,
};
use crate::{
    admin::{
        client::Client,
        proto::{
            drill::{Abort, Limits, Scorecard},
            flows::prefix,
        },
    },
    causes::with_causes,
    drill::text,
    journal::{self, Filter, Reader},
    model::Drill,
    sandbox,
};

/// Rehearse incidents, and see whether they are found, told and put right
///
/// A drill is a fault, what is believed of it, and a scorecard: when it was detected, when somebody
/// was told, when it was put right, and when all was as before. In a sandbox, a network of namespaces
/// with servers and clients of its own, nothing else is touched. Live, a drill says what it would do
/// unless it is given --live; it has limits, ends by itself, and all that it causes is marked as its.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  evenkeel drill list
  sudo evenkeel drill run --sandbox skew
  sudo evenkeel drill run skew --service web
  sudo evenkeel drill run skew --service web --live
  sudo evenkeel drill abort
  sudo evenkeel drill score

Exit codes:
  0  done; of 'run': the drill passed, or would be begun
  1  of 'run': the drill was refused, or did not pass; of 'abort': none is on; of 'score': there is none
  2  it could not be done, ended early, or wrong usage")]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The drills that there are, and what is believed of each
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    Run(Box<Run>),
    /// End the drill that is on, and take its fault back
    Abort {
        /// Why, for the journal
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// The controller's admin socket
        #[arg(long, value_name = "PATH", env = "EVENKEEL_SOCKET", default_value = ADMIN_SOCKET)]
        socket: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// The scorecards of the drills that were held, the latest last
    Score {
        /// How many at most
        #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 20)]
        lines: u32,
        /// Show each of them whole
        #[arg(long)]
        full: bool,
        /// The state directory of the controller
        #[arg(long, value_name = "DIRECTORY", env = "EVENKEEL_STATE", default_value = STATE_DIRECTORY)]
        state: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// The controller of a sandbox, which dies with whoever started it
    #[command(hide = true)]
    Controller {
        /// The process that it dies with
        #[arg(long)]
        parent: i32,
        /// Its network
        #[arg(long)]
        network: PathBuf,
        /// Its configuration
        #[arg(long)]
        config: PathBuf,
    },
}

/// Rehearse one
///
/// Without --sandbox and without --live it is only said what would be done, to whom, and whether it
/// would be refused now: during an incident, with an error of the audit, in panic, or while another
/// drill is on.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel drill run --sandbox skew
  sudo evenkeel drill run --sandbox slow --keep ./slow --json
  sudo evenkeel drill run skew --service web --backend b2
  sudo evenkeel drill run skew --service web --live --for 5m
  sudo evenkeel drill run kill --service web --clients 192.0.2.0/24 --live
  sudo evenkeel drill run tabletop --since 1day --until 20h
  sudo evenkeel drill run drift --service web --live --service-name web --slots 5

A live drill ends after --for, by 'drill abort', by Ctrl-C, once the fault is put right, and by itself
where clients would suffer: see --turned-away and --slower.

Exit codes:
  0  the drill passed; without --live, it would be begun
  1  it was refused, or did not pass
  2  it could not be done, ended early, or wrong usage")]
struct Run {
    /// The drill: 'evenkeel drill list' shows them
    #[arg(value_name = "DRILL", value_parser = drill)]
    drill: Drill,
    /// In a network of its own, with servers and clients of its own; as root, on any host
    #[arg(long, conflicts_with_all = ["live", "service", "backend"])]
    sandbox: bool,
    /// Keep the sandbox's files there: configuration, log, journal, notifications
    #[arg(long, value_name = "DIRECTORY", requires = "sandbox")]
    keep: Option<PathBuf>,
    /// The service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// The backend [default: the first one that takes new connections]
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Of kill, slow and errors: the network of the clients whose packets to the backend are lost, as
    /// in 203.0.113.0/24 [default: nobody's: only what checks find is changed]
    #[arg(long, value_name = "NETWORK", conflicts_with = "sandbox", value_parser = network)]
    clients: Option<String>,
    /// Do it, and do not only say what would be done
    #[arg(long, requires = "service")]
    live: bool,
    /// The service's name once more, for scripts: it is asked for otherwise
    #[arg(long, value_name = "NAME", requires = "live")]
    service_name: Option<String>,
    /// Of a tabletop: from when on, as in 2h (ago) or 2026-11-20T08:00:00Z
    #[arg(long, value_name = "TIME", value_parser = events::moment)]
    since: Option<u64>,
    /// Of a tabletop: until when
    #[arg(long, value_name = "TIME", value_parser = events::moment)]
    until: Option<u64>,
    /// How long the fault is there at most; up to ten minutes
    #[arg(long = "for", value_name = "TIME", default_value = "2m", value_parser = change::duration)]
    lasts: Duration,
    /// How many of the service's slots it may move, in percent; up to 10
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0)]
    slots: f64,
    /// End it where more packets than this part of the new connections are turned away, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0)]
    turned_away: f64,
    /// End it where the other backends get so many times as slow as they were
    #[arg(long, value_name = "RATIO", default_value_t = 2.0)]
    slower: f64,
    /// The controller's admin socket
    #[arg(long, value_name = "PATH", env = "EVENKEEL_SOCKET", default_value = ADMIN_SOCKET)]
    socket: PathBuf,
    /// The state directory of the controller, whose journal takes the scorecard
    #[arg(long, value_name = "DIRECTORY", env = "EVENKEEL_STATE", default_value = STATE_DIRECTORY)]
    state: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Run {
    fn limits(&self) -> Limits {
        Limits {
            slots: self.slots / 100.0,
            turned_away: self.turned_away / 100.0,
            slower: self.slower,
        }
    }
}

fn network(text: &str) -> Result<String, String> {
    prefix(text).map(|network| network.to_string())
}

fn drill(text: &str) -> Result<Drill, String> {
    Drill::of(text).ok_or_else(|| {
        let words: Vec<&str> = Drill::WORDS.iter().map(|(word, _)| *word).collect();
        format!("there are {}", words.join(", "))
    })
}

/// Does what is asked.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    match &arguments.what {
        What::List { json } => list(*json),
        What::Run(run) if run.sandbox => sandboxed::run(run),
        What::Run(run) if run.drill == Drill::Tabletop => tabletop::run(run),
        What::Run(run) => live::run(run),
        What::Abort {
            reason,
            socket,
            json,
        } => abort(reason.clone(), socket, *json),
        What::Score {
            lines,
            full,
            state,
            json,
        } => score(*lines, *full, state, *json),
        What::Controller {
            parent,
            network,
            config,
        } => control(*parent, network, config),
    }
}

fn list(json: bool) -> anyhow::Result<Answer> {
    if json {
        let drills = Drill::WORDS.iter().map(|(word, drill)| {
            serde_json::json!({
                "drill": word,
                "fault": drill.fault(),
                "hypothesis": drill.hypothesis(),
                "expected": drill.expected(),
                "alert": drill.alert().map(crate::model::AlertName::word),
                "sandbox": sandboxed::has(*drill),
                "live": live::has(*drill),
            })
        });
        change::print_json(&drills.collect::<Vec<_>>())?;
        return Ok(Answer::Yes);
    }
    let mut lines = String::new();
    for (word, drill) in Drill::WORDS {
        let place = match (sandboxed::has(*drill), live::has(*drill)) {
            (true, true) => "sandbox, live",
            (true, false) => "sandbox",
            (false, true) => "live",
            (false, false) => "of what was recorded",
        };
        let (fault, hypothesis) = (drill.fault(), drill.hypothesis());
        // Writing to a string cannot fail.
        let _ = writeln!(
            lines,
            "{word}  ({place})\n  {fault}\n  believed: {hypothesis}"
        );
    }
    output::print(&lines)?;
    Ok(Answer::Yes)
}

fn abort(reason: Option<String>, socket: &Path, json: bool) -> anyhow::Result<Answer> {
    let client = Client::new(socket);
    change::block_on(async {
        match client.abort_drill(&Abort { reason }).await {
            Ok(answer) if json => change::print_json(&answer.running)?,
            Ok(answer) => {
                let of = &answer.running;
                let why = of.why_ended.as_deref().unwrap_or_default();
                output::print(&format!("drill {} ended: {}\n", of.drill, plain(why)))?;
            }
            Err(error) => return change::refusal(error, json),
        }
        Ok(Answer::Yes)
    })?
}

fn score(lines: u32, full: bool, state: &Path, json: bool) -> anyhow::Result<Answer> {
    let filter = Filter {
        kind: Some("drill".to_owned()),
        ..Filter::default()
    };
    // A drill has several events, of which one is its scorecard.
    let records = Reader::open(state)?.last(&filter, lines.saturating_mul(8))?;
    let mut cards: Vec<Scorecard> = records
        .into_iter()
        .filter_map(|record| serde_json::from_value(record.detail.get("score")?.clone()).ok())
        .collect();
    let first = cards.len().saturating_sub(lines as usize);
    cards.drain(..first);
    if json {
        change::print_json(&cards)?;
    } else if cards.is_empty() {
        output::complain("no drill was held: 'evenkeel drill run --sandbox skew' is one");
    }
    for card in cards.iter().filter(|_| !json) {
        let time = UNIX_EPOCH + Duration::from_millis(card.began_at_ms);
        let time = humantime::format_rfc3339_seconds(time);
        if full {
            output::print(&format!(
                "{time}  {}\n",
                plain_lines(&text::scorecard(card))
            ))?;
        } else {
            output::print(&format!("{time}  {}\n", plain(&card.line())))?;
        }
    }
    Ok(if cards.is_empty() {
        Answer::No
    } else {
        Answer::Yes
    })
}

/// Shows a scorecard, and writes it into a journal where there is one.
fn finish(card: &Scorecard, state: &Path, json: bool) -> anyhow::Result<Answer> {
    if json {
        change::print_json(card)?;
    } else {
        output::print(&plain_lines(&text::scorecard(card)))?;
    }
    // A host that has no controller has no journal, and gets none by a rehearsal.
    if state.exists()
        && let Err(error) = journal::append_one(state, &sandbox::card_event(card, now_ms()))
    {
        let error = with_causes(&error);
        output::complain(&format!("not written to the journal: {error}"));
    }
    Ok(if card.passed { Answer::Yes } else { Answer::No })
}

/// Text of several lines, of which none steers a terminal.
fn plain_lines(text: &str) -> String {
    text.lines().map(|line| plain(line) + "\n").collect()
}

/// Runs a sandbox's controller.
fn control(parent: i32, network: &Path, config: &Path) -> anyhow::Result<Answer> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("ask to die with the parent")?;
    // It may have ended before the kernel was asked.
    let there = getppid().is_some_and(|of| of.as_raw_nonzero().get() == parent);
    ensure!(there, "whoever started this has ended");
    sandbox::enter(network).context("enter the sandbox's network")?;
    controller::control(config)
}

#[expect(clippy::disallowed_methods, reason = "a rehearsal is timed")]
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| time.as_millis() as u64)
}
