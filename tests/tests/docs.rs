//! What the runbooks and guides say to do, done: each command on a host with a controller and
//! traffic, in the situation that the page is for, and what the page says that one sees.
//!
//! `EVENKEEL_PAGE=panic` runs one page alone, and `EVENKEEL_SHOW=1` shows what its commands print.

#![expect(
    clippy::print_stdout,
    reason = "what a page's commands print, for who writes it"
)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod pages;

use std::{
    collections::BTreeSet, env, fmt::Write as _, fs, net::IpAddr, path::Path, time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use evenkeel_tests::{
    server::Web,
    tools::workspace,
    topology::{Service, Spec, Topology, VIP4},
    traffic::{Load, Traffic},
    wait,
};
use lb_userspace::model::AlertName;
use pages::{
    page::{self, Page},
    place::Place,
};
use serde_json::Value;

/// For what is found by traffic: a minute of warm-up, and then some.
const PATIENCE: Duration = Duration::from_mins(4);
/// Longer than all of it takes.
const LONG: Duration = Duration::from_mins(25);

/// A service with trouble of its own, that pages name by `<!-- with: NAME -->`.
struct Trouble {
    /// The name, which is the service's.
    name: &'static str,
    /// The last number of its VIP.
    vip: u8,
    /// Its options.
    options: &'static str,
    /// Its backends, by number, with their options.
    backends: &'static [(usize, &'static str)],
    /// The backend that it is about.
    backend: &'static str,
    /// The alert that is on.
    alert: Option<&'static str>,
}

/// The last two of five backends are dead.
const TROUBLES: [Trouble; 7] = [
    Trouble {
        name: "web",
        vip: 10,
        options: "",
        backends: &[(0, ""), (1, ""), (2, "")],
        backend: "b2",
        alert: None,
    },
    Trouble {
        name: "down",
        vip: 20,
        options: "",
        backends: &[(0, ""), (1, ""), (3, "")],
        backend: "b4",
        alert: Some("BackendDown"),
    },
    Trouble {
        name: "nobody",
        vip: 30,
        options: "",
        backends: &[(3, ""), (4, "")],
        backend: "b4",
        alert: Some("NoBackends"),
    },
    Trouble {
        name: "panic",
        vip: 40,
        options: "",
        backends: &[(0, ""), (3, ""), (4, "")],
        backend: "b4",
        alert: Some("Panic"),
    },
    Trouble {
        name: "skew",
        vip: 50,
        options: "spread = \"source\"",
        backends: &[(0, ""), (1, ""), (2, "")],
        backend: "b1",
        alert: Some("TrafficSkewed"),
    },
    Trouble {
        name: "weights",
        vip: 60,
        options: "",
        backends: &[
            (0, "weight = 4\ncapacity = 10"),
            (1, "weight = 1\ncapacity = 10"),
            (2, "weight = 1\ncapacity = 10"),
        ],
        backend: "b1",
        alert: Some("WeightsSkewed"),
    },
    Trouble {
        name: "lost",
        vip: 70,
        options: "",
        backends: &[(0, ""), (1, "")],
        backend: "b9",
        alert: Some("NeighbourUnresolved"),
    },
];

/// A machine that shares its processors must not look like a dead backend.
const CHECK: &str = "type = \"http\"\npath = \"/healthz\"\ninterval = \"1s\"\ntimeout = \"900ms\"\n\
                     rise = 1\nfall = 2";
/// A backend of the service `lost` that is not on the network.
const LOST: &str = "\n[[services.backends]]\nname = \"b9\"\naddress = \"10.10.0.99\"\n";
/// Nobody listens where the pager should be.
const PAGER: &str =
    "[[notify]]\nname = \"pager\"\ntype = \"webhook\"\nurl = \"http://127.0.0.1:9/\"\n";

fn vip(number: u8) -> IpAddr {
    let IpAddr::V4(vip) = VIP4 else {
        unreachable!("it is an address of IPv4")
    };
    let [a, b, c, _] = vip.octets();
    [a, b, c, number].into()
}

fn bed() -> Topology {
    Topology::build(&Spec {
        backends: 5,
        vips: TROUBLES.iter().map(|trouble| vip(trouble.vip)).collect(),
        ..Spec::default()
    })
    .unwrap()
}

/// The file in `/etc/evenkeel`: what it leaves out is where it is by default.
fn config(bed: &Topology) -> String {
    let mut config =
        format!("[data_plane]\ninterfaces = [\"eth0\"]\n\n[audit]\nevery = \"1m\"\n\n{PAGER}");
    for trouble in &TROUBLES {
        let backends = trouble.backends.iter();
        let mut service = Service {
            options: trouble.options.to_owned(),
            health: CHECK,
            backends: backends.map(|&(n, o)| (n, o.to_owned())).collect(),
            ..Service::web(trouble.name, vip(trouble.vip))
        };
        if trouble.name == "lost" {
            // A check would say that it is down.
            service.health = "";
        }
        config.push_str(&bed.service(&service));
        if trouble.name == "lost" {
            config.push_str(LOST);
        }
    }
    config
}

/// The pages whose commands are run.
fn run_pages() -> Vec<Page> {
    let docs = workspace().join("docs");
    let mut paths = page::below(&docs.join("guides"));
    paths.extend(page::below(&docs.join("runbooks")));
    paths.iter().map(|path| Page::read(path)).collect()
}

/// Whether a line of what a page shows is among what was printed: its parts between ellipses, in
/// their order in one line.
fn is_shown(expected: &str, printed: &str) -> bool {
    printed.lines().any(|line| {
        let mut rest = line;
        expected
            .split('…')
            .all(|part| match rest.split_once(part.trim()) {
                Some((_, after)) => {
                    rest = after;
                    true
                }
                None => false,
            })
    })
}

/// Runs what a page says, in its order; fails where it is not as the page says.
fn follow(place: &Place<'_>, page: &Page, variables: &[(&str, &str)]) -> Result<()> {
    let mut printed = String::new();
    for block in &page.blocks {
        let (line, text) = (block.line, &block.text);
        let expected: i32 = block.note("exit").unwrap_or("0").parse()?;
        let ended = match block.language.as_str() {
            "sh" => place.run(block.note("on").unwrap_or("balancer"), text, variables)?,
            "toml" => {
                let name = block.note("file").unwrap_or("example.toml");
                place.write(name, text)?;
                let check = format!("evenkeel check /etc/evenkeel/{name}");
                place.run("balancer", &check, &[])?
            }
            "text" => {
                for expected in text.lines().filter(|line| !line.trim().is_empty()) {
                    ensure!(
                        is_shown(expected, &printed),
                        "line {line}: '{expected}' is not in what was printed:\n{printed}"
                    );
                }
                continue;
            }
            _ => continue,
        };
        if env::var_os("EVENKEEL_SHOW").is_some() {
            let (name, code) = (page.name(), ended.code);
            println!("--- {name}:{line} ({code:?})\n{text}\n{}", ended.printed);
        }
        ensure!(
            ended.code == Some(expected),
            "line {line} ended with {:?} instead of {expected}:\n{text}\n{}",
            ended.code,
            ended.printed
        );
        printed = ended.printed;
    }
    Ok(())
}

/// What the controller says.
fn status(place: &Place<'_>) -> Result<Value> {
    let asked = place.run("balancer", "evenkeel status --json", &[])?;
    serde_json::from_str(&asked.printed).with_context(|| asked.printed.clone())
}

/// Waits until the alert of a situation is on.
fn await_alert(place: &Place<'_>, name: &str, service: Option<&str>) -> Result<()> {
    wait::until(format_args!("alert {name}"), PATIENCE, || {
        let status = status(place)?;
        let mut alerts = status["alerts"].as_array().context("no alerts")?.iter();
        let on = alerts.any(|alert| alert["name"] == name && alert["service"].as_str() == service);
        ensure!(on, "{:#}", status["alerts"]);
        Ok(())
    })
}

/// Whoever follows a page to its end leaves nothing behind.
fn is_undone(place: &Place<'_>) -> Result<()> {
    let status = status(place)?;
    for service in status["services"].as_array().context("no services")? {
        for backend in service["backends"].as_array().context("no backends")? {
            let left = &backend["override"];
            ensure!(left.is_null(), "an override is left: {left:#}");
        }
    }
    Ok(())
}

/// Follows a page where a controller runs.
fn follow_in_trouble(place: &Place<'_>, page: &Page, config: &str) -> Result<()> {
    let with = page.notes.get("with").map_or("web", String::as_str);
    let named = if with == "rejected" || with == "undelivered" {
        "web"
    } else {
        with
    };
    let Some(trouble) = TROUBLES.iter().find(|trouble| trouble.name == named) else {
        bail!("there is no situation '{with}'");
    };
    match (with, trouble.alert) {
        ("rejected", _) => {
            place.write(
                "evenkeel.toml",
                &config.replacen("[[services]]", "[[service]]", 1),
            )?;
            await_alert(place, "ConfigRejected", None)?;
        }
        ("undelivered", _) => await_alert(place, "DeliveryFailing", None)?,
        (_, Some(alert)) => await_alert(place, alert, Some(trouble.name))?,
        (_, None) => {}
    }
    let variables = [("SERVICE", trouble.name), ("BACKEND", trouble.backend)];
    let followed = follow(place, page, &variables).and_then(|()| is_undone(place));
    if with == "rejected" {
        place.write("evenkeel.toml", config)?;
    }
    followed
}

#[test]
fn every_command_of_runbooks_and_guides_does_what_the_page_says() {
    let bed = bed();
    let mut servers = Web::start_all(&bed).unwrap();
    let place = Place::settle(&bed).unwrap();
    let only = env::var("EVENKEEL_PAGE").ok();
    let mut all = run_pages();
    all.retain(|page| only.as_ref().is_none_or(|only| page.name() == only));
    let mut wrong = String::new();
    let mut report = |page: &Page, followed: Result<()>| {
        if let Err(error) = followed {
            writeln!(wrong, "{}: {error:#}", page.path.display()).unwrap();
        }
    };

    // Those that begin with nothing end with nothing.
    let config = config(&bed);
    let begins = |page: &Page| page.notes.get("with").is_some_and(|with| with == "nothing");
    for page in all.iter().filter(|page| begins(page)) {
        report(page, follow(&place, page, &[]));
    }

    place.write("evenkeel.toml", &config).unwrap();
    for server in &mut servers[3..] {
        server.kill();
    }
    let mut controller = place.start().unwrap();
    let sources = bed.more_clients(30).unwrap();
    let load = |number, rate, sources: &[IpAddr]| {
        let load = Load {
            rate,
            sources: sources.to_vec(),
            records: false,
            ..Load::new(vip(number), LONG)
        };
        Traffic::start(&bed, load).unwrap()
    };
    // Two in three connections of the skewed service are one client's.
    let _traffic = [
        load(10, 60, &sources),
        load(50, 70, &sources[..1]),
        load(50, 30, &sources[1..]),
    ];
    // What takes longest to be found comes last.
    let late = |page: &&Page| page.notes.get("with").is_some_and(|with| with == "skew");
    let (late, soon): (Vec<_>, Vec<_>) = all.iter().filter(|page| !begins(page)).partition(late);
    for page in soon.into_iter().chain(late) {
        report(page, follow_in_trouble(&place, page, &config));
    }
    assert!(wrong.is_empty(), "{wrong}");
    controller.check_running().unwrap();
}

#[test]
fn every_alert_has_a_runbook_with_commands_and_the_index_names_all() {
    let runbooks = workspace().join("docs/runbooks");
    let mut expected: BTreeSet<String> = AlertName::ALL
        .iter()
        .map(|name| name.word().to_lowercase())
        .collect();
    // Alerts of Prometheus alone.
    let alone = [
        "certificateexpires",
        "deliverybudgetburns",
        "fairnessbudgetburns",
        "responsebudgetburns",
        "trackingfull",
    ];
    expected.extend(alone.map(ToOwned::to_owned));
    let index = Page::read(&runbooks.join("README.md"));
    let linked: BTreeSet<String> = index
        .links()
        .iter()
        .filter(|(path, _)| path.parent() == Some(&runbooks))
        .map(|(path, _)| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let there: BTreeSet<String> = page::below(&runbooks)
        .iter()
        .map(|path| Page::read(path).name().to_owned())
        .filter(|name| name != "README")
        .collect();
    assert_eq!(there, expected);
    assert_eq!(linked, expected);
    for page in run_pages().iter().filter(|page| page.name() != "README") {
        let commands = page.blocks.iter().filter(|block| block.language == "sh");
        assert!(commands.count() > 0, "{}: no command", page.path.display());
        if !page.path.starts_with(&runbooks) {
            continue;
        }
        for heading in ["For users", "Confirm", "Do", "Undo", "Over", "Other alerts"] {
            let heading = format!("\n## {heading}\n");
            assert!(
                page.prose.contains(&heading),
                "{}: no{heading}",
                page.path.display()
            );
        }
    }
}

/// What is wrong with where a page's links lead.
fn dead_links(path: &Path) -> Vec<String> {
    let page = Page::read(path);
    let dead = page
        .links()
        .into_iter()
        .filter(|(target, anchor)| match anchor {
            Some(anchor) if target.extension().is_some_and(|end| end == "md") => {
                !target.exists() || !Page::read(target).anchors().contains(anchor)
            }
            _ => !target.exists(),
        });
    dead.map(|(target, anchor)| {
        let (page, target) = (path.display(), target.display());
        format!("{page}: {target} {}", anchor.unwrap_or_default())
    })
    .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let root = workspace();
    let mut paths = page::below(&root.join("docs"));
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "md") {
            paths.push(path);
        }
    }
    let dead: Vec<String> = paths.iter().flat_map(|path| dead_links(path)).collect();
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}
