//! An agent on a backend, which says what it is told to.

use std::{fs, process::Command};

use anyhow::{Context, Result};

use super::PATIENCE;
use crate::{
    process::Process,
    tools::tool,
    topology::{Host, Topology},
    wait,
};

const AGENT: &str = include_str!("../../clients/agent.py");

/// An agent on a backend's own IPv4 address that answers each connection with one line.
#[derive(Debug)]
pub struct Agent<'bed> {
    bed: &'bed Topology,
    host: &'bed Host,
    process: Process,
}

impl<'bed> Agent<'bed> {
    /// The port that it listens on.
    pub const PORT: u16 = 8008;

    /// Starts it on a backend and waits until it listens.
    ///
    /// # Errors
    ///
    /// Where python3 is not installed, or the port cannot be bound.
    pub fn start(bed: &'bed Topology, host: &'bed Host, line: &str) -> Result<Self> {
        let script = bed.dir().write("agent.py", AGENT)?;
        let file = |suffix: &str| {
            bed.dir()
                .path()
                .join(format!("{}-agent{suffix}", host.name))
        };
        say(bed, host, line)?;
        let mut python: Command = host.namespace.command_at(&tool("python3")?);
        python.arg("-I").arg(script);
        python.args(["--address", &host.ipv4.to_string()]);
        python.args(["--port", &Self::PORT.to_string()]);
        python.arg("--says").arg(file(".line"));
        python.arg("--ready").arg(file(".ready"));
        let name = format!("the agent on {}", host.name);
        let mut process = Process::start_logged(&name, &mut python, &file(".log"))?;
        wait::until(format_args!("{name} to listen"), PATIENCE, || {
            process.check_running()?;
            fs::metadata(file(".ready"))
                .context("it does not listen yet")
                .map(drop)
        })?;
        Ok(Self { bed, host, process })
    }

    /// Starts one on every backend of a bed, in their order.
    ///
    /// # Errors
    ///
    /// As [`Agent::start`].
    pub fn start_all(bed: &'bed Topology, line: &str) -> Result<Vec<Self>> {
        let start = |host| Self::start(bed, host, line);
        bed.backends.iter().map(start).collect()
    }

    /// Changes what it says from the next connection on.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written.
    pub fn say(&self, line: &str) -> Result<()> {
        say(self.bed, self.host, line)
    }

    /// Kills it at once (SIGKILL): nobody listens then.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

/// Writes what an agent says in one go.
fn say(bed: &Topology, host: &Host, line: &str) -> Result<()> {
    let made = bed.dir().write(&format!("{}-agent.new", host.name), line)?;
    let place = bed.dir().path().join(format!("{}-agent.line", host.name));
    fs::rename(&made, &place).with_context(|| format!("cannot write {}", place.display()))
}
