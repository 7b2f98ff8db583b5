//! `evenkeel audit`: what is wrong, or will go wrong, with what is configured and running.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::{
    ADMIN_SOCKET, Answer,
    output::{self, plain},
};
use crate::{
    admin::{
        client::{Client, ClientError},
        proto::Status,
    },
    audit::{self, Finding, Level},
    causes::with_causes,
    config,
    doctor::{
        facts::Plan,
        gather::{self, Depth},
        rules,
    },
    model::Config,
};

/// Hold the configuration and the running system against what outages have taught
///
/// Asks the controller what it runs by, reads that file again, looks at the tables, the weights,
/// the checks and the host, and says for everything that is wrong why it matters and what to do.
/// Changes nothing.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel audit
  sudo evenkeel audit --file ./next.toml      would this be better, or worse?
  evenkeel audit --offline --file ./next.toml
  ssh lb2 sudo evenkeel status --json | sudo evenkeel audit --beside -
  sudo evenkeel audit --json | jq -r '.[] | select(.level == \"critical\").what'

Levels:
  info      worth knowing
  warning   it will hurt some day
  error     it hurts when anything goes wrong
  critical  it hurts now

With --json, the findings are printed as a list of {rule, level, service, backend, what, why,
remedy}, the worst first. 'evenkeel check' shows what needs no running system, too.

Exit codes:
  0  nothing as bad as --fail-on
  1  something is; the findings are on standard output
  2  the controller or the file cannot be read, or wrong usage")]
pub(super) struct Arguments {
    /// A configuration to audit instead of the one that the controller runs by
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Ask neither a controller nor the host: only what the file says
    #[arg(long, requires = "file")]
    offline: bool,
    /// What 'evenkeel status --json' says on another node of the same VIPs: does it agree? ('-'
    /// reads it from standard input; may be given again)
    #[arg(long, value_name = "FILE", conflicts_with = "offline")]
    beside: Vec<PathBuf>,
    /// The controller's admin socket
    #[arg(long, value_name = "PATH", env = "EVENKEEL_SOCKET", default_value = ADMIN_SOCKET)]
    socket: PathBuf,
    /// The least level that ends with exit code 1
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = Bound::Error)]
    fail_on: Bound,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// A level, for the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Bound {
    Info,
    Warning,
    Error,
    Critical,
}

impl Bound {
    const fn level(self) -> Level {
        match self {
            Self::Info => Level::Info,
            Self::Warning => Level::Warning,
            Self::Error => Level::Error,
            Self::Critical => Level::Critical,
        }
    }
}

/// Audits, and says what it found.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let mut findings = runtime.block_on(look(arguments))?;
    sort(&mut findings);
    let text = if arguments.json {
        serde_json::to_string_pretty(&findings)? + "\n"
    } else {
        render(&findings)
    };
    output::print(&text)?;
    let bad = audit::worst(&findings).is_some_and(|worst| worst >= arguments.fail_on.level());
    Ok(if bad { Answer::No } else { Answer::Yes })
}

async fn look(arguments: &Arguments) -> anyhow::Result<Vec<Finding>> {
    if let (true, Some(file)) = (arguments.offline, &arguments.file) {
        return Ok(audit::config::judge(&config::load(file)?, &[]));
    }
    let status = match Client::new(&arguments.socket).status().await {
        Ok(status) => Some(status),
        // A file can be audited before anything runs.
        Err(ClientError::NoController { .. }) if arguments.file.is_some() => {
            output::complain("no controller runs: what only it knows is left out");
            None
        }
        Err(e) => return Err(e.into()),
    };
    let file = match (&arguments.file, &status) {
        (Some(file), _) => file.clone(),
        (None, Some(status)) => PathBuf::from(&status.config_file),
        (None, None) => unreachable!("without a file, there is a status"),
    };
    let (config, digest) = config::load_with_digest(&file)?;
    let local = gather::addresses().context("cannot read the addresses of this host")?;
    let mut findings = audit::config::judge(&config, &local);
    if let Some(status) = &status {
        // One that shall follow is meant to be another.
        let own = arguments.file.is_none().then_some(digest.as_str());
        findings.extend(audit::running::judge(&config, own, status));
        for beside in &arguments.beside {
            let (other, name) = other_node(beside)?;
            findings.extend(audit::nodes::judge(status, &other, &name));
        }
    }
    findings.extend(host(&config).await);
    Ok(findings)
}

/// The status of another node, with what it is called.
fn other_node(file: &Path) -> anyhow::Result<(Status, String)> {
    let (text, name) = if file == Path::new("-") {
        let text = io::read_to_string(io::stdin()).context("cannot read standard input")?;
        (text, "the other node".to_owned())
    } else {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        (text, file.display().to_string())
    };
    let status = serde_json::from_str(&text).with_context(|| {
        format!("{name}: this is not what 'evenkeel status --json' prints; take it there")
    })?;
    Ok((status, name))
}

/// What a look at the host's interfaces finds; said where it cannot look.
async fn host(config: &Config) -> Vec<Finding> {
    let plan = Plan::of(config);
    let names = plan.interfaces.clone();
    match gather::facts(plan, &names, Depth::Ways).await {
        Ok(facts) => audit::running::host(&rules::judge(&facts)),
        Err(e) => {
            output::complain(&format!("the host was not looked at: {}", with_causes(&e)));
            Vec::new()
        }
    }
}

/// The worst first; those that are equally bad by service and rule.
pub(super) fn sort(findings: &mut [Finding]) {
    findings.sort_by(|a, b| {
        let of = |finding: &Finding| (finding.service.clone(), finding.backend.clone());
        b.level.cmp(&a.level).then_with(|| of(a).cmp(&of(b)))
    });
}

/// The findings for people: the worst first, each with why and what to do.
pub(super) fn render(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing found\n".to_owned();
    }
    let mut text = String::new();
    for finding in findings {
        let place = plain(&finding.place());
        let colon = if place.is_empty() { "" } else { ": " };
        let (level, rule) = (finding.level.name(), finding.rule);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{level:8}  {rule:3}  {place}{colon}{}",
            plain(&finding.what)
        );
        let _ = writeln!(text, "               {}", finding.why);
        let _ = writeln!(text, "               → {}", plain(&finding.remedy));
    }
    let count = |level| {
        findings
            .iter()
            .filter(|finding| finding.level == level)
            .count()
    };
    let counts: Vec<String> = [Level::Critical, Level::Error, Level::Warning, Level::Info]
        .into_iter()
        .filter(|&level| count(level) > 0)
        .map(|level| format!("{} {}", count(level), level.name()))
        .collect();
    let _ = writeln!(text, "\n{}", counts.join(", "));
    text
}
