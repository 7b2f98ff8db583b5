//! Remembered flows.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// `POST /v1/flows`: which remembered flows are to be shown. What is not given excludes none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Those of this service.
    pub service: Option<String>,
    /// Those of this backend of the service.
    pub backend: Option<String>,
    /// Those of clients within this prefix.
    pub client: Option<String>,
    /// How many, at most [`MOST`].
    pub count: usize,
}

/// The most flows that are shown.
pub const MOST: usize = 10_000;

/// Remembered flows, in no order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flows {
    /// Those that were asked for.
    pub flows: Vec<Flow>,
    /// How many entries were looked at.
    pub looked_at: usize,
    /// Whether that was all of them: it ends at as many flows as were asked for, and is bounded.
    pub complete: bool,
}

/// A remembered flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Its service.
    pub service: String,
    /// The backend that it stays with; a number where that is removed from the configuration.
    pub backend: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Where it comes from.
    pub client: SocketAddr,
    /// What it is addressed to.
    pub vip: SocketAddr,
    /// In mode `snat`: what the backend sees.
    pub from: Option<SocketAddr>,
    /// How long ago its last packet was seen. When it began is not remembered.
    pub silent_s: f64,
    /// `new` (a first packet alone was seen), `established`, or `closing` (so was its end).
    pub state: String,
    /// Why it is remembered: `transition` (its slot got another owner, and the flows of before are
    /// still waited for), `pinned` (they are not any more, and this one goes on), `every` (its service
    /// remembers all: `udp = "sticky"`), `translated` (its entry says what it is rewritten to: mode
    /// `snat`), or `over` (it is about to be forgotten).
    pub why: String,
    /// The backend that new flows of its slot go to, with `transition` and `pinned`.
    pub owner: Option<String>,
}

/// Whether an address is within a prefix, as one is written, or is it.
///
/// # Errors
/// Where the text is neither.
pub fn prefix(text: &str) -> Result<ipnet::IpNet, String> {
    let address = || text.parse::<IpAddr>().map(ipnet::IpNet::from);
    text.parse()
        .or_else(|_| address())
        .map_err(|_| format!("'{text}' is no address or prefix, as in 10.0.0.0/24"))
}
