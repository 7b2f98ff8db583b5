//! The admin API's server.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | 200, [`proto::Status`](super::proto::Status) |
//! | `POST /v1/notify/test`… | see [`notify::api`](crate::notify::api) |
//! | `POST /v1/plan` | 200, [`Plan`](super::proto::change::Plan) |
//! | `POST /v1/apply`, `/v1/confirm`, `/v1/rollback` | 200, [`Outcome`](super::proto::change::Outcome) |
//! | `POST /v1/override` | 200, [`Imposed`](super::proto::change::Imposed) |
//! | `GET /v1/configurations` | 200, a list of [`Configuration`](super::proto::change::Configuration) |
//! | `POST /v1/incident` | 200, [`Done`](super::proto::incident::Done) |
//! | `POST /v1/flows` | 200, [`Flows`](super::proto::flows::Flows) |
//! | `POST /v1/explain` | 200, [`Explanations`](super::proto::explain::Explanations) |
//! | `POST /v1/trace` | 200, a [`Line`](super::proto::trace::Line) for each decision, as they are made |
//! | `POST /v1/drill`, `/v1/drill/abort` | 200, [`Answer`](super::proto::drill::Answer) |
//! | `GET` and `POST /v1/log` | 200, [`LogFilter`](super::proto::LogFilter) |
//! | what the controller refuses | 404, 409, 422, 500 or 503, [`Problem`] |
//! | another method there | 405, [`Problem`] |
//! | another path | 404, [`Problem`] |
//! | from a peer that may not | 403, [`Problem`] |
//!
//! A connection carries one request and lives for at most five seconds, which bounds a slow
//! header, a slow body and a slow reader alike; once a whole request is with the controller, for a
//! minute; one over which decisions are told, for as long as that may take. Whoever may connect may look; root, the controller's own user and members of
//! `admin.change_group` may change.

pub mod change;
mod peer;
mod socket;

use std::{
    io,
    os::unix::net::UnixListener as StdUnixListener,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use nix::unistd::{Gid, Group, Uid, User};
use thiserror::Error;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time,
};

use self::{
    change::{Actor, Asked, Desk},
    peer::{Admission, Peer},
    socket::SocketFile,
};
use super::proto::{Problem, Status, trace::LONGEST_S};
use crate::model::AdminConfig;

/// How long a connection may last, from its acceptance to the last byte of the answer.
const CONNECTION_TIME: Duration = Duration::from_secs(5);
/// How many times as long one may last that waits for the controller: a change waits for the first
/// answers of new backends.
const ROUNDS: u32 = 12;
/// The same for one over which decisions are told.
const LONG_ROUNDS: u32 = LONGEST_S as u32 / CONNECTION_TIME.as_secs() as u32 + 2;
/// How long open connections may go on once the server is told to end.
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// Connections served at a time; others wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 32;
/// Request line and header fields together, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// The wait after a failed `accept`, which mostly means that file descriptors have run out.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

type LatestStatus = watch::Receiver<Arc<Status>>;

/// Why the admin socket could not be made.
#[derive(Debug, Error)]
pub enum BindError {
    /// The configured group does not exist.
    #[error(
        "cannot give the admin socket to group '{group}': there is no such group; create it with \
         'groupadd --system {group}' or name another one under [admin]"
    )]
    UnknownGroup {
        /// The group as configured.
        group: String,
    },
    /// The group database cannot be read.
    #[error("cannot look up group '{group}' for the admin socket")]
    GroupLookup {
        /// The group as configured.
        group: String,
        /// Why.
        source: io::Error,
    },
    /// The folder of the socket is missing and cannot be made.
    #[error("cannot create {} for the admin socket", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A controller is running already.
    #[error(
        "{} already answers at {}: stop it first, or give this controller another 'socket' under \
         [admin]",
        holder(*pid),
        socket.display()
    )]
    Live {
        /// The socket.
        socket: PathBuf,
        /// The process that listens there, where that is known.
        pid: Option<i32>,
    },
    /// Something that is not a socket has the socket's name.
    #[error(
        "{} is in the admin socket's place and is not a socket: move it away, or change 'socket' \
         under [admin]",
        path.display()
    )]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A step of making the socket failed.
    #[error("cannot {operation} admin socket {}", socket.display())]
    Create {
        /// The socket.
        socket: PathBuf,
        /// The step.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
}

fn holder(pid: Option<i32>) -> String {
    pid.map_or_else(
        || "another controller".to_owned(),
        |pid| format!("another controller (process {pid})"),
    )
}

/// The admin API, bound to its socket and not yet answering.
///
/// Dropping it, and the end of [`Server::serve`], remove the socket's file.
#[derive(Debug)]
pub struct Server {
    file: SocketFile,
    listener: StdUnixListener,
    admission: Admission,
    more: Router,
}

impl Server {
    /// Makes the socket: 0660, owned by this process's user and by the configured group (the one for
    /// looking where there are two).
    ///
    /// A socket that nobody answers at, left by a controller that was killed, is replaced. Needs
    /// no async runtime.
    ///
    /// # Errors
    ///
    /// If the group is unknown, a controller already answers at the path, something else is there,
    /// or the system refuses.
    pub fn bind(config: &AdminConfig) -> Result<Self, BindError> {
        let group = |named: &Option<String>| named.as_deref().map(resolve_group).transpose();
        let admission = Admission {
            owner: Uid::effective(),
            group: group(&config.group)?,
            change_group: group(&config.change_group)?,
        };
        let (file, listener) = SocketFile::create(&config.socket, admission.of_socket())?;
        Ok(Self {
            file,
            listener,
            admission,
            more: Router::new(),
        })
    }

    /// Answers at these routes as well.
    #[must_use]
    pub fn with(mut self, routes: Router) -> Self {
        self.more = self.more.merge(routes);
        self
    }

    /// Where it is bound.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Answers until `shutdown` resolves, always with the latest `status`. What only the controller
    /// can answer goes to `asks`.
    ///
    /// Open connections then have a second to end.
    ///
    /// # Errors
    ///
    /// If the runtime cannot take the listener. A failed connection is logged and ends nothing.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time.
    pub async fn serve(
        self,
        status: LatestStatus,
        asks: mpsc::Sender<Asked>,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let listener = UnixListener::from_std(self.listener)?;
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        log::info!("admin API at {}", self.file.path().display());
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                    match accepted {
                        Ok((stream, _)) => {
                            let (status, asks) = (status.clone(), asks.clone());
                            let more = self.more.clone();
                            connections.spawn(answer(stream, status, asks, more, self.admission));
                        }
                        Err(error) => {
                            log::warn!("cannot accept an admin connection: {error}");
                            time::sleep(ACCEPT_RETRY).await;
                        }
                    }
                }
            }
        }
        // From here on nobody can connect; a client is told so by the missing file.
        drop(listener);
        drop(self.file);
        let drained = async { while connections.join_next().await.is_some() {} };
        if time::timeout(DRAIN_TIME, drained).await.is_err() {
            log::debug!(
                "admin connections cut off at the end: {}",
                connections.len()
            );
        }
        Ok(())
    }
}

/// A group's number, from its number or its name.
fn resolve_group(group: &str) -> Result<Gid, BindError> {
    if let Ok(number) = group.parse() {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(group) {
        Ok(Some(found)) => Ok(found.gid),
        Ok(None) => Err(BindError::UnknownGroup {
            group: group.to_owned(),
        }),
        Err(error) => Err(BindError::GroupLookup {
            group: group.to_owned(),
            source: error.into(),
        }),
    }
}

/// Who is at the other end of a connection, as the routes see it.
#[derive(Clone)]
struct Caller {
    actor: Actor,
    may_change: bool,
    rounds: Arc<AtomicU32>,
}

impl Caller {
    fn new(peer: &Peer, admission: Admission) -> Self {
        let user = User::from_uid(peer.uid).ok().flatten();
        Self {
            actor: Actor {
                uid: Some(peer.uid.as_raw()),
                name: user.map_or_else(|| format!("user {}", peer.uid), |user| user.name),
            },
            may_change: admission.lets_change(peer),
            rounds: Arc::new(AtomicU32::new(1)),
        }
    }

    /// The request is whole, and the controller may take its time.
    fn take_time(&self) {
        self.rounds.store(ROUNDS, Ordering::Relaxed);
    }

    /// The answer comes line by line.
    fn stream(&self) {
        self.rounds.store(LONG_ROUNDS, Ordering::Relaxed);
    }
}

/// Serves one connection.
async fn answer(
    stream: UnixStream,
    status: LatestStatus,
    asks: mpsc::Sender<Asked>,
    more: Router,
    admission: Admission,
) {
    let mut rounds = Arc::new(AtomicU32::new(1));
    let service = match Peer::of(&stream) {
        Ok(peer) if admission.admits(&peer) => {
            let caller = Caller::new(&peer, admission);
            rounds = caller.rounds.clone();
            api(status, Desk { asks, caller }, more)
        }
        Ok(peer) => {
            log::warn!("refused an admin connection of user {}", peer.uid);
            refusal(peer.uid)
        }
        Err(error) => {
            log::warn!("cannot tell who opened an admin connection: {error}");
            return;
        }
    };
    let connection = http1::Builder::new()
        .keep_alive(false)
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    for round in 1.. {
        match time::timeout(CONNECTION_TIME, &mut connection).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                log::debug!("admin connection failed: {error}");
                return;
            }
            Err(_) if round < rounds.load(Ordering::Relaxed) => {}
            Err(_) => break,
        }
    }
    log::debug!("admin connection cut off for taking too long");
}

fn api(status: LatestStatus, desk: Desk, more: Router) -> Router {
    Router::new()
        .route("/v1/status", get(latest_status).fallback(wrong_method))
        .with_state(status)
        .merge(change::routes(desk))
        .merge(more)
        .fallback(unknown_path)
}

fn refusal(uid: Uid) -> Router {
    Router::new().fallback(async move || {
        problem(
            StatusCode::FORBIDDEN,
            format!(
                "user {uid} may not talk to this controller: ask as root, as the controller's own \
                 user, or as a member of a group that 'group' or 'change_group' under [admin] names"
            ),
        )
    })
}

async fn latest_status(State(latest): State<LatestStatus>) -> Response {
    // The guard of `borrow` holds a lock that the controller waits for: only the pointer is copied
    // under it.
    let status = Arc::clone(&latest.borrow());
    Json(&*status).into_response()
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let right = match uri.path() {
        "/v1/status" | "/v1/configurations" => "GET",
        "/v1/log" => "GET or POST",
        _ => "POST",
    };
    problem(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} does not take {method}: use {right}", uri.path()),
    )
}

async fn unknown_path(uri: Uri) -> Response {
    problem(
        StatusCode::NOT_FOUND,
        format!(
            "there is nothing at {}: the status is at /v1/status",
            uri.path()
        ),
    )
}

fn problem(code: StatusCode, error: String) -> Response {
    (
        code,
        Json(Problem {
            error,
            findings: Vec::new(),
        }),
    )
        .into_response()
}

#[cfg(test)]
mod tests;
