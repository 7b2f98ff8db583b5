use std::{fs, os::unix::fs::PermissionsExt as _};

use rusqlite::Connection;

use super::{
    super::{Filter, Reader, path},
    *,
};

fn state(folder: &std::path::Path) -> State {
    State {
        directory: folder.join("state"),
        ..State::default()
    }
}

fn event(at_ms: u64) -> Event {
    Event::of_controller(at_ms, Kind::Note, Level::Info, "an event")
}

fn read(state: &State) -> Vec<u64> {
    let reader = Reader::open(&state.directory).unwrap();
    let records = reader.last(&Filter::default(), 100_000).unwrap();
    records.iter().map(|record| record.at_ms).collect()
}

fn until(mut met: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if met() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("in ten seconds nothing came of it");
}

#[test]
fn everything_is_written_at_the_end_in_order_and_for_few_to_read() {
    let folder = tempfile::tempdir().unwrap();
    let state = state(folder.path());
    let journal = Journal::start(&state).unwrap();
    // The first removal of old ones, at the start, shall not take these.
    let now = now_ms();
    for n in 0..1000 {
        journal.record(event(now + n));
    }
    drop(journal);
    assert_eq!(read(&state), (now..now + 1000).collect::<Vec<_>>());
    let mode = fs::metadata(&state.directory).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o750);
}

#[test]
fn a_locked_file_delays_events_and_loses_none() {
    let folder = tempfile::tempdir().unwrap();
    let state = state(folder.path());
    let journal = Journal::start(&state).unwrap();
    let now = now_ms();
    journal.record(event(now));
    until(|| {
        state.directory.join("journal.db").exists()
            && Reader::open(&state.directory).is_ok()
            && !read(&state).is_empty()
    });
    let other = Connection::open(path(&state.directory)).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    journal.record(event(now + 1));
    until(|| journal.condition().failure.is_some());
    journal.record(event(now + 2));
    other.execute_batch("ROLLBACK").unwrap();
    until(|| journal.condition().failure.is_none());
    drop(journal);
    assert_eq!(read(&state), [now, now + 1, now + 2]);
}

#[test]
fn a_folder_that_cannot_be_made_is_told_and_events_wait_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let state = state(folder.path());
    // A file stands in its place.
    fs::write(&state.directory, "").unwrap();
    let journal = Journal::start(&state).unwrap();
    let now = now_ms();
    journal.record(event(now));
    until(|| journal.condition().failure.is_some());
    assert_eq!(journal.condition().lost, 0);
    fs::remove_file(&state.directory).unwrap();
    until(|| journal.condition().failure.is_none());
    drop(journal);
    assert_eq!(read(&state), [now]);
}

#[test]
fn a_damaged_journal_is_set_aside_and_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let state = state(folder.path());
    fs::create_dir(&state.directory).unwrap();
    fs::write(path(&state.directory), "garbage ".repeat(1000)).unwrap();
    let journal = Journal::start(&state).unwrap();
    journal.record(event(now_ms()));
    drop(journal);
    let reader = Reader::open(&state.directory).unwrap();
    let records = reader.last(&Filter::default(), 10).unwrap();
    assert!(records[0].message.contains("was damaged"), "{records:?}");
    assert_eq!(records.len(), 2);
}

#[test]
fn what_there_is_no_room_for_is_counted_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer {
        state: state(folder.path()),
        condition: Arc::default(),
        store: None,
        waiting: VecDeque::new(),
        lost: 0,
        written: 0,
    };
    let now = now_ms();
    for n in 0..WAITING as u64 + 5 {
        writer.take(event(now + n));
    }
    writer.write();
    assert_eq!(lock(&writer.condition).lost, 5);
    let reader = Reader::open(&writer.state.directory).unwrap();
    let last = reader.last(&Filter::default(), 1).unwrap().remove(0);
    assert_eq!(
        (&*last.kind, last.detail["lost"].as_u64()),
        ("journal", Some(5))
    );
    assert_eq!(read(&writer.state)[0], now + 5);
}

#[test]
fn events_that_go_on_coming_do_not_put_off_the_next_try() {
    let folder = tempfile::tempdir().unwrap();
    let state = state(folder.path());
    fs::write(&state.directory, "").unwrap();
    let journal = Journal::start(&state).unwrap();
    journal.record(event(now_ms()));
    until(|| journal.condition().failure.is_some());
    fs::remove_file(&state.directory).unwrap();
    until(|| {
        journal.record(event(now_ms()));
        journal.condition().failure.is_none()
    });
}

#[test]
fn damage_that_shows_while_writing_is_set_aside_too() {
    let folder = tempfile::tempdir().unwrap();
    let state = state(folder.path());
    let journal = Journal::start(&state).unwrap();
    let now = now_ms();
    for n in 0..2000 {
        journal.record(event(now + n));
    }
    drop(journal);
    // The first page, which opening looks at, stays whole.
    let file = path(&state.directory);
    let mut bytes = fs::read(&file).unwrap();
    bytes[4096..].fill(0x5a);
    fs::write(&file, bytes).unwrap();
    let journal = Journal::start(&state).unwrap();
    until(|| {
        journal.record(event(now_ms()));
        let aside = fs::read_dir(&state.directory).unwrap().flatten();
        let mut names = aside.map(|entry| entry.file_name().into_string().unwrap());
        names.any(|name| name.starts_with("journal.db.damaged-"))
    });
    until(|| journal.condition().failure.is_none());
    drop(journal);
    let reader = Reader::open(&state.directory).unwrap();
    let records = reader.last(&Filter::default(), 100_000).unwrap();
    assert!(
        records[0].message.contains("was damaged"),
        "{:?}",
        records[0]
    );
}
