//! For how long does my network keep an idle connection? Finds out, one line for each
//! attempt, and draws a picture of it.
//!
//! ```text
//! cargo run --release -p learn -- simulate --nat-timeout 17m --svg learned.svg
//! cargo run --release -p learn -- serve 0.0.0.0:7000
//! cargo run --release -p learn -- connect server.example:7000 --file intervals.json --network home
//! cargo run --release -p learn -- compare
//! ```
//!
//! `connect` keeps one connection at the interval that is known to be safe, and tries
//! longer ones on a second connection. It remembers what it found in the file, under the
//! name of the network, and `tune --learned` takes it from there. `simulate` does the same
//! with a network that forgets connections after the given time, in no time at all.
//!
//! | file | what it decides |
//! |---|---|
//! | `client.rs`, `server.rs` | what the two ends do |
//! | `simulated.rs` | what a network would do, and how long that would take |
//! | `compare.rs` | the table of docs/timings.md |
//! | `report.rs`, `picture.rs` | the lines, and the picture |

mod client;
mod compare;
mod picture;
mod report;
mod server;
mod simulated;

use std::{error::Error, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use heartbeat_examples::arguments::duration;
use heartbeat_tokio::heartbeat_core::{IntervalSearch, SearchMethod};

/// Finds the longest interval for which a network keeps an idle connection.
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Search on the path to a server that runs `serve`
    Connect(client::Options),
    /// Run that server
    Serve {
        /// The address to listen on
        #[arg(value_name = "ADDRESS:PORT")]
        address: String,
    },
    /// Search on a simulated network
    Simulate {
        /// The idle time after which the network drops a connection
        #[arg(long, value_name = "TIME", value_parser = duration)]
        nat_timeout: Duration,
        #[command(flatten)]
        search: SearchOptions,
        /// Draw the attempts into this file
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
    /// Compare the methods on simulated networks
    Compare {
        /// How many networks to try for each timeout
        #[arg(long, value_name = "COUNT", default_value_t = 1_000,
              value_parser = clap::value_parser!(u32).range(1..))]
        seeds: u32,
    },
}

/// The settings of a search.
#[derive(Args, Clone, Debug)]
struct SearchOptions {
    /// An interval that every network keeps
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
    smallest: Duration,
    /// The longest useful interval
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2h")]
    largest: Duration,
    /// The method
    #[arg(long, value_enum, default_value_t = Method::Composite)]
    method: Method,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Method {
    Binary,
    Exponential,
    Composite,
    /// A minute longer each time
    Step,
}

impl SearchOptions {
    fn search(&self) -> Result<IntervalSearch, Box<dyn Error>> {
        let search = IntervalSearch::new(self.smallest..=self.largest)?;
        Ok(search.method(match self.method {
            Method::Binary => SearchMethod::Binary,
            Method::Exponential => SearchMethod::Exponential,
            Method::Composite => SearchMethod::Composite,
            Method::Step => SearchMethod::Step(Duration::from_secs(60)),
        }))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    match options.command {
        Command::Connect(options) => client::run(options).await,
        Command::Serve { address } => server::run(&address).await,
        Command::Simulate {
            nat_timeout,
            search,
            svg,
        } => {
            let mut report = report::Report::new(search.search()?);
            simulated::run(search.search()?, nat_timeout, |attempt| report.add(attempt));
            report.end(svg.as_deref(), Some(nat_timeout))
        }
        Command::Compare { seeds } => {
            compare::print(seeds)?;
            Ok(())
        }
    }
}
