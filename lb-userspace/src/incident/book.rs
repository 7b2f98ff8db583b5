//! All incidents, as their steps make them.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Deserialize as _;
use serde_json::Value;

use super::{Incident, Part, Refusal, Seen, Sign, Step, What};
use crate::{
    admin::proto::incident::{self as proto, Action},
    model::{Incidents, Severity},
};

/// What began this long before an incident is not a part of it, in milliseconds.
pub(super) const LEAD: u64 = 600_000;
/// How long after a start an alert from before is taken to be on while nothing can be told, in
/// milliseconds: detectors warm up.
pub(super) const BENEFIT: u64 = 300_000;
/// Incidents that are over and still known by a running controller.
const PAST: usize = 100;

/// A book that detectors and people write into.
pub type Shared = Arc<Mutex<Book>>;

/// The book, for as long as it takes to look or to write.
pub fn lock(book: &Shared) -> MutexGuard<'_, Book> {
    // A step is taken as a whole or told again: a panic leaves nothing half done.
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All incidents that are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    incidents: Vec<Incident>,
    /// Alerts that were on when somebody closed their incident: until they end they open none.
    dismissed: Vec<Sign>,
    started_ms: u64,
}

impl Book {
    /// A book of what was told before, each step with its moment, in order. What is no step is
    /// passed over: a newer version may know more.
    #[must_use]
    pub fn read<'a>(now_ms: u64, told: impl IntoIterator<Item = (u64, &'a Value)>) -> Self {
        let mut book = Self {
            started_ms: now_ms,
            ..Self::default()
        };
        for (at_ms, detail) in told {
            if let Ok(step) = Step::deserialize(detail) {
                book.take(at_ms, &step);
            }
        }
        // What was seen before is to be seen again.
        for part in book.incidents.iter_mut().flat_map(|of| &mut of.parts) {
            part.seen = false;
        }
        book
    }

    /// All that are known, the oldest first.
    #[must_use]
    pub fn all(&self) -> &[Incident] {
        &self.incidents
    }

    /// Those that are open, the oldest first.
    pub fn open(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.iter().filter(|of| of.closed_ms.is_none())
    }

    /// One by its name.
    #[must_use]
    pub fn named(&self, id: &str) -> Option<&Incident> {
        self.incidents.iter().find(|incident| incident.id == id)
    }

    /// The open incident that an alert belongs to.
    #[must_use]
    pub fn of_alert(&self, sign: &Sign) -> Option<&Incident> {
        let mut open = self.open();
        open.find(|incident| incident.signs().any(|own| own.is(sign)))
    }

    /// Takes what is wrong now, and answers the steps that follow from it. The book has taken them.
    pub fn observe(&mut self, now_ms: u64, seen: &[Seen], rules: &Incidents) -> Vec<Step> {
        let mut steps = Vec::new();
        let early = now_ms < self.started_ms + BENEFIT;
        self.dismissed
            .retain(|sign| early || seen.iter().any(|of| of.sign.is(sign)));
        for of in seen.iter().filter(|of| of.sign.counts()) {
            let step = self.place(now_ms, of, rules.opened_by);
            steps.extend(step.inspect(|step| self.take(now_ms, step)));
        }
        for n in 0..self.incidents.len() {
            let step = self.pass(n, now_ms, seen, rules.close_after);
            steps.extend(step.inspect(|step| self.take(now_ms, step)));
        }
        let past = self.incidents.len() - self.open().count();
        let mut gone = past.saturating_sub(PAST);
        self.incidents.retain(|incident| {
            let goes = gone > 0 && incident.closed_ms.is_some();
            gone -= usize::from(goes);
            !goes
        });
        steps
    }

    /// Finds an alert's place: what it is known by, joins, or opens.
    fn place(&mut self, now_ms: u64, of: &Seen, opened_by: Severity) -> Option<Step> {
        let sign = &of.sign;
        let mut open = self.incidents.iter_mut();
        let own = open.find(|own| own.closed_ms.is_none() && own.service == sign.service);
        if let Some(incident) = own {
            let start_ms = incident.start_ms;
            if let Some(part) = incident.part(sign) {
                part.seen = true;
                let again = !std::mem::replace(&mut part.on, true);
                return again
                    .then(|| incident.step(What::Relapse, "controller", vec![sign.clone()], None));
            }
            let joins = sign.since_ms + LEAD >= start_ms;
            return joins
                .then(|| incident.step(What::Alert, "controller", vec![sign.clone()], None));
        }
        let dismissed = self.dismissed.iter().any(|known| known.is(sign));
        if !of.firing || !sign.opens(opened_by) || dismissed {
            return None;
        }
        Some(Step {
            id: self.next_id(now_ms),
            step: What::Open,
            service: sign.service.clone(),
            drill: sign.drill.clone(),
            alerts: vec![sign.clone()],
            by: "controller".to_owned(),
            text: Some(format!("{}: {}", sign.name, sign.summary)),
        })
    }

    /// Looks whether an incident is over.
    fn pass(
        &mut self,
        n: usize,
        now_ms: u64,
        seen: &[Seen],
        close_after: Duration,
    ) -> Option<Step> {
        let early = now_ms < self.started_ms + BENEFIT;
        let incident = &mut self.incidents[n];
        if incident.closed_ms.is_some() || incident.parts.is_empty() {
            return None;
        }
        for part in &mut incident.parts {
            let is_on = seen.iter().any(|of| of.sign.is(&part.sign));
            part.on = is_on || (part.on && early && !part.seen);
        }
        if incident.parts.iter().any(|part| part.on) {
            return None;
        }
        let Some(mitigated_ms) = incident.mitigated_ms else {
            return Some(incident.step(What::Mitigated, "controller", Vec::new(), None));
        };
        let quiet = now_ms >= mitigated_ms + close_after.as_millis() as u64;
        // Who opened one by hand knows of more than alerts.
        (quiet && incident.by == "controller").then(|| {
            let time = humantime::format_duration(close_after);
            let text = Some(format!("it has been quiet for {time}"));
            incident.step(What::Close, "controller", Vec::new(), text)
        })
    }

    /// Grants a wish: answers the step, which the book has taken.
    ///
    /// # Errors
    /// Where there is nothing that it could be about.
    pub fn wish(&mut self, now_ms: u64, by: &str, wish: &proto::Wish) -> Result<Step, Refusal> {
        let text = wish.text.as_ref().map(|text| text.trim().to_owned());
        let text = text.filter(|text| !text.is_empty());
        if matches!(wish.action, Action::Open | Action::Note) && text.is_none() {
            return Err(Refusal::Empty);
        }
        let what = match wish.action {
            Action::Open => {
                let step = self.opened(now_ms, by, wish, text)?;
                self.take(now_ms, &step);
                return Ok(step);
            }
            Action::Ack => What::Ack,
            Action::Note => What::Note,
            Action::Close => What::Close,
        };
        let incident = self.meant(wish.id.as_deref())?;
        if let (What::Ack, Some((by, _))) = (what, &incident.acknowledged) {
            let (id, by) = (incident.id.clone(), by.clone());
            return Err(Refusal::Acknowledged { id, by });
        }
        let on = incident.parts.iter().filter(|part| part.on);
        let alerts = match what {
            What::Close => on.map(|part| part.sign.clone()).collect(),
            _ => Vec::new(),
        };
        let step = incident.step(what, by, alerts, text);
        self.take(now_ms, &step);
        Ok(step)
    }

    fn opened(
        &self,
        now_ms: u64,
        by: &str,
        wish: &proto::Wish,
        text: Option<String>,
    ) -> Result<Step, Refusal> {
        if let Some(open) = self.open().find(|open| open.service == wish.service) {
            return Err(Refusal::Open(open.id.clone()));
        }
        Ok(Step {
            id: self.next_id(now_ms),
            step: What::Open,
            service: wish.service.clone(),
            drill: wish.drill.clone(),
            alerts: Vec::new(),
            by: by.to_owned(),
            text,
        })
    }

    fn meant(&self, id: Option<&str>) -> Result<&Incident, Refusal> {
        if let Some(id) = id {
            let found = self.named(id);
            let found = found.ok_or_else(|| Refusal::Unknown(id.to_owned()))?;
            if found.closed_ms.is_some() {
                return Err(Refusal::Closed(id.to_owned()));
            }
            return Ok(found);
        }
        let open: Vec<&Incident> = self.open().collect();
        match *open {
            [] => Err(Refusal::NoneOpen),
            [only] => Ok(only),
            _ => Err(Refusal::Several(
                open.iter().map(|of| of.id.clone()).collect(),
            )),
        }
    }

    /// The day, and a number that no other incident of that day has.
    fn next_id(&self, now_ms: u64) -> String {
        let at = std::time::UNIX_EPOCH + Duration::from_millis(now_ms);
        let day = humantime::format_rfc3339_seconds(at).to_string()[..10].replace('-', "");
        let taken: BTreeSet<u32> = self
            .incidents
            .iter()
            .filter_map(|of| of.id.strip_prefix(&format!("{day}-"))?.parse().ok())
            .collect();
        let number = taken.last().map_or(1, |last| last + 1);
        format!("{day}-{number}")
    }

    /// Takes a step: the one place where an incident changes.
    fn take(&mut self, at_ms: u64, step: &Step) {
        if step.step == What::Open {
            let since = step.alerts.iter().map(|sign| sign.since_ms).min();
            self.incidents.push(Incident {
                id: step.id.clone(),
                service: step.service.clone(),
                drill: step.drill.clone(),
                text: step.text.clone().unwrap_or_default(),
                by: step.by.clone(),
                opened_ms: at_ms,
                start_ms: since.unwrap_or(at_ms).min(at_ms),
                acknowledged: None,
                mitigated_ms: None,
                closed_ms: None,
                parts: Vec::new(),
            });
        }
        let Some(incident) = self.incidents.iter_mut().find(|of| of.id == step.id) else {
            // Its beginning is too old to be kept.
            return;
        };
        match step.step {
            What::Open | What::Alert | What::Relapse => {
                for sign in &step.alerts {
                    incident.start_ms = incident.start_ms.min(sign.since_ms);
                    incident.mitigated_ms = None;
                    match incident.part(sign) {
                        Some(part) => part.on = true,
                        None => incident.parts.push(Part {
                            sign: sign.clone(),
                            on: true,
                            seen: true,
                        }),
                    }
                }
            }
            What::Mitigated => {
                incident.mitigated_ms = Some(at_ms);
                for part in &mut incident.parts {
                    part.on = false;
                }
            }
            What::Ack => incident.acknowledged = Some((step.by.clone(), at_ms)),
            What::Note => {}
            What::Close => {
                incident.closed_ms = Some(at_ms);
                self.dismissed.extend(step.alerts.iter().cloned());
            }
        }
    }
}
