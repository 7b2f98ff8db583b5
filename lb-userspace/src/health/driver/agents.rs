//! The tasks that ask the agents of backends, as the driver's probe the backends themselves.

use std::{fmt, net::IpAddr, sync::Arc, time::Instant};

use tokio::sync::mpsc::Sender;

use super::tasks::{End, Tasks, Who, hand_over, now};
use crate::{
    health::{
        agent::Answer,
        probe::agent::{self, Unheard},
        schedule::{Schedule, grid},
    },
    model::{AgentCheck, Service},
};

/// What came of one question to one agent.
#[derive(Clone, Debug)]
pub struct Heard {
    /// The service that has the backend.
    pub service: Arc<str>,
    /// The backend's name in that service.
    pub backend: Arc<str>,
    /// The address that was asked, which may be another one's by now.
    pub address: IpAddr,
    /// When the question ended.
    pub at: Instant,
    /// What was answered.
    pub answer: Result<Answer, Unheard>,
}

/// Asks agents for as long as it lives.
#[must_use = "dropping it ends the questions"]
pub struct Agents {
    tasks: Tasks<AgentCheck>,
    reports: Sender<Heard>,
}

impl fmt::Debug for Agents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backends = self.tasks.count();
        f.debug_struct("Agents")
            .field("backends", &backends)
            .finish_non_exhaustive()
    }
}

impl Agents {
    /// Starts to ask the agents of all services that have any, the first of them at once and the
    /// others within [`FIRST_ROUND`](crate::health::schedule::FIRST_ROUND).
    ///
    /// The tasks end when this is dropped, or when the receiver of `reports` is.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with input, output and time.
    pub fn spawn(services: &[Service], reports: Sender<Heard>) -> Self {
        let mut agents = Self {
            tasks: Tasks::new(),
            reports,
        };
        agents.follow(services);
        agents
    }

    /// Asks the agents of these services instead. Those that are asked already, in the same way, go
    /// on as if nothing had happened.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with input, output and time.
    pub fn follow(&mut self, services: &[Service]) {
        let wanted = services.iter().flat_map(targets).collect();
        let new = self.tasks.keep(wanted, |(who, check)| (who, check));
        let (start, count) = (now(), new.len());
        for (index, (who, check)) in new.into_iter().enumerate() {
            let schedule = Schedule::new(grid(check.interval), start, index, count);
            let task = watch(who.clone(), check.clone(), schedule, self.reports.clone());
            self.tasks.start(who, check, task);
        }
    }
}

/// The agents of a service; none where it has none.
fn targets(service: &Service) -> Vec<(Who, Arc<AgentCheck>)> {
    let Some(check) = service.options.agent.clone().map(Arc::new) else {
        return Vec::new();
    };
    let target = |backend: &crate::model::Backend| {
        let who = Who {
            service: service.name.clone(),
            backend: backend.name.clone(),
            address: backend.address,
        };
        (who, check.clone())
    };
    service.backends.iter().map(target).collect()
}

/// Asks one agent by the schedule until nobody reads the reports.
async fn watch(
    who: Who,
    check: Arc<AgentCheck>,
    mut schedule: Schedule,
    reports: Sender<Heard>,
) -> End {
    let mut due = schedule.first();
    let mut latest = None;
    loop {
        hand_over(&mut latest, &reports, due).await?;
        let answer = agent::ask(who.address, &check).await;
        latest = Some(Heard {
            service: who.service.clone(),
            backend: who.backend.clone(),
            address: who.address,
            at: now(),
            answer,
        });
        due = schedule.next(now(), rand::random());
    }
}
