//! The picture: faults from top to bottom, time from left to right, one mark
//! for each detector.

use std::{error::Error, path::Path, time::Duration};

use plotters::{
    coord::{Shift, types::RangedCoordf64},
    prelude::*,
};

use crate::{
    detectors::Detector,
    report::{Mark, Row},
};

const BACKGROUND: RGBColor = WHITE;

/// Of one row, in pixels. Its marks share it, one below the other, so that
/// equal times can be told apart.
const ROW: u32 = 34;

type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Draws it into an SVG file.
pub fn draw(path: &Path, rows: &[Row], budget: Duration) -> Result<(), Box<dyn Error>> {
    let count = u32::try_from(rows.len())?;
    let size = (960, 110 + ROW * count);
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&BACKGROUND)?;
    let (legend, area) = area.split_vertically(44);
    draw_legend(&legend)?;

    let (budget, bottom) = (budget.as_secs_f64(), f64::from(count));
    // Behind the end is where "never" stands.
    let (end, never, right) = (3.0 * budget, 3.15 * budget, 3.3 * budget);
    let mut chart: Chart = ChartBuilder::on(&area)
        .margin_right(20)
        .x_label_area_size(50)
        .y_label_area_size(140)
        .build_cartesian_2d(-0.03 * end..right, bottom..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(TRANSPARENT)
        .y_labels(0)
        .x_desc("seconds after the fault; right of the grey line: never")
        .x_label_formatter(&|seconds| format!("{seconds:.0}"))
        .x_label_style(("sans-serif", 14))
        .axis_desc_style(("sans-serif", 14))
        .draw()?;

    vertical(&mut chart, budget, bottom, &BLACK)?;
    vertical(&mut chart, end, bottom, &BLACK.mix(0.3))?;
    for (index, row) in rows.iter().enumerate() {
        draw_row(&mut chart, f64::from(u32::try_from(index)?), row, never)?;
    }
    area.present()?;
    Ok(())
}

fn draw_row(chart: &mut Chart, top: f64, row: &Row, never: f64) -> Result<(), Box<dyn Error>> {
    let mut name = row.fault.name();
    if !row.is_a_death() {
        name.push_str(" (alive)");
    }
    let left = chart.x_range().start;
    let text = ("sans-serif", 14).into_font().color(&BLACK);
    let label = EmptyElement::at((left, top + 0.5)) + Text::new(name, (-138, -6), text);
    chart.plotting_area().draw(&label)?;
    let line = [(left, top), (chart.x_range().end, top)];
    chart.draw_series([PathElement::new(line, BLACK.mix(0.12))])?;

    let lane = 1.0 / (Detector::ALL.len() + 1) as f64;
    for (index, detector) in Detector::ALL.into_iter().enumerate() {
        let y = top + lane * (index + 1) as f64;
        let mark = row.mark(detector, Duration::ZERO);
        let style = color(detector);
        match (row.finding(detector), mark) {
            (Some(found), Mark::FalseAlarm) => {
                chart.draw_series([Cross::new((found.seconds, y), 4, style.stroke_width(2))])?;
            }
            (Some(found), _) => {
                let at = (found.seconds.clamp(left, never), y);
                chart.draw_series([Circle::new(at, 3, style.filled())])?;
            }
            (None, Mark::Missed) => {
                chart.draw_series([Circle::new((never, y), 3, style)])?;
            }
            (None, _) => {}
        }
    }
    Ok(())
}

fn vertical(
    chart: &mut Chart,
    seconds: f64,
    bottom: f64,
    color: &impl Color,
) -> Result<(), Box<dyn Error>> {
    let line = [(seconds, 0.0), (seconds, bottom)];
    chart.draw_series([PathElement::new(line, color.stroke_width(1))])?;
    Ok(())
}

fn draw_legend(area: &DrawingArea<SVGBackend, Shift>) -> Result<(), Box<dyn Error>> {
    let text = ("sans-serif", 14).into_font().color(&BLACK);
    let mut x = 20;
    for detector in Detector::ALL {
        let name = detector.name().replace('_', " ");
        area.draw(&Circle::new((x, 14), 4, color(detector).filled()))?;
        area.draw(&Text::new(name.clone(), (x + 9, 8), text.clone()))?;
        x += 40 + 8 * i32::try_from(name.len())?;
    }
    let rest = "black line: the time within which a death has to be known; cross: a false alarm";
    area.draw(&Text::new(rest, (16, 26), text))?;
    Ok(())
}

fn color(detector: Detector) -> PaletteColor<Palette99> {
    let index = Detector::ALL.iter().position(|other| *other == detector);
    Palette99::pick(index.unwrap_or_default())
}
