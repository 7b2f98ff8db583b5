//! What a check of each kind asks.

use std::{
    num::NonZeroU16,
    ops::{Range, RangeInclusive},
    path::PathBuf,
    time::Duration,
};

use hyper::{
    Method,
    header::{HeaderName, HeaderValue},
    http::uri::{Authority, PathAndQuery},
};
use regex::bytes::RegexBuilder;

use super::{
    absolute,
    field::{Fields, place},
};
use crate::{
    config::raw::{self, Leaf, NumberOr, StatusRange},
    model::{
        BodyMatch, CommandProbe, GrpcProbe, HttpProbe, ProbeKind, Protocol, TlsProbe, UdpProbe,
        Verify,
    },
};

/// The longest time before a certificate's end at which that is told.
const LONGEST_WARNING: Duration = Duration::from_hours(365 * 24);
/// How many bytes all further headers may have: with them, a request fits into one packet.
const HEADERS: usize = 1024;
/// How many bytes a datagram may have.
const DATAGRAM: usize = 1024;
/// How large the compiled form of an expression may be, in bytes.
const PATTERN: usize = 1 << 20;

/// The word for a kind of check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Tcp,
    Http,
    Https,
    Tls,
    Grpc,
    Grpcs,
    Udp,
    Icmp,
    Command,
}

use Word::{Command, Grpc, Grpcs, Http, Https, Icmp, Tcp, Tls, Udp};

impl Word {
    const ALL: [(&'static str, Self); 9] = [
        ("tcp", Tcp),
        ("http", Http),
        ("https", Https),
        ("tls", Tls),
        ("grpc", Grpc),
        ("grpcs", Grpcs),
        ("udp", Udp),
        ("icmp", Icmp),
        ("command", Command),
    ];

    fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, word)| *word == self);
        found.map_or("", |(name, _)| name)
    }

    /// Over what it asks; `None` where that has no ports.
    pub(super) const fn protocol(self) -> Option<Protocol> {
        match self {
            Tcp | Http | Https | Tls | Grpc | Grpcs => Some(Protocol::Tcp),
            Udp => Some(Protocol::Udp),
            Icmp | Command => None,
        }
    }

    /// Whether it can take the way of traffic.
    pub(super) const fn steers(self) -> bool {
        self.protocol().is_some()
    }
}

/// The kind of a check.
pub(super) fn word(fields: &mut Fields<'_, '_>, raw: &raw::Health) -> Option<Word> {
    let remedy = "give \"tcp\", \"http\", \"https\", \"tls\", \"grpc\", \"grpcs\", \"udp\", \"icmp\" or \
                  \"command\"";
    fields.required("type", &raw.kind, remedy, |kind| {
        let known = Word::ALL.iter().find(|(word, _)| word == kind);
        known
            .map(|(_, word)| *word)
            .ok_or_else(|| format!("is \"{kind}\""))
    })
}

/// Complains of a port that nothing would be asked at.
pub(super) fn refuse_port(fields: &mut Fields<'_, '_>, raw: &raw::Health, word: Word) {
    if let (Icmp, Some(at)) = (word, place(&raw.port)) {
        fields.report(at, "port", "ICMP has no ports", "remove it");
    }
}

/// What a check asks, by its keys; those of other kinds are complained of.
pub(super) fn kind(
    fields: &mut Fields<'_, '_>,
    raw: &raw::Health,
    word: Option<Word>,
) -> Option<ProbeKind> {
    let Some(word) = word else {
        // Of which kind it is meant to be is not known; what has the wrong shape still shows.
        http(fields, raw, Http);
        return None;
    };
    refuse_others(fields, raw, word);
    match word {
        Tcp => Some(ProbeKind::Tcp),
        Icmp => Some(ProbeKind::Icmp),
        Http | Https => http(fields, raw, word),
        Tls => Some(ProbeKind::Tls(tls(fields, raw)?)),
        Grpc | Grpcs => {
            let tls = if word == Grpcs {
                tls(fields, raw).map(Some)
            } else {
                Some(None)
            };
            let host = host(fields, raw);
            let service = fields.optional("service", &raw.service, "give its name", |name| {
                Ok(name.clone())
            });
            Some(ProbeKind::Grpc(GrpcProbe {
                tls: tls?,
                service: service?.unwrap_or_default(),
                host: host?,
            }))
        }
        Udp => udp(fields, raw),
        Command => command(fields, raw),
    }
}

/// Complains of keys that a check of this kind has no use for.
fn refuse_others(fields: &mut Fields<'_, '_>, raw: &raw::Health, word: Word) {
    type Key<'a> = (&'a str, Option<Range<usize>>, &'a [Word]);
    const HTTP: &[Word] = &[Http, Https];
    const TLS: &[Word] = &[Https, Tls, Grpcs];
    let keys: [Key<'_>; 17] = [
        ("path", place(&raw.path), HTTP),
        ("method", place(&raw.method), HTTP),
        ("headers", place(&raw.headers), HTTP),
        ("status", place(&raw.status), HTTP),
        ("body", place(&raw.body), HTTP),
        ("body_regex", place(&raw.body_regex), HTTP),
        ("host", place(&raw.host), &[Http, Https, Grpc, Grpcs]),
        ("server_name", place(&raw.server_name), TLS),
        ("ca", place(&raw.ca), TLS),
        ("verify", place(&raw.verify), TLS),
        ("warn_before_expiry", place(&raw.warn_before_expiry), TLS),
        ("service", place(&raw.service), &[Grpc, Grpcs]),
        ("send", place(&raw.send), &[Udp]),
        ("send_hex", place(&raw.send_hex), &[Udp]),
        ("expect", place(&raw.expect), &[Udp]),
        ("expect_hex", place(&raw.expect_hex), &[Udp]),
        ("command", place(&raw.command), &[Command]),
    ];
    for (key, at, kinds) in keys {
        if let (Some(at), false) = (at, kinds.contains(&word)) {
            let others: Vec<String> = kinds.iter().map(|k| format!("\"{}\"", k.name())).collect();
            fields.report(
                at,
                key,
                format!("a {} check has no use for it", word.name()),
                &format!("remove it, or use type = {}", others.join(" or ")),
            );
        }
    }
}

#[expect(
    clippy::option_option,
    reason = "wrong, missing and there are three things"
)]
fn host(fields: &mut Fields<'_, '_>, raw: &raw::Health) -> Option<Option<String>> {
    fields.optional(
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
    )
}

fn http(fields: &mut Fields<'_, '_>, raw: &raw::Health, word: Word) -> Option<ProbeKind> {
    let tls = if word == Https {
        tls(fields, raw).map(Some)
    } else {
        Some(None)
    };
    let methods = "give a method, as in \"GET\" or \"HEAD\"";
    let method = fields.optional(
        "method",
        &raw.method,
        methods,
        |method| match Method::from_bytes(method.as_bytes()) {
            Ok(known) if known != Method::CONNECT => Ok(known.to_string()),
            _ => Err(format!("is {method:?}")),
        },
    );
    let headers = fields.optional(
        "headers",
        &raw.headers,
        "give headers, as in [\"X-Probe: evenkeel\"], of at most 1024 bytes together; host is a \
         key of its own",
        |headers| headers_of(headers),
    );
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
    let host = host(fields, raw);
    let codes = "give codes or ranges from 100 to 599, as in [\"200-299\", 304]";
    let status = fields.optional("status", &raw.status, codes, |codes| {
        if codes.is_empty() {
            return Err("is empty: no answer would be healthy".to_owned());
        }
        codes.iter().map(range).collect::<Result<Vec<_>, _>>()
    });
    let body = body(fields, raw);
    let (path, host, status, body) = (path?, host?, status?, body?);
    Some(ProbeKind::Http(HttpProbe {
        tls: tls?,
        method: method?.unwrap_or_else(|| "GET".to_owned()),
        path: path.unwrap_or_else(|| "/".to_owned()),
        host,
        headers: headers?.unwrap_or_default(),
        status: status.unwrap_or_else(|| vec![200..=399]),
        body,
    }))
}

#[expect(
    clippy::option_option,
    reason = "wrong, missing and there are three things"
)]
fn body(fields: &mut Fields<'_, '_>, raw: &raw::Health) -> Option<Option<BodyMatch>> {
    let texts = "give the text to look for, or remove it";
    let text = fields.optional("body", &raw.body, texts, |body| {
        if body.is_empty() {
            Err("is empty".to_owned())
        } else {
            Ok(BodyMatch::Text(body.clone()))
        }
    });
    let patterns = "give a regular expression, as in \"status: (ok|busy)\", or remove it";
    let pattern = fields.optional("body_regex", &raw.body_regex, patterns, |pattern| {
        let built = RegexBuilder::new(pattern).size_limit(PATTERN).build();
        built.map(BodyMatch::Pattern).map_err(|e| e.to_string())
    });
    let (text, pattern) = (text?, pattern?);
    if let (Some(_), Some(_), Some(at)) = (&text, &pattern, place(&raw.body_regex)) {
        let remedy = "remove one of the two";
        fields.report(
            at,
            "body_regex",
            "the body is looked at for a text already",
            remedy,
        );
        return None;
    }
    Some(text.or(pattern))
}

/// Headers as they are written, with their values.
fn headers_of(lines: &[String]) -> Result<Vec<(String, String)>, String> {
    let header = |line: &String| {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| format!("{line:?} has no colon"))?;
        let (name, value) = (name.trim(), value.trim());
        let known = HeaderName::from_bytes(name.as_bytes());
        let known = known.map_err(|_| format!("{name:?} is no name of a header"))?;
        if ["host", "connection", "content-length", "transfer-encoding"].contains(&known.as_str()) {
            return Err(format!("{known} is not for a probe to say"));
        }
        HeaderValue::from_str(value)
            .map_err(|_| format!("{value:?} cannot be a header's value"))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    let headers = lines.iter().map(header).collect::<Result<Vec<_>, _>>()?;
    let bytes: usize = lines.iter().map(|line| line.len() + 2).sum();
    if bytes > HEADERS {
        return Err(format!("has {bytes} bytes"));
    }
    Ok(headers)
}

fn tls(fields: &mut Fields<'_, '_>, raw: &raw::Health) -> Option<TlsProbe> {
    let names = "give a host name or an address, as in \"www.example.org\"";
    let server_name = fields.optional("server_name", &raw.server_name, names, |name| {
        match tokio_rustls::rustls::pki_types::ServerName::try_from(name.as_str()) {
            Ok(_) => Ok(name.clone()),
            Err(_) => Err(format!("is {name:?}")),
        }
    });
    let files = "give an absolute path to a PEM file of CA certificates";
    let ca = fields.optional("ca", &raw.ca, files, |path| absolute(path, usize::MAX));
    let verify = fields.optional("verify", &raw.verify, "give true or false", |verify| {
        Ok(if *verify { Verify::Yes } else { Verify::No })
    });
    if let (Some(Some(Verify::No)), Some(at)) = (verify, place(&raw.ca)) {
        let problem = "nothing is verified, so no CA is trusted";
        fields.report(at, "ca", problem, "remove it, or verify = false");
    }
    let warn = fields.duration(
        "warn_before_expiry",
        &raw.warn_before_expiry,
        TlsProbe::WARN_BEFORE_EXPIRY,
        Duration::ZERO..=LONGEST_WARNING,
    );
    let ca: Option<PathBuf> = ca?;
    Some(TlsProbe {
        server_name: server_name?,
        ca,
        verify: verify?.unwrap_or(Verify::Yes),
        warn_before_expiry: warn?,
    })
}

fn udp(fields: &mut Fields<'_, '_>, raw: &raw::Health) -> Option<ProbeKind> {
    let send = bytes(fields, ("send", &raw.send), ("send_hex", &raw.send_hex));
    let expect = bytes(
        fields,
        ("expect", &raw.expect),
        ("expect_hex", &raw.expect_hex),
    );
    let Some(send) = send? else {
        fields.missing(
            "send",
            "give the text that is sent, or its bytes as send_hex",
        );
        return None;
    };
    Some(ProbeKind::Udp(UdpProbe {
        send,
        expect: expect?,
    }))
}

/// Bytes, as a text or in hexadecimal digits.
#[expect(
    clippy::option_option,
    reason = "wrong, missing and there are three things"
)]
fn bytes(
    fields: &mut Fields<'_, '_>,
    text: (&str, &Leaf<String>),
    digits: (&str, &Leaf<String>),
) -> Option<Option<Vec<u8>>> {
    let sized = |bytes: Vec<u8>| match bytes.len() {
        1..=DATAGRAM => Ok(bytes),
        length => Err(format!("has {length} bytes")),
    };
    let as_text = fields.optional(text.0, text.1, "give 1 to 1024 bytes of text", |text| {
        sized(text.as_bytes().to_vec())
    });
    let remedy = "give 1 to 1024 bytes in hexadecimal digits, as in \"00ff\"";
    let as_digits = fields.optional(digits.0, digits.1, remedy, |digits| {
        sized(hex::decode(digits).map_err(|e| e.to_string())?)
    });
    let (as_text, as_digits) = (as_text?, as_digits?);
    if let (Some(_), Some(_), Some(at)) = (&as_text, &as_digits, place(digits.1)) {
        let problem = format!("{} says the same in another way", text.0);
        fields.report(at, digits.0, problem, "remove one of the two");
        return None;
    }
    Some(as_text.or(as_digits))
}

fn command(fields: &mut Fields<'_, '_>, raw: &raw::Health) -> Option<ProbeKind> {
    let remedy = "give a program by its absolute path with its arguments, as in \
                  [\"/usr/local/bin/check\", \"--fast\"]; there is no shell";
    let argv = fields.required("command", &raw.command, remedy, |argv: &Vec<String>| {
        let Some(program) = argv.first() else {
            return Err("is empty".to_owned());
        };
        absolute(program, usize::MAX)?;
        if argv.iter().any(|argument| argument.contains('\0')) {
            return Err("has a zero byte".to_owned());
        }
        Ok(argv.clone())
    });
    Some(ProbeKind::Command(CommandProbe { argv: argv? }))
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
