//! The decision's two homes side by side: the program in the kernel, run by `BPF_PROG_TEST_RUN`,
//! and the same code on the host.

#![allow(
    dead_code,
    reason = "each test that includes this module uses a part of it"
)]

pub(crate) mod bed;
pub(crate) mod builder;
pub(crate) mod cases;
pub(crate) mod memory;
pub(crate) mod network;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    num::NonZeroU16,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use aya::{
    Ebpf, EbpfLoader, TestRunOptions,
    programs::{TestRun as _, Xdp},
};
use evenkeel_tests::run_dir::RunDir;
use lb_common::{
    decide,
    flow::Flow,
    host::{Frame, Host},
    layout::{
        EndpointCounters, EndpointEvents, FlowEntry, SMALL_RING_SLOTS, SourceKey, TICK_NS,
        TrackingCounters,
    },
    verdict::{Reason, Verdict},
};
use lb_userspace::{
    balance::{
        image::{Common, Image, Numbers, ServicePlan, Way},
        plan::Base,
    },
    dataplane::{DataPlane as _, OBJECT, kernel::Kernel, pin},
    model::{
        Backend, DataPlaneConfig, Evenness, Fraction, Mode, OnDrift, OnEmpty, Options, ProbeMark,
        Protocol, RingSize, RingSlots, Service, ServiceKey, ServicePort, Tracking, Weight, XdpMode,
    },
};
use rustix::{
    thread::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
};

use memory::Memory;

/// The interface by which `BPF_PROG_TEST_RUN` lets frames come in: loopback.
pub(crate) const INGRESS: u32 = 1;
/// `XDP_DROP` of linux/bpf.h.
pub(crate) const DROP: u32 = 1;
/// `XDP_PASS` of linux/bpf.h.
pub(crate) const PASS: u32 = 2;
/// `XDP_TX` of linux/bpf.h.
pub(crate) const TX: u32 = 3;
/// `XDP_REDIRECT` of linux/bpf.h.
pub(crate) const REDIRECT: u32 = 4;

/// The maps that programs share.
const MAPS: [&str; 14] = [
    "TABLES",
    "RINGS",
    "SMALL_RINGS",
    "ENDPOINTS",
    "EVENTS",
    "EXITS",
    "TRACKING",
    "SYNS",
    "SCRATCH",
    "FRESH",
    "ESTABLISHED",
    "FRAGMENTS",
    "SOURCES",
    "LIMITS",
];

/// Keeps the calling thread on one processor: counters and the memory of SYNs are per processor.
pub(crate) fn stay_on(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).expect("this machine has the processor");
}

/// A service with backends `10.0.x.y` or `fd00::x:y`, by its number and theirs.
pub(crate) fn service(
    number: u16,
    vip: &str,
    port: u16,
    protocol: Protocol,
    backends: u16,
) -> Service {
    let vip: IpAddr = vip.parse().expect("an address");
    let address = |backend: u16| -> IpAddr {
        let [high, low] = backend.to_be_bytes();
        let [service_high, service_low] = number.to_be_bytes();
        if vip.is_ipv4() {
            // 10.64.0.0/10 has room for 1,024 services of 4,096 backends.
            [10, 64 | service_high << 4 | high, service_low, low].into()
        } else {
            [0xfd00, 0, 0, 0, 0, 0, number, backend].into()
        }
    };
    Service {
        name: format!("service-{number}").into(),
        key: ServiceKey {
            vip,
            port: NonZeroU16::new(port).map_or(ServicePort::Any, ServicePort::Exact),
            protocol,
        },
        mode: Mode::Dsr,
        ring_slots: RingSize::Fixed(RingSlots::LARGEST),
        on_empty: OnEmpty::Drop,
        options: Options::default(),
        health: None,
        backends: (0..backends)
            .map(|backend| Backend {
                name: format!("backend-{backend}").into(),
                address: address(backend),
                weight: Weight::DEFAULT,
                capacity: None,
                port: None,
                server_id: None,
            })
            .collect(),
    }
}

/// The way to an endpoint; its destination address carries the number given.
pub(crate) fn way(number: u32) -> Way {
    let [a, b, c, d] = number.to_be_bytes();
    Way {
        interface: INGRESS,
        source: [0x02, 0, 0, 0, 0, 0x01],
        destination: [0x06, 0, a, b, c, d],
        mtu: 1500,
        address: None,
    }
}

/// What a service's image is made from, with all of its backends usable and their ways known.
pub(crate) fn plan(service: &Service, numbers: &Numbers) -> ServicePlan<'static> {
    let service: &'static Service = Box::leak(Box::new(service.clone()));
    let base = Base::new(service, 0.02).expect("the ring has room");
    let ways = service.backends.iter().map(|backend| {
        let number = numbers.endpoint(&service.key, backend.address);
        Some(way(u32::from(number.expect("a number"))))
    });
    let owners = base.owners(&vec![Fraction::FULL; service.backends.len()]);
    ServicePlan::steady(service, numbers, owners.as_deref(), ways.collect())
}

/// Opens a kernel with pins in a bpffs of its own.
pub(crate) fn open() -> (Kernel, RunDir) {
    static BEDS: AtomicU32 = AtomicU32::new(0);
    assert!(
        rustix::process::geteuid().is_root(),
        "this test loads a program into the kernel: run it as root"
    );
    let dir = RunDir::create(BEDS.fetch_add(1, Ordering::Relaxed)).expect("a bpffs");
    (open_in(&dir, &Tracking::default()), dir)
}

/// Opens a kernel with the pins in a bpffs.
pub(crate) fn open_in(dir: &RunDir, tracking: &Tracking) -> Kernel {
    let config = DataPlaneConfig {
        interfaces: Vec::new(),
        xdp_mode: XdpMode::Generic,
        pins: dir.bpf().join("evenkeel"),
        hash_seed: 0,
        evenness: Evenness::DEFAULT,
        probe_mark: ProbeMark::DEFAULT,
        on_drift: OnDrift::default(),
    };
    Kernel::open(&config, tracking).unwrap_or_else(|error| panic!("{error}"))
}

/// Loads every program of the object once more, onto the maps of an open kernel: to run them while
/// its owner publishes, and those that no controller loads.
pub(crate) fn load_again(dir: &RunDir) -> Ebpf {
    let mut loader = EbpfLoader::new();
    for map in MAPS {
        loader.map_pin_path(map, pin(&dir.bpf().join("evenkeel"), map));
    }
    let mut object = loader.load(OBJECT).expect("the kernel takes the object");
    for (name, program) in object.programs_mut() {
        let program: &mut Xdp = program.try_into().expect("an XDP program");
        program
            .load()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    object
}

/// One of the object's programs.
pub(crate) fn program<'a>(object: &'a Ebpf, name: &str) -> &'a Xdp {
    let program = object.program(name).expect("the object has this program");
    program.try_into().expect("an XDP program")
}

/// Runs a frame of at least 14 bytes once through a program: the action and the frame after it.
pub(crate) fn run(program: &Xdp, frame: &[u8]) -> (u32, Vec<u8>) {
    let mut out = vec![0; frame.len() + 256];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ..TestRunOptions::default()
    };
    let result = program.test_run(options).expect("the kernel runs it");
    out.truncate(result.data_size_out as usize);
    (result.return_value, out)
}

/// Everything that was counted, without the zeroes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// By endpoint number.
    pub(crate) endpoints: BTreeMap<u16, EndpointCounters>,
    /// By row and reason.
    pub(crate) exits: BTreeMap<(u32, Reason), u64>,
    /// By endpoint number.
    pub(crate) events: BTreeMap<u16, EndpointEvents>,
    /// Of the memory of flows.
    pub(crate) tracking: TrackingCounters,
}

/// The time in ticks, by the clock that the program reads.
pub(crate) fn now() -> u32 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    let nanoseconds = time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64;
    (nanoseconds / TICK_NS) as u32
}

/// Both homes with the same tables and the same memory.
pub(crate) struct Homes {
    pub(crate) kernel: Kernel,
    pub(crate) host: Host,
    pub(crate) memory: Memory,
    endpoints: u16,
    /// How many rows of exits may have been counted in.
    rows: u32,
    dir: RunDir,
}

impl Homes {
    /// Publishes an image to both, whose endpoints have numbers below the one given.
    pub(crate) fn with(image: &Image, endpoints: u16) -> Self {
        let (kernel, dir) = open();
        let memory = Memory::open(&dir.bpf().join("evenkeel"));
        // The first processor of several takes every so manieth port, and counts before it does.
        let cpus = aya::util::nr_cpus().expect("the number of CPUs") as u32;
        let mut host = Host::default();
        host.ports.set(cpus);
        host.port_step = cpus;
        host.routes = network::routes();
        let mut homes = Self {
            kernel,
            host,
            memory,
            endpoints,
            rows: 1,
            dir,
        };
        homes.publish(image);
        homes
    }

    /// The folder of the kernel's pins.
    pub(crate) fn pins(&self) -> PathBuf {
        self.dir.bpf().join("evenkeel")
    }

    /// Publishes an image to both.
    pub(crate) fn publish(&mut self, image: &Image) {
        self.kernel
            .publish(image)
            .unwrap_or_else(|error| panic!("{error}"));
        let rows = image
            .tables
            .vips
            .iter()
            .map(|vip| u32::from(vip.service) + 2);
        self.rows = rows.fold(self.rows, u32::max);
        let (small_rings, rings) = image
            .rings
            .iter()
            .map(|(&number, slots)| (number, slots.to_vec()))
            .partition(|(_, slots)| slots.len() <= SMALL_RING_SLOTS);
        self.host.tables = Some(image.tables.clone());
        self.host.small_rings = small_rings;
        self.host.rings = rings;
        let lists = image.lists.values().flat_map(|list| list.iter());
        self.host
            .sources
            .extend(lists.map(|(key, allowed)| (*key, *allowed)));
    }

    /// Publishes an image of other endpoints to both, numbered below the one given; what was
    /// counted goes on.
    pub(crate) fn change(&mut self, image: &Image, endpoints: u16) {
        self.endpoints = self.endpoints.max(endpoints);
        self.publish(image);
    }

    /// Makes both remember a flow of which a first packet was seen.
    pub(crate) fn put_fresh(&mut self, flow: &Flow, entry: &FlowEntry) {
        self.memory.put_fresh(flow, entry);
        self.host.fresh.get_mut().insert(*flow, *entry);
    }

    /// Makes both remember another flow.
    pub(crate) fn put_established(&mut self, flow: &Flow, entry: &FlowEntry) {
        self.memory.put_established(flow, entry);
        self.host.established.get_mut().insert(*flow, *entry);
    }

    /// Puts an entry into both homes' lists of sources.
    pub(crate) fn put_source(&mut self, source: SourceKey, allowed: u8) {
        self.memory.put_source(&source, allowed);
        self.host.sources.insert(source, allowed);
    }

    /// Makes both forget the lists of sources.
    pub(crate) fn forget_sources(&mut self) {
        self.memory.forget_sources(&mut self.host);
    }

    /// Makes a socket of the host wait for what comes from one end to the other, as long as what is
    /// answered lives.
    pub(crate) fn awaits(&mut self, from: SocketAddr, to: SocketAddr, protocol: u8) -> OwnedFd {
        self.host.awaited.insert(Flow {
            source: network::words(from.ip()),
            destination: network::words(to.ip()),
            ports: u32::from(from.port().to_be()) | u32::from(to.port().to_be()) << 16,
            protocol,
            family: builder::family(to.ip()),
            reserved: [0; 2],
        });
        if protocol == builder::TCP {
            TcpListener::bind(to).expect("a listener").into()
        } else {
            UdpSocket::bind(to).expect("a socket").into()
        }
    }

    /// Checks that both remember the same.
    pub(crate) fn compare_memory(&self) {
        self.memory.compare(&self.host);
    }

    /// Makes both forget their flows, fragments and limits.
    pub(crate) fn forget(&mut self) {
        self.memory.forget(&mut self.host);
    }

    /// Runs a frame through both; they agree, or the test fails.
    pub(crate) fn run(&mut self, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let program = self.kernel.program().expect("the object has its program");
        self.host.now.set(now());
        let (action, bytes) = run(program, frame);
        let mut host = Frame::new(frame, INGRESS);
        let verdict = decide::process(&mut host, &self.host);
        let expected = match verdict {
            Verdict::Transmit => TX,
            Verdict::Redirect(_) => REDIRECT,
            Verdict::Pass(_) => PASS,
            Verdict::Drop(_) => DROP,
        };
        assert_eq!(
            action, expected,
            "the kernel's action, where the host says {verdict:?}: {frame:02x?}"
        );
        assert_eq!(
            bytes, host.bytes,
            "the kernel's bytes and the host's: {frame:02x?}"
        );
        (verdict, bytes)
    }

    /// What both have counted; they agree, or the test fails.
    pub(crate) fn counts(&self) -> Counts {
        let mut kernel = Counts::default();
        for number in 0..self.endpoints {
            let counters = self.kernel.endpoint(number).expect("a counter");
            if counters != EndpointCounters::default() {
                kernel.endpoints.insert(number, counters);
            }
            let events = self.memory.events(number);
            if events != EndpointEvents::default() {
                kernel.events.insert(number, events);
            }
        }
        for row in 0..self.rows {
            let counters = self.kernel.exits(row).expect("a counter");
            let counted = Reason::ALL.map(|reason| ((row, reason), counters[reason as usize]));
            kernel
                .exits
                .extend(counted.into_iter().filter(|(_, count)| *count != 0));
        }
        kernel.tracking = self.memory.tracking();
        let host = Counts {
            events: self.host.events.borrow().clone(),
            tracking: *self.host.tracking.borrow(),
            endpoints: self.host.endpoints.borrow().clone(),
            exits: self.host.exits.borrow().clone(),
        };
        assert_eq!(kernel, host, "the kernel's counters and the host's");
        kernel
    }
}

/// A fixed set of services, one for each thing that can become of a packet.
pub(crate) struct Stage {
    pub(crate) services: Vec<Service>,
    pub(crate) numbers: Numbers,
    pub(crate) image: Image,
    pub(crate) endpoints: u16,
}

/// The VIPs of [`Stage`].
pub(crate) const VIP4: &str = "198.51.100.10";
pub(crate) const VIP6: &str = "2001:db8::10";
pub(crate) const EMPTY_DROP: &str = "198.51.100.11";
pub(crate) const EMPTY_PASS: &str = "198.51.100.12";
pub(crate) const UNRESOLVED: &str = "198.51.100.13";
pub(crate) const ELSEWHERE: &str = "198.51.100.14";
pub(crate) const DAMAGED: &str = "198.51.100.15";
pub(crate) const NO_RING: &str = "198.51.100.16";
pub(crate) const ANY_ONLY: &str = "2001:db8::11";

impl Stage {
    pub(crate) fn new() -> Self {
        use Protocol::{Tcp, Udp};
        let mut services: Vec<Service> = [
            (VIP4, 80, Tcp, 3),
            (VIP4, 0, Tcp, 2),
            (VIP4, 53, Udp, 2),
            (VIP6, 80, Tcp, 3),
            (VIP6, 53, Udp, 2),
            (EMPTY_DROP, 80, Tcp, 1),
            (EMPTY_PASS, 80, Tcp, 1),
            (UNRESOLVED, 80, Tcp, 1),
            (ELSEWHERE, 80, Tcp, 1),
            (DAMAGED, 80, Tcp, 1),
            (NO_RING, 80, Tcp, 1),
            (ANY_ONLY, 0, Udp, 2),
        ]
        .into_iter()
        .zip(0..)
        .map(|((vip, port, protocol, backends), number)| {
            service(number, vip, port, protocol, backends)
        })
        .collect();
        let smallest = RingSlots::new(RingSlots::MIN).expect("a size");
        services[1].ring_slots = RingSize::Fixed(smallest);
        services[6].on_empty = OnEmpty::Pass;
        let mut numbers = Numbers::default();
        let fresh = numbers.assign(&services).expect("there is room");
        let mut plans: Vec<_> = services
            .iter()
            .map(|service| plan(service, &numbers))
            .collect();
        plans[5].slots = None;
        plans[6].slots = None;
        plans[7].ways = vec![None];
        plans[8].ways = vec![Some(Way {
            interface: INGRESS + 1,
            ..way(0)
        })];
        let mut image = Image::build(&plans, &numbers, Common::seeded(7), None);
        for vip in image
            .tables
            .vips
            .iter_mut()
            .filter(|vip| vip.key.family != 0)
        {
            match vip.service {
                9 => vip.state = 9,
                10 => vip.ring = 4000,
                _ => {}
            }
        }
        image.rings.remove(&20);
        Self {
            services,
            numbers,
            image,
            endpoints: fresh.endpoints.len() as u16,
        }
    }

    /// The row of a service's exits.
    pub(crate) fn row(&self, service: usize) -> u32 {
        u32::from(
            self.numbers
                .service(&self.services[service].key)
                .expect("a number"),
        ) + 1
    }
}
