//! The table of a service's backends.

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};

use super::{Tone, View};
use crate::{
    admin::proto::Backend,
    cli::{
        output::plain,
        status::units::{BAR_HEAD, ago, bar, percent, short},
    },
};

/// What a table can show of a backend, in the order of the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Name,
    Address,
    Health,
    Probe,
    Latency,
    Response,
    Weight,
    Intended,
    Observed,
    Bar,
    Flows,
    Packets,
    Bits,
    NextHop,
}

impl Column {
    const ALL: [Self; 14] = [
        Self::Name,
        Self::Address,
        Self::Health,
        Self::Probe,
        Self::Latency,
        Self::Response,
        Self::Weight,
        Self::Intended,
        Self::Observed,
        Self::Bar,
        Self::Flows,
        Self::Packets,
        Self::Bits,
        Self::NextHop,
    ];
    /// What is left out where there is no room, the least important first. What remains answers
    /// 'is the load even, and who serves?'.
    const EXPENDABLE: [Self; 9] = [
        Self::NextHop,
        Self::Probe,
        Self::Latency,
        Self::Packets,
        Self::Bits,
        Self::Weight,
        Self::Response,
        Self::Address,
        Self::Flows,
    ];

    const fn head(self) -> &'static str {
        match self {
            Self::Name => "backend",
            Self::Address => "address",
            Self::Health => "health",
            Self::Probe => "last probe",
            Self::Latency => "ms/peers",
            Self::Response => "reply p50/p99",
            Self::Weight => "weight",
            Self::Intended => "intended",
            Self::Observed => "observed",
            Self::Bar => BAR_HEAD,
            Self::Flows => "flows/s",
            Self::Packets => "pkts/s",
            Self::Bits => "bit/s",
            Self::NextHop => "next hop",
        }
    }

    const fn alignment(self) -> CellAlignment {
        match self {
            Self::Name | Self::Address | Self::Health | Self::Probe | Self::Bar | Self::NextHop => {
                CellAlignment::Left
            }
            _ => CellAlignment::Right,
        }
    }

    fn content(self, backend: &Backend, now: u64) -> String {
        match self {
            Self::Name => backend.name.clone(),
            Self::Address => backend.address.to_string(),
            Self::Health => format!("{} {}", backend.health, ago(now, backend.health_since_ms)),
            Self::Probe => backend.last_probe.as_ref().map_or_else(
                || "-".to_owned(),
                |probe| format!("{} in {:.1} ms", probe.detail, probe.took_ms),
            ),
            Self::Latency => {
                let seen = backend.performance.as_ref();
                seen.map_or_else(
                    || "-".to_owned(),
                    |seen| latency(seen.latency_ms, seen.peers_ms),
                )
            }
            Self::Response => backend.response.as_ref().map_or_else(
                || "-".to_owned(),
                |took| format!("{}/{} ms", millis(took.median_ms), millis(took.p99_ms)),
            ),
            Self::Weight => match backend.weight_in_force {
                Some(force) if is_reduced(backend) => {
                    format!("{} of {}", short(force), backend.weight)
                }
                _ => backend.weight.to_string(),
            },
            Self::Intended => percent(backend.intended_share),
            Self::Observed => backend
                .observed_share
                .map_or_else(|| "-".to_owned(), percent),
            Self::Bar => backend.observed_share.map_or_else(String::new, |observed| {
                bar(observed, backend.intended_share)
            }),
            Self::Flows => short(backend.new_flow_rate),
            Self::Packets => short(backend.packet_rate),
            Self::Bits => short(backend.byte_rate * 8.0),
            Self::NextHop => backend.next_hop.as_ref().map_or_else(
                || "unknown".to_owned(),
                |hop| match hop.gateway {
                    Some(gateway) => format!("{} via {gateway}, {}", hop.mac, hop.interface),
                    None => format!("{}, {}", hop.mac, hop.interface),
                },
            ),
        }
    }

    fn tone(self, backend: &Backend) -> Tone {
        match (self, backend.health.as_str()) {
            (Self::Health, "up") => Tone::Good,
            (Self::Health, "down") => Tone::Bad,
            (Self::Health, _) => Tone::Doubtful,
            (Self::Weight, "up") if is_reduced(backend) => Tone::Doubtful,
            _ => Tone::Usual,
        }
    }
}

/// Whether a backend that is up has only a part of its weight.
fn is_reduced(backend: &Backend) -> bool {
    let whole = f64::from(backend.weight);
    backend.health == "up" && backend.weight_in_force.is_some_and(|force| force < whole)
}

/// Milliseconds, in no more digits than they were measured to.
fn millis(ms: f64) -> String {
    match ms {
        ..0.1 => format!("{ms:.2}"),
        ..10.0 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}

/// Writes `12.3/4.0`: a backend's latency and that of its peers.
fn latency(own: Option<f64>, peers: Option<f64>) -> String {
    let millis =
        |millis: Option<f64>| millis.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
    format!("{}/{}", millis(own), millis(peers))
}

/// The table's lines, indented by two, as wide as the view at most if that is at all possible.
pub(super) fn lines(backends: &[Backend], now: u64, view: View) -> Vec<String> {
    let mut columns = Column::ALL.to_vec();
    if backends.iter().all(|backend| backend.performance.is_none()) {
        columns.retain(|column| *column != Column::Latency);
    }
    if backends.iter().all(|backend| backend.response.is_none()) {
        columns.retain(|column| *column != Column::Response);
    }
    let mut expendable = Column::EXPENDABLE.iter();
    let mut table = table(&columns, backends, now, view);
    if let Some(width) = view.width {
        while natural_width(&table) > width {
            let Some(next) = expendable.next() else {
                // Not even the rest fits: long names are broken into lines.
                table
                    .set_content_arrangement(ContentArrangement::Dynamic)
                    .set_width(u16::try_from(width).unwrap_or(u16::MAX));
                break;
            };
            columns.retain(|column| column != next);
            table = self::table(&columns, backends, now, view);
        }
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

fn table(columns: &[Column], backends: &[Backend], now: u64, view: View) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    if view.colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(columns.iter().map(|column| {
        Cell::new(column.head())
            .set_alignment(column.alignment())
            .add_attribute(Attribute::Dim)
    }));
    for backend in backends {
        table.add_row(columns.iter().map(|column| {
            let content = plain(&column.content(backend, now));
            let cell = Cell::new_owned(content).set_alignment(column.alignment());
            match column.tone(backend) {
                Tone::Good => cell.fg(Color::DarkGreen),
                Tone::Bad => cell.fg(Color::DarkRed),
                Tone::Doubtful => cell.fg(Color::DarkYellow),
                _ => cell,
            }
        }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((2, 0));
    }
    table
}

/// How wide the table is with no cell broken into lines: contents and their padding.
fn natural_width(table: &Table) -> usize {
    table
        .column_max_content_widths()
        .iter()
        .map(|width| usize::from(*width) + 2)
        .sum()
}
