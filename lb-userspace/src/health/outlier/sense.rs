//! What one sense tells of all backends of a service: probes, or traffic.

use std::time::Duration;

use super::{
    fleet::Fleet,
    latency::{Brought, Compared, Host, Round},
    settings::Settings,
    smooth::{Sorted, median},
};
use crate::health::event::By;

/// What its averages are worth, in samples, before traffic says anything of a backend. A connection
/// that is left on one that takes no new ones is no measure of it.
pub(super) const ENOUGH: f64 = 5.0;

/// What one sense tells.
#[derive(Clone, Debug)]
pub(super) struct Sense {
    pub(super) by: By,
    pub(super) hosts: Vec<Host>,
    pub(super) fleet: Fleet,
    /// How long averages last at least.
    pub(super) memory: Duration,
}

impl Sense {
    pub(super) fn new(by: By, backends: usize) -> Self {
        Self {
            by,
            hosts: vec![Host::new(); backends],
            fleet: Fleet::new(),
            memory: Duration::ZERO,
        }
    }

    /// Whether it has anything to say of a backend.
    pub(super) fn speaks(&self, n: usize, now: Duration) -> bool {
        match self.by {
            By::Probes => true,
            By::Traffic => self.hosts[n].worth(now, self.memory) >= ENOUGH,
        }
    }

    /// The evidence against a backend; none where it has nothing to say.
    pub(super) fn evidence(&self, n: usize, now: Duration) -> f64 {
        if self.speaks(n, now) {
            self.hosts[n].evidence
        } else {
            0.0
        }
    }

    /// The average latency of each backend, as demotions are judged by it afterwards.
    pub(super) fn levels(&self) -> Vec<Option<f64>> {
        self.hosts.iter().map(|host| host.level.value()).collect()
    }

    /// Ends a tick: compares the backends that brought something with their peers, whose latencies
    /// are no older than `stale`.
    pub(super) fn tick(
        &mut self,
        round: &Round,
        brought: &[Brought],
        standing: &[Compared],
        stale: Duration,
        settings: &Settings,
    ) {
        let now = round.now;
        let common = self.spread();
        let fresh = |host: &Host| {
            let (at, latency) = host.latest?;
            (now.saturating_sub(at) <= stale).then_some((latency, host.seen.value()?))
        };
        let peers: Vec<Option<(f64, f64)>> = self
            .hosts
            .iter()
            .zip(standing)
            .map(|(host, standing)| fresh(host).filter(|_| standing.peer))
            .collect();
        let latencies = Sorted::new(peers.iter().flatten().map(|peer| peer.0).collect());
        let shown = Sorted::new(peers.iter().flatten().map(|peer| peer.1).collect());
        for (n, host) in self.hosts.iter_mut().enumerate() {
            let seen = standing[n].judged && brought[n].samples > 0.0;
            let (Some((_, own)), true) = (host.latest, seen) else {
                continue;
            };
            let Some(reference) = latencies.median_without(peers[n].map(|peer| peer.0)) else {
                continue;
            };
            if let Some(shown) = shown.median_without(peers[n].map(|peer| peer.1)) {
                let peers = &mut host.peers;
                peers.add_worth(now, shown, brought[n].samples, round.memory);
            }
            // Its own spread where that is larger: a noisy host is not a slow one.
            let spread = host.spread().max(common);
            host.compare((own, reference), brought[n], spread, round, settings);
        }
    }

    /// The spread of a common host's log-latencies.
    pub(super) fn spread(&self) -> f64 {
        let mut spreads: Vec<f64> = self.hosts.iter().map(Host::spread).collect();
        median(&mut spreads).unwrap_or_default()
    }

    /// The latest latencies of the peers, no older than `stale`.
    pub(super) fn latest(&self, standing: &[Compared], now: Duration, stale: Duration) -> Vec<f64> {
        let peers = self.hosts.iter().zip(standing);
        peers
            .filter(|(_, standing)| standing.peer)
            .filter_map(|(host, _)| host.latest)
            .filter(|(at, _)| now.saturating_sub(*at) <= stale)
            .map(|(_, latency)| latency)
            .collect()
    }
}
