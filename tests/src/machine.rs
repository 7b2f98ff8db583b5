//! A machine of its own that runs systemd and takes packages: namespaces, and a root that lies over
//! the host's and keeps what is written to it in memory.
//!
//! Its network is that of a bed's balancer. What it shares with the host is the kernel and the
//! programs installed there; dpkg's database, units, pins and cgroups are its own.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{self, Command, Output, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    netns::{is_dead, owner},
    process::Process,
    tools::{self, tool},
    topology::Topology,
    wait,
};

/// What lays out the root.
const LAYOUT: &str = include_str!("machine.sh");

/// How long systemd may take to boot, or to be gone.
const PATIENCE: Duration = Duration::from_mins(1);

/// The beginning of its cgroups' names.
const PREFIX: &str = "evenkeel-test-";

/// A machine that runs; it is switched off on drop.
#[derive(Debug)]
pub struct Machine<'bed> {
    bed: &'bed Topology,
    // Before the cgroup: its drop waits until nobody is in there.
    unshare: Process,
    init: u32,
    _cgroup: Cgroup,
}

impl<'bed> Machine<'bed> {
    /// Boots one in the place of the bed's balancer.
    ///
    /// The bed's folder is its `/media`.
    ///
    /// # Errors
    ///
    /// Where there is no systemd or no cgroup of the second version, or it does not boot.
    pub fn boot(bed: &'bed Topology) -> Result<Self> {
        let systemd = Path::new("/lib/systemd/systemd");
        ensure!(
            systemd.exists(),
            "systemd is not installed; run `cargo xtask setup`"
        );
        remove_stale()?;
        let cgroup = Cgroup::create()?;
        let root = bed.dir().path().join("machine");
        fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
        // The cgroup first: the namespace of cgroups begins where its first process is.
        let script = "echo $$ > \"$1/cgroup.procs\" && exec unshare --mount --pid --uts --ipc --cgroup \
                      --fork --kill-child sh -c \"$2\" sh \"$3\" \"$4\"";
        let mut start = bed.balancer.command("sh")?;
        start
            .args(["-c", script, "sh"])
            .arg(&cgroup.path)
            .arg(LAYOUT)
            .arg(&root)
            .arg(bed.dir().path());
        let log = bed.dir().path().join("machine.log");
        let mut unshare = Process::start_logged("the machine", &mut start, &log)?;
        let init = wait::until("the machine's first process", PATIENCE, || {
            unshare.check_running()?;
            first_child(unshare.pid())
        })?;
        let machine = Self {
            bed,
            unshare,
            init,
            _cgroup: cgroup,
        };
        wait::until("the machine to boot", PATIENCE, || {
            let state = machine.command("systemctl", &["is-system-running"])?;
            let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
            ensure!(matches!(&*state, "running" | "degraded"), "it is {state:?}");
            Ok(())
        })
        .with_context(|| machine.unshare.log_tail())?;
        Ok(machine)
    }

    /// Runs a command in it and answers how that ended.
    ///
    /// # Errors
    ///
    /// Where it cannot be started.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let mut enter = Command::new(tool("nsenter")?);
        enter
            .args(["--target", &self.init.to_string()])
            .args([
                "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--root", "--wd=/",
            ])
            .args([
                "--",
                "env",
                "-i",
                "DEBIAN_FRONTEND=noninteractive",
                "SYSTEMD_PAGER=",
            ])
            .args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", program])
            .args(arguments)
            .stdin(Stdio::null());
        enter
            .output()
            .with_context(|| format!("cannot start {enter:?}"))
    }

    /// Runs a command in it and answers what it wrote to its standard output.
    ///
    /// # Errors
    ///
    /// Where it fails; contains all that it wrote, and the end of the machine's journal.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.command(program, arguments)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        bail!(
            "`{program} {}` failed in the machine ({}): {text}{}\n{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr),
            self.journal()
        );
    }

    /// A property of a unit.
    ///
    /// # Errors
    ///
    /// Where systemd does not answer.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        let shown = self.run("systemctl", &["show", "--value", "--property", name, unit])?;
        Ok(shown.trim().to_owned())
    }

    /// A path in it, as the host sees it.
    pub fn path(&self, path: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.init)).join(path.trim_start_matches('/'))
    }

    /// Puts a file into the bed's folder, which is `/media` there, and answers its path in there.
    ///
    /// # Errors
    ///
    /// Where it cannot be copied.
    pub fn hand_over(&self, file: &Path) -> Result<String> {
        let name = file.file_name().context("a file has a name")?;
        fs::copy(file, self.bed.dir().path().join(name))
            .with_context(|| format!("cannot copy {}", file.display()))?;
        Ok(format!("/media/{}", name.to_string_lossy()))
    }

    /// The last lines of its journal.
    pub fn journal(&self) -> String {
        let lines = self.command("journalctl", &["--no-pager", "--lines=60", "--output=cat"]);
        lines.map_or_else(
            |e| format!("{e:#}"),
            |output| String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            // Not `eprintln`, which panics where nobody reads: a panic here would stop the clean-up.
            let _ = writeln!(io::stderr(), "the machine's journal:\n{}", self.journal());
        }
        // The kernel ends all that is in a namespace of processes with its first one.
        self.unshare.kill();
    }
}

/// The only child of a process.
fn first_child(of: u32) -> Result<u32> {
    let path = format!("/proc/{of}/task/{of}/children");
    let children = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let first = children.split_whitespace().next();
    Ok(first.context("it has no child yet")?.parse()?)
}

/// A cgroup, removed on drop with those below it.
#[derive(Debug)]
struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    fn create() -> Result<Self> {
        let path = hierarchy()?.join(format!("{PREFIX}{}", process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let removed = wait::until("the machine's cgroups to be empty", PATIENCE, || {
            remove_tree(&self.path).map_err(Into::into)
        });
        if let Err(error) = removed {
            let _ = writeln!(io::stderr(), "cannot clean up: {error:#}");
        }
    }
}

/// Where cgroups of the second version are, beside those of the first or alone.
fn hierarchy() -> Result<PathBuf> {
    let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let found = places
        .map(PathBuf::from)
        .into_iter()
        .find(|place| place.join("cgroup.controllers").exists());
    found.context(
        "there are no cgroups of version 2: `mount -t cgroup2 cgroup2 /sys/fs/cgroup`, or boot with \
         systemd.unified_cgroup_hierarchy=1",
    )
}

fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// Removes the cgroups of runs whose process is no more.
fn remove_stale() -> Result<()> {
    let place = hierarchy()?;
    for entry in fs::read_dir(&place).with_context(|| format!("cannot list {}", place.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name
            .strip_prefix(PREFIX)
            .and_then(owner)
            .is_some_and(is_dead)
        {
            remove_tree(&entry.path())
                .with_context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// The built package: `EVENKEEL_DEB`, or else the debug build's.
///
/// # Errors
///
/// Where there is none; says how to build it.
pub fn package() -> Result<PathBuf> {
    let named = std::env::var_os("EVENKEEL_DEB").map(PathBuf::from);
    let path = named.unwrap_or_else(|| tools::workspace().join("target/debian/evenkeel-debug.deb"));
    ensure!(
        path.is_file(),
        "there is no package at {}; build it with `cargo xtask dist --debug`, or name it in \
         EVENKEEL_DEB",
        path.display()
    );
    Ok(path)
}
