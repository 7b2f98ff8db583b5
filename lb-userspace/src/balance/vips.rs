//! The VIP table: a hash with two places for each key, filled so that no key is ever sought
//! elsewhere (Pagh and Rodler, 'Cuckoo hashing', 2001).

use bytemuck::Zeroable as _;
use lb_common::{
    hash,
    layout::{Header, VIP_PLACES, Vip},
};

/// How often a key may push another out of its place before new hash keys are drawn.
const PUSHES: usize = 500;

/// Puts every VIP into one of its two places, and the hash keys that allow it into the header.
///
/// With four places for each service that there can be, the first keys nearly always do.
pub(super) fn fill(header: &mut Header, places: &mut [Vip; VIP_PLACES], vips: &[Vip]) {
    for seed in 0.. {
        header.vip_keys = hash::keys(seed);
        places.fill(Vip::zeroed());
        if vips.iter().all(|vip| insert(header, places, *vip)) {
            return;
        }
    }
}

fn insert(header: &Header, places: &mut [Vip; VIP_PLACES], vip: Vip) -> bool {
    let mut homeless = vip;
    let mut place = header.places(&homeless.key)[0];
    for _ in 0..PUSHES {
        for choice in header.places(&homeless.key) {
            if places[choice].key.family == 0 {
                places[choice] = homeless;
                return true;
            }
        }
        homeless = std::mem::replace(&mut places[place], homeless);
        let [first, second] = header.places(&homeless.key);
        place = if place == first { second } else { first };
    }
    false
}

#[cfg(test)]
mod tests {
    use lb_common::layout::{SERVICES, VipKey, state};

    use super::*;

    #[test]
    fn as_many_vips_as_there_can_be_find_a_place() {
        let vips: Vec<Vip> = (0..SERVICES as u32)
            .map(|n| Vip {
                key: VipKey {
                    address: [0, 0, 0, n / 4],
                    port: (n % 4) as u16,
                    protocol: 6,
                    family: 4,
                },
                service: n as u16,
                state: state::SERVING,
                ..Vip::zeroed()
            })
            .collect();
        let mut header = Header::zeroed();
        let mut places: Box<[Vip; VIP_PLACES]> = bytemuck::zeroed_box();
        fill(&mut header, &mut places, &vips);
        for vip in &vips {
            assert!(
                header
                    .places(&vip.key)
                    .iter()
                    .any(|&place| places[place] == *vip)
            );
        }
        assert_eq!(
            places.iter().filter(|vip| vip.key.family != 0).count(),
            vips.len()
        );
    }
}
