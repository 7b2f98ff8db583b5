use super::*;
use crate::{
    model::{Http, Severity, Text},
    notify::{alert::Alert, derive::Derived},
};

const START: u64 = 1_000_000;

fn receiver(change: impl FnOnce(&mut Receiver)) -> Receiver {
    let mut receiver = Receiver::ops();
    change(&mut receiver);
    receiver
}

/// A receiver beside what is wrong.
struct Bed {
    ledger: Ledger,
    outbox: Outbox,
    ids: u64,
}

impl Bed {
    fn new(change: impl FnOnce(&mut Receiver)) -> Self {
        let outbox = Outbox::new(&receiver(change), START, BTreeMap::new(), VecDeque::new());
        Self {
            ledger: Ledger::new(START, []),
            outbox,
            ids: 0,
        }
    }

    /// What is wrong from now on, as `service/Name`; what the receiver is told of it.
    fn look(&mut self, now_ms: u64, wrong: &[&str]) -> Vec<String> {
        let alert = |text: &&str| {
            let (service, name) = text.split_once('/').unwrap();
            Alert {
                key: Key {
                    service: Some(service.to_owned()).filter(|service| !service.is_empty()),
                    ..Key::of(AlertName::of(name).unwrap())
                },
                summary: (*text).to_owned(),
                since_ms: None,
            }
        };
        let alerts = wrong.iter().map(alert).collect();
        let derived = Derived {
            alerts,
            unsure: Vec::new(),
        };
        self.ledger.update(now_ms, &derived);
        let decision = self.outbox.decide(now_ms, &self.ledger, &mut self.ids);
        let describe = |one: &Notification| {
            let again = if one.again { " (again)" } else { "" };
            format!("{}{again}", one.describe())
        };
        decision.send.iter().map(describe).collect()
    }

    fn send(&mut self, now_ms: u64, result: &Result<(), Failure>) -> Option<Outcome> {
        self.outbox.due(now_ms)?;
        self.outbox.ended(now_ms, result, 1.0)
    }

    /// The receiver takes all that waits.
    fn take_all(&mut self, now_ms: u64) -> Vec<u64> {
        let mut taken = Vec::new();
        while let Some(Outcome::Delivered { notification, .. }) = self.send(now_ms, &Ok(())) {
            taken.push(notification.id);
        }
        taken
    }
}

fn nothing() -> Vec<String> {
    Vec::new()
}

fn failed(again: Again) -> Result<(), Failure> {
    Err(Failure {
        why: "no".to_owned(),
        again,
    })
}

#[test]
fn what_begins_and_ends_is_told_once_each() {
    let mut bed = Bed::new(|_| {});
    assert_eq!(bed.look(START, &["web/Panic"]), ["Panic web"]);
    assert_eq!(bed.look(START + 1_000, &["web/Panic"]), nothing());
    bed.take_all(START + 1_000);
    assert_eq!(bed.look(START + 2_000, &["web/Panic"]), nothing());
    assert_eq!(bed.look(START + 3_000, &[]), ["Panic web is over"]);
    assert_eq!(bed.look(START + 4_000, &[]), nothing());
    assert_eq!(bed.look(START + 5_000, &["web/Panic"]), ["Panic web"]);
}

#[test]
fn what_is_still_on_is_told_again_in_time_and_not_while_something_waits() {
    let mut bed = Bed::new(|receiver| receiver.repeat = Duration::from_mins(1));
    bed.look(START, &["web/Panic"]);
    assert_eq!(
        bed.look(START + 60_000, &["web/Panic"]),
        nothing(),
        "it was not sent yet"
    );
    bed.take_all(START + 60_000);
    assert_eq!(
        bed.look(START + 60_000, &["web/Panic"]),
        ["Panic web (again)"]
    );
    bed.take_all(START + 60_000);
    assert_eq!(bed.look(START + 119_999, &["web/Panic"]), nothing());
    assert_eq!(
        bed.look(START + 120_000, &["web/Panic"]),
        ["Panic web (again)"]
    );
}

#[test]
fn alerts_are_grouped_by_service_but_for_alertmanager() {
    let wrong = ["web/Panic", "web/FloodSeen", "mail/Panic", "/TableDrift"];
    let mut bed = Bed::new(|_| {});
    assert_eq!(
        bed.look(START, &wrong),
        ["TableDrift", "Panic mail", "Panic web, FloodSeen web"]
    );
    let mut bed = Bed::new(|receiver| {
        receiver.target = Target::Alertmanager(Http {
            url: Text::Plain("http://am".to_owned()),
            headers: Vec::new(),
            ca: None,
        });
    });
    assert_eq!(
        bed.look(START, &wrong),
        ["Panic mail, Panic web, TableDrift, 1 more"]
    );
}

#[test]
fn filters_hold_and_no_end_is_told_where_none_is_asked_for() {
    let mut bed = Bed::new(|receiver| {
        receiver.filter = Filter {
            alerts: Some(vec![
                AlertName::Panic,
                AlertName::FloodSeen,
                AlertName::TableDrift,
            ]),
            severity: Severity::Page,
            services: Some(vec!["web".into()]),
        };
        receiver.resolve = false;
    });
    let wrong = [
        "web/Panic",
        "web/FloodSeen",
        "web/NoBackends",
        "mail/Panic",
        "/TableDrift",
    ];
    // Panic is hidden by NoBackends.
    assert_eq!(bed.look(START, &wrong), ["TableDrift"]);
    assert_eq!(bed.look(START + 20_000, &wrong[..1]), ["Panic web"]);
    assert_eq!(bed.look(START + 21_000, &[]), nothing());
    assert!(bed.outbox.told().is_empty());
}

#[test]
fn the_heartbeat_goes_to_who_wants_it_and_never_ends() {
    let mut bed = Bed::new(|_| {});
    assert_eq!(bed.look(START, &["/Watchdog"]), nothing());
    let mut bed = Bed::new(|receiver| {
        receiver.heartbeat = Some(Duration::from_secs(30));
        receiver.filter.severity = Severity::Page;
    });
    assert_eq!(bed.look(START, &["/Watchdog"]), ["Watchdog"]);
    bed.take_all(START);
    assert_eq!(
        bed.look(START + 30_000, &["/Watchdog"]),
        ["Watchdog (again)"]
    );
    bed.take_all(START + 30_000);
    assert_eq!(bed.look(START + 31_000, &[]), nothing());
}

#[test]
fn failures_wait_twice_as_long_each_and_keep_the_order() {
    let mut bed = Bed::new(|_| {});
    bed.look(START, &["web/Panic"]);
    bed.look(START + 1_000, &[]);
    let mut now = START + 1_000;
    let mut waits = Vec::new();
    for _ in 0..11 {
        assert!(matches!(
            bed.send(now, &failed(Again::Later)),
            Some(Outcome::Retried { .. })
        ));
        let next = (now..)
            .step_by(500)
            .find(|&at| bed.outbox.due(at).is_some())
            .unwrap();
        waits.push((next - now) / 1_000);
        now = next;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    let Some(Outcome::Delivered {
        failures: 11,
        notification,
    }) = bed.send(now, &Ok(()))
    else {
        panic!("it is taken after 11 failures");
    };
    assert_eq!((notification.id, bed.take_all(now)), (1, vec![2]));
    let counts = bed.outbox.counts();
    assert_eq!((counts.sent, counts.failed, counts.dropped), (2, 11, 0));
}

#[test]
fn a_receiver_says_how_long_to_wait_and_what_it_never_takes() {
    let mut bed = Bed::new(|_| {});
    bed.look(START, &["web/Panic"]);
    bed.send(START, &failed(Again::After(Duration::from_secs(20))));
    assert!(bed.outbox.due(START + 19_999).is_none());
    assert!(bed.outbox.due(START + 20_000).is_some());
    let outcome = bed.send(START + 20_000, &failed(Again::Never));
    assert!(matches!(outcome, Some(Outcome::Dropped(_))), "{outcome:?}");
    // It is on, the receiver does not want it, and is not asked again at once.
    assert_eq!(bed.look(START + 21_000, &["web/Panic"]), nothing());
    assert_eq!(bed.outbox.counts().dropped, 1);
}

#[test]
fn what_is_too_old_is_given_up_and_told_anew_where_it_is_still_on() {
    let mut bed = Bed::new(|_| {});
    bed.look(START, &["web/Panic"]);
    assert!(bed.outbox.expire(START + OLDEST - 1).is_empty());
    let dropped = bed.outbox.expire(START + OLDEST);
    assert_eq!(dropped.len(), 1);
    bed.outbox.tell_again(&dropped[0]);
    assert_eq!(bed.look(START + OLDEST, &["web/Panic"]), ["Panic web"]);
}

#[test]
fn a_storm_becomes_as_many_notifications_as_are_allowed_and_ends_right() {
    let mut bed = Bed::new(|receiver| receiver.per_minute = 6.try_into().unwrap());
    let mut told = 0;
    for second in 0..60 {
        let wrong: &[&str] = if second % 2 == 0 { &["web/Panic"] } else { &[] };
        told += bed.look(START + second * 1_000, wrong).len();
    }
    // Six at once, and one for each ten seconds after.
    assert!((6..=12).contains(&told), "{told}");
    assert_eq!(
        bed.look(START + 120_000, &[]).len() + told,
        told.next_multiple_of(2)
    );
    assert!(bed.outbox.told().is_empty());
}

#[test]
fn no_more_than_the_queue_holds_waits_and_the_present_is_told_in_the_end() {
    let mut bed = Bed::new(|receiver| receiver.per_minute = 6_000.try_into().unwrap());
    for second in 0..2 * QUEUE as u64 {
        let wrong: &[&str] = if second % 2 == 0 { &["web/Panic"] } else { &[] };
        bed.look(START + second * 1_000, wrong);
    }
    assert_eq!(bed.outbox.queue().len(), QUEUE);
    assert!(bed.outbox.counts().held_back > 0);
    let now = START + 2_000_000;
    let taken = bed.take_all(now);
    assert!(taken.is_sorted() && taken.len() == QUEUE);
    assert_eq!(bed.look(now, &["mail/Panic"]), ["Panic mail"]);
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let mut bed = Bed::new(|_| {});
    bed.look(START, &["web/Panic", "mail/Panic"]);
    let (told, queue) = (bed.outbox.told().clone(), bed.outbox.queue().clone());
    let mut after = Bed::new(|_| {});
    after.outbox = Outbox::new(&receiver(|_| {}), START + 9_000, told, queue);
    after.ids = 2;
    assert_eq!(
        after.look(START + 9_000, &["web/Panic"]),
        ["Panic mail is over"]
    );
    assert_eq!(after.take_all(START + 9_000), [1, 2, 3]);
}
