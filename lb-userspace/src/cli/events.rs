//! `evenkeel events`: what happened.

use std::{
    env,
    io::{self, IsTerminal as _},
    path::PathBuf,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{Args, builder::PossibleValuesParser};

use super::{Answer, STATE_DIRECTORY, output};
use crate::journal::{Filter, Kind, Level, Reader, Record};

/// How often `--follow` looks for more.
const LOOK: Duration = Duration::from_millis(250);
/// How many events are read at a time.
const BATCH: u32 = 1000;

/// Show what happened: publications, health, verdicts, drift, notes, starts and stops
///
/// The controller writes everything that it does and sees into a journal in its state directory.
/// This reads it there, whether a controller runs or not.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel events
  sudo evenkeel events --since 2h --level warning
  sudo evenkeel events --since 2026-11-20T08:00:00Z --until 2026-11-20T20:00:00Z --service web
  sudo evenkeel events --follow
  sudo evenkeel events --json --kind publication | jq '.detail.why'

Times are UTC. --json prints one event a line, with its numbers under 'detail'.

Exit codes:
  0  the events were shown, even if there are none
  2  there is no journal, it cannot be read, or wrong usage")]
pub(super) struct Arguments {
    /// Only events from then on: a time (2026-11-20T08:00:00Z) or how long ago (30m, 2h, 3days)
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    since: Option<u64>,
    /// Only events before then
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    until: Option<u64>,
    /// Only events about this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only events about this backend
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Only events of this kind
    #[arg(long, value_parser = PossibleValuesParser::new(Kind::WORDS.map(|(word, _)| word)))]
    kind: Option<String>,
    /// Only events that matter as much, or more
    #[arg(
        long,
        value_name = "LEVEL",
        default_value = "info",
        value_parser = PossibleValuesParser::new(Level::WORDS.map(|(word, _)| word))
    )]
    level: String,
    /// At most so many: the last ones
    #[arg(long, short = 'n', value_name = "N", default_value_t = 200)]
    lines: u32,
    /// Go on with those that come, until Ctrl-C
    #[arg(long, short, conflicts_with = "until")]
    follow: bool,
    /// Print JSON, one event a line
    #[arg(long)]
    json: bool,
    /// The state directory of the controller
    #[arg(long, value_name = "DIRECTORY", env = "EVENKEEL_STATE", default_value = STATE_DIRECTORY)]
    state: PathBuf,
}

/// Milliseconds since the Unix epoch.
pub(super) fn moment(text: &str) -> Result<u64, String> {
    let now = now();
    let time = match humantime::parse_duration(text) {
        Ok(ago) => now.checked_sub(ago).ok_or("that is before 1970")?,
        Err(_) => humantime::parse_rfc3339_weak(text).map_err(|_| {
            "not a time as in 2026-11-20T08:00:00Z, and not how long ago as in 2h 30m".to_owned()
        })?,
    };
    Ok(since_epoch(time))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the command line asks for 'two hours ago'"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

fn since_epoch(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// Shows the events, and those that come.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let journal = Reader::open(&arguments.state)?;
    let filter = arguments.filter();
    let colour =
        io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let show = |records: &[Record]| {
        let lines: Vec<_> = records
            .iter()
            .map(|record| line(record, arguments.json, colour))
            .collect();
        output::print(&lines.concat())
    };
    // Read before the others, so that nothing that comes in between is missed.
    let end = journal.last(&Filter::default(), 1)?;
    let records = journal.last(&filter, arguments.lines)?;
    show(&records)?;
    let mut seen = end
        .iter()
        .chain(records.last())
        .map(|record| record.id)
        .max()
        .unwrap_or(0);
    if !arguments.follow {
        return Ok(Answer::Yes);
    }
    loop {
        thread::sleep(LOOK);
        let more = journal.after(&filter, seen, BATCH)?;
        show(&more)?;
        seen = more.last().map_or(seen, |record| record.id);
    }
}

impl Arguments {
    fn filter(&self) -> Filter {
        let levels = Level::WORDS.iter().map(|(word, _)| *word);
        Filter {
            since_ms: self.since,
            until_ms: self.until,
            service: self.service.clone(),
            backend: self.backend.clone(),
            kind: self.kind.clone(),
            levels: levels.skip_while(|word| *word != self.level).collect(),
        }
    }
}

/// An event as a line, ending with a line break.
fn line(record: &Record, json: bool, colour: bool) -> String {
    if json {
        let json = serde_json::to_string(record).expect("plain data is JSON");
        return json + "\n";
    }
    let at = UNIX_EPOCH + Duration::from_millis(record.at_ms);
    let at = humantime::format_rfc3339_millis(at);
    let by = match &*record.actor {
        "controller" => String::new(),
        actor => format!("{actor}: "),
    };
    let text = output::plain(&format!("{by}{}", record.message));
    let (begin, end) = match (colour, &*record.level) {
        (true, "error") => ("\x1b[31m", "\x1b[0m"),
        (true, "warning") => ("\x1b[33m", "\x1b[0m"),
        _ => ("", ""),
    };
    let (level, kind) = (output::plain(&record.level), output::plain(&record.kind));
    format!("{at}  {begin}{level:7}{end}  {kind:11}  {text}\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(level: &str, actor: &str, message: &str) -> Record {
        Record {
            id: 3,
            at_ms: 1_795_637_036_816,
            kind: "health".into(),
            level: level.into(),
            service: Some("web".into()),
            backend: None,
            generation: 7,
            actor: actor.into(),
            message: message.into(),
            detail: json!({ "a": 1 }),
        }
    }

    #[test]
    fn an_event_is_a_line_that_cannot_steer_a_terminal() {
        assert_eq!(
            line(
                &record("warning", "controller", "web/b2 is down"),
                false,
                false
            ),
            "2026-11-25T20:03:56.816Z  warning  health       web/b2 is down\n"
        );
        let hostile = line(
            &record("error", "root", "\x1b[2J\nall is well"),
            false,
            true,
        );
        assert_eq!(hostile.matches('\n').count(), 1);
        assert!(hostile.contains("\x1b[31merror"), "{hostile:?}");
        assert!(
            hostile.contains("root: \\u{1b}[2J\\nall is well"),
            "{hostile:?}"
        );
    }

    #[test]
    fn json_holds_everything() {
        let json = line(&record("info", "root", "a note"), true, true);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["detail"]["a"], 1);
        assert_eq!(value["at_ms"], 1_795_637_036_816_u64);
    }

    #[test]
    fn moments_are_times_or_ages() {
        assert_eq!(moment("2026-11-25T20:03:56.816Z"), Ok(1_795_637_036_816));
        assert_eq!(moment("2026-11-25 20:03:56"), Ok(1_795_637_036_000));
        let ago = since_epoch(now()) - moment("2h").unwrap();
        assert!(
            (7_200_000 - 1000..=7_200_000 + 1000).contains(&ago),
            "{ago}"
        );
        assert!(moment("yesterday").unwrap_err().contains("2h 30m"));
    }
}
