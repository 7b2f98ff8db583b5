//! Writing to standard output and standard error without a panic where nobody reads.

use std::io::{self, Write};

use thiserror::Error;

/// Standard output took no more.
#[derive(Debug, Error)]
#[error("cannot write to standard output")]
pub(super) struct WriteError(#[source] pub(super) io::Error);

/// Writes text as it is, at once.
pub(super) fn print(text: &str) -> Result<(), WriteError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(WriteError)
}

/// Writes a line to standard error; where even that is closed there is nobody left to tell.
pub(super) fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Text from elsewhere (names, what a backend answered) with everything made visible that could
/// steer a terminal or reorder what it shows.
pub(super) fn plain(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .fold(String::with_capacity(text.len()), |mut out, c| {
            if steers(c) {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
            out
        })
}
