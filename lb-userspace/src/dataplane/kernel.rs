//! The data plane in the kernel.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use aya::{
    Ebpf, EbpfLoader,
    maps::{ArrayOfMaps, MapData, MapError, PerCpuArray},
    programs::{ProgramError, Xdp},
};
use aya_log::EbpfLogger;
use lb_common::{
    layout::{
        self, EndpointCounters, EndpointEvents, ExitCounters, RING_SLOTS, SMALL_RING_SLOTS, Slot,
        Tables, TrackingCounters, state,
    },
    verdict::Reason,
};
use log::Log;

use super::{
    DataPlane, OBJECT,
    attach::{self, Words},
    counters::Counters,
    error::map_error,
    flows::Flows,
    maps::{MAPS, blob, open_pin},
    pins::Pins,
    requirements,
    rings::Rings,
    sources::Sources,
    sum, syscall,
};
pub use super::{
    attach::{Attached, Unloaded},
    error::Error,
    maps::Kept,
};
use crate::{
    balance::{
        image::{self, Image, List},
        sweep::Table,
    },
    model::{DataPlaneConfig, Tracking},
};

/// The program's name in the object.
pub(crate) const ENTRY: &str = "evenkeel";

const WORDS: Words = Words {
    interfaces: "data_plane.interfaces",
    generic: "data_plane.xdp_mode = \"generic\"",
    unload: "'evenkeel unload', which interrupts forwarding",
};

/// The loaded program with its maps.
pub struct Kernel {
    pins: Pins,
    object: Ebpf,
    tables: ArrayOfMaps<MapData>,
    rings: Rings,
    small_rings: Rings,
    endpoints: PerCpuArray<MapData, [u64; 3]>,
    exits: PerCpuArray<MapData, [u64; Reason::ROW]>,
    all_endpoints: Counters<3>,
    all_exits: Counters<{ Reason::ROW }>,
    sources: Sources,
    kept: Vec<Kept>,
    events: PerCpuArray<MapData, [u64; 4]>,
    tracking: PerCpuArray<MapData, [u64; 4]>,
    flows: Flows,
    log: EbpfLogger<&'static dyn Log>,
    /// The rings that the published tables name.
    published: BTreeMap<u32, Arc<[Slot]>>,
    /// The lists of sources that they name.
    published_lists: BTreeMap<u32, Arc<List>>,
}

impl Kernel {
    /// Loads the program onto the pinned maps, making those that are missing. Nothing is
    /// attached yet, and nothing that forwards is changed.
    ///
    /// A pinned map of flows is taken in whatever size it has; see [`Kernel::kept`].
    ///
    /// Kernel 5.14 or later, for batches on maps of maps.
    ///
    /// # Errors
    /// Where the folder of pins cannot be had, the kernel refuses, or pins are of another layout.
    pub fn open(config: &DataPlaneConfig, tracking: &Tracking) -> Result<Self, Error> {
        requirements::check()?;
        let pins = Pins::open(&config.pins)?;
        let mut loader = EbpfLoader::new();
        let mut kept = Vec::new();
        for shape in &MAPS {
            let path = pins.path(shape.name);
            if path.exists() {
                kept.extend(shape.check(&path, tracking)?);
            }
            loader.map_pin_path(shape.name, path);
            if let Some(entries) = shape.configured(tracking) {
                loader.map_max_entries(shape.name, entries);
            }
        }
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| Error::Io {
            action: "count the CPUs",
            source,
        })? as u32;
        loader.override_global("CPUS", &cpus, true);
        let mut object = loader.load(OBJECT).map_err(Error::Load)?;
        let program = program(&mut object)?;
        program.load().map_err(Error::Program)?;
        let log = EbpfLogger::init(&mut object).map_err(Error::Log)?;
        let mut kernel = Self {
            tables: open_pin(&pins, "TABLES", ArrayOfMaps::try_from)?,
            rings: Rings::open(&pins, "RINGS", RING_SLOTS)?,
            small_rings: Rings::open(&pins, "SMALL_RINGS", SMALL_RING_SLOTS)?,
            endpoints: open_pin(&pins, "ENDPOINTS", PerCpuArray::try_from)?,
            exits: open_pin(&pins, "EXITS", PerCpuArray::try_from)?,
            all_endpoints: Counters::open(&pins, "ENDPOINTS")?,
            all_exits: Counters::open(&pins, "EXITS")?,
            sources: Sources::open(&pins)?,
            kept,
            events: open_pin(&pins, "EVENTS", PerCpuArray::try_from)?,
            tracking: open_pin(&pins, "TRACKING", PerCpuArray::try_from)?,
            flows: Flows::open(|table| {
                MapData::from_pin(pins.path(match table {
                    Table::Fresh => "FRESH",
                    Table::Established => "ESTABLISHED",
                }))
            })
            .map_err(map_error("open the remembered flows"))?,
            log,
            published: BTreeMap::new(),
            published_lists: BTreeMap::new(),
            pins,
            object,
        };
        if let Some(live) = kernel.live()? {
            kernel.published = live.rings;
            kernel.published_lists = live.lists;
        }
        // What an interrupted publication left behind, which no packet follows.
        kernel.sources.retain(&kernel.published_lists)?;
        Ok(kernel)
    }

    /// Pinned maps of flows whose size is not the configured one.
    #[must_use]
    pub fn kept(&self) -> &[Kept] {
        &self.kept
    }

    /// Attaches the program, or puts it in the place of an earlier controller's without a gap.
    ///
    /// Links to interfaces that are not configured any more are removed.
    ///
    /// # Errors
    /// Where an interface is missing or the kernel refuses; interfaces before it stay attached.
    pub fn attach(&mut self, config: &DataPlaneConfig) -> Result<Vec<Attached>, Error> {
        let program = program(&mut self.object)?;
        let (interfaces, mode) = (&config.interfaces, config.xdp_mode);
        let attached = attach::attach(program, &self.pins, interfaces, mode, &WORDS);
        Ok(attached?)
    }

    /// Sets the counters of endpoints to zero whose numbers are handed out anew.
    ///
    /// # Errors
    /// Where the kernel does not take it.
    pub fn reset(&mut self, fresh: &image::Fresh) -> Result<(), Error> {
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| Error::Io {
            action: "count the CPUs",
            source,
        })?;
        let zeroes = |n| aya::maps::PerCpuValues::try_from(vec![n; cpus]);
        for &number in &fresh.endpoints {
            let values = zeroes([0; 3]).map_err(|source| Error::Io {
                action: "reset an endpoint's counters",
                source,
            })?;
            self.endpoints
                .set(u32::from(number), values, 0)
                .map_err(map_error("reset an endpoint's counters"))?;
        }
        for &number in &fresh.services {
            let values = aya::maps::PerCpuValues::try_from(vec![[0; Reason::ROW]; cpus]).map_err(
                |source| Error::Io {
                    action: "reset a service's counters",
                    source,
                },
            )?;
            self.exits
                .set(u32::from(number) + 1, values, 0)
                .map_err(map_error("reset a service's counters"))?;
        }
        Ok(())
    }

    /// The remembered flows.
    pub const fn flows(&self) -> &Flows {
        &self.flows
    }

    /// What else an endpoint's flows met, over all CPUs.
    ///
    /// # Errors
    /// Where the kernel does not answer.
    pub fn events(&self, number: u16) -> Result<EndpointEvents, Error> {
        let values = self
            .events
            .get(&u32::from(number), 0)
            .map_err(map_error("read an endpoint's events"))?;
        Ok(bytemuck::cast(sum(values.iter())))
    }

    /// What became of the memory of flows, over all CPUs.
    ///
    /// # Errors
    /// Where the kernel does not answer.
    pub fn tracking(&self) -> Result<TrackingCounters, Error> {
        let values = self
            .tracking
            .get(&0, 0)
            .map_err(map_error("read the counters of remembered flows"))?;
        Ok(bytemuck::cast(sum(values.iter())))
    }

    /// Hands what the program itself had to say on to this process's log: the first packet on
    /// each CPU that the tables should have ruled out.
    pub fn flush_log(&mut self) {
        self.log.flush();
    }

    /// The loaded program, to run it on test packets.
    ///
    /// # Errors
    /// Never, unless the object lacks its program.
    pub fn program(&mut self) -> Result<&mut Xdp, Error> {
        program(&mut self.object)
    }
}

impl DataPlane for Kernel {
    fn publish(&mut self, image: &Image) -> Result<(), Error> {
        let (small, large): (Vec<_>, Vec<_>) = image
            .rings
            .iter()
            .filter(|(number, slots)| self.published.get(number) != Some(slots))
            .partition(|(_, slots)| slots.len() <= SMALL_RING_SLOTS);
        self.small_rings.publish(&small)?;
        self.rings.publish(&large)?;
        let published = &self.published_lists;
        let new_lists = image
            .lists
            .iter()
            .filter(|(number, list)| published.get(number) != Some(list))
            .map(|(number, list)| (*number, &**list));
        self.sources.write(new_lists)?;
        let tables = blob(std::slice::from_ref(&*image.tables))?;
        // Returns once no packet follows the old tables any more.
        self.tables
            .set(0, &tables, 0)
            .map_err(map_error("publish tables"))?;
        let (small, large): (Vec<_>, Vec<_>) = self
            .published
            .iter()
            .filter(|(number, _)| !image.rings.contains_key(number))
            .partition(|(_, slots)| slots.len() <= SMALL_RING_SLOTS);
        self.small_rings.retire(&small)?;
        self.rings.retire(&large)?;
        self.published.clone_from(&image.rings);
        if self.published_lists != image.lists {
            self.sources.retain(&image.lists)?;
            self.published_lists.clone_from(&image.lists);
        }
        Ok(())
    }

    fn live(&self) -> Result<Option<Image>, Error> {
        let inner = match self.tables.get(&0, 0) {
            Ok(inner) => inner,
            Err(MapError::KeyNotFound) => return Ok(None),
            Err(source) => {
                return Err(Error::Map {
                    action: "open the live tables",
                    source,
                });
            }
        };
        let mut tables: Box<Tables> = bytemuck::zeroed_box();
        syscall::lookup(&inner, 0, bytemuck::bytes_of_mut(&mut *tables)).map_err(|source| {
            Error::Io {
                action: "read the live tables",
                source,
            }
        })?;
        if tables.header.version != layout::VERSION {
            return Err(Error::OtherLayout {
                path: self.pins.path("TABLES"),
                found: format!("layout {}", tables.header.version),
                expected: format!("layout {}", layout::VERSION),
            });
        }
        let mut rings = BTreeMap::new();
        for vip in image::vips(&tables).filter(|vip| vip.state == state::SERVING) {
            let slots = usize::from(vip.slot_mask) + 1;
            let kind = if slots <= SMALL_RING_SLOTS {
                &self.small_rings
            } else {
                &self.rings
            };
            rings.insert(vip.ring, kind.read(vip.ring, slots)?);
        }
        let named = |number: &u32| tables.services.iter().any(|of| of.sources == *number);
        let lists = if tables.services.iter().any(|of| of.sources != 0) {
            let mut lists = self.sources.read()?;
            lists.retain(|number, _| named(number));
            lists
        } else {
            BTreeMap::new()
        };
        Ok(Some(Image {
            tables,
            rings,
            lists,
        }))
    }

    fn endpoint(&self, number: u16) -> Result<EndpointCounters, Error> {
        let values = self
            .endpoints
            .get(&u32::from(number), 0)
            .map_err(map_error("read an endpoint's counters"))?;
        Ok(bytemuck::cast(sum(values.iter())))
    }

    fn endpoints(&self, count: usize) -> Result<Vec<EndpointCounters>, Error> {
        let counters = self.all_endpoints.read(count.min(layout::ENDPOINTS))?;
        Ok(counters.into_iter().map(bytemuck::cast).collect())
    }

    fn exit_rows(&self, count: usize) -> Result<Vec<ExitCounters>, Error> {
        self.all_exits.read(count.min(layout::EXIT_ROWS))
    }

    fn exits(&self, row: u32) -> Result<ExitCounters, Error> {
        let values = self
            .exits
            .get(&row, 0)
            .map_err(map_error("read the exit counters"))?;
        Ok(sum(values.iter()))
    }
}

/// Detaches the program and removes everything pinned, which interrupts forwarding.
///
/// `None` where nothing was loaded.
///
/// # Errors
/// Where a controller holds the folder, or the system refuses.
pub fn unload(folder: &Path) -> Result<Option<Unloaded>, Error> {
    let Some(pins) = Pins::existing(folder)? else {
        return Ok(None);
    };
    let is_map = |name: &str| MAPS.iter().any(|shape| shape.name == name);
    Ok(Some(attach::unload(pins, is_map)?))
}

fn program(object: &mut Ebpf) -> Result<&mut Xdp, Error> {
    object
        .program_mut(ENTRY)
        .ok_or_else(|| Error::Program(ProgramError::NotLoaded))?
        .try_into()
        .map_err(Error::Program)
}
