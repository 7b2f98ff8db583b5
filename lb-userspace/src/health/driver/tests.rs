use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    num::{NonZeroU16, NonZeroU32},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    time::{self, sleep, timeout},
};

use super::{tasks::Unread, *};
use crate::{
    health::{
        probe::{Evidence, Phase, ProbeFailure},
        state::{Machine, State},
    },
    model::{
        BodyMatch, HealthCheck, HttpProbe, Mode, OnEmpty, Options, Protocol, RingSize, ServiceKey,
        ServicePort, Weight,
    },
};

const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_millis(600);
/// For what happens soon on an idle machine, and must happen on a busy one.
const PATIENCE: Duration = Duration::from_secs(30);

fn check(kind: ProbeKind, port: u16) -> HealthCheck {
    HealthCheck {
        interval: INTERVAL,
        timeout: TIMEOUT,
        ..HealthCheck::new(kind, NonZeroU16::new(port).unwrap())
    }
}

fn service(name: &str, health: Option<HealthCheck>, addresses: &[Ipv4Addr]) -> Service {
    let backend = |(index, &address): (usize, &Ipv4Addr)| Backend {
        name: format!("b{index}").into(),
        address: address.into(),
        weight: Weight::DEFAULT,
        capacity: None,
        port: None,
        server_id: None,
    };
    Service {
        name: name.into(),
        key: ServiceKey {
            vip: Ipv4Addr::new(198, 51, 100, 1).into(),
            port: ServicePort::Any,
            protocol: Protocol::Tcp,
        },
        mode: Mode::Dsr,
        ring_slots: RingSize::Auto,
        options: Options::default(),
        on_empty: OnEmpty::Drop,
        health,
        backends: addresses.iter().enumerate().map(backend).collect(),
    }
}

/// A service with this many backends that only stand-ins for the probe ever see.
fn imagined(backends: usize) -> Service {
    let addresses = vec![Ipv4Addr::new(192, 0, 2, 1); backends];
    service("imagined", Some(check(ProbeKind::Tcp, 1)), &addresses)
}

fn passed() -> Outcome {
    Outcome {
        took: Duration::ZERO,
        result: Ok(Evidence::Connected),
        instead: None,
    }
}

fn no_answer() -> Outcome {
    let failure = ProbeFailure::NoAnswer {
        limit: TIMEOUT,
        phase: Phase::Connecting,
    };
    Outcome {
        took: TIMEOUT,
        result: Err(failure),
        instead: None,
    }
}

// The tests with a paused clock stand in for the probe: real sockets and a clock that jumps
// whenever no task is ready do not go together.

#[tokio::test(start_paused = true)]
async fn reports_come_at_the_interval() {
    let (reports, mut received) = mpsc::channel(16);
    let start = now();
    let driver = Driver::spawn_with(&[imagined(4)], &reports, |_| async { passed() });
    assert_eq!(driver.backends(), 4);
    let mut times: BTreeMap<Arc<str>, Vec<Instant>> = BTreeMap::new();
    while now() - start < INTERVAL * 100 {
        let report = received.recv().await.unwrap();
        assert_eq!(&*report.service, "imagined");
        times.entry(report.backend).or_default().push(report.at);
    }
    assert_eq!(times.len(), 4);
    // A timer of tokio fires up to a millisecond late.
    let tick = Duration::from_millis(2);
    for (index, times) in times.values().enumerate() {
        assert!((99..=101).contains(&times.len()), "{} reports", times.len());
        let phase = INTERVAL * index as u32 / 4;
        assert!(times[0] >= start + phase && times[0] <= start + phase + tick);
        for pair in times.windows(2) {
            let gap = pair[1] - pair[0];
            assert!(
                gap + tick >= INTERVAL * 9 / 10 && gap <= INTERVAL * 11 / 10 + tick,
                "{gap:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_death_is_known_within_fall_intervals_and_a_time_out() {
    let took = deaths(imagined(1)).await;
    // Jitter may stretch the distance of two rounds by a tenth of an interval.
    let bound = INTERVAL * 3 + TIMEOUT + INTERVAL / 10 + Duration::from_millis(5);
    assert!(
        took.iter()
            .all(|&took| took > INTERVAL * 2 && took <= bound),
        "down after {took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_state_on_its_way_is_asked_for_at_the_fast_interval() {
    let mut service = imagined(1);
    let check = service.health.as_mut().unwrap();
    check.interval = INTERVAL * 10;
    check.fast_interval = Some(INTERVAL);
    let detection = check.detection();
    assert_eq!(detection, INTERVAL * 12 + TIMEOUT);
    let took = deaths(service).await;
    let bound = detection + INTERVAL * 11 / 10 + Duration::from_millis(5);
    assert!(
        took.iter()
            .all(|&took| took > INTERVAL * 2 && took <= bound),
        "down after {took:?}"
    );
}

/// How long it takes until a backend is down, by the moment of its death: fifty of them over an
/// interval.
async fn deaths(service: Service) -> Vec<Duration> {
    let check = service.health.clone().unwrap();
    let mut took = Vec::new();
    for moment in 0..50 {
        let dead = Arc::new(AtomicBool::new(false));
        let backend = dead.clone();
        let (reports, mut received) = mpsc::channel(16);
        let mut machine = Machine::new(&check, State::Unknown);
        let _driver = Driver::spawn_with(
            std::slice::from_ref(&service),
            &reports,
            move |subject: Arc<Subject>| {
                let dead = backend.load(Ordering::Relaxed);
                async move {
                    if dead {
                        sleep(subject.check.timeout).await;
                        no_answer()
                    } else {
                        passed()
                    }
                }
            },
        );
        let (interval, rise) = (check.interval, check.rise.get());
        let undertaker = tokio::spawn(async move {
            sleep(interval * (rise + 3) + interval * moment / 50).await;
            dead.store(true, Ordering::Relaxed);
            now()
        });
        let down = loop {
            let report = received.recv().await.unwrap();
            let verdict = report.outcome.verdict().unwrap();
            match machine.observe(report.at, verdict) {
                Some(transition) if transition.to == State::Down => break transition,
                _ => {}
            }
        };
        took.push(down.at - undertaker.await.unwrap());
    }
    took
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_the_latest_outcome_and_probing_goes_on() {
    let probes = Arc::new(AtomicU32::new(0));
    let counted = probes.clone();
    let (reports, mut received) = mpsc::channel(1);
    let _driver = Driver::spawn_with(&[imagined(1)], &reports, move |_| {
        let probe = counted.fetch_add(1, Ordering::Relaxed);
        async move { if probe < 10 { passed() } else { no_answer() } }
    });
    sleep(INTERVAL * 20 + INTERVAL / 2).await;
    assert_eq!(
        probes.load(Ordering::Relaxed),
        21,
        "a full channel must not stall probes"
    );
    assert_eq!(
        received.recv().await.unwrap().outcome,
        passed(),
        "what filled the channel"
    );
    let latest = received.recv().await.unwrap();
    assert_eq!(latest.outcome, no_answer());
    assert!(
        now() - latest.at <= INTERVAL,
        "it is the last report, not one between"
    );
}

#[tokio::test(start_paused = true)]
async fn two_thousand_backends_are_spread() {
    let running = Arc::new(Mutex::new((0_u32, 0_u32)));
    let shared = running.clone();
    let (reports, mut received) = mpsc::channel(16);
    let driver = Driver::spawn_with(&[imagined(2_000)], &reports, move |_| {
        let running = shared.clone();
        async move {
            {
                let mut running = running.lock().unwrap();
                running.0 += 1;
                running.1 = running.1.max(running.0);
            }
            sleep(Duration::from_millis(10)).await;
            running.lock().unwrap().0 -= 1;
            passed()
        }
    });
    assert_eq!(driver.backends(), 2_000);
    let start = now();
    let mut heard = 0;
    while now() - start < INTERVAL * 5 {
        received.recv().await.unwrap();
        heard += 1;
    }
    assert!((9_700..=10_000).contains(&heard), "{heard} reports");
    // 2,000 probes a second of 10 to 12 ms: 24 at once where they are spread evenly, and jitter
    // makes it somewhat uneven.
    let most = running.lock().unwrap().1;
    assert!(most < 60, "{most} probes at once");
}

#[tokio::test(start_paused = true)]
async fn after_a_suspension_there_is_no_burst() {
    let starts = Arc::new(Mutex::new(Vec::new()));
    let seen = starts.clone();
    let (reports, mut received) = mpsc::channel(1_024);
    let _driver = Driver::spawn_with(&[imagined(100)], &reports, move |_| {
        seen.lock().unwrap().push(now());
        async { passed() }
    });
    let _reader = tokio::spawn(async move { while received.recv().await.is_some() {} });
    sleep(INTERVAL * 3).await;
    // The clock jumps, and no task ran meanwhile.
    time::advance(INTERVAL * 60).await;
    let resumed = now();
    sleep(INTERVAL * 3).await;
    let starts = starts.lock().unwrap();
    let after: Vec<_> = starts.iter().filter(|start| **start >= resumed).collect();
    let at_once = after
        .iter()
        .filter(|start| ***start < resumed + Duration::from_millis(20))
        .count();
    assert!(
        (290..=310).contains(&after.len()),
        "{} probes in three intervals",
        after.len()
    );
    assert!(at_once < 15, "{at_once} probes at once");
}

#[tokio::test(start_paused = true)]
async fn probing_ends_with_the_driver_or_the_reader() {
    let alive = Arc::new(());
    let held = alive.clone();
    let probe = move |_| {
        let held = held.clone();
        async move {
            sleep(TIMEOUT).await;
            drop(held);
            passed()
        }
    };
    let (reports, received) = mpsc::channel(16);
    let driver = Driver::spawn_with(&[imagined(3)], &reports, probe.clone());
    sleep(INTERVAL).await;
    drop(driver);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(
        Arc::strong_count(&alive),
        2,
        "only `probe` and `alive` are left"
    );

    let mut driver = Driver::spawn_with(&[imagined(3)], &reports, probe);
    drop(received);
    for _ in 0..3 {
        let ended = timeout(INTERVAL * 3, driver.tasks.next_end())
            .await
            .unwrap();
        assert!(matches!(ended, Some(Ok(Err(Unread)))));
    }
    drop(driver);
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[tokio::test(start_paused = true)]
async fn probes_begin_and_end_while_the_others_go_on() {
    let (reports, mut received) = mpsc::channel(1_024);
    let mut services = [imagined(2)];
    let mut driver = Driver::spawn_with(&services, &reports, |_| async { passed() });
    let mut round = async |length: Duration| {
        let end = now() + length;
        let mut times: BTreeMap<Arc<str>, Vec<Instant>> = BTreeMap::new();
        while let Ok(Some(report)) = time::timeout_at(end.into(), received.recv()).await {
            times.entry(report.backend).or_default().push(report.at);
        }
        times
    };
    let before = round(INTERVAL * 3).await;
    assert_eq!(before.len(), 2);

    // The first goes on, the second goes, and a third comes.
    services[0].backends[1].name = "new".into();
    let changed = now();
    driver.follow(&services).unwrap();
    assert_eq!(driver.backends(), 2);
    let after = round(INTERVAL * 3).await;
    assert!(!after.contains_key("b1"), "{after:?}");
    assert_eq!(after["new"][0], changed, "the new one is probed at once");
    let gap = after["b0"][0] - *before["b0"].last().unwrap();
    assert!(gap <= INTERVAL * 11 / 10, "the first waited {gap:?}");
    assert!(gap > INTERVAL / 2, "the first was begun anew after {gap:?}");

    // Another check is a new beginning for all.
    services[0].health.as_mut().unwrap().fall = NonZeroU32::MIN;
    let changed = now();
    driver.follow(&services).unwrap();
    let after = round(INTERVAL).await;
    assert_eq!(after["b0"][0], changed);
    driver.follow(&[]).unwrap();
    assert_eq!(driver.backends(), 0);
    assert!(round(INTERVAL * 3).await.is_empty());
}

#[tokio::test]
async fn services_without_a_check_are_left_alone() {
    let (reports, mut received) = mpsc::channel(16);
    let driver = Driver::spawn(
        &[service("unchecked", None, &[Ipv4Addr::LOCALHOST])],
        reports,
        path::none(),
    )
    .unwrap();
    assert_eq!(driver.backends(), 0);
    drop(driver);
    assert!(received.recv().await.is_none(), "no task holds the channel");
}

/// A real HTTP server that counts its connections.
async fn web_server(listener: TcpListener, open: Arc<AtomicU32>, most: Arc<AtomicU32>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (open, most) = (open.clone(), most.clone());
        tokio::spawn(async move {
            most.fetch_max(open.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            let mut request = [0; 1_024];
            let _ = stream.read(&mut request).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
            // Until the probe hangs up.
            let _ = stream.read(&mut request).await;
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

#[tokio::test]
async fn real_servers_die_and_come_back() {
    let listener_a = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener_a.local_addr().unwrap().port();
    let address_b = Ipv4Addr::new(127, 0, 0, 2);
    let listener_b = TcpListener::bind((address_b, port)).await.unwrap();
    let (open, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let _a = tokio::spawn(web_server(listener_a, open.clone(), most.clone()));
    let b = tokio::spawn(web_server(listener_b, Arc::default(), Arc::default()));

    let probe = HttpProbe {
        status: vec![200..=299],
        body: Some(BodyMatch::Text("ok".to_owned())),
        ..HttpProbe::get("/")
    };
    let check = HealthCheck {
        interval: Duration::from_millis(50),
        timeout: Duration::from_millis(49),
        ..check(ProbeKind::Http(probe), port)
    };
    let services = [service(
        "web",
        Some(check),
        &[Ipv4Addr::LOCALHOST, address_b],
    )];
    let (reports, mut received) = mpsc::channel(16);
    let driver = Driver::spawn(&services, reports, path::none()).unwrap();

    // Waits for a report of a backend that looks like this.
    let mut wait = async |backend: &str, detail: &str| {
        let wanted = async {
            loop {
                let report = received.recv().await.unwrap();
                if &*report.backend == backend && report.outcome.to_string() == detail {
                    return report;
                }
            }
        };
        timeout(PATIENCE, wanted)
            .await
            .unwrap_or_else(|_| panic!("{backend} is not {detail}"))
    };
    wait("b0", "HTTP 200").await;
    let alive = wait("b1", "HTTP 200").await;
    b.abort();
    let dead = wait("b1", "connection refused").await;
    assert!(dead.at > alive.at);
    let listener_b = TcpListener::bind((address_b, port)).await.unwrap();
    let _b = tokio::spawn(web_server(listener_b, Arc::default(), Arc::default()));
    assert!(wait("b1", "HTTP 200").await.at > dead.at);
    assert!(wait("b0", "HTTP 200").await.at > dead.at);

    drop(driver);
    assert_eq!(
        most.load(Ordering::Relaxed),
        1,
        "probes of a backend must not overlap"
    );
}
