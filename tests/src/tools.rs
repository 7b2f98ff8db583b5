//! The programs that the test bed starts, and the privilege that it needs.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// Where system programs are, also for users whose `PATH` lacks the administrator's folders.
///
/// They come before `PATH`, because a wrapper script there (as version managers install them)
/// would take the place of the program itself.
const SYSTEM_DIRS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The folder of the tools that `cargo xtask setup` keeps to this workspace.
pub fn workspace_tools() -> PathBuf {
    workspace().join("target/tools")
}

/// The root of this workspace.
///
/// # Panics
///
/// Never: the crate's folder has a parent.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate is within a workspace")
}

/// Finds a program in the system's folders, in `target/tools`, or on `PATH`.
pub fn find(program: &str) -> Option<PathBuf> {
    let own = workspace_tools();
    let path = env::var_os("PATH").unwrap_or_default();
    SYSTEM_DIRS
        .iter()
        .map(PathBuf::from)
        .chain(["bin", "nginx/usr/sbin", "haproxy/usr/sbin"].map(|dir| own.join(dir)))
        .chain(env::split_paths(&path))
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}

/// Finds a program, as [`find`] does.
///
/// # Errors
///
/// Where it is nowhere; names the command that installs it.
pub fn tool(program: &str) -> Result<PathBuf> {
    find(program).with_context(|| format!("`{program}` is not installed; run `cargo xtask setup`"))
}

/// Runs a command to its end and answers what it wrote to its standard output.
///
/// # Errors
///
/// Where it cannot be started or fails; contains what it wrote to its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let result = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    ensure!(
        result.status.success(),
        "{command:?} failed ({}): {}",
        result.status,
        String::from_utf8_lossy(&result.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

/// Checks for the privilege that namespaces and XDP need.
///
/// # Errors
///
/// Where this process is not root's.
pub fn require_root() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "network namespaces and XDP need root; run this by `cargo xtask test` or \
         `cargo xtask demo`, which use sudo, or as root"
    );
    Ok(())
}

/// The built `evenkeel`: `EVENKEEL_BIN`, or else the one in the folder of the running executable
/// or above it, which is where cargo puts it.
///
/// # Errors
///
/// Where there is none; says how to build it.
pub fn evenkeel() -> Result<PathBuf> {
    if let Some(named) = env::var_os("EVENKEEL_BIN") {
        let path = PathBuf::from(named);
        ensure!(
            path.is_file(),
            "EVENKEEL_BIN names {}, where no file is",
            path.display()
        );
        return Ok(path);
    }
    let running = env::current_exe().context("cannot tell the path of the running executable")?;
    // Test executables are in `deps`, one folder below the binaries.
    let beside = running
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("evenkeel"));
    match beside.into_iter().find(|candidate| candidate.is_file()) {
        Some(path) => Ok(path),
        None => bail!(
            "the `evenkeel` binary is not beside {}; build it with `cargo build`, or name it in \
             EVENKEEL_BIN",
            running.display()
        ),
    }
}

/// `evenkeel` as it is built for tests of upgrades, with one of its features: another program over
/// the same layout (`other-program`), or one over the next layout (`next-layout`).
///
/// # Errors
///
/// Where there is none; says how to build it.
pub fn evenkeel_with(feature: &str) -> Result<PathBuf> {
    let usual = evenkeel()?;
    let path = upgrades(&usual).join(format!("evenkeel-{feature}"));
    ensure!(
        path.is_file(),
        "{} is not there; build it with `cargo xtask build --upgrades`",
        path.display()
    );
    Ok(path)
}

/// Where the builds for tests of upgrades lie beside the usual one.
pub fn upgrades(usual: &Path) -> PathBuf {
    usual.with_file_name("upgrades")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_names_the_remedy() {
        let error = tool("no-such-program").unwrap_err().to_string();
        assert_eq!(
            error,
            "`no-such-program` is not installed; run `cargo xtask setup`"
        );
    }

    #[test]
    fn a_failed_command_shows_what_it_complained_about() {
        let error = output(Command::new("sh").args(["-c", "echo lost >&2; exit 3"])).unwrap_err();
        assert!(
            error.to_string().ends_with("(exit status: 3): lost"),
            "{error}"
        );
    }
}
