//! What the controller logs, changed while it runs.

use serde_json::json;

use super::{Now, state::State};
use crate::{
    admin::{
        proto::{LogFilter, SetLogFilter},
        server::change::{Actor, Answer, Because, Refused},
    },
    journal::{Event, Kind, Level},
    logging,
};

/// The filter in force.
pub(super) fn shown() -> Answer {
    let filter = logging::filter().unwrap_or_default();
    Answer::Log(LogFilter { filter })
}

impl State {
    /// Puts another filter in force, until the controller ends.
    pub(super) fn set_log_filter(
        &mut self,
        by: &Actor,
        wish: &SetLogFilter,
        now: Now,
    ) -> Result<Answer, Refused> {
        self.now = now;
        let before = logging::filter();
        logging::set_filter(&wish.filter)
            .map_err(|e| Refused::new(Because::Invalid, e.to_string()))?;
        let after = logging::filter();
        if before != after {
            let message = format!(
                "{} logs '{}' instead of '{}'",
                by.name,
                after.as_deref().unwrap_or_default(),
                before.as_deref().unwrap_or_default()
            );
            let event = self.event(Kind::Change, Level::Info, message);
            let detail = json!({ "what": "log", "uid": by.uid, "filter": after, "before": before });
            self.tell(Event {
                actor: by.name.clone(),
                ..event.detail(detail)
            });
        }
        Ok(shown())
    }
}
