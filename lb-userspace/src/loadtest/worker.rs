//! Two threads that send a part of the requests when they are due: one keeps the time, which the
//! runtime's timers do to a millisecond only; the other sends and receives.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc as samples,
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime,
    sync::mpsc,
    task::{self, LocalSet},
    time::{self, Instant},
};

use super::{
    client::{Ask, Client},
    schedule::{Due, Schedule},
    tally::{Failure, Sample},
};

/// How often what became of requests is handed on.
const HAND_ON: Duration = Duration::from_millis(50);
/// How often it is looked whether the test was stopped, where nothing is due sooner.
const LOOK: Duration = Duration::from_millis(100);

/// What a worker does.
pub(super) struct Work {
    /// What is asked.
    pub(super) ask: Ask,
    /// When.
    pub(super) schedule: Schedule,
    /// Its number.
    pub(super) number: usize,
    /// How many requests may wait for an answer.
    pub(super) waiting: usize,
    /// When the test begins.
    pub(super) start: Instant,
    /// Whether no more requests are to be begun.
    pub(super) stop: Arc<AtomicBool>,
    /// Where to tell what became of them.
    pub(super) samples: samples::Sender<Vec<Sample>>,
}

/// Works until all requests have an answer, or none in time.
pub(super) fn run(work: Work) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (due_in, due) = mpsc::unbounded_channel();
    let Work {
        schedule,
        start,
        stop,
        ..
    } = work;
    thread::scope(|scope| {
        thread::Builder::new()
            .name("load clock".into())
            .spawn_scoped(scope, move || keep_time(schedule, start, &stop, &due_in))?;
        let client = Rc::new(Client::new(work.ask, work.number));
        let sending = send(client, start, work.waiting, due, work.samples);
        LocalSet::new().block_on(&runtime, sending);
        Ok(())
    })
}

/// Hands on each request when it is due.
fn keep_time(
    schedule: Schedule,
    start: Instant,
    stop: &AtomicBool,
    due_in: &mpsc::UnboundedSender<Due>,
) {
    for due in schedule {
        let at = start + due.at;
        loop {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(LOOK));
        }
        if due_in.send(due).is_err() {
            return;
        }
    }
}

async fn send(
    client: Rc<Client>,
    start: Instant,
    most: usize,
    mut due: mpsc::UnboundedReceiver<Due>,
    samples: samples::Sender<Vec<Sample>>,
) {
    let done = Rc::new(RefCell::new(Vec::new()));
    let waiting = Rc::new(Cell::new(0));
    let hand_on = task::spawn_local(keep_handing_on(done.clone(), samples.clone()));
    while let Some(due) = due.recv().await {
        let at = start + due.at;
        let mut sample = Sample {
            stage: due.stage,
            due: due.at,
            late: Instant::now().saturating_duration_since(at),
            took: Duration::ZERO,
            answer: Err(Failure::NotSent),
        };
        if waiting.get() == most {
            done.borrow_mut().push(sample);
            continue;
        }
        waiting.set(waiting.get() + 1);
        let (client, done, waiting) = (client.clone(), done.clone(), waiting.clone());
        task::spawn_local(async move {
            sample.answer = client.ask(at).await;
            sample.took = Instant::now().saturating_duration_since(at);
            waiting.set(waiting.get() - 1);
            done.borrow_mut().push(sample);
        });
    }
    while waiting.get() > 0 {
        time::sleep(Duration::from_millis(1)).await;
    }
    hand_on.abort();
    // Nobody to take them is nobody to tell.
    let _ = samples.send(done.take());
}

async fn keep_handing_on(done: Rc<RefCell<Vec<Sample>>>, samples: samples::Sender<Vec<Sample>>) {
    let mut every = time::interval(HAND_ON);
    loop {
        every.tick().await;
        let done = done.take();
        if !done.is_empty() && samples.send(done).is_err() {
            return;
        }
    }
}
