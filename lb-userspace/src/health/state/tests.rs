#![expect(
    clippy::disallowed_methods,
    reason = "a test needs some instant to count from"
)]

use std::{num::NonZeroU16, time::Duration};

use proptest::prelude::*;

use super::{
    State::{Down, Unknown, Up},
    Verdict::{Fail, Pass},
    *,
};
use crate::model::ProbeKind;

fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

fn machine(rise: u32, fall: u32, state: State) -> Machine {
    let check = HealthCheck {
        rise: count(rise),
        fall: count(fall),
        ..HealthCheck::new(ProbeKind::Tcp, NonZeroU16::MIN)
    };
    Machine::new(&check, state)
}

/// Every row: rise, fall, state and contrary verdicts before; verdict; the same two after.
///
/// Written out by hand, so that it can disagree with the code.
const TRANSITIONS: &[(u32, u32, State, u32, Verdict, State, u32)] = &[
    // Unknown: the first verdict decides, whatever rise and fall are.
    (1, 1, Unknown, 0, Pass, Up, 0),
    (1, 1, Unknown, 0, Fail, Down, 0),
    (1, 2, Unknown, 0, Pass, Up, 0),
    (1, 2, Unknown, 0, Fail, Down, 0),
    (1, 3, Unknown, 0, Pass, Up, 0),
    (1, 3, Unknown, 0, Fail, Down, 0),
    (2, 1, Unknown, 0, Pass, Up, 0),
    (2, 1, Unknown, 0, Fail, Down, 0),
    (2, 2, Unknown, 0, Pass, Up, 0),
    (2, 2, Unknown, 0, Fail, Down, 0),
    (2, 3, Unknown, 0, Pass, Up, 0),
    (2, 3, Unknown, 0, Fail, Down, 0),
    (3, 1, Unknown, 0, Pass, Up, 0),
    (3, 1, Unknown, 0, Fail, Down, 0),
    (3, 2, Unknown, 0, Pass, Up, 0),
    (3, 2, Unknown, 0, Fail, Down, 0),
    (3, 3, Unknown, 0, Pass, Up, 0),
    (3, 3, Unknown, 0, Fail, Down, 0),
    // Up: `fall` failures in a row, whatever rise is.
    (1, 1, Up, 0, Pass, Up, 0),
    (1, 1, Up, 0, Fail, Down, 0),
    (1, 2, Up, 0, Pass, Up, 0),
    (1, 2, Up, 0, Fail, Up, 1),
    (1, 2, Up, 1, Pass, Up, 0),
    (1, 2, Up, 1, Fail, Down, 0),
    (1, 3, Up, 0, Pass, Up, 0),
    (1, 3, Up, 0, Fail, Up, 1),
    (1, 3, Up, 1, Pass, Up, 0),
    (1, 3, Up, 1, Fail, Up, 2),
    (1, 3, Up, 2, Pass, Up, 0),
    (1, 3, Up, 2, Fail, Down, 0),
    (2, 1, Up, 0, Pass, Up, 0),
    (2, 1, Up, 0, Fail, Down, 0),
    (2, 2, Up, 0, Pass, Up, 0),
    (2, 2, Up, 0, Fail, Up, 1),
    (2, 2, Up, 1, Pass, Up, 0),
    (2, 2, Up, 1, Fail, Down, 0),
    (2, 3, Up, 0, Pass, Up, 0),
    (2, 3, Up, 0, Fail, Up, 1),
    (2, 3, Up, 1, Pass, Up, 0),
    (2, 3, Up, 1, Fail, Up, 2),
    (2, 3, Up, 2, Pass, Up, 0),
    (2, 3, Up, 2, Fail, Down, 0),
    (3, 1, Up, 0, Pass, Up, 0),
    (3, 1, Up, 0, Fail, Down, 0),
    (3, 2, Up, 0, Pass, Up, 0),
    (3, 2, Up, 0, Fail, Up, 1),
    (3, 2, Up, 1, Pass, Up, 0),
    (3, 2, Up, 1, Fail, Down, 0),
    (3, 3, Up, 0, Pass, Up, 0),
    (3, 3, Up, 0, Fail, Up, 1),
    (3, 3, Up, 1, Pass, Up, 0),
    (3, 3, Up, 1, Fail, Up, 2),
    (3, 3, Up, 2, Pass, Up, 0),
    (3, 3, Up, 2, Fail, Down, 0),
    // Down: `rise` passes in a row, whatever fall is.
    (1, 1, Down, 0, Fail, Down, 0),
    (1, 1, Down, 0, Pass, Up, 0),
    (1, 2, Down, 0, Fail, Down, 0),
    (1, 2, Down, 0, Pass, Up, 0),
    (1, 3, Down, 0, Fail, Down, 0),
    (1, 3, Down, 0, Pass, Up, 0),
    (2, 1, Down, 0, Fail, Down, 0),
    (2, 1, Down, 0, Pass, Down, 1),
    (2, 1, Down, 1, Fail, Down, 0),
    (2, 1, Down, 1, Pass, Up, 0),
    (2, 2, Down, 0, Fail, Down, 0),
    (2, 2, Down, 0, Pass, Down, 1),
    (2, 2, Down, 1, Fail, Down, 0),
    (2, 2, Down, 1, Pass, Up, 0),
    (2, 3, Down, 0, Fail, Down, 0),
    (2, 3, Down, 0, Pass, Down, 1),
    (2, 3, Down, 1, Fail, Down, 0),
    (2, 3, Down, 1, Pass, Up, 0),
    (3, 1, Down, 0, Fail, Down, 0),
    (3, 1, Down, 0, Pass, Down, 1),
    (3, 1, Down, 1, Fail, Down, 0),
    (3, 1, Down, 1, Pass, Down, 2),
    (3, 1, Down, 2, Fail, Down, 0),
    (3, 1, Down, 2, Pass, Up, 0),
    (3, 2, Down, 0, Fail, Down, 0),
    (3, 2, Down, 0, Pass, Down, 1),
    (3, 2, Down, 1, Fail, Down, 0),
    (3, 2, Down, 1, Pass, Down, 2),
    (3, 2, Down, 2, Fail, Down, 0),
    (3, 2, Down, 2, Pass, Up, 0),
    (3, 3, Down, 0, Fail, Down, 0),
    (3, 3, Down, 0, Pass, Down, 1),
    (3, 3, Down, 1, Fail, Down, 0),
    (3, 3, Down, 1, Pass, Down, 2),
    (3, 3, Down, 2, Fail, Down, 0),
    (3, 3, Down, 2, Pass, Up, 0),
];

#[test]
fn the_transition_table_is_exhaustive_and_holds() {
    for rise in 1..=3 {
        for fall in 1..=3 {
            for (state, counts) in [(Unknown, 1), (Up, fall), (Down, rise)] {
                for contrary in 0..counts {
                    for verdict in [Pass, Fail] {
                        let before = (rise, fall, state, contrary, verdict);
                        let rows: Vec<_> = TRANSITIONS
                            .iter()
                            .filter(|row| (row.0, row.1, row.2, row.3, row.4) == before)
                            .collect();
                        assert_eq!(rows.len(), 1, "rows for {before:?}");
                    }
                }
            }
        }
    }

    let at = Instant::now();
    for &(rise, fall, from, contrary, verdict, to, contrary_after) in TRANSITIONS {
        let row = format!("rise {rise}, fall {fall}, {from} with {contrary}, then {verdict:?}");
        let mut machine = machine(rise, fall, from);
        machine.contrary = contrary;
        let transition = machine.observe(at, verdict);
        assert_eq!(
            (machine.state(), machine.contrary()),
            (to, contrary_after),
            "{row}"
        );
        let reason = match (from, to) {
            (Unknown, _) => Reason::First(verdict),
            (_, Up) => Reason::Passes(count(rise)),
            (_, _) => Reason::Failures(count(fall)),
        };
        let expected = (from != to).then_some(Transition {
            from,
            to,
            at,
            reason,
        });
        assert_eq!(transition, expected, "{row}");
    }
}

#[test]
fn stale_verdicts_change_nothing_and_simultaneous_ones_count() {
    let start = Instant::now();
    let mut machine = machine(1, 2, Up);
    let later = start + Duration::from_secs(1);
    assert_eq!(machine.observe(later, Fail), None);
    assert_eq!(
        machine.observe(start, Fail),
        None,
        "a stale failure must not count"
    );
    assert_eq!(machine.observe(start, Pass), None);
    assert_eq!(
        machine.contrary(),
        1,
        "a stale pass must not reset the count"
    );
    let transition = machine
        .observe(later, Fail)
        .expect("as late as the latest is not stale");
    assert_eq!((transition.to, transition.at), (Down, later));
}

#[test]
fn an_adopted_state_survives_a_single_lost_probe() {
    let at = Instant::now();
    assert_eq!(machine(2, 3, Up).observe(at, Fail), None);
    assert_eq!(machine(2, 3, Down).observe(at, Pass), None);
}

#[test]
fn reasons_read_like_sentences() {
    for (reason, text) in [
        (Reason::First(Pass), "first probe passed"),
        (Reason::First(Fail), "first probe failed"),
        (Reason::Passes(count(1)), "1 pass"),
        (Reason::Passes(count(2)), "2 passes in a row"),
        (Reason::Failures(count(1)), "1 failure"),
        (Reason::Failures(count(3)), "3 failures in a row"),
    ] {
        assert_eq!(reason.to_string(), text);
    }
}

/// The state after a whole history, read off its end: no counters, no transitions.
///
/// The last run of equal verdicts that was long enough to decide, decided.
fn oracle(rise: u32, fall: u32, start: State, history: &[(u64, Verdict)]) -> State {
    let mut heard: Vec<(u64, Verdict)> = Vec::new();
    for &(at, verdict) in history {
        if heard.iter().all(|&(earlier, _)| earlier <= at) {
            heard.push((at, verdict));
        }
    }
    let runs = heard.chunk_by(|a, b| a.1 == b.1).collect::<Vec<_>>();
    let decided = runs.iter().rev().find_map(|run| match run[0].1 {
        Pass if run.len() >= rise as usize => Some(Up),
        Fail if run.len() >= fall as usize => Some(Down),
        _ => None,
    });
    let first = heard
        .first()
        .map(|&(_, verdict)| if verdict == Pass { Up } else { Down });
    match start {
        Unknown => decided.or(first).unwrap_or(Unknown),
        known => decided.unwrap_or(known),
    }
}

proptest! {
    #[test]
    fn agrees_with_the_oracle_on_any_history(
        rise in 1u32..5,
        fall in 1u32..5,
        start in prop_oneof![Just(Unknown), Just(Up), Just(Down)],
        steps in prop::collection::vec((-2i64..6, prop_oneof![Just(Pass), Just(Fail)]), 0..60),
    ) {
        let mut clock = 1_000_i64;
        let history: Vec<(u64, Verdict)> = steps
            .into_iter()
            .map(|(step, verdict)| {
                clock += step;
                (clock as u64, verdict)
            })
            .collect();
        let origin = Instant::now();
        let mut machine = machine(rise, fall, start);
        for (index, &(at, verdict)) in history.iter().enumerate() {
            let before = machine.state();
            let transition = machine.observe(origin + Duration::from_millis(at), verdict);
            prop_assert_eq!(machine.state(), oracle(rise, fall, start, &history[..=index]));
            let change = (before != machine.state()).then_some((before, machine.state()));
            prop_assert_eq!(transition.map(|t| (t.from, t.to)), change);
        }
    }
}
