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

use std::{convert::Infallible, pin::pin, sync::Arc, time::Instant};

use tokio::{
    sync::{mpsc::Sender, watch},
    task::JoinSet,
    time::{self, sleep_until},
};

use crate::{
    health::{
        probe::{
            self, Outcome, Subject,
            path::{self, Paths},
            tls::{self, Client},
        },
        schedule::{self, Schedule},
    },
    model::{Backend, ProbeKind, Service},
};

/// The outcome of one probe of one backend.
#[derive(Clone, Debug)]
pub struct Report {
    /// The service that has the backend.
    pub service: Arc<str>,
    /// The backend's name in that service.
    pub backend: Arc<str>,
    /// When the probe ended.
    pub at: Instant,
    /// What it found.
    pub outcome: Outcome,
}

/// Probes backends for as long as it lives.
#[derive(Debug)]
#[must_use = "dropping the driver ends its probes"]
pub struct Driver {
    /// Aborted when the set is dropped.
    tasks: JoinSet<Result<Infallible, Unread>>,
}

impl Driver {
    /// Starts to probe all backends of the services that have a health check, the first of them
    /// at once and the others within [`FIRST_ROUND`](crate::health::schedule::FIRST_ROUND), each by
    /// the way that `paths` has for it at the time.
    ///
    /// The tasks end when the driver is dropped, or when the receiver of `reports` is.
    ///
    /// # Errors
    ///
    /// Where a check cannot be made ready.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with input, output and time.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "given away, so that the channel ends with the driver's tasks"
    )]
    pub fn spawn(
        services: &[Service],
        reports: Sender<Report>,
        paths: watch::Receiver<Arc<Paths>>,
    ) -> Result<Self, Unprepared> {
        let mut services = services.to_vec();
        for check in services
            .iter_mut()
            .filter_map(|service| service.health.as_mut())
        {
            check.interval = schedule::grid(check.interval);
        }
        let targets = targets(&services)?;
        Ok(Self::spawn_with(
            targets,
            &reports,
            move |subject: Arc<Subject>| {
                let mut paths = paths.clone();
                async move {
                    let path = path::of(&subject, &mut paths).await;
                    probe::run(&subject, path).await
                }
            },
        ))
    }

    /// How many backends are probed.
    pub fn backends(&self) -> usize {
        self.tasks.len()
    }

    fn spawn_with<P, F>(targets: Vec<Target>, reports: &Sender<Report>, probe: P) -> Self
    where
        P: Fn(Arc<Subject>) -> F + Clone + Send + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let (start, count) = (now(), targets.len());
        let mut tasks = JoinSet::new();
        for (index, target) in targets.into_iter().enumerate() {
            let schedule = Schedule::new(target.0.check.interval, start, index, count);
            tasks.spawn(target.watch(schedule, reports.clone(), probe.clone()));
        }
        Self { tasks }
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
    pub source: tls::Error,
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
struct Target(Arc<Subject>);

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
        let target = |backend: &Backend| {
            Self(Arc::new(Subject {
                service: service.name.clone(),
                backend: backend.name.clone(),
                address: backend.address,
                check: check.clone(),
                tls: tls.clone(),
            }))
        };
        Ok(service.backends.iter().map(target).collect())
    }

    /// Probes by the schedule until nobody reads the reports.
    async fn watch<P, F>(
        self,
        mut schedule: Schedule,
        reports: Sender<Report>,
        probe: P,
    ) -> Result<Infallible, Unread>
    where
        P: Fn(Arc<Subject>) -> F,
        F: Future<Output = Outcome>,
    {
        let mut due = schedule.first();
        let mut latest = None;
        loop {
            hand_over(&mut latest, &reports, due).await?;
            // A round is skipped but once, lest a host that is always late never probe.
            if schedule.missed(now()) {
                due = schedule.next(now(), rand::random());
                hand_over(&mut latest, &reports, due).await?;
            }
            let outcome = probe(self.0.clone()).await;
            latest = Some(Report {
                service: self.0.service.clone(),
                backend: self.0.backend.clone(),
                at: now(),
                outcome,
            });
            due = schedule.next(now(), rand::random());
        }
    }
}

/// The receiver of the reports is gone.
#[derive(Debug)]
struct Unread;

/// Waits until `due`, and meanwhile hands the latest report over as soon as there is room.
async fn hand_over(
    latest: &mut Option<Report>,
    reports: &Sender<Report>,
    due: Instant,
) -> Result<(), Unread> {
    let mut due = pin!(sleep_until(due.into()));
    loop {
        tokio::select! {
            // A report comes first even where the next probe is due already.
            biased;
            permit = reports.reserve(), if latest.is_some() => {
                let permit = permit.map_err(|_| Unread)?;
                if let Some(report) = latest.take() {
                    permit.send(report);
                }
            }
            () = reports.closed() => return Err(Unread),
            () = &mut due => return Ok(()),
        }
    }
}

/// The time now. It is tokio's, so that a test can stop it.
fn now() -> Instant {
    time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
