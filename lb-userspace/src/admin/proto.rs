//! What the admin API says, as JSON. Programs read it: names and units are a promise.
//!
//! Times are milliseconds since the Unix epoch, durations say their unit, shares are fractions of
//! one, rates are per second over the last second. Counts grow for as long as the pinned maps
//! live, across restarts of the controller.

pub mod change;
pub mod drill;
pub mod explain;
pub mod flows;
pub mod incident;
pub mod measured;
pub mod trace;

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

/// `GET /v1/status`: everything that `evenkeel status` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The controller's version with its git revision.
    pub version: String,
    /// The controller's process.
    pub pid: u32,
    /// When the controller started.
    pub started_at_ms: u64,
    /// When this answer was made.
    pub now_ms: u64,
    /// The configuration's file.
    pub config_file: String,
    /// The SHA-256 of the text that is in force, in hexadecimal digits: that file's, unless
    /// `configuration` says otherwise.
    #[serde(default)]
    pub config_sha256: String,
    /// The configuration that is in force.
    #[serde(default)]
    pub configuration: change::Configuration,
    /// Overrides of backends that are not configured at present.
    #[serde(default)]
    pub waiting_overrides: Vec<change::Override>,
    /// The publication that the kernel forwards by.
    pub generation: u64,
    /// When it was published, unless that was before this controller started.
    pub published_at_ms: Option<u64>,
    /// Where the program is attached.
    pub interfaces: Vec<Interface>,
    /// Whether the kernel's tables are the intended ones.
    pub tables: Tables,
    /// Packets that left by another way than to a backend and belong to no service, by reason.
    pub exits: BTreeMap<String, u64>,
    /// What is remembered of flows, over all services.
    #[serde(default)]
    pub tracking: Tracking,
    /// How the journal is.
    #[serde(default)]
    pub journal: Journal,
    /// Why the kernel does not take the tables that follow from the present state; absent where it
    /// does.
    #[serde(default)]
    pub refused: Option<String>,
    /// What is wrong: every alert that is on.
    #[serde(default)]
    pub alerts: Vec<Alert>,
    /// The incidents that are open, the oldest first.
    #[serde(default)]
    pub incidents: Vec<incident::Incident>,
    /// How it goes with telling others of alerts.
    #[serde(default)]
    pub notify: Notify,
    /// What became of publications.
    #[serde(default)]
    pub publications: measured::Publications,
    /// What the last audit found.
    #[serde(default)]
    pub audit: measured::Audit,
    /// How history is.
    #[serde(default)]
    pub history: measured::History,
    /// Where metrics and the page are to be had.
    #[serde(default)]
    pub http: measured::Http,
    /// The drill that is on, or whose effects are not over yet.
    #[serde(default)]
    pub drill: Option<drill::Running>,
    /// The services, in the order of the configuration.
    pub services: Vec<Service>,
}

/// What the controller logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFilter {
    /// A level, or levels of modules, in the syntax of `RUST_LOG`.
    pub filter: String,
}

/// What it is to log from now on, until it ends.
pub type SetLogFilter = LogFilter;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Its name, by which runbooks know it.
    pub name: String,
    /// `page`, `ticket` or `info`.
    pub severity: String,
    /// `firing`; `waiting` (it is on for too short a time to tell anybody); `inhibited` (another
    /// alert explains it, so nobody is told).
    pub state: String,
    /// The service, where it is about one.
    pub service: Option<String>,
    /// The backend, where it is about one.
    pub backend: Option<String>,
    /// What else tells it apart: the audit's rule, or the receiver.
    pub detail: Option<String>,
    /// Since when.
    pub since_ms: u64,
    /// What is wrong, with its numbers.
    pub summary: String,
    /// What the alert means.
    pub meaning: String,
    /// What to do about it.
    pub remedy: String,
    /// The alert that explains it.
    pub inhibited_by: Option<String>,
    /// The drill that causes it.
    #[serde(default)]
    pub drill: Option<String>,
}

/// How it goes with telling others of alerts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// Who is told, in the order of the configuration.
    pub receivers: Vec<Receiver>,
    /// Why what waits is kept in memory alone; absent where it is on disk.
    pub spool_failure: Option<String>,
    /// What could not be written into the journal, since the start.
    pub unwritten: u64,
}

/// How it goes with one receiver. Counts are since the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receiver {
    /// Its name.
    pub name: String,
    /// `alertmanager`, `webhook`, `slack`, `command`, `syslog` or `file`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Notifications that it took.
    pub sent: u64,
    /// Tries that failed.
    pub failed: u64,
    /// Notifications that were given up: refused for good, or older than a day.
    pub dropped: u64,
    /// Times that a notification was not made because too many wait; it is made later.
    pub held_back: u64,
    /// Notifications that wait.
    pub waiting: u64,
    /// Since when the oldest of them waits.
    pub waiting_since_ms: Option<u64>,
    /// Since when every try has failed; absent where the last one did not.
    pub failing_since_ms: Option<u64>,
    /// Why a try failed last.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at_ms: Option<u64>,
    /// When it last took something, restarts included.
    pub last_taken_at_ms: Option<u64>,
}

/// `POST /v1/notify/test`: what became of a test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tested {
    /// The receiver.
    pub receiver: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it took the test.
    pub ok: bool,
    /// How long that took.
    pub took_ms: f64,
    /// Why it did not.
    pub error: Option<String>,
}

/// What is remembered of flows. All but `flows` count since the maps were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tracking {
    /// Flows that were remembered when they were last counted, some seconds ago.
    pub flows: u64,
    /// Entries made for a first packet.
    pub fresh: u64,
    /// Entries made for, or moved on by, a later packet.
    pub established: u64,
    /// Entries for which there was no room.
    pub refused: u64,
    /// Ports that were taken when `snat` tried them.
    pub collisions: u64,
    /// Room for entries of a first packet.
    #[serde(default)]
    pub fresh_room: u64,
    /// Room for the other entries.
    #[serde(default)]
    pub established_room: u64,
}

/// How the journal is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Why events wait in memory; none where they are written.
    pub failure: Option<String>,
    /// Events that there was no room for, since the start.
    pub lost: u64,
}

/// What is remembered of a service's flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Flows, when they were last counted, some seconds ago.
    pub flows: u64,
    /// Slots that got another owner, whose older flows are still waited for.
    pub slots_in_transition: u32,
    /// Slots whose flows are not waited for any more, with remembered ones that go elsewhere.
    pub slots_pinned: u32,
    /// When slots last changed; absent where none is in transition.
    pub changed_at_ms: Option<u64>,
}

/// A SYN flood.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SynFlood {
    /// When it began.
    pub since_ms: u64,
    /// SYNs a second, those sent again included.
    pub syn_rate: f64,
    /// SYNs among the service's packets.
    pub syn_share: f64,
}

/// An interface that the program is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// `native` or `generic`.
    pub xdp_mode: String,
}

/// The exact comparison of the kernel's tables with the intended ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tables {
    /// True where every byte agrees.
    pub as_intended: bool,
    /// When they were last compared.
    pub checked_at_ms: u64,
    /// Slots that differ, over all services.
    pub differing_slots: u64,
    /// What differs, in words; empty where nothing does.
    pub differences: Vec<String>,
    /// What was repaired.
    #[serde(default)]
    pub repairs: Repairs,
}

/// Repairs of tables that somebody else had changed, since the controller started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repairs {
    /// How many.
    pub count: u64,
    /// When the last one was; absent without any.
    pub last_at_ms: Option<u64>,
    /// What had differed then, in words.
    pub last: Vec<String>,
    /// Whether there was one within the last ten minutes.
    pub recent: bool,
    /// Whether nothing is repaired any more, because it did not last.
    pub given_up: bool,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its address, protocol and port, as in `tcp 198.51.100.10:80`.
    pub key: String,
    /// The virtual address.
    pub vip: IpAddr,
    /// The port; absent where any port is taken.
    pub port: Option<u16>,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// How packets reach a backend.
    pub mode: String,
    /// The size of its ring.
    pub ring_slots: u32,
    /// A digest of which flow goes to which backend: nodes that give the same send new flows to the
    /// same backends. Absent where nobody serves.
    #[serde(default)]
    pub ring_digest: Option<String>,
    /// The fate of its packets while no backend is usable: `drop` or `pass`.
    pub on_empty: String,
    /// How many of its backends are in the ring.
    pub serving: usize,
    /// Whether the load is spread as intended.
    pub evenness: Evenness,
    /// Which part of the backends is up, where that is so little that all are used (`panic`).
    #[serde(default)]
    pub panic: Option<String>,
    /// Why the fleet is taken for bad as a whole, so that nobody is demoted.
    #[serde(default)]
    pub fleet_degraded: Option<String>,
    /// How long nobody is demoted, because a demotion did harm.
    #[serde(default)]
    pub demotions_frozen_s: Option<f64>,
    /// What is remembered of its flows.
    #[serde(default)]
    pub remembered: Remembered,
    /// The SYN flood that is on.
    #[serde(default)]
    pub syn_flood: Option<SynFlood>,
    /// Packets of this service that did not reach a backend, by reason.
    pub exits: BTreeMap<String, u64>,
    /// The owners of its ring's slots.
    #[serde(skip)]
    pub band: measured::Band,
    /// The part of its new flows of the last minute that fell into each 64th of the ring, by samples;
    /// empty where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heat: Vec<f32>,
    /// Its backends, in the order of the configuration.
    pub backends: Vec<Backend>,
}

/// Whether the load of a service is spread as intended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evenness {
    /// The verdict.
    pub verdict: Verdict,
    /// The verdict in words, with its reason.
    pub message: String,
    /// The smallest skew that would be noticed within `detectable_within_s` at the present rate,
    /// as a ratio above one; absent while too few flows arrive to say.
    pub detectable_skew: Option<f64>,
    /// How long `detectable_skew` would take to be noticed, in seconds.
    pub detectable_within_s: Option<f64>,
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
    /// Why the load is not even, or what else there is to know of it; absent where there is nothing.
    #[serde(default)]
    pub cause: Option<Cause>,
    /// Who opens the connections, by samples of the last minute; absent where none were taken.
    #[serde(default)]
    pub clients: Option<Clients>,
}

/// Why a service's load is not even.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// `drift` (the kernel's table is another), `table` (its shares are not the weights'), `config`
    /// (the weights are not the capacities'), `heavy-clients`, `few-clients`, `hash`, `unknown`;
    /// where the flows are even, `slow-backend` or `elephant`.
    pub kind: String,
    /// The backend, where it is about one.
    pub backend: Option<String>,
    /// The cause in words, with its evidence.
    pub message: String,
    /// What it is not, each with its evidence.
    pub ruled_out: Vec<String>,
}

/// Who opens a service's connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Clients {
    /// How many new flows were looked at.
    pub samples: usize,
    /// How many clients that are all alike would be as concentrated; absent where they are so many
    /// that hardly two samples are of the same one.
    pub effective: Option<f64>,
    /// The heaviest, at most three, the heaviest first.
    pub heaviest: Vec<HeavyClient>,
}

/// One of the heaviest clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeavyClient {
    /// Its address; of IPv6, its network of 64 bits.
    pub client: IpAddr,
    /// Its part of the new flows.
    pub share: f64,
}

/// Whether the load of a service is even.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every reference agrees within chance.
    Even,
    /// At least one does not.
    Skewed,
    /// Too little has been seen.
    CannotTell,
}

/// One way in which a service's load is not as intended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// `config` (weights against capacity), `table` (shares against weights), `drift` (kernel
    /// against intent) or `flows` (new flows against shares).
    pub reference: String,
    /// `page`, `warning` or `ticket`.
    pub severity: String,
    /// The backend that deviates most, where one does.
    pub backend: Option<String>,
    /// Its load over its intended load, where one deviates.
    pub ratio: Option<f64>,
    /// Since when.
    pub since_ms: u64,
    /// The finding in words.
    pub message: String,
}

/// A backend of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its configured weight, or the one that its override gives it.
    pub weight: u16,
    /// The override of what the configuration says; absent where there is none.
    #[serde(default, rename = "override")]
    pub overridden: Option<change::Override>,
    /// Which part of that is in force, after probes, demotion and slow start.
    #[serde(default)]
    pub weight_in_force: Option<f64>,
    /// How it performs; absent where nobody looks.
    #[serde(default)]
    pub performance: Option<Performance>,
    /// What it asks for by its agent; absent where none is asked.
    #[serde(default)]
    pub agent: Option<Agent>,
    /// In how long it will have its whole weight, while it starts slowly.
    #[serde(default)]
    pub full_in_s: Option<f64>,
    /// What it was declared to take, where it was.
    pub capacity: Option<u32>,
    /// `up`, `down`, `unknown` (not probed yet) or `unchecked` (no check is configured).
    pub health: String,
    /// When `health` last changed.
    pub health_since_ms: u64,
    /// The last probe, where there was one.
    pub last_probe: Option<Probe>,
    /// All of them, in numbers.
    #[serde(default)]
    pub probes: measured::Probes,
    /// Why it is not in the ring; absent where it is.
    pub out_of_ring: Option<String>,
    /// Its next hop, where it is known.
    pub next_hop: Option<NextHop>,
    /// Slots of the live ring that it owns.
    pub slots: u32,
    /// `slots` over the size of the ring.
    pub intended_share: f64,
    /// Its part of the new flows of the last `observed_over_s` seconds.
    pub observed_share: Option<f64>,
    /// The time that `observed_share` covers, in seconds.
    pub observed_over_s: f64,
    /// Packets sent to it.
    pub packets: u64,
    /// Bytes of those packets, from the Ethernet header on.
    pub bytes: u64,
    /// New TCP connections sent to it, retransmitted SYNs left out.
    pub new_flows: u64,
    /// Packets a second.
    pub packet_rate: f64,
    /// Bytes a second.
    pub byte_rate: f64,
    /// New TCP connections a second.
    pub new_flow_rate: f64,
    /// How long it takes from a SYN to the end of the handshake, as some flows showed lately; absent
    /// where none did. In modes `nat` and `snat` without the way to the client, in the others with
    /// it.
    #[serde(default)]
    pub handshake: Option<Latency>,
    /// How long it takes from a request to the first of its response, likewise.
    #[serde(default)]
    pub response: Option<Latency>,
    /// All that was measured so, in numbers; absent where nothing was.
    #[serde(default)]
    pub measured: Option<Box<measured::Flows>>,
}

/// How long something took, over about the last half minute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many times that was measured, each for the less the older it is.
    pub samples: f64,
    /// The geometric mean.
    pub mean_ms: f64,
    /// Half of them took no longer; to within a factor of 1.4, as the others.
    pub median_ms: f64,
    /// Nine tenths took no longer.
    pub p90_ms: f64,
    /// Ninety-nine hundredths took no longer.
    pub p99_ms: f64,
}

/// How a backend performs beside its peers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Performance {
    /// `well`; `suspect` (evidence gathers); `spared` (it underperforms and keeps its weight);
    /// `demoted`; `returning` (it is well again, and gets its weight back in steps).
    pub state: String,
    /// Which part of its weight the demotion leaves it: 1, 0.5, 0.25, 0.125 or 0.
    pub part: f64,
    /// What is held against it: `slow` or `failing`.
    #[serde(default)]
    pub cause: Option<String>,
    /// What told so: `probes` or `traffic`.
    #[serde(default)]
    pub by: Option<String>,
    /// What is held against it, in words.
    pub reason: Option<String>,
    /// Why it keeps its weight nevertheless, in words.
    pub spared: Option<String>,
    /// Its latency over the last seconds, by its probes.
    pub latency_ms: Option<f64>,
    /// The median of its peers' latencies.
    pub peers_ms: Option<f64>,
    /// How many times as slow as its peers it is.
    pub ratio: Option<f64>,
    /// How it performs by traffic; absent where that is not looked at.
    #[serde(default)]
    pub traffic: Option<ByTraffic>,
    /// The evidence against it, by whatever has most, as a part of what it is demoted by.
    pub evidence: f64,
    /// In how long it may get weight back at the earliest, where it lacks some.
    pub next_rise_s: Option<f64>,
}

/// How a backend performs beside its peers by what is measured of its clients' flows. Of each
/// connection one request a minute counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ByTraffic {
    /// `judged`; `new` (it is still being learned how it compares); `too-few` (too little comes to
    /// judge by).
    pub state: String,
    /// Its latency lately: the geometric mean. In modes other than `nat` and `snat` with the way to
    /// the client and back.
    pub latency_ms: Option<f64>,
    /// The median of its peers' latencies.
    pub peers_ms: Option<f64>,
    /// How many times as slow as its peers it is.
    pub ratio: Option<f64>,
    /// The evidence that it is slow, as a part of what it is demoted by.
    pub evidence: f64,
    /// The evidence that clients find no answer, likewise.
    pub failing_evidence: f64,
    /// How many requests count in a minute.
    pub per_minute: f64,
    /// How long it would take to find that it became as slow as must be found, where it is `judged`.
    pub found_within_s: Option<f64>,
}

/// What a backend asks for by its agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// `up`; `drain` or `maint` (its owner wants no new flows for it); `down`, `fail` or `stopped`
    /// (it says so of itself); `silent` (it has said nothing yet, or nothing for so long that its
    /// last word does not count any more).
    pub state: String,
    /// Which part of its weight it wants while it is `up`, in percent; absent while it is `silent`.
    pub percent: Option<u8>,
    /// Why, in its own words.
    pub note: Option<String>,
    /// Which part of its weight that leaves it: as far as it is followed, and unless it is `ignored`.
    pub part: f64,
    /// Since when it has asked for that; absent while it is `silent`.
    pub since_ms: Option<u64>,
    /// When it was last understood; absent while it is `silent`.
    pub heard_at_ms: Option<u64>,
    /// Why the last question was not answered; absent where it was.
    pub failure: Option<String>,
    /// Why what it asks for does not count: `override` (an operator decided), or `too-little-left` (the
    /// service would keep too little of its weight).
    pub ignored: Option<String>,
}

/// The outcome of a probe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// When it ended.
    pub at_ms: u64,
    /// Whether it passed.
    pub passed: bool,
    /// How long it took.
    pub took_ms: f64,
    /// What it found, as in `HTTP 200` or `connection refused`.
    pub detail: String,
}

/// Where a backend's packets go next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// The way out.
    pub interface: String,
    /// The router on the way; absent where the backend is on the link.
    pub gateway: Option<IpAddr>,
    /// The Ethernet address that packets are sent to.
    pub mac: String,
}

/// What every failed request is answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What failed, why, and what to do.
    pub error: String,
    /// What the audit found, where that is why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<change::Finding>,
}
