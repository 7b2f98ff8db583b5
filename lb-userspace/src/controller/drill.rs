//! Drills whose fault the controller brings about itself: in what it plans or publishes, or in what
//! it takes a backend's answers for.
//!
//! Such a drill is on disk before its fault is there. It ends by its time, by an operator, by who puts
//! the fault right, and where it does harm; whoever starts in its midst takes the fault back. What it
//! causes is its own until the service is as it was: events and alerts carry its name.

mod planned;
mod strike;

use std::time::Duration;

use log::{error, warn};
use serde_json::{Value, json};

use self::{
    planned::{Fault, drill_of},
    strike::Checks,
};
use super::{
    Now,
    apply::{Bars, Wish},
    state::State,
};
use crate::{
    admin::{
        proto::{
            Status,
            change::Rollback,
            drill::{Abort, Answer as Told, Request, Running},
        },
        server::change::{Actor, Answer, Because, Refused},
    },
    causes::with_causes,
    change::overrides::{Override, Overrides, Rule},
    dataplane::DataPlane as _,
    drill::{sight::Scene, watch::Watch},
    journal::{Event, Kind, Level},
    kept::drill::{self, Kept},
    model::{Config, Drill},
};

/// How long what is left of a drill is its own, in milliseconds.
const AFTERMATH: u64 = 10 * 60 * 1000;
/// How long a repair stays the drill's, in milliseconds: whoever is to be told has been by then.
const TELLING: u64 = 5_000;
/// How long a change waits for the confirmation that does not come.
const UNCONFIRMED: Duration = Duration::from_secs(20);

/// A drill that is on, or was a moment ago.
pub(super) struct Drilling {
    drill: Drill,
    kept: Kept,
    began: Now,
    watch: Watch,
    /// The configuration before, of a rollback.
    before: Option<u64>,
    /// What its backend's checks are taken for, of those that strike one.
    checks: Checks,
    /// Whether packets are taken, too.
    takes_packets: bool,
    /// When its fault was taken back, and why.
    ended: Option<(u64, String)>,
}

impl Drilling {
    fn scene(&self) -> Scene {
        Scene {
            drill: self.drill,
            service: self.kept.service.clone(),
            backend: self.kept.backend.clone(),
            since_ms: self.kept.since_ms,
        }
    }

    fn shown(&self) -> Running {
        let (ended_at_ms, why_ended) = self.ended.clone().unzip();
        let Kept {
            drill,
            service,
            backend,
            what,
            actor,
            since_ms,
            ends_ms,
        } = self.kept.clone();
        Running {
            drill,
            service,
            backend,
            what,
            actor,
            since_ms,
            ends_at_ms: ends_ms,
            ended_at_ms,
            why_ended,
        }
    }
}

/// Takes the fault of a drill that was on when the controller before ended out of the overrides, and
/// answers that drill. What was wrong with reading it is added to `told`.
pub(super) fn take_back(
    filed: &Config,
    overrides: &mut Overrides,
    now: Now,
    told: &mut Vec<(Level, String)>,
) -> Option<Kept> {
    let mut damage = Vec::new();
    let kept = drill::read(&filed.state.directory, now.unix_ms, &mut damage);
    told.extend(damage.into_iter().map(|what| (Level::Warning, what)));
    let kept = kept?;
    if let Some(left) = kept.taken_from(overrides) {
        *overrides = left;
    }
    Some(kept)
}

impl State {
    /// Begins a drill, or says what it would do.
    pub(super) fn begin_drill(
        &mut self,
        by: &Actor,
        request: &Request,
        now: Now,
    ) -> Result<Answer, Refused> {
        self.now = now;
        let drill = drill_of(request)?;
        let service = self.named_service(&request.service)?.clone();
        let planned = self.plan_drill(drill, &service, request)?;
        let kept = Kept {
            drill: drill.word().to_owned(),
            service: service.name.to_string(),
            backend: planned.backend.clone(),
            what: planned.what.clone(),
            actor: by.name.clone(),
            since_ms: now.unix_ms,
            ends_ms: now.unix_ms + Duration::from_secs_f64(request.lasts_s).as_millis() as u64,
        };
        let status = self.status(now);
        let refused = self.bars_to_drills(&status, &service.name);
        let shown = status.services.iter().find(|of| *of.name == *service.name);
        let Some(shown) = shown else {
            return Err(Refused::new(
                Because::Unknown,
                "the service is just leaving",
            ));
        };
        let drilling = Drilling {
            drill,
            watch: Watch::new(request.limits, shown, kept.backend.as_deref()),
            before: self.kept.in_force().map(|of| of.number),
            checks: Checks::default(),
            takes_packets: false,
            kept,
            began: now,
            ended: None,
        };
        let told = Told {
            running: drilling.shown(),
            slots: planned.slots,
            of_slots: planned.of_slots,
            refused,
        };
        if request.dry {
            return Ok(Answer::Drill(Box::new(told)));
        }
        if !told.refused.is_empty() {
            let error = format!("no drill now: {}", told.refused.join("; "));
            return Err(Refused::new(Because::Conflict, error));
        }
        self.start_drill(by, request, drilling, planned.fault, now)?;
        Ok(Answer::Drill(Box::new(told)))
    }

    /// Keeps the drill on disk, and brings its fault about.
    fn start_drill(
        &mut self,
        by: &Actor,
        request: &Request,
        drilling: Drilling,
        fault: Fault,
        now: Now,
    ) -> Result<(), Refused> {
        let directory = self.config.state.directory.clone();
        // A fault that a restart would not know of must not be there.
        drill::write(&directory, &drilling.kept)
            .map_err(|e| Refused::new(Because::Failed, format!("no drill: {e}")))?;
        let kept = drilling.kept.clone();
        self.drilling = Some(drilling);
        let message = format!("drill {} begins, by {}: {}", kept.drill, by.name, kept.what);
        self.tell_drill(
            Level::Warning,
            message,
            &by.name,
            json!({
                "what": "begins", "uid": by.uid, "request": request, "ends_at_ms": kept.ends_ms,
            }),
        );
        let done = match fault {
            Fault::Weight(weight) => self.skew(&kept, weight, now),
            Fault::Ring(image) => self
                .kernel
                .publish(&image)
                .map_err(|e| Refused::new(Because::Failed, with_causes(&e))),
            Fault::Change(text) => {
                self.change_unconfirmed(by.clone(), text, now);
                Ok(())
            }
            Fault::Strike(fault) => fault.map_or(Ok(()), |fault| self.strike(&fault)),
        };
        if done.is_err() {
            self.drilling = None;
            self.forget_drill();
        }
        done
    }

    fn skew(&mut self, kept: &Kept, weight: u16, now: Now) -> Result<(), Refused> {
        let mut overrides = self.overrides.clone();
        let name = (
            kept.service.clone(),
            kept.backend.clone().unwrap_or_default(),
        );
        overrides.put(
            name,
            Override {
                rule: Rule::Weight { weight },
                actor: kept.actor.clone(),
                reason: Some("drill skew".to_owned()),
                since_ms: kept.since_ms,
                expires_ms: Some(kept.ends_ms),
            },
        );
        let kept_overrides = self.override_with(&overrides, kept.what.clone(), now)?;
        if let Some(warning) = kept_overrides {
            warn!("{warning}");
        }
        Ok(())
    }

    fn change_unconfirmed(&mut self, by: Actor, text: String, now: Now) {
        let wish = Wish {
            text,
            file: "drill rollback".to_owned(),
            how: "apply",
            by,
            reason: Some("drill rollback: it is not confirmed, and taken back".to_owned()),
            confirm_within: Some(UNCONFIRMED),
            bars: Bars::Closed,
            copy_of: None,
        };
        self.begin_change(wish, None, now);
    }

    /// Ends the drill that is on.
    pub(super) fn abort_drill(
        &mut self,
        by: &Actor,
        abort: &Abort,
        now: Now,
    ) -> Result<Answer, Refused> {
        self.now = now;
        let on = self.drilling.as_ref();
        if on.is_none_or(|of| of.ended.is_some()) {
            let error = "no drill is on: 'evenkeel drill list' shows those that there are";
            return Err(Refused::new(Because::Conflict, error));
        }
        let reason = abort.reason.as_ref().map(|why| format!(": {why}"));
        let why = format!("aborted by {}{}", by.name, reason.unwrap_or_default());
        self.end_drill(&why, Level::Warning, now)?;
        let running = self.drilling.as_ref().map(Drilling::shown);
        running.map_or_else(
            || Err(Refused::new(Because::Conflict, "the drill has just ended")),
            |running| {
                Ok(Answer::Drill(Box::new(Told {
                    running,
                    slots: 0,
                    of_slots: 0,
                    refused: Vec::new(),
                })))
            },
        )
    }

    /// Looks after the drill that is on, each second.
    pub(super) fn watch_drill(&mut self, now: Now) {
        if self.drilling.is_none() {
            return;
        }
        let status = self.status(now);
        let Some(mut drilling) = self.drilling.take() else {
            return;
        };
        let scene = drilling.scene();
        if let Some((ended_ms, _)) = &drilling.ended {
            let over = *ended_ms + AFTERMATH <= now.unix_ms;
            if scene.restored(&status).is_err() && !over {
                self.drilling = Some(drilling);
            }
            return;
        }
        let why = self.why_over(&mut drilling, &scene, &status, now);
        self.drilling = Some(drilling);
        if let Some((level, why)) = why
            && let Err(refusal) = self.end_drill(&why, level, now)
        {
            // The next tick tries again.
            error!("{}", refusal.error);
        }
    }

    /// Why the drill ends now, if it does.
    fn why_over(
        &self,
        drilling: &mut Drilling,
        scene: &Scene,
        status: &Status,
        now: Now,
    ) -> Option<(Level, String)> {
        let kept = &drilling.kept;
        if let Some(harm) = scene.harm(status) {
            return Some((Level::Warning, format!("aborted by itself: {harm}")));
        }
        let service = status.services.iter().find(|of| of.name == kept.service);
        let look = |service| drilling.watch.look(scene, service);
        if let Some(harm) = service.and_then(look) {
            return Some((Level::Warning, format!("aborted by itself: {harm}")));
        }
        let put_right = match drilling.drill {
            Drill::Skew => !drilling.kept.is_in(&self.overrides),
            Drill::Drift => {
                let repaired = status.tables.repairs.last_at_ms;
                let told = repaired
                    .is_some_and(|at| at >= drilling.kept.since_ms && at + TELLING <= now.unix_ms);
                status.tables.as_intended && told
            }
            Drill::Kill | Drill::Slow | Drill::Errors => {
                // Its number may become another one's.
                let backend = kept.backend.as_deref().unwrap_or_default();
                self.named(&kept.service, backend).is_err()
            }
            _ => {
                let in_force = self.kept.in_force();
                let is_before = in_force.and_then(|of| self.kept.entry(of.number));
                is_before.is_some_and(|of| of.how == "rollback") && self.pending.is_none()
            }
        };
        if put_right {
            return Some((Level::Info, "the fault was put right".to_owned()));
        }
        (drilling.kept.ends_ms <= now.unix_ms).then(|| (Level::Info, "its time is over".to_owned()))
    }

    /// Takes the fault back.
    fn end_drill(&mut self, why: &str, level: Level, now: Now) -> Result<(), Refused> {
        let Some(drilling) = &self.drilling else {
            return Ok(());
        };
        let (kept, before, began) = (drilling.kept.clone(), drilling.before, drilling.began);
        let mut message = format!("drill {} ends: {why}", kept.drill);
        match drilling.drill {
            Drill::Skew => {
                if let Some(left) = kept.taken_from(&self.overrides)
                    && let Some(warning) = self.override_with(&left, message.clone(), now)?
                {
                    warn!("{warning}");
                }
            }
            Drill::Drift => self.undo_drift(now, began.instant),
            Drill::Kill | Drill::Slow | Drill::Errors => message += &self.strike_no_more(),
            _ => {
                let in_force = self.kept.in_force();
                if in_force.is_some_and(|of| of.confirm_by_ms.is_some()) {
                    let by = Actor {
                        uid: None,
                        name: "controller".to_owned(),
                    };
                    let rollback = Rollback {
                        to: before,
                        reason: Some(message.clone()),
                    };
                    self.begin_rollback(by, rollback, None, now);
                }
            }
        }
        if let Some(drilling) = &mut self.drilling {
            drilling.ended = Some((now.unix_ms, why.to_owned()));
        }
        self.forward_plainly();
        self.forget_drill();
        self.tell_drill(
            level,
            message,
            "controller",
            json!({ "what": "ends", "why": why }),
        );
        Ok(())
    }

    /// Ends the drill with the controller.
    pub(super) fn end_drill_at_last(&mut self, now: Now) {
        let on = self.drilling.as_ref();
        if on.is_some_and(|of| of.ended.is_none())
            && let Err(refusal) = self.end_drill("the controller ends", Level::Warning, now)
        {
            // The next start does it.
            error!("{}", refusal.error);
        }
    }

    /// Tells of a drill that was on when the controller before ended; its fault is not in what this
    /// one stands on.
    pub(super) fn tell_interrupted(&self, kept: &Kept) {
        let message = format!(
            "drill {} of {} was on when the controller before ended: its fault is taken back",
            kept.drill, kept.service
        );
        let event = self
            .event(Kind::Drill, Level::Warning, message)
            .service(&kept.service)
            .detail(json!({ "drill": kept.drill, "what": "interrupted", "kept": kept }));
        self.tell(event);
        if self.keep_overrides().is_none() {
            self.forget_drill();
        }
    }

    fn forget_drill(&self) {
        if let Err(e) = drill::forget(&self.config.state.directory) {
            warn!("the next start takes back what is not there any more: {e}");
        }
    }

    fn tell_drill(&self, level: Level, message: String, actor: &str, detail: Value) {
        let Some(drilling) = &self.drilling else {
            return;
        };
        let mut event = self
            .event(Kind::Drill, level, message)
            .service(&drilling.kept.service)
            .detail(detail);
        event.backend.clone_from(&drilling.kept.backend);
        self.tell(Event {
            actor: actor.to_owned(),
            ..event
        });
    }

    /// Marks an event that falls into a drill.
    pub(super) fn mark_drill(&self, mut event: Event) -> Event {
        if let Some(drilling) = &self.drilling
            && (event.service.is_none() || event.service.as_ref() == Some(&drilling.kept.service))
            && let Value::Object(detail) = &mut event.detail
        {
            detail.insert("drill".to_owned(), drilling.kept.drill.clone().into());
        }
        event
    }

    /// The drill as the API shows it.
    pub(super) fn show_drill(&self) -> Option<Running> {
        self.drilling.as_ref().map(Drilling::shown)
    }
}
