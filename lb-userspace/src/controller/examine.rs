//! Configurations are looked at before anything is done: what they would change, and whether they
//! may.

use std::time::Duration;

use ipnet::IpNet;
use log::warn;

use super::{
    Now,
    apply::{Bars, Wish},
    footing::Newcomers,
    state::State,
};
use crate::{
    admin::{
        proto::change::{Finding, Plan, Request},
        server::change::{Answer, Because, Refused},
    },
    audit,
    causes::with_causes,
    change::fixed::{fixed, settings},
    config,
    doctor::gather::addresses,
    health::driver,
    model::{Backend, Config, Service},
};

/// The longest time that a confirmation is waited for.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

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
            findings: audit(&filed, &self.filed),
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
        let mut changes = before.changes_to(&after);
        after.forecast(&mut changes, |key| {
            let services = self.config().services.iter();
            let mut known = services.zip(&self.services);
            let (_, state) = known.find(|(service, _)| service.key == *key)?;
            Some(&state.load.clients)
        });
        Ok(Answer::Plan(Box::new(complete(plan, changes))))
    }

    /// Whether a configuration may come into force.
    pub(super) fn examine(&self, wish: &Wish) -> Result<(Config, Vec<Finding>), Refused> {
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
        driver::prepare(&filed.services).map_err(|e| refused(Because::Invalid, with_causes(&e)))?;
        let findings = audit(&filed, &self.filed);
        let alarming = || findings.iter().filter(|finding| finding.is_alarming());
        if wish.bars == Bars::Closed && alarming().next().is_some() {
            let lines: Vec<String> = alarming()
                .map(|f| format!("\n  {}", in_a_line(f)))
                .collect();
            let error = format!(
                "the audit finds what would hurt, and is not in force yet:{}\n  ('--force --reason TEXT' does it \
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
}

fn parse(file: &str, text: &str) -> Result<Config, Refused> {
    config::parse(file, text)
        .map_err(|findings| refused(Because::Invalid, format!("not valid:\n{findings}")))
}

/// What the audit finds, the worst first.
fn audit(filed: &Config, in_force: &Config) -> Vec<Finding> {
    let local: Vec<IpNet> = addresses().unwrap_or_else(|e| {
        warn!("the addresses of this host are not known to the audit: {e}");
        Vec::new()
    });
    let known = audit::config::judge(in_force, &local);
    let mut findings = audit::config::judge(filed, &local);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    findings
        .into_iter()
        .map(|finding| Finding {
            added: !known.contains(&finding),
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

pub(super) fn in_a_line(finding: &Finding) -> String {
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
pub(super) fn complete(plan: Plan, changes: Plan) -> Plan {
    Plan {
        changes: changes.changes || !plan.settings.is_empty() || !plan.fixed.is_empty(),
        slots_moved: changes.slots_moved,
        services: changes.services,
        unchanged: changes.unchanged,
        ..plan
    }
}
