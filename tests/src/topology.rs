//! The network of a test bed.
//!
//! ```text
//!   client ──── router ──┐              ┌── b1   VIPs on lo
//!   10.10.1.2            ├── switch ────┼── b2
//!              balancer ─┘              └── b3
//!              10.10.0.2, lb0               10.10.0.11 and up
//! ```
//!
//! Every host is a namespace and every line a veth pair; the switch is a bridge. The router sends
//! what is for a VIP to the balancer, and the backends answer the client through the router
//! without meeting the balancer again: direct server return. Addresses are dual-stack, with the
//! same last number in both families.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    netns::{self, Namespace},
    run_dir::{self, RunDir},
    tools::require_root,
    wait,
    xdp_pass::XdpPass,
};

/// The interface of the balancer that VIP traffic comes in by and leaves by.
pub const BALANCER_INTERFACE: &str = "lb0";

/// The interface of the client and of every backend.
pub const HOST_INTERFACE: &str = "eth0";

/// The VIP that every bed has unless told otherwise, IPv4.
pub const VIP4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 10));

/// The VIP that every bed has unless told otherwise, IPv6.
pub const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x10));

/// The index of the interface at a host's end of a line.
///
/// The two ends must not have the same one: the kernel takes such a pair for no pair, and lets
/// up to a second pass before it sends the first frame.
const HOST_INDEX: u32 = 1000;

/// How long the lines may take to come up, on an emulated machine that shares its processor.
const PATIENCE: Duration = Duration::from_mins(1);

/// The beds of this process, counted to keep their names apart.
static BEDS: AtomicU32 = AtomicU32::new(0);

/// What to build.
#[derive(Clone, Debug)]
pub struct Spec {
    /// How many backends, up to 200.
    pub backends: u8,
    /// What the backends hold on loopback. The router sends all of `198.51.100.0/24` and
    /// `2001:db8:100::/64` to the balancer, so VIPs should be from there.
    pub vips: Vec<IpAddr>,
    /// The MTU of every interface, in bytes; a program without `xdp.frags` attaches up to 3,506.
    pub mtu: u32,
    /// Receive and transmit queues of the balancer's veth pair.
    pub queues: u32,
    /// What the switch's end of that pair is made ready for.
    pub balancer: Forwards,
    /// By whom the backends' answers go to the client.
    pub answers: Answers,
    /// Addresses that the balancer has beside its own, for `snat` to send from: numbers in the
    /// servers' network, in both families.
    pub pool: Vec<u8>,
    /// Whether there is a second balancer, 10.10.0.5, to which the router sends nothing yet.
    pub standby: bool,
}

/// By whom the backends' answers go to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// By the router, past the balancer.
    ByRouter,
    /// By the balancer, as mode `nat` needs it.
    ByBalancer,
}

/// How a balancer forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwards {
    /// By XDP on its interface, whose far end then needs a program, and must not leave checksums
    /// and segmentation to it.
    ByXdp,
    /// By its stack or by a process: the line keeps its offloads.
    ByStack,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            backends: 3,
            vips: vec![VIP4, VIP6],
            mtu: 1500,
            queues: 2,
            balancer: Forwards::ByXdp,
            answers: Answers::ByRouter,
            pool: Vec::new(),
            standby: false,
        }
    }
}

/// Where a controller runs, and what its files are called.
#[derive(Clone, Copy, Debug)]
pub struct Seat<'bed> {
    /// The balancer.
    pub namespace: &'bed Namespace,
    name: &'static str,
    bed: &'bed Topology,
}

impl Seat<'_> {
    /// Where the controller pins what it loads.
    pub fn pins(&self) -> PathBuf {
        self.bed.dir.bpf().join(self.name)
    }

    /// Where the controller answers.
    pub fn socket(&self) -> PathBuf {
        self.bed.dir.path().join(format!("{}.sock", self.name))
    }

    /// Where the controller keeps its journal.
    pub fn state(&self) -> PathBuf {
        self.bed.dir.path().join(format!("{}-state", self.name))
    }

    /// The controller's configuration, in the bed's folder.
    pub fn config(&self) -> String {
        format!("{}.toml", self.name)
    }

    /// The controller's log, over all of its lives.
    pub fn log(&self) -> PathBuf {
        self.bed.dir.path().join(format!("{}.log", self.name))
    }

    /// The sections of a configuration that say where the data plane and the controller are;
    /// services go below.
    pub fn config_head(&self) -> String {
        format!(
            "[data_plane]\ninterfaces = [\"{BALANCER_INTERFACE}\"]\nxdp_mode = \"native\"\n\
             pins = \"{}\"\n\n[admin]\nsocket = \"{}\"\n\
             \n[state]\ndirectory = \"{}\"\n",
            self.pins().display(),
            self.socket().display(),
            self.state().display()
        )
    }
}

/// A backend's host.
#[derive(Debug)]
pub struct Host {
    /// `b1`, `b2` and so on.
    pub name: String,
    /// Its network.
    pub namespace: Namespace,
    /// Its own IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its own IPv6 address.
    pub ipv6: Ipv6Addr,
}

/// A running network; all of it is gone after drop.
#[derive(Debug)]
pub struct Topology {
    // Detached first: the switch's end of the balancer's veth pair.
    _passes: Vec<XdpPass>,
    /// The backends, in the order of their numbers.
    pub backends: Vec<Host>,
    /// The client.
    pub client: Namespace,
    /// The router between the client's network and the servers'.
    pub router: Namespace,
    /// The bridge of the servers' network, with a port named for each host.
    pub switch: Namespace,
    /// The load balancer.
    pub balancer: Namespace,
    /// What the backends hold on loopback.
    pub vips: Vec<IpAddr>,
    /// The second balancer, where there is one.
    pub standby: Option<Namespace>,
    pool: Vec<u8>,
    dir: RunDir,
}

impl Topology {
    /// Builds a network, after removing what killed runs have left.
    ///
    /// # Errors
    ///
    /// Without root, without `ip` and `ethtool`, or where the kernel lacks what it takes: network
    /// namespaces, veth, bridge, native XDP, bpffs.
    pub fn build(spec: &Spec) -> Result<Self> {
        require_root()?;
        ensure!(
            spec.backends <= 200,
            "a bed has at most 200 backends, not {}",
            spec.backends
        );
        netns::remove_stale().context("cannot remove what a killed run left")?;
        run_dir::remove_stale().context("cannot remove what a killed run left")?;

        let bed = BEDS.fetch_add(1, Ordering::Relaxed);
        let dir = RunDir::create(bed)?;
        let switch = Namespace::create(bed, "switch")?;
        switch.ip(
            "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
                   link set br0 up",
        )?;
        let client = host(bed, "client")?;
        let router = host(bed, "router")?;
        let balancer = host(bed, "balancer")?;

        connect_client(&client, &router, spec)?;
        plug(&router, "sw0", &switch, "router", spec, 1)?;
        plug(
            &balancer,
            BALANCER_INTERFACE,
            &switch,
            "balancer",
            spec,
            spec.queues,
        )?;
        set_up_router(&router)?;
        address(&balancer, BALANCER_INTERFACE, SERVERS, 2, Some(1))?;
        for &number in &spec.pool {
            address(&balancer, BALANCER_INTERFACE, SERVERS, number, None)?;
        }
        // Where answers come by way of the balancer, it asks the kernel for the way back.
        balancer.set(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
        let backends = (1..=spec.backends)
            .map(|number| backend(bed, number, &switch, spec))
            .collect::<Result<_>>()?;
        let standby = spec
            .standby
            .then(|| second_balancer(bed, &switch, spec))
            .transpose()?;
        let mut passes = Vec::new();
        if spec.balancer == Forwards::ByXdp {
            passes.push(prepare_for_xdp(&switch, "balancer")?);
            if standby.is_some() {
                passes.push(prepare_for_xdp(&switch, "standby")?);
            }
        }
        let bed = Self {
            _passes: passes,
            standby,
            backends,
            client,
            router,
            switch,
            balancer,
            vips: spec.vips.clone(),
            pool: spec.pool.clone(),
            dir,
        };
        bed.await_lines()?;
        Ok(bed)
    }

    /// Waits until both ends of every line carry frames.
    fn await_lines(&self) -> Result<()> {
        let backends = self.backends.iter().map(|host| &host.namespace);
        let others = [&self.client, &self.router, &self.switch, &self.balancer];
        for namespace in backends.chain(others).chain(&self.standby) {
            wait::until("every line to be up", PATIENCE, || {
                let links = namespace.run("ip", &["-brief", "link", "show", "type", "veth"])?;
                let down = links
                    .lines()
                    .find(|link| link.split_whitespace().nth(1) != Some("UP"));
                ensure!(
                    down.is_none(),
                    "in {}: {}",
                    namespace.name(),
                    down.unwrap_or_default()
                );
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Gives the client so many more addresses of IPv4, at most 200, and answers them.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses one.
    pub fn more_clients(&self, count: u8) -> Result<Vec<IpAddr>> {
        let addresses: Vec<_> = (10..10 + count).map(|n| CLIENTS.ipv4(n)).collect();
        let lines: Vec<String> = addresses
            .iter()
            .map(|address| format!("address add {address}/24 dev {HOST_INTERFACE}"))
            .collect();
        self.client.ip(&lines.join("\n"))?;
        Ok(addresses.into_iter().map(IpAddr::V4).collect())
    }

    /// Gives the client every address of a network of 65,534, and answers that.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses it.
    pub fn crowd_of_clients(&self) -> Result<&'static str> {
        const CROWD: &str = "10.77.0.0/16";
        self.client.ip(&format!("route add local {CROWD} dev lo"))?;
        let client = CLIENTS.ipv4(2);
        self.router.ip(&format!("route add {CROWD} via {client}"))?;
        Ok(CROWD)
    }

    /// The folder of this bed's files; it goes with the bed.
    pub fn dir(&self) -> &RunDir {
        &self.dir
    }

    /// The balancer's seat for a controller.
    pub fn seat(&self) -> Seat<'_> {
        Seat {
            namespace: &self.balancer,
            name: "evenkeel",
            bed: self,
        }
    }

    /// The second balancer's.
    ///
    /// # Panics
    ///
    /// Where there is none.
    pub fn standby_seat(&self) -> Seat<'_> {
        Seat {
            namespace: self.standby.as_ref().expect("a second balancer"),
            name: "standby",
            bed: self,
        }
    }

    /// Makes the router send what is for the VIPs to the second balancer.
    ///
    /// # Errors
    ///
    /// Where the router refuses.
    pub fn fail_over(&self) -> Result<()> {
        self.router.ip(&vip_routes("replace", STANDBY))
    }

    /// Where a controller of this bed pins what it loads.
    pub fn pins(&self) -> PathBuf {
        self.seat().pins()
    }

    /// Where a controller of this bed answers.
    pub fn socket(&self) -> PathBuf {
        self.seat().socket()
    }

    /// Where a controller of this bed keeps its journal.
    pub fn state(&self) -> PathBuf {
        self.seat().state()
    }

    /// The sections of a configuration that say where the data plane and the controller are;
    /// services go below.
    pub fn config_head(&self) -> String {
        self.seat().config_head()
    }

    /// A service of all backends on port 80, in the address family of its VIP, with equal weights
    /// and an HTTP check: every 200 ms, 150 ms at most, two passes up, two failures down.
    pub fn web_service(&self, name: &str, vip: IpAddr) -> String {
        let service = Service::web(name, vip);
        self.service(&service)
    }

    /// The sections of a service.
    pub fn service(&self, service: &Service<'_>) -> String {
        let Service {
            name,
            vip,
            port,
            options,
            health,
            backends,
            family,
        } = service;
        let mut toml = format!(
            "\n[[services]]\nname = \"{name}\"\nvip = \"{vip}\"\nport = {port}\n{options}\n"
        );
        if !health.is_empty() {
            write!(toml, "[services.health]\n{health}\n").expect("it is a string");
        }
        for (number, backend) in self.backends.iter().enumerate() {
            let of = backends.iter().find(|(of, _)| *of == number);
            let options = match (backends.is_empty(), of) {
                (true, _) => "",
                (false, Some((_, options))) => options,
                (false, None) => continue,
            };
            let address = match family.unwrap_or(*vip) {
                IpAddr::V4(_) => IpAddr::V4(backend.ipv4),
                IpAddr::V6(_) => IpAddr::V6(backend.ipv6),
            };
            let name = &backend.name;
            write!(
                toml,
                "\n[[services.backends]]\nname = \"{name}\"\naddress = \"{address}\"\n{options}\n"
            )
            .expect("it is a string");
        }
        toml
    }

    /// The pool's addresses, as a list in a configuration.
    pub fn pool(&self) -> String {
        let addresses = self.pool.iter().flat_map(|&number| {
            [
                format!("\"{}\"", SERVERS.ipv4(number)),
                format!("\"{}\"", SERVERS.ipv6(number)),
            ]
        });
        let addresses: Vec<String> = addresses.collect();
        format!("[{}]", addresses.join(", "))
    }
}

/// A service of a configuration, in TOML where it is not a number.
#[derive(Clone, Debug)]
pub struct Service<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its VIP.
    pub vip: IpAddr,
    /// Its port, or `"any"` with the quotes.
    pub port: &'a str,
    /// Other keys, a line each.
    pub options: String,
    /// The keys of its check; none for no check.
    pub health: &'a str,
    /// Which backends, counted from zero, each with other keys; all of them where there is none.
    pub backends: Vec<(usize, String)>,
    /// An address of the family of its backends, where that is not the VIP's.
    pub family: Option<IpAddr>,
}

impl<'a> Service<'a> {
    /// HTTP on port 80 with a check every 200 ms, 150 ms at most, two passes up, two failures
    /// down.
    pub fn web(name: &'a str, vip: IpAddr) -> Self {
        Self {
            name,
            vip,
            port: "80",
            options: String::new(),
            health: "type = \"http\"\ninterval = \"200ms\"\ntimeout = \"150ms\"\nrise = 2\n\
                     fall = 2\npath = \"/healthz\"",
            backends: Vec::new(),
            family: None,
        }
    }
}

/// A network of the bed: the third number of its `10.10.x.0/24` and the third group of its
/// `fd00:10:x::/64`.
#[derive(Clone, Copy)]
struct Net(u8);

const SERVERS: Net = Net(0);
const CLIENTS: Net = Net(1);

impl Net {
    fn ipv4(self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 10, self.0, number)
    }

    /// The number is written in hexadecimal such that it reads like the IPv4 one.
    fn ipv6(self, number: u8) -> Ipv6Addr {
        let digits = u16::from_str_radix(&number.to_string(), 16);
        let last = digits.expect("three decimal digits are hexadecimal digits too");
        Ipv6Addr::new(0xfd00, 0x10, self.0.into(), 0, 0, 0, 0, last)
    }
}

/// A namespace whose future interfaces use their addresses at once.
fn host(bed: u32, role: &str) -> Result<Namespace> {
    let namespace = Namespace::create(bed, role)?;
    namespace.set(&[
        // Duplicate address detection would hold every IPv6 address back for a second or two.
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        // What comes in by one way and goes out by another is the point of direct return.
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
    ])?;
    Ok(namespace)
}

/// A veth pair from a host to a port of the switch.
fn plug(
    host: &Namespace,
    interface: &str,
    switch: &Namespace,
    port: &str,
    spec: &Spec,
    queues: u32,
) -> Result<()> {
    let shape = format!("mtu {} numrxqueues {queues} numtxqueues {queues}", spec.mtu);
    host.ip(&format!(
        "link add {interface} index {HOST_INDEX} {shape} type veth peer name {port} {shape} netns {}\n\
         link set {interface} up",
        switch.name()
    ))?;
    switch.ip(&format!("link set {port} master br0\nlink set {port} up"))
}

/// Gives a host its addresses in a network, and its default routes by a router there.
fn address(
    host: &Namespace,
    interface: &str,
    net: Net,
    number: u8,
    router: Option<u8>,
) -> Result<()> {
    let mut lines = format!(
        "address add {}/24 dev {interface}\naddress add {}/64 dev {interface} nodad\n",
        net.ipv4(number),
        net.ipv6(number)
    );
    if let Some(router) = router {
        writeln!(lines, "route add default via {}", net.ipv4(router))?;
        writeln!(lines, "route add ::/0 via {}", net.ipv6(router))?;
    }
    host.ip(&lines)
}

fn connect_client(client: &Namespace, router: &Namespace, spec: &Spec) -> Result<()> {
    client.ip(&format!(
        "link add {HOST_INTERFACE} index {HOST_INDEX} mtu {mtu} type veth peer name cl0 mtu {mtu} netns {}\n\
         link set {HOST_INTERFACE} up",
        router.name(),
        mtu = spec.mtu,
    ))?;
    router.ip("link set cl0 up")?;
    address(router, "cl0", CLIENTS, 1, None)?;
    address(client, HOST_INTERFACE, CLIENTS, 2, Some(1))?;
    client.set(&[
        // Short connections would run out of ports otherwise.
        ("ipv4/tcp_tw_reuse", "1"),
        ("ipv4/ip_local_port_range", "1024 65535"),
    ])
}

fn set_up_router(router: &Namespace) -> Result<()> {
    address(router, "sw0", SERVERS, 1, None)?;
    router.set(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
    router.ip(&vip_routes("add", 2))
}

/// The routes of the VIPs by the balancer of a number.
fn vip_routes(verb: &str, balancer: u8) -> String {
    format!(
        "route {verb} 198.51.100.0/24 via {}\nroute {verb} 2001:db8:100::/64 via {}",
        SERVERS.ipv4(balancer),
        SERVERS.ipv6(balancer)
    )
}

fn backend(bed: u32, number: u8, switch: &Namespace, spec: &Spec) -> Result<Host> {
    let name = format!("b{number}");
    let namespace = host(bed, &name)?;
    // The VIPs are every backend's, and must be nobody's on the wire: no answer to ARP for them,
    // and no ARP request from them. IPv6 answers for an address only where it is configured.
    namespace.set(&[
        ("ipv4/conf/all/arp_ignore", "1"),
        ("ipv4/conf/all/arp_announce", "2"),
    ])?;
    plug(&namespace, HOST_INTERFACE, switch, &name, spec, 1)?;
    let last = 10 + number;
    let router = match spec.answers {
        Answers::ByRouter => 1,
        Answers::ByBalancer => 2,
    };
    address(&namespace, HOST_INTERFACE, SERVERS, last, Some(router))?;
    let mut vips = String::new();
    for vip in &spec.vips {
        let form = if vip.is_ipv4() { "/32" } else { "/128 nodad" };
        let (bits, rest) = form.split_once(' ').unwrap_or((form, ""));
        writeln!(vips, "address add {vip}{bits} dev lo {rest}")?;
    }
    namespace.ip(&vips)?;
    Ok(Host {
        name,
        namespace,
        ipv4: SERVERS.ipv4(last),
        ipv6: SERVERS.ipv6(last),
    })
}

/// Makes `XDP_TX` out of the balancer's interface arrive, and arrive whole.
fn prepare_for_xdp(switch: &Namespace, port: &str) -> Result<XdpPass> {
    // The switch must not leave checksums to a NIC: what XDP sends back would go without one.
    switch.run("ethtool", &["-K", port, "tx", "off"])?;
    XdpPass::attach(switch, port)
}

fn second_balancer(bed: u32, switch: &Namespace, spec: &Spec) -> Result<Namespace> {
    let standby = host(bed, "standby")?;
    plug(
        &standby,
        BALANCER_INTERFACE,
        switch,
        "standby",
        spec,
        spec.queues,
    )?;
    address(&standby, BALANCER_INTERFACE, SERVERS, STANDBY, Some(1))?;
    Ok(standby)
}

/// The second balancer's number in the servers' network.
const STANDBY: u8 = 5;
