//! Named packets through the tables that a configuration comes to: which service takes a packet,
//! what counts as a new flow, and what the program says of tables that are missing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod homes;

use std::{net::SocketAddr, sync::Mutex};

use homes::{ANY_ONLY, Counts, Homes, Stage, UNRESOLVED, VIP4, VIP6, stay_on};
use lb_common::{
    layout::{EndpointCounters, HOST_EXITS},
    testing::Plan,
    verdict::{Reason, Verdict},
    wire::tcp::{ACK, SYN},
};

/// What shall become of a packet.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Sent to a backend of this service of the stage.
    Forwarded(usize),
    /// The same, and counted as a new flow.
    Opened(usize),
    /// The same, and counted as a SYN that was sent again.
    Repeated(usize),
    /// Passed to the host, counted in this service's row.
    Passed(usize, Reason),
}
use Fate::{Forwarded, Opened, Passed, Repeated};

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

fn client(vip: &str) -> SocketAddr {
    let address = if vip.contains(':') {
        "2001:db8:c::7"
    } else {
        "203.0.113.9"
    };
    at(address, 51_000)
}

fn tcp(vip: &str, port: u16) -> Plan {
    Plan::tcp(client(vip), at(vip, port))
}

fn udp(vip: &str, port: u16) -> Plan {
    Plan::udp(client(vip), at(vip, port))
}

/// A stage with both homes, and what they have counted so far.
struct Table {
    stage: Stage,
    homes: Homes,
    counted: Counts,
}

impl Table {
    fn new() -> Self {
        stay_on(0);
        let stage = Stage::new();
        let homes = Homes::with(&stage.image, stage.endpoints);
        Self {
            stage,
            homes,
            counted: Counts::default(),
        }
    }

    /// Runs a packet and checks its verdict, its bytes, and that nothing else was counted.
    fn check(&mut self, name: &str, frame: &[u8], fate: Fate) {
        let (verdict, bytes) = self.homes.run(frame);
        match fate {
            Passed(service, reason) => {
                assert_eq!(verdict, Verdict::Pass(reason), "{name}");
                assert_eq!(bytes, frame, "{name}: untouched");
                let exit = (self.stage.row(service), reason);
                *self.counted.exits.entry(exit).or_default() += 1;
            }
            Forwarded(service) | Opened(service) | Repeated(service) => {
                assert_eq!(verdict, Verdict::Transmit, "{name}");
                assert_eq!(
                    bytes[12..],
                    frame[12..],
                    "{name}: only MAC addresses change"
                );
                let owner = self.owner(name, service, &bytes);
                let counters = self.counted.endpoints.entry(owner).or_default();
                *counters = EndpointCounters {
                    packets: counters.packets + 1,
                    bytes: counters.bytes + frame.len() as u64,
                    new_flows: counters.new_flows + u64::from(fate == Opened(service)),
                };
                if fate == Repeated(service) {
                    let events = self.counted.events.entry(owner).or_default();
                    events.retransmitted += 1;
                }
            }
        }
        assert_eq!(self.homes.counts(), self.counted, "{name}: the counters");
    }

    /// The endpoint of a service whose MAC addresses a frame has.
    fn owner(&self, name: &str, service: usize, bytes: &[u8]) -> u16 {
        let service = &self.stage.services[service];
        let numbers = service.backends.iter().map(|backend| {
            let number = self.stage.numbers.endpoint(&service.key, backend.address);
            number.unwrap()
        });
        numbers
            .into_iter()
            .find(|&number| {
                let way = homes::way(u32::from(number));
                bytes[..6] == way.destination && bytes[6..12] == way.source
            })
            .unwrap_or_else(|| panic!("{name}: {:02x?} is no backend's way", &bytes[..12]))
    }
}

#[test]
fn a_syn_counts_as_a_new_flow_once() {
    let mut table = Table::new();
    for vip in [VIP4, VIP6] {
        let service = if vip == VIP4 { 0 } else { 3 };
        let base = tcp(vip, 80);
        let syn = |sequence| base.clone().segment(SYN, sequence).bytes();
        table.check("a SYN", &syn(77), Opened(service));
        table.check("the same again", &syn(77), Repeated(service));
        table.check("with another sequence number", &syn(78), Opened(service));
        // ECN's two flags stand beside SYN in the handshake (RFC 3168, section 6.1.1).
        table.check(
            "with ECN",
            &base.clone().segment(SYN | 0xc0, 79).bytes(),
            Opened(service),
        );
        table.check(
            "a SYN-ACK",
            &base.clone().segment(SYN | ACK, 80).bytes(),
            Forwarded(service),
        );
        table.check(
            "an ACK",
            &base.clone().segment(ACK, 81).bytes(),
            Forwarded(service),
        );
    }
    table.check(
        "any-port SYN",
        &tcp(VIP4, 81).segment(SYN, 1).bytes(),
        Opened(1),
    );
    table.check(
        "a SYN in vain",
        &tcp(UNRESOLVED, 80).segment(SYN, 1).bytes(),
        Passed(7, Reason::Unresolved),
    );
}

#[test]
fn the_exact_port_comes_before_any_port() {
    let mut table = Table::new();
    for port in 1..300 {
        let service = usize::from(port != 80);
        table.check(
            &format!("TCP port {port}"),
            &tcp(VIP4, port).bytes(),
            Forwarded(service),
        );
    }
    for port in [0, 1, 53, 65_535] {
        table.check(
            &format!("UDP port {port}"),
            &udp(ANY_ONLY, port).bytes(),
            Forwarded(11),
        );
    }
    // Its ring is the smallest: 256 slots of the 65,536 there is room for.
    for source in 1024..3000 {
        let plan = Plan::tcp(at("203.0.113.9", source), at(VIP4, 443));
        table.check(&format!("from port {source}"), &plan.bytes(), Forwarded(1));
    }
}

#[test]
fn before_the_first_publication_everything_passes() {
    stay_on(0);
    let (mut kernel, _dir) = homes::open();
    let frame = tcp(VIP4, 80).bytes();
    assert_eq!(
        homes::run(kernel.program().unwrap(), &frame),
        (homes::PASS, frame)
    );
    let exits = lb_userspace::dataplane::DataPlane::exits(&kernel, HOST_EXITS).unwrap();
    assert_eq!(exits[Reason::NoTables as usize], 1);
}

/// Keeps what is logged.
struct Told(Mutex<Vec<String>>);

impl log::Log for Told {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

#[test]
fn the_program_tells_of_what_its_tables_should_rule_out_once_on_a_cpu() {
    static TOLD: Told = Told(Mutex::new(Vec::new()));
    log::set_logger(&TOLD).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    stay_on(0);
    let (mut kernel, _dir) = homes::open();
    for _ in 0..3 {
        homes::run(kernel.program().unwrap(), &tcp(VIP4, 80).bytes());
    }
    kernel.flush_log();
    let expected = format!("a packet met reason {} in row 0", Reason::NoTables as u8);
    assert_eq!(*TOLD.0.lock().unwrap(), [expected]);
}
