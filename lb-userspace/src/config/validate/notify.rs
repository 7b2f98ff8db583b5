//! Who is told of alerts: `[[notify]]`, when the controller audits: `[audit]`, and when incidents end:
//! `[incidents]`.

use std::{
    collections::BTreeMap, num::NonZeroU32, ops::Range, path::PathBuf, sync::Arc, time::Duration,
};

use hyper::{
    Uri,
    header::{HeaderName, HeaderValue},
};

use super::{
    NAME, absolute,
    field::{Fields, place},
    held, name,
    seen::Seen,
};
use crate::{
    config::{
        findings::Report,
        raw::{self, Held, Leaf, Table, Tables},
    },
    model::{
        AlertName, Audit, Filter, Http, Incidents, RUNBOOKS, Receiver, Secret, Severity, Target,
        Text,
    },
};

/// The severities that may open an incident.
const OPENERS: [(&str, Severity); 2] = [("page", Severity::Page), ("ticket", Severity::Ticket)];
/// Most receivers: each has a queue of its own.
const RECEIVERS: usize = 32;
const URL: &str = "give an http or https URL, as in \"https://alerts.example.org/hook\", or where it \
                   is: { file = \"…\" } or { env = \"…\" }";
const RUNBOOKS_AT: &str = "give the URL of a folder, as in \"https://wiki.example.org/evenkeel/\"";
const SECRET: &str = "give one of { file = \"/etc/evenkeel/secret\" } and { env = \"NAME\" }";

/// Checks `[audit]`, or takes its defaults.
pub(super) fn audit(
    table: Option<(&Table<raw::Audit>, Range<usize>)>,
    report: &mut Report<'_>,
) -> Option<Audit> {
    let default = Audit::default();
    let Some((table, at)) = table else {
        return Some(default);
    };
    let mut fields = Fields::new("audit", at, report);
    let bounds = Duration::from_mins(1)..=Duration::from_hours(24);
    let every = fields.duration("every", &table.0.every, default.every, bounds);
    Some(Audit { every: every? })
}

/// Checks `[incidents]`, or takes its defaults.
pub(super) fn incidents(
    table: Option<(&Table<raw::Incidents>, Range<usize>)>,
    report: &mut Report<'_>,
) -> Option<Incidents> {
    let default = Incidents::default();
    let Some((table, at)) = table else {
        return Some(default);
    };
    let mut fields = Fields::new("incidents", at, report);
    let (after, bounds) = (
        &table.0.close_after,
        Duration::from_secs(1)..=Duration::from_hours(24),
    );
    let close_after = fields.duration("close_after", after, default.close_after, bounds);
    let opened_by = fields.word("opened_by", &table.0.opened_by, default.opened_by, &OPENERS);
    Some(Incidents {
        opened_by: opened_by?,
        close_after: close_after?,
    })
}

/// Checks all receivers.
pub(super) fn receivers(
    raw: &Tables<raw::Notify>,
    seen: &Seen,
    report: &mut Report<'_>,
) -> Option<Vec<Receiver>> {
    let Some((tables, _)) = held(raw, "notify", "write each as [[notify]]", report)? else {
        return Some(Vec::new());
    };
    if let Some(at) = tables.get(RECEIVERS).and_then(place) {
        let problem = format!("there are {}", tables.len());
        report.add(at, "notify", problem, format!("give at most {RECEIVERS}"));
    }
    let mut names = BTreeMap::new();
    let mut receivers = Vec::new();
    let mut whole = true;
    for (index, table) in tables.iter().enumerate() {
        let path = format!("notify[{index}]");
        let checked = held(table, &path, "write it as [[notify]]", report)
            .flatten()
            .and_then(|(table, at)| receiver(&table.0, at, &path, (&mut names, seen), report));
        whole &= checked.is_some();
        receivers.extend(checked);
    }
    whole.then_some(receivers)
}

fn receiver(
    raw: &raw::Notify,
    at: Range<usize>,
    path: &str,
    (names, seen): (&mut BTreeMap<String, Range<usize>>, &Seen),
    report: &mut Report<'_>,
) -> Option<Receiver> {
    let mut fields = Fields::new(path, at, report);
    let own = fields.required("name", &raw.name, NAME, |text| name(text, "._-"));
    let unique = own
        .as_ref()
        .is_none_or(|own| fields.unique("name", &raw.name, own, names));
    let target = target(raw, &mut fields);
    let filter = filter(raw, seen, &mut fields);
    let resolve = fields.optional("resolve", &raw.resolve, "give true or false", |&on| Ok(on));
    let repeated = match target {
        Some(Target::Alertmanager(_)) => Receiver::REPEAT_TO_ALERTMANAGER,
        _ => Receiver::REPEAT,
    };
    let (ten, day) = (Duration::from_secs(10), Duration::from_hours(24));
    let repeat = fields.duration("repeat", &raw.repeat, repeated, ten..=7 * day);
    let heartbeat = match raw.heartbeat.held() {
        Held::Missing => Some(None),
        _ => fields
            .duration(
                "heartbeat",
                &raw.heartbeat,
                Duration::from_mins(1),
                ten..=day,
            )
            .map(Some),
    };
    let least = i64::from(Receiver::PER_MINUTE.get());
    let per_minute = fields.number("per_minute", &raw.per_minute, least, 1..=6000, "");
    let second = Duration::from_secs(1);
    let timeout = fields.duration(
        "timeout",
        &raw.timeout,
        Receiver::TIMEOUT,
        second / 10..=30 * second,
    );
    let runbooks = fields.optional("runbooks", &raw.runbooks, RUNBOOKS_AT, |text| folder(text));
    Some(Receiver {
        name: own.filter(|_| unique)?,
        target: target?,
        filter: filter?,
        resolve: resolve?.unwrap_or(true),
        repeat: repeat?,
        heartbeat: heartbeat?,
        per_minute: NonZeroU32::new(u32::try_from(per_minute?).ok()?)?,
        timeout: timeout?,
        runbooks: runbooks?.unwrap_or_else(|| format!("file://{RUNBOOKS}").into()),
    })
}

/// Takes the URL of a folder, and sees to the slash at its end.
fn folder(text: &str) -> Result<Arc<str>, String> {
    let known = ["https://", "http://", "file:///"];
    let rest = known.iter().find_map(|scheme| text.strip_prefix(scheme));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.contains(char::is_whitespace) => {
            Ok(format!("{}/", text.trim_end_matches('/')).into())
        }
        _ => Err(format!("\"{text}\" is not the URL of a folder")),
    }
}

/// The types with the keys that each has beside those of all.
const TYPES: [(&str, &[&str]); 6] = [
    ("alertmanager", &["url", "headers", "ca"]),
    ("webhook", &["url", "headers", "ca", "secret"]),
    ("slack", &["url", "headers", "ca"]),
    ("command", &["command"]),
    ("syslog", &["path"]),
    ("file", &["path"]),
];

fn target(raw: &raw::Notify, fields: &mut Fields<'_, '_>) -> Option<Target> {
    let words: Vec<String> = TYPES
        .iter()
        .map(|(word, _)| format!("\"{word}\""))
        .collect();
    let remedy = format!("give {}", words.join(" or "));
    let (word, keys) = fields.required("type", &raw.kind, &remedy, |text| {
        let known = TYPES.iter().find(|(word, _)| word == text);
        known.copied().ok_or_else(|| format!("is \"{text}\""))
    })?;
    for (key, at) in [
        ("url", place(&raw.url)),
        ("headers", place(&raw.headers)),
        ("ca", place(&raw.ca)),
        ("secret", place(&raw.secret)),
        ("command", place(&raw.command)),
        ("path", place(&raw.path)),
    ] {
        if let Some(at) = at.filter(|_| !keys.contains(&key)) {
            let problem = format!("a receiver of type \"{word}\" has none");
            let remedy = format!("remove it; it has {}", keys.join(", "));
            fields.report(at, key, problem, &remedy);
        }
    }
    match word {
        "alertmanager" => http(raw, fields).map(Target::Alertmanager),
        "webhook" => {
            let secret = optional_secret("secret", &raw.secret, fields);
            let http = http(raw, fields);
            Some(Target::Webhook {
                http: http?,
                secret: secret?,
            })
        }
        "slack" => http(raw, fields).map(Target::Slack),
        "command" => {
            let remedy = "give the program's absolute path and its arguments, as in \
                          [\"/usr/local/bin/page\", \"--team\", \"web\"]";
            let command = fields.required("command", &raw.command, remedy, |words| {
                let program = words.first().ok_or("is empty")?;
                absolute(program, usize::MAX)?;
                let zero = words.iter().find(|word| word.contains('\0'));
                zero.map_or_else(
                    || Ok(words.clone()),
                    |word| Err(format!("{word:?} holds a zero byte")),
                )
            });
            command.map(Target::Command)
        }
        "syslog" => fields
            .path("path", &raw.path, "/dev/log", 107)
            .map(Target::Syslog),
        _ => {
            let remedy = "give an absolute path, as in \"/var/log/evenkeel/alerts.jsonl\"";
            let path = |text: &String| absolute(text, usize::MAX);
            fields
                .required("path", &raw.path, remedy, path)
                .map(Target::File)
        }
    }
}

fn http(raw: &raw::Notify, fields: &mut Fields<'_, '_>) -> Option<Http> {
    let url = match raw.url.held() {
        Held::Good(raw::Text::Secret(table), at) => {
            secret(&table.0, at, "url", fields).map(Text::Secret)
        }
        _ => fields.required("url", &raw.url, URL, |text| match text {
            raw::Text::Plain(text) => url(text).map(|()| Text::Plain(text.clone())),
            // The arm above took it.
            raw::Text::Secret(_) => Err("is no text".to_owned()),
        }),
    };
    let remedy =
        "write it as headers = { Name = \"value\" }, a value as a text or as { file = \"…\" }";
    let raw_headers = match raw.headers.held() {
        Held::Missing => Some(None),
        Held::Good(map, _) => Some(Some(map)),
        Held::Bad(complaint, at) => {
            fields.report(at, "headers", complaint, remedy);
            None
        }
    };
    let mut headers = Vec::new();
    let mut whole = true;
    for (name, leaf) in raw_headers?.into_iter().flatten() {
        let value = header(name, leaf, fields);
        whole &= value.is_some();
        headers.extend(value.map(|value| (name.clone(), value)));
    }
    let remedy = "give an absolute path to a PEM file of CA certificates";
    let ca = fields.optional("ca", &raw.ca, remedy, |path| absolute(path, usize::MAX));
    Some(Http {
        ca: ca?,
        url: url?,
        headers: Some(headers).filter(|_| whole)?,
    })
}

fn header(name: &str, leaf: &Leaf<raw::Text>, fields: &mut Fields<'_, '_>) -> Option<Text> {
    let key = format!("headers.{name}");
    let remedy = "give a header field of HTTP, as in Authorization = { file = \"…\" }";
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        let at = place(leaf)?;
        fields.report(at, &key, "is no name of a header field", remedy);
        return None;
    }
    if let Held::Good(raw::Text::Secret(table), at) = leaf.held() {
        return secret(&table.0, at, &key, fields).map(Text::Secret);
    }
    fields.required(&key, leaf, remedy, |text| match text {
        raw::Text::Plain(text) if HeaderValue::from_str(text).is_ok() => {
            Ok(Text::Plain(text.clone()))
        }
        _ => Err("cannot be sent in a header field".to_owned()),
    })
}

/// Whether a text is a URL that can be sent to.
fn url(text: &str) -> Result<(), String> {
    let uri: Uri = text
        .parse()
        .map_err(|e| format!("\"{text}\" is not a URL: {e}"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(()),
        (Some("http" | "https"), _) => Err(format!("\"{text}\" names no host")),
        (Some(scheme), _) => Err(format!("is of scheme \"{scheme}\"")),
        (None, _) => Err(format!("\"{text}\" has no scheme")),
    }
}

/// Where a secret is that may be left out.
#[expect(
    clippy::option_option,
    reason = "wrong, missing and there are three things"
)]
pub(super) fn optional_secret(
    key: &str,
    leaf: &Leaf<Table<raw::Secret>>,
    fields: &mut Fields<'_, '_>,
) -> Option<Option<Secret>> {
    match leaf.held() {
        Held::Missing => Some(None),
        Held::Good(table, at) => secret(&table.0, at, key, fields).map(Some),
        Held::Bad(complaint, at) => {
            fields.report(at, key, complaint, SECRET);
            None
        }
    }
}

fn secret(
    raw: &raw::Secret,
    at: Range<usize>,
    key: &str,
    fields: &mut Fields<'_, '_>,
) -> Option<Secret> {
    let (file, env) = (place(&raw.file).is_some(), place(&raw.env).is_some());
    if file == env {
        let problem = if file {
            "names a file and a variable"
        } else {
            "names neither a file nor a variable"
        };
        fields.report(at, key, problem, SECRET);
        return None;
    }
    let mut fields = fields.inner(key, at);
    if file {
        let path = |text: &String| absolute(text, usize::MAX);
        let path: Option<PathBuf> = fields.required("file", &raw.file, SECRET, path);
        return path.map(Secret::File);
    }
    let variable = fields.required("env", &raw.env, SECRET, |text| {
        if text.is_empty() || text.contains(['=', '\0']) {
            Err(format!("{text:?} cannot be the name of a variable"))
        } else {
            Ok(text.clone())
        }
    });
    variable.map(Secret::Env)
}

fn filter(raw: &raw::Notify, seen: &Seen, fields: &mut Fields<'_, '_>) -> Option<Filter> {
    let remedy = "give names of docs/alerts.md, as in [\"BackendDown\"], or leave it out for all";
    let alerts = fields.optional("alerts", &raw.alerts, remedy, |words| {
        if words.is_empty() {
            return Err("is empty".to_owned());
        }
        let known = |word: &String| {
            let name = AlertName::of(word).filter(|name| name.is_routed());
            name.ok_or_else(|| match nearest(word) {
                Some(near) => format!("there is no alert \"{word}\"; did you mean \"{near}\"?"),
                None => format!("there is no alert \"{word}\""),
            })
        };
        words.iter().map(known).collect::<Result<Vec<_>, _>>()
    });
    let severity = fields.word("severity", &raw.severity, Severity::Info, &Severity::WORDS);
    let remedy = "give names of services of this file, or leave it out for all";
    let services = fields.optional("services", &raw.services, remedy, |words| {
        if words.is_empty() {
            return Err("is empty".to_owned());
        }
        let known = |word: &String| -> Result<Arc<str>, String> {
            if seen.names.contains_key(word) {
                Ok(word.as_str().into())
            } else {
                Err(format!("there is no service \"{word}\""))
            }
        };
        words.iter().map(known).collect::<Result<Vec<_>, _>>()
    });
    Some(Filter {
        alerts: alerts?,
        severity: severity?,
        services: services?,
    })
}

/// The alert whose name is nearest.
fn nearest(word: &str) -> Option<&'static str> {
    let names = AlertName::ALL.iter().filter(|name| name.is_routed());
    names
        .map(|name| (strsim::jaro_winkler(word, name.word()), name.word()))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
