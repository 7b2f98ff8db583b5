//! `evenkeel decap` on a backend.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Result, ensure};

use crate::{
    process::Process,
    tools,
    topology::{HOST_INTERFACE, Host, Topology},
    wait,
};

/// How long it may take to be attached, on an emulated machine that shares its processor.
const PATIENCE: Duration = Duration::from_mins(1);

/// A decapsulator on a backend of a bed, which takes tunnels from the balancer's addresses.
#[derive(Debug)]
pub struct Decap<'bed> {
    process: Process,
    bed: &'bed Topology,
    host: &'bed Host,
}

impl<'bed> Decap<'bed> {
    /// Starts it and waits until its program is attached.
    ///
    /// # Errors
    ///
    /// Where the binary is not built, or does not get ready.
    pub fn start(bed: &'bed Topology, host: &'bed Host) -> Result<Self> {
        let mut decap: Command = host.namespace.command_at(&tools::evenkeel()?);
        decap.args(["decap", "--interface", HOST_INTERFACE, "--pins"]);
        decap.arg(pins(bed, host));
        for balancer in [
            "10.10.0.2/32",
            "fd00:10::2/128",
            "10.10.0.5/32",
            "fd00:10::5/128",
        ] {
            decap.args(["--allow", balancer]);
        }
        let log = bed.dir().path().join(format!("{}-decap.log", host.name));
        let name = format!("evenkeel decap on {}", host.name);
        let mut process = Process::start_logged(&name, &mut decap, &log)?;
        wait::until(format_args!("{name} to be attached"), PATIENCE, || {
            process.check_running()?;
            let link = host
                .namespace
                .run("ip", &["link", "show", HOST_INTERFACE])?;
            ensure!(link.contains("xdp"), "no program is attached: {link}");
            Ok(())
        })?;
        Ok(Self { process, bed, host })
    }

    /// Ends it, and takes its program off the backend.
    ///
    /// # Errors
    ///
    /// Where it does not end, or the program cannot be removed.
    pub fn remove(mut self) -> Result<()> {
        self.process.terminate(PATIENCE)?;
        let mut decap = self.host.namespace.command_at(&tools::evenkeel()?);
        decap.args(["decap", "--detach", "--pins"]);
        decap.arg(pins(self.bed, self.host));
        tools::output(&mut decap).map(drop)
    }
}

/// Where it pins what it loads.
fn pins(bed: &Topology, host: &Host) -> PathBuf {
    bed.dir().bpf().join(format!("decap-{}", host.name))
}
