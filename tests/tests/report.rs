//! A weight that is wrong opens an incident by itself; what is done about it is kept over a crash; and
//! the report of it says what happened, in all three forms, with a source for every figure.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use evenkeel_tests::{
    browser::{Browser, Scheme},
    daemon::Daemon,
    receivers,
    server::Web,
    topology::{Service, Spec, Topology, VIP4},
    traffic::{Load, Traffic},
    wait,
};
use lb_userspace::{
    history,
    journal::Reader,
    report::{material::unresolved, references::Noted},
};
use serde_json::Value;

/// For a minute of warm-up, and what is then found.
const PATIENCE: Duration = Duration::from_mins(5);
/// Longer than all of it takes.
const LONG: Duration = Duration::from_mins(30);

fn config(bed: &Topology, told: &Path) -> String {
    let backends = (0..3).map(|n| (n, "weight = 10\ncapacity = 10".to_owned()));
    let head = format!(
        "{}[incidents]\nclose_after = \"12s\"\n[[notify]]\nname = \"ops\"\ntype = \"file\"\npath = \"{}\"\n",
        bed.config_head(),
        told.display()
    );
    head + &bed.service(&Service {
        backends: backends.collect(),
        ..Service::web("web", VIP4)
    })
}

#[track_caller]
fn ask(daemon: &Daemon<'_>, arguments: &[&str], expected: i32) -> String {
    let output = daemon.ask(arguments).unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(
        output.status.code(),
        Some(expected),
        "{arguments:?}: {out}{err}"
    );
    format!("{out}{err}")
}

#[track_caller]
fn json(daemon: &Daemon<'_>, arguments: &[&str]) -> Value {
    serde_json::from_str(&ask(daemon, arguments, 0)).unwrap()
}

fn texts<'a>(of: &'a Value, key: &str) -> Vec<&'a str> {
    let all = of[key].as_array().unwrap().iter();
    all.map(|one| one["text"].as_str().unwrap()).collect()
}

/// Every note in a text, as in `[j12]`.
fn notes(text: &str) -> BTreeSet<&str> {
    let found = text.split('[').skip(1).filter_map(|rest| {
        let id = rest.split([']', '\\']).next()?;
        let number = id.strip_prefix(['j', 'h'])?;
        number.parse::<u64>().ok().map(|_| id)
    });
    found.collect()
}

/// Looks every reference up, in files that nobody writes to any more.
fn assert_resolved(report: &Value, directory: &Path) {
    let journal = Reader::open(directory).unwrap();
    let history = history::Reader::open(directory).unwrap();
    let references: Vec<Noted> = serde_json::from_value(report["references"].clone()).unwrap();
    assert!(references.len() > 20, "{}", references.len());
    for noted in &references {
        let why = unresolved(noted, &journal, Some(&history)).unwrap();
        assert_eq!(why, None, "{noted:?}");
    }
}

/// Every object that has a number or a text with a digit has references, and they are in the list.
fn assert_referred(value: &Value, known: &BTreeSet<&str>) {
    match value {
        Value::Object(all) => {
            if let Some(refs) = all.get("refs").and_then(Value::as_array) {
                for id in refs {
                    assert!(known.contains(id.as_str().unwrap()), "{id} in {value}");
                }
                let text = all.get("text").and_then(Value::as_str).unwrap_or_default();
                let figure =
                    all.contains_key("value") || text.contains(|c: char| c.is_ascii_digit());
                assert!(!figure || !refs.is_empty(), "{value}");
            }
            all.values().for_each(|one| assert_referred(one, known));
        }
        Value::Array(all) => all.iter().for_each(|one| assert_referred(one, known)),
        _ => {}
    }
}

/// Looks at the page in both schemes, and on a narrow screen.
fn examine(bed: &Topology, page: &Path) {
    let browser = Browser::start(bed).unwrap();
    browser.open(&format!("file://{}", page.display())).unwrap();
    let mut grounds = Vec::new();
    for (scheme, word) in [(Scheme::Light, "light"), (Scheme::Dark, "dark")] {
        browser.look(1100, 3600, scheme).unwrap();
        let ground = "return getComputedStyle(document.body).backgroundColor";
        grounds.push(browser.run(ground).unwrap());
        let (least, whose) = browser.least_contrast().unwrap();
        assert!((4.5..21.1).contains(&least), "{word}: {least} of {whose}");
        if let Some(folder) = env::var_os("EVENKEEL_PICTURES") {
            let picture = PathBuf::from(folder).join(format!("report-{word}.png"));
            browser.picture(&picture).unwrap();
        }
    }
    assert_ne!(grounds[0], grounds[1]);
    let lines = "return document.querySelectorAll('figure svg polyline').length";
    assert!(browser.run(lines).unwrap().as_u64() > Some(9));
    // Every note leads somewhere, and nothing is asked of anybody else.
    let dead = "return [...document.querySelectorAll('a[href]')]\
                .filter((a) => !document.getElementById(a.getAttribute('href').slice(1))).length";
    assert_eq!(browser.run(dead).unwrap(), 0);
    let elsewhere = "return performance.getEntriesByType('resource').length";
    assert_eq!(browser.run(elsewhere).unwrap(), 0);
    assert_eq!(browser.complaints().unwrap(), Vec::<String>::new());
    browser.look(360, 800, Scheme::Light).unwrap();
    let beyond = "return document.documentElement.scrollWidth - innerWidth";
    let beyond = browser.run(beyond).unwrap();
    assert!(beyond.as_i64().unwrap() <= 0, "{beyond} pixels");
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one incident, from its start to its report"
)]
fn an_incident_opens_by_itself_and_its_report_is_right() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let told = bed.dir().path().join("told.jsonl");
    let mut daemon = Daemon::start(&bed, &config(&bed, &told)).unwrap();
    let traffic = Traffic::start(&bed, Load::new(VIP4, LONG)).unwrap();
    wait::until("an even load", PATIENCE, || {
        let status = daemon.status()?;
        let evenness = &status["services"][0]["evenness"];
        ensure!(evenness["verdict"] == "even", "{evenness:#}");
        ensure!(
            status["incidents"] == Value::Array(Vec::new()),
            "{status:#}"
        );
        Ok(())
    })
    .unwrap();
    assert!(ask(&daemon, &["report"], 1).contains("no incident is known"));
    ask(&daemon, &["incident", "ack"], 1);

    // The incident of that night.
    let slip = [
        "backend", "weight", "web", "b2", "100", "--reason", "a slip",
    ];
    ask(&daemon, &slip, 0);
    let id = wait::until("the incident", PATIENCE, || {
        let status = daemon.status()?;
        let incident = &status["incidents"][0];
        ensure!(incident["service"] == "web", "{:#}", status["alerts"]);
        ensure!(
            incident["alerts"][0] == "WeightsSkewed web/b2",
            "{incident:#}"
        );
        Ok(incident["id"].as_str().context("no name")?.to_owned())
    })
    .unwrap();
    // The first word of it names the incident.
    wait::until("the notification", PATIENCE, || {
        let lines = receivers::lines(&told)?;
        let line = lines
            .iter()
            .find(|line| line["labels"]["severity"] == "page");
        let line = line.context("nobody was told")?;
        ensure!(line["annotations"]["incident"] == id.as_str(), "{line:#}");
        Ok(())
    })
    .unwrap();
    let shown = ask(&daemon, &["status"], 0);
    assert!(
        shown.contains(&format!("incident {id}  web, open for")),
        "{shown}"
    );
    ask(&daemon, &["incident", "ack", "--text", "on it"], 0);
    // What comes while nobody runs, history does not know.
    wait::until("the skew to be in history", PATIENCE, || {
        let asked = ["history", "web", "--since", "1m", "--step", "1s", "--json"];
        let history = json(&daemon, &asked);
        let flows = history["backends"][1]["new_flows"].as_array();
        let many = flows.context("no flows")?.iter().filter_map(Value::as_u64);
        let many = many.filter(|&flows| flows > 60).count();
        ensure!(many >= 8, "{many} seconds with a skew");
        Ok(())
    })
    .unwrap();

    // A crash loses none of it, and while nobody runs it goes on.
    daemon.kill();
    let note = [
        "incident",
        "note",
        &id,
        "--text",
        "the controller is gone, too",
    ];
    let noted = ask(&daemon, &note, 0);
    assert!(noted.contains("no controller runs"), "{noted}");
    assert!(ask(&daemon, &["incident", "ack"], 1).contains("acknowledged by root already"));
    daemon.restart().unwrap();
    let status = daemon.status().unwrap();
    let incident = &status["incidents"][0];
    assert_eq!(
        (&incident["id"], &incident["acknowledged_by"]),
        (&id.clone().into(), &"root".into())
    );
    assert_eq!(status["incidents"].as_array().unwrap().len(), 1);

    // It is mended, and ends by itself.
    let mended = [
        "backend",
        "enable",
        "web",
        "b2",
        "--reason",
        "weight put back",
    ];
    ask(&daemon, &mended, 0);
    wait::until("the end of the incident", PATIENCE, || {
        let all = json(&daemon, &["incident", "list", "--all", "--json"]);
        ensure!(all[0]["state"] == "closed", "{all:#}");
        Ok(())
    })
    .unwrap();
    assert!(ask(&daemon, &["incident", "list"], 0).contains("no incident is open"));
    let shown = ask(&daemon, &["incident", "show", &id], 0);
    assert!(
        shown.contains("is closed by controller: it has been quiet for 12s"),
        "{shown}"
    );
    // A report needs nobody who runs.
    let outcome = traffic.stop().unwrap();
    assert_eq!(
        outcome.report.new.failed, 0,
        "{:?}",
        outcome.report.new.by_error
    );
    daemon.terminate().unwrap();

    let report = json(&daemon, &["report", "--json"]);
    assert_eq!(
        (&report["format"], &report["version"]),
        (&"evenkeel-report".into(), &1.into())
    );
    let incident = &report["incidents"][0];
    assert_eq!(
        (&incident["id"], &incident["state"]),
        (&id.clone().into(), &"closed".into())
    );
    let at: Vec<u64> = incident["times"]
        .as_array()
        .unwrap()
        .iter()
        .map(|moment| {
            moment["at_ms"]
                .as_u64()
                .unwrap_or_else(|| panic!("{moment}"))
        })
        .collect();
    assert_eq!(at.len(), 6);
    assert!(
        at[0] <= at[1] && at[1] <= at[2] && at[1] <= at[3] && at[3] < at[4] && at[4] < at[5],
        "{at:?}"
    );
    let cause = &report["causes"][0];
    assert_eq!(
        (&cause["kind"], &cause["backend"]),
        (&"config".into(), &"b2".into()),
        "{cause:#}"
    );
    assert!(
        texts(cause, "evidence")[0].starts_with("2.50 times"),
        "{cause:#}"
    );
    let ruled_out = texts(cause, "ruled_out").join("\n");
    for other in [
        "drift: the kernel's ring",
        "table: each backend has the slots",
        "flows: ",
    ] {
        assert!(ruled_out.contains(other), "{ruled_out}");
    }
    // The ring that a start finds has another size than the one that it makes: that is no skew.
    let timeline = report["timeline"].to_string();
    assert!(!timeline.contains("of the slots, its weight"), "{timeline}");
    let trigger = &report["trigger"];
    assert_eq!(trigger["who"], "root");
    assert!(trigger["why"].to_string().contains("a slip"), "{trigger:#}");
    assert!(
        trigger["at_ms"].as_u64().unwrap() <= at[0] + 1000,
        "{trigger:#}"
    );
    assert!(
        texts(trigger, "difference").join(" ").contains("web/b2: "),
        "{trigger:#}"
    );
    assert!(
        trigger["audit"]["text"]
            .as_str()
            .unwrap()
            .contains("audit: "),
        "{trigger:#}"
    );
    let resolution = texts(&report, "resolution").join("\n");
    assert!(resolution.contains("weight put back"), "{resolution}");
    let kinds: BTreeSet<&str> = report["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["kind"].as_str().unwrap())
        .collect();
    for kind in [
        "audit",
        "evenness",
        "incident",
        "notification",
        "override",
        "publication",
        "start",
    ] {
        assert!(kinds.contains(kind), "no {kind}: {kinds:?}");
    }
    let more = report["impact"].as_array().unwrap().iter();
    let mut more = more.filter(|of| of["name"] == "web/b2: connections above its share");
    let more = more
        .next()
        .unwrap_or_else(|| panic!("{:#}", report["impact"]));
    assert!(
        more["value"].as_f64().unwrap() > 0.0 && more["estimate"] == true,
        "{more}"
    );

    let known = report["references"].as_array().unwrap().iter();
    let known: BTreeSet<&str> = known.map(|noted| noted["id"].as_str().unwrap()).collect();
    assert_referred(&report, &known);
    assert_resolved(&report, &bed.state());
    let markdown = ask(&daemon, &["report", "--incident", &id], 0);
    let page = bed.dir().path().join("report.html");
    let written = ["report", "--format", "html", "-o", page.to_str().unwrap()];
    assert_eq!(ask(&daemon, &written, 0), "");
    for text in [&markdown, &fs::read_to_string(&page).unwrap()] {
        let strange: Vec<&str> = notes(text)
            .into_iter()
            .filter(|note| !known.contains(note))
            .collect();
        assert!(
            strange.iter().all(|note| *note == "j1" || *note == "h1"),
            "{strange:?}"
        );
        for words in [
            id.as_str(),
            "b2 is weighted for 83.3 % of the load",
            "a slip",
            "weight put back",
            "the controller is gone, too",
            "To be filled in (required).",
        ] {
            assert!(text.contains(words), "no {words:?}: {text}");
        }
    }
    if let Some(folder) = env::var_os("EVENKEEL_PICTURES") {
        fs::write(PathBuf::from(folder).join("report.md"), &markdown).unwrap();
    }
    examine(&bed, &page);
}
