//! Which configuration a start goes on with: the file's, or one that was applied.
//!
//! Whatever was put in force last is in force, and nothing that nobody asked for: an applied
//! configuration outlives a crash, and an edit of the file that a running controller saw and
//! nobody applied does not come into force by a crash. See ADR 0015.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    configurations::{Entry, InForce, Kept, digest},
    overrides,
};
use crate::{
    audit,
    causes::with_causes,
    change::overrides::Overrides,
    config::{self, LoadError},
    journal::Level,
    model::{Config, State},
};

/// What a start goes on with.
#[derive(Debug)]
pub struct Opening {
    /// The configuration.
    pub config: Config,
    /// The digest of its text.
    pub sha256: String,
    /// The controller's own file.
    pub file: PathBuf,
    /// What is kept; [`Kept::in_force`] says which one this is, where it could be written.
    pub kept: Kept,
    /// The overrides.
    pub overrides: Overrides,
    /// What somebody should know of all that.
    pub told: Vec<(Level, String)>,
}

/// What a start takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// The file: nothing was in force before.
    First,
    /// The file, which says what is in force.
    Same,
    /// The file, which was edited since.
    Edited,
    /// What is in force: the file is older.
    Applied,
    /// What is in force: the file was edited, not applied, and the controller crashed.
    Unapplied,
    /// What is in force: the file is of no use.
    FileUnusable,
    /// What was in force before: the change was not confirmed in time.
    NotConfirmed(u64),
}

/// Chooses. `file` is the digest of the controller's own file, where it is valid.
fn choose(file: Option<&str>, in_force: Option<(&InForce, &str)>, now_ms: u64) -> Choice {
    let Some((of, applied)) = in_force else {
        return Choice::First;
    };
    match (of.confirm_by_ms, of.before) {
        (Some(by), Some(before)) if by <= now_ms => return Choice::NotConfirmed(before),
        _ => {}
    }
    match file {
        None => Choice::FileUnusable,
        Some(file) if file == applied => Choice::Same,
        Some(file) if Some(file) == of.file_sha256.as_deref() => Choice::Applied,
        Some(file) if Some(file) == of.unapplied_sha256.as_deref() => Choice::Unapplied,
        Some(_) => Choice::Edited,
    }
}

/// Opens the state directory that a configuration file names and says what to start with.
///
/// # Errors
/// Where the file is of no use and nothing is kept in its place.
pub fn open(file: &Path, now_ms: u64) -> Result<Opening, LoadError> {
    let path = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let text = fs::read_to_string(file).map_err(|source| LoadError::Read {
        path: file.to_owned(),
        source,
    });
    let name = file.display().to_string();
    let loaded = text.and_then(|text| {
        let config = config::parse(&name, &text).map_err(LoadError::Findings)?;
        Ok((config, text))
    });
    let directory = match &loaded {
        Ok((config, _)) => config.state.directory.clone(),
        Err(_) => directory_of(file),
    };
    let mut warnings = Vec::new();
    let kept = Kept::open(&directory, now_ms, &mut warnings);
    let overrides = overrides::read(&directory, now_ms, &mut warnings);
    let mut opening = Opener {
        file: path.display().to_string(),
        kept,
        told: warnings
            .into_iter()
            .map(|what| (Level::Error, what))
            .collect(),
        now_ms,
    };
    let (config, sha256) = opening.settle(loaded)?;
    Ok(Opening {
        config,
        sha256,
        file: path,
        kept: opening.kept,
        overrides,
        told: opening.told,
    })
}

/// The state directory that a file names which is not valid otherwise.
fn directory_of(file: &Path) -> PathBuf {
    let named = || {
        let table: toml::Table = fs::read_to_string(file).ok()?.parse().ok()?;
        let directory = table.get("state")?.get("directory")?.as_str()?;
        Some(PathBuf::from(directory))
    };
    named().unwrap_or_else(|| State::DIRECTORY.into())
}

/// The text of a file; `None` where it cannot be read.
///
/// # Errors
/// Where it is there and cannot be read.
pub fn digest_of_file(file: &Path) -> io::Result<String> {
    fs::read_to_string(file).map(|text| digest(&text))
}

struct Opener {
    file: String,
    kept: Kept,
    told: Vec<(Level, String)>,
    now_ms: u64,
}

impl Opener {
    /// Chooses, and keeps what is chosen.
    fn settle(
        &mut self,
        loaded: Result<(Config, String), LoadError>,
    ) -> Result<(Config, String), LoadError> {
        let own = loaded.as_ref().ok().map(|(_, text)| digest(text));
        let choice = self.choice(own.as_deref());
        let taken = match choice {
            Choice::First | Choice::Same | Choice::Edited => None,
            Choice::NotConfirmed(before) => Some(before),
            Choice::Applied | Choice::Unapplied | Choice::FileUnusable => {
                self.kept.in_force().map(|of| of.number)
            }
        };
        let taken = taken.and_then(|number| match self.read(number) {
            Ok(read) => Some((number, read)),
            Err(why) => {
                let what = format!("configuration {number} should be in force and is lost: {why}");
                self.told.push((Level::Error, what));
                None
            }
        });
        let Some((number, (config, text))) = taken else {
            let (config, text) = loaded?;
            let sha256 = digest(&text);
            self.take_file(choice, &config, &text, sha256.clone());
            return Ok((config, sha256));
        };
        let file = &self.file;
        match choice {
            Choice::Applied => self.warn(format!(
                "configuration {number} is in force, as it was put there last; {file} says something \
                 else and is NOT: write it there too ('evenkeel rollback --list' says where it is kept)"
            )),
            Choice::Unapplied => self.warn(format!(
                "the controller before this one did not end as told: configuration {number} stays \
                 in force, and the changes of {file} that were not applied are NOT ('evenkeel \
                 plan {file}' shows them)"
            )),
            Choice::NotConfirmed(_) => {
                let what = format!(
                    "the last change was not confirmed in time: configuration {number} is in force \
                     again"
                );
                self.warn(what);
                self.keep_rollback(number, &text);
            }
            _ => {
                let why = match &loaded {
                    Err(e) => with_causes(e),
                    Ok(_) => String::new(),
                };
                let what = format!(
                    "{file} is of no use, so configuration {number}, which was in force, stays: \
                     {why}"
                );
                self.told.push((Level::Error, what));
            }
        }
        Ok((config, digest(&text)))
    }

    fn choice(&self, own: Option<&str>) -> Choice {
        let in_force = self.kept.in_force().zip(self.kept.digest_in_force());
        // Another file's state is none of its.
        let in_force = in_force.filter(|(of, _)| of.file == self.file);
        choose(own, in_force, self.now_ms)
    }

    fn read(&self, number: u64) -> Result<(Config, String), String> {
        let text = self.kept.text(number).map_err(|e| e.to_string())?;
        let name = format!("configuration {number}");
        let config = config::parse(&name, &text).map_err(|findings| findings.to_string())?;
        Ok((config, text))
    }

    fn warn(&mut self, what: String) {
        self.told.push((Level::Warning, what));
    }

    /// The file is in force.
    fn take_file(&mut self, choice: Choice, config: &Config, text: &str, sha256: String) {
        let before = self.kept.in_force().map(|of| of.number);
        if choice == Choice::Same
            && let Some(of) = self.kept.in_force()
        {
            let agreed = InForce {
                file_sha256: Some(sha256),
                unapplied_sha256: None,
                ..of.clone()
            };
            if agreed != *of {
                self.put_in_force(agreed);
            }
            return;
        }
        if choice == Choice::Edited
            && let Some(before) = before
        {
            let file = &self.file;
            self.warn(format!(
                "{file} was changed since configuration {before} came into force, and takes its \
                 place with this start"
            ));
        }
        for finding in audit::config::judge(config, &[]) {
            if finding.level >= audit::Level::Error {
                self.warn(format!("the audit finds: {finding}"));
            }
        }
        let entry = Entry {
            sha256: sha256.clone(),
            file: self.file.clone(),
            at_ms: self.now_ms,
            actor: "controller".to_owned(),
            how: "start".to_owned(),
            ..Entry::default()
        };
        self.keep(entry, text, before, Some(sha256));
    }

    fn keep_rollback(&mut self, number: u64, text: &str) {
        let Some(of) = self.kept.in_force().cloned() else {
            return;
        };
        let entry = Entry {
            sha256: digest(text),
            file: self
                .kept
                .entry(number)
                .map_or_else(String::new, |e| e.file.clone()),
            at_ms: self.now_ms,
            actor: "controller".to_owned(),
            how: "rollback".to_owned(),
            reason: Some(format!("configuration {} was not confirmed", of.number)),
            copy_of: Some(number),
            ..Entry::default()
        };
        self.keep(entry, text, Some(of.number), of.file_sha256);
    }

    fn keep(&mut self, entry: Entry, text: &str, before: Option<u64>, own: Option<String>) {
        match self.kept.add(entry, text) {
            Ok(number) => self.put_in_force(InForce {
                number,
                before,
                file: self.file.clone(),
                file_sha256: own,
                ..InForce::default()
            }),
            Err(e) => self.not_kept(&e),
        }
    }

    fn put_in_force(&mut self, of: InForce) {
        if let Err(e) = self.kept.put_in_force(of) {
            self.not_kept(&e);
        }
    }

    fn not_kept(&mut self, why: &super::Error) {
        let what = format!("the configuration in force is not kept: {why}");
        self.told.push((Level::Error, what));
    }
}

#[cfg(test)]
mod tests;
