//! Why the kernel's side failed.

use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError, pin::PinError, programs::ProgramError};

use super::{attach, pins::PinsError, requirements::TooOld};

/// Why the kernel's side failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The running kernel lacks what the data plane needs.
    #[error(transparent)]
    TooOld(#[from] TooOld),
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
    /// A pinned map is a later version's.
    #[error(
        "{} was pinned by a newer version of evenkeel (layout {found}, this one reads up to \
         {known}): run that version or a later one, or 'evenkeel unload', which interrupts \
         forwarding; until then packets go on as they did",
        path.display()
    )]
    Newer {
        /// The pinned map.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The latest that this program knows.
        known: u32,
    },
    /// The live tables cannot be what a controller published.
    #[error("the live tables are damaged: the ring of service number {service} has {slots} slots")]
    Damaged {
        /// The service's number.
        service: u16,
        /// How large its ring is said to be.
        slots: usize,
    },
    /// A pinned link could not be looked at.
    #[error("look at the pinned link {}: {reason}", path.display())]
    Link {
        /// The pin.
        path: PathBuf,
        /// Why it failed.
        reason: String,
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
    /// The program is not on its interfaces.
    #[error(transparent)]
    Attach(#[from] attach::Error),
}

pub(super) fn map_error(action: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map { action, source }
}
