//! The sandbox's controller, as a process that can be killed.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{Error, io_error};

/// How long it may take to end as it is told.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How many lines of its log are shown where it ended.
const TAIL: usize = 20;

/// A controller of this binary.
#[derive(Debug)]
pub(super) struct Controller {
    network: PathBuf,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Controller {
    /// Starts one in a namespace.
    pub(super) fn start(network: PathBuf, config: PathBuf, log: PathBuf) -> Result<Self, Error> {
        let mut controller = Self {
            network,
            config,
            log,
            child: None,
        };
        controller.again()?;
        Ok(controller)
    }

    /// Starts it again.
    pub(super) fn again(&mut self) -> Result<(), Error> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(io_error("open the controller's log"))?;
        let also = log
            .try_clone()
            .map_err(io_error("open the controller's log"))?;
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["drill", "controller", "--parent"])
            .arg(std::process::id().to_string())
            .arg("--network")
            .arg(&self.network)
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(also)
            // Nobody else's service manager and log level.
            .env_remove("NOTIFY_SOCKET")
            .env_remove("RUST_LOG")
            // Ctrl-C is for whoever started it, which ends things in their order.
            .process_group(0);
        self.child = Some(command.spawn().map_err(io_error("start the controller"))?);
        Ok(())
    }

    /// Checks that it runs.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        let ended = match &mut self.child {
            Some(child) => child
                .try_wait()
                .map_err(io_error("look at the controller"))?,
            None => None,
        };
        match ended {
            Some(status) => Err(Error::Ended {
                how: status.to_string(),
                log: self.tail(),
            }),
            None => Ok(()),
        }
    }

    /// Kills it at once.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It cannot fail but for one that has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
            let rounds = PATIENCE.as_millis() / LOOK.as_millis();
            for _ in 0..rounds {
                if !matches!(child.try_wait(), Ok(None)) {
                    return;
                }
                thread::sleep(LOOK);
            }
        }
        self.kill();
    }
}
