//! A network of its own to rehearse incidents in: clients, a load balancer and backends on one host.
//!
//! ```text
//!   clients ── br0 ──┬── lb0   the load balancer: a controller of this binary, generic XDP
//!   10.232.0.0/16    ├── eth0  b1, with the VIP on lo: a small HTTP server
//!                    └── …     b5
//! ```
//!
//! Namespaces have no names: the kernel removes them, with the interfaces and programs in them, when
//! the last process in them ends, however that comes. The BPF file system is in a mount namespace
//! of the sandbox's own, and the controller dies with the process that started it. What is left of
//! a sandbox that was killed is a folder, which the next one removes.

mod act;
mod namespace;
mod network;
mod process;
mod report;
mod server;
mod stage;
mod traffic;

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::admin::client::ClientError;

pub use self::{
    act::{Outcome, card_event, run},
    namespace::enter,
    stage::Plan,
};

/// The name of the sandbox's service.
pub const SERVICE: &str = "web";

/// Why a sandbox could not be built or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a part of the network.
    #[error("{action}: {source}")]
    Network {
        /// What was tried.
        action: String,
        /// Why it failed.
        #[source]
        source: rtnetlink::Error,
    },
    /// It takes root.
    #[error("a sandbox takes root, for namespaces, XDP and a BPF file system: try it with sudo")]
    NotRoot,
    /// The controller ended by itself.
    #[error("the sandbox's controller ended ({how}); the end of its log:\n{log}")]
    Ended {
        /// How.
        how: String,
        /// The last lines that it logged.
        log: String,
    },
    /// Something did not come in time.
    #[error("{what} did not come within {seconds} s: {why}")]
    Late {
        /// What.
        what: String,
        /// How long it was waited for.
        seconds: u64,
        /// What there was instead.
        why: String,
    },
    /// The controller refused, or does not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Somebody ended it.
    #[error("ended by a signal")]
    Interrupted,
    /// There is no such drill for a sandbox.
    #[error("drill {0} is not for a sandbox: 'evenkeel drill list' says which are")]
    NotHere(&'static str),
}

/// An error of the system, with what was tried.
fn io_error(action: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let action = action.into();
    |source| Error::Io { action, source }
}

/// A folder of the sandbox's files, removed with this value unless it is to be kept.
fn folder(keep: Option<&Path>) -> Result<(PathBuf, Option<tempfile::TempDir>), Error> {
    if let Some(path) = keep {
        std::fs::create_dir_all(path).map_err(io_error(format!("make {}", path.display())))?;
        return Ok((path.to_owned(), None));
    }
    remove_stale();
    let prefix = format!("{PREFIX}{}-", std::process::id());
    let made = tempfile::Builder::new().prefix(&prefix).tempdir();
    let made = made.map_err(io_error("make a folder for the sandbox's files"))?;
    Ok((made.path().to_owned(), Some(made)))
}

/// What the folder's name begins with; the process follows.
const PREFIX: &str = "evenkeel-sandbox-";

/// Removes folders whose sandbox is no more.
fn remove_stale() {
    let entries = std::fs::read_dir(std::env::temp_dir());
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| {
            let (pid, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
            pid.parse::<u32>().ok()
        });
        if pid.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
            // It may be somebody else's; what cannot be removed stays.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
