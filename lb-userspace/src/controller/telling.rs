//! The parts of the controller that tell others: the notifications, and the audit.

use std::{io, sync::Arc};

use tokio::sync::{mpsc, watch};

use super::{auditor::Auditor, state::State};
use crate::{
    admin::proto::Status,
    journal::Event,
    notify::{Handle, Notifier, Signs},
};

/// What they have to write into the journal that may wait.
const NOTICES: usize = 1024;

/// Both at work; they end with this value.
pub(super) struct Telling {
    notifier: Notifier,
    _auditor: Auditor,
    notices: mpsc::Receiver<Event>,
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
        let config = state.config();
        let auditor = Auditor::spawn(config.clone(), status.clone(), sender.clone());
        let signs = Signs {
            status: status.clone(),
            audited: auditor.audited(),
            notices: sender,
        };
        let folder = &config.state.directory;
        let notifier = Notifier::start(config.notify.clone(), folder, signs)?;
        state.notify = Some(notifier.handle());
        Ok(Self {
            notifier,
            _auditor: auditor,
            notices,
        })
    }

    /// What may be asked of the notifications.
    pub(super) fn handle(&self) -> Handle {
        self.notifier.handle()
    }

    /// The next that is to be written into the journal.
    pub(super) async fn next(&mut self) -> Option<Event> {
        self.notices.recv().await
    }

    /// Ends both, and passes on what they have to say of the end.
    pub(super) fn end(self, state: &State) {
        let Self {
            notifier,
            mut notices,
            ..
        } = self;
        drop(notifier);
        while let Ok(event) = notices.try_recv() {
            state.pass_on(event);
        }
    }
}
