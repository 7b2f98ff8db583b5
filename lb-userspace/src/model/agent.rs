//! How backends are asked how much they want to take.

use std::{num::NonZeroU16, time::Duration};

/// How the agent on each backend of a service is asked.
///
/// It is asked at the backend's own address: what an agent says is about its host, not about the
/// way of traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentCheck {
    /// The agent's TCP port.
    pub port: NonZeroU16,
    /// From the start of one question to the start of the next, before jitter.
    pub interval: Duration,
    /// How long a question may take; shorter than the interval.
    pub timeout: Duration,
    /// What is sent to it first; nothing where it is empty.
    pub send: String,
    /// How long the last word of an agent that fell silent counts; longer than the interval.
    pub keep: Duration,
}

impl AgentCheck {
    /// The time between questions where none is configured.
    pub const INTERVAL: Duration = Duration::from_secs(2);
    /// The time-out where none is configured, and the interval is long enough.
    pub const TIMEOUT: Duration = Duration::from_secs(1);
    /// How long a last word counts where that is not configured, and the interval is short enough.
    pub const KEEP: Duration = Duration::from_mins(1);
    /// The most that may be sent, in bytes.
    pub const LONGEST_SEND: usize = 1024;
}
