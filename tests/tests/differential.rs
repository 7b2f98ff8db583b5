//! The decision in the kernel and on the host: the same for every packet.

#![expect(clippy::print_stdout, reason = "figures for the reader of a run")]

mod homes;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use homes::{Homes, Stage, stay_on};
use lb_common::{
    testing::{Plan, Transport},
    verdict::{Reason, Verdict},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

const PACKETS: u32 = 300_000;
/// The shortest frame that the kernel takes.
const SHORTEST: usize = 14;

/// A frame as it could come from the wire, or nearly.
fn frame(random: &mut StdRng, vips: &[std::net::IpAddr]) -> Vec<u8> {
    let vip = *vips.choose(random).expect("there are VIPs");
    let client: std::net::IpAddr = if vip.is_ipv4() {
        random.random::<[u8; 4]>().into()
    } else {
        random.random::<[u8; 16]>().into()
    };
    let port = *[80, 80, 53, 0, random.random()]
        .choose(random)
        .expect("not empty");
    let transport = match random.random_range(0..8) {
        0..5 => Transport::Tcp {
            flags: *[0x02, 0x02, 0x10, 0x12, random.random()]
                .choose(random)
                .expect("not empty"),
            sequence: random.random(),
        },
        5..7 => Transport::Udp,
        _ => Transport::Other(random.random()),
    };
    let tags = [0x8100, 0x88a8, random.random()];
    let plan = Plan {
        source: SocketAddr::new(client, random.random()),
        destination: SocketAddr::new(vip, port),
        transport,
        tags: (0..random.random_range(0..9usize).saturating_sub(5))
            .map(|_| *tags.choose(random).expect("not empty"))
            .collect(),
        payload: random.random_range(0..64),
    };
    let (network, transport) = (plan.network(), plan.transport());
    let mut bytes = plan.bytes();
    match random.random_range(0..8) {
        // Bytes anywhere in the headers.
        0 => {
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len().min(transport + 20));
                bytes[at] = random.random();
            }
        }
        // The bytes that decide: version, fragment offset, next header, data offset.
        1 => {
            let at = [network, network + 6, network + 7, transport + 12];
            let at = *at.choose(random).expect("not empty");
            if let Some(byte) = bytes.get_mut(at) {
                *byte = *[0, 0x20, 0x40, 0x46, 43, 44, 51, 60, random.random()]
                    .choose(random)
                    .expect("not empty");
            }
        }
        2 => bytes.truncate(random.random_range(SHORTEST..=bytes.len())),
        _ => {}
    }
    bytes
}

#[test]
fn kernel_and_host_agree_on_every_packet() {
    stay_on(0);
    let seed = 0x5eed;
    let mut random = StdRng::seed_from_u64(seed);
    let stage = Stage::new();
    let mut homes = Homes::with(&stage.image, stage.endpoints);
    let vips: BTreeSet<_> = stage
        .services
        .iter()
        .map(|service| service.key.vip)
        .collect();
    let mut vips: Vec<_> = vips.into_iter().collect();
    // The one with the most services comes as often as all others; one address is no VIP.
    vips.extend(vec![stage.services[0].key.vip; vips.len()]);
    vips.push([198, 51, 100, 99].into());
    let mut seen = BTreeMap::<String, u32>::new();
    let mut last = Vec::new();
    for _ in 0..PACKETS {
        let bytes = match random.random_range(0..32) {
            // Noise, which few parsers get past.
            0 => {
                let length = random.random_range(SHORTEST..128);
                (0..length).map(|_| random.random()).collect()
            }
            // The one before again, as a retransmission.
            1 if !last.is_empty() => last,
            _ => frame(&mut random, &vips),
        };
        let (verdict, _) = homes.run(&bytes);
        let name = match verdict {
            Verdict::Transmit => "forwarded",
            Verdict::Redirect(_) => "redirected",
            Verdict::Pass(reason) | Verdict::Drop(reason) => reason.name(),
        };
        *seen.entry(name.to_owned()).or_default() += 1;
        last = bytes;
    }
    let counts = homes.counts();
    println!("{PACKETS} packets from seed {seed:#x}, no difference: {seen:#?}");
    // Tables are published throughout.
    for reason in Reason::ALL
        .into_iter()
        .filter(|&reason| reason != Reason::NoTables)
    {
        assert!(
            seen.contains_key(reason.name()),
            "no packet met {}",
            reason.name()
        );
    }
    let flows: u64 = counts
        .endpoints
        .values()
        .map(|counters| counters.new_flows)
        .sum();
    let forwarded: u64 = counts
        .endpoints
        .values()
        .map(|counters| counters.packets)
        .sum();
    assert_eq!(forwarded, u64::from(seen["forwarded"]));
    assert!(flows > 1000, "only {flows} SYNs were forwarded");
}
