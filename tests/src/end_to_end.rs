//! The end-to-end benchmark as far as it needs neither a BPF toolchain nor a network: who is
//! compared, what may be asked for, and what comes of the measurements.
//!
//! The measuring itself is `benches/e2e`, which `cargo xtask bench e2e` runs.

pub mod options;
pub mod report;
pub mod tool_output;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Who forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// Nobody: the router spreads the connections over the backends, past the balancer
    Direct,
    /// An XDP program that only rewrites MAC addresses
    BareXdp,
    /// Evenkeel, direct server return
    Dsr,
    /// Evenkeel, IP in IP
    Ipip,
    /// Evenkeel, generic UDP encapsulation
    Gue,
    /// Evenkeel, translation of the destination
    Nat,
    /// Evenkeel, translation of both ends
    Snat,
    /// nftables: destination by jhash, masquerade
    Nftables,
    /// `HAProxy` in TCP mode
    Haproxy,
}

/// What a mode of Evenkeel asks of the backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backends {
    /// They hold the VIP, as those of the test bed do.
    HoldTheVip,
    /// They unpack what comes in a tunnel, by `evenkeel decap`, and hold the VIP.
    Decapsulate,
    /// They send their answers through the balancer.
    AnswerThroughBalancer,
    /// Nothing.
    AnyServer,
}

/// The modes of Evenkeel. One that `evenkeel check` refuses is left out of a run, which says so.
pub const MODES: [(Contender, Backends); 5] = [
    (Contender::Dsr, Backends::HoldTheVip),
    (Contender::Ipip, Backends::Decapsulate),
    (Contender::Gue, Backends::Decapsulate),
    (Contender::Nat, Backends::AnswerThroughBalancer),
    (Contender::Snat, Backends::AnyServer),
];

/// Those that the others are told as ratios to.
pub const REFERENCES: [Contender; 4] = [
    Contender::Direct,
    Contender::BareXdp,
    Contender::Nftables,
    Contender::Haproxy,
];

impl Contender {
    /// What the command line and the records call it. For a mode of Evenkeel it is also the
    /// configuration's word.
    ///
    /// # Panics
    ///
    /// Never: no contender is hidden.
    pub fn name(self) -> String {
        let value = self.to_possible_value().expect("no contender is hidden");
        value.get_name().to_owned()
    }

    /// What it asks of the backends, where it is a mode of Evenkeel.
    pub fn mode(self) -> Option<Backends> {
        let mode = MODES.iter().find(|(contender, _)| *contender == self);
        mode.map(|(_, backends)| *backends)
    }
}

/// A kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Requests over connections that stay open.
    KeepAlive,
    /// Bulk data from a backend to the client.
    Download,
    /// Bulk data from the client to a backend, with segmentation left to the network devices.
    Upload,
    /// The same with no device that could: each frame goes all the way by itself.
    UploadFrames,
    /// A connection for each request.
    Close,
}

impl Scenario {
    /// All of them, in the order in which they are measured: the one that leaves closed
    /// connections behind comes last.
    pub const ALL: [Self; 5] = [
        Self::KeepAlive,
        Self::Download,
        Self::Upload,
        Self::UploadFrames,
        Self::Close,
    ];

    /// What it is, for a heading.
    pub const fn title(self) -> &'static str {
        match self {
            Self::KeepAlive => "requests over open connections",
            Self::Download => "bulk download, one server",
            Self::Upload => "bulk upload, one server, segmentation offloaded",
            Self::UploadFrames => "bulk upload, one server, frame by frame",
            Self::Close => "a connection for each request",
        }
    }

    /// What is measured of it, the main figure first and what it costs second.
    pub const fn figures(self) -> &'static [Figure] {
        match self {
            Self::KeepAlive | Self::Close => &[
                Figure::Rate,
                Figure::CpuPerRequest,
                Figure::P50,
                Figure::P90,
                Figure::P99,
                Figure::Errors,
            ],
            Self::Download | Self::Upload | Self::UploadFrames => {
                &[Figure::Throughput, Figure::CpuPerGigabyte]
            }
        }
    }
}

/// Something that is measured, each time the mean over one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Requests a second; where each has its connection, connections a second as well.
    Rate,
    /// The median time from the request to the end of its answer.
    P50,
    /// The 90th percentile of the same.
    P90,
    /// The 99th percentile of the same.
    P99,
    /// What the whole machine worked, by the requests answered.
    CpuPerRequest,
    /// Requests without a good answer.
    Errors,
    /// Payload that arrived.
    Throughput,
    /// What the whole machine worked, by the payload.
    CpuPerGigabyte,
}

impl Figure {
    /// The unit.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Rate => "1/s",
            Self::P50 | Self::P90 | Self::P99 | Self::CpuPerRequest => "µs",
            Self::Errors => "",
            Self::Throughput => "Gbit/s",
            Self::CpuPerGigabyte => "ms/GB",
        }
    }

    /// A short name, for a column.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Rate => "requests",
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::CpuPerRequest => "CPU a request",
            Self::Errors => "errors",
            Self::Throughput => "throughput",
            Self::CpuPerGigabyte => "CPU a gigabyte",
        }
    }

    /// Whether a small value is a good one.
    pub const fn less_is_better(self) -> bool {
        !matches!(self, Self::Rate | Self::Throughput)
    }

    /// How many digits after the point are worth showing.
    pub const fn digits(self) -> usize {
        match self {
            Self::Throughput => 2,
            Self::CpuPerRequest => 1,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_and_the_records_use_the_same_names() {
        for contender in Contender::value_variants() {
            let json = serde_json::to_value(contender).unwrap();
            assert_eq!(json, contender.name());
        }
    }
}
