//! What the program measures of flows in passing, by endpoint.

use aya::{
    Ebpf,
    maps::{Map, MapData, MapError},
};
use bytemuck::Zeroable as _;
use lb_common::layout;

use super::{
    error::Error,
    syscall::{self, Read},
};

/// How many endpoints are read at once: 400 KiB.
const BATCH: usize = 1024;

/// The histograms.
///
/// They are not pinned: a program that takes another one's place begins at zero.
#[derive(Debug)]
pub(super) struct Histograms {
    map: MapData,
}

impl Histograms {
    /// Takes the map of a loaded object.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, Error> {
        match object.take_map("LATENCIES") {
            Some(Map::Array(map)) => Ok(Self { map }),
            _ => Err(Error::Map {
                action: "find the map of latencies",
                source: MapError::InvalidName {
                    name: "LATENCIES".to_owned(),
                },
            }),
        }
    }

    /// Those of the first so many endpoints.
    pub(super) fn read(&self, count: usize) -> Result<Vec<layout::Latencies>, Error> {
        let mut all = vec![layout::Latencies::zeroed(); count];
        let mut keys = vec![0_u32; BATCH.min(count)];
        let (mut from, mut done) = (None, 0);
        while done < count {
            let some = (count - done).min(BATCH);
            let into = &mut all[done..done + some];
            let Read { count: read, next } =
                syscall::lookup_batch(&self.map, from, &mut keys[..some], into).map_err(
                    |source| Error::Io {
                        action: "read latencies",
                        source,
                    },
                )?;
            done += read;
            from = next;
            if next.is_none() {
                break;
            }
        }
        Ok(all)
    }

    /// Sets those of an endpoint to zero.
    pub(super) fn reset(&self, number: u16) -> Result<(), Error> {
        let zero = layout::Latencies::zeroed();
        syscall::update(&self.map, number.into(), bytemuck::bytes_of(&zero)).map_err(|source| {
            Error::Io {
                action: "reset an endpoint's latencies",
                source,
            }
        })
    }
}
