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

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    ops::RangeInclusive,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt, Empty};
use hyper::{
    Request,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};

use crate::{
    health::state::Verdict,
    model::{HealthCheck, HttpProbe, ProbeKind},
};

mod connect;
mod failure;
pub mod path;

pub use failure::{Phase, ProbeFailure};

use connect::{LastAck, connect};
use path::Path;

/// How many bytes of a body are read and searched.
const BODY_LIMIT: usize = 64 * 1024;
/// How many bytes the status line and the headers of an answer may have together.
const HEAD_LIMIT: usize = 64 * 1024;
/// How many headers it may have.
const HEADERS_LIMIT: usize = 100;

/// Whom a probe asks, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The service's name.
    pub service: Arc<str>,
    /// The backend's name.
    pub backend: Arc<str>,
    /// The backend's address.
    pub address: IpAddr,
    /// How it is asked.
    pub check: Arc<HealthCheck>,
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
            Err(ProbeFailure::Local(_) | ProbeFailure::InvalidRequest) => None,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The backend takes connections.
    Connected,
    /// It answered with this status, and with the right body where one is configured.
    Http(u16),
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("connected"),
            Self::Http(status) => write!(f, "HTTP {status}"),
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
    let result = match &subject.check.kind {
        ProbeKind::Tcp => connect(subject, &path, LastAck::HeldBack, deadline)
            .await
            .map(|_| Evidence::Connected),
        ProbeKind::Http(probe) => http(subject, &path, probe, deadline).await,
    };
    Outcome {
        took: start.elapsed(),
        result,
        instead: match path {
            Path::Instead(why) => Some(why),
            Path::Direct | Path::Steered(_) => None,
        },
    }
}

async fn http(
    subject: &Subject,
    path: &Path,
    probe: &HttpProbe,
    deadline: Deadline,
) -> Result<Evidence, ProbeFailure> {
    let request = request(probe, subject.address, subject.check.port)?;
    let stream = connect(subject, path, LastAck::Sent, deadline).await?;
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_LIMIT)
        .max_header_size(HEAD_LIMIT)
        .max_headers(HEADERS_LIMIT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| ProbeFailure::of_http(&error, Phase::Waiting))?;

    let mut exchange = pin!(exchange(probe, request, sender, deadline));
    tokio::select! {
        biased;
        verdict = &mut exchange => verdict,
        // A FIN of ours would end some connections in TIME_WAIT at the server. The exchange is
        // told of an error too, and may still have read parts of the answer before it.
        _ = connection.without_shutdown() => exchange.await,
    }
}

fn request(
    probe: &HttpProbe,
    address: IpAddr,
    port: NonZeroU16,
) -> Result<Request<Empty<Bytes>>, ProbeFailure> {
    let host = probe
        .host
        .clone()
        .unwrap_or_else(|| match (address, port.get()) {
            (IpAddr::V4(address), 80) => address.to_string(),
            (IpAddr::V6(address), 80) => format!("[{address}]"),
            (address, port) => SocketAddr::new(address, port).to_string(),
        });
    Request::get(&probe.path)
        .header(header::HOST, host)
        .header(
            header::USER_AGENT,
            concat!("evenkeel/", env!("CARGO_PKG_VERSION")),
        )
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|_| ProbeFailure::InvalidRequest)
}

/// Sends the request and judges the response.
async fn exchange(
    probe: &HttpProbe,
    request: Request<Empty<Bytes>>,
    mut sender: http1::SendRequest<Empty<Bytes>>,
    deadline: Deadline,
) -> Result<Evidence, ProbeFailure> {
    let response = sender.send_request(request);
    let response = async {
        response
            .await
            .map_err(|error| ProbeFailure::of_http(&error, Phase::Waiting))
    };
    let response = deadline.bound(Phase::Waiting, response).await?;

    let status = response.status().as_u16();
    let mut body = Body {
        incoming: response.into_body(),
        left: BODY_LIMIT,
    };
    let verdict = if !probe.status.iter().any(|range| range.contains(&status)) {
        Err(ProbeFailure::Status {
            found: status,
            expected: ranges(&probe.status),
        })
    } else if let Some(wanted) = &probe.body {
        deadline.bound(Phase::Reading, body.find(wanted)).await
    } else {
        Ok(())
    };
    // Whatever becomes of the rest, the verdict stands.
    let _: Result<(), ProbeFailure> = deadline.bound(Phase::Reading, body.drain()).await;
    verdict.map(|()| Evidence::Http(status))
}

/// Writes ranges of status codes as in `200-299, 404`.
fn ranges(ranges: &[RangeInclusive<u16>]) -> String {
    let range = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
        (start, end) if start == end => start.to_string(),
        (start, end) => format!("{start}-{end}"),
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(", ")
}

/// A body on its way, up to the limit.
struct Body {
    incoming: Incoming,
    /// How many bytes may still be read.
    left: usize,
}

impl Body {
    /// The next bytes; `None` after the last, or at the limit.
    async fn chunk(&mut self) -> Result<Option<Bytes>, ProbeFailure> {
        while self.left > 0 {
            let Some(frame) = self.incoming.frame().await else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| ProbeFailure::of_http(&error, Phase::Reading))?;
            // Trailers are of no interest.
            if let Ok(mut data) = frame.into_data() {
                data.truncate(self.left);
                self.left -= data.len();
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Reads until `wanted` has come, in however many parts.
    async fn find(&mut self, wanted: &str) -> Result<(), ProbeFailure> {
        let pattern = wanted.as_bytes();
        if pattern.is_empty() {
            return Ok(());
        }
        // What was read and may still be the beginning of a match, then the new bytes.
        let mut window = Vec::new();
        while let Some(data) = self.chunk().await? {
            window.extend_from_slice(&data);
            if window.windows(pattern.len()).any(|part| part == pattern) {
                return Ok(());
            }
            window.drain(..window.len().saturating_sub(pattern.len() - 1));
        }
        Err(ProbeFailure::Body {
            wanted: wanted.to_owned(),
        })
    }

    /// Reads the rest.
    async fn drain(&mut self) -> Result<(), ProbeFailure> {
        while self.chunk().await?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests;
