//! Whether the kernel's tables are the intended ones, and what is done where they are not.
//!
//! A repair is a publication like any other, from what packets follow: flows that were opened by
//! the wrong tables stay where they are. Who writes again and again is told of, not fought: ADR 0019.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{Now, evenness, state::State};
use crate::{
    admin::proto,
    balance::image::Image,
    causes::with_causes,
    dataplane::{DataPlane as _, kernel::Error},
    journal::{Kind, Level},
    model::OnDrift,
};

/// How many repairs there may be within [`WINDOW`]. One more would be a fight.
const MOST: usize = 3;
/// After how many milliseconds without a comparison one is made at once.
const OVERDUE_MS: u64 = 10_000;
/// See [`MOST`]; an alert of a repair is on for as long.
const WINDOW: Duration = Duration::from_mins(10);

/// The last comparison of the kernel's tables with the intended ones.
#[derive(Clone, Default)]
pub(super) struct Verification {
    pub(super) at_ms: u64,
    pub(super) differing_slots: u64,
    pub(super) differences: Vec<String>,
}

/// What was repaired, and whether anything may be.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// When, the last ones within [`WINDOW`].
    recent: VecDeque<Instant>,
    /// Whether somebody writes again and again.
    given_up: bool,
    /// Whether one was begun, and its success is to be told.
    begun: bool,
    count: u64,
    last_at_ms: Option<u64>,
    last: Vec<String>,
}

impl Repairs {
    /// Whether what differs may be repaired.
    fn may(&mut self, now: Instant) -> bool {
        self.forget(now);
        self.given_up |= self.recent.len() >= MOST;
        !self.given_up
    }

    fn begin(&mut self, now: Now, differences: &[String]) {
        self.recent.push_back(now.instant);
        self.count += 1;
        self.last_at_ms = Some(now.unix_ms);
        self.last = differences.to_vec();
        self.begun = true;
    }

    /// Takes note of tables that are the intended ones. Whoever wrote may have stopped.
    fn is_well(&mut self, now: Instant) {
        self.forget(now);
        self.given_up &= !self.recent.is_empty();
    }

    fn forget(&mut self, now: Instant) {
        let old = |at: &Instant| now.saturating_duration_since(*at) >= WINDOW;
        while self.recent.front().is_some_and(old) {
            self.recent.pop_front();
        }
    }
}

impl State {
    /// Begins to compare the kernel's tables with the intended ones, unless that is under way. To read
    /// all of them takes a tenth of a second for a thousand services, and seconds where their rings
    /// are large: others come between the parts of it.
    pub(super) fn begin_comparison(&mut self, now: Now) {
        self.now = now;
        self.watch_file();
        // While packets follow those of an older version, there is nothing to compare.
        if self.comparing.is_some() || self.image.is_none() || self.kernel.is_upgrading() {
            return;
        }
        match self.kernel.begin_reading() {
            Ok(Some(reading)) => self.comparing = Some(reading),
            Ok(None) => self.conclude(Ok(None)),
            Err(e) => self.conclude(Err(e)),
        }
    }

    /// Whether something is under way that is done in parts, so that nothing waits for the whole.
    pub(super) const fn has_parts(&self) -> bool {
        self.sweeping() || self.comparing.is_some()
    }

    /// Does a part of it; true where there is something to tell.
    pub(super) fn do_part(&mut self, now: Now) -> bool {
        if self.sweeping() {
            self.sweep(now);
        }
        self.compare_on(now)
    }

    /// Goes on with the comparison; true where that ended it.
    fn compare_on(&mut self, now: Now) -> bool {
        self.now = now;
        let (Some(mut reading), Some(intended)) = (self.comparing.take(), &self.image) else {
            return false;
        };
        match self.kernel.read_on(&mut reading, intended) {
            Ok(false) => {
                self.comparing = Some(reading);
                return false;
            }
            Ok(true) => self.conclude(Ok(Some(reading.done()))),
            Err(e) => self.conclude(Err(e)),
        }
        true
    }

    /// Compares the kernel's tables with the intended ones, at once.
    fn compare(&mut self, now: Now) {
        self.comparing = None;
        self.begin_comparison(now);
        while self.comparing.is_some() {
            self.compare_on(now);
        }
    }

    /// Compares what was just published: at once only where the last comparison is long ago, since
    /// another publication would begin it anew.
    pub(super) fn compare_published(&mut self, now: Now) {
        if now.unix_ms.saturating_sub(self.verification.at_ms) > OVERDUE_MS {
            self.compare(now);
        } else {
            self.comparing = None;
            self.begin_comparison(now);
        }
    }

    /// Takes note of what was read back, and begins a repair where that is not as intended.
    fn conclude(&mut self, live: Result<Option<Image>, Error>) {
        let now = self.now;
        let Some(intended) = &self.image else {
            return;
        };
        let (differing_slots, differences) = match &live {
            Ok(live) => evenness::drift(
                &self.config.services,
                &self.numbers,
                intended,
                live.as_ref(),
            ),
            Err(e) => (
                0,
                vec![format!(
                    "the tables could not be read back: {}",
                    with_causes(e)
                )],
            ),
        };
        let were_well = self.verification.differences.is_empty();
        let are_well = differences.is_empty();
        self.verification = Verification {
            at_ms: now.unix_ms,
            differing_slots,
            differences,
        };
        if are_well {
            self.repairs.is_well(now.instant);
            if !were_well {
                self.tell_well();
            }
            return;
        }
        let had_given_up = self.repairs.given_up;
        let repairs = self.config.data_plane.on_drift == OnDrift::Repair
            && self.attached()
            && self.repairs.may(now.instant);
        if were_well {
            self.tell_drift();
        }
        if self.repairs.given_up && !had_given_up {
            self.tell_given_up();
        }
        if repairs {
            self.repair(live.ok().flatten());
        }
    }

    /// Takes back what was made to differ on purpose since a moment, which is no sign of a fight.
    pub(super) fn undo_drift(&mut self, now: Now, since: Instant) {
        self.compare(now);
        let differs = !self.verification.differences.is_empty();
        if differs && self.config.data_plane.on_drift == OnDrift::Report {
            let live = self.kernel.live().ok().flatten();
            self.repair(live);
        }
        self.repairs.recent.retain(|at| *at < since);
    }

    /// Has the next publication begin with what packets follow, so that it writes what differs.
    fn repair(&mut self, live: Option<Image>) {
        let differences = &self.verification.differences;
        self.repairs.begin(self.now, differences);
        // What the live slots came from, somebody else knows.
        for state in &mut self.services {
            state.grounds = None;
        }
        match live {
            Some(live) => {
                self.kernel.adopt(&live);
                self.follow_image(live);
            }
            // Nothing is known of them: all of it is written.
            None => self.kernel.forget(),
        }
        self.news
            .add("the kernel's tables were not the intended ones");
    }

    fn tell_drift(&self) {
        let Verification {
            differing_slots,
            differences,
            ..
        } = &self.verification;
        let message = format!(
            "the kernel's tables are not the intended ones: {}",
            differences.join("; ")
        );
        let event = self.event(Kind::Drift, Level::Error, message);
        self.tell(event.detail(json!({
            "slots": differing_slots,
            "differences": differences,
        })));
    }

    fn tell_well(&mut self) {
        let message = if std::mem::take(&mut self.repairs.begun) {
            format!(
                "the kernel's tables are the intended ones again, repaired by generation {}",
                self.generation()
            )
        } else {
            "the kernel's tables are the intended ones again".to_owned()
        };
        let event = self.event(Kind::Drift, Level::Info, message);
        let repairs = self.repairs.count;
        self.tell(event.detail(json!({ "repairs": repairs, "differences": self.repairs.last })));
    }

    fn tell_given_up(&self) {
        let message = format!(
            "the kernel's tables differ again after {MOST} repairs within {} minutes: another \
             program writes to the pinned maps, and nothing is repaired any more; end it, then \
             restart the controller",
            WINDOW.as_secs() / 60
        );
        self.tell(self.event(Kind::Drift, Level::Error, message));
    }

    /// The comparison as the API shows it.
    pub(super) fn tables_status(&self) -> proto::Tables {
        proto::Tables {
            as_intended: self.verification.differences.is_empty(),
            checked_at_ms: self.verification.at_ms,
            differing_slots: self.verification.differing_slots,
            differences: self.verification.differences.clone(),
            repairs: proto::Repairs {
                count: self.repairs.count,
                last_at_ms: self.repairs.last_at_ms,
                last: self.repairs.last.clone(),
                recent: !self.repairs.recent.is_empty(),
                given_up: self.repairs.given_up,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fight_is_given_up_and_begins_anew_only_after_peace() {
        #[expect(clippy::disallowed_methods, reason = "any instant to begin with")]
        let start = Instant::now();
        let at = |seconds| Now {
            instant: start + Duration::from_secs(seconds),
            unix_ms: seconds * 1000,
        };
        let mut repairs = Repairs::default();
        for seconds in [0, 10, 20] {
            assert!(repairs.may(at(seconds).instant));
            repairs.begin(at(seconds), &["slot 7".to_owned()]);
        }
        assert!(!repairs.may(at(30).instant));
        assert_eq!((repairs.count, repairs.last_at_ms), (3, Some(20_000)));
        // Not even later, while they differ.
        assert!(!repairs.may(at(3_600).instant));
        repairs.is_well(at(3_610).instant);
        assert!(repairs.may(at(3_620).instant));

        // Seldom enough is no fight.
        let mut repairs = Repairs::default();
        for n in 0..20 {
            assert!(repairs.may(at(n * 300).instant), "{n}");
            repairs.begin(at(n * 300), &[]);
        }
        // Well for a moment within the window is no peace.
        let mut repairs = Repairs::default();
        for seconds in [0, 10, 20] {
            repairs.begin(at(seconds), &[]);
        }
        assert!(!repairs.may(at(30).instant));
        repairs.is_well(at(40).instant);
        assert!(!repairs.may(at(50).instant));
    }
}
