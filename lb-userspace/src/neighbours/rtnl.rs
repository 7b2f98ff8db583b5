//! The kernel's side: rtnetlink messages to and from the facts of [`super::table`].

use std::{io, net::IpAddr, sync::Arc};

use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use rtnetlink::{
    Handle, MulticastGroup,
    packet_core::{
        ErrorMessage, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage,
        NetlinkPayload,
    },
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        link::{LinkAttribute, LinkLayerType, LinkMessage},
        neighbour::{
            NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags,
            NeighbourMessage, NeighbourState,
        },
        route::{
            RouteAddress, RouteAttribute, RouteLwEnCapType, RouteMessage, RouteProtocol, RouteType,
            RouteVia,
        },
    },
    proto::Connection,
    sys::{AsyncSocket, TokioSocket},
};
use thiserror::Error;
use tokio::task::AbortHandle;

use super::{
    Refusal, Rejection,
    table::{Hop, Link, Neighbour, Reachability, Request, Route, Upkeep},
    watch::PROTOCOL,
};

/// What the kernel announces of itself, as far as next hops depend on it.
const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    // The routes that go with an address, and those that prefer it as source, go unannounced.
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// Room for announcements while the task does something else, in bytes; the kernel counts about
/// 1 KiB each.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Talking to the kernel failed.
#[derive(Debug, Error)]
pub(super) enum Error {
    #[error("cannot open an rtnetlink socket: {0}")]
    Open(io::Error),
    #[error("cannot list {what} by rtnetlink: {source}")]
    Dump {
        what: &'static str,
        source: rtnetlink::Error,
    },
    #[error("rtnetlink request failed: {0}")]
    Request(rtnetlink::Error),
    #[error("the kernel left an rtnetlink request without an answer")]
    NoAnswer,
    #[error("the rtnetlink socket for announcements was closed")]
    Closed,
}

/// An announcement of the kernel.
#[derive(Debug)]
pub(super) enum Event {
    Link(Link),
    LinkGone(u32),
    Neighbour(Neighbour),
    NeighbourGone(Hop),
    /// A route to a prefix of so many bits came, changed or went.
    Route(IpAddr, u8),
    /// Something changed that may concern every route.
    AnyRoute,
    /// Announcements were lost, as they came faster than they were read.
    Overrun,
}

/// The socket for requests.
#[derive(Debug)]
pub(super) struct Kernel {
    handle: Handle,
    task: AbortHandle,
}

/// The socket for announcements.
///
/// It is one of its own so that a flood of them cannot push an answer out of the buffer.
pub(super) struct Events {
    messages: BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>,
    task: AbortHandle,
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Events {
    /// Listens to the network namespace of the calling thread.
    pub(super) fn connect() -> Result<Self, Error> {
        let (mut connection, _, messages) =
            rtnetlink::new_multicast_connection(&GROUPS).map_err(Error::Open)?;
        enlarge_buffer(&mut connection);
        Ok(Self {
            messages: messages.map(|(message, _)| message).boxed(),
            task: tokio::spawn(connection).abort_handle(),
        })
    }

    /// The next announcement that matters. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Event, Error> {
        loop {
            let message = self.messages.next().await.ok_or(Error::Closed)?;
            if let Some(event) = event(message.payload) {
                return Ok(event);
            }
        }
    }
}

impl Kernel {
    /// Speaks to the network namespace of the calling thread.
    pub(super) fn connect() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
        Ok(Self {
            handle,
            task: tokio::spawn(connection).abort_handle(),
        })
    }

    pub(super) async fn links(&self) -> Result<Vec<Link>, Error> {
        let links = self.handle.link().get().execute();
        let links = links.try_filter_map(async |message| Ok(link(&message)));
        links.try_collect().await.map_err(|source| Error::Dump {
            what: "links",
            source,
        })
    }

    pub(super) async fn neighbours(&self) -> Result<Vec<Neighbour>, Error> {
        let neighbours = self.handle.neighbours().get().execute();
        let neighbours = neighbours.try_filter_map(async |message| Ok(neighbour(&message)));
        neighbours
            .try_collect()
            .await
            .map_err(|source| Error::Dump {
                what: "neighbours",
                source,
            })
    }

    /// Looks one address up, as `ip route get` does.
    pub(super) async fn route(&self, address: IpAddr) -> Result<Route, Error> {
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
        match answers.next().await.ok_or(Error::NoAnswer)? {
            Ok(message) => Ok(route(&message)),
            Err(rtnetlink::Error::NetlinkError(error)) => Ok(no_route(errno(&error))),
            Err(error) => Err(Error::Request(error)),
        }
    }

    /// Asks for something to be done with a neighbour entry.
    pub(super) async fn ask(&mut self, request: Request) -> Result<Result<(), Refusal>, Error> {
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(ask(request)));
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        if matches!(request, Request::Create(_)) {
            message.header.flags |= NLM_F_CREATE | NLM_F_EXCL;
        }
        let mut answers = self.handle.request(message).map_err(Error::Request)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload {
                return Ok(refusal(errno(&error)));
            }
        }
        Ok(Ok(()))
    }
}

/// Asks for more room than `net.core.rmem_max` allows, or as much as it allows.
///
/// A failure is none: with less room, announcements are lost sooner, and loss is handled.
fn enlarge_buffer(connection: &mut Connection<RouteNetlinkMessage, TokioSocket>) {
    let socket = connection.socket_mut().socket_ref();
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER).is_err() {
        let allowed = rustix::net::sockopt::set_socket_recv_buffer_size(socket, RECEIVE_BUFFER);
        log::debug!(
            "receive buffer for rtnetlink announcements not enlarged by force: {allowed:?}"
        );
    }
}

fn errno(error: &ErrorMessage) -> i32 {
    error.code.map_or(0, |code| code.get().saturating_neg())
}

/// The answer to a neighbour request, from its positive error number.
fn refusal(errno: i32) -> Result<(), Refusal> {
    match errno {
        // The entry came or went meanwhile: an announcement of that is on its way.
        0 | libc::EEXIST | libc::ENOENT => Ok(()),
        libc::ENOBUFS => Err(Refusal::TableFull),
        libc::EPERM => Err(Refusal::NotPermitted),
        errno => Err(Refusal::Other(errno)),
    }
}

/// The answer to a route request that failed: some types of route show only in the error number.
fn no_route(errno: i32) -> Route {
    match errno {
        libc::ENETUNREACH => Route::None,
        libc::EHOSTUNREACH => Route::Rejected(Rejection::Unreachable),
        libc::EACCES => Route::Rejected(Rejection::Prohibit),
        libc::EINVAL => Route::Rejected(Rejection::Blackhole),
        errno => Route::Failed(errno),
    }
}

fn event(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<Event> {
    match payload {
        NetlinkPayload::Overrun(_) => Some(Event::Overrun),
        NetlinkPayload::InnerMessage(message) => match message {
            RouteNetlinkMessage::NewLink(message) => link(&message).map(Event::Link),
            RouteNetlinkMessage::DelLink(message) => {
                link(&message).map(|link| Event::LinkGone(link.index))
            }
            RouteNetlinkMessage::NewNeighbour(message) => neighbour(&message).map(Event::Neighbour),
            RouteNetlinkMessage::DelNeighbour(message) => {
                neighbour(&message).map(|neighbour| Event::NeighbourGone(neighbour.hop))
            }
            RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message) => {
                changed_route(&message)
            }
            RouteNetlinkMessage::NewAddress(_)
            | RouteNetlinkMessage::DelAddress(_)
            | RouteNetlinkMessage::NewRule(_)
            | RouteNetlinkMessage::DelRule(_) => Some(Event::AnyRoute),
            _ => None,
        },
        _ => None,
    }
}

fn link(message: &LinkMessage) -> Option<Link> {
    // A bridge announces its ports, and their leaving, with messages of its own family.
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let mut name = None;
    let mut mac = None;
    // Every link has one; that of Ethernet where the kernel leaves it out.
    let mut mtu = 1500;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            LinkAttribute::IfName(ifname) => name = Some(Arc::from(ifname.as_str())),
            LinkAttribute::Address(address) => mac = address.as_slice().try_into().ok(),
            _ => {}
        }
    }
    let is_ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    Some(Link {
        index: message.header.index,
        name: name?,
        mac: mac.filter(|_| is_ethernet),
        mtu,
    })
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let mut address = None;
    let mut mac = None;
    let mut is_managed = false;
    let mut is_ours = false;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(lladdr) => mac = lladdr.as_slice().try_into().ok(),
            NeighbourAttribute::ExtFlags(flags) => {
                is_managed = flags.contains(NeighbourExtFlags::Managed);
            }
            NeighbourAttribute::Protocol(protocol) => is_ours = u8::from(*protocol) == PROTOCOL,
            _ => {}
        }
    }
    let flags = message.header.flags;
    if flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let upkeep = match (is_managed, is_ours) {
        (true, true) => Upkeep::Ours,
        (true, false) => Upkeep::Foreign,
        (false, _) if flags.contains(NeighbourFlags::ExtLearned) => Upkeep::Foreign,
        (false, _) => Upkeep::None,
    };
    let reachability = match message.header.state {
        NeighbourState::Permanent | NeighbourState::Noarp => Reachability::Fixed,
        NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None => {
            Reachability::Silent
        }
        _ => Reachability::Known,
    };
    let hop = Hop {
        interface: message.header.ifindex,
        address: address?,
    };
    Some(Neighbour {
        hop,
        mac,
        reachability,
        upkeep,
    })
}

fn route(message: &RouteMessage) -> Route {
    match message.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Route::Local,
        RouteType::BlackHole => return Route::Rejected(Rejection::Blackhole),
        RouteType::Unreachable => return Route::Rejected(Rejection::Unreachable),
        RouteType::Prohibit => return Route::Rejected(Rejection::Prohibit),
        _ => return Route::NotUnicast,
    }
    let mut interface = None;
    let mut gateway = None;
    let mut source = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::PrefSource(address) => source = ip(address),
            // An IPv4 route by an IPv6 router (RFC 8950).
            RouteAttribute::Via(RouteVia::Inet6(v6)) => gateway = Some(IpAddr::V6(*v6)),
            RouteAttribute::EncapType(kind) if *kind != RouteLwEnCapType::None => {
                return Route::Encapsulated;
            }
            _ => {}
        }
    }
    interface.map_or(Route::None, |interface| Route::Via {
        interface,
        gateway,
        source,
    })
}

fn changed_route(message: &RouteMessage) -> Option<Event> {
    let prefix = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(address) => ip(address),
            _ => None,
        });
    match (prefix, message.header.destination_prefix_length) {
        (Some(prefix), length) => Some(Event::Route(prefix, length)),
        (None, 0) => Some(Event::AnyRoute),
        (None, _) => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn ask(request: Request) -> NeighbourMessage {
    let hop = request.hop();
    let mut message = NeighbourMessage::default();
    message.header.family = match hop.address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.ifindex = hop.interface;
    // Without `NTF_USE`, a kernel that does not know `NTF_EXT_MANAGED` would take the state in
    // this message, none, for the entry's new one. With it and without `NTF_EXT_MANAGED`, the
    // entry keeps its state and loses that flag.
    message.header.flags = NeighbourFlags::Use;
    message
        .attributes
        .push(NeighbourAttribute::Destination(hop.address.into()));
    if !matches!(request, Request::Release(_)) {
        message
            .attributes
            .push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        message
            .attributes
            .push(NeighbourAttribute::Protocol(RouteProtocol::from(PROTOCOL)));
    }
    message
}
