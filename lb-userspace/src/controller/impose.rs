//! Overrides: what an operator says of single backends while the controller runs.

use std::{collections::BTreeMap, time::Duration};

use lb_common::layout::Slot;
use log::warn;
use serde_json::json;

use super::{Now, footing::Newcomers, state::State};
use crate::{
    admin::{
        proto::change::{self as proto, Action, Imposed, Imposing},
        server::change::{Actor, Answer, Because, Refused},
    },
    balance::sweep::Learned,
    causes::with_causes,
    change::overrides::{Due, Name, Override, Overrides, Rule, shown},
    dataplane::DataPlane as _,
    journal::{Event, Kind, Level},
    kept::overrides::write,
    model::{Backend, Service, Weight},
};

/// What a pass of the sweeper found of backends that are drained.
pub(super) type Drains = BTreeMap<Name, Left>;

/// What is left of a backend's flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    flows: u64,
    /// Whether a slot or an entry named it.
    named: bool,
}

/// The longest time that may be given for an end or a deadline.
const LONGEST: Duration = Duration::from_hours(365 * 24);

impl State {
    /// Overrides what the configuration says of a backend, or ends that.
    pub(super) fn impose(
        &mut self,
        by: &Actor,
        wish: &Imposing,
        now: Now,
    ) -> Result<Answer, Refused> {
        self.now = now;
        if !self.attached() || self.waiting_for_all() {
            let error = "the controller is still starting: try again in a few seconds";
            return Err(Refused::new(Because::Busy, error));
        }
        let name: Name = (wish.service.clone(), wish.backend.clone());
        let mut overrides = self.overrides.clone();
        let what = if let Some(rule) = self.rule(wish, now)? {
            let of = Override {
                rule,
                actor: by.name.clone(),
                reason: wish.reason.clone(),
                since_ms: now.unix_ms,
                expires_ms: after(now, wish.expires_s)?,
            };
            self.spares_somebody(wish, rule)?;
            overrides.put(name.clone(), of);
            rule.to_string()
        } else if let Some(of) = overrides.end(&name) {
            format!(
                "enabled: it is no longer {}, what the configuration says is in force",
                of.rule
            )
        } else {
            let error = format!(
                "{}/{} has no override: its weight is the configuration's, which 'evenkeel status' \
                 shows",
                wish.service, wish.backend
            );
            return Err(Refused::new(Because::Conflict, error));
        };
        let reason = wish.reason.as_ref().map(|reason| format!(": {reason}"));
        let time = wish.expires_s.map(|seconds| {
            let time = humantime::format_duration(Duration::from_secs_f64(seconds));
            format!("; for {time}")
        });
        let message = format!(
            "{}/{} is {what}, by {}{}{}",
            wish.service,
            wish.backend,
            by.name,
            reason.unwrap_or_default(),
            time.unwrap_or_default()
        );
        let warning = self.override_with(&overrides, message.clone(), now)?;
        self.drains.remove(&name);
        let detail = json!({
            "what": wish.action, "uid": by.uid, "reason": wish.reason,
            "expires_s": wish.expires_s, "deadline_s": wish.deadline_s,
        });
        self.tell_override(&name, Level::Info, message.clone(), &by.name, detail);
        Ok(Answer::Imposed(Box::new(Imposed {
            message,
            overridden: self.shown_override(&name),
            generation: self.generation(),
            warning,
        })))
    }

    /// What is asked for; `None` where an override is to end.
    fn rule(&self, wish: &Imposing, now: Now) -> Result<Option<Rule>, Refused> {
        if wish.action == Action::Enable {
            return Ok(None);
        }
        let (service, backend) = self.named(&wish.service, &wish.backend)?;
        let invalid = |error: String| Err(Refused::new(Because::Invalid, error));
        if wish.deadline_s.is_some() && wish.action != Action::Drain {
            return invalid("only a drain has a deadline: leave it out".to_owned());
        }
        Ok(Some(match wish.action {
            Action::Drain => Rule::Drain {
                deadline_ms: after(now, wish.deadline_s)?,
                packets_before: self.packets(service, backend),
                told_complete: false,
            },
            Action::Weight(weight) if weight <= Weight::MAX => Rule::Weight { weight },
            Action::Weight(weight) => {
                return invalid(format!(
                    "{weight} is no weight: give one from 0 to {}",
                    Weight::MAX
                ));
            }
            Action::Disable | Action::Enable => Rule::Disable,
        }))
    }

    /// A service by its name.
    pub(super) fn named_service(&self, name: &str) -> Result<&Service, Refused> {
        let services = &self.config.services;
        services.iter().find(|s| &*s.name == name).ok_or_else(|| {
            let names: Vec<&str> = services.iter().map(|s| &*s.name).collect();
            let error = format!("there is no service {name}: there are {}", names.join(", "));
            Refused::new(Because::Unknown, error)
        })
    }

    /// A service and a backend by their names.
    pub(super) fn named(
        &self,
        service: &str,
        backend: &str,
    ) -> Result<(&Service, &Backend), Refused> {
        let found = self.named_service(service)?;
        let Some(of) = found.backends.iter().find(|b| &*b.name == backend) else {
            let names: Vec<&str> = found.backends.iter().map(|b| &*b.name).collect();
            let error = format!(
                "service {service} has no backend {backend}: it has {}",
                names.join(", ")
            );
            return Err(Refused::new(Because::Unknown, error));
        };
        Ok((found, of))
    }

    /// Refuses what would leave a service nobody for new flows.
    fn spares_somebody(&self, wish: &Imposing, rule: Rule) -> Result<(), Refused> {
        if rule.weight().number() > 0 {
            return Ok(());
        }
        let services = self.config.services.iter().zip(&self.services);
        let mut named = services.filter(|(service, _)| *service.name == *wish.service);
        let spares = named.all(|(service, state)| {
            let others = service.backends.iter().zip(&state.slots);
            let serving = || others.clone().filter(|(_, slots)| **slots > 0);
            // Where nobody serves there is nothing to lose.
            serving().next().is_none()
                || serving().any(|(backend, _)| *backend.name != *wish.backend)
        });
        if spares {
            return Ok(());
        }
        let error = format!(
            "{}/{} is the last backend that takes new flows of its service: bring another one back \
             first",
            wish.service, wish.backend
        );
        Err(Refused::new(Because::Conflict, error))
    }

    /// Puts overrides in force, and keeps them. Answers what went wrong with the latter.
    pub(super) fn override_with(
        &mut self,
        overrides: &Overrides,
        why: String,
        now: Now,
    ) -> Result<Option<String>, Refused> {
        let failed =
            |error: String| Refused::new(Because::Failed, format!("nothing changed: {error}"));
        let footing = self
            .footing(&self.filed, overrides, Newcomers::Unknown)
            .map_err(|e| failed(with_causes(&e)))?;
        self.stand_on(footing, &[], why, now)
            .map_err(|e| failed(with_causes(&e)))?;
        // An operator who drains a broken server needs that more than a disk that takes it.
        Ok(self.keep_overrides())
    }

    /// Keeps the overrides; answers, and logs, why that did not go.
    pub(super) fn keep_overrides(&self) -> Option<String> {
        let refusal = write(&self.config.state.directory, &self.overrides).err()?;
        let warning = format!("it is in force, and a restart forgets it: {refusal}");
        warn!("{warning}");
        Some(warning)
    }

    fn tell_override(
        &self,
        (service, backend): &Name,
        level: Level,
        message: String,
        actor: &str,
        detail: serde_json::Value,
    ) {
        let event = self
            .event(Kind::Override, level, message)
            .service(service)
            .backend(backend)
            .detail(detail);
        self.tell(Event {
            actor: actor.to_owned(),
            ..event
        });
    }

    /// Ends what is over.
    pub(super) fn pass_overrides(&mut self, now: Now) {
        let mut overrides = self.overrides.clone();
        let due = overrides.pass(now.unix_ms);
        if due.is_empty() || !self.attached() {
            return;
        }
        let line = |(name, due): &(Name, Due)| {
            let (service, backend) = name;
            match due {
                Due::Expired(of) => format!(
                    "{service}/{backend} is no longer {}: {}'s time for it is over",
                    of.rule, of.actor
                ),
                Due::PastDeadline => format!(
                    "{service}/{backend} is disabled: the deadline of its drain is over, flows \
                     that are left end"
                ),
            }
        };
        let whys: Vec<String> = due.iter().map(line).collect();
        if let Err(refusal) = self.override_with(&overrides, whys.join("; "), now) {
            // The next tick tries again.
            warn!("{}", refusal.error);
            return;
        }
        for ((name, due), message) in due.iter().zip(whys) {
            self.drains.remove(name);
            let what = match due {
                Due::Expired(_) => "expired",
                Due::PastDeadline => "past-deadline",
            };
            let detail = json!({ "what": what });
            self.tell_override(name, Level::Info, message, "controller", detail);
        }
    }

    /// Takes note of what the sweeper found of backends that are drained.
    pub(super) fn note_drains(&mut self, learned: &Learned) {
        let mut complete = Vec::new();
        let mut drains = Drains::new();
        for (name, of) in self.overrides.iter() {
            let Rule::Drain { told_complete, .. } = of.rule else {
                continue;
            };
            let Ok((service, backend)) = self.named(&name.0, &name.1) else {
                continue;
            };
            let Some(number) = self.numbers.endpoint(&service.key, backend.address) else {
                continue;
            };
            let left = Left {
                flows: learned.flows.get(&number).copied().unwrap_or(0),
                named: learned.endpoints.contains(&number),
            };
            drains.insert(name.clone(), left);
            if !told_complete && !left.named && self.slots_left(service, number) == 0 {
                complete.push(name.clone());
            }
        }
        self.drains = drains;
        for name in &complete {
            self.overrides.told_complete(name);
            let message = format!("{}/{} is drained: no flow of it is left", name.0, name.1);
            let detail = json!({ "what": "drained" });
            self.tell_override(name, Level::Info, message, "controller", detail);
        }
        if !complete.is_empty() {
            self.keep_overrides();
        }
    }

    /// Slots of the live ring whose flows, old or new, still go to an endpoint.
    fn slots_left(&self, service: &Service, endpoint: u16) -> u32 {
        let ring = self
            .numbers
            .service(&service.key)
            .and_then(|number| self.image.as_ref()?.ring_of(number));
        let names = |slot: &&Slot| slot.owner() == endpoint || slot.prior() == endpoint;
        ring.map_or(0, |ring| ring.iter().filter(names).count() as u32)
    }

    /// Packets that a backend was sent.
    fn packets(&self, service: &Service, backend: &Backend) -> u64 {
        let number = self.numbers.endpoint(&service.key, backend.address);
        let counters = number.and_then(|number| self.kernel.endpoint(number).ok());
        counters.map_or(0, |counters| counters.packets)
    }

    fn shown_override(&self, name: &Name) -> Option<proto::Override> {
        let of = self.overrides.of(&name.0, &name.1)?;
        let filed = self.filed.services.iter().find(|s| *s.name == *name.0);
        let backend = filed.and_then(|s| s.backends.iter().find(|b| *b.name == *name.1));
        let mut shown = shown(name, of, backend.map(|b| b.weight.number()));
        if let Rule::Drain {
            deadline_ms,
            packets_before,
            ..
        } = of.rule
            && let Ok((service, backend)) = self.named(&name.0, &name.1)
            && let Some(number) = self.numbers.endpoint(&service.key, backend.address)
        {
            let left = self.drains.get(name);
            let slots_left = self.slots_left(service, number);
            shown.drain = Some(proto::Drain {
                complete: slots_left == 0 && left.is_some_and(|left| !left.named),
                flows_left: left.map(|left| left.flows),
                slots_left,
                packets_since: self
                    .packets(service, backend)
                    .saturating_sub(packets_before),
                deadline_at_ms: deadline_ms,
            });
        }
        Some(shown)
    }

    /// The override of a configured backend.
    pub(super) fn show_override(&self, service: &Service, n: usize) -> Option<proto::Override> {
        let name = (
            service.name.to_string(),
            service.backends[n].name.to_string(),
        );
        self.shown_override(&name)
    }

    /// The overrides of backends that are not configured at present.
    pub(super) fn waiting_overrides(&self) -> Vec<proto::Override> {
        let names = self.overrides.iter().map(|(name, _)| name);
        names
            .filter(|(service, backend)| self.named(service, backend).is_err())
            .filter_map(|name| self.shown_override(name))
            .collect()
    }
}

/// The moment after so many seconds.
fn after(now: Now, seconds: Option<f64>) -> Result<Option<u64>, Refused> {
    let Some(seconds) = seconds else {
        return Ok(None);
    };
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if !time.is_zero() && time <= LONGEST => {
            Ok(Some(now.unix_ms + time.as_millis() as u64))
        }
        _ => {
            let error =
                format!("{seconds} s is no time to wait: give more than 0 and up to a year");
            Err(Refused::new(Because::Invalid, error))
        }
    }
}
