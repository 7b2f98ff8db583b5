//! Changes while the controller runs: nobody notices good ones, and bad ones are refused or taken
//! back.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ways;

use std::{path::PathBuf, process::Output, thread, time::Duration};

use anyhow::{Result, ensure};
use evenkeel_tests::{
    daemon::Daemon,
    server::Web,
    tools,
    topology::{Service, Spec, Topology, VIP4},
    traffic::{Load, Traffic},
    wait,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;
use ways::{Bed, Way};

const PATIENCE: Duration = Duration::from_secs(30);

/// A configuration of the bed's backends with these weights, and capacities that say so.
fn config(head: &str, bed: &Topology, mut service: Service<'_>, weights: &[u32]) -> String {
    service.backends = weights
        .iter()
        .enumerate()
        .filter(|(_, weight)| **weight > 0)
        .map(|(n, weight)| (n, format!("weight = {weight}\ncapacity = {weight}")))
        .collect();
    head.to_owned() + &bed.service(&service)
}

fn plain(bed: &Topology, weights: &[u32]) -> String {
    config(&bed.config_head(), bed, Service::web("web", VIP4), weights)
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[track_caller]
fn ask(daemon: &Daemon<'_>, arguments: &[&str], expected: i32) -> String {
    let output = daemon.ask(arguments).unwrap();
    let said = said(&output);
    assert_eq!(code(&output), expected, "{arguments:?}: {said}");
    said
}

fn json(daemon: &Daemon<'_>, arguments: &[&str]) -> Value {
    let output = daemon.ask(arguments).unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&output)))
}

/// The journal's events of a kind, the oldest first.
fn events(daemon: &Daemon<'_>, kind: &str) -> Vec<Value> {
    let output = daemon.ask(&["events", "--json", "--kind", kind]).unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn of_backends<'a>(status: &'a Value, key: &str) -> Vec<&'a Value> {
    let backends = status["services"][0]["backends"].as_array().unwrap();
    backends.iter().map(|backend| &backend[key]).collect()
}

fn weights(daemon: &Daemon<'_>) -> Vec<u64> {
    let status = daemon.status().unwrap();
    let weights = of_backends(&status, "weight");
    weights
        .iter()
        .map(|weight| weight.as_u64().unwrap())
        .collect()
}

fn slots(daemon: &Daemon<'_>) -> Vec<u64> {
    let status = daemon.status().unwrap();
    let slots = of_backends(&status, "slots");
    slots.iter().map(|slots| slots.as_u64().unwrap()).collect()
}

fn write(bed: &Topology, name: &str, config: &str) -> String {
    let path: PathBuf = bed.dir().write(name, config).unwrap();
    path.to_str().unwrap().to_owned()
}

fn await_weights(daemon: &Daemon<'_>, expected: &[u64]) {
    wait::until(format!("the weights {expected:?}"), PATIENCE, || {
        let status = daemon.status()?;
        let found = of_backends(&status, "weight");
        ensure!(found == expected, "they are {found:?}");
        Ok(())
    })
    .unwrap();
}

/// What the random changes go by.
struct Course<'bed> {
    random: StdRng,
    bed: &'bed Bed,
    daemon: Daemon<'static>,
    weights: [u32; 4],
    drained: Option<usize>,
    /// The usual build and one with another program, over the same layout.
    builds: [PathBuf; 2],
    /// The build over the next layout.
    next: PathBuf,
    on_next: bool,
}

/// The random changes of one mode; the layout changes in the middle of them.
const CHANGES: usize = 50;

impl Course<'_> {
    fn config(&self) -> String {
        let (head, service) = (self.bed.head(), self.bed.web("web", VIP4));
        config(&head, self.bed.topology, service, &self.weights)
    }

    fn reweigh(&mut self) {
        for weight in &mut self.weights[..3] {
            *weight = self.random.random_range(1..5);
        }
        self.weights[3] = self.random.random_range(0..3);
    }

    /// Overrides a backend, or ends that.
    fn impose(&mut self) -> String {
        if let Some(n) = self.drained.take() {
            let name = format!("b{}", n + 1);
            ask(&self.daemon, &["backend", "enable", "web", &name], 0);
            return format!("enabled {name}");
        }
        let n = self.random.random_range(0..3);
        let name = format!("b{}", n + 1);
        let words = if self.random.random_range(0..3) == 0 {
            vec!["backend", "weight", "web", &name, "7"]
        } else {
            vec!["backend", "drain", "web", &name]
        };
        ask(&self.daemon, &words, 0);
        self.drained = Some(n);
        format!("{words:?}")
    }

    /// Makes one change, and says which.
    fn step(&mut self, number: usize) -> Result<String> {
        // Each kind comes, in an order of its own.
        let kind = (number + self.random.random_range(0..2)) % 8;
        match kind {
            0 | 1 => {
                self.reweigh();
                let file = write(self.bed.topology, "next.toml", &self.config());
                ask(&self.daemon, &["apply", &file, "--reason", "random"], 0);
                Ok(format!("applied {:?}", self.weights))
            }
            2 => Ok(self.impose()),
            3 => {
                ask(&self.daemon, &["rollback"], 0);
                Ok("rolled back".to_owned())
            }
            4 => {
                self.reweigh();
                let before = events(&self.daemon, "change").len();
                self.daemon.reload(&self.config())?;
                wait::until("the file to be read again", PATIENCE, || {
                    let after = events(&self.daemon, "change").len();
                    ensure!(after > before, "nothing was told");
                    Ok(())
                })?;
                let own = self.daemon.status()?["config_file"].clone();
                ask(&self.daemon, &["plan", own.as_str().unwrap()], 0);
                let rules = self.daemon.status()?["configuration"]["how"].clone();
                ensure!(rules == "reload", "{rules} is in force");
                Ok(format!("reloaded {:?}", self.weights))
            }
            5 => self.unchanged(|course| {
                course.daemon.kill();
                thread::sleep(Duration::from_millis(300));
                course.daemon.restart()?;
                Ok("killed and restarted".to_owned())
            }),
            _ => self.unchanged(|course| course.upgrade(number)),
        }
    }

    /// Does what must not change what is in force.
    fn unchanged(&mut self, act: impl FnOnce(&mut Self) -> Result<String>) -> Result<String> {
        let before = self.daemon.status()?;
        let done = act(self)?;
        let after = self.daemon.status()?;
        let in_force = |status: &Value| {
            let overrides = of_backends(status, "override");
            let kinds = overrides.into_iter().map(|of| of["kind"].clone());
            let weights = of_backends(status, "weight").into_iter().cloned();
            weights.chain(kinds).collect::<Vec<_>>()
        };
        let (before, after) = (in_force(&before), in_force(&after));
        ensure!(
            before == after,
            "{done}: {before:?} before, {after:?} since"
        );
        Ok(done)
    }

    /// Starts another build in the place of the one that runs, or tries to go back over a layout.
    fn upgrade(&mut self, number: usize) -> Result<String> {
        let build = &self.builds[self.random.random_range(0..2)];
        if self.on_next {
            self.daemon.kill();
            let refused = self.daemon.attempt(build)?;
            ensure!(
                code(&refused) == 2 && said(&refused).contains("a newer version"),
                "{}",
                said(&refused)
            );
            self.daemon.restart()?;
            return Ok("refused to go back, restarted".to_owned());
        }
        self.on_next = number >= CHANGES / 2;
        let build = if self.on_next { &self.next } else { build };
        self.daemon.upgrade(build)?;
        Ok(format!("upgraded to {}", build.display()))
    }
}

fn nobody_notices_changes(way: Way, seed: u64) {
    let bed = way.bed(4);
    let _servers = bed.servers();
    let first = config(&bed.head(), bed.topology, bed.web("web", VIP4), &[1; 3]);
    let mut course = Course {
        random: StdRng::seed_from_u64(seed),
        daemon: Daemon::start(bed.topology, &first).unwrap(),
        bed: &bed,
        weights: [1, 1, 1, 0],
        drained: None,
        builds: [
            tools::evenkeel().unwrap(),
            tools::evenkeel_with("other-program").unwrap(),
        ],
        next: tools::evenkeel_with("next-layout").unwrap(),
        on_next: false,
    };
    let load = Load {
        rate: 60,
        kept: 150,
        kept_every: Duration::from_millis(500),
        ..Load::new(VIP4, Duration::from_mins(6))
    };
    let traffic = Traffic::start(bed.topology, load).unwrap();
    thread::sleep(Duration::from_secs(2));
    let mut history = Vec::new();
    for number in 0..CHANGES {
        let step = course.step(number);
        history
            .push(step.unwrap_or_else(|e| panic!("{way:?}, seed {seed:#x}: {e:#}, {history:#?}")));
        thread::sleep(Duration::from_millis(400));
    }
    assert!(course.on_next, "{history:#?}");
    let outcome = traffic.stop().unwrap();
    let failures: Vec<_> = outcome.failures().take(5).collect();
    assert!(
        failures.is_empty(),
        "{way:?}, seed {seed:#x}: {failures:?} of {:?} after {history:#?}",
        outcome.report
    );
    assert!(outcome.report.new.ok > 500, "{:?}", outcome.report);
    assert!(outcome.report.kept.ok > 3_000, "{:?}", outcome.report);
    for backend in ["b1", "b2", "b3"] {
        assert!(outcome.report.kept.by_backend[backend] > 0);
    }
    // Everybody's probes went on: nobody was taken for unknown, or for down.
    let health = events(&course.daemon, "health");
    let down = health.iter().find(|event| event["detail"]["to"] != "up");
    assert!(down.is_none(), "{down:?}");
}

#[test]
fn nobody_notices_a_hundred_random_changes_crashes_and_upgrades_included() {
    thread::scope(|scope| {
        for (way, seed) in [(Way::Dsr, 0xc4a1), (Way::Snat, 0xc4a2)] {
            scope.spawn(move || nobody_notices_changes(way, seed));
        }
    });
}

#[test]
fn a_plan_tells_what_happens_and_a_slip_is_refused_unless_forced() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let first = plain(&bed, &[1, 1]);
    let mut daemon = Daemon::start(&bed, &first).unwrap();
    let own = daemon.status().unwrap()["config_file"].clone();
    let own = own.as_str().unwrap();
    assert!(ask(&daemon, &["plan", own], 0).ends_with("\nno change\n"));

    // What is foreseen is what happens: with a backend that is new, and other weights.
    let next = write(&bed, "next.toml", &plain(&bed, &[1, 2, 2]));
    let plan = json(&daemon, &["plan", &next, "--json"]);
    assert_eq!(plan["assumed"], serde_json::json!(["web/b3"]));
    let text = ask(&daemon, &["plan", &next], 2);
    assert!(
        text.contains("+  b3") && text.contains("0.00 % → 40."),
        "{text}"
    );
    let before = slots(&daemon);
    let outcome = json(&daemon, &["apply", &next, "--json", "--reason", "more"]);
    let foreseen = &plan["services"][0];
    let happened = &outcome["plan"]["services"][0];
    assert_eq!(foreseen, happened);
    assert!(foreseen["slots_in_transition"].as_u64() > Some(0));
    let status = daemon.status().unwrap();
    let of_plan: Vec<_> = foreseen["backends"]
        .as_array()
        .unwrap()
        .iter()
        .map(|backend| &backend["slots"])
        .collect();
    assert_eq!(of_plan, of_backends(&status, "slots"));
    assert_eq!(foreseen["backends"][0]["slots_before"], before[0]);
    assert_eq!(
        foreseen["slots_in_transition"],
        status["services"][0]["remembered"]["slots_in_transition"]
    );
    assert_eq!(status["configuration"]["number"], 2);
    assert_eq!(status["configuration"]["reason"], "more");
    assert_eq!(of_backends(&status, "health"), ["up"; 3]);

    // A weight ten times what its capacity says.
    let good = plain(&bed, &[1, 1, 1]);
    let slip = good.replacen("weight = 1\n", "weight = 10\n", 1);
    let slip = write(&bed, "slip.toml", &slip);
    let refused = ask(&daemon, &["apply", &slip, "--reason", "oops"], 1);
    for part in [
        "L4 error web/b1",
        "its weight is 10, its capacity 1: correct",
    ] {
        assert!(refused.contains(part), "{refused}");
    }
    let refusal = json(&daemon, &["apply", &slip, "--json"]);
    assert_eq!(refusal["findings"][0]["rule"], "L4");
    let after = daemon.status().unwrap();
    for key in ["generation", "config_sha256", "configuration"] {
        assert_eq!(after[key], status[key], "{key}");
    }
    // Nor does a reload take it.
    let text = std::fs::read_to_string(&slip).unwrap();
    daemon.reload(&text).unwrap();
    wait::until("the reload to be refused", PATIENCE, || {
        let told = events(&daemon, "change");
        let of = |event: &&Value| event["actor"] == "SIGHUP" && event["level"] == "warning";
        ensure!(told.iter().any(|event| of(&event)), "{told:#?}");
        Ok(())
    })
    .unwrap();
    assert_eq!(weights(&daemon), [1, 2, 2]);
    let wrong = daemon.ask(&["apply", &slip, "--force"]).unwrap();
    assert_eq!(code(&wrong), 2, "{}", said(&wrong));
    let forced = ["apply", &slip, "--force", "--reason", "b1 is a new machine"];
    ask(&daemon, &forced, 0);
    assert_eq!(weights(&daemon), [10, 1, 1]);
    let told = events(&daemon, "change");
    let of = told.last().unwrap();
    assert_eq!(
        (&of["actor"], &of["level"]),
        (&"root".into(), &"warning".into())
    );
    assert_eq!(of["detail"]["uid"], 0);
    assert_eq!(of["detail"]["reason"], "b1 is a new machine");
    let overruled = of["detail"]["forced"][0].as_str().unwrap();
    assert!(overruled.starts_with("L4 error web/b1"), "{overruled}");
    let refusals = told
        .iter()
        .filter(|event| event["detail"]["what"] == "refused");
    assert_eq!(refusals.count(), 3);
    assert!(ask(&daemon, &["rollback", "--list"], 0).contains("(FORCED)"));

    // What takes a restart is named; what is not valid is told as 'check' tells it.
    let elsewhere = good.replace("[admin]", "hash_seed = 7\n[admin]");
    let elsewhere = write(&bed, "elsewhere.toml", &elsewhere);
    let refused = ask(&daemon, &["apply", &elsewhere], 1);
    assert!(
        refused.contains("data_plane.hash_seed: ") && refused.contains("restart"),
        "{refused}"
    );
    let invalid = write(&bed, "invalid.toml", &good.replace("vip = ", "vip = 1 #"));
    assert!(ask(&daemon, &["apply", &invalid], 1).contains("not valid"));
    assert_eq!(weights(&daemon), [10, 1, 1]);
    daemon.reload(&good).unwrap();
    await_weights(&daemon, &[1, 1, 1]);
    daemon.terminate().unwrap();
    assert!(ask(&daemon, &["plan", &next], 1).contains("no controller answers"));
    ask(&daemon, &["apply", &next], 2);
}

#[test]
fn what_is_not_confirmed_is_taken_back_and_what_is_applied_outlives_a_crash() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let mut daemon = Daemon::start(&bed, &plain(&bed, &[1, 1, 1])).unwrap();
    let next = write(&bed, "next.toml", &plain(&bed, &[1, 2, 2]));
    let apply = ["apply", &next, "--confirm-within", "2s"];
    ask(&daemon, &apply, 0);
    assert_eq!(weights(&daemon), [1, 2, 2]);
    let other = write(&bed, "other.toml", &plain(&bed, &[3, 2, 2]));
    assert!(ask(&daemon, &["apply", &other], 1).contains("evenkeel confirm"));
    await_weights(&daemon, &[1, 1, 1]);
    assert!(ask(&daemon, &["confirm"], 1).contains("nothing waits"));

    // Neither is the deadline forgotten by a crash, before it or beyond it.
    for down in [0, 3] {
        ask(&daemon, &["apply", &next, "--confirm-within", "3s"], 0);
        daemon.kill();
        thread::sleep(Duration::from_secs(down));
        daemon.restart().unwrap();
        await_weights(&daemon, &[1, 1, 1]);
    }
    let told = events(&daemon, "change");
    let taken_back = |event: &&Value| {
        let message = event["message"].as_str().unwrap();
        message.contains("not confirmed")
    };
    assert_eq!(told.iter().filter(taken_back).count(), 3, "{told:#?}");

    ask(&daemon, &apply, 0);
    assert!(ask(&daemon, &["confirm"], 0).contains("confirmed by root"));
    let number = daemon.status().unwrap()["configuration"]["number"].clone();
    for _ in 0..2 {
        daemon.restart().unwrap();
        let status = daemon.status().unwrap();
        assert_eq!(of_backends(&status, "weight"), [1, 2, 2]);
        assert_eq!(status["configuration"]["number"], number);
        let differs = status["configuration"]["file_differs"].as_str().unwrap();
        assert!(differs.contains("a restart keeps that"), "{differs}");
    }
    thread::sleep(Duration::from_secs(2));
    assert_eq!(weights(&daemon), [1, 2, 2]);
    // Back to a number, and to the one before that.
    ask(&daemon, &["rollback", "1", "--reason", "worse"], 0);
    assert_eq!(weights(&daemon), [1, 1, 1]);
    assert_eq!(daemon.status().unwrap()["configuration"]["copy_of"], 1);
    ask(&daemon, &["rollback"], 0);
    assert_eq!(weights(&daemon), [1, 2, 2]);
    assert!(ask(&daemon, &["rollback", "999"], 1).contains("no configuration 999"));
    // Whoever edits the controller's own file and restarts it gets that.
    daemon.reconfigure(&plain(&bed, &[2, 2, 3])).unwrap();
    assert_eq!(weights(&daemon), [2, 2, 3]);
}

#[test]
fn overrides_outlive_restarts_and_changes_until_they_end() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let short = |weights: &[u32]| {
        let head = bed.config_head() + "[tracking]\nwindow = \"10s\"\n";
        config(&head, &bed, Service::web("web", VIP4), weights)
    };
    let mut daemon = Daemon::start(&bed, &short(&[1, 1, 1])).unwrap();
    let even = slots(&daemon);
    let drain = ["backend", "drain", "web", "b2", "--reason", "new kernel"];
    ask(&daemon, &drain, 0);
    let check = |daemon: &Daemon<'_>| {
        let status = daemon.status().unwrap();
        let of = of_backends(&status, "override")[1].clone();
        assert_eq!(
            (&of["kind"], &of["actor"]),
            (&"drain".into(), &"root".into())
        );
        assert_eq!(of["reason"], "new kernel");
        assert_eq!(of_backends(&status, "slots")[1], 0);
        let text = ask(daemon, &["status"], 0);
        assert!(
            text.contains("b2 is drained instead of weight 1 by root"),
            "{text}"
        );
    };
    check(&daemon);
    daemon.restart().unwrap();
    check(&daemon);
    let next = write(&bed, "next.toml", &short(&[2, 1, 2]));
    ask(&daemon, &["apply", &next], 0);
    check(&daemon);
    ask(&daemon, &["rollback"], 0);

    // The last ones cannot be taken away.
    ask(
        &daemon,
        &["backend", "disable", "web", "b1", "--expires", "3s"],
        0,
    );
    let last = ask(&daemon, &["backend", "drain", "web", "b3"], 1);
    assert!(last.contains("the last backend"), "{last}");
    assert!(ask(&daemon, &["backend", "drain", "web", "b9"], 1).contains("it has b1, b2, b3"));
    assert!(ask(&daemon, &["backend", "enable", "web", "b3"], 1).contains("no override"));
    wait::until("b1 to come back by itself", PATIENCE, || {
        ensure!(slots(&daemon)[0] > 0, "it is away");
        Ok(())
    })
    .unwrap();
    // A drain is over when nothing is left, or at its deadline.
    let waited = ask(&daemon, &["backend", "drain", "web", "b2", "--wait"], 0);
    assert!(waited.contains("drained: no flow is left"), "{waited}");
    let deadline = [
        "backend",
        "drain",
        "web",
        "b1",
        "--deadline",
        "1s",
        "--wait",
    ];
    let waited = ask(&daemon, &deadline, 0);
    assert!(waited.contains("disabled: the deadline"), "{waited}");
    ask(&daemon, &["backend", "weight", "web", "b2", "2"], 0);
    assert_eq!(weights(&daemon), [0, 2, 1]);
    for backend in ["b1", "b2"] {
        ask(&daemon, &["backend", "enable", "web", backend], 0);
    }
    // Every slot is whose it was.
    assert_eq!(slots(&daemon), even);
    let told = events(&daemon, "override");
    let what: Vec<_> = told.iter().map(|event| &event["detail"]["what"]).collect();
    assert_eq!(
        serde_json::json!(what),
        serde_json::json!([
            "drain", "disable", "expired", "drain", "drained", "drain", "past-deadline",
            { "weight": 2 }, "enable", "enable"
        ])
    );
    assert!(told.iter().all(|event| event["service"] == "web"));

    // A file that is damaged is set aside, and forwarding goes on.
    ask(&daemon, &["backend", "drain", "web", "b2"], 0);
    daemon.kill();
    std::fs::write(bed.state().join("overrides.json"), "{").unwrap();
    daemon.restart().unwrap();
    assert_eq!(slots(&daemon), even);
    let told = events(&daemon, "change");
    let message = told.last().unwrap()["message"].as_str().unwrap();
    assert!(message.contains("the overrides are lost"), "{message}");
    assert!(message.contains("overrides.json.damaged-"), "{message}");
}
