use super::*;

const START: u64 = 1_000_000;

fn key(name: AlertName, backend: Option<&str>) -> Key {
    Key {
        service: Some("web".to_owned()),
        backend: backend.map(ToOwned::to_owned),
        ..Key::of(name)
    }
}

fn derived(keys: &[Key]) -> Derived {
    let alert = |key: &Key| Alert {
        key: key.clone(),
        summary: key.name.to_string(),
        since_ms: None,
    };
    Derived {
        alerts: keys.iter().map(alert).collect(),
        unsure: Vec::new(),
    }
}

fn stages(ledger: &Ledger, now_ms: u64) -> Vec<(AlertName, Stage)> {
    ledger
        .iter(now_ms)
        .map(|(key, _, stage)| (key.name, stage))
        .collect()
}

#[test]
fn an_alert_waits_as_long_as_its_name_asks() {
    let down = [key(AlertName::BackendDown, Some("b1"))];
    let mut ledger = Ledger::new(START, []);
    ledger.update(START, &derived(&down));
    assert_eq!(
        stages(&ledger, START + 1_999),
        [(AlertName::BackendDown, Stage::Waiting)]
    );
    assert_eq!(
        stages(&ledger, START + 2_000),
        [(AlertName::BackendDown, Stage::Firing)]
    );
    // What passes in that time is never told, and begins anew.
    ledger.update(START + 1_000, &derived(&[]));
    ledger.update(START + 2_000, &derived(&down));
    assert_eq!(
        stages(&ledger, START + 2_500),
        [(AlertName::BackendDown, Stage::Waiting)]
    );
    let (_, active, _) = ledger.iter(START).next().unwrap();
    assert_eq!(active.since_ms, START + 2_000);
}

#[test]
fn what_the_fleet_explains_is_hidden_and_a_little_longer() {
    let slow = key(AlertName::BackendSlow, Some("b1"));
    let fleet = key(AlertName::FleetDegraded, None);
    let mut ledger = Ledger::new(START, []);
    ledger.update(START, &derived(std::slice::from_ref(&slow)));
    ledger.update(START + 3_000, &derived(&[slow.clone(), fleet.clone()]));
    let both = [
        (AlertName::FleetDegraded, Stage::Firing),
        (AlertName::BackendSlow, Stage::Inhibited),
    ];
    assert_eq!(stages(&ledger, START + 60_000), both);
    ledger.update(START + 61_000, &derived(&[slow.clone(), fleet]));
    ledger.update(START + 62_000, &derived(std::slice::from_ref(&slow)));
    assert_eq!(
        stages(&ledger, START + 62_000),
        [(AlertName::BackendSlow, Stage::Inhibited)]
    );
    ledger.update(START + 72_000, &derived(std::slice::from_ref(&slow)));
    assert_eq!(
        stages(&ledger, START + 72_000),
        [(AlertName::BackendSlow, Stage::Firing)]
    );
}

#[test]
fn nothing_is_hidden_by_another_service_or_backend() {
    let mut other = key(AlertName::FleetDegraded, None);
    other.service = Some("mail".to_owned());
    let unresolved = key(AlertName::NeighbourUnresolved, Some("b2"));
    let down = key(AlertName::BackendDown, Some("b1"));
    let mut ledger = Ledger::new(START, []);
    ledger.update(START, &derived(&[other, unresolved.clone(), down.clone()]));
    let inhibited = |ledger: &Ledger| {
        let of = ledger.iter(START + 60_000);
        of.filter(|(_, _, stage)| *stage == Stage::Inhibited)
            .count()
    };
    assert_eq!(inhibited(&ledger), 0);
    let same = key(AlertName::NeighbourUnresolved, Some("b1"));
    ledger.update(START, &derived(&[unresolved, same, down]));
    assert_eq!(inhibited(&ledger), 1);
}

#[test]
fn what_was_told_before_a_restart_goes_on_since_then_and_at_once() {
    let down = key(AlertName::BackendDown, Some("b1"));
    let mut ledger = Ledger::new(START, [(down.clone(), "down".to_owned(), 7)]);
    ledger.update(START + 1, &derived(std::slice::from_ref(&down)));
    let (_, active, stage) = ledger.iter(START + 1).next().unwrap();
    assert_eq!((active.since_ms, stage), (7, Stage::Firing));
    ledger.update(START + 2, &derived(&[]));
    assert!(!ledger.is_on(&down));
}

#[test]
fn a_skew_from_before_a_restart_is_on_until_the_detector_knows_better() {
    let skew = key(AlertName::TrafficSkewed, Some("b1"));
    let unsure = Derived {
        alerts: Vec::new(),
        unsure: vec!["web".to_owned()],
    };
    let known = || [(skew.clone(), "skewed".to_owned(), 7)];
    let mut ledger = Ledger::new(START, known());
    ledger.update(START + 60_000, &unsure);
    assert!(ledger.is_on(&skew));
    ledger.update(START + 61_000, &derived(&[]));
    assert!(!ledger.is_on(&skew));
    // And not for ever where nothing can be told.
    let mut ledger = Ledger::new(START, known());
    ledger.update(START + BENEFIT, &unsure);
    assert!(!ledger.is_on(&skew));
}

#[test]
fn what_was_on_before_a_drill_is_none_of_its() {
    let plain = |name| Alert {
        key: Key::of(name),
        summary: "so it is".to_owned(),
        since_ms: None,
    };
    let derived = |alerts: Vec<Alert>| Derived {
        alerts,
        unsure: Vec::new(),
    };
    let mut ledger = Ledger::new(0, []);
    let before = plain(AlertName::WeightsSkewed);
    ledger.update(1_000, &derived(vec![before.clone()]));
    let marked = [AlertName::WeightsSkewed, AlertName::TrafficSkewed]
        .map(|name| plain(name).of_drill("skew"));
    ledger.update(2_000, &derived(marked.to_vec()));
    let on: Vec<(Option<&str>, &str)> = ledger
        .iter(2_000)
        .map(|(key, active, _)| (key.drill.as_deref(), active.summary.as_str()))
        .collect();
    assert_eq!(
        on,
        [(Some("skew"), "DRILL skew: so it is"), (None, "so it is"),]
    );
    // What outlasts the drill is another one.
    let left = plain(AlertName::TrafficSkewed);
    ledger.update(3_000, &derived(vec![before, left]));
    assert!(ledger.iter(3_000).all(|(key, ..)| key.drill.is_none()));
}
