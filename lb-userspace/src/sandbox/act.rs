//! A drill in a sandbox, from its fault to its scorecard.

use std::time::Duration;

use serde_json::json;

use super::{
    Error, Plan, SERVICE, io_error, report,
    server::Mood,
    stage::{Stage, WEIGHT, config_text, now, now_ms},
};
use crate::{
    admin::proto::{
        Backend, Verdict,
        change::{Action, Imposing, Request as Change, Rollback},
        drill::{Limits, Request, Scorecard},
    },
    drill::{
        course::{Course, Phase},
        sight::Scene,
        text,
    },
    journal::{self, Event, Kind, Level},
    model::Drill,
};

/// The backend that the fault is at.
const TARGET: &str = "b2";
/// Its place among the servers.
const AT: usize = 1;
/// How long a drill may take in all.
const LONGEST: Duration = Duration::from_mins(5);
/// How long it may take to learn what is usual, before the fault.
const LEARNING: Duration = Duration::from_mins(3);
/// How slow a server is that is slow: enough to lose half of its weight, and not all, which would be
/// given back in steps for two minutes.
const SLOW: Duration = Duration::from_millis(30);
/// How slow all are where all are.
const ALL_SLOW: Duration = Duration::from_millis(120);
/// How long an operator takes to do something about it.
const OPERATOR: Duration = Duration::from_secs(3);

/// What came of a drill, and where its files are.
#[derive(Debug)]
pub struct Outcome {
    /// What it was worth.
    pub card: Scorecard,
    /// The report of it, as Markdown, where there is one.
    pub report: Option<String>,
}

/// Rehearses. `tell` is given a line for each step.
///
/// To be called before there is another thread that looks at mounts.
///
/// # Errors
/// Where the sandbox cannot be built, breaks, or is ended by a signal. A drill that fails is none.
pub fn run(plan: &Plan, mut tell: impl FnMut(&str)) -> Result<Outcome, Error> {
    if plan.drill == Drill::Tabletop {
        return Err(Error::NotHere(plan.drill.word()));
    }
    let mut stage = Stage::build(plan, &mut tell)?;
    learn(&mut stage, plan.drill, &mut tell)?;
    let began_ms = now_ms();
    let backend = match plan.drill {
        Drill::FleetSlow | Drill::ControllerCrash | Drill::NotifyTest | Drill::HeavyClient => None,
        _ => Some(TARGET.to_owned()),
    };
    let before = stage.seen();
    let what = inject(&mut stage, plan.drill)?;
    let scene = Scene {
        drill: plan.drill,
        service: SERVICE.to_owned(),
        backend,
        since_ms: now_ms(),
    };
    let mut course = Course::new(scene, "sandbox", began_ms, &what);
    // An even verdict takes a minute from the last change of a ring, or of who is admitted, on.
    if plan.drill != Drill::NotifyTest {
        course = course.observed();
    }
    let mut shown = 0;
    let begin = now();
    let mut at_work = None;
    while course.phase() != Phase::Over {
        for moment in &course.happened()[shown..] {
            tell(text::moment(began_ms, moment).trim());
        }
        shown = course.happened().len();
        if begin.elapsed() > LONGEST {
            course.end(now_ms(), "time is up");
            break;
        }
        stage.pause()?;
        look(&mut stage, &mut course)?;
        if course.phase() == Phase::Mitigation {
            let since = *at_work.get_or_insert_with(now);
            if since.elapsed() >= OPERATOR {
                let what = mitigate(&mut stage, plan.drill)?;
                course.mitigate(now_ms(), &what);
            }
        }
    }
    for moment in &course.happened()[shown..] {
        tell(text::moment(began_ms, moment).trim());
    }
    // What is under way comes to its end, and is counted a second later.
    let settled = now();
    while settled.elapsed() < Duration::from_secs(2) {
        stage.pause()?;
    }
    let seen = stage.seen();
    let (sent, failed) = (seen.requests - before.requests, seen.failed - before.failed);
    let card = course.score(Some((sent, failed)));
    journal::append_one(&stage.state(), &card_event(&card, now_ms()))
        .map_err(|e| io_error("write the journal")(std::io::Error::other(e)))?;
    let report = report::made(&stage, began_ms);
    Ok(Outcome { card, report })
}

/// A scorecard as an event of a journal.
#[must_use]
pub fn card_event(card: &Scorecard, at_ms: u64) -> Event {
    let level = if card.passed {
        Level::Info
    } else {
        Level::Warning
    };
    let mut event = Event::of_controller(at_ms, Kind::Drill, level, card.line())
        .service(&card.service)
        .detail(json!({ "drill": card.drill, "what": "score", "score": card }));
    event.backend.clone_from(&card.backend);
    event
}

/// Waits until the controller knows what is usual, as far as the drill needs that.
fn learn(stage: &mut Stage, drill: Drill, tell: &mut dyn FnMut(&str)) -> Result<(), Error> {
    match drill {
        // The test of clients' connections needs a minute before it says anything.
        Drill::HeavyClient => {
            tell("learning what is usual of clients, for a minute");
            stage.await_status("an even verdict", LEARNING, |status| {
                let evenness = &status.services[0].evenness;
                (evenness.verdict == Verdict::Even)
                    .then_some(())
                    .ok_or_else(|| evenness.message.clone())
            })?;
        }
        Drill::Slow | Drill::Errors | Drill::FleetSlow => {
            tell("learning how the backends perform");
            stage.await_status("latencies of all backends", LEARNING, |status| {
                let backends = &status.services[0].backends;
                let known = |backend: &Backend| {
                    let seen = backend.performance.as_ref();
                    seen.is_some_and(|seen| seen.latency_ms.is_some())
                        && backend.probes.passed >= 20
                };
                backends
                    .iter()
                    .all(known)
                    .then_some(())
                    .ok_or_else(|| "they are new".to_owned())
            })?;
        }
        // No drill begins before the first audit.
        Drill::Skew | Drill::Drift => {
            tell("waiting for the first audit");
            stage.await_status("an audit without errors", LEARNING, |status| {
                let mut alerts = status.alerts.iter();
                let failed = alerts.find(|alert| alert.name == "AuditFailed");
                match (status.audit.at_ms, failed) {
                    (None, _) => Err("none was made yet".to_owned()),
                    (_, Some(alert)) => Err(alert.summary.clone()),
                    (_, None) => Ok(()),
                }
            })?;
        }
        _ => {}
    }
    Ok(())
}

/// Brings the fault about; answers what that was.
fn inject(stage: &mut Stage, drill: Drill) -> Result<String, Error> {
    let slow = |takes| Mood {
        takes,
        ..Mood::well()
    };
    Ok(match drill {
        Drill::Skew | Drill::Drift => {
            let request = Request {
                drill: drill.word().to_owned(),
                service: SERVICE.to_owned(),
                backend: Some(TARGET.to_owned()),
                clients: None,
                lasts_s: LONGEST.as_secs_f64(),
                limits: Limits::default(),
                dry: false,
            };
            let begun = stage.ask(|client| async move { client.drill(&request).await })?;
            begun.running.what
        }
        Drill::Kill => {
            stage.servers[AT].be(Mood {
                is_dead: true,
                ..Mood::well()
            });
            format!("the server of {SERVICE}/{TARGET} is dead")
        }
        Drill::Slow => {
            stage.servers[AT].be(slow(SLOW));
            format!(
                "{SERVICE}/{TARGET} takes {} ms for each answer",
                SLOW.as_millis()
            )
        }
        Drill::Errors => {
            stage.servers[AT].be(Mood {
                errors: 0.3,
                ..Mood::well()
            });
            format!("three of ten answers of {SERVICE}/{TARGET} are errors")
        }
        Drill::FleetSlow => {
            for server in &stage.servers {
                server.be(slow(ALL_SLOW));
            }
            format!(
                "every backend takes {} ms for each answer",
                ALL_SLOW.as_millis()
            )
        }
        Drill::HeavyClient => {
            stage.add_heavy()?;
            "one client opens as many connections as all others together".to_owned()
        }
        Drill::ControllerCrash => {
            stage.controller.kill();
            "the controller is killed".to_owned()
        }
        Drill::Rollback => {
            let weight = 4 * WEIGHT;
            let change = Change {
                file: "next.toml".to_owned(),
                text: config_text(stage.folder(), drill, weight, ""),
                reason: Some("a drill: a weight with a slip of the pen".to_owned()),
                confirm_within_s: Some(60.0),
                force: true,
            };
            stage.ask(|client| async move { client.apply(&change).await })?;
            format!("a configuration gives {SERVICE}/{TARGET} weight {weight}")
        }
        Drill::NotifyTest | Drill::Tabletop => "every receiver is sent a test".to_owned(),
    })
}

/// Looks at what the controller says, and at who was told.
fn look(stage: &mut Stage, course: &mut Course) -> Result<(), Error> {
    let drill = course.scene().drill;
    let now_ms = now_ms();
    match (drill, stage.status()) {
        (Drill::NotifyTest, _) if course.phase() == Phase::Detection => {
            let tested = stage.ask(|client| async move { client.test_notify(None).await })?;
            if let Some(refused) = tested.iter().find(|one| !one.ok) {
                course.spoil(now_ms, format!("{} did not take it", refused.receiver));
            }
            course.detect(now_ms, format!("{} receivers asked", tested.len()));
        }
        (Drill::ControllerCrash, None) if course.phase() == Phase::Detection => {
            course.detect(now_ms, "the controller does not answer".to_owned());
        }
        (_, Some(status)) => course.look(now_ms, &status),
        (_, None) => stage.controller.check()?,
    }
    if course.phase() == Phase::Notification
        && let Some(alert) = drill.alert()
        && let Some(summary) = stage.told(
            alert.word(),
            course.scene().backend.as_deref(),
            course.scene().since_ms,
        )
    {
        course.told(now_ms, &format!("on-call was told {alert}: {summary}"));
    }
    Ok(())
}

/// Does what an operator would; answers what that was.
fn mitigate(stage: &mut Stage, drill: Drill) -> Result<String, Error> {
    let well = |stage: &Stage| {
        for server in &stage.servers {
            server.be(Mood::well());
        }
    };
    Ok(match drill {
        Drill::Skew => {
            let wish = Imposing {
                service: SERVICE.to_owned(),
                backend: TARGET.to_owned(),
                action: Action::Enable,
                reason: Some("the weight is wrong".to_owned()),
                expires_s: None,
                deadline_s: None,
            };
            stage.ask(|client| async move { client.impose(&wish).await })?;
            format!("{SERVICE}/{TARGET} has its configured weight again")
        }
        Drill::Rollback => {
            let rollback = Rollback {
                to: None,
                reason: Some("the weight is wrong".to_owned()),
            };
            stage.ask(|client| async move { client.rollback(&rollback).await })?;
            "the configuration before is in force again".to_owned()
        }
        Drill::Drift => "nothing: the controller publishes the intended table".to_owned(),
        Drill::Kill => {
            well(stage);
            format!("the server of {SERVICE}/{TARGET} is started again")
        }
        Drill::Slow | Drill::Errors => {
            well(stage);
            format!("what ailed {SERVICE}/{TARGET} is put right")
        }
        Drill::FleetSlow => {
            well(stage);
            "what all backends wait for is quick again".to_owned()
        }
        Drill::HeavyClient => {
            let deny = format!("deny = [\"{}\"]", super::stage::HEAVY);
            let change = Change {
                file: "next.toml".to_owned(),
                text: config_text(stage.folder(), drill, WEIGHT, &deny),
                reason: Some("one client opens half of all connections".to_owned()),
                ..Change::default()
            };
            stage.ask(|client| async move { client.apply(&change).await })?;
            "the heavy client is denied".to_owned()
        }
        Drill::ControllerCrash => {
            stage.controller.again()?;
            "the controller is started again".to_owned()
        }
        Drill::NotifyTest | Drill::Tabletop => "nothing was to be done".to_owned(),
    })
}
