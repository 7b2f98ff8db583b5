//! The decapsulator in the kernel and on the host: the same for every packet, and for named ones
//! what it should be.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "figures for the reader of a run")]

mod homes;

use std::{collections::BTreeMap, net::IpAddr, sync::atomic::AtomicU32, sync::atomic::Ordering};

use evenkeel_tests::run_dir::RunDir;
use homes::{DROP, INGRESS, PASS, stay_on};
use lb_common::{
    decap::{
        self, AddressKey, BYTES, Reason, SenderKey, Settings, UNWRAPPED, Verdict, flag, host::Host,
        role,
    },
    flow::{self, Address},
    host::Frame,
    testing::{Plan, Tunnel, ipv4_checksum},
};
use lb_userspace::dataplane::decap::{Decap, Others, Rules, Senders};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

const PORT: u16 = 6080;
const PACKETS: u32 = 200_000;
const OWN: [&str; 2] = ["10.0.0.2", "fd00::2"];
const VIPS: [&str; 2] = ["198.51.100.10", "2001:db8::10"];
const BALANCERS: [(&str, u32); 2] = [("10.0.9.0", 24), ("fd00:9::", 32)];

/// The program in the kernel and the same code on the host, with the same rules.
struct Homes {
    kernel: Decap,
    host: Host,
    _dir: RunDir,
}

impl Homes {
    fn new(others: Others) -> Self {
        static BEDS: AtomicU32 = AtomicU32::new(0);
        // Numbers apart from those of the balancer's homes.
        let dir = RunDir::create(1000 + BEDS.fetch_add(1, Ordering::Relaxed)).unwrap();
        let mut kernel = Decap::open(&dir.bpf().join("decap")).unwrap();
        let parsed = |all: [&str; 2]| all.map(|text| text.parse().unwrap()).into();
        let prefixes = BALANCERS.map(|(address, bits)| format!("{address}/{bits}"));
        let rules = Rules {
            senders: Senders::Of(prefixes.map(|text| text.parse().unwrap()).into()),
            others,
            ends: parsed(OWN),
            vips: parsed(VIPS),
            gue_port: PORT,
        };
        kernel.apply(&rules).unwrap();
        let mut host = Host::default();
        let pass = if others == Others::Pass {
            flag::PASS_OTHERS
        } else {
            0
        };
        host.settings = Some(Settings {
            version: decap::VERSION,
            gue_port: PORT.to_be(),
            flags: flag::VIPS | pass,
        });
        for (all, role) in [(OWN, role::TUNNEL), (VIPS, role::VIP)] {
            host.addresses.extend(all.map(|text| {
                let (address, family) = words(text);
                AddressKey::new(address, family, role)
            }));
        }
        host.senders.extend(BALANCERS.map(|(text, bits)| {
            let (address, family) = words(text);
            SenderKey::new(address, family, bits)
        }));
        Self {
            kernel,
            host,
            _dir: dir,
        }
    }

    /// Runs a frame through both; they agree, or the test fails.
    fn run(&mut self, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let (action, bytes) = homes::run(self.kernel.program().unwrap(), frame);
        let mut host = Frame::new(frame, INGRESS);
        let verdict = decap::process(&mut host, &self.host);
        let expected = match verdict {
            Verdict::Unwrapped | Verdict::Pass(_) => PASS,
            Verdict::Drop(_) => DROP,
        };
        assert_eq!(action, expected, "the host says {verdict:?}: {frame:02x?}");
        assert_eq!(
            bytes, host.bytes,
            "the kernel's and the host's: {frame:02x?}"
        );
        (verdict, bytes)
    }

    /// Compares what both have counted.
    fn compare_counters(&self) {
        let mut host = [0; 16];
        for (verdict, count) in &*self.host.verdicts.borrow() {
            host[verdict.counter()] += count;
        }
        host[BYTES] = *self.host.bytes.borrow();
        assert_eq!(self.kernel.counters().unwrap(), host);
    }
}

fn words(text: &str) -> (Address, u8) {
    match text.parse().unwrap() {
        IpAddr::V4(v4) => (flow::v4(u32::from_ne_bytes(v4.octets())), flow::V4),
        IpAddr::V6(v6) => {
            let words = v6.octets();
            let word = |n: usize| u32::from_ne_bytes(words[4 * n..4 * n + 4].try_into().unwrap());
            ([word(0), word(1), word(2), word(3)], flow::V6)
        }
    }
}

fn tunnel(v6: bool) -> Tunnel {
    if v6 {
        Tunnel::ipip("fd00:9::7", "fd00::2")
    } else {
        Tunnel::ipip("10.0.9.7", "10.0.0.2")
    }
}

/// A client's segment to a VIP, with this traffic class.
fn inner(v6: bool, class: u8) -> Vec<u8> {
    let (from, to) = if v6 {
        ("[2001:db8::9]:51000", "[2001:db8::10]:80")
    } else {
        ("203.0.113.9:51000", "198.51.100.10:80")
    };
    let plan = Plan::tcp(from.parse().unwrap(), to.parse().unwrap());
    let mut packet = plan.bytes().split_off(14);
    if v6 {
        packet[0] = 0x60 | class >> 4;
        packet[1] = class << 4 | 0x3;
    } else {
        packet[1] = class;
        ipv4_checksum(&mut packet, 0);
    }
    packet
}

#[test]
fn every_tunnel_comes_off_with_every_tag_in_place() {
    let mut homes = Homes::new(Others::Drop);
    for (outer_v6, inner_v6) in [(false, false), (false, true), (true, false), (true, true)] {
        for gue in [false, true] {
            for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
                let mut outer = tunnel(outer_v6);
                outer.tags = tags.to_vec();
                outer.port = gue.then_some(PORT);
                let packet = inner(inner_v6, 0);
                let frame = outer.frame(&packet);
                let (verdict, bytes) = homes.run(&frame);
                let name = format!("{outer_v6} {inner_v6} {gue} {tags:x?}");
                assert_eq!(verdict, Verdict::Unwrapped, "{name}");
                let ethertype: [u8; 2] = if inner_v6 { [0x86, 0xdd] } else { [8, 0] };
                let front = &frame[..outer.network() - 2];
                assert_eq!(bytes, [front, &ethertype, &packet].concat(), "{name}");
            }
        }
    }
    homes.compare_counters();
    assert_eq!(homes.kernel.counters().unwrap()[UNWRAPPED], 24);
}

#[test]
fn congestion_is_told_as_rfc_6040_has_it() {
    let mut homes = Homes::new(Others::Drop);
    // Figure 4: inner codepoint, outer codepoint, what comes of them.
    let (not, one, zero, ce) = (0b00, 0b01, 0b10, 0b11);
    for (within, around, expected) in [
        (not, not, Some(not)),
        (not, zero, Some(not)),
        (not, one, Some(not)),
        (not, ce, None),
        (zero, not, Some(zero)),
        (zero, zero, Some(zero)),
        (zero, one, Some(one)),
        (zero, ce, Some(ce)),
        (one, not, Some(one)),
        (one, zero, Some(one)),
        (one, one, Some(one)),
        (one, ce, Some(ce)),
        (ce, not, Some(ce)),
        (ce, zero, Some(ce)),
        (ce, one, Some(ce)),
        (ce, ce, Some(ce)),
    ] {
        for (outer_v6, inner_v6) in [(false, false), (false, true), (true, false), (true, true)] {
            let outer = Tunnel {
                class: 46 << 2 | around,
                ..tunnel(outer_v6)
            };
            let class = |ecn: u8| 10 << 2 | ecn;
            let (verdict, bytes) = homes.run(&outer.frame(&inner(inner_v6, class(within))));
            let name = format!("{within:02b} within {around:02b}, {outer_v6} {inner_v6}");
            match expected {
                Some(ecn) => {
                    assert_eq!(verdict, Verdict::Unwrapped, "{name}");
                    assert_eq!(bytes[14..], inner(inner_v6, class(ecn)), "{name}");
                }
                None => assert_eq!(verdict, Verdict::Drop(Reason::Congestion), "{name}"),
            }
        }
    }
}

/// A frame of the tunnel over IPv4, changed from its outer header on, its checksum right.
fn changed(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[14 + at..14 + at + bytes.len()].copy_from_slice(bytes);
    ipv4_checksum(&mut frame, 14);
    frame
}

#[test]
fn named_packets_have_their_verdicts() {
    use Verdict::{Drop, Pass};
    let ipip = tunnel(false).frame(&inner(false, 0));
    let gue = tunnel(false).gue(PORT).frame(&inner(false, 0));
    let length = |bytes: u16| bytes.to_be_bytes();
    let with_options = {
        let mut frame = ipip.clone();
        frame.splice(34..34, [1, 1, 1, 1]);
        changed(&changed(&frame, 0, &[0x46]), 2, &length(74))
    };
    let mut bad_sum = ipip.clone();
    bad_sum[14 + 10] ^= 0x80;
    let foreign = Tunnel::ipip("10.0.9.7", "10.0.0.3").frame(&inner(false, 0));
    let stranger = Tunnel::ipip("10.0.8.7", "10.0.0.2").frame(&inner(false, 0));
    let mut not_vip = inner(false, 0);
    not_vip[19] = 11;
    ipv4_checksum(&mut not_vip, 0);
    let named = [
        ("sender not allowed", stranger, Drop(Reason::Sender)),
        ("for another host", foreign, Pass(Reason::NotTunnel)),
        (
            "no VIP inside",
            tunnel(false).frame(&not_vip),
            Drop(Reason::NotVip),
        ),
        (
            "another port",
            changed(&gue, 22, &[0, 53]),
            Pass(Reason::NotTunnel),
        ),
        (
            "first fragment",
            changed(&ipip, 6, &[0x20, 0]),
            Drop(Reason::Fragment),
        ),
        (
            "later fragment",
            changed(&ipip, 6, &[0, 9]),
            Drop(Reason::Fragment),
        ),
        (
            "first of UDP",
            changed(&gue, 6, &[0x20, 0]),
            Drop(Reason::Fragment),
        ),
        (
            "later of UDP",
            changed(&gue, 6, &[0, 9]),
            Pass(Reason::NotTunnel),
        ),
        ("options", with_options, Drop(Reason::Options)),
        ("bad checksum", bad_sum, Drop(Reason::Checksum)),
        (
            "longer than the frame",
            changed(&ipip, 2, &length(71)),
            Drop(Reason::Truncated),
        ),
        (
            "shorter than inside",
            changed(&ipip, 2, &length(69)),
            Drop(Reason::Length),
        ),
        (
            "UDP too long",
            changed(&gue, 24, &length(59)),
            Drop(Reason::Length),
        ),
        (
            "inside too long",
            changed(&ipip, 22, &length(51)),
            Drop(Reason::Length),
        ),
        (
            "no IP inside",
            changed(&ipip, 20, &[0x15]),
            Drop(Reason::NotIpInside),
        ),
        (
            "another family inside",
            changed(&ipip, 9, &[41]),
            Drop(Reason::NotIpInside),
        ),
        (
            "GUE with a header",
            changed(&gue, 28, &[0, 4]),
            Drop(Reason::NotIpInside),
        ),
    ];
    let mut homes = Homes::new(Others::Drop);
    for (name, frame, expected) in &named {
        let (verdict, bytes) = homes.run(frame);
        assert_eq!(verdict, *expected, "{name}");
        assert_eq!(bytes, *frame, "{name}");
    }
    homes.compare_counters();
    // The first of them, where others are left to the stack.
    let (verdict, bytes) = Homes::new(Others::Pass).run(&named[0].1);
    assert_eq!((verdict, bytes), (Pass(Reason::Sender), named[0].1.clone()));
}

/// A frame as it could come from the wire, or nearly.
fn frame(random: &mut StdRng) -> Vec<u8> {
    let (outer_v6, inner_v6) = (random.random(), random.random());
    let mut outer = tunnel(outer_v6);
    if random.random_ratio(1, 8) {
        outer.source = if outer_v6 {
            random.random::<[u8; 16]>().into()
        } else {
            [10, 0, random.random_range(8..11), random.random()].into()
        };
    }
    outer.class = random.random();
    outer.port = *[None, Some(PORT), Some(PORT), Some(53)]
        .choose(random)
        .unwrap();
    let tags = [0x8100, 0x88a8, random.random()];
    outer.tags = (0..random.random_range(0..9usize).saturating_sub(5))
        .map(|_| *tags.choose(random).unwrap())
        .collect();
    let mut packet = inner(inner_v6, random.random());
    match random.random_range(0..8) {
        0 => packet.truncate(random.random_range(1..packet.len())),
        1 => packet.push(random.random()),
        _ => {}
    }
    let mut bytes = outer.frame(&packet);
    match random.random_range(0..6) {
        0 => {
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(12..bytes.len());
                bytes[at] = random.random();
            }
            if !outer_v6 && random.random() && bytes[outer.network()] == 0x45 {
                ipv4_checksum(&mut bytes, outer.network());
            }
        }
        // `BPF_PROG_TEST_RUN` takes no less.
        1 => bytes.truncate(random.random_range(14..bytes.len())),
        2 => bytes.extend([0; 9]),
        3 if !outer_v6 => bytes[outer.network()] += random.random_range(0..3),
        _ => {}
    }
    bytes
}

#[test]
fn the_kernel_does_to_every_packet_what_the_host_does() {
    stay_on(0);
    let seed = 20_261_125;
    let mut random = StdRng::seed_from_u64(seed);
    let mut homes = Homes::new(Others::Drop);
    let mut seen: BTreeMap<Verdict, u32> = BTreeMap::new();
    for _ in 0..PACKETS {
        let (verdict, _) = homes.run(&frame(&mut random));
        *seen.entry(verdict).or_default() += 1;
    }
    homes.compare_counters();
    println!("{PACKETS} packets, seed {seed}: {seen:?}");
    // All but what the rules here rule out.
    for reason in Reason::ALL.iter().filter(|&&r| r != Reason::NoSettings) {
        let found = seen
            .keys()
            .any(|verdict| verdict.counter() == *reason as usize);
        assert!(found, "no packet met {reason:?}");
    }
    assert!(seen[&Verdict::Unwrapped] > PACKETS / 10);
}
