//! Programs on interfaces, by pinned links that outlive the process: there is no moment without a
//! program, from one process to the next.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::{
    maps::{MapData, MapError},
    pin::PinError,
    programs::{
        ProgramError, Xdp,
        links::{FdLink, LinkError, PinnedLink},
        xdp::{XdpLink, XdpMode as Hook},
    },
};

use crate::{
    causes::with_causes,
    dataplane::pins::{Pins, PinsError},
    model::XdpMode,
};

/// The program's pin.
pub(crate) const PROGRAM: &str = "program";
/// How the pin of a link begins; the index of its interface follows.
pub(crate) const LINK: &str = "link-";

/// How messages name what the operator can change.
#[derive(Debug)]
pub(super) struct Words {
    /// Where the interfaces are named.
    pub(super) interfaces: &'static str,
    /// How generic XDP is asked for.
    pub(super) generic: &'static str,
    /// What removes the pins, and what that means.
    pub(super) unload: &'static str,
}

/// Why a program is not on its interfaces.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder of pins is in the way.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// A pinned map is not what this version expects.
    #[error(
        "{} was pinned by another version of evenkeel ({found}, this one needs {expected}): run \
         that version, or {unload}",
        path.display()
    )]
    OtherShape {
        /// The pinned map.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
        /// What removes it.
        unload: &'static str,
    },
    /// A pinned map could not be opened.
    #[error("open the pinned map {}: {source}", path.display())]
    Map {
        /// The pinned map.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: MapError,
    },
    /// The system refused.
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
    #[error("interface {name} does not exist: correct {named_in} ('ip -brief link' lists them)")]
    NoInterface {
        /// The name.
        name: String,
        /// Where it was named.
        named_in: &'static str,
    },
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
    /// Whether a link of an earlier process was taken over.
    pub adopted: bool,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unloaded {
    /// Pins that were removed.
    pub removed: Vec<String>,
    /// Files in the folder that are not Evenkeel's, and were left.
    pub foreign: Vec<String>,
}

/// Attaches a program and pins it, or puts it in the place of an earlier process's without a gap.
///
/// Links to other interfaces are removed.
///
/// # Errors
/// Where an interface is missing or the kernel refuses; interfaces before it stay attached.
pub(super) fn attach(
    program: &mut Xdp,
    pins: &Pins,
    interfaces: &[String],
    mode: XdpMode,
    words: &Words,
) -> Result<Vec<Attached>, Error> {
    let mut attached = Vec::new();
    for name in interfaces {
        let index = interface_index(name, words)?;
        let adopted = attach_one(program, pins, name, index, mode, words)?;
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
    for name in pins.names()? {
        if name.starts_with(LINK) && !wanted.contains(&name) {
            pins.remove(&name)?;
        }
    }
    // A new pin beside the old one, then renamed over it: there always is one.
    let (staging, place) = (pins.path("program-new"), pins.path(PROGRAM));
    pins.remove("program-new")?;
    program.pin(&staging).map_err(|source| Error::Pin {
        path: staging.clone(),
        source,
    })?;
    std::fs::rename(&staging, &place).map_err(|source| Error::Io {
        action: "put the program's pin in place",
        source,
    })?;
    Ok(attached)
}

fn attach_one(
    program: &mut Xdp,
    pins: &Pins,
    name: &str,
    index: u32,
    mode: XdpMode,
    words: &Words,
) -> Result<bool, Error> {
    let failed = |reason: String| Error::Attach {
        interface: name.to_owned(),
        mode,
        reason,
    };
    let pin = pins.path(&format!("{LINK}{index}"));
    if pin.exists() {
        let link = PinnedLink::from_pin(&pin).map_err(|e| failed(with_causes(&e)))?;
        let link = XdpLink::try_from(FdLink::from(link)).map_err(|e| failed(with_causes(&e)))?;
        match program.attach_to_link(link) {
            Ok(id) => {
                // The pin holds it: the program need not, which is replaced and put back many times.
                drop(program.take_link(id).map_err(|e| failed(with_causes(&e)))?);
                return Ok(true);
            }
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
        .map_err(|e| failed(remedy(&e, mode, words)))?;
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

/// Detaches a program and removes what is pinned with it, and the folder where that is all.
///
/// # Errors
/// Where the system refuses.
pub(super) fn unload(pins: Pins, maps: impl Fn(&str) -> bool) -> Result<Unloaded, PinsError> {
    let mut unloaded = Unloaded::default();
    let (mut own, foreign): (Vec<_>, Vec<_>) = pins
        .names()?
        .into_iter()
        .partition(|name| name.starts_with(LINK) || name.starts_with(PROGRAM) || maps(name));
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
    Ok(unloaded)
}

/// A map's name, with its type, its value's size and how many it holds.
pub(super) type Shape = (&'static str, u32, usize, usize);

/// `BPF_MAP_TYPE_*` of linux/bpf.h.
pub(super) mod kind {
    pub(in crate::dataplane) const HASH: u32 = 1;
    pub(in crate::dataplane) const ARRAY: u32 = 2;
    pub(in crate::dataplane) const PER_CPU_ARRAY: u32 = 6;
    pub(in crate::dataplane) const LPM_TRIE: u32 = 11;
}

/// As [`Shape`]'s last number: as many as the configuration says.
pub(super) const CONFIGURED: usize = 0;

/// Compares a pinned map with what this version makes of it: `load` would take any.
pub(super) fn check_shape(
    path: &Path,
    &(_, kind, value, entries): &Shape,
    words: &Words,
) -> Result<(), Error> {
    let info = MapData::from_pin(path)
        .and_then(|map| map.info())
        .map_err(|source| Error::Map {
            path: path.to_owned(),
            source,
        })?;
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
    let shape = |(kind, value, entries)| format!("type {kind}, {entries} values of {value} bytes");
    Err(Error::OtherShape {
        path: path.to_owned(),
        found: shape(found),
        expected: shape((kind, value, entries)),
        unload: words.unload,
    })
}

/// The index of an interface.
pub(super) fn interface_index(name: &str, words: &Words) -> Result<u32, Error> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::DGRAM,
        None,
    )
    .map_err(|e| Error::Io {
        action: "open a socket to look up an interface",
        source: e.into(),
    })?;
    rustix::net::netdevice::name_to_index(&socket, name).map_err(|_| Error::NoInterface {
        name: name.to_owned(),
        named_in: words.interfaces,
    })
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

fn remedy(error: &ProgramError, mode: XdpMode, words: &Words) -> String {
    match os_error(error) {
        Some(libc::EBUSY | libc::EEXIST) => {
            "another XDP program is attached ('ip link show' tells \
             its id): detach it ('ip link set dev … xdp off'), or unload the software it belongs to"
                .to_owned()
        }
        Some(libc::EOPNOTSUPP) if mode == XdpMode::Native => format!(
            "the driver has no native XDP: use another interface, or set {}, which is several \
             times slower",
            words.generic
        ),
        Some(libc::EINVAL | libc::ERANGE) if mode == XdpMode::Native => format!(
            "{}; the driver refuses native XDP in its present setting: try a smaller MTU, fewer \
             queues, or LRO off",
            with_causes(error)
        ),
        Some(libc::EPERM | libc::EACCES) => "not permitted: run as root".to_owned(),
        _ => with_causes(error),
    }
}
