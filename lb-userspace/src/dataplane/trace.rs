//! The program that tells what it decides and loses what a drill takes: put in the place of the plain
//! one while somebody watches or rehearses.

use std::path::PathBuf;

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{ProgramError, Xdp},
};
use aya_log::EbpfLogger;
use bytemuck::Zeroable as _;
use lb_common::{
    fault::Fault,
    trace::{Filter, Head, Pace, Seen, what},
};
use log::Log;

use super::{
    TRACE_OBJECT,
    error::{Error, map_error},
    flows::Flows,
    maps::MAPS,
    pins::Pins,
};

/// The program's name in its object.
const ENTRY: &str = "evenkeel_trace";
/// How the pins begin by which unpinned maps are lent, for a moment.
const LENT: &str = "lent-";

/// A map that is not pinned and that both programs share, by its number in the kernel.
pub(super) type Lendable = (&'static str, u32);

/// The maps that are not pinned, and that go on while somebody watches.
pub(super) const UNPINNED: [&str; 4] = ["SAMPLING", "SAMPLES", "WAITING", "LATENCIES"];

/// Takes note of the unpinned maps of a loaded object, before they are taken out of it.
pub(super) fn lendable(object: &Ebpf) -> Result<Vec<Lendable>, Error> {
    let of = |name: &'static str| {
        let map = object.map(name).ok_or_else(|| missing(name))?;
        let (Map::Array(data) | Map::RingBuf(data) | Map::LruHashMap(data)) = map else {
            return Err(missing(name));
        };
        let info = data.info().map_err(map_error("look at a map"))?;
        Ok((name, info.id()))
    };
    UNPINNED.into_iter().map(of).collect()
}

fn missing(name: &str) -> Error {
    map_error("find a map")(MapError::InvalidName {
        name: name.to_owned(),
    })
}

/// Removes what a process left that was killed while it lent maps.
pub(super) fn tidy(pins: &Pins) -> Result<(), Error> {
    for name in pins.names()? {
        if is_lent(&name) {
            pins.remove(&name)?;
        }
    }
    Ok(())
}

/// Whether a pin is one by which a map was lent.
pub(super) fn is_lent(pin: &str) -> bool {
    pin.strip_prefix(LENT)
        .is_some_and(|name| UNPINNED.contains(&name))
}

/// Pins of unpinned maps, for as long as an object is loaded.
struct Lent<'a> {
    pins: &'a Pins,
    paths: Vec<(&'static str, PathBuf)>,
}

impl<'a> Lent<'a> {
    fn new(pins: &'a Pins, maps: &[Lendable]) -> Result<Self, Error> {
        tidy(pins)?;
        let mut lent = Self {
            pins,
            paths: Vec::new(),
        };
        for &(name, id) in maps {
            let path = pins.path(&format!("{LENT}{name}"));
            let data = MapData::from_id(id).map_err(map_error("open a map to lend it"))?;
            data.pin(&path).map_err(|source| Error::Pin {
                path: path.clone(),
                source,
            })?;
            lent.paths.push((name, path));
        }
        Ok(lent)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        // What stays is removed before the next time, and by the next process.
        let _ = tidy(self.pins);
    }
}

/// The loaded program.
pub(super) struct Tracer {
    object: Ebpf,
    log: EbpfLogger<&'static dyn Log>,
    filter: Array<MapData, [u32; size_of::<Filter>() / 4]>,
    fault: Array<MapData, [u32; size_of::<Fault>() / 4]>,
    struck: PerCpuArray<MapData, u64>,
}

/// What the program told.
pub enum Record {
    /// A decision, with as much of the frame as was asked for.
    Seen(Box<Seen>, Vec<u8>),
    /// A frame that left.
    Left(Head, Vec<u8>),
}

/// What the program tells, for who reads it.
pub struct Records {
    ring: RingBuf<MapData>,
    pace: PerCpuArray<MapData, [u64; size_of::<Pace>() / 8]>,
}

impl Tracer {
    /// Loads the program onto the maps of the plain one. It tells nothing and takes nothing yet.
    pub(super) fn load(pins: &Pins, lendable: &[Lendable]) -> Result<Self, Error> {
        let lent = Lent::new(pins, lendable)?;
        let mut loader = EbpfLoader::new();
        for shape in &MAPS {
            loader.map_pin_path(shape.name, shape.pin(pins));
        }
        for (name, path) in &lent.paths {
            loader.map_pin_path(name, path);
        }
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| Error::Io {
            action: "count the CPUs",
            source,
        })? as u32;
        loader.override_global("CPUS", &cpus, true);
        let mut object = loader.load(TRACE_OBJECT).map_err(Error::Load)?;
        program(&mut object)?.load().map_err(Error::Program)?;
        let log = EbpfLogger::init(&mut object).map_err(Error::Log)?;
        let mut take = |name: &str| object.take_map(name).ok_or_else(|| missing(name));
        let open = map_error("open the maps of traces and drills");
        let filter = Array::try_from(take("FILTER")?).map_err(&open)?;
        let fault = Array::try_from(take("FAULT")?).map_err(&open)?;
        let struck = PerCpuArray::try_from(take("STRUCK")?).map_err(&open)?;
        let mut tracer = Self {
            object,
            log,
            filter,
            fault,
            struck,
        };
        let now = Flows::now();
        tracer.set(&Filter::over(now))?;
        tracer.strike(&Fault::over(now))?;
        Ok(tracer)
    }

    /// What the program tells from now on.
    pub(super) fn records(&self) -> Result<Records, Error> {
        let open = map_error("open the records");
        // Handles of its own: who reads is not who sets.
        let again = |name: &str| {
            let map = self.object.map(name).ok_or_else(|| missing(name))?;
            let (Map::RingBuf(data) | Map::PerCpuArray(data)) = map else {
                return Err(missing(name));
            };
            let id = data.info().map_err(map_error("look at a map"))?.id();
            MapData::from_id(id).map_err(map_error("open a map"))
        };
        Ok(Records {
            ring: RingBuf::try_from(Map::RingBuf(again("RECORDS")?)).map_err(&open)?,
            pace: PerCpuArray::try_from(Map::PerCpuArray(again("PACE")?)).map_err(&open)?,
        })
    }

    /// Says what is told.
    pub(super) fn set(&mut self, filter: &Filter) -> Result<(), Error> {
        self.filter
            .set(0, bytemuck::cast::<Filter, [u32; 21]>(*filter), 0)
            .map_err(map_error("say what is told"))
    }

    /// Says what a drill takes.
    pub(super) fn strike(&mut self, fault: &Fault) -> Result<(), Error> {
        self.fault
            .set(0, bytemuck::cast::<Fault, [u32; 11]>(*fault), 0)
            .map_err(map_error("say what a drill takes"))
    }

    /// How many packets drills took since the program was loaded.
    pub(super) fn struck(&self) -> Result<u64, Error> {
        let cpus = self.struck.get(&0, 0);
        let cpus = cpus.map_err(map_error("count what a drill took"))?;
        Ok(cpus.iter().sum())
    }

    /// Hands what the program itself had to say on to this process's log.
    pub(super) fn flush_log(&mut self) {
        self.log.flush();
    }

    /// The program.
    pub(super) fn program(&mut self) -> Result<&mut Xdp, Error> {
        program(&mut self.object)
    }
}

fn program(object: &mut Ebpf) -> Result<&mut Xdp, Error> {
    object
        .program_mut(ENTRY)
        .ok_or(ProgramError::NotLoaded)
        .and_then(TryInto::try_into)
        .map_err(Error::Program)
}

impl Records {
    /// Takes the next record out, if there is one.
    pub fn take(&mut self) -> Option<Record> {
        loop {
            let item = self.ring.next()?;
            if let Some(record) = parse(&item) {
                return Some(record);
            }
        }
    }

    /// How many decisions were not told, because of the rate and because nobody read.
    #[must_use]
    pub fn untold(&self) -> (u64, u64) {
        let Ok(cpus) = self.pace.get(&0, 0) else {
            return (0, 0);
        };
        cpus.iter().fold((0, 0), |(skipped, lost), cpu| {
            let pace: Pace = bytemuck::cast(*cpu);
            (skipped + pace.skipped, lost + pace.lost)
        })
    }
}

/// Reads a record; `None` for what is none.
fn parse(bytes: &[u8]) -> Option<Record> {
    let head: Head = bytemuck::pod_read_unaligned(bytes.get(..size_of::<Head>())?);
    let fixed = match head.what {
        what::DECIDED => size_of::<Seen>(),
        what::LEFT => size_of::<Head>(),
        _ => return None,
    };
    let frame = bytes.get(fixed..fixed + head.captured as usize)?.to_vec();
    if head.what == what::LEFT {
        return Some(Record::Left(head, frame));
    }
    let mut seen = Box::new(Seen::zeroed());
    bytemuck::bytes_of_mut(&mut *seen).copy_from_slice(&bytes[..fixed]);
    Some(Record::Seen(seen, frame))
}
