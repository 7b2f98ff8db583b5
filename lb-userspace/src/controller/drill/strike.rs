//! Drills that strike a backend: its checks count as failed or slow, and packets of some clients are
//! lost on their way to it.
//!
//! What checks find is changed here, so it is as it was once nobody is here to change it; the kernel
//! ends by itself what it does to packets.

use std::{borrow::Cow, time::Duration};

use lb_common::fault::Fault;

use crate::{
    admin::server::change::{Because, Refused},
    causes::with_causes,
    controller::state::State,
    health::{
        driver::Report,
        probe::{Outcome, ProbeFailure},
    },
    model::Drill,
};

/// How many of ten checks or connections fail in a drill of errors.
pub(super) const ERRORS_OF_TEN: u32 = 3;
/// How much longer a check takes in a drill of slowness: so many times as long,
const SLOWER_TIMES: u32 = 4;
/// and that.
const SLOWER: Duration = Duration::from_millis(120);

/// Counts the checks that a drill changed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Checks(u32);

impl Checks {
    /// What the next check is taken for.
    fn strike(&mut self, drill: Drill, outcome: &mut Outcome) {
        let fail = || Err(ProbeFailure::Rehearsed(drill));
        match drill {
            Drill::Kill => outcome.result = fail(),
            Drill::Slow => outcome.took = outcome.took * SLOWER_TIMES + SLOWER,
            Drill::Errors => {
                // Evenly spread, so that no three follow each other.
                if self.0 * ERRORS_OF_TEN % 10 < ERRORS_OF_TEN {
                    outcome.result = fail();
                }
                self.0 = (self.0 + 1) % 10;
            }
            _ => {}
        }
    }
}

impl State {
    /// What a check found, as the drill that is on has it.
    pub(in crate::controller) fn rehearsed<'a>(&mut self, report: &'a Report) -> Cow<'a, Report> {
        let Some(drilling) = &mut self.drilling else {
            return Cow::Borrowed(report);
        };
        let kept = &drilling.kept;
        let is_target =
            *report.service == *kept.service && kept.backend.as_deref() == Some(&*report.backend);
        if !is_target || !drilling.drill.strikes() || drilling.ended.is_some() {
            return Cow::Borrowed(report);
        }
        let mut struck = report.clone();
        drilling.checks.strike(drilling.drill, &mut struck.outcome);
        Cow::Owned(struck)
    }

    /// Has the kernel take packets.
    pub(super) fn strike(&mut self, fault: &Fault) -> Result<(), Refused> {
        self.kernel
            .strike(&self.config.data_plane, fault)
            .map_err(|e| Refused::new(Because::Failed, with_causes(&e)))?;
        if let Some(drilling) = &mut self.drilling {
            drilling.takes_packets = true;
        }
        Ok(())
    }

    /// Has it take none any more; answers in words how many it took.
    pub(super) fn strike_no_more(&mut self) -> String {
        let Some(drilling) = &mut self.drilling else {
            return String::new();
        };
        if !std::mem::take(&mut drilling.takes_packets) {
            return String::new();
        }
        match self.kernel.strike_no_more() {
            Ok(packets) => format!("; {packets} packets were taken"),
            Err(e) => format!("; the kernel ends it in time: {}", with_causes(&e)),
        }
    }

    /// Whether a drill takes packets.
    pub(in crate::controller) fn drill_takes_packets(&self) -> bool {
        self.drilling.as_ref().is_some_and(|of| of.takes_packets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::probe::Evidence;

    fn struck(drill: Drill, times: usize) -> Vec<Outcome> {
        let mut checks = Checks::default();
        let well = Outcome {
            took: Duration::from_millis(2),
            result: Ok(Evidence::Connected),
            instead: None,
        };
        let strike = |_| {
            let mut outcome = well.clone();
            checks.strike(drill, &mut outcome);
            outcome
        };
        (0..times).map(strike).collect()
    }

    #[test]
    fn each_drill_has_its_own_kind_of_check() {
        assert!(struck(Drill::Kill, 3).iter().all(|of| of.result.is_err()));
        for of in struck(Drill::Slow, 3) {
            assert_eq!(
                (of.took, of.result.is_ok()),
                (Duration::from_millis(128), true)
            );
        }
        let failed: Vec<bool> = struck(Drill::Errors, 100)
            .iter()
            .map(|of| of.result.is_err())
            .collect();
        assert_eq!(failed.iter().filter(|failed| **failed).count(), 30);
        assert!(!failed.windows(2).any(|two| two == [true, true]));
        for drill in [Drill::Skew, Drill::Drift, Drill::Rollback] {
            assert!(struck(drill, 3).iter().all(|of| of.result.is_ok()));
        }
    }
}
