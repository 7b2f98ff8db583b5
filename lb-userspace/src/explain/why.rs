//! The way of a packet, step by step, for somebody who is tired.

use lb_common::{
    flow::V4,
    layout::{PINNED, SourceKey, VipKey, entry, flag, mode},
    trail::{Step, step},
    verdict::{Reason, Verdict},
};

use super::{Case, NamedService, reason::words};
use crate::{
    admin::proto::explain::Protocol,
    balance::{
        image::{self, ip},
        transition::names_endpoint,
    },
    model::{Mode, Spread},
};

/// Connections are counted in so many parts.
const PARTS: u32 = 1024;

impl Case<'_> {
    /// Why the packet goes where it goes.
    pub(super) fn why(&self) -> Vec<String> {
        let mut why = Vec::new();
        let trail = &self.told.trail;
        match self.names.services.get(&trail.service) {
            Some(service) => {
                why.push(self.whose(service));
                why.extend(self.admission(service));
                why.extend(self.slot_in_words(service));
                why.extend(self.memory(service));
            }
            None => why.extend(self.nobody()),
        }
        why.extend(self.port());
        why.extend(self.backend_in_words());
        why.extend(self.way_back());
        why.extend(self.leaving());
        why.extend(self.end());
        why
    }

    /// Whose a packet is.
    fn whose(&self, service: &NamedService) -> String {
        let (name, key, mode) = (&service.name, service.key, service.mode);
        if self.told.trail.first(step::EVENT).is_some_and(is_reply) {
            return format!("it is a reply of service {name} ({key}, mode {mode})");
        }
        format!("{key} is service {name}, mode {mode}")
    }

    /// Which VIPs there are, where a packet is for none.
    fn nobody(&self) -> Option<String> {
        let to = self.packet.destination;
        let same = self.names.services.values().filter(|s| s.key.vip == to);
        let keys: Vec<String> = same
            .map(|service| format!("{} ({})", service.key, service.name))
            .collect();
        if keys.is_empty() {
            let reason = self.told.trail.reason()?;
            return (reason == Reason::NoService).then(|| format!("{to} is the VIP of no service"));
        }
        (self.packet.protocol != Protocol::Icmp)
            .then(|| format!("{to} is a VIP, but of {} alone", keys.join(", ")))
    }

    /// What lists and limits say.
    fn admission(&self, service: &NamedService) -> Vec<String> {
        let (trail, source) = (&self.told.trail, self.packet.source);
        let mut why = Vec::new();
        if let Some(step) = trail.first(step::LISTED) {
            let entry = self.entry_of(step.detail());
            why.push(match (step.answer(), entry) {
                (step::UNLISTED, _) if trail.reason() == Some(Reason::Denied) => format!(
                    "no entry of the service's list covers {source}, and the list allows some: \
                     others are denied"
                ),
                (step::UNLISTED, _) => {
                    format!("no entry of the service's list covers {source}: it is allowed")
                }
                (step::ALLOWED, entry) => format!("the list allows {source}{entry}"),
                (_, entry) => format!("the list denies {source}{entry}"),
            });
        }
        if let Some(step) = trail.first(step::LIMITED)
            && let Some(limit) = service.limit
        {
            let (burst, rate) = (limit.burst, limit.per_second);
            why.push(if trail.reason() == Some(Reason::Limited) {
                format!(
                    "{source} may open {burst} connections at once and {rate} a second after that, \
                     and has"
                )
            } else {
                format!(
                    "{source} may open {} more connections at once after this one (of {burst}, {rate} \
                     a second)",
                    step.detail() / PARTS
                )
            });
        }
        why
    }

    /// The longest entry of a list that covers the source.
    fn entry_of(&self, list: u32) -> String {
        let (address, family) = image::address(self.packet.source);
        let bits = |key: &SourceKey| key.prefix.saturating_sub(64);
        let number = |words: [u32; 4]| u128::from_be_bytes(bytemuck::cast(words));
        // Of IPv4 the first word of an entry, the last one of an address.
        let own = if family == V4 {
            number([address[3], 0, 0, 0])
        } else {
            number(address)
        };
        let covers = |key: &&SourceKey| {
            let shift = 128 - bits(key).min(128);
            let same = shift >= 128 || number(key.address) >> shift == own >> shift;
            u32::from(family) == key.family && same
        };
        let entries = self.image.lists.get(&list);
        let longest = entries
            .into_iter()
            .flat_map(|list| list.keys())
            .filter(covers)
            .max_by_key(|key| key.prefix);
        longest.map_or_else(String::new, |key| {
            let address = if family == V4 {
                [0, 0, 0, key.address[0]]
            } else {
                key.address
            };
            format!(" (by {}/{})", ip(family, address), bits(key))
        })
    }

    /// Which slot, and whose it is.
    fn slot_in_words(&self, service: &NamedService) -> Vec<String> {
        let trail = &self.told.trail;
        if trail.first(step::SLOT).is_none() {
            return Vec::new();
        }
        let by = match service.spread {
            Spread::Flow => "the hash of its addresses and ports",
            Spread::Source => "the hash of its source address",
            Spread::Port => "the hash of its destination port",
        };
        let (slot, owner) = (trail.slot, self.names.backend(trail.slot.owner()));
        let mut why = vec![format!(
            "{by}, {:08x}, picks slot {} of {}",
            trail.hash,
            trail.slot_number(),
            u32::from(trail.slot_mask) + 1
        )];
        let prior = slot.prior();
        why.push(if slot.is_steady() {
            format!(
                "the slot is {owner}'s, and has been for so long that no flow of it is remembered"
            )
        } else if prior == PINNED {
            format!(
                "the slot is {owner}'s since a change that is over: only flows that are remembered \
                 as another's stay there"
            )
        } else if names_endpoint(prior) {
            format!(
                "the slot is in transition: new flows are {owner}'s, and those that are not \
                 remembered are still {}'s",
                self.names.backend(prior)
            )
        } else {
            format!("the slot is {owner}'s")
        });
        if self.flags() & flag::QUIC != 0 {
            why.push(
                "a QUIC packet whose connection ID names a backend goes there instead: this one \
                 carries none"
                    .to_owned(),
            );
        }
        why
    }

    /// What is remembered of the flow, and what would be.
    fn memory(&self, service: &NamedService) -> Vec<String> {
        let trail = &self.told.trail;
        let mut why = Vec::new();
        let asked = trail.first(step::FRESH).or(trail.first(step::ESTABLISHED));
        if let Some(table) = self.table() {
            let found = &trail.entry;
            let whose = self.names.backend(found.endpoint);
            let shown = self
                .names
                .flow(self.reasons, (table, &self.flow(), found), self.now);
            let what = format!(
                "this flow is remembered as {whose}'s ({}, last seen {:.1} s ago)",
                shown.state, shown.silent_s
            );
            let serves = self
                .image
                .tables
                .endpoints
                .get(usize::from(found.endpoint))
                .is_some_and(|record| record.serves != 0);
            why.push(if found.endpoint == trail.endpoint {
                format!("{what}, and stays there")
            } else if !serves {
                format!("{what}, which serves no more: that counts for nothing")
            } else if found.flags & entry::CLOSING != 0 && self.packet.opens() {
                format!("{what}, and was seen to end: this begins another")
            } else {
                what
            });
        } else if asked.is_some() && trail.first(step::PORT).is_none() {
            why.push("nothing is remembered of this flow".to_owned());
        }
        let remembers = [step::REMEMBERED_FRESH, step::REMEMBERED, step::CLAIMED];
        let remembered = remembers.iter().find_map(|what| trail.first(*what));
        if let Some(step) = remembered
            && service.mode != Mode::Snat
        {
            let whose = self.names.backend(step.number());
            why.push(format!(
                "a packet like this one would be remembered as {whose}'s"
            ));
        }
        why
    }

    /// What `snat` sends from.
    fn port(&self) -> Option<String> {
        let trail = &self.told.trail;
        trail.first(step::PORT)?;
        let taken = trail
            .steps()
            .iter()
            .filter(|step| step.what() == step::CLAIMED && step.answer() == step::NO)
            .count();
        Some(format!(
            "a new flow gets the next port of the pool that is free, which depends on the processor \
             that it comes to{}",
            match taken {
                0 => String::new(),
                _ => format!("; {taken} were tried that are taken"),
            }
        ))
    }

    /// The backend, and how it is.
    fn backend_in_words(&self) -> Option<String> {
        let backend = self.backend(self.told.trail.endpoint)?;
        let health = match (backend.health, backend.out_of_ring) {
            (None, _) => "is not configured any more, and keeps the flows that it has".to_owned(),
            (Some(health), None) => format!("is {health}"),
            (Some(health), Some(why)) => {
                format!("is {health}, and out of the ring: {why}; it keeps the flows that it has")
            }
        };
        Some(format!("{} ({}) {health}", backend.name, backend.address))
    }

    /// The kernel's way to a client.
    fn way_back(&self) -> Option<String> {
        let trail = &self.told.trail;
        let step = trail.first(step::ROUTE)?;
        Some(match step.answer() {
            step::OVER => format!(
                "the kernel's way to the client is by {}",
                self.names.interface(trail.way)
            ),
            step::NOWHERE
                if trail
                    .first(step::AWAITED)
                    .is_some_and(|s| s.answer() == step::YES) =>
            {
                "a socket of this host waits for it: it is the host's own".to_owned()
            }
            step::NOWHERE => "the kernel has no way to the client".to_owned(),
            _ => "the kernel does not know the client's next hop yet".to_owned(),
        })
    }

    /// What leaves.
    fn leaving(&self) -> Option<String> {
        let trail = &self.told.trail;
        let sent = self.sent()?;
        let record = self
            .image
            .tables
            .endpoints
            .get(usize::from(trail.endpoint))?;
        trail.first(step::FORWARDED)?;
        let (by, mac, length) = (&sent.interface, &sent.mac, sent.length);
        let fits = match sent.mtu {
            Some(mtu) if length > u32::from(mtu) => {
                format!("{length} bytes, MORE THAN THE {mtu} that fit: it is lost there")
            }
            Some(mtu) => format!("{length} bytes of {mtu} that fit"),
            None => format!("{length} bytes"),
        };
        Some(match (record.mode, &sent.outer) {
            (mode::DSR, _) => {
                format!("its MAC addresses alone are rewritten: by {by} to {mac}, {fits}")
            }
            (mode::IPIP | mode::GUE, Some(outer)) => format!(
                "it travels in a packet from {} to {}: by {by} to {mac}, {fits}",
                outer.source, outer.destination
            ),
            _ => format!(
                "it leaves as {} -> {}: by {by} to {mac}, {fits}",
                sent.source, sent.destination
            ),
        })
    }

    /// Why it is not sent, or who answers.
    fn end(&self) -> Option<String> {
        let trail = &self.told.trail;
        if let Some(reason) = trail.reason() {
            return Some(words(reason).to_owned());
        }
        match trail.verdict() {
            Some(Verdict::Transmit | Verdict::Redirect(_)) => None,
            _ => Some("the program came to no end that it counts".to_owned()),
        }
    }

    /// The flags of the packet's VIP.
    fn flags(&self) -> u16 {
        let tables = &self.image.tables;
        let flow = self.flow();
        let of = |port| {
            let key = VipKey {
                address: flow.destination,
                port,
                protocol: flow.protocol,
                family: flow.family,
            };
            let places = tables.header.places(&key).map(|place| &tables.vips[place]);
            places.into_iter().find(|vip| vip.key == key)
        };
        let vip = of(flow.destination_port()).or_else(|| of(0));
        vip.map_or(0, |vip| vip.flags)
    }
}

fn is_reply(step: Step) -> bool {
    step.answer() == step::REPLY
}
