//! One probe of one backend.
//!
//! A probe opens one socket, judges what comes back and closes it. Its time-out bounds
//! everything from the connection to the verdict. The clock read here is tokio's, for that
//! time-out and for how long the probe took.
//!
//! # How connections end
//!
//! Every connection ends in a reset (`SO_LINGER` with zero time), so that it leaves `TIME_WAIT` at
//! neither side: 2,000 backends probed each second would otherwise keep 120,000 dead sockets.
//!
//! * A TCP probe has seen all it can when the SYN is answered. It holds the last ACK of the
//!   handshake back (`TCP_QUICKACK` off), and the reset goes out in its place. The server's
//!   kernel forgets the half-open connection, and the application neither accepts nor logs it.
//!   A reset after a whole handshake would be one 'connection reset by peer' in its log each
//!   interval. A probe that is descheduled for 200 ms between the two sends the ACK after all,
//!   and costs that one log line.
//! * An HTTP probe reads the rest of the body, within its limits, when its verdict is made: the
//!   server has then written its answer, and the reset interrupts nothing that it would log. Its
//!   ACKs are not held back, lest a server with Nagle's algorithm wait for them.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{client::TlsStream, rustls::pki_types::UnixTime};

use crate::{
    health::state::Verdict,
    model::{HealthCheck, HttpProbe, ProbeKind},
};

pub mod agent;
mod command;
mod connect;
mod datagram;
mod echo;
mod failure;
mod grpc;
mod http;
pub mod path;
pub mod tls;

pub use failure::{Phase, ProbeFailure};

use connect::connect;
use path::Path;
use tls::{Certificate, Client};

/// How many bytes the status line and the headers of an answer may have together.
const HEAD_LIMIT: usize = 64 * 1024;
/// How many headers it may have.
const HEADERS_LIMIT: usize = 100;

/// Whom a probe asks, and how.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The service's name.
    pub service: Arc<str>,
    /// The backend's name.
    pub backend: Arc<str>,
    /// The backend's address.
    pub address: IpAddr,
    /// How it is asked.
    pub check: Arc<HealthCheck>,
    /// What its handshakes need, where the check speaks TLS.
    pub tls: Option<Arc<Client>>,
}

/// What a probe found, and how long that took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// From the start of the probe to the end of the answer, or to the failure.
    pub took: Duration,
    /// What it found.
    pub result: Result<Evidence, ProbeFailure>,
    /// Why it went straight to the backend, where it should have taken the way of traffic.
    pub instead: Option<Arc<str>>,
}

impl Outcome {
    /// What the outcome says of the backend.
    ///
    /// `None` where the probe failed for want of something on this host, such as a file
    /// descriptor. To count that against the backends would take all of them down at once.
    pub fn verdict(&self) -> Option<Verdict> {
        match &self.result {
            Ok(_) => Some(Verdict::Pass),
            Err(
                ProbeFailure::Local(_) | ProbeFailure::InvalidRequest | ProbeFailure::CannotRun(_),
            ) => None,
            Err(_) => Some(Verdict::Fail),
        }
    }
}

impl fmt::Display for Outcome {
    /// Writes what was found, without the time: `HTTP 200`, `connection refused`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            Ok(evidence) => evidence.fmt(f)?,
            Err(failure) => failure.fmt(f)?,
        }
        match &self.instead {
            Some(why) => write!(f, " (straight to the backend: {why})"),
            None => Ok(()),
        }
    }
}

/// What a passed probe saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The backend takes connections.
    Connected,
    /// It answered with this status, and with the right body where one is configured.
    Http(u16),
    /// It made a TLS handshake.
    Handshake,
    /// It says that it serves.
    Serving,
    /// It answered a datagram or an echo request.
    Answered,
    /// A program ended well; the first line that it wrote.
    Ran(String),
    /// One of these, over TLS by this certificate.
    Certified(Box<Evidence>, Certificate),
}

impl Evidence {
    /// How long the backend's certificate is valid yet, where that is not for long.
    pub fn expires_in(&self) -> Option<Duration> {
        let told = self.certificate().filter(|of| of.is_told)?;
        Some(told.left)
    }

    /// The backend's certificate, where there was one.
    pub fn certificate(&self) -> Option<Certificate> {
        match self {
            Self::Certified(_, certificate) => Some(*certificate),
            _ => None,
        }
    }

    /// The same with what is known of the certificate.
    fn by(self, certificate: Option<Certificate>) -> Self {
        match certificate {
            Some(certificate) => Self::Certified(Box::new(self), certificate),
            None => self,
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("connected"),
            Self::Http(status) => write!(f, "HTTP {status}"),
            Self::Handshake => f.write_str("TLS handshake done"),
            Self::Serving => f.write_str("gRPC SERVING"),
            Self::Answered => f.write_str("answered"),
            Self::Ran(line) if line.is_empty() => f.write_str("exit code 0"),
            Self::Ran(line) => f.write_str(line),
            Self::Certified(evidence, certificate) if certificate.is_told => {
                let days = certificate.left.as_secs() / 86_400;
                write!(f, "{evidence}, and the certificate expires in {days} days")
            }
            Self::Certified(evidence, _) => evidence.fmt(f),
        }
    }
}

/// The end of a probe's time.
#[derive(Clone, Copy)]
struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    /// Waits for `step`, and names `phase` if the time is over first.
    async fn bound<T>(
        self,
        phase: Phase,
        step: impl Future<Output = Result<T, ProbeFailure>>,
    ) -> Result<T, ProbeFailure> {
        let late = ProbeFailure::NoAnswer {
            limit: self.limit,
            phase,
        };
        timeout_at(self.at, step).await.unwrap_or(Err(late))
    }
}

/// Probes a backend once.
///
/// It returns within the check's time-out. Dropping the future closes the connection.
///
/// # Panics
///
/// Outside a tokio runtime with input, output and time.
pub async fn run(subject: &Subject, path: Path) -> Outcome {
    let start = Instant::now();
    let limit = subject.check.timeout;
    let deadline = Deadline {
        at: start + limit,
        limit,
    };
    // On the heap, and for its time alone: thousands of backends wait for their next probe.
    let result = Box::pin(ask(subject, &path, deadline)).await;
    Outcome {
        took: start.elapsed(),
        result,
        instead: match path {
            Path::Instead(why) => Some(why),
            Path::Direct | Path::Steered(_) => None,
        },
    }
}

async fn ask(subject: &Subject, path: &Path, deadline: Deadline) -> Result<Evidence, ProbeFailure> {
    match &subject.check.kind {
        ProbeKind::Tcp => {
            connect(subject, path, deadline).await?;
            Ok(Evidence::Connected)
        }
        ProbeKind::Http(probe) => ask_http(subject, path, probe, deadline).await,
        ProbeKind::Tls(_) => {
            let stream = connect(subject, path, deadline).await?;
            let (_, certificate) = handshake(subject, stream, deadline).await?;
            Ok(Evidence::Handshake.by(certificate))
        }
        ProbeKind::Grpc(probe) => {
            let stream = connect(subject, path, deadline).await?;
            if probe.tls.is_none() {
                return Box::pin(grpc::ask(probe, subject, stream, deadline)).await;
            }
            let (stream, certificate) = handshake(subject, stream, deadline).await?;
            let asked = Box::pin(grpc::ask(probe, subject, stream, deadline));
            let evidence = asked.await?;
            Ok(evidence.by(certificate))
        }
        ProbeKind::Udp(probe) => datagram::ask(probe, subject, path, deadline).await,
        ProbeKind::Icmp => echo::ask(subject, deadline).await,
        ProbeKind::Command(probe) => command::run(probe, subject, deadline).await,
    }
}

async fn ask_http(
    subject: &Subject,
    path: &Path,
    probe: &HttpProbe,
    deadline: Deadline,
) -> Result<Evidence, ProbeFailure> {
    let request = http::request(probe, subject)?;
    let stream = connect(subject, path, deadline).await?;
    if probe.tls.is_none() {
        return http::ask(probe, request, stream, deadline).await;
    }
    let (stream, certificate) = handshake(subject, stream, deadline).await?;
    let evidence = http::ask(probe, request, stream, deadline).await?;
    Ok(evidence.by(certificate))
}

/// Makes a handshake over a connection.
async fn handshake(
    subject: &Subject,
    stream: TcpStream,
    deadline: Deadline,
) -> Result<(TlsStream<TcpStream>, Option<Certificate>), ProbeFailure> {
    let Some(client) = &subject.tls else {
        return Err(ProbeFailure::InvalidRequest);
    };
    let now = UnixTime::now();
    client
        .handshake(stream, subject.address, now, deadline)
        .await
}

#[cfg(test)]
mod tests;
