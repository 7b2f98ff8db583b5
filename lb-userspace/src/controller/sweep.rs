//! The sweeper: forgets flows that are over, and finds out what nothing is remembered of.
//!
//! It works in small parts between the controller's other events. As a part of the one task it
//! never forgets by slots that are not the live ones.

use std::time::Duration;

use lb_common::layout::TICK_NS;
use log::{info, warn};

use super::{Now, state::State};
use crate::{
    admin::proto,
    balance::{
        image::Image,
        sweep::{Fate, Learned, Limits, Pass, Table},
    },
    causes::with_causes,
    dataplane::flows::{Flows, Walk},
    journal::NO_FLOWS_LEFT,
    model::{Service, Tracking},
};

/// From the end of a pass to the begin of the next.
const PAUSE: Duration = Duration::from_secs(10);

/// Why a pass was given up.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("read or forget remembered flows: {0}")]
    Batch(#[from] std::io::Error),
    #[error("look up a remembered flow: {0}")]
    Lookup(#[from] aya::maps::MapError),
}

/// How far the sweeper is.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    running: Option<Running>,
    ended: Option<std::time::Instant>,
    failing: bool,
}

#[derive(Debug)]
struct Running {
    pass: Pass,
    table: Table,
    at: Walk,
}

impl Sweeper {
    /// Gives up the pass that runs, and begins another one soon.
    pub(super) fn begin_anew(&mut self) {
        self.running = None;
        self.ended = None;
    }

    /// Takes note of a publication in the middle of a pass.
    pub(super) fn published(&mut self, image: &Image) {
        if let Some(running) = &mut self.running {
            running.pass.published(image);
        }
    }

    /// Does one part of a pass; answers what was learned at its end.
    fn step(&mut self, flows: &Flows, image: &Image) -> Result<Option<Learned>, Error> {
        let Some(running) = &mut self.running else {
            return Ok(None);
        };
        let (entries, next) = flows.read(running.table, running.at)?;
        let now = Flows::now();
        let (mut fresh, mut established) = (Vec::new(), Vec::new());
        let mut forget = |table, flow| match table {
            Table::Fresh => fresh.push(flow),
            Table::Established => established.push(flow),
        };
        for (flow, entry) in &entries {
            let found = (running.table, flow, entry);
            match running
                .pass
                .judge(&image.tables, found, now, |other| flows.find(other))?
            {
                Fate::Keep => {}
                Fate::Forget => forget(running.table, *flow),
                Fate::ForgetBoth(table, other) => {
                    forget(running.table, *flow);
                    forget(table, other);
                }
            }
        }
        flows.forget(Table::Fresh, &fresh)?;
        flows.forget(Table::Established, &established)?;
        match (next, running.table) {
            (Some(next), _) => running.at = next,
            (None, Table::Fresh) => (running.table, running.at) = (Table::Established, Walk::Start),
            (None, Table::Established) => {
                return Ok(self.running.take().map(|running| running.pass.end()));
            }
        }
        Ok(None)
    }
}

impl State {
    /// Whether a pass is in the middle of its work.
    pub(super) const fn sweeping(&self) -> bool {
        self.sweeper.running.is_some()
    }

    /// Begins a pass where it is time.
    pub(super) fn begin_sweep(&mut self, now: Now) {
        let rests = |ended| now.instant.saturating_duration_since(ended) < PAUSE;
        // While an older program forwards, it remembers where nobody sweeps.
        let waits = self.sweeping() || self.kernel.is_upgrading();
        if waits || self.sweeper.ended.is_some_and(rests) {
            return;
        }
        if let Some(image) = &self.image {
            self.sweeper.running = Some(Running {
                pass: Pass::begin(image, limits(&self.config.tracking)),
                table: Table::Fresh,
                at: Walk::Start,
            });
        }
    }

    /// Does one part of a pass.
    pub(super) fn sweep(&mut self, now: Now) {
        let Some(image) = &self.image else {
            return;
        };
        match self.sweeper.step(self.kernel.flows(), image) {
            Ok(None) => {}
            Ok(Some(learned)) => {
                self.sweeper.ended = Some(now.instant);
                if std::mem::take(&mut self.sweeper.failing) {
                    info!("remembered flows can be swept again");
                }
                self.learn(learned);
            }
            Err(e) => {
                self.sweeper.running = None;
                self.sweeper.ended = Some(now.instant);
                if !std::mem::replace(&mut self.sweeper.failing, true) {
                    warn!("slots stay in transition for now: {}", with_causes(&e));
                }
            }
        }
    }

    /// What is remembered of all flows.
    pub(super) fn tracking_status(&self) -> proto::Tracking {
        let counted = self.kernel.tracking().unwrap_or_default();
        let services = self.learned.iter().flat_map(|learned| &learned.services);
        proto::Tracking {
            flows: services.map(|service| service.flows).sum(),
            fresh: counted.fresh,
            established: counted.established,
            refused: counted.refused,
            collisions: counted.collisions,
            fresh_room: self.config.tracking.fresh.get().into(),
            established_room: self.config.tracking.established.get().into(),
        }
    }

    /// What is remembered of a service's flows.
    pub(super) fn remembered_status(&self, service: &Service) -> proto::Remembered {
        let Some(number) = self.numbers.service(&service.key).map(usize::from) else {
            return proto::Remembered::default();
        };
        let (slots_in_transition, slots_pinned) = self.unsteady(service);
        let changed = self
            .image
            .as_ref()
            .map_or(0, |image| image.tables.services[number].changed);
        proto::Remembered {
            flows: self
                .learned
                .as_ref()
                .map_or(0, |learned| learned.services[number].flows),
            slots_in_transition,
            slots_pinned,
            changed_at_ms: (changed != 0).then_some(changed * 1000),
        }
    }

    fn learn(&mut self, learned: Learned) {
        let mut services = learned.services.iter();
        if services.any(|service| service.clean.contains(&true)) {
            self.news.add(NO_FLOWS_LEFT);
        }
        let released = self
            .numbers
            .release(|endpoint| learned.endpoints.contains(&endpoint));
        if released {
            info!("removed backends without flows have given up their numbers");
            self.news.add("removed backends have no flows left");
        }
        self.note_drains(&learned);
        self.learned = Some(learned);
    }
}

/// The limits in the ticks of entries.
fn limits(tracking: &Tracking) -> Limits {
    let ticks = |limit: Duration| {
        u32::try_from(limit.as_nanos() / u128::from(TICK_NS)).unwrap_or(u32::MAX / 2)
    };
    Limits {
        idle_tcp: ticks(tracking.idle_tcp),
        idle_udp: ticks(tracking.idle_udp),
        closing: ticks(tracking.closing),
    }
}
