//! The tables that stand once: `[snat]`, `[tunnel]`, `[tracking]` and `[state]`.

use std::{
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
    ops::Range,
    time::Duration,
};

use ipnet::IpNet;
use lb_common::layout::SNAT_ADDRESSES;

use super::{field::Fields, options::prefix, unicast};
use crate::{
    config::{
        findings::Report,
        raw::{self, Held, Table},
    },
    model::{PortRange, Snat, State, Tracking, Tunnel},
};

/// Checks `[snat]`.
pub(super) fn snat(raw: &raw::Snat, at: Range<usize>, report: &mut Report<'_>) -> Option<Snat> {
    let mut fields = Fields::new("snat", at.clone(), report);
    let remedy = format!("give 1 to {SNAT_ADDRESSES} addresses, as in [\"192.0.2.1\"]");
    let addresses = fields.required("addresses", &raw.addresses, &remedy, |texts| {
        if texts.is_empty() || texts.len() > SNAT_ADDRESSES {
            return Err(format!("there are {}", texts.len()));
        }
        let mut addresses: Vec<IpAddr> = Vec::with_capacity(texts.len());
        for text in texts {
            let address = unicast(text)?;
            if addresses.contains(&address) {
                return Err(format!("names {address} twice"));
            }
            addresses.push(address);
        }
        Ok(addresses)
    });
    let default = PortRange::DEFAULT;
    let first = fields.port("first_port", &raw.first_port);
    let powers = format!(
        "give a power of two from {} to {}",
        PortRange::FEWEST,
        PortRange::MOST
    );
    let count = fields.optional("ports", &raw.ports, &powers, |&ports| {
        u16::try_from(ports)
            .ok()
            .filter(|ports| ports.is_power_of_two())
            .filter(|ports| (PortRange::FEWEST..=PortRange::MOST).contains(ports))
            .ok_or_else(|| format!("is {ports}"))
    });
    let first = first?.map_or(default.first(), NonZeroU16::get);
    let count = count?.unwrap_or(default.count());
    let ports = NonZeroU16::new(first).and_then(|first| PortRange::new(first, count));
    if ports.is_none() {
        let at = match raw.first_port.held() {
            Held::Good(_, at) => at,
            _ => at,
        };
        fields.report(
            at,
            "first_port",
            format!("{count} ports from {first} on end beyond 65535"),
            "lower first_port or ports",
        );
    }
    Some(Snat {
        addresses: addresses?,
        ports: ports?,
    })
}

/// Checks `[tunnel]`, or takes its defaults.
pub(super) fn tunnel(
    table: Option<(&Table<raw::Tunnel>, Range<usize>)>,
    report: &mut Report<'_>,
) -> Option<Tunnel> {
    let Some((table, at)) = table else {
        return Some(Tunnel::default());
    };
    let raw = &table.0;
    let mut fields = Fields::new("tunnel", at, report);
    let source_ipv4 = fields.optional(
        "source_ipv4",
        &raw.source_ipv4,
        "give an IPv4 prefix of at least 8 bits, as in \"10.127.0.0/16\"",
        |text| match source(text)? {
            IpNet::V4(prefix) if prefix.prefix_len() >= 8 => Ok(prefix),
            IpNet::V4(_) => Err(format!("{text} is too short")),
            IpNet::V6(_) => Err(format!("{text} is IPv6")),
        },
    );
    let source_ipv6 = fields.optional(
        "source_ipv6",
        &raw.source_ipv6,
        "give an IPv6 prefix of at least 96 bits, as in \"2001:db8:0:7f::/96\"",
        |text| match source(text)? {
            IpNet::V6(prefix) if prefix.prefix_len() >= Tunnel::SHORTEST_IPV6 => Ok(prefix),
            IpNet::V6(_) => Err(format!("{text} is too short")),
            IpNet::V4(_) => Err(format!("{text} is IPv4")),
        },
    );
    let gue_port = fields.port("gue_port", &raw.gue_port);
    Some(Tunnel {
        source_ipv4: source_ipv4?,
        source_ipv6: source_ipv6?,
        gue_port: gue_port?.unwrap_or(Tunnel::GUE_PORT),
    })
}

/// A prefix that packets may come from.
fn source(text: &str) -> Result<IpNet, String> {
    let prefix = prefix(text)?;
    unicast(&prefix.addr().to_string())?;
    Ok(prefix)
}

/// Checks `[tracking]`, or takes its defaults.
pub(super) fn tracking(
    table: Option<(&Table<raw::Tracking>, Range<usize>)>,
    report: &mut Report<'_>,
) -> Option<Tracking> {
    let default = Tracking::default();
    let Some((table, at)) = table else {
        return Some(default);
    };
    let raw = &table.0;
    let mut fields = Fields::new("tracking", at, report);
    let (second, minute, hour) = (
        Duration::from_secs(1),
        Duration::from_mins(1),
        Duration::from_hours(1),
    );
    let mut duration = |key, leaf, default, bounds| fields.duration(key, leaf, default, bounds);
    let window = duration(
        "window",
        &raw.window,
        default.window,
        10 * second..=24 * hour,
    );
    let idle_tcp = duration(
        "idle_tcp",
        &raw.idle_tcp,
        default.idle_tcp,
        minute..=168 * hour,
    );
    let idle_udp = duration(
        "idle_udp",
        &raw.idle_udp,
        default.idle_udp,
        5 * second..=hour,
    );
    let closing = duration(
        "closing",
        &raw.closing,
        default.closing,
        second..=10 * minute,
    );
    let mut entries = |key, leaf, default: NonZeroU32| {
        let number = fields.number(key, leaf, default.get().into(), 1 << 10..=1 << 24, "");
        number.and_then(|number| NonZeroU32::new(u32::try_from(number).ok()?))
    };
    let fresh = entries("fresh", &raw.fresh, default.fresh);
    let established = entries("established", &raw.established, default.established);
    Some(Tracking {
        window: window?,
        idle_tcp: idle_tcp?,
        idle_udp: idle_udp?,
        closing: closing?,
        fresh: fresh?,
        established: established?,
    })
}

/// Checks `[state]`, or takes its defaults.
pub(super) fn state(
    table: Option<(&Table<raw::State>, Range<usize>)>,
    report: &mut Report<'_>,
) -> Option<State> {
    let default = raw::State::default();
    let (raw, at) = table.map_or((&default, 0..0), |(table, at)| (&table.0, at));
    let mut fields = Fields::new("state", at, report);
    let directory = fields.path("directory", &raw.directory, State::DIRECTORY, usize::MAX);
    let day = Duration::from_hours(24);
    let keep = fields.duration(
        "keep_events",
        &raw.keep_events,
        State::KEEP_EVENTS,
        day..=3660 * day,
    );
    let mut mib = |key, leaf, default| fields.number(key, leaf, default, 1..=1 << 20, "");
    let (journal, history) = (&raw.max_journal_mib, &raw.max_history_mib);
    let journal = mib("max_journal_mib", journal, State::MAX_JOURNAL_MIB);
    let history = mib("max_history_mib", history, State::MAX_HISTORY_MIB);
    Some(State {
        directory: directory?,
        keep_events: keep?,
        max_journal: journal?.unsigned_abs() << 20,
        max_history: history?.unsigned_abs() << 20,
    })
}
