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
    pin::PinError,
    programs::{
        ProgramError, Xdp,
        links::{FdLink, LinkError, PinnedLink},
        xdp::{XdpLink, XdpMode as Hook},
    },
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

use crate::{
    balance::{
        image::{self, Image},
        sweep::Table,
    },
    causes::with_causes,
    dataplane::{
        DataPlane, OBJECT,
        flows::Flows,
        pins::{Pins, PinsError},
        syscall,
    },
    model::{DataPlaneConfig, XdpMode},
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
         that version, or 'evenkeel unload', which interrupts forwarding",
        path.display()
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
    /// Something could not be pinned.
    #[error("pin {}: {source}", path.display())]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: PinError,
    },
    /// There is no interface of this name.
    #[error(
        "interface {0} does not exist: correct data_plane.interfaces ('ip -brief link' lists them)"
    )]
    NoInterface(String),
    /// The program was not attached.
    #[error("attach to {interface} in {mode} mode: {reason}")]
    Attach {
        /// The interface.
        interface: String,
        /// The mode.
        mode: XdpMode,
        /// Why, and what to do.
        reason: String,
    },
}

/// An interface that the program is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Whether a link of an earlier controller was taken over.
    pub adopted: bool,
}

/// What [`unload`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unloaded {
    /// Pins that were removed.
    pub removed: Vec<String>,
    /// Files in the folder that are not Evenkeel's, and were left.
    pub foreign: Vec<String>,
}

/// How many rings are published at once: each takes a file descriptor meanwhile, of which a
/// process may have 1,024 by default, and each batch a wait for readers.
const BATCH: usize = 256;

const PROGRAM: &str = "program";
const LINK: &str = "link-";

/// A map's name, with its type, its value's size and how many it holds.
type Shape = (&'static str, u32, usize, usize);

/// `BPF_MAP_TYPE_*` of linux/bpf.h.
const HASH: u32 = 1;
const PER_CPU_ARRAY: u32 = 6;
const LRU_HASH: u32 = 9;
const LPM_TRIE: u32 = 11;
const ARRAY_OF_MAPS: u32 = 12;

/// As [`Shape`]'s last number: as many as the configuration says.
const CONFIGURED: usize = 0;

const MAPS: [Shape; 14] = [
    ("TABLES", ARRAY_OF_MAPS, 4, 1),
    ("RINGS", ARRAY_OF_MAPS, 4, layout::RINGS),
    ("SMALL_RINGS", ARRAY_OF_MAPS, 4, layout::RINGS),
    (
        "ENDPOINTS",
        PER_CPU_ARRAY,
        size_of::<EndpointCounters>(),
        layout::ENDPOINTS,
    ),
    (
        "EXITS",
        PER_CPU_ARRAY,
        size_of::<ExitCounters>(),
        layout::EXIT_ROWS,
    ),
    (
        "EVENTS",
        PER_CPU_ARRAY,
        size_of::<layout::EndpointEvents>(),
        layout::ENDPOINTS,
    ),
    (
        "TRACKING",
        PER_CPU_ARRAY,
        size_of::<layout::TrackingCounters>(),
        1,
    ),
    ("SYNS", PER_CPU_ARRAY, size_of::<layout::RecentSyns>(), 1),
    ("SCRATCH", PER_CPU_ARRAY, size_of::<layout::Scratch>(), 1),
    (
        "FRESH",
        LRU_HASH,
        size_of::<layout::FlowEntry>(),
        CONFIGURED,
    ),
    (
        "ESTABLISHED",
        HASH,
        size_of::<layout::FlowEntry>(),
        CONFIGURED,
    ),
    (
        "FRAGMENTS",
        LRU_HASH,
        size_of::<layout::FlowEntry>(),
        layout::FRAGMENTS,
    ),
    ("SOURCES", LPM_TRIE, 1, layout::SOURCES),
    (
        "LIMITS",
        LRU_HASH,
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
    events: PerCpuArray<MapData, [u64; 4]>,
    tracking: PerCpuArray<MapData, [u64; 4]>,
    flows: Flows,
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
                check_shape(&path, shape)?;
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
        let mut attached = Vec::new();
        for name in &config.interfaces {
            let index = interface_index(name)?;
            let adopted = self.attach_one(name, index, config.xdp_mode)?;
            attached.push(Attached {
                name: name.clone(),
                index,
                adopted,
            });
        }
        let wanted: Vec<String> = attached
            .iter()
            .map(|a| format!("{LINK}{}", a.index))
            .collect();
        for name in self.pins.names()? {
            if name.starts_with(LINK) && !wanted.contains(&name) {
                self.pins.remove(&name)?;
            }
        }
        // A new pin beside the old one, then renamed over it: there always is one.
        let (staging, place) = (self.pins.path("program-new"), self.pins.path(PROGRAM));
        self.pins.remove("program-new")?;
        program(&mut self.object)?
            .pin(&staging)
            .map_err(|source| Error::Pin {
                path: staging.clone(),
                source,
            })?;
        std::fs::rename(&staging, &place).map_err(|source| Error::Io {
            action: "put the program's pin in place",
            source,
        })?;
        Ok(attached)
    }

    fn attach_one(&mut self, name: &str, index: u32, mode: XdpMode) -> Result<bool, Error> {
        let failed = |reason: String| Error::Attach {
            interface: name.to_owned(),
            mode,
            reason,
        };
        let pin = self.pins.path(&format!("{LINK}{index}"));
        let program = program(&mut self.object)?;
        if pin.exists() {
            let link = PinnedLink::from_pin(&pin).map_err(|e| failed(with_causes(&e)))?;
            let link =
                XdpLink::try_from(FdLink::from(link)).map_err(|e| failed(with_causes(&e)))?;
            match program.attach_to_link(link) {
                Ok(_) => return Ok(true),
                // The interface that the link was made for is gone, another has its index.
                Err(e) if os_error(&e) == Some(libc::ENOLINK) => {
                    std::fs::remove_file(&pin).map_err(|source| Error::Io {
                        action: "remove the pin of a link whose interface is gone",
                        source,
                    })?;
                }
                Err(e) => return Err(failed(with_causes(&e))),
            }
        }
        let hook = match mode {
            XdpMode::Native => Hook::Driver,
            XdpMode::Generic => Hook::Skb,
        };
        let id = program
            .attach_to_if_index(index, hook)
            .map_err(|e| failed(remedy(&e, mode)))?;
        let link = program.take_link(id).map_err(|e| failed(with_causes(&e)))?;
        // A link by netlink cannot be pinned and would be lost with this process.
        let link: FdLink = link.try_into().map_err(|e: LinkError| {
            failed(format!(
                "{}; the kernel takes no link here (5.9 or later does)",
                with_causes(&e)
            ))
        })?;
        link.pin(&pin).map_err(|source| Error::Pin {
            path: pin.clone(),
            source,
        })?;
        Ok(false)
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
    let mut unloaded = Unloaded::default();
    let (mut own, foreign): (Vec<_>, Vec<_>) = pins.names()?.into_iter().partition(|name| {
        name.starts_with(LINK)
            || name.starts_with(PROGRAM)
            || MAPS.iter().any(|shape| shape.0 == name)
    });
    // Links first: no packet meets a program whose maps are half gone.
    own.sort_by_key(|name| !name.starts_with(LINK));
    for name in own {
        pins.remove(&name)?;
        unloaded.removed.push(name);
    }
    if foreign.is_empty() {
        pins.remove_folder()?;
    }
    unloaded.foreign = foreign;
    Ok(Some(unloaded))
}

fn sum<'a, const N: usize>(values: impl Iterator<Item = &'a [u64; N]>) -> [u64; N] {
    values.fold([0; N], |total, cpu| {
        std::array::from_fn(|n| total[n].wrapping_add(cpu[n]))
    })
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
    let shape = aya_obj::Map::new_from_params(ARRAY, 4, bytes.len() as u32, 1, 0);
    let map = MapData::create(shape, "evenkeel_blob", None).map_err(map_error("make a table"))?;
    syscall::update(&map, 0, bytes).map_err(|source| Error::Io {
        action: "fill a table",
        source,
    })?;
    Ok(map)
}

/// `BPF_MAP_TYPE_ARRAY` of linux/bpf.h.
const ARRAY: u32 = 2;

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

fn check_shape(path: &Path, &(_, kind, value, entries): &Shape) -> Result<(), Error> {
    let info = MapData::from_pin(path)
        .and_then(|map| map.info())
        .map_err(map_error("open a pinned map"))?;
    let found_kind = info.map_type().map_or(u32::MAX, |kind| kind as u32);
    let entries_found = if entries == CONFIGURED {
        CONFIGURED
    } else {
        info.max_entries() as usize
    };
    let found = (found_kind, info.value_size() as usize, entries_found);
    if found == (kind, value, entries) {
        return Ok(());
    }
    let words = |(kind, value, entries)| format!("type {kind}, {entries} values of {value} bytes");
    Err(Error::OtherLayout {
        path: path.to_owned(),
        found: words(found),
        expected: words((kind, value, entries)),
    })
}

fn map_error(action: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map { action, source }
}

fn interface_index(name: &str) -> Result<u32, Error> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::DGRAM,
        None,
    )
    .map_err(|e| Error::Io {
        action: "open a socket to look up an interface",
        source: e.into(),
    })?;
    rustix::net::netdevice::name_to_index(&socket, name)
        .map_err(|_| Error::NoInterface(name.to_owned()))
}

/// The system's error number at the root of aya's error.
fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        next = error.source();
    }
    None
}

fn remedy(error: &ProgramError, mode: XdpMode) -> String {
    match os_error(error) {
        Some(libc::EBUSY | libc::EEXIST) => {
            "another XDP program is attached ('ip link show' tells \
             its id): detach it ('ip link set dev … xdp off'), or unload the software it belongs to"
                .to_owned()
        }
        Some(libc::EOPNOTSUPP) if mode == XdpMode::Native => "the driver has no native XDP: use \
             another interface, or set data_plane.xdp_mode = \"generic\", which is several times \
             slower"
            .to_owned(),
        Some(libc::EINVAL | libc::ERANGE) if mode == XdpMode::Native => format!(
            "{}; the driver refuses native XDP in its present setting: try a smaller MTU, fewer \
             queues, or LRO off",
            with_causes(error)
        ),
        Some(libc::EPERM | libc::EACCES) => "not permitted: run as root".to_owned(),
        _ => with_causes(error),
    }
}
