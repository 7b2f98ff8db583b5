//! Programs as probes.
//!
//! No shell, no inherited environment, limits that stop what runs away, and a process group of its
//! own, which is killed as a whole when the time is over.

use std::{os::unix::process::ExitStatusExt, process::Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process_group, prlimit};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};

use super::{Deadline, Evidence, Phase, ProbeFailure, Subject};
use crate::model::CommandProbe;

/// How much of what a program writes is read; it is told nothing of the rest.
const OUTPUT: u64 = 4096;
/// The longest first line that is shown.
const LINE: usize = 200;
/// Its memory in bytes, its processor time in seconds, and its open files.
const LIMITS: [(Resource, u64); 4] = [
    (Resource::As, 1 << 30),
    (Resource::Cpu, 30),
    (Resource::Nofile, 256),
    (Resource::Core, 0),
];

/// Kills a process group when it is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Gone already, as a rule.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Runs a program: exit code 0 passes.
pub(super) async fn run(
    probe: &CommandProbe,
    subject: &Subject,
    deadline: Deadline,
) -> Result<Evidence, ProbeFailure> {
    let (program, arguments) = probe
        .argv
        .split_first()
        .ok_or_else(|| ProbeFailure::CannotRun("no program is configured".to_owned()))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("EVENKEEL_SERVICE", &*subject.service)
        .env("EVENKEEL_BACKEND", &*subject.backend)
        .env("EVENKEEL_ADDRESS", subject.address.to_string())
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(port) = subject.check.port {
        command.env("EVENKEEL_PORT", port.to_string());
    }
    let mut child = command
        .spawn()
        .map_err(|e| ProbeFailure::CannotRun(format!("run {program}: {e}")))?;
    // Dropped on every way out, so that what the program started ends with it.
    let group = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
    let _group = Group(group);
    if let Some(group) = group {
        limit(group);
    }
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ended = async {
        let (out, err, status) = tokio::join!(read(out), read(err), child.wait());
        let status = status.map_err(|e| ProbeFailure::CannotRun(e.to_string()))?;
        Ok((if out.is_empty() { err } else { out }, status))
    };
    let (line, status) = deadline.bound(Phase::Running, ended).await?;
    let and = |what: String| {
        if line.is_empty() {
            what
        } else {
            format!("{what}: {line}")
        }
    };
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(Evidence::Ran(line)),
        (Some(code), _) => Err(ProbeFailure::Command(and(format!("exit code {code}")))),
        (None, signal) => {
            let signal = signal.unwrap_or_default();
            Err(ProbeFailure::Command(and(format!(
                "ended by signal {signal}"
            ))))
        }
    }
}

/// Reads to the end, and answers the first line.
async fn read(from: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut from) = from else {
        return String::new();
    };
    let mut text = Vec::new();
    // What cannot be read is not shown.
    let _ = (&mut from).take(OUTPUT).read_to_end(&mut text).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default().trim();
    line.chars()
        .filter(|c| !c.is_control())
        .take(LINE)
        .collect()
}

/// Limits a process that has just been started: by the next thing that it does, in practice.
fn limit(process: Pid) {
    for (resource, most) in LIMITS {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        // One that has ended already needs none.
        let _ = prlimit(Some(process), resource, limit);
    }
}
