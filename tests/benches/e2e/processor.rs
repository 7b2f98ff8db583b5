//! What the whole machine works.

use std::{thread, time::Duration};

use anyhow::{Context, Result};
use evenkeel_tests::wait;
use procfs::{CurrentSI as _, KernelStats};

/// The time that all processors together have worked since the machine came up, in seconds.
///
/// Forwarding is work of the kernel on behalf of whoever happens to run: no process can be charged
/// with it, so all of the machine is. What else runs on it is charged too.
pub(crate) fn busy_seconds() -> Result<f64> {
    let all = KernelStats::current()
        .context("cannot read /proc/stat")?
        .total;
    let kernel = all.system + all.irq.unwrap_or_default() + all.softirq.unwrap_or_default();
    let ticks = all.user + all.nice + kernel;
    Ok(ticks as f64 / procfs::ticks_per_second() as f64)
}

/// How busy the machine is while nothing of the benchmark runs, from 0 to 1.
pub(crate) fn background() -> Result<f64> {
    let processors = thread::available_parallelism().context("cannot count the processors")?;
    let (start, before) = (wait::now(), busy_seconds()?);
    thread::sleep(Duration::from_millis(500));
    let busy = busy_seconds()? - before;
    Ok(busy / start.elapsed().as_secs_f64() / processors.get() as f64)
}
