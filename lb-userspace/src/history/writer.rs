//! The thread that writes.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use log::{error, info, warn};
use tokio::sync::watch;

use super::{
    SPANS, Span,
    chunk::{Chunk, POINTS, Sample},
    path,
    store::{Error, Placed, Store},
};
use crate::{admin::proto::Status, causes::with_causes, model::State, sqlite};

/// How often it looks at the status. That is renewed once a second; in a second in which it is late
/// there is no point.
const LOOK: Duration = Duration::from_millis(500);
/// From one removal of what is old to the next, in seconds.
const PRUNE_S: u64 = 300;

/// What others may ask of it.
#[derive(Clone, Debug, Default)]
pub struct Handle(Arc<Mutex<Option<String>>>);

impl Handle {
    /// Why history is not written; `None` where it is.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        // Plain words: a panic leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running thread; it ends with this value, and writes what it has.
#[derive(Debug)]
pub struct History {
    handle: Handle,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl History {
    /// Starts it. What is wrong with the file is told by [`Handle::failure`] and the log.
    ///
    /// # Errors
    /// Where the system has no thread left.
    pub fn start(state: &State, status: watch::Receiver<Arc<Status>>) -> io::Result<Self> {
        let handle = Handle::default();
        let (stop, stopped) = channel();
        let writer = Writer {
            state: state.clone(),
            handle: handle.clone(),
            store: None,
            collected: Collected::default(),
            pruned_s: 0,
        };
        let thread = thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || writer.run(&status, &stopped))?;
        Ok(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// What others may ask of it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic of its was told where it happened.
            let _ = thread.join();
        }
    }
}

struct Writer {
    state: State,
    handle: Handle,
    store: Option<Store>,
    collected: Collected,
    pruned_s: u64,
}

impl Writer {
    fn run(mut self, status: &watch::Receiver<Arc<Status>>, stopped: &Receiver<()>) {
        let mut seen_s = 0;
        loop {
            let end = match stopped.recv_timeout(LOOK) {
                Err(RecvTimeoutError::Timeout) => false,
                Ok(()) | Err(RecvTimeoutError::Disconnected) => true,
            };
            let latest = Arc::clone(&status.borrow());
            let now_s = latest.now_ms / 1000;
            // A clock that was set back begins anew where it is.
            // Attaching is the last step of a start: until then nothing is known.
            if now_s != seen_s && !latest.interfaces.is_empty() {
                seen_s = now_s;
                self.collected.add(&latest, now_s);
            }
            if end || self.collected.is_due(now_s) {
                self.write(now_s, end);
            }
            if end {
                return;
            }
        }
    }

    /// Writes what is due, and tells where that begins or ceases to fail.
    fn write(&mut self, now_s: u64, end: bool) {
        match self.try_write(now_s, end) {
            Ok(()) => {
                if self.handle.lock().take().is_some() {
                    info!("history is written again");
                }
            }
            Err(why) => {
                // A fresh start next time: the file may be another one by then.
                self.store = None;
                if why.is_damage() {
                    self.begin_anew(&why);
                }
                let why = with_causes(&why);
                if self.handle.lock().replace(why.clone()).is_none() {
                    error!("history is not written, what comes meanwhile is lost: {why}");
                }
            }
        }
    }

    fn try_write(&mut self, now_s: u64, end: bool) -> Result<(), Error> {
        let mut store = match self.store.take() {
            Some(store) => store,
            None => Store::open(&self.state.directory)?,
        };
        let written = self
            .collected
            .write(now_s, end, |chunks| store.write(chunks));
        written?;
        if now_s.abs_diff(self.pruned_s) >= PRUNE_S {
            store.prune(now_s, self.state.max_history)?;
            self.pruned_s = now_s;
        }
        self.store = Some(store);
        Ok(())
    }

    /// Removes a damaged file: figures are not worth keeping what is left of them.
    fn begin_anew(&self, damage: &Error) {
        let file = path(&self.state.directory);
        warn!("history begins anew: {}", with_causes(damage));
        sqlite::remove(&file);
    }
}

/// A service's chunk in the making.
struct Open {
    start_s: u64,
    chunk: Chunk,
}

/// What was collected, and not written as a whole yet.
#[derive(Default)]
struct Collected {
    /// By span and service.
    open: [BTreeMap<String, Open>; SPANS.len()],
    /// Whole chunks that wait for the disk.
    whole: Vec<(Span, String, Open)>,
    /// How many connections each backend had got at the last point.
    before: BTreeMap<String, BTreeMap<String, u64>>,
    /// When each span was last written.
    written_s: [u64; SPANS.len()],
    /// When the first point was taken: chunks that begin before may have another controller's.
    began_s: Option<u64>,
}

impl Collected {
    fn add(&mut self, status: &Status, now_s: u64) {
        let began_s = *self.began_s.get_or_insert(now_s);
        if now_s < began_s {
            self.began_s = Some(now_s);
        }
        let names: HashSet<&str> = status.services.iter().map(|of| &*of.name).collect();
        self.before.retain(|name, _| names.contains(&**name));
        for service in &status.services {
            let before = self.before.entry(service.name.clone()).or_default();
            let sample = Sample::of(service, before);
            for (n, span) in SPANS.into_iter().enumerate() {
                let length = POINTS * span.step_s;
                let start_s = now_s - now_s % length;
                let place = ((now_s - start_s) / span.step_s) as u8;
                let new = || Open {
                    start_s,
                    chunk: Chunk::default(),
                };
                let open = self.open[n].entry(service.name.clone()).or_insert_with(new);
                if open.start_s != start_s {
                    let whole = std::mem::replace(open, new());
                    self.whole.push((span, service.name.clone(), whole));
                }
                open.chunk.add(place, &sample);
            }
        }
        // Services that are gone have nothing to wait for.
        for (n, span) in SPANS.into_iter().enumerate() {
            let gone = self.open[n].extract_if(.., |name, _| !names.contains(&**name));
            self.whole
                .extend(gone.map(|(name, open)| (span, name, open)));
        }
    }

    /// Whether there is something to write.
    fn is_due(&self, now_s: u64) -> bool {
        let due = |(span, at): (&Span, &u64)| now_s.abs_diff(*at) >= span.written_s;
        !self.whole.is_empty() || SPANS.iter().zip(&self.written_s).any(due)
    }

    /// Hands out what is due, and forgets what was whole, whatever became of it: what the disk does not
    /// take must not gather.
    fn write<E>(
        &mut self,
        now_s: u64,
        all: bool,
        write: impl FnOnce(&[Placed<'_>]) -> Result<(), E>,
    ) -> Result<(), E> {
        let began_s = self.began_s.unwrap_or(now_s);
        let whole = std::mem::take(&mut self.whole);
        let mut chunks: Vec<Placed<'_>> = whole
            .iter()
            .map(|(span, service, open)| placed(*span, service, open, began_s))
            .collect();
        for (n, span) in SPANS.into_iter().enumerate() {
            if all || now_s.abs_diff(self.written_s[n]) >= span.written_s {
                self.written_s[n] = now_s;
                let open = self.open[n].iter();
                chunks.extend(open.map(|(name, open)| placed(span, name, open, began_s)));
            }
        }
        if chunks.is_empty() {
            return Ok(());
        }
        write(&chunks)
    }
}

fn placed<'a>(span: Span, service: &'a str, open: &'a Open, began_s: u64) -> Placed<'a> {
    Placed {
        span,
        service,
        start_s: open.start_s,
        chunk: &open.chunk,
        shared: open.start_s < began_s,
    }
}

#[cfg(test)]
mod tests;
