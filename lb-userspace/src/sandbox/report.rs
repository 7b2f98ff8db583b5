//! The report of what was rehearsed, made by the same binary.

use std::{
    process::Command,
    time::{Duration, UNIX_EPOCH},
};

use super::stage::Stage;

/// Has the report of the time since then made; `None` where nothing is known of it.
pub(super) fn made(stage: &Stage, began_ms: u64) -> Option<String> {
    let began = UNIX_EPOCH + Duration::from_millis(began_ms);
    let since = humantime::format_rfc3339_millis(began).to_string();
    let made = Command::new("/proc/self/exe")
        .args(["report", "--since", &since, "--state"])
        .arg(stage.state())
        .output()
        .ok()?;
    made.status
        .success()
        .then(|| String::from_utf8_lossy(&made.stdout).into_owned())
}
