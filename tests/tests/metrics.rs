//! What Prometheus knows is what clients did; rules and dashboard ask for what there is.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr},
    process::Command,
    time::Duration,
};

use anyhow::ensure;
use evenkeel_tests::{
    daemon::Daemon,
    prometheus::Prometheus,
    server::Web,
    tools::{self, tool, workspace},
    topology::{Service, Spec, Topology, VIP4},
    traffic::{Load, Traffic},
    wait,
};
use lb_userspace::model::RUNBOOKS;
use regex::Regex;

const PATIENCE: Duration = Duration::from_mins(1);
/// The VIP of a service whose weights are not what its backends can take.
const WRONG: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 20));

fn config(bed: &Topology) -> String {
    let weights = ["weight = 4", "weight = 1", "weight = 1"];
    let backends = (0..3).map(|n| (n, format!("{}\ncapacity = 10", weights[n])));
    let wrong = bed.service(&Service {
        backends: backends.collect(),
        ..Service::web("wrong", WRONG)
    });
    let web = bed.service(&Service {
        options: "measure_one_in = 4".to_owned(),
        ..Service::web("web", VIP4)
    });
    bed.config_head() + &web + &wrong
}

/// What the controller says at /metrics.
fn metrics(bed: &Topology) -> anyhow::Result<String> {
    let url = "http://127.0.0.1:9660/metrics";
    bed.balancer.run("curl", &["-sS", "-f", "-m", "5", url])
}

/// The names of series that rules and dashboard ask for.
fn asked_for() -> BTreeSet<String> {
    let name = Regex::new(r"\bevenkeel_[a-z0-9_]+").unwrap();
    let comment = Regex::new(r"(?m)^\s*#.*$").unwrap();
    let mut names = BTreeSet::new();
    for file in ["prometheus/evenkeel.rules.yml", "grafana/evenkeel.json"] {
        let text = fs::read_to_string(workspace().join("packaging").join(file)).unwrap();
        let text = comment.replace_all(&text, "");
        let found = name.find_iter(&text).filter(|found| {
            // A name that was recorded has a colon on either side of ours.
            !text[..found.start()].ends_with(':') && !text[found.end()..].starts_with(':')
        });
        names.extend(found.map(|found| found.as_str().to_owned()));
    }
    names
}

/// The names of series that are described, whether there is one at present or not.
fn described(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let of = |line: &str| {
        let (name, kind) = line.split_once(' ').unwrap();
        let ends: &[&str] = match kind {
            "counter" => &["_total"],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        let name = name.to_owned();
        ends.iter()
            .map(|end| name.clone() + end)
            .collect::<Vec<_>>()
    };
    types.flat_map(of).collect()
}

#[test]
fn rules_are_what_promtool_takes_and_do_what_their_tests_say() {
    let folder = workspace().join("packaging/prometheus");
    let promtool = tool("promtool").unwrap();
    for arguments in [
        ["check", "rules", "evenkeel.rules.yml"],
        ["test", "rules", "evenkeel.rules.test.yml"],
    ] {
        let mut command = Command::new(&promtool);
        tools::output(command.args(arguments).current_dir(&folder)).unwrap();
    }
    // Each alert says what to do at a place that exists.
    let rules = fs::read_to_string(folder.join("evenkeel.rules.yml")).unwrap();
    let rule = Regex::new(r"(?s)- alert: (\S+)\n.*?runbook_url: file://(\S+/)(\w+\.md)\n").unwrap();
    let places: Vec<_> = rule.captures_iter(&rules).collect();
    assert_eq!(places.len(), rules.matches("- alert:").count());
    for place in places {
        assert_eq!(&place[2], RUNBOOKS, "{}", &place[1]);
        let page = workspace().join("docs/runbooks").join(&place[3]);
        let text = fs::read_to_string(&page).unwrap();
        assert!(
            text.contains(&place[1]),
            "{} does not name {}",
            page.display(),
            &place[1]
        );
    }
}

/// What Prometheus knows after 500 connections to backends that are all well.
fn assert_counted(prometheus: &Prometheus<'_>) {
    for (expression, expected) in [
        (
            "sum(evenkeel_backend_intended_share_ratio{service=\"web\"})",
            1.0,
        ),
        (
            "sum(evenkeel_backend_observed_share_ratio{service=\"web\"})",
            1.0,
        ),
        ("sum(evenkeel_backend_weight{service=\"wrong\"})", 6.0),
        ("sum(evenkeel_backend_up)", 6.0),
        (
            "sum(evenkeel_backend_probes_total{outcome=\"failed\"})",
            0.0,
        ),
        (
            "evenkeel_service_verdict{service=\"wrong\", verdict=\"skewed\"}",
            1.0,
        ),
        (
            "count(evenkeel_interface_attached{xdp_mode=\"native\"})",
            1.0,
        ),
        ("evenkeel_tables_as_intended", 1.0),
        ("evenkeel_publications_total{outcome=\"taken\"}", 1.0),
        ("sum(evenkeel_alerts_firing{severity=\"page\"})", 1.0),
        (
            "sum(evenkeel_backend_probe_duration_seconds_count) > bool 6",
            1.0,
        ),
        // Of some flows.
        (
            "sum(evenkeel_backend_handshake_duration_seconds_count{service=\"web\"}) > bool 5",
            1.0,
        ),
        (
            "sum(evenkeel_backend_response_duration_seconds_count{service=\"web\"}) > bool 5",
            1.0,
        ),
        // Nginx answers at once.
        (
            "histogram_quantile(0.5, sum by (le) \
             (evenkeel_backend_response_duration_seconds_bucket{service=\"web\"})) < bool 0.1",
            1.0,
        ),
        (
            "sum(evenkeel_backend_probe_duration_seconds_count) - on() \
             sum(evenkeel_backend_probes_total{outcome=\"passed\"})",
            0.0,
        ),
    ] {
        let value = prometheus.value(expression).unwrap();
        assert!((value - expected).abs() < 1e-6, "{expression} is {value}");
    }
}

#[test]
fn prometheus_counts_what_clients_did_and_finds_what_is_wrong() {
    let bed = Topology::build(&Spec {
        vips: vec![VIP4, WRONG],
        ..Spec::default()
    })
    .unwrap();
    let mut servers = Web::start_all(&bed).unwrap();
    let daemon = Daemon::start(&bed, &config(&bed)).unwrap();
    let prometheus = Prometheus::start(&bed).unwrap();
    let load = Load {
        limit: Some(500),
        ..Load::new(VIP4, PATIENCE)
    };
    let outcome = Traffic::start(&bed, load).unwrap().wait().unwrap();
    let made = &outcome.report.new;
    assert_eq!((made.sent, made.ok, made.failed), (500, 500, 0), "{made:?}");

    // Connection by connection, and by backend.
    let flows = "evenkeel_backend_new_flows_total{service=\"web\"}";
    wait::until("all flows to be counted", PATIENCE, || {
        let counted = prometheus.query(flows)?;
        let counted: BTreeMap<String, u64> = counted
            .iter()
            .map(|(labels, n)| (labels["backend"].as_str().unwrap().to_owned(), *n as u64))
            .collect();
        ensure!(counted == made.by_backend, "{counted:?}, {made:?}");
        Ok(())
    })
    .unwrap();
    // A request is six packets of the client's at least: four would be a connection without one.
    let packets = "sum(evenkeel_backend_packets_total{service=\"web\"})";
    assert!(prometheus.value(packets).unwrap() >= 500.0 * 5.0);
    assert_counted(&prometheus);

    // The rules see the wrong weights and nothing else; then a dead backend as well.
    wait::until("the wrong weights to be seen", PATIENCE, || {
        let alerts = prometheus.alerts()?;
        let expected = ["EvenkeelWeightsFarOff wrong", "EvenkeelWeightsSkewed wrong"];
        ensure!(alerts == expected, "{alerts:?}");
        Ok(())
    })
    .unwrap();
    servers[1].kill();
    wait::until("the dead backend to be seen", PATIENCE, || {
        let alerts = prometheus.alerts()?;
        let expected = [
            "EvenkeelBackendDown web",
            "EvenkeelBackendDown wrong",
            "EvenkeelWeightsFarOff wrong",
            "EvenkeelWeightsSkewed wrong",
        ];
        ensure!(alerts == expected, "{alerts:?}");
        let failed = "sum(evenkeel_backend_probes_total{backend=\"b2\", outcome=\"failed\"}) >= 6";
        prometheus.value(failed)
    })
    .unwrap();

    // What is asked for is there.
    let text = metrics(&bed).unwrap();
    let (asked, described) = (asked_for(), described(&text));
    assert!(asked.len() > 30, "{asked:?}");
    let missing: Vec<_> = asked.difference(&described).collect();
    assert!(missing.is_empty(), "nobody says {missing:?}");
    // Clients are nobody's business who may look here.
    assert!(!text.contains("client"), "{text}");
    let status = daemon.status().unwrap();
    assert_eq!(status["http"]["listening"][0], "127.0.0.1:9660");
}
