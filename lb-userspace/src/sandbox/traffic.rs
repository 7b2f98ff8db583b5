//! Clients: requests by the schedule of a load test, each over a connection of its own.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use hyper::{Method, body::Bytes, header::HeaderMap};

use super::{Error, io_error, namespace::Namespace, network::VIP};
use crate::loadtest::{
    self, Ask, Test,
    schedule::{Arrivals, Stage},
    target::Target,
};

/// How long they ask at most: longer than any drill.
const LASTS: Duration = Duration::from_mins(30);
/// How long after it was due a request has failed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What became of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// How many came to an end.
    pub(super) requests: u64,
    /// How many of them failed.
    pub(super) failed: u64,
}

/// Clients at work; they stop with this value.
#[derive(Debug)]
pub(super) struct Traffic {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    /// Has so many requests made each second, from these addresses in turns.
    pub(super) fn start(
        namespace: &Namespace,
        rate: f64,
        from: Vec<Ipv4Addr>,
    ) -> Result<Self, Error> {
        let target = Target::new(&format!("http://{VIP}/"))
            .map_err(|e| io_error("name the VIP")(std::io::Error::other(e)))?;
        let test = Test {
            ask: Ask {
                target,
                method: Method::GET,
                headers: HeaderMap::new(),
                body: Bytes::new(),
                keeps: false,
                from: from.into_iter().map(IpAddr::V4).collect(),
                timeout: TIMEOUT,
                tls: None,
            },
            stages: vec![Stage::steady(rate, LASTS)],
            arrivals: Arrivals::Random,
            workers: 1,
            waiting: 2_000,
            stop_at_failures: None,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (stopped, noted) = (stop.clone(), seen.clone());
        let work = move || {
            let add = |requests, failed| {
                if let Ok(mut seen) = noted.lock() {
                    seen.requests += requests;
                    seen.failed += failed;
                }
            };
            let ran = loadtest::run(&test, &stopped, |progress| {
                add(progress.lately.due, progress.lately.failed());
            });
            if let Err(e) = ran {
                // Nobody asks any more, which must not look like success.
                log::error!("the clients broke off: {e}");
                add(1, 1);
            }
        };
        let thread = namespace.inside(|| {
            let thread = std::thread::Builder::new().name("clients".to_owned());
            thread.spawn(work).map_err(io_error("start the clients"))
        })?;
        Ok(Self {
            stop,
            seen,
            thread: Some(thread),
        })
    }

    /// What became of requests until about a second ago.
    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().map(|seen| *seen).unwrap_or_default()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
