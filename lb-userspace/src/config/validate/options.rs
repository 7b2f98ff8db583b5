//! What a service asks for beyond its mode.

use std::{num::NonZeroU32, ops::Range};

use ipnet::IpNet;

use super::{
    agent, ejection,
    field::{Fields, place},
    seen::{Seen, family},
    service::Known,
    traffic,
};
use crate::{
    config::raw::{self, Held, Leaf, Table},
    model::{
        ConnectionLimit, Fate, Fragments, Measured, Mode, OnDown, Options, Protocol, Quic,
        ServerIdLength, ServicePort, Sources, Spread, UdpFlows,
    },
};

/// Checks a service's options, and notes the length of its server IDs.
pub(super) fn check(
    raw: &raw::Service,
    fields: &mut Fields<'_, '_>,
    known: &mut Known,
    seen: &mut Seen,
) -> Option<Options> {
    let udp = udp(raw, fields, known);
    let spread = spread(raw, fields, known);
    let sources = sources(raw, fields, known);
    if let Some(Some(sources)) = &sources {
        seen.prefixes += sources.allow.len() + sources.deny.len();
    }
    let limit = limit(raw, fields, known);
    let fragments = fragments(raw, fields);
    let quic = quic(raw, fields, known);
    known.server_ids = quic.map(|quic| quic.map(|quic| quic.server_id_length));
    let on_down = fields.word(
        "on_down",
        &raw.on_down,
        OnDown::Rehash,
        &[("rehash", OnDown::Rehash), ("keep", OnDown::Keep)],
    );
    let slow_start = ejection::slow_start(raw, fields);
    let panic_below = ejection::panic_below(raw, fields);
    let agent = agent::check(raw, fields);
    let traffic = traffic::check(raw, fields);
    let bounds = 0..=i64::from(Measured::LEAST);
    let one_in = fields.number("measure_one_in", &raw.measure_one_in, 64, bounds, " (none)");
    let measured = one_in.map(|one_in| Measured::one_of(one_in as u32));
    let ejection = ejection::check(raw, fields, spread, measured);
    Some(Options {
        slow_start: slow_start?,
        panic_below: panic_below?,
        ejection: ejection?,
        agent: agent?,
        traffic: traffic?,
        udp: udp?,
        spread: spread?,
        sources: sources?,
        limit: limit?,
        fragments: fragments?,
        quic: quic?,
        on_down: on_down?,
        measured: measured?,
    })
}

fn udp(raw: &raw::Service, fields: &mut Fields<'_, '_>, known: &Known) -> Option<UdpFlows> {
    only_for(Protocol::Udp, "udp", place(&raw.udp), fields, known);
    let remembers = known.mode == Some(Mode::Snat);
    let default = if remembers && known.protocol == Some(Protocol::Udp) {
        UdpFlows::Sticky
    } else {
        UdpFlows::Hash
    };
    let words = [("hash", UdpFlows::Hash), ("sticky", UdpFlows::Sticky)];
    let udp = fields.word("udp", &raw.udp, default, &words)?;
    if remembers
        && udp == UdpFlows::Hash
        && let Held::Good(_, at) = raw.udp.held()
    {
        fields.report(
            at,
            "udp",
            "mode snat remembers every flow",
            "remove it, or use mode = \"nat\"",
        );
    }
    Some(udp)
}

fn spread(raw: &raw::Service, fields: &mut Fields<'_, '_>, known: &Known) -> Option<Spread> {
    let words = [
        ("flow", Spread::Flow),
        ("source", Spread::Source),
        ("port", Spread::Port),
    ];
    let spread = fields.word("spread", &raw.spread, Spread::Flow, &words)?;
    if let (Spread::Port, Some(ServicePort::Exact(port)), Held::Good(_, at)) =
        (spread, known.port, raw.spread.held())
    {
        fields.report(
            at,
            "spread",
            format!("all packets of the service have port {port}, and would go to one backend"),
            "use spread = \"flow\" or \"source\", or port = \"any\"",
        );
    }
    Some(spread)
}

const PREFIXES: &str = "give prefixes or addresses, as in [\"192.0.2.0/24\", \"2001:db8::/32\"]";

#[expect(
    clippy::option_option,
    reason = "wrong, missing and there are three things"
)]
fn sources(
    raw: &raw::Service,
    fields: &mut Fields<'_, '_>,
    known: &Known,
) -> Option<Option<Sources>> {
    let mut list = |key, leaf| {
        fields.optional(key, leaf, PREFIXES, |texts: &Vec<String>| {
            prefixes(texts, known)
        })
    };
    let (allow, deny) = (list("allow", &raw.allow), list("deny", &raw.deny));
    let (allow, deny) = match (allow?, deny?) {
        (None, None) => return Some(None),
        (allow, deny) => (allow.unwrap_or_default(), deny.unwrap_or_default()),
    };
    if let Some(both) = deny.iter().find(|prefix| allow.contains(prefix))
        && let Held::Good(_, at) = raw.deny.held()
    {
        fields.report(
            at,
            "deny",
            format!("{both} is allowed, too"),
            "remove it from one of the two; of prefixes in each other the longest decides",
        );
    }
    Some(Some(Sources { allow, deny }))
}

/// The prefixes of a list.
fn prefixes(texts: &[String], known: &Known) -> Result<Vec<IpNet>, String> {
    if texts.is_empty() {
        return Err("is empty".to_owned());
    }
    let mut prefixes = Vec::with_capacity(texts.len());
    for text in texts {
        let prefix = prefix(text)?;
        if let Some(vip) = known.vip
            && family(vip) != family(prefix.addr())
        {
            let (own, vips) = (family(prefix.addr()), family(vip));
            return Err(format!(
                "{text} is {own}, the VIP is {vips}: it covers no source"
            ));
        }
        prefixes.push(prefix);
    }
    let mut sorted = prefixes.clone();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("names {} twice", pair[0])),
        None => Ok(prefixes),
    }
}

/// A prefix, or an address for its longest one.
pub(super) fn prefix(text: &str) -> Result<IpNet, String> {
    let prefix = text
        .parse()
        .or_else(|_| text.parse().map(|address: std::net::IpAddr| address.into()))
        .map_err(|_| format!("\"{text}\" is no prefix"))?;
    if prefix == IpNet::trunc(&prefix) {
        Ok(prefix)
    } else {
        let meant = prefix.trunc();
        Err(format!(
            "{text} has bits behind its length: the prefix is {meant}"
        ))
    }
}

#[expect(
    clippy::option_option,
    reason = "wrong, missing and there are three things"
)]
fn limit(
    raw: &raw::Service,
    fields: &mut Fields<'_, '_>,
    known: &Known,
) -> Option<Option<ConnectionLimit>> {
    const KEY: &str = "new_connections_per_source";
    let leaf = &raw.new_connections_per_source;
    only_for(Protocol::Tcp, KEY, place(leaf), fields, known);
    let Some((table, at)) = table(leaf, KEY, "{ per_second = 100 }", fields)? else {
        return Some(None);
    };
    let mut fields = fields.inner(KEY, at);
    let bounds = format!("give a whole number from 1 to {}", ConnectionLimit::MAX);
    let count = |&number: &i64| {
        u32::try_from(number)
            .ok()
            .filter(|number| *number <= ConnectionLimit::MAX)
            .and_then(NonZeroU32::new)
            .ok_or_else(|| format!("is {number}"))
    };
    let per_second = fields.required("per_second", &table.per_second, &bounds, count);
    let burst = fields.optional("burst", &table.burst, &bounds, count);
    let per_second = per_second?;
    Some(Some(ConnectionLimit {
        per_second,
        burst: burst?.unwrap_or(per_second),
    }))
}

fn fragments(raw: &raw::Service, fields: &mut Fields<'_, '_>) -> Option<Fragments> {
    const FATES: [(&str, Fate); 2] = [("drop", Fate::Drop), ("pass", Fate::Pass)];
    let words = [
        ("follow", None),
        ("drop", Some(Fate::Drop)),
        ("pass", Some(Fate::Pass)),
    ];
    let refuse = fields.word("fragments", &raw.fragments, None, &words);
    let leaf = &raw.reordered_fragments;
    let reordered = fields.word("reordered_fragments", leaf, Fate::Drop, &FATES);
    let (refuse, reordered) = (refuse?, reordered?);
    let Some(fate) = refuse else {
        return Some(Fragments::Follow(reordered));
    };
    if let Some(at) = place(leaf) {
        fields.report(
            at,
            "reordered_fragments",
            format!("fragments = \"{fate}\" holds for all of them"),
            "remove it, or use fragments = \"follow\"",
        );
    }
    Some(Fragments::Refuse(fate))
}

#[expect(
    clippy::option_option,
    reason = "wrong, missing and there are three things"
)]
fn quic(raw: &raw::Service, fields: &mut Fields<'_, '_>, known: &Known) -> Option<Option<Quic>> {
    only_for(Protocol::Udp, "quic", place(&raw.quic), fields, known);
    let example = "{ server_id_length = 4 }";
    let Some((table, at)) = table(&raw.quic, "quic", example, fields)? else {
        return Some(None);
    };
    if known.mode == Some(Mode::Snat) {
        fields.report(
            at.clone(),
            "quic",
            "mode snat remembers each flow by its addresses and ports",
            "remove it, or use another mode",
        );
    }
    let mut fields = fields.inner("quic", at);
    let bounds = format!("give a number of bytes from 1 to {}", ServerIdLength::MAX);
    let leaf = &table.server_id_length;
    let server_id_length = fields.required("server_id_length", leaf, &bounds, |&bytes| {
        u8::try_from(bytes)
            .ok()
            .and_then(ServerIdLength::new)
            .ok_or_else(|| format!("is {bytes}"))
    });
    Some(Some(Quic {
        server_id_length: server_id_length?,
    }))
}

/// The table that a key of the service holds, if it is there, with its place.
#[expect(
    clippy::option_option,
    reason = "wrong, missing and there are three things"
)]
pub(super) fn table<'a, T>(
    leaf: &'a Leaf<Table<T>>,
    key: &str,
    example: &str,
    fields: &mut Fields<'_, '_>,
) -> Option<Option<(&'a T, Range<usize>)>> {
    match leaf.held() {
        Held::Missing => Some(None),
        Held::Good(table, at) => Some(Some((&table.0, at))),
        Held::Bad(complaint, at) => {
            fields.report(at, key, complaint, &format!("write {key} = {example}"));
            None
        }
    }
}

/// Reports a key that a service of the other protocol has.
fn only_for(
    protocol: Protocol,
    key: &str,
    at: Option<Range<usize>>,
    fields: &mut Fields<'_, '_>,
    known: &Known,
) {
    if let (Some(at), Some(own)) = (at, known.protocol)
        && own != protocol
    {
        fields.report(
            at,
            key,
            format!("means nothing for {own}"),
            &format!("remove it, or use protocol = \"{protocol}\""),
        );
    }
}
