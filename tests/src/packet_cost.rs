//! What `cargo xtask bench` may be asked for, and how it is handed to the benchmark.

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use clap::ValueEnum;

/// How a service's packets reach its backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Mode {
    /// By rewriting the MAC addresses.
    Dsr,
    /// IP in IP.
    Ipip,
    /// IP in UDP.
    Gue,
    /// By rewriting the destination.
    Nat,
    /// By rewriting source and destination.
    Snat,
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// A SYN over IPv4.
    Syn,
    /// A segment of an established connection over IPv4.
    Established,
    /// The same, of a service of whose flows no latency is measured.
    Unmeasured,
    /// A datagram over IPv4.
    Udp,
    /// A segment of an established connection over IPv6.
    Ipv6,
    /// A segment that is addressed to no service.
    NonVip,
    /// A segment of a remembered flow, in a slot that is in transition.
    TrackedHit,
    /// The first segment of a flow that has to be remembered; flows are those that are already.
    TrackedMiss,
}

macro_rules! name {
    ($kind:ty) => {
        impl $kind {
            /// The name at the command line and in the records.
            pub fn name(self) -> String {
                let value = self.to_possible_value().expect("no variant is skipped");
                value.get_name().to_owned()
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.name())
            }
        }
    };
}
name!(Mode);
name!(Kind);

/// The options, which xtask and the benchmark read alike. Lists are separated by commas, and take
/// what is named out of the whole matrix.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Options {
    /// Measure these modes only
    #[arg(long, value_name = "MODE,…", value_delimiter = ',')]
    pub mode: Vec<Mode>,
    /// Measure these packets only
    #[arg(long, value_name = "CASE,…", value_delimiter = ',')]
    pub case: Vec<Kind>,
    /// Measure these numbers of flows (of 1, 1000, 100000 and 1000000 where it is not given)
    #[arg(long, value_name = "N,…", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub flows: Vec<u32>,
    /// Measure these numbers of services (of 1, 64 and 1000)
    #[arg(long, value_name = "N,…", value_delimiter = ',',
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub services: Vec<u16>,
    /// Measure these numbers of backends of each service (of 3, 100 and 4000)
    #[arg(long, value_name = "N,…", value_delimiter = ',',
          value_parser = clap::value_parser!(u16).range(2..=4000))]
    pub backends: Vec<u16>,
    /// Take 1 and 1000 flows, 1 service and 3 backends where nothing else is asked for, and
    /// fewer rounds
    #[arg(long)]
    pub quick: bool,
    /// Go on with each case for so many seconds, for a profiler to look at it meanwhile
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub hold: Option<u64>,
    /// Print the records as JSON instead of tables
    #[arg(long)]
    pub json: bool,
    /// Write a chart
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Write tables, records and chart to packet-DATE.md, .json and .svg in this folder
    #[arg(long, value_name = "FOLDER", num_args = 0..=1,
          default_missing_value = "docs/benchmarks")]
    pub save: Option<PathBuf>,
}

impl Options {
    /// The modes to measure.
    pub fn modes(&self) -> Vec<Mode> {
        chosen(&self.mode, Mode::value_variants())
    }

    /// The packets to measure.
    pub fn kinds(&self) -> Vec<Kind> {
        chosen(&self.case, Kind::value_variants())
    }

    /// The numbers of flows to measure, rising.
    pub fn numbers_of_flows(&self) -> Vec<u32> {
        let all = [1, 1000, 100_000, 1_000_000];
        chosen(&self.flows, if self.quick { &all[..2] } else { &all })
    }

    /// The numbers of services and backends to measure.
    pub fn sizes(&self) -> Vec<(u16, u16)> {
        let few = usize::from(self.quick);
        let services = chosen(&self.services, &[1, 64, 1000][..3 - 2 * few]);
        let backends = chosen(&self.backends, &[3, 100, 4000][..3 - 2 * few]);
        let sizes = services
            .into_iter()
            .flat_map(|services| backends.iter().map(move |&backends| (services, backends)));
        sizes.collect()
    }

    /// The words that make the benchmark read the same options, wherever it runs: paths begin at
    /// `folder`.
    pub fn to_words(&self, folder: &Path) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        let lists = [
            ("--mode", joined(&self.mode)),
            ("--case", joined(&self.case)),
            ("--flows", joined(&self.flows)),
            ("--services", joined(&self.services)),
            ("--backends", joined(&self.backends)),
        ];
        if let Some(seconds) = self.hold {
            words.extend(["--hold".into(), seconds.to_string().into()]);
        }
        for (option, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            words.extend([option.into(), list.into()]);
        }
        let asked = [("--quick", self.quick), ("--json", self.json)];
        words.extend(
            asked
                .iter()
                .filter(|(_, on)| *on)
                .map(|(word, _)| word.into()),
        );
        for (option, path) in [("--svg", &self.svg), ("--save", &self.save)] {
            if let Some(path) = path {
                words.extend([option.into(), folder.join(path).into()]);
            }
        }
        words
    }
}

/// What was asked for in rising order, or all.
fn chosen<T: Copy + Ord>(asked: &[T], all: &[T]) -> Vec<T> {
    let mut chosen = if asked.is_empty() { all } else { asked }.to_vec();
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

fn joined<T: ToString>(list: &[T]) -> String {
    let words: Vec<_> = list.iter().map(T::to_string).collect();
    words.join(",")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn the_benchmark_reads_what_xtask_was_asked() {
        let asked = "bench --mode gue,dsr --case tracked-hit --flows 1,7 --services 64 \
                     --backends 3 --quick --hold 5 --json --svg a.svg --save /b";
        let mut asked = Words::parse_from(asked.split_whitespace()).options;
        let words = asked.to_words(Path::new("/here"));
        let read = Words::parse_from([OsString::from("bench")].into_iter().chain(words)).options;
        asked.svg = Some("/here/a.svg".into());
        assert_eq!(read, asked);
        assert_eq!(read.modes(), [Mode::Dsr, Mode::Gue]);
        assert_eq!(read.sizes(), [(64, 3)]);
    }

    #[test]
    fn all_is_measured_where_nothing_is_asked() {
        let options = Options::default();
        assert_eq!(options.modes().len(), 5);
        assert_eq!(options.kinds().len(), 8);
        assert_eq!(options.numbers_of_flows().len(), 4);
        assert_eq!(options.sizes().len(), 9);
    }
}
