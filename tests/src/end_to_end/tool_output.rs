//! What the tools that make the traffic say about it.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// A script for wrk that prints what [`Requests::parse`] reads.
pub const WRK_SCRIPT: &str = include_str!("wrk.lua");

/// What came of a flood of requests.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requests {
    /// How long it took.
    pub seconds: f64,
    /// Requests answered.
    pub requests: u64,
    /// Connections that were not made, failed, timed out, or answers that were not good.
    pub errors: u64,
    /// The median time from a request to the end of its answer, in microseconds.
    pub p50_us: f64,
    /// The 90th percentile.
    pub p90_us: f64,
    /// The 99th percentile.
    pub p99_us: f64,
}

impl Requests {
    /// Reads what wrk printed with [`WRK_SCRIPT`]; its own report is around it.
    ///
    /// # Errors
    ///
    /// Where there is no such line, or no request was answered.
    pub fn parse(output: &str) -> Result<Self> {
        let line = output.lines().find(|line| line.starts_with('{'));
        let line = line.with_context(|| format!("wrk told no figures:\n{output}"))?;
        let told: Self = serde_json::from_str(line)
            .with_context(|| format!("wrk's script told something else: {line}"))?;
        ensure!(told.requests > 0, "wrk got no answer: {line}");
        Ok(told)
    }
}

/// What came of a transfer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transfer {
    /// How long it took.
    pub seconds: f64,
    /// What arrived.
    pub bytes: f64,
}

impl Transfer {
    /// Reads what `iperf3 --json` printed.
    ///
    /// # Errors
    ///
    /// Where it tells an error or nothing arrived.
    pub fn parse(output: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Told {
            error: Option<String>,
            end: Option<End>,
        }
        #[derive(Deserialize)]
        struct End {
            sum_received: Option<Sum>,
        }
        #[derive(Deserialize)]
        struct Sum {
            seconds: f64,
            bytes: f64,
        }
        let told: Told = serde_json::from_str(output)
            .with_context(|| format!("iperf3 printed no JSON: {output}"))?;
        if let Some(error) = told.error {
            anyhow::bail!("iperf3: {error}");
        }
        let sum = told.end.and_then(|end| end.sum_received);
        let Sum { seconds, bytes } = sum.context("iperf3 told no sum of what arrived")?;
        ensure!(bytes > 0.0 && seconds > 0.0, "iperf3 moved nothing");
        Ok(Self { seconds, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_within_wrks_own_report() {
        let output = "Running 1s test @ http://10.0.0.1/\n  Requests/sec:   1000.00\n\
            {\"seconds\":1.5,\"requests\":3000,\"errors\":2,\"p50_us\":90,\"p90_us\":200,\"p99_us\":1700.5}\n";
        let told = Requests::parse(output).unwrap();
        assert_eq!((told.requests, told.errors), (3000, 2));
        assert!((told.p99_us - 1700.5).abs() < 1e-9, "{told:?}");
    }

    #[test]
    fn silence_and_no_answers_are_errors() {
        for (output, complaint) in [
            ("Running 1s test\n", "wrk told no figures"),
            ("{\"seconds\":1}\n", "wrk's script told something else"),
            (
                "{\"seconds\":1,\"requests\":0,\"errors\":9,\"p50_us\":0,\"p90_us\":0,\"p99_us\":0}",
                "wrk got no answer",
            ),
        ] {
            let error = Requests::parse(output).unwrap_err().to_string();
            assert!(error.starts_with(complaint), "{error}");
        }
    }

    #[test]
    fn a_transfer_is_what_arrived() {
        let output = r#"{"start":{},"end":{"sum_sent":{"seconds":2,"bytes":9e9},
            "sum_received":{"start":0,"seconds":2.5,"bytes":8000000000,"bits_per_second":1}}}"#;
        let told = Transfer::parse(output).unwrap();
        assert_eq!(
            told,
            Transfer {
                seconds: 2.5,
                bytes: 8e9
            }
        );
        let output = r#"{"start":{},"end":{},"error":"unable to connect to server"}"#;
        let error = Transfer::parse(output).unwrap_err().to_string();
        assert_eq!(error, "iperf3: unable to connect to server");
    }
}
