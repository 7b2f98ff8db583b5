//! Network namespaces without names.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

use super::{Error, io_error};

/// A network namespace, gone once nobody holds it or lives in it.
#[derive(Debug)]
pub(super) struct Namespace {
    handle: File,
    role: String,
}

impl Namespace {
    /// Makes one; `role` is for messages.
    pub(super) fn create(role: &str) -> Result<Self, Error> {
        // A thread that ends afterwards: the caller's own network stays what it is.
        let made = thread::scope(|scope| {
            let make = || -> io::Result<File> {
                unshare(CloneFlags::CLONE_NEWNET)?;
                File::open("/proc/thread-self/ns/net")
            };
            let made = thread::Builder::new().spawn_scoped(scope, make)?;
            made.join().map_err(|_| io::Error::other("it panicked"))?
        });
        Ok(Self {
            handle: made.map_err(io_error(format!("make the network of {role}")))?,
            role: role.to_owned(),
        })
    }

    /// Where another process finds it, as long as this one has it.
    pub(super) fn path(&self) -> PathBuf {
        let (process, fd) = (std::process::id(), self.handle.as_raw_fd());
        format!("/proc/{process}/fd/{fd}").into()
    }

    /// The descriptor that netlink names it by.
    pub(super) fn fd(&self) -> i32 {
        self.handle.as_raw_fd()
    }

    /// Runs a function inside, on a thread of its own. Sockets that it opens stay inside, and so do
    /// threads that it starts.
    pub(super) fn inside<T: Send>(
        &self,
        function: impl FnOnce() -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        let enter = || {
            setns(&self.handle, CloneFlags::CLONE_NEWNET)
                .map_err(|e| io_error(format!("enter the network of {}", self.role))(e.into()))
        };
        thread::scope(|scope| {
            let inside = thread::Builder::new()
                .spawn_scoped(scope, || enter().and_then(|()| function()))
                .map_err(io_error("start a thread"))?;
            inside
                .join()
                .unwrap_or_else(|_| Err(io_error("work inside")(io::Error::other("it panicked"))))
        })
    }

    /// Writes settings below `/proc/sys/net`; those of what the kernel lacks are passed over.
    pub(super) fn set(&self, settings: &[(&str, &str)]) -> Result<(), Error> {
        self.inside(|| {
            for (name, value) in settings {
                let path = Path::new("/proc/sys/net").join(name);
                match std::fs::write(&path, value) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => {
                        return Err(io_error(format!("set {name} of {}", self.role))(e));
                    }
                    _ => {}
                }
            }
            Ok(())
        })
    }
}

/// Enters a namespace with the calling thread, and so with those that it starts.
///
/// # Errors
/// Where there is none, or this user may not.
pub fn enter(path: &Path) -> io::Result<()> {
    setns(File::open(path)?, CloneFlags::CLONE_NEWNET).map_err(Into::into)
}
