//! What is published beside rings and records, and what a later controller finds of it.

mod homes;

use std::{collections::BTreeMap, num::NonZeroU32};

use aya::maps::{Map, MapData, lpm_trie::LpmTrie};
use evenkeel_tests::run_dir::RunDir;
use homes::{DROP, PASS, TX, VIP4, open, open_in, plan, run, service};
use lb_common::testing::Plan;
use lb_userspace::{
    balance::image::{Common, Image, Numbers},
    dataplane::{DataPlane as _, kernel::Kernel, pin},
    model::{Protocol, Service, Sources, Tracking},
};

fn denying(prefixes: &[&str]) -> Service {
    let mut service = service(0, VIP4, 80, Protocol::Tcp, 2);
    service.options.sources = Some(Sources {
        allow: Vec::new(),
        deny: prefixes
            .iter()
            .map(|prefix| prefix.parse().expect("a prefix"))
            .collect(),
    });
    service
}

fn image(service: &Service, live: Option<&Image>) -> Image {
    let mut numbers = Numbers::default();
    numbers
        .assign(std::slice::from_ref(service))
        .expect("there is room");
    let plans = [plan(service, &numbers)];
    Image::build(&plans, &numbers, Common::seeded(7), live)
}

fn trie(dir: &RunDir) -> LpmTrie<MapData, [u32; 6], u8> {
    let data = MapData::from_pin(pin(&dir.bpf().join("evenkeel"), "SOURCES")).expect("the map");
    let map = Map::from_map_data(data).expect("a map");
    LpmTrie::try_from(map).expect("a trie")
}

/// How many prefixes the kernel holds of each list.
fn held(dir: &RunDir) -> BTreeMap<u32, usize> {
    let mut held = BTreeMap::new();
    for key in trie(dir).keys() {
        let [list, ..] = key.expect("a key").data();
        *held.entry(list).or_default() += 1;
    }
    held
}

fn publish(kernel: &mut Kernel, image: &Image) {
    kernel
        .publish(image)
        .unwrap_or_else(|error| panic!("{error}"));
    let live = kernel.live().expect("tables").expect("a publication");
    assert!(live == *image, "what is read back is what was published");
}

#[test]
fn lists_of_sources_change_as_the_tables_do() {
    let (mut kernel, dir) = open();
    let from = |source: [u8; 4]| {
        let vip = (VIP4.parse::<std::net::IpAddr>().expect("an address"), 80);
        Plan::tcp((source, 5000).into(), vip.into()).bytes()
    };
    let (near, far) = (from([10, 1, 2, 3]), from([203, 0, 113, 9]));
    let actions = |kernel: &mut Kernel| {
        let program = kernel.program().expect("the program");
        [&near, &far].map(|frame| run(program, frame).0)
    };
    assert_eq!(actions(&mut kernel), [PASS, PASS]);
    let first = image(&denying(&["10.0.0.0/8"]), None);
    publish(&mut kernel, &first);
    assert_eq!(actions(&mut kernel), [DROP, TX]);
    assert_eq!(held(&dir), [(1, 1)].into());
    let second = image(&denying(&["203.0.113.0/24", "192.0.2.0/24"]), Some(&first));
    publish(&mut kernel, &second);
    assert_eq!(actions(&mut kernel), [TX, DROP]);
    assert_eq!(held(&dir), [(2, 2)].into());

    // A controller that dies between writing a list and publishing the tables that name it.
    let stray = aya::maps::lpm_trie::Key::new(64, [1, 4, 0, 0, 0, 0]);
    trie(&dir).insert(&stray, 0, 0).expect("there is room");
    drop(kernel);
    let mut kernel = open_in(&dir, &Tracking::default());
    assert_eq!(held(&dir), [(2, 2)].into());
    assert_eq!(actions(&mut kernel), [TX, DROP]);
    // What comes to lie under a number just before that is written.
    trie(&dir).insert(&stray, 0, 0).expect("there is room");
    let third = image(&denying(&["10.0.0.0/8"]), Some(&second));
    publish(&mut kernel, &third);
    assert_eq!(actions(&mut kernel), [DROP, TX]);
    let mut open = denying(&[]);
    open.options.sources = None;
    publish(&mut kernel, &image(&open, Some(&third)));
    assert_eq!(actions(&mut kernel), [TX, TX]);
    assert_eq!(held(&dir), BTreeMap::new());
}

#[test]
fn maps_of_flows_keep_their_size_until_they_are_unloaded() {
    let (kernel, dir) = open();
    assert_eq!(kernel.kept(), []);
    drop(kernel);
    let size = |map: &str| {
        let data = MapData::from_pin(pin(&dir.bpf().join("evenkeel"), map)).expect("the map");
        data.info().expect("its info").max_entries()
    };
    assert_eq!((size("FRESH"), size("ESTABLISHED")), (65_536, 262_144));
    let small = Tracking {
        fresh: NonZeroU32::new(2048).expect("a number"),
        established: NonZeroU32::new(4096).expect("a number"),
        ..Tracking::default()
    };
    let kernel = open_in(&dir, &small);
    let kept: Vec<_> = kernel
        .kept()
        .iter()
        .map(|kept| (kept.map, kept.entries, kept.configured))
        .collect();
    assert_eq!(
        kept,
        [("FRESH", 65_536, 2048), ("ESTABLISHED", 262_144, 4096)]
    );
    assert_eq!((size("FRESH"), size("ESTABLISHED")), (65_536, 262_144));
    drop(kernel);
    lb_userspace::dataplane::kernel::unload(&dir.bpf().join("evenkeel")).expect("it is ours");
    let kernel = open_in(&dir, &small);
    assert_eq!(kernel.kept(), []);
    assert_eq!((size("FRESH"), size("ESTABLISHED")), (2048, 4096));
}
