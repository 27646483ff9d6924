//! An interval that is set while the connection lives.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use core::time::Duration;

use heartbeat_core::{Config, ConfigBuilder, Control, Hello, Monitor};
use proptest::prelude::*;

use crate::common::{INSTANCE, Run, at, converse, ms, secs, us};

/// Dead 6 s after the interval.
fn timings(interval: Duration) -> ConfigBuilder {
    Config::builder()
        .interval(interval)
        .timeout(secs(2))
        .jitter(0.0)
}

fn run(interval: Duration) -> Run {
    Run::new(timings(interval).build().unwrap())
}

fn set(run: &mut Run, when: Duration, interval: Duration) {
    run.at(when, |monitor, now| {
        monitor.set_interval(interval, now).unwrap();
    });
}

fn hellos(run: &Run) -> Vec<Hello> {
    let hello = |&(_, control): &(_, Control)| match control {
        Control::Hello(hello) => Some(hello),
        _ => None,
    };
    run.sent.iter().filter_map(hello).collect()
}

#[test]
fn a_longer_interval_is_announced_and_delays_ping_and_verdict() {
    let mut run = run(secs(10));
    set(&mut run, secs(5), secs(60));
    let hellos = hellos(&run);
    assert_eq!(hellos.len(), 2);
    assert_eq!(hellos[1].interval, secs(60));
    assert_eq!(hellos[1].detection_time, secs(66));
    assert_eq!(run.monitor.config().detection_time(), secs(66));
    run.assert_dies_at(secs(66));
    assert_eq!(run.pings(), [secs(60), secs(62), secs(64)]);
}

#[test]
fn a_shorter_interval_that_is_over_asks_at_once_and_leaves_the_whole_time_for_the_answer() {
    let mut run = run(secs(60));
    set(&mut run, secs(40), secs(10));
    assert_eq!(run.pings(), [secs(40)]);
    run.assert_dies_at(secs(46));
}

#[test]
fn a_shorter_interval_that_is_not_over_is_kept_to() {
    let mut run = run(secs(60));
    set(&mut run, secs(4), secs(10));
    run.assert_dies_at(secs(16));
}

#[test]
fn a_round_under_way_goes_on_as_it_began() {
    let mut run = run(secs(10));
    set(&mut run, secs(11), secs(60));
    run.assert_dies_at(secs(16));
}

#[test]
fn the_interval_that_is_set_already_tells_nobody() {
    let mut run = run(secs(10));
    set(&mut run, secs(1), secs(10));
    assert_eq!(hellos(&run).len(), 1);
}

/// The peer may have asked as often already, and its pings may be on their way.
#[test]
fn a_min_interval_that_was_shortened_stays_short() {
    let mut run = run(secs(10));
    for interval in [ms(100), secs(60)] {
        let when = run.now + ms(1);
        set(&mut run, when, interval);
    }
    let accepted: Vec<_> = hellos(&run)
        .iter()
        .map(|hello| hello.min_interval)
        .collect();
    assert_eq!(accepted, [secs(1), ms(100), ms(100)]);
}

#[test]
fn an_interval_with_which_the_peer_would_be_refused_changes_nothing() {
    let mut run = run(secs(10));
    let peer = timings(secs(40)).timeout(secs(40)).min_interval(secs(40));
    let hello = peer.build().unwrap().hello(INSTANCE);
    run.at(secs(1), |monitor, now| {
        monitor.handle_frame(Control::Hello(hello), now);
    });
    let before = *run.monitor.config();
    let error = run.monitor.set_interval(secs(1), at(secs(2))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "interval = 1s: must be one with which the peer isn't refused for a min_interval of \
         40s, at most 22s is accepted"
    );
    assert_eq!(*run.monitor.config(), before);
    let error = run.monitor.set_interval(Duration::ZERO, at(secs(2)));
    assert_eq!(error.unwrap_err().field(), "interval");
    run.until(secs(3));
    assert_eq!(hellos(&run).len(), 1);
}

#[test]
fn an_interval_for_which_the_peer_would_refuse_us_changes_nothing() {
    let ours = timings(secs(10)).timeout(ms(20)).max_missed(3);
    let mut run = Run::new(ours.build().unwrap());
    let peer = timings(secs(10)).min_interval(ms(20));
    let hello = peer.build().unwrap().hello(INSTANCE);
    let greet = |monitor: &mut Monitor, now| monitor.handle_frame(Control::Hello(hello), now);
    run.at(secs(1), greet);
    // With a probe budget of 60 ms.
    run.monitor.set_interval(ms(40), at(secs(2))).unwrap();
    let error = run.monitor.set_interval(us(39_999), at(secs(2)));
    assert_eq!(
        error.unwrap_err().to_string(),
        "interval = 39.999ms: must be one with which the peer doesn't refuse us for a \
         detection time of 99.999ms, at least 100ms is accepted"
    );
    assert_eq!(run.monitor.config().interval(), ms(40));
    // A peer that has gone along with such a detection time goes along with another.
    let hasty = timings(ms(39)).timeout(ms(20)).max_missed(3);
    let mut run = Run::new(hasty.build().unwrap());
    run.at(ms(10), greet);
    run.monitor.set_interval(ms(30), at(ms(20))).unwrap();
}

#[test]
fn a_protocol_without_hello_has_another_interval_all_the_same() {
    let mut run = Run::foreign(timings(secs(10)).build().unwrap(), 1);
    set(&mut run, secs(5), secs(60));
    assert_eq!(run.sent, []);
    run.assert_dies_at(secs(66));
}

#[test]
fn nothing_is_set_on_a_connection_that_has_ended() {
    let mut run = run(secs(10));
    run.assert_dies_at(secs(16));
    set(&mut run, secs(17), secs(60));
    assert!(!run.monitor.has_transmit());
    assert_eq!(run.monitor.poll_timeout(), None);
}

#[test]
fn a_peer_that_follows_lets_the_connection_rest_for_as_long() {
    let mut client = Run::seeded(timings(secs(10)).build().unwrap(), 1);
    let mut server = Run::seeded(timings(secs(10)).build().unwrap(), 2);
    converse(&mut client, &mut server, ms(50), secs(5));
    set(&mut client, secs(5), secs(600));
    converse(&mut client, &mut server, ms(50), secs(6));
    let announced = server.monitor.status().peer.unwrap().interval;
    set(&mut server, secs(6), announced);
    converse(&mut client, &mut server, ms(50), secs(3600));
    client.assert_alive();
    server.assert_alive();
    for side in [&client, &server] {
        assert!((5..=6).contains(&side.pings().len()), "{:?}", side.pings());
    }
}

proptest! {
    #[test]
    fn intervals_that_are_set_at_any_time_raise_no_alarm(
        settings in prop::collection::vec((any::<bool>(), 0..30_000_u64, 100..60_000_u64), 0..30),
        delay in 0..900_u64,
    ) {
        let mut a = Run::seeded(timings(secs(10)).build().unwrap(), 1);
        let mut b = Run::seeded(timings(secs(10)).jitter(0.25).build().unwrap(), 2);
        for (is_a, after, interval) in settings {
            let when = a.now + ms(after);
            converse(&mut a, &mut b, ms(delay), when);
            let side = if is_a { &mut a } else { &mut b };
            set(side, when, ms(interval));
        }
        let end = a.now + secs(600);
        converse(&mut a, &mut b, ms(delay), end);
        for side in [&a, &b] {
            side.assert_alive();
            prop_assert_eq!(side.suspicions(), 0);
        }
    }
}

#[test]
fn a_side_that_does_not_read_takes_it_too() {
    let mut run = run(secs(10));
    run.at(secs(1), Monitor::handle_paused);
    set(&mut run, secs(2), secs(1));
    run.until(secs(5));
    assert_eq!(hellos(&run).len(), 2);
    assert_eq!(run.signs(), [secs(1), secs(2), secs(3), secs(4), secs(5)]);
}
