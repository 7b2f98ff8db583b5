//! What the demonstration promises, and whether it was kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use evenkeel_tests::traffic::{Kind, Outcome, Record};

/// How far a share may be from the intended one, in standard deviations of chance: one even
/// demonstration in about two thousand has one of its eight shares beyond.
const CHANCE: f64 = 4.0;

/// How long removal may take: two probes 200 ms apart, the second timing out after 150 ms.
const REMOVAL_LIMIT_MS: u64 = 2 * 200 + 150;

/// What happened when, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Events {
    /// Just before the server was killed.
    pub(crate) killed: u64,
    /// When the tables without it were published.
    pub(crate) removed: u64,
    /// When it was seen to be out of them.
    pub(crate) seen_removed: u64,
    /// Just before it was started again.
    pub(crate) restarted: u64,
    /// When it was seen to be in the tables again.
    pub(crate) seen_returned: u64,
}

/// All that the judgement needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Story<'a> {
    pub(crate) events: &'a Events,
    /// Each backend's name and intended share while all serve.
    pub(crate) shares: &'a [(String, f64)],
    /// The same at the end.
    pub(crate) shares_after: &'a [(String, f64)],
    /// The backend that was killed.
    pub(crate) victim: &'a str,
    pub(crate) outcome: &'a Outcome,
    pub(crate) tables_as_intended: bool,
    pub(crate) verdict: &'a str,
}

/// A promise and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Promise {
    kept: bool,
    text: String,
    found: String,
}

/// Prints the summary; answers whether every promise was kept.
pub(crate) fn report(story: &Story) -> bool {
    let Story {
        events, outcome, ..
    } = story;
    let (new, kept) = (&outcome.report.new, &outcome.report.kept);
    println!("\nsummary");
    println!(
        "  requests sent    {}, answered {}",
        new.sent + kept.sent,
        new.ok + kept.ok
    );
    println!(
        "  requests failed  {}{}",
        new.failed + kept.failed,
        when_failed(story)
    );
    for (name, _) in story.shares {
        let answers = new.by_backend.get(name).copied().unwrap_or(0);
        let part = 100.0 * answers as f64 / new.ok.max(1) as f64;
        println!(
            "  {name} answered      {answers} of {} new connections ({part:.1} %)",
            new.ok
        );
    }
    if let (Some(median), Some(slow)) =
        (outcome.report.latency.p50_ms, outcome.report.latency.p99_ms)
    {
        println!("  answered within  {median:.1} ms (median), {slow:.1} ms (99 %)");
    }
    let took = events.removed.saturating_sub(events.killed);
    println!("  kill to removal  {took} ms");
    println!("\npromised");
    let promises = judge(story);
    for Promise { kept, text, found } in &promises {
        println!(
            "  {}  {text}: {found}",
            if *kept { "kept  " } else { "BROKEN" }
        );
    }
    let all = promises.iter().all(|promise| promise.kept);
    println!(
        "\n{}",
        if all {
            "all went as promised"
        } else {
            "NOT all went as promised"
        }
    );
    all
}

/// When requests failed, in words.
fn when_failed(story: &Story) -> String {
    let since_kill = |ms: f64| ms - story.events.killed as f64;
    let ends = || {
        story
            .outcome
            .failures()
            .map(|record| since_kill(record.at_ms + record.took_ms))
    };
    match (ends().reduce(f64::min), ends().reduce(f64::max)) {
        (Some(first), Some(last)) => {
            format!(", from {first:.0} ms to {last:.0} ms after the kill")
        }
        _ => String::new(),
    }
}

/// Holds what happened against what was promised.
fn judge(story: &Story) -> Vec<Promise> {
    let events = story.events;
    let took = events.removed.saturating_sub(events.killed);
    let victim = story.victim;
    let before = (0, events.killed);
    let dead = (events.seen_removed, events.restarted);
    let after = (events.seen_returned, u64::MAX);
    let rest = 1.0
        - story
            .shares
            .iter()
            .find(|(name, _)| name == victim)
            .map_or(0.0, |(_, p)| *p);
    let without: Vec<_> = story
        .shares
        .iter()
        .map(|(name, p)| (name.clone(), if name == victim { 0.0 } else { p / rest }))
        .collect();
    let same = story.shares == story.shares_after;
    vec![
        even(
            "with all backends, each gets its share",
            story,
            story.shares,
            before,
        ),
        Promise {
            kept: took <= REMOVAL_LIMIT_MS,
            text: format!("{victim} is out of the ring within {REMOVAL_LIMIT_MS} ms of its death"),
            found: format!("{took} ms"),
        },
        only_its_own_fail(story),
        even(
            "its share goes to the others in proportion",
            story,
            &without,
            dead,
        ),
        Promise {
            kept: same,
            text: "its return restores the shares of the ring".to_owned(),
            found: if same { "exactly" } else { "they differ" }.to_owned(),
        },
        even(
            "with all backends again, each gets its share",
            story,
            story.shares,
            after,
        ),
        Promise {
            kept: story.tables_as_intended && story.verdict != "skewed",
            text: "the kernel has the intended tables, and the verdict is not 'skewed'".to_owned(),
            found: format!(
                "{}, '{}'",
                if story.tables_as_intended {
                    "it has"
                } else {
                    "it has not"
                },
                story.verdict
            ),
        },
    ]
}

/// Whether new connections within a time were spread by these shares, as far as chance tells.
fn even(text: &str, story: &Story, shares: &[(String, f64)], (from, to): (u64, u64)) -> Promise {
    let mut answers = BTreeMap::<&str, u64>::new();
    for record in &story.outcome.records {
        let within = record.at_ms > from as f64 && end(record) < to as f64;
        if let (Kind::New, true, Some(name)) = (record.kind, within, &record.backend) {
            *answers.entry(name).or_default() += 1;
        }
    }
    let total: u64 = answers.values().sum();
    let off = |(name, p): &(String, f64)| {
        let (n, x) = (
            total as f64,
            answers.get(name.as_str()).copied().unwrap_or(0) as f64,
        );
        let deviation = (n * p * (1.0 - p)).sqrt();
        // A share of all or nothing leaves nothing to chance: the deviation is zero.
        (x - n * p).abs() > CHANCE * deviation
    };
    let parts: Vec<_> = shares
        .iter()
        .map(|(name, p)| {
            let x = answers.get(name.as_str()).copied().unwrap_or(0);
            let share = 100.0 * x as f64 / total.max(1) as f64;
            format!("{name} {share:.1} % of {:.1} %", p * 100.0)
        })
        .collect();
    Promise {
        kept: total > 0 && !shares.iter().any(off),
        text: text.to_owned(),
        found: format!("{} ({total} connections)", parts.join(", ")),
    }
}

/// How long after the return of a backend the connections in its slots may notice.
const NOTICE_MS: f64 = 1_000.0;

/// Whether requests failed only on the killed backend, and only until it was removed.
///
/// Flows are not tracked across changes of the ring yet: connections that began on other backends
/// while this one was away move when it takes its slots back. Those are counted by themselves.
fn only_its_own_fail(story: &Story) -> Promise {
    let victim = story.victim;
    // A long-lived connection that fails is opened anew under the same number.
    let reopened: BTreeSet<u64> = story
        .outcome
        .failures()
        .filter(|r| r.kind == Kind::Kept && r.at_ms < story.events.restarted as f64)
        .map(|r| r.connection)
        .collect();
    let moves_back = |record: &&Record| {
        let returned =
            story.events.restarted as f64..=story.events.seen_returned as f64 + NOTICE_MS;
        record.kind == Kind::Kept
            && returned.contains(&record.at_ms)
            && reopened.contains(&record.connection)
    };
    let excused = |record: &Record| {
        let others = record.backend.as_ref().is_some_and(|name| name != victim);
        end(record) >= story.events.killed as f64
            && record.at_ms <= story.events.seen_removed as f64
            && !others
            && record.error.as_deref() != Some("moved")
    };
    let (fine, rest): (Vec<_>, Vec<_>) = story.outcome.failures().partition(|r| excused(r));
    let (back, bad): (Vec<_>, Vec<_>) = rest.into_iter().partition(moves_back);
    let mut found = format!(
        "{} failed then, {} moved back on its return, {} otherwise",
        fine.len(),
        back.len(),
        bad.len()
    );
    if let Some(first) = bad.first() {
        let after = first.at_ms - story.events.killed as f64;
        let error = first.error.as_deref().unwrap_or_default();
        write!(found, ", the first {after:.0} ms after the kill ({error})")
            .expect("writing to a string cannot fail");
    }
    Promise {
        kept: bad.is_empty(),
        text: format!(
            "requests fail only on {victim} and only until it is out; on its return, only \
             connections that began in its absence move"
        ),
        found,
    }
}

/// When a request was answered or failed.
fn end(record: &Record) -> f64 {
    record.at_ms + record.took_ms
}

#[cfg(test)]
mod tests {
    use evenkeel_tests::traffic::Report;

    use super::*;

    const EVENTS: Events = Events {
        killed: 10_000,
        removed: 10_400,
        seen_removed: 10_420,
        restarted: 20_000,
        seen_returned: 20_500,
    };

    fn record(at_ms: f64, kind: Kind, backend: Option<&str>, error: Option<&str>) -> Record {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Record {
            at_ms,
            took_ms: 1.0,
            kind,
            connection: 0,
            backend: own(backend),
            error: own(error),
        }
    }

    /// 30 s of a request every 10 ms, in turn to the backends that serve, the dead one refusing.
    fn good() -> Vec<Record> {
        (0..3000)
            .map(|n| {
                let at = f64::from(n) * 10.0;
                let dead = (10_000.0..20_500.0).contains(&at);
                match ["b1", "b2", "b3"][n as usize % 3] {
                    "b2" if dead && at < 10_400.0 => record(at, Kind::New, None, Some("refused")),
                    "b2" if dead => record(at, Kind::New, Some(["b1", "b3"][n as usize % 2]), None),
                    name => record(at, Kind::New, Some(name), None),
                }
            })
            .collect()
    }

    fn judged(records: Vec<Record>, events: Events) -> Vec<bool> {
        let shares = ["b1", "b2", "b3"].map(|name| (name.to_owned(), 1.0 / 3.0));
        let outcome = Outcome {
            report: Report::default(),
            records,
        };
        let story = Story {
            events: &events,
            shares: &shares,
            shares_after: &shares,
            victim: "b2",
            outcome: &outcome,
            tables_as_intended: true,
            verdict: "even",
        };
        judge(&story)
            .into_iter()
            .map(|promise| promise.kept)
            .collect()
    }

    #[test]
    fn a_good_run_keeps_every_promise() {
        assert_eq!(judged(good(), EVENTS), [true; 7]);
    }

    #[test]
    fn a_slow_removal_is_a_broken_promise() {
        let late = Events {
            removed: 10_551,
            ..EVENTS
        };
        assert_eq!(
            judged(good(), late),
            [true, false, true, true, true, true, true]
        );
    }

    #[test]
    fn any_other_failure_is_a_broken_promise() {
        let (new, kept) = (Kind::New, Kind::Kept);
        for (fault, excused) in [
            (record(9_000.0, new, None, Some("refused")), false),
            (record(10_100.0, new, None, Some("refused")), true),
            (record(10_430.0, new, None, Some("refused")), false),
            (record(10_100.0, kept, Some("b2"), Some("reset")), true),
            (record(10_100.0, kept, Some("b1"), Some("reset")), false),
            (record(10_100.0, kept, Some("b2"), Some("moved")), false),
            (record(25_000.0, kept, Some("b2"), Some("reset")), false),
        ] {
            let records = good().into_iter().chain([fault.clone()]).collect();
            let mut expected = [true; 7];
            expected[2] = excused;
            assert_eq!(judged(records, EVENTS), expected, "{fault:?}");
        }
    }

    #[test]
    fn skewed_traffic_is_a_broken_promise() {
        let mut records = good();
        for record in records.iter_mut().filter(|r| r.at_ms > 21_000.0).step_by(6) {
            record.backend = Some("b1".to_owned());
        }
        assert_eq!(
            judged(records, EVENTS),
            [true, true, true, true, true, false, true]
        );
    }
}
