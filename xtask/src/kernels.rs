//! `cargo xtask test --kernels`: the tests that matter to a kernel, on kernels other than the
//! machine's own.
//!
//! Each kernel is a Debian package, unpacked and not installed. It runs under emulation, which
//! needs no privilege, with the machine's own file system beneath it, read-only: so the programs
//! and libraries that the tests use are there without being packed.

mod checks;
mod guest;
mod initramfs;
mod packages;
mod series;

use std::{
    fmt::Write as _,
    panic::resume_unwind,
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use evenkeel_tests::{tools, wait};

use self::{
    checks::{Check, Programs},
    guest::{Run, Verdict},
    packages::{Archive, Kernel},
    series::Series,
};
use crate::setup;

/// What became of a kernel.
enum Outcome {
    /// It ran.
    Ran(Run),
    /// Its package cannot be had.
    Unavailable(String),
}

/// A kernel that was asked for, and what became of it.
struct Entry {
    series: Series,
    release: Option<String>,
    outcome: Outcome,
    took: Duration,
}

/// Runs the checks on the kernels named, or on all that are known; of the checks, on those whose
/// names contain one of `filters`, or all.
///
/// # Errors
///
/// Where a check fails, a kernel that was named cannot be had, or none can.
pub(crate) fn run(wanted: &[String], filters: &[String]) -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "kernels are emulated for x86-64 alone, on a machine of that kind"
    );
    let all = wanted.is_empty();
    let wanted = if all {
        series::known()
    } else {
        wanted
            .iter()
            .map(|name| Series::named(name))
            .collect::<Result<_>>()?
    };
    setup::ensure_for(setup::Purpose {
        kernels: true,
        ..setup::Purpose::default()
    })?;
    ensure!(
        tools::find("apt-get").is_some() && tools::find("dpkg-deb").is_some(),
        "the kernels are Debian's packages: this needs apt-get and dpkg-deb"
    );
    let programs = Programs::build()?;
    let archive = Archive::new()?;
    let start = wait::now();
    let mut planned = Vec::new();
    for series in wanted {
        let checks = checks::of(series.promise(), filters);
        if checks.is_empty() {
            eprintln!("Linux {series}: left out, none of its checks is picked");
            continue;
        }
        // One after the other: the package manager works for one at a time.
        let kernel = archive.kernel(&series);
        planned.push((series, checks, kernel));
    }
    let mut entries = Vec::new();
    // A guest keeps about one processor busy: most checks do one thing at a time.
    let at_once = thread::available_parallelism()?.get();
    while !planned.is_empty() {
        let some: Vec<_> = planned.drain(..at_once.min(planned.len())).collect();
        entries.extend(side_by_side(some, &programs));
    }
    ensure!(
        !entries.is_empty(),
        "no check has `{}` in its name",
        filters.join("` or `")
    );
    eprint!("\n{}", table(&entries, start.elapsed()));
    conclude(&entries, all)
}

/// A kernel, its checks, and its package's files.
type Planned = (Series, Vec<&'static Check>, Result<Kernel>);

/// Runs the checks on some kernels at the same time.
fn side_by_side(planned: Vec<Planned>, programs: &Programs) -> Vec<Entry> {
    thread::scope(|scope| {
        let run = |(series, checks, kernel): Planned| {
            scope.spawn(move || one(series, &checks, kernel, programs))
        };
        let running: Vec<_> = planned.into_iter().map(run).collect();
        let entries = running.into_iter().map(ScopedJoinHandle::join);
        entries
            .map(|entry| entry.unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    })
}

/// Runs the checks on one kernel.
fn one(series: Series, checks: &[&Check], kernel: Result<Kernel>, programs: &Programs) -> Entry {
    let start: Instant = wait::now();
    let kernel = match kernel {
        Ok(kernel) => kernel,
        Err(error) => {
            eprintln!("Linux {series}: not available: {error:#}");
            return Entry {
                series,
                release: None,
                outcome: Outcome::Unavailable(format!("{error:#}")),
                took: start.elapsed(),
            };
        }
    };
    // Others may still run; this one has failed.
    let run = guest::run(&series, &kernel, checks, programs).unwrap_or_else(|error| {
        eprintln!("Linux {series}: cannot run: {error:#}");
        Run::not_run(checks)
    });
    Entry {
        series,
        release: Some(kernel.release),
        outcome: Outcome::Ran(run),
        took: start.elapsed(),
    }
}

/// What became of each kernel, a line for each.
fn table(entries: &[Entry], took: Duration) -> String {
    let mut text = String::new();
    let mut line = |kernel: &str, release: &str, outcome: &str, time: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{kernel:<8}{release:<26}{outcome:<34}{time:>7}");
    };
    line("kernel", "release", "outcome", "time");
    for entry in entries {
        let outcome = match &entry.outcome {
            Outcome::Unavailable(_) => "not available".to_owned(),
            Outcome::Ran(run) if run.passed() => {
                format!("{}: {} passed", entry.series.promise(), run.checks.len())
            }
            Outcome::Ran(run) => {
                let failed = run.checks.iter().filter(|c| c.verdict != Verdict::Passed);
                format!("FAILED: {} of {}", failed.count(), run.checks.len())
            }
        };
        let release = entry.release.as_deref().unwrap_or("-");
        line(
            &entry.series.to_string(),
            release,
            &outcome,
            &seconds(entry.took),
        );
    }
    line("", "", "in all", &seconds(took));
    text
}

fn seconds(time: Duration) -> String {
    format!("{:.0} s", time.as_secs_f64())
}

/// Turns what became of the kernels into success or failure.
fn conclude(entries: &[Entry], all: bool) -> Result<()> {
    let mut bad = Vec::new();
    let mut ran = false;
    for entry in entries {
        match &entry.outcome {
            Outcome::Ran(run) => {
                ran = true;
                if !run.passed() {
                    bad.push(format!("Linux {} failed", entry.series));
                }
            }
            Outcome::Unavailable(_) if all => {}
            Outcome::Unavailable(why) => {
                bad.push(format!(
                    "Linux {} was asked for and is not available: {why}",
                    entry.series
                ));
            }
        }
    }
    ensure!(bad.is_empty(), "{}", bad.join("; "));
    if !ran {
        bail!("no kernel is available: `apt-get update` needs the network");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{guest::Checked, *};

    fn entry(name: &str, outcome: Outcome) -> Entry {
        Entry {
            series: Series::named(name).unwrap(),
            release: None,
            outcome,
            took: Duration::ZERO,
        }
    }

    fn ran(verdicts: &[Verdict]) -> Outcome {
        let checks = verdicts.iter().map(|&verdict| Checked {
            title: "a check".into(),
            verdict,
        });
        Outcome::Ran(Run {
            checks: checks.collect(),
        })
    }

    fn unavailable() -> Outcome {
        Outcome::Unavailable("no such package".into())
    }

    #[test]
    fn only_a_kernel_that_nobody_named_may_be_missing() {
        let entries = [
            entry("6.1", ran(&[Verdict::Passed])),
            entry("6.12", unavailable()),
        ];
        assert!(conclude(&entries, true).is_ok());
        let error = conclude(&entries, false).unwrap_err().to_string();
        assert_eq!(
            error,
            "Linux 6.12 was asked for and is not available: no such package"
        );
        assert!(conclude(&[entry("6.12", unavailable())], true).is_err());
    }

    #[test]
    fn a_check_that_failed_or_never_ended_fails_the_run() {
        for verdict in [Verdict::Failed, Verdict::NotRun] {
            let entries = [entry("6.1", ran(&[Verdict::Passed, verdict]))];
            assert!(conclude(&entries, true).is_err(), "{verdict:?}");
            let table = table(&entries, Duration::ZERO);
            assert!(table.contains("FAILED: 1 of 2"), "{table}");
        }
        assert!(conclude(&[entry("6.1", ran(&[]))], true).is_err());
    }
}
