//! What the kernel said about links, neighbours and routes, and what follows from it.
//!
//! Facts go in, [`Table::answer`] and [`Table::requests`] come out. No socket, no task, no clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{NextHop, NextHops, Refusal, Rejection, Unresolved};

/// How long after one request for a next hop the next one follows, if it did not make the kernel
/// manage the entry.
pub const ASK_AGAIN: Duration = Duration::from_secs(5);

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: Arc<str>,
    /// Its own MAC address; `None` where it does not speak Ethernet.
    pub mac: Option<[u8; 6]>,
    /// The largest IP packet that it sends, in bytes.
    pub mtu: u32,
}

/// A neighbour's key: the same address may be a different machine on another link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// The index of the interface.
    pub interface: u32,
    /// The neighbour's address.
    pub address: IpAddr,
}

/// How far the kernel is with a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reachability {
    /// Its MAC address is known and has not been found wrong.
    Known,
    /// It has not answered, or not any more; or the kernel has forgotten it.
    Silent,
    /// Configured by the administrator, or needing no resolution: not ours to touch.
    Fixed,
}

/// Whether the kernel keeps an entry fresh by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    /// Nobody does.
    None,
    /// It does, because a watcher of this program asked it to.
    Ours,
    /// It does, because somebody else asked it to.
    Foreign,
}

/// An entry of the kernel's neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Which one.
    pub hop: Hop,
    /// Its MAC address, where the kernel knows a valid one.
    pub mac: Option<[u8; 6]>,
    /// How far the kernel is with it.
    pub reachability: Reachability,
    /// Whether the kernel keeps it fresh.
    pub upkeep: Upkeep,
}

/// What looking up the route to an address gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// A way out.
    Via {
        /// The index of the interface.
        interface: u32,
        /// The router; `None` where the address is on the link.
        gateway: Option<IpAddr>,
        /// The address of this host that the kernel would send from.
        source: Option<IpAddr>,
    },
    /// A way out through a tunnel that the route itself describes.
    Encapsulated,
    /// To this host itself.
    Local,
    /// To several hosts.
    NotUnicast,
    /// A route that refuses packets.
    Rejected(Rejection),
    /// No route covers it.
    None,
    /// The look-up failed with this positive error number.
    Failed(i32),
}

/// What the kernel is to be asked to do with a neighbour entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Create an entry, resolve it, keep it fresh. Must fail where there is an entry.
    Create(Hop),
    /// Resolve an existing entry, keep it fresh.
    Manage(Hop),
    /// No longer keep an existing entry fresh.
    Release(Hop),
}

impl Request {
    /// The neighbour concerned.
    pub const fn hop(self) -> Hop {
        match self {
            Self::Create(hop) | Self::Manage(hop) | Self::Release(hop) => hop,
        }
    }
}

/// A neighbour entry as it stands, or stood.
#[derive(Clone, Copy, Debug)]
struct Entry {
    neighbour: Neighbour,
    /// The kernel has deleted it; it is remembered for its MAC address alone.
    gone: bool,
}

/// The last request about a neighbour.
#[derive(Clone, Copy, Debug)]
struct Asked {
    request: Request,
    at: Instant,
    refusal: Option<Refusal>,
}

/// Everything that is known, for a set of addresses.
#[derive(Debug, Default)]
pub struct Table {
    links: BTreeMap<u32, Link>,
    entries: BTreeMap<Hop, Entry>,
    routes: BTreeMap<IpAddr, Route>,
    /// The next hops of `routes`, of those on an Ethernet link.
    needed: BTreeSet<Hop>,
    asked: BTreeMap<Hop, Asked>,
}

impl Table {
    /// Replaces all links.
    pub fn replace_links(&mut self, links: impl IntoIterator<Item = Link>) {
        self.links = links.into_iter().map(|link| (link.index, link)).collect();
        self.find_needed();
    }

    /// Takes a new or changed link.
    pub fn update_link(&mut self, link: Link) {
        self.links.insert(link.index, link);
        self.find_needed();
    }

    /// Forgets a link, and its neighbours: a later link of the same index is another one.
    pub fn remove_link(&mut self, index: u32) {
        self.links.remove(&index);
        self.entries.retain(|hop, _| hop.interface != index);
        self.find_needed();
    }

    /// Replaces all neighbours; those that are missing count as deleted.
    pub fn replace_neighbours(&mut self, neighbours: impl IntoIterator<Item = Neighbour>) {
        let mut missing: BTreeSet<Hop> = self.entries.keys().copied().collect();
        for neighbour in neighbours {
            missing.remove(&neighbour.hop);
            self.update_neighbour(neighbour);
        }
        for hop in missing {
            self.remove_neighbour(hop);
        }
    }

    /// Takes a new or changed neighbour.
    ///
    /// One whose upkeep changed may be asked for again at once.
    /// One without MAC address keeps the one that was known last, for the health check, not a
    /// missed ARP reply, decides whether a backend is usable.
    pub fn update_neighbour(&mut self, mut neighbour: Neighbour) {
        let hop = neighbour.hop;
        if let Some(last) = self.entries.get(&hop) {
            neighbour.mac = neighbour.mac.or(last.neighbour.mac);
            if last.neighbour.upkeep != neighbour.upkeep {
                self.asked.remove(&hop);
            }
        }
        self.entries.insert(
            hop,
            Entry {
                neighbour,
                gone: false,
            },
        );
    }

    /// Takes the deletion of a neighbour; the MAC address of a next hop is kept.
    pub fn remove_neighbour(&mut self, hop: Hop) {
        if !self.needed.contains(&hop) {
            self.entries.remove(&hop);
        } else if let Some(entry) = self.entries.get_mut(&hop).filter(|entry| !entry.gone) {
            entry.gone = true;
            entry.neighbour.reachability = Reachability::Silent;
            entry.neighbour.upkeep = Upkeep::None;
            self.asked.remove(&hop);
        }
    }

    /// Replaces all routes, and with them the addresses that [`Table::answer`] speaks of.
    pub fn replace_routes(&mut self, routes: BTreeMap<IpAddr, Route>) {
        self.routes = routes;
        self.find_needed();
        let needed = &self.needed;
        self.entries
            .retain(|hop, entry| !entry.gone || needed.contains(hop));
        // A hop that comes back after it was not needed is asked for without delay.
        let entries = &self.entries;
        self.asked
            .retain(|hop, _| needed.contains(hop) || entries.contains_key(hop));
    }

    /// Whether a route to this prefix, of `length` bits, covers any of the addresses.
    pub fn is_concerned(&self, prefix: IpAddr, length: u8) -> bool {
        self.routes
            .keys()
            .any(|address| covers(prefix, length, *address))
    }

    /// What to ask of the kernel now; each answer must be handed to [`Table::answered`].
    pub fn requests(&self, now: Instant) -> Vec<Request> {
        self.wishes()
            .filter(|wish| self.held_back(*wish).is_none_or(|end| end <= now))
            .collect()
    }

    /// Takes the kernel's answer to a request.
    pub fn answered(&mut self, request: Request, result: Result<(), Refusal>, now: Instant) {
        self.asked.insert(
            request.hop(),
            Asked {
                request,
                at: now,
                refusal: result.err(),
            },
        );
    }

    /// When [`Table::requests`] is worth calling again, if no fact changes before, given that all
    /// requests were answered; `None` while the kernel keeps all next hops fresh by itself.
    pub fn next_request(&self) -> Option<Instant> {
        self.wishes().filter_map(|wish| self.held_back(wish)).min()
    }

    /// The conclusion for each address.
    pub fn answer(&self) -> NextHops {
        let mut answer = NextHops::default();
        for (&address, &route) in &self.routes {
            let hop = self
                .resolve(address, route)
                .map(|(next_hop, reachability)| {
                    if reachability == Reachability::Silent {
                        answer.silent.insert(address);
                    }
                    next_hop
                });
            answer.hops.insert(address, hop);
        }
        answer
    }

    fn resolve(
        &self,
        address: IpAddr,
        route: Route,
    ) -> Result<(NextHop, Reachability), Unresolved> {
        let (interface, gateway, source) = match route {
            Route::Via {
                interface,
                gateway,
                source,
            } => (interface, gateway, source),
            Route::Encapsulated => return Err(Unresolved::Encapsulated { address }),
            Route::Local => return Err(Unresolved::Local { address }),
            Route::NotUnicast => return Err(Unresolved::NotUnicast { address }),
            Route::Rejected(kind) => return Err(Unresolved::Rejected { address, kind }),
            Route::None => return Err(Unresolved::NoRoute { address }),
            Route::Failed(errno) => return Err(Unresolved::LookupFailed { address, errno }),
        };
        let link = self
            .links
            .get(&interface)
            .ok_or(Unresolved::InterfaceGone { address, interface })?;
        let interface_name = Arc::clone(&link.name);
        let Some(source_mac) = link.mac else {
            return Err(Unresolved::NoEthernet {
                address,
                interface: interface_name,
            });
        };
        let hop = Hop {
            interface,
            address: gateway.unwrap_or(address),
        };
        let entry = self.entries.get(&hop);
        if let Some(Neighbour {
            mac: Some(mac),
            reachability,
            ..
        }) = entry.map(|e| e.neighbour)
        {
            let next_hop = NextHop {
                interface,
                interface_name,
                source_mac,
                gateway,
                mac,
                mtu: link.mtu,
                source,
            };
            return Ok((next_hop, reachability));
        }
        let next_hop = hop.address;
        let refusal = self.asked.get(&hop).and_then(|asked| asked.refusal);
        Err(match refusal {
            Some(refusal) => Unresolved::Refused {
                address,
                next_hop,
                interface: interface_name,
                refusal,
            },
            None => Unresolved::Waiting {
                address,
                next_hop,
                interface: interface_name,
            },
        })
    }

    /// What the kernel should do, whether or not it was asked already.
    fn wishes(&self) -> impl Iterator<Item = Request> {
        let releases = self.entries.iter().filter_map(|(hop, entry)| {
            let is_spare = entry.neighbour.upkeep == Upkeep::Ours && !self.needed.contains(hop);
            is_spare.then_some(Request::Release(*hop))
        });
        let keeps = self
            .needed
            .iter()
            .filter_map(|hop| match self.entries.get(hop) {
                None | Some(Entry { gone: true, .. }) => Some(Request::Create(*hop)),
                Some(Entry { neighbour, .. }) => (neighbour.upkeep == Upkeep::None
                    && neighbour.reachability != Reachability::Fixed)
                    .then_some(Request::Manage(*hop)),
            });
        releases.chain(keeps)
    }

    /// Until when a wish waits, because it was put to the kernel before.
    fn held_back(&self, wish: Request) -> Option<Instant> {
        let is_release = |request| matches!(request, Request::Release(_));
        let asked = self.asked.get(&wish.hop())?;
        (is_release(asked.request) == is_release(wish)).then_some(asked.at + ASK_AGAIN)
    }

    fn find_needed(&mut self) {
        let needed = self
            .routes
            .iter()
            .filter_map(|(&address, &route)| match route {
                Route::Via {
                    interface, gateway, ..
                } => {
                    self.links.get(&interface)?.mac?;
                    Some(Hop {
                        interface,
                        address: gateway.unwrap_or(address),
                    })
                }
                _ => None,
            });
        self.needed = needed.collect();
    }
}

/// Whether a prefix of `length` bits contains an address.
fn covers(prefix: IpAddr, length: u8, address: IpAddr) -> bool {
    let length = u32::from(length);
    match (prefix, address) {
        (IpAddr::V4(prefix), IpAddr::V4(address)) => {
            let differing = prefix.to_bits() ^ address.to_bits();
            differing.leading_zeros() >= length
        }
        (IpAddr::V6(prefix), IpAddr::V6(address)) => {
            let differing = prefix.to_bits() ^ address.to_bits();
            differing.leading_zeros() >= length
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
