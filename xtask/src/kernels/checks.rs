//! What a kernel is held to: tests of the `tests` crate, by their names.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use evenkeel_tests::tools;
use serde::Deserialize;

use super::series::Promise;
use crate::{
    build::{self, Profile},
    steps::{cargo, quoted},
};

/// One test, or all of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// The file in `tests/tests`, without its extension.
    file: &'static str,
    /// The test's name; `None` for all that are not ignored.
    test: Option<&'static str>,
    /// Whether it is one that the ordinary run leaves out.
    ignored: bool,
    /// Where it shall pass.
    on: Promise,
}

const fn one(file: &'static str, test: &'static str) -> Check {
    Check {
        file,
        test: Some(test),
        ignored: false,
        on: Promise::Serves,
    }
}

const fn all(file: &'static str) -> Check {
    Check {
        file,
        test: None,
        ignored: false,
        on: Promise::Serves,
    }
}

/// The checks. A line here is all that another one takes.
const CHECKS: [Check; 28] = [
    all("packets"),
    all("packets_foreign"),
    all("packets_modes"),
    all("packets_table"),
    all("packets_tracking"),
    all("packets_unusual"),
    all("decap_packets"),
    all("differential"),
    all("flows"),
    one(
        "decap",
        "no_packet_is_lost_while_the_command_is_killed_and_started",
    ),
    one("neighbours", "a_backend_that_changes_its_mac_is_followed"),
    one(
        "kernel",
        "the_program_is_attached_natively_by_a_pinned_link",
    ),
    one("kernel", "mode_dsr_forwards"),
    one("kernel", "mode_ipip_forwards"),
    one("kernel", "mode_ipip_forwards_across_families"),
    one("kernel", "mode_gue_forwards"),
    one("kernel", "mode_nat_forwards"),
    one("kernel", "mode_snat_forwards"),
    one("kernel", "frames_of_several_buffers_are_forwarded"),
    one(
        "kernel",
        "established_connections_survive_weights_and_a_drain",
    ),
    one(
        "kernel",
        "established_connections_survive_weights_and_a_drain_in_a_tunnel",
    ),
    one(
        "kernel",
        "established_connections_survive_weights_and_a_drain_in_mode_snat",
    ),
    one(
        "kernel",
        "a_controller_that_is_killed_and_started_again_takes_over_unnoticed",
    ),
    one(
        "kernel",
        "a_controller_that_is_killed_and_started_again_takes_over_unnoticed_in_mode_snat",
    ),
    one("probes", "a_broken_tunnel_shows_in_ipip"),
    one(
        "explain",
        "explanations_are_what_the_program_does_whatever_the_packet",
    ),
    one("trace", "decisions_are_told_in_snat"),
    Check {
        file: "kernel",
        test: Some("an_older_kernel_is_refused_before_anything_is_touched"),
        ignored: true,
        on: Promise::Refuses,
    },
];

/// The checks for a kernel whose names contain one of `filters`; all for no filter.
pub(super) fn of(promise: Promise, filters: &[String]) -> Vec<&'static Check> {
    let picked =
        |check: &&Check| filters.is_empty() || filters.iter().any(|f| check.title().contains(f));
    CHECKS
        .iter()
        .filter(|check| check.on == promise)
        .filter(picked)
        .collect()
}

impl Check {
    /// What it is called in reports.
    pub(super) fn title(&self) -> String {
        match self.test {
            Some(test) => format!("{}: {}", self.file, test.replace('_', " ")),
            None => format!("{}: all of it", self.file),
        }
    }

    /// The command, for a shell.
    pub(super) fn command(&self, programs: &Programs) -> Result<String> {
        let program = programs.test(self.file)?;
        let mut words = vec![path(program)?, "--test-threads=1".into()];
        if let Some(test) = self.test {
            words.extend([test.into(), "--exact".into()]);
        }
        if self.ignored {
            words.push("--ignored".into());
        }
        let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
        Ok(words.join(" "))
    }
}

/// What is built for the guests.
#[derive(Debug)]
pub(crate) struct Programs {
    /// The binary under test.
    pub(super) evenkeel: PathBuf,
    tests: BTreeMap<String, PathBuf>,
}

/// What cargo says about what it built; of its many kinds of messages, what matters here.
#[derive(Deserialize)]
struct Artifact {
    target: Target,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Programs {
    /// Builds the binary and the tests that the checks name.
    ///
    /// # Errors
    ///
    /// Where the build fails, or a check names a test that is not there: a test program that is
    /// given such a name runs nothing, and succeeds.
    pub(super) fn build() -> Result<Self> {
        let evenkeel = build::evenkeel(Profile::Debug)?;
        let mut files: Vec<_> = CHECKS.iter().map(|check| check.file).collect();
        files.sort_unstable();
        files.dedup();
        let mut build = cargo();
        build.args([
            "test",
            "--package",
            "evenkeel-tests",
            "--no-run",
            "--message-format=json-render-diagnostics",
        ]);
        build.args(files.iter().flat_map(|file| ["--test", file]));
        eprintln!("$ cargo test --package evenkeel-tests --no-run");
        build.stderr(Stdio::inherit());
        let built = build.output().context("cannot start cargo")?;
        ensure!(built.status.success(), "the tests do not build");
        let programs = Self {
            evenkeel,
            tests: executables(&String::from_utf8_lossy(&built.stdout)),
        };
        programs.check_names()?;
        Ok(programs)
    }

    fn test(&self, file: &str) -> Result<&Path> {
        let path = self.tests.get(file).map(PathBuf::as_path);
        path.with_context(|| format!("cargo built no test program of tests/tests/{file}.rs"))
    }

    fn check_names(&self) -> Result<()> {
        for check in &CHECKS {
            let program = self.test(check.file)?;
            let list = tools::output(Command::new(program).arg("--list"))?;
            let found = match check.test {
                Some(test) => list.lines().any(|line| line == format!("{test}: test")),
                None => list.lines().any(|line| line.ends_with(": test")),
            };
            ensure!(
                found,
                "tests/tests/{}.rs has no test {}: correct xtask/src/kernels/checks.rs",
                check.file,
                check.test.unwrap_or("at all")
            );
        }
        Ok(())
    }
}

/// The test programs that cargo's messages tell of, by the names of their files.
fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Artifact>(line).ok())
        .filter(|artifact| artifact.target.kind.iter().any(|kind| kind == "test"))
        .filter_map(|artifact| Some((artifact.target.name, artifact.executable?)))
        .collect()
}

/// A path as text.
pub(super) fn path(path: &Path) -> Result<String> {
    let text = path.to_str().map(ToOwned::to_owned);
    text.with_context(|| format!("{} is not UTF-8: move the workspace", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_found_in_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"serde","kind":["lib"]},"executable":null}
{"reason":"compiler-artifact","target":{"name":"kernel","kind":["test"]},"executable":"/t/kernel-1"}
{"reason":"compiler-artifact","target":{"name":"evenkeel","kind":["bin"]},"executable":"/t/evenkeel"}
{"reason":"build-finished","success":true}"#;
        let expected = BTreeMap::from([("kernel".to_owned(), PathBuf::from("/t/kernel-1"))]);
        assert_eq!(executables(messages), expected);
    }

    #[test]
    fn a_filter_picks_checks_by_their_titles() {
        assert!(of(Promise::Serves, &[]).len() > 1);
        assert_eq!(of(Promise::Refuses, &[]).len(), 1);
        assert_eq!(
            of(Promise::Serves, &["packets: ".into()]),
            [&all("packets"), &all("decap_packets")]
        );
        assert!(of(Promise::Serves, &["no such".into()]).is_empty());
    }
}
