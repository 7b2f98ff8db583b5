//! Two keyed hashes: a flow's, which picks the slot, and a VIP's, which finds the service.
//!
//! Both begin as a multilinear hash over 32-bit words with 64-bit keys, which is strongly
//! universal in its upper half (Lemire and Kaser, 'Strongly universal string hashing is fast',
//! 2014): whatever the traffic looks like, almost every choice of keys spreads it as chance
//! would. All products are independent, so the processor overlaps them; BPF has no 128-bit
//! product, which rules out the usual fast finalisers.

use crate::flow::{Address, Flow, V4};

/// How many keys a [`FlowKeys`] has: an offset, eight address words, the ports.
const FLOW_KEYS: usize = 10;

/// The keys of the flow hash.
pub type FlowKeys = [u64; FLOW_KEYS];

/// The keys of the VIP hash: an offset, four address words, port with protocol and family.
pub type VipKeys = [u64; 6];

/// 2⁶⁴ divided by the golden ratio, made odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hashes a flow. The upper 32 bits pick the slot, the lower 32 are spare.
#[inline(always)]
pub fn flow(flow: &Flow, keys: &FlowKeys) -> u64 {
    let mut sum = keys[0];
    // The first three words of an IPv4 address are zero and would add nothing.
    if flow.family != V4 {
        sum = sum
            .wrapping_add(product(flow.source[0], keys[1]))
            .wrapping_add(product(flow.source[1], keys[2]))
            .wrapping_add(product(flow.source[2], keys[3]))
            .wrapping_add(product(flow.destination[0], keys[5]))
            .wrapping_add(product(flow.destination[1], keys[6]))
            .wrapping_add(product(flow.destination[2], keys[7]));
    }
    sum = sum
        .wrapping_add(product(flow.source[3], keys[4]))
        .wrapping_add(product(flow.destination[3], keys[8]))
        .wrapping_add(product(flow.ports, keys[9]));
    // A linear sum lays consecutive ports out in a regular pattern: more even than chance for
    // most keys, less for some. One more round breaks the pattern.
    (sum ^ (sum >> 32)).wrapping_mul(GOLDEN)
}

/// Hashes a VIP's address and its port, protocol and family.
///
/// Bits 32 to 47 and 48 to 63 name its two places.
#[inline(always)]
pub fn vip(address: &Address, rest: u32, family: u8, keys: &VipKeys) -> u64 {
    let mut sum = keys[0];
    if family != V4 {
        sum = sum
            .wrapping_add(product(address[0], keys[1]))
            .wrapping_add(product(address[1], keys[2]))
            .wrapping_add(product(address[2], keys[3]));
    }
    sum.wrapping_add(product(address[3], keys[4]))
        .wrapping_add(product(rest, keys[5]))
}

#[inline(always)]
const fn product(word: u32, key: u64) -> u64 {
    (word as u64).wrapping_mul(key)
}

/// Draws keys from a seed, all of them odd.
///
/// The same seed gives the same keys on every node and in every version: load balancers that
/// share a VIP must send a flow to the same slot.
#[must_use]
pub fn keys<const N: usize>(seed: u64) -> [u64; N] {
    let mut state = seed;
    core::array::from_fn(|_| {
        // SplitMix64 (Steele, Lea and Flood, 'Fast splittable pseudorandom number generators',
        // 2014).
        state = state.wrapping_add(GOLDEN);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) | 1
    })
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;
    use crate::flow::{V6, v4};

    fn tcp(source: u32, port: u16) -> Flow {
        Flow {
            source: v4(source.to_be()),
            destination: v4(0xc633_640a_u32.to_be()),
            ports: u32::from(port.to_be()) | u32::from(80u16.to_be()) << 16,
            protocol: 6,
            family: V4,
            reserved: [0; 2],
        }
    }

    /// χ² over 256 bins of the slot, in standard deviations from its mean.
    fn unevenness(flows: impl Iterator<Item = Flow>, keys: &FlowKeys) -> f64 {
        let mut bins = vec![0u32; 256];
        let mut count = 0.0;
        for f in flows {
            bins[(flow(&f, keys) >> 32) as usize % 256] += 1;
            count += 1.0;
        }
        let expected = count / 256.0;
        let chi: f64 = bins
            .iter()
            .map(|&n| (f64::from(n) - expected).powi(2) / expected)
            .sum();
        (chi - 255.0) / (2.0f64 * 255.0).sqrt()
    }

    #[test]
    fn keys_never_change() {
        assert_eq!(keys::<2>(0), [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f5]);
        assert_eq!(
            flow(&tcp(0xcb00_7109, 51_000), &keys(0)),
            10_530_820_263_417_798_525
        );
    }

    #[test]
    fn ports_and_addresses_in_sequence_spread_like_chance() {
        for seed in 0..50 {
            let keys = keys(seed);
            let cases: [(&str, f64); 5] = [
                (
                    "ports",
                    unevenness((1024..65_535).map(|p| tcp(0x0a00_0001, p)), &keys),
                ),
                (
                    "even ports",
                    unevenness((16_384..32_767).map(|p| tcp(0x0a00_0001, 2 * p)), &keys),
                ),
                (
                    "hosts",
                    unevenness((0..65_536).map(|a| tcp(0x0a00_0000 + a, 40_000)), &keys),
                ),
                (
                    "subnets",
                    unevenness((0..65_536).map(|a| tcp(a << 16, 40_000)), &keys),
                ),
                (
                    "both",
                    unevenness(
                        (0..65_536).map(|n| tcp(0x0a00_0000 + n % 256, 1024 + (n / 256) as u16)),
                        &keys,
                    ),
                ),
            ];
            for (name, z) in cases {
                assert!(
                    z < 6.0,
                    "{name} with seed {seed}: {z} standard deviations too uneven"
                );
            }
        }
    }

    #[test]
    fn each_input_bit_flips_half_of_the_slot() {
        let keys = keys(7);
        for bit in 0..32 {
            let mut flips = [0u32; 3];
            let rounds = 2_000u32;
            for n in 0..rounds {
                let base = Flow {
                    source: [n.wrapping_mul(0x9e37_79b1), n, !n, n ^ 0xdead_beef],
                    destination: [1, 2, 3, 4],
                    ports: n.wrapping_mul(0x85eb_ca77),
                    protocol: 6,
                    family: V6,
                    reserved: [0; 2],
                };
                let changed = [
                    Flow {
                        ports: base.ports ^ 1 << bit,
                        ..base
                    },
                    Flow {
                        source: [
                            base.source[0],
                            base.source[1],
                            base.source[2],
                            base.source[3] ^ 1 << bit,
                        ],
                        ..base
                    },
                    Flow {
                        source: [base.source[0] ^ 1 << bit, n, !n, base.source[3]],
                        ..base
                    },
                ];
                for (flips, changed) in flips.iter_mut().zip(changed) {
                    let difference = (flow(&base, &keys) ^ flow(&changed, &keys)) >> 32;
                    *flips += (difference as u16).count_ones();
                }
            }
            for flips in flips {
                let share = f64::from(flips) / f64::from(rounds * 16);
                assert!(
                    (0.35..0.65).contains(&share),
                    "bit {bit} flips {share} of the slot"
                );
            }
        }
    }

    #[test]
    fn ipv4_is_hashed_as_its_words() {
        let keys = keys(3);
        let mut f = tcp(0x0a00_0001, 1234);
        let short = flow(&f, &keys);
        f.family = V6;
        assert_eq!(short, flow(&f, &keys));
        assert_eq!(vip(&[0, 0, 0, 9], 7, V4, &keys[..6].try_into().unwrap()), {
            vip(&[0, 0, 0, 9], 7, V6, &keys[..6].try_into().unwrap())
        });
    }
}
