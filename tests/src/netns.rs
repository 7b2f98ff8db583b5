//! Network namespaces that vanish with their owner.
//!
//! Commands enter by `setns` and not by `ip netns exec`, because that mounts another `/sys` over
//! the one that holds the bpffs.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::{fd::AsFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    process::kill_strays,
    tools::{self, tool},
};

/// Where `ip netns` keeps its names.
const DIR: &str = "/run/netns";

/// The beginning of every name that the test bed gives.
const PREFIX: &str = "ek-";

/// A network namespace with its loopback device up, deleted on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: Arc<File>,
}

impl Namespace {
    /// Makes the namespace `ek-<process>-<bed>-<role>`.
    ///
    /// # Errors
    ///
    /// Where `ip netns add` fails.
    pub fn create(bed: u32, role: &str) -> Result<Self> {
        let name = format!("{PREFIX}{}-{bed}-{role}", process::id());
        tools::output(Command::new(tool("ip")?).args(["netns", "add", &name]))?;
        let path = Path::new(DIR).join(&name);
        // From here on the namespace has an owner that deletes it, whatever fails next.
        let opened = File::open(&path);
        let handle = match opened {
            Ok(file) => Arc::new(file),
            Err(error) => {
                delete(&name)?;
                return Err(error).with_context(|| format!("cannot open {}", path.display()));
            }
        };
        let namespace = Self { name, handle };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The name that `ip netns` knows it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path that `nsenter --net=…` takes.
    pub fn path(&self) -> PathBuf {
        Path::new(DIR).join(&self.name)
    }

    /// A command that will run inside, with everything but the network as outside.
    ///
    /// # Errors
    ///
    /// Where the program is not installed.
    pub fn command(&self, program: &str) -> Result<Command> {
        Ok(self.command_at(&tool(program)?))
    }

    /// A command that will run inside, with everything but the network as outside.
    pub fn command_at(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let handle = Arc::clone(&self.handle);
        let enter = move || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(handle.as_fd(), kind).map_err(Into::into)
        };
        // SAFETY: the closure makes one system call, allocates nothing and takes no lock, which
        // is all that may be done between fork and exec.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs a command inside to its end and answers what it wrote to its standard output.
    ///
    /// # Errors
    ///
    /// Where it is not installed or fails; contains what it wrote to its standard error.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        tools::output(self.command(program)?.args(args))
            .with_context(|| format!("in namespace {}", self.name))
    }

    /// Runs lines of `ip` inside, in one process; stops at the first that fails.
    ///
    /// # Errors
    ///
    /// Where one fails; contains `ip`'s complaint and the lines.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut command = self.command("ip")?;
        command
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start `ip -batch`")?;
        let mut stdin = child
            .stdin
            .take()
            .context("`ip -batch` has no standard input")?;
        // It stops reading at its first failure, which its exit status and complaint tell better.
        let _ = stdin
            .write_all(lines.as_bytes())
            .and_then(|()| stdin.write_all(b"\n"));
        drop(stdin);
        let result = child
            .wait_with_output()
            .context("cannot wait for `ip -batch`")?;
        ensure!(
            result.status.success(),
            "`ip` failed in namespace {}: {}\n{lines}",
            self.name,
            String::from_utf8_lossy(&result.stderr).trim()
        );
        Ok(())
    }

    /// Runs a function on a thread of its own inside. A socket that it opens stays inside.
    ///
    /// Do not start processes there: they would die with the thread.
    ///
    /// # Errors
    ///
    /// Where the namespace cannot be entered.
    ///
    /// # Panics
    ///
    /// Where the function does.
    pub fn inside<T: Send>(&self, function: impl FnOnce() -> T + Send) -> Result<T> {
        let work = || {
            move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("cannot enter namespace {}", self.name))?;
            Ok(function())
        };
        match thread::scope(|scope| scope.spawn(work).join()) {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Sets kernel parameters below `/proc/sys/net`, given by their paths there.
    ///
    /// # Errors
    ///
    /// Where the kernel has no such parameter or refuses the value.
    pub fn set(&self, parameters: &[(&str, &str)]) -> Result<()> {
        self.inside(|| {
            for (key, value) in parameters {
                let path = Path::new("/proc/sys/net").join(key);
                fs::write(&path, value).with_context(|| {
                    format!("cannot set {} to {value} in {}", path.display(), self.name)
                })?;
            }
            Ok(())
        })?
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = delete(&self.name) {
            // Not `eprintln`, which panics where nobody reads: a panic here would stop the clean-up.
            let _ = writeln!(io::stderr(), "cannot clean up: {error:#}");
        }
    }
}

/// Kills what runs in a namespace and deletes it.
fn delete(name: &str) -> Result<()> {
    let ip = tool("ip")?;
    let inside = tools::output(Command::new(&ip).args(["netns", "pids", name]))?;
    kill_strays(inside.split_whitespace().filter_map(|pid| pid.parse().ok()))?;
    tools::output(Command::new(&ip).args(["netns", "delete", name]))?;
    Ok(())
}

/// Deletes the namespaces of runs whose process is no more, with all that runs in them.
///
/// # Errors
///
/// Where one cannot be deleted.
pub fn remove_stale() -> Result<()> {
    // The folder is missing until the first namespace is made.
    let Ok(entries) = fs::read_dir(DIR) else {
        return Ok(());
    };
    for entry in entries {
        let name = entry
            .context("cannot list the network namespaces")?
            .file_name();
        let Some(name) = name.to_str() else { continue };
        let owner = name.strip_prefix(PREFIX).and_then(owner);
        if owner.is_some_and(is_dead)
            && let Err(failure) = delete(name)
        {
            // Who builds another bed at the same time may have been faster.
            if Path::new(DIR).join(name).exists() {
                return Err(failure);
            }
        }
    }
    Ok(())
}

/// The process in a name like `<process>-<bed>…`.
pub(crate) fn owner(name: &str) -> Option<u32> {
    name.split('-').next()?.parse().ok()
}

/// Whether no process has this number.
pub(crate) fn is_dead(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}
