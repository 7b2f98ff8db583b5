//! HTTP/1.1 requests of probes.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    ops::RangeInclusive,
    pin::pin,
};

use http_body_util::{BodyExt, Empty};
use hyper::{
    Request,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Deadline, Evidence, HEAD_LIMIT, HEADERS_LIMIT, Phase, ProbeFailure, Subject};
use crate::model::{BodyMatch, HttpProbe};

/// How many bytes of a body are read and searched.
pub(super) const BODY_LIMIT: usize = 64 * 1024;

/// Asks over a connection that is made, and judges the answer.
pub(super) async fn ask(
    probe: &HttpProbe,
    request: Request<Empty<Bytes>>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    deadline: Deadline,
) -> Result<Evidence, ProbeFailure> {
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

/// The host of a request where none is configured.
pub(super) fn host(address: IpAddr, port: NonZeroU16, usual: u16) -> String {
    match (address, port.get()) {
        (IpAddr::V4(address), port) if port == usual => address.to_string(),
        (IpAddr::V6(address), port) if port == usual => format!("[{address}]"),
        (address, port) => SocketAddr::new(address, port).to_string(),
    }
}

/// The request of a probe.
pub(super) fn request(
    probe: &HttpProbe,
    subject: &Subject,
) -> Result<Request<Empty<Bytes>>, ProbeFailure> {
    let port = subject.check.port.unwrap_or(NonZeroU16::MIN);
    let usual = if probe.tls.is_some() { 443 } else { 80 };
    let host = probe.host.clone();
    let host = host.unwrap_or_else(|| self::host(subject.address, port, usual));
    let mut request = Request::builder()
        .method(probe.method.as_str())
        .uri(&probe.path)
        .header(header::HOST, host);
    // Those of the configuration come in the place of these.
    let given = |name: &header::HeaderName| {
        let mut names = probe.headers.iter();
        names.any(|(given, _)| name.as_str().eq_ignore_ascii_case(given))
    };
    if !given(&header::USER_AGENT) {
        let agent = concat!("evenkeel/", env!("CARGO_PKG_VERSION"));
        request = request.header(header::USER_AGENT, agent);
    }
    for (name, value) in &probe.headers {
        request = request.header(name, value);
    }
    request
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
    let is_healthy = probe.status.iter().any(|range| range.contains(&status));
    let verdict = match &probe.body {
        _ if !is_healthy => Err(ProbeFailure::Status {
            found: status,
            expected: ranges(&probe.status),
        }),
        Some(BodyMatch::Text(wanted)) => deadline.bound(Phase::Reading, body.find(wanted)).await,
        Some(BodyMatch::Pattern(wanted)) => {
            deadline.bound(Phase::Reading, body.matches(wanted)).await
        }
        None => Ok(()),
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

    /// Reads all of it, and looks for what matches.
    async fn matches(&mut self, wanted: &regex::bytes::Regex) -> Result<(), ProbeFailure> {
        let mut all = Vec::new();
        while let Some(data) = self.chunk().await? {
            all.extend_from_slice(&data);
        }
        if wanted.is_match(&all) {
            Ok(())
        } else {
            Err(ProbeFailure::BodyPattern {
                wanted: wanted.as_str().to_owned(),
            })
        }
    }

    /// Reads the rest.
    async fn drain(&mut self) -> Result<(), ProbeFailure> {
        while self.chunk().await?.is_some() {}
        Ok(())
    }
}
