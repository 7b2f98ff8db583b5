//! Samples of the connections that clients open.

use std::collections::BTreeMap;

use aya::{
    Ebpf,
    maps::{Array, MapData, MapError, RingBuf},
};
use lb_common::layout::SampledFlow;

use super::error::{Error, map_error};

/// The samples, and of how many connections one is noted.
///
/// Neither map is pinned: a program that takes another one's place has its own, and what the other
/// one noted last is lost.
pub struct Samples {
    ring: RingBuf<MapData>,
    sampling: Array<MapData, u32>,
    /// What `sampling` holds, but for zeroes.
    noted: BTreeMap<u16, u32>,
}

impl Samples {
    /// Takes the maps of a loaded object, which notes nothing yet.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, Error> {
        let mut map = |name: &str| {
            object.take_map(name).ok_or_else(|| Error::Map {
                action: "find the maps of samples",
                source: MapError::InvalidName {
                    name: name.to_owned(),
                },
            })
        };
        Ok(Self {
            ring: RingBuf::try_from(map("SAMPLES")?).map_err(map_error("open the samples"))?,
            sampling: Array::try_from(map("SAMPLING")?)
                .map_err(map_error("open the rates of samples"))?,
            noted: BTreeMap::new(),
        })
    }

    /// Takes out what was noted since the last time.
    pub fn read(&mut self) -> Vec<SampledFlow> {
        let mut samples = Vec::new();
        while let Some(item) = self.ring.next() {
            samples.extend(bytemuck::try_pod_read_unaligned::<SampledFlow>(&item).ok());
        }
        // A lot of zero is noted also where nothing is to be, and stands for nothing.
        samples.retain(|sample| sample.one_of > 0);
        samples
    }

    /// Has one of so many connections to each endpoint noted, a power of two, and none of those to
    /// others.
    ///
    /// # Errors
    /// Where the kernel does not take it.
    pub fn note(&mut self, rates: &BTreeMap<u16, u32>) -> Result<(), Error> {
        let gone: Vec<(u16, u32)> = self
            .noted
            .keys()
            .filter(|number| !rates.contains_key(number))
            .map(|&number| (number, 0))
            .collect();
        let changed: Vec<(u16, u32)> = rates
            .iter()
            .filter(|(number, rate)| self.noted.get(number) != Some(rate))
            .map(|(&number, &rate)| (number, rate))
            .chain(gone)
            .collect();
        for (number, rate) in changed {
            self.sampling
                .set(u32::from(number), rate, 0)
                .map_err(map_error("say which connections are noted"))?;
            if rate == 0 {
                self.noted.remove(&number);
            } else {
                self.noted.insert(number, rate);
            }
        }
        Ok(())
    }
}
