//! The sandbox's network.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt as _;
use rtnetlink::{
    Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        link::{InfoData, InfoVeth},
        route::{RouteScope, RouteType},
    },
};

use super::{Error, io_error, namespace::Namespace};

/// The VIP.
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// Where clients' requests come from.
pub(super) const CLIENTS: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 232, 0, 0), 16);
/// The balancer's interface.
pub(super) const BALANCER_INTERFACE: &str = "lb0";

const BALANCER: u8 = 1;
const CLIENT: u8 = 2;
/// The first backend is the one after.
const BACKENDS: u8 = 10;
/// The index of a host's interface, which must not be that of the other end: the kernel takes such a
/// pair for no pair, and lets a second pass before the first frame.
const INDEX: u32 = 1000;

/// An address of the segment.
const fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 231, 0, number)
}

/// A backend's address, counted from one.
pub(super) const fn backend_address(number: u8) -> Ipv4Addr {
    address(BACKENDS + number)
}

/// The namespaces of a sandbox, with lines among them.
#[derive(Debug)]
pub(super) struct Network {
    /// The clients, with the bridge.
    pub(super) clients: Namespace,
    /// The load balancer.
    pub(super) balancer: Namespace,
    /// The backends.
    pub(super) backends: Vec<Namespace>,
}

impl Network {
    /// Builds it.
    pub(super) fn build(backends: u8) -> Result<Self, Error> {
        let network = Self {
            clients: host("the clients")?,
            balancer: host("the balancer")?,
            backends: (1..=backends)
                .map(|number| host(&format!("b{number}")))
                .collect::<Result<_, _>>()?,
        };
        network.plug()?;
        inside(&network.balancer, async |net| {
            net.address(BALANCER_INTERFACE, address(BALANCER), 24)
                .await?;
            net.default_route(address(CLIENT)).await
        })?;
        for (number, backend) in (1..).zip(&network.backends) {
            // The VIP is every backend's, and must be nobody's on the wire.
            backend.set(&[
                ("ipv4/conf/all/arp_ignore", "1"),
                ("ipv4/conf/all/arp_announce", "2"),
            ])?;
            inside(backend, async |net| {
                net.address("eth0", backend_address(number), 24).await?;
                net.address("lo", VIP, 32).await?;
                net.default_route(address(CLIENT)).await
            })?;
        }
        Ok(network)
    }

    /// The bridge, with a line to each host.
    fn plug(&self) -> Result<(), Error> {
        self.clients.set(&[
            // Short connections would run out of ports otherwise.
            ("ipv4/ip_local_port_range", "1024 65535"),
            ("ipv4/tcp_tw_reuse", "1"),
            // Whoever is asked for an address need not learn all of the clients'.
            ("ipv4/conf/all/arp_announce", "2"),
        ])?;
        inside(&self.clients, async |net| {
            net.add(LinkBridge::new("br0").build(), "make the bridge")
                .await?;
            let bridge = net.index("br0").await?;
            let hosts = self.backends.iter().map(|of| (of, "eth0"));
            let hosts = [(&self.balancer, BALANCER_INTERFACE)]
                .into_iter()
                .chain(hosts);
            for (number, (host, name)) in hosts.enumerate() {
                let far = LinkUnspec::new_with_name(name)
                    .index(INDEX)
                    .setns_by_fd(host.fd());
                let line = LinkVeth::new(&format!("port{number}"), name)
                    .set_info_data(InfoData::Veth(InfoVeth::Peer(far.build())))
                    .controller(bridge)
                    .up();
                net.add(line.build(), "make a line").await?;
            }
            net.address("br0", address(CLIENT), 24).await?;
            net.route(VIP, 32, address(BALANCER)).await?;
            let (all, bits) = CLIENTS;
            net.local(all, bits).await
        })
    }
}

/// A namespace whose interfaces use their addresses at once.
fn host(role: &str) -> Result<Namespace, Error> {
    let namespace = Namespace::create(role)?;
    namespace.set(&[
        ("ipv6/conf/all/disable_ipv6", "1"),
        ("ipv6/conf/default/disable_ipv6", "1"),
        // What comes in by one way and goes out by another is the point of direct return.
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
    ])?;
    inside(&namespace, async |net| net.up("lo").await)?;
    Ok(namespace)
}

/// Talks to the kernel of a namespace.
fn inside<F>(namespace: &Namespace, work: F) -> Result<(), Error>
where
    F: AsyncFnOnce(Net) -> Result<(), Error> + Send,
{
    namespace.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(io_error("start the runtime"))?;
        runtime.block_on(async {
            let (connection, handle, _) =
                rtnetlink::new_connection().map_err(io_error("open an rtnetlink socket"))?;
            tokio::spawn(connection);
            work(Net(handle)).await
        })
    })
}

/// Netlink in one namespace.
struct Net(Handle);

fn refused(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Error {
    let action = action.into();
    |source| Error::Network { action, source }
}

impl Net {
    async fn add(
        &self,
        link: rtnetlink::packet_route::link::LinkMessage,
        action: &str,
    ) -> Result<(), Error> {
        self.0
            .link()
            .add(link)
            .execute()
            .await
            .map_err(refused(action))
    }

    async fn index(&self, name: &str) -> Result<u32, Error> {
        let mut links = self.0.link().get().match_name(name.to_owned()).execute();
        let found = links
            .try_next()
            .await
            .map_err(refused(format!("find {name}")))?;
        found
            .map(|link| link.header.index)
            .ok_or_else(|| io_error(format!("find {name}"))(std::io::ErrorKind::NotFound.into()))
    }

    async fn up(&self, name: &str) -> Result<(), Error> {
        let link = LinkUnspec::new_with_name(name).up().build();
        let set = self.0.link().set(link).execute();
        set.await.map_err(refused(format!("bring {name} up")))
    }

    async fn address(&self, name: &str, address: Ipv4Addr, bits: u8) -> Result<(), Error> {
        self.up(name).await?;
        let index = self.index(name).await?;
        let add = self.0.address().add(index, IpAddr::V4(address), bits);
        add.execute()
            .await
            .map_err(refused(format!("give {name} {address}")))
    }

    async fn default_route(&self, via: Ipv4Addr) -> Result<(), Error> {
        self.route(Ipv4Addr::UNSPECIFIED, 0, via).await
    }

    async fn route(&self, to: Ipv4Addr, bits: u8, via: Ipv4Addr) -> Result<(), Error> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to, bits)
            .gateway(via)
            .build();
        let add = self.0.route().add(route).execute();
        add.await
            .map_err(refused(format!("route {to}/{bits} by {via}")))
    }

    /// Makes every address of a prefix this host's own.
    async fn local(&self, prefix: Ipv4Addr, bits: u8) -> Result<(), Error> {
        let lo = self.index("lo").await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(prefix, bits)
            .output_interface(lo)
            .kind(RouteType::Local)
            .scope(RouteScope::Host)
            .table_id(u32::from(libc::RT_TABLE_LOCAL))
            .build();
        let add = self.0.route().add(route).execute();
        add.await
            .map_err(refused(format!("make {prefix}/{bits} local")))
    }
}
