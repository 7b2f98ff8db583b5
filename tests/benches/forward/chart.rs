//! The medians as lines over the number of flows, a panel for each mode.

use std::path::Path;

use anyhow::{Context as _, Result};
use plotters::{coord::Shift, prelude::*};

use crate::report::{Record, Report};

const COLUMNS: usize = 2;
const PANEL: (u32, u32) = (560, 300);
const HEAD: u32 = 30;
/// Where the scale begins, which is logarithmic: a miss costs a hundred times a packet of no VIP.
const LEAST: f64 = 1.0;
const COLOURS: [RGBColor; 8] = [
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0xd6, 0x60, 0x0d),
    RGBColor(0x2c, 0xa0, 0x2c),
    RGBColor(0xd6, 0x27, 0x28),
    RGBColor(0x94, 0x67, 0xbd),
    RGBColor(0x8c, 0x56, 0x4b),
    RGBColor(0x17, 0xbe, 0xcf),
    RGBColor(0x55, 0x55, 0x55),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A line of a panel: its name, and a value at some of the panel's places.
type Line = (String, Vec<(usize, f64)>);

/// Draws the report into an SVG file.
pub(crate) fn write(report: &Report, path: &Path) -> Result<()> {
    draw(report, path).with_context(|| format!("cannot write the chart {}", path.display()))
}

fn draw(report: &Report, path: &Path) -> Result<()> {
    let records: Vec<&Record> = report.records.iter().filter(|r| r.services > 0).collect();
    let modes = distinct(records.iter().map(|r| r.mode.as_str()));
    let panels = modes.len() + 1;
    let rows = panels.div_ceil(COLUMNS);
    let size = (PANEL.0 * COLUMNS as u32, HEAD + PANEL.1 * rows as u32);
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;
    let (head, body) = root.split_vertically(HEAD);
    let heading = format!("ns a packet over an empty program; {}", report.heading());
    head.draw(&Text::new(heading, (12, 10), ("sans-serif", 14)))?;
    let areas = body.split_evenly((rows, COLUMNS));
    let Some(first) = records.first() else {
        return Ok(root.present()?);
    };
    let flows = distinct(records.iter().map(|r| r.flows));
    let places: Vec<String> = flows.iter().map(ToString::to_string).collect();
    for (area, mode) in areas.iter().zip(&modes) {
        let own: Vec<_> = records
            .iter()
            .filter(|r| r.mode == *mode && r.size() == first.size())
            .collect();
        let lines = distinct(own.iter().map(|r| r.case.as_str())).into_iter();
        let lines = lines.map(|case| {
            let of = own.iter().filter(|r| r.case == case);
            let place = |r: &Record| flows.iter().position(|&flows| flows == r.flows);
            let points = of
                .filter_map(|r| Some((place(r)?, r.net_median_ns)))
                .collect();
            (case.to_owned(), points)
        });
        let (services, backends) = first.size();
        let title = format!("{mode}: flows, with {services} × {backends} backends");
        panel(area, &title, &places, &lines.collect::<Vec<_>>())?;
    }
    let wanted = if flows.contains(&1000) {
        1000
    } else {
        first.flows
    };
    let sizes = distinct(records.iter().map(|r| r.size()));
    let places: Vec<String> = sizes.iter().map(|(s, b)| format!("{s} × {b}")).collect();
    let lines = modes.iter().map(|mode| {
        let of = records
            .iter()
            .filter(|r| r.mode == *mode && r.flows == wanted && r.case == "established");
        let place = |r: &Record| sizes.iter().position(|&size| size == r.size());
        let points = of
            .filter_map(|r| Some((place(r)?, r.net_median_ns)))
            .collect();
        ((*mode).to_owned(), points)
    });
    let title = format!("established: services × backends, with {wanted} flows");
    panel(
        &areas[modes.len()],
        &title,
        &places,
        &lines.collect::<Vec<_>>(),
    )?;
    root.present()?;
    Ok(())
}

fn panel(area: &Area<'_>, title: &str, places: &[String], lines: &[Line]) -> Result<()> {
    let values = lines.iter().flat_map(|(_, points)| points);
    let most = values.map(|(_, value)| *value).fold(10.0, f64::max);
    let right = places.len() as f64 - 0.4;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 14))
        .margin(8)
        .margin_right(110)
        .x_label_area_size(24)
        .y_label_area_size(40)
        .build_cartesian_2d(-0.3..right, (LEAST..most * 1.2).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .light_line_style(WHITE)
        .draw()?;
    let plane = chart.plotting_area();
    // The plane counts from the corner of the whole chart, the area from its own.
    let (left, top) = area.get_base_pixel();
    for (place, name) in places.iter().enumerate() {
        let (x, y) = plane.map_coordinate(&(place as f64, LEAST));
        let at = (x - left - 20, y - top + 6);
        area.draw(&Text::new(name.clone(), at, ("sans-serif", 12)))?;
    }
    for (nth, ((name, points), colour)) in (0i32..).zip(lines.iter().zip(COLOURS.iter().cycle())) {
        let points: Vec<_> = points
            .iter()
            .map(|&(x, y)| (x as f64, y.max(LEAST)))
            .collect();
        plane.draw(&PathElement::new(points.clone(), colour.stroke_width(2)))?;
        for point in points {
            plane.draw(&Circle::new(point, 3, colour.filled()))?;
        }
        let (width, _) = area.dim_in_pixel();
        let at = (width.cast_signed() - 104, 30 + 18 * nth);
        area.draw(&Text::new(
            name.clone(),
            at,
            ("sans-serif", 12).into_font().color(colour),
        ))?;
    }
    Ok(())
}

/// Each value once, in the order of their first.
fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut all = Vec::new();
    for value in values {
        if !all.contains(&value) {
            all.push(value);
        }
    }
    all
}
