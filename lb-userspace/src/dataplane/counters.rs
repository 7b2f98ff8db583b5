//! Counters of all CPUs, read in batches: a thousand services have ten thousand of them each tick.

use std::{io, path::Path};

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
        let batch = |from, keys: &mut [u32], values: &mut [[u64; N]]| {
            syscall::lookup_per_cpu(&self.map, from, keys, (values, self.cpus))
        };
        in_batches(count, self.cpus, batch).map_err(|source| Error::Io {
            action: "read counters",
            source,
        })
    }
}

/// The first so many elements, each over all CPUs, by reading a batch from where the last one ended.
fn in_batches<const N: usize>(
    count: usize,
    cpus: usize,
    mut read: impl FnMut(Option<u32>, &mut [u32], &mut [[u64; N]]) -> io::Result<Read>,
) -> io::Result<Vec<[u64; N]>> {
    let mut counters = Vec::with_capacity(count);
    let mut from = None;
    let mut values = vec![[0; N]; BATCH.min(count) * cpus];
    let mut keys = vec![0; BATCH.min(count)];
    while counters.len() < count {
        let some = (count - counters.len()).min(BATCH);
        let values = &mut values[..some * cpus];
        let Read { count: read, next } = read(from, &mut keys[..some], values)?;
        let each = values.chunks_exact(cpus).take(read);
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

#[cfg(test)]
mod tests {
    use super::*;

    const CPUS: usize = 3;

    /// A map of so many elements: of element n, CPU c has counted n + c and 10 n.
    fn map(size: u32) -> impl FnMut(Option<u32>, &mut [u32], &mut [[u64; 2]]) -> io::Result<Read> {
        move |from, keys, values| {
            assert_eq!(values.len(), keys.len() * CPUS, "a value for each CPU");
            let start = from.unwrap_or(0);
            let end = size.min(start + keys.len() as u32);
            // What is behind the end is left as it was, which is not nothing.
            values.fill([999; 2]);
            for (n, cpus) in (start..end).zip(values.chunks_exact_mut(CPUS)) {
                for (cpu, value) in (0..).zip(cpus) {
                    *value = [u64::from(n) + cpu, 10 * u64::from(n)];
                }
            }
            Ok(Read {
                count: (end - start) as usize,
                next: (end < size).then_some(end),
            })
        }
    }

    fn expected(n: u64) -> [u64; 2] {
        [3 * n + 3, 30 * n]
    }

    #[test]
    fn every_element_is_summed_over_all_cpus_once() {
        let most = BATCH as u64;
        for count in [0, 1, 2, most - 1, most, most + 1, 2 * most, 3 * most + 7] {
            let read = in_batches(count as usize, CPUS, map(1 << 16)).unwrap();
            let all: Vec<_> = (0..count).map(expected).collect();
            assert!(read == all, "{count} elements");
        }
    }

    #[test]
    fn what_the_map_does_not_have_is_zero() {
        for size in [1, BATCH, BATCH + 5] {
            let read = in_batches(BATCH + 10, CPUS, map(size as u32)).unwrap();
            let mut all: Vec<_> = (0..size as u64).map(expected).collect();
            all.resize(BATCH + 10, [0; 2]);
            assert!(read == all, "a map of {size} elements");
        }
    }

    #[test]
    fn a_failure_halfway_is_one() {
        let mut whole = map(1 << 16);
        let read = in_batches(BATCH + 10, CPUS, |from, keys, values| match from {
            None => whole(from, keys, values),
            Some(_) => Err(io::ErrorKind::PermissionDenied.into()),
        });
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
