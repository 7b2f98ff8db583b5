//! What the backends took, drawn: shares against intent, connections and probes on one axis of time,
//! with what happened.

use plotters::{coord::Shift, drawing::DrawingAreaErrorKind, prelude::*};

use super::{Report, ServicePart};
use crate::history::series::Line;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

const SIZE: (u32, u32) = (960, 660);
/// Most backends that are drawn: those that deviate most.
pub(super) const MOST: usize = 12;

/// Colours that people who see few tell apart, on a light ground and on a dark one.
pub(super) const COLOURS: [RGBColor; 6] = [
    RGBColor(0x00, 0x82, 0xc8),
    RGBColor(0xe0, 0x6c, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x66, 0x99),
    RGBColor(0xb5, 0x89, 0x00),
    RGBColor(0x8a, 0x63, 0xd2),
];

/// The colour of a line, as CSS has it.
pub(super) fn colour(n: usize) -> String {
    let RGBColor(r, g, b) = COLOURS[n % COLOURS.len()];
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// The backends that are drawn.
pub(super) fn drawn(service: &ServicePart) -> Vec<&Line> {
    let off = |line: &Line| {
        let pairs = line.observed_share.iter().zip(&line.intended_share);
        let off = pairs.filter_map(|(observed, intended)| {
            Some((observed.as_ref()? - intended.as_ref()?).abs())
        });
        off.fold(0.0, f64::max)
    };
    let mut lines: Vec<&Line> = service.series.backends.iter().collect();
    if lines.len() > MOST {
        lines.sort_by(|a, b| off(b).total_cmp(&off(a)));
        lines.truncate(MOST);
        lines.sort_by(|a, b| a.name.cmp(&b.name));
    }
    lines
}

/// A moment that is marked.
struct Mark {
    at_s: f64,
    name: String,
}

/// The picture of a service.
///
/// # Errors
/// Where it cannot be drawn.
pub(super) fn picture(report: &Report, service: &ServicePart) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        panels(&area, report, service)?;
        area.present()?;
    }
    Ok(svg)
}

fn panels(area: &Area<'_>, report: &Report, service: &ServicePart) -> Drawn {
    let series = &service.series;
    let lines = drawn(service);
    let at_s: Vec<f64> = series.at_ms.iter().map(|ms| *ms as f64 / 1000.0).collect();
    let range = (
        report.from_ms as f64 / 1000.0,
        report.until_ms as f64 / 1000.0,
    );
    let marks = marks(report);
    let step_s = series.step_s as f64;
    let percent = |share: &f64| format!("{:.0} %", 100.0 * share);
    let plain = |value: &f64| format!("{value:.0}");
    let points = |values: &[Option<f64>]| {
        at_s.iter()
            .copied()
            .zip(values.iter().copied())
            .collect::<Vec<_>>()
    };
    let parts = area.split_evenly((3, 1));
    let [shares, flows, probes] = &*parts else {
        return Ok(());
    };
    let observed = lines.iter().map(|line| points(&line.observed_share));
    let intended: Vec<Points> = lines
        .iter()
        .map(|line| points(&line.intended_share))
        .collect();
    let rate = |line: &&Line| {
        let rates: Vec<Option<f64>> = line
            .new_flows
            .iter()
            .map(|n| n.map(|n| f64::from(n) / step_s))
            .collect();
        points(&rates)
    };
    let panel = |title, solid, dashed, label| Panel {
        title,
        range,
        solid,
        dashed,
        label,
    };
    panel(
        "share of new connections; dashed: intended",
        observed.collect(),
        intended,
        &percent,
    )
    .draw(shares, &marks, true)?;
    panel(
        "new connections a second",
        lines.iter().map(rate).collect(),
        Vec::new(),
        &plain,
    )
    .draw(flows, &marks, false)?;
    let latency = lines.iter().map(|line| points(&line.latency_ms));
    panel(
        "slowest probe that passed, ms",
        latency.collect(),
        Vec::new(),
        &|ms: &f64| format!("{ms:.1}"),
    )
    .draw(probes, &marks, false)
}

/// What is marked: the trigger, and the incidents' moments.
fn marks(report: &Report) -> Vec<Mark> {
    let mark = |at_ms: u64, name: &str| Mark {
        at_s: at_ms as f64 / 1000.0,
        name: name.to_owned(),
    };
    let trigger = report.trigger.as_ref();
    let trigger = trigger.map(|of| mark(of.at_ms, "trigger"));
    let moments = report.incidents.iter().flat_map(|of| &of.times);
    let moments = moments.filter_map(|of| Some(mark(of.at_ms?, of.name)));
    trigger.into_iter().chain(moments).collect()
}

type Points = Vec<(f64, Option<f64>)>;

/// One of the pictures above each other.
struct Panel<'a> {
    title: &'static str,
    range: (f64, f64),
    solid: Vec<Points>,
    dashed: Vec<Points>,
    label: &'a dyn Fn(&f64) -> String,
}

impl Panel<'_> {
    fn draw(&self, area: &Area<'_>, marks: &[Mark], named: bool) -> Drawn {
        let values = self.solid.iter().chain(&self.dashed).flatten();
        let top = values.filter_map(|(_, value)| *value);
        let top = top.fold(f64::MIN_POSITIVE, f64::max) * 1.15;
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .caption(self.title, ("sans-serif", 14))
            .x_label_area_size(24)
            .y_label_area_size(56)
            .build_cartesian_2d(self.range.0..self.range.1, 0.0..top)?;
        chart
            .configure_mesh()
            .x_labels(8)
            .y_labels(5)
            .x_label_formatter(&|at_s| clock(*at_s))
            .y_label_formatter(&|value| (self.label)(value))
            .light_line_style(TRANSPARENT)
            .draw()?;
        let within = |mark: &&Mark| (self.range.0..self.range.1).contains(&mark.at_s);
        // Names of moments that are close to each other go below each other.
        for (n, mark) in marks.iter().filter(within).enumerate() {
            let line = [(mark.at_s, 0.0), (mark.at_s, top)];
            chart.draw_series(LineSeries::new(line, BLACK.mix(0.55)))?;
            if named {
                let height = top * (0.97 - 0.09 * (n % 6) as f64);
                let text = Text::new(mark.name.clone(), (mark.at_s, height), ("sans-serif", 11));
                chart.draw_series([text])?;
            }
        }
        for (n, points) in self.dashed.iter().enumerate() {
            let style = COLOURS[n % COLOURS.len()].mix(0.8).stroke_width(1);
            for run in runs(points) {
                chart.draw_series(DashedLineSeries::new(run, 4, 4, style))?;
            }
        }
        for (n, points) in self.solid.iter().enumerate() {
            let style = COLOURS[n % COLOURS.len()].stroke_width(2);
            for run in runs(points) {
                chart.draw_series(LineSeries::new(run, style))?;
            }
        }
        Ok(())
    }
}

/// The parts of a line between which nothing is known.
fn runs(points: &[(f64, Option<f64>)]) -> Vec<Vec<(f64, f64)>> {
    points
        .split(|(_, value)| value.is_none())
        .filter(|run| !run.is_empty())
        .map(|run| {
            run.iter()
                .filter_map(|(at, value)| Some((*at, (*value)?)))
                .collect()
        })
        .collect()
}

/// The time of the day.
fn clock(at_s: f64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(at_s.max(0.0) as u64);
    humantime::format_rfc3339_seconds(at).to_string()[11..19].to_owned()
}
