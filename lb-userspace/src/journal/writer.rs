//! The thread that writes.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use log::{error, info, warn};
use serde_json::json;

use super::{
    Event, Kind, Level,
    store::{self, Error, Store},
};
use crate::{causes::with_causes, model::State};

/// How many events may wait for the thread.
const QUEUE: usize = 4096;
/// How many events wait in memory while the disk takes none.
const WAITING: usize = 16_384;
/// How long it is from one try to the next while the disk takes none.
const RETRY: Duration = Duration::from_secs(1);
/// From one removal of old events to the next, in events written.
const PRUNE: u64 = 2_000;

/// How the journal is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Why events wait in memory; `None` where they are written.
    pub failure: Option<String>,
    /// Events that there was no room for.
    pub lost: u64,
}

/// The journal as those see it who have something to tell.
#[derive(Debug)]
pub struct Journal {
    queue: Option<SyncSender<Event>>,
    condition: Arc<Mutex<Condition>>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    /// Starts the thread. What is wrong with the file is told by [`Journal::condition`] and the log.
    ///
    /// # Errors
    /// Where the system has no thread left.
    pub fn start(state: &State) -> io::Result<Self> {
        let (queue, events) = sync_channel(QUEUE);
        let condition = Arc::default();
        let writer = Writer {
            state: state.clone(),
            condition: Arc::clone(&condition),
            store: None,
            waiting: VecDeque::new(),
            lost: 0,
            written: 0,
        };
        let thread = thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run(&events))?;
        Ok(Self {
            queue: Some(queue),
            condition,
            thread: Some(thread),
        })
    }

    /// Hands an event over. It never waits.
    pub fn record(&self, event: Event) {
        let Some(queue) = &self.queue else {
            return;
        };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = queue.try_send(event) {
            lock(&self.condition).lost += 1;
        }
    }

    /// How it is.
    #[must_use]
    pub fn condition(&self) -> Condition {
        lock(&self.condition).clone()
    }
}

impl Drop for Journal {
    /// Waits until the thread has written what it can: one try, a few seconds at most.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic of its was told where it happened.
            let _ = thread.join();
        }
    }
}

fn lock(condition: &Mutex<Condition>) -> std::sync::MutexGuard<'_, Condition> {
    // Plain numbers and words: a panic leaves nothing half done.
    condition.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Writer {
    state: State,
    condition: Arc<Mutex<Condition>>,
    store: Option<Store>,
    waiting: VecDeque<Event>,
    /// How many were lost when that was last written.
    lost: u64,
    /// Events written since old ones were last removed; at first, that is due.
    written: u64,
}

impl Writer {
    fn run(mut self, events: &Receiver<Event>) {
        self.written = PRUNE;
        // While the disk takes none, one try a second is enough, whatever comes.
        let mut next = now();
        loop {
            let end = match events.recv_timeout(RETRY) {
                Ok(event) => {
                    self.take(event);
                    false
                }
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            while let Ok(event) = events.try_recv() {
                self.take(event);
            }
            if end || self.failure().is_none() || now() >= next {
                self.write();
                next = now() + RETRY;
            }
            if end {
                return;
            }
        }
    }

    fn take(&mut self, event: Event) {
        if self.waiting.len() == WAITING {
            self.waiting.pop_front();
            lock(&self.condition).lost += 1;
        }
        self.waiting.push_back(event);
    }

    fn failure(&self) -> Option<String> {
        lock(&self.condition).failure.clone()
    }

    /// Writes what waits, and tells where that begins or ceases to fail.
    fn write(&mut self) {
        match self.try_write() {
            Ok(()) => {
                if lock(&self.condition).failure.take().is_some() {
                    info!("the journal is written again");
                }
            }
            Err(why) => {
                // A fresh start next time: the file may be another one by then, and is where this
                // one turned out to be damaged.
                self.store = None;
                if why.is_damage()
                    && let Err(e) = self.set_aside(&why)
                {
                    error!("{}", with_causes(&e));
                }
                let why = with_causes(&why);
                if lock(&self.condition).failure.replace(why.clone()).is_none() {
                    error!("the journal is not written, events wait in memory: {why}");
                }
            }
        }
    }

    fn try_write(&mut self) -> Result<(), Error> {
        let lost = lock(&self.condition).lost;
        if lost > self.lost {
            let more = lost - self.lost;
            self.waiting.push_back(
                Event::of_controller(
                    now_ms(),
                    Kind::Journal,
                    Level::Warning,
                    format!("{more} events could not be kept"),
                )
                .detail(json!({ "lost": more })),
            );
            self.lost = lost;
        }
        if self.store.is_none() {
            self.store = Some(self.open()?);
        }
        let Some(store) = &mut self.store else {
            return Ok(());
        };
        if !self.waiting.is_empty() {
            store.append(self.waiting.make_contiguous())?;
            self.written += self.waiting.len() as u64;
            self.waiting.clear();
        }
        if self.written >= PRUNE {
            self.written = 0;
            let keep = self.state.keep_events.as_millis() as u64;
            store.prune(now_ms().saturating_sub(keep), self.state.max_journal)?;
        }
        Ok(())
    }

    /// Opens the file, or a new one in the place of one that is damaged.
    fn open(&mut self) -> Result<Store, Error> {
        match Store::open(&self.state.directory) {
            Err(damage) if damage.is_damage() => {
                self.set_aside(&damage)?;
                Store::open(&self.state.directory)
            }
            other => other,
        }
    }

    /// Moves a damaged file out of the way, and says so in what follows.
    fn set_aside(&mut self, damage: &Error) -> Result<(), Error> {
        let directory = &self.state.directory;
        let aside = store::set_aside(directory, now_ms()).map_err(|source| Error::Folder {
            folder: directory.clone(),
            source,
        })?;
        let message = format!(
            "the journal was damaged and begins anew; what is left of it is at {}",
            aside.display()
        );
        warn!("{message} ({})", with_causes(damage));
        let event = Event::of_controller(now_ms(), Kind::Journal, Level::Warning, message);
        self.waiting.push_front(event);
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the journal's thread is a driver"
)]
fn now() -> Instant {
    Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the journal's thread is a driver"
)]
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| time.as_millis() as u64)
}

#[cfg(test)]
mod tests;
