//! The health check of a service.

use std::{
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
    ops::{Range, RangeInclusive},
    time::Duration,
};

use hyper::http::uri::{Authority, PathAndQuery};

use super::{
    field::{Fields, place},
    service::Known,
    unicast,
};
use crate::{
    config::{
        findings::Report,
        raw::{self, Held, NumberOr, StatusRange},
    },
    model::{HealthCheck, HttpProbe, ProbeKind, Protocol, ServicePort, Via},
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
    let http = fields.required(
        "type",
        &raw.kind,
        "give \"tcp\" or \"http\"",
        |kind| match kind.as_str() {
            "tcp" => Ok(false),
            "http" => Ok(true),
            other => Err(format!("is \"{other}\"")),
        },
    );
    let port = fields.port("port", &raw.port);
    let port = match (port, service.port, service.protocol) {
        (Some(Some(port)), ..)
        | (Some(None), Some(ServicePort::Exact(port)), Some(Protocol::Tcp)) => Some(port),
        (Some(None), Some(_), Some(_)) => {
            fields.report(
                at,
                "port",
                "is missing, and the service has no TCP port of its own to probe",
                "give the TCP port that the backends answer checks on",
            );
            None
        }
        _ => None,
    };
    let interval = fields.duration(
        "interval",
        &raw.interval,
        DEFAULT_INTERVAL,
        SHORTEST..=LONGEST,
    );
    let shorter = interval.map_or(DEFAULT_TIMEOUT, |interval| {
        DEFAULT_TIMEOUT.min(interval / 2)
    });
    // A time-out may be shorter than the shortest interval, but not nothing.
    let bounds = Duration::from_millis(1)..=LONGEST;
    let timeout = fields.duration("timeout", &raw.timeout, shorter, bounds);
    if let (Some(interval), Some(timeout), Held::Good(_, at)) =
        (interval, timeout, raw.timeout.held())
        && timeout >= interval
    {
        fields.report(
            at,
            "timeout",
            format!(
                "{} is not shorter than the interval of {}",
                humantime::format_duration(timeout),
                humantime::format_duration(interval)
            ),
            "make it shorter: probes of one backend never overlap",
        );
    }
    let rise = fields.number("rise", &raw.rise, 2, 1..=1000, "");
    let fall = fields.number("fall", &raw.fall, 3, 1..=1000, "");
    let way = way(&mut fields, raw, service);
    let probe = http_probe(&mut fields, raw, http);
    let count = |n: i64| u32::try_from(n).ok().and_then(NonZeroU32::new);
    let (via, client_mtu, source) = way?;
    Some(HealthCheck {
        via,
        client_mtu,
        source,
        kind: probe?,
        port: port?,
        interval: interval?,
        timeout: timeout?,
        rise: count(rise?)?,
        fall: count(fall?)?,
    })
}

/// Which way a probe takes, with what size of packets, from where.
fn way(
    fields: &mut Fields<'_, '_>,
    raw: &raw::Health,
    service: &Known,
) -> Option<(Via, u16, Option<IpAddr>)> {
    let default = match service.mode {
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

fn http_probe(
    fields: &mut Fields<'_, '_>,
    raw: &raw::Health,
    http: Option<bool>,
) -> Option<ProbeKind> {
    if http == Some(false) {
        for (key, place) in [
            ("path", place(&raw.path)),
            ("host", place(&raw.host)),
            ("status", place(&raw.status)),
            ("body", place(&raw.body)),
        ] {
            if let Some(at) = place {
                fields.report(
                    at,
                    key,
                    "a tcp check asks nothing",
                    "remove it, or use type = \"http\"",
                );
            }
        }
        return Some(ProbeKind::Tcp);
    }
    let path = fields.optional(
        "path",
        &raw.path,
        "give a path, as in \"/healthz\"",
        |path| {
            if path_and_query(path) {
                Ok(path.clone())
            } else {
                Err(format!("is {path:?}"))
            }
        },
    );
    let host = fields.optional(
        "host",
        &raw.host,
        "give a host name, with a port or without, as in \"www.example.org\"",
        |host| {
            if authority(host) {
                Ok(host.clone())
            } else {
                Err(format!("is {host:?}"))
            }
        },
    );
    let codes = "give codes or ranges from 100 to 599, as in [\"200-299\", 304]";
    let status = fields.optional("status", &raw.status, codes, |codes| {
        if codes.is_empty() {
            return Err("is empty: no answer would be healthy".to_owned());
        }
        codes.iter().map(range).collect::<Result<Vec<_>, _>>()
    });
    let body = fields.optional(
        "body",
        &raw.body,
        "give the text to look for, or remove it",
        |body| {
            if body.is_empty() {
                Err("is empty".to_owned())
            } else {
                Ok(body.clone())
            }
        },
    );
    let (path, host, status, body) = (path?, host?, status?, body?);
    (http == Some(true)).then(|| {
        ProbeKind::Http(HttpProbe {
            path: path.unwrap_or_else(|| "/".to_owned()),
            host,
            status: status.unwrap_or_else(|| vec![200..=399]),
            body,
        })
    })
}

/// Whether a request for it asks for just this.
fn path_and_query(text: &str) -> bool {
    let parsed = PathAndQuery::try_from(text);
    // Bytes beyond ASCII are taken by the parser, but have no place in a request line.
    text.starts_with('/') && text.is_ascii() && parsed.is_ok_and(|parsed| parsed.as_str() == text)
}

/// Whether it is a host, with or without a port, as a `Host` header holds it.
fn authority(text: &str) -> bool {
    let Ok(parsed) = Authority::try_from(text) else {
        return false;
    };
    // What stands before an '@' is no part of `host`.
    match text.strip_prefix(parsed.host()) {
        Some("") => true,
        Some(rest) => rest.strip_prefix(':').is_some_and(|port| {
            !parsed.host().is_empty()
                && port.bytes().all(|byte| byte.is_ascii_digit())
                && port.parse::<NonZeroU16>().is_ok()
        }),
        None => false,
    }
}

fn range(item: &NumberOr<StatusRange>) -> Result<RangeInclusive<u16>, String> {
    let code = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let code = text.parse().ok().filter(|code| (100..=599).contains(code));
        code.filter(|_| digits && text.len() == 3)
    };
    match item {
        NumberOr::Number(number) => {
            let number = number.to_string();
            code(&number)
                .map(|code| code..=code)
                .ok_or_else(|| format!("{number} is no status"))
        }
        NumberOr::Word(word, _) => {
            let (low, high) = word.split_once('-').unwrap_or((word, word));
            match (code(low), code(high)) {
                (Some(low), Some(high)) if low <= high => Ok(low..=high),
                _ => Err(format!("\"{word}\" is no range of status codes")),
            }
        }
    }
}
