//! `evenkeel loadtest`: what a target holds, and how the load was spread.

use std::{
    fs,
    net::IpAddr,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use hyper::{
    Method,
    body::Bytes,
    header::{HeaderName, HeaderValue},
};
use ipnet::IpNet;
use serde_json::json;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};

use super::{ADMIN_SOCKET, Answer, STATE_DIRECTORY, output};
use crate::{
    admin::client::Client,
    causes::with_causes,
    journal::{self, Event, Kind, Level},
    loadtest::{
        self, Ask, Outcome, Progress, Test,
        beside::{self, Look, StageSpan},
        report::{self, Report, SearchReport},
        schedule::{Arrivals, Stage},
        search::{Search, Target as Goal},
        target::{Scheme, Target},
    },
    model::Verify,
    trust,
};

/// The most client addresses.
const MOST_ADDRESSES: usize = 65_536;
/// Between two tries of a search: what waits at the target is over then.
const REST: Duration = Duration::from_secs(1);
/// How often the controller is asked.
const LOOK: Duration = Duration::from_secs(1);
/// Counters are read each second, and a status is one of them behind.
const BEHIND: Duration = Duration::from_millis(2200);

/// Load a target by a schedule, and tell how it answers and how the load was spread
///
/// Requests are sent when they are due, whatever became of those before: a slow target does not slow
/// the test, and latency counts from when a request was due. Where the target is a service of the
/// controller on this host, the report also tells what each backend took, and whether the others
/// would have held the load without one.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "they are switches")]
#[command(after_long_help = "\
Examples:
  evenkeel loadtest http://127.0.0.1:8080/
  evenkeel loadtest http://127.0.0.1:8080/ --rate 500 --for 30s --within 50ms
  evenkeel loadtest http://127.0.0.1:8080/ --rate 10 --ramp 1000 --for 1m --html report.html
  evenkeel loadtest http://127.0.0.1:8080/ --steps 100,200,400,800 --for 10s --within 50ms
  evenkeel loadtest http://127.0.0.1:8080/ --search --within 50ms
  evenkeel loadtest https://127.0.0.1/ --keep --ca ca.pem --rate 200 --for 2h --max-time 2h
  evenkeel loadtest tcp://127.0.0.1:25 --send 'QUIT\\r\\n' --rate 50
  evenkeel loadtest udp://[::1]:53 --send hello --from 127.0.0.0/24
  evenkeel loadtest http://198.51.100.10/ --i-own-this-target --json > report.json

It does no more than 10,000 requests a second for ten minutes unless --max-rate and --max-time say so,
ends by itself where half of the requests of five seconds fail, and takes no target on another host
without --i-own-this-target. Ctrl-C ends it and shows what was found until then.

By default each request has a connection of its own, as those of new clients do, and load balancers
spread connections. --keep gives a connection that is free to the next request.

Where the controller answers at its socket and the target is one of its services, what was found is
written to its journal.

Exit codes:
  0  it was done, and holds --within if that is given
  1  the latency or the failures were more than --within and --failing allow; of a search, at every rate
  2  it could not be done, ended early, or wrong usage")]
pub(super) struct Arguments {
    /// What to load: an URL of http, https, tcp or udp
    #[arg(value_name = "URL")]
    target: String,
    /// Requests a second; of a ramp and of a search, the first
    #[arg(long, short, value_name = "NUMBER", default_value_t = 100.0, value_parser = rate)]
    rate: f64,
    /// How long; with --steps and --search, each [default: 10s, of a search 5s]
    #[arg(long = "for", short = 'd', value_name = "DURATION", value_parser = duration)]
    lasts: Option<Duration>,
    /// Go evenly from --rate to this one
    #[arg(long, value_name = "NUMBER", value_parser = rate, conflicts_with_all = ["steps", "search"])]
    ramp: Option<f64>,
    /// One rate after the other, each for --for
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', value_parser = rate)]
    #[arg(conflicts_with_all = ["search", "rate"])]
    steps: Vec<f64>,
    /// Find the highest rate that holds --within
    #[arg(long, requires = "within")]
    search: bool,
    /// The latency that most requests are to be answered within
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    within: Option<Duration>,
    /// What 'most' is, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 99.0, value_parser = percent)]
    quantile: f64,
    /// How many requests may fail, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 0.1, value_parser = percent)]
    failing: f64,
    /// Give a connection that is free to the next request (HTTP)
    #[arg(long)]
    keep: bool,
    /// The addresses that requests come from, in turns: addresses of this host, or prefixes of them
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',', value_parser = addresses)]
    from: Vec<IpNet>,
    /// How requests lie in time
    #[arg(long, value_enum, default_value_t)]
    arrivals: Arrivals,
    /// How long after it was due a request has failed
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    timeout: Duration,
    /// The method (HTTP)
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: Method,
    /// A header, as in 'Host: www.example' (HTTP); may be repeated
    #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// What is sent: the body of HTTP, a datagram, or the first bytes of a connection; \r, \n, \t, \\
    /// and \x00 to \xff stand for a byte
    #[arg(long, value_name = "TEXT", value_parser = bytes)]
    send: Option<Bytes>,
    /// Trust the certificates in this PEM file (HTTPS) [default: those that the system trusts]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,
    /// Take any certificate (HTTPS)
    #[arg(long)]
    insecure: bool,
    /// How many requests may wait for an answer; those due beyond that are not sent, and have failed
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    waiting: u32,
    /// How many threads send [default: one for each processor]
    #[arg(long, value_name = "NUMBER")]
    workers: Option<NonZeroUsize>,
    /// The most requests a second
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000.0, value_parser = rate)]
    max_rate: f64,
    /// The longest time in all
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    max_time: Duration,
    /// End where more of the requests of five seconds fail, in percent; 100 never ends it
    #[arg(long, value_name = "PERCENT", default_value_t = 50.0, value_parser = percent)]
    stop_at_failures: f64,
    /// Say that a target on another host is yours, and may be loaded now
    #[arg(long)]
    i_own_this_target: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write the report as a page with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Do not tell each second how far it is
    #[arg(long, short)]
    quiet: bool,
    /// The controller's admin socket
    #[arg(long, value_name = "PATH", env = "EVENKEEL_SOCKET", default_value = ADMIN_SOCKET)]
    socket: PathBuf,
    /// The state directory of the controller
    #[arg(long, value_name = "DIRECTORY", env = "EVENKEEL_STATE", default_value = STATE_DIRECTORY)]
    state: PathBuf,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.1..=1_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("give a number from 0.1 to 1000000".into()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').trim_end().parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("give a number from 0 to 100".into()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time >= Duration::from_micros(1) && time <= Duration::from_hours(24 * 30) => {
            Ok(time)
        }
        Ok(_) => Err("give a time from 1us to 30days".into()),
        Err(e) => Err(format!("{e}; give it as in 50ms, 10s or 1h 30m")),
    }
}

fn addresses(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address
        .or_else(|_| text.parse())
        .map_err(|_| "give an address or a prefix, as in 192.0.2.1 or 192.0.2.0/24".to_owned())
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("give it as in 'Name: value'")?;
    Ok((
        name.trim()
            .parse()
            .map_err(|_| format!("'{name}' names no header"))?,
        value
            .trim()
            .parse()
            .map_err(|_| format!("'{value}' is no value of a header"))?,
    ))
}

fn bytes(text: &str) -> Result<Bytes, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        let mut chars = rest.chars();
        let (byte, taken) = match chars.next() {
            Some('r') => (b'\r', 1),
            Some('n') => (b'\n', 1),
            Some('t') => (b'\t', 1),
            Some('\\') => (b'\\', 1),
            Some('x') => {
                let digits = rest.get(1..3).unwrap_or_default();
                let byte = u8::from_str_radix(digits, 16);
                (byte.map_err(|_| format!("'\\x{digits}' is no byte"))?, 3)
            }
            _ => return Err("a backslash is followed by r, n, t, x and two digits, or one".into()),
        };
        bytes.push(byte);
        rest = &rest[taken..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes.into())
}

impl Arguments {
    fn lasts(&self) -> Duration {
        let usual = if self.search { 5 } else { 10 };
        self.lasts.unwrap_or(Duration::from_secs(usual))
    }

    /// The stages of a test; of a search, none.
    fn stages(&self) -> Vec<Stage> {
        let lasts = self.lasts();
        if self.search {
            Vec::new()
        } else if !self.steps.is_empty() {
            let steady = |rate: &f64| Stage::steady(*rate, lasts);
            self.steps.iter().map(steady).collect()
        } else {
            vec![Stage {
                from: self.rate,
                to: self.ramp.unwrap_or(self.rate),
                lasts,
            }]
        }
    }

    fn goal(&self) -> Option<Goal> {
        self.within.map(|within| Goal {
            quantile: self.quantile / 100.0,
            latency_s: within.as_secs_f64(),
            failures: self.failing / 100.0,
        })
    }

    /// The test, with everything checked that can be before it begins.
    fn test(&self) -> anyhow::Result<Test> {
        let target = Target::new(&self.target)?;
        if !self.i_own_this_target {
            target.require_local()?;
        }
        let stages = self.stages();
        let peak = stages.iter().map(Stage::peak).fold(self.rate, f64::max);
        ensure!(
            peak <= self.max_rate,
            "{peak} requests a second are more than {}: if the target may be loaded so, say \
             '--max-rate {peak}'",
            self.max_rate
        );
        let lasts: Duration = stages.iter().map(|stage| stage.lasts).sum();
        ensure!(
            lasts <= self.max_time,
            "{} are more than {}: if the test may take so long, say '--max-time {0}'",
            humantime::format_duration(lasts),
            humantime::format_duration(self.max_time)
        );
        let is_http = matches!(target.scheme, Scheme::Http | Scheme::Https);
        ensure!(
            is_http || !(self.keep || !self.header.is_empty() || self.method != Method::GET),
            "--keep, --header and --method are for http and https"
        );
        ensure!(
            target.scheme == Scheme::Https || !(self.insecure || self.ca.is_some()),
            "--ca and --insecure are for https"
        );
        ensure!(
            target.scheme != Scheme::Udp || self.send.is_some(),
            "a datagram has to say something that is answered: give it with '--send TEXT'"
        );
        let tls = (target.scheme == Scheme::Https).then(|| {
            let verify = if self.insecure {
                Verify::No
            } else {
                Verify::Yes
            };
            trust::client(verify, self.ca.as_deref()).map(Arc::new)
        });
        let workers = match self.workers {
            Some(workers) => workers,
            None => thread::available_parallelism().context("cannot count the processors")?,
        };
        Ok(Test {
            ask: Ask {
                method: self.method.clone(),
                headers: self.header.iter().cloned().collect(),
                body: self.send.clone().unwrap_or_default(),
                keeps: self.keep,
                from: self.client_addresses(&target)?,
                timeout: self.timeout,
                tls: tls.transpose()?,
                target,
            },
            stages,
            arrivals: self.arrivals,
            workers: workers.get(),
            waiting: self.waiting as usize,
            stop_at_failures: (self.stop_at_failures < 100.0)
                .then_some(self.stop_at_failures / 100.0),
        })
    }

    fn client_addresses(&self, target: &Target) -> anyhow::Result<Vec<IpAddr>> {
        let mut all = Vec::new();
        for prefix in &self.from {
            ensure!(
                prefix.addr().is_ipv4() == target.address.is_ipv4(),
                "{prefix} is of another family than {}",
                target.address
            );
            all.extend(prefix.hosts().take(MOST_ADDRESSES + 1));
            ensure!(
                all.len() <= MOST_ADDRESSES,
                "more than {MOST_ADDRESSES} addresses: name smaller prefixes with --from"
            );
        }
        for &address in &all {
            std::net::UdpSocket::bind((address, 0)).with_context(|| {
                format!(
                    "{address} cannot be used: give it to this host ('ip address add', or for a \
                     prefix 'ip route add local PREFIX dev lo')"
                )
            })?;
        }
        Ok(all)
    }
}

/// A part of the test: its stages, when it began, and what became of it.
type Part = (Vec<Stage>, Duration, Outcome);

/// Runs the test and shows what it found.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let test = arguments.test()?;
    let stop = stop_on_signals()?;
    let began_at_ms = now_ms();
    let begin = now();
    let onlooker = Onlooker::start(arguments, &test.ask.target, begin);
    let (parts, search) = if arguments.search {
        let (parts, search) = searched(arguments, &test, &stop, begin)?;
        (parts, Some(search))
    } else {
        let begins = begin.elapsed();
        let outcome = load(arguments, &test, &stop)?;
        (vec![(test.stages.clone(), begins, outcome)], None)
    };
    let goal = arguments.goal();
    let mut report = Report::new(&test, &parts, goal, began_at_ms);
    report.search = search.zip(goal).map(|(search, goal)| SearchReport {
        quantile: goal.quantile,
        limit_s: goal.latency_s,
        failures: goal.failures,
        held: search.held(),
        broken: search.broken(),
    });
    if let Some(onlooker) = onlooker {
        let looks = onlooker.end();
        report.spread = beside::spread(&looks, &spans(&report));
        note(arguments, &report);
    }
    show(arguments, &report)?;
    ensure!(
        report.ended.is_none() || report.search.is_some(),
        "the test ended early: {}",
        report.ended.unwrap_or_default()
    );
    let held = match &report.search {
        Some(search) => search.held.is_some(),
        None => report.stages.iter().all(|stage| stage.holds != Some(false)),
    };
    Ok(if held { Answer::Yes } else { Answer::No })
}

/// Tries one rate after the other until the answer is known, or time is up.
fn searched(
    arguments: &Arguments,
    test: &Test,
    stop: &Arc<AtomicBool>,
    begin: Instant,
) -> anyhow::Result<(Vec<Part>, Search)> {
    let goal = arguments.goal().context("a search needs --within")?;
    let mut search = Search::new(arguments.rate, arguments.max_rate);
    let mut parts = Vec::new();
    while let Some(rate) = search.next() {
        if begin.elapsed() + arguments.lasts() > arguments.max_time {
            output::complain("time is up: --max-time lets it go on for longer");
            break;
        }
        let stages = vec![Stage::steady(rate, arguments.lasts())];
        let test = Test {
            stages: stages.clone(),
            ..test.clone()
        };
        let begins = begin.elapsed();
        let outcome = load(arguments, &test, stop)?;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if parts.is_empty()
            && outcome.total.answered == 0
            && let Some((why, _)) = outcome
                .total
                .failures
                .iter()
                .max_by_key(|(_, count)| **count)
        {
            bail!("{} answers nothing: {why}", test.ask.target);
        }
        let holds = outcome.ended.is_none() && report::holds(&outcome.total, goal);
        if !arguments.quiet {
            let so = if holds { "holds" } else { "does not hold" };
            output::complain(&format!("{rate:.1} requests a second: {so}"));
        }
        search.tried(holds);
        parts.push((stages, begins, outcome));
        thread::sleep(REST);
    }
    ensure!(
        !parts.is_empty(),
        "the search ended before its first rate was tried"
    );
    Ok((parts, search))
}

/// Runs a test, telling how far it is.
fn load(arguments: &Arguments, test: &Test, stop: &Arc<AtomicBool>) -> anyhow::Result<Outcome> {
    let tell = |progress: &Progress| {
        if !arguments.quiet {
            output::complain(&report::progress(progress));
        }
    };
    loadtest::run(test, stop, tell).context("cannot run the load test")
}

/// When each stage was, and whether it held; one that nothing was asked of held where nothing
/// failed.
fn spans(report: &Report) -> Vec<StageSpan> {
    let span = |stage: &report::StageReport| StageSpan {
        from: Duration::from_secs_f64(stage.begins_s),
        to: Duration::from_secs_f64(stage.begins_s + stage.lasts_s),
        holds: stage.holds.unwrap_or(stage.figures.failed() == 0),
    };
    report.stages.iter().map(span).collect()
}

fn show(arguments: &Arguments, report: &Report) -> anyhow::Result<()> {
    if let Some(file) = &arguments.html {
        fs::write(file, report::page(report)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    if arguments.json {
        output::print(&(serde_json::to_string_pretty(report)? + "\n"))?;
    } else {
        output::print(&report.text())?;
    }
    Ok(())
}

/// Writes what was found of a service into the controller's journal.
fn note(arguments: &Arguments, report: &Report) {
    let Some(spread) = &report.spread else { return };
    let detail = json!({
        "target": report.target,
        "began_at_ms": report.began_at_ms,
        "connections": report.connections,
        "requests": report.total.due,
        "failed": report.total.failed(),
        "rate": report.total.answered_rate,
        "latency": report.total.latency,
        "search": report.search,
        "backends": spread.backends.iter().map(|b| (&b.name, b.took)).collect::<Vec<_>>(),
        "without_one": spread.without_one,
    });
    let message = match &report.search {
        Some(search) => format!("load test of {}: {}", report.target, search.told()),
        None => format!(
            "load test of {}: {} requests at {:.0} /s, {} failed",
            report.target,
            report.total.due,
            report.total.due_rate,
            report.total.failed()
        ),
    };
    let event = Event {
        service: Some(spread.service.clone()),
        actor: super::note::user(),
        ..Event::of_controller(now_ms(), Kind::LoadTest, Level::Info, message).detail(detail)
    };
    if let Err(error) = journal::append_one(&arguments.state, &event) {
        output::complain(&format!(
            "not written to the journal: {}",
            with_causes(&error)
        ));
    }
}

/// Looks each second at what the controller says of the target's service.
struct Onlooker {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<Vec<Look>>,
}

impl Onlooker {
    /// Nothing where no controller answers, or the target is no service of its.
    fn start(arguments: &Arguments, target: &Target, begin: Instant) -> Option<Self> {
        let client = Client::new(&arguments.socket);
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .ok()?;
        let target = target.clone();
        let look = move || {
            let status = runtime.block_on(client.status()).ok()?;
            let service = beside::service_of(&status, &target)?.clone();
            // A status tells of counters that were read at the last tick.
            Some(Look {
                at: begin.elapsed(),
                service,
            })
        };
        let first = look()?;
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut looks = vec![first];
            while stopped.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
                looks.extend(look());
            }
            thread::sleep(BEHIND);
            looks.extend(look());
            looks
        });
        Some(Self { stop, thread })
    }

    fn end(self) -> Vec<Look> {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}

/// What is set once the test is to end.
pub(super) fn stop_on_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot watch for signals")?;
    let guard = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for signals")?;
    drop(guard);
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            told.store(true, Ordering::Relaxed);
            // The second one ends it at once, with nothing shown.
            tokio::select! {
                _ = interrupt.recv() => std::process::exit(130),
                _ = terminate.recv() => std::process::exit(143),
            }
        });
    });
    Ok(stop)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a load test is what reads the clock"
)]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the report tells when it was")]
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| time.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_may_be_any_bytes() {
        assert_eq!(bytes("plain").unwrap(), "plain");
        assert_eq!(bytes(r"QUIT\r\n").unwrap(), "QUIT\r\n");
        assert_eq!(
            bytes(r"\x00\\\xfFx").unwrap(),
            Bytes::from_static(b"\0\\\xffx")
        );
        for wrong in [r"\", r"\q", r"\x0", r"\xgg", r"a\x"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_header_has_a_name_and_a_value() {
        let (name, value) = header("X-Why:  because: so ").unwrap();
        assert_eq!(
            (name.as_str(), value.as_bytes()),
            ("x-why", &b"because: so"[..])
        );
        assert!(header("none").is_err());
        assert!(header("a b: c").is_err());
    }
}
