//! What a backend says of itself by its agent, and how far that is followed.
//!
//! Pure code: time comes in as an argument, as the time since any fixed moment. An [`Agent`] takes
//! answers and failures to get one, and says which part of its weight the backend asks for. What
//! comes of it is decided elsewhere: an operator's override comes first, and
//! [`force`](super::force) keeps agents from emptying a pool.
//!
//! An agent that reports its load may say another percentage each time, and each change is a
//! publication, after which flows are remembered for a while. So small changes are not followed,
//! and no two but [`PACE`] apart; that no new flows are wanted is followed at once.

mod answer;

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::answer::{Admin, Answer, Operation, Unknown};
use crate::model::Fraction;

/// The least difference in percent that is followed, but for the way to nothing and to all.
const STEP: u8 = 5;
/// From one change that is followed to the next, unless that is the way to nothing.
pub const PACE: Duration = Duration::from_secs(10);

/// What a backend asks for, all answers together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Which part of its weight, in percent, were it to serve.
    pub percent: u8,
    /// What its owner wants.
    pub admin: Admin,
    /// How it is.
    pub operation: Operation,
    /// Why, where the last answer said so.
    pub note: Option<String>,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            percent: 100,
            admin: Admin::Ready,
            operation: Operation::Up,
            note: None,
        }
    }
}

impl Wish {
    /// The word for it: what keeps it from new flows, or `up`.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match (self.operation, self.admin) {
            (Operation::Up, Admin::Ready) => "up",
            (Operation::Up, admin) => admin.word(),
            (operation, _) => operation.word(),
        }
    }

    /// The percentage of its weight that it is to have.
    #[must_use]
    pub const fn asked(&self) -> u8 {
        match (self.operation, self.admin) {
            (Operation::Up, Admin::Ready) => self.percent,
            _ => 0,
        }
    }

    fn take(&mut self, answer: &Answer) {
        self.percent = answer.percent.unwrap_or(self.percent);
        self.admin = answer.admin.unwrap_or(self.admin);
        self.operation = answer.operation.unwrap_or(self.operation);
        self.note.clone_from(&answer.note);
    }
}

impl fmt::Display for Wish {
    /// Writes `'drain' (kernel update)`, `50 % of its weight`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.word(), self.percent) {
            ("up", 100) => f.write_str("its whole weight")?,
            ("up", percent) => write!(f, "{percent} % of its weight")?,
            (word, _) => write!(f, "no new flows ('{word}')")?,
        }
        match &self.note {
            Some(note) => write!(f, ": {note}"),
            None => Ok(()),
        }
    }
}

/// A moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The time since any fixed moment, for durations.
    pub elapsed: Duration,
    /// Milliseconds since the Unix epoch, for people.
    pub unix_ms: u64,
}

/// What there is to tell of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Another wish is followed.
    Asks(Wish),
    /// It has been silent for so long that its last word does not count any more.
    Forgotten {
        /// Its last word.
        word: Wish,
        /// How long it has been silent.
        silent: Duration,
        /// Why it was not heard last.
        why: String,
    },
}

/// One backend's agent.
#[derive(Clone, Debug, Default)]
pub struct Agent {
    wish: Wish,
    /// When an answer was last understood; `None` where none is remembered.
    heard: Option<Duration>,
    /// Why the last question got no answer.
    failure: Option<String>,
    /// Questions in a row that got no answer.
    unanswered: u32,
    /// The percentage that is followed.
    followed: Option<u8>,
    /// When that was last changed.
    moved: Option<Duration>,
    /// Since when it has asked for what it does, in milliseconds since the Unix epoch.
    since_ms: u64,
}

impl Agent {
    /// An agent whose last word is known from before, and counts as if it had been heard at zero.
    #[must_use]
    pub const fn remembered(wish: Wish, since_ms: u64) -> Self {
        let followed = Some(wish.asked());
        Self {
            wish,
            heard: Some(Duration::ZERO),
            failure: None,
            unanswered: 0,
            followed,
            moved: None,
            since_ms,
        }
    }

    /// Takes what came of a question.
    pub fn take(&mut self, now: Moment, answer: Result<&Answer, String>) -> Option<News> {
        match answer {
            Ok(answer) => {
                self.failure = None;
                self.unanswered = 0;
                self.hear(now, answer)
            }
            Err(why) => {
                self.failure = Some(why);
                self.unanswered = self.unanswered.saturating_add(1);
                None
            }
        }
    }

    fn hear(&mut self, now: Moment, answer: &Answer) -> Option<News> {
        let word = self.wish.word();
        self.wish.take(answer);
        let first = self.heard.replace(now.elapsed).is_none();
        let (followed, asked) = (self.followed(), self.wish.asked());
        if self.is_due(now.elapsed, followed, asked) {
            self.followed = Some(asked);
            self.moved = Some(now.elapsed);
        } else if asked != followed || self.wish.word() == word {
            // What is not followed yet is told when it is.
            if first {
                self.since_ms = now.unix_ms;
            }
            return None;
        }
        self.since_ms = now.unix_ms;
        Some(News::Asks(self.wish.clone()))
    }

    /// Whether to follow from one percentage to another.
    fn is_due(&self, now: Duration, from: u8, to: u8) -> bool {
        let apart = |at| now.saturating_sub(at) >= PACE;
        match (from, to) {
            _ if from == to => false,
            (_, 0) => true,
            (0, _) | (_, 100) => self.moved.is_none_or(apart),
            _ => from.abs_diff(to) >= STEP && self.moved.is_none_or(apart),
        }
    }

    /// Forgets the last word of an agent that has been silent for longer than `keep`.
    pub fn pass(&mut self, now: Moment, keep: Duration) -> Option<News> {
        let silent = now.elapsed.saturating_sub(self.heard?);
        if silent < keep {
            return None;
        }
        let word = std::mem::take(&mut self.wish);
        self.heard = None;
        self.followed = None;
        self.moved = Some(now.elapsed);
        self.since_ms = now.unix_ms;
        let why = self.failure.clone().unwrap_or_default();
        Some(News::Forgotten { word, silent, why })
    }

    fn followed(&self) -> u8 {
        self.followed.unwrap_or(100)
    }

    /// The part of its weight that the backend asks for, as far as that is followed.
    #[must_use]
    pub fn part(&self) -> Fraction {
        let parts = u32::from(self.followed()) * Fraction::FULL.parts() / 100;
        Fraction::new(parts).unwrap_or(Fraction::FULL)
    }

    /// What it asks for; `None` where it has not said anything, or not for long.
    #[must_use]
    pub fn wish(&self) -> Option<&Wish> {
        self.heard.map(|_| &self.wish)
    }

    /// When it was last heard.
    #[must_use]
    pub const fn heard(&self) -> Option<Duration> {
        self.heard
    }

    /// Since when it has asked for what it does, in milliseconds since the Unix epoch.
    #[must_use]
    pub const fn since_ms(&self) -> u64 {
        self.since_ms
    }

    /// Why the last question got no answer; `None` where it did.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Whether enough is known of it to begin with: a word, or that two questions in a row got no
    /// answer. One may be lost.
    #[must_use]
    pub const fn is_known(&self) -> bool {
        self.heard.is_some() || self.unanswered >= 2
    }
}

#[cfg(test)]
mod tests;
