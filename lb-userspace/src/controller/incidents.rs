//! Incidents as people open, acknowledge, annotate and close them while the controller runs. What
//! detectors open and close is told beside the alerts.

use super::{Now, state::State};
use crate::{
    admin::{
        proto::incident::{self as proto, Action, Done},
        server::change::{Actor, Answer, Because, Refused},
    },
    causes::with_causes,
    incident::{self, Book, Incident, Refusal},
    journal::{self, Event, incidents::event},
};

/// The incidents that the journal tells of. Where it cannot be read, they are what happens from now on.
pub(super) fn known(directory: &std::path::Path, now_ms: u64) -> incident::Shared {
    let book = journal::incidents::read(directory, now_ms).unwrap_or_else(|e| {
        if !matches!(e, journal::Error::Missing(_)) {
            log::warn!("open incidents are not known: {}", with_causes(&e));
        }
        Book::read(now_ms, [])
    });
    std::sync::Arc::new(std::sync::Mutex::new(book))
}

impl State {
    /// Opens an incident, or does something about one.
    pub(super) fn incident(
        &mut self,
        by: &Actor,
        wish: &proto::Wish,
        now: Now,
    ) -> Result<Answer, Refused> {
        self.now = now;
        if let (Action::Open, Some(service)) = (wish.action, &wish.service) {
            self.named_service(service)?;
        }
        let (step, incident) = {
            let mut book = incident::lock(&self.incidents);
            let step = book
                .wish(now.unix_ms, &by.name, wish)
                .map_err(|refusal| refused(&refusal))?;
            let incident = book.named(&step.id).map(Incident::shown);
            (step, incident)
        };
        self.tell(Event {
            generation: self.generation(),
            ..event(now.unix_ms, &step)
        });
        let message = step.describe();
        let incident = incident.ok_or_else(|| refused(&Refusal::Unknown(step.id)))?;
        Ok(Answer::Incident(Box::new(Done { message, incident })))
    }

    /// The incidents that are open.
    pub(super) fn open_incidents(&self) -> Vec<proto::Incident> {
        incident::lock(&self.incidents)
            .open()
            .map(Incident::shown)
            .collect()
    }
}

fn refused(refusal: &Refusal) -> Refused {
    let because = match refusal {
        Refusal::Empty => Because::Invalid,
        Refusal::NoneOpen | Refusal::Unknown(_) => Because::Unknown,
        _ => Because::Conflict,
    };
    Refused::new(because, refusal.to_string())
}
