//! The ping of a probe is sent whatever comes; one for a silence isn't needed once there is a
//! sign of life.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use crate::common::{INSTANCE, Run, at, ms, secs};
use heartbeat_core::{Config, Control, Monitor};

/// Pings at 10 s, 12 s and 14 s, dead at 16 s.
fn start() -> Run {
    let config = Config::builder()
        .interval(secs(10))
        .timeout(secs(2))
        .jitter(0.0);
    Run::new(config.build().unwrap())
}

#[test]
fn the_ping_of_a_silence_is_not_sent_if_the_silence_ends_first() {
    let mut run = start();
    run.just_before(secs(10));
    run.monitor.handle_timeout(at(secs(10)));
    assert!(run.monitor.has_transmit());
    run.monitor.handle_bytes(at(secs(10)));
    assert_eq!(run.monitor.poll_transmit(), None);
    run.assert_dies_at(secs(26));
}

#[test]
fn a_probe_is_sent_although_the_peer_is_heard_first() {
    let mut run = start();
    run.monitor.probe(at(secs(5)));
    run.monitor.handle_bytes(at(secs(5)));
    let ping = run.monitor.poll_transmit();
    assert!(matches!(ping, Some(Control::Ping(_))), "{ping:?}");

    // The caller learns within N·W whether there is an answer.
    run.monitor.handle_flushed(at(secs(5)));
    run.assert_dies_at(secs(11));
}

#[test]
fn a_probe_of_a_round_that_is_overdue_sends_no_ping_sooner_than_the_peer_accepts() {
    let mut run = start();
    let hello = Config::builder()
        .min_interval(secs(8))
        .interval(secs(10))
        .timeout(secs(3));
    let hello = Control::Hello(hello.build().unwrap().hello(INSTANCE));
    run.at(secs(0), |monitor, now| monitor.handle_frame(hello, now));
    // Evidence overtakes the ping, which leaves nine seconds later.
    run.writable = false;
    run.at(ms(10_500), Monitor::handle_bytes);
    run.writable = true;
    run.at(secs(19), |_, _| {});
    assert_eq!(run.pings(), [secs(10)]);

    // The timer fires late, after the probe.
    run.asleep_until(secs(21));
    run.at(secs(21), Monitor::probe);
    assert_eq!(run.pings(), [secs(10)]);
    run.assert_dies_at(ms(26_500));
    assert_eq!(run.pings(), [secs(10), secs(23), secs(25)]);
}
