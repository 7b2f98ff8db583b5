//! What `cargo xtask bench control` may be asked for, and how it is handed to the benchmark.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The options, which xtask and the benchmark read alike.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Options {
    /// How many services there are
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub services: u16,
    /// How many backends each of them has; a configuration takes 16,384 pairs of both
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u8).range(2..=16))]
    pub backends: u8,
    /// How many services are probed where the probes are measured, each with all its backends
    #[arg(long, value_name = "N", default_value_t = 200,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub probed: u16,
    /// How long processor time is measured in each situation
    #[arg(long, value_name = "N", default_value_t = 60,
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// How many starts and changes are measured
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Print the records as JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Write table and records to control-DATE.md and .json in this folder
    #[arg(long, value_name = "FOLDER", num_args = 0..=1,
          default_missing_value = "docs/benchmarks")]
    pub save: Option<PathBuf>,
}

impl Options {
    /// The words that make the benchmark read the same options, wherever it runs: paths begin at
    /// `folder`.
    pub fn to_words(&self, folder: &Path) -> Vec<OsString> {
        let numbers = [
            ("--services", u32::from(self.services)),
            ("--backends", self.backends.into()),
            ("--probed", self.probed.into()),
            ("--seconds", self.seconds),
            ("--rounds", self.rounds),
        ];
        let numbers = numbers.into_iter();
        let mut words: Vec<OsString> = numbers
            .flat_map(|(option, number)| [option.into(), number.to_string().into()])
            .collect();
        if self.json {
            words.push("--json".into());
        }
        if let Some(path) = &self.save {
            words.extend(["--save".into(), folder.join(path).into()]);
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn the_benchmark_reads_what_xtask_has_read() {
        for words in [
            &[][..],
            &["--services", "20", "--backends", "3", "--probed", "7"],
            &["--seconds", "2", "--rounds", "1", "--json", "--save"],
            &["--save", "a b"],
        ] {
            let mut options = Line::parse_from(["bench"].iter().chain(words)).options;
            let words = options.to_words(Path::new("/x"));
            options.save = options.save.map(|path| Path::new("/x").join(path));
            let line = std::iter::once("bench".into()).chain(words);
            assert_eq!(Line::parse_from(line).options, options);
        }
    }
}
