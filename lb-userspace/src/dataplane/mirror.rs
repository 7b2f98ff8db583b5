//! The host's home of the decision: tables that were read back, and what the kernel's maps remember
//! of single flows and sources. It writes to none of them.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use aya::maps::{HashMap, MapData, MapError, PerCpuArray};
use lb_common::{
    flow::{Address, Flow},
    host::Frame,
    layout::{
        self, Allowance, FlowEntry, FragmentKey, LimitKey, Scratch, Slot, SourceKey, Vip, Waiting,
    },
    tables::{Counters, Event, Failed, Latency, Memory, Route, Routes, Tables, Took, Tracked},
    trail::{Notes, Step, Trail, Watched, step},
    verdict::Reason,
};

use super::{
    error::{Error, map_error},
    flows::Flows,
    maps::{Part, open_pin, pin_of},
    pins::Pins,
};
use crate::{
    balance::{image::Image, sweep::Table},
    explain::Told,
};

/// What the kernel remembers, looked up one by one.
pub(super) struct Remembered {
    flows: Arc<Flows>,
    fragments: HashMap<MapData, [u32; 10], [u32; 8]>,
    limits: HashMap<MapData, [u32; 5], [u32; 2]>,
    scratch: PerCpuArray<MapData, [u32; 4]>,
}

impl Remembered {
    /// Opens the maps.
    pub(super) fn open(pins: &Pins, flows: Arc<Flows>) -> Result<Self, Error> {
        let pin = |name, part: Part| pin_of(pins, name, part.version());
        Ok(Self {
            flows,
            fragments: open_pin(&pin("FRAGMENTS", Part::Flows), HashMap::try_from)?,
            limits: open_pin(&pin("LIMITS", Part::Counters), HashMap::try_from)?,
            scratch: open_pin(&pin("SCRATCH", Part::Counters), PerCpuArray::try_from)?,
        })
    }
}

/// The host's home for one packet.
struct Mirror<'a> {
    image: &'a Image,
    remembered: &'a Remembered,
    /// The kernel's trail, for what the kernel alone can say: its routes and sockets, and which CPU's
    /// ports are next.
    kernel: &'a Trail,
    /// How many ports of `snat` were tried.
    tries: Cell<u32>,
    /// Why a look-up failed.
    failure: RefCell<Option<MapError>>,
}

/// Decides a frame on the host, as the kernel did that left this trail.
pub(super) fn decide(
    image: &Image,
    remembered: &Remembered,
    frame: &[u8],
    kernel: &Trail,
) -> Result<Told, Error> {
    let mut own = Trail::begun();
    (own.ingress, own.cpu) = (kernel.ingress, kernel.cpu);
    let home = Watched {
        world: Mirror {
            image,
            remembered,
            kernel,
            tries: Cell::new(0),
            failure: RefCell::default(),
        },
        notes: Noted(RefCell::new(own)),
    };
    let mut frame = Frame::new(frame, kernel.ingress);
    let verdict = lb_common::decide::process(&mut frame, &home);
    let Watched { world, notes } = home;
    if let Some(failure) = world.failure.into_inner() {
        return Err(map_error("look up what is remembered")(failure));
    }
    let mut trail = notes.0.into_inner();
    trail.decided(verdict);
    Ok(Told {
        frame: frame.bytes,
        trail,
    })
}

/// A trail in memory.
struct Noted(RefCell<Trail>);

impl Notes for Noted {
    fn note(&self, with: impl FnOnce(&mut Trail)) {
        with(&mut self.0.borrow_mut());
    }
}

impl Mirror<'_> {
    /// What a look-up found.
    fn found<T>(&self, looked_up: Result<T, MapError>) -> Option<T> {
        match looked_up {
            Ok(found) => Some(found),
            Err(MapError::KeyNotFound) => None,
            Err(e) => {
                self.failure.replace(Some(e));
                None
            }
        }
    }

    fn flow<R>(
        &self,
        table: Table,
        flow: &Flow,
        with: impl FnOnce(&mut FlowEntry) -> R,
    ) -> Option<R> {
        let found = self.remembered.flows.look_up(table, flow);
        self.found(found).map(|mut entry| with(&mut entry))
    }

    /// What the CPU keeps for itself that the kernel decided on.
    fn scratch(&self) -> Option<Scratch> {
        let all = self.found(self.remembered.scratch.get(&0, 0))?;
        let own = all.get(self.kernel.cpu as usize)?;
        Some(bytemuck::cast(*own))
    }
}

impl Tables for Mirror<'_> {
    fn current(&self) -> Option<&layout::Tables> {
        Some(&self.image.tables)
    }

    fn slot(&self, vip: &Vip, hash: u32) -> Option<Slot> {
        let slot = usize::from(hash as u16 & vip.slot_mask);
        self.image.rings.get(&vip.ring)?.get(slot).copied()
    }
}

impl Counters for Mirror<'_> {
    fn forwarded(&self, _: u16, _: usize, _: bool) {}

    fn exit(&self, _: u32, _: Reason) {}

    fn syn_seen(&self, _: usize, _: u32) -> bool {
        false
    }

    fn event(&self, _: u16, _: Event) {}

    fn tracked(&self, _: Tracked) {}

    fn opened(&self, _: u16, _: &Address, _: u16, _: u32) {}
}

impl Latency for Mirror<'_> {
    fn clock(&self) -> u64 {
        0
    }

    fn waiting<R>(&self, _: &Flow, _: impl FnOnce(&mut Waiting) -> R) -> Option<R> {
        None
    }

    fn wait(&self, _: &Flow, _: &Waiting) {}

    fn wait_no_more(&self, _: &Flow) {}

    fn took(&self, _: u16, _: Took, _: u64) {}

    fn failed(&self, _: u16, _: Failed) {}
}

impl Memory for Mirror<'_> {
    fn now(&self) -> u32 {
        Flows::now()
    }

    fn fresh<R>(&self, flow: &Flow, with: impl FnOnce(&mut FlowEntry) -> R) -> Option<R> {
        self.flow(Table::Fresh, flow, with)
    }

    fn established<R>(&self, flow: &Flow, with: impl FnOnce(&mut FlowEntry) -> R) -> Option<R> {
        self.flow(Table::Established, flow, with)
    }

    fn remember_fresh(&self, _: &Flow, _: &FlowEntry) {}

    fn claim_fresh(&self, flow: &Flow, _: &FlowEntry) -> bool {
        self.fresh(flow, |_| ()).is_none()
    }

    fn remember_established(&self, _: &Flow, _: &FlowEntry) -> bool {
        true
    }

    fn forget_fresh(&self, _: &Flow) {}

    fn forget_established(&self, _: &Flow) {}

    fn remember_fragment(&self, _: &FragmentKey, _: &FlowEntry) {}

    fn fragment(&self, fragment: &FragmentKey) -> Option<FlowEntry> {
        let found = self.remembered.fragments.get(&bytemuck::cast(*fragment), 0);
        self.found(found).map(bytemuck::cast)
    }

    fn next_port(&self) -> u32 {
        let Some(scratch) = self.scratch() else {
            return 0;
        };
        let tries = self.tries.get() + 1;
        self.tries.set(tries);
        let cpus = aya::util::nr_cpus().unwrap_or(1) as u32;
        let nth = scratch.port.wrapping_add(tries);
        nth.wrapping_mul(cpus).wrapping_add(self.kernel.cpu)
    }

    fn listed(&self, source: &SourceKey) -> Option<u8> {
        let number = |key: &SourceKey| u128::from_be_bytes(bytemuck::cast(key.address));
        let covers = |entry: &SourceKey| {
            let shift = 128 - entry.prefix.saturating_sub(64).min(128);
            let same = shift >= 128 || number(entry) >> shift == number(source) >> shift;
            entry.family == source.family && same
        };
        let list = self.image.lists.get(&source.list)?;
        let covering = list.iter().filter(|(entry, _)| covers(entry));
        let longest = covering.max_by_key(|(entry, _)| entry.prefix);
        longest.map(|(_, &allowed)| allowed)
    }

    fn allowance<R>(
        &self,
        source: &LimitKey,
        first: Allowance,
        with: impl FnOnce(&mut Allowance) -> R,
    ) -> Option<R> {
        let known = self.found(self.remembered.limits.get(&bytemuck::cast(*source), 0));
        let mut allowance = known.map_or(first, bytemuck::cast);
        Some(with(&mut allowance))
    }

    fn may_tell(&self) -> bool {
        let now = self.now();
        self.scratch()
            .is_some_and(|mut scratch| scratch.may_tell(now))
    }
}

impl Routes for Mirror<'_> {
    fn route(&self, _: u8, _: &Address, _: &Address, _: u32) -> Route {
        match self.kernel.first(step::ROUTE).map(Step::answer) {
            Some(step::OVER) => Route::Over {
                interface: self.kernel.way,
                macs: self.kernel.macs,
            },
            Some(step::NOWHERE) => Route::Nowhere,
            _ => Route::Unknown,
        }
    }

    fn awaited(&self, _: &Flow) -> bool {
        let asked = self.kernel.first(step::AWAITED);
        asked.is_some_and(|step| step.answer() == step::YES)
    }
}
