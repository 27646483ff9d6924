//! The picture: what was tried, from left to right, and the interval that was safe
//! meanwhile.

use std::{error::Error, path::Path, time::Duration};

use heartbeat_tokio::heartbeat_core::SearchOutcome;
use plotters::prelude::*;

use crate::report::Attempt;

const TEXT: (&str, u32) = ("sans-serif", 14);

/// Draws it into an SVG file; `timeout` is the network's, where it is known.
pub fn draw(
    path: &Path,
    attempts: &[Attempt],
    timeout: Option<Duration>,
) -> Result<(), Box<dyn Error>> {
    let minutes = |time: Duration| time.as_secs_f64() / 60.0;
    let right = attempts.last().map_or(1.0, |last| minutes(last.ended_at)) * 1.02;
    let tried = attempts.iter().map(|attempt| attempt.interval);
    let top = minutes(tried.chain(timeout).max().unwrap_or_default()) * 1.1;

    let area = SVGBackend::new(path, (960, 500)).into_drawing_area();
    area.fill(&WHITE)?;
    let (legend, area) = area.split_vertically(30);
    legend.draw(&Text::new(
        "blue: answered; red: lost; line: the safe interval; grey: what the network keeps",
        (90, 8),
        TEXT.into_font().color(&BLACK),
    ))?;
    let mut chart = ChartBuilder::on(&area)
        .margin_right(20)
        .x_label_area_size(50)
        .y_label_area_size(90)
        .build_cartesian_2d(0.0..right, 0.0..top)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("minutes since the start")
        .y_desc("idle time, minutes")
        .x_label_style(TEXT)
        .y_label_style(TEXT)
        .axis_desc_style(TEXT)
        .draw()?;
    if let Some(timeout) = timeout {
        let kept = [(0.0, minutes(timeout)), (right, minutes(timeout))];
        chart.draw_series([PathElement::new(kept, BLACK.mix(0.4))])?;
    }

    let mut safe = Vec::new();
    for attempt in attempts {
        let now = minutes(attempt.ended_at);
        if let Some(&(_, before)) = safe.last() {
            safe.push((now, before));
        }
        safe.push((now, minutes(attempt.search.safe())));
    }
    chart.draw_series([PathElement::new(safe, BLACK.stroke_width(2))])?;
    chart.draw_series(attempts.iter().map(|attempt| {
        let color = match attempt.outcome {
            SearchOutcome::Answered { .. } => BLUE.filled(),
            SearchOutcome::Lost { .. } => RED.filled(),
            _ => BLACK.mix(0.4).filled(),
        };
        let at = (minutes(attempt.ended_at), minutes(attempt.interval));
        Circle::new(at, 4, color)
    }))?;
    area.present()?;
    Ok(())
}
