//! From what is configured and known to the image that packets are to follow.

use std::{collections::BTreeSet, sync::Arc};

use lb_common::layout::Slot;

use super::{
    Now,
    state::{ServiceState, State},
};
use crate::{
    balance::{
        image::{Common, Image, ServicePlan, has_source},
        plan::{self, Standing},
        transition::{self, Live, Next},
    },
    model::{Backend, Fraction, Mode, OnDown, Protocol, Service},
};

/// What a service's slots follow from, beside its base ring, the slots before and the time: where
/// that is as it was when they were published, they are what they were.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Grounds {
    ends: Vec<u16>,
    fractions: Vec<Fraction>,
    leaving: Vec<u16>,
    serves: BTreeSet<u16>,
}

/// When slots are looked at; in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
struct Moment {
    now_s: u64,
    /// How long a transition is, in seconds.
    window_s: u64,
}

impl Moment {
    /// Whether a transition that began then (never: 0) is over, so that slots must change.
    const fn is_over(self, changed_s: u64) -> bool {
        changed_s != 0 && self.now_s.saturating_sub(changed_s) >= self.window_s
    }

    /// Whether time, and what the sweeper found `clean`, leave slots as they are, of which some
    /// changed then (never: 0).
    fn leaves(self, changed_s: u64, clean: &[bool]) -> bool {
        // A clock that was set back is for those who make slots to see to.
        !self.is_over(changed_s) && changed_s <= self.now_s && !clean.contains(&true)
    }
}

impl State {
    /// The image that follows from the present state.
    pub(super) fn plan(&self, now: Now) -> Image {
        let plans: Vec<ServicePlan<'_>> = self
            .config
            .services
            .iter()
            .zip(&self.services)
            .map(|(service, state)| self.plan_service(service, state, now))
            .collect();
        Image::build(
            &plans,
            &self.numbers,
            Common::of(&self.config),
            self.image.as_ref(),
        )
    }

    fn plan_service<'a>(
        &self,
        service: &'a Service,
        state: &ServiceState,
        now: Now,
    ) -> ServicePlan<'a> {
        let (fractions, serves) = self.known(service, state);
        let next = self.next_slots(service, state, &fractions, &serves, now);
        let ways = service
            .backends
            .iter()
            .map(|b| self.ways.get(&b.address).copied());
        ServicePlan {
            service,
            changed: next.as_ref().map_or(0, |next| next.changed),
            slots: next.map(|next| next.slots),
            serves,
            ways: ways.collect(),
        }
    }

    /// A service's slots, from those that packets follow; `None` where nobody serves.
    fn next_slots(
        &self,
        service: &Service,
        state: &ServiceState,
        fractions: &[Fraction],
        serves: &[bool],
        now: Now,
    ) -> Option<Next> {
        let number = self.numbers.service(&service.key)?;
        let live = self.live(number);
        let learned = self.learned.as_ref();
        let clean: &[bool] =
            learned.map_or(&[], |learned| &learned.services[usize::from(number)].clean);
        let grounds = self.grounds(service, fractions, serves);
        let moment = Moment {
            now_s: now.unix_ms / 1000,
            window_s: self.config.tracking.window.as_secs(),
        };
        // Of a thousand services one has changed.
        if let Live::Ring { changed, .. } = live
            && let Some(ring) = self.image.as_ref().and_then(|image| image.ring_of(number))
            && state.grounds.as_ref() == Some(&grounds)
            && moment.leaves(changed, clean)
        {
            return Some(Next {
                slots: Arc::clone(ring),
                changed,
            });
        }
        let standing = Standing {
            live,
            ends: &grounds.ends,
            fractions,
            leaving: &grounds.leaving,
            serves: &grounds.serves,
            clean,
            now: moment.now_s,
            window: moment.window_s,
        };
        if follows_slots(service) {
            state.base.next(&standing)
        } else {
            state.base.next_untracked(&standing)
        }
    }

    /// What a service's next slots depend on.
    fn grounds(&self, service: &Service, fractions: &[Fraction], serves: &[bool]) -> Grounds {
        let ends = self.numbers.of_backends(service);
        let number = self.numbers.service(&service.key);
        let leaving: Vec<u16> = number
            .into_iter()
            .flat_map(|number| self.numbers.leaving_from(number))
            .collect();
        Grounds {
            serves: plan::serving(self.image.as_ref(), &leaving, &ends, serves),
            fractions: fractions.to_vec(),
            ends,
            leaving,
        }
    }

    /// Takes note of what the slots that packets follow now came from.
    pub(super) fn note_grounds(&mut self) {
        let grounds: Vec<Grounds> = self
            .config
            .services
            .iter()
            .zip(&self.services)
            .map(|(service, state)| {
                let (fractions, serves) = self.known(service, state);
                self.grounds(service, &fractions, &serves)
            })
            .collect();
        for (state, grounds) in self.services.iter_mut().zip(grounds) {
            state.grounds = Some(grounds);
        }
    }

    /// What is in force of each backend's weight, and whether its flows may go on.
    fn known(&self, service: &Service, state: &ServiceState) -> (Vec<Fraction>, Vec<bool>) {
        let backends = 0..state.backends.len();
        let fractions = backends.clone().map(|n| state.watched.fraction(n));
        let serves = backends.map(|n| self.keeps_flows(service, state, n));
        (fractions.collect(), serves.collect())
    }

    /// What packets of a service follow.
    fn live(&self, service: u16) -> Live<'_> {
        self.image
            .as_ref()
            .map_or(Live::Nothing, |image| image.live(service))
    }

    /// Whether the window of a transition is over, so that slots must change.
    pub(super) fn window_over(&self, now: Now) -> bool {
        let Some(image) = &self.image else {
            return false;
        };
        let mut services = image.tables.services.iter();
        services.any(|service| self.is_over(service.changed, now))
    }

    /// Whether the window of a transition that began then is over.
    fn is_over(&self, changed: u64, now: Now) -> bool {
        let moment = Moment {
            now_s: now.unix_ms / 1000,
            window_s: self.config.tracking.window.as_secs(),
        };
        moment.is_over(changed)
    }

    /// How many slots of a service are in transition, and how many are pinned.
    pub(super) fn unsteady(&self, service: &Service) -> (u32, u32) {
        let number = self.numbers.service(&service.key);
        let slots: &[Slot] = match number.map(|number| self.live(number)) {
            Some(Live::Ring { slots, .. }) => slots,
            _ => &[],
        };
        let in_transition = slots
            .iter()
            .filter(|slot| transition::names_endpoint(slot.prior()))
            .count();
        let steady = slots.iter().filter(|slot| slot.is_steady()).count();
        (
            in_transition as u32,
            (slots.len() - steady - in_transition) as u32,
        )
    }

    /// Whether flows that are a backend's may go on: it is up, or only said to be down.
    fn keeps_flows(&self, service: &Service, state: &ServiceState, backend: usize) -> bool {
        let seen = &state.backends[backend];
        let known = self.ways.contains_key(&service.backends[backend].address);
        let was_up =
            seen.is_healthy() || service.options.on_down == OnDown::Keep && seen.is_known();
        // In panic the probes are not believed.
        let in_panic = state.watched.panics() && service.backends[backend].weight.number() > 0;
        known && !seen.disabled && (was_up || in_panic)
    }

    /// Why a backend is not in the ring; `None` where it is.
    pub(super) fn out_of_ring(
        &self,
        service: &Service,
        state: &ServiceState,
        backend: usize,
    ) -> Option<String> {
        let (configured, seen) = (&service.backends[backend], &state.backends[backend]);
        if configured.weight.number() == 0 {
            let of = self.overrides.of(&service.name, &configured.name);
            Some(of.map_or_else(
                || "weight 0".to_owned(),
                |of| format!("{} by {}", of.rule, of.actor),
            ))
        } else if !seen.is_healthy() && !state.watched.panics() {
            let detail = seen
                .last_probe
                .as_ref()
                .map_or("not probed yet", |probe| &probe.detail);
            Some(format!("down: {detail}"))
        } else if let Some(why) = self.unreachable(service, configured) {
            Some(why)
        } else {
            let out = state.watched.fraction(backend) == Fraction::NONE;
            out.then(|| {
                let declined = self.declined(service, state, backend);
                declined.unwrap_or_else(|| "demoted".to_owned())
            })
        }
    }

    /// Why no packets can be sent to a backend; `None` where they can.
    pub(super) fn unreachable(&self, service: &Service, configured: &Backend) -> Option<String> {
        if let Some(way) = self.ways.get(&configured.address) {
            let tunnel = &self.config.tunnel;
            let lost = service.mode.tunnels() && !has_source(configured.address, way, tunnel);
            lost.then(|| {
                let key = if configured.address.is_ipv4() {
                    "source_ipv4"
                } else {
                    "source_ipv6"
                };
                format!(
                    "this host has no address of its own on the way to it: add one to its \
                     interface, or set tunnel.{key}"
                )
            })
        } else {
            Some(match self.hops.hops.get(&configured.address) {
                Some(Err(why)) => why.to_string(),
                _ => "its next hop is being looked up".to_owned(),
            })
        }
    }
}

/// Whether flows of a service follow its slots' transitions. UDP has no first packet that could
/// be told from the others, so its flows go to the owner at once, or are all
/// remembered, as those of mode `snat` are.
fn follows_slots(service: &Service) -> bool {
    service.key.protocol == Protocol::Tcp && service.mode != Mode::Snat
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Moment = Moment {
        now_s: 1_000,
        window_s: 600,
    };

    #[test]
    fn slots_stay_until_the_window_is_over_or_the_sweeper_is_through() {
        assert!(MOMENT.leaves(0, &[]), "steady");
        assert!(MOMENT.leaves(0, &[false, false]), "nothing is clean");
        assert!(MOMENT.leaves(401, &[]), "in its window");
        assert!(!MOMENT.leaves(400, &[]), "over");
        assert!(MOMENT.is_over(400) && !MOMENT.is_over(401));
        assert!(!MOMENT.leaves(401, &[false, true]), "some may be steady");
        assert!(!MOMENT.leaves(0, &[true]));
        assert!(MOMENT.leaves(1_000, &[]), "just now");
        assert!(!MOMENT.leaves(1_001, &[]), "the clock was set back");
    }

    #[test]
    fn slots_have_other_grounds_by_anything_that_they_follow_from() {
        let grounds = Grounds {
            ends: vec![1, 2, 3],
            fractions: vec![Fraction::FULL; 3],
            leaving: vec![4],
            serves: [1, 2, 4].into(),
        };
        assert!(grounds == grounds.clone());
        let slow = vec![Fraction::FULL, Fraction::one_of(2), Fraction::FULL];
        let others = [
            Grounds {
                ends: vec![1, 3, 2],
                ..grounds.clone()
            },
            Grounds {
                fractions: slow,
                ..grounds.clone()
            },
            Grounds {
                leaving: Vec::new(),
                ..grounds.clone()
            },
            Grounds {
                serves: [1, 2, 3, 4].into(),
                ..grounds.clone()
            },
        ];
        for (n, other) in others.into_iter().enumerate() {
            assert!(grounds != other, "the change {n}");
        }
    }
}
