//! Which detector sees which fault: every fault against every detector, on this machine, at
//! the same time.
//!
//! ```text
//! cargo run -p fault_lab
//! cargo run -p fault_lab -- --detect-within 3s --json found.json --svg found.svg
//! ```
//!
//! For each fault it starts itself once more as a peer, connects to it once
//! for each detector, makes the fault and waits for alarms. Some faults need a
//! network, which it makes of namespaces and removes again; where it can't, it
//! says so and runs the rest.
//!
//! It exits with 0 if the heartbeat found every death in time and as what it
//! was, and raised no false alarm; with 1 if it didn't, and with 2 if a fault
//! couldn't be made.
//!
//! | file | what it decides |
//! |---|---|
//! | `scenarios.rs` | the faults, and what is right |
//! | `detectors.rs` | the ways of finding out |
//! | `lab.rs` | the order of events in a run |
//! | `peer.rs`, `process.rs` | the other end, and how none is left behind |
//! | `site.rs`, `../relay.rs`, `../network.rs` | how a network is made and broken |
//! | `report.rs`, `picture.rs`, `display.rs` | the table, the files, the picture |

mod detectors;
mod display;
mod lab;
mod peer;
mod picture;
mod process;
mod report;
mod scenarios;
mod site;

use std::{error::Error, fs::File, path::PathBuf, process::ExitCode, thread, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};
use heartbeat_examples::{arguments::duration, witness::Witness};
use heartbeat_tokio::Config;
use tokio::{
    runtime::Runtime,
    sync::{mpsc::unbounded_channel, watch},
};

use crate::{
    display::Display,
    lab::News,
    process::Assignment,
    report::{Report, Row},
    scenarios::{Fault, Place},
};

/// Runs each fault against each detector, and prints which of them raised an alarm.
#[derive(Debug, Parser)]
struct Options {
    /// Detect a death within this time
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration)]
    detect_within: Duration,
    /// Only these faults, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<Fault>,
    /// The kinds of faults
    #[arg(long, value_enum, default_value_t = Where::Auto)]
    network: Where,
    /// Write the result to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the result into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Where {
    /// Only faults between two processes
    Loopback,
    /// Also faults that need a network; fail without one
    Namespaces,
    /// Also faults that need a network, if one can be made
    Auto,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// The other end, as the lab starts it
    #[command(hide = true)]
    Peer(Assignment),
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let options = Options::parse();
    if let Some(Role::Peer(assignment)) = options.role {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime
            .enable_all()
            .build()?
            .block_on(peer::run(assignment))?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::detect_within(options.detect_within)?;
    // Before there are threads: it may start this program anew.
    let faults = match options.faults() {
        Ok(faults) => faults,
        Err(missing) => {
            eprintln!("No network can be made: {missing}");
            return Ok(ExitCode::from(2));
        }
    };
    Runtime::new()?.block_on(run(&options, &config, faults))
}

async fn run(
    options: &Options,
    config: &Config,
    faults: Vec<Fault>,
) -> Result<ExitCode, Box<dyn Error>> {
    let witness = Witness::start();
    let on_network = faults.iter().any(|fault| fault.place() == Place::Network);
    let budget = options.detect_within;
    let mut rows: Vec<_> = faults
        .iter()
        .map(|fault| Row::new(*fault, budget))
        .collect();
    let display = Display::new(&rows, budget, on_network);

    let (stop, stopped) = watch::channel(false);
    let (sender, mut news) = unbounded_channel();
    let mut runs = Vec::new();
    for fault in faults {
        runs.push(lab::start(fault, budget, sender.clone(), stopped.clone())?);
    }
    drop(sender);

    let mut failures = Vec::new();
    let interrupted = tokio::select! {
        // Ends when the last run has.
        () = async {
            while let Some(news) = news.recv().await {
                match news {
                    News::Alarm(fault, detector, finding) => {
                        update(&mut rows, fault, |row| row.note(detector, finding));
                        display.show(&rows, fault);
                    }
                    News::Done(fault) => {
                        update(&mut rows, fault, Row::end);
                        display.finish(&rows, fault);
                    }
                    News::Failed(fault, error) => {
                        rows.retain(|row| row.fault != fault);
                        display.abandon(fault, &error);
                        failures.push(fault);
                    }
                }
            }
        } => false,
        _ = heartbeat_examples::process::interrupted() => true,
    };
    // Each takes its peer and its network with it.
    stop.send_replace(true);
    let panicked = runs.into_iter().map(thread::JoinHandle::join);
    let panicked = panicked.filter(Result::is_err).count();
    if interrupted {
        return Ok(ExitCode::from(130));
    }

    let late = witness.late();
    display.end(&rows, late);
    if let Some(path) = &options.json {
        let network = if on_network { "namespaces" } else { "loopback" };
        let report = Report::new(&rows, config, network, late);
        serde_json::to_writer_pretty(File::create(path)?, &report)?;
    }
    if let Some(path) = &options.svg {
        picture::draw(path, &rows, budget)?;
    }
    let complaints: Vec<_> = rows.iter().filter_map(|row| row.complaint(late)).collect();
    for complaint in &complaints {
        println!("NOT AS EXPECTED: {complaint}");
    }
    Ok(match (failures.len() + panicked, complaints.len()) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::FAILURE,
        _ => ExitCode::from(2),
    })
}

fn update(rows: &mut [Row], fault: Fault, update: impl FnOnce(&mut Row)) {
    if let Some(row) = rows.iter_mut().find(|row| row.fault == fault) {
        update(row);
    }
}

impl Options {
    /// The requested faults that can be made. A missing network is reported, or is an error if
    /// one is required.
    fn faults(&self) -> std::io::Result<Vec<Fault>> {
        let mut faults: Vec<_> = match self.only.as_slice() {
            [] => Fault::all().to_vec(),
            only => Fault::all()
                .iter()
                .copied()
                .filter(|fault| only.contains(fault))
                .collect(),
        };
        let wanted = |fault: &Fault| fault.place() == Place::Network;
        if self.network == Where::Loopback {
            faults.retain(|fault| !wanted(fault));
        }
        if !faults.iter().any(wanted) {
            return Ok(faults);
        }
        let mut leave_out = |why, out: &dyn Fn(&Fault) -> bool| {
            if self.network == Where::Namespaces && faults.iter().any(out) {
                return Err(why);
            }
            let names: Vec<_> = faults
                .iter()
                .filter(|fault| out(fault))
                .map(|fault| fault.name())
                .collect();
            if !names.is_empty() {
                eprintln!("Left out: {} ({why})", names.join(", "));
            }
            faults.retain(|fault| !out(fault));
            Ok(())
        };
        let available = site::available().inspect_err(|_| site::become_root());
        match available {
            Ok(Ok(())) => {}
            Ok(Err(no_relay)) => leave_out(no_relay, &|fault| {
                matches!(fault, Fault::Delay | Fault::Loss)
            })?,
            Err(no_network) => leave_out(no_network, &wanted)?,
        }
        Ok(faults)
    }
}
