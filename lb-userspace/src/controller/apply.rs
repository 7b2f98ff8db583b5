//! Configurations are put in force, confirmed and taken back.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant, SystemTime},
};

use ipnet::IpNet;
use log::{info, warn};
use serde_json::json;

use super::{
    Now, PATIENCE,
    footing::{Newcomer, Newcomers},
    state::State,
};
use crate::{
    admin::{
        proto::change::{Configuration, Finding, Outcome, Plan, Request, Rollback},
        server::change::{Actor, Answer, Answerer, Because, Refused},
    },
    audit,
    causes::with_causes,
    change::fixed::{fixed, settings},
    config,
    doctor::gather::addresses,
    health::{driver::Report, schedule::FIRST_ROUND},
    journal::{Event, Kind, Level},
    kept::{
        configurations::{Entry, InForce, digest},
        opening::digest_of_file,
    },
    model::{Backend, Config, Service},
    neighbours::Unresolved,
};

/// The longest time that a confirmation is waited for.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

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
    newcomers: Vec<(Service, Vec<Backend>)>,
    reports: BTreeMap<Newcomer, Report>,
    /// How many of them are probed.
    probed: usize,
    deadline: Instant,
    answer: Option<Answerer>,
}

/// What is known of the controller's own file.
#[derive(Debug, Default)]
pub(super) struct OwnFile {
    /// When it was last written, and its length; `None` where it was not read yet.
    seen: Option<Option<(SystemTime, u64)>>,
    differs: Option<String>,
}

fn refused(because: Because, error: impl Into<String>) -> Refused {
    Refused::new(because, error)
}

impl State {
    /// What a configuration would change.
    pub(super) fn ask_plan(&mut self, request: &Request, now: Now) -> Result<Answer, Refused> {
        self.now = now;
        let filed = parse(&request.file, &request.text)?;
        let mut plan = Plan {
            fixed: fixed(&self.filed, &filed),
            settings: settings(&self.filed, &filed),
            findings: audit(&filed),
            ..Plan::default()
        };
        let new = self.newcomers(&filed);
        let named = |(service, backends): &(Service, Vec<Backend>)| -> Vec<String> {
            let name = |backend: &Backend| format!("{}/{}", service.name, backend.name);
            backends.iter().map(name).collect()
        };
        plan.assumed = new.iter().flat_map(named).collect();
        let footing = self
            .footing(&filed, &self.overrides, Newcomers::Up)
            .map_err(|e| refused(Because::Invalid, with_causes(&e)))?;
        let before = self.snapshot();
        let after = self.foresee(footing, now);
        Ok(Answer::Plan(Box::new(complete(
            plan,
            before.changes_to(&after),
        ))))
    }

    /// Puts a configuration in force, now or when its new backends have been looked at. The answer
    /// follows.
    pub(super) fn begin_change(&mut self, wish: Wish, answer: Option<Answerer>, now: Now) {
        self.now = now;
        match self.examine(&wish) {
            Ok(_) if self.is_in_force(&wish) => self.already_in_force(answer),
            Ok((filed, findings)) => {
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
                    reports: BTreeMap::new(),
                    answer,
                });
                self.targets_changed = true;
                self.settle_change(now);
            }
            Err(refusal) => self.refuse_change(&wish, refusal, answer),
        }
    }

    fn is_in_force(&self, wish: &Wish) -> bool {
        let sha256 = digest(&wish.text);
        self.kept.digest_in_force() == Some(&*sha256) && self.identity.config_sha256 == sha256
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

    /// Whether a configuration may come into force.
    fn examine(&self, wish: &Wish) -> Result<(Config, Vec<Finding>), Refused> {
        if !self.attached() || self.waiting_for_all() {
            let error = "the controller is still starting: try again in a few seconds";
            return Err(refused(Because::Busy, error));
        }
        if self.pending.is_some() {
            let error = "another change is under way: try again in a few seconds";
            return Err(refused(Because::Busy, error));
        }
        let unconfirmed = self.kept.in_force().filter(|of| of.confirm_by_ms.is_some());
        if let (Some(of), true) = (unconfirmed, wish.how != "rollback") {
            let error = format!(
                "configuration {} waits for its confirmation: 'evenkeel confirm' keeps it, 'evenkeel \
                 rollback' takes it back",
                of.number
            );
            return Err(refused(Because::Conflict, error));
        }
        let filed = parse(&wish.file, &wish.text)?;
        let fixed = fixed(&self.filed, &filed);
        if !fixed.is_empty() {
            let line =
                |f: &crate::admin::proto::change::Fixed| format!("\n  {}: {}", f.key, f.remedy);
            let lines: Vec<String> = fixed.iter().map(line).collect();
            let error = format!(
                "what cannot be changed while the controller runs differs from what is in force:{}",
                lines.concat()
            );
            return Err(refused(Because::Conflict, error));
        }
        let findings = audit(&filed);
        let alarming = || findings.iter().filter(|finding| finding.is_alarming());
        if wish.bars == Bars::Closed && alarming().next().is_some() {
            let lines: Vec<String> = alarming()
                .map(|f| format!("\n  {}", in_a_line(f)))
                .collect();
            let error = format!(
                "the audit finds what would hurt:{}\n  ('--force --reason TEXT' does it \
                 nevertheless, and the journal says who and why)",
                lines.concat()
            );
            return Err(Refused {
                findings,
                ..refused(Because::Conflict, error)
            });
        }
        if wish.bars == Bars::Forced && wish.reason.is_none() {
            let error = "force needs a reason, for whoever reads the journal: add '--reason TEXT'";
            return Err(refused(Because::Invalid, error));
        }
        if let Some(wait) = wish.confirm_within {
            if wait.is_zero() || wait > LONGEST_WAIT {
                let error = "a confirmation can be waited for from 1 s to 24 h";
                return Err(refused(Because::Invalid, error));
            }
            if self.kept.in_force().is_none() {
                let error = format!(
                    "what is in force is not kept, so nothing could come back: see that {} can be \
                     written, and restart the controller",
                    self.config.state.directory.display()
                );
                return Err(refused(Because::Failed, error));
            }
        }
        self.footing(&filed, &self.overrides, Newcomers::Unknown)
            .map_err(|e| refused(Because::Invalid, with_causes(&e)))?;
        Ok((filed, findings))
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
        self.own_file.seen = None;
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
        if let Some(copy) = wish.copy_of {
            message += &format!(", the text of configuration {copy}");
        }
        if let Some(reason) = &wish.reason {
            message += &format!(": {reason}");
        }
        if let Some(wait) = wish.confirm_within {
            let wait = humantime::format_duration(wait);
            message += &format!("; it is taken back unless it is confirmed within {wait}");
        }
        let level = if forced.is_empty() {
            Level::Info
        } else {
            message += &format!("; FORCED against the audit: {}", forced.join("; "));
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
    fn refuse_change(&mut self, wish: &Wish, refusal: Refused, answer: Option<Answerer>) {
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

    /// Keeps the last change.
    pub(super) fn confirm(&mut self, by: &Actor, now: Now) -> Result<Answer, Refused> {
        self.now = now;
        let unconfirmed = self.kept.in_force().filter(|of| of.confirm_by_ms.is_some());
        let Some(of) = unconfirmed.cloned() else {
            let error = "nothing waits for a confirmation: 'evenkeel rollback --list' says what is \
                         in force";
            return Err(refused(Because::Conflict, error));
        };
        let number = of.number;
        self.kept
            .put_in_force(InForce {
                confirm_by_ms: None,
                ..of
            })
            .map_err(|e| refused(Because::Failed, format!("not confirmed: {e}")))?;
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
            return self.refuse_change(&wish, refused(Because::Unknown, error), answer);
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
                self.refuse_change(&wish, refused(Because::Unknown, e.to_string()), answer);
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

    /// Reads the controller's own file again.
    pub(super) fn reload(&mut self, now: Now) {
        self.now = now;
        let file = self.identity.config_file.clone();
        let read = fs::read_to_string(&file);
        let wish = Wish {
            text: read.as_deref().unwrap_or_default().to_owned(),
            file: file.display().to_string(),
            how: "reload",
            by: Actor {
                uid: None,
                name: "SIGHUP".to_owned(),
            },
            reason: None,
            confirm_within: None,
            bars: Bars::Closed,
            copy_of: None,
        };
        match read {
            Ok(_) => self.begin_change(wish, None, now),
            Err(e) => {
                let error = format!("cannot read {}: {e}", file.display());
                self.refuse_change(&wish, refused(Because::Failed, error), None);
            }
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

    /// Looks whether the controller's own file says what is in force. What somebody edits and does
    /// not apply must not come into force by a crash.
    pub(super) fn watch_file(&mut self) {
        let file = &self.identity.config_file;
        let seen = fs::metadata(file).and_then(|meta| Ok((meta.modified()?, meta.len())));
        let seen = seen.ok();
        if self.own_file.seen.replace(seen) == Some(seen) {
            return;
        }
        let name = file.display();
        let of = self.kept.in_force().cloned();
        let found = digest_of_file(file);
        let is = |digest: &str| found.as_ref().is_ok_and(|found| found == digest);
        let was = of.as_ref().and_then(|of| of.file_sha256.as_deref());
        self.own_file.differs = if is(&self.identity.config_sha256) {
            None
        } else if was.is_some_and(is) {
            Some(format!(
                "{name} says something else than what is in force, and a restart keeps that: write \
                 it there too"
            ))
        } else {
            Some(match &found {
                Ok(_) => format!(
                    "{name} was changed and is not in force: 'evenkeel plan {name}' shows what it \
                     changes, 'evenkeel apply {name}' does it, and so would a restart"
                ),
                Err(e) => format!("{name} cannot be read ({e}): a restart keeps what is in force"),
            })
        };
        let Some(of) = of else {
            return;
        };
        let unapplied = found.ok().filter(|found| {
            *found != self.identity.config_sha256 && Some(found) != of.file_sha256.as_ref()
        });
        if unapplied == of.unapplied_sha256 {
            return;
        }
        if let Some(differs) = &self.own_file.differs {
            let event = self.event(Kind::Change, Level::Warning, differs.clone());
            self.tell(event.detail(json!({ "what": "file-differs" })));
        }
        let next = InForce {
            unapplied_sha256: unapplied,
            ..of
        };
        if let Err(e) = self.kept.put_in_force(next) {
            warn!("{e}");
        }
    }

    /// The controller ends as it is told: the next one reads the file.
    pub(super) fn forget_unapplied(&mut self) {
        let of = self.kept.in_force().cloned();
        if let Some(of) = of.filter(|of| of.unapplied_sha256.is_some())
            && let Err(e) = self.kept.put_in_force(InForce {
                unapplied_sha256: None,
                ..of
            })
        {
            warn!("{e}");
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

fn parse(file: &str, text: &str) -> Result<Config, Refused> {
    config::parse(file, text)
        .map_err(|findings| refused(Because::Invalid, format!("not valid:\n{findings}")))
}

/// What the audit finds, the worst first.
fn audit(filed: &Config) -> Vec<Finding> {
    let local: Vec<IpNet> = addresses().unwrap_or_else(|e| {
        warn!("the addresses of this host are not known to the audit: {e}");
        Vec::new()
    });
    let mut findings = audit::config::judge(filed, &local);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    findings
        .into_iter()
        .map(|finding| Finding {
            rule: finding.rule.to_owned(),
            level: finding.level.name().to_owned(),
            service: finding.service,
            backend: finding.backend,
            what: finding.what,
            why: finding.why.to_owned(),
            remedy: finding.remedy,
        })
        .collect()
}

fn in_a_line(finding: &Finding) -> String {
    let place = finding.place();
    let colon = if place.is_empty() { "" } else { ": " };
    let Finding {
        rule,
        level,
        what,
        why,
        remedy,
        ..
    } = finding;
    format!("{rule} {level} {place}{colon}{what}; {why}; {remedy}")
}

/// A plan with what a comparison of slots says.
fn complete(plan: Plan, changes: Plan) -> Plan {
    Plan {
        changes: changes.changes || !plan.settings.is_empty() || !plan.fixed.is_empty(),
        slots_moved: changes.slots_moved,
        services: changes.services,
        unchanged: changes.unchanged,
        ..plan
    }
}
