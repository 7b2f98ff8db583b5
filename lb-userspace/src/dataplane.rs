//! The kernel's side: program, links and maps, and what the controller asks of them.

pub mod attach;
mod counters;
pub mod decap;
mod error;
pub mod explain;
pub mod flows;
mod found;
pub mod kernel;
mod latencies;
mod layouts;
mod maps;
mod mirror;
pub(crate) mod pins;
mod published;
pub mod requirements;
mod rings;
pub mod samples;
mod sources;
pub mod steering;
mod syscall;
pub mod trace;
mod upgrade;

use std::path::{Path, PathBuf};

use lb_common::layout::{EndpointCounters, ExitCounters};

use crate::{balance::image::Image, dataplane::kernel::Error};

/// Where a folder of pins has a map of this version.
///
/// # Panics
/// Where there is no such map.
#[must_use]
pub fn pin(folder: &Path, map: &str) -> PathBuf {
    let shape = maps::named(map).expect("a map that is pinned");
    folder.join(shape.pin_name())
}

/// What the controller asks of a data plane.
pub trait DataPlane {
    /// Makes every packet from now on follow an image: wholly, all services at once.
    ///
    /// When it returns, no packet follows the image before it any more.
    ///
    /// # Errors
    /// The packets then go on following the image before it.
    fn publish(&mut self, image: &Image) -> Result<(), Error>;

    /// Reads back what packets follow; `None` before the first publication.
    ///
    /// # Errors
    /// Where the kernel does not answer, or what it holds is not of this layout.
    fn live(&self) -> Result<Option<Image>, Error>;

    /// What an endpoint was sent, over all CPUs.
    ///
    /// # Errors
    /// Where the kernel does not answer.
    fn endpoint(&self, number: u16) -> Result<EndpointCounters, Error>;

    /// What the first so many endpoints were sent, over all CPUs, by their numbers.
    ///
    /// # Errors
    /// Where the kernel does not answer.
    fn endpoints(&self, count: usize) -> Result<Vec<EndpointCounters>, Error>;

    /// What left by another way, over all CPUs, by row: the first so many of them.
    ///
    /// # Errors
    /// Where the kernel does not answer.
    fn exit_rows(&self, count: usize) -> Result<Vec<ExitCounters>, Error>;

    /// What left by another way, over all CPUs, by row.
    ///
    /// # Errors
    /// Where the kernel does not answer.
    fn exits(&self, row: u32) -> Result<ExitCounters, Error>;
}

/// The compiled XDP object.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/evenkeel-xdp"));

/// The compiled XDP object of the decapsulator.
pub static DECAP_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/evenkeel-decap"));

/// The compiled programs that steer probes.
pub static PROBE_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/evenkeel-probe"));

/// The compiled XDP object that explains.
pub static EXPLAIN_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/evenkeel-explain"));

/// The compiled XDP object that tells what it decides.
pub static TRACE_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/evenkeel-trace"));

/// The compiled programs of the benchmark, which no controller loads.
pub static BENCH_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/evenkeel-bench"));

/// Counters over all CPUs.
fn sum<'a, const N: usize>(values: impl Iterator<Item = &'a [u64; N]>) -> [u64; N] {
    values.fold([0; N], |total, cpu| {
        std::array::from_fn(|n| total[n].wrapping_add(cpu[n]))
    })
}
