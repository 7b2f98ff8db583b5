//! `evenkeel history`: what the backends took, and how evenly, over time.

use std::{
    fmt::Write as _,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::bail;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};

use super::{Answer, STATE_DIRECTORY, events::moment, output};
use crate::history::{
    self, Reader,
    series::{Line, Question, Series},
};

/// Most points where the step is not given: as many as a line of a terminal shows beside the rest.
const MOST: u64 = 30;
/// Most points at all.
const MOST_EVER: u64 = 100_000;

/// Show what the backends of a service took over time: new connections, shares, weights, latency
///
/// The controller keeps a point for each second of the last hour, for each ten seconds of the last day,
/// and for each minute of the last thirty days. This reads them from its state directory, whether it runs
/// or not; the last ten seconds may not be written yet.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel history web
  sudo evenkeel history web --since 1day --step 1h
  sudo evenkeel history web --since 2026-11-20T08:00:00Z --until 2026-11-20T09:00:00Z
  sudo evenkeel history web --since 1h --step 1s --json | jq '.backends[].new_flows'

Times are UTC. PROBES is the slowest probe that passed; RESPONSES is what 99 of 100 responses to clients
did not exceed, at the worst, where flows are measured. The line of bars shows new connections: each bar
is a step, and a dot stands for what is not known.

Exit codes:
  0  it was shown
  1  nothing is known of the service in that time
  2  there is no history, it cannot be read, or wrong usage")]
pub(super) struct Arguments {
    /// The service
    #[arg(value_name = "SERVICE")]
    service: String,
    /// From then on: a time (2026-11-20T08:00:00Z) or how long ago (30m, 2h, 3days)
    #[arg(long, value_name = "WHEN", default_value = "10m", value_parser = moment)]
    since: u64,
    /// Until then
    #[arg(long, value_name = "WHEN", default_value = "0s", value_parser = moment)]
    until: u64,
    /// From one point to the next (10s, 5m) [default: 30 points]
    #[arg(long, value_name = "DURATION", value_parser = step)]
    step: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The state directory of the controller
    #[arg(long, value_name = "DIRECTORY", env = "EVENKEEL_STATE", default_value = STATE_DIRECTORY)]
    state: PathBuf,
}

/// Seconds.
fn step(text: &str) -> Result<u64, String> {
    let step = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    if step.subsec_nanos() > 0 || step < Duration::from_secs(1) {
        return Err("give whole seconds, as in 10s".to_owned());
    }
    Ok(step.as_secs())
}

#[expect(
    clippy::disallowed_methods,
    reason = "how far back it is decides which points there are"
)]
fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| time.as_secs())
}

/// Shows the history.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let (since, until) = (arguments.since / 1000, arguments.until.div_ceil(1000));
    if since >= until {
        bail!("--until must be later than --since");
    }
    if let Some(step) = arguments.step
        && (until - since) / step > MOST_EVER
    {
        bail!("that is more than {MOST_EVER} points: give a longer --step, or less time");
    }
    let question = Question {
        service: arguments.service.clone(),
        from_s: since,
        until_s: until,
        now_s: now_s(),
        step_s: arguments.step,
        most: MOST,
    };
    let series = Series::read(&arguments.state, &question)?;
    if arguments.json {
        output::print(&(serde_json::to_string_pretty(&series)? + "\n"))?;
    } else if !series.at_ms.is_empty() {
        output::print(&text(&series))?;
    }
    if !series.at_ms.is_empty() {
        return Ok(Answer::Yes);
    }
    let known = Reader::open(&arguments.state)?.services()?;
    let known = if known.is_empty() {
        "nothing at all yet".to_owned()
    } else {
        known.join(", ")
    };
    let service = output::plain(&arguments.service);
    output::complain(&format!(
        "nothing is known of service \"{service}\" in that time; there is history of: {known}"
    ));
    Ok(Answer::No)
}

/// History for people.
fn text(series: &Series) -> String {
    let at = |ms: &u64| humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(*ms));
    let step = Duration::from_secs(series.step_s);
    let mut text = String::new();
    if let (Some(first), Some(last)) = (series.at_ms.first(), series.at_ms.last()) {
        let _ = writeln!(
            text,
            "{}: {} to {}, {} points of {}",
            output::plain(&series.service),
            at(first),
            at(&(last + series.step_s * 1000)),
            series.at_ms.len(),
            humantime::format_duration(step)
        );
    }
    let count = |word: &str| {
        series
            .verdicts
            .iter()
            .filter(|verdict| **verdict == word)
            .count()
    };
    let words = [
        ("skewed", "skewed"),
        ("cannot-tell", "cannot tell"),
        ("even", "even"),
    ];
    let verdicts: Vec<String> = words
        .iter()
        .map(|(word, shown)| (count(word), shown))
        .filter(|(n, _)| *n > 0)
        .map(|(n, shown)| format!("{shown} {n}"))
        .collect();
    let _ = writeln!(text, "verdict: {}\n", verdicts.join(", "));
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "BACKEND",
        "NEW FLOWS",
        "SHARE",
        "INTENDED",
        "WEIGHT",
        "PROBES",
        "RESPONSES",
        "UP",
        "",
    ]);
    let all: u64 = series.backends.iter().map(flows).sum();
    for line in &series.backends {
        table.add_row(row(line, all, series.step_s));
    }
    for column in table.column_iter_mut().skip(1).take(7) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    text + &lines.collect::<Vec<_>>().join("\n") + "\n"
}

fn flows(line: &Line) -> u64 {
    line.new_flows
        .iter()
        .flatten()
        .copied()
        .map(u64::from)
        .sum()
}

fn row(line: &Line, all: u64, step_s: u64) -> [String; 9] {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let last = |values: &[Option<f64>]| values.iter().rev().find_map(|value| *value);
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let slowest = |values: &[Option<f64>]| values.iter().flatten().copied().reduce(f64::max);
    let ms = |ms: f64| format!("{ms:.1} ms");
    let known = line.up.iter().flatten().count();
    let up = line.up.iter().flatten().filter(|up| **up).count();
    [
        output::plain(&line.name),
        flows(line).to_string(),
        or_none((all > 0).then(|| percent(flows(line) as f64 / all as f64))),
        or_none(last(&line.intended_share).map(percent)),
        or_none(last(&line.weight).map(|weight| format!("{weight}"))),
        or_none(slowest(&line.latency_ms).map(ms)),
        or_none(slowest(&line.response_p99_ms).map(ms)),
        or_none((known > 0).then(|| percent(up as f64 / known as f64))),
        bars(&line.new_flows, step_s),
    ]
}

/// New connections of each point, as high as the highest is full; a dot where nothing is known.
fn bars(values: &[Option<u32>], step_s: u64) -> String {
    let most = values.iter().flatten().copied().max().unwrap_or(0);
    // What a terminal's line does not hold says nothing.
    if values.len() > 60 {
        return format!("at most {:.1}/s", f64::from(most) / step_s as f64);
    }
    let values: Vec<Option<f64>> = values.iter().map(|value| value.map(f64::from)).collect();
    history::bars(&values).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_high_as_the_highest_is_full() {
        let values = [Some(0), Some(1), Some(4), Some(8), None, Some(5), Some(0)];
        assert_eq!(bars(&values, 1), " ▁▄█·▅");
        assert_eq!(bars(&[None], 1), "·");
        assert_eq!(bars(&[Some(7); 61], 2), "at most 3.5/s");
    }

    #[test]
    fn history_reads_like_a_table() {
        let series = Series {
            service: "web".to_owned(),
            step_s: 10,
            at_ms: vec![1_795_637_030_000, 1_795_637_040_000],
            verdicts: vec!["even", "skewed"],
            backends: vec![
                Line {
                    name: "b1".to_owned(),
                    new_flows: vec![Some(30), Some(60)],
                    observed_share: vec![Some(0.5), Some(1.0)],
                    intended_share: vec![Some(0.5), Some(0.5)],
                    weight: vec![Some(1.0), Some(0.5)],
                    latency_ms: vec![Some(1.25), None],
                    up: vec![Some(true), Some(true)],
                    handshake_ms: vec![None, None],
                    response_ms: vec![Some(20.0), Some(24.0)],
                    response_p99_ms: vec![Some(86.0), Some(71.0)],
                },
                Line {
                    name: "b2".to_owned(),
                    new_flows: vec![Some(30), None],
                    observed_share: vec![Some(0.5), None],
                    intended_share: vec![Some(0.5), None],
                    weight: vec![None, None],
                    latency_ms: vec![None, None],
                    up: vec![Some(false), None],
                    handshake_ms: vec![None, None],
                    response_ms: vec![None, None],
                    response_p99_ms: vec![None, None],
                },
            ],
        };
        assert_eq!(
            text(&series),
            "web: 2026-11-25T20:03:50Z to 2026-11-25T20:04:10Z, 2 points of 10s\n\
             verdict: skewed 1, even 1\n\n \
             BACKEND  NEW FLOWS   SHARE  INTENDED  WEIGHT  PROBES  RESPONSES       UP\n \
             b1              90  75.0 %    50.0 %     0.5  1.2 ms    86.0 ms  100.0 %  ▄█\n \
             b2              30  25.0 %    50.0 %       -       -          -    0.0 %  █·\n"
        );
    }

    #[test]
    fn steps_are_whole_seconds() {
        assert_eq!(step("5m"), Ok(300));
        for wrong in ["0s", "500ms", "1500ms", "x"] {
            assert!(step(wrong).is_err(), "{wrong}");
        }
    }
}
