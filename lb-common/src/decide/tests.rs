use std::{boxed::Box, net::SocketAddr, vec, vec::Vec};

use bytemuck::Zeroable as _;
use proptest::prelude::*;

use super::*;
use crate::{
    host::{Frame, Memory, Tally},
    layout::Slot,
    testing::Plan,
};

/// One service, TCP 198.51.100.10:80, whose every slot is endpoint 1's.
fn tables() -> Memory {
    let mut tables: Box<layout::Tables> = bytemuck::zeroed_box();
    let key = VipKey {
        address: flow::v4(u32::from_ne_bytes([198, 51, 100, 10])),
        port: 80u16.to_be(),
        protocol: tcp::PROTOCOL,
        family: flow::V4,
    };
    let place = tables.header.places(&key)[1];
    tables.vips[place] = Vip {
        key,
        slot_mask: 255,
        state: state::SERVING,
        ..Vip::zeroed()
    };
    tables.endpoints[1] = Endpoint {
        macs: [1, 2, 3],
        interface: 1,
        mode: mode::DSR,
        ..Endpoint::zeroed()
    };
    let rings = [(0, vec![Slot::steady(1); 256])].into();
    Memory {
        tables: Some(tables),
        rings,
    }
}

fn plan() -> Plan {
    let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
    Plan::tcp(at("203.0.113.9:51000"), at("198.51.100.10:80"))
}

fn run(memory: &Memory, tally: &Tally, bytes: &[u8]) -> (Verdict, Vec<u8>) {
    let mut frame = Frame {
        bytes: bytes.to_vec(),
        ingress: 1,
    };
    let verdict = process(&mut frame, memory, tally);
    (verdict, frame.bytes)
}

#[test]
fn a_forwarded_frame_changes_its_macs_alone() {
    let (tally, frame) = (Tally::default(), plan().bytes());
    let (verdict, bytes) = run(&tables(), &tally, &frame);
    assert_eq!(verdict, Verdict::Transmit);
    assert_eq!(bytes[..12], [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]);
    assert_eq!(bytes[12..], frame[12..]);
    assert_eq!(tally.endpoints.borrow()[&1].bytes, frame.len() as u64);
}

#[test]
fn a_syn_is_a_new_flow_unless_it_comes_again() {
    let (memory, tally) = (tables(), Tally::default());
    for (sequence, flows) in [(7, 1), (7, 1), (8, 2), (7, 3)] {
        let _ = run(&memory, &tally, &plan().segment(tcp::SYN, sequence).bytes());
        assert_eq!(
            tally.endpoints.borrow()[&1].new_flows,
            flows,
            "after ISN {sequence}"
        );
    }
    let _ = run(
        &memory,
        &tally,
        &plan().segment(tcp::SYN | tcp::ACK, 9).bytes(),
    );
    assert_eq!(tally.endpoints.borrow()[&1].new_flows, 3);
    assert_eq!(tally.endpoints.borrow()[&1].packets, 5);
}

#[test]
fn an_owner_without_a_record_passes() {
    let mut memory = tables();
    memory
        .rings
        .insert(0, vec![Slot::steady(layout::NONE); 256]);
    let (verdict, _) = run(&memory, &Tally::default(), &plan().bytes());
    assert_eq!(verdict, Verdict::Pass(Reason::Unresolved));
}

#[test]
fn tables_that_contradict_themselves_pass() {
    let frame = plan().bytes();
    let mut memory = tables();
    memory.rings.clear();
    assert_eq!(
        run(&memory, &Tally::default(), &frame).0,
        Verdict::Pass(Reason::BadTables)
    );
    memory.tables = None;
    assert_eq!(
        run(&memory, &Tally::default(), &frame).0,
        Verdict::Pass(Reason::NoTables)
    );
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_touch_what_it_does_not_send(
        start in 0..3usize,
        noise in prop::collection::vec(any::<u8>(), 0..120),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in 0..200usize,
    ) {
        let mut bytes = match start {
            0 => noise,
            1 => plan().bytes(),
            _ => plan().tagged(&[0x88a8, 0x8100]).bytes(),
        };
        bytes.truncate(cut);
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        let (verdict, after) = run(&tables(), &Tally::default(), &bytes);
        if verdict == Verdict::Transmit {
            prop_assert_eq!(&after[12..], &bytes[12..]);
        } else {
            prop_assert_eq!(after, bytes);
        }
    }
}
