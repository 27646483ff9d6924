//! Who asks: a passive side leaves it to the peer, where it can.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use crate::common::{Run, ms, secs};
use heartbeat_core::{Config, ConfigBuilder, Event, Monitor, Role};

/// Dead after 16 s.
fn passive() -> ConfigBuilder {
    Config::builder()
        .interval(secs(10))
        .timeout(secs(2))
        .jitter(0.0)
        .role(Role::Passive)
}

#[test]
fn a_passive_side_gives_the_peers_ping_a_whole_timeout_however_short_round_trips_are() {
    let mut run = Run::new(passive().build().unwrap());
    run.at(secs(1), Monitor::probe);
    let pong = run.answer();
    run.at(ms(1_050), |monitor, now| monitor.handle_frame(pong, now));
    run.told.clear();
    run.just_before(ms(13_050));
    assert_eq!(run.told, []);
    run.until(ms(13_050));
    assert!(
        matches!(run.told[..], [(_, Event::Suspect { missed: 1, .. })]),
        "{:?}",
        run.told
    );
    assert_eq!(run.pings(), [secs(1), ms(13_050)]);
}

#[test]
fn where_one_miss_decides_a_passive_side_asks_itself() {
    let mut run = Run::new(passive().max_missed(1).build().unwrap());
    run.until(secs(10));
    assert_eq!(run.pings(), [secs(10)]);
    run.assert_dies_at(secs(12));
}
