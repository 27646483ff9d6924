//! What can be asked for. Whether this machine can hold it is decided in
//! `plan.rs`.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};
use heartbeat_examples::arguments::duration;
use heartbeat_tokio::{Config, ConfigError};

/// Opens many idle connections, says what they cost, freezes some of the peers
/// and says how soon that was found.
#[derive(Debug, Parser)]
pub struct Options {
    /// How many
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub connections: u64,
    /// How long to measure before the freeze
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub measure_for: Duration,
    /// Which part of the peers to freeze
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = share)]
    pub freeze: f64,
    /// Detect a death within this time: an interval and three timeouts, as 5
    /// to 3. The default is `Config::wan()`: 5 s and 3 s
    #[arg(long, value_name = "TIME", default_value = "14s", value_parser = duration)]
    pub detect_within: Duration,
    /// By which part an interval may be shortened
    #[arg(long, value_name = "PART", default_value_t = 0.25)]
    pub jitter: f64,
    /// How late a death may be known, beside what this machine is late by
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = duration)]
    pub tolerance: Duration,
    /// How many connections to open in a second, at most
    #[arg(long, value_name = "NUMBER", default_value_t = 3000,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub open_rate: u32,
    /// Threads of the runtime of each process
    #[arg(long, value_name = "NUMBER", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: u16,
    /// Write the result to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(subcommand)]
    pub role: Option<Role>,
}

#[derive(Debug, Subcommand)]
pub enum Role {
    /// A server or a peer, as the swarm starts it
    #[command(hide = true)]
    Member,
}

impl Options {
    /// The timings of both ends.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let config = Config::detect_within(self.detect_within)?;
        config.to_builder().jitter(self.jitter).build()
    }
}

fn share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent / 100.0),
        _ => Err("a percentage above 0 and up to 100, such as 5%".into()),
    }
}
