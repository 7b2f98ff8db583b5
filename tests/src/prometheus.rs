//! Prometheus, on the balancer's loopback.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    process::Process,
    tools::{tool, workspace},
    topology::Topology,
    wait,
};

/// How long it may take to start, on an emulated machine that shares its processor.
const PATIENCE: Duration = Duration::from_mins(1);
const URL: &str = "http://127.0.0.1:9090";

/// Prometheus, which scrapes a controller each second by the packaged rules.
#[derive(Debug)]
pub struct Prometheus<'bed> {
    bed: &'bed Topology,
    process: Process,
}

impl<'bed> Prometheus<'bed> {
    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    ///
    /// Where it is not installed, or does not start.
    pub fn start(bed: &'bed Topology) -> Result<Self> {
        let rules = workspace().join("packaging/prometheus/evenkeel.rules.yml");
        let mut config = String::from(
            "global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }\n\
             scrape_configs:\n  - job_name: evenkeel\n    static_configs: [{ targets: \
             [\"127.0.0.1:9660\"] }]\n",
        );
        writeln!(config, "rule_files: [{}]", rules.display())?;
        let config = bed.dir().write("prometheus.yml", &config)?;
        let mut command = bed.balancer.command_at(&tool("prometheus")?);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                bed.dir().path().join("prometheus").display()
            ))
            .arg("--web.listen-address=127.0.0.1:9090");
        let log = bed.dir().path().join("prometheus.log");
        let process = Process::start_logged("Prometheus", &mut command, &log)?;
        let mut prometheus = Self { bed, process };
        wait::until("Prometheus to answer", PATIENCE, || {
            prometheus.process.check_running()?;
            prometheus.get("/-/ready", &[])
        })?;
        Ok(prometheus)
    }

    /// The value that an expression has now; it must have one.
    ///
    /// # Errors
    ///
    /// Where Prometheus does not answer, or answers with none or several.
    pub fn value(&self, expression: &str) -> Result<f64> {
        let found = self.query(expression)?;
        ensure!(found.len() == 1, "{expression} is {found:?}");
        Ok(found[0].1)
    }

    /// The values that an expression has now, with their labels.
    ///
    /// # Errors
    ///
    /// Where Prometheus does not answer, or does not understand.
    pub fn query(&self, expression: &str) -> Result<Vec<(Value, f64)>> {
        let answer = self.get("/api/v1/query", &[&format!("query={expression}")])?;
        let found: Value = serde_json::from_str(&answer)?;
        let result = found["data"]["result"].as_array();
        let one = |row: &Value| {
            let value = row["value"][1].as_str().context("no value")?;
            Ok((row["metric"].clone(), value.parse()?))
        };
        result.context("no result")?.iter().map(one).collect()
    }

    /// The alerts that are pending or firing, by name and service.
    ///
    /// # Errors
    ///
    /// Where Prometheus does not answer.
    pub fn alerts(&self) -> Result<Vec<String>> {
        let answer: Value = serde_json::from_str(&self.get("/api/v1/alerts", &[])?)?;
        let alerts = answer["data"]["alerts"].as_array().context("no alerts")?;
        let name = |alert: &Value| {
            let labels = &alert["labels"];
            let word = |key: &str| labels[key].as_str().unwrap_or_default().to_owned();
            format!("{} {}", word("alertname"), word("service"))
        };
        let mut names: Vec<String> = alerts.iter().map(name).collect();
        names.sort();
        Ok(names)
    }

    fn get(&self, path: &str, parameters: &[&str]) -> Result<String> {
        let url = format!("{URL}{path}");
        let mut arguments = vec!["-sS", "--fail-with-body", "-m", "5", "-G", &url];
        for parameter in parameters {
            arguments.extend(["--data-urlencode", parameter]);
        }
        self.bed.balancer.run("curl", &arguments)
    }
}
