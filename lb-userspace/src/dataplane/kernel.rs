//! The data plane in the kernel.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{ArrayOfMaps, Map, MapData, MapError, PerCpuArray},
    programs::{ProgramError, Xdp},
};
use aya_log::EbpfLogger;
use lb_common::{
    layout::{
        self, EndpointCounters, ExitCounters, RING_SLOTS, SMALL_RING_SLOTS, Slot, Tables, state,
    },
    verdict::Reason,
};

use log::Log;

pub use crate::dataplane::attach::{Attached, Unloaded};
use crate::{
    balance::image::{self, Image},
    dataplane::{
        DataPlane, OBJECT,
        attach::{self, CONFIGURED, Shape, Words, check_shape, kind},
        pins::{Pins, PinsError},
        sum, syscall,
    },
    model::DataPlaneConfig,
};

/// Why the kernel's side failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder of pins cannot be had.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// The object was not loaded.
    #[error("load the XDP program: {0}")]
    Load(#[source] EbpfError),
    /// The program was refused.
    #[error("load the XDP program: {0}")]
    Program(#[source] ProgramError),
    /// The program was built without its log.
    #[error("open the XDP program's log: {0}")]
    Log(#[source] aya_log::Error),
    /// A pinned map is not what this version expects.
    #[error(
        "{} was pinned by another version of evenkeel ({found}, this one needs {expected}): run \
         that version, or {}",
        path.display(), UNLOAD
    )]
    OtherLayout {
        /// The pinned map.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// A map could not be made, found or opened.
    #[error("{action}: {source}")]
    Map {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: MapError,
    },
    /// A map could not be read or written.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The program is not on its interfaces.
    #[error(transparent)]
    Attach(#[from] attach::Error),
}

/// How many rings are published at once: each takes a file descriptor meanwhile, of which a
/// process may have 1,024 by default, and each batch a wait for readers.
const BATCH: usize = 256;

const WORDS: Words = Words {
    interfaces: "data_plane.interfaces",
    generic: "data_plane.xdp_mode = \"generic\"",
    unload: UNLOAD,
};

const UNLOAD: &str = "'evenkeel unload', which interrupts forwarding";

const MAPS: [Shape; 14] = [
    ("TABLES", kind::ARRAY_OF_MAPS, 4, 1),
    ("RINGS", kind::ARRAY_OF_MAPS, 4, layout::RINGS),
    ("SMALL_RINGS", kind::ARRAY_OF_MAPS, 4, layout::RINGS),
    (
        "ENDPOINTS",
        kind::PER_CPU_ARRAY,
        size_of::<EndpointCounters>(),
        layout::ENDPOINTS,
    ),
    (
        "EXITS",
        kind::PER_CPU_ARRAY,
        size_of::<ExitCounters>(),
        layout::EXIT_ROWS,
    ),
    (
        "EVENTS",
        kind::PER_CPU_ARRAY,
        size_of::<layout::EndpointEvents>(),
        layout::ENDPOINTS,
    ),
    (
        "TRACKING",
        kind::PER_CPU_ARRAY,
        size_of::<layout::TrackingCounters>(),
        1,
    ),
    (
        "SYNS",
        kind::PER_CPU_ARRAY,
        size_of::<layout::RecentSyns>(),
        1,
    ),
    (
        "SCRATCH",
        kind::PER_CPU_ARRAY,
        size_of::<layout::Scratch>(),
        1,
    ),
    (
        "FRESH",
        kind::LRU_HASH,
        size_of::<layout::FlowEntry>(),
        CONFIGURED,
    ),
    (
        "ESTABLISHED",
        kind::HASH,
        size_of::<layout::FlowEntry>(),
        CONFIGURED,
    ),
    (
        "FRAGMENTS",
        kind::LRU_HASH,
        size_of::<layout::FlowEntry>(),
        layout::FRAGMENTS,
    ),
    ("SOURCES", kind::LPM_TRIE, 1, layout::SOURCES),
    (
        "LIMITS",
        kind::LRU_HASH,
        size_of::<layout::Allowance>(),
        layout::LIMITS,
    ),
];

/// An array of one value that is too large for the stack.
type Blob = MapData;

/// The loaded program with its maps.
pub struct Kernel {
    pins: Pins,
    object: Ebpf,
    tables: ArrayOfMaps<MapData>,
    rings: Rings,
    small_rings: Rings,
    endpoints: PerCpuArray<MapData, [u64; 3]>,
    exits: PerCpuArray<MapData, [u64; Reason::ROW]>,
    log: EbpfLogger<&'static dyn Log>,
    /// The rings that the published tables name.
    published: BTreeMap<u32, Arc<[Slot]>>,
}

impl Kernel {
    /// Loads the program onto the pinned maps, making those that are missing. Nothing is
    /// attached yet, and nothing that forwards is changed.
    ///
    /// Kernel 5.14 or later, for batches on maps of maps.
    ///
    /// # Errors
    /// Where the folder of pins cannot be had, the kernel refuses, or pins are of another layout.
    pub fn open(config: &DataPlaneConfig) -> Result<Self, Error> {
        let pins = Pins::open(&config.pins)?;
        let mut loader = EbpfLoader::new();
        for shape in &MAPS {
            let path = pins.path(shape.0);
            if path.exists() {
                check_shape(&path, shape, &WORDS)?;
            }
            loader.map_pin_path(shape.0, path);
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
            log,
            published: BTreeMap::new(),
            pins,
            object,
        };
        if let Some(live) = kernel.live()? {
            kernel.published = live.rings;
        }
        Ok(kernel)
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
        Ok(attach::attach(
            program, &self.pins, interfaces, mode, &WORDS,
        )?)
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
        Ok(Some(Image { tables, rings }))
    }

    fn endpoint(&self, number: u16) -> Result<EndpointCounters, Error> {
        let values = self
            .endpoints
            .get(&u32::from(number), 0)
            .map_err(map_error("read an endpoint's counters"))?;
        Ok(bytemuck::cast(sum(values.iter())))
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
    let is_map = |name: &str| MAPS.iter().any(|shape| shape.0 == name);
    Ok(Some(attach::unload(pins, is_map)?))
}

fn program(object: &mut Ebpf) -> Result<&mut Xdp, Error> {
    object
        .program_mut("evenkeel")
        .ok_or_else(|| Error::Program(ProgramError::NotLoaded))?
        .try_into()
        .map_err(Error::Program)
}

/// The rings of one size.
struct Rings {
    outer: ArrayOfMaps<MapData>,
    /// The same map, for batches.
    data: MapData,
    slots: usize,
    /// Stands in for every ring that is not in use.
    blank: Blob,
}

impl Rings {
    fn open(pins: &Pins, name: &'static str, slots: usize) -> Result<Self, Error> {
        Ok(Self {
            outer: open_pin(pins, name, ArrayOfMaps::try_from)?,
            data: MapData::from_pin(pins.path(name)).map_err(map_error("open the rings"))?,
            slots,
            blank: blob(&vec![Slot::steady(layout::NONE); slots])?,
        })
    }

    /// Puts rings under numbers that no packet follows.
    fn publish(&self, rings: &[(&u32, &Arc<[Slot]>)]) -> Result<(), Error> {
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
    fn retire(&self, rings: &[(&u32, &Arc<[Slot]>)]) -> Result<(), Error> {
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

    /// Reads the first slots of a ring.
    fn read(&self, number: u32, slots: usize) -> Result<Arc<[Slot]>, Error> {
        let inner = self
            .outer
            .get(&number, 0)
            .map_err(map_error("open a live ring"))?;
        let mut ring = vec![Slot::steady(layout::NONE); self.slots];
        syscall::lookup(&inner, 0, bytemuck::cast_slice_mut(&mut ring)).map_err(|source| {
            Error::Io {
                action: "read a live ring",
                source,
            }
        })?;
        ring.truncate(slots);
        Ok(ring.into())
    }
}

/// Makes an array of one value.
fn blob<T: bytemuck::NoUninit>(value: &[T]) -> Result<Blob, Error> {
    let bytes: &[u8] = bytemuck::cast_slice(value);
    let shape = aya_obj::Map::new_from_params(kind::ARRAY, 4, bytes.len() as u32, 1, 0);
    let map = MapData::create(shape, "evenkeel_blob", None).map_err(map_error("make a table"))?;
    syscall::update(&map, 0, bytes).map_err(|source| Error::Io {
        action: "fill a table",
        source,
    })?;
    Ok(map)
}

fn open_pin<M>(
    pins: &Pins,
    name: &str,
    kind: impl Fn(Map) -> Result<M, MapError>,
) -> Result<M, Error> {
    MapData::from_pin(pins.path(name))
        .and_then(Map::from_map_data)
        .and_then(kind)
        .map_err(map_error("open a pinned map"))
}

fn map_error(action: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map { action, source }
}
