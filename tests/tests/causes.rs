//! The verdict names the cause: a wrong weight, a slow backend, a heavy client, few clients; and an
//! even load has none.

#![expect(clippy::print_stdout, reason = "figures for the reader of a run")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use evenkeel_tests::{
    clock,
    daemon::Daemon,
    server::{Mood, Moody},
    topology::{Service, Spec, Topology, VIP4},
    traffic::{Load, Traffic},
    wait,
};
use serde_json::Value;

/// The VIPs of the services whose clients stay with their backend.
const HEAVY: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 20));
const FEW: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 30));
/// For a minute of warm-up, and what is then found.
const PATIENCE: Duration = Duration::from_mins(5);
/// What a configuration says is known at once.
const SOON: Duration = Duration::from_secs(15);
/// Longer than all of it takes.
const LONG: Duration = Duration::from_mins(25);

const GOOD: Mood = Mood::after(Duration::from_millis(10));
const SLOW: Mood = Mood::after(Duration::from_millis(60));

/// Three services of the same ten backends, of which one may have another weight.
fn config(bed: &Topology, weight: u16) -> String {
    let backends: Vec<(usize, String)> = (0..10)
        .map(|n| {
            let weight = if n == 2 { weight } else { 10 };
            (n, format!("weight = {weight}\ncapacity = 10"))
        })
        .collect();
    let service = |name, vip, spread: &str| {
        bed.service(&Service {
            health: "type = \"http\"\npath = \"/healthz\"",
            options: format!("spread = \"{spread}\""),
            backends: backends.clone(),
            ..Service::web(name, vip)
        })
    };
    let [web, heavy, few] = [
        service("web", VIP4, "flow"),
        service("heavy", HEAVY, "source"),
        service("few", FEW, "source"),
    ];
    bed.config_head() + &web + &heavy + &few
}

fn evenness(daemon: &Daemon<'_>, service: usize) -> Result<Value> {
    Ok(daemon.status()?["services"][service]["evenness"].clone())
}

/// Waits until the cause is of a kind; answers what the status says, and how long that took.
fn caused(daemon: &Daemon<'_>, service: usize, kind: &str, limit: Duration) -> (Value, Duration) {
    let began = clock::now_ms();
    let what = format!("cause {kind}");
    let found = wait::until(what, limit, || {
        let evenness = evenness(daemon, service)?;
        ensure!(evenness["cause"]["kind"] == kind, "{evenness:#}");
        Ok(evenness)
    });
    let took = Duration::from_millis(clock::now_ms() - began);
    (found.unwrap(), took)
}

fn clients(evenness: &Value) -> Result<(f64, String)> {
    let clients = &evenness["clients"];
    let effective = clients["effective"].as_f64().context("not told")?;
    let heaviest = clients["heaviest"][0]["client"].as_str();
    Ok((effective, heaviest.context("nobody")?.to_owned()))
}

/// The backend that got most.
fn most(traffic: &mut Traffic<'_>) -> String {
    let by_backend = traffic.report().unwrap().new.by_backend;
    let most = by_backend.into_iter().max_by_key(|(_, count)| *count);
    most.unwrap().0
}

#[test]
fn each_cause_is_named_with_its_evidence() {
    let bed = Topology::build(&Spec {
        backends: 10,
        vips: vec![VIP4, HEAVY, FEW],
        ..Spec::default()
    })
    .unwrap();
    let servers = Moody::start_all(&bed, GOOD).unwrap();
    let sources = bed.more_clients(200).unwrap();
    let mut daemon = Daemon::start(&bed, &config(&bed, 10)).unwrap();
    let start = |host, rate, sources: &[IpAddr]| {
        let load = Load {
            rate,
            sources: sources.to_vec(),
            records: false,
            ..Load::new(host, LONG)
        };
        Traffic::start(&bed, load).unwrap()
    };
    let mut web = start(VIP4, 100, &sources);
    // Two in three connections are of one client, the others of many.
    let mut one = start(HEAVY, 70, &sources[..1]);
    let others = start(HEAVY, 30, &sources[1..]);
    let mut few = start(FEW, 100, &sources[..12]);

    // Chance only.
    let even = wait::until("an even load", PATIENCE, || {
        web.report()?;
        let evenness = evenness(&daemon, 0)?;
        ensure!(evenness["verdict"] == "even", "{evenness:#}");
        Ok(evenness)
    })
    .unwrap();
    assert_eq!(even["cause"], Value::Null, "{even:#}");
    let (effective, _) = clients(&even).unwrap();
    assert!((150.0..270.0).contains(&effective), "{effective}");

    // One client, with what would be without it.
    let (found, after) = caused(&daemon, 1, "heavy-clients", PATIENCE);
    println!("heavy client found after {after:?}: {}", found["message"]);
    assert_eq!(found["cause"]["backend"], most(&mut one), "{found:#}");
    assert_eq!(clients(&found).unwrap().1, sources[0].to_string());
    assert_eq!(found["verdict"], "skewed");
    let ruled_out = found["cause"]["ruled_out"].to_string();
    for other in ["drift: ", "table: ", "config: "] {
        assert!(ruled_out.contains(other), "{ruled_out}");
    }

    // A dozen clients, who are nobody's fault.
    let (found, after) = caused(&daemon, 2, "few-clients", PATIENCE);
    println!("few clients found after {after:?}: {}", found["message"]);
    let (effective, _) = clients(&found).unwrap();
    assert!((10.0..14.0).contains(&effective), "{effective}");
    assert_eq!(found["cause"]["backend"], most(&mut few), "{found:#}");
    let findings = found["findings"].as_array().unwrap();
    let flows: Vec<_> = findings
        .iter()
        .filter(|f| f["reference"] == "flows")
        .collect();
    assert!(!flows.is_empty());
    assert!(
        flows.iter().all(|f| f["severity"] == "ticket"),
        "{flows:#?}"
    );

    // The wrong weight of that night.
    let next = bed.dir().write("next.toml", &config(&bed, 20)).unwrap();
    let next = next.to_str().unwrap();
    let refused = daemon.ask(&["apply", next]).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let forced = daemon
        .ask(&["apply", next, "--force", "--reason", "a slip"])
        .unwrap();
    assert!(forced.status.success(), "{forced:?}");
    let (found, after) = caused(&daemon, 0, "config", SOON);
    println!("weight found after {after:?}: {}", found["message"]);
    assert_eq!(
        (&found["verdict"], &found["cause"]["backend"]),
        (&"skewed".into(), &"b3".into())
    );
    let back = daemon
        .ask(&["rollback", "--reason", "that was it"])
        .unwrap();
    assert!(back.status.success(), "{back:?}");

    // A backend that gets its share, and is slow.
    servers[4].turn(SLOW).unwrap();
    let (found, after) = caused(&daemon, 0, "slow-backend", PATIENCE);
    println!("slow backend found after {after:?}: {}", found["cause"]);
    assert_eq!(found["cause"]["backend"], "b5", "{found:#}");

    for traffic in [web, one, others, few] {
        let outcome = traffic.stop().unwrap();
        assert_eq!(
            outcome.report.new.by_error.len(),
            0,
            "{:?}",
            outcome.report.new
        );
    }
    daemon.check_running().unwrap();
}
