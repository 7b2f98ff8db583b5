//! Load tests: what they say is what another generator says, and what the servers know.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::BTreeSet, fs, process::Output, time::Duration};

use evenkeel_tests::{
    daemon::Daemon,
    end_to_end::tool_output::{Requests, WRK_SCRIPT},
    server::{AccessLog, Mood, Moody, UdpEcho, Web},
    tools::{evenkeel, output, tool},
    topology::{Service, Spec, Topology, VIP4},
};
use serde_json::Value;

/// Runs it in the client's namespace, which no controller knows of.
fn loadtest(bed: &Topology, arguments: &[&str]) -> Output {
    let mut command = bed.client.command_at(&evenkeel().unwrap());
    command
        .args(["loadtest", "--quiet", "--i-own-this-target"])
        .args(arguments);
    command.arg("--socket").arg(bed.socket());
    command.arg("--state").arg(bed.state());
    command.output().unwrap()
}

#[track_caller]
fn report(output: &Output, code: i32) -> Value {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Loads a service with connections that are kept.
fn wrk(bed: &Topology, connections: u32, seconds: u32) -> Requests {
    let script = bed.dir().write("wrk.lua", WRK_SCRIPT).unwrap();
    let mut wrk = bed.client.command_at(&tool("wrk").unwrap());
    wrk.args(["-t1", "--timeout", "5s", "-s"]).arg(script);
    wrk.args(["-c", &connections.to_string()]);
    wrk.args(["-d", &format!("{seconds}s"), &format!("http://{VIP4}/")]);
    Requests::parse(&output(&mut wrk).unwrap()).unwrap()
}

/// A service whose backends are up for as long as they accept connections.
fn service(bed: &Topology) -> String {
    let service = Service {
        health: "type = \"tcp\"\ninterval = \"1s\"\ntimeout = \"900ms\"",
        ..Service::web("web", VIP4)
    };
    bed.config_head() + &bed.service(&service)
}

#[track_caller]
fn near(what: &str, ours: f64, theirs: f64, part: f64) {
    assert!(
        (ours / theirs - 1.0).abs() <= part,
        "{what}: {ours} {theirs}"
    );
}

#[test]
fn rates_and_percentiles_are_what_wrk_says() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Moody::start_all(&bed, Mood::after(Duration::from_millis(100))).unwrap();
    let _daemon = Daemon::start(&bed, &service(&bed)).unwrap();
    let theirs = wrk(&bed, 20, 6);
    assert_eq!(theirs.errors, 0);
    let rate = theirs.requests as f64 / theirs.seconds;
    let url = format!("http://{VIP4}/");
    let arguments = ["--json", "--keep", "--for", "6s", "--rate"];
    let ours = loadtest(&bed, &[&arguments[..], &[&rate.to_string(), &url]].concat());
    let ours = report(&ours, 0);
    let total = &ours["total"];
    assert_eq!(total["failures"], serde_json::json!({}));
    near("rate", total["answered_rate"].as_f64().unwrap(), rate, 0.05);
    for (ours, theirs) in [
        ("p50_s", theirs.p50_us),
        ("p90_s", theirs.p90_us),
        ("p99_s", theirs.p99_us),
    ] {
        let took = total["latency"][ours].as_f64().unwrap();
        near(ours, took, theirs / 1e6, 0.05);
    }
}

#[test]
fn a_search_finds_what_three_backends_hold() {
    let bed = Topology::build(&Spec::default()).unwrap();
    // 200 a second each.
    let narrow = Mood {
        at_once: 4,
        ..Mood::after(Duration::from_millis(20))
    };
    let _servers = Moody::start_all(&bed, narrow).unwrap();
    let daemon = Daemon::start(&bed, &service(&bed)).unwrap();

    // By hand: more and more connections, until nothing more comes of them.
    let mut knee = 0.0;
    for connections in [12, 24, 48, 96] {
        let requests = wrk(&bed, connections, 3);
        let rate = requests.requests as f64 / requests.seconds;
        knee = f64::max(knee, rate);
    }

    let url = format!("http://{VIP4}/");
    let search = loadtest(
        &bed,
        &[
            "--search",
            "--within",
            "200ms",
            "--failing",
            "1",
            "--rate",
            "250",
            "--for",
            "4s",
            "--json",
            &url,
        ],
    );
    let found = report(&search, 0);
    let held = found["search"]["held"].as_f64().unwrap();
    near("knee", held, knee, 0.10);

    // What the backends took is what was asked of them, and evenly.
    let spread = &found["spread"];
    assert_eq!(spread["service"], "web");
    let backends = spread["backends"].as_array().unwrap();
    let took: u64 = backends.iter().map(|b| b["took"].as_u64().unwrap()).sum();
    // wrk's own connections were there before.
    assert_eq!(Some(took), found["total"]["due"].as_u64(), "{spread}");
    for backend in backends {
        let share = backend["share"].as_f64().unwrap();
        assert!((0.28..0.39).contains(&share), "{backend}");
    }
    // Two of the three do not hold what the three just hold, and hold what is little.
    let stages = found["stages"].as_array().unwrap();
    let without = |stage: &Value| {
        let number = stages.iter().position(|of| of == stage).unwrap() + 1;
        let all = spread["without_one"].as_array().unwrap();
        let of = all.iter().find(|of| of["stage"] == number);
        of.unwrap()["holds"].clone()
    };
    let rate = |stage: &&Value| stage["from"].as_f64().unwrap();
    let highest = stages
        .iter()
        .filter(|stage| stage["holds"] == true)
        .max_by(|a, b| rate(a).total_cmp(&rate(b)));
    assert_eq!(without(highest.unwrap()), "no", "{spread}");
    let least = stages.iter().min_by(|a, b| rate(a).total_cmp(&rate(b)));
    assert_eq!(without(least.unwrap()), "yes", "{spread}");

    // It is in the journal.
    let events = daemon
        .ask(&["events", "--json", "--kind", "load-test"])
        .unwrap();
    let event: Value = serde_json::from_slice(&events.stdout).unwrap();
    assert_eq!(event["service"], "web");
    assert_eq!(event["detail"]["search"], found["search"]);
}

#[test]
fn each_kind_of_target_is_asked_from_the_addresses_given() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let servers = bed.backends.iter();
    let servers: Vec<_> = servers
        .map(|host| Web::start(&bed, host, AccessLog::On).unwrap())
        .collect();
    let _udp = UdpEcho::start(&bed, &bed.backends[0], 5353).unwrap();
    let mut from: Vec<String> = bed
        .more_clients(4)
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    let addresses = from.join(",");
    let host = &bed.backends[0];
    let web = format!("http://{}/asked", host.ipv4);
    let tcp = format!("tcp://{}:80", host.ipv4);
    let udp = format!("udp://[{}]:5353", host.ipv6);
    let request = r"GET /asked HTTP/1.0\r\n\r\n";
    for arguments in [
        &[web.as_str(), "--from", &addresses][..],
        &[&web, "--keep", "--arrivals", "random", "--ramp", "200"],
        &[&tcp, "--send", request, "--from", &addresses],
        &[&udp, "--send", "name?"],
    ] {
        let usual = ["--json", "--for", "1s"];
        let found = report(&loadtest(&bed, &[arguments, &usual[..]].concat()), 0);
        let total = &found["total"];
        assert_eq!(total["due"], total["answered"], "{arguments:?}: {total}");
        assert!(total["answered"].as_u64().unwrap() >= 90, "{total}");
        assert!(total["bytes"].as_u64().unwrap() > 90, "{total}");
        // No controller balances it.
        assert_eq!(found["spread"], Value::Null);
    }
    let log = bed
        .dir()
        .path()
        .join(format!("{}/access.log", servers[0].name()));
    let log = fs::read_to_string(log).unwrap();
    let asked = log.lines().filter(|line| line.contains("/asked"));
    let mut clients: BTreeSet<_> = asked.filter_map(|line| line.split(' ').next()).collect();
    // The one that kept its connections had no address given.
    clients.retain(|client| from.iter().any(|from| from == client));
    from.sort();
    assert_eq!(clients.into_iter().collect::<Vec<_>>(), from);
}

#[test]
fn a_target_that_fails_ends_the_test_and_says_why() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let nobody = format!("http://{}/", bed.backends[0].ipv4);
    let page = bed.dir().path().join("report.html");
    let page_of = page.to_str().unwrap();
    let ended = loadtest(&bed, &[&nobody, "--for", "1m", "--json", "--html", page_of]);
    let found = report(&ended, 2);
    assert_eq!(found["ended"], "too many requests failed");
    let failures = &found["total"]["failures"];
    assert_eq!(
        failures["connection refused"], found["total"]["due"],
        "{failures}"
    );
    assert!(
        fs::read_to_string(page)
            .unwrap()
            .contains("connection refused")
    );
    let why = String::from_utf8(ended.stderr).unwrap();
    assert!(why.contains("too many requests failed"), "{why}");

    let search = loadtest(&bed, &[&nobody, "--search", "--within", "1s"]);
    assert_eq!(search.status.code(), Some(2));
    let why = String::from_utf8(search.stderr).unwrap();
    assert!(why.contains("connection refused"), "{why}");
}
