//! A recorded timeline, shown step by step, with questions about it.

use std::io::{self, BufRead as _};

use anyhow::Context as _;

use super::{Run, finish, now_ms};
use crate::{
    admin::proto::drill::Moment,
    cli::{
        Answer,
        output::{self, plain},
    },
    drill::{
        course::Course,
        sight::Scene,
        tabletop::{self, Entry, Question},
        text,
    },
    journal::{Filter, Reader, Record},
    model::Drill,
};

/// How many events a timeline has at most.
const MOST: u32 = 500;

/// Shows what was recorded until trouble began, asks, and shows the rest.
pub(super) fn run(arguments: &Run) -> anyhow::Result<Answer> {
    let filter = Filter {
        since_ms: arguments.since,
        until_ms: arguments.until,
        ..Filter::default()
    };
    let records = Reader::open(&arguments.state)?.last(&filter, MOST)?;
    let timeline: Vec<Entry> = records
        .into_iter()
        .map(entry)
        .filter(|of| {
            arguments.service.is_none() || of.service.is_none() || of.service == arguments.service
        })
        .collect();
    let questions = tabletop::questions(&timeline);
    let Some(at) = tabletop::trouble(&timeline).filter(|_| !questions.is_empty()) else {
        output::complain(
            "there was no trouble in that time: name another one with --since and --until, as \
             'evenkeel events' shows it",
        );
        return Ok(Answer::No);
    };
    let began_ms = now_ms();
    let scene = Scene {
        drill: Drill::Tabletop,
        service: timeline[at].service.clone().unwrap_or_default(),
        backend: timeline[at].backend.clone(),
        since_ms: began_ms,
    };
    let what = format!("{} events of a recorded timeline", timeline.len());
    let mut course = Course::new(scene, "tabletop", began_ms, &what);
    let start_ms = timeline[0].at_ms;
    show(&timeline[..=at], start_ms);
    for question in &questions {
        ask(question, &mut course)?;
    }
    course.detect(now_ms(), timeline[at].message.clone());
    show(&timeline[at + 1..], start_ms);
    output::complain("what would you do about it?");
    let remedy = read()?;
    course.mitigate(now_ms(), remedy.trim());
    course.restore(now_ms());
    finish(&course.score(None), &arguments.state, arguments.json)
}

fn entry(of: Record) -> Entry {
    Entry {
        at_ms: of.at_ms,
        kind: of.kind,
        level: of.level,
        service: of.service,
        backend: of.backend,
        message: of.message,
    }
}

fn show(timeline: &[Entry], start_ms: u64) {
    for of in timeline {
        let moment = Moment {
            at_ms: of.at_ms,
            what: format!("{:12} {}", of.kind, of.message),
        };
        output::complain(&plain(&text::moment(start_ms, &moment)));
    }
}

fn ask(question: &Question, course: &mut Course) -> anyhow::Result<()> {
    output::complain(question.ask);
    let answer = read()?;
    let answer = answer.trim();
    let Question {
        ask,
        right,
        because,
    } = question;
    let now_ms = now_ms();
    if question.is_right(answer) {
        course.note(now_ms, format!("right: {ask} {answer}"));
    } else {
        course.spoil(
            now_ms,
            format!("{ask} '{answer}' was answered, it is {right}: {because}"),
        );
    }
    Ok(())
}

fn read() -> anyhow::Result<String> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .context("read the answer")?;
    Ok(line)
}
