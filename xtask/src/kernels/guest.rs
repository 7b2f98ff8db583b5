//! A virtual machine that runs the checks on a kernel.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use evenkeel_tests::{process::Process, tools, wait};

use super::{
    checks::{Check, Programs, path},
    initramfs,
    packages::{Kernel, make},
    series::Series,
};

/// How long a guest may take for all checks. It takes a fifth of this on a machine of two cores
/// that has nothing else to do.
const PATIENCE: Duration = Duration::from_mins(45);

/// How many lines of the console are shown where a guest ended early.
const TAIL: usize = 60;

/// What became of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// The guest ended before it did.
    NotRun,
}

/// A check and what became of it.
#[derive(Debug)]
pub(crate) struct Checked {
    /// What the check is called.
    pub(super) title: String,
    /// What became of it.
    pub(super) verdict: Verdict,
}

/// What became of all checks on a kernel.
#[derive(Debug)]
pub(crate) struct Run {
    /// Each check.
    pub(super) checks: Vec<Checked>,
}

impl Run {
    /// A run that never began.
    pub(super) fn not_run(checks: &[&Check]) -> Self {
        let checks = checks.iter().map(|check| Checked {
            title: check.title(),
            verdict: Verdict::NotRun,
        });
        Self {
            checks: checks.collect(),
        }
    }

    /// Whether there were checks, and all passed.
    pub(super) fn passed(&self) -> bool {
        let mut verdicts = self.checks.iter().map(|check| check.verdict);
        !self.checks.is_empty() && verdicts.all(|verdict| verdict == Verdict::Passed)
    }
}

/// Boots a kernel, runs the checks there, and shows what came of each.
///
/// # Errors
///
/// Where the guest cannot be started, or runs another kernel than it should. What fails in it is
/// in the answer.
pub(super) fn run(
    series: &Series,
    kernel: &Kernel,
    checks: &[&Check],
    programs: &Programs,
) -> Result<Run> {
    let folder = tools::workspace().join(format!("target/kernels/{series}"));
    make(&folder)?;
    let initramfs = initramfs::pack(kernel, checks, programs, &folder)?;
    let console = folder.join("console.log");
    let mut qemu = command(kernel, &initramfs, &console)?;
    eprintln!("Linux {series}: booting {}", kernel.release);
    let start = wait::now();
    let mut guest = Process::start_with_stderr(
        format!("the guest of Linux {series}"),
        qemu.stdout(Stdio::piped()),
        &folder.join("qemu.log"),
    )?;
    let output = guest.take_stdout().context("the guest has no output")?;
    let (lines_in, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if lines_in.send(line).is_err() {
                break;
            }
        }
    });
    let mut report = Report::new(checks, &kernel.release);
    let mut last = start;
    let ended = loop {
        let left = PATIENCE.saturating_sub(start.elapsed());
        match lines.recv_timeout(left) {
            Ok(line) => {
                if let Some(number) = report.read(&line)? {
                    let checked = &report.run.checks[number];
                    let took = last.elapsed().as_secs_f64();
                    last = wait::now();
                    eprintln!(
                        "{series:<5}{took:>7.1} s  {}: {:?}",
                        checked.title, checked.verdict
                    );
                    if checked.verdict == Verdict::Failed {
                        eprintln!("{}", part(&read(&console), number));
                    }
                }
            }
            // Its output ends with the guest.
            Err(RecvTimeoutError::Disconnected) => break report.complete,
            Err(RecvTimeoutError::Timeout) => {
                guest.kill();
                eprintln!("Linux {series}: the guest did not end within {PATIENCE:?}");
                break false;
            }
        }
    };
    if !ended {
        eprintln!(
            "Linux {series}: the guest ended before its time; the end of its console:\n{}\n{}",
            tail(&read(&console)),
            guest.log_tail()
        );
    }
    eprintln!("Linux {series}: console in {}", console.display());
    Ok(report.run)
}

/// The machine: two processors, for tests of what runs at the same time; no network; the
/// machine's file system, read-only.
fn command(kernel: &Kernel, initramfs: &Path, console: &Path) -> Result<Command> {
    let mut qemu = Command::new(tools::tool("qemu-system-x86_64")?);
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"])
        .args(["-m", "1024", "-display", "none", "-nic", "none"])
        .args(["-monitor", "none", "-no-reboot"])
        .args(["-serial", &format!("file:{}", option(console)?)])
        .args(["-serial", "stdio"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 panic=-1 quiet"])
        .args([
            "-virtfs",
            "local,path=/,mount_tag=machine,security_model=none,readonly=on,multidevs=remap",
        ]);
    Ok(qemu)
}

/// A path within an option of qemu's, where a comma is written twice.
fn option(file: &Path) -> Result<String> {
    Ok(path(file)?.replace(',', ",,"))
}

/// What the guest tells, a line at a time.
struct Report<'a> {
    release: &'a str,
    run: Run,
    complete: bool,
}

impl<'a> Report<'a> {
    fn new(checks: &[&Check], release: &'a str) -> Self {
        Self {
            release,
            run: Run::not_run(checks),
            complete: false,
        }
    }

    /// Takes a line; answers the number of the check that it tells of.
    fn read(&mut self, line: &str) -> Result<Option<usize>> {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("release"), Some(release)) if release == self.release => Ok(None),
            (Some("end"), None) => {
                self.complete = true;
                Ok(None)
            }
            (Some(number), Some(verdict @ ("passed" | "failed"))) => {
                let number: usize = number.parse()?;
                let check = self.run.checks.get_mut(number);
                check
                    .context("the guest tells of a check it was not given")?
                    .verdict = if verdict == "passed" {
                    Verdict::Passed
                } else {
                    Verdict::Failed
                };
                Ok(Some(number))
            }
            _ => bail!(
                "the guest of {} says what is not expected: {line}",
                self.release
            ),
        }
    }
}

/// What the console says of one check.
fn part(console: &str, number: usize) -> String {
    let mark = |number| format!("== check {number}\n");
    let start = console.find(&mark(number)).unwrap_or(0);
    let rest = &console[start..];
    let end = rest.find(&mark(number + 1)).unwrap_or(rest.len());
    rest[..end].trim_end().to_owned()
}

fn tail(console: &str) -> String {
    let lines: Vec<_> = console.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

/// The console so far, with lines that end as elsewhere.
fn read(console: &Path) -> String {
    let bytes = fs::read(console).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\r', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report<'static> {
        let checks = (0..2).map(|number| Checked {
            title: number.to_string(),
            verdict: Verdict::NotRun,
        });
        Report {
            release: "6.1.0-56-amd64",
            run: Run {
                checks: checks.collect(),
            },
            complete: false,
        }
    }

    #[test]
    fn a_guest_is_believed_once_it_has_told_of_every_check() {
        let mut report = report();
        assert_eq!(report.read("release 6.1.0-56-amd64\r").unwrap(), None);
        assert_eq!(report.read("0 passed\r").unwrap(), Some(0));
        assert!(!report.run.passed());
        assert_eq!(report.read("1 passed\r").unwrap(), Some(1));
        assert_eq!(report.read("end\r").unwrap(), None);
        assert!(report.run.passed() && report.complete);
        report.read("1 failed").unwrap();
        assert!(!report.run.passed());
    }

    #[test]
    fn another_kernel_or_another_check_is_an_error() {
        for line in ["release 6.18.44", "2 passed", "0", "hello", ""] {
            assert!(report().read(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_checks_part_of_the_console_is_found() {
        let console = "booted\n\n== check 0\nfine\n\n== check 1\nbroken\n";
        assert_eq!(part(console, 0), "== check 0\nfine");
        assert_eq!(part(console, 1), "== check 1\nbroken");
    }
}
