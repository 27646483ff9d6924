//! Which interval, which timeout and how many misses? Says what your network
//! does and what you want to know, and get a configuration to paste.
//!
//! ```text
//! cargo run --release -p tune -- \
//!     --rtt 80ms --jitter 20ms --loss 2% --outage 2s --detect-within 6s --connections 50000
//! cargo run --release -p tune -- --measured round_trips.txt --detect-within 6s
//! cargo run --release -p tune -- --measure peer.example:7000 --detect-within 6s
//! cargo run --release -p tune -- --rtt 80ms --loss 2% --config mine.toml --svg tune.svg
//! ```
//!
//! It simulates two monitors, the real ones, on such a network in virtual time,
//! with many configurations, and lets them live for years and die some
//! thousand times. What it prints is a configuration file: what was found
//! stands in the comments.
//!
//! It exits with 0 if there is a configuration, with 1 if the wishes contradict
//! each other, and with 2 if it couldn't do what it was told.
//!
//! | file | what it decides |
//! |---|---|
//! | `wishes.rs` | what can be asked for, and what contradicts what |
//! | `candidates.rs` | which configurations are tried, and which is recommended |
//! | `simulate.rs` | how mistakes and detection times are counted |
//! | `statistics.rs` | how certain that is |
//! | `costs.rs` | traffic and processor time |
//! | `measure.rs` | what a network is like, from round trips |
//! | `trial.rs` | the same on a network of namespaces, with real sockets |
//! | `report.rs`, `picture.rs` | the text, the file, the picture |

mod candidates;
mod costs;
mod measure;
mod picture;
mod report;
mod simulate;
mod statistics;
mod trial;
mod wishes;

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use heartbeat_examples::arguments::duration;
use heartbeat_tokio::{Config, IntervalFile};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    candidates::Candidate,
    report::Report,
    simulate::{Amount, Outcome, Task},
    wishes::{PathOptions, Wishes},
};

/// Finds timings for a network, and prints their cost.
#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    path: PathOptions,
    /// Detect a death within this time
    #[arg(long, value_name = "TIME", value_parser = duration,
          required_unless_present = "config")]
    detect_within: Option<std::time::Duration>,
    /// Judge the configuration in this file instead of choosing one
    #[arg(long, value_name = "FILE", conflicts_with = "detect_within")]
    config: Option<PathBuf>,
    /// Choose no longer interval than `learn` found for a network and wrote to this file
    #[arg(
        long,
        value_name = "FILE",
        requires = "network",
        conflicts_with = "config"
    )]
    learned: Option<PathBuf>,
    /// The name of that network
    #[arg(long, value_name = "NAME", requires = "learned")]
    network: Option<String>,
    /// The number of connections
    #[arg(long, value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..))]
    connections: u64,
    /// How long to watch one connection with the configuration in question, in
    /// simulated days [default: a million intervals]
    #[arg(long, value_name = "DAYS", value_parser = wishes::days)]
    days: Option<f64>,
    /// The same number gives the same simulation
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Simulate for a second or two only
    #[arg(long)]
    quick: bool,
    /// Then test it on a network of namespaces for this time, with real sockets
    #[arg(long = "try", value_name = "TIME", value_parser = duration)]
    try_for: Option<std::time::Duration>,
    /// The number of connections of that test
    #[arg(long, value_name = "COUNT", default_value_t = 500, requires = "try_for",
          value_parser = clap::value_parser!(u16).range(1..=10_000))]
    try_connections: u16,
    /// Draw detection times against false alarms into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write the result to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let given = options.config.as_ref().map(|path| {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
        let config = text.map(|text| toml::from_str::<Config>(&text));
        config?.map_err(|error| format!("{}: {error}", path.display()))
    });
    let given = given.transpose()?;
    let path = options.path.clone().known()?;
    let budget = match (&given, options.detect_within) {
        (Some(config), _) => config.detection_time(),
        (None, within) => within.unwrap_or_default(),
    };
    let mut wishes = Wishes::new(path, budget, options.connections)?;
    if let (Some(path), Some(network)) = (&options.learned, &options.network) {
        wishes.longest_interval = Some(learned(path, network)?);
    }
    if given.is_none() {
        let contradictions = wishes.contradictions();
        for contradiction in &contradictions {
            eprintln!("error: {contradiction}");
        }
        if !contradictions.is_empty() {
            return Ok(ExitCode::FAILURE);
        }
    }

    if options.try_for.is_some() {
        // Before there are threads: it may start this program anew.
        trial::available().map_err(|error| format!("--try: {error}"))?;
    }
    let candidates = candidates::around(&wishes, given)?;
    let (first, thorough) = Amount::of(options.quick);
    let outcomes = simulated(&candidates, &wishes, first, options.seed, "candidates");
    let chosen = match given {
        Some(_) => 0,
        None => candidates::recommended(&candidates, &outcomes).ok_or("nothing is possible")?,
    };
    // By another seed: what was chosen for its luck must not keep it.
    let seed = options.seed.wrapping_add(1 << 32);
    let judged = [candidates[chosen]];
    let thorough = thorough.lasting(options.days, &judged[0].config);
    let outcome = simulated(&judged, &wishes, thorough, seed, "the choice").remove(0);

    let mut report = Report::new(&wishes, &candidates, &outcomes, chosen, &outcome)?;
    if let Some(lasting) = options.try_for {
        let connections = options.try_connections.into();
        let trial = trial::run(&wishes.path, &judged[0].config, connections, lasting);
        report.trial = Some(trial.map_err(|error| format!("--try: {error}"))?);
    }
    print!("{report}");
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_vec_pretty(&report)?)
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if let Some(path) = &options.svg {
        picture::draw(path, &report).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The longest interval that this network keeps, as far as the file knows.
fn learned(path: &Path, network: &str) -> Result<Duration, String> {
    let file = IntervalFile::read(path).map_err(|error| error.to_string())?;
    let unknown = || format!("{}: nothing was learned in {network:?}", path.display());
    file.get(network)
        .map(|search| search.safe())
        .ok_or_else(unknown)
}

/// On all cores, with a progress bar if it is a terminal.
fn simulated(
    candidates: &[Candidate],
    wishes: &Wishes,
    amount: Amount,
    seed: u64,
    what: &'static str,
) -> Vec<Outcome> {
    let tasks = Task::all(candidates, wishes, amount, seed);
    let style = ProgressStyle::with_template("{msg:>12} {wide_bar} {percent:>3} % {eta:>4}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    // Hidden unless it goes to a terminal.
    let bar = ProgressBar::new(tasks.len() as u64).with_style(style);
    bar.set_message(what);
    let outcomes = simulate::run(&tasks, candidates.len(), || bar.inc(1));
    bar.finish_and_clear();
    outcomes
}
