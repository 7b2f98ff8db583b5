//! Which remembered flows may be forgotten, and which slots nothing is remembered of any more.
//!
//! A pass looks at every entry of both tables once: first at the fresh ones, because entries move
//! from there to the established ones and never back within a pinned slot. What it finds out is
//! true of slots that were pinned all the time, in which no entry is born.

mod why;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lb_common::{
    flow::Flow,
    hash,
    layout::{
        ENDPOINTS, FlowEntry, NONE, PINNED, SERVICES, Slot, Tables, Vip, entry, flag, spread, state,
    },
};

use super::{
    image::{Image, vips},
    transition::names_endpoint,
};

pub use self::why::{Reasons, Why};

/// A table of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Flows of which only a first packet was seen.
    Fresh,
    /// The others.
    Established,
}

/// How long flows may be silent before they are forgotten, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// TCP.
    pub idle_tcp: u32,
    /// UDP.
    pub idle_udp: u32,
    /// TCP that has not begun, or is about to end.
    pub closing: u32,
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Keep,
    /// It is forgotten.
    Forget,
    /// It is forgotten, and with it that of the other direction.
    ForgetBoth(Table, Flow),
}

/// What a pass found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// The endpoints that a slot or an entry named.
    pub endpoints: BTreeSet<u16>,
    /// By service: what is remembered of it.
    pub services: Vec<Remembered>,
    /// How many flows are remembered as an endpoint's.
    pub flows: BTreeMap<u16, u64>,
}

/// What is remembered of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// How many flows.
    pub flows: u64,
    /// The pinned slots of which nothing is.
    pub clean: Vec<bool>,
}

/// A pass over the tables.
#[derive(Debug)]
pub struct Pass {
    limits: Limits,
    views: Vec<View>,
    learned: Learned,
}

/// A service as entries are judged by it.
#[derive(Clone, Debug, Default)]
struct View {
    /// Its record and its ring, where it has one.
    serving: Option<(Vip, Arc<[Slot]>)>,
    /// Whether it exists at all.
    exists: bool,
}

impl Pass {
    /// Begins a pass while packets follow an image.
    #[must_use]
    pub fn begin(image: &Image, limits: Limits) -> Self {
        let mut pass = Self {
            limits,
            views: views(image),
            learned: Learned {
                endpoints: BTreeSet::new(),
                services: vec![Remembered::default(); SERVICES],
                flows: BTreeMap::new(),
            },
        };
        for (view, service) in pass.views.iter().zip(&mut pass.learned.services) {
            let Some((_, slots)) = &view.serving else {
                continue;
            };
            service.clean = slots.iter().map(|slot| slot.prior() == PINNED).collect();
            name(&mut pass.learned.endpoints, slots);
        }
        pass
    }

    /// Takes note that packets follow another image from now on.
    pub fn published(&mut self, image: &Image) {
        let views = views(image);
        let services = self.learned.services.iter_mut();
        for ((before, after), service) in self.views.iter().zip(&views).zip(services) {
            let (was, is) = (slots(before), slots(after));
            if Arc::ptr_eq(&was, &is) {
                continue;
            }
            name(&mut self.learned.endpoints, &is);
            if was.len() == is.len() {
                for ((was, is), clean) in was.iter().zip(&*is).zip(&mut service.clean) {
                    *clean &= was == is;
                }
            } else {
                service.clean.clear();
            }
        }
        self.views = views;
    }

    /// Judges an entry as it was found at a time. `other` looks up the entry of the other
    /// direction, first among the fresh ones.
    ///
    /// # Errors
    /// Where `other` fails.
    pub fn judge<E>(
        &mut self,
        tables: &Tables,
        (table, flow, found): (Table, &Flow, &FlowEntry),
        now: u32,
        mut other: impl FnMut(&Flow) -> Result<Option<(Table, FlowEntry)>, E>,
    ) -> Result<Fate, E> {
        let number = usize::from(found.service);
        let exists = self.views.get(number).is_some_and(|view| view.exists);
        if !exists || !serves(tables, found) {
            return Ok(Fate::Forget);
        }
        let silent = silence(found, now);
        let limit = self.limit(table, flow, found);
        if is_paired(found) {
            if silent >= self.shortest(flow) {
                let key = other_direction(tables, flow, found);
                let pair = other(&key)?.filter(|(_, entry)| belongs(flow, found, entry));
                match pair {
                    None => return Ok(Fate::Forget),
                    Some((table, entry)) => {
                        let limit = limit.min(self.limit(table, flow, &entry));
                        if silent >= limit && silence(&entry, now) >= limit {
                            return Ok(Fate::ForgetBoth(table, key));
                        }
                    }
                }
            }
            self.keep(found, None);
            return Ok(Fate::Keep);
        }
        if silent >= limit {
            return Ok(Fate::Forget);
        }
        let Some((vip, slots)) = &self.views[number].serving else {
            self.keep(found, None);
            return Ok(Fate::Keep);
        };
        if vip.flags & flag::REMEMBER != 0 {
            self.keep(found, None);
            return Ok(Fate::Keep);
        }
        let at = slot_of(tables, vip, flow);
        let slot = slots[at];
        // What is not remembered there goes to the owner all the same. An entry that stayed would
        // be taken for that of a later flow with the same addresses and ports.
        let redundant =
            slot.prior() == NONE || slot.prior() == PINNED && slot.owner() == found.endpoint;
        if redundant {
            return Ok(Fate::Forget);
        }
        self.keep(found, Some(at));
        Ok(Fate::Keep)
    }

    /// Ends the pass, once every entry was judged.
    #[must_use]
    pub fn end(self) -> Learned {
        self.learned
    }

    fn keep(&mut self, found: &FlowEntry, slot: Option<usize>) {
        self.learned.endpoints.insert(found.endpoint);
        let service = &mut self.learned.services[usize::from(found.service)];
        if found.flags & entry::REPLY == 0 {
            service.flows += 1;
            *self.learned.flows.entry(found.endpoint).or_default() += 1;
        }
        if let Some(clean) = slot.and_then(|at| service.clean.get_mut(at)) {
            *clean = false;
        }
    }

    /// How long an entry may be silent.
    fn limit(&self, table: Table, flow: &Flow, found: &FlowEntry) -> u32 {
        if flow.protocol != lb_common::wire::tcp::PROTOCOL {
            self.limits.idle_udp
        } else if table == Table::Fresh || found.flags & entry::CLOSING != 0 {
            self.limits.closing
        } else {
            self.limits.idle_tcp
        }
    }

    /// The shortest of an entry's limits, whatever its other direction says.
    fn shortest(&self, flow: &Flow) -> u32 {
        if flow.protocol == lb_common::wire::tcp::PROTOCOL {
            self.limits.closing.min(self.limits.idle_tcp)
        } else {
            self.limits.idle_udp
        }
    }
}

/// Every service of an image, by number.
fn views(image: &Image) -> Vec<View> {
    let mut views = vec![View::default(); SERVICES];
    for vip in vips(&image.tables) {
        let Some(view) = views.get_mut(usize::from(vip.service)) else {
            continue;
        };
        match vip.state {
            state::SERVING => {
                view.exists = true;
                view.serving = image
                    .rings
                    .get(&vip.ring)
                    .map(|slots| (*vip, Arc::clone(slots)));
            }
            state::EMPTY_DROP | state::EMPTY_PASS => view.exists = true,
            _ => {}
        }
    }
    views
}

fn slots(view: &View) -> Arc<[Slot]> {
    match &view.serving {
        Some((_, slots)) => Arc::clone(slots),
        None => Arc::default(),
    }
}

fn name(endpoints: &mut BTreeSet<u16>, slots: &[Slot]) {
    for slot in slots {
        endpoints.extend(
            [slot.owner(), slot.prior()]
                .into_iter()
                .filter(|&n| names_endpoint(n)),
        );
    }
}

/// Whether the endpoint of an entry serves, and is still its service's.
fn serves(tables: &Tables, found: &FlowEntry) -> bool {
    tables
        .endpoints
        .get(usize::from(found.endpoint))
        .is_some_and(|endpoint| endpoint.serves != 0 && endpoint.service == found.service)
}

/// How long an entry was silent. One that was seen after `now` was read was not.
fn silence(found: &FlowEntry, now: u32) -> u32 {
    let ticks = now.wrapping_sub(found.seen);
    if ticks > u32::MAX / 2 { 0 } else { ticks }
}

/// The slot that a flow falls into.
///
/// Not the entry's own word for it: that is of the ring that it was born under, which may have had
/// another size.
fn slot_of(tables: &Tables, vip: &Vip, flow: &Flow) -> usize {
    let spread_by = match vip.spread {
        spread::SOURCE => Flow { ports: 0, ..*flow },
        spread::PORT => Flow {
            source: [0; 4],
            ports: flow.ports & 0xffff_0000,
            ..*flow
        },
        _ => *flow,
    };
    let hash = hash::flow(&spread_by, &tables.header.flow_keys);
    usize::from((hash >> 32) as u16 & vip.slot_mask)
}

/// Whether an entry is one of two, as under `snat`.
fn is_paired(found: &FlowEntry) -> bool {
    found.other_port != 0 || found.flags & entry::REPLY != 0
}

/// The key of the other direction's entry.
fn other_direction(tables: &Tables, flow: &Flow, found: &FlowEntry) -> Flow {
    let ports = |source: u16, destination: u16| u32::from(source) | u32::from(destination) << 16;
    if found.flags & entry::REPLY != 0 {
        let service = &tables.services[usize::from(found.service) & (SERVICES - 1)];
        return Flow {
            source: found.other,
            destination: service.address,
            ports: ports(found.other_port, found.vip_port),
            ..*flow
        };
    }
    let number = usize::from(found.endpoint) & (ENDPOINTS - 1);
    let at = match tables.endpoints[number].port {
        0 => flow.destination_port(),
        port => port,
    };
    Flow {
        source: tables.fars[number].address,
        destination: found.other,
        ports: ports(at, found.other_port),
        ..*flow
    }
}

/// Whether two entries are the two directions of one flow. The client may have opened another from
/// the same port meanwhile.
fn belongs(flow: &Flow, found: &FlowEntry, other: &FlowEntry) -> bool {
    let is_reply = |entry: &FlowEntry| entry.flags & entry::REPLY != 0;
    if is_reply(found) == is_reply(other) || found.endpoint != other.endpoint {
        return false;
    }
    if is_reply(found) {
        (other.other, other.other_port) == (flow.destination, flow.destination_port())
    } else {
        (other.other, other.other_port) == (flow.source, flow.source_port())
    }
}

#[cfg(test)]
mod tests;
