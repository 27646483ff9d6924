//! Which answers are known, and from which ping each is timed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use core::time::Duration;

use crate::common::{Run, ms, secs, us};
use heartbeat_core::{Config, Control, Event, Monitor};

/// Pings at 10 s, 12 s and 14 s, dead at 16 s.
fn start() -> Run {
    Run::new(config())
}

fn config() -> Config {
    let config = Config::builder().interval(secs(10)).timeout(secs(2));
    config.jitter(0.0).build().unwrap()
}

/// The answer to the ping with this index comes at `when`; the events then.
fn answer(run: &mut Run, ping: usize, when: Duration) -> Vec<Event> {
    let pong = Control::Pong(run.nonces()[ping]);
    run.told.clear();
    run.at(when, |monitor, now| monitor.handle_frame(pong, now));
    run.told.iter().map(|&(_, event)| event).collect()
}

#[test]
fn the_latest_pings_is_timed_from_when_that_one_left() {
    let mut run = start();
    run.until(secs(12));
    let events = answer(&mut run, 1, ms(12_500));
    assert!(events.contains(&Event::Beat { rtt: ms(500) }), "{events:?}");
}

#[test]
fn the_first_pings_is_timed_from_when_that_one_left() {
    let mut run = start();
    run.until(secs(12));
    let events = answer(&mut run, 0, ms(12_500));
    let rtt = ms(2_500);
    assert!(events.contains(&Event::Beat { rtt }), "{events:?}");
}

#[test]
fn that_of_one_between_them_is_a_sign_of_life_and_no_measurement() {
    let mut run = start();
    run.until(secs(14));
    let events = answer(&mut run, 1, ms(14_500));
    assert!(
        matches!(events[..], [Event::Recovered { .. }]),
        "{events:?}"
    );
    assert_eq!(run.monitor.status().pongs, 1);
    assert_eq!(run.monitor.status().last_rtt, None);
}

/// It is kept in 32 bits.
#[test]
fn one_of_more_than_71_minutes_counts_as_71_minutes() {
    let config = Config::builder().timeout(secs(10_000)).jitter(0.0);
    let mut run = Run::new(config.build().unwrap());
    run.until(secs(5));
    answer(&mut run, 0, secs(9_000));
    assert_eq!(run.monitor.status().last_rtt, Some(us(4_294_967_294)));
}

/// Three in a round, and one more for each of three stalls.
#[test]
fn answers_are_known_to_as_many_pings_as_may_be_unanswered() {
    for (ping, pongs) in [(9, 1), (4, 1), (3, 0)] {
        let mut run = Run::foreign(config(), 1);
        run.at(secs(1), Monitor::handle_paused);
        run.until(secs(91));
        assert_eq!(run.pings().len(), 10);
        run.at(secs(92), Monitor::handle_resumed);
        answer(&mut run, ping, secs(92));
        assert_eq!(run.monitor.status().pongs, pongs, "{ping}");
    }
}

/// Drivers report a flush when they can, and the peer may be faster.
#[test]
fn a_ping_that_was_answered_before_its_flush_was_reported_is_not_the_next_rounds() {
    let config = Config::builder().interval(secs(10)).timeout(secs(2));
    let config = config.max_missed(1).jitter(0.0);
    let mut run = Run::new(config.build().unwrap());
    run.writable = false;
    run.until(secs(10));
    let pong = run.answer();
    run.at(ms(10_100), |monitor, now| monitor.handle_frame(pong, now));
    run.writable = true;
    run.at(secs(13), |_, _| {});

    run.assert_dies_at(ms(22_100));
    assert_eq!(run.pings(), [secs(10), ms(20_100)]);
}
