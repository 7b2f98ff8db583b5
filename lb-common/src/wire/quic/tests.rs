//! Packets as RFC 8999 draws them, connection IDs as the draft does: the first byte's upper three
//! bits are the configuration's rotation, then comes the server ID.

use std::vec::Vec;

use super::*;
use crate::host::Frame;

/// A long header: version 1, a destination connection ID, a source connection ID of one byte.
fn long(id: &[u8]) -> Vec<u8> {
    [
        b"\xc3\0\0\0\x01",
        &[id.len() as u8][..],
        id,
        b"\x01\x77",
        b"rest",
    ]
    .concat()
}

/// A short header: the destination connection ID follows the first byte.
fn short(id: &[u8]) -> Vec<u8> {
    [b"\x43", id, b"rest"].concat()
}

fn read(bytes: &[u8], length: u8) -> Option<Vec<u8>> {
    let id = server_id(&Frame::new(bytes, 1), 0, length)?;
    Some(bytemuck::bytes_of(&id).to_vec())
}

/// What a server ID is in four words: its bytes, then zeroes.
fn padded(id: &[u8]) -> Vec<u8> {
    let mut bytes = id.to_vec();
    bytes.resize(16, 0);
    bytes
}

const ID: &[u8] = b"\x2a\x11\x22\x33\x44\x55\x66\x77";

#[test]
fn the_server_id_stands_behind_the_first_byte_of_the_connection_id() {
    for length in 1..8 {
        let expected = Some(padded(&ID[1..=usize::from(length)]));
        assert_eq!(read(&short(ID), length), expected, "{length} bytes, short");
        if usize::from(length) < ID.len() {
            assert_eq!(read(&long(ID), length), expected, "{length} bytes, long");
        }
    }
}

#[test]
fn the_longest_server_id_fills_fifteen_bytes() {
    let id: Vec<u8> = (0x10..0x20).collect();
    assert_eq!(read(&short(&id), 15), Some(padded(&id[1..])));
    assert_eq!(read(&long(&id), 15), Some(padded(&id[1..])));
    // A longer one than that is never read, whatever the tables say.
    let long_id: Vec<u8> = (0x10..0x30).collect();
    assert_eq!(read(&short(&long_id), 16), Some(padded(&long_id[1..16])));
}

#[test]
fn a_connection_id_that_is_too_short_for_it_has_none() {
    assert_eq!(read(&long(b""), 1), None);
    assert_eq!(read(&long(&ID[..7]), 7), None);
    assert_eq!(read(&long(&ID[..8]), 7), Some(padded(&ID[1..8])));
}

#[test]
fn what_is_not_to_be_routed_by_has_none() {
    for rotation in 0..8 {
        let mut id = ID.to_vec();
        id[0] = rotation << 5 | 0x0a;
        let expected = (rotation != 7).then(|| ID[1..5].to_vec());
        for packet in [short(&id), long(&id)] {
            let found = read(&packet, 4).map(|id| id[..4].to_vec());
            assert_eq!(found, expected, "rotation {rotation}");
        }
    }
}

#[test]
fn a_packet_that_is_cut_short_has_none() {
    // The first byte, and behind it version and length, the ID's own first byte, the server ID.
    for (packet, needed) in [(short(ID), 1 + 5), (long(ID), 6 + 5)] {
        for length in 0..packet.len() {
            let expected = (length >= needed).then(|| padded(&ID[1..5]));
            assert_eq!(read(&packet[..length], 4), expected, "{length} bytes");
        }
    }
}
