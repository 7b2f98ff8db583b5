//! What the service manager is told, where one has started this process: systemd's `sd_notify`.
//!
//! Where nobody asked (`NOTIFY_SOCKET` is not set), nothing is said.

use std::{io, time::Duration};

use log::warn;
use sd_notify::NotifyState;

/// How far the controller is, as a service manager sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Packets do not follow its tables yet.
    Starting,
    /// Packets follow its tables.
    Ready,
    /// It takes its file over.
    Reloading,
}

/// The service manager.
#[derive(Debug)]
pub struct Supervisor {
    /// What it knows.
    phase: Phase,
    /// The line that it shows.
    line: String,
    /// Whether it was told of a failure to tell it something.
    complained: bool,
}

impl Supervisor {
    /// Tells that a start takes up to `patience` from now.
    #[must_use]
    pub fn starting(patience: Duration) -> Self {
        let mut supervisor = Self {
            phase: Phase::Starting,
            line: "waiting for a first answer about every backend".to_owned(),
            complained: false,
        };
        let micros = u32::try_from(patience.as_micros()).unwrap_or(u32::MAX);
        let line = supervisor.line.clone();
        supervisor.send(&[
            NotifyState::Status(&line),
            NotifyState::ExtendTimeoutUsec(micros),
        ]);
        supervisor
    }

    /// Tells how far the controller is, where that is news.
    ///
    /// `Reloading` before `Ready` is none: the end of it would look like the end of the start.
    pub fn tell(&mut self, phase: Phase) {
        let states = match (self.phase, phase) {
            (Phase::Starting | Phase::Reloading, Phase::Ready) => vec![NotifyState::Ready],
            (Phase::Ready, Phase::Reloading) => match NotifyState::monotonic_usec_now() {
                Ok(now) => vec![NotifyState::Reloading, now],
                Err(e) => return self.complain(&e),
            },
            _ => return,
        };
        self.phase = phase;
        self.send(&states);
    }

    /// Tells that the controller's task goes round, and how things are, in a line.
    ///
    /// Whoever calls this from another task than that one has no watchdog.
    pub fn alive(&mut self, line: String) {
        if self.line == line || self.phase == Phase::Starting {
            return self.send(&[NotifyState::Watchdog]);
        }
        self.send(&[NotifyState::Watchdog, NotifyState::Status(&line)]);
        self.line = line;
    }

    /// Tells that the controller ends, and forwarding does not.
    pub fn stopping(mut self) {
        self.send(&[
            NotifyState::Stopping,
            NotifyState::Status("ending; the kernel goes on forwarding by its last tables"),
        ]);
    }

    fn send(&mut self, states: &[NotifyState<'_>]) {
        if let Err(e) = sd_notify::notify(states) {
            self.complain(&e);
        }
    }

    fn complain(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.complained, true) {
            warn!("the service manager cannot be told how the controller is: {error}");
        }
    }
}
