//! Configurations are put in force, confirmed and taken back.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use log::{info, warn};
use serde_json::json;

use super::{
    Now, PATIENCE,
    examine::{complete, in_a_line},
    footing::{Newcomer, Newcomers},
    probes::Ways,
    state::State,
};
use crate::{
    admin::{
        proto::change::{Configuration, Finding, Outcome, Plan},
        server::change::{Actor, Answer, Answerer, Because, Refused},
    },
    balance::image::Numbers,
    causes::with_causes,
    change::fixed::settings,
    health::{driver::Report, schedule::FIRST_ROUND},
    journal::{Event, Kind, Level},
    kept::{
        configurations::{Entry, InForce, digest},
        opening::digest_of_file,
    },
    model::{Backend, Config, Service},
    neighbours::Unresolved,
};

/// A service, and those of its backends that are new.
type Newcoming = (Service, Vec<Backend>);

/// A configuration that somebody wants in force.
pub(super) struct Wish {
    pub(super) text: String,
    pub(super) file: String,
    /// `apply`, `rollback` or `reload`.
    pub(super) how: &'static str,
    pub(super) by: Actor,
    pub(super) reason: Option<String>,
    pub(super) confirm_within: Option<Duration>,
    /// Whether the audit's errors refuse it.
    pub(super) bars: Bars,
    pub(super) copy_of: Option<u64>,
}

/// What the audit's errors do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bars {
    /// They refuse it.
    Closed,
    /// They are overruled, and that is told.
    Forced,
    /// They were there before: it is an earlier configuration.
    Open,
}

/// A change that waits for first answers of new backends.
pub(super) struct Pending {
    wish: Wish,
    filed: Config,
    findings: Vec<Finding>,
    newcomers: Vec<Newcoming>,
    /// The numbers that they will have, by which their probes are steered until then.
    numbers: Numbers,
    reports: BTreeMap<Newcomer, Report>,
    /// How many of them are probed.
    probed: usize,
    deadline: Instant,
    answer: Option<Answerer>,
}

fn refused(because: Because, error: impl Into<String>) -> Refused {
    Refused::new(because, error)
}

impl State {
    /// Puts a configuration in force, now or when its new backends have been looked at. The answer
    /// follows.
    pub(super) fn begin_change(&mut self, wish: Wish, answer: Option<Answerer>, now: Now) {
        self.now = now;
        match self.examine(&wish) {
            Ok(_) if self.is_in_force(&wish) => self.already_in_force(answer),
            Ok((filed, findings)) => {
                // It was looked at with the same outcome a moment ago.
                let footing = self.footing(&filed, &self.overrides, Newcomers::Unknown);
                let numbers = footing.map_or_else(|_| self.numbers.clone(), |of| of.numbers);
                let newcomers = self.newcomers(&filed);
                let patience = newcomers
                    .iter()
                    .filter_map(|(service, _)| service.health.as_ref())
                    .map(|check| check.timeout + check.interval.min(FIRST_ROUND))
                    .max()
                    .unwrap_or_default();
                let of = |(service, backends): &(Service, Vec<Backend>)| {
                    let probed = service.health.is_some();
                    if probed { backends.len() } else { 0 }
                };
                self.pending = Some(Pending {
                    probed: newcomers.iter().map(of).sum(),
                    wish,
                    filed,
                    findings,
                    deadline: now.instant + patience + PATIENCE,
                    newcomers,
                    numbers,
                    reports: BTreeMap::new(),
                    answer,
                });
                self.targets_changed = true;
                self.aim_probes();
                self.settle_change(now);
            }
            Err(refusal) => self.refuse_change(&wish, refusal, answer),
        }
    }

    fn is_in_force(&self, wish: &Wish) -> bool {
        let sha256 = digest(&wish.text);
        self.kept.digest_in_force() == Some(&*sha256) && self.identity.config_sha256 == sha256
    }

    /// Whether the controller's own file is about to come into force.
    pub(super) fn reloading(&self) -> bool {
        let pending = self.pending.as_ref();
        pending.is_some_and(|pending| pending.wish.how == "reload")
    }

    /// Answers that there is nothing to do.
    fn already_in_force(&mut self, answer: Option<Answerer>) {
        let configuration = self.configuration();
        let message = format!(
            "nothing to change: it is configuration {}, which is in force",
            configuration.number
        );
        info!("{message}");
        let outcome = Outcome {
            message,
            configuration,
            generation: self.generation(),
            plan: Plan::default(),
        };
        self.answer(answer, Ok(Answer::Outcome(Box::new(outcome))));
    }

    /// The backends that a change waits for, and how their probes will be steered.
    pub(super) fn expected(&self) -> Option<(&[Newcoming], Ways<'_>)> {
        let of = self.pending.as_ref()?;
        let ways = Ways {
            numbers: &of.numbers,
            tunnel: &of.filed.tunnel,
        };
        Some((&of.newcomers, ways))
    }

    /// Goes on with the change that waits, where it need not wait any more.
    pub(super) fn settle_change(&mut self, now: Now) {
        let Some(pending) = &self.pending else {
            return;
        };
        let new = pending.newcomers.iter().flat_map(|(_, backends)| backends);
        let sought = |backend: &Backend| {
            let hop = self.hops.hops.get(&backend.address);
            matches!(hop, None | Some(Err(Unresolved::Waiting { .. })))
        };
        let waits = pending.reports.len() < pending.probed || new.into_iter().any(sought);
        if waits && now.instant < pending.deadline {
            return;
        }
        let Some(pending) = self.pending.take() else {
            return;
        };
        self.targets_changed = true;
        match self.put_in_force(&pending, now) {
            Ok(outcome) => self.answer(pending.answer, Ok(Answer::Outcome(Box::new(outcome)))),
            Err(refusal) => self.refuse_change(&pending.wish, refusal, pending.answer),
        }
    }

    /// Takes note of a probe of a backend that is not in force yet.
    pub(super) fn note_newcomer(&mut self, report: &Report) {
        let Some(pending) = &mut self.pending else {
            return;
        };
        let is = |(service, backends): &(Service, Vec<Backend>)| {
            let named = |b: &Backend| b.name == report.backend && b.address == report.address;
            service.name == report.service && backends.iter().any(named)
        };
        if pending.newcomers.iter().any(is) {
            let who = (
                report.service.clone(),
                report.backend.clone(),
                report.address,
            );
            pending.reports.insert(who, report.clone());
        }
    }

    /// The backends that a change waits for.
    pub(super) fn waiting_newcomers(&self) -> impl Iterator<Item = &(Service, Vec<Backend>)> {
        self.pending.iter().flat_map(|pending| &pending.newcomers)
    }

    /// Keeps a configuration, and lets packets follow it.
    fn put_in_force(&mut self, pending: &Pending, now: Now) -> Result<Outcome, Refused> {
        self.now = now;
        let wish = &pending.wish;
        let failed = |error: String| refused(Because::Failed, format!("nothing changed: {error}"));
        let sha256 = digest(&wish.text);
        let footing = self
            .footing(&pending.filed, &self.overrides, Newcomers::Unknown)
            .map_err(|e| failed(with_causes(&e)))?;
        let settings = settings(&self.filed, &pending.filed);
        let forced: Vec<String> = pending
            .findings
            .iter()
            .filter(|finding| wish.bars == Bars::Forced && finding.is_alarming())
            .map(in_a_line)
            .collect();
        let before = self.kept.in_force().cloned();
        let entry = Entry {
            sha256: sha256.clone(),
            file: wish.file.clone(),
            at_ms: now.unix_ms,
            actor: wish.by.name.clone(),
            how: wish.how.to_owned(),
            reason: wish.reason.clone(),
            copy_of: wish.copy_of,
            forced: forced.clone(),
        };
        let number = self
            .kept
            .add(entry, &wish.text)
            .map_err(|e| failed(e.to_string()))?;
        let wait = wish.confirm_within.map(|wait| wait.as_millis() as u64);
        let in_force = InForce {
            number,
            before: before.as_ref().map(|of| of.number),
            file: self.identity.config_file.display().to_string(),
            file_sha256: digest_of_file(&self.identity.config_file).ok(),
            unapplied_sha256: None,
            confirm_by_ms: wait.map(|wait| now.unix_ms + wait),
        };
        if let Err(e) = self.kept.put_in_force(in_force) {
            self.kept.remove(number);
            return Err(failed(e.to_string()));
        }
        let seen = self.snapshot();
        let reports: Vec<Report> = pending.reports.values().cloned().collect();
        let why = format!(
            "configuration {number} {} by {}",
            done(wish.how),
            wish.by.name
        );
        if let Err(refusal) = self.stand_on(footing, &reports, why, now) {
            if let Some(before) = before
                && let Err(e) = self.kept.put_in_force(before)
            {
                warn!("{e}");
            }
            self.kept.remove(number);
            return Err(failed(with_causes(&refusal)));
        }
        self.identity.config_sha256 = sha256;
        self.own_file.look_again();
        self.watch_file();
        let changes = seen.changes_to(&self.snapshot());
        let plan = complete(
            Plan {
                settings,
                findings: pending.findings.clone(),
                ..Plan::default()
            },
            changes,
        );
        Ok(self.tell_change(wish, number, &forced, plan))
    }

    /// Tells that a configuration is in force.
    fn tell_change(&self, wish: &Wish, number: u64, forced: &[String], plan: Plan) -> Outcome {
        let who = &wish.by.name;
        let mut message = format!("configuration {number} {} by {who}", done(wish.how));
        // Writing to a string cannot fail.
        if let Some(copy) = wish.copy_of {
            let _ = write!(message, ", the text of configuration {copy}");
        }
        if let Some(reason) = &wish.reason {
            let _ = write!(message, ": {reason}");
        }
        if let Some(wait) = wish.confirm_within {
            let wait = humantime::format_duration(wait);
            let _ = write!(
                message,
                "; it is taken back unless it is confirmed within {wait}"
            );
        }
        let level = if forced.is_empty() {
            Level::Info
        } else {
            let _ = write!(message, "; FORCED against the audit: {}", forced.join("; "));
            Level::Warning
        };
        let event = self.event(Kind::Change, level, message.clone());
        let detail = json!({
            "what": wish.how, "configuration": number, "copy_of": wish.copy_of,
            "file": wish.file, "sha256": self.identity.config_sha256,
            "uid": wish.by.uid, "reason": wish.reason, "forced": forced,
            "confirm_within_s": wish.confirm_within.map(|wait| wait.as_secs_f64()),
            "slots_moved": plan.slots_moved, "settings": plan.settings,
            "services": plan.services, "findings": plan.findings,
        });
        self.tell(Event {
            actor: who.clone(),
            ..event.detail(detail)
        });
        Outcome {
            message,
            configuration: self.configuration(),
            generation: self.generation(),
            plan,
        }
    }

    /// Tells that a configuration was not taken, and answers.
    pub(super) fn refuse_change(
        &mut self,
        wish: &Wish,
        refusal: Refused,
        answer: Option<Answerer>,
    ) {
        let who = &wish.by.name;
        let message = format!(
            "{} of {} by {who} refused: {}",
            wish.how, wish.file, refusal.error
        );
        let event = self.event(Kind::Change, Level::Warning, message);
        let detail = json!({
            "what": "refused", "how": wish.how, "file": wish.file,
            "sha256": digest(&wish.text), "uid": wish.by.uid, "reason": wish.reason,
            "findings": refusal.findings,
        });
        self.tell(Event {
            actor: who.clone(),
            ..event.detail(detail)
        });
        self.answer(answer, Err(refusal));
    }

    /// Answers, once the status shows it.
    pub(super) fn answer(&mut self, to: Option<Answerer>, answer: Result<Answer, Refused>) {
        if let Some(to) = to {
            self.answers.push((to, answer));
        }
    }

    /// The configuration in force, as the API shows it.
    pub(super) fn configuration(&self) -> Configuration {
        let number = self.kept.in_force().map(|of| of.number);
        let shown = number.and_then(|number| self.kept.shown(number));
        Configuration {
            in_force: true,
            sha256: self.identity.config_sha256.clone(),
            file_differs: self.own_file.differs.clone(),
            ..shown.unwrap_or_default()
        }
    }
}

/// What was done, in the word for it.
fn done(how: &str) -> &'static str {
    match how {
        "rollback" => "put in force again",
        "reload" => "reloaded",
        _ => "applied",
    }
}
