//! What `cargo xtask bench e2e` may be asked for, and how it is handed to the benchmark.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::{ValueEnum, builder::RangedU64ValueParser};

use super::Contender;

/// The options, which xtask and the benchmark read alike.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Options {
    /// How often each contender has its turn, in a new network each time
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = RangedU64ValueParser::<u32>::new().range(1..=1000))]
    pub rounds: u32,
    /// How long each kind of traffic is measured in each turn
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = RangedU64ValueParser::<u32>::new().range(1..=3600))]
    pub seconds: u32,
    /// Measure these only
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub only: Vec<Contender>,
    /// Print the records as JSON instead of tables
    #[arg(long)]
    pub json: bool,
    /// Write a chart of the medians
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Write tables, records and chart to e2e-DATE.md, .json and .svg in this folder
    #[arg(long, value_name = "FOLDER")]
    pub save: Option<PathBuf>,
}

impl Options {
    /// Those to measure, as far as asked for; the order is that of the tables.
    pub fn contenders(&self) -> Vec<Contender> {
        let all = Contender::value_variants().iter().copied();
        all.filter(|contender| self.only.is_empty() || self.only.contains(contender))
            .collect()
    }

    /// The words that make the benchmark read the same options, wherever it runs: paths begin at
    /// `folder`.
    pub fn to_words(&self, folder: &Path) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![
            "--rounds".into(),
            self.rounds.to_string().into(),
            "--seconds".into(),
            self.seconds.to_string().into(),
        ];
        if !self.only.is_empty() {
            let names: Vec<_> = self.only.iter().map(|contender| contender.name()).collect();
            words.extend(["--only".into(), names.join(",").into()]);
        }
        if self.json {
            words.push("--json".into());
        }
        for (option, path) in [("--svg", &self.svg), ("--save", &self.save)] {
            if let Some(path) = path {
                words.extend([option.into(), folder.join(path).into()]);
            }
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

    fn parse(words: &[&str]) -> Options {
        let line = ["bench"].iter().chain(words);
        Line::try_parse_from(line).unwrap().options
    }

    #[test]
    fn the_benchmark_reads_what_xtask_has_read() {
        for words in [
            &[][..],
            &["--rounds", "7", "--seconds", "20", "--json"],
            &[
                "--only",
                "dsr,bare-xdp",
                "--svg",
                "a b.svg",
                "--save",
                "docs",
            ],
        ] {
            let mut options = parse(words);
            let words = options.to_words(Path::new("/x"));
            let line = std::iter::once("bench".into()).chain(words);
            options.svg = options.svg.map(|path| Path::new("/x").join(path));
            options.save = options.save.map(|path| Path::new("/x").join(path));
            assert_eq!(Line::parse_from(line).options, options);
        }
    }

    #[test]
    fn contenders_come_in_their_own_order_and_all_unless_named() {
        assert_eq!(
            parse(&["--only", "haproxy,direct"]).contenders(),
            [Contender::Direct, Contender::Haproxy]
        );
        assert_eq!(parse(&[]).contenders(), Contender::value_variants());
    }
}
