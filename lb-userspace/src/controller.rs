//! The one task that owns the state: events in, tables and status out.
//!
//! Probes, next hops, the clock and signals each become an event; the state answers whether the
//! tables must change. The admin API only sees finished status values.

mod adopt;
mod agents;
mod apply;
mod auditor;
mod cause;
mod clients;
mod confirm;
mod degrees;
mod drill;
mod evenness;
mod examine;
mod explain;
mod flows;
mod footing;
mod health;
mod impose;
mod incidents;
mod load;
mod log_filter;
mod news;
mod own_file;
mod plan;
mod probes;
mod state;
mod status;
mod sweep;
mod telling;
mod trace;
mod verdicts;
mod verify;

use std::{
    collections::BTreeSet,
    future::ready,
    iter,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use log::{error, info, warn};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Interval, MissedTickBehavior, interval, sleep_until},
};

use self::{
    apply::{Bars, Wish},
    state::State,
    telling::Telling,
};
use crate::{
    admin::{
        proto::Status,
        server::{
            Server,
            change::{Answer, Ask, Asked},
        },
    },
    balance::{image::Full, maglev::TooFewSlots},
    causes::with_causes,
    dataplane::kernel::{self, Kernel},
    doctor::{
        facts::Plan,
        finding::{Finding, Level},
        gather::{self, Depth},
        rules,
    },
    health::driver::{
        self, Driver, Report, Unprepared,
        agents::{Agents, Heard},
    },
    journal::Journal,
    kept::opening::Opening,
    model::Config,
    neighbours::watch::Watcher,
    notify,
    supervisor::{Phase, Supervisor},
};

/// Questions that wait to be taken.
const ASKS: usize = 16;
/// Reports that wait to be taken; each probed backend keeps one more.
const REPORTS: usize = 4096;
/// From one taking of reports to the next: with thousands of probes a second, each would otherwise
/// wake the controller by itself.
const GATHER: Duration = Duration::from_millis(5);
/// How often counters are read and the verdict is renewed: the tick of the detectors.
const TICK: Duration = Duration::from_secs(1);
/// From one part of what takes long to the next.
const PART: Duration = Duration::from_millis(20);
/// How often the kernel's tables are compared with the intended ones.
const VERIFY: Duration = Duration::from_secs(10);
/// How long a start waits, beyond the slowest first probe, before it publishes what it knows.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the first publication and attaching may take before a service manager gives up.
const ATTACHING: Duration = Duration::from_secs(30);

/// Why the controller could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// More is configured than the tables hold.
    #[error(transparent)]
    Full(#[from] Full),
    /// A ring is too small.
    #[error("service {service}: {source}")]
    Ring {
        /// The service.
        service: String,
        /// Why.
        #[source]
        source: TooFewSlots,
    },
    /// A check cannot be made ready.
    #[error(transparent)]
    Probes(#[from] Unprepared),
    /// The host is not fit for the data plane.
    #[error(
        "this host is not fit:{}\n  ('evenkeel doctor' looks without starting)",
        listed(.0)
    )]
    Unfit(Vec<Finding>),
    /// The system refused.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// What the controller is, and runs by.
#[derive(Clone, Debug)]
struct Identity {
    /// The version with its git revision.
    version: String,
    /// The controller's own file.
    config_file: PathBuf,
    /// The SHA-256 of the text that is in force.
    config_sha256: String,
}

/// The present, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For durations.
    pub instant: Instant,
    /// For people.
    pub unix_ms: u64,
}

impl Now {
    #[expect(
        clippy::disallowed_methods,
        reason = "the controller's task is a driver"
    )]
    fn read() -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let unix_ms = since_epoch.map_or(0, |time| time.as_millis() as u64);
        Self {
            instant: Instant::now(),
            unix_ms,
        }
    }
}

/// Runs until SIGTERM or SIGINT, and leaves the kernel forwarding. SIGHUP has it read its file
/// again.
///
/// Takes no more than [`privileges::CONTROLLER`](crate::privileges::CONTROLLER).
///
/// # Errors
/// Where it cannot start. Once it runs, it goes on through everything it can.
pub async fn run(opening: Opening, server: Server, version: String) -> Result<(), Error> {
    let signals = |source| Error::Io {
        action: "wait for signals",
        source,
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(signals)?;
    let config = &opening.config;
    driver::prepare(&config.services)?;
    let kernel = Kernel::open(&config.data_plane, &config.tracking)?;
    let journal = Journal::start(&config.state).map_err(|source| Error::Io {
        action: "start the journal",
        source,
    })?;
    let mut state = State::new(opening, version, kernel, journal, Now::read())?;
    let (mut driver, mut reports) = probe(&state)?;
    let (mut agents, mut heard) = ask_agents(&state);
    let (watcher, mut hops) = Watcher::spawn(state.addresses());
    introduce(&state, driver.backends(), server.path());
    let (status_in, status) = watch::channel(state.status(Now::read()));
    let (asks_in, mut asks) = mpsc::channel(ASKS);
    let telling = Telling::start(&mut state, &status, asks_in.clone());
    let mut telling = telling.map_err(|source| Error::Io {
        action: "start the notifications",
        source,
    })?;
    let server = server.with(notify::api::routes(telling.handles()));
    let api = Api::start(server, status, asks_in);
    let mut tick = every(TICK);
    let mut verify = every(VERIFY);
    let mut parts = every(PART);
    let patience = state.first_round() + PATIENCE;
    let deadline = tokio::time::Instant::from_std(Now::read().instant) + patience;
    let mut gathered = Now::read().instant;
    let mut supervisor = Supervisor::starting(patience + ATTACHING);
    let mut stale = false;
    let why = loop {
        // A probe that changes nothing is shown with the next tick: thousands come in a second.
        let mut news = false;
        tokio::select! {
            // What may change the tables comes before what takes its time. None of it is always there.
            biased;
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
            _ = hangup.recv() => {
                supervisor.tell(Phase::Reloading);
                state.reload(Now::read());
            }
            // The driver lives as long as this loop.
            Some(report) = next(&mut reports, gathered) => {
                with_waiting(report, &mut reports).for_each(|report| state.observe(&report));
                gathered = Now::read().instant + GATHER;
            }
            Some(word) = next(&mut heard, gathered) => {
                with_waiting(word, &mut heard).for_each(|word| state.hear(&word));
                gathered = Now::read().instant + GATHER;
            }
            changed = hops.changed() => {
                if changed.is_ok() {
                    let latest = hops.borrow_and_update().clone();
                    state.follow(&latest);
                }
            }
            _ = tick.tick() => {
                state.tick(Now::read());
                // From here and nowhere else: a loop that hangs must be seen to.
                supervisor.alive(status::line(&status_in.borrow()));
                stale = true;
            }
            // The server lives as long, too.
            Some(asked) = asks.recv() => answer(&mut state, asked),
            Some(event) = telling.next() => state.pass_on(event),
            _ = parts.tick(), if state.has_parts() => news = state.do_part(Now::read()),
            _ = verify.tick() => {
                state.begin_comparison(Now::read());
                news = true;
            }
            () = sleep_until(deadline), if !state.attached() => {
                state.stop_waiting();
            }
            // What came in during a look does not wait for the next one, nor for the status.
            () = ready(()), if stale => stale = go_on(&mut state, &status_in),
        }
        news |= publish(&mut state)?;
        state.settle_change(Now::read());
        if std::mem::take(&mut state.targets_changed) {
            news = true;
            follow(&state, (&mut driver, &mut agents), &watcher, &mut telling);
        }
        news |= telling.settle(&mut state);
        if news || !state.answers.is_empty() {
            stale = false;
            status_in.send_replace(state.status(Now::read()));
        }
        hand_out(&mut state);
        if state.attached() && !state.reloading() {
            supervisor.tell(Phase::Ready);
        }
    };
    supervisor.stopping();
    telling.end(&state);
    state.end(Now::read(), why);
    api.end().await;
    Ok(())
}

/// Takes the next look of a tick or, after the last, makes a part of the status; true while there is
/// more.
fn go_on(state: &mut State, status_in: &watch::Sender<Arc<Status>>) -> bool {
    if state.look_on(Now::read()) {
        return true;
    }
    let status = state.status_in_parts(Now::read());
    let is_made = status
        .map(|status| status_in.send_replace(status))
        .is_some();
    !is_made
}

/// The next report, not before some instant.
async fn next<T>(reports: &mut mpsc::Receiver<T>, after: Instant) -> Option<T> {
    sleep_until(after.into()).await;
    reports.recv().await
}

/// A report with those that wait behind it: what fell together is published together.
fn with_waiting<T>(first: T, reports: &mut mpsc::Receiver<T>) -> impl Iterator<Item = T> {
    iter::once(first).chain(iter::from_fn(|| reports.try_recv().ok()))
}

/// Begins to probe the backends.
fn probe(state: &State) -> Result<(Driver, mpsc::Receiver<Report>), Error> {
    let (sender, reports) = mpsc::channel(REPORTS);
    let driver = Driver::spawn(&state.config().services, sender, state.probe_paths())?;
    Ok((driver, reports))
}

/// Begins to ask the backends' agents.
fn ask_agents(state: &State) -> (Agents, mpsc::Receiver<Heard>) {
    let (sender, heard) = mpsc::channel(REPORTS);
    (Agents::spawn(&state.config().services, sender), heard)
}

/// The admin API at work.
struct Api {
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Api {
    fn start(
        server: Server,
        status: watch::Receiver<Arc<Status>>,
        asks: mpsc::Sender<Asked>,
    ) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server.serve(status, asks, async {
            // Ends on the message as on the sender's end.
            let _ = stopped.await;
        }));
        Self { stop, task }
    }

    /// Ends it, after its last answers.
    async fn end(self) {
        let _ = self.stop.send(());
        match self.task.await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => warn!("admin socket: {e}"),
            Err(e) => warn!("admin socket: {e}"),
        }
    }
}

/// Says what there is.
fn introduce(state: &State, probed: usize, socket: &Path) {
    let services = &state.config().services;
    info!(
        "{} services with {} backends, {probed} of them probed; admin socket {}",
        services.len(),
        services.iter().map(|s| s.backends.len()).sum::<usize>(),
        socket.display()
    );
}

/// Has all that works beside the task go on by what is in force now.
fn follow(
    state: &State,
    (driver, agents): (&mut Driver, &mut Agents),
    watcher: &Watcher,
    telling: &mut Telling,
) {
    state.rename();
    agents.follow(&state.config().services);
    if let Err(e) = driver.follow(&state.probed()) {
        error!("checks go on as they were before: {}", with_causes(&e));
    }
    watcher.follow(state.followed());
    telling.follow(state);
}

/// Lets packets follow what is known, once enough is, and attaches the program after the first time.
/// Answers whether there is anything to show.
///
/// # Errors
/// Where that cannot be done at a start.
fn publish(state: &mut State) -> Result<bool, Error> {
    if !state.knows_enough() {
        return Ok(false);
    }
    // A refused publication leaves the kernel with the tables before; try again with the next event.
    let looked = match state.publish(Now::read()) {
        Ok(looked) => looked,
        // A start that cannot publish has nothing to attach.
        Err(e) if !state.attached() => return Err(e),
        // It has been told.
        Err(_) => false,
    };
    if state.attached() {
        return Ok(looked);
    }
    state.attach()?;
    Ok(true)
}

/// Answers what the status shows by now.
fn hand_out(state: &mut State) {
    for (to, what) in std::mem::take(&mut state.answers) {
        // Who asked may have gone.
        let _ = to.send(what);
    }
}

/// Does what is asked, or begins to.
fn answer(state: &mut State, Asked { by, ask, answer }: Asked) {
    let now = Now::read();
    let said = match ask {
        Ask::Plan(request) => state.ask_plan(&request, now),
        Ask::Apply(request) => {
            let wish = Wish {
                text: request.text,
                file: request.file,
                how: "apply",
                by,
                reason: request.reason,
                confirm_within: request
                    .confirm_within_s
                    .map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()),
                bars: if request.force {
                    Bars::Forced
                } else {
                    Bars::Closed
                },
                copy_of: None,
            };
            return state.begin_change(wish, Some(answer), now);
        }
        Ask::Rollback(rollback) => return state.begin_rollback(by, rollback, Some(answer), now),
        Ask::Confirm => state.confirm(&by, now),
        Ask::Configurations => Ok(Answer::Configurations(state.kept.list())),
        Ask::Impose(wish) => state.impose(&by, &wish, now),
        Ask::Incident(wish) => state.incident(&by, &wish, now),
        Ask::Flows(query) => return state.show_flows(&query, answer),
        Ask::Explain(request) => return state.explain(request, answer),
        Ask::Trace(request, lines) => state.trace(&by, &request, lines, now),
        Ask::Drill(request) => state.begin_drill(&by, &request, now),
        Ask::AbortDrill(abort) => state.abort_drill(&by, &abort, now),
        Ask::Log => Ok(log_filter::shown()),
        Ask::SetLog(wish) => state.set_log_filter(&by, &wish, now),
    };
    state.answer(Some(answer), said);
}

/// Findings, each in a line of its own.
fn listed(findings: &[Finding]) -> String {
    let lines: Vec<_> = findings.iter().map(|f| format!("\n  {f}")).collect();
    lines.concat()
}

/// Looks at the host before anything is loaded: what stands in the way ends the start, in the
/// words of `evenkeel doctor`, and what will hurt is logged.
///
/// Who else's programs are in the way is told to the privileged only, so this comes before
/// privileges are given up.
///
/// # Errors
/// Where the host is not fit.
pub async fn look(config: &Config) -> Result<(), Error> {
    let plan = Plan::of(config);
    let names = plan.interfaces.clone();
    let facts = match gather::facts(plan, &names, Depth::Attach).await {
        Ok(facts) => facts,
        // The kernel decides in the end, with fewer words.
        Err(e) => {
            warn!("the host was not looked at: {}", with_causes(&e));
            return Ok(());
        }
    };
    let mut errors = Vec::new();
    for finding in rules::judge(&facts) {
        match finding.level {
            Level::Error => errors.push(finding),
            Level::Warning => warn!("{finding}"),
            Level::Ok | Level::Info => {}
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Error::Unfit(errors))
    }
}

/// Ticks that never come in a bunch, however late one is taken.
fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The addresses of all backends of a configuration.
fn addresses(config: &Config) -> BTreeSet<std::net::IpAddr> {
    config
        .services
        .iter()
        .flat_map(|s| &s.backends)
        .map(|b| b.address)
        .collect()
}
