//! The pinned maps: their shapes, their names, and how they are opened.

use std::path::{Path, PathBuf};

use aya::maps::{Map, MapData, MapError};
use lb_common::layout::{self, version};

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
    /// What changes its version.
    pub(super) part: Part,
    /// `BPF_MAP_TYPE_*` of linux/bpf.h.
    kind: u32,
    /// The size of a value.
    value: usize,
    entries: Entries,
}

/// The parts of what is pinned, each with a version of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Tables, rings and lists of sources.
    Tables,
    /// What is remembered of flows and fragments.
    Flows,
    /// Counters, and what a CPU keeps for itself.
    Counters,
}

impl Part {
    /// The version that this program makes and uses.
    pub(super) const fn version(self) -> u32 {
        match self {
            Self::Tables => version::TABLES,
            Self::Flows => version::FLOWS,
            Self::Counters => version::COUNTERS,
        }
    }
}

/// Maps up to this version have no number in their pins' names.
const UNNUMBERED: u32 = 2;

/// What a map's pin is called. A bpffs takes no names with dots.
fn pin_name(name: &str, version: u32) -> String {
    if version <= UNNUMBERED {
        name.to_owned()
    } else {
        format!("{name}-{version}")
    }
}

/// Which map a pin is, and of which version; `None` where it is none of ours.
pub(super) fn of_pin(pin: &str) -> Option<(&'static Shape, u32)> {
    let (name, version) = match pin.split_once('-') {
        Some((name, version)) => (name, version.parse().ok()?),
        None => (pin, UNNUMBERED),
    };
    let shape = named(name)?;
    (pin_name(name, version) == pin).then_some((shape, version))
}

/// The map of a name.
pub(super) fn named(name: &str) -> Option<&'static Shape> {
    MAPS.iter().find(|shape| shape.name == name)
}

/// Where a map of a version is pinned.
pub(super) fn pin_of(pins: &Pins, name: &str, version: u32) -> PathBuf {
    pins.path(&pin_name(name, version))
}

/// How many values a map holds.
#[derive(Clone, Copy)]
enum Entries {
    /// So many.
    Exactly(usize),
    /// What the configuration says.
    Configured(fn(&Tracking) -> u32),
}

const fn shape(name: &'static str, part: Part, kind: u32, value: usize, entries: usize) -> Shape {
    Shape {
        name,
        part,
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
pub(super) static MAPS: [Shape; 14] = [
    shape("TABLES", Part::Tables, ARRAY_OF_MAPS, 4, 1),
    shape("RINGS", Part::Tables, ARRAY_OF_MAPS, 4, layout::RINGS),
    shape("SMALL_RINGS", Part::Tables, ARRAY_OF_MAPS, 4, layout::RINGS),
    shape(
        "ENDPOINTS",
        Part::Counters,
        PER_CPU_ARRAY,
        size_of::<layout::EndpointCounters>(),
        layout::ENDPOINTS,
    ),
    shape(
        "EXITS",
        Part::Counters,
        PER_CPU_ARRAY,
        size_of::<layout::ExitCounters>(),
        layout::EXIT_ROWS,
    ),
    shape(
        "EVENTS",
        Part::Counters,
        PER_CPU_ARRAY,
        size_of::<layout::EndpointEvents>(),
        layout::ENDPOINTS,
    ),
    shape(
        "TRACKING",
        Part::Counters,
        PER_CPU_ARRAY,
        size_of::<layout::TrackingCounters>(),
        1,
    ),
    shape(
        "SYNS",
        Part::Counters,
        PER_CPU_ARRAY,
        size_of::<layout::RecentSyns>(),
        1,
    ),
    shape(
        "SCRATCH",
        Part::Counters,
        PER_CPU_ARRAY,
        size_of::<layout::Scratch>(),
        1,
    ),
    Shape {
        entries: Entries::Configured(|tracking| tracking.fresh.get()),
        ..shape("FRESH", Part::Flows, LRU_HASH, FLOW_ENTRY, 0)
    },
    Shape {
        entries: Entries::Configured(|tracking| tracking.established.get()),
        ..shape("ESTABLISHED", Part::Flows, HASH, FLOW_ENTRY, 0)
    },
    shape(
        "FRAGMENTS",
        Part::Flows,
        LRU_HASH,
        FLOW_ENTRY,
        layout::FRAGMENTS,
    ),
    shape("SOURCES", Part::Tables, LPM_TRIE, 1, layout::SOURCES),
    shape(
        "LIMITS",
        Part::Counters,
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

    /// What its pin is called.
    pub(super) fn pin_name(&self) -> String {
        pin_name(self.name, self.part.version())
    }

    /// Where it is pinned.
    pub(super) fn pin(&self, pins: &Pins) -> PathBuf {
        pin_of(pins, self.name, self.part.version())
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
    pin: &Path,
    kind: impl Fn(Map) -> Result<M, MapError>,
) -> Result<M, Error> {
    MapData::from_pin(pin)
        .and_then(Map::from_map_data)
        .and_then(kind)
        .map_err(map_error("open a pinned map"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_called_by_map_and_version() {
        for (pin, map) in [
            ("TABLES", Some(("TABLES", 2))),
            ("TABLES-3", Some(("TABLES", 3))),
            ("SMALL_RINGS-12", Some(("SMALL_RINGS", 12))),
            ("TABLES-2", None),
            ("TABLES-03", None),
            ("TABLES-x", None),
            ("OTHERS", None),
            ("program", None),
            ("link-7", None),
        ] {
            let found = of_pin(pin).map(|(shape, version)| (shape.name, version));
            assert_eq!(found, map, "{pin}");
        }
        assert_eq!(pin_name("FRESH", 2), "FRESH");
        assert_eq!(pin_name("FRESH", 3), "FRESH-3");
    }
}
