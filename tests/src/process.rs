//! A child process that cannot outlive its owner.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};

use crate::wait;

/// How many lines of a log are shown when a test fails.
const TAIL: usize = 40;

/// A running program, killed and reaped on drop.
///
/// It leads a process group of its own, so that Ctrl-C reaches the owner alone, which then ends
/// things in their order. It is killed by the kernel when **the thread** that started it ends, so
/// start it on the thread that will use it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Option<PathBuf>,
}

impl Process {
    /// Starts `command`; `name` is what messages call it.
    ///
    /// # Errors
    ///
    /// Where it cannot be started.
    pub fn start(name: impl Into<String>, command: &mut Command) -> Result<Self> {
        let name = name.into();
        dies_with_its_parent(command)
            .process_group(0)
            .stdin(Stdio::null());
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        Ok(Self {
            name,
            child,
            log: None,
        })
    }

    /// Starts `command` with both outputs appended to `log`, whose end is shown when a test fails.
    ///
    /// # Errors
    ///
    /// Where the log cannot be opened or the program cannot be started.
    pub fn start_logged(
        name: impl Into<String>,
        command: &mut Command,
        log: &Path,
    ) -> Result<Self> {
        command.stdout(open_log(log)?);
        Self::start_with_stderr(name, command, log)
    }

    /// As [`Process::start_logged`], for the error output alone.
    ///
    /// # Errors
    ///
    /// Where the log cannot be opened or the program cannot be started.
    pub fn start_with_stderr(
        name: impl Into<String>,
        command: &mut Command,
        log: &Path,
    ) -> Result<Self> {
        let mut process = Self::start(name, command.stderr(open_log(log)?))?;
        process.log = Some(log.to_owned());
        Ok(process)
    }

    /// The program's standard output, where it was piped and has not been taken.
    pub fn take_stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, where it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Checks that it still runs.
    ///
    /// # Errors
    ///
    /// Where it has ended; contains the end of its log.
    pub fn check_running(&mut self) -> Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => bail!("{} ended early ({status})\n{}", self.name, self.log_tail()),
        }
    }

    /// Sends a signal; does nothing where the process has been reaped.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            // A failure means that it has just ended, which the next look at it will tell.
            let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), signal);
        }
    }

    /// Kills it at once (SIGKILL) and reaps it.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        // It cannot fail but for a child that has been reaped already.
        let _ = self.child.wait();
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    ///
    /// Where it is still there after `limit`.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM);
        self.wait(limit)
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    ///
    /// Where it is still there after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let name = self.name.clone();
        wait::until(format_args!("{name} to end"), limit, || {
            self.ended().context("it still runs")
        })
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let Some(path) = &self.log else {
            return String::new();
        };
        let log = fs::read(path).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL)..];
        format!(
            "--- last lines of {}\n{}\n---",
            path.display(),
            tail.join("\n")
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() && self.log.is_some() {
            // Not `eprintln`, which panics where nobody reads: a panic here would stop the clean-up.
            let _ = writeln!(io::stderr(), "{}: {}", self.name, self.log_tail());
        }
    }
}

/// Opens a log to add to.
fn open_log(path: &Path) -> Result<File> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open the log {}", path.display()))
}

/// Lets the kernel kill the command's process when the thread that started it ends.
fn dies_with_its_parent(command: &mut Command) -> &mut Command {
    let parent = rustix::process::getpid();
    let ask = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have ended before the kernel was asked.
        if rustix::process::getppid() == Some(parent) {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::ESRCH))
        }
    };
    // SAFETY: the closure makes two system calls, allocates nothing and takes no lock, which is
    // all that may be done between fork and exec.
    unsafe { command.pre_exec(ask) }
}

/// Kills processes by number, without reaping them: what a killed run left behind.
///
/// # Errors
///
/// Where one cannot be killed for another reason than having ended.
pub(crate) fn kill_strays(pids: impl IntoIterator<Item = i32>) -> Result<()> {
    for pid in pids.into_iter().filter_map(Pid::from_raw) {
        let killed = rustix::process::kill_process(pid, Signal::KILL);
        ensure!(
            matches!(killed, Ok(()) | Err(rustix::io::Errno::SRCH)),
            "cannot kill process {pid:?}: {killed:?}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> Process {
        Process::start("sleeper", Command::new("sleep").arg("60")).unwrap()
    }

    fn exists(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn is_gone_after_drop() {
        let process = sleeper();
        let pid = process.pid();
        assert!(exists(pid));
        drop(process);
        assert!(!exists(pid));
    }

    #[test]
    fn dies_with_the_thread_that_started_it() {
        let mut process = thread::spawn(sleeper).join().unwrap();
        let status = process.wait(Duration::from_secs(5)).unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9)
        );
    }

    #[test]
    fn an_early_end_is_an_error_with_the_log() {
        let log = std::env::temp_dir().join(format!("evenkeel-process-{}", std::process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", "echo out of luck >&2; exit 7"]);
        let mut process = Process::start_logged("loser", &mut command, &log).unwrap();
        process.wait(Duration::from_secs(5)).unwrap();
        let error = process.check_running().unwrap_err().to_string();
        fs::remove_file(&log).unwrap();
        assert!(
            error.starts_with("loser ended early (exit status: 7)"),
            "{error}"
        );
        assert!(error.contains("out of luck"), "{error}");
    }
}
