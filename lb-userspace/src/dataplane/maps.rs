//! The pinned maps: their shapes, and how they are opened.

use std::path::Path;

use aya::maps::{Map, MapData, MapError};
use lb_common::layout;

use super::{
    error::{Error, map_error},
    pins::Pins,
    syscall,
};
use crate::model::Tracking;

/// An array of one value that is too large for the stack.
pub(super) type Blob = MapData;

/// What a pinned map must be.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    /// `BPF_MAP_TYPE_*` of linux/bpf.h.
    kind: u32,
    /// The size of a value.
    value: usize,
    entries: Entries,
}

/// How many values a map holds.
#[derive(Clone, Copy)]
enum Entries {
    /// So many.
    Exactly(usize),
    /// What the configuration says.
    Configured(fn(&Tracking) -> u32),
}

const fn shape(name: &'static str, kind: u32, value: usize, entries: usize) -> Shape {
    Shape {
        name,
        kind,
        value,
        entries: Entries::Exactly(entries),
    }
}

/// `BPF_MAP_TYPE_*` of linux/bpf.h.
const HASH: u32 = 1;
const ARRAY: u32 = 2;
const PER_CPU_ARRAY: u32 = 6;
const LRU_HASH: u32 = 9;
const LPM_TRIE: u32 = 11;
const ARRAY_OF_MAPS: u32 = 12;

const FLOW_ENTRY: usize = size_of::<layout::FlowEntry>();

/// The maps that are pinned.
pub(super) const MAPS: [Shape; 14] = [
    shape("TABLES", ARRAY_OF_MAPS, 4, 1),
    shape("RINGS", ARRAY_OF_MAPS, 4, layout::RINGS),
    shape("SMALL_RINGS", ARRAY_OF_MAPS, 4, layout::RINGS),
    shape(
        "ENDPOINTS",
        PER_CPU_ARRAY,
        size_of::<layout::EndpointCounters>(),
        layout::ENDPOINTS,
    ),
    shape(
        "EXITS",
        PER_CPU_ARRAY,
        size_of::<layout::ExitCounters>(),
        layout::EXIT_ROWS,
    ),
    shape(
        "EVENTS",
        PER_CPU_ARRAY,
        size_of::<layout::EndpointEvents>(),
        layout::ENDPOINTS,
    ),
    shape(
        "TRACKING",
        PER_CPU_ARRAY,
        size_of::<layout::TrackingCounters>(),
        1,
    ),
    shape("SYNS", PER_CPU_ARRAY, size_of::<layout::RecentSyns>(), 1),
    shape("SCRATCH", PER_CPU_ARRAY, size_of::<layout::Scratch>(), 1),
    Shape {
        entries: Entries::Configured(|tracking| tracking.fresh.get()),
        ..shape("FRESH", LRU_HASH, FLOW_ENTRY, 0)
    },
    Shape {
        entries: Entries::Configured(|tracking| tracking.established.get()),
        ..shape("ESTABLISHED", HASH, FLOW_ENTRY, 0)
    },
    shape("FRAGMENTS", LRU_HASH, FLOW_ENTRY, layout::FRAGMENTS),
    shape("SOURCES", LPM_TRIE, 1, layout::SOURCES),
    shape(
        "LIMITS",
        LRU_HASH,
        size_of::<layout::Allowance>(),
        layout::LIMITS,
    ),
];

/// A pinned map that holds another number of values than is configured now.
///
/// It is kept, for what it remembers is worth more than its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The map.
    pub map: &'static str,
    /// How many values it holds.
    pub entries: u32,
    /// How many are configured.
    pub configured: u32,
}

impl Shape {
    /// How many values are configured, where that is for the configuration to say.
    pub(super) fn configured(&self, tracking: &Tracking) -> Option<u32> {
        match self.entries {
            Entries::Exactly(_) => None,
            Entries::Configured(entries) => Some(entries(tracking)),
        }
    }

    /// Compares a pinned map with what it must be.
    pub(super) fn check(&self, path: &Path, tracking: &Tracking) -> Result<Option<Kept>, Error> {
        let info = MapData::from_pin(path)
            .and_then(|map| map.info())
            .map_err(map_error("open a pinned map"))?;
        let entries = info.max_entries();
        let kept = self.configured(tracking).map(|configured| Kept {
            map: self.name,
            entries,
            configured,
        });
        let expected = match self.entries {
            Entries::Exactly(expected) => expected,
            Entries::Configured(_) => entries as usize,
        };
        let found = (
            info.map_type().map_or(u32::MAX, |kind| kind as u32),
            info.value_size() as usize,
            entries as usize,
        );
        let expected = (self.kind, self.value, expected);
        if found == expected {
            return Ok(kept.filter(|kept| kept.entries != kept.configured));
        }
        let words =
            |(kind, value, entries)| format!("type {kind}, {entries} values of {value} bytes");
        Err(Error::OtherLayout {
            path: path.to_owned(),
            found: words(found),
            expected: words(expected),
        })
    }
}

/// Makes an array of one value.
pub(super) fn blob<T: bytemuck::NoUninit>(value: &[T]) -> Result<Blob, Error> {
    let bytes: &[u8] = bytemuck::cast_slice(value);
    let shape = aya_obj::Map::new_from_params(ARRAY, 4, bytes.len() as u32, 1, 0);
    let map = MapData::create(shape, "evenkeel_blob", None).map_err(map_error("make a table"))?;
    syscall::update(&map, 0, bytes).map_err(|source| Error::Io {
        action: "fill a table",
        source,
    })?;
    Ok(map)
}

/// Opens a pinned map.
pub(super) fn open_pin<M>(
    pins: &Pins,
    name: &str,
    kind: impl Fn(Map) -> Result<M, MapError>,
) -> Result<M, Error> {
    MapData::from_pin(pins.path(name))
        .and_then(Map::from_map_data)
        .and_then(kind)
        .map_err(map_error("open a pinned map"))
}
