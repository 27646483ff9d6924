//! When a beat counts as late, and how often that is told.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use core::time::Duration;

use crate::common::{Run, ms, secs, us};
use heartbeat_core::{Cause, Config, Event, Instant, State};

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
fn a_ping_that_can_not_leave_is_no_late_beat() {
    let mut run = start();
    run.writable = false;
    run.just_before(secs(16));
    assert_eq!(run.told, []);
    assert_eq!(run.monitor.status().state, State::Alive);
    let death = run.assert_dies_at(secs(16));
    assert_eq!((death.cause, death.missed), (Cause::WriteStalled, 0));
}

/// One that left was late; the one behind it waits, and is late for nobody.
#[test]
fn a_suspicion_stays_while_the_next_ping_can_not_leave() {
    let mut run = start();
    run.until(secs(10));
    run.writable = false;
    run.just_before(secs(16));
    let late = Event::Suspect {
        missed: 1,
        silent_for: secs(12),
    };
    assert_eq!(run.told, [(secs(12), late)]);
    assert_eq!(run.monitor.status().state, State::Suspect);
    let death = run.assert_dies_at(secs(16));
    assert_eq!((death.cause, death.missed), (Cause::Silent, 3));
}

/// Round trips of 100.001 ms and 180 ms: smoothed 100.001 ms with a variation
/// of 50 ms, then 110.001 ms with 57.5 ms.
#[test]
fn it_follows_the_round_trips_as_rfc_6298_says() {
    let config = Config::builder()
        .interval(secs(10))
        .timeout(secs(2))
        .jitter(0.0)
        .adaptive_floor(us(1));
    let mut run = Run::new(config.build().unwrap());
    let mut pinged = secs(10);
    let trips = [
        (us(100_001), us(100_001), us(300_001)),
        (ms(180), us(110_001), us(340_001)),
    ];
    for (trip, smoothed, suspicious) in trips {
        run.until(pinged);
        let pong = run.answer();
        run.at(pinged + trip, |monitor, now| {
            monitor.handle_frame(pong, now);
        });
        assert_eq!(run.monitor.status().last_rtt, Some(trip));
        assert_eq!(run.monitor.status().smoothed_rtt, Some(smoothed));
        pinged += trip + secs(10);
        assert_eq!(suspected_at(&run), Some(pinged + suspicious));
    }
}

/// If nothing comes from now on.
fn suspected_at(run: &Run) -> Option<Duration> {
    let mut monitor = run.monitor.clone();
    loop {
        let now = monitor.poll_timeout()?;
        monitor.handle_timeout(now);
        while monitor.poll_transmit().is_some() {}
        monitor.handle_flushed(now);
        while let Some(event) = monitor.poll_event() {
            if matches!(event, Event::Suspect { .. }) {
                return Some(now.saturating_duration_since(Instant::ORIGIN));
            }
        }
    }
}
