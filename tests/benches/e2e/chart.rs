//! The medians as bars, with the spread as a line.

use std::path::Path;

use anyhow::{Context, Result};
use evenkeel_tests::end_to_end::{
    Contender, Figure, Scenario,
    report::{Record, Report},
};
use plotters::prelude::*;

use crate::table::{heading, number};

/// What is drawn, row by row.
const PANELS: [(Scenario, Figure); 8] = [
    (Scenario::Close, Figure::Rate),
    (Scenario::KeepAlive, Figure::Rate),
    (Scenario::Close, Figure::CpuPerRequest),
    (Scenario::KeepAlive, Figure::CpuPerRequest),
    (Scenario::Close, Figure::P99),
    (Scenario::Download, Figure::Throughput),
    (Scenario::Upload, Figure::Throughput),
    (Scenario::UploadFrames, Figure::Throughput),
];
const COLUMNS: usize = 2;
const WIDTH: u32 = 1100;
const HEAD: u32 = 40;
/// The height of a panel without bars, and that of a bar.
const FRAME: u32 = 70;
const BAR: u32 = 26;

const OURS: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
const OTHERS: RGBColor = RGBColor(0x9a, 0xa5, 0xb1);

/// Draws the report into an SVG file.
pub(crate) fn write(report: &Report, path: &Path) -> Result<()> {
    draw(report, path).with_context(|| format!("cannot write the chart {}", path.display()))
}

fn draw(report: &Report, path: &Path) -> Result<()> {
    let rows = PANELS.len().div_ceil(COLUMNS);
    let bars = report.contenders().len() as u32;
    let size = (WIDTH, HEAD + rows as u32 * (FRAME + bars * BAR));
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;
    let (head, body) = root.split_vertically(HEAD);
    head.draw(&Text::new(heading(report), (12, 14), ("sans-serif", 14)))?;
    for (area, (scenario, figure)) in body.split_evenly((rows, COLUMNS)).iter().zip(PANELS) {
        panel(area, report, scenario, figure)?;
    }
    root.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn panel(area: &Area<'_>, report: &Report, scenario: Scenario, figure: Figure) -> Result<()> {
    // The first contender is on top.
    let records: Vec<&Record> = report
        .contenders()
        .into_iter()
        .rev()
        .filter_map(|contender| report.record(contender, scenario, figure))
        .collect();
    let longest = records.iter().map(|record| record.max).fold(0.0, f64::max);
    if records.is_empty() || longest <= 0.0 {
        return Ok(());
    }
    let title = format!(
        "{}: {}, {} ({} is better)",
        scenario.title(),
        figure.title(),
        figure.unit(),
        if figure.less_is_better() {
            "less"
        } else {
            "more"
        }
    );
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 15))
        .margin(8)
        .margin_right(24)
        .x_label_area_size(24)
        .y_label_area_size(76)
        // Room for the figures at the ends of the bars; the range of places is inclusive.
        .build_cartesian_2d(0.0..longest * 1.2, (0..records.len() - 1).into_segmented())?;
    let name = |place: &SegmentValue<usize>| match place {
        SegmentValue::CenterOf(place) => records
            .get(*place)
            .map_or(String::new(), |record| record.contender.name()),
        SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(0xe4, 0xe7, 0xea))
        .x_labels(5)
        .x_label_formatter(&|value| number(figure, *value))
        .y_labels(records.len())
        .y_label_formatter(&name)
        .label_style(("sans-serif", 13))
        .draw()?;
    chart.draw_series(records.iter().enumerate().map(|(place, record)| {
        let from = (0.0, SegmentValue::Exact(place));
        let to = (record.median, SegmentValue::Exact(place + 1));
        let mut bar = Rectangle::new([from, to], colour(record.contender).filled());
        bar.set_margin(4, 4, 0, 0);
        bar
    }))?;
    chart.draw_series(records.iter().enumerate().map(|(place, record)| {
        let at = |value| (value, SegmentValue::CenterOf(place));
        PathElement::new([at(record.min), at(record.max)], BLACK)
    }))?;
    chart.draw_series(records.iter().enumerate().map(|(place, record)| {
        let at = (record.max, SegmentValue::CenterOf(place));
        let text = number(figure, record.median);
        EmptyElement::at(at) + Text::new(text, (6, -6), ("sans-serif", 13))
    }))?;
    Ok(())
}

fn colour(contender: Contender) -> RGBColor {
    if contender.mode().is_some() {
        OURS
    } else {
        OTHERS
    }
}
