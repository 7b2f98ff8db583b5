use super::*;

/// Two endpoints that serve, one that does not, and a third that serves.
const A: u16 = 1;
const B: u16 = 2;
const DEAD: u16 = 3;
const C: u16 = 4;

fn serves(endpoint: u16) -> bool {
    [A, B, C].contains(&endpoint)
}

#[test]
fn every_transition_of_a_slot() {
    // Live owner and prior, the new owner, and the slot that follows.
    let table = [
        // The owner stays.
        ((A, NONE), A, (A, NONE)),
        ((A, PINNED), A, (A, PINNED)),
        ((A, B), A, (A, B)),
        ((A, DEAD), A, (A, PINNED)),
        ((DEAD, B), DEAD, (DEAD, B)),
        // A steady slot: the old owner's flows are protected while it serves.
        ((A, NONE), B, (B, A)),
        ((DEAD, NONE), B, (B, NONE)),
        ((NONE, NONE), B, (B, NONE)),
        // A pinned one likewise, and it never becomes steady by a change.
        ((A, PINNED), B, (B, A)),
        ((DEAD, PINNED), B, (B, PINNED)),
        // In a transition the unremembered flows are the prior's.
        ((A, B), C, (C, B)),
        ((DEAD, B), C, (C, B)),
        ((A, B), B, (B, PINNED)),
        ((DEAD, B), B, (B, PINNED)),
        // A prior that died leaves no unremembered flows, though the owner serves.
        ((A, DEAD), B, (B, PINNED)),
        ((DEAD, DEAD), B, (B, PINNED)),
        // Nobody is dead who takes new flows, but the rule holds all the same.
        ((A, DEAD), DEAD, (DEAD, PINNED)),
        ((A, NONE), DEAD, (DEAD, A)),
    ];
    for ((owner, prior), new, (after, then)) in table {
        assert_eq!(
            slot(Slot::new(owner, prior), new, serves),
            Slot::new(after, then),
            "owner {owner}, prior {prior}, then {new}"
        );
    }
}

fn present(now: u64) -> Present<'static, fn(u16) -> bool> {
    Present {
        serves,
        clean: &[],
        now,
        window: 600,
    }
}

fn ring(slots: &[(u16, u16)]) -> Vec<Slot> {
    slots.iter().map(|&(o, p)| Slot::new(o, p)).collect()
}

fn live(slots: &[Slot], changed: u64) -> Live<'_> {
    Live::Ring { slots, changed }
}

#[track_caller]
fn assert_next(next: &Next, slots: &[(u16, u16)], changed: u64) {
    assert_eq!((&next.slots[..], next.changed), (&ring(slots)[..], changed));
}

#[test]
fn a_first_ring_is_steady_and_one_after_none_is_pinned() {
    let next = follow(Live::Nothing, &[A, B], &present(1_000));
    assert_next(&next, &[(A, NONE), (B, NONE)], 0);
    let next = follow(Live::Empty, &[A, B], &present(1_000));
    assert_next(&next, &[(A, PINNED), (B, PINNED)], 0);
}

#[test]
fn the_window_begins_with_a_transition_and_begins_again_with_another() {
    let before = ring(&[(A, NONE), (B, NONE)]);
    let first = follow(live(&before, 0), &[B, B], &present(1_000));
    assert_next(&first, &[(B, A), (B, NONE)], 1_000);
    // Nothing changes: nor does the time.
    let same = follow(live(&first.slots, first.changed), &[B, B], &present(1_599));
    assert_eq!(same, first);
    let second = follow(live(&first.slots, first.changed), &[B, C], &present(1_599));
    assert_next(&second, &[(B, A), (C, B)], 1_599);
    let over = follow(live(&second.slots, 1_599), &[B, C], &present(2_199));
    assert_next(&over, &[(B, PINNED), (C, PINNED)], 0);
}

#[test]
fn a_window_that_is_over_ends_before_the_next_change() {
    let before = ring(&[(B, A)]);
    let next = follow(live(&before, 1_000), &[C], &present(1_600));
    // The flows of A that were silent for the whole window are given up: B's are the others.
    assert_next(&next, &[(C, B)], 1_600);
}

#[test]
fn a_clock_set_back_starts_the_window_again() {
    let before = ring(&[(B, A)]);
    let next = follow(live(&before, 5_000), &[B], &present(1_000));
    assert_next(&next, &[(B, A)], 1_000);
}

#[test]
fn only_clean_pinned_slots_become_steady() {
    let before = ring(&[(A, PINNED), (A, PINNED), (A, B), (A, PINNED)]);
    let clean = [true, false, true];
    let present = Present {
        clean: &clean,
        ..present(1_000)
    };
    let next = follow(live(&before, 900), &[A, A, A, A], &present);
    assert_next(&next, &[(A, NONE), (A, PINNED), (A, B), (A, PINNED)], 900);
}

#[test]
fn a_ring_grows_at_once_with_the_slots_that_its_flows_come_from() {
    let before = ring(&[(A, NONE), (B, PINNED)]);
    let next = follow(live(&before, 0), &[A, C, C, B], &present(1_000));
    assert_next(&next, &[(A, NONE), (C, B), (C, A), (B, PINNED)], 1_000);
}

#[test]
fn a_ring_shrinks_once_nothing_is_remembered() {
    let before = ring(&[(A, NONE), (B, NONE), (C, NONE), (B, NONE)]);
    let first = follow(live(&before, 0), &[A, B], &present(1_000));
    assert_next(&first, &[(A, NONE), (B, NONE), (A, C), (B, NONE)], 1_000);
    let second = follow(live(&first.slots, 1_000), &[A, B], &present(1_600));
    assert_next(&second, &[(A, NONE), (B, NONE), (A, PINNED), (B, NONE)], 0);
    let clean = Present {
        clean: &[false, false, true, false],
        ..present(1_610)
    };
    let third = follow(live(&second.slots, 0), &[A, B], &clean);
    assert_next(&third, &[(A, NONE), (B, NONE)], 0);
}

#[test]
fn the_last_who_serve_keep_their_flows() {
    let before = ring(&[(A, NONE), (DEAD, B), (DEAD, PINNED), (DEAD, NONE)]);
    let owners = last_resort(live(&before, 0), [C, A, DEAD], serves);
    assert_eq!(owners.as_deref(), Some(&[A, B, A, C][..]));
    assert_eq!(last_resort(live(&before, 0), [DEAD], serves), None);
    assert_eq!(last_resort(Live::Empty, [A], serves), None);
}
