//! Drills of a service that clients use.

use std::{
    fmt::Write as _,
    io::{self, BufRead as _},
    sync::atomic::Ordering,
    time::Duration,
};

use anyhow::{Context as _, ensure};

use super::{Run, finish, now_ms};
use crate::{
    admin::{
        client::{Client, ClientError},
        proto::{
            Status,
            drill::{Abort, Answer as Told, LONGEST_S, Request, Running},
        },
    },
    cli::{
        Answer, change,
        loadtest::stop_on_signals,
        output::{self, plain},
    },
    drill::{
        course::{Course, Phase},
        sight::Scene,
        text,
    },
    journal::{Filter, Reader},
    model::Drill,
};

/// How often the controller is asked.
const LOOK: Duration = Duration::from_millis(500);
/// How long somebody may take to be told, and all to be as before, once the fault is over.
const AFTERWARDS: u64 = 3 * 60 * 1000;

/// Whether a live service has this one.
pub(super) fn has(drill: Drill) -> bool {
    drill.is_planned() || drill == Drill::NotifyTest
}

/// Says what would be done, or does it.
pub(super) fn run(arguments: &Run) -> anyhow::Result<Answer> {
    let drill = arguments.drill;
    ensure!(
        has(drill),
        "drill {drill} is not for a live service: 'evenkeel drill run --sandbox {drill}' rehearses it \
         where nobody is harmed, and 'evenkeel drill list' says which are live"
    );
    ensure!(
        arguments.lasts.as_secs_f64() <= LONGEST_S,
        "a drill lasts up to {LONGEST_S} s: give less with --for"
    );
    let client = Client::new(&arguments.socket);
    if drill == Drill::NotifyTest {
        return test_notify(arguments, &client);
    }
    let service = arguments
        .service
        .clone()
        .context("name the service with '--service NAME'")?;
    let request = Request {
        drill: drill.word().to_owned(),
        service: service.clone(),
        backend: arguments.backend.clone(),
        clients: arguments.clients.clone(),
        lasts_s: arguments.lasts.as_secs_f64(),
        limits: arguments.limits(),
        dry: !arguments.live,
    };
    if !arguments.live {
        return change::block_on(async {
            match client.drill(&request).await {
                Ok(told) => dry(arguments, &told),
                Err(error) => change::refusal(error, arguments.json),
            }
        })?;
    }
    if !is_meant(arguments, &service)? {
        output::complain("that is not the service's name: nothing was done");
        return Ok(Answer::No);
    }
    let stop = stop_on_signals()?;
    change::block_on(async {
        let began_ms = now_ms();
        let begun = match client.drill(&request).await {
            Ok(begun) => begun,
            Err(error) => return change::refusal(error, arguments.json),
        };
        let of = &begun.running;
        let scene = Scene {
            drill,
            service,
            backend: of.backend.clone(),
            since_ms: of.since_ms,
        };
        let mut course = Course::new(scene, "live", began_ms.min(of.since_ms), &of.what);
        let mut attendant = Attendant {
            arguments,
            client: &client,
            shown: 0,
            began_ms,
        };
        while course.phase() != Phase::Over {
            attendant.show(&course);
            if stop.load(Ordering::Relaxed) {
                let reason = Some("whoever began it ended it".to_owned());
                if let Err(error) = client.abort_drill(&Abort { reason }).await {
                    output::complain(&plain(&error.to_string()));
                }
                course.end(now_ms(), "ended by a signal");
                break;
            }
            tokio::time::sleep(LOOK).await;
            attendant.look(of, &mut course).await?;
        }
        attendant.show(&course);
        finish(&course.score(None), &arguments.state, arguments.json)
    })?
}

/// Whether the service's name was given once more.
fn is_meant(arguments: &Run, service: &str) -> anyhow::Result<bool> {
    if let Some(name) = &arguments.service_name {
        return Ok(name == service);
    }
    output::complain(&format!(
        "drill {} is live: clients of {} may notice. Type the service's name to begin:",
        arguments.drill,
        plain(service)
    ));
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .context("read the name")?;
    Ok(line.trim() == service)
}

/// Says what would be done.
fn dry(arguments: &Run, told: &Told) -> anyhow::Result<Answer> {
    if arguments.json {
        change::print_json(told)?;
    } else {
        let drill = arguments.drill;
        let lasts = humantime::format_duration(arguments.lasts);
        let mut text = format!(
            "drill {drill} would be: {}\n  slots     {} of {} move\n  lasts     {lasts} at most\n  \
             believed  {}\n  expected  {}\n",
            plain(&told.running.what),
            told.slots,
            told.of_slots,
            drill.hypothesis(),
            drill.expected()
        );
        for why in &told.refused {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  refused   {}", plain(why));
        }
        if told.refused.is_empty() {
            text += "nothing was done: --live does it\n";
        }
        output::print(&text)?;
    }
    Ok(if told.refused.is_empty() {
        Answer::Yes
    } else {
        Answer::No
    })
}

/// Has every receiver sent a test.
fn test_notify(arguments: &Run, client: &Client) -> anyhow::Result<Answer> {
    if !arguments.live {
        output::print("every receiver of notifications would be sent a test: --live does it\n")?;
        return Ok(Answer::Yes);
    }
    let began_ms = now_ms();
    let scene = Scene {
        drill: Drill::NotifyTest,
        service: arguments.service.clone().unwrap_or_default(),
        backend: None,
        since_ms: began_ms,
    };
    let mut course = Course::new(scene, "live", began_ms, Drill::NotifyTest.fault());
    let tested = change::block_on(client.test_notify(None))??;
    let now_ms = now_ms();
    if tested.is_empty() {
        course.spoil(now_ms, "there is no receiver");
    }
    for one in &tested {
        match &one.error {
            None => course.note(
                now_ms,
                format!("{} took it in {:.0} ms", one.receiver, one.took_ms),
            ),
            Some(why) => course.spoil(now_ms, format!("{} did not take it: {why}", one.receiver)),
        }
    }
    course.detect(now_ms, format!("{} receivers were asked", tested.len()));
    course.told(now_ms, "the test");
    course.mitigate(now_ms, "nothing was to be done");
    course.restore(now_ms);
    finish(&course.score(None), &arguments.state, arguments.json)
}

/// Stays with a drill until it is over.
struct Attendant<'a> {
    arguments: &'a Run,
    client: &'a Client,
    shown: usize,
    began_ms: u64,
}

impl Attendant<'_> {
    /// Shows what happened since it was shown last.
    fn show(&mut self, course: &Course) {
        for moment in &course.happened()[self.shown..] {
            output::complain(&plain(text::moment(self.began_ms, moment).trim()));
        }
        self.shown = course.happened().len();
    }

    async fn look(&self, begun: &Running, course: &mut Course) -> anyhow::Result<()> {
        let status = match self.client.status().await {
            Ok(status) => status,
            // It may be restarted meanwhile, and takes the fault back then.
            Err(ClientError::NoController { .. } | ClientError::Broken { .. })
                if now_ms() < begun.ends_at_ms + AFTERWARDS =>
            {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let now_ms = now_ms();
        if course.scene().drill == Drill::Rollback {
            look_for_rollback(course, &status, now_ms);
        } else {
            course.look(now_ms, &status);
        }
        if course.phase() == Phase::Notification
            && let Some(what) = self.told(course)
        {
            course.told(now_ms, &what);
        }
        let on = status
            .drill
            .as_ref()
            .filter(|of| of.since_ms == begun.since_ms);
        let ended_ms = match on {
            Some(of) => of.ended_at_ms,
            None => Some(now_ms),
        };
        if let Some(ended_ms) = ended_ms {
            let why = on.and_then(|of| of.why_ended.clone());
            let why = why.unwrap_or_else(|| "the fault is gone".to_owned());
            course.mitigate(ended_ms, &why);
        }
        if now_ms > begun.ends_at_ms + AFTERWARDS {
            course.end(now_ms, "time is up");
        } else if on.is_none() && course.phase() == Phase::Detection {
            course.end(now_ms, "the fault was over before");
        }
        Ok(())
    }

    /// What somebody was told of it, by the journal.
    fn told(&self, course: &Course) -> Option<String> {
        let scene = course.scene();
        let alert = scene.drill.alert()?.word();
        let filter = Filter {
            since_ms: Some(scene.since_ms),
            kind: Some("notification".to_owned()),
            ..Filter::default()
        };
        let records = Reader::open(&self.arguments.state)
            .ok()?
            .last(&filter, 100)
            .ok()?;
        let told = records.into_iter().find(|record| {
            let alerts = record.detail["alerts"].as_array();
            record.level == "info"
                && alerts.is_some_and(|all| {
                    all.iter()
                        .any(|of| of["labels"]["alertname"] == alert && of["resolved"] == false)
                })
        })?;
        Some(told.message)
    }
}

/// Looks whether what was put in force was taken back.
fn look_for_rollback(course: &mut Course, status: &Status, now_ms: u64) {
    let of = &status.configuration;
    if of.how == "rollback" && of.at_ms >= course.scene().since_ms {
        course.detect(
            now_ms,
            format!("configuration {} is in force again", of.number),
        );
        course.mitigate(now_ms, of.reason.as_deref().unwrap_or("it was taken back"));
        course.look(now_ms, status);
    }
}
