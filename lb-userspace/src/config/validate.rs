//! From the file as it is written to a configuration that can be trusted.

mod backends;
mod field;
mod health;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU16,
    ops::Range,
    path::PathBuf,
    sync::Arc,
};

use self::field::Fields;
use super::{
    findings::Report,
    raw::{self, AnyPort, Held, Leaf, NumberOr, Table, Tables},
};
use crate::model::{
    AdminConfig, Config, DataPlaneConfig, Mode, OnDown, OnEmpty, Protocol, RingSlots, Service,
    ServiceKey, ServicePort, Tracking, XdpMode,
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
    let services = services(&raw.services, report);
    Some(Config {
        data_plane: data_plane?,
        admin: admin?,
        tracking: Tracking::default(),
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

fn services(raw: &Tables<raw::Service>, report: &mut Report<'_>) -> Option<Vec<Service>> {
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
    let mut seen = Seen::default();
    let services: Vec<Option<Service>> = tables
        .iter()
        .enumerate()
        .map(|(index, table)| {
            let path = format!("services[{index}]");
            let (table, at) = held(table, &path, "write it as [[services]]", report)??;
            service(&table.0, at, &path, &mut seen, report)
        })
        .collect();
    seen.vips_as_backends(report);
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
    Some(DataPlaneConfig {
        interfaces: interfaces?,
        xdp_mode: xdp_mode?,
        pins: pins?,
        hash_seed: hash_seed?.unsigned_abs(),
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
    let group = fields.optional(
        "group",
        &raw.group,
        "name a group, as in \"adm\"",
        |group| {
            if group.is_empty() {
                Err("is empty".to_owned())
            } else {
                Ok(group.clone())
            }
        },
    );
    Some(AdminConfig {
        socket: socket?,
        group: group?,
    })
}

/// What must not stand in a file twice, with its first place.
#[derive(Default)]
struct Seen {
    names: BTreeMap<String, Range<usize>>,
    keys: BTreeMap<ServiceKey, Range<usize>>,
    vips: BTreeMap<IpAddr, Range<usize>>,
    backends: Vec<(IpAddr, String, Range<usize>)>,
}

impl Seen {
    /// A backend at a VIP would be sent what it sends itself.
    fn vips_as_backends(&self, report: &mut Report<'_>) {
        for (address, field, at) in &self.backends {
            if let Some(vip) = self.vips.get(address) {
                let line = report.line(vip);
                report.add(
                    at.clone(),
                    field,
                    format!("{address} is the VIP of the service in line {line}"),
                    "give the backend's own address",
                );
            }
        }
    }
}

fn service(
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
    let mode = fields.optional("mode", &raw.mode, "give \"dsr\"", |text| mode(text));
    let sizes = format!(
        "give a power of two from {} to {}",
        RingSlots::MIN,
        RingSlots::MAX
    );
    let ring_slots = fields.optional("ring_slots", &raw.ring_slots, &sizes, |slots| {
        u32::try_from(*slots)
            .ok()
            .and_then(RingSlots::new)
            .ok_or_else(|| format!("is {slots}"))
    });
    let on_empty = fields.word(
        "on_empty",
        &raw.on_empty,
        OnEmpty::Drop,
        &[("drop", OnEmpty::Drop), ("pass", OnEmpty::Pass)],
    );
    if let Some(vip) = vip {
        seen.vips.entry(vip).or_insert_with(|| at.clone());
    }
    if let (Some(vip), Some(port), Some(protocol)) = (vip, port, protocol) {
        let key = ServiceKey {
            vip,
            port,
            protocol,
        };
        let first = seen.keys.entry(key).or_insert_with(|| at.clone());
        if *first != at {
            let line = report.line(first);
            report.add(
                at.clone(),
                path,
                format!("{key} is taken by the service in line {line}"),
                "change vip, port or protocol, or merge the two services",
            );
        }
    }
    let field = format!("{path}.health");
    let health = match held(&raw.health, &field, "write it as [services.health]", report) {
        Some(Some((table, at))) => {
            health::check(&table.0, at, &field, port, protocol, report).map(Some)
        }
        Some(None) => Some(None),
        None => None,
    };
    let backends = backends::check(&raw.backends, path, &at, seen, report);
    let ring_slots = ring_slots?.unwrap_or(RingSlots::DEFAULT);
    let count = raw.backends.good().map_or(0, Vec::len);
    if count > ring_slots.count() {
        report.add(
            at,
            &format!("{path}.ring_slots"),
            format!("{} slots for {count} backends", ring_slots.count()),
            "give at least one slot for each backend; a hundred make their shares exact",
        );
    }
    Some(Service {
        name: name?,
        key: ServiceKey {
            vip: vip?,
            port: port?,
            protocol: protocol?,
        },
        mode: mode?.unwrap_or(Mode::Dsr),
        ring_slots,
        on_empty: on_empty?,
        on_down: OnDown::default(),
        health: health?,
        backends: backends?,
    })
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

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "dsr" => Ok(Mode::Dsr),
        "ipip" | "gue" | "nat" | "snat" => Err(format!("\"{text}\" is not supported yet")),
        _ => Err(format!("is \"{text}\"")),
    }
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
