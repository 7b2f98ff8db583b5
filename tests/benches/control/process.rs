//! What a process takes.

use std::{thread, time::Duration};

use anyhow::{Context, Result};
use evenkeel_tests::{daemon::Daemon, wait};
use procfs::process::Process;

/// The memory of a process, in MiB.
pub(crate) struct Memory {
    /// What is resident now.
    pub(crate) steady: f64,
    /// The most that ever was.
    pub(crate) peak: f64,
}

fn of(daemon: &Daemon<'_>) -> Result<Process> {
    Process::new(daemon.pid().cast_signed()).context("the controller is gone")
}

/// How much memory the controller has.
pub(crate) fn memory(daemon: &Daemon<'_>) -> Result<Memory> {
    let status = of(daemon)?.status()?;
    let mib = |kib: Option<u64>| Some(kib? as f64 / 1024.0);
    Ok(Memory {
        steady: mib(status.vmrss).context("the kernel does not tell VmRSS")?,
        peak: mib(status.vmhwm).context("the kernel does not tell VmHWM")?,
    })
}

/// The processor time of all threads of the controller, those that ended included, in seconds.
fn cpu(daemon: &Daemon<'_>) -> Result<f64> {
    let stat = of(daemon)?.stat()?;
    Ok((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64)
}

/// The part of one processor that the controller takes over so long.
pub(crate) fn part_of_a_core(daemon: &mut Daemon<'_>, over: Duration) -> Result<f64> {
    let (start, before) = (wait::now(), cpu(daemon)?);
    thread::sleep(over);
    let taken = cpu(daemon)? - before;
    let part = taken / start.elapsed().as_secs_f64();
    daemon.check_running()?;
    Ok(part)
}
