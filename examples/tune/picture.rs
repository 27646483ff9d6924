//! The picture: how soon a death is known, from left to right, against how often
//! a life is taken for one, from bottom to top; one mark for each candidate.

use std::{error::Error, path::Path};

use plotters::prelude::*;

use crate::report::{Report, Tried};

const TEXT: (&str, u32) = ("sans-serif", 14);

/// Draws it into an SVG file.
pub fn draw(path: &Path, report: &Report) -> Result<(), Box<dyn Error>> {
    let (tried, chosen) = report.candidates();
    let area = SVGBackend::new(path, (960, 600)).into_drawing_area();
    area.fill(&WHITE)?;
    let (legend, area) = area.split_vertically(64);
    let text = TEXT.into_font().color(&BLACK);
    let lines = [
        "point: false alarms that were counted, and their limits of 95 %;",
        "triangle: none was counted, and there are at most as many as this;",
        "red: the configuration in question; blue: grants all wishes; grey: does not",
    ];
    for (line, y) in lines.into_iter().zip([8, 26, 44]) {
        legend.draw(&Text::new(line, (90, y), text.clone()))?;
    }

    let right = largest(
        tried
            .iter()
            .map(|tried| tried.detection.max.max(tried.bound)),
    ) * 1.05;
    let highs = || tried.iter().map(|tried| tried.false_alarms.of_one.high);
    let lows = tried.iter().map(lowest).fold(f64::INFINITY, f64::min);
    let (bottom, top) = (lows / 2.0, largest(highs()) * 2.0);
    let mut chart = ChartBuilder::on(&area)
        .margin_right(20)
        .x_label_area_size(50)
        .y_label_area_size(90)
        .build_cartesian_2d(0.0..right, (bottom..top).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("seconds from a death to its verdict: half of them (mark), and all (bar)")
        .y_desc("false alarms a day, one connection")
        .y_label_formatter(&|rate| match (0.01..10_000.0).contains(rate) {
            true => format!("{rate}"),
            false => format!("{rate:.0e}"),
        })
        .x_label_style(TEXT)
        .y_label_style(TEXT)
        .axis_desc_style(TEXT)
        .draw()?;

    // What is in question comes last, and so lies above the others.
    let others = (0..tried.len()).filter(|index| *index != chosen);
    for index in others.chain([chosen]) {
        let one = &tried[index];
        let color = match (index == chosen, one.is_possible) {
            (true, _) => RED.to_rgba(),
            (false, true) => BLUE.mix(0.7),
            (false, false) => BLACK.mix(0.35),
        };
        let size = if index == chosen { 6 } else { 4 };
        let rate = one.false_alarms.of_one;
        let (x, y) = (
            one.detection.p50,
            if rate.low > 0.0 {
                rate.a_day
            } else {
                rate.high
            },
        );
        let line = |points: [(f64, f64); 2]| PathElement::new(points, color.stroke_width(1));
        chart.draw_series([line([(x, y), (one.detection.max, y)])])?;
        if rate.low > 0.0 {
            chart.draw_series([line([(x, rate.low), (x, rate.high)])])?;
            chart.draw_series([Circle::new((x, y), size, color.filled())])?;
        } else {
            chart.draw_series([TriangleMarker::new((x, y), size + 1, color.filled())])?;
        }
        if index == chosen {
            let label = format!(
                "{} s + {} x {} s",
                one.interval, one.max_missed, one.timeout
            );
            let label =
                EmptyElement::at((x, y)) + Text::new(label, (10, 6), TEXT.into_font().color(&RED));
            chart.draw_series([label])?;
        }
    }
    area.present()?;
    Ok(())
}

/// The lowest of what is drawn.
fn lowest(tried: &Tried) -> f64 {
    let rate = tried.false_alarms.of_one;
    match rate.low > 0.0 {
        true => rate.low,
        false => rate.high,
    }
}

fn largest(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(f64::MIN_POSITIVE, f64::max)
}
