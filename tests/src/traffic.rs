//! Steady HTTP traffic from the client's network, and what came of every request.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    net::IpAddr,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde::Deserialize;

use crate::{process::Process, topology::Topology};

const STEADY: &str = include_str!("../clients/steady.py");

/// The clients of this process, counted to keep their files apart.
static CLIENTS: AtomicU32 = AtomicU32::new(0);

/// What traffic to make.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where to; port 80 unless told otherwise.
    pub host: IpAddr,
    /// The port.
    pub port: u16,
    /// New connections a second, one request each. One client manages about a thousand.
    pub rate: u32,
    /// Long-lived connections.
    pub kept: u32,
    /// How often each of these sends a request.
    pub kept_every: Duration,
    /// When to end at the latest.
    pub duration: Duration,
    /// After how many new connections to end at the latest.
    pub limit: Option<u64>,
    /// How long a request may take, from opening its connection to the end of the answer.
    pub timeout: Duration,
    /// Which addresses of the client new connections come from, each as likely as another; none
    /// leaves it to the kernel.
    pub sources: Vec<IpAddr>,
    /// A network of which each client has an address; and how many connections a client opens on
    /// average before another one does.
    pub crowd: Option<(&'static str, u32)>,
    /// Whether to keep a record of each request, about 130 bytes.
    pub records: bool,
}

impl Load {
    /// 100 new connections a second and no long-lived ones, for at most so long.
    pub const fn new(host: IpAddr, duration: Duration) -> Self {
        let timeout = Duration::from_secs(2);
        Self {
            host,
            port: 80,
            rate: 100,
            kept: 0,
            kept_every: Duration::from_millis(200),
            duration,
            limit: None,
            timeout,
            sources: Vec::new(),
            crowd: None,
            records: true,
        }
    }
}

/// Totals of one kind of connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Tally {
    /// Requests started.
    pub sent: u64,
    /// Requests answered as they should be.
    pub ok: u64,
    /// Requests that failed; the rest is under way.
    pub failed: u64,
    /// Answers by the backend's name.
    pub by_backend: BTreeMap<String, u64>,
    /// Failures by kind: `refused`, `reset`, `closed`, `timeout`, `moved` (a connection was
    /// answered by another backend than before), `status-503`, `garbled`, or the error's name
    /// (`ehostunreach`).
    pub by_error: BTreeMap<String, u64>,
}

/// How long answered requests over new connections took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct Latency {
    /// The median, in milliseconds.
    pub p50_ms: Option<f64>,
    /// The 99th percentile, in milliseconds.
    pub p99_ms: Option<f64>,
    /// The longest, in milliseconds.
    pub max_ms: Option<f64>,
}

/// Totals since the start, told every second and at the end.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Report {
    /// When it was made, in milliseconds since the Unix epoch.
    pub at_ms: f64,
    /// Whether the client has ended.
    pub last: bool,
    /// Requests over new connections.
    pub new: Tally,
    /// Requests over long-lived connections.
    pub kept: Tally,
    /// Filled in by the last report.
    pub latency: Latency,
}

/// Which kind of connection a request went over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One of its own.
    New,
    /// A long-lived one.
    Kept,
}

/// What came of one request.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Record {
    /// When it started, in milliseconds since the Unix epoch.
    pub at_ms: f64,
    /// How long it took to be answered or to fail.
    pub took_ms: f64,
    /// What it went over.
    pub kind: Kind,
    /// The number of its connection among those of its kind.
    pub connection: u64,
    /// Who answered; for a failure on a long-lived connection, who had answered on it before.
    pub backend: Option<String>,
    /// The kind of failure, as in [`Tally::by_error`].
    pub error: Option<String>,
}

/// What came of all requests.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The totals.
    pub report: Report,
    /// Each request, in the order of their ends; none where none were to be kept.
    pub records: Vec<Record>,
}

impl Outcome {
    /// The requests that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| record.error.is_some())
    }
}

/// A running client; killed on drop.
#[derive(Debug)]
pub struct Traffic<'bed> {
    process: Process,
    latest: Arc<Mutex<Report>>,
    reader: Option<thread::JoinHandle<()>>,
    records: PathBuf,
    load: Load,
    _bed: &'bed Topology,
}

impl<'bed> Traffic<'bed> {
    /// Starts a client.
    ///
    /// # Errors
    ///
    /// Where python3 is not installed or cannot be started.
    pub fn start(bed: &'bed Topology, load: Load) -> Result<Self> {
        let number = CLIENTS.fetch_add(1, Ordering::Relaxed);
        let script = bed.dir().write("steady.py", STEADY)?;
        let records = bed.dir().path().join(format!("traffic-{number}.jsonl"));
        let mut python = bed.client.command("python3")?;
        python.arg("-I").arg(script).arg(load.host.to_string());
        if load.records {
            python.arg("--records").arg(&records);
        }
        for (option, value) in [
            ("--port", f64::from(load.port)),
            ("--rate", f64::from(load.rate)),
            ("--kept", f64::from(load.kept)),
            ("--kept-interval", load.kept_every.as_secs_f64()),
            ("--duration", load.duration.as_secs_f64()),
            ("--timeout", load.timeout.as_secs_f64()),
        ] {
            python.args([option, &value.to_string()]);
        }
        if !load.sources.is_empty() {
            python.arg("--sources");
            python.args(load.sources.iter().map(ToString::to_string));
        }
        if let Some((network, clump)) = load.crowd {
            python.args(["--crowd", network, "--clump", &clump.to_string()]);
        }
        if let Some(limit) = load.limit {
            python.args(["--limit", &limit.to_string()]);
        }
        let log = bed.dir().path().join(format!("traffic-{number}.log"));
        python.stdout(Stdio::piped());
        let mut process = Process::start_with_stderr("the traffic client", &mut python, &log)?;
        let output = process
            .take_stdout()
            .context("the traffic client has no output")?;
        let latest = Arc::new(Mutex::new(Report::default()));
        let shared = Arc::clone(&latest);
        let reader = thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Ok(report) = serde_json::from_str(&line) {
                    *shared.lock().unwrap_or_else(PoisonError::into_inner) = report;
                }
            }
        });
        Ok(Self {
            process,
            latest,
            reader: Some(reader),
            records,
            load,
            _bed: bed,
        })
    }

    /// The totals as of the last full second.
    ///
    /// # Errors
    ///
    /// Where the client has failed.
    pub fn report(&mut self) -> Result<Report> {
        let report = self
            .latest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if !report.last {
            self.process.check_running()?;
        }
        Ok(report)
    }

    /// Ends the traffic, lets the requests under way end, and answers what came of all.
    ///
    /// # Errors
    ///
    /// Where the client fails or does not end.
    pub fn stop(mut self) -> Result<Outcome> {
        self.process.signal(Signal::TERM);
        let limit = self.load.timeout;
        self.finish(limit)
    }

    /// Waits for the traffic to end by its time or number, and answers what came of all.
    ///
    /// # Errors
    ///
    /// Where the client fails or does not end.
    pub fn wait(self) -> Result<Outcome> {
        let limit = self.load.duration + self.load.timeout;
        self.finish(limit)
    }

    fn finish(mut self, limit: Duration) -> Result<Outcome> {
        let status = self.process.wait(limit + Duration::from_mins(1))?;
        if let Some(reader) = self.reader.take() {
            // It ends with the client's output, and has nothing to say.
            let _ = reader.join();
        }
        let report = self
            .latest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        ensure!(
            status.success() && report.last,
            "the traffic client failed ({status})\n{}",
            self.process.log_tail()
        );
        if !self.load.records {
            return Ok(Outcome {
                report,
                records: Vec::new(),
            });
        }
        let lines = fs::read_to_string(&self.records)
            .with_context(|| format!("cannot read {}", self.records.display()))?;
        let records = lines
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("bad record: {line}")))
            .collect::<Result<_>>()?;
        Ok(Outcome { report, records })
    }
}
