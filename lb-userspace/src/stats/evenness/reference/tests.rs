use super::*;

fn backends(deviations: &[Deviation]) -> Vec<usize> {
    deviations
        .iter()
        .map(|deviation| deviation.backend)
        .collect()
}

#[test]
fn weights_are_held_against_equal_capacities_unless_declared() {
    assert_eq!(config_reference(&[7, 7, 7], None), []);
    let found = config_reference(&[1, 1, 10], None);
    assert_eq!(backends(&found), [0, 1, 2]);
    assert!((found[2].ratio() - 2.5).abs() < 1e-9);
    assert!((found[0].ratio() - 0.25).abs() < 1e-9);
    // The same weights are right where the capacities are such.
    assert_eq!(config_reference(&[1, 1, 10], Some(&[8, 8, 80])), []);
    assert_eq!(
        backends(&config_reference(&[1, 1, 1], Some(&[4, 4, 16]))),
        [0, 1, 2]
    );
}

#[test]
fn weights_may_be_a_tenth_off() {
    assert_eq!(config_reference(&[1000, 1000, 910], None), []);
    assert_eq!(backends(&config_reference(&[1000, 1000, 800], None)), [2]);
}

#[test]
fn a_weight_of_zero_is_a_decision() {
    assert_eq!(config_reference(&[5, 0, 5], None), []);
    assert_eq!(config_reference(&[5, 0, 10], Some(&[10, 70, 20])), []);
    assert_eq!(config_reference(&[0, 0], None), []);
    assert_eq!(config_reference(&[], None), []);
}

#[test]
fn a_table_may_be_a_slot_and_a_half_or_two_percent_off() {
    assert_eq!(
        table_reference(&[1, 1, 1], &[21_846, 21_845, 21_845], 65_536),
        []
    );
    assert_eq!(
        table_reference(&[1, 1, 1], &[22_200, 21_668, 21_668], 65_536),
        []
    );
    let found = table_reference(&[1, 1, 1], &[22_300, 21_618, 21_618], 65_536);
    assert_eq!(backends(&found), [0]);
    assert!((found[0].actual - 0.34027).abs() < 1e-4);
    // A hundred backends on few slots: 2.56 each, so three are fine and five are not.
    let mut counts = [3; 100];
    counts[7] = 5;
    assert_eq!(backends(&table_reference(&[1; 100], &counts, 256)), [7]);
    // A weight above zero gets a slot even where its share is far below one.
    assert_eq!(table_reference(&[1, 1000], &[1, 255], 256), []);
}

#[test]
fn a_table_is_wrong_where_a_backend_without_weight_owns_slots() {
    assert_eq!(backends(&table_reference(&[0, 1], &[2, 254], 256)), [0]);
    assert_eq!(backends(&table_reference(&[0, 0], &[0, 256], 256)), [1]);
    assert!(
        table_reference(&[0, 0], &[0, 256], 256)[0]
            .ratio()
            .is_infinite()
    );
    assert_eq!(table_reference(&[0, 0], &[0, 0], 256), []);
}

fn low_half(slot: u32) -> u16 {
    slot as u16
}

#[test]
fn the_same_tables_do_not_drift() {
    let table: Vec<u32> = (0..65_536).map(|slot| slot % 3).collect();
    let found = drift(&table, &table.clone(), low_half);
    assert!(found.is_none());
    assert_eq!(
        found,
        Drift {
            differing: 0,
            first: vec![],
            owners: vec![]
        }
    );
}

#[test]
fn drift_names_slots_and_owners() {
    let intended: Vec<u32> = (0..256).map(|slot| slot % 4).collect();
    let mut kernel = intended.clone();
    kernel[5] = 2;
    // The same owner, another prior.
    kernel[6] |= 9 << 16;
    for slot in (0..80).step_by(4) {
        kernel[slot] = 3;
    }
    let found = drift(&intended, &kernel, low_half);
    assert_eq!(found.differing, 22);
    assert_eq!(found.first.len(), 8);
    let slot_5 = SlotDifference {
        slot: 5,
        intended: Some(1),
        kernel: Some(2),
    };
    assert_eq!(found.first[2], slot_5);
    let change = |owner, gained, lost| OwnerChange {
        owner,
        gained,
        lost,
    };
    let expected = [
        change(0, 0, 20),
        change(1, 0, 1),
        change(2, 1, 0),
        change(3, 20, 0),
    ];
    assert_eq!(found.owners, expected);
}

#[test]
fn tables_of_different_sizes_drift_where_one_ends() {
    let found = drift(&[1_u32, 2, 3], &[1], low_half);
    assert_eq!(found.differing, 2);
    assert_eq!(
        found.first[0],
        SlotDifference {
            slot: 1,
            intended: Some(2),
            kernel: None
        }
    );
    let lost = |owner| OwnerChange {
        owner,
        gained: 0,
        lost: 1,
    };
    assert_eq!(found.owners, [lost(2), lost(3)]);
    assert_eq!(drift(&[], &[4_u32], low_half).owners[0].gained, 1);
}
