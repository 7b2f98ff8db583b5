//! What a drill would do, and what speaks against it.

use std::time::Duration;

use lb_common::{fault::Fault as Packets, layout::TICK_NS};

use super::{UNCONFIRMED, strike::ERRORS_OF_TEN};
use crate::{
    admin::{
        proto::{
            Status,
            drill::{LONGEST_S, Limits, MOST_SLOTS, Request},
            flows::prefix,
        },
        server::change::{Because, Refused},
    },
    audit,
    balance::image::{self, Image},
    controller::{state::State, trace::mask},
    dataplane::flows::Flows,
    drill::lever,
    model::{Drill, Service},
};

/// What is to be done.
pub(super) enum Fault {
    /// A backend gets another weight.
    Weight(u16),
    /// Packets follow a ring that is not the intended one.
    Ring(Box<Image>),
    /// A change that nobody confirms.
    Change(String),
    /// A backend's checks find what the drill wants, and packets to it are taken where clients are
    /// named.
    Strike(Option<Packets>),
}

/// A fault with what it comes to.
pub(super) struct Planned {
    pub(super) fault: Fault,
    pub(super) backend: Option<String>,
    pub(super) what: String,
    pub(super) slots: u32,
    pub(super) of_slots: u32,
}

impl State {
    /// Why there may be no drill now.
    pub(super) fn bars_to_drills(&self, status: &Status, service: &str) -> Vec<String> {
        let mut bars = Vec::new();
        if status.interfaces.is_empty() || self.waiting_for_all() {
            bars.push("the controller is still starting".to_owned());
        }
        if let Some(drilling) = &self.drilling {
            let name = &drilling.kept.drill;
            bars.push(match drilling.ended {
                None => format!("drill {name} is on: 'evenkeel drill abort' ends it"),
                Some(_) => format!("what drill {name} did is not over yet"),
            });
        }
        let in_force = self.kept.in_force();
        if self.pending.is_some() || in_force.is_some_and(|of| of.confirm_by_ms.is_some()) {
            bars.push("a change is under way, or waits for its confirmation".to_owned());
        }
        let alerts = status.alerts.iter();
        bars.extend(
            alerts
                .filter(|alert| alert.severity == "page" && alert.state != "waiting")
                .map(|alert| format!("an incident is on, {}: {}", alert.name, alert.summary)),
        );
        if let Some(audited) = &self.audited {
            let audited = audited.borrow();
            if audited.at_ms == 0 {
                bars.push("nothing was audited yet: try again in a minute".to_owned());
            }
            let errors = audited.findings.iter();
            let errors = errors.filter(|finding| finding.level >= audit::Level::Error);
            bars.extend(errors.map(|finding| format!("the audit finds an error, {finding}")));
        }
        let services = status.services.iter();
        for of in services.filter(|of| of.name == service) {
            if let Some(why) = of.panic.as_ref().or(of.fleet_degraded.as_ref()) {
                bars.push(why.clone());
            }
            let weak = of.backends.iter().filter(|backend| {
                let part = backend.weight_in_force.unwrap_or(1.0);
                backend.weight > 0 && (backend.health == "down" || part < 1.0)
            });
            bars.extend(weak.map(|backend| format!("{} has not its whole weight", backend.name)));
        }
        bars
    }

    /// What a drill would do.
    pub(super) fn plan_drill(
        &self,
        drill: Drill,
        service: &Service,
        request: &Request,
    ) -> Result<Planned, Refused> {
        let conflict = |error: String| Refused::new(Because::Conflict, error);
        let place = self
            .config
            .services
            .iter()
            .position(|of| of.name == service.name);
        let state = place.map(|place| &self.services[place]);
        let of_slots: u32 = state.map_or(0, |state| state.slots.iter().sum());
        if drill == Drill::Rollback {
            let number = self.kept.in_force().map(|of| of.number);
            let text = number.and_then(|number| self.kept.text(number).ok());
            let text = text.ok_or_else(|| {
                conflict("no configuration is kept that could be gone back to".to_owned())
            })?;
            return Ok(Planned {
                fault: Fault::Change(format!(
                    "{text}\n# A drill: this comment is not confirmed.\n"
                )),
                backend: None,
                what: format!(
                    "the configuration in force is applied with another comment, and not confirmed \
                     within {} s",
                    UNCONFIRMED.as_secs()
                ),
                slots: 0,
                of_slots,
            });
        }
        let serves = |n: &usize| {
            let backend = &service.backends[*n];
            backend.weight.number() > 0
                && state.is_some_and(|state| state.slots[*n] > 0)
                && self.overrides.of(&service.name, &backend.name).is_none()
        };
        let target = match &request.backend {
            Some(name) => {
                self.named(&service.name, name)?;
                let mut all = 0..service.backends.len();
                all.find(|&n| *service.backends[n].name == **name)
                    .filter(serves)
            }
            None => (0..service.backends.len()).find(serves),
        };
        let Some(n) = target else {
            let error = "it needs a backend that takes new flows and is not overridden: see \
                         'evenkeel status'";
            return Err(conflict(error.to_owned()));
        };
        let backend = service.backends[n].name.to_string();
        let name = format!("{}/{backend}", service.name);
        let weights: Vec<u16> = service.backends.iter().map(|b| b.weight.number()).collect();
        if drill == Drill::Skew {
            let weight = lever::weight(&weights, n, request.limits.slots).map_err(conflict)?;
            let sum: f64 = weights.iter().copied().map(f64::from).sum();
            let (own, new) = (f64::from(weights[n]), f64::from(weight));
            let moved = new / (sum - own + new) - own / sum;
            return Ok(Planned {
                fault: Fault::Weight(weight),
                what: format!("{name} is given weight {weight} instead of {own}"),
                backend: Some(backend),
                slots: (moved * f64::from(of_slots)).round() as u32,
                of_slots,
            });
        }
        let number = self.numbers.service(&service.key);
        let endpoint = self
            .numbers
            .endpoint(&service.key, service.backends[n].address);
        if drill.strikes() {
            return self.plan_strike(drill, service, (n, endpoint), request);
        }
        let image = self.image.as_ref().zip(number).zip(endpoint);
        let drifted = image.and_then(|((image, number), endpoint)| {
            image.drifted(number, |ring| {
                lever::drifted(ring, endpoint, request.limits.slots)
            })
        });
        let Some((image, slots)) = drifted.filter(|(_, slots)| *slots > 0) else {
            return Err(conflict(
                "no slot of its ring can be given away now".to_owned(),
            ));
        };
        Ok(Planned {
            fault: Fault::Ring(Box::new(image)),
            what: format!("{slots} of {of_slots} slots in the kernel are given to {name}"),
            backend: Some(backend),
            slots,
            of_slots,
        })
    }
}

impl State {
    /// What a drill would do that strikes a backend.
    fn plan_strike(
        &self,
        drill: Drill,
        service: &Service,
        (n, endpoint): (usize, Option<u16>),
        request: &Request,
    ) -> Result<Planned, Refused> {
        let conflict = |error: String| Refused::new(Because::Conflict, error);
        let backend = &service.backends[n];
        let name = format!("{}/{}", service.name, backend.name);
        let weights = service.backends.iter().map(|b| b.weight.number());
        let sum: f64 = weights.map(f64::from).sum();
        let share = f64::from(backend.weight.number()) / sum;
        if share > request.limits.slots {
            return Err(conflict(format!(
                "{name} has {:.0} % of the weight, and a drill may move {:.0} % of the slots: \
                 'evenkeel drill run --sandbox {drill}' does it where nobody is harmed",
                share * 100.0,
                request.limits.slots * 100.0
            )));
        }
        if service.health.is_none() {
            return Err(conflict(format!(
                "{} has no checks: nothing would find out",
                service.name
            )));
        }
        let endpoint =
            endpoint.ok_or_else(|| conflict("the backend has no number yet".to_owned()))?;
        let (fault, of_packets) = packets(drill, service, endpoint, request)?;
        let place = self
            .config
            .services
            .iter()
            .position(|of| of.key == service.key);
        let slots = place.map_or(&[][..], |place| &self.services[place].slots);
        Ok(Planned {
            fault: Fault::Strike(fault),
            what: format!("{} of {name} {of_packets}", checks_are(drill)),
            backend: Some(backend.name.to_string()),
            slots: slots.get(n).copied().unwrap_or(0),
            of_slots: slots.iter().sum(),
        })
    }
}

/// What becomes of clients' packets on their way to an endpoint, and in words.
fn packets(
    drill: Drill,
    service: &Service,
    endpoint: u16,
    request: &Request,
) -> Result<(Option<Packets>, String), Refused> {
    let invalid = |error: String| Refused::new(Because::Invalid, error);
    let Some(clients) = &request.clients else {
        return Ok((None, "and no packet is touched".to_owned()));
    };
    let network = prefix(clients).map_err(invalid)?;
    if network.addr().is_ipv4() != service.key.vip.is_ipv4() {
        return Err(invalid(format!(
            "no client of {} has an address in {network}: its VIP is {}",
            service.name, service.key.vip
        )));
    }
    let (client, client_family) = image::address(network.network());
    let part = f64::from(ERRORS_OF_TEN) / 10.0 * f64::from(u32::MAX);
    let ticks = Duration::from_secs_f64(request.lasts_s).as_nanos() / u128::from(TICK_NS);
    let fault = Packets {
        until: Flows::now().wrapping_add(ticks as u32),
        part: if drill == Drill::Errors {
            part as u32
        } else {
            u32::MAX
        },
        client,
        mask: mask(network),
        endpoint,
        client_family,
        opening: u8::from(drill == Drill::Slow),
    };
    let what = match drill {
        Drill::Slow => format!(
            "and the first packet of each connection from {network} to it is lost, so that opening \
             takes a second more"
        ),
        Drill::Errors => format!(
            "and the packets of {ERRORS_OF_TEN} of 10 connections from {network} to it are lost"
        ),
        _ => format!("and packets from {network} to it are lost"),
    };
    Ok((Some(fault), what))
}

/// What the checks of a backend are taken for.
fn checks_are(drill: Drill) -> String {
    match drill {
        Drill::Slow => "checks count as slow".to_owned(),
        Drill::Errors => format!("{ERRORS_OF_TEN} of 10 checks count as failed"),
        _ => "all checks count as failed".to_owned(),
    }
}

/// The drill that is asked for.
pub(super) fn drill_of(request: &Request) -> Result<Drill, Refused> {
    let invalid = |error: String| Err(Refused::new(Because::Invalid, error));
    let Some(drill) = Drill::of(&request.drill) else {
        return invalid(format!(
            "there is no drill {}: 'evenkeel drill list' shows those that there are",
            request.drill
        ));
    };
    if !drill.is_planned() {
        return invalid(format!(
            "the controller does not bring about drill {drill}: 'evenkeel drill run --sandbox {drill}' \
             does it in a network of its own"
        ));
    }
    if request.clients.is_some() && !drill.strikes() {
        return invalid(format!(
            "drill {drill} takes no packets: name clients in kill, slow and errors"
        ));
    }
    if !(request.lasts_s > 0.0 && request.lasts_s <= LONGEST_S) {
        return invalid(format!("a drill lasts up to {LONGEST_S} seconds"));
    }
    let Limits {
        slots,
        turned_away,
        slower,
    } = request.limits;
    if !(slots > 0.0 && slots <= MOST_SLOTS) {
        return invalid(format!(
            "a drill moves more than nothing and up to {:.0} % of the slots",
            MOST_SLOTS * 100.0
        ));
    }
    if !((0.0..=1.0).contains(&turned_away) && slower > 1.0) {
        return invalid(
            "the part that is turned away is from 0 to 1, and slower is a number above 1"
                .to_owned(),
        );
    }
    Ok(drill)
}
