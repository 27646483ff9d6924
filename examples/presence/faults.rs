//! What can go wrong with a fleet, each with real processes and a Redis server of its own.
//!
//! This module decides what is right in each case. It prints what was promised beside what
//! was measured, and fails if something isn't right.

mod rows;
mod stage;

use std::{error::Error, time::Duration};

use clap::Args;
use futures::{StreamExt, stream::FuturesUnordered};
use heartbeat_examples::arguments::duration;

use crate::Timings;

#[derive(Args, Clone)]
pub struct Options {
    /// How soon a client's death has to be known
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration)]
    detect_within: Duration,
    /// How long a user may take to connect again, and hasn't left
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    grace: Duration,
    /// How late the machine may be
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    tolerance: Duration,
    /// For how long Redis is gone
    #[arg(long, value_name = "TIME", default_value = "6s", value_parser = duration)]
    away: Duration,
    /// Only the faults whose names contain this
    #[arg(long, value_name = "WORDS", default_value = "")]
    only: String,
}

impl Options {
    const fn timings(&self) -> Timings {
        Timings {
            detect_within: self.detect_within,
            grace: self.grace,
        }
    }
}

/// What came of a fault.
#[derive(Default)]
struct Row {
    fault: &'static str,
    /// What, promised within, and measured.
    measured: Vec<(&'static str, Duration, Duration)>,
    amiss: Vec<String>,
    /// Why it couldn't be tried here.
    skipped: Option<String>,
}

pub async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    let mut rows: FuturesUnordered<_> = rows::all(&options).collect();
    let (mut amiss, mut tried) = (0, 0);
    while let Some(row) = rows.next().await {
        if let Some(reason) = &row.skipped {
            println!("SKIPPED  {}: {reason}", row.fault);
            continue;
        }
        tried += 1;
        amiss += usize::from(!row.print(options.tolerance));
    }
    println!("{tried} faults tried, {amiss} amiss");
    match (tried, amiss) {
        (0, _) => Err("there is no such fault".into()),
        (_, 0) => Ok(()),
        _ => Err("something isn't right".into()),
    }
}

impl Row {
    /// Says whether all was right.
    fn print(&self, tolerance: Duration) -> bool {
        let late =
            |(_, promised, measured): &&(_, Duration, Duration)| *measured > *promised + tolerance;
        let right = self.amiss.is_empty() && self.measured.iter().filter(late).count() == 0;
        println!(
            "{}  {}",
            if right { "ok     " } else { "AMISS  " },
            self.fault
        );
        for (what, promised, measured) in &self.measured {
            println!("           {what}: promised {promised:.2?}, measured {measured:.2?}");
        }
        for complaint in &self.amiss {
            println!("           {complaint}");
        }
        right
    }
}
