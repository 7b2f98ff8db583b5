//! What the status says, in the format that Prometheus collects.
//!
//! The text is `OpenMetrics` 1.0. Durations are in seconds, sizes in bytes, shares fractions of one;
//! counters have the suffix `_total`. A series has the names of the configuration as its labels
//! (services, backends, receivers), or words of a closed list (reasons, verdicts, levels), and never
//! a client's address, so that there are as many as there are services and backends, and no more.

mod backend;
mod host;
mod page;
mod service;

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector, encoding::DescriptorEncoder, encoding::text, registry::Registry,
};

use self::page::Page;
use crate::admin::proto::Status;

/// What a scraper is told that [`text()`] is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every metric, as they follow from a status.
#[must_use]
pub fn text(status: &Arc<Status>) -> String {
    let mut registry = Registry::with_prefix("evenkeel");
    registry.register_collector(Box::new(Latest(Arc::clone(status))));
    let mut written = String::new();
    // Writing to a string cannot fail.
    let _ = text::encode(&mut written, &registry);
    written
}

#[derive(Debug)]
struct Latest(Arc<Status>);

impl Collector for Latest {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        host::write(&self.0, &mut page)?;
        service::write(&self.0.services, &mut page)?;
        backend::write(&self.0.services, &mut page)
    }
}

/// Seconds since the Unix epoch.
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

#[cfg(test)]
mod tests;
