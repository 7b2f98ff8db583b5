//! What the program costs a packet, by `BPF_PROG_TEST_RUN`.
//!
//! Each case has a floor, which runs in the same round: a program that does everything but
//! balance. For one flow that is the empty program; where each packet is the next flow's, it is
//! the program that makes the packet and sends it back. The net cost is the median, over the
//! rounds, of a case less its floor.
//!
//! The kernel tells the cost in whole nanoseconds, so it is taken from the thread's own processor
//! time instead, which leaves out what other processes take.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints"
)]

#[path = "../tests/homes/mod.rs"]
mod homes;

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
};

use aya::{Ebpf, TestRunOptions, programs::TestRun as _};
use homes::{VIP4, VIP6, service, stay_on};
use lb_common::{testing::Plan, wire::tcp::SYN};
use lb_userspace::{
    balance::image::{Common, Image, Numbers},
    dataplane::{DataPlane as _, kernel::Kernel},
    model::{Protocol, RingSize, RingSlots, Service},
};
use serde::Serialize;

const ROUNDS: usize = 15;
/// Ten times around the most flows.
const REPEAT: u32 = 1_000_000;
/// Where the payload of an untagged TCP segment over IPv4 begins, which holds the counters of
/// the programs that make each packet the next flow's.
const COUNTERS: usize = 54;

/// One measured case.
#[derive(Serialize)]
struct Figure {
    mode: &'static str,
    case: &'static str,
    flows: u32,
    services: u16,
    backends: u16,
    median_ns: f64,
    min_ns: f64,
    net_median_ns: f64,
}

/// A case before it is measured.
struct Case {
    name: &'static str,
    flows: u32,
    program: &'static str,
    floor: &'static str,
    frame: Vec<u8>,
}

impl Case {
    /// One flow, over the empty program.
    fn one(name: &'static str, plan: &Plan) -> Self {
        Self {
            name,
            flows: 1,
            program: "evenkeel",
            floor: "empty",
            frame: plan.bytes(),
        }
    }

    /// Each packet the next flow's, and to the next service.
    fn many(flows: u32, services: u16) -> Self {
        let plan = Plan {
            payload: 16,
            ..Plan::tcp(client(VIP4), at(vip(0), 80))
        };
        let mut frame = plan.bytes();
        let counters = [0, flows, 0, u32::from(services)]
            .map(u32::to_le_bytes)
            .concat();
        frame[COUNTERS..].copy_from_slice(&counters);
        let (program, floor) = ("bench_flows", "bench_floor");
        Self {
            name: "established",
            flows,
            program,
            floor,
            frame,
        }
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "literals and addresses alike"
)]
fn at(address: impl ToString, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_string().parse().expect("an address"), port)
}

fn client(vip: &str) -> SocketAddr {
    at(
        if vip.contains(':') {
            "2001:db8:c::7"
        } else {
            "203.0.113.9"
        },
        51_000,
    )
}

/// The VIPs of the services that the programs count through.
fn vip(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    [198, 18, high, low].into()
}

/// So many equal services, and three that are measured with one flow.
fn services(count: u16, backends: u16) -> Vec<Service> {
    let mut services: Vec<_> = (0..count)
        .map(|n| service(n, &vip(n).to_string(), 80, Protocol::Tcp, backends))
        .collect();
    if count > 1 {
        // As an operator would: a thousand of the largest rings are 256 MiB.
        for service in &mut services {
            service.ring_slots = RingSize::Fixed(RingSlots::new(4096).expect("a size"));
        }
    }
    for (vip, port, protocol) in [
        (VIP4, 80, Protocol::Tcp),
        (VIP4, 53, Protocol::Udp),
        (VIP6, 80, Protocol::Tcp),
    ] {
        services.push(service(services.len() as u16, vip, port, protocol, 3));
    }
    services
}

/// Nanoseconds a packet.
fn cost(programs: &Ebpf, name: &str, frame: &[u8]) -> f64 {
    let options = TestRunOptions {
        data_in: Some(frame),
        repeat: REPEAT,
        ..TestRunOptions::default()
    };
    let program = homes::program(programs, name);
    let before = processor_time();
    let result = program.test_run(options).expect("the kernel runs it");
    let spent = processor_time() - before;
    assert_ne!(result.return_value, 0, "{name} gave up");
    spent / f64::from(REPEAT)
}

/// What this thread has used, in nanoseconds.
fn processor_time() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes one `timespec`, which outlives it.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "a thread has a clock");
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Publishes the services, and measures the cases and their floors in turn.
fn measure(kernel: &mut Kernel, programs: &Ebpf, size: (u16, u16), cases: &[Case]) -> Vec<Figure> {
    let (count, backends) = size;
    eprintln!("{count} services of {backends} backends: {ROUNDS} rounds of {REPEAT} packets");
    let services = services(count, backends);
    let mut numbers = Numbers::default();
    numbers.assign(&services).expect("there is room");
    let plans: Vec<_> = services
        .iter()
        .map(|service| homes::plan(service, &numbers))
        .collect();
    let live = kernel.live().expect("the live tables");
    kernel
        .publish(&Image::build(
            &plans,
            &numbers,
            Common::seeded(7),
            live.as_ref(),
        ))
        .unwrap_or_else(|error| panic!("{error}"));
    let mut all: Vec<_> = cases.iter().map(|_| (Vec::new(), Vec::new())).collect();
    for _ in 0..ROUNDS {
        for (case, (gross, net)) in cases.iter().zip(&mut all) {
            let floor = cost(programs, case.floor, &case.frame);
            let gross_cost = cost(programs, case.program, &case.frame);
            gross.push(gross_cost);
            net.push(gross_cost - floor);
        }
    }
    let figure = |(case, (mut gross, mut net)): (&Case, (Vec<f64>, Vec<f64>))| Figure {
        mode: "dsr",
        case: case.name,
        flows: case.flows,
        services: count,
        backends,
        median_ns: median(&mut gross),
        min_ns: gross[0],
        net_median_ns: median(&mut net),
    };
    cases.iter().zip(all).map(figure).collect()
}

/// One flow of each kind.
fn kinds() -> Vec<Case> {
    let tcp = Plan::tcp(client(VIP4), at(VIP4, 80));
    let empty = Case {
        program: "empty",
        ..Case::one("empty", &tcp)
    };
    vec![
        empty,
        Case::one(
            "vip-miss",
            &Plan::tcp(client(VIP4), at("198.51.100.99", 80)),
        ),
        Case::one("established", &tcp),
        Case::one("established-vlan", &tcp.clone().tagged(&[0x8100])),
        Case::one("established-ipv6", &Plan::tcp(client(VIP6), at(VIP6, 80))),
        Case::one("udp", &Plan::udp(client(VIP4), at(VIP4, 53))),
        Case::one("syn", &tcp.segment(SYN, 1)),
    ]
}

fn main() {
    let asked = |option| env::args().any(|argument| argument == option);
    let (json, quick) = (asked("--json"), asked("--quick"));
    let sizes: &[(u16, u16)] = &[(1, 3), (1, 100), (1, 1000), (100, 80), (1000, 8)];
    stay_on(1);
    let (mut kernel, dir) = homes::open();
    let programs = homes::load_again(&dir);
    let mut figures = Vec::new();
    for &size in if quick { &sizes[..1] } else { sizes } {
        let mut cases = if size == (1, 3) { kinds() } else { Vec::new() };
        cases.extend([1, 1000, 100_000].map(|flows| Case::many(flows, size.0)));
        figures.extend(measure(&mut kernel, &programs, size, &cases));
    }
    if json {
        println!(
            "{}",
            serde_json::to_string_pretty(&figures).expect("plain data")
        );
    } else {
        print(&figures);
    }
}

fn print(figures: &[Figure]) {
    println!("nanoseconds a packet; net: over the floor of the case, in the same round");
    println!("{}\n", machine());
    println!(
        "{:<18}{:>9}{:>10}{:>10}{:>9}{:>9}{:>9}",
        "case", "flows", "services", "backends", "median", "min", "net"
    );
    for figure in figures {
        println!(
            "{:<18}{:>9}{:>10}{:>10}{:>9.1}{:>9.1}{:>9.1}",
            figure.case,
            figure.flows,
            figure.services,
            figure.backends,
            figure.median_ns,
            figure.min_ns,
            figure.net_median_ns,
        );
    }
}

/// Processor, kernel and date, as far as the machine tells them.
fn machine() -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let date = Command::new("date")
        .args(["-u", "+%F"])
        .output()
        .map(|o| o.stdout);
    let date = String::from_utf8_lossy(date.as_deref().unwrap_or_default())
        .trim()
        .to_owned();
    format!("{model}, Linux {}, {date}", kernel.trim())
}
