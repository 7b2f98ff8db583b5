//! Why probes fail, read from error numbers and types, never from their text.

use std::{fmt, io, time::Duration};

use rustix::io::Errno;
use tokio_rustls::rustls::{self, CertificateError, pki_types::UnixTime};

use super::{HEAD_LIMIT, HEADERS_LIMIT};
use crate::model::Drill;

/// How far a probe had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The SYN was sent.
    Connecting,
    /// The TLS handshake has begun.
    Handshaking,
    /// The request was sent, the headers of the response have not all arrived.
    Waiting,
    /// The body is on its way.
    Reading,
    /// The program runs.
    Running,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting",
            Self::Handshaking => "TLS handshake",
            Self::Waiting => "waiting for the response",
            Self::Reading => "reading the body",
            Self::Running => "the program still ran",
        })
    }
}

/// Why a probe failed, in an operator's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeFailure {
    /// The time-out was over before the verdict.
    #[error("no answer within {} ms ({phase})", limit.as_millis())]
    NoAnswer {
        /// The configured time-out.
        limit: Duration,
        /// How far the probe had come.
        phase: Phase,
    },
    /// A small packet is answered, and one as large as a client's is not.
    #[error(
        "packets of {bytes} bytes do not arrive, small ones do: raise the MTU on the way to the \
         backend, or lower client_mtu (no answer within {} ms)",
        limit.as_millis()
    )]
    TooLarge {
        /// The length of the IP packet.
        bytes: u16,
        /// The configured time-out.
        limit: Duration,
    },
    /// A drill has it fail.
    #[error("drill {0}: it counts as failed")]
    Rehearsed(Drill),
    /// Nothing listens on the port.
    #[error("connection refused")]
    Refused,
    /// There is no route to the backend.
    #[error("network unreachable")]
    NetworkUnreachable,
    /// There is a route, and no host at its end.
    #[error("host unreachable")]
    HostUnreachable,
    /// The backend cut the connection with a reset.
    #[error("connection reset ({0})")]
    Reset(Phase),
    /// The backend closed the connection too early.
    #[error("connection closed ({0})")]
    Closed(Phase),
    /// Another error of the connection.
    #[error("connection failed ({phase}): {errno}")]
    Connection {
        /// How far the probe had come.
        phase: Phase,
        /// What the kernel says.
        errno: Errno,
    },
    /// What came back is not an HTTP/1 response.
    #[error("the answer is not valid HTTP/1.1 ({0})")]
    NotHttp(Phase),
    /// The headers of the response are too many or too long.
    #[error("the response has more than {HEADERS_LIMIT} headers or {} KiB of them", HEAD_LIMIT / 1024)]
    HeadTooLarge,
    /// The status is none of those that count as healthy.
    #[error("HTTP {found}, expected {expected}")]
    Status {
        /// The status of the response.
        found: u16,
        /// The healthy ones, as in `200-299, 404`.
        expected: String,
    },
    /// The text is not in the part of the body that is searched.
    #[error("body does not contain {wanted:?}")]
    Body {
        /// The configured text.
        wanted: String,
    },
    /// Nothing in that part of the body matches the expression.
    #[error("body does not match {wanted:?}")]
    BodyPattern {
        /// The configured expression.
        wanted: String,
    },
    /// The server's certificate is not valid.
    #[error("certificate refused: {0}")]
    Certificate(String),
    /// The TLS handshake failed for another reason.
    #[error("TLS handshake failed: {0}")]
    Handshake(String),
    /// The gRPC server says that it does not serve.
    #[error("gRPC {0}")]
    Grpc(String),
    /// The datagram's answer is another one.
    #[error("the answer does not contain what was expected: {0}")]
    Answer(String),
    /// A program says that the backend is not well.
    #[error("{0}")]
    Command(String),
    /// A program could not be started; that says nothing about the backend.
    #[error("cannot probe: {0}")]
    CannotRun(String),
    /// This host could not probe; that says nothing about the backend.
    #[error("cannot probe, for lack of resources on this host: {0}")]
    Local(Errno),
    /// The configured path or host cannot stand in a request; nor does this say anything about
    /// the backend.
    #[error("cannot probe: the configured path or host cannot stand in an HTTP request")]
    InvalidRequest,
}

impl ProbeFailure {
    /// What an error of the socket means in this phase.
    pub(super) fn of_io(error: &io::Error, phase: Phase) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::CONNREFUSED) => Self::Refused,
            Some(Errno::NETUNREACH) => Self::NetworkUnreachable,
            Some(Errno::HOSTUNREACH) => Self::HostUnreachable,
            Some(Errno::CONNRESET | Errno::PIPE) => Self::Reset(phase),
            Some(
                errno @ (Errno::MFILE
                | Errno::NFILE
                | Errno::NOBUFS
                | Errno::NOMEM
                | Errno::ADDRNOTAVAIL
                | Errno::ADDRINUSE
                | Errno::AFNOSUPPORT),
            ) => Self::Local(errno),
            Some(errno) => Self::Connection { phase, errno },
            // Not the kernel's: the decoder of the body makes errors of its own.
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed(phase),
            None => Self::NotHttp(phase),
        }
    }

    /// What an error of a TLS handshake means.
    pub(super) fn of_tls(error: &io::Error, now: UnixTime) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        match inner {
            Some(rustls::Error::InvalidCertificate(why)) => {
                Self::Certificate(certificate(why, now))
            }
            Some(other) => Self::Handshake(other.to_string()),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Closed(Phase::Handshaking)
            }
            None => Self::of_io(error, Phase::Handshaking),
        }
    }

    /// What an error of the HTTP client means in this phase.
    pub(super) fn of_http(error: &hyper::Error, phase: Phase) -> Self {
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            if let Some(error) = cause.downcast_ref() {
                return Self::of_io(error, phase);
            }
            source = cause.source();
        }
        if error.is_parse_too_large() {
            Self::HeadTooLarge
        } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
            Self::Closed(phase)
        } else {
            Self::NotHttp(phase)
        }
    }
}

/// Why a certificate is not valid, with what is to be known of it.
fn certificate(why: &CertificateError, now: UnixTime) -> String {
    let days = |from: UnixTime, to: UnixTime| to.as_secs().saturating_sub(from.as_secs()) / 86_400;
    match why {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("it expired {} days ago", days(*not_after, now))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!(
                "it is not valid for another {} days",
                days(now, *not_before)
            )
        }
        CertificateError::UnknownIssuer => {
            "no trusted CA has issued it (health.ca names those to trust)".to_owned()
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => format!(
            "it is not for {} but for {} (health.server_name names what is asked for)",
            expected.to_str(),
            presented.join(", ")
        ),
        other => other.to_string(),
    }
}
