//! The configurations that were in force, by number, and which one is.
//!
//! `configurations/7.toml` is a text, `configurations/7.json` says who put it in force and why, and
//! `in-force.json` names the one that counts. They are written in this order, and before packets
//! follow them: where the disk takes nothing, nothing changes.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use log::warn;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Error, file};
use crate::admin::proto::change::Configuration;

/// How many are kept.
const MOST: usize = 50;
/// Where they are, in the state directory.
const FOLDER: &str = "configurations";

/// A text's SHA-256 in hexadecimal digits.
#[must_use]
pub fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

/// The texts that a state directory keeps, for who only looks: what cannot be read is left out, and
/// nothing is set aside.
#[must_use]
pub fn texts(directory: &Path) -> Vec<String> {
    let folder = fs::read_dir(directory.join(FOLDER));
    let paths = folder.into_iter().flatten().flatten().map(|of| of.path());
    let texts = paths.filter(|path| path.extension().is_some_and(|of| of == "toml"));
    texts
        .filter_map(|path| fs::read_to_string(path).ok())
        .collect()
}

/// How and why a configuration came into force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The SHA-256 of its text.
    pub sha256: String,
    /// The file that it was read from.
    pub file: String,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who did it.
    pub actor: String,
    /// `start`, `apply`, `rollback` or `reload`.
    pub how: String,
    /// Why.
    pub reason: Option<String>,
    /// The configuration whose text it has, where it was rolled back to.
    pub copy_of: Option<u64>,
    /// Audit findings that were overruled by force.
    #[serde(default)]
    pub forced: Vec<String>,
}

/// Which configuration is in force, and what was known of the controller's own file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// Its number.
    pub number: u64,
    /// The one that was in force before.
    pub before: Option<u64>,
    /// The controller's own file.
    pub file: String,
    /// The digest of that file's text when this came into force; absent where it could not be read.
    pub file_sha256: Option<String>,
    /// The digest of a later text of that file that a running controller saw and nobody applied.
    #[serde(default)]
    pub unapplied_sha256: Option<String>,
    /// When the one before comes back, unless this one is confirmed.
    #[serde(default)]
    pub confirm_by_ms: Option<u64>,
}

/// All configurations that are kept.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    directory: PathBuf,
    entries: BTreeMap<u64, Entry>,
    in_force: Option<InForce>,
}

impl Kept {
    /// Reads what a state directory holds; what is wrong with that is added to `told`.
    #[must_use]
    pub fn open(directory: &Path, now_ms: u64, told: &mut Vec<String>) -> Self {
        let mut kept = Self {
            directory: directory.to_owned(),
            ..Self::default()
        };
        let folder = fs::read_dir(kept.folder()).into_iter().flatten().flatten();
        for path in folder.map(|entry| entry.path()) {
            let is_json = path
                .extension()
                .is_some_and(|extension| extension == "json");
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            if let (true, Some(number)) = (is_json, stem.and_then(|stem| stem.parse().ok()))
                && let Some(entry) = file::read_or_set_aside(&path, now_ms, told)
            {
                kept.entries.insert(number, entry);
            }
        }
        let in_force: Option<InForce> =
            file::read_or_set_aside(&kept.path_of_in_force(), now_ms, told);
        kept.in_force = in_force.filter(|found| {
            let known = kept.entries.contains_key(&found.number);
            if !known {
                let number = found.number;
                told.push(format!("configuration {number} was in force and is lost"));
            }
            known
        });
        // Kept by a change that a crash cut off before it came into force.
        if let Some(last) = kept.in_force.as_ref().map(|of| of.number) {
            let later: Vec<u64> = kept.entries.range(last + 1..).map(|(n, _)| *n).collect();
            for number in later {
                kept.remove(number);
            }
        }
        kept
    }

    fn folder(&self) -> PathBuf {
        self.directory.join(FOLDER)
    }

    fn path_of_in_force(&self) -> PathBuf {
        self.directory.join("in-force.json")
    }

    fn path(&self, number: u64, extension: &str) -> PathBuf {
        self.folder().join(format!("{number}.{extension}"))
    }

    /// Which one is in force.
    #[must_use]
    pub const fn in_force(&self) -> Option<&InForce> {
        self.in_force.as_ref()
    }

    /// One of them.
    #[must_use]
    pub fn entry(&self, number: u64) -> Option<&Entry> {
        self.entries.get(&number)
    }

    /// The digest of the one that is in force.
    #[must_use]
    pub fn digest_in_force(&self) -> Option<&str> {
        let number = self.in_force.as_ref()?.number;
        self.entry(number).map(|entry| entry.sha256.as_str())
    }

    /// The text of one of them.
    ///
    /// # Errors
    /// Where it is not kept, or is not what it was.
    pub fn text(&self, number: u64) -> Result<String, Error> {
        let entry = self.entry(number).ok_or(Error::Unknown { number })?;
        let path = self.path(number, "toml");
        let text = fs::read_to_string(&path).map_err(|source| Error::Read {
            path: path.clone(),
            source,
        })?;
        if digest(&text) == entry.sha256 {
            Ok(text)
        } else {
            Err(Error::Damaged {
                path,
                what: "its text is not the one that was kept".to_owned(),
            })
        }
    }

    /// Keeps a configuration; answers its number. It is not in force yet.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn add(&mut self, entry: Entry, text: &str) -> Result<u64, Error> {
        let last = self
            .entries
            .last_key_value()
            .map_or(0, |(number, _)| *number);
        let lost = self.in_force.as_ref().map_or(0, |of| of.number);
        let number = last.max(lost) + 1;
        file::write(&self.path(number, "toml"), text.as_bytes())?;
        file::write_json(&self.path(number, "json"), &entry)?;
        self.entries.insert(number, entry);
        Ok(number)
    }

    /// Takes back what [`Kept::add`] did.
    pub fn remove(&mut self, number: u64) {
        self.entries.remove(&number);
        for extension in ["json", "toml"] {
            let path = self.path(number, extension);
            if let Err(e) = fs::remove_file(&path) {
                warn!("cannot remove {}: {e}", path.display());
            }
        }
    }

    /// Says which one is in force from now on.
    ///
    /// # Errors
    /// Where that cannot be written; the one before then is.
    pub fn put_in_force(&mut self, in_force: InForce) -> Result<(), Error> {
        file::write_json(&self.path_of_in_force(), &in_force)?;
        self.in_force = Some(in_force);
        self.prune();
        Ok(())
    }

    /// Removes the oldest beyond those that are kept.
    fn prune(&mut self) {
        let needed = self.in_force.clone().unwrap_or_default();
        let too_many = self.entries.len().saturating_sub(MOST);
        let old: Vec<u64> = self
            .entries
            .keys()
            .copied()
            .filter(|&number| number != needed.number && Some(number) != needed.before)
            .take(too_many)
            .collect();
        for number in old {
            self.remove(number);
        }
    }

    /// One of them as the API shows it.
    #[must_use]
    pub fn shown(&self, number: u64) -> Option<Configuration> {
        let entry = self.entry(number)?;
        let in_force = self.in_force.as_ref().filter(|of| of.number == number);
        Some(Configuration {
            number,
            sha256: entry.sha256.clone(),
            file: entry.file.clone(),
            at_ms: entry.at_ms,
            actor: entry.actor.clone(),
            how: entry.how.clone(),
            reason: entry.reason.clone(),
            copy_of: entry.copy_of,
            forced: entry.forced.clone(),
            in_force: in_force.is_some(),
            confirm_by_ms: in_force.and_then(|of| of.confirm_by_ms),
            file_differs: None,
        })
    }

    /// All of them as the API shows them, the newest first.
    #[must_use]
    pub fn list(&self) -> Vec<Configuration> {
        let numbers = self.entries.keys().rev();
        numbers.filter_map(|&number| self.shown(number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Entry {
        Entry {
            sha256: digest(text),
            how: "apply".to_owned(),
            ..Entry::default()
        }
    }

    fn in_force(number: u64) -> InForce {
        InForce {
            number,
            before: number.checked_sub(1),
            ..InForce::default()
        }
    }

    #[test]
    fn configurations_are_found_again_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let mut told = Vec::new();
        let mut kept = Kept::open(folder.path(), 1, &mut told);
        assert!(kept.in_force().is_none());
        for n in 1..=MOST as u64 + 3 {
            let text = format!("text {n}");
            assert_eq!(kept.add(entry(&text), &text).unwrap(), n);
            kept.put_in_force(in_force(n)).unwrap();
        }
        // What was kept and did not come into force leaves no trace.
        assert_eq!(kept.add(entry("x"), "x").unwrap(), 54);
        let kept = Kept::open(folder.path(), 1, &mut told);
        assert_eq!(told, Vec::<String>::new());
        assert_eq!(kept.in_force(), Some(&in_force(53)));
        assert_eq!(kept.list().len(), MOST);
        assert_eq!(kept.list()[0].number, 53);
        assert!(kept.list()[0].in_force && !kept.list()[1].in_force);
        assert_eq!(kept.text(53).unwrap(), "text 53");
        assert!(matches!(kept.text(3), Err(Error::Unknown { number: 3 })));
    }

    #[test]
    fn damage_is_noticed_and_costs_only_what_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = Kept::open(folder.path(), 1, &mut Vec::new());
        for text in ["one", "two"] {
            let number = kept.add(entry(text), text).unwrap();
            kept.put_in_force(in_force(number)).unwrap();
        }
        fs::write(kept.path(1, "toml"), "other").unwrap();
        assert!(matches!(kept.text(1), Err(Error::Damaged { .. })));
        fs::write(kept.path(2, "json"), "{").unwrap();
        let mut told = Vec::new();
        let mut kept = Kept::open(folder.path(), 7, &mut told);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("2.json.damaged-7"), "{told:?}");
        assert!(told[1].contains("configuration 2 was in force"), "{told:?}");
        assert!(kept.in_force().is_none());
        assert!(kept.add(entry("three"), "three").unwrap() > 1);
    }

    #[test]
    fn where_the_disk_takes_nothing_nothing_changes() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = Kept::open(folder.path(), 1, &mut Vec::new());
        // A file in the place of the folder.
        fs::write(folder.path().join("configurations"), "").unwrap();
        let refused = kept.add(entry("x"), "x").unwrap_err().to_string();
        assert!(refused.contains("make room"), "{refused}");
        assert!(kept.list().is_empty());
    }
}
