//! What becomes of a packet, in words: from the trail of the decision, the tables that it went by,
//! and the names of what they hold.

mod decision;
pub mod frame;
mod names;
mod reason;
mod why;

use lb_common::{
    flow::{self, Flow},
    layout,
    trail::{Step, Trail, step, table},
    verdict::{Reason, Verdict},
    wire::{icmp, tcp, udp},
};

pub use self::{
    names::{NamedBackend, NamedService, Names},
    reason::words,
};
use crate::{
    admin::proto::explain::{self as proto, Explanation, Packet, Sent},
    balance::{
        image::{self, Image},
        sweep::{Reasons, Table},
    },
};

/// What one home of the decision came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The frame as it was left.
    pub frame: Vec<u8>,
    /// How it came to that.
    pub trail: Trail,
}

/// What a packet's explanation is made from.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The packet.
    pub packet: &'a Packet,
    /// The interface that it comes in by.
    pub interface: &'a str,
    /// The kernel's answer.
    pub told: &'a Told,
    /// The tables.
    pub image: &'a Image,
    /// Why flows are remembered by these.
    pub reasons: &'a Reasons<'a>,
    /// What they hold.
    pub names: &'a Names,
    /// The present, in ticks.
    pub now: u32,
}

/// Where the homes differ; nothing where they agree.
#[must_use]
pub fn differences(kernel: &Told, host: &Told) -> Vec<String> {
    let mut found = Vec::new();
    let (ours, theirs) = (&host.trail, &kernel.trail);
    let mut differ = |what: &str, kernel: String, host: String| {
        if kernel != host {
            found.push(format!(
                "{what}: {kernel} in the kernel, {host} on the host"
            ));
        }
    };
    differ(
        "generation",
        theirs.generation.to_string(),
        ours.generation.to_string(),
    );
    let verdict = |trail: &Trail| match (trail.verdict(), trail.reason()) {
        (None, _) => "none".to_owned(),
        (Some(verdict), Some(reason)) => format!("{verdict:?} ({})", reason.name()),
        (Some(verdict), None) => format!("{verdict:?}"),
    };
    differ("verdict", verdict(theirs), verdict(ours));
    differ(
        "endpoint",
        theirs.endpoint.to_string(),
        ours.endpoint.to_string(),
    );
    let steps = |trail: &Trail| {
        let steps = trail.steps().iter().map(|step| comparable(*step));
        format!("{:?}", steps.collect::<Vec<_>>())
    };
    differ("steps", steps(theirs), steps(ours));
    if kernel.frame != host.frame {
        let at = kernel
            .frame
            .iter()
            .zip(&host.frame)
            .position(|(k, h)| k != h);
        let at = at.unwrap_or(kernel.frame.len().min(host.frame.len()));
        found.push(format!(
            "the frame, from byte {at} on: {} bytes in the kernel, {} on the host",
            kernel.frame.len(),
            host.frame.len()
        ));
    }
    found
}

/// A step without what the time makes of it.
const fn comparable(step: Step) -> (u8, u8, u16, u32) {
    let detail = if step.what() == step::LIMITED {
        0
    } else {
        step.detail()
    };
    (step.what(), step.answer(), step.number(), detail)
}

impl Case<'_> {
    /// What becomes of the packet, and why, as if nobody contradicted.
    #[must_use]
    pub fn explain(&self) -> Explanation {
        let trail = &self.told.trail;
        let service = self.names.services.get(&trail.service);
        let looked_up = trail
            .first(step::SLOT)
            .is_some_and(|s| s.answer() == step::YES);
        Explanation {
            packet: self.packet.clone(),
            interface: self.interface.to_owned(),
            forwarded: self.is_forwarded(),
            verdict: decision::verdict(trail).to_owned(),
            reason: trail.reason().map(|reason| reason.name().to_owned()),
            generation: trail.generation,
            service: (trail.service != layout::NONE).then(|| self.names.service(trail.service)),
            mode: service.map(|service| service.mode.to_string()),
            hash: looked_up.then(|| format!("{:08x}", trail.hash)),
            slot: self.names.slot(trail),
            flow: self.table().map(|table| {
                let flow = self.flow();
                let entry = (table, &flow, &trail.entry);
                self.names.flow(self.reasons, entry, self.now)
            }),
            backend: self.backend(trail.endpoint),
            sent: self.sent(),
            why: self.why(),
            agree: true,
            differences: Vec::new(),
        }
    }

    /// Whether the packet gets what it is for.
    fn is_forwarded(&self) -> bool {
        let trail = &self.told.trail;
        let answers = matches!(
            trail.reason(),
            None | Some(Reason::EchoAnswered | Reason::Related)
        );
        trail.verdict().is_some_and(Verdict::is_sent) && answers
    }

    /// The table that an entry of the flow was found in.
    fn table(&self) -> Option<Table> {
        match self.told.trail.table {
            table::FRESH => Some(Table::Fresh),
            table::ESTABLISHED => Some(Table::Established),
            _ => None,
        }
    }

    /// The packet's flow.
    fn flow(&self) -> Flow {
        let Packet {
            source,
            destination,
            ports,
            ..
        } = self.packet;
        let (source, family) = image::address(*source);
        let (destination, _) = image::address(*destination);
        let [from, to] = ports.unwrap_or_default().map(u16::to_be);
        Flow {
            source,
            destination,
            ports: u32::from(from) | u32::from(to) << 16,
            protocol: match self.packet.protocol {
                proto::Protocol::Tcp => tcp::PROTOCOL,
                proto::Protocol::Udp => udp::PROTOCOL,
                proto::Protocol::Icmp if family == flow::V4 => icmp::PROTOCOL,
                proto::Protocol::Icmp => icmp::PROTOCOL_V6,
            },
            family,
            reserved: [0; 2],
        }
    }

    fn backend(&self, number: u16) -> Option<proto::Backend> {
        if number == layout::NONE {
            return None;
        }
        let record = self.image.tables.endpoints.get(usize::from(number))?;
        let far = self.image.tables.fars.get(usize::from(number))?;
        let known = self.names.backends.get(&number);
        Some(proto::Backend {
            name: self.names.backend(number),
            address: image::ip(record.family, far.address),
            health: known.map(|known| known.health.to_owned()),
            out_of_ring: known.and_then(|known| known.out_of_ring.clone()),
        })
    }

    fn sent(&self) -> Option<Sent> {
        let trail = &self.told.trail;
        let by = match trail.verdict()? {
            Verdict::Transmit => trail.ingress,
            Verdict::Redirect(interface) => interface,
            Verdict::Pass(_) | Verdict::Drop(_) => return None,
        };
        let gue = u16::from_be(self.image.tables.header.gue_port);
        let read = frame::read(&self.told.frame, gue)?;
        let to_backend = trail.first(step::FORWARDED).map(Step::number);
        let mtu = to_backend.and_then(|number| {
            let record = self.image.tables.endpoints.get(usize::from(number));
            record.map(|record| record.mtu)
        });
        Some(Sent {
            interface: self.names.interface(by),
            mac: mac(read.mac),
            from_mac: mac(read.from_mac),
            source: read.source,
            destination: read.destination,
            outer: read.outer,
            length: read.length,
            mtu,
        })
    }
}

/// Writes a MAC address.
#[must_use]
pub fn mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
