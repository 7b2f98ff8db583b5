//! The Debian package and its service, under systemd in a machine of its own, with traffic flowing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::ensure;
use evenkeel_tests::{
    machine::{Machine, package},
    server::Web,
    tools,
    topology::{BALANCER_INTERFACE, Spec, Topology, VIP4},
    traffic::{Load, Traffic},
    wait,
};

const UNIT: &str = "evenkeel.service";
const DECAP: &str = "evenkeel-decap.service";
const CONFIG: &str = "/etc/evenkeel/evenkeel.toml";
const PATIENCE: Duration = Duration::from_secs(30);

/// All at its default place, as users have it.
fn config(bed: &Topology) -> String {
    format!("[data_plane]\ninterfaces = [\"{BALANCER_INTERFACE}\"]\n")
        + &bed.web_service("web", VIP4)
}

fn write(machine: &Machine<'_>, path: &str, text: &str) {
    let path = machine.path(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn main_pid(machine: &Machine<'_>) -> u32 {
    machine.property(UNIT, "MainPID").unwrap().parse().unwrap()
}

/// The same package under a later version.
fn later(package: &Path, folder: &Path) -> PathBuf {
    let tree = folder.join("later");
    let (text, path) = (
        tree.display().to_string(),
        folder.join("evenkeel-later.deb"),
    );
    let run = |program: &str, arguments: &[&str]| {
        tools::output(Command::new(tools::tool(program).unwrap()).args(arguments)).unwrap()
    };
    run("dpkg-deb", &["-R", package.to_str().unwrap(), &text]);
    let control = tree.join("DEBIAN/control");
    let before = fs::read_to_string(&control).unwrap();
    let version = |line: &str| {
        if line.starts_with("Version: ") {
            "Version: 99.0-1\n".to_owned()
        } else {
            format!("{line}\n")
        }
    };
    fs::write(&control, before.lines().map(version).collect::<String>()).unwrap();
    run("dpkg-deb", &["-b", "-Znone", &text, path.to_str().unwrap()]);
    fs::remove_dir_all(tree).unwrap();
    path
}

fn attached(bed: &Topology) -> bool {
    let link = ["link", "show", "dev", BALANCER_INTERFACE];
    bed.balancer.run("ip", &link).unwrap().contains("prog/xdp")
}

fn answers(bed: &Topology) -> bool {
    let url = format!("http://{VIP4}/");
    bed.client.run("curl", &["-sS", "-m", "2", &url]).is_ok()
}

fn await_restart(machine: &Machine<'_>, before: u32) -> u32 {
    wait::until("another controller to be ready", PATIENCE, || {
        let state = machine.property(UNIT, "ActiveState")?;
        let pid = main_pid(machine);
        ensure!(
            state == "active" && pid != before,
            "it is {state}, process {pid}"
        );
        Ok(pid)
    })
    .unwrap()
}

#[test]
fn the_package_is_installed_upgraded_and_removed_and_no_client_notices_until_then() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let package = package().unwrap();
    let machine = Machine::boot(&bed).unwrap();

    // Without a configuration there is nothing to run, and nothing that fails.
    let file = machine.hand_over(&package).unwrap();
    machine.run("dpkg", &["--install", &file]).unwrap();
    assert_eq!(machine.property(UNIT, "UnitFileState").unwrap(), "enabled");
    assert_eq!(machine.property(UNIT, "ActiveState").unwrap(), "inactive");
    assert_eq!(machine.property(UNIT, "ConditionResult").unwrap(), "no");
    assert!(!attached(&bed));
    let example = machine.path("/etc/evenkeel/evenkeel.toml.example");
    assert!(example.is_file(), "{}", example.display());

    // The unit by itself: what systemd says of its form and of its hardening, of ten.
    let unit = "/lib/systemd/system/evenkeel.service";
    machine.run("systemd-analyze", &["verify", unit]).unwrap();
    let exposure = ["security", "--offline=true", "--threshold=35", unit];
    machine.run("systemd-analyze", &exposure).unwrap();
    decapsulator(&machine);

    // Started means forwarding: nothing is waited for.
    write(&machine, CONFIG, &config(&bed));
    machine.run("systemctl", &["start", UNIT]).unwrap();
    assert!(attached(&bed) && answers(&bed), "{}", machine.journal());
    wait::until("the line that systemd shows", PATIENCE, || {
        let line = machine.property(UNIT, "StatusText")?;
        ensure!(line.contains("backends serving 3 of 3"), "{line}");
        Ok(())
    })
    .unwrap();

    let load = Load {
        rate: 100,
        kept: 20,
        ..Load::new(VIP4, Duration::from_mins(3))
    };
    let traffic = Traffic::start(&bed, load).unwrap();

    upgrade(&machine, &package);
    reload(&bed, &machine);
    hang(&machine);
    stop(&bed, &machine);

    let outcome = traffic.stop().unwrap();
    let failures: Vec<_> = outcome.failures().collect();
    assert!(failures.is_empty(), "{failures:?}\n{}", machine.journal());
    assert!(outcome.report.new.sent > 500, "{:?}", outcome.report);

    remove(&bed, &machine);
}

/// The decapsulator's service runs once it knows what to listen to.
fn decapsulator(machine: &Machine<'_>) {
    let unit = "/lib/systemd/system/evenkeel-decap.service";
    machine.run("systemd-analyze", &["verify", unit]).unwrap();
    let exposure = ["security", "--offline=true", "--threshold=25", unit];
    machine.run("systemd-analyze", &exposure).unwrap();
    assert_eq!(machine.property(DECAP, "UnitFileState").unwrap(), "enabled");
    assert_eq!(machine.property(DECAP, "ActiveState").unwrap(), "inactive");
    let options = "--interface lo --xdp-mode generic --allow 10.0.0.2 --address 127.0.0.1";
    write(
        machine,
        "/etc/default/evenkeel-decap",
        &format!("OPTIONS=\"{options}\"\n"),
    );
    machine.run("systemctl", &["start", DECAP]).unwrap();
    assert_eq!(machine.property(DECAP, "ActiveState").unwrap(), "active");
    machine.run("evenkeel", &["decap", "--status"]).unwrap();
    machine.run("systemctl", &["restart", DECAP]).unwrap();
    assert_eq!(machine.property(DECAP, "NRestarts").unwrap(), "0");
}

/// An upgrade starts another controller, and never stops one without starting another.
fn upgrade(machine: &Machine<'_>, package: &Path) {
    let before = main_pid(machine);
    let folder = tempfile::tempdir().unwrap();
    let file = machine.hand_over(&later(package, folder.path())).unwrap();
    machine.run("dpkg", &["--install", &file]).unwrap();
    let after = await_restart(machine, before);
    assert_ne!(before, after);
    let version = machine
        .run(
            "dpkg-query",
            &["--show", "--showformat=${Version}", "evenkeel"],
        )
        .unwrap();
    assert_eq!(version, "99.0-1");
}

/// A reload takes the file over; one that is not valid fails and changes nothing.
fn reload(bed: &Topology, machine: &Machine<'_>) {
    let pid = main_pid(machine);
    write(machine, CONFIG, "nonsense");
    let refused = machine.command("systemctl", &["reload", UNIT]).unwrap();
    assert!(!refused.status.success(), "{}", machine.journal());
    let weighty = config(bed).replacen(
        "[[services.backends]]",
        "[[services.backends]]\nweight = 2",
        1,
    );
    write(machine, CONFIG, &weighty);
    machine.run("systemctl", &["reload", UNIT]).unwrap();
    wait::until("the new weight", PATIENCE, || {
        let status = machine.run("evenkeel", &["status", "--json"])?;
        let status: serde_json::Value = serde_json::from_str(&status)?;
        let weight = &status["services"][0]["backends"][0]["weight"];
        ensure!(*weight == 2, "it is {weight}");
        Ok(())
    })
    .unwrap();
    wait::until("the end of the reload", PATIENCE, || {
        let state = machine.property(UNIT, "ActiveState")?;
        ensure!(state == "active", "it is {state}");
        Ok(())
    })
    .unwrap();
    assert_eq!(main_pid(machine), pid);
}

/// A controller that hangs is replaced by the watchdog.
fn hang(machine: &Machine<'_>) {
    // The packaged unit's patience would make the test wait.
    let folder = "/run/systemd/system/evenkeel.service.d/quick.conf";
    write(
        machine,
        folder,
        "[Service]\nWatchdogSec=3s\nTimeoutAbortSec=2s\nRestartSec=1s\n",
    );
    machine.run("systemctl", &["daemon-reload"]).unwrap();
    let before = main_pid(machine);
    machine.run("systemctl", &["restart", UNIT]).unwrap();
    let before = await_restart(machine, before);
    assert_eq!(machine.property(UNIT, "NRestarts").unwrap(), "0");
    machine
        .run("kill", &["-STOP", &before.to_string()])
        .unwrap();
    await_restart(machine, before);
    assert_eq!(machine.property(UNIT, "NRestarts").unwrap(), "1");
    let journal = machine
        .run("journalctl", &["--no-pager", "-u", UNIT])
        .unwrap();
    assert!(journal.contains("Watchdog timeout"), "{journal}");
}

/// The end of the service is none of forwarding.
fn stop(bed: &Topology, machine: &Machine<'_>) {
    machine.run("systemctl", &["stop", UNIT]).unwrap();
    assert_eq!(machine.property(UNIT, "Result").unwrap(), "success");
    assert!(attached(bed) && answers(bed));
    machine.run("systemctl", &["start", UNIT]).unwrap();
}

/// Removal ends forwarding and keeps what people wrote; purging keeps nothing.
fn remove(bed: &Topology, machine: &Machine<'_>) {
    assert!(machine.path("/sys/fs/bpf/evenkeel").exists());
    machine.run("dpkg", &["--remove", "evenkeel"]).unwrap();
    assert!(!attached(bed), "{}", machine.journal());
    for gone in ["/sys/fs/bpf/evenkeel", "/sys/fs/bpf/evenkeel-decap"] {
        assert!(!machine.path(gone).exists(), "{gone}");
    }
    assert!(!machine.path("/usr/sbin/evenkeel").exists());
    for kept in [CONFIG, "/var/lib/evenkeel/journal.db"] {
        assert!(machine.path(kept).exists(), "{kept}");
    }
    machine.run("dpkg", &["--purge", "evenkeel"]).unwrap();
    for gone in [
        "/etc/evenkeel",
        "/etc/default/evenkeel-decap",
        "/var/lib/evenkeel",
    ] {
        assert!(!machine.path(gone).exists(), "{gone}");
    }
    let failed = machine
        .run(
            "systemctl",
            &[
                "list-units",
                "--failed",
                "--plain",
                "--no-legend",
                "evenkeel*",
            ],
        )
        .unwrap();
    assert_eq!(failed.trim(), "");
}
