//! The configuration file: read once, at the edge, into [`crate::model::Config`].
//!
//! Everything that is wrong is found at once, each with its place, what is wrong and what would
//! be right.

mod findings;
mod raw;
mod unknown;
mod validate;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

pub use findings::{Finding, Findings};

use crate::{config::findings::Report, model::Config};

/// Why a configuration could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("read the configuration {}: {source}; name another with an argument", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file can be read and says something wrong.
    #[error("{0}")]
    Findings(Findings),
}

/// Reads and validates a configuration file.
///
/// # Errors
/// Where it cannot be read or is not valid.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    load_with_digest(path).map(|(config, _)| config)
}

/// The same, with the SHA-256 of the file's text in hexadecimal digits, by which it is known again.
///
/// # Errors
/// As [`load`].
pub fn load_with_digest(path: &Path) -> Result<(Config, String), LoadError> {
    let text = fs::read_to_string(path).map_err(|source| LoadError::Read {
        path: path.to_owned(),
        source,
    })?;
    let config = parse(&path.display().to_string(), &text).map_err(LoadError::Findings)?;
    Ok((config, hex::encode(Sha256::digest(&text))))
}

/// Validates a configuration; `file` is its name in the findings.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(file: &str, text: &str) -> Result<Config, Findings> {
    let mut report = Report::new(file, text);
    let mut strange = Vec::new();
    let raw: raw::Config = match toml::Deserializer::parse(text).and_then(|document| {
        serde_ignored::deserialize(document, |path| strange.push(unknown::segments(&path)))
    }) {
        Ok(raw) => raw,
        Err(error) => {
            let at = error.span().unwrap_or(0..0);
            report.add(
                at,
                "",
                error.message(),
                "see docs/evenkeel.toml for the shape of the file",
            );
            return Err(report.into_findings());
        }
    };
    unknown::report(text, &strange, &mut report);
    let config = validate::config(&raw, &mut report);
    match config {
        Some(config) if report.is_empty() => Ok(config),
        _ => Err(report.into_findings()),
    }
}

/// The JSON schema of the file, for editors.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(raw::Config).to_value()
}

#[cfg(test)]
mod tests;
