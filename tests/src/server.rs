//! The backends' servers: nginx for HTTP, another HTTP server that turns slow, flaky or mute when
//! told to, and a UDP server that answers with its name.

mod agent;

use std::{
    fmt::Write as _,
    fs,
    net::{SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    process::Process,
    tools::tool,
    topology::{Host, Topology},
    wait,
};

pub use agent::Agent;

/// How long a server may take to start or to end, on an emulated machine that shares its processor.
const PATIENCE: Duration = Duration::from_mins(1);

const UDP_ECHO: &str = include_str!("../clients/udp_echo.py");
const MOODY: &str = include_str!("../clients/moody.py");

/// Whether nginx writes a line for every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// No log.
    Off,
    /// `<backend>/access.log` in the bed's folder: client, status, path, of each request.
    On,
}

/// nginx on a backend, port 80 of both families: `/healthz` answers `ok`, everything else the
/// backend's name.
#[derive(Debug)]
pub struct Web<'bed> {
    bed: &'bed Topology,
    host: &'bed Host,
    process: Process,
}

impl<'bed> Web<'bed> {
    /// Starts it on a backend and waits until it answers.
    ///
    /// # Errors
    ///
    /// Where nginx is not installed, or does not start.
    pub fn start(bed: &'bed Topology, host: &'bed Host, access_log: AccessLog) -> Result<Self> {
        Self::start_on(bed, host, access_log, &[80])
    }

    /// As [`Web::start`], on other ports too; 80 must be among them.
    ///
    /// # Errors
    ///
    /// As [`Web::start`].
    pub fn start_on(
        bed: &'bed Topology,
        host: &'bed Host,
        access_log: AccessLog,
        ports: &[u16],
    ) -> Result<Self> {
        let prefix = bed.dir().path().join(&host.name);
        fs::create_dir_all(&prefix)
            .with_context(|| format!("cannot create {}", prefix.display()))?;
        let config = nginx_config(&host.name, access_log, ports);
        bed.dir()
            .write(&format!("{}/nginx.conf", host.name), &config)?;
        let process = Self::launch(bed, host)?;
        let mut web = Self { bed, host, process };
        web.await_ready()?;
        Ok(web)
    }

    /// Starts it on every backend of a bed, in their order.
    ///
    /// # Errors
    ///
    /// As [`Web::start`].
    pub fn start_all(bed: &'bed Topology) -> Result<Vec<Self>> {
        bed.backends
            .iter()
            .map(|host| Self::start(bed, host, AccessLog::Off))
            .collect()
    }

    /// The backend's name.
    pub fn name(&self) -> &str {
        &self.host.name
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Kills it at once (SIGKILL): its connections are reset, new ones refused.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it as an operator would (SIGTERM).
    ///
    /// # Errors
    ///
    /// Where it does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.process.terminate(PATIENCE).map(drop)
    }

    /// Starts it again, after it was killed or stopped, and waits until it answers.
    ///
    /// # Errors
    ///
    /// Where it does not start.
    pub fn start_again(&mut self) -> Result<()> {
        self.process.kill();
        self.process = Self::launch(self.bed, self.host)?;
        self.await_ready()
    }

    fn launch(bed: &Topology, host: &Host) -> Result<Process> {
        let prefix = bed.dir().path().join(&host.name);
        let mut nginx = host.namespace.command("nginx")?;
        nginx
            .arg("-p")
            .arg(&prefix)
            .arg("-c")
            .arg(prefix.join("nginx.conf"));
        nginx.args(["-e", "error.log"]);
        let name = format!("nginx on {}", host.name);
        Process::start_logged(name, &mut nginx, &prefix.join("nginx.log"))
    }

    fn await_ready(&mut self) -> Result<()> {
        let address = SocketAddr::from((self.host.ipv4, 80));
        let Self { host, process, .. } = self;
        wait::until(
            format_args!("nginx on {} to answer", host.name),
            PATIENCE,
            || {
                process.check_running()?;
                host.namespace.inside(|| TcpStream::connect(address))??;
                Ok(())
            },
        )
    }
}

/// A configuration that touches nothing outside of its own folder.
///
/// There is no master process, so that a kill ends the server and leaves no worker behind.
fn nginx_config(name: &str, access_log: AccessLog, ports: &[u16]) -> String {
    let mut listen = String::new();
    for port in ports {
        for address in ["", "[::]:"] {
            writeln!(listen, "        listen {address}{port} backlog=4096;").expect("a string");
        }
    }
    let access_log = match access_log {
        AccessLog::Off => "access_log off;",
        AccessLog::On => {
            "log_format brief '$remote_addr $status $uri'; access_log access.log brief;"
        }
    };
    format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid nginx.pid;\n\
         error_log error.log warn;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\n    {access_log}\n\
         \x20   client_body_temp_path spool; proxy_temp_path spool; fastcgi_temp_path spool;\n\
         \x20   uwsgi_temp_path spool; scgi_temp_path spool;\n\
         \x20   default_type text/plain;\n    keepalive_requests 1000000;\n\
         \x20   server {{\n\
         {listen}\
         \x20       location = /healthz {{ return 200 \"ok\\n\"; }}\n\
         \x20       location / {{ return 200 \"{name}\\n\"; }}\n\
         \x20   }}\n}}\n"
    )
}

/// A UDP server on a backend that answers every datagram with the backend's name.
///
/// It binds the VIPs themselves: a wildcard socket would answer from the backend's own address,
/// which no client expects.
#[derive(Debug)]
pub struct UdpEcho<'bed> {
    process: Process,
    _bed: &'bed Topology,
}

impl<'bed> UdpEcho<'bed> {
    /// Starts it on all VIPs of a bed and on the backend's own addresses, and waits until it
    /// listens.
    ///
    /// # Errors
    ///
    /// Where python3 is not installed, or an address cannot be bound.
    pub fn start(bed: &'bed Topology, host: &'bed Host, port: u16) -> Result<Self> {
        let script = bed.dir().write("udp_echo.py", UDP_ECHO)?;
        let ready = bed
            .dir()
            .path()
            .join(format!("{}-udp-{port}.ready", host.name));
        let mut python: Command = host.namespace.command_at(&tool("python3")?);
        python.arg("-I").arg(script).arg("--ready").arg(&ready);
        python.args(["--name", &host.name, "--port", &port.to_string()]);
        python.args(bed.vips.iter().map(ToString::to_string));
        python.args([host.ipv4.to_string(), host.ipv6.to_string()]);
        let log = bed.dir().path().join(format!("{}-udp.log", host.name));
        let name = format!("UDP echo on {}", host.name);
        let mut process = Process::start_logged(&name, &mut python, &log)?;
        wait::until(format_args!("{name} to listen"), PATIENCE, || {
            process.check_running()?;
            fs::metadata(&ready)
                .context("it does not listen yet")
                .map(drop)
        })?;
        Ok(Self { process, _bed: bed })
    }

    /// Kills it at once (SIGKILL).
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

/// How a [`Moody`] server answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mood {
    /// How long it takes.
    pub delay: Duration,
    /// Which part of its answers is a 500.
    pub fails: f64,
    /// Whether it accepts connections and never answers.
    pub mute: bool,
    /// Whether none of that is true of `/healthz`.
    pub static_health: bool,
    /// How many requests it works on at the same time; all where it is 0.
    pub at_once: u32,
}

impl Mood {
    /// It answers well, after so long.
    pub const fn after(delay: Duration) -> Self {
        Self {
            delay,
            fails: 0.0,
            mute: false,
            static_health: false,
            at_once: 0,
        }
    }
}

/// An HTTP server on port 80 of a backend that answers every request with the backend's name, as
/// its mood is.
#[derive(Debug)]
pub struct Moody<'bed> {
    bed: &'bed Topology,
    host: &'bed Host,
    _process: Process,
}

impl<'bed> Moody<'bed> {
    /// Starts it on a backend and waits until it listens.
    ///
    /// # Errors
    ///
    /// Where python3 is not installed, or the port cannot be bound.
    pub fn start(bed: &'bed Topology, host: &'bed Host, mood: Mood) -> Result<Self> {
        let script = bed.dir().write("moody.py", MOODY)?;
        let file = |suffix: &str| bed.dir().path().join(format!("{}-{suffix}", host.name));
        set_mood(bed, host, mood)?;
        let mut python: Command = host.namespace.command_at(&tool("python3")?);
        python.arg("-I").arg(script).args(["--name", &host.name]);
        python.arg("--mood").arg(file("mood.json"));
        python.arg("--ready").arg(file("moody.ready"));
        let name = format!("the moody server on {}", host.name);
        let mut process = Process::start_logged(&name, &mut python, &file("moody.log"))?;
        wait::until(format_args!("{name} to listen"), PATIENCE, || {
            process.check_running()?;
            fs::metadata(file("moody.ready"))
                .context("it does not listen yet")
                .map(drop)
        })?;
        Ok(Self {
            bed,
            host,
            _process: process,
        })
    }

    /// Starts one on every backend of a bed, in their order.
    ///
    /// # Errors
    ///
    /// As [`Moody::start`].
    pub fn start_all(bed: &'bed Topology, mood: Mood) -> Result<Vec<Self>> {
        let start = |host| Self::start(bed, host, mood);
        bed.backends.iter().map(start).collect()
    }

    /// Changes its mood from the next request on.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written.
    pub fn turn(&self, mood: Mood) -> Result<()> {
        set_mood(self.bed, self.host, mood)
    }
}

/// Writes a server's mood in one go, so that it reads all or nothing of it.
fn set_mood(bed: &Topology, host: &Host, mood: Mood) -> Result<()> {
    let json = format!(
        "{{ \"delay\": {}, \"fails\": {}, \"mute\": {}, \"static_health\": {}, \"at_once\": {} }}",
        mood.delay.as_secs_f64(),
        mood.fails,
        mood.mute,
        mood.static_health,
        mood.at_once
    );
    let made = bed.dir().write(&format!("{}-mood.new", host.name), &json)?;
    let place = bed.dir().path().join(format!("{}-mood.json", host.name));
    fs::rename(&made, &place).with_context(|| format!("cannot write {}", place.display()))
}
