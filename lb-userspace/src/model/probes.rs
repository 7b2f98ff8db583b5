//! How backends are probed.

use std::{
    fmt,
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use regex::bytes::Regex;

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// Opens a TCP connection.
    Tcp,
    /// Sends an HTTP/1.1 request and judges the answer.
    Http(HttpProbe),
    /// Makes a TLS handshake.
    Tls(TlsProbe),
    /// Asks a gRPC server for its health (`grpc.health.v1`).
    Grpc(GrpcProbe),
    /// Sends a datagram and waits for the answer.
    Udp(UdpProbe),
    /// Sends an ICMP echo request.
    Icmp,
    /// Runs a program.
    Command(CommandProbe),
}

impl ProbeKind {
    /// The word for it in the configuration and in messages.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http(HttpProbe { tls: None, .. }) => "http",
            Self::Http(HttpProbe { tls: Some(_), .. }) => "https",
            Self::Tls(_) => "tls",
            Self::Grpc(GrpcProbe { tls: None, .. }) => "grpc",
            Self::Grpc(GrpcProbe { tls: Some(_), .. }) => "grpcs",
            Self::Udp(_) => "udp",
            Self::Icmp => "icmp",
            Self::Command(_) => "command",
        }
    }

    /// What it asks of TLS, where it speaks it.
    pub const fn tls(&self) -> Option<&TlsProbe> {
        match self {
            Self::Http(HttpProbe { tls, .. }) | Self::Grpc(GrpcProbe { tls, .. }) => tls.as_ref(),
            Self::Tls(tls) => Some(tls),
            Self::Tcp | Self::Udp(_) | Self::Icmp | Self::Command(_) => None,
        }
    }

    /// Whether it goes to a port.
    pub const fn has_port(&self) -> bool {
        !matches!(self, Self::Icmp | Self::Command(_))
    }
}

/// An HTTP request and the answer that counts as healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    /// What is asked of TLS; `None` for plain HTTP.
    pub tls: Option<TlsProbe>,
    /// The method, in capital letters.
    pub method: String,
    /// Path and query, with the leading slash.
    pub path: String,
    /// The `Host` header; the backend's address where none is configured.
    pub host: Option<String>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// Healthy status codes: any of these ranges.
    pub status: Vec<RangeInclusive<u16>>,
    /// What the first 64 KiB of the body must contain.
    pub body: Option<BodyMatch>,
}

impl HttpProbe {
    /// A GET of a path over plain HTTP, with what holds where nothing else is configured.
    pub fn get(path: &str) -> Self {
        Self {
            tls: None,
            method: "GET".to_owned(),
            path: path.to_owned(),
            host: None,
            headers: Vec::new(),
            status: vec![200..=399],
            body: None,
        }
    }
}

/// What a body must contain.
#[derive(Clone, Debug)]
pub enum BodyMatch {
    /// This text.
    Text(String),
    /// Something that matches this expression.
    Pattern(Regex),
}

impl PartialEq for BodyMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => one == other,
            (Self::Pattern(one), Self::Pattern(other)) => one.as_str() == other.as_str(),
            (Self::Text(_), Self::Pattern(_)) | (Self::Pattern(_), Self::Text(_)) => false,
        }
    }
}

impl Eq for BodyMatch {}

/// What is asked of a TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsProbe {
    /// The name that the certificate is to be for, and that is asked for (SNI); the backend's
    /// address where none is configured.
    pub server_name: Option<String>,
    /// A file of certificates to trust; those of the system where none is configured.
    pub ca: Option<PathBuf>,
    /// Whether the certificate must be valid.
    pub verify: Verify,
    /// How long before a certificate expires that is told; zero never does.
    pub warn_before_expiry: Duration,
}

/// Whether a certificate must be valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// It must.
    Yes,
    /// Any will do.
    No,
}

impl TlsProbe {
    /// How long before a certificate expires that is told, where nothing is configured.
    pub const WARN_BEFORE_EXPIRY: Duration = Duration::from_hours(14 * 24);
}

/// A question for `grpc.health.v1.Health/Check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcProbe {
    /// What is asked of TLS; `None` for plain HTTP/2.
    pub tls: Option<TlsProbe>,
    /// The name of the gRPC service; empty for the server as a whole.
    pub service: String,
    /// The authority; the backend's address where none is configured.
    pub host: Option<String>,
}

/// A datagram and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpProbe {
    /// What is sent.
    pub send: Vec<u8>,
    /// What the answer must contain; any answer will do where none is configured.
    pub expect: Option<Vec<u8>>,
}

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandProbe {
    /// The program, an absolute path, and its arguments.
    pub argv: Vec<String>,
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
    /// The backend's port that is probed; for what has none, the service's where it has one.
    pub port: Option<NonZeroU16>,
    /// From the start of one probe to the start of the next, before jitter.
    pub interval: Duration,
    /// The same while the backend's state is on its way: some passes or failures contradict it, and
    /// too few to change it. `None` where it makes no difference. Shorter than the interval.
    pub fast_interval: Option<Duration>,
    /// How long a probe may take; shorter than the intervals.
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
            port: Some(port),
            interval: Self::INTERVAL,
            fast_interval: None,
            timeout: Self::TIMEOUT,
            rise: NonZeroU32::MIN.saturating_add(1),
            fall: NonZeroU32::MIN.saturating_add(2),
            via: Via::Direct,
            client_mtu: Self::CLIENT_MTU,
            source: None,
        }
    }

    /// The longest from the death of a backend to the end of the probe that takes it down.
    #[must_use]
    pub fn detection(&self) -> Duration {
        let fast = self.fast_interval.unwrap_or(self.interval);
        self.interval + fast * (self.fall.get() - 1) + self.timeout
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
