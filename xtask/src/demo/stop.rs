//! Ending early without leaving anything behind.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use evenkeel_tests::wait;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The longest nap between two looks at the flag.
const NAP: Duration = Duration::from_millis(50);

/// Somebody pressed Ctrl-C, or asked this process to end by another signal.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Whether this process was asked to end.
#[derive(Clone, Debug)]
pub(crate) struct Stop(Arc<AtomicBool>);

/// Turns the signals that end a process into a flag, so that what it owns is dropped in order.
///
/// # Errors
///
/// Where the kernel refuses a handler.
pub(crate) fn on_signals() -> Result<Stop> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&flag))
            .context("cannot handle the signals that end this process")?;
    }
    Ok(Stop(flag))
}

impl Stop {
    /// Checks that nobody asked to end.
    ///
    /// # Errors
    ///
    /// [`Interrupted`] where somebody did.
    pub(crate) fn check(&self) -> Result<(), Interrupted> {
        if self.0.load(Ordering::Relaxed) {
            Err(Interrupted)
        } else {
            Ok(())
        }
    }

    /// Sleeps, unless asked to end.
    ///
    /// # Errors
    ///
    /// [`Interrupted`] where somebody asked.
    pub(crate) fn sleep(&self, time: Duration) -> Result<(), Interrupted> {
        let start = wait::now();
        loop {
            self.check()?;
            let left = time.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(NAP));
        }
    }
}
