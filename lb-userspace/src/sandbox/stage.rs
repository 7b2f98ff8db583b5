//! All of a sandbox, ready for a drill.

use std::{
    fmt::Write as _,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::sched::{CloneFlags, unshare};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
    process::geteuid,
};
use tokio::runtime::Runtime;

use super::{
    Error, SERVICE, folder, io_error,
    network::{BALANCER_INTERFACE, CLIENTS, Network, VIP, backend_address},
    process::Controller,
    server::{PORT, Server},
    traffic::{Seen, Traffic},
};
use crate::{
    admin::{
        client::{Client, ClientError},
        proto::Status,
    },
    model::Drill,
};

/// How many backends there are: of fewer, one that is bad might be the fleet.
pub(super) const BACKENDS: u8 = 5;
/// How many requests are made each second.
const RATE: f64 = 150.0;
/// The weight and declared capacity of each backend.
pub(super) const WEIGHT: u16 = 100;
/// How long a start may take.
const STARTING: Duration = Duration::from_secs(40);
/// How often the controller is asked.
pub(super) const LOOK: Duration = Duration::from_millis(200);

/// What a sandbox is asked for.
#[derive(Debug)]
pub struct Plan {
    /// The drill.
    pub drill: Drill,
    /// Where the sandbox's files stay; they are removed where there is none.
    pub keep: Option<PathBuf>,
    /// Set from elsewhere to end it early.
    pub stop: Arc<AtomicBool>,
}

/// A sandbox. What it consists of ends in this order: clients before servers, and all before the
/// network.
pub(super) struct Stage {
    pub(super) clients: Traffic,
    pub(super) heavy: Option<Traffic>,
    pub(super) servers: Vec<Server>,
    pub(super) controller: Controller,
    network: Network,
    /// The file system of pins.
    _pins: Pins,
    folder: PathBuf,
    _removed: Option<tempfile::TempDir>,
    runtime: Runtime,
    client: Client,
    stop: Arc<AtomicBool>,
}

impl Stage {
    /// Builds it, and waits until packets follow the controller's tables.
    ///
    /// To be called before there is another thread: what is mounted is mounted for this process.
    pub(super) fn build(plan: &Plan, tell: &mut dyn FnMut(&str)) -> Result<Self, Error> {
        if !geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        let (folder, removed) = folder(plan.keep.as_deref())?;
        let pins = Pins::mount(folder.join("bpf"))?;
        tell("building a network of namespaces");
        let network = Network::build(BACKENDS)?;
        let servers = network.backends.iter().map(Server::start);
        let servers: Vec<Server> = servers.collect::<Result<_, _>>()?;
        let config = folder.join("evenkeel.toml");
        let text = config_text(&folder, plan.drill, WEIGHT, "");
        std::fs::write(&config, text).map_err(io_error("write the configuration"))?;
        let log = folder.join("controller.log");
        let controller = Controller::start(network.balancer.path(), config, log)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(io_error("start the runtime"))?;
        let clients = Traffic::start(&network.clients, RATE, addresses())?;
        let mut stage = Self {
            clients,
            heavy: None,
            servers,
            controller,
            network,
            _pins: pins,
            client: Client::new(folder.join("evenkeel.sock")),
            folder,
            _removed: removed,
            runtime,
            stop: plan.stop.clone(),
        };
        tell("starting a controller");
        stage.await_status("the controller to be attached", STARTING, |status| {
            if status.interfaces.is_empty() {
                return Err("it starts".to_owned());
            }
            let service = &status.services[0];
            if service.serving < usize::from(BACKENDS) {
                return Err(format!("{} backends serve", service.serving));
            }
            Ok(())
        })?;
        // Whoever is told has been told once: that is what the audit asks for.
        stage.ask(|client| async move { client.test_notify(None).await })?;
        Ok(stage)
    }

    /// Asks the controller.
    pub(super) fn ask<T, F>(&self, question: impl FnOnce(Client) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let answered = self.runtime.block_on(question(self.client.clone()));
        answered.map_err(Error::Client)
    }

    /// What the controller says, where it answers.
    pub(super) fn status(&self) -> Option<Status> {
        self.ask(|client| async move { client.status().await }).ok()
    }

    /// Waits until a status is as wanted, and answers it.
    pub(super) fn await_status(
        &mut self,
        what: &str,
        patience: Duration,
        so: impl Fn(&Status) -> Result<(), String>,
    ) -> Result<Status, Error> {
        let begin = now();
        loop {
            self.pause()?;
            self.controller.check()?;
            let found = match self.status() {
                Some(status) => so(&status).map(|()| status),
                None => Err("the controller does not answer".to_owned()),
            };
            match found {
                Ok(status) => return Ok(status),
                Err(why) if begin.elapsed() > patience => {
                    return Err(Error::Late {
                        what: what.to_owned(),
                        seconds: patience.as_secs(),
                        why,
                    });
                }
                Err(_) => {}
            }
        }
    }

    /// Waits for a moment, unless somebody ends it all.
    pub(super) fn pause(&self) -> Result<(), Error> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        thread::sleep(LOOK);
        Ok(())
    }

    /// Has one client open connections as all others together do.
    pub(super) fn add_heavy(&mut self) -> Result<(), Error> {
        self.heavy = Some(Traffic::start(&self.network.clients, RATE, vec![HEAVY])?);
        Ok(())
    }

    /// What became of clients' requests.
    pub(super) fn seen(&self) -> Seen {
        self.clients.seen()
    }

    /// Whether the receiver was told of an alert since a moment, about the target where it is about
    /// one backend; answers in which words.
    pub(super) fn told(&self, alert: &str, target: Option<&str>, since_ms: u64) -> Option<String> {
        let text = std::fs::read_to_string(self.folder.join(NOTIFICATIONS)).ok()?;
        text.lines().find_map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).ok()?;
            let at = humantime::parse_rfc3339(value["at"].as_str()?).ok()?;
            let at_ms = at.duration_since(UNIX_EPOCH).ok()?.as_millis();
            let labels = &value["labels"];
            let backend = labels["backend"].as_str();
            let so = labels["alertname"] == alert
                && (backend.is_none() || target.is_none() || backend == target)
                && value["status"] == "firing"
                && at_ms >= u128::from(since_ms);
            so.then(|| {
                value["annotations"]["summary"]
                    .as_str()
                    .unwrap_or(alert)
                    .to_owned()
            })
        })
    }

    /// The state directory of its controller.
    pub(super) fn state(&self) -> PathBuf {
        self.folder.join(STATE)
    }

    /// The folder of its files.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The client that the others together are no match for.
pub(super) const HEAVY: Ipv4Addr = Ipv4Addr::new(10, 232, 255, 7);
/// Where the receiver of notifications writes.
const NOTIFICATIONS: &str = "notifications.jsonl";
/// The state directory.
const STATE: &str = "state";

/// Where the others' requests come from: so many that no two of them matter.
fn addresses() -> Vec<Ipv4Addr> {
    let (first, bits) = CLIENTS;
    let first = u32::from(first);
    // The last byte of the third part is left to the heavy one.
    let all = first + 1..first + (1 << (32 - bits)) - 256;
    all.map(Ipv4Addr::from).collect()
}

/// The configuration of a sandbox in which the second backend has a weight; `more` are further keys of
/// the service.
pub(super) fn config_text(folder: &Path, drill: Drill, weight: u16, more: &str) -> String {
    let folder = folder.display();
    // By source, one client is one backend's.
    let spread = match drill {
        Drill::HeavyClient => "source",
        _ => "flow",
    };
    let mut text = format!(
        r#"[data_plane]
interfaces = ["{BALANCER_INTERFACE}"]
xdp_mode = "generic"
pins = "{folder}/bpf/evenkeel"

[admin]
socket = "{folder}/evenkeel.sock"

[state]
directory = "{folder}/{STATE}"

[http]
listen = []

[incidents]
opened_by = "ticket"
close_after = "10s"

[tracking]
fresh = 8192
established = 8192

[[notify]]
name = "on-call"
type = "file"
path = "{folder}/{NOTIFICATIONS}"

[[services]]
name = "{SERVICE}"
vip = "{VIP}"
port = {PORT}
mode = "dsr"
spread = "{spread}"
measure_one_in = 1
{more}

[services.health]
type = "http"
path = "/healthz"
via = "direct"
interval = "500ms"
timeout = "400ms"

[services.ejection]
hold = "20s"
"#
    );
    for number in 1..=BACKENDS {
        let weight = if number == 2 { weight } else { WEIGHT };
        let address = backend_address(number);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n[[services.backends]]\nname = \"b{number}\"\naddress = \"{address}\"\n\
             weight = {weight}\ncapacity = {WEIGHT}\n"
        );
    }
    text
}

/// A BPF file system that nobody else sees.
struct Pins(PathBuf);

impl Pins {
    fn mount(path: PathBuf) -> Result<Self, Error> {
        let failed = |action: &str| {
            let action = format!("{action} {}", path.display());
            |e: rustix::io::Errno| io_error(action)(e.into())
        };
        std::fs::create_dir_all(&path).map_err(io_error(format!("make {}", path.display())))?;
        unshare(CloneFlags::CLONE_NEWNS)
            .map_err(|e| io_error("make a mount namespace")(e.into()))?;
        mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )
        .map_err(failed("keep to itself what is mounted at"))?;
        mount("evenkeel-sandbox", &path, "bpf", MountFlags::empty(), None)
            .map_err(failed("mount a BPF file system at"))?;
        Ok(Self(path))
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        // Else it goes with the process.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[expect(clippy::disallowed_methods, reason = "a rehearsal is timed")]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "a rehearsal is timed")]
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| time.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn its_configurations_are_valid_and_the_audit_has_no_errors() {
        for drill in [Drill::Skew, Drill::HeavyClient] {
            let text = config_text(Path::new("/run/sandbox"), drill, WEIGHT, "");
            let config = config::parse("sandbox", &text).unwrap_or_else(|wrong| panic!("{wrong}"));
            let findings = crate::audit::config::judge(&config, &[]);
            let errors: Vec<_> = findings
                .iter()
                .filter(|finding| finding.level >= crate::audit::Level::Error)
                .collect();
            assert!(errors.is_empty(), "{errors:?}");
        }
    }

    #[test]
    fn clients_are_many_and_the_heavy_one_is_none_of_them() {
        let all = addresses();
        assert!(all.len() > 60_000 && !all.contains(&HEAVY));
    }
}
