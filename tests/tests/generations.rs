//! Every packet sees wholly the old tables or wholly the new ones, across rings and records.
//!
//! In generation `g` the ring of every service is owned by its endpoint `g % ENDPOINTS` alone,
//! and the destination address of each endpoint's record carries `g` and the endpoint. A packet
//! that got its slot from one generation and its record from another shows it.

#![expect(clippy::print_stdout, reason = "figures for the reader of a run")]

mod homes;

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
};

use aya::programs::Xdp;
use homes::{TX, service, stay_on, way};
use lb_common::testing::Plan;
use lb_userspace::{
    balance::image::{Common, Image, Numbers, ServicePlan},
    dataplane::DataPlane as _,
    model::{Protocol, RingSlots, Service},
};

const SERVICES: u16 = 8;
const ENDPOINTS: u16 = 5;
const PACKETS: u32 = 200_000;
const PUBLICATIONS: u32 = 200;

/// What the packets showed.
#[derive(Debug, Default)]
struct Seen {
    packets: u32,
    /// Those with the slot of one generation and the record of another.
    mixed: u32,
    /// Those that followed tables older than those published before they started.
    stale: u32,
    /// Those that followed tables whose publication had not begun.
    early: u32,
}

/// What the publisher tells the packets' thread.
#[derive(Default)]
struct Progress {
    begun: AtomicU32,
    published: AtomicU32,
    stop: AtomicBool,
}

fn image(generation: u32, services: &[Service], numbers: &Numbers, live: Option<&Image>) -> Image {
    let owner = (generation % u32::from(ENDPOINTS)) as u16;
    let plans: Vec<_> = services
        .iter()
        .map(|service| {
            let owners = vec![owner; RingSlots::LARGEST.count()];
            let ways = (0..ENDPOINTS)
                .map(|end| Some(way(generation << 8 | u32::from(end))))
                .collect();
            ServicePlan::steady(service, numbers, Some(&owners), ways)
        })
        .collect();
    Image::build(&plans, numbers, Common::seeded(7), live)
}

/// Sends packets to all services until told to stop.
fn watch(program: &Xdp, services: &[Service], progress: &Progress) -> Seen {
    stay_on(1);
    let mut seen = Seen::default();
    let client = |port| SocketAddr::from(([203, 0, 113, 9], port));
    let frames: Vec<_> = (0..1024u16)
        .map(|n| {
            let service = &services[usize::from(n) % services.len()];
            Plan::tcp(client(1024 + n), SocketAddr::new(service.key.vip, 80)).bytes()
        })
        .collect();
    for frame in frames.iter().cycle() {
        if progress.stop.load(Ordering::Acquire) && seen.packets >= PACKETS {
            break;
        }
        let published = progress.published.load(Ordering::Acquire);
        let (action, bytes) = homes::run(program, frame);
        let begun = progress.begun.load(Ordering::Acquire);
        assert_eq!(action, TX, "the packet is forwarded");
        let number = u32::from_be_bytes(bytes[2..6].try_into().expect("four bytes"));
        let (generation, endpoint) = (number >> 8, number & 0xff);
        seen.packets += 1;
        seen.mixed += u32::from(endpoint != generation % u32::from(ENDPOINTS));
        seen.stale += u32::from(generation < published);
        seen.early += u32::from(generation > begun);
    }
    seen
}

/// Publishes as fast as it can while packets run; `careful` as the controller does, and otherwise
/// each ring in the place of the one before it.
fn race(careful: bool) -> Seen {
    let services: Vec<_> = (0..SERVICES)
        .map(|n| service(n, &format!("198.51.100.{n}"), 80, Protocol::Tcp, ENDPOINTS))
        .collect();
    let mut numbers = Numbers::default();
    numbers.assign(&services).expect("there is room");
    let (mut kernel, dir) = homes::open();
    let object = homes::load_again(&dir);
    let program = homes::program(&object, "evenkeel");
    let mut live = image(0, &services, &numbers, None);
    kernel.publish(&live).expect("the first publication");
    let progress = Progress::default();
    let seen = thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(program, &services, &progress));
        stay_on(0);
        for generation in 1..=PUBLICATIONS {
            let next = image(generation, &services, &numbers, careful.then_some(&live));
            progress.begun.store(generation, Ordering::Release);
            kernel.publish(&next).expect("a publication");
            progress.published.store(generation, Ordering::Release);
            live = next;
        }
        progress.stop.store(true, Ordering::Release);
        watcher.join().expect("every packet was forwarded")
    });
    println!("{PUBLICATIONS} publications of {SERVICES} rings: {seen:?}");
    seen
}

#[test]
fn no_packet_sees_two_generations_and_none_an_old_one() {
    let seen = race(true);
    assert!(seen.packets >= PACKETS);
    assert_eq!((seen.mixed, seen.stale, seen.early), (0, 0, 0), "{seen:?}");
}

#[test]
fn a_ring_replaced_in_its_place_is_noticed() {
    let seen = race(false);
    assert!(seen.mixed > 0, "the other test could not fail: {seen:?}");
}
