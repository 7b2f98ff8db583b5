use std::convert::Infallible;

use bytemuck::Zeroable as _;
use lb_common::{
    flow::{V4, v4},
    layout::{Endpoint, Far, Header, Service, VipKey, mode, version},
    wire::{tcp, udp},
};

use super::*;

const LIMITS: Limits = Limits {
    idle_tcp: 1_000,
    idle_udp: 100,
    closing: 50,
};
const NOW: u32 = 5_000;
/// The service's number, and those of its endpoints: the last does not serve.
const SERVICE: u16 = 3;
const A: u16 = 0;
const B: u16 = 1;
const DEAD: u16 = 2;
const PORT: u16 = 80_u16.to_be();
const VIP: u32 = 9;
const CLIENT: u32 = 7;
const POOL: u32 = 8;
const POOL_PORT: u16 = 555;

/// An image of one service in whose ring of two slots all is as given.
fn image(prior: u16, flags: u16) -> Image {
    let mut tables: Box<Tables> = bytemuck::zeroed_box();
    tables.header = Header {
        version: version::TABLES,
        flow_keys: hash::keys(1),
        ..Header::zeroed()
    };
    for (number, serves) in [(A, 1), (B, 1), (DEAD, 0)] {
        tables.endpoints[usize::from(number)] = Endpoint {
            service: SERVICE,
            family: V4,
            mode: mode::DSR,
            serves,
            ..Endpoint::zeroed()
        };
        tables.fars[usize::from(number)] = Far {
            address: v4(100 + u32::from(number)),
            ..Far::zeroed()
        };
    }
    tables.services[usize::from(SERVICE)] = Service {
        address: v4(VIP),
        port: PORT,
        protocol: tcp::PROTOCOL,
        family: V4,
        ..Service::zeroed()
    };
    tables.vips[0] = Vip {
        key: VipKey {
            address: v4(VIP),
            port: PORT,
            protocol: tcp::PROTOCOL,
            family: V4,
        },
        ring: 6,
        slot_mask: 1,
        service: SERVICE,
        state: state::SERVING,
        spread: spread::FLOW,
        flags,
    };
    let rings = [(6, vec![Slot::new(A, prior); 2].into())].into();
    Image {
        tables,
        rings,
        lists: [].into(),
    }
}

fn flow() -> Flow {
    Flow {
        source: v4(CLIENT),
        destination: v4(VIP),
        ports: u32::from(PORT) << 16 | 1,
        protocol: tcp::PROTOCOL,
        family: V4,
        reserved: [0; 2],
    }
}

fn entry(endpoint: u16, silent: u32) -> FlowEntry {
    FlowEntry {
        endpoint,
        seen: NOW - silent,
        service: SERVICE,
        vip_port: PORT,
        ..FlowEntry::zeroed()
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "it stands in for a look-up that can fail"
)]
fn alone(_: &Flow) -> Result<Option<(Table, FlowEntry)>, Infallible> {
    Ok(None)
}

fn judge(image: &Image, table: Table, flow: &Flow, found: &FlowEntry) -> (Fate, Learned) {
    let mut pass = Pass::begin(image, LIMITS);
    let fate = pass.judge(&image.tables, (table, flow, found), NOW, alone);
    (fate.unwrap(), pass.end())
}

#[test]
fn entries_live_as_long_as_they_matter() {
    use Fate::{Forget, Keep};
    use Table::{Established, Fresh};
    // The slot's prior, the table, endpoint, silence and flags of the entry, and its fate.
    let closing = entry::CLOSING;
    for (prior, table, endpoint, silent, flags, fate) in [
        (B, Established, A, 999, 0, Keep),
        (B, Established, B, 999, 0, Keep),
        (B, Established, A, 1_000, 0, Forget),
        (B, Established, A, 49, closing, Keep),
        (B, Established, A, 50, closing, Forget),
        (B, Fresh, A, 49, 0, Keep),
        (B, Fresh, A, 50, 0, Forget),
        (B, Established, DEAD, 0, 0, Forget),
        // In a pinned slot only those that disagree matter, in a steady one none.
        (PINNED, Established, B, 0, 0, Keep),
        (PINNED, Established, A, 0, 0, Forget),
        (NONE, Established, B, 0, 0, Forget),
        (NONE, Fresh, A, 0, 0, Forget),
    ] {
        let found = FlowEntry {
            flags,
            ..entry(endpoint, silent)
        };
        let (judged, _) = judge(&image(prior, 0), table, &flow(), &found);
        assert_eq!(
            judged, fate,
            "prior {prior}, {table:?}, endpoint {endpoint}, silent {silent}, flags {flags}"
        );
    }
}

#[test]
fn an_entry_of_what_is_gone_is_forgotten() {
    let image = image(B, 0);
    let other = FlowEntry {
        service: SERVICE + 1,
        ..entry(A, 0)
    };
    assert_eq!(
        judge(&image, Table::Established, &flow(), &other).0,
        Fate::Forget
    );
    // Its number was given to another service's endpoint.
    let mut reused = image.clone();
    reused.tables.endpoints[usize::from(B)].service = SERVICE + 1;
    assert_eq!(
        judge(&reused, Table::Established, &flow(), &entry(B, 0)).0,
        Fate::Forget
    );
}

#[test]
fn one_seen_after_the_clock_was_read_is_not_silent() {
    let found = FlowEntry {
        seen: NOW + 1,
        ..entry(A, 0)
    };
    assert_eq!(
        judge(&image(B, 0), Table::Established, &flow(), &found).0,
        Fate::Keep
    );
}

#[test]
fn where_every_flow_is_remembered_only_silence_counts() {
    let image = image(NONE, flag::REMEMBER);
    let flow = Flow {
        protocol: udp::PROTOCOL,
        ..flow()
    };
    assert_eq!(
        judge(&image, Table::Fresh, &flow, &entry(A, 99)).0,
        Fate::Keep
    );
    assert_eq!(
        judge(&image, Table::Established, &flow, &entry(B, 100)).0,
        Fate::Forget
    );
}

#[test]
fn a_pass_learns_what_is_named_and_which_pinned_slots_are_clean() {
    let image = image(PINNED, 0);
    let (_, learned) = judge(&image, Table::Established, &flow(), &entry(B, 0));
    assert_eq!(learned.endpoints, [A, B].into());
    let of = &learned.services[usize::from(SERVICE)];
    assert_eq!(of.flows, 1);
    let at = slot_of(&image.tables, &image.tables.vips[0], &flow());
    assert_eq!((of.clean[at], of.clean[1 - at]), (false, true));
    // Nothing can be said of slots that are in transition.
    let image = self::image(B, 0);
    let learned = Pass::begin(&image, LIMITS).end();
    assert_eq!(learned.services[usize::from(SERVICE)].clean, [false; 2]);
}

#[test]
fn slots_that_change_during_a_pass_are_not_clean() {
    let before = image(PINNED, 0);
    let mut after = before.clone();
    after.rings = [(6, vec![Slot::new(A, PINNED), Slot::new(B, PINNED)].into())].into();
    let mut pass = Pass::begin(&before, LIMITS);
    pass.published(&after);
    // Back again: something may have been born meanwhile.
    pass.published(&before);
    let learned = pass.end();
    assert_eq!(learned.services[usize::from(SERVICE)].clean, [true, false]);
    assert_eq!(learned.endpoints, [A, B].into());
}

/// The two entries of a flow under `snat`, with the keys.
fn pair(silent: [u32; 2]) -> [(Flow, FlowEntry); 2] {
    let forward = FlowEntry {
        other: v4(POOL),
        other_port: POOL_PORT,
        ..entry(A, silent[0])
    };
    let reply = FlowEntry {
        other: v4(CLIENT),
        other_port: 1,
        flags: entry::REPLY,
        ..entry(A, silent[1])
    };
    let back = Flow {
        source: v4(100),
        destination: v4(POOL),
        ports: u32::from(PORT) | u32::from(POOL_PORT) << 16,
        ..flow()
    };
    [(flow(), forward), (back, reply)]
}

#[test]
fn two_entries_of_a_flow_go_together() {
    let image = image(NONE, flag::REMEMBER);
    for (silent, closing, forgotten) in [
        ([0, 0], false, false),
        ([1_000, 999], false, false),
        ([999, 1_000], false, false),
        ([1_000, 1_000], false, true),
        // One direction was seen to end.
        ([50, 49], true, false),
        ([50, 50], true, true),
    ] {
        let mut entries = pair(silent);
        entries[0].1.flags |= if closing { entry::CLOSING } else { 0 };
        for own in [0, 1] {
            let ((flow, found), (key, other)) = (entries[own], entries[1 - own]);
            let mut pass = Pass::begin(&image, LIMITS);
            let fate = pass.judge::<Infallible>(
                &image.tables,
                (Table::Established, &flow, &found),
                NOW,
                |asked| {
                    assert_eq!(*asked, key);
                    Ok(Some((Table::Established, other)))
                },
            );
            let expected = if forgotten {
                Fate::ForgetBoth(Table::Established, key)
            } else {
                Fate::Keep
            };
            assert_eq!(fate.unwrap(), expected, "silent {silent:?}, entry {own}");
        }
    }
}

#[test]
fn an_entry_that_lost_its_other_direction_is_forgotten() {
    let image = image(NONE, flag::REMEMBER);
    for own in [0, 1] {
        let [early, late] = [49, 50].map(|silent| pair([silent; 2])[own]);
        assert_eq!(
            judge(&image, Table::Established, &early.0, &early.1).0,
            Fate::Keep
        );
        assert_eq!(
            judge(&image, Table::Established, &late.0, &late.1).0,
            Fate::Forget
        );
        // The client has opened another connection from its port.
        let mut other = pair([0, 0])[1 - own].1;
        other.other_port += 1;
        let mut pass = Pass::begin(&image, LIMITS);
        let found = (Table::Established, &late.0, &late.1);
        let fate = pass.judge::<Infallible>(&image.tables, found, NOW, |_| {
            Ok(Some((Table::Fresh, other)))
        });
        assert_eq!(fate.unwrap(), Fate::Forget);
    }
}

#[test]
fn who_looks_is_told_why_a_flow_is_remembered() {
    let why = |prior, flags, found: FlowEntry| {
        let image = image(prior, flags);
        let why = Reasons::of(&image).why(&flow(), &found);
        (why.word(), why.owner())
    };
    assert_eq!(why(B, 0, entry(B, 0)), ("transition", Some(A)));
    assert_eq!(why(B, 0, entry(A, 0)), ("transition", Some(A)));
    assert_eq!(why(PINNED, 0, entry(B, 0)), ("pinned", Some(A)));
    assert_eq!(why(PINNED, 0, entry(A, 0)), ("over", None));
    assert_eq!(why(NONE, 0, entry(B, 0)), ("over", None));
    assert_eq!(why(NONE, flag::REMEMBER, entry(A, 0)), ("every", None));
    let translated = FlowEntry {
        other: v4(POOL),
        other_port: POOL_PORT,
        ..entry(A, 0)
    };
    assert_eq!(why(NONE, 0, translated), ("translated", None));
    let other = FlowEntry {
        service: SERVICE + 1,
        ..entry(A, 0)
    };
    assert_eq!(why(B, 0, other), ("over", None));
}
