//! Who receives in bulk shows that it lives: the peer's pings wait behind what
//! it sends.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use crate::common::{Run, ms, secs};
use heartbeat_core::{Config, ConfigBuilder, Control, Instant, Monitor};

fn timings() -> ConfigBuilder {
    Config::builder()
        .interval(secs(10))
        .timeout(secs(2))
        .jitter(0.0)
}

/// A minute of bytes, one batch each 100 ms.
fn a_minute(run: &mut Run, batch: fn(&mut Monitor, Instant)) {
    for tenth in 1..=600 {
        run.at(ms(100) * tenth, batch);
    }
}

fn bytes(monitor: &mut Monitor, now: Instant) {
    monitor.handle_bytes(now);
}

fn bulk(monitor: &mut Monitor, now: Instant) {
    monitor.handle_bytes(now);
    monitor.handle_backlog(now);
}

#[test]
fn it_pings_once_an_interval_although_it_hears_the_peer() {
    let mut run = Run::new(timings().build().unwrap());
    a_minute(&mut run, bulk);
    let tenth = ms(100);
    let every_ten = (0..6).map(|round| tenth + secs(10) * round);
    assert_eq!(run.pings(), every_ten.collect::<Vec<_>>());
    // That they stay unanswered is held against nobody.
    assert_eq!(run.told, []);
    assert_eq!(run.monitor.status().missed, 0);
}

#[test]
fn such_a_ping_makes_nobody_judge_sooner() {
    let mut run = Run::new(timings().build().unwrap());
    run.at(secs(1), bulk);
    assert_eq!(run.pings(), [secs(1)]);
    run.assert_dies_at(secs(17));
}

#[test]
fn without_a_backlog_a_peer_that_is_heard_is_not_pinged() {
    let mut run = Run::new(timings().build().unwrap());
    a_minute(&mut run, bytes);
    assert_eq!(run.pings(), []);
}

#[test]
fn an_impatient_peer_is_pinged_as_often_as_it_would_ping() {
    let mut run = Run::new(timings().build().unwrap());
    let impatient = timings().interval(secs(1)).build().unwrap();
    run.at(ms(0), |monitor, now| {
        monitor.handle_frame(Control::Hello(impatient.hello()), now);
    });
    a_minute(&mut run, bulk);
    assert_eq!(run.pings().len(), 60);
}

#[test]
fn a_peer_that_accepts_only_slow_pings_gets_slow_ones() {
    let mut run = Run::new(timings().build().unwrap());
    let slow = timings()
        .interval(secs(30))
        .timeout(secs(10))
        .min_interval(secs(30))
        .build()
        .unwrap();
    run.at(ms(0), |monitor, now| {
        monitor.handle_frame(Control::Hello(slow.hello()), now);
    });
    a_minute(&mut run, bulk);
    assert_eq!(run.pings(), [ms(100), ms(30_100)]);
}

/// A ping that can't leave isn't followed by others.
#[test]
fn one_ping_at_a_time() {
    let mut run = Run::new(timings().build().unwrap());
    run.writable = false;
    a_minute(&mut run, bulk);
    assert_eq!(run.pings(), [ms(100)]);
}
