//! Beds for each mode of forwarding, ready for traffic.

#![allow(
    dead_code,
    reason = "each test that includes this module uses a part of it"
)]

use std::net::IpAddr;

use evenkeel_tests::{
    decap::Decap,
    server::Web,
    topology::{Answers, Service, Spec, Topology, VIP4, VIP6},
};

/// How packets reach the backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Dsr,
    /// IPv4 in IPv4, IPv6 in IPv6.
    Ipip,
    /// The VIP's family in the other one.
    IpipAcross,
    Gue,
    Nat,
    Snat,
}

pub(crate) const WAYS: [Way; 6] = [
    Way::Dsr,
    Way::Ipip,
    Way::IpipAcross,
    Way::Gue,
    Way::Nat,
    Way::Snat,
];

impl Way {
    fn mode(self) -> &'static str {
        match self {
            Self::Dsr => "dsr",
            Self::Ipip | Self::IpipAcross => "ipip",
            Self::Gue => "gue",
            Self::Nat => "nat",
            Self::Snat => "snat",
        }
    }

    pub(crate) fn has_tunnel(self) -> bool {
        matches!(self, Self::Ipip | Self::IpipAcross | Self::Gue)
    }

    /// A network as this way needs it.
    pub(crate) fn bed(self, backends: u8) -> Bed {
        self.bed_with(&Spec {
            backends,
            ..Spec::default()
        })
    }

    /// The same as another one in everything else.
    pub(crate) fn bed_with(self, spec: &Spec) -> Bed {
        let topology = Topology::build(&Spec {
            answers: if self == Self::Nat {
                Answers::ByBalancer
            } else {
                Answers::ByRouter
            },
            pool: if self == Self::Snat {
                vec![3, 4]
            } else {
                Vec::new()
            },
            ..spec.clone()
        });
        Bed {
            way: self,
            // Servers and tunnels borrow it until the end of the test.
            topology: Box::leak(Box::new(topology.expect("a bed"))),
        }
    }
}

/// A network for one way of forwarding.
pub(crate) struct Bed {
    pub(crate) way: Way,
    pub(crate) topology: &'static Topology,
}

impl Bed {
    /// What a configuration begins with.
    pub(crate) fn head(&self) -> String {
        let head = self.topology.config_head();
        if self.way == Way::Snat {
            format!("{head}\n[snat]\naddresses = {}\n", self.topology.pool())
        } else {
            head
        }
    }

    /// A web service over this way.
    pub(crate) fn web<'a>(&self, name: &'a str, vip: IpAddr) -> Service<'a> {
        let mut service = Service::web(name, vip);
        service.options = format!("mode = \"{}\"\n", self.way.mode());
        if self.way == Way::IpipAcross {
            service.family = Some(if vip.is_ipv4() { VIP6 } else { VIP4 });
        }
        service
    }

    /// Starts what the backends need beside their servers.
    pub(crate) fn tunnels(&self) -> Vec<Decap<'static>> {
        if !self.way.has_tunnel() {
            return Vec::new();
        }
        let hosts = self.topology.backends.iter();
        hosts
            .map(|host| Decap::start(self.topology, host).expect("a decapsulator"))
            .collect()
    }

    pub(crate) fn servers(&self) -> Vec<Web<'static>> {
        Web::start_all(self.topology).expect("web servers")
    }
}
