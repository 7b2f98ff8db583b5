//! From what is known to a screen: a pure function, for eighty columns by 24 rows and more.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Cell, Clear, Paragraph, Row, Table},
};

use super::app::{App, Sort, rate};
use crate::{
    admin::proto::{Backend, Service, Status, Verdict},
    cli::{
        output::plain,
        status::{
            judgement,
            units::{ago, bar, percent, short, spark},
        },
    },
    journal::Record,
};

/// The rows at the top, and at the bottom.
const HEAD: u16 = 2;
const FOOT: u16 = 1;
/// The least rows that events get where there is anything to tell.
const EVENTS: u16 = 4;
/// The most rows of services, unless there is room.
const SERVICES: u16 = 6;

/// The rows of services, of the chosen one's backends, and of events, in so many rows: each with its
/// heading, and the first two with an empty row behind them.
fn rows(height: u16, services: usize, backends: usize) -> [u16; 3] {
    let length = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    let rest = height.saturating_sub(HEAD + FOOT);
    let most = SERVICES.max(height / 4);
    let services = (length(services).min(most) + 2).min(rest);
    let rest = rest - services;
    let room = rest.saturating_sub(EVENTS + 1);
    let backends = length(backends).saturating_add(2).min(room);
    [services, backends, rest - backends]
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, app: &App) {
    let chosen = app.services().get(app.position());
    let backends = chosen.map_or(0, |service| service.backends.len());
    let [services, backends, events] = rows(frame.area().height, app.services().len(), backends);
    let heights = [HEAD, services, backends, events, FOOT];
    let [head, top, middle, bottom, foot] =
        Layout::vertical(heights.map(Constraint::Length)).areas(frame.area());
    let Some(status) = &app.status else {
        let text = app.problem.as_deref().unwrap_or("asking the controller");
        frame.render_widget(Paragraph::new(plain(text)), head);
        return;
    };
    frame.render_widget(header(app, status), head);
    draw_services(frame, app, top);
    if let Some(service) = chosen {
        draw_backends(frame, app, service, status.now_ms, middle);
    }
    draw_events(frame, app, status.now_ms, bottom);
    frame.render_widget(Paragraph::new(footer(app)).style(app.quiet()), foot);
    if app.help {
        draw_help(frame);
    }
}

impl App {
    fn tone(&self, colour: Color) -> Style {
        if self.colour {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn quiet(&self) -> Style {
        if self.colour {
            Style::new().add_modifier(Modifier::DIM)
        } else {
            Style::new()
        }
    }
}

fn header<'a>(app: &App, status: &Status) -> Paragraph<'a> {
    let tables = if status.tables.as_intended {
        Span::styled("tables as intended", app.tone(Color::Green))
    } else {
        Span::styled("tables NOT as intended", app.tone(Color::Red))
    };
    let firing = |alert: &&crate::admin::proto::Alert| alert.state == "firing";
    let alerts = status.alerts.iter().filter(firing).count();
    let first = Line::from(vec![
        Span::raw(format!(
            "generation {}  up {}  ",
            status.generation,
            ago(status.now_ms, status.started_at_ms)
        )),
        tables,
        Span::raw(format!(
            "  alerts {alerts}  flows remembered {}",
            status.tracking.flows
        )),
        Span::styled(
            if app.paused { "  PAUSED" } else { "" },
            app.tone(Color::Yellow),
        ),
    ]);
    let reasons = judgement::reasons(status);
    let second = match (&app.problem, reasons.is_empty()) {
        (Some(problem), _) => Line::styled(plain(problem), app.tone(Color::Yellow)),
        (None, false) => {
            let text = format!("wrong: {}", reasons.join("; "));
            Line::styled(plain(&text), app.tone(Color::Red))
        }
        (None, true) => Line::styled("nothing is wrong", app.tone(Color::Green)),
    };
    Paragraph::new(vec![first, second])
}

/// The rows of a list around the one that is chosen, as many as there is room for.
fn around(chosen: usize, all: usize, room: usize) -> std::ops::Range<usize> {
    let start = chosen
        .saturating_sub(room / 2)
        .min(all.saturating_sub(room));
    start..(start + room).min(all)
}

fn draw_services(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let room = usize::from(area.height.saturating_sub(2));
    let shown = around(app.position(), app.services().len(), room);
    let rows = app.services()[shown.clone()].iter().zip(shown);
    let rows = rows.map(|(service, n)| {
        let (verdict, tone) = match service.evenness.verdict {
            Verdict::Even => ("even", Color::Green),
            Verdict::Skewed => ("SKEWED", Color::Red),
            Verdict::CannotTell => ("cannot tell", Color::Yellow),
        };
        let serving = format!("{}/{}", service.serving, service.backends.len());
        let sum = |of: fn(&Backend) -> f64| short(service.backends.iter().map(of).sum());
        let row = Row::new([
            Cell::new(format!(
                "{}{}",
                if n == app.position() { ">" } else { " " },
                plain(&service.name)
            )),
            Cell::new(service.key.clone()),
            Cell::new(serving),
            Cell::new(Span::styled(verdict, app.tone(tone))),
            Cell::new(right(&sum(|b| b.new_flow_rate), 7)),
            Cell::new(right(&sum(|b| b.packet_rate), 7)),
            Cell::new(right(&sum(|b| b.byte_rate * 8.0), 7)),
        ]);
        if n == app.position() {
            row.style(Style::new().add_modifier(Modifier::BOLD))
        } else {
            row
        }
    });
    let widths = [
        Constraint::Fill(2),
        Constraint::Fill(3),
        Constraint::Length(7),
        Constraint::Length(11),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(7),
    ];
    let heads = [
        " service", "takes", "serving", "verdict", "flows/s", " pkts/s", "  bit/s",
    ];
    let table = Table::new(rows, widths).header(Row::new(heads).style(app.quiet()));
    frame.render_widget(table, area);
}

fn draw_backends(frame: &mut Frame<'_>, app: &App, service: &Service, now: u64, area: Rect) {
    let wide = area.width >= 112;
    // What a terminal of eighty columns leaves.
    let history = usize::from(area.width.saturating_sub(if wide { 108 } else { 72 })).min(60);
    let sorted = app.sorted(service);
    let room = usize::from(area.height.saturating_sub(2));
    let shown = if sorted.len() > room {
        room.saturating_sub(1)
    } else {
        sorted.len()
    };
    let hidden = sorted.len() - shown;
    let more = (hidden > 0).then(|| Row::new([format!("{hidden} more")]));
    let rows = sorted.into_iter().take(shown).map(|backend| {
        let mut cells = vec![
            Cell::new(plain(&backend.name)),
            Cell::new(Span::styled(
                format!("{} {}", backend.health, ago(now, backend.health_since_ms)),
                health_tone(app, backend),
            )),
            Cell::new(weight(backend)),
            Cell::new(right(&percent(backend.intended_share), 7)),
            Cell::new(right(
                &backend.observed_share.map_or("-".to_owned(), percent),
                7,
            )),
            Cell::new(backend.observed_share.map_or_else(String::new, |observed| {
                bar(observed, backend.intended_share)
            })),
            Cell::new(right(&short(rate(service, backend)), 7)),
        ];
        if wide {
            cells.push(Cell::new(right(&short(backend.byte_rate * 8.0), 6)));
            let seen = backend.performance.as_ref();
            let probes = seen.and_then(|seen| seen.latency_ms);
            let traffic = backend.response.as_ref();
            let shown = [
                probes,
                traffic.map(|took| took.median_ms),
                traffic.map(|took| took.p99_ms),
            ];
            cells.extend(shown.map(|ms| {
                let text = ms.map_or("-".to_owned(), |ms| format!("{ms:.1}"));
                Cell::new(right(&text, 7))
            }));
        }
        cells.push(Cell::new(spark(&app.rates(service, backend), history)));
        Row::new(cells)
    });
    let mut widths = vec![
        Constraint::Fill(1),
        Constraint::Length(12),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(11),
        Constraint::Length(7),
    ];
    let tcp = service.protocol == "tcp";
    let mut heads = vec![
        "backend",
        "health",
        "weight",
        "intended",
        "observed",
        "0    1   2x",
        if tcp { "flows/s" } else { " pkts/s" },
    ];
    if wide {
        widths.extend([6, 7, 7, 7].map(Constraint::Length));
        heads.extend([" bit/s", "  probe", " resp50", " resp99"]);
    }
    widths.push(Constraint::Length(history as u16));
    heads.push("history");
    let rows = rows.chain(more);
    let table = Table::new(rows, widths).header(Row::new(heads).style(app.quiet()));
    frame.render_widget(table, area);
}

fn health_tone(app: &App, backend: &Backend) -> Style {
    app.tone(match (backend.health.as_str(), &backend.out_of_ring) {
        ("down", _) => Color::Red,
        ("up", None) => Color::Green,
        _ => Color::Yellow,
    })
}

/// A weight, and what is in force of it where that is less.
fn weight(backend: &Backend) -> String {
    match backend.weight_in_force {
        Some(force) if force < f64::from(backend.weight) => {
            format!("{} of {}", short(force), backend.weight)
        }
        _ => backend.weight.to_string(),
    }
}

fn right(text: &str, width: usize) -> String {
    format!("{text:>width$}")
}

fn draw_events(frame: &mut Frame<'_>, app: &App, now: u64, area: Rect) {
    let line = |text: String, style| Line::styled(text, style);
    let lines: Vec<Line<'_>> = match &app.events {
        Ok(events) => {
            let room = usize::from(area.height.saturating_sub(1));
            let from = events.len().saturating_sub(room);
            let told = |record: &Record| {
                let tone = match record.level.as_str() {
                    "warning" => app.tone(Color::Yellow),
                    "error" => app.tone(Color::Red),
                    _ => Style::new(),
                };
                let ago = ago(now, record.at_ms);
                line(format!("{ago:>8}  {}", plain(&record.message)), tone)
            };
            events[from..].iter().map(told).collect()
        }
        Err(why) => vec![line(format!("no events: {}", plain(why)), app.quiet())],
    };
    let head = line("    ago  last events".to_owned(), app.quiet());
    let lines: Vec<Line<'_>> = std::iter::once(head).chain(lines).collect();
    frame.render_widget(Paragraph::new(lines), area);
}

fn footer(app: &App) -> String {
    let order = if app.reversed { ", reversed" } else { "" };
    format!(
        "q quit  up/down service  space pause  ? keys  sorted by {}{order}",
        app.sort.word()
    )
}

fn draw_help(frame: &mut Frame<'_>) {
    let mut lines = vec![
        Line::raw(" q, Esc, Ctrl-C  quit"),
        Line::raw(" up/down, k/j    another service"),
        Line::raw(" space           stop the screen, and go on"),
        Line::raw(" r               the other way round"),
    ];
    let sorts = Sort::KEYS.iter();
    lines.extend(
        sorts.map(|(key, word, _)| Line::raw(format!(" {key}               sort by {word}"))),
    );
    lines.push(Line::raw(" ?, h            these keys"));
    let (width, height) = (46, lines.len() as u16 + 2);
    let whole = frame.area();
    let area = Rect::new(
        whole.width.saturating_sub(width) / 2,
        whole.height.saturating_sub(height) / 2,
        width.min(whole.width),
        height.min(whole.height),
    );
    let block = ratatui::widgets::Block::bordered().title(" keys ");
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

#[cfg(test)]
mod tests;
