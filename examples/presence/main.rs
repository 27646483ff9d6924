//! The users of several gateways.
//!
//! ```text
//! cargo run -p presence -- demo
//! cargo run -p presence -- gateway --redis redis://127.0.0.1/ --name a
//! cargo run -p presence -- watch --redis redis://127.0.0.1/
//! cargo run -p presence -- faults
//! cargo run --release -p presence -- load
//! cargo run --release -p presence -- compare
//! ```
//!
//! The first starts a Redis server, three gateways and 300 clients, and names the pages on
//! which the fleet can be watched. The last three try what can go wrong, measure what the
//! fleet costs, and compare the module with its commands by hand. Redis 7 or later has to be
//! installed.
//!
//! | file | |
//! |---|---|
//! | `presence.rs`, `presence/` | the module to copy: leases, entries and announcements in Redis |
//! | `gateway.rs` | holds clients over TCP and WebSockets, and keeps their presence |
//! | `web.rs` | its page and metrics |
//! | `clients.rs` | clients that come back, to any gateway |
//! | `message.rs` | what travels between the two |
//! | `watch.rs` | the fleet in a terminal |
//! | `compare.rs` | the module beside the same commands by hand |
//! | `demo.rs`, `faults.rs`, `load.rs` | run all of these as processes, which `children.rs` starts |

mod children;
mod clients;
#[cfg(target_os = "linux")]
mod compare;
mod demo;
#[cfg(target_os = "linux")]
mod faults;
mod gateway;
mod load;
mod message;
mod presence;
mod watch;
mod web;

use std::{error::Error, process::ExitCode, time::Duration};

use clap::{Args, Parser};
use heartbeat_examples::arguments::duration;
use heartbeat_tokio::{Config, ConfigError};
use presence::Terms;

#[derive(Parser)]
#[command(about = "The users of several gateways")]
enum Role {
    /// Starts a Redis server, three gateways, 300 clients and the page
    Demo(demo::Options),
    /// Holds clients, and keeps their presence in Redis
    Gateway(gateway::Options),
    /// Connects to gateways as many users
    Clients(clients::Options),
    /// Shows the fleet in this terminal
    Watch(watch::Options),
    /// Tries what can go wrong, with real processes
    #[cfg(target_os = "linux")]
    Faults(faults::Options),
    /// Measures what a fleet costs
    Load(load::Options),
    /// Compares the module with the same commands, pipelined by hand
    #[cfg(target_os = "linux")]
    Compare(compare::Options),
}

/// What all processes of a fleet have to agree on.
#[derive(Args, Clone, Copy)]
struct Timings {
    /// How soon a death has to be known
    #[arg(long, value_name = "TIME", default_value = "6s", value_parser = duration)]
    detect_within: Duration,
    /// How long a user may take to connect again, and hasn't left
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration)]
    grace: Duration,
}

impl Timings {
    fn config(self) -> Result<Config, ConfigError> {
        let config = Config::detect_within(self.detect_within)?.to_builder();
        config.max_frame(message::MAX_LENGTH).build()
    }

    fn terms(self) -> Terms {
        Terms::new(self.detect_within, self.grace)
    }

    /// As arguments of a process.
    fn arguments(self) -> [String; 2] {
        [
            format!("--detect-within={}ms", self.detect_within.as_millis()),
            format!("--grace={}ms", self.grace.as_millis()),
        ]
    }
}

fn main() -> ExitCode {
    match run(Role::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(role: Role) -> Result<(), Box<dyn Error>> {
    #[cfg(target_os = "linux")]
    if matches!(role, Role::Faults(_)) {
        // A cut cable takes a network, and that takes root.
        heartbeat_examples::process::become_root();
    }
    // One thread is enough; and a child ends with the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build()?;
    runtime.block_on(async {
        match role {
            Role::Demo(options) => demo::run(options).await,
            Role::Gateway(options) => gateway::run(options).await,
            Role::Clients(options) => clients::run(options).await,
            Role::Watch(options) => watch::run(options).await,
            #[cfg(target_os = "linux")]
            Role::Faults(options) => faults::run(options).await,
            Role::Load(options) => load::run(options).await,
            #[cfg(target_os = "linux")]
            Role::Compare(options) => compare::run(options).await,
        }
    })
}
