//! Asks the kernel for the facts.
//!
//! Everything is asked of the network namespace that the process is in. So nothing is read below
//! `/sys/class/net`: that shows the namespace that it was mounted from.

mod addresses;
mod links;
mod netdev;
mod nic;
mod programs;

use std::{collections::BTreeMap, fs, path::Path};

use rustix::{
    system::uname,
    thread::{CapabilitySet, capabilities},
};
use thiserror::Error;

pub use self::addresses::addresses;
use self::{links::Links, nic::Nics};
use super::facts::{Facts, Host, Interface, PinsPlace, Plan, QueueKind};
use crate::dataplane::pins;

/// Nothing can be told of the host.
#[derive(Debug, Error)]
pub enum Error {
    /// No rtnetlink.
    #[error("cannot open an rtnetlink socket: {0}")]
    Open(#[source] std::io::Error),
    /// The interfaces were not listed.
    #[error("cannot list the interfaces by rtnetlink: {0}")]
    Links(#[source] rtnetlink::Error),
}

/// How much to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What decides whether the program can be attached.
    Attach,
    /// The ways to the backends too, with one question for each address.
    Ways,
}

/// Gathers what is known of the host and of the interfaces named.
///
/// # Errors
/// Where rtnetlink is not to be had. What else the kernel does not tell is missing in the facts.
pub async fn facts(plan: Plan, names: &[String], depth: Depth) -> Result<Facts, Error> {
    let links = Links::list().await?;
    let mut nics = Nics::connect();
    let mut interfaces = BTreeMap::new();
    for name in names {
        let interface = match links.named(name) {
            Some(link) => Some(interface(&links, &mut nics, &link, &plan.pins).await),
            None => None,
        };
        interfaces.insert(name.clone(), interface);
    }
    let mut routes = BTreeMap::new();
    if depth == Depth::Ways {
        for way in &plan.ways {
            if !routes.contains_key(&way.backend)
                && let Some(route) = links.route(way.backend).await
            {
                routes.insert(way.backend, route);
            }
        }
    }
    Ok(Facts {
        host: host(&plan.pins),
        plan,
        interfaces,
        routes,
    })
}

fn host(pins: &Path) -> Host {
    Host {
        release: uname().release().to_string_lossy().into_owned(),
        jit: sysctl("core/bpf_jit_enable"),
        cpus: aya::util::online_cpus().map_or(1, |cpus| cpus.len() as u32),
        pins: if pins::in_bpffs(pins).unwrap_or(false) {
            PinsPlace::Bpffs
        } else if pins.starts_with(pins::BPFFS) {
            PinsPlace::Mountable
        } else {
            PinsPlace::Elsewhere
        },
        privileged: privileged(),
        frags: programs::frags(),
        rp_filter: sysctl("ipv4/conf/all/rp_filter"),
    }
}

/// Whether this process may load XDP programs and attach them.
fn privileged() -> bool {
    let Ok(sets) = capabilities(None) else {
        return false;
    };
    let has = |capability| sets.effective.contains(capability);
    has(CapabilitySet::SYS_ADMIN)
        || (has(CapabilitySet::BPF) && has(CapabilitySet::NET_ADMIN) && has(CapabilitySet::PERFMON))
}

async fn interface(links: &Links, nics: &mut Nics, link: &links::Link, pins: &Path) -> Interface {
    let channels = nics.channels(&link.name).await;
    let setting = |family: &str, key: &str| sysctl(&format!("{family}/conf/{}/{key}", link.name));
    Interface {
        up: link.up,
        carrier: link.carrier,
        ethernet: link.ethernet,
        kind: link.kind.clone(),
        driver: link.driver(),
        parent: links.parent(link),
        master: links.master(link),
        vlans: links.vlans(link),
        mtu: link.mtu,
        queues: channels.map_or(link.rx_queues, |channels| channels.now),
        max_queues: channels.map(|channels| channels.max),
        queue_kind: channels.map_or(QueueKind::Rx, |channels| channels.kind),
        offloads: nics.offloads(&link.name).await,
        xdp_features: nics.xdp_features(link.index).await,
        program: link
            .program
            .map(|(id, hook)| programs::program(id, hook, pins, link.index)),
        peer: links.peer(link).await,
        forwarding_v4: setting("ipv4", "forwarding").map(|value| value != 0),
        forwarding_v6: setting("ipv6", "forwarding").map(|value| value != 0),
        rp_filter: setting("ipv4", "rp_filter"),
    }
}

/// A number below `/proc/sys/net`, which shows the namespace of who reads it.
fn sysctl(path: &str) -> Option<u8> {
    let text = fs::read_to_string(Path::new("/proc/sys/net").join(path)).ok()?;
    text.trim().parse().ok()
}
