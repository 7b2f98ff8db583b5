//! What a change does: a comparison of what packets follow before and afterwards.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use lb_common::layout::Slot;

use crate::{
    admin::proto::change::{BackendPlan, Fate, Plan, ServicePlan},
    balance::{
        image::{Image, Numbers},
        transition::names_endpoint,
    },
    model::{Backend, Service, ServiceKey},
    stats::{clients::Clients, heat},
};

/// Services and their slots at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    services: Vec<Seen>,
}

#[derive(Clone, Debug)]
struct Seen {
    service: Service,
    /// Empty where it has no ring.
    slots: Arc<[Slot]>,
    /// The numbers of its backends.
    ends: Vec<u16>,
}

impl Snapshot {
    /// What packets of these services follow by an image.
    ///
    /// # Panics
    /// Where a service or one of its backends has no number.
    #[must_use]
    pub fn of(services: &[Service], numbers: &Numbers, image: Option<&Image>) -> Self {
        let seen = |service: &Service| {
            let ring = numbers
                .service(&service.key)
                .and_then(|number| image?.ring_of(number).cloned());
            Seen {
                service: service.clone(),
                slots: ring.unwrap_or_default(),
                ends: numbers.of_backends(service),
            }
        };
        Self {
            services: services.iter().map(seen).collect(),
        }
    }

    /// What a change from this one to another does.
    #[must_use]
    pub fn changes_to(&self, after: &Self) -> Plan {
        let by_key = |all: &Self| -> BTreeMap<ServiceKey, Seen> {
            let keyed = all.services.iter().map(|s| (s.service.key, s.clone()));
            keyed.collect()
        };
        let (old, new) = (by_key(self), by_key(after));
        let mut plan = Plan::default();
        let stay = after.services.iter().map(|next| {
            let before = old.get(&next.service.key);
            compare(before, Some(next))
        });
        let removed = self
            .services
            .iter()
            .filter(|seen| !new.contains_key(&seen.service.key))
            .map(|seen| compare(Some(seen), None));
        for service in stay.chain(removed) {
            plan.slots_moved += service.slots_moved;
            if service.fate == Fate::Same && service.slots_moved == 0 {
                plan.unchanged += 1;
            } else {
                plan.services.push(service);
            }
        }
        plan.changes = !plan.services.is_empty();
        plan
    }
}

impl Snapshot {
    /// Adds to a plan for this state what flows that came lately would do in it.
    pub fn forecast<'a>(
        &self,
        plan: &mut Plan,
        samples: impl Fn(&ServiceKey) -> Option<&'a Clients>,
    ) {
        for service in &mut plan.services {
            let is_it = |seen: &&Seen| seen.service.key.to_string() == service.key;
            let Some(seen) = self.services.iter().find(is_it) else {
                continue;
            };
            let Some(clients) = samples(&seen.service.key) else {
                continue;
            };
            let owner = |slot: usize| {
                let owner = seen.slots.get(slot)?.owner();
                seen.ends.iter().position(|&end| end == owner)
            };
            let sizes = heat::Sizes {
                before: service.ring_slots_before as usize,
                after: seen.slots.len(),
            };
            let owners = seen.ends.len();
            let Some((shares, count)) = heat::shares(clients.samples(), sizes, owners, owner)
            else {
                continue;
            };
            service.forecast_from = count as u64;
            for (backend, share) in seen.service.backends.iter().zip(shares) {
                let mut planned = service.backends.iter_mut();
                if let Some(planned) = planned.find(|of| of.address == backend.address) {
                    planned.forecast = Some(share);
                }
            }
        }
    }
}

/// What becomes of one service; at least one of both is there.
fn compare(before: Option<&Seen>, after: Option<&Seen>) -> ServicePlan {
    let Some(known) = after.or(before) else {
        return ServicePlan::default();
    };
    let what = match (before, after) {
        (Some(before), Some(after)) => differing(&before.service, &after.service),
        _ => Vec::new(),
    };
    let backends = backends(before, after);
    let fate = match (before, after) {
        (None, _) => Fate::Added,
        (_, None) => Fate::Removed,
        _ if what.is_empty() && backends.iter().all(|b| b.fate == Fate::Same) => Fate::Same,
        _ => Fate::Changed,
    };
    let slots = |seen: Option<&Seen>| seen.map_or_else(Arc::default, |seen| seen.slots.clone());
    let (old, new) = (slots(before), slots(after));
    let in_transition = |slot: &&Slot| names_endpoint(slot.prior());
    ServicePlan {
        name: known.service.name.to_string(),
        key: known.service.key.to_string(),
        fate,
        what,
        ring_slots_before: old.len() as u32,
        ring_slots: new.len() as u32,
        slots_moved: moved(&old, &new),
        slots_in_transition: new.iter().filter(in_transition).count() as u32,
        forecast_from: 0,
        backends,
    }
}

/// Slots with another owner. Rings of different sizes are compared slot by slot of the larger one.
fn moved(old: &[Slot], new: &[Slot]) -> u32 {
    let size = old.len().max(new.len());
    let owner = |ring: &[Slot], at: usize| {
        // A power of two, where it is not empty.
        ring.get(at & ring.len().wrapping_sub(1))
            .map(|slot| slot.owner())
    };
    (0..size)
        .filter(|&at| owner(old, at) != owner(new, at))
        .count() as u32
}

fn backends(before: Option<&Seen>, after: Option<&Seen>) -> Vec<BackendPlan> {
    let of = |seen: Option<&Seen>| -> BTreeMap<IpAddr, (Backend, u32, f64)> {
        let Some(seen) = seen else {
            return BTreeMap::new();
        };
        let all = seen.slots.len().max(1);
        let backends = seen.service.backends.iter().zip(&seen.ends);
        backends
            .map(|(backend, &end)| {
                let slots = seen.slots.iter().filter(|slot| slot.owner() == end).count();
                let share = slots as f64 / all as f64;
                (backend.address, (backend.clone(), slots as u32, share))
            })
            .collect()
    };
    let (old, new) = (of(before), of(after));
    let listed = |seen: Option<&Seen>| -> Vec<IpAddr> {
        let backends = seen.into_iter().flat_map(|seen| &seen.service.backends);
        backends.map(|backend| backend.address).collect()
    };
    let mut addresses = listed(after);
    addresses.extend(listed(before).into_iter().filter(|a| !new.contains_key(a)));
    let plan = |address| {
        let (before, after): (Option<&(Backend, u32, f64)>, _) =
            (old.get(&address), new.get(&address));
        let fate = match (before, after) {
            (None, _) => Fate::Added,
            (_, None) => Fate::Removed,
            (Some((before, ..)), Some((after, ..))) if before == after => Fate::Same,
            _ => Fate::Changed,
        };
        let (known, ..) = after.or(before)?;
        let weight = |seen: Option<&(Backend, u32, f64)>| seen.map(|(b, ..)| b.weight.number());
        Some(BackendPlan {
            name: known.name.to_string(),
            address,
            fate,
            weight_before: weight(before),
            weight: weight(after),
            slots_before: before.map_or(0, |(_, slots, _)| *slots),
            slots: after.map_or(0, |(_, slots, _)| *slots),
            share_before: before.map_or(0.0, |(.., share)| *share),
            share: after.map_or(0.0, |(.., share)| *share),
            forecast: None,
        })
    };
    addresses.into_iter().filter_map(plan).collect()
}

/// The keys of a service, its backends left out, that differ.
#[must_use]
pub fn differing(before: &Service, after: &Service) -> Vec<String> {
    let (old, new) = (&before.options, &after.options);
    let keys = [
        ("name", before.name != after.name),
        ("mode", before.mode != after.mode),
        ("ring_slots", before.ring_slots != after.ring_slots),
        ("on_empty", before.on_empty != after.on_empty),
        ("health", before.health != after.health),
        ("spread", old.spread != new.spread),
        ("udp", old.udp != new.udp),
        ("allow, deny", old.sources != new.sources),
        ("new_connections_per_source", old.limit != new.limit),
        ("fragments", old.fragments != new.fragments),
        ("quic", old.quic != new.quic),
        ("on_down", old.on_down != new.on_down),
        ("slow_start", old.slow_start != new.slow_start),
        ("panic_below", old.panic_below != new.panic_below),
        ("ejection", old.ejection != new.ejection),
        ("agent", old.agent != new.agent),
        ("measure_one_in", old.measured != new.measured),
    ];
    keys.into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(key, _)| key.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{balance::image::ServicePlan as Planned, config, model::Config};

    /// A service's name, its VIP's last number, and its backends with theirs.
    type Told<'a> = (&'a str, u8, &'a [(&'a str, u8)]);

    fn parsed(services: &[Told<'_>]) -> Config {
        let backend = |(name, address): &(&str, u8)| {
            format!("[[services.backends]]\nname = \"{name}\"\naddress = \"10.0.0.{address}\"\n")
        };
        let service = |(name, vip, backends): &Told<'_>| {
            let backends: String = backends.iter().map(backend).collect();
            format!(
                "[[services]]\nname = \"{name}\"\nvip = \"198.51.100.{vip}\"\nport = 80\n\
                 ring_slots = 256\n{backends}"
            )
        };
        let services: String = services.iter().map(service).collect();
        let text = format!("[data_plane]\ninterfaces = [\"eth0\"]\n{services}");
        config::parse("test", &text).unwrap_or_else(|findings| panic!("{findings}"))
    }

    /// Everybody's slots by turns.
    fn snapshot(config: &Config, numbers: &mut Numbers) -> Snapshot {
        numbers.assign(&config.services).unwrap();
        let plans: Vec<Planned<'_>> = config
            .services
            .iter()
            .map(|service| {
                let count = service.backends.len() as u16;
                let owners: Vec<u16> = (0..256).map(|slot| slot % count).collect();
                let ways = vec![None; service.backends.len()];
                Planned::steady(service, numbers, Some(&owners), ways)
            })
            .collect();
        let common = crate::balance::image::Common::of(config);
        let image = Image::build(&plans, numbers, common, None);
        Snapshot::of(&config.services, numbers, Some(&image))
    }

    #[test]
    fn a_plan_tells_what_becomes_of_each() {
        let mut numbers = Numbers::default();
        let before = parsed(&[
            ("web", 1, &[("b1", 1), ("b2", 2)]),
            ("mail", 2, &[("m1", 1), ("m2", 2)]),
            ("same", 3, &[("s1", 1)]),
        ]);
        let mut after = parsed(&[
            ("web", 1, &[("b1", 1), ("b3", 3)]),
            ("same", 3, &[("s1", 1)]),
            ("new", 4, &[("n1", 1)]),
        ]);
        after.services[0].options.slow_start = Some(std::time::Duration::from_secs(3));
        let old = snapshot(&before, &mut numbers);
        let new = snapshot(&after, &mut numbers);
        let plan = old.changes_to(&new);
        assert!(plan.changes);
        assert_eq!(plan.unchanged, 1);
        // b2's slots went to b3, both of mail's have nobody, and n1 has all of its own.
        assert_eq!(plan.slots_moved, 128 + 256 + 256);
        let fates: Vec<_> = plan
            .services
            .iter()
            .map(|s| (s.name.as_str(), s.fate, s.slots_moved))
            .collect();
        assert_eq!(
            fates,
            [
                ("web", Fate::Changed, 128),
                ("new", Fate::Added, 256),
                ("mail", Fate::Removed, 256)
            ]
        );
        let web = &plan.services[0];
        assert_eq!(web.what, ["slow_start"]);
        let backends: Vec<_> = web
            .backends
            .iter()
            .map(|b| (b.name.as_str(), b.fate, b.slots_before, b.slots))
            .collect();
        assert_eq!(
            backends,
            [
                ("b1", Fate::Same, 128, 128),
                ("b3", Fate::Added, 0, 128),
                ("b2", Fate::Removed, 128, 0)
            ]
        );
        assert!((web.backends[1].share - 0.5).abs() < 1e-9);
        assert!(!new.changes_to(&new).changes);
    }

    #[test]
    fn rings_of_two_sizes_are_compared_slot_by_slot() {
        let ring = |owners: &[u16]| -> Vec<Slot> {
            owners.iter().map(|&owner| Slot::steady(owner)).collect()
        };
        assert_eq!(moved(&ring(&[1, 2]), &ring(&[1, 2, 1, 3])), 1);
        assert_eq!(moved(&ring(&[1, 2, 1, 3]), &ring(&[1, 2])), 1);
        assert_eq!(moved(&[], &ring(&[1, 2])), 2);
        assert_eq!(moved(&[], &[]), 0);
    }
}
