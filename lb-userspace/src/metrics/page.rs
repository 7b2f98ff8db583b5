//! Metrics written one after another, each with its description.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

use crate::admin::proto::measured::{Durations, Waits};

/// What a metric is called, says and counts in.
#[derive(Debug)]
pub(super) struct Named {
    /// Its name, without prefix, unit and `_total`.
    pub(super) name: &'static str,
    /// What a person should read.
    pub(super) help: &'static str,
    /// The end of its name.
    pub(super) unit: Option<Unit>,
}

/// A metric without a unit.
pub(super) fn plain(name: &'static str, help: &'static str) -> Named {
    Named {
        name,
        help,
        unit: None,
    }
}

/// A metric with a unit.
pub(super) fn of(unit: Unit, name: &'static str, help: &'static str) -> Named {
    Named {
        name,
        help,
        unit: Some(unit),
    }
}

/// The unit of shares and of other fractions.
pub(super) fn ratio() -> Unit {
    Unit::Other("ratio".to_owned())
}

/// Durations that were counted by how long they are: one count more than there are bounds.
pub(super) trait Counted {
    fn bounds(&self) -> &[f64];
    fn counts(&self) -> &[u64];
    fn sum_s(&self) -> f64;
}

impl Counted for Durations {
    fn bounds(&self) -> &[f64] {
        &Self::BOUNDS
    }

    fn counts(&self) -> &[u64] {
        &self.counts
    }

    fn sum_s(&self) -> f64 {
        self.sum_s
    }
}

impl Counted for Waits {
    fn bounds(&self) -> &[f64] {
        &Self::BOUNDS
    }

    fn counts(&self) -> &[u64] {
        &self.counts
    }

    fn sum_s(&self) -> f64 {
        self.sum_s
    }
}

/// The text in the making.
pub(super) struct Page<'a>(pub(super) DescriptorEncoder<'a>);

/// No labels at all.
pub(super) const ALONE: [(&str, &str); 0] = [];

impl Page<'_> {
    /// What goes up and down.
    pub(super) fn gauge<L: EncodeLabelSet>(
        &mut self,
        named: &Named,
        rows: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let (help, unit) = (named.help, named.unit.as_ref());
        let mut metric = self
            .0
            .encode_descriptor(named.name, help, unit, MetricType::Gauge)?;
        for (labels, value) in rows {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// What only grows.
    pub(super) fn counter<L: EncodeLabelSet>(
        &mut self,
        named: &Named,
        rows: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let (help, unit) = (named.help, named.unit.as_ref());
        let mut metric = self
            .0
            .encode_descriptor(named.name, help, unit, MetricType::Counter)?;
        for (labels, value) in rows {
            metric
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    /// How long something took.
    pub(super) fn durations<L: EncodeLabelSet>(
        &mut self,
        named: &Named,
        rows: impl IntoIterator<Item = (L, impl Counted)>,
    ) -> fmt::Result {
        let (help, unit) = (named.help, named.unit.as_ref());
        let mut metric = self
            .0
            .encode_descriptor(named.name, help, unit, MetricType::Histogram)?;
        for (labels, durations) in rows {
            let (bounds, counts) = (durations.bounds(), durations.counts());
            // The library's name of infinity.
            let bounds = bounds.iter().copied().chain([f64::MAX]);
            let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
            metric
                .encode_family(&labels)?
                .encode_histogram::<NoLabelSet>(
                    durations.sum_s(),
                    counts.iter().sum(),
                    &buckets,
                    None,
                )?;
        }
        Ok(())
    }

    /// What is known in words: always one.
    pub(super) fn info<L: EncodeLabelSet>(
        &mut self,
        named: &Named,
        rows: impl IntoIterator<Item = L>,
    ) -> fmt::Result {
        let mut metric =
            self.0
                .encode_descriptor(named.name, named.help, None, MetricType::Info)?;
        for labels in rows {
            metric.encode_info(&labels)?;
        }
        Ok(())
    }
}

/// One or zero.
pub(super) fn truth(is: bool) -> f64 {
    f64::from(u8::from(is))
}
