//! How backends are probed.

use std::{
    fmt,
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
    ops::RangeInclusive,
    time::Duration,
};

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// Opens a TCP connection.
    Tcp,
    /// Sends an HTTP/1.1 GET and judges the answer.
    Http(HttpProbe),
}

impl ProbeKind {
    /// The word for it in the configuration and in messages.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http(_) => "http",
        }
    }
}

/// An HTTP request and the answer that counts as healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    /// Path and query, with the leading slash.
    pub path: String,
    /// The `Host` header; the backend's address where none is configured.
    pub host: Option<String>,
    /// Healthy status codes: any of these ranges.
    pub status: Vec<RangeInclusive<u16>>,
    /// Text that the first 64 KiB of the body must contain.
    pub body: Option<String>,
}

/// Which way a probe takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// That of the service's packets: to the VIP, by the MAC address or the tunnel of the backend.
    Vip,
    /// Straight to the backend's own address.
    Direct,
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vip => "vip",
            Self::Direct => "direct",
        })
    }
}

/// How a service's backends are probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What a probe does.
    pub kind: ProbeKind,
    /// The backend's port that is probed.
    pub port: NonZeroU16,
    /// From the start of one probe to the start of the next, before jitter.
    pub interval: Duration,
    /// How long a probe may take; shorter than the interval.
    pub timeout: Duration,
    /// Passes in a row that bring a backend up.
    pub rise: NonZeroU32,
    /// Failures in a row that take a backend down.
    pub fall: NonZeroU32,
    /// Which way it takes.
    pub via: Via,
    /// How large clients' packets are at most, in bytes: with [`Via::Vip`], a probe opens with one
    /// as large. Zero asks for none.
    pub client_mtu: u16,
    /// The address of this host that it comes from; the kernel's choice where none is configured.
    pub source: Option<IpAddr>,
}

impl HealthCheck {
    /// The time between probes where none is configured.
    pub const INTERVAL: Duration = Duration::from_secs(1);
    /// The time-out where none is configured, and the interval is long enough.
    pub const TIMEOUT: Duration = Duration::from_millis(500);
    /// The size of clients' packets where none is configured: that of Ethernet.
    pub const CLIENT_MTU: u16 = 1_500;

    /// A check that goes straight to the backend, with what holds where nothing is configured.
    pub const fn new(kind: ProbeKind, port: NonZeroU16) -> Self {
        Self {
            kind,
            port,
            interval: Self::INTERVAL,
            timeout: Self::TIMEOUT,
            rise: NonZeroU32::new(2).expect("not zero"),
            fall: NonZeroU32::new(3).expect("not zero"),
            via: Via::Direct,
            client_mtu: Self::CLIENT_MTU,
            source: None,
        }
    }
}

/// The upper half of the marks by which the kernel recognises probes on the way of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeMark(u32);

impl ProbeMark {
    /// Where none is configured.
    pub const DEFAULT: Self = Self(0x454b_0000);

    /// Takes a mark; `None` unless its lower sixteen bits, and they alone, are zero.
    pub const fn new(mark: u32) -> Option<Self> {
        if mark != 0 && mark & lb_common::decide::probe::MARK_BITS == 0 {
            Some(Self(mark))
        } else {
            None
        }
    }

    /// The plain number.
    pub const fn number(self) -> u32 {
        self.0
    }
}
