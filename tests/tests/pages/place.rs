//! A host for the commands of the pages: the network of a bed, folders of its own where commands
//! look for theirs, and processes that nobody else's names meet.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use evenkeel_tests::{
    netns::Namespace,
    process::Process,
    tools,
    topology::{BALANCER_INTERFACE, Topology},
    wait,
};

const PATIENCE: Duration = Duration::from_mins(1);

/// Mounts copies and empty folders over those of the host, and waits.
const SETTLE: &str = "set -eu
cp -a /etc \"$1/etc\"; mkdir \"$1/etc/evenkeel\"
mkdir \"$1/lib\" \"$1/run\" \"$1/root\"
mount --bind \"$1/etc\" /etc
mount --bind \"$1/lib\" /var/lib
mount --bind \"$1/root\" /root
mount --bind \"$1/bin\" /usr/local/sbin
mount -t bpf bpf /sys/fs/bpf
touch \"$1/settled\"
mount --bind \"$1/run\" /run
exec sleep infinity";

/// The host; all that runs on it ends with it.
#[derive(Debug)]
pub(crate) struct Place<'bed> {
    bed: &'bed Topology,
    dir: PathBuf,
    holder: Process,
}

/// How a block of commands ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code; none where it was killed.
    pub(crate) code: Option<i32>,
    /// What it printed, errors included.
    pub(crate) printed: String,
}

impl<'bed> Place<'bed> {
    /// Settles on the balancer of a bed, whose interface is called `eth0` from then on.
    pub(crate) fn settle(bed: &'bed Topology) -> Result<Self> {
        let dir = bed.dir().path().join("place");
        let bin = dir.join("bin");
        fs::create_dir_all(&bin)?;
        symlink(tools::evenkeel()?.canonicalize()?, bin.join("evenkeel"))?;
        let sudo = bin.join("sudo");
        fs::write(&sudo, "#!/bin/sh\nexec \"$@\"\n")?;
        fs::set_permissions(&sudo, fs::Permissions::from_mode(0o755))?;
        bed.balancer
            .ip(&format!("link set dev {BALANCER_INTERFACE} name eth0"))?;
        let mut unshare = bed.balancer.command("unshare")?;
        unshare
            .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"])
            .args(["sh", "-c", SETTLE, "settle"])
            .arg(&dir);
        let log = bed.dir().path().join("place.log");
        let mut holder = Process::start_logged("the host of the pages", &mut unshare, &log)?;
        wait::until("the host of the pages", PATIENCE, || {
            holder.check_running()?;
            ensure!(dir.join("settled").exists(), "it is not settled");
            Ok(())
        })?;
        Ok(Self { bed, dir, holder })
    }

    /// A command on this host, in a network of the bed.
    fn command(&self, network: &Namespace, words: &[&str]) -> Result<Command> {
        let namespaces = format!("/proc/{}/ns", self.holder.pid());
        let mut command = network.command("nsenter")?;
        command
            .arg(format!("--mount={namespaces}/mnt"))
            .arg(format!("--pid={namespaces}/pid_for_children"))
            .args(["--wd=/root", "--"])
            .args(words)
            .env("PATH", "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("NO_COLOR", "1")
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null());
        Ok(command)
    }

    /// The network that a page calls so.
    fn network(&self, name: &str) -> Result<&Namespace> {
        Ok(match name {
            "balancer" => &self.bed.balancer,
            "client" => &self.bed.client,
            other => {
                let host = self.bed.backends.iter().find(|host| host.name == other);
                &host
                    .with_context(|| format!("there is no host {other}"))?
                    .namespace
            }
        })
    }

    /// Runs a block of commands to its end, as a shell does that stops at the first failure.
    pub(crate) fn run(&self, on: &str, block: &str, variables: &[(&str, &str)]) -> Result<Ended> {
        let words = ["timeout", "60", "bash", "-euo", "pipefail", "-c", block];
        let mut bash = self.command(self.network(on)?, &words)?;
        bash.envs(variables.iter().copied());
        // A file, not a pipe: what goes on in the background would hold it open.
        let path = self.dir.join("printed");
        let printed = fs::File::create(&path)?;
        let status = bash
            .stdout(printed.try_clone()?)
            .stderr(printed)
            .status()
            .context("cannot start nsenter")?;
        Ok(Ended {
            code: status.code(),
            printed: String::from_utf8_lossy(&fs::read(path)?).into_owned(),
        })
    }

    /// Puts a file below the host's `/etc/evenkeel`.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<()> {
        fs::write(self.dir.join("etc/evenkeel").join(name), text)?;
        Ok(())
    }

    /// Starts a controller on the host by the file in `/etc/evenkeel`, and waits for an answer.
    pub(crate) fn start(&self) -> Result<Process> {
        let mut run = self.command(&self.bed.balancer, &["evenkeel", "run"])?;
        let log = self.bed.dir().path().join("controller.log");
        let mut process = Process::start_logged("evenkeel", &mut run, &log)?;
        wait::until("the controller to be attached", PATIENCE, || {
            process.check_running()?;
            let asked = self.run("balancer", "evenkeel status --json", &[])?;
            ensure!(
                asked.code == Some(0) && !asked.printed.contains("\"interfaces\": []"),
                "{}",
                asked.printed
            );
            Ok(())
        })?;
        Ok(process)
    }
}
