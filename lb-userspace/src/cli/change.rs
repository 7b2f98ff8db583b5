//! What a change does, for people.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Context as _;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use super::{
    Answer,
    output::{self, plain},
};
use crate::{
    admin::{
        client::ClientError,
        proto::change::{BackendPlan, Fate, Finding, Plan, Request, ServicePlan},
    },
    causes::with_causes,
    stats::heat::FEW,
};

/// Reads a configuration to ask a controller about.
pub(super) fn request(file: &Path) -> anyhow::Result<Request> {
    let path = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let text = fs::read_to_string(file)
        .with_context(|| format!("cannot read the configuration {}", file.display()))?;
    Ok(Request {
        file: path.display().to_string(),
        text,
        ..Request::default()
    })
}

/// Runs a question to the controller.
pub(super) fn block_on<T>(question: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("set up the client")?;
    Ok(runtime.block_on(question))
}

/// Tells a refusal, as JSON where that is asked for; another error stays one.
pub(super) fn refusal(error: ClientError, json: bool) -> anyhow::Result<Answer> {
    let ClientError::Refused {
        problem, findings, ..
    } = &error
    else {
        return Err(error.into());
    };
    if json {
        let refusal = serde_json::json!({ "error": problem, "findings": findings });
        output::print(&(serde_json::to_string_pretty(&refusal)? + "\n"))?;
    } else {
        // Line by line: what an operator has to read may be long.
        for (n, line) in problem.lines().enumerate() {
            let first = if n == 0 { "refused: " } else { "" };
            output::complain(&format!("{first}{}", plain(line)));
        }
    }
    Ok(Answer::No)
}

/// Prints a value as JSON.
pub(super) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    output::print(&(serde_json::to_string_pretty(value)? + "\n"))?;
    Ok(())
}

/// Says an error of a command that keeps code 2 for something else.
pub(super) fn failed(result: anyhow::Result<Answer>) -> anyhow::Result<Answer> {
    match result {
        Err(error) if !super::is_closed_pipe(&error) => {
            output::complain(&format!("error: {}", with_causes(error.as_ref())));
            Ok(Answer::No)
        }
        other => other,
    }
}

/// A whole plan.
pub(super) fn render(plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for service in &plan.services {
        let _ = writeln!(text, "{}", headline(service));
        text += &table(service);
        text.push('\n');
    }
    if !plan.settings.is_empty() {
        let _ = writeln!(
            text,
            "settings of all services: {}",
            plan.settings.join(", ")
        );
    }
    for name in &plan.assumed {
        let _ = writeln!(text, "{} is not known yet: taken for up", plain(name));
    }
    for fixed in &plan.fixed {
        let _ = writeln!(
            text,
            "REFUSED while the controller runs: {} differs; {}",
            fixed.key, fixed.remedy
        );
    }
    text += &findings(&plan.findings);
    text += &summary(plan);
    text
}

/// One line about a plan.
pub(super) fn summary(plan: &Plan) -> String {
    if !plan.changes {
        return "no change\n".to_owned();
    }
    let count = |fate| plan.services.iter().filter(|s| s.fate == fate).count();
    let tracked = plan.services.iter().filter(|s| s.slots_in_transition > 0);
    let all: u32 = plan
        .services
        .iter()
        .map(|s| s.ring_slots.max(s.ring_slots_before))
        .sum();
    let changed = plan.services.len() - count(Fate::Added) - count(Fate::Removed);
    format!(
        "{} services added, {} removed, {changed} changed, {} as before; {} of {all} slots move; the \
         flows of {} services are tracked\n",
        count(Fate::Added),
        count(Fate::Removed),
        plan.unchanged,
        plan.slots_moved,
        tracked.count()
    )
}

fn headline(service: &ServicePlan) -> String {
    let fate = match service.fate {
        Fate::Added => "added",
        Fate::Removed => "REMOVED",
        Fate::Changed | Fate::Same => "changed",
    };
    let what = if service.what.is_empty() {
        String::new()
    } else {
        format!(" ({})", service.what.join(", "))
    };
    let (before, after) = (service.ring_slots_before, service.ring_slots);
    let size = if before == after || before == 0 || after == 0 {
        before.max(after).to_string()
    } else {
        format!("{before} → {after}")
    };
    let transition = match service.slots_in_transition {
        0 => String::new(),
        slots => format!(", {slots} in transition"),
    };
    format!(
        "{}  {}  {fate}{what}: {} of {size} slots move{transition}",
        plain(&service.name),
        service.key,
        service.slots_moved
    )
}

fn table(service: &ServicePlan) -> String {
    let foreseen = service.backends.iter().any(|of| of.forecast.is_some());
    let mut header = vec!["", "backend", "address", "weight", "share", "slots"];
    if foreseen {
        header.push("would get");
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .force_no_tty()
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    for backend in &service.backends {
        let mut cells = row(backend);
        if foreseen {
            let part = backend.forecast.map_or_else(|| "-".to_owned(), percent);
            cells.push(Cell::new_owned(part).set_alignment(CellAlignment::Right));
        }
        table.add_row(cells);
    }
    for column in table.column_iter_mut() {
        column.set_padding((2, 0));
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    let mut text = lines.join("\n") + "\n";
    if foreseen {
        let from = service.forecast_from;
        let few = if from < FEW as u64 {
            ", which are few"
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "     would get: of the new flows of the last minute, by {from} samples{few}"
        );
    }
    text
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

fn row(backend: &BackendPlan) -> Vec<Cell> {
    let sign = match backend.fate {
        Fate::Added => "+",
        Fate::Removed => "-",
        Fate::Changed => "~",
        Fate::Same => "",
    };
    let weight = |weight: Option<u16>| weight.map_or_else(|| "-".to_owned(), |w| w.to_string());
    let arrow = |before: String, after: String| {
        if before == after {
            after
        } else {
            format!("{before} → {after}")
        }
    };
    let right = |text: String| Cell::new_owned(text).set_alignment(CellAlignment::Right);
    vec![
        Cell::new(sign),
        Cell::new_owned(plain(&backend.name)),
        Cell::new_owned(backend.address.to_string()),
        right(arrow(weight(backend.weight_before), weight(backend.weight))),
        right(arrow(percent(backend.share_before), percent(backend.share))),
        right(arrow(
            backend.slots_before.to_string(),
            backend.slots.to_string(),
        )),
    ]
}

/// What the audit finds, with what refuses the change first.
fn findings(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings.iter().filter(|finding| finding.level != "info") {
        let place = plain(&finding.place());
        let colon = if place.is_empty() { "" } else { ": " };
        let _ = writeln!(
            text,
            "{:8}  {:3}  {place}{colon}{}\n               {}\n               → {}",
            finding.level,
            finding.rule,
            plain(&finding.what),
            finding.why,
            plain(&finding.remedy)
        );
    }
    if findings.iter().any(Finding::is_alarming) {
        text += "the audit refuses this; 'apply --force --reason TEXT' overrules it\n";
    }
    if !text.is_empty() {
        text.insert(0, '\n');
        text.push('\n');
    }
    text
}

/// A time on the command line.
pub(super) fn duration(text: &str) -> Result<std::time::Duration, String> {
    let time = humantime::parse_duration(text)
        .map_err(|e| format!("not a time as in 30s, 5m or 2h: {e}"))?;
    if time.is_zero() {
        return Err("give more than nothing".to_owned());
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(name: &str, fate: Fate, weights: [Option<u16>; 2], slots: [u32; 2]) -> BackendPlan {
        BackendPlan {
            name: name.to_owned(),
            address: "10.0.0.1".parse().unwrap(),
            fate,
            weight_before: weights[0],
            weight: weights[1],
            slots_before: slots[0],
            slots: slots[1],
            share_before: f64::from(slots[0]) / 256.0,
            share: f64::from(slots[1]) / 256.0,
            forecast: None,
        }
    }

    #[test]
    fn a_plan_is_a_table_and_a_line() {
        let plan = Plan {
            changes: true,
            slots_moved: 64,
            settings: vec!["tunnel".to_owned()],
            services: vec![ServicePlan {
                name: "web".to_owned(),
                key: "tcp 198.51.100.10:80".to_owned(),
                fate: Fate::Changed,
                what: vec!["health".to_owned()],
                ring_slots_before: 256,
                ring_slots: 256,
                slots_moved: 64,
                slots_in_transition: 64,
                forecast_from: 0,
                backends: vec![
                    backend("b1", Fate::Changed, [Some(1), Some(3)], [128, 192]),
                    backend("b2", Fate::Removed, [Some(1), None], [128, 0]),
                    backend("b3", Fate::Added, [None, Some(1)], [0, 64]),
                ],
            }],
            unchanged: 2,
            findings: vec![Finding {
                rule: "L8".to_owned(),
                level: "error".to_owned(),
                service: Some("web".to_owned()),
                backend: None,
                what: "one".to_owned(),
                why: "because".to_owned(),
                remedy: "do".to_owned(),
                added: true,
            }],
            assumed: vec!["web/b3".to_owned()],
            ..Plan::default()
        };
        let expected = "\
web  tcp 198.51.100.10:80  changed (health): 64 of 256 slots move, 64 in transition
     backend  address   weight  share              slots
  ~  b1       10.0.0.1   1 → 3  50.00 % → 75.00 %  128 → 192
  -  b2       10.0.0.1   1 → -   50.00 % → 0.00 %    128 → 0
  +  b3       10.0.0.1   - → 1   0.00 % → 25.00 %     0 → 64

settings of all services: tunnel
web/b3 is not known yet: taken for up

error     L8   web: one
               because
               → do
the audit refuses this; 'apply --force --reason TEXT' overrules it

0 services added, 0 removed, 1 changed, 2 as before; 64 of 256 slots move; the flows of 1 services are tracked
";
        let found = render(&plan);
        assert!(found == expected, "{found}");

        let mut service = plan.services[0].clone();
        service.forecast_from = 40;
        service.backends[0].forecast = Some(0.9);
        service.backends[2].forecast = Some(0.1);
        let expected = "\
\x20    backend  address   weight  share              slots      would get
  ~  b1       10.0.0.1   1 → 3  50.00 % → 75.00 %  128 → 192    90.00 %
  -  b2       10.0.0.1   1 → -   50.00 % → 0.00 %    128 → 0          -
  +  b3       10.0.0.1   - → 1   0.00 % → 25.00 %     0 → 64    10.00 %
     would get: of the new flows of the last minute, by 40 samples, which are few
";
        let found = table(&service);
        assert!(found == expected, "{found}");
        assert_eq!(render(&Plan::default()), "no change\n");
    }

    #[test]
    fn times_are_more_than_nothing() {
        assert_eq!(duration("2m"), Ok(std::time::Duration::from_mins(2)));
        assert!(duration("0s").is_err());
        assert!(duration("soon").unwrap_err().contains("30s"));
    }
}
