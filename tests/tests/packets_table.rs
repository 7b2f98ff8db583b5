//! The table of named packets: each row is a packet to, from or about a service, with what becomes
//! of it, run through the kernel and the host for every mode, IP version and protocol that it
//! applies to. The expected frames are etherparse's.

#![expect(clippy::print_stdout, reason = "figures for the reader of a run")]

mod expected;
mod frames;
mod homes;
mod named;

use std::{collections::BTreeSet, net::SocketAddr};

use expected::name;
use homes::{
    bed::{Bed, WAYS, vip},
    builder::{TCP, UDP},
    cases::Cases,
    network,
};
use lb_common::{
    flow::{V4, V6},
    verdict::Reason,
};
use named::{
    Row,
    choice::{self, source},
    errors, fragments, icmp, malformed, shapes,
};

/// A service for each way and IP version, at an address of its own.
fn bed(protocol: u8) -> Bed {
    let mut bed = Bed::empty();
    for family in [V4, V6] {
        for (nth, way) in (0..).zip(WAYS) {
            bed.serve(SocketAddr::new(vip(family, nth), 80), protocol, way);
        }
    }
    bed
}

/// All rows.
fn rows() -> impl Iterator<Item = &'static Row> {
    let all = [
        shapes::ROWS,
        fragments::ROWS,
        malformed::ROWS,
        choice::ROWS,
        icmp::ROWS,
        errors::ROWS,
    ];
    all.into_iter().flatten()
}

/// The least number of packets by name alone, and of these in all modes, versions and protocols.
const NAMES: usize = 150;
const CASES: usize = 2000;

#[test]
fn every_named_packet_becomes_what_the_table_says() {
    let mut names = BTreeSet::new();
    let mut whats = BTreeSet::new();
    let mut reasons = BTreeSet::new();
    network::within(|| {
        for protocol in [TCP, UDP] {
            let mut cases = Cases::new(&bed(protocol));
            for (key, allowed) in [
                source("203.0.113.10", 0),
                source("203.0.113.11", 1),
                source("2001:db8:c::10", 0),
                source("2001:db8:c::11", 1),
            ] {
                cases.homes.put_source(key, allowed);
            }
            for row in rows() {
                let mut bed = bed(protocol);
                for served in bed.services.clone() {
                    (row.tables)(&mut bed, &served);
                }
                bed.builder.addresses();
                cases.publish(&bed);
                for served in &bed.services {
                    cases.afresh();
                    for case in (row.cases)(served) {
                        if row.afresh {
                            cases.afresh();
                        }
                        let name = name(served, &case.what);
                        cases.check(&name, &case.frame, case.fate, &case.expected);
                        assert!(names.insert(name), "two cases are named alike");
                        whats.insert(case.what);
                    }
                }
            }
            reasons.extend(cases.homes.counts().exits.keys().map(|(_, reason)| *reason));
        }
    });
    println!("{} packets by name, {} cases", whats.len(), names.len());
    assert!(whats.len() >= NAMES, "only {} names", whats.len());
    assert!(names.len() >= CASES, "only {} cases", names.len());
    // Every way that a packet may end, but for tables that are missing and a driver without room,
    // which no packet can bring about here.
    let not_here = [Reason::NoTables, Reason::NoRoom];
    let missing = Reason::ALL
        .into_iter()
        .filter(|reason| !not_here.contains(reason) && !reasons.contains(reason));
    assert_eq!(missing.collect::<Vec<_>>(), [], "reasons without a packet");
}
