use std::fs;

use serde_json::json;

use super::{
    super::{Kind, Level},
    *,
};

fn event(at_ms: u64, kind: Kind, level: Level, message: &str) -> Event {
    Event::of_controller(at_ms, kind, level, message)
}

fn messages(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| &*record.message).collect()
}

#[test]
fn what_is_added_is_read_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let added = event(7, Kind::Health, Level::Warning, "down: ‘refused’")
        .service("web")
        .backend("b2")
        .detail(json!({ "took_ms": 1.5 }));
    append_one(folder.path(), &added).unwrap();
    let read = Reader::open(folder.path()).unwrap();
    let records = read.last(&Filter::default(), 10).unwrap();
    let expected = Record {
        id: 1,
        at_ms: 7,
        kind: "health".into(),
        level: "warning".into(),
        service: Some("web".into()),
        backend: Some("b2".into()),
        generation: 0,
        actor: "controller".into(),
        message: "down: ‘refused’".into(),
        detail: json!({ "took_ms": 1.5 }),
    };
    assert_eq!(records, [expected]);
}

#[test]
fn a_filter_leaves_the_rest_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    let events = [
        event(10, Kind::Start, Level::Info, "a"),
        event(20, Kind::Health, Level::Warning, "b")
            .service("web")
            .backend("b1"),
        event(30, Kind::Health, Level::Info, "c")
            .service("web")
            .backend("b2"),
        event(40, Kind::Drift, Level::Error, "d").service("api"),
    ];
    store.append(&events).unwrap();
    // Beside a writer.
    let read = Reader::open(folder.path()).unwrap();
    let found = |filter: Filter| {
        let records = read.last(&filter, 10).unwrap();
        messages(&records).concat()
    };
    let none = Filter::default();
    assert_eq!(found(none.clone()), "abcd");
    assert_eq!(
        found(Filter {
            since_ms: Some(20),
            until_ms: Some(40),
            ..none.clone()
        }),
        "bc"
    );
    assert_eq!(
        found(Filter {
            service: Some("web".into()),
            ..none.clone()
        }),
        "bc"
    );
    assert_eq!(
        found(Filter {
            backend: Some("b2".into()),
            ..none.clone()
        }),
        "c"
    );
    assert_eq!(
        found(Filter {
            kind: Some("drift".into()),
            ..none.clone()
        }),
        "d"
    );
    assert_eq!(
        found(Filter {
            levels: vec!["warning", "error"],
            ..none.clone()
        }),
        "bd"
    );
    assert_eq!(messages(&read.last(&none, 2).unwrap()), ["c", "d"]);
    assert_eq!(messages(&read.after(&none, 1, 2).unwrap()), ["b", "c"]);
}

#[test]
fn old_events_go_first_and_the_file_stays_small() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    let long = "x".repeat(1000);
    let events: Vec<_> = (0..2000)
        .map(|n| event(n, Kind::Note, Level::Info, &long))
        .collect();
    store.append(&events).unwrap();
    assert_eq!(store.prune(500, u64::MAX).unwrap(), 500);
    let most = 512 << 10;
    assert!(store.prune(0, most).unwrap() >= 900);
    let size = fs::metadata(path(folder.path())).unwrap().len();
    assert!(size <= most, "{size}");
    let left = Reader::open(folder.path())
        .unwrap()
        .last(&Filter::default(), 5000)
        .unwrap();
    assert_eq!(left.last().unwrap().at_ms, 1999);
    assert!(left.len() > 200, "{}", left.len());
    // Numbers are never used again.
    store.append(&events[..1]).unwrap();
    let left = Reader::open(folder.path())
        .unwrap()
        .last(&Filter::default(), 1)
        .unwrap();
    assert_eq!(left[0].id, 2001);
}

#[test]
fn nothing_changes_an_event() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    store
        .append(&[event(1, Kind::Note, Level::Info, "it was so")])
        .unwrap();
    let change = store
        .connection
        .execute("UPDATE events SET message = 'it was not'", []);
    assert!(change.unwrap_err().to_string().contains("append-only"));
}

#[test]
fn a_newer_layout_and_a_missing_file_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Reader::open(folder.path()).unwrap_err().to_string();
    assert!(missing.contains("there is no journal"), "{missing}");
    let store = Store::open(folder.path()).unwrap();
    store
        .connection
        .execute_batch("PRAGMA user_version = 9")
        .unwrap();
    for told in [
        Reader::open(folder.path()).unwrap_err().to_string(),
        Store::open(folder.path()).unwrap_err().to_string(),
    ] {
        assert!(told.contains("newer evenkeel (its layout is 9"), "{told}");
    }
}

#[test]
fn a_damaged_file_is_known_and_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        path(folder.path()),
        "this is no database, and long enough to be looked at",
    )
    .unwrap();
    let damage = Store::open(folder.path()).unwrap_err();
    assert!(damage.is_damage(), "{damage}");
    let aside = set_aside(folder.path(), 5).unwrap();
    assert!(
        aside.ends_with("journal.db.damaged-5"),
        "{}",
        aside.display()
    );
    Store::open(folder.path()).unwrap();
}
