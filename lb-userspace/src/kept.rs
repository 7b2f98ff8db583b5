//! What the state directory keeps of what was done to a controller: the configurations that were in
//! force, the overrides, and what of backends' weights was in force by degrees.
//!
//! Plain files of text and JSON, each replaced as a whole. One that is damaged is set aside, with a
//! message that says so, and forwarding goes on by what is left.

pub mod configurations;
pub mod degrees;
pub mod drill;
mod file;
pub mod opening;
pub mod overrides;

use std::{io, path::PathBuf};

pub use file::damaged_name;

/// Why something could not be kept, or read again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be written.
    #[error("cannot keep {}: {source}; make room in that file system, or mount it writable", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it was written with.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How that shows.
        what: String,
    },
    /// There is no such configuration.
    #[error(
        "there is no configuration {number}: 'evenkeel rollback --list' shows those that are kept"
    )]
    Unknown {
        /// Its number.
        number: u64,
    },
}
