//! Named packets through the program in the kernel: verdict, counter and bytes of each.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod homes;

use std::{net::SocketAddr, sync::Mutex};

use homes::{
    ANY_ONLY, Counts, DAMAGED, ELSEWHERE, EMPTY_DROP, EMPTY_PASS, Homes, NO_RING, Stage,
    UNRESOLVED, VIP4, VIP6, stay_on,
};
use lb_common::{
    layout::{EndpointCounters, HOST_EXITS},
    testing::{Plan, Transport},
    verdict::{Reason, Verdict},
    wire::tcp::{ACK, SYN},
};

/// What shall become of a packet.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Sent to a backend of this service of the stage.
    Forwarded(usize),
    /// The same, and counted as a new flow.
    Opened(usize),
    /// Passed to the host, counted in its row.
    Host(Reason),
    /// Passed to the host, counted in this service's row.
    Passed(usize, Reason),
    /// Dropped, counted in this service's row.
    Dropped(usize, Reason),
}
use Fate::{Dropped, Forwarded, Host, Opened, Passed};

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
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

fn tcp(vip: &str, port: u16) -> Plan {
    Plan::tcp(client(vip), at(vip, port))
}

fn udp(vip: &str, port: u16) -> Plan {
    Plan::udp(client(vip), at(vip, port))
}

/// The bytes of a plan with some of them replaced.
fn with(plan: &Plan, offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = plan.bytes();
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
    frame
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
        let mut counted = self.homes.counts();
        std::mem::swap(&mut counted, &mut self.counted);
        let before = counted;
        let exit =
            |counts: &Counts, row, reason| counts.exits.get(&(row, reason)).copied().unwrap_or(0);
        let (expected, row) = match fate {
            Forwarded(service) | Opened(service) => {
                assert_eq!(verdict, Verdict::Transmit, "{name}");
                return self.check_forwarded(name, frame, &bytes, service, fate, &before);
            }
            Host(reason) => (Verdict::Pass(reason), HOST_EXITS),
            Passed(service, reason) => (Verdict::Pass(reason), self.stage.row(service)),
            Dropped(service, reason) => (Verdict::Drop(reason), self.stage.row(service)),
        };
        assert_eq!(verdict, expected, "{name}");
        assert_eq!(bytes, frame, "{name}: untouched");
        let (Verdict::Pass(reason) | Verdict::Drop(reason)) = expected else {
            unreachable!()
        };
        let mut expected = before.clone();
        expected
            .exits
            .insert((row, reason), exit(&before, row, reason) + 1);
        assert_eq!(self.counted, expected, "{name}: the counters");
    }

    fn check_forwarded(
        &self,
        name: &str,
        frame: &[u8],
        bytes: &[u8],
        service: usize,
        fate: Fate,
        before: &Counts,
    ) {
        assert_eq!(
            bytes[12..],
            frame[12..],
            "{name}: only the MAC addresses change"
        );
        let service = &self.stage.services[service];
        let owner = service
            .backends
            .iter()
            .map(|backend| {
                self.stage
                    .numbers
                    .endpoint(&service.key, backend.address)
                    .unwrap()
            })
            .find(|&number| {
                let way = homes::way(u32::from(number));
                bytes[..6] == way.destination && bytes[6..12] == way.source
            })
            .unwrap_or_else(|| panic!("{name}: {:02x?} is no backend's way", &bytes[..12]));
        let mut expected = before.clone();
        let counters = expected.endpoints.entry(owner).or_default();
        *counters = EndpointCounters {
            packets: counters.packets + 1,
            bytes: counters.bytes + frame.len() as u64,
            new_flows: counters.new_flows + u64::from(matches!(fate, Opened(_))),
        };
        assert_eq!(self.counted, expected, "{name}: the counters");
    }
}

/// The good packets: each transport, each IP version, up to two VLAN tags.
fn good() -> Vec<(String, Plan, usize)> {
    let tags: [&[u16]; 6] = [
        &[],
        &[0x8100],
        &[0x88a8],
        &[0x88a8, 0x8100],
        &[0x8100, 0x8100],
        &[0x8100, 0x88a8],
    ];
    let plans = [
        ("TCP over IPv4", tcp(VIP4, 80), 0),
        ("UDP over IPv4", udp(VIP4, 53), 2),
        ("TCP over IPv6", tcp(VIP6, 80), 3),
        ("UDP over IPv6", udp(VIP6, 53), 4),
    ];
    plans
        .iter()
        .flat_map(|(name, plan, service)| {
            tags.map(|tags| {
                (
                    format!("{name} behind {tags:04x?}"),
                    plan.clone().tagged(tags),
                    *service,
                )
            })
        })
        .collect()
}

#[test]
fn good_packets_are_forwarded_with_both_macs_rewritten_and_nothing_else() {
    let mut table = Table::new();
    for (name, plan, service) in good() {
        table.check(&name, &plan.bytes(), Forwarded(service));
        let empty = Plan { payload: 0, ..plan };
        table.check(
            &format!("{name}, no payload"),
            &empty.bytes(),
            Forwarded(service),
        );
    }
    let jumbo = Plan {
        payload: 3000,
        ..udp(VIP4, 53)
    };
    table.check("a large datagram", &jumbo.bytes(), Forwarded(2));
}

#[test]
fn a_good_packet_cut_short_anywhere_passes_untouched() {
    let mut table = Table::new();
    for (name, plan, service) in good() {
        let whole = Plan { payload: 0, ..plan }.bytes();
        for length in 14..whole.len() {
            let name = format!("{name}, cut to {length} bytes");
            table.check(&name, &whole[..length], Host(Reason::Truncated));
        }
        table.check(&name, &whole, Forwarded(service));
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
        table.check("the same again", &syn(77), Forwarded(service));
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
fn what_is_for_no_service_passes_untouched() {
    let mut table = Table::new();
    for (name, plan) in [
        ("another address", tcp("198.51.100.9", 80)),
        ("a wrong TCP port over IPv6", tcp(VIP6, 81)),
        ("a wrong UDP port", udp(VIP4, 80)),
        ("TCP where only UDP is served", tcp(VIP6, 53)),
        ("TCP to an any-port UDP service", tcp(ANY_ONLY, 80)),
        (
            "IPv6 to an IPv4 VIP as a mapped address",
            tcp("::ffff:198.51.100.10", 80),
        ),
        (
            "IPv6 to an IPv4 VIP as a compatible address",
            tcp("::198.51.100.10", 80),
        ),
        (
            "from the VIP, not to it",
            Plan::tcp(at(VIP4, 80), at("203.0.113.9", 51_000)),
        ),
    ] {
        table.check(name, &plan.bytes(), Host(Reason::NoService));
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_is_not_balanced_passes_untouched() {
    let mut table = Table::new();
    let (v4, v6) = (tcp(VIP4, 80), tcp(VIP6, 80));
    let (ip, transport4, transport6) = (v4.network(), v4.transport(), v6.transport());
    let other = |vip, protocol| Plan {
        transport: Transport::Other(protocol),
        ..tcp(vip, 80)
    };
    for (name, frame, reason) in [
        ("ARP", with(&v4, 12, &[0x08, 0x06]), Reason::NotIp),
        ("LLDP", with(&v4, 12, &[0x88, 0xcc]), Reason::NotIp),
        (
            "an 802.3 length",
            with(&v4, 12, &[0x00, 0x2e]),
            Reason::NotIp,
        ),
        (
            "three tags",
            v4.clone().tagged(&[0x8100; 3]).bytes(),
            Reason::NotIp,
        ),
        (
            "ARP behind a tag",
            with(&v4.clone().tagged(&[0x8100]), 16, &[0x08, 0x06]),
            Reason::NotIp,
        ),
        ("ICMP", other(VIP4, 1).bytes(), Reason::NotTcpUdp),
        ("SCTP", other(VIP4, 132).bytes(), Reason::NotTcpUdp),
        ("ICMPv6", other(VIP6, 58).bytes(), Reason::NotTcpUdp),
        ("no next header", other(VIP6, 59).bytes(), Reason::NotTcpUdp),
        ("IPv4 options", with(&v4, ip, &[0x46]), Reason::Ipv4Options),
        (
            "the most IPv4 options",
            with(&v4, ip, &[0x4f]),
            Reason::Ipv4Options,
        ),
        (
            "an IPv4 header of four words",
            with(&v4, ip, &[0x44]),
            Reason::Malformed,
        ),
        (
            "version 6 under IPv4's EtherType",
            with(&v4, ip, &[0x65]),
            Reason::Malformed,
        ),
        (
            "version 0 under IPv4's EtherType",
            with(&v4, ip, &[0x05]),
            Reason::Malformed,
        ),
        (
            "version 4 under IPv6's EtherType",
            with(&v6, ip, &[0x45]),
            Reason::Malformed,
        ),
        (
            "version 15 under IPv6's EtherType",
            with(&v6, ip, &[0xf0]),
            Reason::Malformed,
        ),
        (
            "the first fragment",
            with(&v4, ip + 6, &[0x20, 0x00]),
            Reason::Fragment,
        ),
        (
            "a fragment in the middle",
            with(&v4, ip + 6, &[0x20, 0xb9]),
            Reason::Fragment,
        ),
        (
            "the last fragment",
            with(&v4, ip + 6, &[0x00, 0xb9]),
            Reason::Fragment,
        ),
        (
            "an IPv6 fragment",
            with(&v6, ip + 6, &[44]),
            Reason::Fragment,
        ),
        (
            "hop-by-hop options",
            with(&v6, ip + 6, &[0]),
            Reason::Ipv6Extension,
        ),
        (
            "a routing header",
            with(&v6, ip + 6, &[43]),
            Reason::Ipv6Extension,
        ),
        (
            "an authentication header",
            with(&v6, ip + 6, &[51]),
            Reason::Ipv6Extension,
        ),
        (
            "destination options",
            with(&v6, ip + 6, &[60]),
            Reason::Ipv6Extension,
        ),
        (
            "a TCP header of four words",
            with(&v4, transport4 + 12, &[0x40]),
            Reason::Malformed,
        ),
        (
            "a TCP header of no words over IPv6",
            with(&v6, transport6 + 12, &[0]),
            Reason::Malformed,
        ),
    ] {
        table.check(name, &frame, Host(reason));
    }
    table.check(
        "IPv4 'do not fragment'",
        &with(&v4, ip + 6, &[0x40, 0]),
        Forwarded(0),
    );
    table.check(
        "TCP options",
        &with(&v4, transport4 + 12, &[0xf0]),
        Forwarded(0),
    );
}

#[test]
fn a_service_that_cannot_forward_says_why() {
    let mut table = Table::new();
    for (vip, fate) in [
        (EMPTY_DROP, Dropped(5, Reason::NoBackendDropped)),
        (EMPTY_PASS, Passed(6, Reason::NoBackendPassed)),
        (UNRESOLVED, Passed(7, Reason::Unresolved)),
        (ELSEWHERE, Passed(8, Reason::OtherInterface)),
        (DAMAGED, Passed(9, Reason::BadTables)),
        (NO_RING, Passed(10, Reason::BadTables)),
    ] {
        table.check(vip, &tcp(vip, 80).bytes(), fate);
        table.check(vip, &tcp(vip, 81).bytes(), Host(Reason::NoService));
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
