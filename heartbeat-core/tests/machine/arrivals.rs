//! An arrival that is reported too early, by no more than
//! `Config::arrival_slack`, makes no verdict come sooner than promised.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use std::time::Duration;

use crate::common::{Run, secs};
use heartbeat_core::{Config, Monitor};

/// What promise 2 says of a peer that was heard last at `heard_at`.
fn earliest(config: &Config, heard_at: Duration) -> Duration {
    let shortest = config.interval().mul_f64(1.0 - config.jitter());
    heard_at + shortest + config.timeout() * config.max_missed()
}

#[test]
fn in_the_first_interval() {
    let config = Config::default();
    let slack = config.arrival_slack();
    assert!(slack > Duration::ZERO);
    for seed in 0..1000 {
        // It came at `slack`, and is said to have come at once.
        let mut run = Run::seeded(config, seed);
        run.at(Duration::ZERO, Monitor::handle_bytes);
        run.until(secs(60));
        let (died_at, _) = run.death().unwrap();
        assert!(died_at >= earliest(&config, slack), "{seed}: {died_at:?}");
        assert!(died_at <= config.detection_time() + slack);
    }
}

#[test]
fn in_any_other() {
    let config = Config::default();
    let slack = config.arrival_slack();
    for seed in 0..1000 {
        let mut run = Run::seeded(config, seed);
        run.until(secs(5));
        assert!(!run.pings().is_empty(), "the first interval is over");
        run.at(secs(6), Monitor::handle_bytes);
        run.until(secs(60));
        let (died_at, _) = run.death().unwrap();
        assert!(
            died_at >= earliest(&config, secs(6) + slack),
            "{seed}: {died_at:?}"
        );
        assert!(died_at <= secs(6) + config.detection_time());
    }
}
