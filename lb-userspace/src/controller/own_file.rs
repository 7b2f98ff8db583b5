//! The controller's own file: whether it says what is in force, and reading it again.

use std::{fs, time::SystemTime};

use log::warn;
use serde_json::json;

use super::{
    Now,
    apply::{Bars, Wish},
    state::State,
};
use crate::{
    admin::server::change::{Actor, Because, Refused},
    journal::{Kind, Level},
    kept::{configurations::InForce, opening::digest_of_file},
};

/// When a file was last written, and its length.
type Stamp = (SystemTime, u64);

/// What is known of the controller's own file.
#[derive(Debug, Default)]
pub(super) struct OwnFile {
    /// Whether it was looked at since what is in force changed.
    looked: bool,
    stamp: Option<Stamp>,
    /// How it differs from what is in force; `None` where it does not.
    pub(super) differs: Option<String>,
}

impl OwnFile {
    /// What is in force has changed, and so has what the file is beside it.
    pub(super) const fn look_again(&mut self) {
        self.looked = false;
    }
}

impl State {
    /// Reads the controller's own file again.
    pub(super) fn reload(&mut self, now: Now) {
        self.now = now;
        let file = self.identity.config_file.clone();
        let read = fs::read_to_string(&file);
        let wish = Wish {
            text: read.as_deref().unwrap_or_default().to_owned(),
            file: file.display().to_string(),
            how: "reload",
            by: Actor {
                uid: None,
                name: "SIGHUP".to_owned(),
            },
            reason: None,
            confirm_within: None,
            bars: Bars::Closed,
            copy_of: None,
        };
        match read {
            Ok(_) => self.begin_change(wish, None, now),
            Err(e) => {
                let error = format!("cannot read {}: {e}", file.display());
                self.refuse_change(&wish, Refused::new(Because::Failed, error), None);
            }
        }
    }

    /// Looks whether the controller's own file says what is in force. What somebody edits and does
    /// not apply must not come into force by a crash.
    pub(super) fn watch_file(&mut self) {
        let file = &self.identity.config_file;
        let stamp = fs::metadata(file).and_then(|meta| Ok((meta.modified()?, meta.len())));
        let stamp = stamp.ok();
        if self.own_file.looked && self.own_file.stamp == stamp {
            return;
        }
        self.own_file.looked = true;
        self.own_file.stamp = stamp;
        let name = file.display();
        let of = self.kept.in_force().cloned();
        let found = digest_of_file(file);
        let is = |digest: &str| found.as_ref().is_ok_and(|found| found == digest);
        let was = of.as_ref().and_then(|of| of.file_sha256.as_deref());
        self.own_file.differs = if is(&self.identity.config_sha256) {
            None
        } else if was.is_some_and(is) {
            Some(format!(
                "{name} says something else than what is in force, and a restart keeps that: write \
                 it there too"
            ))
        } else {
            Some(match &found {
                Ok(_) => format!(
                    "{name} was changed and is not in force: 'evenkeel plan {name}' shows what it \
                     changes, 'evenkeel apply {name}' does it, and so would a restart"
                ),
                Err(e) => format!("{name} cannot be read ({e}): a restart keeps what is in force"),
            })
        };
        let Some(of) = of else {
            return;
        };
        let unapplied = found.ok().filter(|found| {
            *found != self.identity.config_sha256 && Some(found) != of.file_sha256.as_ref()
        });
        if unapplied == of.unapplied_sha256 {
            return;
        }
        if let Some(differs) = &self.own_file.differs {
            let event = self.event(Kind::Change, Level::Warning, differs.clone());
            self.tell(event.detail(json!({ "what": "file-differs" })));
        }
        let next = InForce {
            unapplied_sha256: unapplied,
            ..of
        };
        if let Err(e) = self.kept.put_in_force(next) {
            warn!("{e}");
        }
    }

    /// The controller ends as it is told: the next one reads the file.
    pub(super) fn forget_unapplied(&mut self) {
        let of = self.kept.in_force().cloned();
        if let Some(of) = of.filter(|of| of.unapplied_sha256.is_some())
            && let Err(e) = self.kept.put_in_force(InForce {
                unapplied_sha256: None,
                ..of
            })
        {
            warn!("{e}");
        }
    }
}
