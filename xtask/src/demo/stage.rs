//! The network, the servers, the controller and the client of the demonstration.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use evenkeel_tests::{
    clock,
    daemon::Daemon,
    server::Web,
    topology::{BALANCER_INTERFACE, Spec, Topology, VIP4},
    traffic::{Load, Traffic},
    wait,
};
use serde_json::Value;

use super::{
    promises::{self, Events, Story},
    screen::Screen,
    stop::Stop,
};

/// The service's name in the configuration.
const SERVICE: &str = "web";
/// The backend that is killed, counted from zero.
const VICTIM: usize = 1;
/// How long removal and return may take before the demonstration gives up.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the client may run: longer than all phases together.
const TRAFFIC: Duration = Duration::from_mins(5);
/// How long `--keep` may last.
const LINGER: Duration = Duration::from_hours(24);
/// Long-lived connections of the client.
const KEPT: u32 = 6;

/// A part of the demonstration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// All is well.
    Steady,
    /// One backend was killed.
    OneDead,
    /// It is back.
    Returned,
}

impl Phase {
    /// What is going on, for the screen.
    fn describe(self, victim: &str) -> String {
        match self {
            Self::Steady => "steady: all backends serve".to_owned(),
            Self::OneDead => format!("{victim} is dead: its server was killed (SIGKILL)"),
            Self::Returned => format!("{victim} is back"),
        }
    }
}

/// Builds the network.
///
/// # Errors
///
/// Where the machine lacks something.
pub(crate) fn build_network() -> Result<Topology> {
    println!("building a network: client - router - switch - balancer and three backends");
    Topology::build(&Spec::default())
}

/// Everything that runs in the network.
#[derive(Debug)]
pub(crate) struct Stage<'bed> {
    stop: &'bed Stop,
    screen: Screen,
    events: Events,
    shares: Vec<(String, f64)>,
    // What runs, in the order in which it ends.
    traffic: Option<Traffic<'bed>>,
    daemon: Daemon<'bed>,
    servers: Vec<Web<'bed>>,
    bed: &'bed Topology,
}

impl<'bed> Stage<'bed> {
    /// Starts the servers, the controller and the client.
    ///
    /// # Errors
    ///
    /// Where one does not start, or at the signal to stop.
    pub(crate) fn set(bed: &'bed Topology, binary: &Path, stop: &'bed Stop) -> Result<Self> {
        println!("starting nginx on each backend, and `evenkeel run` on the balancer");
        let servers = Web::start_all(bed)?;
        stop.check()?;
        let config = bed.config_head() + &bed.web_service(SERVICE, VIP4);
        let mut daemon = Daemon::start_unready(bed, binary, &config)?;
        daemon.await_ready()?;
        let all = servers.len();
        let status = wait::until("all backends to serve", PATIENCE, || {
            stop.check()?;
            let status = daemon.status()?;
            ensure!(serving(&status)? == all, "only some serve");
            Ok(status)
        });
        stop.check()?;
        let shares = intended_shares(&status?)?;
        let load = Load {
            kept: KEPT,
            ..Load::new(VIP4, TRAFFIC)
        };
        let mut screen = Screen::new();
        screen.say(&format!(
            "sending {} requests a second to {VIP4}, each over a new connection, and one every \
             200 ms on each of {KEPT} long-lived ones",
            load.rate
        ));
        let traffic = Some(Traffic::start(bed, load)?);
        let events = Events::default();
        Ok(Self {
            stop,
            screen,
            events,
            shares,
            traffic,
            daemon,
            servers,
            bed,
        })
    }

    /// Shows what is going on, once a second.
    ///
    /// # Errors
    ///
    /// Where the controller or the client fails, or at the signal to stop.
    pub(crate) fn watch(&mut self, phase: Phase, time: Duration) -> Result<()> {
        let title = phase.describe(self.servers[VICTIM].name());
        let start = wait::now();
        let mut second = 0;
        while start.elapsed() < time {
            second += 1;
            let left = Duration::from_secs(second).saturating_sub(start.elapsed());
            self.stop.sleep(left)?;
            self.daemon.check_running()?;
            let status = self.daemon.status()?;
            let report = self
                .traffic
                .as_mut()
                .context("the traffic has ended")?
                .report()?;
            self.screen.show(&title, &status["services"][0], &report);
        }
        Ok(())
    }

    /// Kills one server and waits until the controller has taken it out.
    ///
    /// # Errors
    ///
    /// Where it is not taken out, or at the signal to stop.
    pub(crate) fn kill_one(&mut self) -> Result<()> {
        let name = self.servers[VICTIM].name().to_owned();
        self.screen.say(&format!("killing the server on {name}"));
        self.events.killed = clock::now_ms();
        self.servers[VICTIM].kill();
        let status = self.await_ring(&name, false)?;
        self.events.seen_removed = clock::now_ms();
        self.events.removed = published_at(&status, self.events.seen_removed);
        let backend = backend(&status, &name)?;
        let took = self.events.removed.saturating_sub(self.events.killed);
        let reason = backend["out_of_ring"].as_str().unwrap_or_default();
        self.screen
            .say(&format!("{name} was taken out after {took} ms ({reason})"));
        Ok(())
    }

    /// Starts the killed server again and waits until the controller has taken it in.
    ///
    /// # Errors
    ///
    /// Where it is not taken in, or at the signal to stop.
    pub(crate) fn bring_back(&mut self) -> Result<()> {
        let name = self.servers[VICTIM].name().to_owned();
        self.events.restarted = clock::now_ms();
        self.servers[VICTIM].start_again()?;
        let status = self.await_ring(&name, true)?;
        self.events.seen_returned = clock::now_ms();
        let returned = published_at(&status, self.events.seen_returned);
        let took = returned.saturating_sub(self.events.restarted);
        self.screen.say(&format!(
            "{name} was taken in again {took} ms after its server started"
        ));
        Ok(())
    }

    /// Ends the traffic, prints what came of it, and answers whether every promise was kept.
    ///
    /// # Errors
    ///
    /// Where the controller or the client fails.
    pub(crate) fn judge(&mut self) -> Result<bool> {
        let traffic = self.traffic.take().context("the traffic has ended")?;
        let outcome = traffic.stop()?;
        self.daemon.check_running()?;
        let status = self.daemon.status()?;
        let story = Story {
            events: &self.events,
            shares: &self.shares,
            victim: self.servers[VICTIM].name(),
            outcome: &outcome,
            shares_after: &intended_shares(&status)?,
            tables_as_intended: status["tables"]["as_intended"] == true,
            verdict: status["services"][0]["evenness"]["verdict"]
                .as_str()
                .unwrap_or("missing"),
        };
        Ok(promises::report(&story))
    }

    /// Goes on with light traffic until the signal to stop, after saying what to try.
    ///
    /// # Errors
    ///
    /// Where the client cannot be started.
    pub(crate) fn linger(&mut self) -> Result<()> {
        let load = Load {
            kept: KEPT,
            records: false,
            ..Load::new(VIP4, LINGER)
        };
        self.traffic = Some(Traffic::start(self.bed, load)?);
        let evenkeel = self.daemon.binary().display();
        let socket = self.bed.socket();
        let socket = socket.display();
        let (client, balancer) = (self.bed.client.path(), self.bed.balancer.path());
        let victim = &self.bed.backends[VICTIM];
        println!("\nit goes on, with traffic, until Ctrl-C; try in another terminal, as root:");
        println!("  {evenkeel} status --socket {socket} --watch");
        println!(
            "  nsenter --net={} -- curl http://{VIP4}/",
            client.display()
        );
        println!(
            "  nsenter --net={} -- ip link show {BALANCER_INTERFACE}",
            balancer.display()
        );
        println!(
            "  kill -9 {}   # the server of {}",
            self.servers[VICTIM].pid(),
            victim.name
        );
        println!(
            "  kill -9 {}   # the controller: traffic goes on",
            self.daemon.pid()
        );
        println!("  tail -f {}", self.daemon.log().display());
        while self.stop.sleep(Duration::from_secs(1)).is_ok() {}
        println!("\nstopped; everything is removed");
        Ok(())
    }

    /// Waits until a backend is in the ring, or out of it; answers the status that says so.
    fn await_ring(&mut self, name: &str, inside: bool) -> Result<Value> {
        let what = format!(
            "{name} to be {} the ring",
            if inside { "in" } else { "out of" }
        );
        let Self { daemon, stop, .. } = self;
        let found = wait::until(what, PATIENCE, || {
            if stop.check().is_err() {
                return Ok(None);
            }
            let status = daemon.status()?;
            ensure!(
                backend(&status, name)?["out_of_ring"].is_null() == inside,
                "not yet"
            );
            Ok(Some(status))
        });
        self.stop.check()?;
        let log = fs::read_to_string(self.daemon.log()).unwrap_or_default();
        found
            .with_context(|| format!("the controller's log:\n{log}"))?
            .context("interrupted")
    }
}

/// A backend of the service in a status.
fn backend<'a>(status: &'a Value, name: &str) -> Result<&'a Value> {
    let backends = backends(status)?;
    let found = backends.iter().find(|backend| backend["name"] == name);
    found.with_context(|| format!("`evenkeel status --json` names no backend {name}"))
}

fn backends(status: &Value) -> Result<&Vec<Value>> {
    let backends = status["services"][0]["backends"].as_array();
    backends.context("`evenkeel status --json` names no backends")
}

/// How many backends of the service are in the ring.
fn serving(status: &Value) -> Result<usize> {
    Ok(backends(status)?
        .iter()
        .filter(|backend| backend["out_of_ring"].is_null())
        .count())
}

/// The backends' names with their shares of the ring.
fn intended_shares(status: &Value) -> Result<Vec<(String, f64)>> {
    let share =
        |backend: &Value| match (backend["name"].as_str(), backend["intended_share"].as_f64()) {
            (Some(name), Some(share)) => Ok((name.to_owned(), share)),
            _ => bail!("`evenkeel status --json` tells no share of {backend}"),
        };
    backends(status)?.iter().map(share).collect()
}

/// When the tables were published that a status tells of, or else when it was seen.
fn published_at(status: &Value, seen_at_ms: u64) -> u64 {
    status["published_at_ms"].as_u64().unwrap_or(seen_at_ms)
}
