//! The page in a browser: what it says, that it follows what happens, in both schemes and on a narrow
//! screen; and history, which it draws.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{env, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use evenkeel_tests::{
    browser::{Browser, Scheme},
    daemon::Daemon,
    server::Web,
    topology::{Spec, Topology, VIP4},
    traffic::{Load, Traffic},
    wait,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_mins(1);
const PAGE: &str = "http://127.0.0.1:9660/";

/// What assistive technology goes by, and is missing.
const UNNAMED: &str = r#"
const wrong = [];
for (const one of ["header", "nav[aria-label]", "main h1", "footer", "html[lang]", "a.skip", "[role=status]"]) {
  if (!document.querySelector(one)) wrong.push(one);
}
for (const svg of document.querySelectorAll("svg")) {
  const named = svg.getAttribute("role") === "img" && svg.getAttribute("aria-label");
  if (!named && !svg.getAttribute("aria-hidden")) wrong.push(svg.outerHTML.slice(0, 80));
}
for (const table of document.querySelectorAll("table")) {
  if (!table.caption?.textContent || !table.querySelector("th[scope=col]")) wrong.push("a table");
}
for (const select of document.querySelectorAll("select")) {
  if (!select.labels.length) wrong.push("a choice");
}
const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
if (new Set(ids).size !== ids.length) wrong.push("an id twice");
return wrong;
"#;

/// Waits until the page says something.
fn says(browser: &Browser<'_>, words: &[&str]) {
    wait::until(format!("the page to say {words:?}"), 2 * PATIENCE, || {
        let text = browser.text()?;
        for word in words {
            ensure!(text.contains(word), "no {word:?}: {text}");
        }
        Ok(())
    })
    .unwrap();
}

/// The row of a backend in the page's table.
fn row(browser: &Browser<'_>, backend: &str) -> Result<String> {
    let script = format!(
        "return [...document.querySelectorAll('tbody tr')].find((row) => \
         row.cells[0].textContent === '{backend}')?.innerText"
    );
    let text = browser.run(&script)?;
    Ok(text.as_str().context("it has no row")?.to_owned())
}

/// Pictures for people, where somebody wants them.
fn picture(browser: &Browser<'_>, name: &str) {
    if let Some(folder) = env::var_os("EVENKEEL_PICTURES") {
        browser.picture(&PathBuf::from(folder).join(name)).unwrap();
    }
}

/// Looks at the page in both schemes, and on a narrow screen.
fn examine(browser: &Browser<'_>, name: &str) {
    let mut grounds = Vec::new();
    for (scheme, word) in [(Scheme::Light, "light"), (Scheme::Dark, "dark")] {
        browser.look(1200, 1000, scheme).unwrap();
        let ground = "return getComputedStyle(document.body).backgroundColor";
        grounds.push(browser.run(ground).unwrap());
        let (least, whose) = browser.least_contrast().unwrap();
        assert!(
            (4.5..21.1).contains(&least),
            "{name}, {word}: {least} of {whose}"
        );
        picture(browser, &format!("{name}-{word}.png"));
    }
    assert_ne!(grounds[0], grounds[1]);
    assert_eq!(browser.run(UNNAMED).unwrap(), Value::Array(Vec::new()));
    browser.look(360, 800, Scheme::Light).unwrap();
    let beyond = "return document.documentElement.scrollWidth - innerWidth";
    let beyond = browser.run(beyond).unwrap();
    assert!(beyond.as_i64().unwrap() <= 0, "{name}: {beyond} pixels");
    picture(browser, &format!("{name}-narrow.png"));
    browser.look(1200, 1000, Scheme::Light).unwrap();
}

/// Each connection is in history, which is read without a controller as well.
fn assert_remembered(daemon: &Daemon<'_>, sent: u64) {
    let said = daemon
        .ask(&["history", "web", "--step", "1s", "--json"])
        .unwrap();
    assert!(said.status.success(), "{said:?}");
    let history: Value = serde_json::from_slice(&said.stdout).unwrap();
    let backends = history["backends"].as_array().unwrap();
    let flows = backends
        .iter()
        .flat_map(|one| one["new_flows"].as_array().unwrap());
    let flows: u64 = flows.filter_map(Value::as_u64).sum();
    assert_eq!(flows, sent);
    let down = backends[1]["up"].as_array().unwrap();
    assert!(
        down.contains(&false.into()) && down.contains(&true.into()),
        "{down:?}"
    );
    let text = daemon.ask(&["history", "web"]).unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("NEW FLOWS") && text.contains("b3"), "{text}");
    let nobody = daemon.ask(&["history", "nobody"]).unwrap();
    assert_eq!(nobody.status.code(), Some(1), "{nobody:?}");
    let why = String::from_utf8(nobody.stderr).unwrap();
    assert!(why.contains("there is history of: web"), "{why}");
}

#[test]
fn the_page_shows_what_happens_as_it_happens() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let mut servers = Web::start_all(&bed).unwrap();
    let config = bed.config_head() + &bed.web_service("web", VIP4);
    let mut daemon = Daemon::start(&bed, &config).unwrap();
    let browser = Browser::start(&bed).unwrap();
    // History counts from its first point on, which is there by now.
    let traffic = Traffic::start(&bed, Load::new(VIP4, 5 * PATIENCE)).unwrap();
    browser.look(1200, 1000, Scheme::Light).unwrap();
    browser.open(PAGE).unwrap();
    says(
        &browser,
        &[
            "Services",
            "web",
            "3 of 3",
            "tcp 198.51.100.10:80",
            "Alerts",
        ],
    );
    wait::until("the connections of each second", PATIENCE, || {
        let shown = row(&browser, "web")?;
        let rate = shown.split('\t').nth(3).context("no rate")?;
        let rate: f64 = rate.trim().parse()?;
        ensure!((50.0..150.0).contains(&rate), "{shown}");
        Ok(())
    })
    .unwrap();
    examine(&browser, "overview");

    // Everything that follows is seen without loading the page again.
    browser
        .run("window.mark = 7; document.querySelector('tbody a').click()")
        .unwrap();
    says(&browser, &["Over time", "Ring", "b1", "b2", "b3", "33."]);
    wait::until("history and what is live", PATIENCE, || {
        let lines = "return [...document.querySelectorAll('path.line')].map((p) => p.getAttribute('d').length)";
        let lines = browser.run(lines)?;
        let lines = lines.as_array().context("no lines")?;
        // Five charts of three backends: shares, flows, probes, and two of responses.
        ensure!(lines.len() == 15, "{lines:?}");
        ensure!(lines.iter().all(|d| d.as_u64() > Some(60)), "{lines:?}");
        Ok(())
    })
    .unwrap();
    let slots = "return document.querySelectorAll('figure:last-of-type rect[class^=f]').length";
    assert!(browser.run(slots).unwrap().as_u64() > Some(200));
    let heat = "return document.querySelectorAll('figure:last-of-type rect.heat').length";
    assert_eq!(browser.run(heat).unwrap(), 64);
    if env::var_os("EVENKEEL_PICTURES").is_some() {
        // What people are to see is a verdict.
        says(&browser, &["✓ even"]);
        picture(&browser, "service-even.png");
    }
    servers[1].kill();
    wait::until("the dead backend to be shown", PATIENCE, || {
        let shown = row(&browser, "b2")?;
        ensure!(shown.contains("down") && shown.contains("0.0 %"), "{shown}");
        let text = browser.text()?;
        ensure!(text.contains("web/b2 is down"), "no event: {text}");
        Ok(())
    })
    .unwrap();
    assert_eq!(browser.run("return window.mark").unwrap(), 7);
    examine(&browser, "service");

    // Nothing is asked of anybody else, and nothing failed.
    let elsewhere = "return performance.getEntriesByType('resource').map((one) => one.name)\
                     .filter((name) => !name.startsWith(location.origin))";
    assert_eq!(browser.run(elsewhere).unwrap(), Value::Array(Vec::new()));
    assert_eq!(browser.complaints().unwrap(), Vec::<String>::new());
    // What is inline is nobody's: the policy holds.
    let inline = "const script = document.createElement('script'); \
                  script.textContent = 'window.mark = 8'; document.body.append(script); \
                  return window.mark";
    assert_eq!(browser.run(inline).unwrap(), 7);

    let outcome = traffic.stop().unwrap();
    wait::until("the last second to be counted", PATIENCE, || {
        let status = daemon.status()?;
        let backends = status["services"][0]["backends"]
            .as_array()
            .context("none")?;
        let rates = backends
            .iter()
            .filter_map(|one| one["new_flow_rate"].as_f64());
        let rate: f64 = rates.sum();
        ensure!(rate == 0.0, "{rate} new connections a second");
        Ok(())
    })
    .unwrap();
    daemon.terminate().unwrap();
    says(&browser, &["not live since"]);

    assert_remembered(&daemon, outcome.report.new.sent);
}

/// Pastes a configuration into the page, and asks.
fn paste(browser: &Browser<'_>, text: &str) {
    let script = format!(
        "document.getElementById('toml').value = {}; document.querySelector('main button').click()",
        Value::from(text)
    );
    browser.run(&script).unwrap();
}

#[test]
fn who_brings_the_token_is_told_what_a_configuration_would_change() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let _servers = Web::start_all(&bed).unwrap();
    let token = bed.dir().path().join("token");
    fs::write(&token, "open-sesame").unwrap();
    let http = format!("[http]\ntoken = {{ file = \"{}\" }}\n", token.display());
    let config = bed.config_head() + &http + &bed.web_service("web", VIP4);
    let daemon = Daemon::start(&bed, &config).unwrap();
    let before = daemon.status().unwrap()["generation"].clone();

    // The page of somebody else, and who brings no token.
    let url = &format!("{PAGE}api/plan");
    let code = |header: &[&str]| {
        let fixed = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "10"];
        let data = ["--data-binary", "x = 1", url];
        let arguments = [&fixed[..], header, &data[..]].concat();
        bed.balancer.run("curl", &arguments).unwrap()
    };
    let bearer = ["-H", "Authorization: Bearer open-sesame"];
    let kind = ["-H", "Content-Type: application/toml"];
    assert_eq!(code(&kind), "401");
    assert_eq!(code(&bearer), "415");
    assert_eq!(code(&[bearer, kind].concat()), "422");

    let browser = Browser::start(&bed).unwrap();
    browser.bring("Bearer open-sesame").unwrap();
    browser.open(PAGE).unwrap();
    says(&browser, &["Services", "What if"]);
    browser
        .run("document.querySelector('#tools a').click()")
        .unwrap();
    says(&browser, &["Paste a whole configuration"]);
    paste(
        &browser,
        &config.replace("name = \"b2\"", "name = \"b2\"\nweight = 2"),
    );
    says(
        &browser,
        &["web changes", "1 → 2", "→ 50.0 %", "slots move"],
    );
    examine(&browser, "plan");
    // What is written there stays while the page looks around.
    let length = "return document.getElementById('toml').value.length > 100";
    assert_eq!(browser.run(length).unwrap(), true);
    assert_eq!(browser.complaints().unwrap(), Vec::<String>::new());
    paste(&browser, "[service]");
    says(&browser, &["unknown key 'service'"]);
    paste(&browser, &config);
    says(&browser, &["Nothing would change"]);
    assert_eq!(daemon.status().unwrap()["generation"], before);
}
