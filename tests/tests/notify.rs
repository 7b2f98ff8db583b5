//! Who is to be told is told, once and in order, also by receivers that fail, hang and come back,
//! and by a controller that was killed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{os::unix::net::UnixDatagram, path::Path, time::Duration};

use anyhow::{Result, ensure};
use evenkeel_tests::{
    daemon::Daemon,
    receivers::{Alertmanager, Answer, Hook, lines},
    server::Web,
    tools,
    topology::{Spec, Topology, VIP4},
    wait,
};
use lb_userspace::model::RUNBOOKS;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_mins(1);

fn config(bed: &Topology, receivers: &str) -> String {
    format!(
        "{}\n{receivers}\n{}",
        bed.config_head(),
        bed.web_service("web", VIP4)
    )
}

/// The exit code of a command that asks the controller, and the JSON that it printed.
fn ask(bed: &Topology, arguments: &[&str]) -> (i32, Vec<Value>) {
    let mut command = bed.balancer.command_at(&tools::evenkeel().unwrap());
    let output = command
        .args(arguments)
        .arg("--socket")
        .arg(bed.socket())
        .output()
        .unwrap();
    let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code().unwrap(), json)
}

/// What a webhook took about backends, as `b1 firing`, in order; repeats and tests included.
fn about_backends(hook: &Hook) -> Result<Vec<String>> {
    let mut told = Vec::new();
    for request in hook.taken()? {
        let body: Value = serde_json::from_str(request["body"].as_str().unwrap_or_default())?;
        for alert in body["alerts"].as_array().unwrap() {
            if let Some(backend) = alert["labels"]["backend"].as_str() {
                let (name, status) = (&alert["labels"]["alertname"], &alert["status"]);
                told.push(format!(
                    "{} {backend} {}",
                    name.as_str().unwrap(),
                    status.as_str().unwrap()
                ));
            }
        }
    }
    Ok(told)
}

const DOWN_AND_UP: [&str; 2] = ["BackendDown b2 firing", "BackendDown b2 resolved"];

/// Whether the signature of a request is what the documentation says, by another implementation.
fn assert_signed(request: &Value, secret: &str) {
    let code = "import hmac,sys; print('v1=' + hmac.new(sys.argv[1].encode(), \
                (sys.argv[2] + '.' + sys.argv[3]).encode(), 'sha256').hexdigest())";
    let field = |name: &str| request["headers"][name].as_str().unwrap();
    let arguments = [
        "-c",
        code,
        secret,
        field("evenkeel-timestamp"),
        request["body"].as_str().unwrap(),
    ];
    let mut python = std::process::Command::new(tools::tool("python3").unwrap());
    let expected = tools::output(python.args(arguments)).unwrap();
    assert_eq!(field("evenkeel-signature"), expected.trim());
}

/// Checks what each receiver took.
fn assert_told(hook: &Hook, (file, program): (&Path, &Path), syslog: &UnixDatagram) {
    assert_eq!(about_backends(hook).unwrap(), DOWN_AND_UP);
    let taken = hook.taken().unwrap();
    assert_signed(&taken[0], "very secret");
    assert_eq!(taken[0]["headers"]["x-team"], "web");
    assert_ne!(
        taken[0]["headers"]["evenkeel-delivery"],
        taken[1]["headers"]["evenkeel-delivery"]
    );
    for (line, status) in lines(file).unwrap().iter().zip(["firing", "resolved"]) {
        assert_eq!(
            (&line["labels"]["backend"], &line["status"]),
            (&"b2".into(), &status.into())
        );
    }
    assert_eq!(lines(program).unwrap()[0]["version"], "4");
    for word in [
        "firing ticket BackendDown: web/b2",
        "resolved ticket BackendDown: web/b2",
    ] {
        let mut buffer = [0; 2048];
        let length = syslog.recv(&mut buffer).unwrap();
        let line = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert!(line.contains(word), "{line}");
    }
}

/// A test reaches everybody but those who cannot be reached, and is no alert.
fn assert_tested(bed: &Topology) {
    let (code, tested) = ask(bed, &["notify", "test", "--json"]);
    let failed: Vec<_> = tested.iter().filter(|one| one["ok"] == false).collect();
    assert_eq!((code, tested.len(), failed.len()), (1, 7, 1), "{tested:?}");
    assert_eq!(failed[0]["receiver"], "pager");
    assert!(
        failed[0]["error"].as_str().unwrap().contains("127.0.0.1:1"),
        "{failed:?}"
    );
    assert_eq!(ask(bed, &["notify", "test", "file", "--json"]).0, 0);
    assert_eq!(ask(bed, &["notify", "test", "nobody"]).0, 2);
}

/// Checks what the status and the journal say of it.
fn assert_shown(bed: &Topology, daemon: &Daemon<'_>) {
    wait::until("the status to show all of it", PATIENCE, || {
        let (code, alerts) = ask(bed, &["alerts", "--json"]);
        ensure!((code, alerts.len()) == (0, 0), "{alerts:?}");
        let status = daemon.status()?;
        for receiver in status["notify"]["receivers"].as_array().unwrap() {
            let sent = receiver["sent"].as_u64().unwrap();
            let as_expected = match receiver["name"].as_str().unwrap() {
                // The heartbeat comes again and again.
                "am" => sent >= 3,
                "pager" => sent == 0,
                _ => sent == 2,
            };
            ensure!(as_expected, "{receiver}");
            ensure!(
                receiver["failed"] == 0 && receiver["waiting"] == 0,
                "{receiver}"
            );
        }
        Ok(())
    })
    .unwrap();
    let mut events = bed.balancer.command_at(&tools::evenkeel().unwrap());
    events
        .args(["events", "--kind", "notification", "--state"])
        .arg(bed.state());
    let events = tools::output(&mut events).unwrap();
    for words in [
        "told hook: BackendDown web/b2",
        "told am: BackendDown web/b2 is over",
        "pager did not take a test",
    ] {
        assert!(events.contains(words), "{words}: {events}");
    }
}

/// One receiver of each kind, and one that cannot be reached and is told of pages alone.
fn receivers(bed: &Topology, hook: &Hook, chat: &Hook, files: [&Path; 3]) -> String {
    let [secret, program, file] = files;
    let syslog = bed.dir().path().join("syslog");
    format!(
        "[[notify]]\nname = \"am\"\ntype = \"alertmanager\"\nurl = \"{}\"\nheartbeat = \"10s\"\n\
         repeat = \"10s\"\n\
         [[notify]]\nname = \"hook\"\ntype = \"webhook\"\nurl = \"{}\"\n\
         secret = {{ file = \"{}\" }}\nheaders = {{ X-Team = \"web\" }}\n\
         [[notify]]\nname = \"chat\"\ntype = \"slack\"\nurl = \"{}\"\nalerts = [\"BackendDown\"]\n\
         [[notify]]\nname = \"program\"\ntype = \"command\"\n\
         command = [\"/bin/sh\", \"-c\", \"cat >> $0; echo >> $0\", \"{}\"]\n\
         [[notify]]\nname = \"log\"\ntype = \"syslog\"\npath = \"{}\"\n\
         [[notify]]\nname = \"file\"\ntype = \"file\"\npath = \"{}\"\n\
         [[notify]]\nname = \"pager\"\ntype = \"webhook\"\nurl = \"http://127.0.0.1:1\"\n\
         severity = \"page\"\n",
        Alertmanager::URL,
        hook.url(),
        secret.display(),
        chat.url(),
        program.display(),
        syslog.display(),
        file.display(),
    )
}

#[test]
fn every_kind_of_receiver_is_told_of_a_dead_backend_and_of_its_return() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let mut servers = Web::start_all(&bed).unwrap();
    let alertmanager = Alertmanager::start(&bed).unwrap();
    let hook = Hook::start(&bed, 8080, Answer::Status(200)).unwrap();
    let slack = Hook::start(&bed, 8081, Answer::Status(200)).unwrap();
    let place = |name: &str| bed.dir().path().join(name);
    let (file, program) = (place("alerts.jsonl"), place("program.jsonl"));
    let syslog = UnixDatagram::bind(place("syslog")).unwrap();
    syslog.set_read_timeout(Some(PATIENCE)).unwrap();
    let secret = bed.dir().write("secret", "very secret\n").unwrap();
    let receivers = receivers(&bed, &hook, &slack, [&secret, &program, &file]);
    let daemon = Daemon::start(&bed, &config(&bed, &receivers)).unwrap();
    assert_eq!(ask(&bed, &["alerts", "--json"]), (0, Vec::new()));
    wait::until("the heartbeat", PATIENCE, || {
        ensure!(
            !alertmanager.active("Watchdog")?.is_empty(),
            "there is none"
        );
        Ok(())
    })
    .unwrap();

    servers[1].kill();
    let alert = wait::until("Alertmanager to know of the dead backend", PATIENCE, || {
        let alerts = alertmanager.active("BackendDown")?;
        ensure!(alerts.len() == 1, "{alerts:?}");
        Ok(alerts[0].clone())
    })
    .unwrap();
    assert_eq!(alert["labels"]["service"], "web");
    assert_eq!(alert["labels"]["backend"], "b2");
    assert_eq!(alert["labels"]["severity"], "ticket");
    assert!(
        alert["annotations"]["summary"]
            .as_str()
            .unwrap()
            .contains("web/b2 is down"),
        "{alert}"
    );
    assert_eq!(
        alert["annotations"]["runbook_url"],
        format!("file://{RUNBOOKS}backenddown.md")
    );
    // The status is made once a second.
    wait::until("it to be listed as firing", PATIENCE, || {
        let (code, alerts) = ask(&bed, &["alerts", "--json"]);
        ensure!((code, alerts.len()) == (1, 1), "{code} {alerts:?}");
        let (name, state) = (&alerts[0]["name"], &alerts[0]["state"]);
        ensure!(
            (name, state) == (&"BackendDown".into(), &"firing".into()),
            "{alerts:?}"
        );
        Ok(())
    })
    .unwrap();

    servers[1].start_again().unwrap();
    wait::until("Alertmanager to know of its return", PATIENCE, || {
        let alerts = alertmanager.active("BackendDown")?;
        ensure!(alerts.is_empty(), "{alerts:?}");
        Ok(())
    })
    .unwrap();
    wait::until("the others to know of it", PATIENCE, || {
        let told = about_backends(&hook)?;
        ensure!(told.len() == 2, "{told:?}");
        let (file, program, chat) = (
            lines(&file)?.len(),
            lines(&program)?.len(),
            slack.taken()?.len(),
        );
        ensure!(
            (file, program, chat) == (2, 2, 2),
            "{file} {program} {chat}"
        );
        Ok(())
    })
    .unwrap();
    assert_told(&hook, (&file, &program), &syslog);
    assert_tested(&bed);
    assert_shown(&bed, &daemon);
}

#[test]
fn a_receiver_that_fails_and_hangs_gets_all_of_it_once_and_in_order() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let mut servers = Web::start_all(&bed).unwrap();
    let hook = Hook::start(&bed, 8080, Answer::Status(500)).unwrap();
    let receivers = format!(
        "[[notify]]\nname = \"hook\"\ntype = \"webhook\"\nurl = \"{}\"\ntimeout = \"500ms\"\n\
         alerts = [\"BackendDown\"]\n",
        hook.url()
    );
    let mut daemon = Daemon::start(&bed, &config(&bed, &receivers)).unwrap();
    let receiver = |daemon: &Daemon<'_>| {
        Ok::<_, anyhow::Error>(daemon.status()?["notify"]["receivers"][0].clone())
    };

    servers[1].kill();
    wait::until("a try to fail", PATIENCE, || {
        ensure!(hook.refused()? >= 2, "none did");
        Ok(())
    })
    .unwrap();
    let seen = receiver(&daemon).unwrap();
    assert_eq!(seen["waiting"], 1, "{seen}");
    assert!(
        seen["last_error"].as_str().unwrap().contains("500"),
        "{seen}"
    );

    // One that hangs holds up neither the status nor the health of backends.
    hook.answer(Answer::Hang).unwrap();
    let failed = seen["failed"].as_u64().unwrap();
    let after_a_hang = wait::until("a try to take too long", PATIENCE, || {
        let seen = receiver(&daemon)?;
        ensure!(seen["failed"].as_u64() > Some(failed), "{seen}");
        let why = seen["last_error"].as_str().unwrap_or_default();
        ensure!(why.contains("longer than 500ms"), "{seen}");
        Ok(seen)
    })
    .unwrap();
    assert_eq!(after_a_hang["waiting"], 1);
    servers[1].start_again().unwrap();
    wait::until("its return to wait behind", PATIENCE, || {
        let seen = receiver(&daemon)?;
        ensure!(seen["waiting"] == 2, "{seen}");
        Ok(())
    })
    .unwrap();

    // Neither does a death of the controller lose anything.
    daemon.kill();
    assert!(hook.taken().unwrap().is_empty());
    daemon.restart().unwrap();
    wait::until("what waited to wait again", PATIENCE, || {
        let seen = receiver(&daemon)?;
        ensure!(seen["waiting"] == 2, "{seen}");
        Ok(())
    })
    .unwrap();
    hook.answer(Answer::Status(200)).unwrap();
    wait::until("all to be taken", PATIENCE, || {
        let seen = receiver(&daemon)?;
        ensure!(seen["waiting"] == 0, "{seen}");
        Ok(())
    })
    .unwrap();
    assert_eq!(about_backends(&hook).unwrap(), DOWN_AND_UP);
    // And the next thing is told as if nothing had been.
    servers[1].kill();
    wait::until("the next death to be told", PATIENCE, || {
        let told = about_backends(&hook)?;
        ensure!(told.len() == 3 && told[2] == DOWN_AND_UP[0], "{told:?}");
        Ok(())
    })
    .unwrap();
    // A death in between is not told twice, and a return in between is told.
    daemon.kill();
    servers[1].start_again().unwrap();
    daemon.restart().unwrap();
    wait::until("the return to be told", PATIENCE, || {
        let told = about_backends(&hook)?;
        ensure!(told.len() == 4 && told[3] == DOWN_AND_UP[1], "{told:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn receivers_follow_a_configuration_that_is_applied() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let mut daemon = Daemon::start(&bed, &config(&bed, "")).unwrap();
    assert_eq!(ask(&bed, &["notify", "test", "first", "--json"]).0, 2);
    let apply = |name: &str| {
        let told = bed.dir().path().join(format!("{name}.jsonl"));
        let receiver = format!(
            "[[notify]]\nname = \"{name}\"\ntype = \"file\"\npath = \"{}\"\n",
            told.display()
        );
        let next = bed.dir().write("next.toml", &config(&bed, &receiver));
        let next = next.unwrap();
        assert_eq!(
            ask(&bed, &["plan", next.to_str().unwrap()]).0,
            2,
            "a change"
        );
        assert_eq!(ask(&bed, &["apply", next.to_str().unwrap(), "--json"]).0, 0);
        wait::until("the receiver to take a test", PATIENCE, || {
            let (code, tested) = ask(&bed, &["notify", "test", name, "--json"]);
            ensure!(code == 0, "{code} {tested:?}");
            Ok(())
        })
        .unwrap();
        assert!(!lines(&told).unwrap().is_empty(), "a test is told");
    };
    apply("first");
    apply("second");
    assert_eq!(ask(&bed, &["notify", "test", "first", "--json"]).0, 2);
    wait::until("the status to show the second alone", PATIENCE, || {
        let shown = daemon.status()?["notify"]["receivers"].clone();
        let receivers = shown.as_array().unwrap();
        let names: Vec<_> = receivers.iter().map(|r| &r["name"]).collect();
        ensure!(names == ["second"], "{shown}");
        Ok(())
    })
    .unwrap();
    assert!(daemon.terminate().unwrap().success());
}
