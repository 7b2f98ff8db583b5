//! From the file as it is written to a configuration that can be trusted.

mod agent;
mod backends;
mod ejection;
mod field;
mod health;
mod http;
mod notify;
mod options;
mod probe;
mod seen;
mod service;
mod shared;
mod traffic;

use std::{
    net::{IpAddr, Ipv4Addr},
    ops::Range,
    path::PathBuf,
    sync::Arc,
};

use self::{
    field::{Fields, place},
    seen::Seen,
};
use super::{
    findings::Report,
    raw::{self, Held, Leaf, Table, Tables},
};
use crate::model::{
    AdminConfig, Config, DataPlaneConfig, Evenness, OnDrift, ProbeMark, Service, XdpMode,
};

/// Most services in a file, as many as the tables hold.
const SERVICES: usize = lb_common::layout::SERVICES;
/// Most pairs of service and backend: half of what the tables hold, so that a change of all of
/// them fits beside the old ones.
const BACKENDS: usize = lb_common::layout::ENDPOINTS / 2;

const NAME: &str = "give 1 to 63 of the characters a-z, 0-9, '.', '_' and '-', a letter or digit \
                    first";

/// Checks everything; the result counts only where nothing was reported.
pub(super) fn config(raw: &raw::Config, report: &mut Report<'_>) -> Option<Config> {
    let missing = "add [data_plane] with interfaces = [\"…\"]";
    let data_plane = match held(&raw.data_plane, "data_plane", missing, report) {
        Some(Some((table, at))) => data_plane(&table.0, at, report),
        Some(None) => {
            report.add(0..0, "data_plane", "is missing", missing);
            None
        }
        None => None,
    };
    let table = held(&raw.admin, "admin", "write it as [admin]", report);
    let admin = table.and_then(|table| admin(table, report));
    let table = held(&raw.snat, "snat", "write it as [snat]", report);
    let snat = match &table {
        Some(Some((table, at))) => shared::snat(&table.0, at.clone(), report).map(Some),
        Some(None) => Some(None),
        None => None,
    };
    let tunnel = held(&raw.tunnel, "tunnel", "write it as [tunnel]", report)
        .and_then(|table| shared::tunnel(table, report));
    let tracking = held(&raw.tracking, "tracking", "write it as [tracking]", report)
        .and_then(|table| shared::tracking(table, report));
    let table_of_state = held(&raw.state, "state", "write it as [state]", report);
    let state = table_of_state.and_then(|table| shared::state(table, report));
    let table_of_audit = held(&raw.audit, "audit", "write it as [audit]", report);
    let audit = table_of_audit.and_then(|table| notify::audit(table, report));
    let table_of_incidents = held(
        &raw.incidents,
        "incidents",
        "write it as [incidents]",
        report,
    );
    let incidents = table_of_incidents.and_then(|table| notify::incidents(table, report));
    let table_of_http = held(&raw.http, "http", "write it as [http]", report);
    let http = table_of_http.and_then(|table| http::server(table, report));
    let mut seen = Seen::default();
    let services = services(&raw.services, &mut seen, report);
    let notify = notify::receivers(&raw.notify, &seen, report);
    seen.together(report);
    // What is wrong with the pool itself has been told.
    if let Some(snat) = &snat {
        let at = table
            .flatten()
            .and_then(|(table, _)| place(&table.0.addresses));
        seen.pool(snat.as_ref().zip(at), report);
    }
    Some(Config {
        data_plane: data_plane?,
        admin: admin?,
        snat: snat?,
        tunnel: tunnel?,
        tracking: tracking?,
        state: state?,
        audit: audit?,
        incidents: incidents?,
        http: http?,
        notify: notify?,
        services: services?,
    })
}

/// What a key holds, if it is there, with its place; `None` after reporting that its shape is
/// wrong.
#[expect(
    clippy::option_option,
    reason = "wrong, missing and there are three things"
)]
fn held<'a, T>(
    leaf: &'a Leaf<T>,
    field: &str,
    remedy: &str,
    report: &mut Report<'_>,
) -> Option<Option<(&'a T, Range<usize>)>> {
    match leaf.held() {
        Held::Missing => Some(None),
        Held::Good(value, at) => Some(Some((value, at))),
        Held::Bad(complaint, at) => {
            report.add(at, field, complaint, remedy);
            None
        }
    }
}

fn services(
    raw: &Tables<raw::Service>,
    seen: &mut Seen,
    report: &mut Report<'_>,
) -> Option<Vec<Service>> {
    let tables = match held(raw, "services", "write each as [[services]]", report)? {
        Some((tables, _)) if !tables.is_empty() => tables,
        _ => {
            let remedy = "add at least one [[services]]";
            report.add(0..0, "services", "there is none", remedy);
            return None;
        }
    };
    if let Some(Held::Good(_, at) | Held::Bad(_, at)) = tables.get(SERVICES).map(Leaf::held) {
        report.add(
            at,
            "services",
            format!("there are {}", tables.len()),
            format!("give at most {SERVICES}, or spread them over several hosts"),
        );
    }
    let backends: usize = tables
        .iter()
        .filter_map(|table| table.good()?.0.backends.good())
        .map(Vec::len)
        .sum();
    if backends > BACKENDS {
        report.add(
            0..0,
            "services",
            format!("there are {backends} pairs of service and backend"),
            format!("give at most {BACKENDS}, or spread them over several hosts"),
        );
    }
    let services: Vec<Option<Service>> = tables
        .iter()
        .enumerate()
        .map(|(index, table)| {
            let path = format!("services[{index}]");
            let (table, at) = held(table, &path, "write it as [[services]]", report)??;
            service::check(&table.0, at, &path, seen, report)
        })
        .collect();
    services.into_iter().collect()
}

fn data_plane(
    raw: &raw::DataPlane,
    at: Range<usize>,
    report: &mut Report<'_>,
) -> Option<DataPlaneConfig> {
    let mut fields = Fields::new("data_plane", at, report);
    let names = "give the names of network interfaces, as in [\"eth0\"]";
    let interfaces = fields.required("interfaces", &raw.interfaces, names, |names| {
        if names.is_empty() {
            return Err("is empty".to_owned());
        }
        for (index, name) in names.iter().enumerate() {
            if !interface(name) {
                return Err(format!("{name:?} cannot be the name of an interface"));
            }
            if names[..index].contains(name) {
                return Err(format!("names {name:?} twice"));
            }
        }
        Ok(names.clone())
    });
    let xdp_mode = fields.word(
        "xdp_mode",
        &raw.xdp_mode,
        XdpMode::Native,
        &[("native", XdpMode::Native), ("generic", XdpMode::Generic)],
    );
    let pins = fields.path("pins", &raw.pins, "/sys/fs/bpf/evenkeel", usize::MAX);
    let hash_seed = fields.number("hash_seed", &raw.hash_seed, 0, 0..=i64::MAX, "");
    let shares = "give a fraction from 0.001 to 0.5, as in 0.02";
    let evenness = fields.optional("evenness", &raw.evenness, shares, |&fraction| {
        Evenness::new(fraction).ok_or_else(|| format!("is {fraction}"))
    });
    let marks = "give a number whose lower sixteen bits are zero, as in 0x454b0000, that nothing \
                 else on this host marks packets with";
    let probe_mark = fields.optional("probe_mark", &raw.probe_mark, marks, |&mark| {
        u32::try_from(mark)
            .ok()
            .and_then(ProbeMark::new)
            .ok_or_else(|| format!("is {mark:#x}"))
    });
    let on_drift = fields.word(
        "on_drift",
        &raw.on_drift,
        OnDrift::default(),
        &[("repair", OnDrift::Repair), ("report", OnDrift::Report)],
    );
    Some(DataPlaneConfig {
        interfaces: interfaces?,
        xdp_mode: xdp_mode?,
        pins: pins?,
        hash_seed: hash_seed?.unsigned_abs(),
        evenness: evenness?.unwrap_or(Evenness::DEFAULT),
        probe_mark: probe_mark?.unwrap_or(ProbeMark::DEFAULT),
        on_drift: on_drift?,
    })
}

fn admin(
    table: Option<(&Table<raw::Admin>, Range<usize>)>,
    report: &mut Report<'_>,
) -> Option<AdminConfig> {
    let default = raw::Admin::default();
    let (raw, at) = table.map_or((&default, 0..0), |(table, at)| (&table.0, at));
    let mut fields = Fields::new("admin", at, report);
    // The kernel's limit (sun_path), less the suffix of the lock beside the socket.
    let socket = fields.path("socket", &raw.socket, "/run/evenkeel/evenkeel.sock", 102);
    let named = |group: &String| {
        if group.is_empty() {
            Err("is empty".to_owned())
        } else {
            Ok(group.clone())
        }
    };
    let remedy = "name a group, as in \"adm\"";
    let group = fields.optional("group", &raw.group, remedy, named);
    let change_group = fields.optional("change_group", &raw.change_group, remedy, named);
    Some(AdminConfig {
        socket: socket?,
        group: group?,
        change_group: change_group?,
    })
}

/// Whether the kernel takes it for an interface's name. It takes bytes beyond ASCII too, but not
/// what a terminal shows as something else than it is.
fn interface(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && !matches!(name, "." | "..")
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':'))
}

fn name(text: &str, others: &str) -> Result<Arc<str>, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = (1..=63).contains(&text.len())
        && text.starts_with(plain)
        && text.chars().all(|c| plain(c) || others.contains(c));
    if fits {
        Ok(text.into())
    } else {
        Err(format!("is \"{text}\""))
    }
}

/// An address that a packet can be sent to.
fn unicast(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text
        .parse()
        .map_err(|_| format!("\"{text}\" is not an IP address"))?;
    let kind = match address {
        _ if address.is_unspecified() => "the unspecified address",
        _ if address.is_multicast() => "a multicast address",
        _ if address.is_loopback() => "a loopback address",
        IpAddr::V4(Ipv4Addr::BROADCAST) => "the broadcast address",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            return Err(format!("{address} is an IPv4 address in disguise"));
        }
        _ => return Ok(address),
    };
    Err(format!("{address} is {kind}"))
}

/// An absolute path.
fn absolute(text: &str, longest: usize) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if !path.is_absolute() {
        Err(format!("\"{text}\" is not absolute"))
    } else if text.contains('\0') {
        Err(format!("{text:?} holds a zero byte"))
    } else if text.len() > longest {
        Err(format!("is {} bytes long", text.len()))
    } else {
        Ok(path)
    }
}
