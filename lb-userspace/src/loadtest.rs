//! Load tests: requests by a schedule that no slow answer delays, and what became of them.
//!
//! The schedule is open: a request is sent when it is due, whatever became of those before it, and
//! its latency counts from then. A server that stalls is so charged with all that clients would
//! have waited for it, which a generator that waits for one answer before it asks again leaves
//! out.
//!
//! [`schedule`] and [`search`] are pure, [`tally`] counts; `worker` and `client` do it, a thread
//! for each processor; [`run`] brings them together. [`beside`] adds what the controller saw
//! meanwhile, and [`report`] shows it all.

pub mod beside;
mod client;
pub mod report;
pub mod schedule;
pub mod search;
pub mod tally;
pub mod target;
mod worker;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use tokio::time::Instant;

pub use self::client::Ask;
use self::{
    schedule::{Arrivals, Schedule, Stage},
    tally::{Sample, Tally},
    worker::Work,
};

/// How often it is told how far the test is.
const TELL: Duration = Duration::from_secs(1);
/// The seconds over which failures are looked at.
const FAILURES_OVER: usize = 5;
/// The least requests in that time that failures are judged by.
const FAILURES_OF: u64 = 20;
/// Between the call and the first request: every worker is ready by then.
const READY: Duration = Duration::from_millis(50);

/// A load test.
#[derive(Clone, Debug)]
pub struct Test {
    /// What is asked.
    pub ask: Ask,
    /// When.
    pub stages: Vec<Stage>,
    /// How requests lie in time.
    pub arrivals: Arrivals,
    /// How many threads send them.
    pub workers: usize,
    /// How many requests may wait for an answer.
    pub waiting: usize,
    /// The part of the requests of a few seconds whose failure ends the test.
    pub stop_at_failures: Option<f64>,
}

/// Why a test ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Interrupted,
    /// Too much failed.
    Failures,
}

/// A second of a test in numbers that take little room.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Brief {
    /// Its number, from the beginning of the test.
    pub number: u64,
    /// How many requests were due.
    pub due: u64,
    /// How many of them failed.
    pub failed: u64,
    /// The median, nine tenths, ninety-nine hundredths and the longest of the answered ones, in
    /// seconds.
    pub took: Option<[f64; 4]>,
}

impl Brief {
    fn of(number: u64, tally: &Tally) -> Self {
        let took = || {
            Some([
                tally.quantile(0.5)?,
                tally.quantile(0.9)?,
                tally.quantile(0.99)?,
                tally.longest()?,
            ])
        };
        Self {
            number,
            due: tally.due,
            failed: tally.failed(),
            took: took(),
        }
    }
}

/// What became of a test.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// All requests.
    pub total: Tally,
    /// Those of each stage.
    pub stages: Vec<Tally>,
    /// Those that were due in each second.
    pub seconds: Vec<Brief>,
    /// How long requests were sent.
    pub lasted: Duration,
    /// Why it ended early.
    pub ended: Option<Ended>,
}

/// How far a test is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The time since its beginning.
    pub elapsed: Duration,
    /// What came to its end since the last time this was told.
    pub lately: Tally,
}

/// Runs a test, telling each second how far it is. `stop` ends it early, from elsewhere.
///
/// # Errors
/// Where the system gives no thread, or no timer.
pub fn run(
    test: &Test,
    stop: &Arc<AtomicBool>,
    mut tell: impl FnMut(&Progress),
) -> io::Result<Outcome> {
    let start = Instant::now() + READY;
    let (samples_in, samples) = mpsc::channel();
    // A test that ends by itself does not stop those after it.
    let enough = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..test.workers)
        .map(|number| {
            let work = Work {
                ask: test.ask.clone(),
                schedule: Schedule::new(&test.stages, test.arrivals, number, test.workers),
                number,
                waiting: (test.waiting / test.workers).max(1),
                start,
                stop: enough.clone(),
                samples: samples_in.clone(),
            };
            thread::Builder::new()
                .name(format!("load {number}"))
                .spawn(move || worker::run(work))
        })
        .collect::<io::Result<_>>()?;
    drop(samples_in);
    let mut gathering = Gathering::new(test);
    let mut next = start + TELL;
    loop {
        match samples.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(some) => gathering.take(&some),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if Instant::now() >= next {
            tell(&Progress {
                elapsed: next - start,
                lately: gathering.lately(),
            });
            gathering.close(next - start);
            next += TELL;
        }
        let ended = match test.stop_at_failures {
            _ if stop.load(Ordering::Relaxed) => Some(Ended::Interrupted),
            Some(part) if gathering.fails(part) => Some(Ended::Failures),
            _ => None,
        };
        if ended.is_some() && gathering.ended.is_none() {
            gathering.ended = ended;
            gathering.lasted = Instant::now().saturating_duration_since(start);
            enough.store(true, Ordering::Relaxed);
        }
    }
    for worker in workers {
        worker
            .join()
            .map_err(|_| io::Error::other("a thread of the load test panicked"))??;
    }
    Ok(gathering.end())
}

/// What has become of requests so far.
struct Gathering {
    total: Tally,
    stages: Vec<Tally>,
    /// Seconds of which more may come.
    open: BTreeMap<u64, Tally>,
    closed: Vec<Brief>,
    lately: Tally,
    /// How many came to an end, and how many of them failed, in each of the last seconds.
    recent: VecDeque<(u64, u64)>,
    timeout: Duration,
    lasted: Duration,
    ended: Option<Ended>,
}

impl Gathering {
    fn new(test: &Test) -> Self {
        Self {
            total: Tally::default(),
            stages: vec![Tally::default(); test.stages.len()],
            open: BTreeMap::new(),
            closed: Vec::new(),
            lately: Tally::small(),
            recent: VecDeque::new(),
            timeout: test.ask.timeout,
            lasted: test.stages.iter().map(|stage| stage.lasts).sum(),
            ended: None,
        }
    }

    fn take(&mut self, samples: &[Sample]) {
        for sample in samples {
            self.total.add(sample);
            self.stages[sample.stage].add(sample);
            self.lately.add(sample);
            let second = self.open.entry(sample.due.as_secs());
            second.or_insert_with(Tally::small).add(sample);
        }
    }

    /// What came to its end since this was asked last.
    fn lately(&mut self) -> Tally {
        let lately = std::mem::replace(&mut self.lately, Tally::small());
        self.recent.push_back((lately.due, lately.failed()));
        if self.recent.len() > FAILURES_OVER {
            self.recent.pop_front();
        }
        lately
    }

    /// Makes brief what can have no more to come.
    fn close(&mut self, elapsed: Duration) {
        let over = elapsed.saturating_sub(self.timeout + 2 * TELL).as_secs();
        while let Some(first) = self.open.first_entry()
            && *first.key() < over
        {
            let (number, tally) = first.remove_entry();
            self.closed.push(Brief::of(number, &tally));
        }
    }

    /// Whether more than a part of what lately came to its end failed.
    fn fails(&self, part: f64) -> bool {
        let (due, failed) = self
            .recent
            .iter()
            .fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
        due >= FAILURES_OF && failed as f64 > part * due as f64
    }

    fn end(mut self) -> Outcome {
        self.close(Duration::MAX);
        Outcome {
            total: self.total,
            stages: self.stages,
            seconds: self.closed,
            lasted: self.lasted,
            ended: self.ended,
        }
    }
}
