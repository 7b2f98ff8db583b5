//! The sign of a SYN flood: many SYNs a second, and little else.

use std::time::Duration;

/// SYNs a second from which on there may be a flood.
pub const RATE: f64 = 1_000.0;
/// The part of a service's packets that are SYNs from which on there is one: a connection that is
/// used takes three packets of a client at least.
pub const SHARE: f64 = 0.5;
/// A flood is over below this part of either bound, so that it does not come and go each second.
const OVER: f64 = 0.5;

/// What a service was sent in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flood {
    /// SYNs a second, those sent again included.
    pub syn_rate: f64,
    /// SYNs among its packets.
    pub share: f64,
}

/// Watches one service.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch {
    last: Option<(Duration, u64, u64)>,
    flood: Option<Flood>,
}

impl Watch {
    /// Takes a reading of counters: packets, and how many of them were SYNs.
    ///
    /// Answers whether a flood began or ended.
    pub fn read(&mut self, now: Duration, packets: u64, syns: u64) -> bool {
        let Some((then, packets_then, syns_then)) = self.last.replace((now, packets, syns)) else {
            return false;
        };
        let seconds = now.saturating_sub(then).as_secs_f64();
        if seconds <= 0.0 {
            return false;
        }
        let packets = packets.saturating_sub(packets_then) as f64;
        let syns = syns.saturating_sub(syns_then) as f64;
        let seen = Flood {
            syn_rate: syns / seconds,
            share: if packets > 0.0 { syns / packets } else { 0.0 },
        };
        let was = self.flood.is_some();
        let bound = if was { OVER } else { 1.0 };
        let is = seen.syn_rate >= RATE * bound && seen.share >= SHARE * bound;
        self.flood = is.then_some(seen);
        is != was
    }

    /// Too few packets came for a flood: the next reading begins anew. Answers whether one ended.
    pub fn calm(&mut self) -> bool {
        self.last = None;
        self.flood.take().is_some()
    }

    /// The flood that is on.
    pub const fn flood(&self) -> Option<Flood> {
        self.flood
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads these packets and SYNs, second by second, and says when a flood was on.
    fn seconds(increases: &[(u64, u64)]) -> Vec<bool> {
        let mut watch = Watch::default();
        let (mut packets, mut syns) = (1_000_000, 500_000);
        watch.read(Duration::ZERO, packets, syns);
        (1..)
            .zip(increases)
            .map(|(second, (more, of_them))| {
                packets += more;
                syns += of_them;
                let was = watch.flood().is_some();
                let changed = watch.read(Duration::from_secs(second), packets, syns);
                assert_eq!(changed, watch.flood().is_some() != was);
                watch.flood().is_some()
            })
            .collect()
    }

    #[test]
    fn many_syns_and_little_else_are_a_flood() {
        assert_eq!(seconds(&[(1_000, 1_000)]), [true]);
        assert_eq!(seconds(&[(2_000, 1_000)]), [true]);
        assert_eq!(seconds(&[(2_001, 1_000)]), [false]);
        assert_eq!(seconds(&[(999, 999)]), [false]);
        assert_eq!(seconds(&[(0, 0)]), [false]);
    }

    #[test]
    fn a_flood_ends_well_below_where_it_begins() {
        let flow = [
            (9_000, 9_000),
            (1_000, 600),
            (2_500, 700),
            (600, 499),
            (600, 600),
        ];
        assert_eq!(seconds(&flow), [true, true, true, false, false]);
    }

    #[test]
    fn it_is_told_with_its_figures() {
        let mut watch = Watch::default();
        watch.read(Duration::from_secs(1), 0, 0);
        assert!(watch.read(Duration::from_secs(3), 8_000, 6_000));
        let flood = watch.flood().unwrap();
        assert!((flood.syn_rate - 3_000.0).abs() < 1e-9 && (flood.share - 0.75).abs() < 1e-9);
    }
}
