//! Faults of the rebuilt monitor that the oracle found, and their relatives, each as
//! a short script.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use core::time::Duration;

use crate::common::{INSTANCE, at, secs, us};
use heartbeat_core::{Config, ConfigBuilder, Control, Event, Evidence, Instant, Monitor, Nonce};

/// Dead after 16 s.
fn timings() -> ConfigBuilder {
    Config::builder()
        .interval(secs(10))
        .timeout(secs(2))
        .jitter(0.0)
        .adaptive(false)
}

fn start(timings: ConfigBuilder) -> Monitor {
    Monitor::new(timings.build().unwrap(), 1, Instant::ORIGIN).without_hello()
}

/// The same in the protocol that has a Hello.
fn with_hello(timings: ConfigBuilder) -> Monitor {
    Monitor::new(timings.build().unwrap(), 1, Instant::ORIGIN)
}

/// A peer that accepts a ping each `min_interval`.
fn hello(min_interval: Duration) -> Control {
    let peer = timings().min_interval(min_interval);
    Control::Hello(peer.build().unwrap().hello(INSTANCE))
}

/// The pings that leave when everything is handed out.
fn pings(monitor: &mut Monitor) -> Vec<Nonce> {
    core::iter::from_fn(|| monitor.poll_transmit())
        .filter_map(|control| match control {
            Control::Ping(nonce) => Some(nonce),
            _ => None,
        })
        .collect()
}

fn next(monitor: &Monitor) -> Option<Duration> {
    let deadline = monitor.poll_timeout()?;
    Some(deadline.saturating_duration_since(Instant::ORIGIN))
}

#[test]
fn a_ping_that_was_answered_before_its_flush_serves_no_probe() {
    let mut monitor = start(timings());
    monitor.probe(at(secs(5)));
    let answered = pings(&mut monitor);
    monitor.handle_frame(Control::Pong(answered[0]), at(secs(6)));
    monitor.probe(at(secs(7)));
    assert_eq!(pings(&mut monitor).len(), 1);
}

/// We didn't read when the answer came: the peer is pinged again.
#[test]
fn a_probe_whose_ping_left_in_a_pause_waits_for_its_end() {
    let mut monitor = start(timings());
    monitor.probe(at(secs(5)));
    let probe = pings(&mut monitor);
    monitor.handle_paused(at(secs(5)));
    monitor.handle_frame(Control::Pong(probe[0]), at(secs(6)));
    assert_eq!(pings(&mut monitor).len(), 0);
    monitor.handle_resumed(at(secs(7)));
    assert_eq!(pings(&mut monitor).len(), 1);
    assert_eq!(next(&monitor), Some(secs(9)));
}

#[test]
fn a_probe_keeps_its_ping_when_we_were_asleep() {
    // It was asked for before the stall, and evidence comes after it.
    let mut monitor = start(timings());
    monitor.probe(at(secs(5)));
    monitor.handle_timeout(at(secs(12)));
    monitor.handle_bytes(at(secs(13)));
    assert_eq!(pings(&mut monitor).len(), 1);
    // It waited for the peer's min_interval.
    let mut monitor = start(timings().evidence(Evidence::Echo));
    monitor.handle_frame(hello(secs(5)), at(secs(0)));
    monitor.handle_backlog(at(secs(0)));
    let first = pings(&mut monitor);
    monitor.handle_flushed(at(secs(0)));
    monitor.probe(at(secs(1)));
    monitor.handle_timeout(at(secs(8)));
    monitor.handle_frame(Control::Pong(first[0]), at(secs(8)));
    assert_eq!(pings(&mut monitor).len(), 1);
}

#[test]
fn a_stall_of_the_writes_moves_no_verdict_that_was_not_due() {
    let timings = timings().max_missed(2).write_stall(secs(1));
    let mut monitor = start(timings.evidence(Evidence::Echo));
    monitor.handle_blocked(at(secs(0)));
    // It is 4 s late for the writes. The interval isn't over, and nothing was missed.
    monitor.handle_bytes(at(secs(5)));
    assert_eq!(pings(&mut monitor).len(), 0);
    monitor.handle_flushed(at(secs(5)));
    for now in [10, 12] {
        monitor.handle_timeout(at(secs(now)));
        pings(&mut monitor);
        monitor.handle_flushed(at(secs(now)));
    }
    monitor.handle_timeout(at(secs(14)));
    assert!(monitor.has_ended());
}

#[test]
fn a_beat_is_suspicious_after_w_whatever_was_measured() {
    // A probe measures a round trip of 3.5 s.
    let mut monitor = with_hello(timings().adaptive(true));
    monitor.probe(at(secs(0)));
    let first = pings(&mut monitor);
    monitor.handle_flushed(at(secs(0)));
    monitor.handle_timeout(at(secs(2)));
    assert_eq!(pings(&mut monitor).len(), 1);
    monitor.handle_flushed(at(secs(2)));
    monitor.handle_frame(Control::Pong(first[0]), at(us(3_500_000)));
    assert_eq!(monitor.status().last_rtt, Some(us(3_500_000)));
    // A piggybacked ping begins a round that is counted from 13.5 s.
    monitor.handle_frame(Control::Ping(Nonce([1; 8])), at(secs(11)));
    assert_eq!(pings(&mut monitor).len(), 1);
    monitor.handle_flushed(at(secs(11)));
    assert_eq!(next(&monitor), Some(secs(13)));
}

/// A ping leaves at 5 s, and the peer accepts another one `gap` later.
fn kept_alive_at_5(gap: Duration) -> Monitor {
    let mut monitor = start(timings());
    monitor.handle_frame(hello(gap), at(secs(0)));
    monitor.handle_backlog(at(secs(5)));
    assert_eq!(pings(&mut monitor).len(), 1);
    monitor.handle_flushed(at(secs(5)));
    monitor
}

#[test]
fn a_probe_that_is_due_together_with_the_interval_has_its_ping() {
    let mut monitor = kept_alive_at_5(secs(5));
    monitor.probe(at(secs(6)));
    monitor.handle_timeout(at(secs(10)));
    monitor.handle_bytes(at(secs(10)));
    assert_eq!(pings(&mut monitor).len(), 1);
}

#[test]
fn a_probe_of_an_overdue_interval_keeps_its_distance() {
    let mut monitor = kept_alive_at_5(secs(6));
    monitor.probe(at(us(10_500_000)));
    assert_eq!(pings(&mut monitor).len(), 0);
    assert_eq!(next(&monitor), Some(us(12_500_000)));
}

#[test]
fn an_input_that_says_nothing_of_the_peer_shows_that_we_slept() {
    let inputs: [fn(&mut Monitor, Instant); 2] = [Monitor::handle_backlog, |monitor, now| {
        monitor.handle_acknowledged(at(secs(0)), now);
    }];
    for input in inputs {
        let mut monitor = start(timings().evidence(Evidence::Echo));
        input(&mut monitor, at(secs(13)));
        assert_eq!(pings(&mut monitor).len(), 1);
        let late = secs(3);
        assert_eq!(monitor.poll_event(), Some(Event::LocalStall { late }));
        // Time doesn't run back to before it.
        monitor.handle_paused(at(secs(1)));
        monitor.handle_resumed(at(secs(1)));
        assert_eq!(monitor.status().last_heard, at(secs(13)));
    }
}

/// Counts the acknowledgements of the peer's kernel.
fn acknowledged(monitor: &mut Monitor, then: u64, now: u64) {
    monitor.handle_acknowledged(at(secs(then)), at(secs(now)));
}

#[test]
fn an_old_acknowledgement_makes_no_step_due() {
    let mut monitor = start(timings().evidence(Evidence::Acknowledgement));
    // The second call is late, which moves the verdict from 16 s to 24 s.
    for now in [10, 20] {
        monitor.handle_timeout(at(secs(now)));
        assert_eq!(pings(&mut monitor).len(), 1);
        monitor.handle_flushed(at(secs(now)));
    }
    // Counted from its own interval, the round would have been over at 17 s.
    acknowledged(&mut monitor, 1, 21);
    assert_eq!(monitor.status().missed, 0);
    assert_eq!(pings(&mut monitor).len(), 0);
    assert_eq!(next(&monitor), Some(secs(23)));
    monitor.handle_timeout(at(secs(23)));
    assert_eq!(next(&monitor), Some(secs(24)));
}

#[test]
fn an_old_acknowledgement_after_a_stall_leaves_a_fresh_ping_its_timeout() {
    let timings = timings().max_missed(1).stall_tolerance(secs(1));
    let mut monitor = start(timings.evidence(Evidence::Acknowledgement));
    acknowledged(&mut monitor, 1, 20);
    assert_eq!(pings(&mut monitor).len(), 1);
    monitor.handle_flushed(at(secs(21)));
    assert_eq!(next(&monitor), Some(secs(23)));
}

#[test]
fn an_old_acknowledgement_after_the_last_forgiven_stall_leaves_a_ping_its_timeout() {
    let timings = timings().max_missed(1).stall_tolerance(secs(1));
    let mut monitor = start(timings.evidence(Evidence::Acknowledgement));
    monitor.handle_timeout(at(secs(20)));
    assert_eq!(pings(&mut monitor).len(), 1);
    monitor.handle_flushed(at(secs(20)));
    // Late by 2 s. Counted from its own interval, the round was over at 15 s.
    acknowledged(&mut monitor, 1, 24);
    assert_eq!(pings(&mut monitor).len(), 1);
    assert_eq!(next(&monitor), Some(secs(26)));
}

#[test]
fn an_acknowledgement_in_a_pause_leaves_its_pings_alone() {
    let mut monitor = start(timings().evidence(Evidence::Acknowledgement));
    monitor.handle_paused(at(secs(0)));
    assert_eq!(pings(&mut monitor).len(), 1);
    monitor.handle_flushed(at(secs(0)));
    acknowledged(&mut monitor, 9, 11);
    assert_eq!(pings(&mut monitor).len(), 0);
    monitor.handle_timeout(at(secs(11)));
    assert_eq!(pings(&mut monitor).len(), 1);
}

#[test]
fn writes_that_stay_blocked_end_it_also_after_a_stall() {
    let timings = timings().max_missed(1).write_stall(secs(5));
    let mut monitor = start(timings);
    monitor.handle_blocked(at(secs(0)));
    // One stall moves their limit, to 15 s. The next one doesn't.
    monitor.handle_bytes(at(secs(13)));
    assert_eq!(next(&monitor), Some(secs(15)));
    monitor.handle_timeout(at(secs(18)));
    assert!(monitor.has_ended());
}

#[test]
fn no_round_trip_is_measured_across_a_stall_in_a_pause() {
    let mut monitor = start(timings());
    monitor.handle_paused(at(secs(0)));
    let first = pings(&mut monitor);
    monitor.handle_flushed(at(secs(0)));
    // A keepalive ping was due at 10 s.
    monitor.probe(at(secs(30)));
    monitor.handle_frame(Control::Pong(first[0]), at(secs(31)));
    assert_eq!(monitor.poll_event(), None);
}

#[test]
fn the_first_interval_keeps_its_distance_from_a_keepalive_ping() {
    for seed in 0..100 {
        let config = timings().jitter(0.25).build().unwrap();
        let mut monitor = Monitor::new(config, seed, Instant::ORIGIN).without_hello();
        monitor.handle_frame(hello(secs(5)), at(secs(0)));
        monitor.handle_backlog(at(secs(0)));
        assert_eq!(pings(&mut monitor).len(), 1);
        monitor.handle_flushed(at(secs(0)));
        assert!(next(&monitor) >= Some(us(7_500_000)));
    }
}

#[test]
fn a_larger_max_missed_counts_for_pings_that_were_held_back_with_its_hello() {
    let mut monitor = Monitor::new(timings().build().unwrap(), 1, Instant::ORIGIN);
    let says = |max_missed| {
        let peer = timings().max_missed(max_missed).build().unwrap();
        Control::Hello(peer.hello(INSTANCE))
    };
    monitor.handle_frame(says(1), at(secs(0)));
    monitor.handle_frame(says(40), at(secs(100)));
    for _ in 0..2 * 40 * (100 + 2) {
        monitor.handle_frame(Control::Ping(Nonce([7; 8])), at(secs(100)));
    }
    assert!(!monitor.has_ended());
    monitor.handle_frame(Control::Ping(Nonce([7; 8])), at(secs(100)));
    assert!(monitor.has_ended());
}

#[test]
fn an_interval_that_ends_after_the_end_of_time_never_ends() {
    let config = timings().jitter(0.25).build().unwrap();
    let start = Instant::from_micros(u64::MAX - 1_000_000);
    let mut monitor = Monitor::new(config, 1, start).without_hello();
    monitor.handle_paused(start);
    monitor.handle_resumed(start);
    assert_eq!(monitor.poll_timeout(), None);
}

#[test]
fn an_old_acknowledgement_takes_no_fresh_ping_away() {
    let timings = timings().max_missed(1);
    let mut monitor = start(timings.evidence(Evidence::Acknowledgement));
    monitor.handle_timeout(at(secs(13)));
    assert_eq!(pings(&mut monitor).len(), 1);
    // The verdict is at 15 s, and moves when the ping leaves.
    acknowledged(&mut monitor, 1, 13);
    monitor.handle_flushed(at(secs(14)));
    assert_eq!(next(&monitor), Some(secs(16)));
}

#[test]
fn a_probe_that_leaves_late_moves_no_verdict_of_the_interval() {
    let mut monitor = start(timings());
    monitor.probe(at(secs(1)));
    assert_eq!(pings(&mut monitor).len(), 1);
    monitor.handle_bytes(at(secs(1)));
    // Its flush is also the first call after the interval's end at 11 s.
    monitor.handle_flushed(at(secs(13)));
    for now in [15, 17] {
        monitor.handle_timeout(at(secs(now)));
    }
    assert!(monitor.has_ended());
}

#[test]
fn a_forgiven_stall_brings_no_step_nearer() {
    // A probe measures a round trip of 1 s.
    let timings = timings().adaptive(true).max_missed(2);
    let mut monitor = with_hello(timings.stall_tolerance(secs(1)));
    monitor.probe(at(secs(0)));
    let first = pings(&mut monitor);
    monitor.handle_flushed(at(secs(0)));
    monitor.handle_frame(Control::Pong(first[0]), at(us(500_000)));
    // A piggybacked ping begins a round that is counted from 10.5 s.
    monitor.handle_frame(Control::Ping(Nonce([1; 8])), at(secs(8)));
    assert_eq!(pings(&mut monitor).len(), 1);
    monitor.handle_flushed(at(secs(8)));
    assert_eq!(next(&monitor), Some(us(9_500_000)));
    // A stall of 1.5 s: we are late for the early suspicion.
    monitor.handle_timeout(at(secs(11)));
    assert_eq!(pings(&mut monitor).len(), 1);
    monitor.handle_flushed(at(secs(11)));
    assert_eq!(monitor.status().missed, 0);
    monitor.handle_timeout(at(secs(13)));
    // Behind the early suspicion, W from 10.5 s on and the stall.
    assert_eq!(next(&monitor), Some(secs(14)));
}
