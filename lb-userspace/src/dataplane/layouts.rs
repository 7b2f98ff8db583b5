//! The layouts of pinned maps that can be read: the present one, and those of earlier versions.
//!
//! When a part's version in [`layout::version`] is raised, the types as they were go into a module
//! beside this one, which tells how they become the present ones; its readers join the lists here.

mod v2;
#[cfg(any(test, feature = "next-layout"))]
mod v3;

use std::io;

use aya::maps::MapData;
use bytemuck::Pod;
use lb_common::layout::{self, FlowEntry, RING_SLOTS, SMALL_RING_SLOTS, Slot, Tables, version};

use super::flows::{Elements, Walk, walk};

/// What a flow or fragment is looked up by, as words. It is the same in all layouts.
pub(super) type Key = [u32; size_of::<lb_common::flow::Flow>() / 4];

const _: () = assert!(size_of::<Key>() == size_of::<layout::FragmentKey>());

/// Some entries, and where to go on; `None` at the end.
pub(super) type Entries = Elements<Key, FlowEntry>;

/// How tables and rings of one version are read.
pub(super) struct TablesReader {
    version: u32,
    /// The size of the tables, in bytes.
    pub(super) size: usize,
    /// The slots of a large ring, and of a small one.
    pub(super) slots: [usize; 2],
    /// What the tables said.
    pub(super) tables: fn(&[u8]) -> Box<Tables>,
    /// What a slot said.
    pub(super) slot: fn(u32) -> Slot,
}

/// How memory of flows of one version is read.
pub(super) struct FlowsReader {
    version: u32,
    /// Reads some entries of a map.
    pub(super) entries: fn(&MapData, Walk) -> io::Result<Entries>,
}

/// How many versions there are more of where the next layout is built.
const NEXT: usize = cfg!(feature = "next-layout") as usize;

/// The first one is the present one.
static TABLES: [TablesReader; 2 + NEXT] = [
    TablesReader {
        version: version::TABLES,
        size: size_of::<Tables>(),
        slots: [RING_SLOTS, SMALL_RING_SLOTS],
        tables: |bytes| {
            let mut tables: Box<Tables> = bytemuck::zeroed_box();
            bytemuck::bytes_of_mut(&mut *tables).copy_from_slice(bytes);
            tables
        },
        slot: bytemuck::cast,
    },
    v2::TABLES,
    #[cfg(feature = "next-layout")]
    v3::TABLES,
];

/// The first one is the present one.
static FLOWS: [FlowsReader; 1 + NEXT] = [
    FlowsReader {
        version: version::FLOWS,
        entries: entries::<FlowEntry>,
    },
    #[cfg(feature = "next-layout")]
    v2::FLOWS,
];

/// How the present tables are read.
pub(super) fn present_tables() -> &'static TablesReader {
    &TABLES[0]
}

/// How tables of a version are read; `None` where they cannot be.
pub(super) fn tables(version: u32) -> Option<&'static TablesReader> {
    TABLES.iter().find(|reader| reader.version == version)
}

/// How memory of flows of a version is read; `None` where it cannot be.
pub(super) fn flows(version: u32) -> Option<&'static FlowsReader> {
    FLOWS.iter().find(|reader| reader.version == version)
}

/// Reads some entries whose values are of a type that becomes the present one.
fn entries<V: Pod + Into<FlowEntry>>(map: &MapData, from: Walk) -> io::Result<Entries> {
    let (entries, next) = walk::<Key, V>(map, from)?;
    let present = entries.into_iter().map(|(key, value)| (key, value.into()));
    Ok((present.collect(), next))
}
