//! The controller comes, goes and crashes; the data plane goes on.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::ensure;
use evenkeel_tests::{
    daemon::Daemon,
    server::Web,
    tools,
    topology::{BALANCER_INTERFACE, Spec, Topology, VIP4},
    traffic::{Load, Traffic},
    wait,
};

fn steady(bed: &Topology, seconds: u64) -> Traffic<'_> {
    let load = Load {
        rate: 200,
        kept: 20,
        records: true,
        ..Load::new(VIP4, Duration::from_secs(seconds))
    };
    Traffic::start(bed, load).unwrap()
}

fn pins(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .map(|all| {
            all.map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect()
        })
        .unwrap_or_default();
    names.sort();
    names
}

#[test]
fn no_client_notices_that_the_controller_is_killed_and_restarted() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let mut daemon =
        Daemon::start(&bed, &(bed.config_head() + &bed.web_service("web", VIP4))).unwrap();
    let generation = daemon.status().unwrap()["generation"].clone();
    let traffic = steady(&bed, 30);
    std::thread::sleep(Duration::from_secs(4));
    for _ in 0..3 {
        daemon.kill();
        std::thread::sleep(Duration::from_secs(2));
        daemon.restart().unwrap();
        std::thread::sleep(Duration::from_secs(2));
    }
    assert!(daemon.terminate().unwrap().success());
    std::thread::sleep(Duration::from_secs(2));
    daemon.restart().unwrap();
    let outcome = traffic.wait().unwrap();
    let failures: Vec<_> = outcome.failures().collect();
    assert!(failures.is_empty(), "{failures:?}");
    assert!(outcome.report.new.sent > 5_000, "{:?}", outcome.report);
    assert!(outcome.report.kept.sent > 2_000, "{:?}", outcome.report);
    let status = daemon.status().unwrap();
    // Adopted, not built anew: nothing had changed, so nothing was published.
    assert_eq!(status["generation"], generation);
    wait::until(
        "the counters to have gone on",
        Duration::from_secs(3),
        || {
            let status = daemon.status()?;
            let backends = status["services"][0]["backends"].as_array().unwrap().iter();
            let flows: u64 = backends.map(|b| b["new_flows"].as_u64().unwrap()).sum();
            ensure!(
                flows >= outcome.report.new.sent,
                "{flows} of {}",
                outcome.report.new.sent
            );
            Ok(())
        },
    )
    .unwrap();
}

#[test]
fn unload_leaves_nothing_and_only_takes_what_is_its_own() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let mut daemon =
        Daemon::start(&bed, &(bed.config_head() + &bed.web_service("web", VIP4))).unwrap();
    let held = daemon.unload().unwrap_err();
    assert!(format!("{held:#}").contains("stop it first"), "{held:#}");
    assert!(daemon.terminate().unwrap().success());
    let link = |bed: &Topology| {
        bed.balancer
            .run("ip", &["link", "show", "dev", BALANCER_INTERFACE])
            .unwrap()
    };
    assert!(link(&bed).contains("prog/xdp"), "{}", link(&bed));
    // Somebody else's folder in the same file system.
    let foreign = bed.pins().parent().unwrap().join("somebody-else");
    fs::create_dir(&foreign).unwrap();
    assert!(!pins(&bed.pins()).is_empty());
    let said = daemon.unload().unwrap();
    assert!(said.contains("removed"), "{said}");
    assert!(!bed.pins().exists());
    assert!(foreign.exists());
    assert!(!link(&bed).contains("xdp"), "{}", link(&bed));
    let said = daemon.unload().unwrap();
    assert!(said.contains("nothing is loaded"), "{said}");
    fs::remove_dir(&foreign).unwrap();
}

#[test]
fn a_second_controller_is_refused() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let config = bed.config_head() + &bed.web_service("web", VIP4);
    let mut first = Daemon::start(&bed, &config).unwrap();
    let other_socket = bed.dir().path().join("other.sock");
    for (name, config) in [
        ("same.toml", config.clone()),
        (
            "pins.toml",
            config.replace(
                &bed.socket().display().to_string(),
                &other_socket.display().to_string(),
            ),
        ),
    ] {
        let file = bed.dir().write(name, &config).unwrap();
        let mut second = bed.balancer.command_at(first.binary());
        let refused = second.args(["run", "--config"]).arg(file).output().unwrap();
        assert_eq!(refused.status.code(), Some(2));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("controller"), "{said}");
    }
    first.check_running().unwrap();
    let url = format!("http://{VIP4}/");
    bed.client.run("curl", &["-sS", "-m", "2", &url]).unwrap();
}

#[test]
fn a_bad_configuration_is_refused_with_every_mistake() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let config = bed.config_head() + &bed.web_service("web", VIP4);
    let config = config.replace("port = 80", "port = 0\ncolour = 1");
    let file = bed.dir().write("bad.toml", &config).unwrap();
    for command in ["check", "run"] {
        let mut refused = Command::new(tools::evenkeel().unwrap());
        if command == "run" {
            refused.args(["run", "--config"]);
        } else {
            refused.arg("check");
        }
        let refused = refused.arg(&file).output().unwrap();
        assert!(!refused.status.success());
        let said = String::from_utf8_lossy(&[refused.stdout, refused.stderr].concat()).into_owned();
        for part in ["services[0].port", "services[0].colour", "errors in"] {
            assert!(said.contains(part), "{command}: {said}");
        }
    }
    assert!(!bed.pins().exists());
}

#[test]
fn an_interface_that_does_not_exist_is_named() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let config =
        bed.config_head().replace(BALANCER_INTERFACE, "nowhere0") + &bed.web_service("web", VIP4);
    let file = bed.dir().write("nowhere.toml", &config).unwrap();
    let mut run = bed.balancer.command_at(&tools::evenkeel().unwrap());
    let refused = run.args(["run", "--config"]).arg(file).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("nowhere0 does not exist"), "{said}");
}

#[test]
fn without_a_health_check_every_backend_serves() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let service = bed.web_service("web", VIP4);
    let check = service.find("[services.health]").unwrap();
    let end = check + service[check..].find("[[services.backends]]").unwrap();
    let config = bed.config_head() + &service[..check] + &service[end..];
    let daemon = Daemon::start(&bed, &config).unwrap();
    let load = Load::new(VIP4, Duration::from_secs(2));
    let outcome = Traffic::start(&bed, load).unwrap().wait().unwrap();
    assert_eq!(outcome.report.new.failed, 0, "{:?}", outcome.report);
    assert_eq!(outcome.report.new.by_backend.len(), bed.backends.len());
    let status = daemon.status().unwrap();
    assert_eq!(status["services"][0]["backends"][0]["health"], "unchecked");
}

/// Every file in a folder and in those within it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .flat_map(|entry| {
            if entry.file_type().unwrap().is_dir() {
                files(&entry.path())
            } else {
                vec![entry.path()]
            }
        })
        .collect()
}

#[test]
fn a_damaged_state_directory_is_told_and_rebuilt_while_packets_go_on() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let config = bed.config_head() + &bed.web_service("web", VIP4);
    let mut daemon = Daemon::start(&bed, &config).unwrap();
    let next = bed.dir().write("next.toml", &(config.clone() + "\n"));
    let next = next.unwrap().to_str().unwrap().to_owned();
    let ask = |daemon: &Daemon<'_>, arguments: &[&str]| {
        let output = daemon.ask(arguments).unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    ask(&daemon, &["apply", &next]);
    ask(&daemon, &["backend", "weight", "web", "b1", "2"]);
    let traffic = steady(&bed, 60);
    std::thread::sleep(Duration::from_secs(2));

    // Every file of it is rubbish.
    daemon.kill();
    let all = files(&bed.state());
    assert!(all.len() >= 7, "{all:?}");
    for file in &all {
        fs::write(file, "\0rubbish").unwrap();
    }
    daemon.restart().unwrap();
    let status = daemon.status().unwrap();
    assert_eq!(status["configuration"]["how"], "start");
    assert_eq!(status["services"][0]["backends"][0]["weight"], 1);
    wait::until("the journal to be written", Duration::from_secs(10), || {
        let told = daemon.ask(&["events"])?;
        let told = String::from_utf8(told.stdout)?;
        for file in ["in-force.json", "overrides.json", "1.json", "journal"] {
            let about = |line: &str| line.contains(file) && line.contains("damaged");
            ensure!(told.lines().any(about), "nothing about {file}: {told}");
        }
        Ok(())
    })
    .unwrap();
    let aside = files(&bed.state());
    let aside = aside.iter().filter(|file| {
        let name = file.file_name().unwrap().to_str().unwrap();
        name.contains(".damaged-")
    });
    assert!(aside.count() >= 4);
    ask(&daemon, &["apply", &next, "--reason", "as before"]);
    daemon.restart().unwrap();
    assert_eq!(
        daemon.status().unwrap()["configuration"]["reason"],
        "as before"
    );

    // There is something else in its place.
    daemon.kill();
    fs::remove_dir_all(bed.state()).unwrap();
    fs::write(bed.state(), "").unwrap();
    daemon.restart().unwrap();
    let failure = || daemon.status().unwrap()["journal"]["failure"].clone();
    wait::until("the journal to fail", Duration::from_secs(10), || {
        ensure!(failure().is_string(), "it does not");
        Ok(())
    })
    .unwrap();
    fs::remove_file(bed.state()).unwrap();
    wait::until("the journal to recover", Duration::from_secs(10), || {
        ensure!(failure().is_null(), "{}", failure());
        Ok(())
    })
    .unwrap();
    ask(&daemon, &["apply", &next, "--reason", "once more"]);
    let outcome = traffic.stop().unwrap();
    let failures: Vec<_> = outcome.failures().take(5).collect();
    assert!(failures.is_empty(), "{failures:?}");
    assert!(outcome.report.kept.ok > 200, "{:?}", outcome.report);
}
