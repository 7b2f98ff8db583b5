//! A service, but for its options, checks and backends.

use std::{net::IpAddr, num::NonZeroU16, ops::Range};

use super::{NAME, Seen, backends, field::Fields, health, held, name, options, unicast};
use crate::{
    config::{
        findings::Report,
        raw::{self, AnyPort, Held, NumberOr},
    },
    model::{
        Mode, OnEmpty, Protocol, RingSize, RingSlots, ServerIdLength, Service, ServiceKey,
        ServicePort,
    },
};

/// What is known of a service while the rest of it is checked: what is wrong is missing.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) vip: Option<IpAddr>,
    pub(super) port: Option<ServicePort>,
    pub(super) protocol: Option<Protocol>,
    pub(super) mode: Option<Mode>,
    /// The length of its server IDs; `Some(None)` without QUIC.
    #[expect(
        clippy::option_option,
        reason = "wrong, missing and there are three things"
    )]
    pub(super) server_ids: Option<Option<ServerIdLength>>,
}

impl Known {
    /// What packets it takes.
    pub(super) fn key(&self) -> Option<ServiceKey> {
        Some(ServiceKey {
            vip: self.vip?,
            port: self.port?,
            protocol: self.protocol?,
        })
    }
}

/// Checks the service at `at`.
pub(super) fn check(
    raw: &raw::Service,
    at: Range<usize>,
    path: &str,
    seen: &mut Seen,
    report: &mut Report<'_>,
) -> Option<Service> {
    let mut fields = Fields::new(path, at.clone(), report);
    let name = fields.required("name", &raw.name, NAME, |text| name(text, "._-"));
    let name = name.filter(|name| fields.unique("name", &raw.name, name, &mut seen.names));
    let vip = fields.required(
        "vip",
        &raw.vip,
        "give one address, as in \"198.51.100.10\"",
        |text| unicast(text),
    );
    let port = fields.required("port", &raw.port, "give 1 to 65535, or \"any\"", port);
    let protocol = fields.word(
        "protocol",
        &raw.protocol,
        Protocol::Tcp,
        &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)],
    );
    let mode = fields.word("mode", &raw.mode, Mode::Dsr, &Mode::WORDS);
    let ring_slots = ring_slots(&mut fields, raw, &at);
    let on_empty = fields.word(
        "on_empty",
        &raw.on_empty,
        OnEmpty::Drop,
        &[("drop", OnEmpty::Drop), ("pass", OnEmpty::Pass)],
    );
    let mut known = Known {
        vip,
        port,
        protocol,
        mode,
        server_ids: None,
    };
    let options = options::check(raw, &mut fields, &mut known, seen);
    remember(&known, raw, &at, path, seen, report);
    let field = format!("{path}.health");
    let health = match held(&raw.health, &field, "write it as [services.health]", report) {
        Some(Some((table, at))) => health::check(&table.0, at, &field, &known, report).map(Some),
        Some(None) => Some(None),
        None => None,
    };
    let backends = backends::check(&raw.backends, path, &at, &known, seen, report);
    Some(Service {
        name: name?,
        key: known.key()?,
        mode: mode?,
        ring_slots: ring_slots?,
        on_empty: on_empty?,
        options: options?,
        health: health?,
        backends: backends?,
    })
}

fn ring_slots(
    fields: &mut Fields<'_, '_>,
    raw: &raw::Service,
    at: &Range<usize>,
) -> Option<RingSize> {
    let sizes = format!(
        "give a power of two from {} to {}, or leave it out",
        RingSlots::MIN,
        RingSlots::MAX
    );
    let slots = fields.optional("ring_slots", &raw.ring_slots, &sizes, |slots| {
        u32::try_from(*slots)
            .ok()
            .and_then(RingSlots::new)
            .ok_or_else(|| format!("is {slots}"))
    })?;
    let count = raw.backends.good().map_or(0, Vec::len);
    let room = slots.map_or(RingSlots::MAX as usize, RingSlots::count);
    if count > room {
        fields.report(
            at.clone(),
            "ring_slots",
            format!("{room} slots for {count} backends"),
            "give at least one slot for each backend; a hundred make their shares exact",
        );
    }
    Some(slots.map_or(RingSize::Auto, RingSize::Fixed))
}

/// Notes what must not stand in the file twice, and finds what does.
fn remember(
    known: &Known,
    raw: &raw::Service,
    at: &Range<usize>,
    path: &str,
    seen: &mut Seen,
    report: &mut Report<'_>,
) {
    if let Some(vip) = known.vip {
        seen.vips.entry(vip).or_insert_with(|| at.clone());
        if known.mode == Some(Mode::Snat)
            && let Held::Good(_, at) = raw.mode.held()
        {
            seen.snat.push((vip, format!("{path}.mode"), at));
        }
    }
    if let Some(key) = known.key() {
        let first = seen.keys.entry(key).or_insert_with(|| at.clone());
        if first != at {
            let line = report.line(first);
            report.add(
                at.clone(),
                path,
                format!("{key} is taken by the service in line {line}"),
                "change vip, port or protocol, or merge the two services",
            );
        }
    }
}

fn port(port: &NumberOr<AnyPort>) -> Result<ServicePort, String> {
    match port {
        NumberOr::Number(number) => u16::try_from(*number)
            .ok()
            .and_then(NonZeroU16::new)
            .map(ServicePort::Exact)
            .ok_or_else(|| format!("is {number}")),
        NumberOr::Word(word, _) if word == "any" => Ok(ServicePort::Any),
        NumberOr::Word(word, _) => Err(format!("is \"{word}\"")),
    }
}
