use super::*;
use crate::{
    model::{AlertName, Receiver},
    notify::{derive::Derived, ledger::Ledger},
};

fn drifted() -> Derived {
    let alert = super::super::alert::Alert {
        key: Key::of(AlertName::TableDrift),
        summary: "off".to_owned(),
        since_ms: None,
    };
    Derived {
        alerts: vec![alert],
        unsure: Vec::new(),
    }
}

/// An outbox that has something to send, and what it decided.
fn outbox() -> (Outbox, Decision) {
    let mut outbox = Outbox::new(&Receiver::ops(), 1, BTreeMap::new(), VecDeque::new());
    let mut ledger = Ledger::new(1, []);
    ledger.update(1, &drifted());
    let decision = outbox.decide(1, &ledger, &mut 41);
    (outbox, decision)
}

#[test]
fn what_waits_and_what_was_told_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (outbox, decision) = outbox();
    let all = [("ops", &outbox)];
    let mut spool = Spool::open(folder.path());
    spool.decided(&all, "ops", &decision);
    assert_eq!(spool.failure(), None);
    drop(spool);
    let mut spool = Spool::open(folder.path());
    let known = spool.known("ops");
    assert_eq!(known.queue, *outbox.queue());
    assert_eq!(known.told, *outbox.told());
    assert_eq!((spool.last_id(), known.taken_ms), (42, None));
    spool.done(&all, "ops", 42, Some(9));
    let known = spool.known("ops");
    assert_eq!(
        (known.queue.len(), known.told.len(), known.taken_ms),
        (0, 1, Some(9))
    );
    // Whoever is not configured any more is forgotten.
    spool.keep(&["pager"]);
    assert_eq!(spool.known("ops").told.len(), 0);
}

#[test]
fn a_damaged_file_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(FILE), vec![7; 8192]).unwrap();
    let (outbox, decision) = outbox();
    let mut spool = Spool::open(folder.path());
    assert_eq!(spool.failure(), None);
    spool.decided(&[("ops", &outbox)], "ops", &decision);
    assert_eq!(spool.known("ops").queue.len(), 1);
}

#[test]
fn what_a_disk_did_not_take_is_written_once_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("state");
    // A file is in the folder's place.
    fs::write(&directory, "").unwrap();
    let (outbox, decision) = outbox();
    let all = [("ops", &outbox)];
    let mut spool = Spool::open(&directory);
    spool.decided(&all, "ops", &decision);
    assert!(
        spool.failure().unwrap().contains("cannot create"),
        "{spool:?}"
    );
    fs::remove_file(&directory).unwrap();
    spool.catch_up(&all);
    assert_eq!(spool.failure(), None);
    drop(spool);
    assert_eq!(Spool::open(&directory).known("ops").queue, *outbox.queue());
}
