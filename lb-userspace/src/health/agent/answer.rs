//! What an agent answers: a line of words, as the agent check of `HAProxy` has them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest note that is kept, in characters.
const LONGEST_NOTE: usize = 200;

/// What a backend's owner wants of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Admin {
    /// It is to serve.
    #[default]
    Ready,
    /// No new flows.
    Drain,
    /// The same, because somebody works on it.
    Maint,
}

/// How a backend says that it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Well.
    #[default]
    Up,
    /// It does not serve.
    Down,
    /// It fails tests of its own.
    Fail,
    /// It was stopped on purpose.
    Stopped,
}

impl Admin {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

impl Operation {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Fail => "fail",
            Self::Stopped => "stopped",
        }
    }
}

/// What one answer says. What it does not mention stays as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Which part of its weight it wants, in percent; at most 100.
    pub percent: Option<u8>,
    /// What its owner wants.
    pub admin: Option<Admin>,
    /// How it is.
    pub operation: Option<Operation>,
    /// What stands behind `#`.
    pub note: Option<String>,
}

/// No word of an answer is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Unknown {
    /// The answer, or its beginning.
    pub said: String,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.said.is_empty() {
            return f.write_str("the answer is empty");
        }
        write!(
            f,
            "the answer has no word that is known: {:?}; say up, down, fail, stopped, ready, drain, \
             maint or a percentage as in 75%",
            self.said
        )
    }
}

impl Answer {
    /// Reads the first line of an answer. Words are divided by spaces, tabs and commas, and may
    /// stand in any order and case; of two that contradict each other, the last counts.
    ///
    /// # Errors
    /// Where no word is known. Beside others, an unknown one is passed over, as `maxconn:` is.
    pub fn parse(text: &str) -> Result<Self, Unknown> {
        let line = text.split(['\r', '\n']).next().unwrap_or_default();
        let (words, note) = match line.split_once('#') {
            Some((words, note)) => (words, Some(shortened(note.trim()))),
            None => (line, None),
        };
        let mut answer = Self::default();
        let mut known = false;
        for word in words
            .split([' ', '\t', ','])
            .filter(|word| !word.is_empty())
        {
            known |= answer.take(&word.to_ascii_lowercase());
        }
        if !known {
            let said = shortened(line.trim());
            return Err(Unknown { said });
        }
        answer.note = note.filter(|note| !note.is_empty());
        Ok(answer)
    }

    /// Takes a word; answers whether it is known.
    fn take(&mut self, word: &str) -> bool {
        match word {
            "up" => self.operation = Some(Operation::Up),
            "down" => self.operation = Some(Operation::Down),
            "fail" => self.operation = Some(Operation::Fail),
            "stopped" => self.operation = Some(Operation::Stopped),
            "ready" => self.admin = Some(Admin::Ready),
            "drain" => self.admin = Some(Admin::Drain),
            "maint" => self.admin = Some(Admin::Maint),
            _ => match word.strip_suffix('%').map(percent) {
                Some(Some(percent)) => self.percent = Some(percent),
                _ => return false,
            },
        }
        true
    }
}

/// A percentage; more than all is all.
fn percent(digits: &str) -> Option<u8> {
    let digits_only = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits_only.then(|| digits.parse::<u8>().map_or(100, |number| number.min(100)))
}

fn shortened(text: &str) -> String {
    text.chars().take(LONGEST_NOTE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Answer {
        Answer::parse(text).unwrap_or_else(|unknown| panic!("{text:?}: {unknown}"))
    }

    #[test]
    fn words_stand_in_any_order_and_case() {
        let answer = read(" READY,\tup 75%\r\ndrain\n");
        assert_eq!(answer.percent, Some(75));
        assert_eq!(answer.admin, Some(Admin::Ready));
        assert_eq!(answer.operation, Some(Operation::Up));
        assert_eq!(answer.note, None, "the second line is not looked at");
        assert_eq!(read("up down").operation, Some(Operation::Down));
        let all = [
            ("up", Operation::Up),
            ("down", Operation::Down),
            ("fail", Operation::Fail),
            ("stopped", Operation::Stopped),
        ];
        for (word, expected) in all {
            assert_eq!(read(word).operation, Some(expected));
            assert_eq!(expected.word(), word);
        }
        for admin in [Admin::Ready, Admin::Drain, Admin::Maint] {
            assert_eq!(read(admin.word()).admin, Some(admin));
        }
    }

    #[test]
    fn what_is_not_mentioned_is_not_said() {
        let expected = Answer {
            percent: Some(0),
            ..Answer::default()
        };
        assert_eq!(read("0%\n"), expected);
    }

    #[test]
    fn a_percentage_is_a_whole_number_and_at_most_all() {
        for (text, percent) in [("1%", 1), ("100%", 100), ("101%", 100), ("99999%", 100)] {
            assert_eq!(read(text).percent, Some(percent), "{text}");
        }
        for text in ["%", "-5%", "+5%", "7.5%", "75", "75 %"] {
            assert!(Answer::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_note_says_why() {
        let answer = read("down#disk full, 3 of 4\n");
        assert_eq!(answer.operation, Some(Operation::Down));
        assert_eq!(answer.note.as_deref(), Some("disk full, 3 of 4"));
        assert_eq!(read("up #\n").note, None);
        let long = format!("up # {}", "ä".repeat(1000));
        assert_eq!(read(&long).note.unwrap().chars().count(), LONGEST_NOTE);
    }

    #[test]
    fn unknown_words_are_passed_over_and_nothing_else_is_no_answer() {
        assert_eq!(read("maxconn:30 drain later").admin, Some(Admin::Drain));
        for (text, said) in [
            ("", "the answer is empty"),
            ("\r\n", "the answer is empty"),
            (
                "# a note",
                "the answer has no word that is known: \"# a note\"; say up,",
            ),
            (
                "HTTP/1.1 400",
                "the answer has no word that is known: \"HTTP/1.1 400\"; say up,",
            ),
        ] {
            let unknown = Answer::parse(text).unwrap_err().to_string();
            assert!(unknown.starts_with(said), "{text:?}: {unknown}");
        }
    }
}
