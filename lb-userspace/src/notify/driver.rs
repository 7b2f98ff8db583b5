//! The thread that tells: it follows the status, decides for each receiver, and sends.
//!
//! It has a thread and a runtime of its own, so that neither a slow disk nor a slow receiver holds
//! up anything else. It is told of the state by watches, which keep the latest value: where it is
//! late it misses what came in between, and nothing that still holds.

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use log::{error, warn};
use serde_json::json;
use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
    task::{self, JoinError, JoinSet},
    time::{self, MissedTickBehavior},
};

use super::{
    alert::{Alert, Item, Key, Notification},
    derive::{Audited, Derived, derive},
    ledger::{Ledger, Stage},
    outbox::{Failure, Outbox, Outcome},
    sender::{self, Sender},
    spool::Spool,
};
use crate::{
    admin::proto::{self, Status},
    incident::{self, Seen},
    journal::{Event, Kind, Level, incidents::event},
    model::{AlertName, Incidents, Receiver},
};

/// How often time alone is a reason to look: repeats, waits, further tries.
const TICK: Duration = Duration::from_secs(1);
/// How long a delivery that is under way may go on at the end.
const DRAIN: Duration = Duration::from_secs(1);
/// How long a test may take: the admin API cuts a question off a little later.
const TEST: Duration = Duration::from_secs(4);
/// Tests that may wait.
const TESTS: usize = 16;
/// Tests that were taken and may wait to be noted.
const PASSED: usize = 256;
/// From then on failed tries are an alert for the other receivers.
const FAILING: u32 = 3;

/// What the notifier looks at.
#[derive(Debug)]
pub struct Signs {
    /// The latest status.
    pub status: watch::Receiver<Arc<Status>>,
    /// The latest audit.
    pub audited: watch::Receiver<Audited>,
    /// Takes what is to be written into the journal.
    pub notices: mpsc::Sender<Event>,
    /// Incidents, which alerts open and close.
    pub incidents: incident::Shared,
    /// When incidents begin and end by themselves.
    pub opening: Incidents,
}

/// What is to be shown of alerts and receivers.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// Every alert that is on.
    pub alerts: Vec<proto::Alert>,
    /// How it goes with each receiver, in the order of the configuration.
    pub notify: proto::Notify,
}

/// A question for tests, and where the answer goes.
struct Test {
    receiver: Option<String>,
    answer: oneshot::Sender<Result<Vec<proto::Tested>, NoReceiver>>,
}

/// There is nobody to test.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoReceiver {
    /// None is configured.
    #[error("no receiver is configured: add [[notify]] to the configuration and apply it")]
    None,
    /// None has this name.
    #[error("there is no receiver \"{0}\": the names are those of [[notify]]")]
    Named(String),
    /// The notifier has ended or has more to do than it should.
    #[error("the notifications do not answer: see the controller's log")]
    Busy,
}

/// What others may ask of the notifier.
#[derive(Clone, Debug)]
pub struct Handle {
    overview: Arc<Mutex<Overview>>,
    tests: mpsc::Sender<Test>,
}

impl std::fmt::Debug for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Test")
            .field("receiver", &self.receiver)
            .finish_non_exhaustive()
    }
}

impl Handle {
    /// What is to be shown.
    #[must_use]
    pub fn overview(&self) -> Overview {
        lock(&self.overview).clone()
    }

    /// Sends a test to one receiver, or to all, and says what became of it.
    ///
    /// # Errors
    /// Where there is nobody to test.
    pub async fn test(&self, receiver: Option<String>) -> Result<Vec<proto::Tested>, NoReceiver> {
        let (answer, answered) = oneshot::channel();
        let test = Test { receiver, answer };
        self.tests.try_send(test).map_err(|_| NoReceiver::Busy)?;
        answered.await.map_err(|_| NoReceiver::Busy)?
    }
}

fn lock(overview: &Mutex<Overview>) -> MutexGuard<'_, Overview> {
    // Whole values alone are put there: a panic leaves nothing half done.
    overview.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The running notifier; it ends with this value, after a second at most.
#[derive(Debug)]
pub struct Notifier {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Notifier {
    /// Starts it. What was not sent before a restart is sent now.
    ///
    /// # Errors
    /// Where the system has no thread or no descriptors left.
    pub fn start(receivers: Vec<Receiver>, directory: &Path, signs: Signs) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (tests, asked) = mpsc::channel(TESTS);
        let handle = Handle {
            overview: Arc::default(),
            tests,
        };
        let (stop, stopped) = oneshot::channel();
        let (overview, directory) = (Arc::clone(&handle.overview), directory.to_owned());
        let work = move || {
            let driver = Driver::new(receivers, &directory, overview, &signs);
            runtime.block_on(driver.run(signs, asked, stopped));
            // A disk that hangs must not hold up the end.
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new()
            .name("notify".to_owned())
            .spawn(work)?;
        Ok(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// What others may ask of it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of its was told where it happened.
            let _ = thread.join();
        }
    }
}

/// A receiver at work.
struct Line {
    receiver: Receiver,
    sender: Sender,
    outbox: Outbox,
    /// The notification that is being sent.
    under_way: Option<u64>,
    last_error: Option<(u64, String)>,
    taken_ms: Option<u64>,
    failing_since_ms: Option<u64>,
}

/// How a delivery ended.
struct Sent {
    line: usize,
    result: Result<(), Failure>,
}

struct Driver {
    lines: Vec<Line>,
    ledger: Ledger,
    /// What is wrong, but for the receivers themselves; `None` while that is not known.
    derived: Option<Derived>,
    spool: Spool,
    ids: u64,
    deliveries: JoinSet<Sent>,
    by_task: HashMap<task::Id, usize>,
    /// Receivers that took a test, by their place.
    passed: (mpsc::Sender<usize>, mpsc::Receiver<usize>),
    overview: Arc<Mutex<Overview>>,
    notices: mpsc::Sender<Event>,
    incidents: incident::Shared,
    opening: Incidents,
    /// Notices that the journal had no room for.
    unwritten: u64,
    clock: Clock,
}

impl Driver {
    fn new(
        receivers: Vec<Receiver>,
        directory: &Path,
        overview: Arc<Mutex<Overview>>,
        signs: &Signs,
    ) -> Self {
        let clock = Clock::start();
        let now_ms = clock.now_ms();
        let mut spool = Spool::open(directory);
        let names: Vec<&str> = receivers.iter().map(|receiver| &*receiver.name).collect();
        spool.keep(&names);
        let (web, instance) = (sender::web(), instance());
        let mut known = Vec::new();
        let lines = receivers
            .into_iter()
            .map(|receiver| {
                let before = spool.known(&receiver.name);
                let told = before.told.values().map(|told| &told.item);
                known.extend(
                    told.map(|item| (item.key.clone(), item.summary.clone(), item.since_ms)),
                );
                Line {
                    sender: Sender::new(&receiver, &instance, &web),
                    outbox: Outbox::new(&receiver, now_ms, before.told, before.queue),
                    receiver,
                    under_way: None,
                    last_error: None,
                    taken_ms: before.taken_ms,
                    failing_since_ms: None,
                }
            })
            .collect();
        // The clock moves on between two starts: numbers do too, also where nothing waits.
        let ids = spool.last_id().max(now_ms);
        Self {
            lines,
            ledger: Ledger::new(now_ms, known),
            derived: None,
            spool,
            ids,
            deliveries: JoinSet::new(),
            by_task: HashMap::new(),
            passed: mpsc::channel(PASSED),
            overview,
            notices: signs.notices.clone(),
            incidents: Arc::clone(&signs.incidents),
            opening: signs.opening,
            unwritten: 0,
            clock,
        }
    }

    async fn run(
        mut self,
        mut signs: Signs,
        mut asked: mpsc::Receiver<Test>,
        mut stopped: oneshot::Receiver<()>,
    ) {
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Whoever drops a watch has nothing new to tell, and says so for ever.
        let (mut status_lives, mut audit_lives) = (true, true);
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                changed = signs.status.changed(), if status_lives => status_lives = changed.is_ok(),
                changed = signs.audited.changed(), if audit_lives => audit_lives = changed.is_ok(),
                Some(joined) = self.deliveries.join_next_with_id() => self.joined(joined),
                Some(test) = asked.recv() => self.test(test),
                Some(line) = self.passed.1.recv() => self.passed(line),
                _ = tick.tick() => {}
            }
            let status = Arc::clone(&signs.status.borrow_and_update());
            let audited = signs.audited.borrow_and_update().clone();
            self.derived = derive(&status, &audited);
            self.turn();
        }
        let drained = async {
            while let Some(joined) = self.deliveries.join_next_with_id().await {
                self.joined(joined);
            }
        };
        // What is not taken by then is on disk.
        let _ = time::timeout(DRAIN, drained).await;
    }

    /// Does what is due.
    fn turn(&mut self) {
        let now_ms = self.clock.now_ms();
        if let Some(mut derived) = self.derived.clone() {
            derived.alerts.extend(self.own());
            self.ledger.update(now_ms, &derived);
            // Before anybody is told, so that the first word of it names the incident.
            self.follow_incidents(now_ms);
            for n in 0..self.lines.len() {
                self.decide(n, now_ms);
            }
        }
        for n in 0..self.lines.len() {
            self.expire(n, now_ms);
            self.send(n, now_ms);
        }
        if self.spool.failure().is_some() {
            let all = all(&self.lines);
            self.spool.catch_up(&all);
        }
        self.show(now_ms);
    }

    /// Has alerts open and close incidents.
    fn follow_incidents(&self, now_ms: u64) {
        let on = self.ledger.iter(now_ms);
        let on = on.filter(|(_, _, stage)| *stage != Stage::Waiting);
        let seen: Vec<Seen> = on
            .map(|(key, active, stage)| Seen {
                sign: key.sign(active.since_ms, &active.summary),
                firing: stage == Stage::Firing,
            })
            .collect();
        let mut book = incident::lock(&self.incidents);
        let mut next = book.clone();
        let steps = next.observe(now_ms, &seen, &self.opening);
        // What the journal has no room for did not happen: it does with the next look.
        if let Ok(places) = self.notices.try_reserve_many(steps.len()) {
            for (place, step) in places.zip(&steps) {
                place.send(event(now_ms, step));
            }
            *book = next;
        }
    }

    /// The incidents that a notification's alerts belong to.
    fn incidents_of(&self, notification: &Notification) -> Vec<(Key, String)> {
        let book = incident::lock(&self.incidents);
        let named = |item: &Item| {
            let incident = book.of_alert(&item.key.sign(item.since_ms, &item.summary))?;
            Some((item.key.clone(), incident.id.clone()))
        };
        notification.items.iter().filter_map(named).collect()
    }

    /// What is wrong with telling itself, and that it works.
    fn own(&self) -> Vec<Alert> {
        let failing = self.lines.iter().filter_map(|line| {
            let (_, why) = line.last_error.as_ref()?;
            let failures = line.outbox.failures();
            let name = &line.receiver.name;
            (failures >= FAILING).then(|| Alert {
                key: Key {
                    detail: Some(name.to_string()),
                    ..Key::of(AlertName::DeliveryFailing)
                },
                summary: format!("{name} takes no notifications: {why}"),
                since_ms: line.failing_since_ms,
            })
        });
        let watchdog = Alert {
            key: Key::of(AlertName::Watchdog),
            summary: "the controller runs".to_owned(),
            since_ms: None,
        };
        failing.chain([watchdog]).collect()
    }

    fn decide(&mut self, n: usize, now_ms: u64) {
        let line = &mut self.lines[n];
        let decision = line.outbox.decide(now_ms, &self.ledger, &mut self.ids);
        if !decision.is_empty() {
            let name = self.lines[n].receiver.name.clone();
            let all = all(&self.lines);
            self.spool.decided(&all, &name, &decision);
        }
    }

    fn expire(&mut self, n: usize, now_ms: u64) {
        let line = &mut self.lines[n];
        if line.under_way.is_some() {
            return;
        }
        for dropped in line.outbox.expire(now_ms) {
            self.lines[n].outbox.tell_again(&dropped);
            let name = self.lines[n].receiver.name.clone();
            self.done(n, dropped.id, None);
            let message = format!(
                "notification to {name} given up after a day: {}",
                dropped.describe()
            );
            self.notice(n, Level::Error, message, &dropped);
        }
    }

    fn send(&mut self, n: usize, now_ms: u64) {
        if self.lines[n].under_way.is_some() {
            return;
        }
        let Some(notification) = self.lines[n].outbox.due(now_ms).cloned() else {
            return;
        };
        let incidents = self.incidents_of(&notification);
        let line = &mut self.lines[n];
        line.under_way = Some(notification.id);
        let sender = line.sender.about(incidents);
        let started = self.deliveries.spawn(async move {
            let result = sender.send(&notification, now_ms).await;
            Sent { line: n, result }
        });
        self.by_task.insert(started.id(), n);
    }

    /// Takes the end of a delivery.
    fn joined(&mut self, joined: Result<(task::Id, Sent), JoinError>) {
        let (id, sent) = match joined {
            Ok((id, sent)) => (id, sent),
            Err(broken) => {
                let id = broken.id();
                let Some(&line) = self.by_task.get(&id) else {
                    return;
                };
                let failure = Failure {
                    why: format!("it broke off: {broken}"),
                    again: super::outbox::Again::Later,
                };
                let result = Err(failure);
                (id, Sent { line, result })
            }
        };
        self.by_task.remove(&id);
        let (n, now_ms) = (sent.line, self.clock.now_ms());
        let line = &mut self.lines[n];
        line.under_way = None;
        if let Err(failure) = &sent.result {
            line.last_error = Some((now_ms, failure.why.clone()));
            line.failing_since_ms.get_or_insert(now_ms);
        } else {
            line.failing_since_ms = None;
            line.taken_ms = Some(now_ms);
        }
        let Some(outcome) = line.outbox.ended(now_ms, &sent.result, rand::random()) else {
            return;
        };
        let name = line.receiver.name.clone();
        match outcome {
            Outcome::Delivered {
                notification,
                failures,
            } => {
                self.done(n, notification.id, Some(now_ms));
                let after = match failures {
                    0 => String::new(),
                    1 => " after a failed try".to_owned(),
                    _ => format!(" after {failures} failed tries"),
                };
                // Repeats are no news.
                if !notification.again || failures > 0 {
                    let message = format!("told {name}{after}: {}", notification.describe());
                    self.notice(n, Level::Info, message, &notification);
                }
            }
            Outcome::Retried {
                notification,
                failures: 1,
            } => {
                let why = self.why(n);
                let message = format!(
                    "{name} could not be told, tries go on: {}: {why}",
                    notification.describe()
                );
                self.notice(n, Level::Warning, message, &notification);
            }
            Outcome::Retried { .. } => {}
            Outcome::Dropped(notification) => {
                self.done(n, notification.id, None);
                let why = self.why(n);
                let message = format!("{name} refused: {}: {why}", notification.describe());
                self.notice(n, Level::Error, message, &notification);
            }
        }
    }

    fn why(&self, n: usize) -> &str {
        let last = self.lines[n].last_error.as_ref();
        last.map_or("", |(_, why)| why)
    }

    fn done(&mut self, n: usize, id: u64, taken_ms: Option<u64>) {
        let name = self.lines[n].receiver.name.clone();
        let all = all(&self.lines);
        self.spool.done(&all, &name, id, taken_ms);
    }

    /// Has something written into the journal. It never waits.
    fn notice(&mut self, n: usize, level: Level, message: String, about: &Notification) {
        let alerts: Vec<_> = about
            .items
            .iter()
            .map(|item| {
                json!({ "labels": item.key.labels().into_iter().collect::<HashMap<_, _>>(),
                    "resolved": item.ended_ms.is_some() })
            })
            .collect();
        let event = Event {
            service: about.service.clone(),
            ..Event::of_controller(self.clock.now_ms(), Kind::Notification, level, message)
        };
        let receiver = &self.lines[n].receiver.name;
        let event = event.detail(json!({
            "receiver": **receiver, "id": about.id, "delivered": level == Level::Info,
            "alerts": alerts,
        }));
        if self.notices.try_send(event).is_err() {
            self.unwritten += 1;
        }
    }

    /// Sends tests; whoever asked is answered when the last of them ended.
    fn test(&mut self, test: Test) {
        let wanted = |line: &Line| {
            let name = test.receiver.as_ref();
            name.is_none_or(|name| **name == *line.receiver.name)
        };
        let lines: Vec<(usize, &Line)> = self
            .lines
            .iter()
            .enumerate()
            .filter(|(_, line)| wanted(line))
            .collect();
        if lines.is_empty() {
            let error = test.receiver.map_or(NoReceiver::None, NoReceiver::Named);
            // Whoever asked may have gone.
            let _ = test.answer.send(Err(error));
            return;
        }
        let now_ms = self.clock.now_ms();
        self.ids += 1;
        let notification = Arc::new(Notification {
            id: self.ids,
            service: None,
            at_ms: now_ms,
            again: false,
            items: vec![Item {
                key: Key::of(AlertName::Test),
                summary: "this is a test of the notifications; nothing is wrong".to_owned(),
                since_ms: now_ms,
                ended_ms: None,
            }],
        });
        let tests: Vec<_> = lines
            .into_iter()
            .map(|(n, line)| {
                let (sender, notification) = (line.sender.clone(), Arc::clone(&notification));
                let name = line.receiver.name.to_string();
                let kind = line.receiver.target.word().to_owned();
                let notices = self.notices.clone();
                let passed = self.passed.0.clone();
                task::spawn(async move {
                    let tested = tested(sender, notification, name, kind, notices).await;
                    if tested.ok {
                        // Where there is no room, so many others were noted just now.
                        let _ = passed.try_send(n);
                    }
                    tested
                })
            })
            .collect();
        task::spawn(async move {
            let mut results = Vec::new();
            for test in tests {
                match test.await {
                    Ok(result) => results.push(result),
                    Err(broken) => error!("a test of the notifications broke off: {broken}"),
                }
            }
            let _ = test.answer.send(Ok(results));
        });
    }

    /// Notes that a receiver took a test: it can be reached.
    fn passed(&mut self, n: usize) {
        let now_ms = self.clock.now_ms();
        self.lines[n].taken_ms = Some(now_ms);
        let name = self.lines[n].receiver.name.clone();
        let all = all(&self.lines);
        self.spool.taken(&all, &name, now_ms);
    }

    /// Puts out what is to be shown.
    fn show(&mut self, now_ms: u64) {
        let alerts = self
            .ledger
            .iter(now_ms)
            .map(|(key, active, stage)| proto::Alert {
                name: key.name.word().to_owned(),
                severity: key.severity.word().to_owned(),
                state: stage.word().to_owned(),
                service: key.service.clone(),
                backend: key.backend.clone(),
                detail: key.detail.clone(),
                since_ms: active.since_ms,
                summary: active.summary.clone(),
                meaning: key.name.meaning().to_owned(),
                remedy: key.name.remedy().to_owned(),
                inhibited_by: active.inhibited_by.map(|name| name.word().to_owned()),
                drill: key.drill.clone(),
            });
        // Before the first look, what is on is what was on.
        let alerts = alerts
            .filter(|alert| alert.name != AlertName::Watchdog.word())
            .collect();
        let receivers = self.lines.iter().map(Line::show).collect();
        let notify = proto::Notify {
            receivers,
            spool_failure: self.spool.failure().map(ToOwned::to_owned),
            unwritten: self.unwritten,
        };
        *lock(&self.overview) = Overview { alerts, notify };
    }
}

impl Line {
    fn show(&self) -> proto::Receiver {
        let counts = self.outbox.counts();
        let oldest = self.outbox.queue().front();
        proto::Receiver {
            name: self.receiver.name.to_string(),
            kind: self.receiver.target.word().to_owned(),
            sent: counts.sent,
            failed: counts.failed,
            dropped: counts.dropped,
            held_back: counts.held_back,
            waiting: self.outbox.queue().len() as u64,
            waiting_since_ms: oldest.map(|notification| notification.at_ms),
            failing_since_ms: self.failing_since_ms,
            last_error: self.last_error.as_ref().map(|(_, why)| why.clone()),
            last_error_at_ms: self.last_error.as_ref().map(|(at, _)| *at),
            last_taken_at_ms: self.taken_ms,
        }
    }
}

/// All outboxes with the names of their receivers.
fn all(lines: &[Line]) -> Vec<(&str, &Outbox)> {
    lines
        .iter()
        .map(|line| (&*line.receiver.name, &line.outbox))
        .collect()
}

/// Sends a test, and says what became of it.
async fn tested(
    sender: Sender,
    notification: Arc<Notification>,
    receiver: String,
    kind: String,
    notices: mpsc::Sender<Event>,
) -> proto::Tested {
    let began = time::Instant::now();
    let at_ms = notification.at_ms;
    let result = match time::timeout(TEST, sender.send(&notification, at_ms)).await {
        Ok(result) => result.map_err(|failure| failure.why),
        Err(_) => Err(format!("it took longer than {} s", TEST.as_secs())),
    };
    let (level, message) = match &result {
        Ok(()) => (Level::Info, format!("{receiver} took a test")),
        Err(why) => (
            Level::Warning,
            format!("{receiver} did not take a test: {why}"),
        ),
    };
    let event = Event::of_controller(at_ms, Kind::Notification, level, message);
    let event = event.detail(json!({ "receiver": receiver, "test": true, "ok": result.is_ok() }));
    if notices.try_send(event).is_err() {
        warn!("a test of {receiver} could not be written into the journal");
    }
    proto::Tested {
        receiver,
        kind,
        ok: result.is_ok(),
        took_ms: began.elapsed().as_secs_f64() * 1000.0,
        error: result.err(),
    }
}

/// What the receivers know this host by.
fn instance() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// The wall clock at the start, and how much time has passed since: it never goes back.
struct Clock {
    started: Instant,
    started_ms: u64,
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the notifier's thread is a driver"
    )]
    fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            started: Instant::now(),
            started_ms: since.map_or(0, |time| time.as_millis() as u64),
        }
    }

    fn now_ms(&self) -> u64 {
        self.started_ms + self.started.elapsed().as_millis() as u64
    }
}
