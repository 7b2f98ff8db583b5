//! What earlier and later versions left in the folder of pins, and what becomes of it.
//!
//! Maps of another version lie beside the present ones while an upgrade is under way: the old ones
//! until the last interface has the new program, the new ones from the start. Which of them count
//! is for the links to say: packets follow the maps of the program that a pinned link holds.

use std::collections::BTreeSet;

use aya::{
    maps::MapData,
    programs::{
        links::{FdLink, PinnedLink},
        loaded_programs,
    },
};
use log::info;

use super::{
    attach::LINK,
    error::{Error, map_error},
    layouts,
    maps::{Part, Shape, of_pin},
    pins::Pins,
};
use crate::causes::with_causes;

/// What of an older version is to be taken over.
#[derive(Debug)]
pub(super) struct Remains {
    /// The version of tables to begin with; `None` where the present ones are followed already.
    pub(super) tables: Option<u32>,
    /// The version of flows to carry over.
    pub(super) flows: Option<u32>,
    /// Whether packets follow the present maps already: an upgrade was cut off after that.
    pub(super) resumed: bool,
    /// All pins that are removed in the end.
    pub(super) pins: Vec<String>,
}

/// A pinned map.
struct Pin {
    name: String,
    shape: &'static Shape,
    version: u32,
    followed: bool,
}

impl Pin {
    fn is_present(&self) -> bool {
        self.version == self.shape.part.version()
    }

    fn is_older(&self) -> bool {
        self.version < self.shape.part.version()
    }
}

/// Looks at what is pinned, and removes what interrupted upgrades left and no packet follows.
///
/// # Errors
/// Where packets follow what cannot be read: then nothing is removed.
pub(super) fn settle(pins: &Pins) -> Result<Option<Remains>, Error> {
    let found = look(pins)?;
    for pin in found.iter().filter(|pin| !pin.is_present()) {
        refuse(pins, pin)?;
    }
    let (newer, rest): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|pin| !pin.is_present() && !pin.is_older());
    let (older, present): (Vec<_>, Vec<_>) = rest.into_iter().partition(Pin::is_older);
    let (begun, followed): (Vec<_>, Vec<_>) = present.into_iter().partition(|pin| !pin.followed);
    let has_older = |part| older.iter().any(|pin| pin.shape.part == part);
    let begun = begun.iter().filter(|pin| has_older(pin.shape.part));
    for pin in newer.iter().chain(begun) {
        info!(
            "removing {}, which an upgrade left that was cut off",
            pin.name
        );
        pins.remove(&pin.name)?;
    }
    if older.is_empty() {
        return Ok(None);
    }
    let resumed = followed.iter().any(|pin| has_older(pin.shape.part));
    // Those that are followed come before those that another upgrade left.
    let version = |part| {
        let of_part = older.iter().filter(|pin| pin.shape.part == part);
        of_part
            .max_by_key(|pin| (pin.followed, pin.version))
            .map(|pin| pin.version)
    };
    Ok(Some(Remains {
        tables: version(Part::Tables).filter(|_| !resumed),
        flows: version(Part::Flows),
        resumed,
        pins: older.into_iter().map(|pin| pin.name).collect(),
    }))
}

/// Refuses what packets follow and this version cannot read.
fn refuse(pins: &Pins, pin: &Pin) -> Result<(), Error> {
    let (known, found) = (pin.shape.part.version(), pin.version);
    if found > known {
        return if pin.followed {
            Err(Error::Newer {
                path: pins.path(&pin.name),
                found,
                known,
            })
        } else {
            Ok(())
        };
    }
    let readable = match pin.shape.part {
        Part::Tables => layouts::tables(found).is_some(),
        Part::Flows => layouts::flows(found).is_some(),
        // They begin anew.
        Part::Counters => true,
    };
    if readable {
        return Ok(());
    }
    Err(Error::OtherLayout {
        path: pins.path(&pin.name),
        found: format!("layout {found}"),
        expected: format!("layout {known}"),
    })
}

fn look(pins: &Pins) -> Result<Vec<Pin>, Error> {
    let followed = followed(pins)?;
    let mut found = Vec::new();
    for name in pins.names()? {
        let Some((shape, version)) = of_pin(&name) else {
            continue;
        };
        let info = MapData::from_pin(pins.path(&name)).and_then(|map| map.info());
        let id = info.map_err(map_error("look at a pinned map"))?.id();
        found.push(Pin {
            name,
            shape,
            version,
            followed: followed.contains(&id),
        });
    }
    Ok(found)
}

/// The maps of the programs that the pinned links hold, by the kernel's numbers.
fn followed(pins: &Pins) -> Result<BTreeSet<u32>, Error> {
    let failed = |name: &str, why: &(dyn std::error::Error + 'static)| Error::Link {
        path: pins.path(name),
        reason: with_causes(why),
    };
    let mut programs = BTreeSet::new();
    let names = pins.names()?;
    for name in names.iter().filter(|name| name.starts_with(LINK)) {
        let link = PinnedLink::from_pin(pins.path(name)).map_err(|e| failed(name, &e))?;
        let info = FdLink::from(link).info().map_err(|e| failed(name, &e))?;
        programs.insert(info.program_id());
    }
    let mut maps = BTreeSet::new();
    if programs.is_empty() {
        return Ok(maps);
    }
    // Other programs may come and go meanwhile; those behind links stay.
    for program in loaded_programs().flatten() {
        if programs.contains(&program.id()) {
            let ids = program.map_ids().map_err(Error::Program)?;
            maps.extend(ids.into_iter().flatten());
        }
    }
    Ok(maps)
}
