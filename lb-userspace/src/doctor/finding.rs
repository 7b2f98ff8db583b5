//! What a look at a host found.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Looked at, and as it should be.
    Ok,
    /// Worth knowing; nothing has to be done.
    Info,
    /// The program runs, and some packets will suffer.
    Warning,
    /// The program will not be attached, or could not read a single packet.
    Error,
}

impl Level {
    /// The word for it, as JSON has it too.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What can be done about a finding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remedy {
    /// In words.
    pub words: String,
    /// A command that can be pasted into a root shell as it is.
    pub command: Option<String>,
}

impl Remedy {
    /// One that no single command is.
    pub fn words(words: impl Into<String>) -> Self {
        Self {
            words: words.into(),
            command: None,
        }
    }

    /// One that a command is, given word by word.
    pub fn command<W: AsRef<str>>(
        words: impl Into<String>,
        command: impl IntoIterator<Item = W>,
    ) -> Self {
        Self {
            words: words.into(),
            command: paste(command),
        }
    }
}

/// A command as a shell takes it. Names of interfaces may hold almost anything.
fn paste<W: AsRef<str>>(command: impl IntoIterator<Item = W>) -> Option<String> {
    let words: Vec<W> = command.into_iter().collect();
    // There is no way to write a word with a zero byte in it, so there is no such command.
    shlex::try_join(words.iter().map(AsRef::as_ref)).ok()
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// Which rule found it; the same word in every version.
    pub rule: &'static str,
    /// About what: `host`, an interface, or a service.
    #[serde(rename = "where")]
    pub place: String,
    /// What was found.
    pub what: String,
    /// Why it matters; empty where all is well.
    pub why: String,
    /// What to do about it; empty where nothing has to be done.
    pub remedy: String,
    /// The command for that, where one does it.
    pub command: Option<String>,
}

impl Finding {
    /// Looked at, and as it should be.
    pub fn ok(rule: &'static str, place: &str, what: impl Into<String>) -> Self {
        Self::new(Level::Ok, rule, place, what, "", Remedy::default())
    }

    /// Something to know or to act upon.
    pub fn new(
        level: Level,
        rule: &'static str,
        place: &str,
        what: impl Into<String>,
        why: impl Into<String>,
        remedy: Remedy,
    ) -> Self {
        Self {
            level,
            rule,
            place: place.to_owned(),
            what: what.into(),
            why: why.into(),
            remedy: remedy.words,
            command: remedy.command,
        }
    }
}

impl fmt::Display for Finding {
    /// In one line, for a log or an error.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.what.contains(&self.place) {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.what)?;
        if !self.why.is_empty() {
            write!(f, ": {}", self.why)?;
        }
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        if let Some(command) = &self.command {
            write!(f, ": '{command}'")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_pasted_whatever_the_interface_is_called() {
        let set = |name| Remedy::command("", ["ip", "link", "set", "dev", name, "up"]).command;
        assert_eq!(set("eth0.10").unwrap(), "ip link set dev eth0.10 up");
        assert_eq!(set("a;reboot").unwrap(), "ip link set dev 'a;reboot' up");
    }
}
