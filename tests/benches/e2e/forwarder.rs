//! The contenders: what each takes on the balancer, the router and the backends.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader,
    programs::{Xdp, xdp::XdpMode},
};
use evenkeel_tests::{
    daemon::Daemon,
    decap::Decap,
    end_to_end::{Backends, Contender},
    process::Process,
    tools::{self, tool},
    topology::{BALANCER_INTERFACE, Forwards, HOST_INTERFACE, Spec, Topology, VIP4},
    wait,
};
use lb_userspace::dataplane::OBJECT;
use serde::Deserialize;

/// The VIP for bulk data, which the first backend alone serves: iperf3 opens two connections, and
/// they must meet.
pub(crate) const BULK: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 11));
/// The port of iperf3.
pub(crate) const BULK_PORT: u16 = 5201;
/// How many backends there are; the bare forwarder is built for as many.
const BACKENDS: u8 = 3;
/// The last numbers of the addresses that `snat` sends from.
const POOL: [u8; 2] = [3, 4];
/// What is left of the MTU of a tunnel's backends for the client.
const CLIENT_MTU: u32 = 1500;
/// Room for any tunnel's outer headers above it.
const TUNNEL_MTU: u32 = 1600;
/// How long a process may take to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// Checks that the programs of a contender are there.
pub(crate) fn require_tools(contender: Contender) -> Result<()> {
    match contender {
        Contender::Nftables => tool("nft").map(drop),
        Contender::Haproxy => tool("haproxy").map(drop),
        Contender::Direct | Contender::BareXdp => Ok(()),
        Contender::Dsr | Contender::Ipip | Contender::Gue | Contender::Nat | Contender::Snat => {
            tools::evenkeel().map(drop)
        }
    }
}

/// Why this Evenkeel does not know the mode of a contender; none where it does.
///
/// # Errors
///
/// Where it refuses anything else of the configuration, which is this benchmark's mistake.
pub(crate) fn unknown_mode(contender: Contender) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Finding {
        field: String,
        problem: String,
    }
    if contender.mode().is_none() {
        return Ok(None);
    }
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let path = folder.path().join("evenkeel.toml");
    let head = format!("[data_plane]\ninterfaces = [\"{BALANCER_INTERFACE}\"]\n");
    let backends = [Ipv4Addr::new(10, 10, 0, 11)];
    let pool = "[\"10.10.0.3\"]";
    std::fs::write(&path, head + &services(contender, &backends, pool))
        .with_context(|| format!("cannot write {}", path.display()))?;
    let mut check = Command::new(tools::evenkeel()?);
    check.args(["check", "--json"]).arg(&path);
    // It fails where there are findings.
    let output = check.output().context("cannot start `evenkeel check`")?;
    let findings: Vec<Finding> =
        serde_json::from_slice(&output.stdout).context("`evenkeel check` printed no JSON")?;
    let (modes, others): (Vec<_>, Vec<_>) = findings
        .into_iter()
        .partition(|finding| finding.field.rsplit('.').next() == Some("mode"));
    match (modes.first(), others.first()) {
        (Some(mode), _) => Ok(Some(mode.problem.clone())),
        (None, None) => Ok(None),
        (None, Some(Finding { field, problem })) => {
            bail!("`evenkeel check` refuses the configuration: {field}: {problem}")
        }
    }
}

/// The network that a contender works in.
pub(crate) fn network(contender: Contender) -> Result<Topology> {
    let tunnel = contender.mode() == Some(Backends::Decapsulate);
    let by_xdp = contender.mode().is_some() || contender == Contender::BareXdp;
    let bed = Topology::build(&Spec {
        backends: BACKENDS,
        vips: vec![VIP4, BULK],
        mtu: if tunnel { TUNNEL_MTU } else { CLIENT_MTU },
        balancer: if by_xdp {
            Forwards::ByXdp
        } else {
            Forwards::ByStack
        },
        pool: if contender == Contender::Snat {
            POOL.to_vec()
        } else {
            Vec::new()
        },
        ..Spec::default()
    })?;
    if tunnel {
        bed.client
            .ip(&format!("link set {HOST_INTERFACE} mtu {CLIENT_MTU}"))?;
        bed.router.ip(&format!("link set cl0 mtu {CLIENT_MTU}"))?;
    }
    Ok(bed)
}

/// What runs, or is attached, while a contender has its turn.
#[derive(Default)]
pub(crate) struct Forwarder<'bed> {
    _processes: Vec<Process>,
    _tunnels: Vec<Decap<'bed>>,
    _controller: Option<Daemon<'bed>>,
    _program: Option<Ebpf>,
}

impl<'bed> Forwarder<'bed> {
    /// Sets it up in the contender's network.
    pub(crate) fn start(contender: Contender, bed: &'bed Topology) -> Result<Self> {
        match contender {
            Contender::Direct => direct(bed).map(|()| Self::default()),
            Contender::BareXdp => Ok(Self {
                _program: Some(bare_forwarder(bed)?),
                ..Self::default()
            }),
            Contender::Nftables => nftables(bed).map(|()| Self::default()),
            Contender::Haproxy => Ok(Self {
                _processes: vec![haproxy(bed)?],
                ..Self::default()
            }),
            Contender::Dsr
            | Contender::Ipip
            | Contender::Gue
            | Contender::Nat
            | Contender::Snat => evenkeel(contender, bed),
        }
    }
}

/// The router spreads connections by their hash (RFC 2992), so that the balancer's hop is all
/// that is missing.
fn direct(bed: &Topology) -> Result<()> {
    bed.router.set(&[("ipv4/fib_multipath_hash_policy", "1")])?;
    let ways: Vec<_> = bed
        .backends
        .iter()
        .map(|host| format!("nexthop via {}", host.ipv4))
        .collect();
    bed.router.ip(&format!(
        "route add {VIP4}/32 {}\nroute add {BULK}/32 via {}",
        ways.join(" "),
        bed.backends[0].ipv4
    ))
}

/// Gives the backends the addresses that the program has as constants, and attaches it.
fn bare_forwarder(bed: &Topology) -> Result<Ebpf> {
    for (number, host) in (1..).zip(&bed.backends) {
        let number: u8 = number;
        let address = format!("02:45:4b:00:00:{number:02x}");
        host.namespace
            .ip(&format!("link set {HOST_INTERFACE} address {address}"))?;
    }
    let mut object = EbpfLoader::new()
        .load(OBJECT)
        .context("the kernel does not take the object")?;
    let program = object.program_mut("bare_forwarder");
    let program: &mut Xdp = program
        .context("the object has no bare forwarder")?
        .try_into()?;
    program.load().context("cannot load the bare forwarder")?;
    bed.balancer
        .inside(|| program.attach(BALANCER_INTERFACE, XdpMode::Driver))?
        .context("cannot attach the bare forwarder")?;
    Ok(object)
}

/// Translates the destination by the hash of the client's end, and the source to the balancer's
/// own, so that answers come back.
fn nftables(bed: &Topology) -> Result<()> {
    route_packets(bed)?;
    let ways: Vec<_> = (0..)
        .zip(&bed.backends)
        .map(|(number, host): (u32, _)| format!("{number} : {}", host.ipv4))
        .collect();
    let rules = format!(
        "table ip balancer {{\n\
         chain prerouting {{ type nat hook prerouting priority dstnat;\n\
         ip daddr {VIP4} tcp dport 80 dnat to jhash ip saddr . tcp sport mod {} map {{ {} }}\n\
         ip daddr {BULK} tcp dport {BULK_PORT} dnat to {}\n}}\n\
         chain postrouting {{ type nat hook postrouting priority srcnat;\nmasquerade\n}}\n}}\n",
        bed.backends.len(),
        ways.join(", "),
        bed.backends[0].ipv4,
    );
    let mut nft = bed.balancer.command("nft")?;
    nft.args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = nft.spawn().context("cannot start nft")?;
    let mut stdin = child.stdin.take().context("nft has no standard input")?;
    stdin
        .write_all(rules.as_bytes())
        .context("cannot write to nft")?;
    drop(stdin);
    let output = child.wait_with_output().context("cannot wait for nft")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "nft: {}\n{rules}",
        complaint.trim()
    );
    Ok(())
}

/// Lets the balancer's stack forward by the interface that a packet came in by.
fn route_packets(bed: &Topology) -> Result<()> {
    let own = format!("ipv4/conf/{BALANCER_INTERFACE}/send_redirects");
    bed.balancer.set(&[
        ("ipv4/ip_forward", "1"),
        // The client's router should not hear of a shorter way for each packet.
        ("ipv4/conf/all/send_redirects", "0"),
        (&own, "0"),
    ])
}

/// `HAProxy` with its own number of threads, which is that of the processors.
fn haproxy(bed: &Topology) -> Result<Process> {
    bed.balancer.ip(&format!(
        "address add {VIP4}/32 dev lo\naddress add {BULK}/32 dev lo"
    ))?;
    bed.balancer.set(&[
        // It opens a connection for each of the client's.
        ("ipv4/tcp_tw_reuse", "1"),
        ("ipv4/ip_local_port_range", "1024 65535"),
    ])?;
    let server = |(name, address, port): (&str, Ipv4Addr, u16)| {
        format!("    server {name} {address}:{port}")
    };
    let web = |check| {
        let lines = bed.backends.iter();
        let lines = lines.map(|host| server((&host.name, host.ipv4, 80)) + check);
        lines.collect::<Vec<_>>().join("\n")
    };
    let config = format!(
        "global\n    maxconn 8000\n\
         defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 1m\n    \
         timeout server 1m\n\
         listen web\n    bind {VIP4}:80\n    balance roundrobin\n{}\n\
         listen bulk\n    bind {BULK}:{BULK_PORT}\n{}\n",
        web(" check"),
        server(("b1", bed.backends[0].ipv4, BULK_PORT)),
    );
    let config = bed.dir().write("haproxy.cfg", &config)?;
    let mut haproxy = bed.balancer.command("haproxy")?;
    haproxy.arg("-db").arg("-f").arg(config);
    let log = bed.dir().path().join("haproxy.log");
    let mut process = Process::start_logged("haproxy", &mut haproxy, &log)?;
    let filter = format!("sport = :{BULK_PORT}");
    wait::until("haproxy to listen", PATIENCE, || {
        process.check_running()?;
        let sockets = bed.balancer.run("ss", &["-Hltn", &filter])?;
        ensure!(!sockets.is_empty(), "it does not listen yet");
        Ok(())
    })?;
    Ok(process)
}

/// The controller with a mode for both services, and what the mode asks of the backends.
fn evenkeel(contender: Contender, bed: &Topology) -> Result<Forwarder<'_>> {
    let mut tunnels = Vec::new();
    match contender.mode().context("not a mode of Evenkeel")? {
        Backends::HoldTheVip | Backends::AnyServer => {}
        Backends::Decapsulate => {
            for host in &bed.backends {
                tunnels.push(Decap::start(bed, host)?);
            }
        }
        Backends::AnswerThroughBalancer => {
            route_packets(bed)?;
            for host in &bed.backends {
                host.namespace.ip("route replace default via 10.10.0.2")?;
            }
        }
    }
    let backends: Vec<_> = bed.backends.iter().map(|host| host.ipv4).collect();
    let config = bed.config_head() + &services(contender, &backends, &bed.pool());
    Ok(Forwarder {
        _tunnels: tunnels,
        _controller: Some(Daemon::start(bed, &config)?),
        ..Forwarder::default()
    })
}

/// What a mode takes, and the services: requests over all backends, bulk data to the first.
fn services(contender: Contender, backends: &[Ipv4Addr], pool: &str) -> String {
    let backend = |address: &Ipv4Addr| format!("[[services.backends]]\naddress = \"{address}\"\n");
    let all: String = backends.iter().map(backend).collect();
    let first: String = backends.iter().take(1).map(backend).collect();
    let mode = contender.name();
    let pool = if contender == Contender::Snat {
        format!("[snat]\naddresses = {pool}\n")
    } else {
        String::new()
    };
    format!(
        "{pool}[[services]]\nname = \"web\"\nvip = \"{VIP4}\"\nport = 80\nmode = \"{mode}\"\n\
         [services.health]\ntype = \"http\"\npath = \"/healthz\"\n{all}\
         [[services]]\nname = \"bulk\"\nvip = \"{BULK}\"\nport = {BULK_PORT}\nmode = \"{mode}\"\n\
         {first}"
    )
}
