//! History: what each backend took and how each service was judged, over time, on disk.
//!
//! Three spans: each second for an hour, each ten seconds for a day, each minute for thirty days.
//! A thread of its own looks at the latest status once a second, adds it to what it collects
//! ([`chunk`], pure), and writes that into an `SQLite` file of its own (`history.db`), so that neither
//! many samples nor a slow disk holds up the control loop or the journal, or costs one event its
//! place. [`Reader`] reads the file, with or without a controller.

pub mod chunk;
mod column;
pub mod series;
mod store;
mod writer;

use std::path::{Path, PathBuf};

pub use self::{
    store::{Error, Reader},
    writer::{Handle, History},
};

/// The file in the state directory.
const FILE: &str = "history.db";

fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

/// Values over time as bars, as high as the highest is full; a dot where nothing is known.
#[must_use]
pub fn bars(values: &[Option<f64>]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().flatten().copied().fold(0.0, f64::max);
    let bar = |value: &Option<f64>| match value {
        None => '·',
        Some(value) if *value <= 0.0 => ' ',
        Some(value) => BARS[((8.0 * value / most).ceil() as usize).clamp(1, 8) - 1],
    };
    values.iter().map(bar).collect()
}

/// How finely a part of the past is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// From one point to the next, in seconds.
    pub step_s: u64,
    /// How long points are kept, in seconds.
    pub kept_s: u64,
    /// How often what is not whole yet is written, in seconds: so much is lost with a crash, and is
    /// in the next finer span.
    pub written_s: u64,
}

/// All of them, the finest first.
pub const SPANS: [Span; 3] = [
    Span {
        step_s: 1,
        kept_s: 3600,
        written_s: 10,
    },
    Span {
        step_s: 10,
        kept_s: 24 * 3600,
        written_s: 30,
    },
    Span {
        step_s: 60,
        kept_s: 30 * 24 * 3600,
        written_s: 60,
    },
];

impl Span {
    /// The finest one that goes back far enough, and is not finer than asked for.
    #[must_use]
    pub fn reaching(back_s: u64, step_s: u64) -> Self {
        let fits = |span: &&Self| span.kept_s >= back_s && step_s < 6 * span.step_s;
        let coarsest = SPANS[SPANS.len() - 1];
        let reaches = |span: &&Self| span.kept_s >= back_s;
        let found = SPANS.iter().find(fits);
        *found
            .or_else(|| SPANS.iter().rfind(reaches))
            .unwrap_or(&coarsest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_from_the_finest_span_that_reaches() {
        for (back, step, expected) in [
            (60, 1, 1),
            (3600, 5, 1),
            (3601, 1, 10),
            (600, 10, 10),
            (86_401, 1, 60),
            (600, 3600, 60),
            (10_000_000, 60, 60),
        ] {
            assert_eq!(Span::reaching(back, step).step_s, expected, "{back} {step}");
        }
    }
}
