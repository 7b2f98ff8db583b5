//! The command line's side of the admin API.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::{net::UnixStream, time};

use super::proto::{Problem, Status, Tested};

/// How long a question and its answer may take together.
const TIMEOUT: Duration = Duration::from_secs(5);
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
         under [admin] names",
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
        TIMEOUT.as_secs()
    )]
    Timeout {
        /// The socket.
        socket: PathBuf,
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
        time::timeout(TIMEOUT, self.get("/v1/status"))
            .await
            .unwrap_or_else(|_| {
                Err(ClientError::Timeout {
                    socket: self.socket.clone(),
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
        let question = self.ask(Method::POST, &path);
        time::timeout(TIMEOUT, question).await.unwrap_or_else(|_| {
            Err(ClientError::Timeout {
                socket: self.socket.clone(),
            })
        })
    }

    async fn get<T: DeserializeOwned>(&self, path: &'static str) -> Result<T, ClientError> {
        self.ask(Method::GET, path).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, ClientError> {
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
            .body(Empty::<Bytes>::new())
            .map_err(|error| self.not_understood(error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|reason| self.broken(reason))?;
        let code = response.status();
        let body = self.body(response.into_body()).await?;
        if code.is_success() {
            return serde_json::from_slice(&body).map_err(|error| self.not_understood(error));
        }
        let problem = serde_json::from_slice(&body).map_or_else(
            |_| "it gave no reason".to_owned(),
            |problem: Problem| problem.error,
        );
        Err(ClientError::Refused {
            socket: self.socket.clone(),
            code,
            problem,
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
