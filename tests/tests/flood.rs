//! A flood of SYNs pushes nobody out of a service in transition.

#![expect(unsafe_code, reason = "packet sockets have no safe interface")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ways;

use std::{fs, io, mem, thread, time::Duration};

use aya::maps::{HashMap, Map, MapData};
use evenkeel_tests::{
    daemon::Daemon,
    topology::{Topology, VIP4},
    traffic::{Load, Traffic},
};
use lb_common::{testing::Plan, wire::checksum::Change, wire::tcp};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use ways::Way;

const SYNS: u32 = 1_000_000;
const CONNECTIONS: u32 = 10_000;
const FRESH: usize = 65_536;

/// Sends SYNs with random sources from the router to the balancer.
fn flood(bed: &Topology, count: u32, seed: u64) {
    let neighbours = bed
        .router
        .run("ip", &["neighbour", "show", "10.10.0.2"])
        .unwrap();
    let words: Vec<_> = neighbours.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "lladdr").unwrap();
    let mac: Vec<u8> = words[at + 1]
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    let link = bed
        .router
        .run("ip", &["-o", "link", "show", "sw0"])
        .unwrap();
    let index: i32 = link.split(':').next().unwrap().trim().parse().unwrap();
    let plan = Plan::tcp("0.0.0.0:0".parse().unwrap(), (VIP4, 80).into()).segment(tcp::SYN, 0);
    let mut frame = Plan { payload: 0, ..plan }.bytes();
    frame[..6].copy_from_slice(&mac);
    checksums(&mut frame);
    let template = frame.clone();
    bed.router
        .inside(|| {
            // SAFETY: the descriptor is closed below, and every buffer outlives its call.
            unsafe {
                let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
                assert!(socket >= 0, "{}", io::Error::last_os_error());
                let mut to: libc::sockaddr_ll = mem::zeroed();
                to.sll_family = libc::AF_PACKET as u16;
                to.sll_ifindex = index;
                let mut random = StdRng::seed_from_u64(seed);
                for _ in 0..count {
                    frame.copy_from_slice(&template);
                    spoof(
                        &mut frame,
                        random.random(),
                        random.random(),
                        random.random(),
                    );
                    loop {
                        let sent = libc::sendto(
                            socket,
                            frame.as_ptr().cast(),
                            frame.len(),
                            0,
                            (&raw const to).cast(),
                            mem::size_of::<libc::sockaddr_ll>() as u32,
                        );
                        if sent >= 0 {
                            break;
                        }
                        let error = io::Error::last_os_error();
                        assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "{error}");
                        thread::yield_now();
                    }
                }
                libc::close(socket);
            }
        })
        .unwrap();
}

/// Fills in the checksums of a TCP segment over IPv4.
fn checksums(frame: &mut [u8]) {
    let sum = |bytes: &[u8], begin: Change| {
        let words = bytes
            .chunks(2)
            .map(|pair| u16::from_ne_bytes([pair[0], pair[1]]));
        words
            .fold(begin, |change, word| change.half(0, word))
            .apply(0xffff)
    };
    let header = sum(&frame[14..34], Change::default());
    frame[24..26].copy_from_slice(&header.to_ne_bytes());
    let length = (frame.len() - 34) as u16;
    let pseudo = Change::default()
        .half(0, 6u16.to_be())
        .half(0, length.to_be());
    let segment: Vec<u8> = frame[26..].to_vec();
    let checksum = sum(&segment, pseudo);
    frame[50..52].copy_from_slice(&checksum.to_ne_bytes());
}

/// Gives a SYN another source address, port and sequence number.
fn spoof(frame: &mut [u8], address: u32, port: u16, sequence: u32) {
    let half = |frame: &[u8], at: usize| u16::from_ne_bytes([frame[at], frame[at + 1]]);
    // Somewhere in 11.0.0.0/8, which is nobody's here.
    let address = (0x0b00_0000 | address & 0x00ff_ffff).to_be();
    let moved = Change::default().word(0, address);
    let header = moved.apply(half(frame, 24));
    let checksum = moved.half(0, port).word(0, sequence).apply(half(frame, 50));
    frame[24..26].copy_from_slice(&header.to_ne_bytes());
    frame[26..30].copy_from_slice(&address.to_ne_bytes());
    frame[34..36].copy_from_slice(&port.to_ne_bytes());
    frame[38..42].copy_from_slice(&sequence.to_ne_bytes());
    frame[50..52].copy_from_slice(&checksum.to_ne_bytes());
}

/// How many entries a pinned table of flows has.
fn entries(bed: &Topology, name: &str) -> usize {
    let map = MapData::from_pin(bed.pins().join(name)).unwrap();
    let map = Map::from_map_data(map).unwrap();
    let map: HashMap<_, [u8; 40], [u8; 32]> = map.try_into().unwrap();
    map.keys().flatten().count()
}

fn config(bed: &ways::Bed, weights: [u32; 4]) -> String {
    let mut service = bed.web("web", VIP4);
    // The flood has a processor to itself, and a probe late for that says nothing of a backend.
    service.health = "type = \"tcp\"\ninterval = \"5s\"\ntimeout = \"4s\"\nfall = 5\nrise = 1";
    service.backends = (0..4)
        .map(|n| (n, format!("weight = {}", weights[n])))
        .collect();
    bed.head() + &bed.topology.service(&service)
}

/// Waits until each long-lived connection has been used so many more times, about.
fn rounds(traffic: &mut Traffic<'_>, more: u64) {
    let all = u64::from(CONNECTIONS);
    let wanted = (traffic.report().unwrap().kept.ok / all + more) * all;
    while traffic.report().unwrap().kept.ok < wanted {
        thread::sleep(Duration::from_millis(500));
    }
}

fn load() -> Load {
    Load {
        rate: 0,
        kept: CONNECTIONS,
        kept_every: Duration::from_secs(10),
        // The flood takes all that the machine has: packets are lost and sent again.
        timeout: Duration::from_secs(30),
        ..Load::new(VIP4, Duration::from_mins(5))
    }
}

/// A flood while all connections are remembered: the tables keep within their bounds, nobody is
/// forgotten, and nothing becomes of any request but its answer.
fn outlives_a_flood(bed: &ways::Bed, daemon: &Daemon<'_>, mut traffic: Traffic<'_>, seed: u64) {
    let tracked = entries(bed.topology, "ESTABLISHED");
    assert!(tracked >= CONNECTIONS as usize, "{tracked}");
    flood(bed.topology, SYNS, seed);
    let fresh = entries(bed.topology, "FRESH");
    assert!((1_000..=FRESH).contains(&fresh), "{fresh}");
    rounds(&mut traffic, 2);
    let after = entries(bed.topology, "ESTABLISHED");
    assert!(after >= tracked, "{after} of {tracked} are left");
    let outcome = traffic.stop().unwrap();
    let failures: Vec<_> = outcome.failures().take(20).collect();
    let log = fs::read_to_string(daemon.log()).unwrap();
    let errors = &outcome.report.kept.by_error;
    assert!(failures.is_empty(), "{errors:?}\n{failures:?}\n{log}");
}

#[test]
fn a_flood_of_syns_breaks_no_connection_in_transition() {
    let bed = Way::Dsr.bed(4);
    let _servers = bed.servers();
    let mut daemon = Daemon::start(bed.topology, &config(&bed, [1, 1, 0, 0])).unwrap();
    let mut traffic = Traffic::start(bed.topology, load()).unwrap();
    rounds(&mut traffic, 1);
    // Every slot changes its owner, so every connection is in transition.
    daemon.reconfigure(&config(&bed, [0, 0, 1, 1])).unwrap();
    rounds(&mut traffic, 2);
    outlives_a_flood(&bed, &daemon, traffic, 11);
}

#[test]
fn a_flood_of_syns_breaks_no_connection_of_mode_snat() {
    let bed = Way::Snat.bed(4);
    let _servers = bed.servers();
    let daemon = Daemon::start(bed.topology, &config(&bed, [1, 1, 1, 1])).unwrap();
    let mut traffic = Traffic::start(bed.topology, load()).unwrap();
    rounds(&mut traffic, 2);
    outlives_a_flood(&bed, &daemon, traffic, 12);
}

#[test]
fn a_flood_of_syns_leaves_nothing_behind_where_no_slot_changes_and_is_reported() {
    let bed = Way::Dsr.bed(4);
    let _servers = bed.servers();
    let daemon = Daemon::start(bed.topology, &config(&bed, [1, 1, 1, 1])).unwrap();
    let ping = ["-c", "1", "-W", "5", "10.10.0.2"];
    bed.topology.router.run("ping", &ping).unwrap();
    let seen = thread::scope(|scope| {
        let flooding = scope.spawn(|| flood(bed.topology, SYNS, 13));
        let mut seen = None;
        while !flooding.is_finished() {
            let status = daemon.status().unwrap();
            let service = &status["services"][0];
            seen = seen.or_else(|| service["syn_flood"].as_object().cloned());
            thread::sleep(Duration::from_millis(100));
        }
        flooding.join().unwrap();
        seen
    });
    let rate = seen.expect("a flood is reported")["syn_rate"]
        .as_f64()
        .unwrap();
    assert!(rate > 1_000.0, "{rate}");
    let status = daemon.status().unwrap();
    let service = &status["services"][0];
    let new: u64 = service["backends"]
        .as_array()
        .unwrap()
        .iter()
        .map(|backend| backend["new_flows"].as_u64().unwrap())
        .sum();
    assert!(
        new > u64::from(SYNS) / 2,
        "the flood did not come through: {new}"
    );
    for table in ["FRESH", "ESTABLISHED"] {
        assert_eq!(entries(bed.topology, table), 0, "{table}");
    }
}
