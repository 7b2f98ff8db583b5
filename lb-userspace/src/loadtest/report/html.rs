//! The report as a page that needs nothing else.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use plotters::{
    coord::Shift,
    drawing::DrawingAreaErrorKind,
    prelude::*,
    style::{Palette, Palette99},
};

use super::{Report, StageReport, number, percent, rates, time};
use crate::loadtest::beside::Spread;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

const SIZE: (u32, u32) = (960, 280);
const STYLE: &str = "\
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } th, td { padding: .2rem .7rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
thead { border-bottom: 1px solid; } .bad { color: #b00020; font-weight: 600; }
figure { margin: 1rem 0; background: #fff; border-radius: 6px; overflow-x: auto; }
figure svg { display: block; max-width: 100%; height: auto; }
@media (prefers-color-scheme: dark) { .bad { color: #ff8a80; } }";

/// The page.
///
/// # Errors
/// Where a plot cannot be drawn.
pub fn page(report: &Report) -> anyhow::Result<String> {
    let plots = [
        ("Requests a second", draw(|area| throughput(area, report))?),
        ("Latency over time", draw(|area| latency(area, report))?),
        (
            "Latency of all requests",
            draw(|area| distribution(area, report))?,
        ),
    ];
    let spread = report.spread.as_ref();
    let shares = spread
        .map(|spread| draw(|area| taken(area, spread)))
        .transpose()?;
    let began = humantime::format_rfc3339_seconds(
        std::time::UNIX_EPOCH + std::time::Duration::from_millis(report.began_at_ms),
    );
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Load test of " (report.target) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Load test of " (report.target) }
                p {
                    (report.address) ", begun " (began) "; connections " (report.connections)
                    ", arrivals " (report.arrivals) ". Latency counts from when a request was due."
                }
                (summary(report))
                @for warning in &report.warnings { p.bad { (warning) } }
                @if let Some(ended) = report.ended { p.bad { "Ended early: " (ended) "." } }
                @if let Some(search) = &report.search { p { strong { (search.told()) } } }
                @if report.stages.len() > 1 { (stages(&report.stages)) }
                @if let Some(spread) = spread { (backends(spread, shares)) }
                @for (title, plot) in plots {
                    h2 { (title) }
                    figure role="img" aria-label=(title) { (PreEscaped(plot)) }
                }
            }
        }
    };
    Ok(page.into_string())
}

fn summary(report: &Report) -> Markup {
    let total = &report.total;
    html! {
        table {
            thead { tr {
                th { "requests" } th { "answered" } th { "failed" } th { "answered /s" }
                @if total.latency.is_some() { th { "p50" } th { "p90" } th { "p99" } th { "p99.9" } th { "longest" } }
            } }
            tbody { tr {
                td { (total.due) } td { (total.answered) }
                td.bad[total.failed() > 0] { (total.failed()) }
                td { (number(total.answered_rate)) }
                @if let Some(latency) = &total.latency {
                    @for of in [latency.p50_s, latency.p90_s, latency.p99_s, latency.p999_s, latency.max_s] {
                        td { (time(of)) }
                    }
                }
            } }
        }
        @if !total.failures.is_empty() {
            ul { @for (failure, count) in &total.failures { li { (count) " × " (failure) } } }
        }
    }
}

fn stages(stages: &[StageReport]) -> Markup {
    html! {
        h2 { "Stages" }
        table {
            thead { tr {
                th { "stage" } th { "rate /s" } th { "lasts" } th { "answered /s" } th { "p50" }
                th { "p99" } th { "failed" } th { "holds" }
            } }
            tbody { @for (n, stage) in stages.iter().enumerate() { tr {
                td { (n + 1) } td { (rates(stage)) } td { (time(stage.lasts_s)) }
                td { (number(stage.figures.answered_rate)) }
                @match &stage.figures.latency {
                    Some(latency) => { td { (time(latency.p50_s)) } td { (time(latency.p99_s)) } }
                    None => { td { "–" } td { "–" } }
                }
                td.bad[stage.figures.failed() > 0] { (stage.figures.failed()) }
                td { @match stage.holds { Some(true) => "yes", Some(false) => span.bad { "no" }, None => "–" } }
            } } }
        }
    }
}

fn backends(spread: &Spread, plot: Option<String>) -> Markup {
    html! {
        h2 { "What each backend of " (spread.service) " took" }
        p { (spread.message) }
        table {
            thead { tr { th { "backend" } th { (spread.unit) } th { "share" } th { "intended" } } }
            tbody { @for backend in &spread.backends { tr {
                td { (backend.name) } td { (backend.took) }
                td { (backend.share.map_or_else(|| "–".into(), percent)) }
                td { (percent(backend.intended_share)) }
            } } }
        }
        @if !spread.without_one.is_empty() {
            ul { @for without in &spread.without_one { li { (without.told(spread.unit)) } } }
        }
        @if let Some(plot) = plot { figure role="img" aria-label="what each backend took" { (PreEscaped(plot)) } }
    }
}

fn draw(with: impl FnOnce(&Area<'_>) -> Drawn) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        with(&area)?;
        area.present()?;
    }
    Ok(svg)
}

/// Lines over time: a name and its points each.
fn lines(
    area: &Area<'_>,
    unit: &str,
    lines: &[(String, Vec<(f64, f64)>)],
    label: impl Fn(f64) -> String,
) -> Drawn {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let right = points().map(|point| point.0).fold(1.0, f64::max);
    let top = points()
        .map(|point| point.1)
        .fold(f64::MIN_POSITIVE, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..right, 0.0..top * 1.05)?;
    chart
        .configure_mesh()
        .x_desc("seconds")
        .y_desc(unit)
        .y_label_formatter(&|value| label(*value))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (n, (name, points)) in lines.iter().enumerate() {
        let color = Palette99::pick(n).to_rgba();
        chart
            .draw_series(LineSeries::new(
                points.iter().copied(),
                color.stroke_width(2),
            ))?
            .label(name.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .draw()?;
    Ok(())
}

fn throughput(area: &Area<'_>, report: &Report) -> Drawn {
    let over = |name: &str, of: &dyn Fn(&super::SecondReport) -> u64| {
        let points = report.seconds.iter();
        let points = points.map(|second| (second.at_s as f64, of(second) as f64));
        (name.to_owned(), points.collect())
    };
    let of = [
        over("due", &|second| second.due),
        over("answered", &|second| second.due - second.failed),
        over("failed", &|second| second.failed),
    ];
    lines(area, "requests/s", &of, number)
}

fn latency(area: &Area<'_>, report: &Report) -> Drawn {
    let over = |name: &str, n: usize| {
        let points = report.seconds.iter();
        let points = points.filter_map(|second| Some((second.at_s as f64, second.latency_s?[n])));
        (name.to_owned(), points.collect())
    };
    let of = [over("p50", 0), over("p90", 1), over("p99", 2)];
    lines(area, "latency", &of, time)
}

/// Latency by quantile, each step to the right a tenth of the requests that the one before left.
fn distribution(area: &Area<'_>, report: &Report) -> Drawn {
    let nines = |quantile: f64| -(1.0 - quantile).log10();
    let points: Vec<_> = report
        .distribution
        .iter()
        .map(|&(quantile, took)| (nines(quantile), took))
        .collect();
    let right = points.iter().map(|point| point.0).fold(1.0, f64::max);
    let top = points
        .iter()
        .map(|point| point.1)
        .fold(f64::MIN_POSITIVE, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..right, 0.0..top * 1.05)?;
    chart
        .configure_mesh()
        .x_desc("part of the requests")
        .y_desc("latency")
        .x_label_formatter(&|nines| {
            let part = 100.0 * (1.0 - 10_f64.powf(-nines));
            format!("{part:.*} %", (nines.ceil() as usize).saturating_sub(1))
        })
        .y_label_formatter(&|value| time(*value))
        .light_line_style(TRANSPARENT)
        .draw()?;
    let color = Palette99::pick(0).to_rgba();
    chart.draw_series(LineSeries::new(points, color.stroke_width(2)))?;
    Ok(())
}

fn taken(area: &Area<'_>, spread: &Spread) -> Drawn {
    let of: Vec<_> = spread
        .backends
        .iter()
        .map(|backend| (backend.name.clone(), backend.over_time.clone()))
        .collect();
    lines(area, &format!("{}/s", spread.unit), &of, number)
}
