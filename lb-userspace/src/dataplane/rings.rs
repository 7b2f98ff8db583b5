//! The rings of both sizes, as maps in maps.

use std::{path::Path, sync::Arc};

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
    /// Stands in for every ring that is not in use.
    blank: Blob,
}

impl Rings {
    pub(super) fn open(pin: &Path, slots: usize) -> Result<Self, Error> {
        Ok(Self {
            outer: open_pin(pin, ArrayOfMaps::try_from)?,
            data: MapData::from_pin(pin).map_err(map_error("open the rings"))?,
            slots,
            blank: blob(&vec![Slot::steady(layout::NONE); slots])?,
        })
    }

    /// Puts rings under numbers that no packet follows.
    pub(super) fn publish(&self, rings: &[(&u32, &Arc<[Slot]>)]) -> Result<(), Error> {
        for batch in rings.chunks(BATCH) {
            let mut maps = Vec::with_capacity(batch.len());
            for &(&number, slots) in batch {
                let mut ring = vec![Slot::steady(layout::NONE); self.slots];
                ring[..slots.len()].copy_from_slice(slots);
                maps.push((number, blob(&ring)?));
            }
            let rings: Vec<_> = maps.iter().map(|(number, map)| (*number, map)).collect();
            self.update(&rings)?;
        }
        Ok(())
    }

    /// Frees rings that no packet follows any more.
    pub(super) fn retire(&self, rings: &[(&u32, &Arc<[Slot]>)]) -> Result<(), Error> {
        let unused: Vec<_> = rings
            .iter()
            .map(|(number, _)| (**number, &self.blank))
            .collect();
        if unused.is_empty() {
            return Ok(());
        }
        self.update(&unused)
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
