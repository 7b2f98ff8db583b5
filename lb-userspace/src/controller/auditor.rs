//! The audit that the controller makes by itself, now and then.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use log::warn;
use serde_json::json;
use tokio::{
    sync::{mpsc, watch},
    task::{self, JoinHandle},
    time,
};

use super::{Now, every};
use crate::{
    admin::proto::Status,
    audit::{self, Finding, Level},
    causes::with_causes,
    config::{self, LoadError},
    doctor::{
        facts::Plan,
        gather::{self, Depth},
        rules,
    },
    journal::{Event, Kind, Level as Grade},
    model::Config,
    notify::derive::Audited,
};

/// From the start to the first audit: by then the controller has published, and compared.
const FIRST: Duration = Duration::from_secs(15);

/// A task that audits; it ends with this value.
pub(super) struct Auditor {
    audited: watch::Receiver<Audited>,
    task: JoinHandle<()>,
}

impl Auditor {
    /// Starts it. `running` is what the controller runs by.
    pub(super) fn spawn(
        running: Config,
        status: watch::Receiver<Arc<Status>>,
        notices: mpsc::Sender<Event>,
    ) -> Self {
        let (found, audited) = watch::channel(Audited::default());
        let task = task::spawn(async move {
            let mut status = status;
            time::sleep(FIRST).await;
            let mut ticks = every(running.audit.every);
            // The first one is there at once, and so is the audit.
            ticks.tick().await;
            loop {
                let latest = Arc::clone(&status.borrow());
                let digest = latest.config_sha256.clone();
                let audited = audit(&running, &latest).await;
                if let Some(event) = change(&found.borrow(), &audited) {
                    // Where there is no room the log has no line more, and the alert is there.
                    let _ = notices.try_send(event);
                }
                found.send_replace(audited);
                tokio::select! {
                    _ = ticks.tick() => {}
                    // Another text of the same meaning is another file to compare with.
                    () = another(&mut status, &digest) => time::sleep(FIRST).await,
                }
            }
        });
        Self { audited, task }
    }

    /// What it found last.
    pub(super) fn audited(&self) -> watch::Receiver<Audited> {
        self.audited.clone()
    }
}

impl Drop for Auditor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits for another text than that of a digest to be in force.
async fn another(status: &mut watch::Receiver<Arc<Status>>, digest: &str) {
    let differs = |status: &Arc<Status>| status.config_sha256 != digest;
    if status.wait_for(differs).await.is_err() {
        // Nobody shows anything any more.
        std::future::pending::<()>().await;
    }
}

/// Looks at the file on disk, at what runs, and at the host.
async fn audit(running: &Config, status: &Status) -> Audited {
    let path = PathBuf::from(&status.config_file);
    let loaded = task::spawn_blocking(move || config::load_with_digest(&path)).await;
    let (on_disk, rejected) = match loaded {
        Ok(Ok(loaded)) => (Some(loaded), None),
        Ok(Err(e)) => (None, Some(reject(&e))),
        Err(broken) => (
            None,
            Some(format!("the configuration was not read: {broken}")),
        ),
    };
    let (config, digest) = match &on_disk {
        Some((config, digest)) => (config, Some(digest.as_str())),
        None => (running, None),
    };
    let local = gather::addresses().unwrap_or_else(|e| {
        warn!("the audit does not know the host's addresses: {e}");
        Vec::new()
    });
    let mut findings = audit::config::judge(config, &local);
    findings.extend(audit::running::judge(config, digest, status));
    let plan = Plan::of(config);
    let names = plan.interfaces.clone();
    match gather::facts(plan, &names, Depth::Ways).await {
        Ok(facts) => findings.extend(audit::running::host(&rules::judge(&facts))),
        Err(e) => warn!("the audit did not look at the host: {}", with_causes(&e)),
    }
    Audited {
        at_ms: Now::read().unix_ms,
        findings,
        rejected,
    }
}

/// Why a configuration on disk would not be taken, in one line.
fn reject(error: &LoadError) -> String {
    match error {
        LoadError::Read { .. } => with_causes(error),
        LoadError::Findings(findings) => {
            let mut all = findings.iter();
            let first = all.next().map_or_else(String::new, |first| {
                let (file, line, field) = (&first.file, first.line, &first.field);
                format!("{file}, line {line}: {field}: {}", first.problem)
            });
            match all.count() {
                0 => first,
                more => format!("{first}; and {more} more"),
            }
        }
    }
}

/// What there is to tell where an audit finds something else than the one before.
fn change(before: &Audited, after: &Audited) -> Option<Event> {
    let (was, is) = (names(before), names(after));
    if before.at_ms > 0 && was == is {
        return None;
    }
    let list = |of: BTreeSet<&String>| of.into_iter().cloned().collect::<Vec<_>>();
    let (more, fewer) = (
        list(is.difference(&was).collect()),
        list(was.difference(&is).collect()),
    );
    let worst = audit::worst(&after.findings);
    let grade = match (&after.rejected, worst) {
        (Some(_), _) | (_, Some(Level::Error | Level::Critical)) => Grade::Warning,
        _ => Grade::Info,
    };
    let mut words = Vec::new();
    for (word, of) in [("found", &more), ("gone", &fewer)] {
        if !of.is_empty() {
            words.push(format!("{word} {}", of.join(", ")));
        }
    }
    if words.is_empty() {
        words.push("nothing found".to_owned());
    }
    let message = format!("audit: {}", words.join("; "));
    let event = Event::of_controller(after.at_ms, Kind::Audit, grade, message);
    Some(event.detail(json!({
        "findings": after.findings, "rejected": after.rejected, "found": more, "gone": fewer,
    })))
}

/// What was found, as far as it is told apart: numbers in the words change all the time.
fn names(audited: &Audited) -> BTreeSet<String> {
    let name = |finding: &Finding| {
        let place = finding.place();
        let space = if place.is_empty() { "" } else { " " };
        format!("{} ({}){space}{place}", finding.rule, finding.level.name())
    };
    let rejected = audited
        .rejected
        .iter()
        .map(|_| "an invalid file".to_owned());
    audited.findings.iter().map(name).chain(rejected).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audited(at_ms: u64, rules: &[&'static str], rejected: Option<&str>) -> Audited {
        let finding = |rule: &&'static str| Finding {
            rule,
            level: Level::Error,
            service: Some("web".to_owned()),
            backend: None,
            what: format!("seen at {at_ms}"),
            why: "it hurts",
            remedy: "mend it".to_owned(),
        };
        Audited {
            at_ms,
            findings: rules.iter().map(finding).collect(),
            rejected: rejected.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn only_what_changes_is_told() {
        let nothing = Audited::default();
        let first = change(&nothing, &audited(1, &["L4", "L8"], None)).unwrap();
        assert_eq!(first.message, "audit: found L4 (error) web, L8 (error) web");
        assert_eq!(first.level, Grade::Warning);
        assert_eq!(
            change(
                &audited(1, &["L4", "L8"], None),
                &audited(2, &["L8", "L4"], None)
            ),
            None
        );
        let next = change(
            &audited(2, &["L4", "L8"], None),
            &audited(3, &["L8"], Some("no")),
        )
        .unwrap();
        assert_eq!(
            next.message,
            "audit: found an invalid file; gone L4 (error) web"
        );
        let well = change(&audited(3, &["L8"], None), &audited(4, &[], None)).unwrap();
        assert_eq!(
            (well.message.as_str(), well.level),
            ("audit: gone L8 (error) web", Grade::Info)
        );
        let clean = change(&nothing, &audited(1, &[], None)).unwrap();
        assert_eq!(clean.message, "audit: nothing found");
    }
}
