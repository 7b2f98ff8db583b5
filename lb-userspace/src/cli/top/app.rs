//! What the screen shows, and what keys do to it: no terminal, no clock.

use std::collections::{BTreeMap, VecDeque};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::{
    admin::proto::{Backend, Service, Status},
    journal::Record,
};

/// How many readings of a backend are remembered.
pub(super) const HISTORY: usize = 120;

/// What backends are ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// As the configuration has them.
    #[default]
    Configured,
    /// New flows a second, the most first.
    Flows,
    /// Packets a second.
    Packets,
    /// Bits a second.
    Bits,
    /// How far the observed share is from the intended one.
    Deviation,
    /// Latency: of responses to clients, or of probes where none of these is measured.
    Latency,
}

impl Sort {
    /// Every order with its key and its word.
    pub(super) const KEYS: [(char, &'static str, Self); 6] = [
        ('c', "configured", Self::Configured),
        ('f', "flows", Self::Flows),
        ('p', "packets", Self::Packets),
        ('b', "bits", Self::Bits),
        ('d', "deviation", Self::Deviation),
        ('l', "latency", Self::Latency),
    ];

    /// The word for it.
    pub(super) fn word(self) -> &'static str {
        let found = Self::KEYS.iter().find(|(.., sort)| *sort == self);
        found.map_or("", |(_, word, _)| word)
    }

    fn of(self, backend: &Backend) -> f64 {
        match self {
            Self::Configured => 0.0,
            Self::Flows => backend.new_flow_rate,
            Self::Packets => backend.packet_rate,
            Self::Bits => backend.byte_rate,
            Self::Deviation => backend
                .observed_share
                .map_or(0.0, |observed| (observed - backend.intended_share).abs()),
            Self::Latency => {
                let seen = backend.performance.as_ref();
                let probes = seen.and_then(|seen| seen.latency_ms);
                let traffic = backend.response.as_ref().map(|took| took.median_ms);
                traffic.or(probes).unwrap_or(0.0)
            }
        }
    }
}

/// What comes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Go on.
    On,
    /// End.
    End,
}

/// Everything that the screen shows.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a screen")]
pub(super) struct App {
    /// The latest answer; `None` before the first.
    pub(super) status: Option<Status>,
    /// Why there is none later.
    pub(super) problem: Option<String>,
    /// The last events, the latest last, or why there are none to show.
    pub(super) events: Result<Vec<Record>, String>,
    /// The service whose backends are shown, by its name.
    pub(super) chosen: Option<String>,
    pub(super) sort: Sort,
    pub(super) reversed: bool,
    /// Whether the screen stays as it is.
    pub(super) paused: bool,
    pub(super) help: bool,
    pub(super) colour: bool,
    /// Rates of each backend, the latest last.
    history: BTreeMap<(String, String), VecDeque<f64>>,
}

impl App {
    /// Nothing is known yet.
    pub(super) fn new(chosen: Option<String>, colour: bool) -> Self {
        Self {
            status: None,
            problem: None,
            events: Ok(Vec::new()),
            chosen,
            sort: Sort::default(),
            reversed: false,
            paused: false,
            help: false,
            colour,
            history: BTreeMap::new(),
        }
    }

    /// Takes an answer, or why there is none.
    pub(super) fn take(&mut self, answer: Result<Status, String>) {
        if self.paused {
            return;
        }
        match answer {
            Ok(status) => {
                self.problem = None;
                self.remember(&status);
                self.status = Some(status);
            }
            Err(why) => self.problem = Some(why),
        }
    }

    /// Takes the last events.
    pub(super) fn take_events(&mut self, events: Result<Vec<Record>, String>) {
        if !self.paused {
            self.events = events;
        }
    }

    fn remember(&mut self, status: &Status) {
        let mut history = BTreeMap::new();
        for service in &status.services {
            for backend in &service.backends {
                let key = (service.name.clone(), backend.name.clone());
                let mut rates = self.history.remove(&key).unwrap_or_default();
                if rates.len() == HISTORY {
                    rates.pop_front();
                }
                rates.push_back(rate(service, backend));
                history.insert(key, rates);
            }
        }
        // Those that are not configured any more go.
        self.history = history;
    }

    /// The rates of a backend, the latest last.
    pub(super) fn rates(&self, service: &Service, backend: &Backend) -> Vec<f64> {
        let key = (service.name.clone(), backend.name.clone());
        let rates = self.history.get(&key).into_iter().flatten();
        rates.copied().collect()
    }

    /// The services, in the order of the configuration.
    pub(super) fn services(&self) -> &[Service] {
        self.status.as_ref().map_or(&[], |status| &status.services)
    }

    /// Where the chosen service is; the first one where it is gone.
    pub(super) fn position(&self) -> usize {
        let named = |service: &Service| Some(&service.name) == self.chosen.as_ref();
        self.services().iter().position(named).unwrap_or(0)
    }

    /// The backends of a service in the order that is wanted.
    pub(super) fn sorted<'a>(&self, service: &'a Service) -> Vec<&'a Backend> {
        let mut backends: Vec<_> = service.backends.iter().collect();
        backends.sort_by(|a, b| self.sort.of(b).total_cmp(&self.sort.of(a)));
        if self.reversed {
            backends.reverse();
        }
        backends
    }

    /// Chooses the service so many places on.
    fn choose(&mut self, on: isize) {
        let last = self.services().len().saturating_sub(1);
        let position = self.position().saturating_add_signed(on).min(last);
        self.chosen = self.services().get(position).map(|s| s.name.clone());
    }

    /// Does what a key asks for.
    pub(super) fn press(&mut self, key: KeyEvent) -> Next {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Next::End,
            KeyCode::Char('q') => return Next::End,
            KeyCode::Esc if !self.help => return Next::End,
            KeyCode::Esc => self.help = false,
            KeyCode::Char('?' | 'h') => self.help = !self.help,
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Down | KeyCode::Char('j') => self.choose(1),
            KeyCode::Up | KeyCode::Char('k') => self.choose(-1),
            KeyCode::PageDown => self.choose(10),
            KeyCode::PageUp => self.choose(-10),
            KeyCode::Char(pressed) => {
                if let Some((.., sort)) = Sort::KEYS.iter().find(|(key, ..)| *key == pressed) {
                    self.sort = *sort;
                }
            }
            _ => {}
        }
        Next::On
    }
}

/// What a backend's history is of: new flows, where those are counted.
pub(super) fn rate(service: &Service, backend: &Backend) -> f64 {
    if service.protocol == "tcp" {
        backend.new_flow_rate
    } else {
        backend.packet_rate
    }
}
