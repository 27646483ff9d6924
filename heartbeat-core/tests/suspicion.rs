//! When a beat counts as late, and how often that is told.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

mod common;

use common::{Run, secs};
use heartbeat_core::{Cause, Config, Event, State};

/// Pings at 10 s, 12 s and 14 s, dead at 16 s.
fn start() -> Run {
    let config = Config::builder()
        .interval(secs(10))
        .timeout(secs(2))
        .jitter(0.0);
    Run::new(config.build().unwrap())
}

#[test]
fn each_missed_beat_is_told() {
    let mut run = start();
    run.just_before(secs(16));
    let missed = |missed, after| Event::Suspect {
        missed,
        silent_for: secs(after),
    };
    assert_eq!(
        run.told,
        [(secs(12), missed(1, 12)), (secs(14), missed(2, 14))]
    );
}

#[test]
fn a_ping_that_can_not_leave_is_suspicious_after_its_timeout_and_told_once() {
    let mut run = start();
    run.writable = false;
    run.just_before(secs(12));
    assert_eq!(run.told, []);
    assert_eq!(run.monitor.status().state, State::Alive);
    run.just_before(secs(16));
    let late = Event::Suspect {
        missed: 0,
        silent_for: secs(12),
    };
    assert_eq!(run.told, [(secs(12), late)]);
    assert_eq!(run.monitor.status().state, State::Suspect);
    let death = run.assert_dies_at(secs(16));
    assert_eq!(death.cause, Cause::WriteStalled);
}
