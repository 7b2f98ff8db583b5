use super::*;
use crate::audit::testing::status;

fn point(new_flows: u32, latency: u32, up: u32) -> Point {
    Point {
        new_flows,
        share: 500_000,
        weight: 1000,
        latency,
        up,
        response: 42_000,
        ..Point::NOTHING
    }
}

fn sample(verdict: u8, backends: &[(&str, Point)]) -> Sample {
    Sample {
        verdict,
        backends: backends
            .iter()
            .map(|(name, point)| ((*name).to_owned(), *point))
            .collect(),
    }
}

#[test]
fn points_come_back_from_disk_and_backends_may_come_and_go() {
    let mut chunk = Chunk::default();
    let first = sample(0, &[("a", point(5, 1200, 1))]);
    let second = sample(2, &[("a", point(6, ABSENT, 0)), ("b", point(1, 3, 1))]);
    let third = sample(1, &[("b", point(2, 4, 1))]);
    for (place, of) in [(0, &first), (1, &second), (59, &third)] {
        chunk.add(place, of);
    }
    let read = Chunk::unpack(&chunk.pack().unwrap()).unwrap();
    assert_eq!(read, chunk);
    let samples: Vec<_> = read.samples().collect();
    let nothing = Point::NOTHING;
    let with = |of: &Sample, name: &str| {
        let mut of = of.clone();
        of.backends.insert(name.to_owned(), nothing);
        of
    };
    assert_eq!(
        samples,
        [(0, with(&first, "b")), (1, second), (59, with(&third, "a")),]
    );
    assert!(Chunk::unpack(b"no chunk").is_err());
}

#[test]
fn points_of_one_place_are_joined_by_the_worst() {
    let mut chunk = Chunk::default();
    chunk.add(3, &sample(2, &[("a", point(5, 100, 1))]));
    chunk.add(
        3,
        &sample(0, &[("a", point(7, 90, 0)), ("b", point(1, 1, 1))]),
    );
    let samples: Vec<_> = chunk.samples().collect();
    let joined = sample(2, &[("a", point(12, 100, 0)), ("b", point(1, 1, 1))]);
    assert_eq!(samples, [(3, joined)]);
    assert_eq!(point(ABSENT, 1, 1).and(point(4, 1, 1)).new_flows, 4);
    assert_eq!(
        point(ABSENT - 1, 1, 1).and(point(4, 1, 1)).new_flows,
        ABSENT - 1
    );
}

#[test]
fn what_another_controller_wrote_of_the_same_time_stays() {
    let mut before = Chunk::default();
    before.add(0, &sample(0, &[("a", point(1, 1, 1))]));
    before.add(5, &sample(0, &[("a", point(2, 1, 1))]));
    let mut own = Chunk::default();
    own.add(5, &sample(0, &[("a", point(3, 1, 1))]));
    own.add(6, &sample(0, &[("a", point(4, 1, 1))]));
    let flows: Vec<_> = own
        .after(&before)
        .samples()
        .map(|(place, sample)| (place, sample.backends["a"].new_flows))
        .collect();
    assert_eq!(flows, [(0, 1), (5, 3), (6, 4)]);
    // Written twice, it is the same.
    assert_eq!(own.after(&own.after(&before)), own.after(&before));
    own.add(4, &sample(0, &[("a", point(9, 1, 1))]));
    assert_eq!(own.samples().count(), 2, "a clock that was set back");
}

#[test]
fn a_sample_counts_what_came_since_the_one_before() {
    let mut counted = BTreeMap::new();
    let of = |n: u64| {
        let status = status(|status| {
            let backend = &mut status["services"][0]["backends"][0];
            backend["new_flows"] = n.into();
            backend["weight_in_force"] = 0.5.into();
            backend["last_probe"] = serde_json::json!({
                "at_ms": 1, "passed": true, "took_ms": 1.25, "detail": "",
            });
        });
        status.services.into_iter().next().unwrap()
    };
    let mut flows = |n: u64| Sample::of(&of(n), &mut counted).backends["10.0.0.11"];
    assert_eq!(flows(100).new_flows, ABSENT);
    let second = flows(130);
    assert_eq!(
        (
            second.new_flows,
            second.share,
            second.weight,
            second.latency,
            second.up
        ),
        (30, 330_000, 500, 1250, 1)
    );
    // Counters that began anew say nothing.
    assert_eq!(flows(10).new_flows, ABSENT);
    assert_eq!(flows(11).new_flows, 1);
}
