//! Why new flows do not follow the shares.
//!
//! Only after weights, table and kernel have been ruled out: what is left are the clients and the
//! hash. Where the deviation goes when the heaviest clients are left out, they are the cause. Where
//! so few clients would deviate as much by chance, that is: it happens where all of a client's
//! flows go to one backend. Else flows do not fall evenly on the slots.

use crate::stats::clients::Summary;

/// Below so many samples nothing is said.
const ENOUGH: usize = 100;
/// So much of the deviation must be left without the heaviest clients for them not to be its cause.
const LEFT: f64 = 0.3;
/// In standard deviations: what chance does to few clients.
const CHANCE: f64 = 4.0;

/// Why a backend gets another share of the new flows than intended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The heaviest clients make it.
    HeavyClients,
    /// The clients are so few that chance does.
    FewClients,
    /// Flows of many clients fall unevenly on the slots.
    Hash,
    /// Too few samples tell.
    Unknown,
}

/// A cause with what speaks for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// The cause.
    pub cause: Cause,
    /// The backend's part of the new flows, by the samples.
    pub share: f64,
    /// The same without those of the heaviest clients; `None` where there are no others.
    pub share_of_others: Option<f64>,
    /// By how many standard deviations of as many clients as there are it is off.
    pub deviations: f64,
}

/// Judges the deviation of a backend with an intended share from 0 to 1, both exclusive.
///
/// # Panics
/// If there is no such backend.
#[must_use]
pub fn judge(backend: usize, intended: f64, clients: &Summary) -> Judgement {
    let share = |taken: &[f64]| {
        let all: f64 = taken.iter().sum();
        (all > 0.0).then(|| taken[backend] / all)
    };
    let observed = share(&clients.taken).unwrap_or(0.0);
    let others = share(&clients.taken_by_others);
    let off = observed - intended;
    let flows = clients.samples as f64;
    let clumps = clients.concentration.unwrap_or(0.0);
    let variance = intended * (1.0 - intended) * (flows + flows * flows * clumps);
    let deviations = (off * flows).abs() / variance.sqrt().max(f64::MIN_POSITIVE);
    let gone = others.is_none_or(|others| (others - intended).abs() <= LEFT * off.abs());
    let cause = if clients.samples < ENOUGH {
        Cause::Unknown
    } else if gone {
        Cause::HeavyClients
    } else if deviations < CHANCE {
        Cause::FewClients
    } else {
        Cause::Hash
    };
    Judgement {
        cause,
        share: observed,
        share_of_others: others,
        deviations,
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::*;
    use crate::stats::clients::{Clients, Sample};

    const BACKENDS: usize = 10;
    const FLOWS: usize = 60_000;

    /// A minute of a thousand flows a second, each of a client that one function draws, to the
    /// backend that another one picks.
    fn minute(
        seed: u64,
        mut client: impl FnMut(&mut SmallRng) -> u32,
        mut backend: impl FnMut(&mut SmallRng, u32) -> usize,
    ) -> Summary {
        let mut rng = SmallRng::seed_from_u64(seed);
        let samples = (0..FLOWS).map(|_| {
            let from = client(&mut rng);
            Sample {
                client: Ipv4Addr::from_bits(from).into(),
                backend: backend(&mut rng, from),
                one_of: 1,
                slot: 0,
            }
        });
        let mut clients = Clients::default();
        clients.push(Duration::from_secs(1), samples.collect());
        clients.summary(Duration::ZERO, BACKENDS)
    }

    /// The backend that deviates most, judged.
    fn judged(clients: &Summary) -> Judgement {
        let all: f64 = clients.taken.iter().sum();
        let off = |n: &usize| (clients.taken[*n] / all - 0.1).abs();
        let worst = (0..BACKENDS)
            .max_by(|a, b| off(a).total_cmp(&off(b)))
            .unwrap();
        judge(worst, 0.1, clients)
    }

    /// Where all flows of a client go, by a hash with a seed.
    fn affine(seed: u64, client: u32) -> usize {
        SmallRng::seed_from_u64(seed << 32 | u64::from(client)).random_range(0..BACKENDS)
    }

    #[test]
    fn one_heavy_client_among_many_is_named() {
        for seed in 0..20 {
            // Every seventh flow is of one client, and all of its flows go to one backend.
            let clients = minute(
                seed,
                |rng| {
                    if rng.random_range(0..7) == 0 {
                        1
                    } else {
                        rng.random_range(2..5_000)
                    }
                },
                |_, client| affine(seed, client),
            );
            assert_eq!(judged(&clients).cause, Cause::HeavyClients, "seed {seed}");
            assert_eq!(clients.heaviest[0].client, Ipv4Addr::from_bits(1));
        }
    }

    #[test]
    fn a_hundred_clients_with_affinity_are_few() {
        let mut found = 0;
        for seed in 0..20 {
            let clients = minute(
                seed,
                |rng| rng.random_range(0..100),
                |_, client| affine(seed, client),
            );
            let judgement = judged(&clients);
            assert_ne!(judgement.cause, Cause::Hash, "seed {seed}: {judgement:?}");
            found += usize::from(judgement.cause == Cause::FewClients);
            let effective = clients.effective().unwrap();
            assert!((effective - 100.0).abs() < 10.0, "{effective}");
        }
        assert!(found >= 18, "{found} of 20");
    }

    #[test]
    fn many_clients_that_go_to_one_backend_too_often_are_the_hash() {
        for seed in 0..20 {
            // One backend gets nearly twice its share.
            let clients = minute(
                seed,
                |rng| rng.random_range(0..1_000_000),
                |rng, _| rng.random_range(0..11) % BACKENDS,
            );
            assert_eq!(judged(&clients).cause, Cause::Hash, "seed {seed}");
        }
    }

    #[test]
    fn few_samples_say_nothing() {
        let clients = Clients::default().summary(Duration::ZERO, BACKENDS);
        assert_eq!(judge(0, 0.1, &clients).cause, Cause::Unknown);
    }
}
