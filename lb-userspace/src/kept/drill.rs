//! The drill that is on, on disk: written before its fault is there, so that whoever starts next takes
//! the fault back.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Error, file};
use crate::change::overrides::{Overrides, Rule};

/// A drill that the controller itself brings about. Times are in milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its word.
    pub drill: String,
    /// The service.
    pub service: String,
    /// The backend.
    pub backend: Option<String>,
    /// What is done, in words.
    pub what: String,
    /// Who began it.
    pub actor: String,
    /// When it began.
    pub since_ms: u64,
    /// When it ends by itself.
    pub ends_ms: u64,
}

impl Kept {
    /// Whether an override is this drill's, and not one that somebody put in its place.
    #[must_use]
    pub fn is_in(&self, overrides: &Overrides) -> bool {
        let backend = self.backend.as_deref().unwrap_or_default();
        let of = overrides.of(&self.service, backend);
        of.is_some_and(|of| of.since_ms == self.since_ms && matches!(of.rule, Rule::Weight { .. }))
    }

    /// The overrides without the one that is this drill's; `None` where there is none.
    #[must_use]
    pub fn taken_from(&self, overrides: &Overrides) -> Option<Overrides> {
        self.is_in(overrides).then(|| {
            let mut left = overrides.clone();
            left.end(&(
                self.service.clone(),
                self.backend.clone().unwrap_or_default(),
            ));
            left
        })
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join("drill.json")
}

/// Keeps it.
///
/// # Errors
/// Where the file cannot be written.
pub fn write(directory: &Path, of: &Kept) -> Result<(), Error> {
    file::write_json(&path(directory), of)
}

/// Forgets it: its fault is not there any more.
///
/// # Errors
/// Where the file cannot be removed.
pub fn forget(directory: &Path) -> Result<(), Error> {
    let path = path(directory);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::Write { path, source: e }),
        _ => Ok(()),
    }
}

/// Reads it again; what was wrong with the file is added to `told`.
#[must_use]
pub fn read(directory: &Path, now_ms: u64, told: &mut Vec<String>) -> Option<Kept> {
    let mut wrong = Vec::new();
    let found = file::read_or_set_aside(&path(directory), now_ms, &mut wrong);
    told.extend(wrong.into_iter().map(|what| {
        format!("whether a drill was on is not known, an override of its ends by itself: {what}")
    }));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::overrides::Override;

    fn kept() -> Kept {
        Kept {
            drill: "skew".to_owned(),
            service: "web".to_owned(),
            backend: Some("b2".to_owned()),
            what: "more".to_owned(),
            actor: "ann".to_owned(),
            since_ms: 7,
            ends_ms: 9,
        }
    }

    #[test]
    fn what_is_written_is_read_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut told = Vec::new();
        forget(folder.path()).unwrap();
        assert_eq!(read(folder.path(), 1, &mut told), None);
        write(folder.path(), &kept()).unwrap();
        assert_eq!(read(folder.path(), 1, &mut told), Some(kept()));
        forget(folder.path()).unwrap();
        assert_eq!(read(folder.path(), 1, &mut told), None);
        assert!(told.is_empty(), "{told:?}");
        fs::write(path(folder.path()), "{").unwrap();
        assert_eq!(read(folder.path(), 1, &mut told), None);
        assert_eq!(told.len(), 1);
    }

    #[test]
    fn an_override_of_somebody_else_is_left_alone() {
        let of = |since_ms| Override {
            rule: Rule::Weight { weight: 9 },
            actor: "ann".to_owned(),
            reason: None,
            since_ms,
            expires_ms: None,
        };
        let name = ("web".to_owned(), "b2".to_owned());
        let own: Overrides = [(name.clone(), of(7))].into_iter().collect();
        assert_eq!(kept().taken_from(&own), Some(Overrides::default()));
        let other: Overrides = [(name, of(8))].into_iter().collect();
        assert_eq!(kept().taken_from(&other), None);
        assert_eq!(kept().taken_from(&Overrides::default()), None);
    }
}
