use std::vec::Vec;

use proptest::prelude::*;

use super::*;

/// The checksum of bytes, word by word in network byte order: RFC 1071 §4.1, nothing clever.
fn whole(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for word in bytes.chunks(2) {
        sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A number as the bytes lie in memory.
fn lies(bytes: [u8; 2]) -> u16 {
    u16::from_ne_bytes(bytes)
}

#[test]
fn the_example_of_rfc_1071() {
    // §3: 00 01 f2 03 f4 f5 f6 f7 add up to dd f2.
    let words = [[0x00, 0x01, 0xf2, 0x03], [0xf4, 0xf5, 0xf6, 0xf7]].map(u32::from_ne_bytes);
    assert_eq!(of_words(&words), lies([!0xdd, !0xf2]));
    assert_eq!(
        fold(words.iter().map(|&word| u64::from(word)).sum()),
        lies([0xdd, 0xf2])
    );
}

#[test]
fn the_example_of_rfc_1624() {
    // §4: a field changes from 5555 to 3285 under a checksum of DD2F; the new one is 0000, where
    // the equation of RFC 1141 would have come to FFFF.
    let change = Change::default().half(lies([0x55, 0x55]), lies([0x32, 0x85]));
    assert_eq!(change.apply(lies([0xdd, 0x2f])), 0);
}

#[test]
fn a_header_as_it_is_on_the_wire() {
    // An IPv4 header whose checksum is b1e6.
    let header =
        b"\x45\x00\x00\x73\x00\x00\x40\x00\x40\x11\x00\x00\xc0\xa8\x00\x01\xc0\xa8\x00\xc7";
    let words: Vec<u32> = header
        .chunks(4)
        .map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
        .collect();
    let words: [u32; 5] = words.try_into().expect("five words");
    assert_eq!(of_words(&words), lies([0xb8, 0x61]));
    // One hop further, and to another destination: both words at once.
    let change = Change::default()
        .half(lies([0x40, 0x11]), lies([0x3f, 0x11]))
        .word(
            u32::from_ne_bytes([192, 168, 0, 199]),
            u32::from_ne_bytes([10, 0, 0, 1]),
        );
    // B861 + 0100 (the hop) + C0A8 − 0A00 + 00C7 − 0001, with the carry added: 70D0.
    assert_eq!(change.apply(lies([0xb8, 0x61])), lies([0x70, 0xd0]));
}

#[test]
fn sums_fold_down_to_what_they_are_modulo_ffff() {
    for (sum, folded) in [
        (0, 0),
        (1, 1),
        (0xffff, 0xffff),
        (0x1_0000, 1),
        (0x1_ffff, 1),
        (0xffff_ffff, 0xffff),
        (0x1_0000_0000, 1),
        (0xffff_0000_0001, 1),
        (0x7fff_ffff_ffff_ffff, 0x7fff),
    ] {
        assert_eq!(fold(sum), folded, "{sum:#x}");
    }
}

#[test]
fn nothing_changed_leaves_a_checksum_as_it_is() {
    for checksum in 0..=0xfffe {
        assert_eq!(Change::default().half(7, 7).apply(checksum), checksum);
    }
}

proptest! {
    #[test]
    fn of_words_is_the_whole(bytes in any::<[u8; 40]>()) {
        let words: [u32; 10] = core::array::from_fn(|n| {
            u32::from_ne_bytes(bytes[4 * n..4 * n + 4].try_into().unwrap())
        });
        prop_assert_eq!(of_words(&words), whole(&bytes).to_be());
    }

    #[test]
    fn what_is_brought_up_to_date_is_the_whole_again(
        mut bytes in any::<[u8; 60]>(),
        half in any::<u16>(),
        word in any::<u32>(),
        address in any::<[u32; 4]>(),
    ) {
        // Never all zero, which no header is: its checksum alone has two forms.
        bytes[58] |= 1;
        let before = whole(&bytes).to_be();
        let old_half = lies([bytes[2], bytes[3]]);
        let old_word = u32::from_ne_bytes(bytes[4..8].try_into().unwrap());
        let old_address: [u32; 4] = core::array::from_fn(|n| {
            u32::from_ne_bytes(bytes[8 + 4 * n..12 + 4 * n].try_into().unwrap())
        });
        bytes[2..4].copy_from_slice(&half.to_ne_bytes());
        bytes[4..8].copy_from_slice(&word.to_ne_bytes());
        bytes[8..24].copy_from_slice(bytemuck::bytes_of(&address));
        let one = Change::default().half(old_half, half);
        let other = Change::default().word(old_word, word).words(&old_address, &address);
        prop_assert_eq!(one.and(other).apply(before), whole(&bytes).to_be());
        prop_assert_eq!(other.apply(one.apply(before)), whole(&bytes).to_be());
    }

    #[test]
    fn a_checksum_that_covers_a_checksum_follows_it(
        mut inner in any::<[u8; 20]>(),
        outer in any::<[u8; 20]>(),
        new in any::<u16>(),
    ) {
        inner[0] |= 1;
        inner[10..12].fill(0);
        let set = |inner: &mut [u8; 20]| {
            inner[10..12].fill(0);
            let checksum = whole(inner);
            inner[10..12].copy_from_slice(&checksum.to_be_bytes());
            checksum.to_be()
        };
        let old_inner = set(&mut inner);
        let before = whole(&[outer, inner].concat()).to_be();
        let old = lies([inner[2], inner[3]]);
        inner[2..4].copy_from_slice(&new.to_ne_bytes());
        let new_inner = set(&mut inner);
        let change = Change::default().half(old, new).of_checksum(old_inner, new_inner);
        prop_assert_eq!(change.apply(before), whole(&[outer, inner].concat()).to_be());
    }
}

#[test]
fn a_byte_that_becomes_one_less_is_a_word_that_becomes_another() {
    for checksum in [0, 1, 0x1234, 0xfffd, 0xfffe, 0xffff] {
        for (first, second) in [(64, 6), (2, 17), (255, 0), (1, 255)] {
            let (old, new) = (lies([first, second]), lies([first - 1, second]));
            assert_eq!(
                Change::default().one_less().apply(checksum),
                Change::default().half(old, new).apply(checksum),
            );
        }
    }
}
