//! A backend dies under traffic, comes back, and all of them go.

#![expect(clippy::print_stdout, reason = "figures for the reader of a run")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{path::Path, time::Duration};

use aya::maps::{Array, ArrayOfMaps, Map, MapData};
use evenkeel_tests::{
    clock,
    daemon::Daemon,
    server::Web,
    topology::{Spec, Topology, VIP4},
    traffic::{Kind, Load, Traffic},
    wait,
};
use lb_common::layout::{NONE, SMALL_RING_SLOTS};
use lb_userspace::dataplane::pin;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

fn slots(status: &Value) -> Vec<u64> {
    let backends = status["services"][0]["backends"].as_array().unwrap();
    backends
        .iter()
        .map(|b| b["slots"].as_u64().unwrap())
        .collect()
}

/// The owners in the small ring that packets follow, as the kernel has it: the one of the service's
/// two in use.
fn live_owners(pins: &Path) -> Vec<u16> {
    let map = Map::from_map_data(MapData::from_pin(pin(pins, "SMALL_RINGS")).unwrap()).unwrap();
    let rings: ArrayOfMaps<MapData, Array<MapData, [u32; SMALL_RING_SLOTS]>> =
        map.try_into().unwrap();
    (0..2)
        .filter_map(|number| rings.get(&number, 0).ok())
        .map(|ring| ring.get(&0, 0).unwrap().map(|slot| slot as u16).to_vec())
        .find(|owners| owners[0] != NONE)
        .unwrap()
}

#[test]
fn a_killed_backend_hurts_only_its_own_and_comes_back_to_its_slots() {
    let bed = Topology::build(&Spec::default()).unwrap();
    let mut servers = Web::start_all(&bed).unwrap();
    let config = bed.config_head() + &bed.web_service("web", VIP4);
    let daemon = Daemon::start(&bed, &config).unwrap();
    let before = live_owners(&bed.pins());
    let even = slots(&daemon.status().unwrap());
    let load = Load {
        rate: 100,
        kept: 12,
        records: true,
        ..Load::new(VIP4, Duration::from_secs(8))
    };
    let traffic = Traffic::start(&bed, load).unwrap();
    std::thread::sleep(Duration::from_secs(3));

    let dead = servers[1].name().to_owned();
    let killed_at = clock::now_ms() as f64;
    servers[1].kill();
    let status = wait::until("the dead backend to leave the ring", PATIENCE, || {
        let status = daemon.status()?;
        anyhow::ensure!(slots(&status)[1] == 0, "it owns {:?}", slots(&status));
        Ok(status)
    })
    .unwrap();
    let removed_at = status["published_at_ms"].as_f64().unwrap();
    let took = removed_at - killed_at;
    println!("removed {took:.0} ms after it was killed");
    // interval × fall + time-out, as the bed configures them.
    assert!(took <= 2.0 * 200.0 + 150.0, "removed after {took} ms");
    let after = slots(&status);
    let (one, other) = (after[0], after[2]);
    assert_eq!(one + other, even.iter().sum::<u64>());
    assert!(one.abs_diff(other) <= 1, "{after:?} after {even:?}");

    let outcome = traffic.wait().unwrap();
    let mut failures = 0;
    for record in outcome.failures() {
        failures += 1;
        match (record.kind, &record.backend) {
            // A request is started at `at_ms`; one on its way while the server died may fail. So may
            // a connection that is opened again.
            (Kind::New, _) | (Kind::Kept, None) => assert!(
                (killed_at - 1_000.0..=removed_at + 50.0).contains(&record.at_ms),
                "{record:?} failed, outside {killed_at}..{removed_at}"
            ),
            (Kind::Kept, Some(backend)) => assert_eq!(*backend, dead, "{record:?}"),
        }
    }
    assert!(
        failures > 0,
        "nothing failed: was the server killed at all?"
    );
    let report = &outcome.report;
    assert!(report.new.failed < 60, "{report:?}");

    servers[1].start_again().unwrap();
    wait::until("the backend to come back", PATIENCE, || {
        let now = slots(&daemon.status()?);
        anyhow::ensure!(now == even, "the slots are {now:?}");
        Ok(())
    })
    .unwrap();
    assert!(
        live_owners(&bed.pins()) == before,
        "the owners are not those before the failure"
    );
    drop(daemon);
}

#[test]
fn with_every_backend_down_packets_meet_their_configured_fate() {
    for (fate, reason) in [
        ("drop", "no-backend-dropped"),
        ("pass", "no-backend-passed"),
    ] {
        let bed = Topology::build(&Spec::default()).unwrap();
        let mut servers = Web::start_all(&bed).unwrap();
        let service = bed.web_service("web", VIP4).replace(
            "port = 80\n",
            &format!("port = 80\non_empty = \"{fate}\"\n"),
        );
        let daemon = Daemon::start(&bed, &(bed.config_head() + &service)).unwrap();
        for server in &mut servers {
            server.kill();
        }
        wait::until("the ring to be given up", PATIENCE, || {
            let status = daemon.status()?;
            anyhow::ensure!(
                status["services"][0]["serving"] == 0,
                "{}",
                status["services"][0]
            );
            Ok(())
        })
        .unwrap();
        let url = format!("http://{VIP4}/");
        assert!(
            bed.client.run("curl", &["-sS", "-m", "1", &url]).is_err(),
            "{fate}: answered"
        );
        let status = wait::until("the exits to be counted", PATIENCE, || {
            let status = daemon.status()?;
            let counted = status["services"][0]["exits"][reason].as_u64().unwrap_or(0);
            anyhow::ensure!(counted > 0, "{fate}: {}", status["services"][0]["exits"]);
            Ok(status)
        })
        .unwrap();
        assert_eq!(status["services"][0]["on_empty"], fate);
        // One of them back is enough to serve.
        servers[2].start_again().unwrap();
        wait::until("a backend to serve again", PATIENCE, || {
            bed.client
                .run("curl", &["-sS", "-m", "1", &url])
                .map(|body| {
                    assert_eq!(body.trim(), servers[2].name());
                })
        })
        .unwrap();
    }
}
