//! `evenkeel decap` on a backend.

use std::{process::Command, time::Duration};

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
    _process: Process,
    _bed: &'bed Topology,
}

impl<'bed> Decap<'bed> {
    /// Starts it and waits until its program is attached.
    ///
    /// # Errors
    ///
    /// Where the binary is not built, or does not get ready.
    pub fn start(bed: &'bed Topology, host: &'bed Host) -> Result<Self> {
        let pins = bed.dir().bpf().join(format!("decap-{}", host.name));
        let mut decap: Command = host.namespace.command_at(&tools::evenkeel()?);
        decap.args(["decap", "--interface", HOST_INTERFACE, "--pins"]);
        decap.arg(pins);
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
        Ok(Self {
            _process: process,
            _bed: bed,
        })
    }
}
