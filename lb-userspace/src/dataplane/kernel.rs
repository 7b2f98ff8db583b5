//! The data plane in the kernel.

use std::{path::Path, sync::Arc};

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, PerCpuArray},
    programs::{ProgramError, Xdp},
};
use aya_log::EbpfLogger;
use lb_common::{
    fault::Fault,
    layout::{self, EndpointCounters, EndpointEvents, ExitCounters, TrackingCounters, version},
    trace::Filter,
    verdict::Reason,
};
use log::Log;

use super::{
    DataPlane, OBJECT,
    attach::{self, Words},
    counters::Counters,
    error::map_error,
    explain,
    flows::Flows,
    found,
    latencies::Histograms,
    layouts,
    maps::{MAPS, Part, of_pin, open_pin, pin_of},
    pins::Pins,
    published::{Named, Published},
    requirements,
    samples::Samples,
    sum,
    trace::{self, Lendable, Tracer},
    upgrade::{Upgrade, milestone},
};
pub use super::{
    attach::{Attached, Unloaded},
    error::Error,
    maps::Kept,
    published::Reading,
};
use crate::{
    balance::{
        image::{self, Image},
        sweep::Table,
    },
    model::{DataPlaneConfig, Tracking},
};

/// The program's name in the object.
pub(crate) const ENTRY: &str = "evenkeel";

/// How many slots are read back at once.
const PART: usize = 1 << 17;

const WORDS: Words = Words {
    interfaces: "data_plane.interfaces",
    generic: "data_plane.xdp_mode = \"generic\"",
    unload: "'evenkeel unload', which interrupts forwarding",
};

/// The loaded program with its maps.
pub struct Kernel {
    pins: Pins,
    object: Ebpf,
    published: Published,
    /// What the published tables name.
    named: Named,
    is_published: bool,
    /// What an older version left, until packets follow the present maps.
    upgrade: Option<Upgrade>,
    endpoints: PerCpuArray<MapData, [u64; 3]>,
    exits: PerCpuArray<MapData, [u64; Reason::ROW]>,
    all_endpoints: Counters<3>,
    all_exits: Counters<{ Reason::ROW }>,
    kept: Vec<Kept>,
    events: PerCpuArray<MapData, [u64; 4]>,
    tracking: PerCpuArray<MapData, [u64; 4]>,
    flows: Arc<Flows>,
    samples: Samples,
    latencies: Histograms,
    log: EbpfLogger<&'static dyn Log>,
    /// Maps that a program which tells what it decides shares with the plain one.
    lendable: Vec<Lendable>,
    /// That program, while it may be on an interface.
    tracer: Option<Tracer>,
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
        trace::tidy(&pins)?;
        let remains = found::settle(&pins)?;
        let mut loader = EbpfLoader::new();
        let mut kept = Vec::new();
        for shape in &MAPS {
            let path = shape.pin(&pins);
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
        let lendable = trace::lendable(&object)?;
        let counters = |name| pin_of(&pins, name, Part::Counters.version());
        let mut kernel = Self {
            published: Published::open(&pins, version::TABLES, layouts::present_tables())?,
            named: Named::default(),
            is_published: false,
            upgrade: remains
                .map(|remains| Upgrade::begin(&pins, remains))
                .transpose()?,
            endpoints: open_pin(&counters("ENDPOINTS"), PerCpuArray::try_from)?,
            exits: open_pin(&counters("EXITS"), PerCpuArray::try_from)?,
            all_endpoints: Counters::open(&counters("ENDPOINTS"))?,
            all_exits: Counters::open(&counters("EXITS"))?,
            kept,
            events: open_pin(&counters("EVENTS"), PerCpuArray::try_from)?,
            tracking: open_pin(&counters("TRACKING"), PerCpuArray::try_from)?,
            flows: Arc::new(
                Flows::open(|table| {
                    let name = match table {
                        Table::Fresh => "FRESH",
                        Table::Established => "ESTABLISHED",
                    };
                    MapData::from_pin(pin_of(&pins, name, Part::Flows.version()))
                })
                .map_err(map_error("open the remembered flows"))?,
            ),
            samples: Samples::take(&mut object)?,
            latencies: Histograms::take(&mut object)?,
            log,
            lendable,
            tracer: None,
            pins,
            object,
        };
        if let Some(live) = kernel.published.read()? {
            kernel.adopt(&live);
        }
        kernel.published.tidy(&kernel.named)?;
        Ok(kernel)
    }

    /// Pinned maps of flows whose size is not the configured one.
    #[must_use]
    pub fn kept(&self) -> &[Kept] {
        &self.kept
    }

    /// Takes what was read back for what packets follow.
    pub fn adopt(&mut self, live: &Image) {
        self.named = Named::by(live);
        self.is_published = true;
    }

    /// Takes nothing for known of what packets follow: the next publication writes all of it.
    pub fn forget(&mut self) {
        self.named = Named::default();
        self.is_published = false;
    }

    /// Whether anything that is known of was published to the present maps: at the start of an upgrade, packets
    /// still follow the older ones.
    #[must_use]
    pub const fn is_published(&self) -> bool {
        self.is_published
    }

    /// Whether packets still follow the maps of an older version.
    #[must_use]
    pub const fn is_upgrading(&self) -> bool {
        self.upgrade.is_some()
    }

    /// Attaches the program, or puts it in the place of an earlier controller's without a gap.
    ///
    /// Links to interfaces that are not configured any more are removed. An upgrade is over then:
    /// what the old program remembered is carried over, and its maps are removed.
    ///
    /// # Errors
    /// Where an interface is missing or the kernel refuses; interfaces before it stay attached.
    pub fn attach(&mut self, config: &DataPlaneConfig) -> Result<Vec<Attached>, Error> {
        if let Some(upgrade) = &mut self.upgrade {
            milestone("published");
            if upgrade.carries() {
                self.published.take_over(true)?;
            }
            upgrade.carry()?;
        }
        let program = program(&mut self.object)?;
        let (interfaces, mode) = (&config.interfaces, config.xdp_mode);
        let attached = attach::attach(program, &self.pins, interfaces, mode, &WORDS)?;
        if let Some(upgrade) = self.upgrade.take() {
            milestone("attached");
            upgrade.end(&self.pins, &mut self.published)?;
        }
        Ok(attached)
    }

    /// Has a program tell what a filter asks for, which decides as the plain one does and takes its
    /// place without a gap, unless it is there already.
    ///
    /// # Errors
    /// Where the kernel refuses: the plain one is back then, or [`Kernel::is_traced`] says that it is
    /// not.
    pub fn trace(
        &mut self,
        config: &DataPlaneConfig,
        filter: &Filter,
    ) -> Result<trace::Records, Error> {
        self.with_tracer(config, |tracer| {
            tracer.set(filter)?;
            tracer.records()
        })
    }

    /// Has that program tell nothing any more.
    ///
    /// # Errors
    /// Where the kernel refuses: it stops in time by itself.
    pub fn trace_no_more(&mut self) -> Result<(), Error> {
        let tracer = self.tracer.as_mut();
        tracer.map_or(Ok(()), |tracer| tracer.set(&Filter::over(Flows::now())))
    }

    /// Has that program lose what a drill takes. The kernel ends it in time by itself.
    ///
    /// # Errors
    /// As [`Kernel::trace`].
    pub fn strike(&mut self, config: &DataPlaneConfig, fault: &Fault) -> Result<(), Error> {
        self.with_tracer(config, |tracer| tracer.strike(fault))
    }

    /// Takes a drill's fault back, and answers how many packets it took.
    ///
    /// # Errors
    /// Where the kernel refuses: it ends the fault in time then.
    pub fn strike_no_more(&mut self) -> Result<u64, Error> {
        let Some(tracer) = &mut self.tracer else {
            return Ok(0);
        };
        tracer.strike(&Fault::over(Flows::now()))?;
        tracer.struck()
    }

    /// Tells the program that tells and loses what to do, and puts it in the place of the plain one
    /// where it is not there yet.
    fn with_tracer<R>(
        &mut self,
        config: &DataPlaneConfig,
        tell: impl FnOnce(&mut Tracer) -> Result<R, Error>,
    ) -> Result<R, Error> {
        if let Some(tracer) = &mut self.tracer {
            return tell(tracer);
        }
        let mut tracer = Tracer::load(&self.pins, &self.lendable)?;
        let told = tell(&mut tracer)?;
        let tracer = self.tracer.insert(tracer);
        let (interfaces, mode) = (&config.interfaces, config.xdp_mode);
        let attached = attach::attach(tracer.program()?, &self.pins, interfaces, mode, &WORDS);
        if let Err(e) = attached {
            self.forward_plainly(config)?;
            return Err(e.into());
        }
        Ok(told)
    }

    /// Puts the plain program back, without a gap.
    ///
    /// # Errors
    /// Where the kernel refuses: the other one forwards on, tells nobody, and loses nothing once what
    /// it was told to lose is over.
    pub fn forward_plainly(&mut self, config: &DataPlaneConfig) -> Result<(), Error> {
        let program = program(&mut self.object)?;
        let (interfaces, mode) = (&config.interfaces, config.xdp_mode);
        attach::attach(program, &self.pins, interfaces, mode, &WORDS)?;
        self.tracer = None;
        Ok(())
    }

    /// Whether a program that tells what it decides may be on an interface.
    #[must_use]
    pub const fn is_traced(&self) -> bool {
        self.tracer.is_some()
    }

    /// Begins to read back what packets follow in the present maps; `None` before the first
    /// publication to them.
    ///
    /// # Errors
    /// As [`DataPlane::live`].
    pub fn begin_reading(&self) -> Result<Option<Reading>, Error> {
        self.published.begin_reading()
    }

    /// Reads a part of the rings, which takes a few milliseconds; true at the end. What is as in
    /// another image is shared with that.
    ///
    /// # Errors
    /// As [`DataPlane::live`]; also where something else was published meanwhile.
    pub fn read_on(&self, reading: &mut Reading, like: &Image) -> Result<bool, Error> {
        self.published.read_on(reading, PART, &like.rings)
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
            self.latencies.reset(number)?;
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

    /// Frees what publications left that no packet follows any more.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn free(&mut self) -> Result<(), Error> {
        self.published.free()
    }

    /// The remembered flows, for who reads them in another thread.
    #[must_use]
    pub fn shared_flows(&self) -> Arc<Flows> {
        Arc::clone(&self.flows)
    }

    /// The remembered flows.
    pub fn flows(&self) -> &Flows {
        &self.flows
    }

    /// What explaining packets takes.
    ///
    /// # Errors
    /// Where the maps that packets follow cannot be opened.
    pub fn explainer(&self) -> Result<explain::Prepared, Error> {
        explain::Prepared::open(&self.pins, self.shared_flows())
    }

    /// Samples of the connections that clients open.
    pub const fn samples(&mut self) -> &mut Samples {
        &mut self.samples
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

    /// What was measured in passing of the first so many endpoints, by their numbers.
    ///
    /// # Errors
    /// Where the kernel does not answer.
    pub fn latencies(&self, count: usize) -> Result<Vec<layout::Latencies>, Error> {
        self.latencies.read(count.min(layout::ENDPOINTS))
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
        if let Some(tracer) = &mut self.tracer {
            tracer.flush_log();
        }
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
        self.published.replace(&self.named, image)?;
        self.named = Named::by(image);
        self.is_published = true;
        Ok(())
    }

    fn live(&self) -> Result<Option<Image>, Error> {
        match (self.published.read()?, &self.upgrade) {
            (None, Some(upgrade)) => upgrade.live(),
            (live, _) => Ok(live),
        }
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
    let is_map = |name: &str| of_pin(name).is_some() || trace::is_lent(name);
    Ok(Some(attach::unload(pins, is_map)?))
}

fn program(object: &mut Ebpf) -> Result<&mut Xdp, Error> {
    object
        .program_mut(ENTRY)
        .ok_or_else(|| Error::Program(ProgramError::NotLoaded))?
        .try_into()
        .map_err(Error::Program)
}
