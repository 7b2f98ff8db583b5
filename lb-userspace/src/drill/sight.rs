//! What a status shows of a drill: the verdict, what must not be, and whether all is as before.

use crate::{
    admin::proto::{Backend, Service, Status, Verdict},
    model::Drill,
};

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scene {
    /// The drill.
    pub drill: Drill,
    /// The service.
    pub service: String,
    /// The backend, where it is about one.
    pub backend: Option<String>,
    /// When the fault came, in milliseconds since the Unix epoch.
    pub since_ms: u64,
}

impl Scene {
    fn service<'a>(&self, status: &'a Status) -> Option<&'a Service> {
        status.services.iter().find(|of| of.name == self.service)
    }

    fn is_target(&self, backend: &Backend) -> bool {
        self.backend.as_deref() == Some(&*backend.name)
    }

    fn target<'a>(&self, status: &'a Status) -> Option<&'a Backend> {
        let backends = &self.service(status)?.backends;
        backends.iter().find(|backend| self.is_target(backend))
    }

    /// The verdict that was expected, in words, where the status has it.
    #[must_use]
    pub fn verdict(&self, status: &Status) -> Option<String> {
        let service = self.service(status)?;
        match self.drill {
            Drill::Skew | Drill::Rollback => {
                let findings = service.evenness.findings.iter();
                let mut weights = findings.filter(|of| of.reference == "config");
                let found = weights.find(|of| of.backend == self.backend)?;
                Some(format!("weights: {}", found.message))
            }
            Drill::Kill => {
                let target = self.target(status)?;
                let probe = target.last_probe.as_ref();
                let detail = probe.map_or("", |probe| probe.detail.as_str());
                (target.health == "down").then(|| format!("{} is down: {detail}", target.name))
            }
            Drill::Slow => self.demoted(status, "slow"),
            Drill::Errors => self.demoted(status, "failing"),
            Drill::Drift => {
                let tables = &status.tables;
                let repaired = tables.repairs.last_at_ms.filter(|&at| at >= self.since_ms);
                if !tables.as_intended {
                    Some(format!("drift: {}", tables.differences.join("; ")))
                } else if repaired.is_some() {
                    Some(format!(
                        "drift, repaired: {}",
                        tables.repairs.last.join("; ")
                    ))
                } else {
                    None
                }
            }
            Drill::FleetSlow => service.fleet_degraded.clone(),
            Drill::HeavyClient => {
                let cause = service.evenness.cause.as_ref()?;
                (cause.kind == "heavy-clients")
                    .then(|| format!("{}: {}", cause.kind, cause.message))
            }
            Drill::ControllerCrash | Drill::NotifyTest | Drill::Tabletop => None,
        }
    }

    fn demoted(&self, status: &Status, cause: &str) -> Option<String> {
        let target = self.target(status)?;
        let seen = target.performance.as_ref()?;
        let so = matches!(seen.state.as_str(), "demoted" | "returning");
        let why = seen.reason.as_deref().unwrap_or_default();
        (so && seen.cause.as_deref() == Some(cause)).then(|| {
            format!(
                "{} has {:.0} % of its weight: {why}",
                target.name,
                seen.part * 100.0
            )
        })
    }

    /// What the drill must not bring about, where it did.
    #[must_use]
    pub fn harm(&self, status: &Status) -> Option<String> {
        let service = self.service(status)?;
        if let Some(why) = &service.panic {
            return Some(format!("panic: {why}"));
        }
        if let Some(why) = service.fleet_degraded.as_ref()
            && self.drill != Drill::FleetSlow
        {
            return Some(format!("the fleet is slow as a whole: {why}"));
        }
        service.backends.iter().find_map(|backend| {
            let name = &backend.name;
            // What becomes of the one that the drill is about is what it is about.
            if self.is_target(backend) {
                return None;
            }
            if backend.health == "down" {
                return Some(format!("{name} is down"));
            }
            let seen = backend.performance.as_ref()?;
            (seen.state == "demoted").then(|| {
                let why = seen.reason.as_deref().unwrap_or("it underperforms");
                format!("{name} is demoted: {why}")
            })
        })
    }

    /// Whether all is as before the drill.
    ///
    /// # Errors
    /// With what is not yet.
    pub fn restored(&self, status: &Status) -> Result<(), String> {
        let service = self
            .service(status)
            .ok_or_else(|| format!("there is no service {}", self.service))?;
        if status.interfaces.is_empty() {
            return Err("the controller starts".to_owned());
        }
        if !status.tables.as_intended {
            return Err("the kernel's tables are not the intended ones".to_owned());
        }
        if let Some(why) = service.panic.as_ref().or(service.fleet_degraded.as_ref()) {
            return Err(why.clone());
        }
        for backend in &service.backends {
            let name = &backend.name;
            if let Some(why) = &backend.out_of_ring {
                return Err(format!("{name} is not in the ring: {why}"));
            }
            if let Some(part) = backend.weight_in_force.filter(|part| *part < 0.999) {
                return Err(format!("{name} has {:.0} % of its weight", part * 100.0));
            }
            if self.is_target(backend) && backend.overridden.is_some() {
                return Err(format!("{name} is overridden"));
            }
        }
        let grave = |severity: &str| matches!(severity, "page" | "warning");
        let findings = &service.evenness.findings;
        match findings.iter().find(|finding| grave(&finding.severity)) {
            Some(finding) => Err(finding.message.clone()),
            None => Ok(()),
        }
    }

    /// Whether the load is even again, by what was observed: of drills whose clients are known.
    ///
    /// # Errors
    /// With the verdict.
    pub fn even(&self, status: &Status) -> Result<(), String> {
        let of = self.service(status).map(|service| &service.evenness);
        match of {
            Some(of) if of.verdict == Verdict::Even => Ok(()),
            Some(of) => Err(of.message.clone()),
            None => Err("there is no such service".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::audit::testing;

    fn scene(drill: Drill) -> Scene {
        Scene {
            drill,
            service: "web".to_owned(),
            backend: Some("10.0.0.11".to_owned()),
            since_ms: 5_000,
        }
    }

    #[test]
    fn each_verdict_is_read_from_where_it_stands() {
        let well = testing::status(|_| ());
        for &(word, drill) in Drill::WORDS {
            assert_eq!(scene(drill).verdict(&well), None, "{word}");
        }
        let skewed = testing::status(|status| {
            status["services"][0]["evenness"]["findings"] = json!([{
                "reference": "config", "severity": "ticket", "backend": "10.0.0.11", "ratio": 1.5,
                "since_ms": 1, "message": "10.0.0.11 is weighted for too much",
            }]);
        });
        let found = scene(Drill::Skew).verdict(&skewed).unwrap();
        assert_eq!(found, "weights: 10.0.0.11 is weighted for too much");
        let other = Scene {
            backend: Some("10.0.0.12".to_owned()),
            ..scene(Drill::Skew)
        };
        assert_eq!(other.verdict(&skewed), None);
        let down = testing::status(|status| {
            status["services"][0]["backends"][0]["health"] = json!("down");
        });
        assert!(scene(Drill::Kill).verdict(&down).is_some());
        // It is the one that the drill is about, and is harm where another one is.
        assert_eq!(scene(Drill::Kill).harm(&down), None);
        let other = Scene {
            backend: Some("10.0.0.12".to_owned()),
            ..scene(Drill::Kill)
        };
        assert_eq!(other.harm(&down).as_deref(), Some("10.0.0.11 is down"));
        let repaired = |at: u64| {
            testing::status(move |status| {
                status["tables"]["repairs"] = json!({
                    "count": 1, "last_at_ms": at, "last": ["web: 7 slots differ"],
                    "recent": true, "given_up": false,
                });
            })
        };
        assert!(scene(Drill::Drift).verdict(&repaired(5_000)).is_some());
        assert_eq!(scene(Drill::Drift).verdict(&repaired(4_999)), None);
    }
}
