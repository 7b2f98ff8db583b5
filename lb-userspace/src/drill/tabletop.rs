//! A tabletop: a recorded timeline, and questions about it whose answers the journal knew.

/// Something that happened, as it stands in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What it is about, by the journal's word.
    pub kind: String,
    /// How much it matters, by the journal's word.
    pub level: String,
    /// The service, where it is about one.
    pub service: Option<String>,
    /// The backend, where it is about one.
    pub backend: Option<String>,
    /// What a person reads.
    pub message: String,
}

/// A question with what is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What is asked.
    pub ask: &'static str,
    /// What the answer has to contain.
    pub right: String,
    /// Where that stands.
    pub because: String,
}

/// What stands for nothing in an answer.
pub const NONE: &str = "none";
/// Kinds of events that somebody did.
const DONE: [&str; 3] = ["change", "override", "agent"];
/// Kinds that tell of others, and are no trouble themselves.
const TOLD: [&str; 5] = ["notification", "note", "drill", "load-test", "journal"];

/// Where trouble begins in a timeline: its first event that is no mere record.
#[must_use]
pub fn trouble(timeline: &[Entry]) -> Option<usize> {
    timeline
        .iter()
        .position(|of| of.level != "info" && !TOLD.contains(&of.kind.as_str()))
}

/// The questions about a timeline; none where there was no trouble in it.
#[must_use]
pub fn questions(timeline: &[Entry]) -> Vec<Question> {
    let Some(at) = trouble(timeline) else {
        return Vec::new();
    };
    let first = &timeline[at];
    let or_none = |name: &Option<String>| name.clone().unwrap_or_else(|| NONE.to_owned());
    let before = timeline[..at].iter().rev();
    let done = before.clone().find(|of| DONE.contains(&of.kind.as_str()));
    vec![
        Question {
            ask: "which service is it, or 'none' where it is the whole host?",
            right: or_none(&first.service),
            because: first.message.clone(),
        },
        Question {
            ask: "which backend, or 'none' where it is not one?",
            right: or_none(&first.backend),
            because: first.message.clone(),
        },
        Question {
            ask: "what told of it first: health, performance, evenness, drift, flood, refusal, audit …?",
            right: first.kind.clone(),
            because: first.message.clone(),
        },
        Question {
            ask: "what did somebody do last before it: change, override, agent, or 'none'?",
            right: done.map_or_else(|| NONE.to_owned(), |of| of.kind.clone()),
            because: done.map_or_else(
                || "nothing of that kind is recorded before".to_owned(),
                |of| of.message.clone(),
            ),
        },
    ]
}

impl Question {
    /// Whether an answer is right.
    #[must_use]
    pub fn is_right(&self, answer: &str) -> bool {
        let answer = answer.trim().to_lowercase();
        answer
            .split([' ', '/', ','])
            .any(|word| word == self.right.to_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, level: &str, backend: Option<&str>) -> Entry {
        Entry {
            at_ms: 0,
            kind: kind.to_owned(),
            level: level.to_owned(),
            service: Some("web".to_owned()),
            backend: backend.map(ToOwned::to_owned),
            message: format!("{kind} of {backend:?}"),
        }
    }

    #[test]
    fn the_answers_are_what_the_journal_knew() {
        let timeline = [
            entry("change", "info", None),
            entry("override", "info", Some("b1")),
            entry("notification", "warning", None),
            entry("performance", "warning", Some("b2")),
            entry("change", "info", None),
        ];
        assert_eq!(trouble(&timeline), Some(3));
        let questions = questions(&timeline);
        let right: Vec<&str> = questions.iter().map(|of| &*of.right).collect();
        assert_eq!(right, ["web", "b2", "performance", "override"]);
        assert!(questions[1].is_right(" web/B2\n") && !questions[1].is_right("b22"));
        let alone = super::questions(&timeline[3..]);
        assert_eq!(alone[3].right, NONE);
        assert!(super::questions(&timeline[..2]).is_empty());
    }
}
