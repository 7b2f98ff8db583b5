//! The parts of the controller that tell others: the notifications, the audit, history, and what is
//! shown over HTTP.

use std::{io, sync::Arc};

use log::error;
use tokio::{
    sync::{mpsc, watch},
    task::{self, JoinHandle},
};

use super::{auditor::Auditor, state::State};
use crate::{
    admin::{proto::Status, server::change::Asked},
    causes::with_causes,
    history::History,
    incident,
    journal::Event,
    model::Config,
    notify::{Handle, Notifier, Signs},
    web::Web,
};

/// What they have to write into the journal that may wait.
const NOTICES: usize = 1024;

/// Both at work; they end with this value.
pub(super) struct Telling {
    at_work: Option<(Notifier, Auditor)>,
    /// Shows metrics and the page, whatever the configuration.
    web: Web,
    /// Keeps history; it ends with this value.
    _history: History,
    /// Those of another configuration that have been told to end: two would tell from one spool.
    ending: Option<JoinHandle<()>>,
    /// What may be asked of those at work.
    handles: watch::Sender<Handle>,
    /// What they follow.
    config: Config,
    status: watch::Receiver<Arc<Status>>,
    sender: mpsc::Sender<Event>,
    notices: mpsc::Receiver<Event>,
}

impl Telling {
    /// Starts both beside a state; what the page asks goes to `asks`.
    ///
    /// # Errors
    /// Where the system has no thread or no descriptors left.
    pub(super) fn start(
        state: &mut State,
        status: &watch::Receiver<Arc<Status>>,
        asks: mpsc::Sender<Asked>,
    ) -> io::Result<Self> {
        let (sender, notices) = mpsc::channel(NOTICES);
        let config = state.config().clone();
        let incidents = Arc::clone(&state.incidents);
        let at_work = begin(&config, status, &sender, &incidents)?;
        let handle = at_work.0.handle();
        state.notify = Some(handle.clone());
        state.audited = Some(at_work.1.audited());
        let directory = &config.state.directory;
        let web = Web::start(config.http.clone(), directory, status.clone(), asks)?;
        state.web = Some(web.handle());
        let history = History::start(&config.state, status.clone())?;
        state.history = Some(history.handle());
        Ok(Self {
            at_work: Some(at_work),
            web,
            _history: history,
            ending: None,
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
        self.web.follow(&self.config.http);
        // Where some are ending already, those that come after them follow the latest.
        if let Some((notifier, auditor)) = self.at_work.take() {
            drop(auditor);
            // What is being sent has a moment to be taken, which nothing here waits for.
            self.ending = Some(task::spawn_blocking(move || drop(notifier)));
        }
    }

    /// Starts those of another configuration, once the ones before have ended. Answers whether
    /// there is anything to show.
    pub(super) fn settle(&mut self, state: &mut State) -> bool {
        if self.at_work.is_some() || self.ending.as_ref().is_some_and(|of| !of.is_finished()) {
            return false;
        }
        match begin(&self.config, &self.status, &self.sender, &state.incidents) {
            Ok((notifier, auditor)) => {
                let handle = notifier.handle();
                state.notify = Some(handle.clone());
                state.audited = Some(auditor.audited());
                self.handles.send_replace(handle);
                self.at_work = Some((notifier, auditor));
                true
            }
            // With the next event it is tried again.
            Err(e) => {
                error!(
                    "nobody is told of alerts until it works: cannot start the notifications: {}",
                    with_causes(&e)
                );
                false
            }
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
    incidents: &incident::Shared,
) -> io::Result<(Notifier, Auditor)> {
    let auditor = Auditor::spawn(config.clone(), status.clone(), sender.clone());
    let signs = Signs {
        status: status.clone(),
        audited: auditor.audited(),
        notices: sender.clone(),
        incidents: Arc::clone(incidents),
        opening: config.incidents,
    };
    let notifier = Notifier::start(config.notify.clone(), &config.state.directory, signs)?;
    Ok((notifier, auditor))
}
