//! What people call what the tables number.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use lb_common::{
    flow::Flow,
    layout::{FlowEntry, TICK_NS, entry},
    wire::tcp,
};

use crate::{
    admin::proto::flows as proto,
    balance::{
        image,
        sweep::{Reasons, Table},
    },
    model::{ConnectionLimit, Mode, ServiceKey, Spread},
};

/// Names, by number.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Services.
    pub services: BTreeMap<u16, NamedService>,
    /// Backends.
    pub backends: BTreeMap<u16, NamedBackend>,
    /// Interfaces, by index.
    pub interfaces: BTreeMap<u32, String>,
}

/// A service, as it is configured.
#[derive(Clone, Debug)]
pub struct NamedService {
    /// Its name.
    pub name: Arc<str>,
    /// What is addressed to it.
    pub key: ServiceKey,
    /// How its packets reach its backends.
    pub mode: Mode,
    /// What of a flow picks its slot.
    pub spread: Spread,
    /// How many connections a source may open.
    pub limit: Option<ConnectionLimit>,
}

/// A backend, as the controller sees it.
#[derive(Clone, Debug)]
pub struct NamedBackend {
    /// Its name.
    pub name: Arc<str>,
    /// `up`, `down`, `unknown` or `unchecked`.
    pub health: &'static str,
    /// Why it is not in the ring; `None` where it is.
    pub out_of_ring: Option<String>,
}

impl Names {
    /// A service's name, or its number where it is not configured any more.
    #[must_use]
    pub fn service(&self, number: u16) -> String {
        let known = self.services.get(&number);
        known.map_or_else(|| format!("#{number}"), |service| service.name.to_string())
    }

    /// A backend's name, or its number where it is not configured any more.
    #[must_use]
    pub fn backend(&self, number: u16) -> String {
        let known = self.backends.get(&number);
        known.map_or_else(|| format!("#{number}"), |backend| backend.name.to_string())
    }

    /// An interface's name, or its index.
    #[must_use]
    pub fn interface(&self, index: u32) -> String {
        let known = self.interfaces.get(&index).cloned();
        known.unwrap_or_else(|| format!("interface {index}"))
    }

    /// A remembered flow at some time, in ticks.
    #[must_use]
    pub fn flow(
        &self,
        reasons: &Reasons<'_>,
        (table, flow, found): (Table, &Flow, &FlowEntry),
        now: u32,
    ) -> proto::Flow {
        let end = |address, port: u16| {
            SocketAddr::new(image::ip(flow.family, address), u16::from_be(port))
        };
        let ticks = now.wrapping_sub(found.seen);
        // One that was seen after the clock was read was not silent.
        let silent = if ticks > u32::MAX / 2 { 0 } else { ticks };
        let why = reasons.why(flow, found);
        let state = match table {
            Table::Fresh => "new",
            Table::Established if found.flags & entry::CLOSING != 0 => "closing",
            Table::Established => "established",
        };
        proto::Flow {
            service: self.service(found.service),
            backend: self.backend(found.endpoint),
            protocol: if flow.protocol == tcp::PROTOCOL {
                "tcp"
            } else {
                "udp"
            }
            .to_owned(),
            client: end(flow.source, flow.source_port()),
            vip: end(flow.destination, flow.destination_port()),
            from: (found.other_port != 0).then(|| end(found.other, found.other_port)),
            silent_s: f64::from(silent) * TICK_NS as f64 / 1e9,
            state: state.to_owned(),
            why: why.word().to_owned(),
            owner: why.owner().map(|number| self.backend(number)),
        }
    }
}
