//! Saying goodbye: it never turns into a death, and it is bounded.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use crate::common::{GOODBYE, LEFT, Run, at, leave, secs};
use heartbeat_core::{CloseReason, Config, Control, End, Event, Instant, Monitor, Nonce, State};

/// I = 10 s, W = 2 s, N = 3.
fn start() -> Run {
    let config = Config::builder()
        .interval(secs(10))
        .timeout(secs(2))
        .jitter(0.0);
    Run::new(config.build().unwrap())
}

/// Goodbye was said at one second and can't leave.
fn stuck() -> Run {
    let mut run = start();
    run.writable = false;
    run.at(secs(1), leave);
    assert_eq!(run.monitor.status().state, State::Closing);
    assert!(!run.monitor.has_ended());
    run
}

fn closed(reason: CloseReason) -> Event {
    Event::Closed { reason }
}

#[test]
fn it_ends_when_the_goodbye_has_left() {
    let mut run = start();
    run.at(secs(1), leave);
    assert_eq!(run.sent.last(), Some(&(secs(1), GOODBYE)));
    assert_eq!(run.told, [(secs(1), closed(CloseReason::Local))]);
    assert_eq!(run.monitor.status().state, State::Closed);
    assert!(run.monitor.has_ended());
    assert_eq!(run.monitor.poll_timeout(), None);
    run.until(secs(3600));
    assert_eq!(run.told.len(), 1);
}

#[test]
fn it_gives_up_when_writes_make_no_progress() {
    let mut run = stuck();
    run.just_before(secs(7));
    assert_eq!(run.told, []);
    run.until(secs(7));
    assert_eq!(run.told, [(secs(7), closed(CloseReason::Local))]);
}

#[test]
fn progress_gives_it_more_time() {
    let mut run = stuck();
    run.at(secs(6), Monitor::handle_progress);
    run.just_before(secs(12));
    assert_eq!(run.told, []);
    run.until(secs(12));
    assert_eq!(run.told, [(secs(12), closed(CloseReason::Local))]);
}

#[test]
fn saying_it_again_gives_it_none() {
    let mut run = stuck();
    run.at(secs(3), leave);
    run.until(secs(7));
    assert_eq!(run.told, [(secs(7), closed(CloseReason::Local))]);
    let goodbyes = run.sent.iter().filter(|(_, control)| *control == GOODBYE);
    assert_eq!(goodbyes.count(), 1);
}

#[test]
fn a_transport_that_ends_meanwhile_is_no_death() {
    for end in [End::Eof, End::Reset, End::TimedOut, End::Io] {
        let mut run = stuck();
        run.at(secs(2), |monitor, now| monitor.handle_end(end, now));
        assert_eq!(run.told, [(secs(2), closed(CloseReason::Local))]);
    }
}

#[test]
fn the_peer_may_be_faster() {
    let mut run = stuck();
    run.at(secs(2), |monitor, now| {
        monitor.handle_frame(GOODBYE, now);
    });
    assert_eq!(run.told, [(secs(2), closed(LEFT))]);
}

#[test]
fn nothing_else_is_answered_or_sent() {
    let mut run = start();
    // A ping of ours is due, and one of the peer's is to be answered.
    run.just_before(secs(10));
    run.writable = false;
    let now = at(secs(10));
    run.monitor.handle_timeout(now);
    run.monitor.handle_frame(Control::Ping(Nonce([1; 8])), now);
    leave(&mut run.monitor, now);
    run.monitor.handle_frame(Control::Ping(Nonce([2; 8])), now);
    assert_eq!(run.monitor.poll_transmit(), Some(GOODBYE));
    assert_eq!(run.monitor.poll_transmit(), None);
    assert_eq!(run.monitor.poll_event(), None);
}

#[test]
fn a_ping_that_was_due_is_not_sent_any_more() {
    let mut run = start();
    run.just_before(secs(10));
    run.monitor.handle_timeout(at(secs(10)));
    assert!(run.monitor.has_transmit());
    leave(&mut run.monitor, at(secs(10)));
    assert_eq!(run.monitor.poll_transmit(), Some(GOODBYE));
    assert_eq!(run.monitor.poll_transmit(), None);
}

#[test]
fn a_clock_that_has_run_out_does_not_make_it_endless() {
    let mut run = stuck();
    run.monitor.handle_progress(Instant::MAX);
    run.monitor.handle_timeout(Instant::MAX);
    assert_eq!(run.monitor.poll_event(), Some(closed(CloseReason::Local)));
}

#[test]
fn a_goodbye_is_said_after_the_hello() {
    let mut monitor = Monitor::new(Config::default(), 1, Instant::ORIGIN);
    leave(&mut monitor, Instant::ORIGIN);
    assert!(matches!(monitor.poll_transmit(), Some(Control::Hello(_))));
    assert_eq!(monitor.poll_transmit(), Some(GOODBYE));
    monitor.handle_flushed(Instant::ORIGIN);
    assert_eq!(monitor.poll_event(), Some(closed(CloseReason::Local)));
}

#[test]
fn a_status_says_how_it_ended() {
    let mut run = start();
    assert_eq!(run.monitor.status().state, State::Alive);
    run.until(secs(12));
    assert_eq!(run.monitor.status().state, State::Suspect);
    run.until(secs(16));
    assert_eq!(run.monitor.status().state, State::Dead);
    assert!(run.monitor.has_ended());

    let mut run = start();
    run.at(secs(1), |monitor, now| {
        monitor.handle_frame(GOODBYE, now);
    });
    assert_eq!(run.monitor.status().state, State::Closed);
}
