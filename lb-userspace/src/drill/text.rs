//! Scorecards for people.

use std::fmt::Write as _;

use crate::admin::proto::drill::{Moment, Scorecard};

/// A moment in a line, from the beginning on.
#[must_use]
pub fn moment(began_ms: u64, of: &Moment) -> String {
    let after = of.at_ms as f64 - began_ms as f64;
    format!("{:>+8.1} s  {}", after / 1000.0, of.what)
}

/// A whole scorecard.
#[must_use]
pub fn scorecard(card: &Scorecard) -> String {
    let backend = card.backend.as_ref().map(|name| format!("/{name}"));
    let mut text = format!(
        "drill {} ({}) of {}{}: {}\n",
        card.drill,
        card.place,
        card.service,
        backend.unwrap_or_default(),
        if card.passed { "passed" } else { "FAILED" }
    );
    let mut line = |what: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {what:<11}{value}");
    };
    line("believed", &card.hypothesis);
    line("expected", &card.expected);
    line("found", card.found.as_deref().unwrap_or("nothing"));
    for wrong in &card.wrong {
        line("wrong", wrong);
    }
    let time = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), |s| format!("{s:.1} s"));
    for (what, value) in [
        ("inject", card.inject_s),
        ("detect", card.detect_s),
        ("notify", card.notify_s),
        ("mitigate", card.mitigate_s),
        ("restore", card.restore_s),
    ] {
        line(what, &time(value));
    }
    if let (Some(requests), Some(failed)) = (card.requests, card.failed) {
        line("requests", &format!("{requests}, {failed} of them failed"));
    }
    text.push_str("  what happened\n");
    for of in &card.happened {
        let _ = writeln!(text, "{}", moment(card.began_at_ms, of));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scorecard_says_all_of_it() {
        let card = Scorecard {
            drill: "skew".to_owned(),
            place: "live".to_owned(),
            service: "web".to_owned(),
            backend: Some("b2".to_owned()),
            began_at_ms: 10_000,
            hypothesis: "it is found".to_owned(),
            expected: "weights".to_owned(),
            found: None,
            inject_s: Some(0.25),
            detect_s: None,
            notify_s: None,
            mitigate_s: None,
            restore_s: None,
            requests: Some(12),
            failed: Some(1),
            passed: false,
            wrong: vec!["the verdict did not come: time is up".to_owned()],
            happened: vec![Moment {
                at_ms: 10_250,
                what: "injected: web/b2".to_owned(),
            }],
        };
        let expected = "\
drill skew (live) of web/b2: FAILED
  believed   it is found
  expected   weights
  found      nothing
  wrong      the verdict did not come: time is up
  inject     0.2 s
  detect     -
  notify     -
  mitigate   -
  restore    -
  requests   12, 1 of them failed
  what happened
    +0.2 s  injected: web/b2
";
        let found = scorecard(&card);
        assert!(found == expected, "{found}");
    }
}
