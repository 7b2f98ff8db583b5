//! What the facts mean.
//!
//! A rule looks at one thing and says at most one thing about it. It is silent where it does not
//! apply, or where the kernel did not tell what it judges by.

mod host;
mod link;
mod nic;
mod slot;
mod way;

#[cfg(test)]
mod tests;

use super::{
    facts::{Facts, Interface},
    finding::{Finding, Level, Remedy},
};

/// A rule about the host.
type HostRule = fn(&Facts) -> Option<Finding>;
/// A rule about an interface with its name.
type InterfaceRule = fn(&Facts, &str, &Interface) -> Option<Finding>;

const HOST: [HostRule; 4] = [host::privilege, host::kernel, host::jit, host::bpffs];

const INTERFACE: [InterfaceRule; 14] = [
    link::ethernet,
    link::up,
    link::port,
    slot::xdp_slot,
    nic::native,
    link::mtu,
    nic::lro,
    nic::gro_hw,
    nic::vlan_offload,
    nic::queues,
    nic::send_queues,
    link::veth_peer,
    way::forwarding,
    way::rp_filter,
];

/// Judges everything, the host first, then each interface, then each service's ways.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<_> = HOST.iter().filter_map(|rule| rule(facts)).collect();
    for (name, interface) in &facts.interfaces {
        match interface {
            None => findings.push(missing(name)),
            Some(interface) => {
                findings.extend(
                    INTERFACE
                        .iter()
                        .filter_map(|rule| rule(facts, name, interface)),
                );
            }
        }
    }
    findings.extend(way::ways(facts));
    findings
}

fn missing(name: &str) -> Finding {
    Finding::new(
        Level::Error,
        "exists",
        name,
        format!("interface {name} does not exist"),
        "",
        Remedy::command(
            "correct data_plane.interfaces; this lists what there is",
            ["ip", "-brief", "link"],
        ),
    )
}
