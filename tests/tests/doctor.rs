//! `evenkeel doctor` on interfaces that are fit and on such that are not.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fs, path::PathBuf};

use evenkeel_tests::{
    daemon::Daemon,
    server::Web,
    tools,
    topology::{BALANCER_INTERFACE, Spec, Topology, VIP4},
    xdp_pass::XdpPass,
};
use serde_json::Value;

/// What `evenkeel doctor` said, and its exit code.
struct Said {
    code: i32,
    findings: Vec<Value>,
}

impl Said {
    /// The finding of a rule about an interface, a service or the host.
    fn about(&self, place: &str, rule: &str) -> &Value {
        self.findings
            .iter()
            .find(|f| f["where"] == place && f["rule"] == rule)
            .unwrap_or_else(|| panic!("no {rule} of {place} in {:#?}", self.findings))
    }

    fn level(&self, place: &str, rule: &str) -> &str {
        self.about(place, rule)["level"].as_str().unwrap()
    }

    fn text(&self, place: &str, rule: &str) -> String {
        self.about(place, rule).to_string()
    }

    /// What is worse than information.
    fn bad(&self) -> Vec<&Value> {
        let bad = |f: &&Value| f["level"] == "warning" || f["level"] == "error";
        self.findings.iter().filter(bad).collect()
    }
}

fn bed() -> Topology {
    Topology::build(&Spec::default()).unwrap()
}

fn config(bed: &Topology) -> String {
    bed.config_head() + &bed.web_service("web", VIP4)
}

fn write(bed: &Topology, config: &str) -> PathBuf {
    bed.dir().write("doctor.toml", config).unwrap()
}

/// Asks about interfaces, or those of the configuration.
fn doctor(bed: &Topology, config: &str, interfaces: &[&str]) -> Said {
    let mut doctor = bed.balancer.command_at(&tools::evenkeel().unwrap());
    doctor.args(["doctor", "--json", "--config"]);
    let output = doctor
        .arg(write(bed, config))
        .args(interfaces)
        .output()
        .unwrap();
    let findings = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    Said {
        code: output.status.code().unwrap(),
        findings,
    }
}

/// Starts a controller that is expected to refuse, and answers what it complained about.
fn refused(bed: &Topology, config: &str) -> String {
    let mut run = bed.balancer.command_at(&tools::evenkeel().unwrap());
    let output = run
        .args(["run", "--config"])
        .arg(write(bed, config))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_fit_interface_is_told_to_be_fit() {
    let bed = bed();
    let said = doctor(&bed, &config(&bed), &[]);
    assert_eq!(said.code, 0, "{:#?}", said.bad());
    assert!(said.bad().is_empty(), "{:#?}", said.bad());
    for rule in ["up", "xdp-slot", "native", "mtu", "lro", "veth-peer"] {
        assert_eq!(said.level(BALANCER_INTERFACE, rule), "ok", "{rule}");
    }
    for (place, rule) in [
        ("host", "bpffs"),
        ("host", "kernel"),
        ("service web", "way-out"),
    ] {
        assert_eq!(said.level(place, rule), "ok", "{rule}");
    }
    let mut doctor = bed.balancer.command_at(&tools::evenkeel().unwrap());
    let text = tools::output(
        doctor
            .args(["doctor", "--config"])
            .arg(write(&bed, &config(&bed))),
    );
    let text = text.unwrap();
    assert!(text.ends_with("\nno errors, no warnings\n"), "{text}");
}

#[test]
fn a_tag_that_the_offload_takes_is_told() {
    let bed = bed();
    let said = doctor(&bed, &config(&bed), &[]);
    assert_eq!(said.level(BALANCER_INTERFACE, "vlan-offload"), "info");
    bed.balancer
        .run("ethtool", &["-K", BALANCER_INTERFACE, "rxvlan", "off"])
        .unwrap();
    let said = doctor(&bed, &config(&bed), &[]);
    assert_eq!(said.level(BALANCER_INTERFACE, "vlan-offload"), "ok");
}

#[test]
fn who_is_attached_already_is_named_and_run_refuses_in_the_same_words() {
    let bed = bed();
    let other = XdpPass::attach(&bed.balancer, BALANCER_INTERFACE).unwrap();
    let said = doctor(&bed, &config(&bed), &[]);
    assert_eq!(said.code, 1);
    assert_eq!(said.bad().len(), 1, "{:#?}", said.bad());
    let finding = said.about(BALANCER_INTERFACE, "xdp-slot");
    assert_eq!(finding["level"], "error");
    // This process holds the link.
    let pid = format!("({})", std::process::id());
    assert!(finding["why"].as_str().unwrap().contains(&pid), "{finding}");
    let command = finding["command"].as_str().unwrap();
    assert!(command.starts_with("bpftool link detach id "), "{finding}");
    let complaint = refused(&bed, &config(&bed));
    let what = finding["what"].as_str().unwrap();
    assert!(complaint.contains(what), "{what} is not in {complaint}");
    assert!(!bed.pins().exists(), "something was loaded");
    drop(other);
    let said = doctor(&bed, &config(&bed), &[]);
    assert_eq!((said.code, said.bad().len()), (0, 0), "{:#?}", said.bad());
}

#[test]
fn its_own_program_is_no_obstacle_with_and_without_a_controller() {
    let bed = bed();
    let _servers = Web::start_all(&bed).unwrap();
    let mut daemon = Daemon::start(&bed, &config(&bed)).unwrap();
    for alive in [true, false] {
        if !alive {
            daemon.kill();
        }
        let said = doctor(&bed, &config(&bed), &[]);
        assert_eq!(said.code, 0, "{:#?}", said.bad());
        let slot = said.text(BALANCER_INTERFACE, "xdp-slot");
        assert!(
            slot.contains("Evenkeel is attached in native mode"),
            "{slot}"
        );
    }
    // A start goes on in the mode that the link was made in, whatever is configured.
    let generic = config(&bed).replace("\"native\"", "\"generic\"");
    let said = doctor(&bed, &generic, &[]);
    assert_eq!(said.level(BALANCER_INTERFACE, "xdp-slot"), "warning");
    // To a configuration that pins elsewhere, it is another program.
    let elsewhere = bed.pins().with_file_name("elsewhere");
    let other = config(&bed).replace(
        &bed.pins().display().to_string(),
        &elsewhere.display().to_string(),
    );
    let said = doctor(&bed, &other, &[]);
    assert_eq!(said.level(BALANCER_INTERFACE, "xdp-slot"), "error");
    let slot = said.text(BALANCER_INTERFACE, "xdp-slot");
    assert!(slot.contains("evenkeel (number"), "{slot}");
    daemon.restart().unwrap();
}

#[test]
fn what_is_no_interface_and_what_is_no_ethernet_is_refused() {
    let bed = bed();
    bed.balancer.ip("tuntap add tun0 mode tun").unwrap();
    let said = doctor(&bed, &config(&bed), &["nowhere0", "lo", "tun0"]);
    assert_eq!(said.code, 1);
    assert_eq!(said.level("nowhere0", "exists"), "error");
    assert_eq!(said.level("lo", "ethernet"), "error");
    assert_eq!(said.level("tun0", "ethernet"), "error");
    assert_eq!(said.level("tun0", "up"), "warning");
    assert!(
        said.findings
            .iter()
            .all(|f| f["where"] != BALANCER_INTERFACE)
    );
    let lo = config(&bed).replace(BALANCER_INTERFACE, "lo");
    let complaint = refused(&bed, &lo);
    assert!(
        complaint.contains("lo is not an Ethernet interface"),
        "{complaint}"
    );
}

#[test]
fn packets_in_several_buffers_suit_the_program_where_others_are_refused() {
    let bed = bed();
    bed.switch.ip("link set balancer mtu 4000").unwrap();
    let said = doctor(&bed, &config(&bed), &[]);
    assert_eq!(said.level(BALANCER_INTERFACE, "mtu"), "ok");
    // A program that takes one buffer only cannot be attached here.
    let error = XdpPass::attach_for_one_buffer(&bed.balancer, BALANCER_INTERFACE).unwrap_err();
    assert!(format!("{error:#}").contains("cannot attach"), "{error:#}");
    // The generic hook does not mind.
    let generic = config(&bed).replace("\"native\"", "\"generic\"");
    let said = doctor(&bed, &generic, &[]);
    assert!(said.bad().is_empty(), "{:#?}", said.bad());
}

#[test]
fn a_pair_without_a_program_at_its_other_end_or_without_queues_is_told() {
    let bed = bed();
    let _servers = Web::start_all(&bed).unwrap();
    bed.balancer
        .ip(
            "link add v0 numrxqueues 4 type veth peer name v1 numtxqueues 4\n\
             link set v0 up\nlink set v1 up",
        )
        .unwrap();
    bed.balancer
        .run("ethtool", &["-L", "v0", "rx", "1"])
        .unwrap();
    bed.balancer
        .run("ethtool", &["-L", "v1", "tx", "4"])
        .unwrap();
    let said = doctor(&bed, &config(&bed), &["v0"]);
    assert_eq!(said.level("v0", "veth-peer"), "warning");
    assert_eq!(said.level("v0", "native"), "error");
    let command = said.about("v0", "native")["command"].clone();
    // It is a command that can be pasted, and that helps.
    bed.balancer
        .run("sh", &["-c", command.as_str().unwrap()])
        .unwrap();
    let said = doctor(&bed, &config(&bed), &["v0"]);
    assert_eq!(said.level("v0", "native"), "ok");

    // A warning is logged, and does not keep the controller from starting.
    let both = config(&bed).replace("[\"lb0\"]", "[\"lb0\", \"v0\"]");
    let daemon = Daemon::start(&bed, &both).unwrap();
    let log = fs::read_to_string(daemon.log()).unwrap();
    let warned = log
        .lines()
        .find(|line| line.contains("WARN") && line.contains("v0: the other end of the pair"));
    assert!(warned.is_some(), "{log}");
}

#[test]
fn a_port_of_a_bridge_and_a_backend_elsewhere_are_told() {
    let bed = bed();
    bed.balancer
        .ip(
            "link add br9 type bridge\nlink add v0 type veth peer name v1\n\
             link set v0 master br9 up\nlink set v1 up\n\
             address add 192.0.2.1/24 dev v1",
        )
        .unwrap();
    let away = config(&bed).replace("\"10.10.0.12\"", "\"192.0.2.9\"");
    assert_ne!(away, config(&bed));
    let said = doctor(&bed, &away, &["v0", "br9"]);
    let port = said.text("v0", "port");
    assert!(port.contains("port of the bridge br9"), "{port}");
    assert_eq!(said.level("br9", "native"), "error");
    let way = said.text("service web", "way-out");
    assert!(
        way.contains("1 of 3 backends") && way.contains("192.0.2.9 (by v1)"),
        "{way}"
    );
}

#[test]
fn what_cannot_be_looked_at_is_no_finding() {
    let bed = bed();
    for arguments in [["--config", "/nonexistent.toml"], ["--no-such", "option"]] {
        let mut doctor = bed.balancer.command_at(&tools::evenkeel().unwrap());
        let output = doctor.arg("doctor").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
    }
}
