//! The thread that listens.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use log::{error, info};
use tokio::{
    net::TcpListener,
    runtime,
    sync::{Semaphore, mpsc, watch},
    task::AbortHandle,
    time,
};

use super::{
    routes::Site,
    speak::{MAX_CONNECTIONS, accept},
};
use crate::{
    admin::{
        proto::{Status, measured::Http},
        server::change::Asked,
    },
    model::HttpServer,
};

/// How often an address that cannot be had is tried again.
const RETRY: Duration = if cfg!(test) {
    Duration::from_millis(100)
} else {
    Duration::from_secs(10)
};

/// What others may ask of it.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Mutex<Http>>);

impl Handle {
    /// Where it listens, and where it should and cannot.
    #[must_use]
    pub fn condition(&self) -> Http {
        lock(&self.0).clone()
    }
}

fn lock(condition: &Mutex<Http>) -> MutexGuard<'_, Http> {
    // Whole values alone are put there: a panic leaves nothing half done.
    condition.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The server at work; it ends with this value.
#[derive(Debug)]
pub struct Web {
    handle: Handle,
    config: Option<watch::Sender<HttpServer>>,
    thread: Option<JoinHandle<()>>,
}

impl Web {
    /// Starts it; journal and history are in `directory`, and what only the controller can answer goes
    /// to `asks`. What cannot be listened at is told by [`Handle::condition`] and the log.
    ///
    /// # Errors
    /// Where the system has no thread or no descriptors left.
    pub fn start(
        config: HttpServer,
        directory: &Path,
        status: watch::Receiver<Arc<Status>>,
        asks: mpsc::Sender<Asked>,
    ) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = Handle(Arc::default());
        let (config, follows) = watch::channel(config);
        let driver = Driver {
            site: Site::new(status, directory, asks),
            config: follows,
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            listening: BTreeMap::new(),
            condition: handle.clone(),
        };
        let work = move || {
            runtime.block_on(driver.run());
            // A file that hangs must not hold up the end.
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name("http".to_owned()).spawn(work)?;
        Ok(Self {
            handle,
            config: Some(config),
            thread: Some(thread),
        })
    }

    /// Goes on by another configuration. Addresses that are in both are listened at throughout.
    pub fn follow(&self, config: &HttpServer) {
        if let Some(sender) = &self.config {
            sender.send_if_modified(|current| {
                let differs = current != config;
                if differs {
                    current.clone_from(config);
                }
                differs
            });
        }
    }

    /// What others may ask of it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        // That nobody configures it any more is its end.
        self.config = None;
        if let Some(thread) = self.thread.take() {
            // A panic of its was told where it happened.
            let _ = thread.join();
        }
    }
}

struct Driver {
    site: Site,
    config: watch::Receiver<HttpServer>,
    connections: Arc<Semaphore>,
    /// By the configured address: the one that was had, and who takes its connections.
    listening: BTreeMap<SocketAddr, (SocketAddr, AbortHandle)>,
    condition: Handle,
}

impl Driver {
    async fn run(mut self) {
        loop {
            self.listen().await;
            tokio::select! {
                changed = self.config.changed() => if changed.is_err() { return },
                () = time::sleep(RETRY) => self.site.forget(),
            }
        }
    }

    /// Listens at all that is configured, and nowhere else.
    async fn listen(&mut self) {
        let wanted = self.config.borrow_and_update().listen.clone();
        self.listening.retain(|at, (_, task)| {
            let stays = wanted.contains(at);
            if !stays {
                task.abort();
            }
            stays
        });
        let mut failures = Vec::new();
        for at in wanted {
            if self.listening.contains_key(&at) {
                continue;
            }
            match bind(at).await {
                Ok((listener, had)) => {
                    info!("metrics and the page are at {had}");
                    let (site, config) = (self.site.clone(), self.config.clone());
                    let task = accept(listener, config, site, Arc::clone(&self.connections));
                    let task = tokio::spawn(task).abort_handle();
                    self.listening.insert(at, (had, task));
                }
                Err(why) => failures.push(why),
            }
        }
        let now = Http {
            listening: self.listening.values().map(|(had, _)| *had).collect(),
            failures,
        };
        let before = std::mem::replace(&mut *lock(&self.condition.0), now.clone());
        for failure in now
            .failures
            .iter()
            .filter(|new| !before.failures.contains(new))
        {
            error!("{failure}");
        }
    }
}

/// Listens at an address, and answers at which; what is in the way is said with its remedy.
async fn bind(at: SocketAddr) -> Result<(TcpListener, SocketAddr), String> {
    let bound = async {
        let listener = TcpListener::bind(at).await?;
        let had = listener.local_addr()?;
        Ok((listener, had))
    };
    bound.await.map_err(|e: io::Error| {
        let remedy = match e.kind() {
            io::ErrorKind::AddrInUse => {
                "end whoever listens there ('ss -ltnp'), or give another one in http.listen"
            }
            io::ErrorKind::AddrNotAvailable => {
                "give this host the address, or another one in http.listen"
            }
            io::ErrorKind::PermissionDenied => "give a port from 1024 on in http.listen",
            _ => "give another one in http.listen",
        };
        format!("no metrics and no page at {at}, which is tried again: {e}: {remedy}")
    })
}

#[cfg(test)]
mod tests;
