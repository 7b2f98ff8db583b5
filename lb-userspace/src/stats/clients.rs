//! Who opens a service's connections, as far as samples tell.
//!
//! The data plane notes one of so many new flows, with its client and its backend. From these, the
//! last minute of them, follow the heaviest clients and the concentration: the Herfindahl–Hirschman
//! index, the probability that two flows are of the same client. Its inverse is the number of
//! clients that would be as concentrated if all were alike.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

/// The time that samples are kept.
pub const WINDOW: Duration = Duration::from_mins(1);
/// How many of the heaviest clients are named, and looked away from.
const HEAVIEST: usize = 3;

/// A new flow that stands for others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Who opened it; of IPv6, the first 64 bits of the address, the rest zero.
    pub client: IpAddr,
    /// The index of its backend.
    pub backend: usize,
    /// How many flows it stands for, at least one.
    pub one_of: u32,
    /// The slot that it fell into; above the ring's mask, any bits.
    pub slot: u16,
}

/// The samples of the last minute.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    /// By when they were read, the oldest first. Shared, because the controller's state is copied
    /// for each change of the configuration.
    read: VecDeque<(Duration, Arc<[Sample]>)>,
}

impl Clients {
    /// Takes what was noted since the last time, and forgets what is older than a minute.
    pub fn push(&mut self, now: Duration, samples: Vec<Sample>) {
        while let Some((at, _)) = self.read.front()
            && *at + WINDOW < now
        {
            self.read.pop_front();
        }
        if !samples.is_empty() {
            self.read.push_back((now, samples.into()));
        }
    }

    /// The samples.
    pub fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.read.iter().flat_map(|(_, samples)| samples.iter())
    }

    /// What the samples say that were read later than `since`, of a service of so many backends.
    #[must_use]
    pub fn summary(&self, since: Duration, backends: usize) -> Summary {
        let read = self.read.iter().filter(|(at, _)| *at > since);
        Summary::of(read.flat_map(|(_, samples)| samples.iter()), backends)
    }
}

/// One of the heaviest clients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heavy {
    /// Who; see [`Sample::client`].
    pub client: IpAddr,
    /// Its part of the new flows, as a fraction of one.
    pub share: f64,
}

/// What samples say.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// How many there are.
    pub samples: usize,
    /// New flows of each backend, by the samples.
    pub taken: Vec<f64>,
    /// The same without those of the heaviest clients.
    pub taken_by_others: Vec<f64>,
    /// The heaviest clients, at most three.
    pub heaviest: Vec<Heavy>,
    /// The probability that two flows are of the same client; `None` below two samples.
    pub concentration: Option<f64>,
}

impl Summary {
    fn of<'a>(samples: impl Iterator<Item = &'a Sample>, backends: usize) -> Self {
        let mut taken = vec![0.0; backends];
        let mut clients: HashMap<IpAddr, (f64, Vec<(usize, f64)>)> = HashMap::new();
        let (mut count, mut squares) = (0, 0.0);
        for sample in samples {
            let weight = f64::from(sample.one_of);
            count += 1;
            squares += weight * weight;
            taken[sample.backend] += weight;
            let (all, by_backend) = clients.entry(sample.client).or_default();
            *all += weight;
            // A client has few backends, mostly one.
            match by_backend.iter_mut().find(|(of, _)| *of == sample.backend) {
                Some((_, of)) => *of += weight,
                None => by_backend.push((sample.backend, weight)),
            }
        }
        let flows: f64 = taken.iter().sum();
        let of_clients: f64 = clients.values().map(|(all, _)| all * all).sum();
        // Pairs of a sample with itself tell nothing.
        let pairs = flows * flows - squares;
        let mut order: Vec<_> = clients.into_iter().collect();
        // By address where they are alike, so that the same samples always say the same.
        order.sort_by(|(a, (x, _)), (b, (y, _))| y.total_cmp(x).then(a.cmp(b)));
        order.truncate(HEAVIEST);
        let mut taken_by_others = taken.clone();
        for (_, (_, by_backend)) in &order {
            for (backend, weight) in by_backend {
                taken_by_others[*backend] -= weight;
            }
        }
        let heavy = |(client, (all, _)): &(IpAddr, (f64, _))| Heavy {
            client: *client,
            share: all / flows,
        };
        Self {
            samples: count,
            taken,
            taken_by_others,
            heaviest: order.iter().map(heavy).collect(),
            concentration: (pairs > 0.0).then(|| ((of_clients - squares) / pairs).max(0.0)),
        }
    }

    /// How many clients that are all alike would be as concentrated; `None` where that cannot be
    /// told, because hardly two flows are of the same one.
    #[must_use]
    pub fn effective(&self) -> Option<f64> {
        let index = self.concentration?;
        // With fewer than three pairs the number would be chance's.
        let pairs = (self.samples * self.samples.saturating_sub(1)) as f64 / 2.0;
        (index * pairs >= 3.0).then(|| 1.0 / index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0xc000_0200 + n).into()
    }

    fn samples(of: &[(u32, usize, usize)]) -> Vec<Sample> {
        of.iter()
            .flat_map(|&(from, backend, times)| {
                let sample = Sample {
                    client: client(from),
                    backend,
                    one_of: 1,
                    slot: 0,
                };
                std::iter::repeat_n(sample, times)
            })
            .collect()
    }

    fn summary(of: Vec<Sample>) -> Summary {
        let mut clients = Clients::default();
        clients.push(Duration::from_secs(1), of);
        clients.summary(Duration::ZERO, 3)
    }

    #[test]
    fn equal_clients_are_as_many_as_they_are() {
        let equal: Vec<_> = (0..50).map(|n| (n, n as usize % 3, 20)).collect();
        let effective = summary(samples(&equal)).effective().unwrap();
        // Exactly alike is more even than chance.
        assert!((effective - 50.0).abs() < 3.0, "{effective}");
        // A sample of one in four says the same.
        let quarter: Vec<_> = (0..50).map(|n| (n, n as usize % 3, 5)).collect();
        let mut quarter = samples(&quarter);
        for sample in &mut quarter {
            sample.one_of = 4;
        }
        let effective = summary(quarter).effective().unwrap();
        assert!((effective - 60.0).abs() < 12.0, "{effective}");
    }

    #[test]
    fn clients_that_come_once_are_many() {
        let once: Vec<_> = (0..500).map(|n| (n, 0, 1)).collect();
        let summary = summary(samples(&once));
        assert_eq!(summary.concentration, Some(0.0));
        assert_eq!(summary.effective(), None);
    }

    #[test]
    fn the_heaviest_are_named_and_looked_away_from() {
        let summary = summary(samples(&[
            (1, 0, 30),
            (1, 1, 10),
            (2, 2, 20),
            (3, 0, 6),
            (4, 1, 5),
            (5, 2, 4),
        ]));
        let shares: Vec<_> = summary
            .heaviest
            .iter()
            .map(|h| (h.client, h.share))
            .collect();
        assert_eq!(
            shares,
            [
                (client(1), 40.0 / 75.0),
                (client(2), 20.0 / 75.0),
                (client(3), 6.0 / 75.0)
            ]
        );
        assert_eq!(summary.taken, [36.0, 15.0, 24.0]);
        assert_eq!(summary.taken_by_others, [0.0, 5.0, 4.0]);
    }

    #[test]
    fn a_minute_is_kept_and_a_part_of_it_can_be_asked_about() {
        let mut clients = Clients::default();
        for second in 1..=100 {
            clients.push(Duration::from_secs(second), samples(&[(1, 0, 1)]));
        }
        let of = |since| clients.summary(Duration::from_secs(since), 3).samples;
        assert_eq!((of(0), of(90), of(100)), (61, 10, 0));
    }

    #[test]
    fn without_samples_nothing_is_said() {
        let summary = summary(Vec::new());
        assert_eq!((summary.samples, summary.effective()), (0, None));
        assert_eq!(summary.heaviest, []);
    }
}
