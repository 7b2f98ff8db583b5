//! What packets follow: tables, rings and lists of sources, written whole and read back.

use std::{collections::BTreeMap, sync::Arc};

use aya::maps::{ArrayOfMaps, MapData, MapError};
use lb_common::layout::{SMALL_RING_SLOTS, Slot, Tables, state};

use super::{
    error::{Error, map_error},
    layouts::TablesReader,
    maps::{Blob, blob, open_pin, pin_of},
    pins::Pins,
    rings::Rings,
    sources::Sources,
    syscall,
};
use crate::balance::image::{self, Image, List};

/// The maps of one version.
pub(super) struct Published {
    tables: ArrayOfMaps<MapData>,
    rings: Rings,
    small_rings: Rings,
    sources: Sources,
    reader: &'static TablesReader,
    /// Where the tables are pinned, for messages.
    pin: std::path::PathBuf,
    version: u32,
}

/// What tables name of other maps.
#[derive(Debug, Default)]
pub(super) struct Named {
    rings: BTreeMap<u32, Arc<[Slot]>>,
    lists: BTreeMap<u32, Arc<List>>,
}

/// What packets follow, as far as it was read back.
pub struct Reading {
    image: Image,
    /// The rings that have not been read, with their sizes.
    rings: BTreeMap<u32, usize>,
}

impl Reading {
    /// What was read.
    #[must_use]
    pub fn done(self) -> Image {
        self.image
    }
}

impl Named {
    /// What an image names.
    pub(super) fn by(image: &Image) -> Self {
        Self {
            rings: image.rings.clone(),
            lists: image.lists.clone(),
        }
    }
}

impl Published {
    /// Opens what is pinned.
    pub(super) fn open(
        pins: &Pins,
        version: u32,
        reader: &'static TablesReader,
    ) -> Result<Self, Error> {
        let pin = |name| pin_of(pins, name, version);
        let [large, small] = reader.slots;
        Ok(Self {
            tables: open_pin(&pin("TABLES"), ArrayOfMaps::try_from)?,
            rings: Rings::open(&pin("RINGS"), large)?,
            small_rings: Rings::open(&pin("SMALL_RINGS"), small)?,
            sources: Sources::open(&pin("SOURCES"))?,
            reader,
            pin: pin("TABLES"),
            version,
        })
    }

    /// Puts an image in the place of what is named now, whose rings that it names no more are
    /// [freed](Self::free) later.
    pub(super) fn replace(&mut self, now: &Named, image: &Image) -> Result<(), Error> {
        let (small, large): (Vec<_>, Vec<_>) = image
            .rings
            .iter()
            .filter(|(number, slots)| now.rings.get(number) != Some(slots))
            .partition(|(_, slots)| slots.len() <= SMALL_RING_SLOTS);
        let new_lists = image
            .lists
            .iter()
            .filter(|(number, list)| now.lists.get(number) != Some(list))
            .map(|(number, list)| (*number, &**list));
        self.sources.write(new_lists)?;
        let tables = blob(std::slice::from_ref(&*image.tables))?;
        let Self {
            tables: outer,
            rings,
            small_rings,
            ..
        } = self;
        small_rings.publish(&small, || rings.publish(&large, || point(outer, &tables)))?;
        let (small, large): (Vec<_>, Vec<_>) = now
            .rings
            .iter()
            .filter(|(number, _)| !image.rings.contains_key(number))
            .partition(|(_, slots)| slots.len() <= SMALL_RING_SLOTS);
        self.small_rings.retire(&small);
        self.rings.retire(&large);
        if now.lists != image.lists {
            self.sources.retain(&image.lists)?;
        }
        Ok(())
    }

    /// Frees rings that no packet follows any more. That waits for readers once more, which a
    /// publication need not.
    pub(super) fn free(&mut self) -> Result<(), Error> {
        self.small_rings.free()?;
        self.rings.free()
    }

    /// Says in the tables whether flows are still being carried over, and returns once every packet
    /// that began with other tables, or with the program before, has been decided.
    pub(super) fn take_over(&mut self, begins: bool) -> Result<(), Error> {
        let Some(mut tables) = self.read_tables()? else {
            return Ok(());
        };
        tables.header.takes_over = begins.into();
        point(&mut self.tables, &blob(std::slice::from_ref(&*tables))?)
    }

    /// Removes lists of sources that an interrupted publication left.
    pub(super) fn tidy(&mut self, named: &Named) -> Result<(), Error> {
        self.sources.retain(&named.lists)
    }

    /// Reads back what packets follow; `None` before the first publication.
    pub(super) fn read(&self) -> Result<Option<Image>, Error> {
        let Some(mut reading) = self.begin_reading()? else {
            return Ok(None);
        };
        self.read_on(&mut reading, usize::MAX, &BTreeMap::new())?;
        Ok(Some(reading.image))
    }

    /// Reads back what packets follow but for the rings; `None` before the first publication.
    pub(super) fn begin_reading(&self) -> Result<Option<Reading>, Error> {
        let Some(mut tables) = self.read_tables()? else {
            return Ok(None);
        };
        // It says something of the moment, not of what is intended.
        tables.header.takes_over = 0;
        let mut rings = BTreeMap::new();
        for vip in image::vips(&tables).filter(|vip| vip.state == state::SERVING) {
            let slots = usize::from(vip.slot_mask) + 1;
            if !slots.is_power_of_two() {
                return Err(Error::Damaged {
                    service: vip.service,
                    slots,
                });
            }
            rings.insert(vip.ring, slots);
        }
        let named = |number: &u32| tables.services.iter().any(|of| of.sources == *number);
        let lists = if tables.services.iter().any(|of| of.sources != 0) {
            let mut lists = self.sources.read()?;
            lists.retain(|number, _| named(number));
            lists
        } else {
            BTreeMap::new()
        };
        Ok(Some(Reading {
            image: Image {
                tables,
                rings: BTreeMap::new(),
                lists,
            },
            rings,
        }))
    }

    /// Reads so many slots more, rounded up to whole rings; true at the end. Rings that are as those
    /// that are known take no memory of their own.
    pub(super) fn read_on(
        &self,
        reading: &mut Reading,
        slots: usize,
        known: &BTreeMap<u32, Arc<[Slot]>>,
    ) -> Result<bool, Error> {
        let [_, small] = self.reader.slots;
        let mut read = 0;
        while read < slots
            && let Some((number, slots)) = reading.rings.pop_first()
        {
            let kind = if slots <= small {
                &self.small_rings
            } else {
                &self.rings
            };
            let words = kind.read(number, slots)?;
            let found = words.iter().map(|&word| (self.reader.slot)(word));
            let ring = match known.get(&number) {
                Some(ring) if found.clone().eq(ring.iter().copied()) => Arc::clone(ring),
                _ => found.collect(),
            };
            reading.image.rings.insert(number, ring);
            read += slots;
        }
        Ok(reading.rings.is_empty())
    }

    fn read_tables(&self) -> Result<Option<Box<Tables>>, Error> {
        let inner = match self.tables.get(&0, 0) {
            Ok(inner) => inner,
            Err(MapError::KeyNotFound) => return Ok(None),
            Err(source) => return Err(map_error("open the live tables")(source)),
        };
        let mut bytes = vec![0; self.reader.size];
        syscall::lookup(&inner, 0, &mut bytes).map_err(|source| Error::Io {
            action: "read the live tables",
            source,
        })?;
        // It comes first in all layouts.
        let version: u32 = bytemuck::pod_read_unaligned(&bytes[..4]);
        if version == self.version {
            return Ok(Some((self.reader.tables)(&bytes)));
        }
        Err(Error::OtherLayout {
            path: self.pin.clone(),
            found: format!("layout {version}"),
            expected: format!("layout {}", self.version),
        })
    }
}

/// Makes packets follow these tables; returns once none follows the old ones any more.
fn point(outer: &mut ArrayOfMaps<MapData>, tables: &Blob) -> Result<(), Error> {
    outer.set(0, tables, 0).map_err(map_error("publish tables"))
}
