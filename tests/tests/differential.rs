//! The decision in the kernel and on the host: the same for every packet, whatever it is and
//! whatever tables it meets.
//!
//! `EVENKEEL_FUZZ_PACKETS` says how many packets there are, `EVENKEEL_FUZZ_SEED` where chance
//! begins; a failure prints both seed and table, which repeat it.

#![expect(clippy::print_stdout, reason = "figures for the reader of a run")]

mod frames;
mod fuzz;
mod homes;

use std::{collections::BTreeMap, env, time::Instant};

use fuzz::{corpus::Corpus, packets::Packets, tables::Drawn};
use homes::{Homes, network};
use lb_common::{
    layout::Scratch,
    verdict::{Reason, Verdict},
};
use rand::{SeedableRng as _, rngs::StdRng};

/// How many packets an ordinary run takes.
const PACKETS: u64 = 300_000;
/// How many of them meet the same tables: fewer than half of what the table of first packets holds,
/// from which the kernel would otherwise push out what the host keeps.
const BATCH: u64 = 20_000;

fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name).map_or(otherwise, |text| {
        text.parse()
            .unwrap_or_else(|error| panic!("{name}={text}: {error}"))
    })
}

#[test]
fn kernel_and_host_agree_on_every_packet() {
    let packets = number("EVENKEEL_FUZZ_PACKETS", PACKETS);
    let seed = number("EVENKEEL_FUZZ_SEED", 0x5eed);
    network::within(|| run(packets, seed));
}

#[expect(
    clippy::disallowed_methods,
    reason = "packets a second are for the reader of a run"
)]
fn run(packets: u64, seed: u64) {
    let begun = Instant::now();
    let corpus = Corpus::read();
    let mut homes: Option<Homes> = None;
    let mut seen = BTreeMap::<&str, u64>::new();
    let mut left = packets;
    for table in 0.. {
        if left == 0 {
            break;
        }
        println!("table {table} of seed {seed:#x}");
        let mut random = StdRng::seed_from_u64(seed ^ (table << 32));
        let drawn = Drawn::new(&mut random);
        let homes = homes.get_or_insert_with(|| Homes::with(&drawn.builder.image, 1));
        homes.change(&drawn.builder.image, drawn.builder.endpoints + 1);
        for &(source, allowed) in &drawn.sources {
            homes.put_source(source, allowed);
        }
        let mut source = Packets::new(&drawn, &corpus);
        for nth in 0..BATCH.min(left) {
            if nth % 64 == 0 {
                // As many ICMP errors as may be sent at once: the host counts none.
                let now = homes::now();
                let told = Scratch {
                    filled: now,
                    tell: u32::MAX >> 1,
                    ..homes.memory.scratch()
                };
                homes.memory.put_scratch(&told);
            }
            let frame = source.next(&mut random);
            let (verdict, bytes) = homes.run(&frame);
            drawn.check(&frame, verdict, &bytes);
            source.note(verdict, &frame, &bytes);
            let name = match verdict {
                Verdict::Transmit => "sent back",
                Verdict::Redirect(_) => "redirected",
                Verdict::Pass(reason) | Verdict::Drop(reason) => reason.name(),
            };
            *seen.entry(name).or_default() += 1;
        }
        left -= BATCH.min(left);
        homes.counts();
        homes.compare_memory();
        homes.forget();
        homes.forget_sources();
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{packets} packets from seed {seed:#x}, no difference, {:.0} a second: {seen:#?}",
        packets as f64 / seconds
    );
    if packets >= PACKETS {
        for name in ["sent back", "redirected"]
            .into_iter()
            .chain(met().map(Reason::name))
        {
            assert!(seen.contains_key(name), "no packet met {name}");
        }
    }
}

/// The reasons that packets of a run of some length must have met.
fn met() -> impl Iterator<Item = Reason> {
    use Reason::{
        Denied, FragmentUnknown, IcmpUnrelated, Limited, Malformed, NoBackendDropped,
        NoBackendPassed, NoEntry, NoRoute, NoService, NotIp, NotTcpUdp, Truncated, TtlExpired,
        Unresolved,
    };
    [
        Truncated,
        NotIp,
        Malformed,
        NotTcpUdp,
        NoService,
        NoBackendDropped,
        NoBackendPassed,
        Unresolved,
        TtlExpired,
        Denied,
        Limited,
        FragmentUnknown,
        IcmpUnrelated,
        NoEntry,
        NoRoute,
    ]
    .into_iter()
}
