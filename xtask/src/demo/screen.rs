//! The live view of the demonstration.

use std::{
    fmt::Write as _,
    io::{IsTerminal, Write as _, stdout},
};

use evenkeel_tests::traffic::Report;
use serde_json::Value;

/// The width of a full bar, in characters.
const BAR: f64 = 30.0;

/// A table that is drawn over itself on a terminal, and a line at a time elsewhere.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: bool,
    /// Lines of the table that the next one is drawn over.
    drawn: usize,
}

impl Screen {
    /// The process's standard output.
    pub(crate) fn new() -> Self {
        Self {
            terminal: stdout().is_terminal(),
            drawn: 0,
        }
    }

    /// Prints a line that stays.
    pub(crate) fn say(&mut self, line: &str) {
        // What was drawn so far stays too.
        self.drawn = 0;
        println!("{line}");
    }

    /// Shows the service's state and the client's view of it.
    pub(crate) fn show(&mut self, title: &str, service: &Value, report: &Report) {
        if !self.terminal {
            println!("{}", line(service, report));
            return;
        }
        let table = table(title, service, report);
        if self.drawn > 0 {
            // Back to the first line of the table, and clear from there.
            print!("\x1b[{}A\x1b[J", self.drawn);
        }
        print!("{table}");
        // Without a flush the table may lag; a closed terminal ends the process by its signal.
        let _ = stdout().flush();
        self.drawn = table.lines().count();
    }
}

/// The whole state.
fn table(title: &str, service: &Value, report: &Report) -> String {
    let [name, address, health, intended, observed] =
        ["backend", "address", "health", "intended", "observed"];
    let mut text =
        format!("\n{title}\n\n{name:8} {address:16} {health:9} {intended:>8} {observed:>8}\n");
    for backend in service["backends"].as_array().into_iter().flatten() {
        let observed = backend["observed_share"].as_f64();
        let bar = "#".repeat((observed.unwrap_or(0.0) * BAR).round() as usize);
        let row = format!(
            "{:8} {:16} {:9} {:>8} {:>8} {bar}",
            word(&backend["name"]),
            word(&backend["address"]),
            word(&backend["health"]),
            percent(backend["intended_share"].as_f64()),
            percent(observed),
        );
        writeln!(text, "{}", row.trim_end()).expect("writing to a string cannot fail");
    }
    let evenness = &service["evenness"];
    let (verdict, message) = (word(&evenness["verdict"]), word(&evenness["message"]));
    text + &format!(
        "\nverdict: {verdict}: {message}\nclient:  {}\n",
        client(report)
    )
}

/// The state in a line.
fn line(service: &Value, report: &Report) -> String {
    let backends = service["backends"].as_array().into_iter().flatten();
    let backends: Vec<_> = backends
        .map(|backend| {
            let (name, health) = (word(&backend["name"]), word(&backend["health"]));
            let observed = percent(backend["observed_share"].as_f64());
            let intended = percent(backend["intended_share"].as_f64());
            format!("{name} {health} {observed} of {intended}")
        })
        .collect();
    let verdict = word(&service["evenness"]["verdict"]);
    format!("{} | {verdict} | {}", backends.join(", "), client(report))
}

/// The client's totals.
fn client(report: &Report) -> String {
    let (new, kept) = (&report.new, &report.kept);
    format!(
        "new connections {} ok, {} failed; long-lived {} ok, {} failed",
        new.ok, new.failed, kept.ok, kept.failed
    )
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

#[cfg(test)]
mod tests {
    use evenkeel_tests::traffic::Tally;
    use serde_json::json;

    use super::*;

    fn service() -> Value {
        json!({
            "backends": [
                { "name": "b1", "address": "10.10.0.11", "health": "up",
                  "intended_share": 1.0, "observed_share": 0.5 },
                { "name": "b2", "address": "10.10.0.12", "health": "down",
                  "intended_share": 0.0, "observed_share": null },
            ],
            "evenness": { "verdict": "even", "message": "within chance" },
        })
    }

    fn report() -> Report {
        let new = Tally {
            ok: 90,
            failed: 2,
            ..Tally::default()
        };
        Report {
            new,
            ..Report::default()
        }
    }

    #[test]
    fn the_table_shows_shares_health_verdict_and_client() {
        let expected = "
steady

backend  address          health    intended observed
b1       10.10.0.11       up         100.0 %   50.0 % ###############
b2       10.10.0.12       down         0.0 %        -

verdict: even: within chance
client:  new connections 90 ok, 2 failed; long-lived 0 ok, 0 failed
";
        assert_eq!(table("steady", &service(), &report()), expected);
    }

    #[test]
    fn a_line_says_the_same_in_short() {
        assert_eq!(
            line(&service(), &report()),
            "b1 up 50.0 % of 100.0 %, b2 down - of 0.0 % | even | \
             new connections 90 ok, 2 failed; long-lived 0 ok, 0 failed"
        );
    }
}
