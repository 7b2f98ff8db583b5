//! Files that are replaced as a whole.

use std::{
    ffi::OsString,
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use super::Error;

/// Writes a file: wholly, or not at all. It is on the disk when this returns.
pub(super) fn write(path: &Path, contents: &[u8]) -> Result<(), Error> {
    replace(path, contents).map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })
}

fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    if !folder.exists() {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o750))?;
    }
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    // The name is the folder's.
    File::open(folder)?.sync_all()
}

/// Writes a value as JSON.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let mut json = serde_json::to_vec_pretty(value).expect("plain data is JSON");
    json.push(b'\n');
    write(path, &json)
}

/// Reads a value from JSON; `None` where there is no file.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(Error::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|e| Error::Damaged {
            path: path.to_owned(),
            what: e.to_string(),
        })
}

/// Where a damaged file is moved to.
#[must_use]
pub fn damaged_name(path: &Path, now_ms: u64) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".damaged-{now_ms}"));
    name.into()
}

/// Reads a value; one that is damaged is moved away and told in `told`.
pub(super) fn read_or_set_aside<T: DeserializeOwned>(
    path: &Path,
    now_ms: u64,
    told: &mut Vec<String>,
) -> Option<T> {
    match read_json(path) {
        Ok(found) => found,
        Err(damage @ Error::Damaged { .. }) => {
            let aside = damaged_name(path, now_ms);
            told.push(match fs::rename(path, &aside) {
                Ok(()) => format!("{damage}; it is set aside as {}", aside.display()),
                Err(e) => format!("{damage}; it cannot be set aside: {e}"),
            });
            None
        }
        Err(e) => {
            told.push(e.to_string());
            None
        }
    }
}
