//! Points that lie together: sixty at most, of one service, at one step.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
};

use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
use serde::{Deserialize, Serialize};

use super::column::Column;
use crate::admin::proto::{Latency, Service, Verdict};

/// How many points a chunk holds.
pub const POINTS: u64 = 60;
/// Stands for what is not known.
pub const ABSENT: u32 = u32::MAX;

/// What is known of a backend at a point. Whole numbers lie small on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Connections that it got since the point before.
    pub new_flows: u32,
    /// Its intended share, in millionths.
    pub share: u32,
    /// What is in force of its weight, in thousandths.
    pub weight: u32,
    /// How long the last probe took that passed, in microseconds.
    pub latency: u32,
    /// Whether it is up: 1 or 0.
    pub up: u32,
    /// How long handshakes of its flows took, in microseconds: the median of about half a minute.
    pub handshake: u32,
    /// How long responses took, likewise.
    pub response: u32,
    /// What 99 of 100 responses did not exceed.
    pub response_p99: u32,
}

impl Point {
    /// Nothing is known.
    pub const NOTHING: Self = Self {
        new_flows: ABSENT,
        share: ABSENT,
        weight: ABSENT,
        latency: ABSENT,
        up: ABSENT,
        handshake: ABSENT,
        response: ABSENT,
        response_p99: ABSENT,
    };

    /// Both as one point. Connections add up, the longest latency and the worst health count, and the
    /// rest is as it was last.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        let either = |a: u32, b: u32, both: fn(u32, u32) -> u32| match (a, b) {
            (ABSENT, known) | (known, ABSENT) => known,
            (a, b) => both(a, b),
        };
        Self {
            new_flows: either(self.new_flows, later.new_flows, |a, b| {
                a.saturating_add(b).min(ABSENT - 1)
            }),
            share: either(self.share, later.share, |_, b| b),
            weight: either(self.weight, later.weight, |_, b| b),
            latency: either(self.latency, later.latency, u32::max),
            up: either(self.up, later.up, u32::min),
            handshake: either(self.handshake, later.handshake, u32::max),
            response: either(self.response, later.response, u32::max),
            response_p99: either(self.response_p99, later.response_p99, u32::max),
        }
    }
}

/// A number by its first two digits: it was measured to within a factor of 1.4, and what stays the
/// same takes little room.
fn coarse(value: u32) -> u32 {
    let digits = value.checked_ilog10().unwrap_or(0);
    let unit = 10_u32.pow(digits.saturating_sub(1));
    value / unit * unit
}

/// What is known of a service at a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// 0: even, 1: cannot tell, 2: skewed.
    pub verdict: u8,
    /// Its backends, by name.
    pub backends: BTreeMap<String, Point>,
}

impl Sample {
    /// A service as it is; `before` says how many connections each backend had got at the point
    /// before, and is brought up to date.
    #[must_use]
    pub fn of(service: &Service, before: &mut BTreeMap<String, u64>) -> Self {
        let mut counted = BTreeMap::new();
        let mut backends = BTreeMap::new();
        for backend in &service.backends {
            let had = before.get(&backend.name).copied();
            // A number that is handed out anew starts at zero.
            let grown = had.and_then(|had| backend.new_flows.checked_sub(had));
            let passed = backend.last_probe.as_ref().filter(|probe| probe.passed);
            let whole = |value: f64| value.round().clamp(0.0, f64::from(ABSENT - 1)) as u32;
            let traffic = |took: Option<&Latency>, of: fn(&Latency) -> f64| {
                took.map_or(ABSENT, |took| coarse(whole(of(took) * 1e3)))
            };
            let response = backend.response.as_ref();
            let point = Point {
                new_flows: grown.map_or(ABSENT, |n| {
                    u32::try_from(n).unwrap_or(ABSENT).min(ABSENT - 1)
                }),
                share: whole(backend.intended_share * 1e6),
                weight: backend
                    .weight_in_force
                    .map_or(ABSENT, |weight| whole(weight * 1e3)),
                latency: passed.map_or(ABSENT, |probe| whole(probe.took_ms * 1e3)),
                up: match &*backend.health {
                    "up" | "unchecked" => 1,
                    "down" => 0,
                    _ => ABSENT,
                },
                handshake: traffic(backend.handshake.as_ref(), |took| took.median_ms),
                response: traffic(response, |took| took.median_ms),
                response_p99: traffic(response, |took| took.p99_ms),
            };
            counted.insert(backend.name.clone(), backend.new_flows);
            backends.insert(backend.name.clone(), point);
        }
        *before = counted;
        Self {
            verdict: match service.evenness.verdict {
                Verdict::Even => 0,
                Verdict::CannotTell => 1,
                Verdict::Skewed => 2,
            },
            backends,
        }
    }
}

/// A backend's points.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Columns {
    new_flows: Column,
    share: Column,
    weight: Column,
    latency: Column,
    up: Column,
    // These came later: files from before have none.
    #[serde(default)]
    handshake: Column,
    #[serde(default)]
    response: Column,
    #[serde(default)]
    response_p99: Column,
}

impl Columns {
    fn columns(&mut self) -> [&mut Column; 8] {
        [
            &mut self.new_flows,
            &mut self.share,
            &mut self.weight,
            &mut self.latency,
            &mut self.up,
            &mut self.handshake,
            &mut self.response,
            &mut self.response_p99,
        ]
    }

    fn point(&self, n: usize) -> Point {
        Point {
            new_flows: self.new_flows.get(n),
            share: self.share.get(n),
            weight: self.weight.get(n),
            latency: self.latency.get(n),
            up: self.up.get(n),
            handshake: self.handshake.get(n),
            response: self.response.get(n),
            response_p99: self.response_p99.get(n),
        }
    }

    fn put(&mut self, n: usize, point: Point) {
        let values = [
            point.new_flows,
            point.share,
            point.weight,
            point.latency,
            point.up,
            point.handshake,
            point.response,
            point.response_p99,
        ];
        for (column, value) in self.columns().into_iter().zip(values) {
            column.put(n, value);
        }
    }
}

/// Points of one service. Each has a place: how many steps after the chunk's beginning it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    places: Vec<u8>,
    verdicts: Vec<u8>,
    backends: BTreeMap<String, Columns>,
}

impl Chunk {
    /// Adds what is known at a place; to what is there it is joined. Of a place before the last one,
    /// after a clock was set back, enough is known.
    pub fn add(&mut self, place: u8, sample: &Sample) {
        let last = self.places.last().copied();
        if last.is_some_and(|last| last > place) {
            return;
        }
        let joins = last == Some(place);
        if !joins {
            self.places.push(place);
            self.verdicts.push(sample.verdict);
        }
        let n = self.places.len() - 1;
        self.verdicts[n] = self.verdicts[n].max(sample.verdict);
        for (name, point) in &sample.backends {
            if !self.backends.contains_key(name) {
                self.backends.insert(name.clone(), Columns::default());
            }
            let Some(columns) = self.backends.get_mut(name) else {
                continue;
            };
            let point = if joins {
                columns.point(n).and(*point)
            } else {
                *point
            };
            columns.put(n, point);
        }
    }

    /// The points, in order, each with its place.
    pub fn samples(&self) -> impl Iterator<Item = (u8, Sample)> {
        self.places.iter().enumerate().map(|(n, &place)| {
            let of = |(name, columns): (&String, &Columns)| (name.clone(), columns.point(n));
            let sample = Sample {
                verdict: self.verdicts.get(n).copied().unwrap_or(1),
                backends: self.backends.iter().map(of).collect(),
            };
            (place, sample)
        })
    }

    /// Puts in front what is on disk from before its own first place: another controller's, of the
    /// same time. What it wrote there itself, it has.
    #[must_use]
    pub fn after(&self, before: &Self) -> Self {
        let first = self.places.first().copied();
        let mut joined = Self::default();
        let earlier = |(place, _): &(u8, Sample)| first.is_none_or(|first| *place < first);
        for (place, sample) in before.samples().filter(earlier).chain(self.samples()) {
            joined.add(place, &sample);
        }
        joined
    }

    /// As it lies on disk.
    ///
    /// # Errors
    /// Never in practice: plain numbers are written into memory.
    pub fn pack(&self) -> io::Result<Vec<u8>> {
        let text = serde_json::to_vec(self)?;
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
        // At once: for each piece, the encoder clears all that is left of its buffer.
        packed.write_all(&text)?;
        packed.finish()
    }

    /// From disk.
    ///
    /// # Errors
    /// Where it is damaged.
    pub fn unpack(packed: &[u8]) -> io::Result<Self> {
        let mut text = Vec::new();
        // Sixty points of a thousand backends are some hundred kilobytes.
        let limit = 64 << 20;
        ZlibDecoder::new(packed)
            .take(limit)
            .read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }
}

#[cfg(test)]
mod tests;
