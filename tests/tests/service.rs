//! What a service manager is told, and what the running controller may do.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use evenkeel_tests::{
    daemon::Daemon,
    process::Process,
    server::Web,
    tools,
    topology::{BALANCER_INTERFACE, Service, Spec, Topology, VIP4},
    wait,
};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(30);

/// A service manager's end of the conversation.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    /// The next message but for signs of life, as its lines.
    fn next(&self) -> Vec<String> {
        loop {
            let lines = self.any();
            if !lines.iter().any(|line| line == "WATCHDOG=1") {
                return lines;
            }
        }
    }

    fn any(&self) -> Vec<String> {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).expect("a message in time");
        let text = String::from_utf8(message[..length].to_vec()).unwrap();
        text.lines().map(ToOwned::to_owned).collect()
    }
}

#[test]
fn a_service_manager_is_told_the_truth() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let path = bed.dir().path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let manager = Manager { socket };
    let text = bed.config_head() + &bed.web_service("web", VIP4);
    let config = bed.dir().write("served.toml", &text).unwrap();
    let mut run = bed.balancer.command_at(&tools::evenkeel().unwrap());
    run.args(["run", "--config"])
        .arg(&config)
        .env("NOTIFY_SOCKET", &path);
    let log = bed.dir().path().join("served.log");
    let mut controller = Process::start_logged("evenkeel", &mut run, &log).unwrap();

    let starting = manager.next();
    assert!(starting[0].starts_with("STATUS=waiting"), "{starting:?}");
    assert!(
        starting[1].starts_with("EXTEND_TIMEOUT_USEC="),
        "{starting:?}"
    );
    assert_eq!(manager.next(), ["READY=1"]);
    // Ready is forwarding, from that very message on.
    let link = ["link", "show", "dev", BALANCER_INTERFACE];
    assert!(bed.balancer.run("ip", &link).unwrap().contains("prog/xdp"));
    let url = format!("http://{VIP4}/");
    bed.client.run("curl", &["-sS", "-m", "2", &url]).unwrap();
    let line = "STATUS=forwarding by generation 1: services 1, backends serving 3 of 3";
    wait::until("the line", PATIENCE, || {
        let lines = manager.any();
        ensure!(lines == ["WATCHDOG=1", line], "{lines:?}");
        Ok(())
    })
    .unwrap();

    // A reload, whether anything changes, something does, or it is refused.
    for text in [&text, &text.replace("\"web\"", "\"site\""), "nonsense"] {
        fs::write(&config, text).unwrap();
        controller.signal(Signal::HUP);
        let reloading = manager.next();
        assert_eq!(reloading[0], "RELOADING=1");
        let (key, value) = reloading[1].split_once('=').unwrap();
        assert_eq!(key, "MONOTONIC_USEC");
        value.parse::<u64>().unwrap();
        assert_eq!(manager.next(), ["READY=1"], "{text}");
    }

    controller.signal(Signal::TERM);
    let stopping = manager.next();
    assert_eq!(stopping[0], "STOPPING=1");
    assert!(controller.wait(PATIENCE).unwrap().success());
}

/// A process's sets of capabilities and what else `/proc` says of its privileges, of each thread.
fn privileges(pid: u32) -> Vec<BTreeMap<String, String>> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |text: String| {
        let lines = text.lines().filter_map(|line| line.split_once(":\t"));
        let named = |key: &str| key.starts_with("Cap") || key == "NoNewPrivs";
        lines
            .filter(|(key, _)| named(key))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    };
    threads
        .map(|thread| of(fs::read_to_string(thread.unwrap().path().join("status")).unwrap()))
        .collect()
}

/// A program that writes down its privileges; it, and where it does.
fn onlooker(bed: &Topology, name: &str) -> (PathBuf, PathBuf) {
    let seen = bed.dir().path().join(format!("{name}-saw"));
    let look = format!(
        "#!/bin/sh\ngrep -E '^(Cap|NoNewPrivs)' /proc/self/status > {0}.new && mv {0}.new {0}\n",
        seen.display()
    );
    let program = bed.dir().write(name, &look).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    (program, seen)
}

#[test]
fn the_controller_keeps_few_privileges_and_what_it_starts_none() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let (probe, probe_saw) = onlooker(&bed, "probe");
    let (receiver, receiver_saw) = onlooker(&bed, "receiver");
    let checks = [
        ("icmp", "type = \"icmp\"".to_owned()),
        (
            "command",
            format!("type = \"command\"\ncommand = [\"{}\"]", probe.display()),
        ),
        ("web", "type = \"http\"\npath = \"/\"".to_owned()),
    ];
    let mut config = bed.config_head();
    let told = format!(
        "\n[[notify]]\nname = \"program\"\ntype = \"command\"\ncommand = [\"{}\"]\n",
        receiver.display()
    );
    config += &told;
    for (port, (name, health)) in ["81", "82", "80"].into_iter().zip(&checks) {
        config += &bed.service(&Service {
            port,
            health: &format!("{health}\ninterval = \"200ms\"\ntimeout = \"150ms\""),
            ..Service::web(name, VIP4)
        });
    }
    // The kernel's ping sockets are closed, so that ICMP takes a raw one.
    bed.balancer
        .set(&[("ipv4/ping_group_range", "1 0")])
        .unwrap();
    let daemon = Daemon::start(&bed, &config).unwrap();
    // BPF, PERFMON, SYS_ADMIN, NET_RAW, NET_ADMIN and DAC_READ_SEARCH, by their numbers in linux/capability.h.
    let kept = format!(
        "{:016x}",
        [39, 38, 21, 13, 12, 2]
            .map(|bit| 1_u64 << bit)
            .iter()
            .sum::<u64>()
    );
    let none = format!("{:016x}", 0);
    let threads = privileges(daemon.pid());
    assert!(threads.len() > 2, "{threads:?}");
    for thread in threads {
        assert_eq!(thread["CapEff"], kept);
        assert_eq!(thread["CapPrm"], kept);
        for empty in ["CapInh", "CapBnd", "CapAmb"] {
            assert_eq!(thread[empty], none, "{empty}");
        }
        assert_eq!(thread["NoNewPrivs"], "1");
    }

    // All probes work by that, those to the VIP included.
    wait::until("every backend to be up", PATIENCE, || {
        let status = daemon.status()?;
        let services = status["services"].as_array().context("services")?;
        for service in services {
            for backend in service["backends"].as_array().context("backends")? {
                ensure!(backend["health"] == "up", "{}: {backend}", service["name"]);
            }
        }
        Ok(())
    })
    .unwrap();
    let tested = daemon.ask(&["notify", "test"]).unwrap();
    assert!(tested.status.success(), "{tested:?}");
    for file in [probe_saw, receiver_saw] {
        let text = fs::read_to_string(&file).unwrap();
        for set in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
            assert!(text.contains(&format!("{set}:\t{none}\n")), "{text}");
        }
        assert!(text.contains("NoNewPrivs:\t1"), "{text}");
    }
}

#[test]
fn what_is_logged_changes_while_it_runs() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let mut daemon =
        Daemon::start(&bed, &(bed.config_head() + &bed.web_service("web", VIP4))).unwrap();
    let said = |arguments: &[&str]| {
        let output = daemon.ask(arguments).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text, error)
    };
    assert_eq!(said(&["log"]).1, "info");
    // Something that is told at each start of a reading of the API, and below 'info'.
    let lines = || {
        let log = fs::read_to_string(daemon.log()).unwrap();
        log.lines().filter(|line| line.contains("DEBUG")).count()
    };
    assert_eq!(lines(), 0);
    assert_eq!(said(&["log", "trace"]).1, "trace");
    wait::until("a line of a lower level", PATIENCE, || {
        daemon.status()?;
        let log = fs::read_to_string(daemon.log())?;
        ensure!(log.contains("DEBUG") || log.contains("TRACE"), "none");
        Ok(())
    })
    .unwrap();
    assert_eq!(said(&["log", "warn,lb_userspace::health=debug"]).0, Some(0));
    for wrong in ["debgu", "info,x=loud", ""] {
        let (code, _, error) = said(&["log", wrong]);
        assert_eq!(code, Some(1), "{wrong}: {error}");
        assert!(error.contains("is no filter"), "{error}");
    }
    let (_, json, _) = said(&["log", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["filter"], "warn,lb_userspace::health=debug");
    wait::until(
        "both changes in the journal, and no other",
        PATIENCE,
        || {
            let output = daemon.ask(&["events", "--kind", "change", "--json"])?;
            let text = String::from_utf8_lossy(&output.stdout);
            let changes = text.matches("\"what\":\"log\"").count();
            ensure!(changes == 2 && text.contains("instead of 'info'"), "{text}");
            Ok(())
        },
    )
    .unwrap();
    // A restart goes by RUST_LOG again.
    daemon.restart().unwrap();
    let output = daemon.ask(&["log"]).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "info\n");
}
