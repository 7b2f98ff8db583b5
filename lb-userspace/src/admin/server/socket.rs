//! The admin socket's file: nobody too many can ever connect to it, it is never taken from a
//! living controller, and it is gone at the end.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

use nix::unistd::Gid;
use rustix::{
    fs::{Mode, fchmod},
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
        sockopt::socket_peercred,
    },
};

use super::BindError;

/// How many connections the kernel holds until they are accepted.
const BACKLOG: i32 = 64;
/// The socket's permissions: its owner and its group may connect.
const MODE: u32 = 0o660;

/// The socket's file and the lock on its name; dropping it removes both files.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: u64,
    /// Held as long as the name is ours. Field order matters: `drop` removes the socket first.
    _lock: NameLock,
}

impl SocketFile {
    /// Makes the socket and listens on it.
    pub(super) fn create(
        path: &Path,
        group: Option<Gid>,
    ) -> Result<(Self, UnixListener), BindError> {
        let failed = |operation| {
            move |source: io::Error| BindError::Create {
                socket: path.to_owned(),
                operation,
                source,
            }
        };
        if let Some(folder) = path.parent() {
            create_folder(folder).map_err(|source| BindError::Folder {
                folder: folder.to_owned(),
                source,
            })?;
        }
        let lock = NameLock::take(path)?;
        refuse_unless_stale(path)?;

        // The name appears by a rename, only when the socket is listening and its permissions are
        // final: whoever sees it can use it.
        let staged = with_suffix(path, ".new");
        remove_if_there(&staged).map_err(failed("remove what is left of"))?;
        let listener = listen_at(&staged, group).inspect_err(|_| {
            let _ = fs::remove_file(&staged);
        });
        let listener = listener.map_err(failed("create"))?;
        fs::rename(&staged, path).map_err(failed("name"))?;
        let inode = fs::symlink_metadata(path).map_err(failed("inspect"))?.ino();
        Ok((
            Self {
                path: path.to_owned(),
                inode,
                _lock: lock,
            },
            listener,
        ))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have put something else in its place by hand; that is not ours to remove.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!(
                "cannot remove admin socket {}: {error}",
                self.path.display()
            );
        }
    }
}

/// Binds and listens, with no moment at which more than [`MODE`] and `group` say may connect.
fn listen_at(path: &Path, group: Option<Gid>) -> io::Result<UnixListener> {
    let socket = stream_socket()?;
    // On Linux a socket's own mode, less the umask, becomes its file's: set before `bind`, it
    // keeps everybody else out from the file's first moment, whatever the umask.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    // The group first: the reverse order would let the creator's own group in for a moment.
    if let Some(group) = group {
        chown(path, None, Some(group.as_raw()))?;
    }
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    Ok(UnixListener::from(socket))
}

fn stream_socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Makes sure that nothing at `path` is in use, and that it is nothing but a socket.
fn refuse_unless_stale(path: &Path) -> Result<(), BindError> {
    let failed = |operation| {
        move |source: io::Error| BindError::Create {
            socket: path.to_owned(),
            operation,
            source,
        }
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("inspect")(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
    }
    match answering_process(path) {
        Ok(None) => Ok(()),
        Ok(Some(pid)) => Err(BindError::Live {
            socket: path.to_owned(),
            pid: Some(pid),
        }),
        // Its backlog is full: that is somebody alive, and busy.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(BindError::Live {
            socket: path.to_owned(),
            pid: None,
        }),
        Err(error) => Err(failed("connect to")(error)),
    }
}

/// The process that listens at `path`; `None` if nobody does.
fn answering_process(path: &Path) -> io::Result<Option<i32>> {
    let socket = stream_socket()?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => Ok(Some(socket_peercred(&socket)?.pid.as_raw_nonzero().get())),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A lock file beside the socket, so that of two controllers that start at once only one judges
/// and replaces a stale socket. The kernel releases it however its holder ends.
#[derive(Debug)]
struct NameLock {
    path: PathBuf,
    _file: File,
}

impl NameLock {
    fn take(socket: &Path) -> Result<Self, BindError> {
        let path = with_suffix(socket, ".lock");
        let failed = |source| BindError::Create {
            socket: socket.to_owned(),
            operation: "lock the name of",
            source,
        };
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let pid = answering_process(socket).ok().flatten();
                    return Err(BindError::Live {
                        socket: socket.to_owned(),
                        pid,
                    });
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            // The last holder may have removed the file between our opening and locking it.
            let locked = file.metadata().map_err(failed)?.ino();
            if fs::metadata(&path).is_ok_and(|named| named.ino() == locked) {
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for NameLock {
    fn drop(&mut self) {
        // Removed while still held: whoever opened it before finds out by the inode.
        let _ = fs::remove_file(&self.path);
    }
}

/// Creates a folder and its missing parents, 0755 whatever the umask.
fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        create_folder(parent)?;
    }
    DirBuilder::new().mode(0o755).create(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o755))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
