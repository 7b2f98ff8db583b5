//! The folder in a bpffs by which program, links and maps outlive the controller.

use std::{
    fs,
    io::{self, ErrorKind},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock, open, statfs},
    io::Errno,
    mount::{MountFlags, mount},
};

/// Where distributions mount it.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of linux/magic.h.
const BPFFS_MAGIC: i64 = 0xcafe_4a11;

/// The folder, held by this process alone.
#[derive(Debug)]
pub(super) struct Pins {
    folder: PathBuf,
    _lock: OwnedFd,
}

/// Why the folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// The folder is not in a bpffs.
    #[error(
        "{} is not in a BPF file system: mount one with 'mount -t bpf bpf {BPFFS}', or set \
         data_plane.pins to a folder in one",
        .0.display()
    )]
    NotBpffs(PathBuf),
    /// Another process holds it.
    #[error(
        "another controller holds {}: stop it first ('evenkeel status' names its process)",
        .0.display()
    )]
    Held(PathBuf),
    /// The system refused.
    #[error("{action} {}: {source}{}", path.display(), remedy(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    if error.kind() == ErrorKind::PermissionDenied {
        ": run as root"
    } else {
        ""
    }
}

impl Pins {
    /// Makes the folder where it is missing, and takes hold of it.
    pub(super) fn open(folder: &Path) -> Result<Self, PinsError> {
        if !in_bpffs(folder)? && folder.starts_with(BPFFS) {
            // As bpftool and libbpf do: a host without systemd has none mounted.
            mount("bpf", BPFFS, "bpf", MountFlags::empty(), None)
                .map_err(|e| io_error("mount a BPF file system at", Path::new(BPFFS))(e.into()))?;
        }
        if !in_bpffs(folder)? {
            return Err(PinsError::NotBpffs(folder.to_owned()));
        }
        fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        Self::hold(folder)
    }

    /// Takes hold of the folder if there is one.
    pub(super) fn existing(folder: &Path) -> Result<Option<Self>, PinsError> {
        if folder.is_dir() && in_bpffs(folder)? {
            Self::hold(folder).map(Some)
        } else {
            Ok(None)
        }
    }

    /// The names of all pins of a folder, whoever holds it; `None` where there is none.
    pub(super) fn look(folder: &Path) -> Result<Option<Vec<String>>, PinsError> {
        if folder.is_dir() && in_bpffs(folder)? {
            list(folder).map(Some)
        } else {
            Ok(None)
        }
    }

    fn hold(folder: &Path) -> Result<Self, PinsError> {
        let lock = open(
            folder,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| io_error("open", folder)(e.into()))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                folder: folder.to_owned(),
                _lock: lock,
            }),
            Err(Errno::WOULDBLOCK) => Err(PinsError::Held(folder.to_owned())),
            Err(e) => Err(io_error("lock", folder)(e.into())),
        }
    }

    /// The path of a pin.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The names of all pins.
    pub(super) fn names(&self) -> Result<Vec<String>, PinsError> {
        list(&self.folder)
    }

    /// Removes a pin if it is there.
    pub(super) fn remove(&self, name: &str) -> Result<(), PinsError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(io_error("remove", &path)(e)),
            _ => Ok(()),
        }
    }

    /// Removes the folder, which must be empty.
    pub(super) fn remove_folder(self) -> Result<(), PinsError> {
        fs::remove_dir(&self.folder).map_err(io_error("remove", &self.folder))
    }
}

fn list(folder: &Path) -> Result<Vec<String>, PinsError> {
    let listing = io_error("list", folder);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(&listing)? {
        let name = entry.map_err(&listing)?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> PinsError + use<> {
    let path = path.to_owned();
    move |source| PinsError::Io {
        action,
        path: path.clone(),
        source,
    }
}

/// Whether the nearest folder that exists is in a bpffs.
pub(crate) fn in_bpffs(folder: &Path) -> Result<bool, PinsError> {
    for ancestor in folder.ancestors() {
        match statfs(ancestor) {
            #[expect(
                clippy::useless_conversion,
                reason = "the field's type differs by platform"
            )]
            Ok(stat) => return Ok(i64::from(stat.f_type) == BPFFS_MAGIC),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(e) => return Err(io_error("look at", ancestor)(e.into())),
        }
    }
    Ok(false)
}
