//! The overrides on disk.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Error, file};
use crate::change::overrides::{Override, Overrides};

#[derive(Serialize, Deserialize)]
struct Line {
    service: String,
    backend: String,
    #[serde(flatten)]
    of: Override,
}

fn path(directory: &Path) -> PathBuf {
    directory.join("overrides.json")
}

/// Keeps all of them.
///
/// # Errors
/// Where the file cannot be written; the one before is then left.
pub fn write(directory: &Path, overrides: &Overrides) -> Result<(), Error> {
    let lines: Vec<Line> = overrides
        .iter()
        .map(|((service, backend), of)| Line {
            service: service.clone(),
            backend: backend.clone(),
            of: of.clone(),
        })
        .collect();
    file::write_json(&path(directory), &lines)
}

/// Reads them again; what was wrong with that is added to `told`.
#[must_use]
pub fn read(directory: &Path, now_ms: u64, told: &mut Vec<String>) -> Overrides {
    let path = path(directory);
    let mut wrong = Vec::new();
    let lines: Option<Vec<Line>> = file::read_or_set_aside(&path, now_ms, &mut wrong);
    told.extend(
        wrong.into_iter().map(|what| {
            format!("the overrides are lost, the configuration's weights hold: {what}")
        }),
    );
    let named = |line: Line| ((line.service, line.backend), line.of);
    lines.into_iter().flatten().map(named).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::change::overrides::Rule;

    #[test]
    fn what_is_written_is_read_and_damage_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("not/yet/there");
        let mut told = Vec::new();
        assert_eq!(read(&directory, 5, &mut told), Overrides::default());
        let of = |rule| Override {
            rule,
            actor: "ann".to_owned(),
            reason: Some("disk".to_owned()),
            since_ms: 3,
            expires_ms: Some(9),
        };
        let drain = Rule::Drain {
            deadline_ms: Some(7),
            packets_before: 1 << 60,
            told_complete: true,
        };
        let named = |backend: &str, rule| (("web".to_owned(), backend.to_owned()), of(rule));
        let all: Overrides = [
            named("b1", drain),
            named("b2", Rule::Disable),
            named("b3", Rule::Weight { weight: 5 }),
        ]
        .into_iter()
        .collect();
        write(&directory, &all).unwrap();
        assert_eq!(read(&directory, 5, &mut told), all);
        assert!(told.is_empty(), "{told:?}");

        fs::write(directory.join("overrides.json"), "[{\"service\": \"w").unwrap();
        assert_eq!(read(&directory, 5, &mut told), Overrides::default());
        assert!(told[0].contains("overrides.json.damaged-5"), "{told:?}");
        assert!(directory.join("overrides.json.damaged-5").exists());
        assert_eq!(read(&directory, 6, &mut Vec::new()), Overrides::default());
    }
}
