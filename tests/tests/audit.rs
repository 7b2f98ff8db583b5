//! `evenkeel audit` beside a running controller.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fs, time::Duration};

use anyhow::ensure;
use evenkeel_tests::{
    daemon::Daemon,
    server::Web,
    tools,
    topology::{Spec, Topology, VIP4},
    wait,
};
use serde_json::Value;

/// The exit code, and the rules with their levels and places.
fn audit(bed: &Topology, arguments: &[&str]) -> (i32, Vec<String>) {
    let mut command = bed.balancer.command_at(&tools::evenkeel().unwrap());
    command
        .args(["audit", "--json", "--socket"])
        .arg(bed.socket())
        .args(arguments);
    let output = command.output().unwrap();
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rule = |finding: &Value| {
        let of = ["rule", "level", "service", "backend"].map(|key| text(&finding[key]));
        of.join(" ").trim_end().to_owned()
    };
    let rules = findings.as_array().into_iter().flatten().map(rule);
    // The bed's interfaces are what they are.
    let rules = rules.filter(|rule| !rule.starts_with("L30")).collect();
    (output.status.code().unwrap(), rules)
}

#[test]
fn a_running_system_and_its_file_are_audited() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let file = bed.dir().path().join("alerts.jsonl");
    let receiver = format!(
        "\n[[notify]]\nname = \"file\"\ntype = \"file\"\npath = \"{}\"\n",
        file.display()
    );
    let config = bed.config_head() + &receiver + &bed.web_service("web", VIP4);
    let mut daemon = Daemon::start(&bed, &config).unwrap();
    let sound = vec!["L31 info web".to_owned()];
    // A way that nobody has gone yet may lead nowhere.
    let untested = [&["L26 error".to_owned()], &sound[..]].concat();
    assert_eq!(audit(&bed, &[]), (1, untested));
    let mut test = bed.balancer.command_at(daemon.binary());
    tools::output(test.args(["notify", "test", "--socket"]).arg(bed.socket())).unwrap();
    wait::until("the test to be noticed", Duration::from_secs(20), || {
        let (code, rules) = audit(&bed, &[]);
        ensure!((code, &rules) == (0, &sound), "{rules:?}");
        Ok(())
    })
    .unwrap();
    assert_eq!(audit(&bed, &["--fail-on", "info"]), (1, sound.clone()));

    // A slip in the file, which nobody has noticed yet.
    let status = daemon.status().unwrap();
    let file = status["config_file"].as_str().unwrap();
    let slipped = config.replacen("name = \"b1\"\n", "name = \"b1\"\nweight = 10\n", 1);
    fs::write(file, &slipped).unwrap();
    let (code, rules) = audit(&bed, &[]);
    assert_eq!(
        (code, rules),
        (
            1,
            vec![
                "L32 error".to_owned(),
                "L4 error web".to_owned(),
                "L28 warning web b1".to_owned(),
                "L31 info web".to_owned(),
            ]
        )
    );
    // Before it is put in force, too.
    fs::write(file, &config).unwrap();
    let next = bed.dir().write("next.toml", &slipped).unwrap();
    let next = next.to_str().unwrap();
    assert_eq!(audit(&bed, &["--file", next]).0, 1);
    assert_eq!(audit(&bed, &[]), (0, sound.clone()));
    assert_eq!(audit(&bed, &["--file", next, "--offline"]).0, 1);
    // One that is as good as the one in force is not bad for being another.
    let other = bed
        .dir()
        .write("other.toml", &format!("# A comment.\n{config}"));
    let other = other.unwrap();
    assert_eq!(
        audit(&bed, &["--file", other.to_str().unwrap()]),
        (0, sound)
    );

    daemon.terminate().unwrap();
    assert_eq!(audit(&bed, &[]), (2, Vec::new()));
    assert_eq!(audit(&bed, &["--file", next]).0, 1);
}
