//! The folder of one test bed: its files, and a bpffs of its own.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::netns::{is_dead, owner};

/// The folder of all test beds.
const ROOT: &str = "/run/evenkeel-test";

/// A folder with a private bpffs mounted in it, unmounted and removed on drop.
///
/// What is pinned in a bpffs of one's own can neither meet the host's pins nor stay behind: it
/// goes with the mount.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Makes `/run/evenkeel-test/<process>-<bed>`.
    ///
    /// # Errors
    ///
    /// Where it cannot be made, or the kernel refuses to mount a bpffs.
    pub fn create(bed: u32) -> Result<Self> {
        let path = Path::new(ROOT).join(format!("{}-{bed}", process::id()));
        let bpf = path.join("bpf");
        fs::create_dir_all(&bpf).with_context(|| format!("cannot create {}", bpf.display()))?;
        let dir = Self { path };
        mount("evenkeel-test", &bpf, "bpf", MountFlags::empty(), None)
            .with_context(|| format!("cannot mount a bpffs at {}", bpf.display()))?;
        Ok(dir)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The mount point of the bpffs.
    pub fn bpf(&self) -> PathBuf {
        self.path.join("bpf")
    }

    /// Writes a file in the folder and answers its path. Who is just reading the file that was there
    /// goes on reading that one.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        let new = self.path.join(format!("{name}.new"));
        fs::write(&new, content)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            // Not `eprintln`, which panics where nobody reads: a panic here would stop the clean-up.
            let _ = writeln!(io::stderr(), "cannot clean up: {error:#}");
        }
    }
}

/// Unmounts the bpffs of a test bed and removes its folder.
fn remove(path: &Path) -> Result<()> {
    let bpf = path.join("bpf");
    match unmount(&bpf, UnmountFlags::DETACH) {
        // Not mounted, or not there: a run that was killed early.
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
        Err(error) => {
            return Err(error).with_context(|| format!("cannot unmount {}", bpf.display()));
        }
    }
    // The common folder stays: another bed may be about to make its own in it.
    fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))
}

/// Removes the folders of runs whose process is no more.
///
/// # Errors
///
/// Where one cannot be removed.
pub fn remove_stale() -> Result<()> {
    let Ok(entries) = fs::read_dir(ROOT) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {ROOT}"))?;
        if entry
            .file_name()
            .to_str()
            .and_then(owner)
            .is_some_and(is_dead)
        {
            remove(&entry.path())?;
        }
    }
    Ok(())
}
