//! The tasks that probe all backends: the one place where health reads the clock.
//!
//! Each probed backend has a task of its own, which waits, probes and reports in turn. So the
//! probes of a backend never overlap, and a driver never holds more sockets than it has backends.
//!
//! # When the reader of the reports is slow
//!
//! A task holds one report, its latest. It hands the report over while it waits for its next
//! probe, and probes when that is due even if the channel is still full; the new report then
//! takes the place of the old one. So a slow reader costs old reports, never a probe and never
//! the latest state. A reader that keeps up within an interval loses nothing.

pub mod agents;
mod tasks;

use std::{
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc::Sender, watch};

use self::tasks::{End, Tasks, Who, hand_over, now};
use crate::{
    health::{
        probe::{
            self, Outcome, Subject,
            path::{self, Paths},
            tls::Client,
        },
        schedule::{self, Pace, Schedule},
    },
    model::{Backend, HealthCheck, ProbeKind, Service},
    trust,
};

/// The outcome of one probe of one backend.
#[derive(Clone, Debug)]
pub struct Report {
    /// The service that has the backend.
    pub service: Arc<str>,
    /// The backend's name in that service.
    pub backend: Arc<str>,
    /// The address that was probed, which may be another one's by now.
    pub address: IpAddr,
    /// When the probe ended.
    pub at: Instant,
    /// What it found.
    pub outcome: Outcome,
}

/// Probes a backend once.
type Probe = Arc<dyn Fn(Arc<Subject>) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// Probes backends for as long as it lives.
#[must_use = "dropping the driver ends its probes"]
pub struct Driver {
    tasks: Tasks<HealthCheck>,
    reports: Sender<Report>,
    probe: Probe,
    /// From the configured interval to that of the schedule.
    grid: fn(Duration) -> Duration,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backends = self.backends();
        f.debug_struct("Driver")
            .field("backends", &backends)
            .finish_non_exhaustive()
    }
}

impl Driver {
    /// Starts to probe all backends of the services that have a health check, the first of them
    /// at once and the others within [`FIRST_ROUND`](crate::health::schedule::FIRST_ROUND).
    ///
    /// The tasks end when the driver is dropped, or when the receiver of `reports` is.
    ///
    /// # Errors
    ///
    /// A check that cannot be made ready; see [`prepare`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with input, output and time.
    pub fn spawn(
        services: &[Service],
        reports: Sender<Report>,
        paths: watch::Receiver<Arc<Paths>>,
    ) -> Result<Self, Unprepared> {
        let mut driver = Self::new(reports, move |subject: Arc<Subject>| {
            let mut paths = paths.clone();
            async move {
                let path = path::of(&subject, &mut paths).await;
                probe::run(&subject, path).await
            }
        });
        // So that no two probes are further apart than configured.
        driver.grid = schedule::grid;
        driver.follow(services)?;
        Ok(driver)
    }

    /// How many backends are probed.
    pub fn backends(&self) -> usize {
        self.tasks.count()
    }

    /// Probes the backends of these services instead. Those that are probed already, by the same
    /// check, go on as if nothing had happened; new ones have their first probe at once, or within
    /// [`FIRST_ROUND`](crate::health::schedule::FIRST_ROUND) where there are many.
    ///
    /// # Errors
    ///
    /// A check that cannot be made ready; the probes are then those of before.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with input, output and time.
    pub fn follow(&mut self, services: &[Service]) -> Result<(), Unprepared> {
        let targets = targets(services)?;
        let new = self
            .tasks
            .keep(targets, |target| (&target.who, &target.subject.check));
        let (start, count) = (now(), new.len());
        for (index, target) in new.into_iter().enumerate() {
            let check = &target.subject.check;
            let usual = (self.grid)(check.interval);
            let rhythm = Rhythm {
                schedule: Schedule::new(usual, start, index, count),
                pace: Pace::new(check),
                usual,
                fast: check.fast_interval.map_or(usual, self.grid),
            };
            let (who, check) = (target.who.clone(), target.subject.check.clone());
            let watch = target.watch(rhythm, self.reports.clone(), self.probe.clone());
            self.tasks.start(who, check, watch);
        }
        Ok(())
    }

    fn new<P, F>(reports: Sender<Report>, probe: P) -> Self
    where
        P: Fn(Arc<Subject>) -> F + Send + Sync + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        Self {
            tasks: Tasks::new(),
            reports,
            probe: Arc::new(move |subject| Box::pin(probe(subject))),
            grid: |interval| interval,
        }
    }

    #[cfg(test)]
    fn spawn_with<P, F>(services: &[Service], reports: &Sender<Report>, probe: P) -> Self
    where
        P: Fn(Arc<Subject>) -> F + Send + Sync + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut driver = Self::new(reports.clone(), probe);
        driver.follow(services).expect("no check takes preparing");
        driver
    }
}

/// A check cannot be made ready.
#[derive(Debug, thiserror::Error)]
#[error("service {service}: {source}")]
pub struct Unprepared {
    /// The service.
    pub service: Arc<str>,
    /// Why.
    #[source]
    pub source: trust::Error,
}

/// Looks whether all checks of these services can be made ready.
///
/// # Errors
/// The first that cannot.
pub fn prepare(services: &[Service]) -> Result<(), Unprepared> {
    targets(services).map(drop)
}

fn targets(services: &[Service]) -> Result<Vec<Target>, Unprepared> {
    let targets: Result<Vec<_>, _> = services.iter().map(Target::of).collect();
    Ok(targets?.into_iter().flatten().collect())
}

/// A backend that is probed.
struct Target {
    who: Who,
    subject: Arc<Subject>,
}

impl Target {
    /// The backends of a service; none where it has no health check.
    fn of(service: &Service) -> Result<Vec<Self>, Unprepared> {
        let Some(check) = service.health.clone().map(Arc::new) else {
            return Ok(Vec::new());
        };
        let http2 = matches!(check.kind, ProbeKind::Grpc(_));
        let tls = check.kind.tls().map(|tls| Client::new(tls, http2));
        let tls = tls.transpose().map_err(|source| Unprepared {
            service: service.name.clone(),
            source,
        })?;
        let tls = tls.map(Arc::new);
        let target = |backend: &Backend| Self {
            who: Who {
                service: service.name.clone(),
                backend: backend.name.clone(),
                address: backend.address,
            },
            subject: Arc::new(Subject {
                service: service.name.clone(),
                backend: backend.name.clone(),
                address: backend.address,
                check: check.clone(),
                tls: tls.clone(),
            }),
        };
        Ok(service.backends.iter().map(target).collect())
    }

    /// Probes by the schedule until nobody reads the reports.
    async fn watch(self, mut rhythm: Rhythm, reports: Sender<Report>, probe: Probe) -> End {
        let mut due = rhythm.schedule.first();
        let mut latest = None;
        loop {
            hand_over(&mut latest, &reports, due).await?;
            // A round is skipped but once, lest a host that is always late never probe.
            if rhythm.schedule.missed(now()) {
                due = rhythm.schedule.next(now(), rand::random());
                hand_over(&mut latest, &reports, due).await?;
            }
            let began = now();
            let outcome = probe(self.subject.clone()).await;
            rhythm.follow(&outcome, began);
            latest = Some(Report {
                service: self.who.service.clone(),
                backend: self.who.backend.clone(),
                address: self.who.address,
                at: now(),
                outcome,
            });
            due = rhythm.schedule.next(now(), rand::random());
        }
    }
}

/// When one backend is probed, by what its probes find.
struct Rhythm {
    schedule: Schedule,
    pace: Pace,
    /// From one probe to the next where the state is settled, and where it is on its way.
    usual: Duration,
    fast: Duration,
}

impl Rhythm {
    fn follow(&mut self, outcome: &Outcome, began: Instant) {
        // What says nothing of the backend changes no state, and no interval.
        let counts = outcome.instead.is_none();
        let Some(verdict) = outcome.verdict().filter(|_| counts) else {
            return;
        };
        let hurries = self.pace.on_its_way(verdict);
        let interval = if hurries { self.fast } else { self.usual };
        self.schedule.set_interval(interval, began);
    }
}

#[cfg(test)]
mod tests;
