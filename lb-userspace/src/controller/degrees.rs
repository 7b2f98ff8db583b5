//! Keeps what of backends' weights is in force by degrees, for the next start.
//!
//! The disk is written to beside the controller's task, one file at a time, and what it does not take
//! is tried again: nothing waits for it.

use std::time::{Duration, Instant};

use log::warn;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{
    Now,
    state::{ServiceState, State},
};
use crate::{
    causes::with_causes,
    health::agent::Agent,
    journal::{Event, Kind, Level},
    kept::{
        self,
        degrees::{self, Degree, Demoted, LastWord},
    },
    model::{Service, Underperformers},
};

/// How often what has not changed is written again, so that it does not seem old.
const REFRESH: Duration = Duration::from_secs(30);

/// What is on disk, and on its way there.
#[derive(Default)]
pub(super) struct Keeper {
    written: Vec<Degree>,
    at: Option<Instant>,
    writing: Option<JoinHandle<Result<(), kept::Error>>>,
    /// Whether it was told that the disk does not take it.
    told: bool,
}

impl Keeper {
    /// Whether something else is to be on disk by now.
    fn is_due(&self, degrees: &[Degree], now: Instant) -> bool {
        let old = |at| now.saturating_duration_since(at) >= REFRESH;
        self.written != degrees || !degrees.is_empty() && self.at.is_none_or(old)
    }
}

impl State {
    /// Keeps what is in force, where that changed.
    pub(super) fn keep_degrees(&mut self, now: Now) {
        self.settle_keeper();
        let degrees = self.degrees();
        if self.keeper.writing.is_some() || !self.keeper.is_due(&degrees, now.instant) {
            return;
        }
        self.keeper.written.clone_from(&degrees);
        self.keeper.at = Some(now.instant);
        let directory = self.config.state.directory.clone();
        let write = move || degrees::write(&directory, now.unix_ms, degrees);
        self.keeper.writing = Some(spawn_blocking(write));
    }

    /// Takes note of how the last writing ended.
    fn settle_keeper(&mut self) {
        let ended = self.keeper.writing.take_if(|writing| writing.is_finished());
        // What has ended is there at once.
        let Some(ended) = ended.and_then(futures_util::FutureExt::now_or_never) else {
            return;
        };
        let failure = match ended {
            Ok(Ok(())) => None,
            Ok(Err(e)) => Some(with_causes(&e)),
            Err(e) => Some(e.to_string()),
        };
        if let Some(why) = &failure {
            // The next tick tries again.
            self.keeper.written.clear();
            self.keeper.at = None;
            if !self.keeper.told {
                warn!("a restart would forget demotions and what agents said: {why}");
            }
        }
        self.keeper.told = failure.is_some();
    }

    /// Keeps the last of it, at the controller's end.
    pub(super) fn keep_last_degrees(&mut self, now: Now) {
        let degrees = self.degrees();
        // One that is on its way is a second old, and must not come after this one.
        if self.keeper.writing.is_none() && self.keeper.is_due(&degrees, now.instant) {
            let directory = &self.config.state.directory;
            if let Err(e) = degrees::write(directory, now.unix_ms, degrees) {
                warn!("{}", with_causes(&e));
            }
        }
    }

    /// What is in force of each backend that has not simply its weight.
    fn degrees(&self) -> Vec<Degree> {
        let began_ms = self.started.unix_ms;
        let services = self.config.services.iter().zip(&self.services);
        let of = |(service, state): (&Service, &ServiceState)| {
            let monitor = state.watched.monitor.as_ref();
            let backends = service.backends.iter().enumerate();
            // Of thousands of backends, each second, a few have anything to keep.
            let degrees = backends.filter_map(|(n, backend)| {
                let demotion = monitor.and_then(|monitor| monitor.demotion(n));
                let agent = state.backends[n].agent.as_ref().and_then(last_word);
                (demotion.is_some() || agent.is_some()).then(|| Degree {
                    service: service.name.to_string(),
                    backend: backend.name.to_string(),
                    address: backend.address,
                    demoted: demotion.map(|demotion| Demoted::of(&demotion, began_ms)),
                    agent,
                })
            });
            degrees.collect::<Vec<_>>()
        };
        services.flat_map(of).collect()
    }

    /// Goes on with what was in force before this start.
    pub(super) fn resume(&mut self, degrees: Vec<Degree>) {
        let began_ms = self.started.unix_ms;
        let mut events = Vec::new();
        for degree in &degrees {
            let place = self.place(&degree.service, &degree.backend, degree.address);
            let Some((n, m)) = place else {
                continue;
            };
            let (service, state) = (&self.config.services[n], &mut self.services[n]);
            let demotes = service.options.ejection.underperformers == Underperformers::Demote;
            if let (Some(monitor), Some(kept)) = (
                state.watched.monitor.as_mut().filter(|_| demotes),
                &degree.demoted,
            ) {
                monitor.resume(m, &kept.demotion(began_ms));
                events.push((degree, resumed(degree, kept)));
            }
            if let (Some(agent), Some(word)) = (&mut state.backends[m].agent, &degree.agent) {
                *agent = Agent::remembered(word.wish.clone(), word.since_ms);
            }
        }
        for (degree, message) in events {
            let event = self.event(Kind::Performance, Level::Info, message);
            self.tell(Event {
                service: Some(degree.service.clone()),
                backend: Some(degree.backend.clone()),
                ..event.detail(serde_json::json!({
                    "what": "resumed",
                    "to": degree.demoted.as_ref().map(|kept| kept.rung.fraction().number()),
                }))
            });
        }
        self.keeper.written = degrees;
    }
}

fn resumed(degree: &Degree, kept: &Demoted) -> String {
    let cause = kept.cause.map(|cause| format!(": it was {cause}"));
    format!(
        "{}/{} goes on with {} of its weight, as before the restart{}",
        degree.service,
        degree.backend,
        kept.rung.fraction(),
        cause.unwrap_or_default()
    )
}

/// What there is to keep of an agent: nothing where it asks for nothing else.
fn last_word(agent: &Agent) -> Option<LastWord> {
    let wish = agent.wish().filter(|wish| wish.asked() < 100)?;
    Some(LastWord {
        wish: wish.clone(),
        since_ms: agent.since_ms(),
    })
}
