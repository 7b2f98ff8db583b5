//! What the program costs a packet, by `BPF_PROG_TEST_RUN`.
//!
//! Each frame is the next flow's: `lb-ebpf/src/bench.rs` makes it and hands it to the program. In
//! the same round, the same frames go to a program that sends them back at once: the floor. The
//! net cost is the median, over the rounds, of a case less its floor.
//!
//! The kernel tells the cost in whole nanoseconds, so it is taken from the thread's own processor
//! time instead, which leaves out what other processes take.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints"
)]

mod bed;
mod chart;
#[path = "../../tests/homes/mod.rs"]
mod homes;
mod report;
mod tables;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Parser;
use evenkeel_tests::packet_cost::{Kind, Mode, Options};
use lb_common::{
    bench::Case,
    flow::{V4, V6},
    layout::ENDPOINTS,
    testing::Plan,
    wire::tcp::{ACK, SYN},
};
use lb_userspace::balance::image::address;

use crate::{
    bed::Bed,
    report::{Record, Report},
};

/// Measures the cost of a packet; `cargo xtask bench` builds what this takes and runs it.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// About how long a case and its floor are measured in each round, in nanoseconds.
const TURN: f64 = 15e6;
/// How many flows a case makes that has to remember each of its packets.
const MISSES: u32 = 50_000;
/// How many flows of mode `snat` are opened before they are all established: the table of first
/// packets has room for eight times as many.
const OPENED: u32 = 4_096;

fn main() -> ExitCode {
    match run(&Arguments::parse().options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    homes::stay_on(1);
    let mut bed = Bed::new();
    let mut bench = Bench {
        rounds: if options.quick { 5 } else { 7 },
        hold: options.hold.map(Duration::from_secs),
        records: Vec::new(),
        left_out: Vec::new(),
    };
    bench.floors(&mut bed);
    for (services, backends) in options.sizes() {
        if usize::from(services) * usize::from(backends) > ENDPOINTS {
            bench.left_out.push(format!(
                "{services} services of {backends} backends: there is room for {ENDPOINTS} in all"
            ));
            continue;
        }
        let mut bases = BTreeMap::new();
        for mode in options.modes() {
            for (kind, cases) in sets(options, mode) {
                eprintln!(
                    "{services} services of {backends} backends, {mode}, {kind:?}: {cases:?}"
                );
                let services_of = kind_of(kind);
                let base = bases
                    .entry(services_of)
                    .or_insert_with(|| tables::base(services_of, services, backends));
                let image = tables::in_mode(base, mode);
                let image = match kind {
                    Set::Tracked => tables::in_transition(image),
                    Set::Unmeasured => tables::unmeasured(image),
                    Set::Tcp | Set::Udp | Set::Ipv6 => image,
                };
                bed.publish(&image);
                for flows in options.numbers_of_flows() {
                    let what = What {
                        mode,
                        flows,
                        services,
                        backends,
                    };
                    bench.measure(&mut bed, what, &cases);
                }
                bed.forget_all();
            }
        }
    }
    if options.modes().contains(&Mode::Snat) && options.kinds().contains(&Kind::TrackedHit) {
        bench.left_out.push(
            "tracked-hit in mode snat: all of its flows are remembered, see established".to_owned(),
        );
    }
    let report = Report::new(bench.rounds, &bed.programs, bench.records, bench.left_out);
    report.give(options)
}

/// Cases that are measured with the same tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Set {
    Tcp,
    Unmeasured,
    Udp,
    Ipv6,
    Tracked,
}

const fn kind_of(set: Set) -> tables::Kind {
    match set {
        Set::Tcp | Set::Unmeasured | Set::Tracked => tables::Kind::Tcp4,
        Set::Udp => tables::Kind::Udp4,
        Set::Ipv6 => tables::Kind::Tcp6,
    }
}

/// The cases to measure in a mode, by the tables that they take.
fn sets(options: &Options, mode: Mode) -> BTreeMap<Set, Vec<Kind>> {
    let mut sets: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for kind in options.kinds() {
        let set = match kind {
            Kind::Syn | Kind::Established | Kind::NonVip => Set::Tcp,
            Kind::Unmeasured => Set::Unmeasured,
            Kind::Udp => Set::Udp,
            Kind::Ipv6 => Set::Ipv6,
            Kind::TrackedHit if mode == Mode::Snat => continue,
            // Every flow of this mode is remembered, from whatever slot.
            Kind::TrackedMiss if mode == Mode::Snat => Set::Tcp,
            Kind::TrackedHit | Kind::TrackedMiss => Set::Tracked,
        };
        sets.entry(set).or_default().push(kind);
    }
    sets
}

/// What a case is measured with.
#[derive(Clone, Copy)]
struct What {
    mode: Mode,
    flows: u32,
    services: u16,
    backends: u16,
}

/// A case while it is measured.
struct Turn {
    kind: Kind,
    /// Its frames.
    case: Case,
    /// Its floor's.
    floor: Case,
    repeat: u32,
    gross: Vec<f64>,
    net: Vec<f64>,
}

struct Bench {
    rounds: usize,
    /// How long each case goes on, for a profiler.
    hold: Option<Duration>,
    records: Vec<Record>,
    left_out: Vec<String>,
}

impl Bench {
    /// Measures what has nothing to do with the product.
    fn floors(&mut self, bed: &mut Bed) {
        for kind in [Kind::Established, Kind::Ipv6] {
            let what = What {
                mode: Mode::Dsr,
                flows: 1000,
                services: 1,
                backends: 3,
            };
            let mut case = frames(kind, what);
            let mut turns = [(); 3].map(|()| (Vec::new(), Vec::new()));
            for _ in 0..self.rounds {
                let (floor, _) = bed.run("floor", &mut case, 500_000);
                let (swap, action) = bed.run("swap", &mut case, 500_000);
                assert_eq!(action, homes::TX, "it sends the frame back");
                case.grown = 1;
                let (grown, _) = bed.run("floor", &mut case, 500_000);
                case.grown = 0;
                for ((gross, net), cost) in turns.iter_mut().zip([floor, swap, grown]) {
                    gross.push(cost);
                    net.push(cost - floor);
                }
            }
            let names = ["empty", "parse-and-swap", "empty-undo"];
            for (name, (gross, net)) in names.into_iter().zip(turns) {
                self.records
                    .push(Record::new(name.to_owned(), kind, [1000, 0, 0], gross, net));
            }
        }
    }

    /// Measures cases in turns, each beside its floor.
    fn measure(&mut self, bed: &mut Bed, what: What, kinds: &[Kind]) {
        let mut turns: Vec<_> = kinds
            .iter()
            .map(|&kind| Turn::prepare(bed, kind, what))
            .collect();
        for _ in 0..self.rounds {
            for turn in &mut turns {
                turn.take(bed, what.mode);
            }
        }
        if let Some(hold) = self.hold {
            for turn in &mut turns {
                turn.hold(bed, hold);
            }
        }
        let size = [what.flows, what.services.into(), what.backends.into()];
        for turn in turns {
            let mode = what.mode.name();
            self.records
                .push(Record::new(mode, turn.kind, size, turn.gross, turn.net));
        }
    }
}

impl Turn {
    /// Makes the frames, and the entries of flows that are to be known already.
    fn prepare(bed: &mut Bed, kind: Kind, what: What) -> Self {
        let case = frames(kind, what);
        let mut turn = Self {
            kind,
            case,
            floor: case,
            repeat: 0,
            gross: Vec::new(),
            net: Vec::new(),
        };
        let snat = what.mode == Mode::Snat;
        match kind {
            Kind::TrackedMiss => {
                turn.case.flow = what.flows;
                turn.case.flows = u32::MAX;
                turn.floor = turn.case;
            }
            Kind::TrackedHit => {
                let (_, before) = bed.entries_made();
                bed.run("tested", &mut turn.case, what.flows);
                let (_, after) = bed.entries_made();
                // Those of fewer flows were made before.
                assert!(after > before && after - before <= what.flows.into());
            }
            Kind::Established | Kind::Unmeasured | Kind::Udp | Kind::Ipv6 if snat => {
                establish(bed, turn.case);
            }
            _ => {}
        }
        let warm = 10_000;
        let (cost, _) = if kind == Kind::TrackedMiss {
            (TURN / f64::from(MISSES), 0)
        } else {
            bed.run("tested", &mut turn.case, warm)
        };
        turn.repeat = (TURN / cost) as u32;
        turn
    }

    /// Goes on with the case, unmeasured.
    #[expect(clippy::disallowed_methods, reason = "a profiler has its own clock")]
    fn hold(&mut self, bed: &mut Bed, hold: Duration) {
        eprintln!("{}: goes on for {} s", self.kind, hold.as_secs());
        let begin = Instant::now();
        while begin.elapsed() < hold {
            bed.run("tested", &mut self.case, self.repeat);
        }
    }

    /// Measures the case once.
    fn take(&mut self, bed: &mut Bed, mode: Mode) {
        let (floor, _) = bed.run("floor", &mut self.floor, self.repeat);
        let (_, before) = bed.entries_made();
        let begin = self.case;
        let (gross, action) = bed.run("tested", &mut self.case, self.repeat);
        let expected = if self.kind == Kind::NonVip {
            homes::PASS
        } else {
            homes::TX
        };
        assert_eq!(action, expected, "{mode} {}: it went astray", self.kind);
        let made = bed.entries_made().1 - before;
        match self.kind {
            Kind::TrackedHit => assert_eq!(made, 0, "these flows were known"),
            // Those of mode `snat` push each other out of the table of first packets.
            Kind::TrackedMiss if mode != Mode::Snat => {
                assert_eq!(made, u64::from(self.repeat), "these flows were not known");
                self.case = begin;
                bed.run("forget", &mut self.case, self.repeat);
                self.case = begin;
            }
            _ => {}
        }
        self.gross.push(gross);
        self.net.push(gross - floor);
    }
}

/// Opens and establishes the flows of a case in mode `snat`.
fn establish(bed: &mut Bed, case: Case) {
    let mut open = case;
    open.transport[3] = case.transport[3] & !(0xff << 8) | u32::from(SYN) << 8;
    let mut go_on = case;
    let (_, before) = bed.entries_made();
    let mut left = case.flows;
    while left > 0 {
        let some = left.min(OPENED);
        let opens = if case.protocol == 6 {
            &mut open
        } else {
            &mut go_on.clone()
        };
        bed.run("tested", opens, some);
        bed.run("tested", &mut go_on, some);
        left -= some;
    }
    let made = bed.entries_made().1 - before;
    // Those of fewer flows were made before.
    assert!(
        made > 0 && made <= case.flows.into(),
        "{made} of {}",
        case.flows
    );
}

/// The frames of a case.
fn frames(kind: Kind, what: What) -> Case {
    // Its own network, so that what is remembered of one case is nothing to another. The last
    // byte of the address is the programs'.
    let source: IpAddr = match kind {
        Kind::Ipv6 => [0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 0].into(),
        _ => [10, 1 + kind as u8, 0, 0].into(),
    };
    let vip = match kind {
        Kind::NonVip => [203, 0, 113, 99].into(),
        Kind::Ipv6 => tables::vip(tables::Kind::Tcp6, 0),
        _ => tables::vip(tables::Kind::Tcp4, 0),
    };
    let (from, to) = (
        SocketAddr::new(source, 0),
        SocketAddr::new(vip, tables::PORT),
    );
    let plan = match kind {
        Kind::Udp => Plan::udp(from, to),
        Kind::Syn => Plan::tcp(from, to).segment(SYN, 1),
        // In mode `snat` a flow begins with its SYN.
        Kind::TrackedMiss if what.mode == Mode::Snat => Plan::tcp(from, to).segment(SYN, 1),
        _ => Plan::tcp(from, to).segment(ACK, 1),
    };
    let bytes = Plan {
        payload: 16,
        ..plan
    }
    .bytes();
    let word = |at: usize| {
        let bytes = bytes[at..at + 4].try_into().expect("four bytes");
        u32::from_ne_bytes(bytes)
    };
    let family = if vip.is_ipv4() { V4 } else { V6 };
    let transport = if vip.is_ipv4() { 34 } else { 54 };
    let udp = kind == Kind::Udp;
    Case {
        flow: 0,
        flows: what.flows,
        service: 0,
        services: if kind == Kind::NonVip {
            1
        } else {
            what.services.into()
        },
        length: bytes.len() as u32,
        grown: matches!(what.mode, Mode::Ipip | Mode::Gue).into(),
        family: family.into(),
        protocol: if udp { 17 } else { 6 },
        macs: [word(0), word(4), word(8)],
        head: [word(12), word(16), word(20)],
        source: address(source).0,
        destination: address(vip).0,
        transport: if udp {
            // A checksum that is not zero, or else it would not be brought up to date.
            [word(transport), 0, word(transport + 4) | 0x1234 << 16, 0, 0]
        } else {
            [0, 4, 8, 12, 16].map(|at| word(transport + at))
        },
        reserved: 0,
    }
}
