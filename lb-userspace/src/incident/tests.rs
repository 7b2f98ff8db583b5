use std::time::Duration;

use serde_json::Value;

use super::{
    book::{BENEFIT, LEAD},
    *,
};
use crate::{admin::proto::incident::Action, model::Incidents};

const RULES: Incidents = Incidents {
    opened_by: Severity::Page,
    close_after: Duration::from_mins(10),
};
/// 2026-11-25T20:03:50Z.
const T0: u64 = 1_795_637_030_000;
const MINUTE: u64 = 60_000;

fn sign(name: &str, severity: &str, service: Option<&str>, since_ms: u64) -> Sign {
    Sign {
        name: name.to_owned(),
        severity: severity.to_owned(),
        service: service.map(ToOwned::to_owned),
        backend: None,
        detail: None,
        since_ms,
        summary: format!("{name} at {since_ms}"),
        drill: None,
    }
}

fn seen(sign: &Sign) -> Seen {
    Seen {
        sign: sign.clone(),
        firing: true,
    }
}

fn whats(steps: &[Step]) -> Vec<(&str, What)> {
    steps.iter().map(|of| (&*of.id, of.step)).collect()
}

/// A book that is long past its start, with what it was told.
struct Kept {
    book: Book,
    told: Vec<(u64, Value)>,
}

impl Kept {
    fn new() -> Self {
        Self {
            book: Book::read(T0 - BENEFIT, []),
            told: Vec::new(),
        }
    }

    fn note(&mut self, at_ms: u64, steps: &[Step]) {
        let json = |step: &Step| (at_ms, serde_json::to_value(step).unwrap());
        self.told.extend(steps.iter().map(json));
    }

    fn observe(&mut self, at_ms: u64, signs: &[&Sign]) -> Vec<(String, What)> {
        let signs: Vec<Seen> = signs.iter().map(|sign| seen(sign)).collect();
        let steps = self.book.observe(at_ms, &signs, &RULES);
        self.note(at_ms, &steps);
        let whats = whats(&steps).into_iter();
        whats.map(|(id, what)| (id.to_owned(), what)).collect()
    }

    fn wish(&mut self, at_ms: u64, wish: &proto::Wish) -> Result<Step, Refusal> {
        let step = self.book.wish(at_ms, "ann", wish)?;
        self.note(at_ms, std::slice::from_ref(&step));
        Ok(step)
    }

    /// The same from what was told.
    fn again(&self, now_ms: u64) -> Book {
        let told = self.told.iter().map(|(at, detail)| (*at, detail));
        Book::read(now_ms, told)
    }
}

fn about(action: Action, id: Option<&str>) -> proto::Wish {
    proto::Wish {
        action,
        id: id.map(ToOwned::to_owned),
        service: None,
        drill: None,
        text: Some("on it".to_owned()),
    }
}

#[test]
fn a_ticket_opens_one_where_that_is_asked_for() {
    let ticket = sign("BackendDemoted", "ticket", Some("web"), T0);
    let info = sign("WeightsSkewed", "info", Some("web"), T0);
    let on = [seen(&info), seen(&ticket)];
    let mut book = Kept::new().book;
    assert_eq!(book.observe(T0, &on, &RULES), []);
    let rules = Incidents {
        opened_by: Severity::Ticket,
        ..RULES
    };
    assert_eq!(book.observe(T0, &on[..1], &rules), []);
    let steps = book.observe(T0, &on, &rules);
    assert_eq!(whats(&steps), [("20261125-1", What::Open)]);
}

#[test]
fn a_page_opens_more_joins_and_quiet_closes() {
    let mut kept = Kept::new();
    let page = sign("TrafficSkewed", "page", Some("web"), T0 - 5000);
    let more = sign("BackendDown", "ticket", Some("web"), T0 - 9000);
    let old = sign("BackendSlow", "ticket", Some("web"), T0 - 2 * LEAD);
    let audit = sign("AuditFailed", "ticket", Some("web"), T0);
    let other = sign("BackendDown", "ticket", Some("dns"), T0);
    let id = "20261125-1".to_owned();
    assert_eq!(kept.observe(T0 - 1000, &[&old, &audit, &other, &more]), []);
    let all = [&page, &more, &old, &audit, &other];
    assert_eq!(
        kept.observe(T0, &all),
        [(id.clone(), What::Open), (id.clone(), What::Alert)]
    );
    assert_eq!(kept.observe(T0 + 1000, &all), []);
    let incident = kept.book.named(&id).unwrap();
    assert_eq!(incident.start_ms, T0 - 9000);
    assert_eq!(incident.signs().count(), 2);
    assert_eq!(kept.book.of_alert(&page), Some(incident));
    assert_eq!(kept.book.of_alert(&old), None);

    // One of both goes on; then both are over, and one comes back.
    assert_eq!(kept.observe(T0 + 2000, &[&more, &old]), []);
    let mitigated = [(id.clone(), What::Mitigated)];
    assert_eq!(kept.observe(T0 + 3000, &[&old]), mitigated);
    assert_eq!(kept.observe(T0 + 4000, &[&old]), []);
    assert_eq!(
        kept.observe(T0 + MINUTE, &[&page]),
        [(id.clone(), What::Relapse)]
    );
    assert_eq!(kept.book.named(&id).unwrap().mitigated_ms, None);
    assert_eq!(kept.observe(T0 + 2 * MINUTE, &[]), mitigated);
    assert_eq!(kept.observe(T0 + 12 * MINUTE - 1, &[]), []);
    assert_eq!(kept.observe(T0 + 12 * MINUTE, &[]), [(id, What::Close)]);
    assert_eq!(kept.book.open().count(), 0);

    // The next one of that day.
    assert_eq!(
        kept.observe(T0 + 13 * MINUTE, &[&page]),
        [("20261125-2".to_owned(), What::Open)]
    );
}

#[test]
fn what_is_explained_or_young_opens_none() {
    let mut book = Kept::new().book;
    let page = sign("Panic", "page", Some("web"), T0);
    let hidden = Seen {
        sign: page.clone(),
        firing: false,
    };
    assert_eq!(book.observe(T0, std::slice::from_ref(&hidden), &RULES), []);
    // It is a part of what its parent opened.
    let parent = sign("NoBackends", "page", Some("web"), T0);
    let steps = book.observe(T0, &[seen(&parent), hidden], &RULES);
    assert_eq!(
        whats(&steps),
        [("20261125-1", What::Open), ("20261125-1", What::Alert)]
    );
}

#[test]
fn a_book_is_what_was_told() {
    let mut kept = Kept::new();
    let page = sign("TableDrift", "page", None, T0);
    let dns = sign("NoBackends", "page", Some("dns"), T0);
    kept.observe(T0, &[&page, &dns]);
    kept.wish(T0 + 1, &about(Action::Ack, Some("20261125-1")))
        .unwrap();
    kept.observe(T0 + 2, &[&dns]);
    let again = kept.again(T0 + 3);
    let known = |book: &Book| -> Vec<_> {
        let of = |one: &Incident| {
            let signs: Vec<Sign> = one.signs().cloned().collect();
            let acknowledged = one.acknowledged.clone();
            (one.id.clone(), signs, acknowledged, one.mitigated_ms)
        };
        book.all().iter().map(of).collect()
    };
    assert_eq!(known(&again), known(&kept.book));

    // A start knows nothing yet: what was on is not over by that.
    let mut again = again;
    assert_eq!(again.observe(T0 + 4, &[], &RULES), []);
    assert_eq!(again.observe(T0 + 3 + BENEFIT - 1, &[], &RULES), []);
    let steps = again.observe(T0 + 3 + BENEFIT, &[], &RULES);
    assert_eq!(whats(&steps), [("20261125-2", What::Mitigated)]);
    // Where it was seen again, its end counts at once.
    let mut seen_again = kept.again(T0 + 3);
    assert_eq!(seen_again.observe(T0 + 4, &[seen(&dns)], &RULES), []);
    let steps = seen_again.observe(T0 + 5, &[], &RULES);
    assert_eq!(whats(&steps), [("20261125-2", What::Mitigated)]);
}

#[test]
fn people_may_do_all_of_it_once() {
    let mut kept = Kept::new();
    assert_eq!(
        kept.wish(T0, &about(Action::Ack, None)).unwrap_err(),
        Refusal::NoneOpen
    );
    let open = |service: Option<&str>| proto::Wish {
        action: Action::Open,
        id: None,
        service: service.map(ToOwned::to_owned),
        drill: Some("skew".to_owned()),
        text: Some("users complain ".to_owned()),
    };
    let silent = proto::Wish {
        text: Some(" ".to_owned()),
        ..open(None)
    };
    assert_eq!(kept.wish(T0, &silent).unwrap_err(), Refusal::Empty);
    let step = kept.wish(T0, &open(Some("web"))).unwrap();
    assert_eq!(
        step.describe(),
        "incident 20261125-1 of web is open (drill skew): users complain"
    );
    let refusal = kept.wish(T0, &open(Some("web"))).unwrap_err();
    assert_eq!(refusal, Refusal::Open("20261125-1".to_owned()));
    kept.wish(T0, &open(None)).unwrap();
    let several = kept.wish(T0, &about(Action::Ack, None)).unwrap_err();
    assert!(several.to_string().contains("20261125-1, 20261125-2"));
    let of = |id: &str, action| about(action, Some(id));
    kept.wish(T0, &of("20261125-1", Action::Ack)).unwrap();
    let taken = kept.wish(T0, &of("20261125-1", Action::Ack)).unwrap_err();
    assert!(taken.to_string().contains("by ann already"), "{taken}");
    // What joins it carries the drill on.
    let page = sign("TrafficSkewed", "page", Some("web"), T0);
    let steps = kept.book.observe(T0 + 1, &[seen(&page)], &RULES);
    assert_eq!(steps[0].drill.as_deref(), Some("skew"));
    // Nobody but who opened it closes it.
    assert_eq!(whats(&kept.book.observe(T0 + 2, &[], &RULES)).len(), 1);
    assert_eq!(kept.book.observe(T0 + 2 + 100 * MINUTE, &[], &RULES), []);
    kept.wish(T0 + 3, &of("20261125-1", Action::Close)).unwrap();
    let over = kept.wish(T0, &of("20261125-1", Action::Note)).unwrap_err();
    assert_eq!(over, Refusal::Closed("20261125-1".to_owned()));
    let unknown = kept.wish(T0, &of("1", Action::Note)).unwrap_err();
    assert_eq!(unknown, Refusal::Unknown("1".to_owned()));
}

#[test]
fn what_was_on_when_somebody_closed_opens_no_other() {
    let mut kept = Kept::new();
    let page = sign("WeightsSkewed", "page", Some("web"), T0);
    kept.observe(T0, &[&page]);
    kept.wish(T0 + 1, &about(Action::Close, None)).unwrap();
    assert_eq!(kept.observe(T0 + 2, &[&page]), []);
    let mut again = kept.again(T0 + 3);
    assert_eq!(again.observe(T0 + 4, &[seen(&page)], &RULES), []);
    // Once it has ended, the next time is another one.
    assert_eq!(kept.observe(T0 + 5, &[]), []);
    assert_eq!(kept.observe(T0 + 6, &[&page]).len(), 1);
}
