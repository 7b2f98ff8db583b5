//! The programs that take the host's own probes along the way of traffic.
//!
//! They live as long as this value: probes end with the controller, and a filter that outlived it
//! would have nothing to do. A link of TCX (Linux 6.6) goes with the process, however that ends.
//! On older kernels a filter of `clsact` stays where the process is killed; it is replaced by the
//! next one's, and touches nothing but marked packets meanwhile.

use std::{collections::BTreeMap, io};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Array, MapData, MapError},
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        tc::{self, TcAttachOptions, TcError},
    },
};
use lb_common::decide::probe::Target;

use super::PROBE_OBJECT;
use crate::{causes::with_causes, model::ProbeMark};

/// The programs and where they belong. Their names are those of the filters.
const PROGRAMS: [(&str, TcAttachType); 2] = [
    ("evenkeel_out", TcAttachType::Egress),
    ("evenkeel_in", TcAttachType::Ingress),
];

/// Why probes cannot be steered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object was not loaded.
    #[error("load the programs that steer probes: {0}")]
    Load(#[source] EbpfError),
    /// A program was refused.
    #[error("load the program {name}: {source}")]
    Program {
        /// Which one.
        name: &'static str,
        /// Why.
        #[source]
        source: ProgramError,
    },
    /// The object lacks a program or map: it was built without.
    #[error("the programs that steer probes lack {0}: build evenkeel anew")]
    Missing(&'static str),
    /// A program was not attached.
    #[error(
        "attach the program {name} to {interface} by {how}: {reason}; the kernel needs \
         CONFIG_NET_CLS_BPF and CONFIG_NET_SCH_INGRESS, or set via = \"direct\" in [services.health]"
    )]
    Attach {
        /// Which one.
        name: &'static str,
        /// The interface.
        interface: String,
        /// By which of the kernel's means.
        how: &'static str,
        /// Why.
        reason: String,
    },
    /// A target could not be written.
    #[error("tell the kernel where probes go: {0}")]
    Aim(#[source] MapError),
}

/// The loaded programs.
pub struct Steering {
    object: Ebpf,
    targets: Array<MapData, [u8; size_of::<Target>()]>,
    /// What was written, by the number of the endpoint.
    aimed: BTreeMap<u16, Target>,
    /// The indices of the interfaces that both programs are attached to.
    attached: Vec<u32>,
}

impl Steering {
    /// Loads the programs; they are attached to nothing yet.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn load(mark: ProbeMark) -> Result<Self, Error> {
        let mut object = EbpfLoader::new()
            .override_global("MARK", &mark.number(), true)
            .load(PROBE_OBJECT)
            .map_err(Error::Load)?;
        for (name, _) in PROGRAMS {
            program(&mut object, name)?
                .load()
                .map_err(|source| Error::Program { name, source })?;
        }
        let targets = object
            .take_map("TARGETS")
            .ok_or(Error::Missing("TARGETS"))?;
        Ok(Self {
            targets: Array::try_from(targets).map_err(Error::Aim)?,
            object,
            aimed: BTreeMap::new(),
            attached: Vec::new(),
        })
    }

    /// Attaches the programs to an interface, unless they are. Takes the place of what a killed
    /// process left there.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn attach(&mut self, index: u32, interface: &str) -> Result<(), Error> {
        if self.attached.contains(&index) {
            return Ok(());
        }
        for (name, kind) in PROGRAMS {
            attach(program(&mut self.object, name)?, name, interface, kind)?;
        }
        self.attached.push(index);
        Ok(())
    }

    /// Says where the probes of an endpoint go.
    ///
    /// # Errors
    /// Where the kernel does not take it; they then go where they went before.
    pub fn aim(&mut self, number: u16, target: Target) -> Result<(), Error> {
        if self.aimed.get(&number) == Some(&target) {
            return Ok(());
        }
        self.targets
            .set(
                u32::from(number),
                bytemuck::cast::<Target, [u8; _]>(target),
                0,
            )
            .map_err(Error::Aim)?;
        self.aimed.insert(number, target);
        Ok(())
    }
}

fn program<'o>(object: &'o mut Ebpf, name: &'static str) -> Result<&'o mut SchedClassifier, Error> {
    object
        .program_mut(name)
        .ok_or(Error::Missing(name))?
        .try_into()
        .map_err(|source| Error::Program { name, source })
}

/// By TCX where the kernel has it, before all other programs; else as a filter of `clsact`.
fn attach(
    program: &mut SchedClassifier,
    name: &'static str,
    interface: &str,
    kind: TcAttachType,
) -> Result<(), Error> {
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    if program.attach_with_options(interface, kind, first).is_ok() {
        return Ok(());
    }
    let failed = |reason: String| Error::Attach {
        name,
        interface: interface.to_owned(),
        how: "clsact",
        reason,
    };
    match tc::qdisc_add_clsact(interface) {
        Ok(()) | Err(TcError::AlreadyAttached) => {}
        Err(TcError::NetlinkError(e)) if e.raw_os_error() == Some(libc::EEXIST) => {}
        Err(e) => return Err(failed(with_causes(&e))),
    }
    detach(interface, kind, name).map_err(|e| failed(e.to_string()))?;
    let options = TcAttachOptions::Netlink(tc::NlOptions::default());
    program
        .attach_with_options(interface, kind, options)
        .map_err(|e| failed(with_causes(&e)))?;
    Ok(())
}

/// Removes a filter that a killed process left.
fn detach(interface: &str, kind: TcAttachType, name: &str) -> io::Result<()> {
    match tc::qdisc_detach_program(interface, kind, name) {
        Err(TcError::IoError(e)) if e.kind() != io::ErrorKind::NotFound => Err(e),
        // Nothing was left.
        _ => Ok(()),
    }
}

/// Removes the filters that killed processes left, from all interfaces. Answers from how many.
///
/// # Errors
/// Where the interfaces cannot be listed.
pub fn remove_stale() -> io::Result<usize> {
    let mut removed = 0;
    for interface in &nix::net::if_::if_nameindex()? {
        let Ok(interface) = interface.name().to_str() else {
            continue;
        };
        for (name, kind) in PROGRAMS {
            removed += usize::from(tc::qdisc_detach_program(interface, kind, name).is_ok());
        }
    }
    Ok(removed)
}
