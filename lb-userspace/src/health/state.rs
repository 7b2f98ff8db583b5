//! Whether one backend is up: rise and fall counts over the verdicts of its probes.
//!
//! | state | verdict | becomes |
//! |---|---|---|
//! | unknown | pass | up, at once |
//! | unknown | fail | down, at once |
//! | up | pass | up, failures counted so far are forgotten |
//! | up | fail | up with one failure more; down at the `fall`th in a row |
//! | down | fail | down, passes counted so far are forgotten |
//! | down | pass | down with one pass more; up at the `rise`th in a row |
//!
//! The first verdict decides alone because a controller that starts has nothing to keep: waiting
//! for more rounds would only delay the first tables.

use std::{fmt, num::NonZeroU32, time::Instant};

use crate::model::HealthCheck;

/// What is known of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// No probe has told anything yet.
    Unknown,
    /// It takes traffic.
    Up,
    /// It must not be sent traffic.
    Down,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// What one probe says of its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It answered as it should.
    Pass,
    /// It did not.
    Fail,
}

/// A change of a backend's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state after; never the same, and never [`State::Unknown`].
    pub to: State,
    /// When the deciding probe ended.
    pub at: Instant,
    /// The rule that decided.
    pub reason: Reason,
}

/// The rule that changed a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The first verdict of all decides at once.
    First(Verdict),
    /// This many passes came in a row.
    Passes(NonZeroU32),
    /// This many failures came in a row.
    Failures(NonZeroU32),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First(Verdict::Pass) => f.write_str("first probe passed"),
            Self::First(Verdict::Fail) => f.write_str("first probe failed"),
            Self::Passes(NonZeroU32::MIN) => f.write_str("1 pass"),
            Self::Passes(count) => write!(f, "{count} passes in a row"),
            Self::Failures(NonZeroU32::MIN) => f.write_str("1 failure"),
            Self::Failures(count) => write!(f, "{count} failures in a row"),
        }
    }
}

/// The rise and fall counts of one backend.
#[derive(Clone, Debug)]
pub struct Machine {
    rise: NonZeroU32,
    fall: NonZeroU32,
    state: State,
    /// Verdicts in a row that contradict `state`; always fewer than would change it.
    contrary: u32,
    /// When the latest verdict was observed.
    latest: Option<Instant>,
}

impl Machine {
    /// Starts from `state`, by the `rise` and `fall` of `check`.
    ///
    /// A backend that was never probed starts as [`State::Unknown`]. A controller that adopts
    /// live tables starts a backend as [`State::Up`] or [`State::Down`], as those tables have it,
    /// so that one lost probe at a restart moves nothing. The same holds for a change of
    /// configuration: start the new machine from the old one's state.
    pub const fn new(check: &HealthCheck, state: State) -> Self {
        Self {
            rise: check.rise,
            fall: check.fall,
            state,
            contrary: 0,
            latest: None,
        }
    }

    /// What is known of the backend now.
    pub const fn state(&self) -> State {
        self.state
    }

    /// How many verdicts in a row have contradicted the state so far; zero while it is unknown.
    pub const fn contrary(&self) -> u32 {
        self.contrary
    }

    /// Takes the verdict of a probe that ended at `at`; returns the change that it makes, if any.
    ///
    /// A verdict older than the latest one is ignored.
    pub fn observe(&mut self, at: Instant, verdict: Verdict) -> Option<Transition> {
        if self.latest.is_some_and(|latest| at < latest) {
            return None;
        }
        self.latest = Some(at);

        let to = match verdict {
            Verdict::Pass => State::Up,
            Verdict::Fail => State::Down,
        };
        if self.state == to {
            self.contrary = 0;
            return None;
        }
        let (needed, reason) = match (self.state, verdict) {
            (State::Unknown, _) => (NonZeroU32::MIN, Reason::First(verdict)),
            (_, Verdict::Pass) => (self.rise, Reason::Passes(self.rise)),
            (_, Verdict::Fail) => (self.fall, Reason::Failures(self.fall)),
        };
        self.contrary += 1;
        if self.contrary < needed.get() {
            return None;
        }
        self.contrary = 0;
        let from = std::mem::replace(&mut self.state, to);
        Some(Transition {
            from,
            to,
            at,
            reason,
        })
    }
}

#[cfg(test)]
mod tests;
