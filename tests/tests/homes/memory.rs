//! What the kernel's home remembers, beside what the host's does.

use std::{collections::BTreeMap, fmt::Debug, path::Path};

use aya::maps::{HashMap, LpmTrie, Map, MapData, PerCpuArray, PerCpuValues, lpm_trie::Key};
use bytemuck::Pod;
use lb_common::{
    flow::Flow,
    host::Host,
    layout::{Allowance, EndpointEvents, FlowEntry, Scratch, SourceKey, TrackingCounters},
};
use lb_userspace::dataplane::pin;

/// By how many ticks what both have noted may differ: entries are written to once in 1,024, and
/// this process may have to wait between the two.
const CLOCKS: u32 = 4096;

type Hash<const K: usize, const V: usize> = HashMap<MapData, [u8; K], [u8; V]>;

/// The maps.
pub(crate) struct Memory {
    fresh: Hash<40, 32>,
    established: Hash<40, 32>,
    fragments: Hash<40, 32>,
    limits: Hash<20, 8>,
    sources: LpmTrie<MapData, [u8; 24], u8>,
    scratch: PerCpuArray<MapData, [u32; 4]>,
    events: PerCpuArray<MapData, [u64; 4]>,
    tracking: PerCpuArray<MapData, [u64; 4]>,
}

fn bytes<T: Pod, const N: usize>(value: &T) -> [u8; N] {
    bytemuck::bytes_of(value)
        .try_into()
        .expect("the map's size")
}

fn close(kernel: u32, host: u32) -> bool {
    let apart = kernel.wrapping_sub(host);
    apart.min(apart.wrapping_neg()) <= CLOCKS
}

impl Memory {
    pub(crate) fn open(pins: &Path) -> Self {
        let data = |name: &str| MapData::from_pin(pin(pins, name)).expect("a pinned map");
        let lru = |name| Map::LruHashMap(data(name));
        let per_cpu = |name| Map::PerCpuArray(data(name));
        let key = "keys and values of the layout's size";
        Self {
            fresh: lru("FRESH").try_into().expect(key),
            established: Map::HashMap(data("ESTABLISHED")).try_into().expect(key),
            fragments: lru("FRAGMENTS").try_into().expect(key),
            limits: lru("LIMITS").try_into().expect(key),
            sources: Map::LpmTrie(data("SOURCES")).try_into().expect(key),
            scratch: per_cpu("SCRATCH").try_into().expect(key),
            events: per_cpu("EVENTS").try_into().expect(key),
            tracking: per_cpu("TRACKING").try_into().expect(key),
        }
    }

    pub(crate) fn put_fresh(&mut self, flow: &Flow, entry: &FlowEntry) {
        self.fresh
            .insert(bytes(flow), bytes(entry), 0)
            .expect("room");
    }

    pub(crate) fn put_established(&mut self, flow: &Flow, entry: &FlowEntry) {
        self.established
            .insert(bytes(flow), bytes(entry), 0)
            .expect("room");
    }

    pub(crate) fn put_source(&mut self, source: &SourceKey, allowed: u8) {
        let all: [u8; 28] = bytes(source);
        let data: [u8; 24] = all[4..].try_into().expect("the key without its prefix");
        let key = Key::new(source.prefix, data);
        self.sources.insert(&key, allowed, 0).expect("room");
    }

    /// What this processor, the first, keeps for itself.
    pub(crate) fn put_scratch(&mut self, scratch: &Scratch) {
        let mut all: Vec<[u32; 4]> = self.scratch.get(&0, 0).expect("a value").to_vec();
        all[0] = bytemuck::cast(*scratch);
        let all = PerCpuValues::try_from(all).expect("one for each processor");
        self.scratch.set(0, all, 0).expect("a value");
    }

    pub(crate) fn scratch(&self) -> Scratch {
        bytemuck::cast(self.scratch.get(&0, 0).expect("a value")[0])
    }

    pub(crate) fn events(&self, endpoint: u16) -> EndpointEvents {
        bytemuck::cast(sum(&self.events, endpoint.into()))
    }

    pub(crate) fn tracking(&self) -> TrackingCounters {
        bytemuck::cast(sum(&self.tracking, 0))
    }

    /// Checks that both homes remember the same.
    pub(crate) fn compare(&self, host: &Host) {
        let entries = |kernel: &FlowEntry, host: &FlowEntry| {
            let seen = host.seen;
            close(kernel.seen, seen) && FlowEntry { seen, ..*kernel } == *host
        };
        same("fresh flows", &self.fresh, &host.fresh.borrow(), entries);
        same(
            "established flows",
            &self.established,
            &host.established.borrow(),
            entries,
        );
        same(
            "fragments",
            &self.fragments,
            &host.fragments.borrow(),
            entries,
        );
        let allowances = |kernel: &Allowance, host: &Allowance| {
            close(kernel.filled, host.filled) && close(kernel.left, host.left)
        };
        same(
            "limited sources",
            &self.limits,
            &host.limits.borrow(),
            allowances,
        );
    }

    /// Makes both homes forget everything but their counters, and the lists of sources.
    pub(crate) fn forget(&mut self, host: &mut Host) {
        clear(&mut self.fresh);
        clear(&mut self.established);
        clear(&mut self.fragments);
        clear(&mut self.limits);
        for list in [&mut host.fresh, &mut host.established] {
            list.get_mut().clear();
        }
        host.fragments.get_mut().clear();
        host.limits.get_mut().clear();
    }

    /// Makes both homes forget the lists of sources.
    pub(crate) fn forget_sources(&mut self, host: &mut Host) {
        for source in std::mem::take(&mut host.sources).keys() {
            let all: [u8; 28] = bytes(source);
            let data: [u8; 24] = all[4..].try_into().expect("the key without its prefix");
            let key = Key::new(source.prefix, data);
            self.sources.remove(&key).expect("it was put in");
        }
    }
}

fn sum(map: &PerCpuArray<MapData, [u64; 4]>, index: u32) -> [u64; 4] {
    let values = map.get(&index, 0).expect("a value");
    values.iter().fold([0; 4], |total, cpu| {
        std::array::from_fn(|n| total[n] + cpu[n])
    })
}

fn clear<const K: usize, const V: usize>(map: &mut Hash<K, V>) {
    let keys: Vec<[u8; K]> = map.keys().collect::<Result<_, _>>().expect("the keys");
    for key in keys {
        map.remove(&key).expect("it stood there");
    }
}

fn same<Q, E, const K: usize, const V: usize>(
    what: &str,
    kernel: &Hash<K, V>,
    host: &BTreeMap<Q, E>,
    alike: impl Fn(&E, &E) -> bool,
) where
    Q: Pod + Ord + Debug,
    E: Pod + Debug,
{
    for (key, expected) in host {
        let found = kernel
            .get(&bytes(key), 0)
            .unwrap_or_else(|error| panic!("{what}: {key:?} of the host, in the kernel: {error}"));
        let found: E = bytemuck::pod_read_unaligned(&found);
        assert!(
            alike(&found, expected),
            "{what}: {key:?} is {found:?} in the kernel and {expected:?} on the host"
        );
    }
    let keys = kernel.keys().count();
    assert_eq!(keys, host.len(), "{what}: in the kernel, and on the host");
}
