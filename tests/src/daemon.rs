//! `evenkeel run` on the balancer, and the other commands of the binary under test.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    process::Process,
    tools,
    topology::{Seat, Topology},
    wait,
};

/// How long a controller may take to start or to end, on an emulated machine that shares its processor.
const PATIENCE: Duration = Duration::from_mins(1);

/// A controller on the balancer of a bed; killed on drop.
///
/// Its data plane outlives it, as it should, and goes with the bed.
#[derive(Debug)]
pub struct Daemon<'bed> {
    bed: &'bed Topology,
    seat: Seat<'bed>,
    binary: PathBuf,
    config: PathBuf,
    process: Process,
}

impl<'bed> Daemon<'bed> {
    /// Writes the configuration, starts the controller, and waits until it is attached.
    ///
    /// # Errors
    ///
    /// Where the binary is not built, or the controller ends or does not get ready; contains the
    /// end of its log.
    pub fn start(bed: &'bed Topology, config: &str) -> Result<Self> {
        Self::start_at(bed, bed.seat(), config)
    }

    /// The same on either balancer.
    ///
    /// # Errors
    ///
    /// As [`Daemon::start`].
    pub fn start_at(bed: &'bed Topology, seat: Seat<'bed>, config: &str) -> Result<Self> {
        let mut daemon = Self::launch_at(bed, seat, &tools::evenkeel()?, config)?;
        daemon.await_ready()?;
        Ok(daemon)
    }

    /// Writes the configuration and starts the controller from the binary given, without waiting
    /// for anything.
    ///
    /// # Errors
    ///
    /// Where the binary cannot be started.
    pub fn start_unready(bed: &'bed Topology, binary: &Path, config: &str) -> Result<Self> {
        Self::launch_at(bed, bed.seat(), binary, config)
    }

    fn launch_at(
        bed: &'bed Topology,
        seat: Seat<'bed>,
        binary: &Path,
        config: &str,
    ) -> Result<Self> {
        let config = bed.dir().write(&seat.config(), config)?;
        let process = launch(seat, binary, &config)?;
        Ok(Self {
            bed,
            seat,
            binary: binary.to_owned(),
            config,
            process,
        })
    }

    /// Waits until the controller answers and its program is attached.
    ///
    /// # Errors
    ///
    /// Where it has ended, or is not ready in time; contains the end of its log.
    pub fn await_ready(&mut self) -> Result<()> {
        let ready = wait::until("the controller to be attached", PATIENCE, || {
            self.process.check_running()?;
            let status = self.status()?;
            let attached = status["interfaces"]
                .as_array()
                .is_some_and(|all| !all.is_empty());
            ensure!(attached, "it answers, and is attached to no interface");
            Ok(())
        });
        ready.with_context(|| self.process.log_tail())
    }

    /// What `evenkeel status --json` says.
    ///
    /// # Errors
    ///
    /// Where no controller answers.
    pub fn status(&self) -> Result<Value> {
        let mut status = Command::new(&self.binary);
        status
            .args(["status", "--json", "--socket"])
            .arg(self.seat.socket());
        let json = tools::output(&mut status)?;
        serde_json::from_str(&json).context("`evenkeel status --json` printed no JSON")
    }

    /// Runs another command of the binary, told where this controller answers, and answers how it
    /// ended and what it printed.
    ///
    /// # Errors
    ///
    /// Where it cannot be started.
    pub fn ask(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.seat.namespace.command_at(&self.binary);
        command
            .args(arguments)
            .env("EVENKEEL_SOCKET", self.seat.socket())
            .env("EVENKEEL_STATE", self.seat.state());
        command
            .output()
            .with_context(|| format!("cannot start {command:?}"))
    }

    /// Writes the controller's file and has it read again (SIGHUP); the answer is in the journal.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written.
    pub fn reload(&mut self, config: &str) -> Result<()> {
        self.bed.dir().write(&self.seat.config(), config)?;
        self.process.signal(Signal::HUP);
        Ok(())
    }

    /// The binary under test.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The controller's process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The controller's log, over all of its lives.
    pub fn log(&self) -> PathBuf {
        self.seat.log()
    }

    /// Checks that the controller still runs.
    ///
    /// # Errors
    ///
    /// Where it has ended; contains the end of its log.
    pub fn check_running(&mut self) -> Result<()> {
        self.process.check_running()
    }

    /// Kills the controller at once (SIGKILL).
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends the controller as an operator would (SIGTERM).
    ///
    /// # Errors
    ///
    /// Where it does not end.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.process.terminate(PATIENCE)
    }

    /// Starts the controller again with the same configuration, killing it first where it still
    /// runs, and waits until it is attached.
    ///
    /// # Errors
    ///
    /// As [`Daemon::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill();
        self.process = launch(self.seat, &self.binary, &self.config)?;
        self.await_ready()
    }

    /// Kills the controller and starts another build with the same configuration, as
    /// [`Daemon::restart`] does.
    ///
    /// # Errors
    ///
    /// As [`Daemon::start`].
    pub fn upgrade(&mut self, binary: &Path) -> Result<()> {
        binary.clone_into(&mut self.binary);
        self.restart()
    }

    /// Kills the controller and starts another build that crashes at a step of the upgrade; waits
    /// until it has.
    ///
    /// # Errors
    ///
    /// Where it cannot be started, or does not crash; contains the end of its log.
    pub fn upgrade_and_crash(&mut self, binary: &Path, step: &str) -> Result<()> {
        self.process.kill();
        let mut run = self.run(binary);
        run.env("EVENKEEL_CRASH_AT", step);
        self.process = Process::start_logged("evenkeel", &mut run, &self.seat.log())?;
        let process = &mut self.process;
        let crashed = wait::until(format!("the crash at '{step}'"), PATIENCE, || {
            let ended = process.ended().context("it runs")?;
            ensure!(ended.code().is_none(), "it ended without a crash: {ended}");
            Ok(())
        });
        crashed.with_context(|| self.process.log_tail())
    }

    /// Starts another build beside, which is to end by itself, and answers how it ended and what it
    /// printed.
    ///
    /// # Errors
    ///
    /// Where it cannot be started.
    pub fn attempt(&self, binary: &Path) -> Result<Output> {
        self.run(binary)
            .output()
            .with_context(|| format!("cannot start {}", binary.display()))
    }

    /// `evenkeel run`, of a build, with this controller's configuration.
    fn run(&self, binary: &Path) -> Command {
        run_command(self.seat, binary, &self.config)
    }

    /// Writes another configuration and starts the controller again with it, as
    /// [`Daemon::restart`] does.
    ///
    /// # Errors
    ///
    /// As [`Daemon::start`].
    pub fn reconfigure(&mut self, config: &str) -> Result<()> {
        // An edit that a running controller saw and nobody applied would not come into force.
        self.process.kill();
        self.bed.dir().write(&self.seat.config(), config)?;
        self.restart()
    }

    /// Runs `evenkeel unload` in the balancer's network.
    ///
    /// # Errors
    ///
    /// Where it fails; contains what it complained about.
    pub fn unload(&self) -> Result<String> {
        let mut unload = self.seat.namespace.command_at(&self.binary);
        tools::output(unload.args(["unload", "--config"]).arg(&self.config))
    }
}

fn launch(seat: Seat<'_>, binary: &Path, config: &Path) -> Result<Process> {
    let mut run = run_command(seat, binary, config);
    Process::start_logged("evenkeel", &mut run, &seat.log())
}

fn run_command(seat: Seat<'_>, binary: &Path, config: &Path) -> Command {
    let mut run = seat.namespace.command_at(binary);
    run.args(["run", "--config"]).arg(config);
    run
}
