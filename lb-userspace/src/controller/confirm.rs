//! Changes are confirmed, or taken back.

use log::warn;
use serde_json::json;

use super::{
    Now,
    apply::{Bars, Wish},
    state::State,
};
use crate::{
    admin::{
        proto::change::{Outcome, Plan, Rollback},
        server::change::{Actor, Answer, Answerer, Because, Refused},
    },
    journal::{Event, Kind, Level},
    kept::configurations::InForce,
};

impl State {
    /// Keeps the last change.
    pub(super) fn confirm(&mut self, by: &Actor, now: Now) -> Result<Answer, Refused> {
        self.now = now;
        let unconfirmed = self.kept.in_force().filter(|of| of.confirm_by_ms.is_some());
        let Some(of) = unconfirmed.cloned() else {
            let error = "nothing waits for a confirmation: 'evenkeel rollback --list' says what is \
                         in force";
            return Err(Refused::new(Because::Conflict, error));
        };
        let number = of.number;
        self.kept
            .put_in_force(InForce {
                confirm_by_ms: None,
                ..of
            })
            .map_err(|e| Refused::new(Because::Failed, format!("not confirmed: {e}")))?;
        let message = format!("configuration {number} confirmed by {}", by.name);
        let event = self.event(Kind::Change, Level::Info, message.clone());
        self.tell(Event {
            actor: by.name.clone(),
            ..event.detail(json!({
                "what": "confirmed", "configuration": number, "uid": by.uid,
            }))
        });
        Ok(Answer::Outcome(Box::new(Outcome {
            message,
            configuration: self.configuration(),
            generation: self.generation(),
            plan: Plan::default(),
        })))
    }

    /// Puts an earlier configuration in force.
    pub(super) fn begin_rollback(
        &mut self,
        by: Actor,
        rollback: Rollback,
        answer: Option<Answerer>,
        now: Now,
    ) {
        self.now = now;
        let before = self.kept.in_force().and_then(|of| of.before);
        let wish = |text, file, copy_of| Wish {
            text,
            file,
            how: "rollback",
            by,
            reason: rollback.reason,
            confirm_within: None,
            bars: Bars::Open,
            copy_of,
        };
        let Some(number) = rollback.to.or(before) else {
            let error = "there is no configuration before this one: 'evenkeel rollback --list' shows \
                         those that are kept";
            let wish = wish(String::new(), "nothing".to_owned(), None);
            return self.refuse_change(&wish, Refused::new(Because::Unknown, error), answer);
        };
        let name = format!("configuration {number}");
        match self.kept.text(number) {
            Ok(text) => {
                let file = self.kept.entry(number).map(|entry| entry.file.clone());
                let wish = wish(text, file.unwrap_or(name), Some(number));
                self.begin_change(wish, answer, now);
            }
            Err(e) => {
                let wish = wish(String::new(), name, Some(number));
                self.refuse_change(&wish, Refused::new(Because::Unknown, e.to_string()), answer);
            }
        }
    }

    /// Takes a change back whose confirmation did not come.
    pub(super) fn watch_confirmation(&mut self, now: Now) {
        let due = |of: &&InForce| of.confirm_by_ms.is_some_and(|by| by <= now.unix_ms);
        if self.pending.is_some() || !self.attached() {
            return;
        }
        let Some(of) = self.kept.in_force().filter(due).cloned() else {
            return;
        };
        let by = Actor {
            uid: None,
            name: "controller".to_owned(),
        };
        let rollback = Rollback {
            to: of.before,
            reason: Some(format!("configuration {} was not confirmed", of.number)),
        };
        self.begin_rollback(by, rollback, None, now);
        let still = self
            .kept
            .in_force()
            .is_some_and(|now| now.number == of.number);
        if still && self.pending.is_none() {
            // It was told why. Trying each second would tell nothing else.
            let given_up = InForce {
                confirm_by_ms: None,
                ..of
            };
            if let Err(e) = self.kept.put_in_force(given_up) {
                warn!("{e}");
            }
        }
    }
}
