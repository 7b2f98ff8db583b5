//! `grpc.health.v1.Health/Check` (the gRPC health checking protocol), over HTTP/2.

use std::{num::NonZeroU16, pin::pin};

use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Uri, body::Bytes, client::conn::http2, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Deadline, Evidence, Phase, ProbeFailure, Subject, http};
use crate::model::GrpcProbe;

/// The longest answer that is looked at.
const LONGEST: usize = 4096;
/// In front of a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// `HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Question {
    #[prost(string, tag = "1")]
    pub(super) service: String,
}

/// `HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Answer {
    #[prost(enumeration = "Status", tag = "1")]
    pub(super) status: i32,
}

/// `ServingStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Status {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

/// Asks over a connection that is made.
pub(super) async fn ask(
    probe: &GrpcProbe,
    subject: &Subject,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    deadline: Deadline,
) -> Result<Evidence, ProbeFailure> {
    let request = request(probe, subject)?;
    let of = |error: hyper::Error| ProbeFailure::of_http(&error, Phase::Waiting);
    let handshake = async {
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(of)
    };
    let (mut sender, connection) = deadline.bound(Phase::Waiting, handshake).await?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(of)?;
        let (head, body) = response.into_parts();
        if head.status != 200 {
            return Err(ProbeFailure::Grpc(format!(
                "answered with HTTP {}",
                head.status.as_u16()
            )));
        }
        if let Some(failure) = failure(&head.headers) {
            return Err(failure);
        }
        let body = http_body_util::Limited::new(body, LONGEST).collect().await;
        let body = body.map_err(|_| ProbeFailure::Closed(Phase::Reading))?;
        if let Some(failure) = body.trailers().and_then(failure) {
            return Err(failure);
        }
        judge(&body.to_bytes())
    };
    let mut exchange = pin!(deadline.bound(Phase::Waiting, exchange));
    tokio::select! {
        biased;
        verdict = &mut exchange => verdict,
        _ = connection => exchange.await,
    }
}

fn request(probe: &GrpcProbe, subject: &Subject) -> Result<Request<Full<Bytes>>, ProbeFailure> {
    let (scheme, usual) = if probe.tls.is_some() {
        ("https", 443)
    } else {
        ("http", 80)
    };
    let port = subject.check.port.unwrap_or(NonZeroU16::MIN);
    let host = probe.host.clone();
    let authority = host.unwrap_or_else(|| http::host(subject.address, port, usual));
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query("/grpc.health.v1.Health/Check")
        .build()
        .map_err(|_| ProbeFailure::InvalidRequest)?;
    let question = Question {
        service: probe.service.clone(),
    };
    let message = question.encode_to_vec();
    let mut body = vec![0];
    body.extend((message.len() as u32).to_be_bytes());
    body.extend(message);
    Request::builder()
        .method(Method::POST)
        .uri(uri)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(
            header::USER_AGENT,
            concat!("evenkeel/", env!("CARGO_PKG_VERSION")),
        )
        .body(Full::new(body.into()))
        .map_err(|_| ProbeFailure::InvalidRequest)
}

/// What the headers, or the trailers, say went wrong.
fn failure(headers: &header::HeaderMap) -> Option<ProbeFailure> {
    let text = |name| headers.get(name)?.to_str().ok();
    match text("grpc-status") {
        None | Some("0") => None,
        Some("5") => Some(ProbeFailure::Grpc(
            "does not know the service (NOT_FOUND)".to_owned(),
        )),
        Some("12") => Some(ProbeFailure::Grpc(
            "server has no grpc.health.v1 (UNIMPLEMENTED)".to_owned(),
        )),
        Some(code) => {
            let message = text("grpc-message").unwrap_or_default();
            Some(ProbeFailure::Grpc(
                format!("status {code} {message}").trim_end().to_owned(),
            ))
        }
    }
}

fn judge(body: &[u8]) -> Result<Evidence, ProbeFailure> {
    let answer = body
        .get(PREFIX..)
        .and_then(|message| Answer::decode(message).ok())
        .ok_or_else(|| ProbeFailure::Grpc("answered with no health message".to_owned()))?;
    match answer.status() {
        Status::Serving => Ok(Evidence::Serving),
        Status::Unknown => Err(ProbeFailure::Grpc("UNKNOWN".to_owned())),
        Status::NotServing => Err(ProbeFailure::Grpc("NOT_SERVING".to_owned())),
        Status::ServiceUnknown => Err(ProbeFailure::Grpc("SERVICE_UNKNOWN".to_owned())),
    }
}
