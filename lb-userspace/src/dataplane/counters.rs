//! Counters of all CPUs, read in batches: a thousand services have ten thousand of them each tick.

use std::path::Path;

use aya::maps::MapData;

use super::{
    error::{Error, map_error},
    sum,
    syscall::{self, Read},
};

/// How many elements are read at once. On 128 CPUs they are 3 MiB of endpoints' counters.
const BATCH: usize = 1024;

/// A map of counters.
#[derive(Debug)]
pub(super) struct Counters<const N: usize> {
    map: MapData,
    /// How many CPUs there can be: the kernel has a value for each, whether it is there or not.
    cpus: usize,
}

impl<const N: usize> Counters<N> {
    pub(super) fn open(pin: &Path) -> Result<Self, Error> {
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| Error::Io {
            action: "count the CPUs",
            source,
        })?;
        let map = MapData::from_pin(pin).map_err(map_error("open the counters"))?;
        Ok(Self { map, cpus })
    }

    /// The first so many elements, each over all CPUs.
    pub(super) fn read(&self, count: usize) -> Result<Vec<[u64; N]>, Error>
    where
        [u64; N]: bytemuck::Pod,
    {
        let mut counters = Vec::with_capacity(count);
        let mut from = None;
        let mut values = vec![[0; N]; BATCH.min(count) * self.cpus];
        let mut keys = vec![0; BATCH.min(count)];
        while counters.len() < count {
            let some = (count - counters.len()).min(BATCH);
            let values = &mut values[..some * self.cpus];
            let into = (&mut *values, self.cpus);
            let Read { count: read, next } =
                syscall::lookup_per_cpu(&self.map, from, &mut keys[..some], into).map_err(
                    |source| Error::Io {
                        action: "read counters",
                        source,
                    },
                )?;
            let each = values.chunks_exact(self.cpus).take(read);
            counters.extend(each.map(|cpus| sum(cpus.iter())));
            from = next;
            if next.is_none() {
                break;
            }
        }
        // Short only where the map is, which its shape rules out.
        counters.resize(count, [0; N]);
        Ok(counters)
    }
}
