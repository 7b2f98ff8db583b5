//! What the terminal shows of one service, of one backend, of remembered flows, and live: from a
//! controller with traffic.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::ensure;
use evenkeel_tests::{
    daemon::Daemon,
    server::Web,
    tools,
    topology::{Spec, Topology, VIP4},
    traffic::{Load, Traffic},
    wait,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

/// What a command says, and how it ends.
fn ask(daemon: &Daemon<'_>, arguments: &[&str]) -> (String, Option<i32>) {
    let output = daemon.ask(arguments).unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).unwrap(), output.status.code())
}

fn json(daemon: &Daemon<'_>, arguments: &[&str]) -> Value {
    let (text, code) = ask(daemon, arguments);
    assert_eq!(code, Some(0), "{text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn one_service_one_backend_and_remembered_flows_are_shown() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let config = bed.config_head() + &bed.web_service("web", VIP4);
    let daemon = Daemon::start(&bed, &config).unwrap();
    let load = Load {
        rate: 50,
        kept: 30,
        ..Load::new(VIP4, Duration::from_mins(3))
    };
    let traffic = Traffic::start(&bed, load).unwrap();

    let service = json(&daemon, &["service", "web", "--json"]);
    assert_eq!(service["backends"].as_array().unwrap().len(), 3);
    let (text, code) = ask(&daemon, &["service", "web"]);
    assert!(
        code == Some(0) && text.contains("web/b3  10.10.0.13"),
        "{text}"
    );
    let (text, code) = ask(&daemon, &["service", "mail"]);
    assert!(code == Some(1) && text.contains("there are web"), "{text}");

    let backend = json(&daemon, &["backend", "web/b2", "--json"]);
    assert_eq!(backend["name"], "b2");
    let (text, code) = ask(&daemon, &["backend", "web/b2"]);
    assert!(code == Some(0) && text.contains("next hop"), "{text}");
    for (name, expected) in [
        ("web/b9", Some(1)),
        ("mail/b2", Some(1)),
        ("drian", Some(2)),
    ] {
        let (text, code) = ask(&daemon, &["backend", name]);
        assert_eq!(code, expected, "{text}");
    }

    wait::until("b2 to have connections", PATIENCE, || {
        let b2 = json(&daemon, &["backend", "web/b2", "--json"]);
        ensure!(b2["new_flows"].as_u64() > Some(60), "{b2}");
        Ok(())
    })
    .unwrap();
    // Steady: nothing is remembered. Then b2's connections outlive its place in the ring.
    let none = json(&daemon, &["flows", "--json"]);
    assert_eq!(
        (&none["flows"], &none["complete"]),
        (&Value::Array(vec![]), &true.into())
    );
    let (text, code) = ask(&daemon, &["backend", "drain", "web", "b2"]);
    assert_eq!(code, Some(0), "{text}");
    let flows = wait::until("its connections to be remembered", PATIENCE, || {
        let flows = json(&daemon, &["flows", "web/b2", "--json"]);
        let all = flows["flows"].as_array().unwrap();
        let kept = all.iter().filter(|flow| flow["state"] == "established");
        ensure!(kept.count() >= 3, "{flows}");
        Ok(all.clone())
    })
    .unwrap();
    for flow in &flows {
        assert_eq!(
            (&flow["backend"], &flow["why"]),
            (&"b2".into(), &"transition".into()),
            "{flow}"
        );
        assert_ne!(flow["owner"], "b2", "{flow}");
        assert!(
            flow["client"].as_str().unwrap().starts_with("10.10.1.2:"),
            "{flow}"
        );
        assert!(flow["silent_s"].as_f64().unwrap() < 60.0, "{flow}");
    }
    let few = json(&daemon, &["flows", "--count", "2", "--json"]);
    assert_eq!(few["flows"].as_array().unwrap().len(), 2);
    assert_eq!(few["complete"], false);
    let (text, _) = ask(&daemon, &["flows", "--client", "203.0.113.0/24"]);
    assert_eq!(text, "no such flow is remembered\n");
    let (text, code) = ask(&daemon, &["flows", "web/b9"]);
    assert!(
        code == Some(1) && text.contains("it has b1, b2, b3"),
        "{text}"
    );

    live(&bed, &daemon);
    let outcome = traffic.stop().unwrap();
    let failures: Vec<_> = outcome.failures().collect();
    assert!(failures.is_empty(), "{failures:?}");
}

/// The live screen, in a terminal of eighty columns.
fn live(bed: &Topology, daemon: &Daemon<'_>) {
    let seen = bed.dir().path().join("top.typescript");
    let (binary, seat) = (daemon.binary().display(), bed.seat());
    let (socket, state) = (seat.socket(), seat.state());
    let top = format!(
        "stty cols 80 rows 24; exec {binary} top --socket {} --state {}",
        socket.display(),
        state.display()
    );
    let mut script = Command::new(tools::tool("script").unwrap());
    script.args(["--quiet", "--flush", "--return", "--command", &top]);
    script.arg(&seen).env("TERM", "xterm-256color");
    script.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut script = script.spawn().unwrap();
    let shown = |words: &str| {
        wait::until(format_args!("the screen to show {words}"), PATIENCE, || {
            let text = fs::read(&seen)?;
            let text = String::from_utf8_lossy(&text).into_owned();
            ensure!(text.contains(words), "{text:?}");
            Ok(())
        })
        .unwrap();
    };
    for words in ["web", "b3", "last", "as intended"] {
        shown(words);
    }
    let mut keys = script.stdin.take().unwrap();
    keys.write_all(b"d").unwrap();
    shown("deviation");
    keys.write_all(b"q").unwrap();
    assert!(script.wait().unwrap().success());
    // The terminal is as it was.
    shown("\x1b[?1049l");
}
