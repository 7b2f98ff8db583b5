//! The rings of both sizes, as maps in maps.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    thread::{self, ScopedJoinHandle},
};

use aya::maps::{ArrayOfMaps, MapData};
use lb_common::layout::{self, Slot};

use super::{
    error::{Error, map_error},
    maps::{Blob, blob, open_pin},
    syscall,
};

/// How many rings are published at once: each takes a file descriptor meanwhile, of which a
/// process may have 1,024 by default, and each batch a wait for readers.
const BATCH: usize = 256;

/// The rings of one size.
pub(super) struct Rings {
    outer: ArrayOfMaps<MapData>,
    /// The same map, for batches.
    data: MapData,
    slots: usize,
    /// Numbers that no packet follows any more, whose rings still take memory.
    retired: BTreeSet<u32>,
    /// Stands in for every ring that is not in use.
    blank: Blob,
}

impl Rings {
    pub(super) fn open(pin: &Path, slots: usize) -> Result<Self, Error> {
        Ok(Self {
            outer: open_pin(pin, ArrayOfMaps::try_from)?,
            data: MapData::from_pin(pin).map_err(map_error("open the rings"))?,
            slots,
            retired: BTreeSet::new(),
            blank: blob(&vec![Slot::steady(layout::NONE); slots])?,
        })
    }

    /// Puts rings under numbers that no packet follows, and does `then` once they are in place.
    ///
    /// The kernel waits for readers of what was in a place, which are none: that wait goes on
    /// beside `then`, and is over when this returns.
    pub(super) fn publish(
        &mut self,
        rings: &[(&u32, &Arc<[Slot]>)],
        then: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        for (number, _) in rings {
            self.retired.remove(number);
        }
        let mut batches = rings.chunks(BATCH);
        let Some(last) = batches.next_back() else {
            return then();
        };
        for batch in batches {
            let maps = self.made(batch)?;
            self.update(&named(&maps))?;
        }
        let maps = self.made(last)?;
        thread::scope(|scope| {
            let place = || self.update(&named(&maps));
            // Where the system has no thread left, one waits after the other.
            let Ok(placing) = thread::Builder::new().spawn_scoped(scope, place) else {
                place()?;
                return then();
            };
            let done = self
                .await_placed(maps.last(), &placing)
                .and_then(|placed| if placed { then() } else { Ok(()) });
            placing.join().expect("a system call does not panic")?;
            done
        })
    }

    /// Maps of rings, under their numbers.
    fn made(&self, rings: &[(&u32, &Arc<[Slot]>)]) -> Result<Vec<(u32, Blob)>, Error> {
        let made = rings.iter().map(|&(&number, slots)| {
            let mut ring = vec![Slot::steady(layout::NONE); self.slots];
            ring[..slots.len()].copy_from_slice(slots);
            Ok((number, blob(&ring)?))
        });
        made.collect()
    }

    /// Waits until the last of a batch is in its place, as those before it are then; false where
    /// the kernel refuses.
    fn await_placed<T>(
        &self,
        last: Option<&(u32, Blob)>,
        placing: &ScopedJoinHandle<'_, T>,
    ) -> Result<bool, Error> {
        let Some((number, map)) = last else {
            return Ok(true);
        };
        let id = map.info().map_err(map_error("look at a ring"))?.id();
        loop {
            let over = placing.is_finished();
            let mut there = [0; size_of::<u32>()];
            let found = syscall::lookup(&self.data, *number, &mut there);
            if found.is_ok() && u32::from_ne_bytes(there) == id {
                return Ok(true);
            }
            if over {
                return Ok(false);
            }
            thread::yield_now();
        }
    }

    /// Takes note of rings that no packet follows any more, to be freed when there is time.
    pub(super) fn retire(&mut self, rings: &[(&u32, &Arc<[Slot]>)]) {
        self.retired
            .extend(rings.iter().map(|(number, _)| **number));
    }

    /// Frees the memory of what was retired, and waits for readers.
    pub(super) fn free(&mut self) -> Result<(), Error> {
        if self.retired.is_empty() {
            return Ok(());
        }
        let unused: Vec<_> = self
            .retired
            .iter()
            .map(|&number| (number, &self.blank))
            .collect();
        self.update(&unused)?;
        self.retired.clear();
        Ok(())
    }

    fn update(&self, rings: &[(u32, &MapData)]) -> Result<(), Error> {
        syscall::update_inner(&self.data, rings).map_err(|source| Error::Io {
            action: "publish rings",
            source,
        })
    }

    /// Reads the first slots of a ring, as they lie in memory.
    pub(super) fn read(&self, number: u32, slots: usize) -> Result<Vec<u32>, Error> {
        let inner = self
            .outer
            .get(&number, 0)
            .map_err(map_error("open a live ring"))?;
        let mut ring = vec![0; self.slots];
        syscall::lookup(&inner, 0, bytemuck::cast_slice_mut(&mut ring)).map_err(|source| {
            Error::Io {
                action: "read a live ring",
                source,
            }
        })?;
        ring.truncate(slots);
        Ok(ring)
    }
}

/// The maps of a batch, to be named to the kernel.
fn named(maps: &[(u32, Blob)]) -> Vec<(u32, &MapData)> {
    maps.iter().map(|(number, map)| (*number, map)).collect()
}
