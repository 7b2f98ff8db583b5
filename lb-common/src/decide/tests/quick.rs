//! The shortest way, and what never comes further.

use std::vec::Vec;

use proptest::prelude::*;

use super::bed::{Bed, ends, to_vip, words};
use crate::{
    decide::Plain,
    flow::{V4, V6},
    layout::{self, Slot, mode},
    verdict::{Reason, Verdict},
    wire::tcp,
};

#[test]
fn a_forwarded_frame_changes_its_macs_alone() {
    let bed = Bed::new(mode::DSR, V4);
    for family in [V4, V6] {
        let frame = to_vip(family).bytes();
        let (verdict, bytes) = bed.run(&frame);
        assert_eq!(verdict, Verdict::Transmit);
        assert_eq!(bytes[..12], [1, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 5]);
        assert_eq!(bytes[12..], frame[12..]);
    }
    let counters = bed.host.endpoints.borrow()[&1];
    let bytes = to_vip(V4).bytes().len() + to_vip(V6).bytes().len();
    assert_eq!((counters.packets, counters.bytes), (2, bytes as u64));
    assert_eq!(counters.new_flows, 0);
}

#[test]
fn a_syn_is_a_new_flow_unless_it_comes_again() {
    let bed = Bed::new(mode::DSR, V4);
    let counters = || bed.host.endpoints.borrow()[&1];
    for (sequence, flows) in [(7, 1), (7, 1), (8, 2), (7, 3)] {
        assert_eq!(bed.went(&to_vip(V4).segment(tcp::SYN, sequence)), 1);
        assert_eq!(counters().new_flows, flows, "after ISN {sequence}");
    }
    assert_eq!(bed.host.events.borrow()[&1].retransmitted, 1);
    bed.went(&to_vip(V4).segment(tcp::SYN | tcp::ACK, 9));
    bed.went(&to_vip(V4).segment(tcp::RST, 9));
    assert_eq!((counters().new_flows, counters().packets), (3, 6));
    assert_eq!(bed.host.events.borrow()[&1].resets, 1);
    // Each new flow is told with its client and its backend, and nothing else is.
    let client = words(ends(V4).0);
    let opened = bed.host.opened.borrow();
    let told = opened.iter().map(|&(client, to, _)| (client, to));
    assert!(told.eq([(client, 1); 3]), "{opened:?}");
}

#[test]
fn in_every_mode_a_new_flow_is_told_with_its_client() {
    for mode in [mode::IPIP, mode::GUE, mode::NAT] {
        let bed = Bed::new(mode, V4);
        let syn = to_vip(V4).segment(tcp::SYN, 7);
        assert_eq!(bed.went(&syn), 1, "mode {mode}");
        let client = words(ends(V4).0);
        let opened = bed.host.opened.borrow();
        let told = opened.iter().map(|&(client, to, _)| (client, to));
        assert!(told.eq([(client, 1)]), "mode {mode}: {opened:?}");
    }
}

#[test]
fn another_interface_is_a_redirection() {
    let mut bed = Bed::new(mode::DSR, V4);
    bed.tables().endpoints[1].interface = 9;
    let frame = to_vip(V4).bytes();
    let (verdict, bytes) = bed.run(&frame);
    assert_eq!(verdict, Verdict::Redirect(9));
    assert_eq!(bytes[..4], [1, 0, 0, 0]);
    assert_eq!(bytes[12..], frame[12..]);
}

#[test]
fn an_owner_without_a_record_passes() {
    let mut bed = Bed::new(mode::DSR, V4);
    bed.slots(Slot::steady(layout::NONE));
    let frame = to_vip(V4).bytes();
    let expected = (Verdict::Pass(Reason::Unresolved), frame.clone());
    assert_eq!(bed.run(&frame), expected);
}

#[test]
fn a_packet_longer_than_its_frame_passes() {
    let bed = Bed::new(mode::DSR, V4);
    for family in [V4, V6] {
        let frame = to_vip(family).bytes();
        let cut = &frame[..frame.len() - 1];
        let expected = (Verdict::Pass(Reason::Truncated), cut.to_vec());
        assert_eq!(bed.run(cut), expected);
        // Padding behind it is no harm.
        let padded = [&frame[..], &[0; 6]].concat();
        let (verdict, bytes) = bed.run(&padded);
        assert_eq!(verdict, Verdict::Transmit);
        assert_eq!(bytes[12..], padded[12..]);
    }
}

#[test]
fn tables_that_contradict_themselves_pass() {
    let frame = to_vip(V4).bytes();
    let mut bed = Bed::new(mode::DSR, V4);
    bed.host.small_rings.clear();
    assert_eq!(bed.run(&frame).0, Verdict::Pass(Reason::BadTables));
    let mut bed = Bed::new(mode::DSR, V4);
    bed.services(|vip| vip.state = 77);
    assert_eq!(bed.run(&frame).0, Verdict::Pass(Reason::BadTables));
    bed.host.tables = None;
    assert_eq!(bed.run(&frame).0, Verdict::Pass(Reason::NoTables));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_touch_what_it_does_not_send(
        start in 0..4usize,
        noise in prop::collection::vec(any::<u8>(), 0..120),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in 0..200usize,
        mode in mode::DSR..=mode::GUE,
    ) {
        let bed = Bed::new(mode, V4);
        let mut bytes: Vec<u8> = match start {
            0 => noise,
            1 => to_vip(V4).bytes(),
            2 => to_vip(V6).bytes(),
            _ => to_vip(V4).tagged(&[0x88a8, 0x8100]).bytes(),
        };
        bytes.truncate(cut);
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        let (verdict, after) = bed.run(&bytes);
        match verdict {
            Verdict::Transmit if mode == mode::DSR => prop_assert_eq!(&after[12..], &bytes[12..]),
            Verdict::Transmit => prop_assert!(after.len() > bytes.len()),
            _ => prop_assert_eq!(after, bytes),
        }
    }
}

#[test]
fn a_plain_packet_survives_two_numbers() {
    let plain = Plain {
        hash: 0x0123_4567_89ab_cdef,
        place: 0xfedc_ba98,
        end: 0x7654_3210,
        network: 0x16,
        transport: 0x142,
        tcp_flags: 0x9a,
        protocol: 0x11,
        family: 6,
        endpoint: 0x8765,
    };
    assert_eq!(Plain::unpack(plain.hash, plain.pack()), plain);
}
