//! Receivers on this host: a program, the syslog, a file.

use std::{
    fs::OpenOptions, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path, process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process_group};
use syslog::{Facility, Formatter3164};
use tokio::{io::AsyncWriteExt as _, process::Command, task};

use super::later;
use crate::{
    causes::with_causes,
    model::Severity,
    notify::{alert::Notification, outbox::Failure, payload},
};

/// How much of what a program complains about is shown, in characters.
const SHOWN: usize = 200;

/// Kills a program with all that it started, where it is not waited for any longer.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It may have ended by itself.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Runs a program with `input` on its standard input; the exit code 0 means that it was taken.
pub(super) async fn command(words: &[String], input: &[u8]) -> Result<(), Failure> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(later("there is no program to run"));
    };
    let mut child = Command::new(program)
        .args(arguments)
        // The controller's conversation with a service manager is none of the program's.
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_PID")
        .env_remove("WATCHDOG_USEC")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| later(format!("cannot run {program}: {e}")))?;
    let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let mut group = Group(id);
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read its input may still end well.
        let _ = stdin.write_all(input).await;
    }
    let output = child
        .wait_with_output()
        .await
        .map_err(|e| later(format!("cannot wait for {program}: {e}")))?;
    // Reaped: its number may be another's by now.
    group.0 = None;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let last = complaint.lines().rfind(|line| !line.trim().is_empty());
    let last: String = last.unwrap_or_default().chars().take(SHOWN).collect();
    let colon = if last.is_empty() { "" } else { ": " };
    let status = output.status;
    Err(later(format!("{program} ended with {status}{colon}{last}")))
}

/// Hands each alert to a syslog daemon as a message of its own.
pub(super) async fn syslog(path: &Path, notification: &Notification) -> Result<(), Failure> {
    let path = path.to_owned();
    let lines: Vec<(Severity, bool, String)> = notification
        .items
        .iter()
        .map(|item| {
            let on = item.ended_ms.is_none();
            (item.key.severity, on, payload::sentence(item))
        })
        .collect();
    blocking(move || {
        let formatter = Formatter3164 {
            facility: Facility::LOG_DAEMON,
            hostname: None,
            process: "evenkeel".to_owned(),
            pid: std::process::id(),
        };
        let failed = |e| {
            later(format!(
                "cannot write to the syslog at {}: {}",
                path.display(),
                with_causes(&e)
            ))
        };
        // Each time anew: the daemon may have been restarted.
        let mut logger = syslog::unix_custom(formatter, &path).map_err(failed)?;
        for (severity, on, line) in lines {
            let written = match severity {
                Severity::Page if on => logger.crit(line),
                Severity::Ticket if on => logger.warning(line),
                _ => logger.notice(line),
            };
            written.map_err(failed)?;
        }
        Ok(())
    })
    .await
}

/// Adds lines to a file, which is made where it is missing.
pub(super) async fn file(path: &Path, lines: String) -> Result<(), Failure> {
    let path = path.to_owned();
    blocking(move || {
        let opened = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o640)
            .open(&path);
        let written = opened.and_then(|mut file| {
            file.write_all(lines.as_bytes())?;
            file.sync_data()
        });
        written.map_err(|e| later(format!("cannot write to {}: {e}", path.display())))
    })
    .await
}

async fn blocking(
    work: impl FnOnce() -> Result<(), Failure> + Send + 'static,
) -> Result<(), Failure> {
    match task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(later(format!("it broke off: {e}"))),
    }
}
