//! A traced decision, in words.

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    flow::V4,
    layout::{self, PINNED, Slot},
    trace::{Seen, Subject},
    trail::{Trail, step, table},
    verdict::Verdict,
    wire::{icmp, tcp, udp},
};

use super::{Names, words};
use crate::{
    admin::proto::{explain as proto, trace::Decision},
    balance::{image::ip, transition::names_endpoint},
};

/// The flags of a TCP segment, by their bits.
const FLAGS: [(u8, &str); 6] = [
    (tcp::SYN, "SYN"),
    (tcp::ACK, "ACK"),
    (tcp::FIN, "FIN"),
    (tcp::RST, "RST"),
    (1 << 3, "PSH"),
    (1 << 5, "URG"),
];

impl Names {
    /// A decision that was told; `at_us` is when the packet came.
    #[must_use]
    pub fn decision(&self, seen: &Seen, at_us: u64) -> Decision {
        let Seen {
            head,
            subject,
            trail,
        } = seen;
        let [source, destination] = ends(subject).map_or([None, None], |ends| ends.map(Some));
        let event = trail.first(step::EVENT);
        let forwarded = trail.first(step::FORWARDED);
        Decision {
            at_us,
            ingress: trail.ingress,
            interface: self.interface(trail.ingress),
            cpu: head.cpu,
            protocol: protocol(subject),
            source,
            destination,
            flags: flags(subject),
            length: head.length,
            verdict: verdict(trail).to_owned(),
            reason: trail.reason().map(|reason| reason.name().to_owned()),
            generation: trail.generation,
            service: (trail.service != layout::NONE).then(|| self.service(trail.service)),
            backend: (trail.endpoint != layout::NONE).then(|| self.backend(trail.endpoint)),
            reply: event.is_some_and(|step| step.answer() == step::REPLY),
            new_flow: forwarded.is_some_and(|step| step.answer() == step::YES),
            slot: self.slot(trail),
            remembered: remembered(trail).map(str::to_owned),
            why: self.line(trail, subject),
            left_by: match trail.verdict() {
                _ if is_struck(trail) => None,
                Some(Verdict::Transmit) => Some(trail.ingress),
                Some(Verdict::Redirect(interface)) => Some(interface),
                _ => None,
            },
            frame: None,
            left: None,
            left_length: None,
        }
    }

    /// The slot that was looked up.
    pub(super) fn slot(&self, trail: &Trail) -> Option<proto::Slot> {
        trail
            .first(step::SLOT)
            .filter(|step| step.answer() == step::YES)?;
        let prior = trail.slot.prior();
        Some(proto::Slot {
            number: trail.slot_number().into(),
            of: u32::from(trail.slot_mask) + 1,
            owner: self.backend(trail.slot.owner()),
            state: state(trail.slot).to_owned(),
            prior: names_endpoint(prior).then(|| self.backend(prior)),
        })
    }

    /// Why, in a line.
    fn line(&self, trail: &Trail, subject: &Subject) -> String {
        if let Some(reason) = trail.reason() {
            return words(reason).to_owned();
        }
        let backend = self.backend(trail.endpoint);
        if is_struck(trail) {
            return format!("a drill takes it, it would have gone to {backend}");
        }
        if trail
            .first(step::EVENT)
            .is_some_and(|s| s.answer() == step::REPLY)
        {
            return format!("a reply of {backend}");
        }
        if trail.table != table::NONE && trail.entry.endpoint == trail.endpoint {
            return format!("its flow is remembered as {backend}'s");
        }
        let Some(slot) = self.slot(trail) else {
            return format!("it follows a packet to {backend}");
        };
        let (number, of, owner) = (slot.number, slot.of, &slot.owner);
        match (&*slot.state, &slot.prior) {
            ("transition", Some(prior)) if tcp::opens(subject.tcp_flags) => {
                format!("slot {number} of {of} goes from {prior} to {owner}, who gets new flows")
            }
            ("transition", Some(prior)) => format!(
                "slot {number} of {of} goes from {prior} to {owner}; a flow that is not remembered is \
                 {prior}'s"
            ),
            _ => format!("slot {number} of {of} is {owner}'s"),
        }
    }
}

/// Whether a drill took it after it was decided.
fn is_struck(trail: &Trail) -> bool {
    trail.first(step::STRUCK).is_some()
}

/// The word for what became of a packet.
pub(super) fn verdict(trail: &Trail) -> &'static str {
    match trail.verdict() {
        _ if is_struck(trail) => "drop",
        Some(Verdict::Transmit) => "transmit",
        Some(Verdict::Redirect(_)) => "redirect",
        Some(Verdict::Pass(_)) => "pass",
        Some(Verdict::Drop(_)) => "drop",
        None => "none",
    }
}

/// The word for what a slot is.
fn state(slot: Slot) -> &'static str {
    if slot.is_steady() {
        "steady"
    } else if slot.prior() == PINNED {
        "pinned"
    } else {
        "transition"
    }
}

fn remembered(trail: &Trail) -> Option<&'static str> {
    match trail.table {
        table::FRESH => Some("new"),
        table::ESTABLISHED if trail.entry.flags & layout::entry::CLOSING != 0 => Some("closing"),
        table::ESTABLISHED => Some("established"),
        _ => None,
    }
}

fn protocol(subject: &Subject) -> Option<String> {
    (subject.flow.family != 0).then(|| match subject.flow.protocol {
        tcp::PROTOCOL => "tcp".to_owned(),
        udp::PROTOCOL => "udp".to_owned(),
        icmp::PROTOCOL | icmp::PROTOCOL_V6 => "icmp".to_owned(),
        other => other.to_string(),
    })
}

/// Source and destination.
fn ends(subject: &Subject) -> Option<[String; 2]> {
    let flow = &subject.flow;
    if flow.family == 0 {
        return None;
    }
    let [source, destination]: [IpAddr; 2] =
        [flow.source, flow.destination].map(|address| ip(flow.family, address));
    let has_ports = matches!(flow.protocol, tcp::PROTOCOL | udp::PROTOCOL);
    if !has_ports || subject.later_fragment != 0 {
        return Some([source.to_string(), destination.to_string()]);
    }
    let end = |address, port: u16| SocketAddr::new(address, u16::from_be(port)).to_string();
    Some([
        end(source, flow.source_port()),
        end(destination, flow.destination_port()),
    ])
}

fn flags(subject: &Subject) -> Option<String> {
    if subject.flow.protocol != tcp::PROTOCOL || subject.flow.family < V4 {
        return None;
    }
    let set = FLAGS.iter().filter(|(bit, _)| subject.tcp_flags & bit != 0);
    Some(set.map(|(_, name)| *name).collect::<Vec<_>>().join("+"))
}
