//! What backends ask for by their agents, and how far that counts.
//!
//! An operator's override comes first: while there is one, the backend's own word is heard and
//! shown, and nothing follows.

use std::time::Instant;

use super::{
    Now,
    state::{ServiceState, State},
};
use crate::{
    admin::proto,
    health::{
        agent::{Moment, News},
        driver::agents::Heard,
        event::What,
        force::Overruled,
    },
    model::{Fraction, Service},
};

impl State {
    /// Takes what came of a question to an agent.
    pub(super) fn hear(&mut self, heard: &Heard) {
        let place = self.place(&heard.service, &heard.backend, heard.address);
        let Some((service, backend)) = place else {
            return;
        };
        let now = self.moment(heard.at);
        let Some(agent) = &mut self.services[service].backends[backend].agent else {
            return;
        };
        let answer = heard.answer.as_ref().map_err(ToString::to_string);
        if let Some(news) = agent.take(now, answer) {
            self.tell_of_agent(service, backend, now, news);
            let (service, backend) = (&heard.service, &heard.backend);
            let why =
                format!("{service}/{backend} asks by its agent for another part of its weight");
            self.news.add_at(heard.at, why);
        }
    }

    /// Forgets the last words of agents that have been silent for too long.
    pub(super) fn pass_agents(&mut self, now: Now) {
        let now = self.moment(now.instant);
        let mut forgotten = Vec::new();
        for (n, (service, state)) in self
            .config
            .services
            .iter()
            .zip(&mut self.services)
            .enumerate()
        {
            let Some(check) = &service.options.agent else {
                continue;
            };
            for (m, backend) in state.backends.iter_mut().enumerate() {
                let agent = backend.agent.as_mut();
                let news = agent.and_then(|agent| agent.pass(now, check.keep));
                forgotten.extend(news.map(|news| (n, m, news)));
            }
        }
        for (service, backend, news) in forgotten {
            self.tell_of_agent(service, backend, now, news);
        }
    }

    fn tell_of_agent(&mut self, service: usize, backend: usize, now: Moment, news: News) {
        let what = match news {
            News::Asks(wish) => What::Asked {
                wish,
                overridden: self.is_overridden(&self.config.services[service], backend),
            },
            News::Forgotten { word, silent, why } => What::Forgotten { word, silent, why },
        };
        self.announce(service, Some(backend), now.unix_ms, what);
    }

    fn moment(&self, at: Instant) -> Moment {
        Moment {
            elapsed: self.elapsed(at),
            unix_ms: self.unix_ms_of(at),
        }
    }

    fn is_overridden(&self, service: &Service, backend: usize) -> bool {
        let name = &service.backends[backend].name;
        self.overrides.of(&service.name, name).is_some()
    }

    /// The part of its weight that a backend asks for, where that counts.
    pub(super) fn asked(
        &self,
        service: &Service,
        state: &ServiceState,
        backend: usize,
    ) -> Fraction {
        match &state.backends[backend].agent {
            Some(agent) if !self.is_overridden(service, backend) => agent.part(),
            _ => Fraction::FULL,
        }
    }

    /// Why a backend has no slots by its own wish; `None` where that is not why.
    pub(super) fn declined(
        &self,
        service: &Service,
        state: &ServiceState,
        backend: usize,
    ) -> Option<String> {
        let wish = state.backends[backend].agent.as_ref()?.wish()?;
        let declines = self.asked(service, state, backend) == Fraction::NONE;
        declines.then(|| format!("its agent asks for {wish}"))
    }

    /// What a backend's agent says, for the status.
    pub(super) fn show_agent(
        &self,
        service: &Service,
        state: &ServiceState,
        backend: usize,
    ) -> Option<proto::Agent> {
        let agent = state.backends[backend].agent.as_ref()?;
        let wish = agent.wish();
        let overruled = state.watched.force.overruled != Overruled::Nobody;
        let ignored = if wish.is_none() {
            None
        } else if self.is_overridden(service, backend) {
            Some("override")
        } else {
            overruled.then_some("too-little-left")
        };
        let heard = agent.heard().map(|heard| {
            let behind = self.elapsed(self.now.instant).saturating_sub(heard);
            self.now.unix_ms.saturating_sub(behind.as_millis() as u64)
        });
        Some(proto::Agent {
            state: wish.map_or("silent", |wish| wish.word()).to_owned(),
            percent: wish.map(|wish| wish.percent),
            note: wish.and_then(|wish| wish.note.clone()),
            part: agent.part().number(),
            since_ms: wish.map(|_| agent.since_ms()),
            heard_at_ms: heard,
            failure: agent.failure().map(str::to_owned),
            ignored: ignored.map(str::to_owned),
        })
    }
}
