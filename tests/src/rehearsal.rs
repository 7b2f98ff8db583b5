//! Beds in which drills are held live.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{
    daemon::Daemon,
    topology::{Service, Topology, VIP4},
    wait,
};

/// For what takes seconds, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_mins(2);

/// Starts a controller of one service, `web`, whose weights are fine enough for a drill, and of
/// somebody who is told. An empty `health` is that of [`Service::web`].
///
/// # Errors
///
/// Where it does not start, or nobody can be told.
pub fn start<'bed>(bed: &'bed Topology, health: &str) -> Result<Daemon<'bed>> {
    let told = bed.dir().path().join("told.jsonl");
    let usual = Service::web("web", VIP4);
    let service = Service {
        backends: (0..bed.backends.len())
            .map(|n| (n, "weight = 100\ncapacity = 100".to_owned()))
            .collect(),
        health: if health.is_empty() {
            usual.health
        } else {
            health
        },
        ..usual
    };
    let config = format!(
        "{}\n[[notify]]\nname = \"on-call\"\ntype = \"file\"\npath = \"{}\"\n{}",
        bed.config_head(),
        told.display(),
        bed.service(&service)
    );
    let daemon = Daemon::start(bed, &config)?;
    let tested = daemon.ask(&["notify", "test"])?;
    ensure!(tested.status.success(), "{tested:?}");
    Ok(daemon)
}

/// Waits until a drill would not be refused, and looks whether it says what it would do.
///
/// # Errors
///
/// With what speaks against it in the end.
pub fn await_permission(daemon: &Daemon<'_>, drill: &str, says: &str) -> Result<()> {
    wait::until("no reason against a drill", PATIENCE, || {
        let asked = daemon.ask(&["drill", "run", drill, "--service", "web"])?;
        let text = String::from_utf8_lossy(&asked.stdout).into_owned();
        ensure!(asked.status.success(), "{text}{:?}", asked.stderr);
        ensure!(text.contains(says), "{text}");
        Ok(())
    })
}
