//! A backend's server: HTTP that answers well, slowly, with errors, or not at all.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    thread::JoinHandle,
    time::Duration,
};

use http_body_util::Full;
use hyper::{Response, StatusCode, body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rand::RngExt as _;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time,
};

use super::{Error, io_error, namespace::Namespace};

/// The port of servers and service.
pub(super) const PORT: u16 = 80;

/// How a server behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Mood {
    /// How long it takes for each answer.
    pub(super) takes: Duration,
    /// Which part of its answers are errors.
    pub(super) errors: f64,
    /// Whether it is dead: nobody listens, and open connections are gone.
    pub(super) is_dead: bool,
}

impl Mood {
    /// As a server is that is well.
    pub(super) fn well() -> Self {
        Self {
            takes: Duration::from_millis(4),
            ..Self::default()
        }
    }
}

/// A server; it ends with this value.
#[derive(Debug)]
pub(super) struct Server {
    mood: watch::Sender<Option<Mood>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts one in a namespace, and returns once it listens.
    pub(super) fn start(namespace: &Namespace) -> Result<Self, Error> {
        let (mood, moods) = watch::channel(Some(Mood::well()));
        let thread = namespace.inside(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(io_error("start a server's runtime"))?;
            let listener = runtime
                .block_on(listen())
                .map_err(io_error("start a server"))?;
            // It is born in this namespace, and stays there.
            std::thread::Builder::new()
                .name("backend".to_owned())
                .spawn(move || runtime.block_on(serve(listener, moods)))
                .map_err(io_error("start a server"))
        })?;
        Ok(Self {
            mood,
            thread: Some(thread),
        })
    }

    /// Has it behave otherwise from now on.
    pub(super) fn be(&self, mood: Mood) {
        self.mood.send_replace(Some(mood));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.mood.send_replace(None);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn listen() -> std::io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT))).await
}

/// Serves until there is no mood any more.
async fn serve(first: TcpListener, mut moods: watch::Receiver<Option<Mood>>) {
    let mut listener = Some(first);
    let mut connections = JoinSet::new();
    loop {
        let Some(mood) = *moods.borrow_and_update() else {
            return;
        };
        if mood.is_dead {
            listener = None;
            connections.abort_all();
        } else if listener.is_none() {
            listener = listen().await.ok();
        }
        let accept = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = moods.changed() => if changed.is_err() { return },
            accepted = accept => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(answer(stream, moods.clone()));
                }
                // File descriptors have run out, most likely.
                Err(_) => time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(stream: TcpStream, moods: watch::Receiver<Option<Mood>>) {
    let service = service_fn(|_| {
        let mood = moods.borrow().unwrap_or_default();
        async move {
            time::sleep(mood.takes).await;
            let mut response = Response::new(Full::new(Bytes::from_static(b"well\n")));
            if mood.errors > 0.0 && rand::rng().random_bool(mood.errors) {
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            }
            Ok::<_, Infallible>(response)
        }
    });
    // How it ends is the client's to tell.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
