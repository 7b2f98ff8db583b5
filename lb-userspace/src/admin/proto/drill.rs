//! What is said about drills.

use serde::{Deserialize, Serialize};

/// The part of a service's slots that a drill moves at most, unless it is told less.
pub const MOST_SLOTS: f64 = 0.10;
/// How long a drill lasts unless it is told otherwise, in seconds.
pub const USUAL_S: f64 = 120.0;
/// How long one lasts at most, in seconds.
pub const LONGEST_S: f64 = 600.0;

/// Asks to begin a drill, or what would become of one: `POST /v1/drill`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Its name.
    pub drill: String,
    /// The service that it is about.
    pub service: String,
    /// The backend that it is about; the controller's choice where it is absent and one is needed.
    #[serde(default)]
    pub backend: Option<String>,
    /// The network of the clients whose packets it takes on their way to the backend, as in
    /// `203.0.113.0/24`; nobody's where it is absent. Of `kill`, `slow` and `errors` alone.
    #[serde(default)]
    pub clients: Option<String>,
    /// How long it lasts at most, in seconds.
    pub lasts_s: f64,
    /// What it may do, and what ends it.
    #[serde(default)]
    pub limits: Limits,
    /// Whether it is only asked what would be done.
    #[serde(default)]
    pub dry: bool,
}

/// What a drill may do, and what ends it before its time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// The part of the service's slots that it moves at most.
    pub slots: f64,
    /// It ends where more packets than this part of the new connections are turned away by the load
    /// balancer itself.
    pub turned_away: f64,
    /// It ends where the other backends are so many times as slow as they were when it began.
    pub slower: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            slots: MOST_SLOTS,
            turned_away: 0.01,
            slower: 2.0,
        }
    }
}

/// Asks to end the drill that is on: `POST /v1/drill/abort`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abort {
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// A drill that is on, or was a moment ago.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// Its name.
    pub drill: String,
    /// The service that it is about.
    pub service: String,
    /// The backend that it is about, where it is about one.
    pub backend: Option<String>,
    /// What was done, in words.
    pub what: String,
    /// Who began it.
    pub actor: String,
    /// When it began.
    pub since_ms: u64,
    /// When it ends by itself.
    pub ends_at_ms: u64,
    /// When its fault was taken back; absent while it is there. What is left of its effects is the
    /// drill's until the service is as it was, ten minutes at most.
    #[serde(default)]
    pub ended_at_ms: Option<u64>,
    /// Why that was.
    #[serde(default)]
    pub why_ended: Option<String>,
}

/// What came of asking for a drill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// What was done, or would be.
    pub running: Running,
    /// Slots that move.
    pub slots: u32,
    /// Of so many.
    pub of_slots: u32,
    /// Why it would be refused now: of a dry run.
    pub refused: Vec<String>,
}

/// Something that happened in a drill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// When.
    pub at_ms: u64,
    /// What.
    pub what: String,
}

/// What came of a drill. Times are from its beginning on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scorecard {
    /// Its name.
    pub drill: String,
    /// `sandbox` or `live`.
    pub place: String,
    /// The service.
    pub service: String,
    /// The backend, where it was about one.
    pub backend: Option<String>,
    /// When it began.
    pub began_at_ms: u64,
    /// What was believed.
    pub hypothesis: String,
    /// The verdict that was expected.
    pub expected: String,
    /// The verdict that was found; absent where none came.
    pub found: Option<String>,
    /// From the decision to begin until the fault was there.
    pub inject_s: Option<f64>,
    /// From the fault until the verdict.
    pub detect_s: Option<f64>,
    /// From the fault until somebody was told.
    pub notify_s: Option<f64>,
    /// From the fault until its remedy.
    pub mitigate_s: Option<f64>,
    /// From the fault until all was as before.
    pub restore_s: Option<f64>,
    /// Requests of clients meanwhile, where they were made by the drill.
    pub requests: Option<u64>,
    /// How many of them failed.
    pub failed: Option<u64>,
    /// Whether all came as it was believed.
    pub passed: bool,
    /// What did not.
    pub wrong: Vec<String>,
    /// What happened, in order.
    pub happened: Vec<Moment>,
}
