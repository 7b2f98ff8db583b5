//! The command line's side of the admin API.

use std::{
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::{net::UnixStream, time};

use super::proto::{
    LogFilter, Problem, SetLogFilter, Status, Tested,
    change::{
        Configuration, Finding, Imposed, Imposing, Outcome, Plan, Request as Change, Rollback,
    },
    drill,
    explain::{self, Explanations},
    flows::{Flows, Query},
    incident::{self, Done},
    trace::{self, Line},
};

/// How long a question and its answer may take together.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The same for a change, which waits for the first answers of new backends.
const LONG_TIMEOUT: Duration = Duration::from_mins(1);
/// The longest answer taken, in bytes: some 100,000 backends.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Why a controller's answer could not be had.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens at the socket.
    #[error(
        "no controller answers at {} ({reason}): start one with 'evenkeel run --config FILE', or name \
         another socket with '--socket PATH'",
        socket.display()
    )]
    NoController {
        /// The socket.
        socket: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// The socket's file mode keeps this user out.
    #[error(
        "permission denied: {} is not open to this user: use sudo, or join the group that 'group' \
         under [admin] names ('change_group' where that is the only one)",
        socket.display()
    )]
    PermissionDenied {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket cannot be connected to.
    #[error("cannot connect to {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The controller did not answer in time.
    #[error(
        "the controller at {} did not answer within {} s: see its log for what it waits for",
        socket.display(),
        limit.as_secs()
    )]
    Timeout {
        /// The socket.
        socket: PathBuf,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The controller answered that it will not.
    #[error("the controller at {} refused ({}): {problem}", socket.display(), code.as_u16())]
    Refused {
        /// The socket.
        socket: PathBuf,
        /// The HTTP status code.
        code: StatusCode,
        /// What it said.
        problem: String,
        /// What the audit found, where that is why.
        findings: Vec<Finding>,
    },
    /// The connection broke, as it does when the controller ends.
    #[error("the connection to the controller at {} broke ({reason}): try again", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// Why.
        reason: hyper::Error,
    },
    /// What answered does not speak this version's language.
    #[error(
        "the answer from {} is not understood ({reason}): are the controller and this program of the same \
         version ('evenkeel --version')?",
        socket.display()
    )]
    NotUnderstood {
        /// The socket.
        socket: PathBuf,
        /// Why.
        reason: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Asks the controller at one socket; every question is a connection of its own, so that the
/// controller may restart in between.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client for the controller at `socket`; connects to nothing yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// The socket asked.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Everything about the controller, its services and their backends.
    ///
    /// # Errors
    ///
    /// If nobody answers within five seconds, or not with a status.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.ask(Method::GET, "/v1/status", Bytes::new(), TIMEOUT)
            .await
    }

    /// What a configuration would change.
    ///
    /// # Errors
    ///
    /// If nobody answers, or the configuration is not valid.
    pub async fn plan(&self, change: &Change) -> Result<Plan, ClientError> {
        self.post("/v1/plan", change).await
    }

    /// Puts a configuration in force.
    ///
    /// # Errors
    ///
    /// If nobody answers, or it is refused: everything is then as it was.
    pub async fn apply(&self, change: &Change) -> Result<Outcome, ClientError> {
        self.post("/v1/apply", change).await
    }

    /// Keeps the last change, which would be taken back otherwise.
    ///
    /// # Errors
    ///
    /// If nobody answers, or nothing waits for a confirmation.
    pub async fn confirm(&self) -> Result<Outcome, ClientError> {
        self.post("/v1/confirm", &()).await
    }

    /// Puts an earlier configuration in force.
    ///
    /// # Errors
    ///
    /// If nobody answers, or it is refused: everything is then as it was.
    pub async fn rollback(&self, rollback: &Rollback) -> Result<Outcome, ClientError> {
        self.post("/v1/rollback", rollback).await
    }

    /// The configurations that are kept, the newest first.
    ///
    /// # Errors
    ///
    /// If nobody answers.
    pub async fn configurations(&self) -> Result<Vec<Configuration>, ClientError> {
        self.ask(Method::GET, "/v1/configurations", Bytes::new(), TIMEOUT)
            .await
    }

    /// Overrides what the configuration says of a backend, or ends that.
    ///
    /// # Errors
    ///
    /// If nobody answers, or it is refused: everything is then as it was.
    pub async fn impose(&self, imposing: &Imposing) -> Result<Imposed, ClientError> {
        self.post("/v1/override", imposing).await
    }

    /// Opens an incident, or does something about one.
    ///
    /// # Errors
    ///
    /// If nobody answers, this user may not, or there is nothing that it could be about.
    pub async fn incident(&self, wish: &incident::Wish) -> Result<Done, ClientError> {
        self.post("/v1/incident", wish).await
    }

    /// Asks which flows are remembered.
    ///
    /// # Errors
    ///
    /// If nobody answers, or what is named does not exist.
    pub async fn flows(&self, query: &Query) -> Result<Flows, ClientError> {
        self.post("/v1/flows", query).await
    }

    /// Asks what would become of packets.
    ///
    /// # Errors
    ///
    /// If nobody answers, or there are no such packets.
    pub async fn explain(&self, request: &explain::Request) -> Result<Explanations, ClientError> {
        self.post("/v1/explain", request).await
    }

    /// Has decisions told, each by a line that is handed on as it comes, until the last one or until
    /// `each` breaks off.
    ///
    /// # Errors
    ///
    /// If nobody answers, or it is refused.
    pub async fn trace(
        &self,
        request: &trace::Request,
        mut each: impl FnMut(Line) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        let body = serde_json::to_vec(request).map_err(|error| self.not_understood(error))?;
        let begin = self.begin(Method::POST, "/v1/trace", body.into());
        // A program is loaded first, which an emulated machine takes its time for.
        let begun = time::timeout(LONG_TIMEOUT, begin).await;
        let mut body = begun.unwrap_or_else(|_| {
            Err(ClientError::Timeout {
                socket: self.socket.clone(),
                limit: LONG_TIMEOUT,
            })
        })?;
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|reason| self.broken(reason))?;
            rest.extend_from_slice(&frame.into_data().unwrap_or_default());
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = serde_json::from_slice(&rest[..end]);
                let line = line.map_err(|error| self.not_understood(error))?;
                rest.drain(..=end);
                if each(line).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Has a drill begun, or asks what it would do.
    ///
    /// # Errors
    ///
    /// If nobody answers, or it is refused: everything is then as it was.
    pub async fn drill(&self, request: &drill::Request) -> Result<drill::Answer, ClientError> {
        self.post("/v1/drill", request).await
    }

    /// Ends the drill that is on.
    ///
    /// # Errors
    ///
    /// If nobody answers, or none is on.
    pub async fn abort_drill(&self, abort: &drill::Abort) -> Result<drill::Answer, ClientError> {
        self.post("/v1/drill/abort", abort).await
    }

    /// Asks what is logged.
    ///
    /// # Errors
    ///
    /// As [`Client::status`].
    pub async fn log_filter(&self) -> Result<LogFilter, ClientError> {
        self.ask(Method::GET, "/v1/log", Bytes::new(), TIMEOUT)
            .await
    }

    /// Has something else logged.
    ///
    /// # Errors
    ///
    /// As [`Client::status`], and where it is refused.
    pub async fn set_log_filter(&self, wish: &SetLogFilter) -> Result<LogFilter, ClientError> {
        self.post("/v1/log", wish).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &'static str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.not_understood(error))?;
        self.ask(Method::POST, path, body.into(), LONG_TIMEOUT)
            .await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<T, ClientError> {
        time::timeout(limit, self.exchange(method, path, body))
            .await
            .unwrap_or_else(|_| {
                Err(ClientError::Timeout {
                    socket: self.socket.clone(),
                    limit,
                })
            })
    }

    /// Has a test sent to one receiver of notifications, or to all.
    ///
    /// # Errors
    ///
    /// If nobody answers within five seconds, or there is no such receiver.
    pub async fn test_notify(&self, receiver: Option<&str>) -> Result<Vec<Tested>, ClientError> {
        let path = match receiver {
            Some(name) => format!("/v1/notify/test/{name}"),
            None => "/v1/notify/test".to_owned(),
        };
        self.ask(Method::POST, &path, Bytes::new(), TIMEOUT).await
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let body = self.begin(method, path, body).await?;
        let body = self.body(body).await?;
        serde_json::from_slice(&body).map_err(|error| self.not_understood(error))
    }

    /// Asks, and answers the body of what comes back, unless that is a refusal.
    async fn begin(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Incoming, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| self.connect(error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|reason| self.broken(reason))?;
        // It ends with the connection; what goes wrong shows in the answer.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "evenkeel")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.not_understood(error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|reason| self.broken(reason))?;
        let code = response.status();
        let body = response.into_body();
        if code.is_success() {
            return Ok(body);
        }
        let body = self.body(body).await?;
        let problem = serde_json::from_slice(&body).unwrap_or_else(|_| Problem {
            error: "it gave no reason".to_owned(),
            findings: Vec::new(),
        });
        Err(ClientError::Refused {
            socket: self.socket.clone(),
            code,
            problem: problem.error,
            findings: problem.findings,
        })
    }

    async fn body(&self, body: Incoming) -> Result<Bytes, ClientError> {
        match Limited::new(body, MAX_ANSWER).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) => Err(match error.downcast::<hyper::Error>() {
                Ok(reason) => self.broken(*reason),
                Err(error) => {
                    debug_assert!(error.is::<LengthLimitError>(), "{error}");
                    ClientError::NotUnderstood {
                        socket: self.socket.clone(),
                        reason: error,
                    }
                }
            }),
        }
    }

    fn connect(&self, source: io::Error) -> ClientError {
        let socket = self.socket.clone();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NoController {
                    socket,
                    reason: source,
                }
            }
            io::ErrorKind::PermissionDenied => ClientError::PermissionDenied { socket },
            _ => ClientError::Connect { socket, source },
        }
    }

    fn broken(&self, reason: hyper::Error) -> ClientError {
        ClientError::Broken {
            socket: self.socket.clone(),
            reason,
        }
    }

    fn not_understood(
        &self,
        reason: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> ClientError {
        ClientError::NotUnderstood {
            socket: self.socket.clone(),
            reason: reason.into(),
        }
    }
}
