use super::*;
use crate::history::chunk::Point;

fn sample(new_flows: u32) -> Sample {
    let point = Point {
        new_flows,
        share: 1_000_000,
        weight: 1000,
        latency: 700,
        up: 1,
        ..Point::NOTHING
    };
    Sample {
        verdict: 0,
        backends: [("a".to_owned(), point)].into(),
    }
}

fn chunk(points: &[(u8, u32)]) -> Chunk {
    let mut chunk = Chunk::default();
    for (place, flows) in points {
        chunk.add(*place, &sample(*flows));
    }
    chunk
}

fn placed<'a>(span: Span, service: &'a str, start_s: u64, chunk: &'a Chunk) -> Placed<'a> {
    Placed {
        span,
        service,
        start_s,
        chunk,
        shared: false,
    }
}

fn flows(reader: &Reader, span: Span, service: &str, range: (u64, u64)) -> Vec<(u64, u32)> {
    let points = reader.points(span, service, range).unwrap();
    let of = |(at, sample): &(u64, Sample)| (*at, sample.backends["a"].new_flows);
    points.iter().map(of).collect()
}

#[test]
fn points_are_found_by_their_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    let (first, second) = (chunk(&[(0, 1), (59, 2)]), chunk(&[(0, 3), (7, 4)]));
    let [fine, middle, _] = SPANS;
    store
        .write(&[
            placed(fine, "web", 0, &first),
            placed(fine, "web", 60, &second),
            placed(middle, "web", 0, &second),
            placed(fine, "dns", 60, &first),
        ])
        .unwrap();
    let reader = Reader::open(folder.path()).unwrap();
    let web = |span, range| flows(&reader, span, "web", range);
    assert_eq!(web(fine, (0, 1000)), [(0, 1), (59, 2), (60, 3), (67, 4)]);
    assert_eq!(web(fine, (1, 67)), [(59, 2), (60, 3)]);
    assert_eq!(web(middle, (0, 1000)), [(0, 3), (70, 4)]);
    assert_eq!(web(middle, (70, 71)), [(70, 4)]);
    assert_eq!(reader.services().unwrap(), ["dns", "web"]);
    assert_eq!(flows(&reader, fine, "nobody", (0, 1000)), []);
    // One that grew takes its own place; one of two controllers' keeps what was there.
    let grown = chunk(&[(0, 3), (7, 4), (8, 5)]);
    store.write(&[placed(fine, "web", 60, &grown)]).unwrap();
    assert_eq!(web(fine, (60, 1000)), [(60, 3), (67, 4), (68, 5)]);
    let later = chunk(&[(30, 6)]);
    let shared = Placed {
        shared: true,
        ..placed(fine, "web", 60, &later)
    };
    store.write(&[shared]).unwrap();
    assert_eq!(web(fine, (60, 1000)), [(60, 3), (67, 4), (68, 5), (90, 6)]);
}

#[test]
fn what_is_old_goes_and_what_is_too_much() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    let [fine, middle, coarse] = SPANS;
    let one = chunk(&[(0, 1)]);
    let now_s = 40 * 24 * 3600;
    let day = 24 * 3600;
    store
        .write(&[
            placed(fine, "web", now_s - 3700, &one),
            placed(fine, "web", now_s - 3600, &one),
            placed(middle, "web", now_s - day - 700, &one),
            placed(middle, "web", now_s - day, &one),
            placed(coarse, "web", now_s - 31 * day, &one),
            placed(coarse, "web", now_s - 30 * day, &one),
        ])
        .unwrap();
    store.prune(now_s, u64::MAX).unwrap();
    let reader = Reader::open(folder.path()).unwrap();
    let kept = |span| flows(&reader, span, "web", (0, now_s)).len();
    assert_eq!((kept(fine), kept(middle), kept(coarse)), (1, 1, 1));

    // A month of a service with names that take room, and then half of that.
    let long = "x".repeat(2000);
    let many: Vec<(u64, Chunk)> = (0..200).map(|n| (now_s - 3600 * n, one.clone())).collect();
    let chunks: Vec<_> = many
        .iter()
        .map(|(start, chunk)| placed(coarse, &long, *start, chunk))
        .collect();
    store.write(&chunks).unwrap();
    store.prune(now_s, 400_000).unwrap();
    let left = flows(&reader, coarse, &long, (0, now_s + 1));
    assert!((20..150).contains(&left.len()), "{}", left.len());
    // The latest stay, and so does what is finer.
    assert_eq!(left.last().unwrap().0, now_s);
    assert_eq!((kept(fine), kept(middle)), (1, 1));
}

#[test]
fn who_has_none_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let error = Reader::open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Missing(_)), "{error}");
    let store = Store::open(folder.path()).unwrap();
    store
        .connection
        .execute_batch("PRAGMA user_version = 7")
        .unwrap();
    drop(store);
    for error in [
        Reader::open(folder.path()).unwrap_err(),
        Store::open(folder.path()).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Newer { found: 7, .. }), "{error}");
    }
}
