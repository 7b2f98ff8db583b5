//! The kernel's tables of remembered flows are read whole and emptied in batches.

mod homes;

use std::collections::BTreeMap;

use aya::maps::{HashMap, Map, MapData};
use homes::open;
use lb_common::{flow::Flow, layout::FlowEntry};
use lb_userspace::{
    balance::sweep::Table,
    dataplane::{
        flows::{Flows, Walk},
        pin,
    },
};

const ENTRIES: u32 = 20_000;

/// Reads a whole table.
fn all(flows: &Flows, table: Table) -> BTreeMap<Flow, FlowEntry> {
    let mut entries = BTreeMap::new();
    let mut at = Some(Walk::Start);
    while let Some(from) = at {
        let (read, next) = flows.read(table, from).expect("the kernel answers");
        entries.extend(read);
        at = next;
    }
    entries
}

fn entry(n: u32) -> (Flow, FlowEntry) {
    let mut flow: Flow = bytemuck::Zeroable::zeroed();
    flow.source[3] = n;
    let mut entry: FlowEntry = bytemuck::Zeroable::zeroed();
    entry.seen = n;
    (flow, entry)
}

#[test]
fn tables_are_read_whole_and_emptied() {
    let (kernel, dir) = open();
    for (name, table) in [("FRESH", Table::Fresh), ("ESTABLISHED", Table::Established)] {
        let data = MapData::from_pin(pin(&dir.bpf().join("evenkeel"), name)).expect("a pin");
        let map = Map::from_map_data(data).expect("a map");
        let mut map: HashMap<_, [u32; 10], [u32; 8]> = map.try_into().expect("a hash");
        let flows = kernel.flows();
        assert!(all(flows, table).is_empty());
        let entries: BTreeMap<Flow, FlowEntry> = (0..ENTRIES).map(entry).collect();
        for (flow, entry) in &entries {
            map.insert(
                bytemuck::cast::<_, [u32; 10]>(*flow),
                bytemuck::cast::<_, [u32; 8]>(*entry),
                0,
            )
            .expect("there is room");
        }
        assert!(
            all(flows, table) == entries,
            "{name}: every entry is read, and no other"
        );
        let (key, value) = entry(7);
        assert_eq!(
            flows.find(&key).expect("the kernel answers"),
            Some((table, value))
        );

        // Every second one, with some that are gone already among them.
        let gone: Vec<Flow> = (0..ENTRIES + 50).step_by(2).map(|n| entry(n).0).collect();
        flows
            .forget(table, &gone[..10])
            .expect("the kernel answers");
        flows.forget(table, &gone).expect("the kernel answers");
        let rest: BTreeMap<Flow, FlowEntry> = (1..ENTRIES).step_by(2).map(entry).collect();
        assert!(all(flows, table) == rest, "{name}: the others are left");
        let rest: Vec<Flow> = rest.into_keys().collect();
        flows.forget(table, &rest).expect("the kernel answers");
        assert!(all(flows, table).is_empty());
    }
}
