//! What would become of a packet: the kernel's answer by a program that only looks, and the host's
//! by the tables that it reads back.

use std::{path::PathBuf, sync::Arc};

use aya::{
    Ebpf, EbpfLoader, TestRunOptions,
    maps::{Map, MapData, MapError},
    programs::{ProgramError, TestRun as _, Xdp},
};
use lb_common::{host::HEADROOM, layout::version, trail::Trail};

use super::{
    EXPLAIN_OBJECT,
    error::{Error, map_error},
    flows::Flows,
    layouts,
    maps::MAPS,
    mirror::{self, Remembered},
    pins::Pins,
    published::Published,
    syscall,
};
use crate::{balance::image::Image, explain::Told};

/// The program's name in its object.
const ENTRY: &str = "explain";

/// All that explaining takes, before the program is loaded.
pub struct Prepared {
    /// Maps that the program shares with the one that forwards.
    shared: Vec<(&'static str, PathBuf)>,
    published: Published,
    remembered: Remembered,
}

/// Explains packets, and leaves no trace of it.
pub struct Explainer {
    object: Ebpf,
    published: Published,
    remembered: Remembered,
}

impl Prepared {
    /// Opens the maps that packets follow.
    pub(super) fn open(pins: &Pins, flows: Arc<Flows>) -> Result<Self, Error> {
        Ok(Self {
            shared: MAPS
                .iter()
                .map(|shape| (shape.name, shape.pin(pins)))
                .collect(),
            published: Published::open(pins, version::TABLES, layouts::present_tables())?,
            remembered: Remembered::open(pins, flows)?,
        })
    }

    /// Loads the program, which takes a moment.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn load(self) -> Result<Explainer, Error> {
        let mut loader = EbpfLoader::new();
        for (name, pin) in &self.shared {
            loader.map_pin_path(name, pin);
        }
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| Error::Io {
            action: "count the CPUs",
            source,
        })? as u32;
        loader.override_global("CPUS", &cpus, true);
        let mut object = loader.load(EXPLAIN_OBJECT).map_err(Error::Load)?;
        let program: &mut Xdp = object
            .program_mut(ENTRY)
            .ok_or(ProgramError::NotLoaded)
            .and_then(TryInto::try_into)
            .map_err(Error::Program)?;
        program.load().map_err(Error::Program)?;
        Ok(Explainer {
            object,
            published: self.published,
            remembered: self.remembered,
        })
    }
}

impl Explainer {
    /// What packets follow now.
    ///
    /// # Errors
    /// Where the kernel does not answer.
    pub fn image(&self) -> Result<Option<Image>, Error> {
        self.published.read()
    }

    /// What the kernel's program makes of a frame that comes in by an interface of this network
    /// namespace.
    ///
    /// # Errors
    /// Where the kernel refuses to run it.
    pub fn kernel(&mut self, frame: &[u8], ingress: u32) -> Result<Told, Error> {
        let program: &Xdp = self
            .object
            .program(ENTRY)
            .ok_or(ProgramError::NotLoaded)
            .and_then(TryInto::try_into)
            .map_err(Error::Program)?;
        // `struct xdp_md` of linux/bpf.h: the data's ends, its metadata, the interface and its queue.
        let words: [u32; 6] = [0, frame.len() as u32, 0, ingress, 0, 0];
        let mut left = vec![0; frame.len() + HEADROOM];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut left),
            ctx_in: Some(bytemuck::bytes_of(&words)),
            ..TestRunOptions::default()
        };
        let result = program.test_run(options).map_err(Error::Program)?;
        left.truncate(result.data_size_out as usize);
        let mut trail = Trail::begun();
        let bytes = bytemuck::bytes_of_mut(&mut trail);
        syscall::lookup(self.trail()?, 0, bytes).map_err(|source| Error::Io {
            action: "read a packet's trail",
            source,
        })?;
        Ok(Told { frame: left, trail })
    }

    /// What the host makes of the same frame by tables that were read back, with what the kernel alone
    /// can know from its answer: its routes.
    ///
    /// # Errors
    /// Where the kernel does not say what it remembers.
    pub fn host(&self, image: &Image, frame: &[u8], kernel: &Told) -> Result<Told, Error> {
        mirror::decide(image, &self.remembered, frame, &kernel.trail)
    }

    fn trail(&self) -> Result<&MapData, Error> {
        match self.object.map("TRAIL") {
            Some(Map::Array(data)) => Ok(data),
            _ => Err(map_error("find the trail")(MapError::InvalidName {
                name: "TRAIL".to_owned(),
            })),
        }
    }
}
