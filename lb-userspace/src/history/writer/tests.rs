use std::{fs, time::Instant};

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use super::*;
use crate::{audit::testing::status, history::Reader};

/// A status at a second at which the first backend has got so many connections.
fn at(now_s: u64, flows: u64) -> Status {
    status(|status| {
        status["now_ms"] = (now_s * 1000).into();
        status["interfaces"] = serde_json::json!([
            { "name": "eth0", "index": 1, "xdp_mode": "native" },
        ]);
        status["services"][0]["backends"][0]["new_flows"] = flows.into();
    })
}

fn state(folder: &std::path::Path) -> State {
    State {
        directory: folder.join("state"),
        ..State::default()
    }
}

/// The connections of the first backend, by second.
fn read(state: &State, span: Span) -> Vec<(u64, u32)> {
    let Ok(reader) = Reader::open(&state.directory) else {
        return Vec::new();
    };
    let points = reader.points(span, "web", (0, u64::MAX >> 1)).unwrap();
    let of = |(at, sample): &(u64, Sample)| (*at, sample.backends["10.0.0.11"].new_flows);
    points.iter().map(of).collect()
}

#[expect(clippy::disallowed_methods, reason = "a bound on waiting")]
fn until(is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(30), "it never was");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn each_span_is_collected_and_written_when_it_is_due() {
    let mut collected = Collected::default();
    let mut written: Vec<(u64, u64, usize)> = Vec::new();
    for n in 0..=70 {
        let now_s = 6000 + n;
        collected.add(&at(now_s, 10 * n), now_s);
        if collected.is_due(now_s) {
            let note = |chunks: &[Placed<'_>]| {
                written.extend(chunks.iter().map(|placed| {
                    let points = placed.chunk.samples().count();
                    (placed.span.step_s, placed.start_s, points)
                }));
                Ok::<(), ()>(())
            };
            collected.write(now_s, false, note).unwrap();
        }
    }
    let fine: Vec<_> = written.iter().filter(|(step, _, _)| *step == 1).collect();
    // At once, then each ten seconds; as a whole when the next begins.
    assert_eq!(fine[..3], [&(1, 6000, 1), &(1, 6000, 11), &(1, 6000, 21)]);
    assert!(fine.contains(&&(1, 6000, 60)), "{fine:?}");
    assert_eq!(fine.last(), Some(&&(1, 6060, 11)));
    let middle: Vec<_> = written.iter().filter(|(step, _, _)| *step == 10).collect();
    assert_eq!(
        middle,
        [&(10, 6000, 1), &(10, 6000, 4), &(10, 6000, 7)],
        "each half minute"
    );
    // Ten seconds add up.
    let sample = collected.open[1]["web"].chunk.samples().nth(1).unwrap();
    assert_eq!(sample.1.backends["10.0.0.11"].new_flows, 100);
    // A service that is gone is written as it is, and forgotten.
    let gone = status(|status| status["services"] = serde_json::json!([]));
    collected.add(&gone, 6071);
    assert_eq!(collected.whole.len(), 3);
    assert!(collected.open.iter().all(BTreeMap::is_empty));
}

#[test]
fn what_was_seen_is_read_back_also_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let state = state(folder.path());
    let (sender, receiver) = watch::channel(Arc::new(at(600, 5)));
    let history = History::start(&state, receiver.clone()).unwrap();
    until(|| read(&state, SPANS[0]).len() == 1);
    // What is written again and again stays what it is.
    sender.send_replace(Arc::new(at(611, 9)));
    until(|| read(&state, SPANS[0]).len() == 2);
    sender.send_replace(Arc::new(at(621, 12)));
    until(|| read(&state, SPANS[0]).len() == 3);
    drop(history);
    let absent = u32::MAX;
    let first = [(600, absent), (611, 4), (621, 3)];
    assert_eq!(read(&state, SPANS[0]), first);
    // The next one goes on in the same minute.
    sender.send_replace(Arc::new(at(623, 20)));
    drop(History::start(&state, receiver).unwrap());
    let all = [first.as_slice(), &[(623, absent)]].concat();
    assert_eq!(read(&state, SPANS[0]), all);
}

#[test]
fn a_disk_that_takes_nothing_is_told_and_nothing_gathers() {
    let folder = tempfile::tempdir().unwrap();
    let state = state(folder.path());
    // A file stands in its place.
    fs::write(&state.directory, "").unwrap();
    let (sender, receiver) = watch::channel(Arc::new(at(600, 5)));
    let history = History::start(&state, receiver).unwrap();
    until(|| history.handle().failure().is_some());
    fs::remove_file(&state.directory).unwrap();
    sender.send_replace(Arc::new(at(620, 9)));
    until(|| history.handle().failure().is_none());
    drop(history);
    assert_eq!(read(&state, SPANS[0]).len(), 2);
    // One that is no database any more begins anew.
    fs::write(path(&state.directory), "garbage ".repeat(1000)).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(state.directory.join(format!("history.db{suffix}")));
    }
    let history = History::start(&state, sender.subscribe()).unwrap();
    until(|| history.handle().failure().is_some());
    sender.send_replace(Arc::new(at(640, 11)));
    until(|| history.handle().failure().is_none());
    drop(history);
    assert!(!read(&state, SPANS[0]).is_empty());
}

/// How large history becomes: `cargo test -p lb-userspace --lib history::writer::tests::size \
/// -- --ignored --nocapture`.
#[test]
#[ignore = "prints a figure"]
#[expect(clippy::print_stdout, reason = "a measurement")]
fn size() {
    let mut random = SmallRng::seed_from_u64(1);
    let mut chunk = Chunk::default();
    for place in 0..60 {
        let mut point = || super::super::chunk::Point {
            new_flows: random.random_range(80..120),
            share: 125_000,
            weight: 1000,
            latency: random.random_range(300..900),
            up: 1,
            // By their first two digits.
            handshake: 10 * random.random_range(30..90),
            response: 10 * random.random_range(30..90),
            response_p99: 100 * random.random_range(30..90),
        };
        let backends = (0..8).map(|n| (format!("10.0.0.{n}"), point())).collect();
        chunk.add(
            place,
            &Sample {
                verdict: 0,
                backends,
            },
        );
    }
    let bytes = chunk.pack().unwrap().len() as u64;
    let chunks: u64 = SPANS
        .iter()
        .map(|span| span.kept_s / span.step_s / POINTS + 1)
        .sum();
    println!(
        "an hour, a day and a month of a service with 8 backends: {chunks} chunks of {bytes} bytes, \
         {:.2} MiB; of 1,000 such services {:.0} MiB",
        (chunks * bytes) as f64 / f64::from(1 << 20),
        (1000 * chunks * bytes) as f64 / f64::from(1 << 20)
    );
}
