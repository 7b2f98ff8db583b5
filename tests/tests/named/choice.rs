//! Who takes a packet, or why nobody does: connection IDs, lists, limits, services that cannot.

use lb_common::{
    layout::{SourceKey, VipKey, family as key_family, flag, mode, state},
    verdict::Reason,
};

use super::{Case, Row, as_they_are, case, goes, is_v4, packet, to_backend, untouched, with_flags};
use crate::{
    expected::{PORT, sent},
    frames::{ACK, Body, Packet, SYN, at},
    homes::{
        bed::{BACKENDS, Bed, Served},
        builder::{TCP, UDP, family},
        cases::Fate,
        network::words,
    },
};

/// QUIC packets, and to which of the backends they go.
#[rustfmt::skip]
const QUIC: &[(&str, &[u8], u16)] = &[
    ("a short header with a server's ID", b"\x40\x00\xaa\xbb\xcc\x01rest", 1),
    ("a short header with another server's ID", b"\x40\x1f\xaa\xbb\xcc\x02rest", 2),
    ("a short header with nobody's ID", b"\x40\x00\xaa\xbb\xcc\x77rest", 0),
    ("a short header with the ID of one that serves no more", b"\x40\x00\xaa\xbb\xcc\x03rest", 0),
    ("a short header that is not to be routed by", b"\x40\xe0\xaa\xbb\xcc\x01rest", 0),
    ("a short header that is cut off", b"\x40\x00\xaa\xbb\xcc", 0),
    ("a long header with a server's ID", b"\xc0\0\0\0\x01\x08\x00\xaa\xbb\xcc\x01abc\x00", 1),
    ("a long header of another version", b"\xf0\x6b\x33\x43\xcf\x05\x20\xaa\xbb\xcc\x02\x00", 2),
    ("a long header with too short an ID", b"\xc0\0\0\0\x01\x04\x00\xaa\xbb\xcc\x01abc\x00", 0),
    ("a long header without an ID", b"\xc0\0\0\0\x01\x00\x00\xaa\xbb\xcc\x01abc\x00", 0),
    ("a long header that is cut off", b"\xc0\0\0\0\x01", 0),
    ("no QUIC at all", b"", 0),
];

fn quic_tables(bed: &mut Bed, served: &Served) {
    with_flags(bed, served, flag::QUIC);
    bed.builder.service_mut(served.number).server_id = 4;
    for nth in 0..BACKENDS {
        let key = VipKey {
            address: [u32::from_ne_bytes([0xaa, 0xbb, 0xcc, nth as u8]), 0, 0, 0],
            port: served.number,
            protocol: 4,
            family: key_family::QUIC,
        };
        bed.builder
            .find_by(key, served.endpoint + nth, served.number);
    }
}

/// The list of sources that the table's services ask.
const LIST: u32 = 9;

/// Whether a source is allowed: the table's clients, and everybody else's neighbours.
pub(crate) fn source(address: &str, allowed: u8) -> (SourceKey, u8) {
    let address = at(address, 0).ip();
    let (words, bits) = match words(address) {
        [.., v4] if address.is_ipv4() => ([v4, 0, 0, 0], 32),
        v6 => (v6, 128),
    };
    let key = SourceKey {
        prefix: 64 + bits,
        list: LIST,
        family: family(address).into(),
        address: words,
    };
    (key, allowed)
}

/// From the client of which the list says that it is denied, allowed, or nothing.
fn from_source(served: &Served, last: u8) -> Packet {
    let address = match (is_v4(served), last) {
        (true, last) => format!("203.0.113.{last}"),
        (false, last) => format!("2001:db8:c::{last}"),
    };
    packet(served).from(at(&address, PORT))
}

fn denied(served: &Served, others: bool) -> Vec<Case> {
    let refused = |what, last| {
        let fate = Fate::Dropped(served.number, Reason::Denied);
        untouched(what, from_source(served, last).bytes(), fate)
    };
    vec![
        refused(
            if others {
                "from the denied, others too"
            } else {
                "from the denied"
            },
            10,
        ),
        goes(
            if others {
                "from the allowed alone"
            } else {
                "from the allowed"
            },
            served,
            &from_source(served, 11),
        ),
        if others {
            refused("from others", 12)
        } else {
            goes("from others", served, &from_source(served, 12))
        },
    ]
}

/// The rows.
#[rustfmt::skip]
pub(crate) const ROWS: &[Row] = &[
    Row { tables: quic_tables, afresh: true, cases: |served| {
        if served.protocol == TCP {
            return Vec::new();
        }
        let all = QUIC.iter().map(|&(what, payload, nth)| {
            let packet = packet(served).payload(payload);
            let expected = sent(served, &packet, nth);
            case(what, packet.bytes(), to_backend(served, &packet, nth), expected)
        });
        all.collect()
    } },
    Row { tables: |bed, served| {
        with_flags(bed, served, flag::SOURCES);
        bed.builder.service_mut(served.number).sources = LIST;
    }, afresh: true, cases: |served| denied(served, false) },
    Row { tables: |bed, served| {
        with_flags(bed, served, flag::SOURCES | flag::DENY_OTHERS);
        bed.builder.service_mut(served.number).sources = LIST;
    }, afresh: true, cases: |served| {
        let mut cases = denied(served, true);
        "from others, where only some are allowed".clone_into(&mut cases[2].what);
        cases
    } },
    Row { tables: |bed, served| {
        with_flags(bed, served, flag::LIMIT);
        bed.builder.service_mut(served.number).burst = 2;
    }, afresh: false, cases: |served| {
        if served.protocol == UDP {
            return Vec::new();
        }
        let limited = Fate::Dropped(served.number, Reason::Limited);
        let again = || packet(served).flags(SYN);
        vec![
            goes("the first connection", served, &again()),
            goes("the second connection", served, &again()),
            untouched("the third connection", again().bytes(), limited),
            goes("a segment of the first", served, &packet(served).flags(ACK)),
        ]
    } },
    Row { tables: |bed, served| bed.builder.vip_mut(served.number).state = state::EMPTY_DROP, afresh: true, cases: |served| {
        vec![untouched("no backend, drops", packet(served).bytes(), Fate::Dropped(served.number, Reason::NoBackendDropped))]
    } },
    Row { tables: |bed, served| bed.builder.vip_mut(served.number).state = state::EMPTY_PASS, afresh: true, cases: |served| {
        vec![untouched("no backend, passes", packet(served).bytes(), Fate::Passed(served.number, Reason::NoBackendPassed))]
    } },
    Row { tables: |bed, served| bed.builder.vip_mut(served.number).ring = 4000, afresh: true, cases: |served| {
        vec![untouched("no ring", packet(served).bytes(), Fate::Passed(served.number, Reason::BadTables))]
    } },
    Row { tables: |bed, served| bed.builder.image.tables.endpoints[usize::from(served.endpoint)].mode = mode::UNRESOLVED, afresh: true, cases: |served| {
        vec![untouched("no next hop", packet(served).bytes(), Fate::Passed(served.number, Reason::Unresolved))]
    } },
    Row { tables: |bed, served| bed.builder.vip_mut(served.number).flags = 0, afresh: true, cases: |served| {
        if served.way.mode != mode::SNAT {
            return Vec::new();
        }
        vec![untouched("nothing says what it is sent from", packet(served).bytes(), Fate::Passed(served.number, Reason::BadTables))]
    } },
    Row { tables: |bed, _| {
        let header = &mut bed.builder.image.tables.header;
        (header.snat_v4, header.snat_v6) = (0, 0);
    }, afresh: true, cases: |served| {
        if served.way.mode != mode::SNAT {
            return Vec::new();
        }
        vec![untouched("no port to send from", packet(served).bytes(), Fate::Dropped(served.number, Reason::NoPort))]
    } },
    Row { tables: as_they_are, afresh: true, cases: |served| {
        let frame = packet(served).flags(ACK).bytes();
        if served.way.mode != mode::SNAT || served.protocol == UDP {
            return Vec::new();
        }
        vec![untouched("a segment of no flow", frame, Fate::Dropped(served.number, Reason::NoEntry))]
    } },
    Row { tables: as_they_are, afresh: true, cases: |served| {
        vec![untouched("SCTP", packet(served).body(Body::Other(132)).bytes(), Fate::Host(Reason::NotTcpUdp))]
    } },
];
