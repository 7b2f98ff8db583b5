//! The health check of a service.

use std::{
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
    ops::Range,
    time::Duration,
};

use super::{
    field::{Fields, place},
    probe::{self, Word},
    service::Known,
    unicast,
};
use crate::{
    config::{
        findings::Report,
        raw::{self, Held},
    },
    model::{HealthCheck, ServicePort, Via},
};

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_hours(1);
const DEFAULT_INTERVAL: Duration = HealthCheck::INTERVAL;
const DEFAULT_TIMEOUT: Duration = HealthCheck::TIMEOUT;

/// Checks the `[services.health]` at `at`.
pub(super) fn check(
    raw: &raw::Health,
    at: Range<usize>,
    path: &str,
    service: &Known,
    report: &mut Report<'_>,
) -> Option<HealthCheck> {
    let mut fields = Fields::new(path, at.clone(), report);
    let word = probe::word(&mut fields, raw);
    let port = fields.port("port", &raw.port);
    let port = match (port, word) {
        (None, _) | (_, None) => None,
        (Some(Some(port)), Some(word)) => {
            probe::refuse_port(&mut fields, raw, word);
            Some(Some(port))
        }
        (Some(None), Some(word)) => own_port(&mut fields, at, service, word),
    };
    let interval = fields.duration(
        "interval",
        &raw.interval,
        DEFAULT_INTERVAL,
        SHORTEST..=LONGEST,
    );
    let fast_interval = fast(&mut fields, raw, interval);
    // From one probe to the next where that is shortest.
    let shortest = fast_interval.flatten().or(interval);
    let shorter = shortest.map_or(DEFAULT_TIMEOUT, |shortest| {
        DEFAULT_TIMEOUT.min(shortest / 2)
    });
    // A time-out may be shorter than the shortest interval, but not nothing.
    let bounds = Duration::from_millis(1)..=LONGEST;
    let timeout = fields.duration("timeout", &raw.timeout, shorter, bounds);
    let which = if fast_interval.flatten().is_some() {
        "fast_interval"
    } else {
        "interval"
    };
    if let (Some(shortest), Some(timeout), Held::Good(_, at)) =
        (shortest, timeout, raw.timeout.held())
        && timeout >= shortest
    {
        fields.report(
            at,
            "timeout",
            format!(
                "{} is not shorter than the {which} of {}",
                humantime::format_duration(timeout),
                humantime::format_duration(shortest)
            ),
            "make it shorter: probes of one backend never overlap",
        );
    }
    let rise = fields.number("rise", &raw.rise, 2, 1..=1000, "");
    let fall = fields.number("fall", &raw.fall, 3, 1..=1000, "");
    let way = way(&mut fields, raw, service, word);
    let probe = probe::kind(&mut fields, raw, word);
    let count = |n: i64| u32::try_from(n).ok().and_then(NonZeroU32::new);
    let (via, client_mtu, source) = way?;
    Some(HealthCheck {
        via,
        client_mtu,
        source,
        kind: probe?,
        port: port?,
        interval: interval?,
        fast_interval: fast_interval?,
        timeout: timeout?,
        rise: count(rise?)?,
        fall: count(fall?)?,
    })
}

/// The time between probes while a state is on its way; `Some(None)` where that is as ever.
#[expect(
    clippy::option_option,
    reason = "wrong, missing and there are three things"
)]
fn fast(
    fields: &mut Fields<'_, '_>,
    raw: &raw::Health,
    interval: Option<Duration>,
) -> Option<Option<Duration>> {
    let Some(at) = place(&raw.fast_interval) else {
        return Some(None);
    };
    let fast = fields.duration(
        "fast_interval",
        &raw.fast_interval,
        DEFAULT_INTERVAL,
        SHORTEST..=LONGEST,
    )?;
    if let Some(interval) = interval
        && fast > interval
    {
        fields.report(
            at,
            "fast_interval",
            format!(
                "{} is longer than the interval of {}",
                humantime::format_duration(fast),
                humantime::format_duration(interval)
            ),
            "make it shorter, or remove it: a state that is on its way is then asked for no faster",
        );
    }
    Some(Some(fast).filter(|fast| Some(*fast) != interval))
}

/// Which way a probe takes, with what size of packets, from where.
fn way(
    fields: &mut Fields<'_, '_>,
    raw: &raw::Health,
    service: &Known,
    word: Option<Word>,
) -> Option<(Via, u16, Option<IpAddr>)> {
    let steers = word.is_none_or(Word::steers);
    let default = match service.mode {
        _ if !steers => Via::Direct,
        Some(mode) if mode.translates() => Via::Direct,
        _ => Via::Vip,
    };
    let words = [("vip", Via::Vip), ("direct", Via::Direct)];
    let via = fields.word("via", &raw.via, default, &words);
    if let (Some(Via::Vip), Some(mode), Some(at)) = (via, service.mode, place(&raw.via))
        && mode.translates()
    {
        fields.report(
            at,
            "via",
            format!("in mode {mode} a backend does not have the VIP"),
            "remove it: to the backend's own address, a probe goes the way of traffic",
        );
    }
    if let (Some(Via::Vip), Some(at), false) = (via, place(&raw.via), steers) {
        fields.report(
            at,
            "via",
            "such a check has no port, by which services are told apart",
            "remove it, or use type = \"tcp\"",
        );
    }
    let sizes = "give 0, or a whole number from 576 to 9216";
    let client_mtu = fields.optional("client_mtu", &raw.client_mtu, sizes, |&bytes| {
        u16::try_from(bytes)
            .ok()
            .filter(|bytes| matches!(bytes, 0 | 576..=9216))
            .ok_or_else(|| format!("is {bytes}"))
    });
    if let (Some(Via::Direct), Some(at)) = (via, place(&raw.client_mtu)) {
        fields.report(
            at,
            "client_mtu",
            "a probe straight to the backend does not go the way of clients' packets",
            "remove it, or use via = \"vip\"",
        );
    }
    let addresses = "give an address of this host, as in \"10.0.0.2\"";
    let source = fields.optional("source", &raw.source, addresses, |text| unicast(text));
    Some((
        via?,
        client_mtu?.unwrap_or(HealthCheck::CLIENT_MTU),
        source?,
    ))
}

/// The port of a check that names none.
#[expect(
    clippy::option_option,
    reason = "wrong, missing and there are three things"
)]
fn own_port(
    fields: &mut Fields<'_, '_>,
    at: Range<usize>,
    service: &Known,
    word: Word,
) -> Option<Option<NonZeroU16>> {
    let (port, protocol) = (service.port?, service.protocol?);
    let exact = match port {
        ServicePort::Exact(port) => Some(port),
        ServicePort::Any => None,
    };
    match word.protocol() {
        None => Some(exact),
        Some(asked) if asked == protocol && exact.is_some() => Some(exact),
        Some(asked) => {
            let name = asked.to_string().to_uppercase();
            fields.report(
                at,
                "port",
                format!("is missing, and the service has no {name} port of its own to probe"),
                &format!("give the {name} port that the backends answer checks on"),
            );
            None
        }
    }
}
