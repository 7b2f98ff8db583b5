//! The log on standard error, whose filter can be changed while the process runs.
//!
//! `env_logger` writes the lines; what passes is decided here, by a filter of its own syntax.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use env_filter::{Builder, Filter};
use env_logger::Logger;
use log::{LevelFilter, Log, Metadata, Record};

/// What is logged where nothing else is said.
const DEFAULT: &str = "info";

/// The process's log, once it is set up.
static LOGGING: OnceLock<Logging> = OnceLock::new();

/// Why a filter was not taken.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// It is not understood.
    #[error(
        "'{filter}' is no filter ({reason}): write a level (error, warn, info, debug, trace, off), \
         or levels of modules as in 'info,lb_userspace::health=debug'"
    )]
    Syntax {
        /// What was asked for.
        filter: String,
        /// Why.
        reason: String,
    },
    /// The log of this process was set up by somebody else.
    #[error("the log of this process cannot be changed")]
    NotOurs,
}

/// A filter with the text that it was made of.
struct Filtering {
    text: String,
    filter: Filter,
}

impl Filtering {
    fn parse(text: &str) -> Result<Self, FilterError> {
        let syntax = |reason: String| FilterError::Syntax {
            filter: text.to_owned(),
            reason,
        };
        if text.trim().is_empty() {
            return Err(syntax("it is empty".to_owned()));
        }
        let mut builder = Builder::new();
        builder.try_parse(text).map_err(|e| syntax(e.to_string()))?;
        Ok(Self {
            text: text.to_owned(),
            filter: builder.build(),
        })
    }
}

struct Logging {
    writer: Logger,
    filtering: RwLock<Arc<Filtering>>,
}

impl Logging {
    fn filtering(&self) -> Arc<Filtering> {
        // The value is replaced as a whole: one that a panic left is whole.
        let read = self.filtering.read();
        Arc::clone(&read.unwrap_or_else(PoisonError::into_inner))
    }
}

impl Log for Logging {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filtering().filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.filtering().filter.matches(record) {
            self.writer.log(record);
        }
    }

    fn flush(&self) {
        self.writer.flush();
    }
}

/// Sets up the process's log, by `RUST_LOG` where that is set. Does nothing the second time.
///
/// A filter there that is not understood is complained about, and does not end the process.
pub fn init() {
    let asked = std::env::var(env_logger::DEFAULT_FILTER_ENV).unwrap_or_default();
    let asked = if asked.trim().is_empty() {
        DEFAULT
    } else {
        &asked
    };
    let (filtering, complaint) = match Filtering::parse(asked) {
        Ok(filtering) => (Some(filtering), None),
        Err(e) => (Filtering::parse(DEFAULT).ok(), Some(e)),
    };
    let Some(filtering) = filtering else { return };
    let most = filtering.filter.filter();
    let writer = env_logger::Builder::new()
        .filter_level(LevelFilter::Trace)
        .parse_write_style(&std::env::var(env_logger::DEFAULT_WRITE_STYLE_ENV).unwrap_or_default())
        .format_timestamp_millis()
        .build();
    let logging = LOGGING.get_or_init(|| Logging {
        writer,
        filtering: RwLock::new(Arc::new(filtering)),
    });
    if log::set_logger(logging).is_ok() {
        log::set_max_level(most);
    }
    if let Some(complaint) = complaint {
        log::warn!("{}: {complaint}", env_logger::DEFAULT_FILTER_ENV);
    }
}

/// A word that stands by itself and is no level. The syntax takes it for a module of which all is
/// logged, and of the others nothing: what a mistyped level must not do.
fn mistyped(text: &str) -> Option<&str> {
    let levels = text.split('/').next().unwrap_or_default();
    let words = levels.split(',').map(str::trim);
    let mut single = words.filter(|word| !word.is_empty() && !word.contains('='));
    single.find(|word| word.parse::<LevelFilter>().is_err())
}

/// The filter in force; `None` where this process's log is not this one.
#[must_use]
pub fn filter() -> Option<String> {
    Some(LOGGING.get()?.filtering().text.clone())
}

/// Puts another filter in force, from the next line on.
///
/// # Errors
/// Where it is not understood; the one before stays.
pub fn set_filter(text: &str) -> Result<(), FilterError> {
    let filtering = Filtering::parse(text.trim())?;
    if let Some(word) = mistyped(text) {
        return Err(FilterError::Syntax {
            filter: text.to_owned(),
            reason: format!("'{word}' is no level; of a module, say which: '{word}=debug'"),
        });
    }
    let logging = LOGGING.get().ok_or(FilterError::NotOurs)?;
    let most = filtering.filter.filter();
    let write = logging.filtering.write();
    *write.unwrap_or_else(PoisonError::into_inner) = Arc::new(filtering);
    log::set_max_level(most);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_or_levels_of_modules() {
        for text in [
            "warn",
            "off",
            "info,lb_userspace::health=debug",
            "hyper=error/timeout",
        ] {
            assert!(Filtering::parse(text).is_ok(), "{text}");
        }
        for text in ["", "  ", "info,health=loud", "a=b=c"] {
            let error = Filtering::parse(text).map(|of| of.text).unwrap_err();
            assert!(error.to_string().contains("is no filter"), "{error}");
        }
    }

    #[test]
    fn a_mistyped_level_is_not_taken_for_a_module() {
        assert_eq!(mistyped("debgu"), Some("debgu"));
        assert_eq!(mistyped("info, loud/x,y"), Some("loud"));
        for text in ["debug", "info,a::b=debug", "WARN/some,text", "off,"] {
            assert_eq!(mistyped(text), None, "{text}");
        }
    }

    #[test]
    fn modules_are_told_apart() {
        let filtering = Filtering::parse("warn,lb_userspace::health=debug").unwrap();
        let passes = |target: &str, level| {
            let metadata = Metadata::builder().target(target).level(level).build();
            filtering.filter.enabled(&metadata)
        };
        assert!(passes("lb_userspace::health::driver", log::Level::Debug));
        assert!(!passes("lb_userspace::controller", log::Level::Info));
        assert!(passes("lb_userspace::controller", log::Level::Warn));
    }
}
