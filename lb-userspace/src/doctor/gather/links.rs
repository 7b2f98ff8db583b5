//! Interfaces and routes, by rtnetlink.

use std::{fs, net::IpAddr, path::Path};

use futures_util::{StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    Handle,
    packet_core::DefaultNla,
    packet_route::{
        AddressFamily,
        link::{
            InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
            Prop, XdpAttached,
        },
        route::{RouteAttribute, RouteMessage, RouteMetric},
    },
};
use tokio::task::AbortHandle;

use super::{
    super::facts::{Hook, Master, Peer, Route},
    Error,
};

/// `IFLA_TARGET_NETNSID` of `linux/if_link.h`: ask in the namespace that has this number here.
const TARGET_NAMESPACE: u16 = 46;

/// An interface, as rtnetlink has it.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    alternative: Vec<String>,
    pub(super) up: bool,
    pub(super) carrier: bool,
    pub(super) ethernet: bool,
    pub(super) kind: Option<String>,
    device: Option<(String, String)>,
    lower: Option<u32>,
    lower_namespace: Option<i32>,
    master: Option<u32>,
    pub(super) mtu: u32,
    pub(super) rx_queues: u32,
    tx_queues: u32,
    pub(super) program: Option<(u32, Hook)>,
}

/// All interfaces, and the socket to ask for more by.
pub(super) struct Links {
    handle: Handle,
    task: AbortHandle,
    all: Vec<Link>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Links {
    pub(super) async fn list() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
        // From here on the task has an owner that ends it.
        let mut links = Self {
            task: tokio::spawn(connection).abort_handle(),
            handle,
            all: Vec::new(),
        };
        let messages = links.handle.link().get().execute();
        links.all = messages
            .map_ok(|message| link(&message))
            .try_collect()
            .await
            .map_err(Error::Links)?;
        Ok(links)
    }

    pub(super) fn named(&self, name: &str) -> Option<Link> {
        let known_as =
            |link: &&Link| link.name == name || link.alternative.iter().any(|a| a == name);
        self.all.iter().find(known_as).cloned()
    }

    fn numbered(&self, index: u32) -> Option<&Link> {
        self.all.iter().find(|link| link.index == index)
    }

    /// What an interface is stacked on, in this namespace.
    pub(super) fn parent(&self, link: &Link) -> Option<String> {
        if link.lower_namespace.is_some() || link.kind.as_deref() == Some("veth") {
            return None;
        }
        Some(self.numbered(link.lower?)?.name.clone())
    }

    pub(super) fn master(&self, link: &Link) -> Option<Master> {
        let master = self.numbered(link.master?)?;
        Some(Master {
            name: master.name.clone(),
            kind: master.kind.clone()?,
        })
    }

    pub(super) fn vlans(&self, parent: &Link) -> Vec<String> {
        let on_top = |link: &&Link| {
            link.kind.as_deref() == Some("vlan")
                && link.lower == Some(parent.index)
                && link.lower_namespace.is_none()
        };
        self.all
            .iter()
            .filter(on_top)
            .map(|link| link.name.clone())
            .collect()
    }

    /// The other end of a veth pair, in whatever namespace it is.
    pub(super) async fn peer(&self, link: &Link) -> Option<Peer> {
        if link.kind.as_deref() != Some("veth") {
            return None;
        }
        let peer = match link.lower_namespace {
            None => self.numbered(link.lower?)?.clone(),
            Some(namespace) => {
                let mut get = self.handle.link().get().match_index(link.lower?);
                get.message_mut()
                    .attributes
                    .push(LinkAttribute::Other(DefaultNla::new(
                        TARGET_NAMESPACE,
                        namespace.to_ne_bytes().to_vec(),
                    )));
                let mut answers = Box::pin(get.execute());
                match answers.next().await? {
                    Ok(message) => self::link(&message),
                    Err(e) => {
                        log::debug!("the other end of {} cannot be seen: {e}", link.name);
                        return None;
                    }
                }
            }
        };
        Some(Peer {
            mtu: peer.mtu,
            queues: peer.tx_queues,
            program: peer.program.is_some(),
        })
    }

    /// The way to an address, as `ip route get` has it; `None` where there is none.
    pub(super) async fn route(&self, address: IpAddr) -> Option<Route> {
        let mut request = RouteMessage::default();
        (
            request.header.address_family,
            request.header.destination_prefix_length,
        ) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        request
            .attributes
            .push(RouteAttribute::Destination(address.into()));
        let mut answers = Box::pin(self.handle.route().get(request).execute());
        let message = answers.next().await?.ok()?;
        let (mut interface, mut own_mtu) = (None, None);
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => interface = self.numbered(index),
                RouteAttribute::Metrics(metrics) => {
                    own_mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        let interface = interface?;
        Some(Route {
            interface: interface.name.clone(),
            mtu: own_mtu.map_or(interface.mtu, |mtu| mtu.min(interface.mtu)),
        })
    }
}

impl Link {
    /// The driver of the device behind it.
    ///
    /// Not from `/sys/class/net`, which shows another namespace; buses are the same in all.
    pub(super) fn driver(&self) -> Option<String> {
        let (bus, device) = self.device.as_ref()?;
        let link = Path::new("/sys/bus").join(bus).join("devices").join(device);
        let driver = fs::read_link(link.join("driver")).ok()?;
        Some(driver.file_name()?.to_string_lossy().into_owned())
    }
}

fn link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        alternative: Vec::new(),
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        kind: None,
        device: None,
        lower: None,
        lower_namespace: None,
        master: None,
        mtu: 0,
        rx_queues: 1,
        tx_queues: 1,
        program: None,
    };
    let (mut bus, mut device) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::PropList(properties) => {
                link.alternative = properties.iter().filter_map(alternative).collect();
            }
            LinkAttribute::LinkInfo(infos) => link.kind = infos.iter().find_map(kind),
            LinkAttribute::ParentDevBusName(name) => bus = Some(name.clone()),
            LinkAttribute::ParentDevName(name) => device = Some(name.clone()),
            LinkAttribute::Link(index) => link.lower = Some(*index),
            LinkAttribute::LinkNetNsId(number) => link.lower_namespace = Some(*number),
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::NumRxQueues(number) => link.rx_queues = *number,
            LinkAttribute::NumTxQueues(number) => link.tx_queues = *number,
            LinkAttribute::Xdp(attributes) => link.program = program(attributes),
            _ => {}
        }
    }
    link.device = bus.zip(device);
    link
}

fn alternative(property: &Prop) -> Option<String> {
    match property {
        Prop::AltIfName(name) => Some(name.clone()),
        _ => None,
    }
}

fn kind(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(InfoKind::Other(kind)) => Some(kind.clone()),
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

fn program(attributes: &[LinkXdp]) -> Option<(u32, Hook)> {
    let mut hook = Hook::Other;
    let mut id = None;
    for attribute in attributes {
        match attribute {
            LinkXdp::Attached(XdpAttached::Driver) => hook = Hook::Native,
            LinkXdp::Attached(XdpAttached::SocketBuffer) => hook = Hook::Generic,
            LinkXdp::ProgId(number)
            | LinkXdp::DrvProgId(number)
            | LinkXdp::SkbProgId(number)
            | LinkXdp::HwProgId(number) => id = id.or(Some(*number)),
            _ => {}
        }
    }
    Some((id?, hook))
}
