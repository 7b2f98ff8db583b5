//! Commands that are shown before they are run.

use std::{
    env,
    ffi::OsString,
    fmt,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use evenkeel_tests::tools;

/// A command, why it is run, and what to do where it fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// What it is for, as a clause: 'a linker for BPF programs'.
    pub(crate) why: String,
    /// What to do where it fails.
    pub(crate) remedy: String,
    /// Environment variables that it is given.
    pub(crate) environment: Vec<(String, String)>,
    /// The program and its arguments.
    pub(crate) words: Vec<String>,
}

impl Step {
    /// A command without variables of its own.
    pub(crate) fn new<W: Into<String>>(
        why: impl Into<String>,
        remedy: impl Into<String>,
        words: impl IntoIterator<Item = W>,
    ) -> Self {
        let words = words.into_iter().map(Into::into).collect();
        Self {
            why: why.into(),
            remedy: remedy.into(),
            environment: Vec::new(),
            words,
        }
    }

    /// The same with root's privilege: by sudo, unless this process has it.
    pub(crate) fn privileged(mut self) -> Self {
        if !rustix::process::geteuid().is_root() {
            self.words.insert(0, "sudo".into());
        }
        self
    }

    /// Shows the command and runs it, its output going to the standard error.
    ///
    /// # Errors
    ///
    /// Where it cannot be started or fails; names the command and the remedy.
    pub(crate) fn perform(&self) -> Result<()> {
        eprintln!("# {}\n$ {self}", self.why);
        let mut command = Command::new(&self.words[0]);
        command
            .args(&self.words[1..])
            .envs(self.environment.iter().cloned());
        command.stdin(Stdio::inherit()).stdout(std::io::stderr());
        let status = command
            .status()
            .with_context(|| format!("cannot start `{self}`; {}", self.remedy))?;
        ensure!(
            status.success(),
            "`{self}` failed ({status}); {}",
            self.remedy
        );
        Ok(())
    }
}

impl fmt::Display for Step {
    /// Writes the command as a shell takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variables = self
            .environment
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let words = self.words.iter().map(|word| quoted(word));
        f.write_str(&variables.chain(words).collect::<Vec<_>>().join(" "))
    }
}

/// A word as a shell takes it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=+:,@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The cargo that runs this, at the root of the workspace.
pub(crate) fn cargo() -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    // What `cargo run` tells about this package: a build script that looks at it (ring's does) would
    // run again after each change between this and a cargo called by hand, and all that is on it.
    let told = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(told)) {
        command.env_remove(name);
    }
    command.current_dir(tools::workspace());
    command
}

/// Shows a cargo command and runs it.
///
/// # Errors
///
/// Where it fails.
pub(crate) fn run_cargo(command: &mut Command) -> Result<()> {
    let words: Vec<_> = command
        .get_args()
        .map(|word| quoted(&word.to_string_lossy()))
        .collect();
    let words = words.join(" ");
    eprintln!("$ cargo {words}");
    let status = command.status().context("cannot start cargo")?;
    ensure!(status.success(), "`cargo {words}` failed ({status})");
    Ok(())
}

/// Lets cargo run what it builds as root, while it builds as the user: by sudo, unless this
/// process is root's.
///
/// # Errors
///
/// Where there is no sudo, or the compiler does not tell the host's name.
pub(crate) fn run_as_root(command: &mut Command) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    tools::find("sudo").context("this needs root: run it as root, or install sudo")?;
    let version = tools::output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("`rustc -vV` does not tell the host")?;
    let name = host.to_uppercase().replace('-', "_");
    command.env(format!("CARGO_TARGET_{name}_RUNNER"), "sudo -E");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_reads_like_a_line_for_a_shell() {
        let mut step = Step::new("", "", ["sh", "-c", "echo it's; exit", ""]);
        step.environment
            .push(("LLVM_PREFIX".into(), "/usr/lib/llvm-22".into()));
        assert_eq!(
            step.to_string(),
            r"LLVM_PREFIX=/usr/lib/llvm-22 sh -c 'echo it'\''s; exit' ''"
        );
    }

    #[test]
    fn a_failed_step_names_the_command_and_the_remedy() {
        let error = Step::new("to fail", "try harder", ["false"])
            .perform()
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "`false` failed (exit status: 1); try harder"
        );
    }
}
