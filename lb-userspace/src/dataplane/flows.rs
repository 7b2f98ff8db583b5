//! The tables of remembered flows, read and emptied in batches.

use std::io;

use aya::maps::{HashMap, Map, MapData, MapError};
use bytemuck::Pod;
use lb_common::{
    flow::Flow,
    layout::{FlowEntry, TICK_NS},
};

use super::syscall;
use crate::balance::sweep::Table;

/// How many entries are read at once: more than any chain of the kernel's hash has.
const BATCH: usize = 4096;

/// As aya reads them: its trait for plain data cannot be given to types of another crate.
type RawFlow = [u32; size_of::<Flow>() / 4];
type RawEntry = [u32; size_of::<FlowEntry>() / 4];

/// Both tables of remembered flows.
#[derive(Debug)]
pub struct Flows {
    fresh: One,
    established: One,
}

#[derive(Debug)]
struct One {
    map: HashMap<MapData, RawFlow, RawEntry>,
    /// The same map, for batches.
    data: MapData,
}

/// Some elements of a hash, and where to go on; `None` at the end.
pub(super) type Elements<K, V> = (Vec<(K, V)>, Option<Walk>);

/// Some entries, and where to go on; `None` at the end.
pub type Part = (Vec<(Flow, FlowEntry)>, Option<Walk>);

/// How far a walk over a table has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// Nothing was read yet.
    Start,
    /// The kernel's word for where to go on.
    At(u32),
}

/// Reads some elements of a hash, and where to go on; `None` at the end.
///
/// # Panics
/// Where keys or values have not the map's sizes.
pub(super) fn walk<K: Pod, V: Pod>(map: &MapData, from: Walk) -> io::Result<Elements<K, V>> {
    let mut keys = vec![K::zeroed(); BATCH];
    let mut values = vec![V::zeroed(); BATCH];
    let from = match from {
        Walk::Start => None,
        Walk::At(cursor) => Some(cursor),
    };
    let read = syscall::lookup_batch(map, from, &mut keys, &mut values)?;
    let elements = keys.into_iter().zip(values).take(read.count).collect();
    Ok((elements, read.next.map(Walk::At)))
}

impl Flows {
    /// Opens both, each by a function that opens its map once more each time it is called.
    pub(super) fn open<E: From<MapError>>(
        mut map: impl FnMut(Table) -> Result<MapData, E>,
    ) -> Result<Self, E> {
        let mut one = |table| -> Result<One, E> {
            let open = Map::from_map_data(map(table)?)?;
            Ok(One {
                map: HashMap::try_from(open)?,
                data: map(table)?,
            })
        };
        Ok(Self {
            fresh: one(Table::Fresh)?,
            established: one(Table::Established)?,
        })
    }

    const fn one(&self, table: Table) -> &One {
        match table {
            Table::Fresh => &self.fresh,
            Table::Established => &self.established,
        }
    }

    /// Reads some entries, and where to go on; `None` at the end. Entries that come and go
    /// meanwhile may be missed.
    ///
    /// Kernel 5.6 or later.
    ///
    /// # Errors
    /// Where the kernel does not answer.
    pub fn read(&self, table: Table, from: Walk) -> io::Result<Part> {
        walk(&self.one(table).data, from)
    }

    /// Looks an entry up, first among the fresh ones: from there it may just be moving on.
    ///
    /// # Errors
    /// Where the kernel does not answer.
    pub fn find(&self, flow: &Flow) -> Result<Option<(Table, FlowEntry)>, MapError> {
        for table in [Table::Fresh, Table::Established] {
            match self.look_up(table, flow) {
                Ok(entry) => return Ok(Some((table, entry))),
                Err(MapError::KeyNotFound) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// Looks an entry up in one table.
    ///
    /// # Errors
    /// [`MapError::KeyNotFound`] where it is not there; others where the kernel does not answer.
    pub(super) fn look_up(&self, table: Table, flow: &Flow) -> Result<FlowEntry, MapError> {
        let found = self.one(table).map.get(&bytemuck::cast(*flow), 0);
        found.map(bytemuck::cast)
    }

    /// Forgets flows. Those that are gone already are no error.
    ///
    /// # Errors
    /// Where the kernel does not answer.
    pub fn forget(&self, table: Table, flows: &[Flow]) -> io::Result<()> {
        let mut rest = flows;
        while !rest.is_empty() {
            let batch = &rest[..rest.len().min(BATCH)];
            let deleted = syscall::delete_batch(&self.one(table).data, batch)?;
            // The kernel stops at one that is gone.
            rest = &rest[(deleted + 1).min(batch.len())..];
        }
        Ok(())
    }

    /// The present in the ticks of entries.
    #[must_use]
    pub fn now() -> u32 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
        let ns = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
        (ns / TICK_NS) as u32
    }
}
