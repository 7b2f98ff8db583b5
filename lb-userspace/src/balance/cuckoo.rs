//! Hash tables with two places for each key, filled so that no key is ever sought elsewhere (Pagh
//! and Rodler, 'Cuckoo hashing', 2001): that of VIPs and that of endpoints.

use bytemuck::Zeroable as _;
use lb_common::{
    hash::{self, VipKeys},
    layout::{Header, Vip, VipKey},
};

/// How often a key may push another out of its place before new hash keys are drawn.
const PUSHES: usize = 500;

/// One of the two tables, by what the header says of it.
pub(super) struct Table {
    /// Puts hash keys into the header.
    rekey: fn(&mut Header, VipKeys),
    /// The two places of a key.
    places: fn(&Header, &VipKey) -> [usize; 2],
}

/// The table of VIPs.
pub(super) const VIPS: Table = Table {
    rekey: |header, keys| header.vip_keys = keys,
    places: Header::places,
};

/// The table of endpoints.
pub(super) const ENDPOINTS: Table = Table {
    rekey: |header, keys| header.endpoint_keys = keys,
    places: Header::endpoint_places,
};

impl Table {
    /// Puts every record into one of its key's two places, and the hash keys that allow it into
    /// the header.
    ///
    /// The keys are distinct and at most three eighths of the places, so that the first hash keys
    /// nearly always do.
    pub(super) fn fill(&self, header: &mut Header, places: &mut [Vip], records: &[Vip]) {
        debug_assert!(
            records.len() * 8 <= places.len() * 3,
            "the table is too full"
        );
        for seed in 0.. {
            (self.rekey)(header, hash::keys(seed));
            places.fill(Vip::zeroed());
            if records
                .iter()
                .all(|record| self.insert(header, places, *record))
            {
                return;
            }
        }
    }

    fn insert(&self, header: &Header, places: &mut [Vip], record: Vip) -> bool {
        let mut homeless = record;
        let mut place = (self.places)(header, &homeless.key)[0];
        for _ in 0..PUSHES {
            for choice in (self.places)(header, &homeless.key) {
                if places[choice].key.family == 0 {
                    places[choice] = homeless;
                    return true;
                }
            }
            homeless = std::mem::replace(&mut places[place], homeless);
            let [first, second] = (self.places)(header, &homeless.key);
            place = if place == first { second } else { first };
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use lb_common::layout::{ENDPOINT_PLACES, SERVICES, SNAT_ADDRESSES, VIP_PLACES, family, state};

    use super::*;
    use crate::balance::image::NAMED;

    fn check(table: &Table, places: usize, records: &[Vip]) {
        let mut header = Header::zeroed();
        let mut places = vec![Vip::zeroed(); places];
        table.fill(&mut header, &mut places, records);
        for record in records {
            assert!(
                (table.places)(&header, &record.key)
                    .iter()
                    .any(|&place| places[place] == *record)
            );
        }
        assert_eq!(
            places.iter().filter(|place| place.key.family != 0).count(),
            records.len()
        );
    }

    #[test]
    fn as_many_vips_as_there_can_be_find_a_place() {
        // Each service with an address of its own, and the pool for both protocols.
        let records: Vec<Vip> = (0..2 * SERVICES as u32 + 2 * SNAT_ADDRESSES as u32)
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
        check(&VIPS, VIP_PLACES, &records);
    }

    #[test]
    fn as_many_endpoints_as_there_can_be_find_a_place() {
        let records: Vec<Vip> = (0..NAMED as u32)
            .map(|n| Vip {
                key: VipKey {
                    address: [n / 2, 0, 0, 0],
                    port: 80,
                    protocol: 4,
                    family: if n % 2 == 0 { 6 } else { family::QUIC },
                },
                ring: n,
                state: state::ENDPOINT,
                ..Vip::zeroed()
            })
            .collect();
        check(&ENDPOINTS, ENDPOINT_PLACES, &records);
    }
}
