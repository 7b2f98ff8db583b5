//! The configuration file: read once, at the edge, into [`crate::model::Config`].
//!
//! Everything that is wrong is found at once, each with its place, what is wrong and what would
//! be right.

mod findings;
mod raw;
mod syntax;
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
    let bytes = fs::read(path).map_err(|source| LoadError::Read {
        path: path.to_owned(),
        source,
    })?;
    let config = parse_bytes(&path.display().to_string(), &bytes).map_err(LoadError::Findings)?;
    Ok((config, hex::encode(Sha256::digest(&bytes))))
}

/// The same of a file's bytes, which need not be text.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_bytes(file: &str, bytes: &[u8]) -> Result<Config, Findings> {
    let error = match std::str::from_utf8(bytes) {
        Ok(text) => return parse(file, text),
        Err(error) => error,
    };
    let text = String::from_utf8_lossy(bytes);
    // What comes before is as it was.
    let at = error.valid_up_to();
    let mut report = Report::new(file, &text);
    let byte = bytes[at];
    report.add(
        at..at + char::REPLACEMENT_CHARACTER.len_utf8(),
        &syntax::field(&text, at),
        format!("the byte 0x{byte:02x} is no UTF-8"),
        "save the file as UTF-8",
    );
    Err(report.into_findings())
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
            syntax::report(text, &error, &mut report);
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
