//! What is said about changes of a running controller.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Asks what it would change, or to change it: `POST /v1/plan` and `POST /v1/apply`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The file's name, for findings and for the record.
    pub file: String,
    /// The file's text.
    pub text: String,
    /// Why it is done.
    #[serde(default)]
    pub reason: Option<String>,
    /// Go back unless it is confirmed within so many seconds.
    #[serde(default)]
    pub confirm_within_s: Option<f64>,
    /// Do it although the audit finds errors; needs a reason.
    #[serde(default)]
    pub force: bool,
}

/// Asks to go back: `POST /v1/rollback`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// To which configuration; the one before where it is absent.
    #[serde(default)]
    pub to: Option<u64>,
    /// Why it is done.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Asks for an override of one backend, or for its end: `POST /v1/override`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Imposing {
    /// The service's name.
    pub service: String,
    /// The backend's name.
    pub backend: String,
    /// What it is to be.
    pub action: Action,
    /// Why it is done.
    #[serde(default)]
    pub reason: Option<String>,
    /// It ends by itself after so many seconds.
    #[serde(default)]
    pub expires_s: Option<f64>,
    /// A drain becomes `disable` after so many seconds.
    #[serde(default)]
    pub deadline_s: Option<f64>,
}

/// What is asked of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// No new flows; established ones stay.
    Drain,
    /// No flows at all.
    Disable,
    /// What the configuration says.
    Enable,
    /// This weight.
    Weight(u16),
}

/// An override of what the configuration says of a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Override {
    /// The service's name.
    pub service: String,
    /// The backend's name.
    pub backend: String,
    /// `drain`, `disable` or `weight`.
    pub kind: String,
    /// The weight that is in force instead of the configured one; 0 for `drain` and `disable`.
    pub weight: u16,
    /// The weight that the configuration gives it; absent where it is not configured.
    pub configured_weight: Option<u16>,
    /// Who did it.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
    /// Since when.
    pub since_ms: u64,
    /// When it ends by itself.
    pub expires_at_ms: Option<u64>,
    /// How far a drain is.
    pub drain: Option<Drain>,
}

/// How far a drain is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Whether no flow of the backend is left, or can come back.
    pub complete: bool,
    /// Flows that are remembered as the backend's; absent until they were first counted.
    pub flows_left: Option<u64>,
    /// Slots whose older flows still go to it, remembered or not.
    pub slots_left: u32,
    /// Packets sent to it since the drain began.
    pub packets_since: u64,
    /// When it becomes `disable`.
    pub deadline_at_ms: Option<u64>,
}

/// What was done about an override.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Imposed {
    /// What happened, in words.
    pub message: String,
    /// The override; absent where there is none any more.
    #[serde(rename = "override")]
    pub overridden: Option<Override>,
    /// The publication that the kernel forwards by.
    pub generation: u64,
    /// What is wrong although it was done.
    pub warning: Option<String>,
}

/// A configuration that is in force, or was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    /// Its number among the kept ones; 0 where none could be kept.
    pub number: u64,
    /// The SHA-256 of its text, in hexadecimal digits.
    pub sha256: String,
    /// The file that it was read from.
    pub file: String,
    /// When it came into force.
    pub at_ms: u64,
    /// Who did that.
    pub actor: String,
    /// `start`, `apply`, `rollback` or `reload`.
    pub how: String,
    /// Why.
    pub reason: Option<String>,
    /// The configuration whose text it has, where it was rolled back to.
    pub copy_of: Option<u64>,
    /// Audit findings that were overruled by force.
    #[serde(default)]
    pub forced: Vec<String>,
    /// Whether it is the one in force.
    #[serde(default)]
    pub in_force: bool,
    /// When the one before comes back, unless this one is confirmed.
    pub confirm_by_ms: Option<u64>,
    /// What a person should know about the file and what is in force; absent where they agree.
    #[serde(default)]
    pub file_differs: Option<String>,
}

/// What came of a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What happened, in words.
    pub message: String,
    /// The configuration that is in force now.
    pub configuration: Configuration,
    /// The publication that the kernel forwards by.
    pub generation: u64,
    /// What changed.
    pub plan: Plan,
}

/// What a change does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Whether anything changes.
    pub changes: bool,
    /// Slots that get another owner, over all services.
    pub slots_moved: u32,
    /// Settings of all services that change, as keys of the file.
    pub settings: Vec<String>,
    /// Keys that cannot be changed while the controller runs, so that the change is refused.
    pub fixed: Vec<Fixed>,
    /// The services that change, in the order of the new configuration, removed ones last.
    pub services: Vec<ServicePlan>,
    /// How many services stay as they are.
    pub unchanged: usize,
    /// What the audit finds in the new configuration.
    pub findings: Vec<Finding>,
    /// Backends that nothing is known of yet, and that are taken for up and reachable.
    pub assumed: Vec<String>,
}

impl Plan {
    /// Whether the audit found what `apply` refuses without force.
    pub fn is_alarming(&self) -> bool {
        self.findings.iter().any(Finding::is_alarming)
    }
}

/// A key that cannot be changed while the controller runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fixed {
    /// The key, as in `data_plane.interfaces`.
    pub key: String,
    /// What to do.
    pub remedy: String,
}

/// What becomes of a thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It is new.
    Added,
    /// It goes.
    Removed,
    /// It is another.
    Changed,
    /// It stays as it is.
    #[default]
    Same,
}

/// What a change does to a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServicePlan {
    /// Its name.
    pub name: String,
    /// Its address, protocol and port.
    pub key: String,
    /// What becomes of it.
    pub fate: Fate,
    /// What of it changes, as keys of the file.
    pub what: Vec<String>,
    /// The size of its ring before; 0 where it has none.
    pub ring_slots_before: u32,
    /// The size of its ring afterwards; 0 where it has none.
    pub ring_slots: u32,
    /// Slots that get another owner. Where the ring changes its size, of the larger one.
    pub slots_moved: u32,
    /// Slots in transition afterwards: their flows are tracked, so that established ones stay.
    pub slots_in_transition: u32,
    /// How many samples of new flows, of the last minute, the forecasts of its backends stand on.
    #[serde(default)]
    pub forecast_from: u64,
    /// Its backends, in the order of the new configuration, removed ones last.
    pub backends: Vec<BackendPlan>,
}

/// What a change does to a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendPlan {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// What becomes of it.
    pub fate: Fate,
    /// Its weight before, overrides included.
    pub weight_before: Option<u16>,
    /// Its weight afterwards, overrides included.
    pub weight: Option<u16>,
    /// Its slots before.
    pub slots_before: u32,
    /// Its slots afterwards.
    pub slots: u32,
    /// Its part of the slots before.
    pub share_before: f64,
    /// Its part of the slots afterwards.
    pub share: f64,
    /// The part of the new flows that it would have got afterwards of those of the last minute; absent
    /// where none were seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<f64>,
}

/// What the audit finds, as in `evenkeel audit --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The rule's number.
    pub rule: String,
    /// `info`, `warning`, `error` or `critical`.
    pub level: String,
    /// The service, where it is about one.
    pub service: Option<String>,
    /// The backend, where it is about one.
    pub backend: Option<String>,
    /// What was found.
    pub what: String,
    /// Why it matters.
    pub why: String,
    /// What to do about it.
    pub remedy: String,
    /// Whether the configuration in force does not have it.
    #[serde(default)]
    pub added: bool,
}

impl Finding {
    /// Whether `apply` refuses it without force: an error that the change would bring. Were it
    /// refused for what is there anyway, force would become a habit.
    pub fn is_alarming(&self) -> bool {
        self.added && matches!(self.level.as_str(), "error" | "critical")
    }

    /// Where it is: `web/b2`, `web`, or nothing.
    pub fn place(&self) -> String {
        match (&self.service, &self.backend) {
            (Some(service), Some(backend)) => format!("{service}/{backend}"),
            (Some(service), None) => service.clone(),
            _ => String::new(),
        }
    }
}
