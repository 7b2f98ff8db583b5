//! What a secret is at present.

use std::{env, fs, io, path::PathBuf};

use crate::model::Secret;

/// Why a secret cannot be had. It says where it is, and never what.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its file cannot be read.
    #[error("cannot read the secret in {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its variable cannot be read.
    #[error("cannot read the secret in the variable {name}: {source}")]
    Variable {
        /// The variable.
        name: String,
        /// Why.
        #[source]
        source: env::VarError,
    },
    /// There is nothing where it should be.
    #[error("the secret in {0} is empty: write it there")]
    Empty(String),
}

/// A secret as it is now.
///
/// # Errors
/// Where it cannot be read, or is empty.
pub fn reveal(secret: &Secret) -> Result<String, Error> {
    let (found, place) = match secret {
        Secret::File(path) => {
            let text = fs::read_to_string(path).map_err(|source| Error::File {
                path: path.clone(),
                source,
            })?;
            (text, path.display().to_string())
        }
        Secret::Env(name) => {
            let text = env::var(name).map_err(|source| Error::Variable {
                name: name.clone(),
                source,
            })?;
            (text, format!("the variable {name}"))
        }
    };
    let trimmed = found.trim_end_matches(['\r', '\n']);
    if trimmed.is_empty() {
        return Err(Error::Empty(place));
    }
    Ok(trimmed.to_owned())
}
