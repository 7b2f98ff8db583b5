//! The configuration file. A placeholder for the command line to compile against.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::model;

/// Why a configuration could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file can be read and says something wrong.
    #[error("{0}")]
    Findings(Findings),
}

/// Everything that is wrong with a file.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Findings(pub Vec<Finding>);

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|finding| {
            writeln!(f, "{}:{}: {}", finding.file, finding.line, finding.problem)
        })
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The file.
    pub file: String,
    /// Its line.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
}

/// Reads and validates a configuration.
///
/// # Errors
///
/// If the file cannot be read or is not valid.
pub fn load(path: &Path) -> Result<model::Config, LoadError> {
    let _ = std::fs::read(path).map_err(|source| LoadError::Read {
        path: path.to_owned(),
        source,
    })?;
    Err(LoadError::Findings(Findings(vec![Finding {
        file: path.display().to_string(),
        line: 1,
        problem: "configurations are not read yet".to_owned(),
    }])))
}

/// The JSON schema of the configuration.
pub fn schema() -> serde_json::Value {
    serde_json::json!({})
}
