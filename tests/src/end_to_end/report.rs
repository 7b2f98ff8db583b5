//! What comes of the measurements: for each figure the median, the spread, and ratios.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result};
use procfs::{CpuInfo, Current};
use serde::Serialize;

use super::{Contender, Figure, REFERENCES, Scenario};

/// What one turn of a contender gave.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// In which round, from zero.
    pub round: u32,
    /// Who forwarded.
    pub contender: Contender,
    /// Under which traffic.
    pub scenario: Scenario,
    /// What was measured.
    pub figure: Figure,
    /// The value, in the figure's unit.
    pub value: f64,
}

/// A figure over all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// Who forwarded.
    pub contender: Contender,
    /// Under which traffic.
    pub scenario: Scenario,
    /// What was measured.
    pub figure: Figure,
    /// Its unit; empty for a count.
    pub unit: &'static str,
    /// The value of each round.
    pub rounds: Vec<f64>,
    /// Their median.
    pub median: f64,
    /// The smallest of them.
    pub min: f64,
    /// The largest of them.
    pub max: f64,
    /// The median of the rounds' ratios to another contender in the same round, which takes out
    /// what changes from round to round.
    pub ratio_to: BTreeMap<Contender, f64>,
}

/// Where it was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's model.
    pub processor: String,
    /// How many processors the kernel sees.
    pub processors: usize,
    /// The kernel's release.
    pub kernel: String,
}

impl Machine {
    /// This one.
    ///
    /// # Errors
    ///
    /// Where `/proc` does not tell.
    pub fn look() -> Result<Self> {
        let processors = CpuInfo::current().context("cannot read /proc/cpuinfo")?;
        let path = "/proc/sys/kernel/osrelease";
        let kernel = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        Ok(Self {
            processor: processors.model_name(0).unwrap_or("unknown").to_owned(),
            processors: processors.num_cores(),
            kernel: kernel.trim().to_owned(),
        })
    }
}

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// When it began, in UTC (RFC 3339).
    pub date: String,
    /// Where.
    pub machine: Machine,
    /// How often each contender had its turn.
    pub rounds: u32,
    /// How long each kind of traffic lasted in each turn, in seconds.
    pub seconds: u32,
    /// How many connections made the requests.
    pub connections: u32,
    /// How busy the machine was with something else before each turn, from 0 to 1: the median.
    pub background_median: f64,
    /// The most of the same.
    pub background_max: f64,
    /// Those left out, and why.
    pub left_out: BTreeMap<Contender, String>,
    /// The figures.
    pub records: Vec<Record>,
}

impl Report {
    /// Those measured, in the order of the tables.
    pub fn contenders(&self) -> Vec<Contender> {
        let mut all: Vec<_> = self.records.iter().map(|record| record.contender).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// One of the records.
    pub fn record(
        &self,
        contender: Contender,
        scenario: Scenario,
        figure: Figure,
    ) -> Option<&Record> {
        let wanted = (contender, scenario, figure);
        let mut all = self.records.iter();
        all.find(|record| (record.contender, record.scenario, record.figure) == wanted)
    }
}

/// Puts the rounds together, by contender, scenario and figure.
pub fn records(samples: &[Sample]) -> Vec<Record> {
    let mut series: BTreeMap<_, BTreeMap<u32, f64>> = BTreeMap::new();
    for sample in samples {
        let key = (sample.contender, sample.scenario, sample.figure);
        let rounds = series.entry(key).or_default();
        rounds.insert(sample.round, sample.value);
    }
    let record = |(key, values): (&(Contender, Scenario, Figure), &BTreeMap<u32, f64>)| {
        let (contender, scenario, figure) = *key;
        let ratio = |reference: Contender| {
            let others = series.get(&(reference, scenario, figure))?;
            let ratios: Option<Vec<f64>> = values
                .iter()
                .map(|(round, value)| others.get(round).map(|other| value / other))
                .collect();
            Some((reference, median(&ratios?)?)).filter(|(_, ratio)| ratio.is_finite())
        };
        let rounds: Vec<f64> = values.values().copied().collect();
        Some(Record {
            contender,
            scenario,
            figure,
            unit: figure.unit(),
            median: median(&rounds)?,
            min: rounds.iter().copied().fold(f64::INFINITY, f64::min),
            max: rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            rounds,
            ratio_to: REFERENCES.into_iter().filter_map(ratio).collect(),
        })
    };
    series.iter().filter_map(record).collect()
}

/// The median and the largest of some values; zero of none.
pub fn median_and_max(values: &[f64]) -> (f64, f64) {
    let max = values.iter().copied().fold(0.0, f64::max);
    (median(values).unwrap_or_default(), max)
}

/// The middle value, or the mean of the two in the middle; none of none.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(contender: Contender, figure: Figure, values: &[f64]) -> Vec<Sample> {
        let sample = |(round, &value): (usize, &f64)| Sample {
            round: round as u32,
            contender,
            scenario: Scenario::Close,
            figure,
            value,
        };
        values.iter().enumerate().map(sample).collect()
    }

    #[test]
    fn ratios_are_taken_within_the_rounds() {
        // The ratios are 2, 2 and 4; that of the medians would be 4.
        let all = [
            samples(Contender::Dsr, Figure::Rate, &[600.0, 200.0, 400.0]),
            samples(Contender::Nftables, Figure::Rate, &[300.0, 100.0, 100.0]),
        ];
        let records = records(&all.concat());
        let dsr = &records[0];
        assert_eq!(dsr.contender, Contender::Dsr);
        assert_eq!((dsr.median, dsr.min, dsr.max), (400.0, 200.0, 600.0));
        assert_eq!(dsr.ratio_to, BTreeMap::from([(Contender::Nftables, 2.0)]));
    }

    #[test]
    fn a_reference_of_zero_gives_no_ratio() {
        let all = [
            samples(Contender::Dsr, Figure::Errors, &[0.0, 3.0]),
            samples(Contender::Direct, Figure::Errors, &[0.0, 0.0]),
        ];
        for record in records(&all.concat()) {
            assert_eq!(record.ratio_to, BTreeMap::new(), "{record:?}");
        }
    }

    #[test]
    fn an_even_number_of_rounds_has_a_median_too() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[]), None);
    }
}
