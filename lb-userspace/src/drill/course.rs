//! Where a drill stands, and what it was worth.

use std::time::Duration;

use super::sight::Scene;
use crate::{
    admin::proto::{
        Status,
        drill::{Moment, Scorecard},
    },
    model::Drill,
};

/// What a drill waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The verdict.
    Detection,
    /// That somebody is told.
    Notification,
    /// What an operator would do.
    Mitigation,
    /// That all is as before.
    Restoration,
    /// Nothing: it is over.
    Over,
}

/// A drill on its way. Times are in milliseconds since the Unix epoch.
#[derive(Clone, Debug)]
pub struct Course {
    scene: Scene,
    place: &'static str,
    began_ms: u64,
    found: Option<String>,
    detected_ms: Option<u64>,
    told_ms: Option<u64>,
    mitigated_ms: Option<u64>,
    restored_ms: Option<u64>,
    happened: Vec<Moment>,
    wrong: Vec<String>,
    /// Whether it has to be seen from clients' connections that the load is even.
    observed: bool,
    over: bool,
}

/// The time from one moment to a later one, in seconds.
fn seconds(from: u64, to: u64) -> f64 {
    Duration::from_millis(to.saturating_sub(from)).as_secs_f64()
}

impl Course {
    /// Begins with the fault, which is told in `what`; it was decided at `began_ms`.
    #[must_use]
    pub fn new(scene: Scene, place: &'static str, began_ms: u64, what: &str) -> Self {
        let mut course = Self {
            place,
            began_ms,
            found: None,
            detected_ms: None,
            told_ms: None,
            mitigated_ms: None,
            restored_ms: None,
            happened: Vec::new(),
            wrong: Vec::new(),
            observed: false,
            over: false,
            scene,
        };
        course.note(course.scene.since_ms, format!("injected: {what}"));
        course
    }

    /// Has it wait for an even verdict on clients' connections.
    #[must_use]
    pub fn observed(mut self) -> Self {
        self.observed = true;
        self
    }

    /// What is looked at.
    #[must_use]
    pub fn scene(&self) -> &Scene {
        &self.scene
    }

    /// What it waits for.
    #[must_use]
    pub fn phase(&self) -> Phase {
        if self.over {
            Phase::Over
        } else if self.detected_ms.is_none() {
            Phase::Detection
        } else if self.told_ms.is_none() && self.scene.drill.alert().is_some() {
            Phase::Notification
        } else if self.mitigated_ms.is_none() {
            Phase::Mitigation
        } else if self.restored_ms.is_none() {
            Phase::Restoration
        } else {
            Phase::Over
        }
    }

    /// What happened so far.
    #[must_use]
    pub fn happened(&self) -> &[Moment] {
        &self.happened
    }

    /// Writes something down.
    pub fn note(&mut self, at_ms: u64, what: impl Into<String>) {
        let what = what.into();
        self.happened.push(Moment { at_ms, what });
    }

    /// Takes a look at a status.
    pub fn look(&mut self, now_ms: u64, status: &Status) {
        if let Some(harm) = self.scene.harm(status) {
            self.spoil(now_ms, format!("it did harm: {harm}"));
        }
        if self.detected_ms.is_none() {
            if let Some(found) = self.scene.verdict(status) {
                self.detect(now_ms, found);
            }
            return;
        }
        if self.phase() == Phase::Restoration {
            let restored = self.scene.restored(status);
            let even = || {
                if self.observed {
                    self.scene.even(status)
                } else {
                    Ok(())
                }
            };
            if restored.and_then(|()| even()).is_ok() {
                self.restore(now_ms);
            }
        }
    }

    /// Takes note of the verdict.
    pub fn detect(&mut self, now_ms: u64, found: String) {
        if self.detected_ms.is_none() {
            self.detected_ms = Some(now_ms);
            self.note(now_ms, format!("detected: {found}"));
            self.found = Some(found);
        }
    }

    /// Takes note that somebody was told.
    pub fn told(&mut self, at_ms: u64, what: &str) {
        if self.told_ms.is_none() {
            self.told_ms = Some(at_ms);
            self.note(at_ms, format!("notified: {what}"));
        }
    }

    /// Takes note of the remedy.
    pub fn mitigate(&mut self, at_ms: u64, what: &str) {
        if self.mitigated_ms.is_none() {
            self.mitigated_ms = Some(at_ms);
            self.note(at_ms, format!("mitigated: {what}"));
        }
    }

    /// Takes note that all is as before.
    pub fn restore(&mut self, at_ms: u64) {
        if self.restored_ms.is_none() {
            self.restored_ms = Some(at_ms);
            self.note(at_ms, "restored: all is as it was before");
        }
    }

    /// Takes note of something that should not be; the same is told once.
    pub fn spoil(&mut self, at_ms: u64, what: impl Into<String>) {
        let what = what.into();
        if !self.wrong.contains(&what) {
            self.note(at_ms, format!("wrong: {what}"));
            self.wrong.push(what);
        }
    }

    /// Ends it where it is.
    pub fn end(&mut self, at_ms: u64, why: &str) {
        if self.phase() != Phase::Over {
            let missing = match self.phase() {
                Phase::Detection => "the verdict did not come",
                Phase::Notification => "nobody was told",
                Phase::Mitigation => "nothing was done about it",
                Phase::Restoration => "it was not as before",
                Phase::Over => "nothing",
            };
            self.spoil(at_ms, format!("{missing}: {why}"));
        }
        self.over = true;
    }

    /// What it was worth. `requests` are those of its clients, with how many failed.
    #[must_use]
    pub fn score(&self, requests: Option<(u64, u64)>) -> Scorecard {
        let drill = self.scene.drill;
        let mut wrong = self.wrong.clone();
        if let Some((sent, failed)) = requests {
            if sent == 0 {
                wrong.push("no request was made, so nothing was seen of clients".to_owned());
            } else if failed > 0 && drill.loses_nothing() {
                wrong.push(format!("{failed} of {sent} requests failed"));
            }
        }
        let fault = self.scene.since_ms;
        let since = |at: Option<u64>| at.map(|at| seconds(fault, at));
        Scorecard {
            drill: drill.word().to_owned(),
            place: self.place.to_owned(),
            service: self.scene.service.clone(),
            backend: self.scene.backend.clone(),
            began_at_ms: self.began_ms,
            hypothesis: drill.hypothesis().to_owned(),
            expected: drill.expected().to_owned(),
            found: self.found.clone(),
            inject_s: Some(seconds(self.began_ms, fault)),
            detect_s: since(self.detected_ms),
            notify_s: since(self.told_ms),
            mitigate_s: since(self.mitigated_ms),
            restore_s: since(self.restored_ms),
            requests: requests.map(|(sent, _)| sent),
            failed: requests.map(|(_, failed)| failed),
            passed: wrong.is_empty() && self.phase() == Phase::Over && self.restored_ms.is_some(),
            wrong,
            happened: self.happened.clone(),
        }
    }
}

impl Scorecard {
    /// In a line, for the journal.
    #[must_use]
    pub fn line(&self) -> String {
        let verdict = if self.passed { "passed" } else { "FAILED" };
        let backend = self.backend.as_ref().map(|name| format!("/{name}"));
        let times = [
            ("detect", self.detect_s),
            ("notify", self.notify_s),
            ("mitigate", self.mitigate_s),
            ("restore", self.restore_s),
        ];
        let known = times
            .iter()
            .filter_map(|(what, time)| Some((what, (*time)?)));
        let known: Vec<String> = known
            .map(|(what, time)| format!("{what} {time:.1} s"))
            .collect();
        let mut line = format!(
            "drill {} ({}) of {}{} {verdict}",
            self.drill,
            self.place,
            self.service,
            backend.unwrap_or_default()
        );
        for part in known
            .iter()
            .map(String::as_str)
            .chain(self.wrong.iter().map(String::as_str))
        {
            line += if line.ends_with(verdict) { ": " } else { ", " };
            line += part;
        }
        line
    }

    /// Whether it names a drill that this version knows.
    #[must_use]
    pub fn known(&self) -> Option<Drill> {
        Drill::of(&self.drill)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::audit::testing;

    fn course(drill: Drill) -> Course {
        let scene = Scene {
            drill,
            service: "web".to_owned(),
            backend: Some("10.0.0.11".to_owned()),
            since_ms: 1_500,
        };
        Course::new(scene, "sandbox", 1_000, "something")
    }

    fn well() -> Status {
        testing::status(|status| {
            status["interfaces"] = json!([{ "name": "lb0", "index": 2, "xdp_mode": "generic" }]);
        })
    }

    #[test]
    fn a_drill_goes_from_fault_to_restoration_and_is_worth_its_times() {
        let mut course = course(Drill::Kill);
        course.look(2_000, &well());
        assert_eq!(course.phase(), Phase::Detection);
        let down = testing::status(|status| {
            status["services"][0]["backends"][0]["health"] = json!("down");
            status["services"][0]["backends"][0]["out_of_ring"] = json!("down");
        });
        course.look(3_000, &down);
        assert_eq!(course.phase(), Phase::Notification);
        course.told(5_000, "a file");
        course.mitigate(6_000, "started again");
        course.look(6_500, &down);
        assert_eq!(course.phase(), Phase::Restoration);
        course.look(9_500, &well());
        assert_eq!(course.phase(), Phase::Over);
        let card = course.score(Some((100, 7)));
        assert!(card.passed, "{card:?}");
        let times = [
            card.inject_s,
            card.detect_s,
            card.notify_s,
            card.mitigate_s,
            card.restore_s,
        ];
        assert_eq!(times, [0.5, 1.5, 3.5, 4.5, 8.0].map(Some));
        assert_eq!(
            card.line(),
            "drill kill (sandbox) of web/10.0.0.11 passed: detect 1.5 s, notify 3.5 s, mitigate 4.5 \
             s, restore 8.0 s"
        );
    }

    #[test]
    fn what_is_missing_or_wrong_fails_it() {
        let mut none = course(Drill::Skew);
        none.end(60_000, "time is up");
        let card = none.score(None);
        assert!(!card.passed);
        assert_eq!(card.wrong, ["the verdict did not come: time is up"]);

        // Somebody else suffers.
        let mut harmful = course(Drill::Slow);
        let down = testing::status(|status| {
            status["services"][0]["backends"][1]["health"] = json!("down");
        });
        for at in [2_000, 3_000] {
            harmful.look(at, &down);
        }
        assert_eq!(
            harmful.score(None).wrong,
            ["it did harm: 10.0.0.12 is down"]
        );

        // Requests may be lost by a death, and not by a wrong weight.
        for (drill, passed) in [(Drill::Skew, false), (Drill::Kill, true)] {
            let mut course = course(drill);
            course.detect(2_000, "found".to_owned());
            course.told(2_000, "x");
            course.mitigate(3_000, "y");
            course.restore(4_000);
            assert_eq!(course.score(Some((10, 1))).passed, passed, "{drill}");
            assert!(
                !course.score(Some((0, 0))).passed,
                "nobody was there to suffer"
            );
        }
    }
}
