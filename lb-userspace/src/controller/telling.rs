//! The parts of the controller that tell others: the notifications, and the audit.

use std::{io, sync::Arc};

use log::error;
use tokio::{
    sync::{mpsc, watch},
    task::{self, JoinHandle},
};

use super::{auditor::Auditor, state::State};
use crate::{
    admin::proto::Status,
    causes::with_causes,
    journal::Event,
    model::Config,
    notify::{Handle, Notifier, Signs},
};

/// What they have to write into the journal that may wait.
const NOTICES: usize = 1024;

/// Both at work; they end with this value.
pub(super) struct Telling {
    at_work: AtWork,
    /// What may be asked of those at work.
    handles: watch::Sender<Handle>,
    /// What they follow.
    config: Config,
    status: watch::Receiver<Arc<Status>>,
    sender: mpsc::Sender<Event>,
    notices: mpsc::Receiver<Event>,
}

enum AtWork {
    Both(
        Notifier,
        #[expect(dead_code, reason = "it ends when dropped")] Auditor,
    ),
    /// They have been told to end, and those of another configuration come after them: two would
    /// tell from one spool.
    Ending(JoinHandle<()>),
}

impl Telling {
    /// Starts both beside a state.
    ///
    /// # Errors
    /// Where the system has no thread or no descriptors left.
    pub(super) fn start(
        state: &mut State,
        status: &watch::Receiver<Arc<Status>>,
    ) -> io::Result<Self> {
        let (sender, notices) = mpsc::channel(NOTICES);
        let config = state.config().clone();
        let at_work = begin(&config, status, &sender)?;
        let handle = at_work.0.handle();
        state.notify = Some(handle.clone());
        Ok(Self {
            at_work: AtWork::Both(at_work.0, at_work.1),
            handles: watch::Sender::new(handle),
            config,
            status: status.clone(),
            sender,
            notices,
        })
    }

    /// What may be asked of the notifications, whoever is at work.
    pub(super) fn handles(&self) -> watch::Receiver<Handle> {
        self.handles.subscribe()
    }

    /// The next that is to be written into the journal.
    pub(super) async fn next(&mut self) -> Option<Event> {
        self.notices.recv().await
    }

    /// Has both go on by the configuration in force, where that is another one.
    pub(super) fn follow(&mut self, state: &State) {
        if *state.config() == self.config {
            return;
        }
        self.config = state.config().clone();
        // What is being sent has a moment to be taken, which nothing here waits for.
        let ending = task::spawn_blocking(|| ());
        if let AtWork::Both(notifier, _) =
            std::mem::replace(&mut self.at_work, AtWork::Ending(ending))
        {
            self.at_work = AtWork::Ending(task::spawn_blocking(move || drop(notifier)));
        }
    }

    /// Starts those of another configuration, once the ones before have ended.
    pub(super) fn settle(&mut self, state: &mut State) {
        match &self.at_work {
            AtWork::Ending(ending) if ending.is_finished() => {}
            _ => return,
        }
        match begin(&self.config, &self.status, &self.sender) {
            Ok((notifier, auditor)) => {
                let handle = notifier.handle();
                state.notify = Some(handle.clone());
                self.handles.send_replace(handle);
                self.at_work = AtWork::Both(notifier, auditor);
            }
            // With the next event it is tried again.
            Err(e) => error!(
                "nobody is told of alerts until it works: cannot start the notifications: {}",
                with_causes(&e)
            ),
        }
    }

    /// Ends both, and passes on what they have to say of the end.
    pub(super) fn end(self, state: &State) {
        let Self {
            at_work,
            mut notices,
            ..
        } = self;
        drop(at_work);
        while let Ok(event) = notices.try_recv() {
            state.pass_on(event);
        }
    }
}

fn begin(
    config: &Config,
    status: &watch::Receiver<Arc<Status>>,
    sender: &mpsc::Sender<Event>,
) -> io::Result<(Notifier, Auditor)> {
    let auditor = Auditor::spawn(config.clone(), status.clone(), sender.clone());
    let signs = Signs {
        status: status.clone(),
        audited: auditor.audited(),
        notices: sender.clone(),
    };
    let notifier = Notifier::start(config.notify.clone(), &config.state.directory, signs)?;
    Ok((notifier, auditor))
}
