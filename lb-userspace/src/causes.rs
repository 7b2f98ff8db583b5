//! Errors with their causes, in one line.

use std::error::Error;

/// Writes an error and its causes, leaving out those that the text so far already says.
///
/// Some libraries put the cause into their message and some do not; both read well this way.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("open it: {0}")]
        Repeats(#[source] io::Error),
        #[error("open it")]
        Leaves(#[source] io::Error),
    }

    #[test]
    fn a_cause_is_told_once() {
        let cause = || io::Error::other("no such thing");
        assert_eq!(
            with_causes(&Outer::Repeats(cause())),
            "open it: no such thing"
        );
        assert_eq!(
            with_causes(&Outer::Leaves(cause())),
            "open it: no such thing"
        );
    }
}
