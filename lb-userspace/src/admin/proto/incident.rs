//! What is said about incidents.

use serde::{Deserialize, Serialize};

/// An incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Its name: the day that it was opened on, and its number on that day.
    pub id: String,
    /// `open`, `mitigated` (all of its alerts are over) or `closed`.
    pub state: String,
    /// The service that it is about; absent where it is about the whole host.
    pub service: Option<String>,
    /// The drill that it belongs to.
    pub drill: Option<String>,
    /// What was said of it when it was opened.
    pub text: String,
    /// Who opened it: `controller`, or a user.
    pub opened_by: String,
    /// When.
    pub opened_at_ms: u64,
    /// Since when something was wrong, as far as a detector knows.
    pub start_ms: u64,
    /// Who acknowledged it.
    pub acknowledged_by: Option<String>,
    /// When.
    pub acknowledged_at_ms: Option<u64>,
    /// Since when all of it is over.
    pub mitigated_at_ms: Option<u64>,
    /// When it was closed.
    pub closed_at_ms: Option<u64>,
    /// The alerts that belong to it, each with its backend, in the order in which they came.
    pub alerts: Vec<String>,
}

/// Asks for a step of an incident: `POST /v1/incident`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// What is asked for.
    pub action: Action,
    /// Which incident; the only open one where it is absent. Not for `open`.
    #[serde(default)]
    pub id: Option<String>,
    /// The service, for `open`; the whole host where it is absent.
    #[serde(default)]
    pub service: Option<String>,
    /// The drill that it belongs to, for `open`.
    #[serde(default)]
    pub drill: Option<String>,
    /// What there is to say.
    #[serde(default)]
    pub text: Option<String>,
}

/// What is asked of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Open one.
    Open,
    /// Somebody has it in hand.
    Ack,
    /// Write something down.
    Note,
    /// It is over.
    Close,
}

/// What was done about an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What happened, in words.
    pub message: String,
    /// The incident as it is now.
    pub incident: Incident,
}
