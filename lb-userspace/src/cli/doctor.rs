//! `evenkeel doctor`: is this host fit for the data plane?

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Args;

use super::{
    Answer, CONFIG_FILE,
    output::{self, plain},
};
use crate::{
    config,
    doctor::{
        facts::Plan,
        finding::{Finding, Level},
        gather::{self, Depth},
        rules,
    },
    model::XdpMode,
};

/// Where a configuration pins, unless it says another place.
const PINS: &str = "/sys/fs/bpf/evenkeel";

/// Say what stands in the way of the data plane, on this host and its interfaces
///
/// Looks at the kernel, at each interface (driver, offloads, queues, MTU, who is attached already)
/// and at the ways to the backends, says why what it finds matters, and what to do. Changes
/// nothing. 'evenkeel run' looks too before it attaches: it refuses where there is an error, and
/// logs the warnings.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel doctor
  sudo evenkeel doctor eth0
  sudo evenkeel doctor --config ./evenkeel.toml --json | jq -r '.[] | select(.command).command'
  sudo evenkeel doctor --json | jq -e 'all(.level != \"error\")' >/dev/null && echo 'can attach'

Without an interface, those of the configuration are looked at. With one, a configuration is not
needed: where there is none, native mode and no services are assumed.

Levels:
  ok       as it should be
  info     worth knowing
  warning  the program runs, and some packets will suffer
  error    the program will not be attached, or could not read a packet

With --json, the findings are printed as a list of {level, rule, where, what, why, remedy, command}.
Those that are ok have no remedy; command is null where no single command is the remedy.

Exit codes:
  0  nothing worse than info
  1  a warning or an error; the findings are on standard output
  2  it could not look, or wrong usage")]
pub(super) struct Arguments {
    /// The interfaces to look at, instead of those of the configuration
    #[arg(value_name = "INTERFACE")]
    interfaces: Vec<String>,
    /// The configuration [default: /etc/evenkeel/evenkeel.toml, where it is needed or exists]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// Looks, and says what it found.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let plan = plan(arguments)?;
    let names = if arguments.interfaces.is_empty() {
        plan.interfaces.clone()
    } else {
        arguments.interfaces.clone()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let facts = runtime.block_on(gather::facts(plan, &names, Depth::Ways))?;
    let findings = rules::judge(&facts);
    let text = if arguments.json {
        serde_json::to_string_pretty(&findings)? + "\n"
    } else {
        render(&findings)
    };
    output::print(&text)?;
    let bad = findings.iter().any(|f| f.level >= Level::Warning);
    Ok(if bad { Answer::No } else { Answer::Yes })
}

fn plan(arguments: &Arguments) -> anyhow::Result<Plan> {
    let file = match &arguments.config {
        Some(file) => file.as_path(),
        None if Path::new(CONFIG_FILE).exists() => Path::new(CONFIG_FILE),
        None if arguments.interfaces.is_empty() => bail!(
            "{CONFIG_FILE} does not exist: name an interface, or a configuration with --config"
        ),
        None => {
            return Ok(Plan {
                mode: XdpMode::Native,
                pins: PINS.into(),
                interfaces: arguments.interfaces.clone(),
                ways: Vec::new(),
            });
        }
    };
    Ok(Plan::of(&config::load(file)?))
}

/// The findings for people: by place, what is ok in one line, the rest with why and what to do.
fn render(findings: &[Finding]) -> String {
    // Writing to a string cannot fail.
    let mut text = String::new();
    let mut place = "";
    for finding in findings {
        if finding.place != place {
            place = &finding.place;
            let gap = if text.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}{}", plain(place));
        }
        let _ = writeln!(
            text,
            "  {:7}  {}",
            finding.level.name(),
            plain(&finding.what)
        );
        for (label, words) in [
            ("why", finding.why.as_str()),
            ("do", finding.remedy.as_str()),
            ("run", finding.command.as_deref().unwrap_or_default()),
        ] {
            if !words.is_empty() {
                let _ = writeln!(text, "           {label:>3}: {}", plain(words));
            }
        }
    }
    let count = |level| findings.iter().filter(|f| f.level == level).count();
    let number = |count, one: &str, many: &str| match count {
        0 => format!("no {many}"),
        1 => format!("1 {one}"),
        _ => format!("{count} {many}"),
    };
    text + &format!(
        "\n{}, {}\n",
        number(count(Level::Error), "error", "errors"),
        number(count(Level::Warning), "warning", "warnings")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Remedy;

    #[test]
    fn findings_read_by_place_with_why_and_what_to_do() {
        let findings = [
            Finding::ok("kernel", "host", "kernel 6.1.0"),
            Finding::new(
                Level::Warning,
                "lro",
                "eth0",
                "large receive offload is on",
                "it merges packets",
                Remedy::command("switch it off", ["ethtool", "-K", "eth0", "lro", "off"]),
            ),
            Finding::new(
                Level::Info,
                "native",
                "eth0",
                "a\u{1b}[31mb",
                "",
                Remedy::default(),
            ),
        ];
        assert_eq!(
            render(&findings),
            "\
host
  ok       kernel 6.1.0

eth0
  warning  large receive offload is on
           why: it merges packets
            do: switch it off
           run: ethtool -K eth0 lro off
  info     a\\u{1b}[31mb

no errors, 1 warning
"
        );
    }
}
