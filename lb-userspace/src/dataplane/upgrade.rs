//! From maps of an older version to the present ones, while packets follow the old ones.
//!
//! Tables are built anew from what the old ones say. Remembered flows are carried over before the
//! program is replaced, most of them long before, and once more right after it: what the old
//! program remembered in the meantime. Then the old maps are removed. See ADR 0019.

use std::collections::HashMap;

use aya::maps::{self, Map, MapData};
use aya_obj::generated::{BPF_ANY, BPF_NOEXIST};
use lb_common::layout::{FlowEntry, version};
use log::{info, warn};

use super::{
    error::{Error, map_error},
    flows::Walk,
    found::Remains,
    layouts::{self, FlowsReader, Key},
    maps::pin_of,
    pins::Pins,
    published::Published,
};
use crate::balance::image::Image;

/// Maps whose entries are carried over.
const CARRIED: [&str; 3] = ["FRESH", "ESTABLISHED", "FRAGMENTS"];

/// As aya writes an entry.
type Words = [u32; size_of::<FlowEntry>() / 4];

/// What is left of an older version.
pub(super) struct Upgrade {
    tables: Option<Published>,
    flows: Vec<Carrier>,
    pins: Vec<String>,
}

/// Carries the entries of one map over.
struct Carrier {
    from: MapData,
    to: maps::HashMap<MapData, Key, Words>,
    reader: &'static FlowsReader,
    /// `BPF_NOEXIST` where packets follow the new map already, which then knows better.
    flags: u64,
    /// What was carried over already, without the time.
    known: HashMap<Key, FlowEntry>,
}

/// How many entries were carried over, and how many there was no room for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Carried {
    entries: usize,
    lost: usize,
}

impl Upgrade {
    /// Opens what is left, beside the present maps, and carries over what is remembered by now.
    pub(super) fn begin(pins: &Pins, remains: Remains) -> Result<Self, Error> {
        let tables = match remains.tables {
            Some(version) => layouts::tables(version)
                .map(|reader| Published::open(pins, version, reader))
                .transpose()?,
            None => None,
        };
        let mut flows = Vec::new();
        if let Some(version) = remains.flows
            && let Some(reader) = layouts::flows(version)
        {
            for name in CARRIED {
                let pin = pin_of(pins, name, version);
                // One that is gone has been carried over, and its pin removed, before a crash.
                if pin.exists() {
                    flows.push(Carrier::open(pins, name, version, reader, remains.resumed)?);
                }
            }
        }
        let mut upgrade = Self {
            tables,
            flows,
            pins: remains.pins,
        };
        let carried = upgrade.carry()?;
        info!(
            "upgrading from maps of an older layout, with {} remembered flows; packets follow \
             them until the new tables are published",
            carried.entries
        );
        milestone("begun");
        Ok(upgrade)
    }

    /// What packets follow by the old tables; `None` where they follow the present ones.
    pub(super) fn live(&self) -> Result<Option<Image>, Error> {
        self.tables.as_ref().map_or(Ok(None), Published::read)
    }

    /// Carries over what was remembered since the last time.
    pub(super) fn carry(&mut self) -> Result<Carried, Error> {
        let mut all = Carried::default();
        for carrier in &mut self.flows {
            let carried = carrier.carry()?;
            all.entries += carried.entries;
            all.lost += carried.lost;
        }
        if all.lost > 0 {
            warn!(
                "{} remembered flows found no room in the new maps: raise tracking.established",
                all.lost
            );
        }
        Ok(all)
    }

    /// Whether there is memory of flows to be carried over.
    pub(super) const fn carries(&self) -> bool {
        !self.flows.is_empty()
    }

    /// Carries over what the old program remembered last, and removes its maps: no packet follows
    /// them any more.
    pub(super) fn end(mut self, pins: &Pins, published: &mut Published) -> Result<(), Error> {
        let mut last = self.carry()?.entries;
        if self.carries() {
            // Another CPU may still have been in the old program, and remembered a flow after that.
            published.take_over(true)?;
            last += self.carry()?.entries;
            published.take_over(false)?;
        }
        milestone("carried");
        for pin in &self.pins {
            pins.remove(pin)?;
            milestone("retiring");
        }
        info!("upgraded; {last} flows were remembered in the last moment");
        Ok(())
    }
}

impl Carrier {
    fn open(
        pins: &Pins,
        name: &str,
        version: u32,
        reader: &'static FlowsReader,
        resumed: bool,
    ) -> Result<Self, Error> {
        let open = |version| {
            MapData::from_pin(pin_of(pins, name, version))
                .map_err(map_error("open a map of remembered flows"))
        };
        let to = Map::from_map_data(open(version::FLOWS)?).and_then(maps::HashMap::try_from);
        Ok(Self {
            from: open(version)?,
            to: to.map_err(map_error("open a map of remembered flows"))?,
            reader,
            flags: u64::from(if resumed { BPF_NOEXIST } else { BPF_ANY }),
            known: HashMap::new(),
        })
    }

    fn carry(&mut self) -> Result<Carried, Error> {
        let mut carried = Carried::default();
        let mut at = Walk::Start;
        loop {
            let read = (self.reader.entries)(&self.from, at);
            let (entries, next) = read.map_err(|source| Error::Io {
                action: "read the flows that an older version remembered",
                source,
            })?;
            for (key, entry) in entries {
                let timeless = FlowEntry { seen: 0, ..entry };
                if self.known.insert(key, timeless) == Some(timeless) {
                    continue;
                }
                carried.entries += 1;
                let written = self
                    .to
                    .insert(key, bytemuck::cast::<_, Words>(entry), self.flags);
                carried.lost += usize::from(written.is_err() && self.flags == u64::from(BPF_ANY));
            }
            match next {
                Some(next) => at = next,
                None => return Ok(carried),
            }
        }
    }
}

/// Ends this process as a crash would, where a test of upgrades asks for that.
pub(super) fn milestone(name: &str) {
    if cfg!(feature = "next-layout")
        && std::env::var_os("EVENKEEL_CRASH_AT").is_some_and(|at| at == name)
    {
        std::process::abort();
    }
}
