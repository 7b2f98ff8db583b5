//! Decisions as they are made.

use serde::{Deserialize, Serialize};

/// The longest that decisions are watched, in seconds.
pub const LONGEST_S: f64 = 600.0;
/// The most decisions a second that are told.
pub const FASTEST: u32 = 100_000;

/// `POST /v1/trace`: which decisions are to be told, and for how long. What is not given excludes
/// none.
///
/// The answer is a [`Line`] for each, as JSON on a line of its own, until the time is over, as many
/// were told as were asked for, or whoever asked has gone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Those of this service.
    pub service: Option<String>,
    /// Those of this backend of the service.
    pub backend: Option<String>,
    /// Those of clients within this prefix.
    pub client: Option<String>,
    /// Those to or from this VIP.
    pub vip: Option<std::net::IpAddr>,
    /// Those of packets from or to this port.
    pub port: Option<u16>,
    /// Those of `tcp`, `udp` or `icmp`.
    pub protocol: Option<super::explain::Protocol>,
    /// Those of packets that were `sent`, `passed` to the host's stack or `dropped`.
    #[serde(default)]
    pub verdicts: Vec<Outcome>,
    /// Those for which one of these reasons was counted.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// How many at most; until the time is over where it is not given.
    pub count: Option<u64>,
    /// For how long at most, in seconds, up to [`LONGEST_S`].
    pub for_s: f64,
    /// How many a second at most, up to [`FASTEST`].
    pub rate: u32,
    /// How many bytes of each frame are wanted, in and out; none where it is zero.
    #[serde(default)]
    pub snap: u32,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It left.
    Sent,
    /// The host's own stack got it.
    Passed,
    /// It is gone.
    Dropped,
}

/// A line of the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// It begins: the program that tells is in place.
    Begun(Begun),
    /// A decision.
    Decision(Box<Decision>),
    /// It is over: the plain program is about to be back.
    Ended(Ended),
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The interfaces that packets are watched on: index and name.
    pub interfaces: Vec<(u32, String)>,
}

/// The last line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Why: `count`, `time` or `failed`.
    pub why: String,
    /// How many were told.
    pub told: u64,
    /// How many were not, because there were more a second than may be told.
    pub skipped: u64,
    /// How many were not, because they were not read in time.
    pub lost: u64,
}

/// A decision about a packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// When the packet came, in microseconds since the epoch.
    pub at_us: u64,
    /// The interface that it came in by: index,
    pub ingress: u32,
    /// and name.
    pub interface: String,
    /// The CPU.
    pub cpu: u32,
    /// `tcp`, `udp`, `icmp` or a number; absent where it is no IP packet.
    pub protocol: Option<String>,
    /// Where it comes from, with the port where there is one.
    pub source: Option<String>,
    /// Where it is addressed to, likewise.
    pub destination: Option<String>,
    /// The flags of a TCP segment, as in `SYN+ACK`.
    pub flags: Option<String>,
    /// The frame's length in bytes.
    pub length: u32,
    /// As in an explanation: `transmit`, `redirect`, `pass` or `drop`.
    pub verdict: String,
    /// The reason that was counted.
    pub reason: Option<String>,
    /// The generation of the tables that it met.
    pub generation: u64,
    /// Its service.
    pub service: Option<String>,
    /// The backend that it was sent to, or that it came from.
    pub backend: Option<String>,
    /// Whether it is on its way to a client.
    pub reply: bool,
    /// Whether it opened a connection that was counted as new.
    pub new_flow: bool,
    /// The slot of its service's ring, where one was looked up.
    pub slot: Option<super::explain::Slot>,
    /// What was remembered of its flow: `new`, `established` or `closing`; absent where nothing was.
    pub remembered: Option<String>,
    /// Why, in a line.
    pub why: String,
    /// The interface that it left by.
    pub left_by: Option<u32>,
    /// The frame as it came, in hexadecimal digits, as far as it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<String>,
    /// The frame that left, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// The length of the frame that left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_length: Option<u32>,
}
