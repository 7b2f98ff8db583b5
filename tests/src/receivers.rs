//! Receivers of notifications, on the balancer's loopback: Prometheus Alertmanager, and a webhook
//! that fails or hangs when told to.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{process::Process, tools::tool, topology::Topology, wait};

/// How long a receiver may take to start, on an emulated machine that shares its processor.
const PATIENCE: Duration = Duration::from_mins(1);
const HOOK: &str = include_str!("../clients/hook.py");

/// Alertmanager, port 9093 of the balancer's loopback.
#[derive(Debug)]
pub struct Alertmanager<'bed> {
    bed: &'bed Topology,
    _process: Process,
}

impl<'bed> Alertmanager<'bed> {
    /// Where it is.
    pub const URL: &'static str = "http://127.0.0.1:9093";

    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    ///
    /// Where it is not installed, or does not start.
    pub fn start(bed: &'bed Topology) -> Result<Self> {
        let config = "route: { receiver: none }\nreceivers: [{ name: none }]\n";
        let config = bed.dir().write("alertmanager.yml", config)?;
        let storage = bed.dir().path().join("alertmanager");
        let program = tool("prometheus-alertmanager")?;
        let mut command = bed.balancer.command_at(&program);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", storage.display()))
            .args([
                "--web.listen-address=127.0.0.1:9093",
                "--cluster.listen-address=",
            ]);
        let log = bed.dir().path().join("alertmanager.log");
        let mut process = Process::start_logged("Alertmanager", &mut command, &log)?;
        wait::until("Alertmanager to answer", PATIENCE, || {
            process.check_running()?;
            let url = format!("{}/-/ready", Self::URL);
            bed.balancer.run("curl", &["-sS", "-f", "-m", "2", &url])
        })?;
        Ok(Self {
            bed,
            _process: process,
        })
    }

    /// The alerts that it takes to be on, of a name.
    ///
    /// # Errors
    ///
    /// Where it does not answer.
    pub fn active(&self, name: &str) -> Result<Vec<Value>> {
        let url = format!("{}/api/v2/alerts?active=true", Self::URL);
        let json = self
            .bed
            .balancer
            .run("curl", &["-sS", "-f", "-m", "5", &url])?;
        let alerts: Vec<Value> = serde_json::from_str(&json).context("it answered no JSON")?;
        let of = |alert: &Value| alert["labels"]["alertname"] == name;
        Ok(alerts.into_iter().filter(of).collect())
    }
}

/// How a [`Hook`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With a status code; 200 takes what is sent.
    Status(u16),
    /// Never.
    Hang,
}

/// A receiver of webhooks on a port of the balancer's loopback.
#[derive(Debug)]
pub struct Hook {
    folder: PathBuf,
    port: u16,
    _process: Process,
}

impl Hook {
    /// Starts it, and waits until it listens.
    ///
    /// # Errors
    ///
    /// Where python3 is not installed, or the port cannot be bound.
    pub fn start(bed: &Topology, port: u16, answer: Answer) -> Result<Self> {
        let script = bed.dir().write("hook.py", HOOK)?;
        let folder = bed.dir().path().join(format!("hook-{port}"));
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        set(&folder, answer)?;
        let mut python = bed.balancer.command_at(&tool("python3")?);
        python
            .arg("-I")
            .arg(script)
            .args(["--port", &port.to_string()]);
        for name in ["mood", "taken", "refused", "ready"] {
            python.arg(format!("--{name}")).arg(folder.join(name));
        }
        let log = folder.join("log");
        let mut process = Process::start_logged("the webhook", &mut python, &log)?;
        wait::until("the webhook to listen", PATIENCE, || {
            process.check_running()?;
            let ready = fs::metadata(folder.join("ready"));
            ready.context("it does not listen yet").map(drop)
        })?;
        Ok(Self {
            folder,
            port,
            _process: process,
        })
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    /// Changes its answer from the next request on.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written.
    pub fn answer(&self, answer: Answer) -> Result<()> {
        set(&self.folder, answer)
    }

    /// What it took, in order: header fields and body of each request.
    ///
    /// # Errors
    ///
    /// Where its file cannot be read.
    pub fn taken(&self) -> Result<Vec<Value>> {
        lines(&self.folder.join("taken"))
    }

    /// How many requests it refused.
    ///
    /// # Errors
    ///
    /// Where its file cannot be read.
    pub fn refused(&self) -> Result<usize> {
        lines(&self.folder.join("refused")).map(|lines| lines.len())
    }
}

fn set(folder: &Path, answer: Answer) -> Result<()> {
    let word = match answer {
        Answer::Status(code) => code.to_string(),
        Answer::Hang => "hang".to_owned(),
    };
    let (new, place) = (folder.join("mood.new"), folder.join("mood"));
    fs::write(&new, word).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, &place).with_context(|| format!("cannot write {}", place.display()))
}

/// The lines of a file of JSON; none where there is no file yet.
///
/// # Errors
///
/// Where it cannot be read, or a line is no JSON.
pub fn lines(path: &Path) -> Result<Vec<Value>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(
        text.is_empty() || text.ends_with('\n'),
        "a line is being written"
    );
    let line = |line: &str| serde_json::from_str(line).with_context(|| format!("no JSON: {line}"));
    text.lines().map(line).collect()
}
