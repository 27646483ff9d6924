//! The table on the screen: in a terminal all lines fill at once, in a pipe
//! each is printed when it is complete.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    report::{self, Row},
    scenarios::Fault,
};

/// See the [module](self).
pub struct Display {
    /// None in a pipe.
    bars: BTreeMap<Fault, ProgressBar>,
    _together: MultiProgress,
}

impl Display {
    pub fn new(rows: &[Row], budget: Duration, on_network: bool) -> Self {
        println!(
            "A death has to be known within {budget:?}. \"never\" means not within {:?}, and \"-\" that\n\
             there was no alarm and should be none. In seconds after the fault:\n",
            rows.iter()
                .map(|row| row.fault.observe_for(budget))
                .min()
                .unwrap_or_default()
        );
        if on_network {
            println!(
                "The network is made of namespaces: a router drops by blackhole routes, and delays\n\
                 and loses in a program behind a TUN device.\n"
            );
        }
        let in_a_terminal = io::stdout().is_terminal();
        // Beside the lines there is something that moves.
        let margin = if in_a_terminal { "  " } else { "" };
        println!("{margin}{}", report::heading());

        let together = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let mut bars = BTreeMap::new();
        if in_a_terminal {
            let style = ProgressStyle::with_template("{spinner} {msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
            for row in rows {
                let bar = together.add(ProgressBar::new_spinner().with_style(style.clone()));
                bar.enable_steady_tick(Duration::from_millis(200));
                bar.set_message(row.line(Duration::ZERO));
                bars.insert(row.fault, bar);
            }
        }
        Self {
            bars,
            _together: together,
        }
    }

    pub fn show(&self, rows: &[Row], fault: Fault) {
        if let (Some(bar), Some(row)) = (self.bars.get(&fault), row(rows, fault)) {
            bar.set_message(row.line(Duration::ZERO));
        }
    }

    pub fn finish(&self, rows: &[Row], fault: Fault) {
        let Some(row) = row(rows, fault) else {
            return;
        };
        let line = row.line(Duration::ZERO);
        match self.bars.get(&fault) {
            Some(bar) => bar.finish_with_message(line),
            None => println!("{line}"),
        }
    }

    pub fn abandon(&self, fault: Fault, error: &io::Error) {
        let line = format!("{:<15}couldn't be made: {error}", fault.name());
        match self.bars.get(&fault) {
            Some(bar) => bar.abandon_with_message(line),
            None => println!("{line}"),
        }
    }

    pub fn end(&self, rows: &[Row], late: Duration) {
        println!("\n{}", report::summary(rows, late));
        println!("\nThis machine was late by up to {:.1?} meanwhile.", late);
    }
}

fn row(rows: &[Row], fault: Fault) -> Option<&Row> {
    rows.iter().find(|row| row.fault == fault)
}
