//! What a service's backends take: counters, rates, shares, and the detector over them.

use std::time::Duration;

use lb_common::layout::{EndpointCounters, ExitCounters, Latencies};

use crate::stats::{
    clients::Clients,
    evenness::{Detector, Settings},
    flood,
    latency::Latency,
    rate::{Meter, ShareWindow},
};

/// The time that observed shares cover.
const WINDOW: Duration = Duration::from_mins(1);

/// The load of one service.
#[derive(Clone)]
pub(super) struct Load {
    pub(super) counters: Vec<EndpointCounters>,
    pub(super) exits: ExitCounters,
    pub(super) packets: Meter,
    pub(super) bytes: Meter,
    pub(super) flows: Meter,
    pub(super) window: ShareWindow,
    /// How long handshakes and responses take, by backend; empty where nothing is measured.
    pub(super) latencies: Vec<Latency>,
    /// When that was read last.
    measured: Duration,
    pub(super) detector: Detector,
    /// Who opens the connections.
    pub(super) clients: Clients,
    /// Packets, over the time that `window` covers.
    pub(super) packet_window: ShareWindow,
    settings: Settings,
    /// The wall clock at the detector's zero, to date its findings.
    pub(super) zero_ms: u64,
    pub(super) floods: flood::Watch,
    /// When the flood that is on began.
    pub(super) flood_since_ms: u64,
}

impl Load {
    pub(super) fn new(backends: usize, services: usize) -> Self {
        let settings = Settings { services };
        Self {
            counters: vec![EndpointCounters::default(); backends],
            exits: ExitCounters::default(),
            packets: Meter::new(backends),
            bytes: Meter::new(backends),
            flows: Meter::new(backends),
            window: ShareWindow::new(backends, WINDOW),
            latencies: Vec::new(),
            measured: Duration::ZERO,
            detector: Detector::new(&vec![0.0; backends], settings),
            clients: Clients::default(),
            packet_window: ShareWindow::new(backends, WINDOW),
            settings,
            zero_ms: 0,
            floods: flood::Watch::default(),
            flood_since_ms: 0,
        }
    }

    /// Takes note of how many services there are; it counts from the next change of shares on.
    pub(super) fn among(&mut self, services: usize) {
        self.settings = Settings { services };
    }

    /// Begins anew with other shares of the slots.
    pub(super) fn retarget(&mut self, slots: &[u32]) {
        let shares: Vec<f64> = slots.iter().copied().map(f64::from).collect();
        self.detector.retarget(&shares, self.settings);
        self.window.clear();
        self.packet_window.clear();
    }

    /// Begins anew where other flows come than before: what was seen says nothing of these.
    pub(super) fn begin_anew(&mut self, slots: &[u32]) {
        self.detector = Detector::new(&vec![0.0; slots.len()], self.settings);
        self.clients = Clients::default();
        self.retarget(slots);
    }

    /// New flows a second, to all backends.
    pub(super) fn flow_rate(&self) -> f64 {
        (0..self.counters.len())
            .filter_map(|n| self.flows.rate(n))
            .sum()
    }

    /// Packets a second, to all backends.
    fn packet_rate(&self) -> f64 {
        (0..self.counters.len())
            .filter_map(|n| self.packets.rate(n))
            .sum()
    }

    /// Looks for a SYN flood; `retransmitted` reads how many SYNs were sent again, which is asked
    /// only where enough packets come. Answers whether a flood began or ended.
    pub(super) fn watch_floods<E>(
        &mut self,
        now: Duration,
        now_ms: u64,
        retransmitted: impl FnOnce() -> Result<u64, E>,
    ) -> Result<bool, E> {
        if self.packet_rate() < flood::RATE / 2.0 {
            return Ok(self.floods.calm());
        }
        let packets = self.counters.iter().map(|c| c.packets).sum();
        let opened: u64 = self.counters.iter().map(|c| c.new_flows).sum();
        let changed = self.floods.read(now, packets, opened + retransmitted()?);
        if changed {
            self.flood_since_ms = now_ms;
        }
        Ok(changed)
    }

    /// Takes a reading of what was measured of each backend; tells what is new of which.
    pub(super) fn measure<'a>(
        &mut self,
        now: Duration,
        latencies: impl ExactSizeIterator<Item = &'a Latencies>,
        mut tell: impl FnMut(usize, &Latencies),
    ) {
        let elapsed = now.saturating_sub(std::mem::replace(&mut self.measured, now));
        self.latencies
            .resize_with(latencies.len(), Latency::default);
        let readings = self.latencies.iter_mut().zip(latencies);
        for (n, (series, reading)) in readings.enumerate() {
            if let Some(new) = series.read(elapsed, reading) {
                tell(n, &new);
            }
        }
    }

    /// Takes a reading of the kernel's counters.
    pub(super) fn read(
        &mut self,
        now: Duration,
        now_ms: u64,
        counters: Vec<EndpointCounters>,
        exits: ExitCounters,
    ) {
        let column =
            |of: fn(&EndpointCounters) -> u64| -> Vec<u64> { counters.iter().map(of).collect() };
        if let Some(increase) = self.packets.read(now, &column(|c| c.packets)) {
            self.packet_window.push(increase);
        }
        self.bytes.read(now, &column(|c| c.bytes));
        if let Some(increase) = self.flows.read(now, &column(|c| c.new_flows)) {
            self.window.push(increase);
            self.detector.tick(now, increase.counts);
        }
        self.zero_ms = now_ms.saturating_sub(now.as_millis() as u64);
        self.counters = counters;
        self.exits = exits;
    }
}
