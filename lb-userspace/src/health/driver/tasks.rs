//! Tasks by whom they are about, each at work for as long as what it works by stays the same.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    net::IpAddr,
    pin::pin,
    sync::Arc,
    time::Instant,
};

use tokio::{
    sync::mpsc::Sender,
    task::{AbortHandle, JoinSet},
    time::{self, sleep_until},
};

/// Whom a task is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Who {
    pub(super) service: Arc<str>,
    pub(super) backend: Arc<str>,
    pub(super) address: IpAddr,
}

/// The receiver of the reports is gone.
#[derive(Debug)]
pub(super) struct Unread;

/// How a task ends by itself.
pub(super) type End = Result<Infallible, Unread>;

/// The tasks at work.
pub(super) struct Tasks<C> {
    /// Aborted when the set is dropped.
    set: JoinSet<End>,
    at_work: HashMap<Who, (Arc<C>, AbortHandle)>,
}

impl<C: PartialEq> Tasks<C> {
    pub(super) fn new() -> Self {
        Self {
            set: JoinSet::new(),
            at_work: HashMap::new(),
        }
    }

    /// How many are at work.
    pub(super) fn count(&self) -> usize {
        self.at_work.len()
    }

    /// Lets those go on that are wanted and work by the same as before, and ends the others. Answers
    /// which are to be started. Of those that are named twice, the first counts.
    pub(super) fn keep<T>(&mut self, wanted: Vec<T>, of: fn(&T) -> (&Who, &Arc<C>)) -> Vec<T> {
        let mut before = std::mem::take(&mut self.at_work);
        let mut named = HashSet::new();
        let mut new = Vec::new();
        for one in wanted {
            let (who, by) = of(&one);
            if !named.insert(who.clone()) {
                continue;
            }
            match before.remove(who) {
                Some((check, task)) if check == *by => {
                    self.at_work.insert(who.clone(), (check, task));
                }
                changed => {
                    if let Some((_, task)) = changed {
                        task.abort();
                    }
                    new.push(one);
                }
            }
        }
        for (_, task) in before.into_values() {
            task.abort();
        }
        // The set keeps what has ended until somebody asks for it.
        while self.set.try_join_next().is_some() {}
        new
    }

    /// Starts one.
    pub(super) fn start(
        &mut self,
        who: Who,
        by: Arc<C>,
        task: impl Future<Output = End> + Send + 'static,
    ) {
        let task = self.set.spawn(task);
        self.at_work.insert(who, (by, task));
    }

    /// Waits for one to end.
    #[cfg(test)]
    pub(super) async fn next_end(&mut self) -> Option<Result<End, tokio::task::JoinError>> {
        self.set.join_next().await
    }
}

/// Waits until `due`, and meanwhile hands the latest report over as soon as there is room.
pub(super) async fn hand_over<R>(
    latest: &mut Option<R>,
    reports: &Sender<R>,
    due: Instant,
) -> Result<(), Unread> {
    let mut due = pin!(sleep_until(due.into()));
    loop {
        tokio::select! {
            // A report comes first even where the next question is due already.
            biased;
            permit = reports.reserve(), if latest.is_some() => {
                let permit = permit.map_err(|_| Unread)?;
                if let Some(report) = latest.take() {
                    permit.send(report);
                }
            }
            () = reports.closed() => return Err(Unread),
            () = &mut due => return Ok(()),
        }
    }
}

/// The time now. It is tokio's, so that a test can stop it.
pub(super) fn now() -> Instant {
    time::Instant::now().into_std()
}
