//! A browser in the balancer's network: headless Chromium, by the `WebDriver` protocol.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    process::Process,
    tools::{self, tool},
    topology::Topology,
    wait,
};

/// How long it may take to start, on an emulated machine that shares its processor.
const PATIENCE: Duration = Duration::from_mins(1);
const URL: &str = "http://127.0.0.1:9515";

/// The least contrast of the texts in view with their ground, by the formula of WCAG 2, and whose it is.
const CONTRAST: &str = r#"
const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
  .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = numbers(getComputedStyle(at).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
let least = [99, "nothing"];
for (const element of document.body.querySelectorAll("*")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || !element.getClientRects().length || element.closest("option")) continue;
  const style = getComputedStyle(element);
  const colour = element.namespaceURI.endsWith("svg") ? style.fill : style.color;
  const [a, b] = [light(numbers(colour)), light(ground(element))].sort((x, y) => y - x);
  const contrast = (a + 0.05) / (b + 0.05);
  if (contrast < least[0]) least = [contrast, element.textContent.slice(0, 40)];
}
return least;
"#;

/// A colour scheme that a user prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Dark text on a light ground.
    Light,
    /// The other way round.
    Dark,
}

/// A running browser with one window; killed on drop.
#[derive(Debug)]
pub struct Browser<'bed> {
    bed: &'bed Topology,
    _process: Process,
    session: String,
}

impl<'bed> Browser<'bed> {
    /// Starts it, and waits until its window is there.
    ///
    /// # Errors
    ///
    /// Where it is not installed, or does not start.
    pub fn start(bed: &'bed Topology) -> Result<Self> {
        let mut driver = bed.balancer.command_at(&tool("chromedriver")?);
        driver.arg("--port=9515");
        let log = bed.dir().path().join("chromedriver.log");
        let mut process = Process::start_logged("chromedriver", &mut driver, &log)?;
        wait::until("chromedriver to answer", PATIENCE, || {
            process.check_running()?;
            bed.balancer
                .run("curl", &["-sS", "-f", "-m", "2", &format!("{URL}/status")])
        })?;
        let mut browser = Self {
            bed,
            _process: process,
            session: String::new(),
        };
        let profile = bed.dir().path().join("chromium");
        let arguments = [
            "--headless=new",
            // Namespaces of its own are not to be had by root within others.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--force-device-scale-factor=1",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "binary": tool("chromium")?, "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        }}});
        let made = browser.post("/session", &wanted)?;
        let session = made["sessionId"].as_str().context("no session")?;
        browser.session = format!("/session/{session}");
        Ok(browser)
    }

    /// Goes to a page, and waits until that is loaded.
    ///
    /// # Errors
    ///
    /// Where it does not answer.
    pub fn open(&self, url: &str) -> Result<()> {
        self.ask("/url", &json!({ "url": url })).map(drop)
    }

    /// Runs a function's body in the page, and answers what that returns.
    ///
    /// # Errors
    ///
    /// Where it throws.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.ask("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// What the page says in text.
    ///
    /// # Errors
    ///
    /// Where there is none.
    pub fn text(&self) -> Result<String> {
        let text = self.run("return document.body.innerText")?;
        Ok(text.as_str().context("no text")?.to_owned())
    }

    /// The least contrast of the texts in view with their ground, by the formula of WCAG 2, and whose it
    /// is.
    ///
    /// # Errors
    ///
    /// Where the script fails.
    pub fn least_contrast(&self) -> Result<(f64, String)> {
        let found = self.run(CONTRAST)?;
        let least = found[0].as_f64().context("no number")?;
        Ok((least, found[1].as_str().unwrap_or_default().to_owned()))
    }

    /// Gives the window's inside a size, in pixels, and the user a scheme.
    ///
    /// # Errors
    ///
    /// Where the browser refuses.
    pub fn look(&self, width: u32, height: u32, scheme: Scheme) -> Result<()> {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", &size)?;
        let value = match scheme {
            Scheme::Light => "light",
            Scheme::Dark => "dark",
        };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.devtools("Emulation.setEmulatedMedia", &media)
    }

    /// Has every request bring this `Authorization` along.
    ///
    /// # Errors
    ///
    /// Where the browser refuses.
    pub fn bring(&self, authorization: &str) -> Result<()> {
        self.devtools("Network.enable", &json!({}))?;
        let headers = json!({ "headers": { "Authorization": authorization } });
        self.devtools("Network.setExtraHTTPHeaders", &headers)
    }

    /// Writes a picture of what is in view, as PNG.
    ///
    /// # Errors
    ///
    /// Where it cannot be taken or written.
    pub fn picture(&self, file: &Path) -> Result<()> {
        let answer = self.bed.balancer.run(
            "curl",
            &[
                "-sS",
                "-m",
                "20",
                &format!("{URL}{}/screenshot", self.session),
            ],
        )?;
        let answer: Value = serde_json::from_str(&answer)?;
        let picture = answer["value"].as_str().context("no picture")?;
        let encoded = file.with_extension("base64");
        fs::write(&encoded, picture)?;
        let mut decode = Command::new(tool("python3")?);
        decode
            .args(["-c", "import base64,sys; open(sys.argv[2],'wb').write(base64.b64decode(open(sys.argv[1]).read()))"])
            .arg(&encoded)
            .arg(file);
        tools::output(&mut decode)?;
        Ok(fs::remove_file(encoded)?)
    }

    /// What the page complained about in the console since that was last asked for: scripts that fail,
    /// what the page's policy forbids, what could not be loaded.
    ///
    /// # Errors
    ///
    /// Where the browser does not answer.
    pub fn complaints(&self) -> Result<Vec<String>> {
        let said = self.ask("/se/log", &json!({ "type": "browser" }))?;
        let said = said.as_array().context("no log")?;
        Ok(said
            .iter()
            .map(|line| line["message"].to_string())
            .collect())
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Result<()> {
        let asked = json!({ "cmd": command, "params": parameters });
        self.ask("/goog/cdp/execute", &asked).map(drop)
    }

    fn ask(&self, path: &str, body: &Value) -> Result<Value> {
        self.post(&format!("{}{path}", self.session), body)
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let (url, body) = (format!("{URL}{path}"), body.to_string());
        let header = "Content-Type: application/json";
        let arguments = [
            "-sS",
            "-m",
            "60",
            "-H",
            header,
            "--data-binary",
            &body,
            &url,
        ];
        let answer = self.bed.balancer.run("curl", &arguments)?;
        let mut answer: Value = serde_json::from_str(&answer).context("no JSON")?;
        let value = answer["value"].take();
        ensure!(value["error"].is_null(), "{path}: {value:#}");
        Ok(value)
    }
}
