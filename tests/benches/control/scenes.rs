//! The situations in which the controller is measured.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use evenkeel_tests::{
    control_cost::Options,
    daemon::Daemon,
    server::{AccessLog, Web},
    tools,
    topology::{Service, Spec, Topology},
    wait,
};
use serde_json::Value;

/// The ports of the services; each VIP has one on each.
pub(crate) const PORTS: [u16; 4] = [80, 81, 82, 83];
/// How long a start, a round of probes or a change may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long a client waits for an answer before it tries again.
const TRY: Duration = Duration::from_millis(20);

/// How the services are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checks {
    /// The first by HTTP five times a second, the others not at all.
    First,
    /// All of them by TCP each ten seconds, but for the first.
    All,
    /// All of them by TCP each second.
    Tcp,
    /// All of them by HTTP each second.
    Http,
}

/// The VIP of a service.
fn vip(service: u16) -> IpAddr {
    let last = 1 + service / PORTS.len() as u16;
    Ipv4Addr::new(198, 51, 100, last as u8).into()
}

/// The first service, whose backends fail and come back.
pub(crate) fn first() -> SocketAddr {
    SocketAddr::new(vip(0), PORTS[0])
}

/// The network for so many services.
pub(crate) fn network(options: &Options) -> Result<Topology> {
    let services = options.services.max(options.probed);
    let mut vips: Vec<IpAddr> = (0..services).map(vip).collect();
    vips.dedup();
    Topology::build(&Spec {
        backends: options.backends,
        vips,
        ..Spec::default()
    })
}

/// A server on each backend, for all services.
pub(crate) fn servers(bed: &Topology) -> Result<Vec<Web<'_>>> {
    bed.backends
        .iter()
        .map(|host| Web::start_on(bed, host, AccessLog::Off, &PORTS))
        .collect()
}

/// A configuration of so many services.
pub(crate) fn configuration(bed: &Topology, services: u16, checks: Checks) -> String {
    let quick = "type = \"http\"\ninterval = \"200ms\"\ntimeout = \"150ms\"\nrise = 2\nfall = 2\n\
                 path = \"/healthz\"";
    let mut toml = bed.config_head();
    for n in 0..services {
        let health = match checks {
            Checks::First | Checks::All if n == 0 => quick,
            Checks::First => "",
            Checks::All => "type = \"tcp\"\ninterval = \"10s\"",
            Checks::Tcp => "type = \"tcp\"\ninterval = \"1s\"",
            Checks::Http => "type = \"http\"\ninterval = \"1s\"\npath = \"/healthz\"",
        };
        let port = PORTS[usize::from(n) % PORTS.len()].to_string();
        let name = format!("s{n}");
        let service = Service {
            port: &port,
            health,
            ..Service::web(&name, vip(n))
        };
        write!(toml, "{}", bed.service(&service)).expect("it is a string");
    }
    toml
}

/// A start of the controller, from the start of its process to a client's answer and to the
/// attached program.
pub(crate) struct Started<'bed> {
    pub(crate) daemon: Daemon<'bed>,
    pub(crate) answered: Duration,
    pub(crate) attached: Duration,
}

/// Starts the controller.
pub(crate) fn start<'bed>(bed: &'bed Topology, toml: &str) -> Result<Started<'bed>> {
    let binary = tools::evenkeel()?;
    let log = bed.seat().log();
    let read = || fs::read_to_string(&log).unwrap_or_default();
    let before = read().len();
    let begin = wait::now();
    let mut daemon = Daemon::start_unready(bed, &binary, toml)?;
    let answered = bed.client.inside(|| {
        wait::until("a client to be answered", PATIENCE, || {
            TcpStream::connect_timeout(&first(), TRY)?;
            Ok(begin.elapsed())
        })
    })?;
    let answered = answered.with_context(|| read()[before..].to_owned())?;
    let attached = wait::until("the program to be attached", PATIENCE, || {
        daemon.check_running()?;
        let log = read();
        let told = ["attached to ", "took over "];
        let done = told.iter().any(|words| log[before..].contains(words));
        ensure!(done, "the log does not say so");
        Ok(begin.elapsed())
    })?;
    daemon.await_ready()?;
    Ok(Started {
        daemon,
        answered,
        attached,
    })
}

/// Waits until every probed backend is up, and answers how many there are.
pub(crate) fn await_up(daemon: &Daemon<'_>) -> Result<usize> {
    wait::until("every backend to be up", PATIENCE, || {
        let status = daemon.status()?;
        let probed = probed(&status);
        let down = probed.iter().filter(|b| b["health"] != "up").count();
        ensure!(down == 0, "{down} of {} are not", probed.len());
        Ok(probed.len())
    })
}

/// Checks that every probed backend is up, and was probed within so long.
pub(crate) fn require_probed(daemon: &Daemon<'_>, within: Duration) -> Result<()> {
    let status = daemon.status()?;
    let now = status["now_ms"].as_u64().context("no time in the status")?;
    for backend in probed(&status) {
        let at = backend["last_probe"]["at_ms"].as_u64().unwrap_or_default();
        let ago = Duration::from_millis(now.saturating_sub(at));
        if backend["health"] != "up" || ago > within {
            bail!("{} was last probed {ago:?} ago: {backend}", backend["name"]);
        }
    }
    Ok(())
}

fn probed(status: &Value) -> Vec<&Value> {
    let services = status["services"].as_array().into_iter().flatten();
    services
        .flat_map(|service| service["backends"].as_array().into_iter().flatten())
        .filter(|backend| backend["health"] != "unchecked")
        .collect()
}

/// Kills a server or starts it again, waits for the publication that follows, and answers how long
/// that took from the decision.
pub(crate) fn change(daemon: &Daemon<'_>, act: impl FnOnce() -> Result<()>) -> Result<f64> {
    // Generations begin anew where nothing was adopted; the journal goes on.
    let last = publications(daemon)?.last().map(number).transpose()?;
    act()?;
    wait::until("a publication", PATIENCE, || {
        for event in publications(daemon)? {
            let why = event["detail"]["why"].to_string();
            let turned = [" is up", " is down"].iter().any(|w| why.contains(w));
            if turned && Some(number(&event)?) > last {
                let took = event["detail"]["took_ms"].as_f64();
                return took.context("the event does not tell how long it took");
            }
        }
        bail!("there is none yet")
    })
}

fn number(event: &Value) -> Result<i64> {
    event["id"].as_i64().context("the event has no number")
}

fn publications(daemon: &Daemon<'_>) -> Result<Vec<Value>> {
    let told = daemon.ask(&["events", "--json", "--kind", "publication", "-n", "50"])?;
    let lines = String::from_utf8_lossy(&told.stdout);
    let events: Result<_, _> = lines.lines().map(serde_json::from_str).collect();
    events.context("`evenkeel events --json` printed no JSON")
}
